"""One encoded image to 8-bit pixels: grey (H, W) or colour (H, W, 3), upright, opaque, on the 0..255 scale.

Pixels mean what the file says. 16-bit grey and 16-bit PNG are scaled to 8 bits by rounding (65535 is white), an EXIF or
TIFF orientation is applied, and transparent pixels show a white background; colour profiles and gamma are not applied.
What has no stated range (floats, 32-bit integers) or no single picture (animations, several pages) is refused.
"""

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps

from core_dd.errors import InputError, require

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is read, whatever a file's name ends in; Pillow opens others, one of them by starting a program."""

VERSION = 3
"""Of what decoding gives: part of the key of whatever is kept, raised when the same file gives other pixels."""

_MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**30 // 12  # Pillow's own, also where other code switched it off
"""The most that one image may have, as it is stored or resized."""

_WHITE = 255
ORIENTATION, _BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 0x0112, 258, 262, 339
WHITE_IS_ZERO = 0
_UNSIGNED = {1, 4}
"""Of a TIFF: unsigned integers, or nothing said."""


def decode_image(place: str, content: bytes, image_size: int | None) -> np.ndarray:
    """One image as uint8 (H, W), or (H, W, 3) if it has colour.

    Args:
        place: where it came from, for messages.
        content: the file.
        image_size: short side after resizing, then centre crop; None keeps the size.

    Raises:
        InputError: if it does not decode, or its pixels have no stated meaning; the message names `place`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels = _pixels(content)
        return pixels if image_size is None else np.asarray(fit(Image.fromarray(pixels), image_size))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        reason = f"it claims more than {_MAX_PIXELS / 1e6:.0f} million pixels. Store it smaller."
    except InputError as error:
        reason = str(error)
    except Image.UnidentifiedImageError:
        reason = f"it is truncated or corrupt, or none of {', '.join(_FORMATS)}."
    except Exception as error:  # Pillow raises many kinds for a damaged file; each means the same to the user
        reason = f"{str(error) or type(error).__name__}. The image is truncated or corrupt."
    raise InputError(f"cannot decode {place}: {reason}")


def is_image(content: bytes) -> bool:
    """Whether these bytes begin like an image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(content), formats=_FORMATS).close()
    except Exception:  # as in `decode_image`
        return False
    return True


def _pixels(content: bytes) -> np.ndarray:
    """The image upright, uint8 (H, W) or (H, W, 3)."""
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photo and its previews
        require(frames == 1, f"it holds {frames} frames or pages. Store each as an image of its own.")
        image.load()  # which turns a TIFF upright
        pixels, turned = _eight_bits(image, content), image.getexif().get(ORIENTATION, 1)
    require(pixels.size > 0, "it has no pixels.")
    if turned == 1:
        return pixels
    picture = Image.fromarray(pixels)
    picture.getexif()[ORIENTATION] = turned
    ImageOps.exif_transpose(picture, in_place=True)
    return np.asarray(picture)


def _eight_bits(image: Image.Image, content: bytes) -> np.ndarray:
    """The pixels as uint8 (H, W) or (H, W, 3)."""
    require(
        image.mode != "F",
        "its pixels are floating-point numbers of no stated range. Store it with 8 or 16 bits a channel.",
    )
    signed = image.format == "TIFF" and not _UNSIGNED.issuperset(image.tag_v2.get(SAMPLE_FORMAT, ()))
    require(not signed, "its pixels are signed numbers. Store it with 8 or 16 unsigned bits.")
    if image.mode.startswith("I"):
        return _grey(image)
    if _bits(image, content) > 8:
        return _deep(image, content)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.format == "PNG" and grey and "transparency" in image.info:  # a value of as few bits as the file's pixels
        image.info["transparency"] *= _WHITE // (2 ** _bits(image, content) - 1)
    if image.has_transparency_data:
        pixels = _opaque(np.asarray(image.convert("LA" if grey else "RGBA")))
    else:
        mode = "L" if grey else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    of_palette = image.mode in ("P", "PA") and (pixels == pixels[..., :1]).all()  # so is a grey GIF stored
    return np.ascontiguousarray(pixels[..., 0]) if of_palette else pixels


def _bits(image: Image.Image, content: bytes) -> int:
    """The bits of each channel, where Pillow would cut more than 8 to 8."""
    if image.format == "PNG":
        return content[24]  # the ninth byte of IHDR, always the first chunk
    return max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) if image.format == "TIFF" else 8


def _grey(image: Image.Image) -> np.ndarray:
    """The pixels of a grey image of 9 to 16 bits."""
    stated = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")  # which give mode I for 16 bits
    require(
        stated and "transparency" not in image.info,
        "its pixels are of 32 bits, or of 16 with transparency. Store it with 8 or 16 unsigned bits.",
    )
    tiff = image.tag_v2 if image.format == "TIFF" else {}
    peak = 2 ** max(tiff.get(_BITS_PER_SAMPLE, (16,))) - 1
    values = np.asarray(image).astype(np.uint32)
    return _rounded(peak - values if tiff.get(PHOTOMETRIC) == WHITE_IS_ZERO else values, peak)


def _deep(image: Image.Image, content: bytes) -> np.ndarray:
    """The pixels of a 16-bit image with colour or transparency: PNG only."""
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_image as decode

    require(
        image.format == "PNG" and "transparency" not in image.info,
        "it has 16 bits a channel, which is read of grey images and of PNG without a transparent colour. "
        "Store it with 8 bits.",
    )
    planes = decode(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    pixels = _rounded(planes.numpy().transpose(1, 2, 0).astype(np.uint32), 65535)
    return _opaque(pixels) if pixels.shape[2] in (2, 4) else pixels


def _rounded(values: np.ndarray, peak: int) -> np.ndarray:
    """Integers on the 0..peak scale as uint8 on 0..255, to the nearest."""
    return ((values * _WHITE + peak // 2) // peak).astype(np.uint8)


def _opaque(pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 2 or 4) whose last channel is opacity, before white: (H, W) or (H, W, 3)."""
    colour, opacity = pixels[..., :-1], pixels[..., -1:]
    if opacity.min() < _WHITE:
        alpha = opacity.astype(np.uint32)
        colour = ((colour * alpha + _WHITE * (_WHITE - alpha) + _WHITE // 2) // _WHITE).astype(np.uint8)
    return colour[..., 0] if colour.shape[2] == 1 else np.ascontiguousarray(colour)


def fit(image: Image.Image, size: int | None) -> Image.Image:
    """Bring the short side to `size` (bicubic, antialiased) and crop the centre; None returns the image as it is.

    Raises:
        InputError: if the image is so long and thin that it would not fit in memory.
    """
    if size is None or image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    require(
        width * height <= _MAX_PIXELS,
        f"with a short side of {size} it would be {width}x{height} pixels. Crop it first.",
    )
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
