"""What a file's pixels mean: every mode, depth and orientation that image files come in."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from core_dd.data import decoding
from core_dd.data.decoding import decode_image, is_image
from core_dd.errors import InputError

DEEP = np.array([[0, 3 * 257 + 128, 65535], [32768, 129, 128]], np.uint16)
"""Of 16 bits; 257 of them are one of 8."""
SHALLOW = [0, 3, 255, 128, 1, 0]
GREY = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
COLOUR = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def encoded(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def png(
    pixels: np.ndarray, colour_type: int, depth: int = 16, size: tuple[int, int] | None = None, clear: int | None = None
) -> bytes:
    """A PNG as Pillow does not write them; `size` is what it claims, `clear` the value that is transparent.

    Below 8 bits `pixels` are bytes of several.
    """

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    width, height = size or (max(1, 8 // depth) * pixels.shape[1], pixels.shape[0])
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in pixels)
    see_through = b"" if clear is None else chunk(b"tRNS", struct.pack(">H", clear))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + see_through
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def decoded(content: bytes, size: int | None = None) -> np.ndarray:
    return decode_image("x", content, size)


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(DEEP), "PNG"),
        encoded(Image.fromarray(DEEP), "TIFF"),
        encoded(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
        encoded(Image.fromarray(65535 - DEEP), "TIFF", tiffinfo={decoding.PHOTOMETRIC: decoding.WHITE_IS_ZERO}),
        encoded(Image.fromarray(DEEP.astype(np.int32)), "PPM"),
        png(np.stack([DEEP, np.full_like(DEEP, 65535)], 2), colour_type=4),
    ],
    ids=["png", "tiff", "big-endian tiff", "white-is-zero tiff", "pgm", "opaque png"],
)
def test_grey_of_16_bits__is_rounded_to_8(content):
    pixels = decoded(content)
    assert pixels.dtype == np.uint8 and pixels.shape == (2, 3) and pixels.flatten().tolist() == SHALLOW


def test_colour_of_16_bits__is_rounded_to_8():
    deep = (np.arange(18) * 3641).astype(np.uint16).reshape(2, 3, 3)
    expected = np.rint(deep / 257).astype(np.uint8)
    assert np.array_equal(decoded(png(deep, colour_type=2)), expected)
    opaque, clear = (np.full((2, 3, 1), value, np.uint16) for value in (65535, 0))
    assert np.array_equal(decoded(png(np.concatenate([deep, opaque], 2), colour_type=6)), expected)
    assert (decoded(png(np.concatenate([deep, clear], 2), colour_type=6)) == 255).all()


@pytest.mark.parametrize(("mode", "form"), [("L", "PNG"), ("L", "BMP"), ("L", "TIFF"), ("L", "PPM"), ("L", "GIF")])
def test_grey__stays_one_channel(mode, form):
    assert np.array_equal(decoded(encoded(Image.fromarray(GREY).convert(mode), form)), GREY)


@pytest.mark.parametrize(
    ("depth", "byte", "clear", "expected"),
    [
        (1, 0b10100000, 0, [255] * 8),
        (1, 0b10100000, 1, [255, 0, 255, 0, 0, 0, 0, 0]),
        (2, 0b00011011, 1, [0, 255, 170, 255]),
        (4, 0x34, 3, [255, 68]),
        (8, 7, 7, [255]),
    ],
)
def test_grey_of_few_bits__whose_transparent_value_is_of_as_few(depth, byte, clear, expected):
    pixels = decoded(png(np.array([[byte]], np.uint8), 0, depth, clear=clear))
    assert pixels.tolist() == [expected]


def test_signed_bytes__are_refused():
    content = encoded(Image.fromarray(GREY), "TIFF", tiffinfo={decoding.SAMPLE_FORMAT: 2})
    with pytest.raises(InputError, match="its pixels are signed numbers"):
        decoded(content)


def test_bilevel__is_black_and_white():
    assert np.array_equal(decoded(encoded(Image.fromarray(GREY > 30), "PNG")), (GREY > 30) * 255)


@pytest.mark.parametrize(
    ("mode", "form"), [("RGB", "PNG"), ("P", "PNG"), ("P", "GIF"), ("CMYK", "TIFF"), ("LAB", "TIFF")]
)
def test_colour__comes_back(mode, form):
    image = Image.fromarray(COLOUR)
    if mode == "LAB":
        image = Image.new("LAB", (3, 2), (255, 128, 128))  # white
        assert (decoded(encoded(image, form)) >= 254).all()
    else:
        assert np.array_equal(decoded(encoded(image.convert(mode, palette=Image.Palette.ADAPTIVE), form)), COLOUR)


def test_transparency__shows_white():
    reds = np.zeros((1, 3, 4), np.uint8)
    reds[..., 0], reds[..., 3] = 255, [255, 128, 0]
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        pixels = decoded(encoded(Image.fromarray(reds), form, **options))
        assert pixels.tolist() == [[[255, 0, 0], [255, 127, 127], [255, 255, 255]]], form
    assert decoded(encoded(Image.fromarray(reds).convert("LA"), "PNG")).tolist() == [[76, 165, 255]]


def test_transparency__of_a_palette_or_a_colour_key():
    reds = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))
    palette = reds.convert("P", palette=Image.Palette.ADAPTIVE)
    for form in ("PNG", "GIF"):
        pixels = decoded(encoded(palette, form, transparency=palette.getpixel((0, 0))))
        assert pixels.tolist() == [[[255, 255, 255], [0, 0, 255]]], form
    assert decoded(encoded(reds, "PNG", transparency=(255, 0, 0))).tolist() == [[[255, 255, 255], [0, 0, 255]]]
    assert decoded(encoded(Image.fromarray(GREY), "PNG", transparency=10))[0].tolist() == [255, 20, 30]


def test_opaque__alpha_is_dropped():
    assert np.array_equal(decoded(encoded(Image.fromarray(COLOUR).convert("RGBA"), "PNG")), COLOUR)
    assert np.array_equal(decoded(encoded(Image.fromarray(GREY).convert("LA"), "PNG")), GREY)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_orientation__is_upright(form, orientation, turn):
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = orientation
    how = {"TIFF": {"tiffinfo": {decoding.ORIENTATION: orientation}}, "WEBP": {"lossless": True, "exif": exif}}
    content = encoded(Image.fromarray(COLOUR), form, **how.get(form, {"exif": exif}))
    assert np.array_equal(decoded(content), np.rot90(COLOUR, turn))


def test_orientation__of_16_bits():
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    pixels = decoded(encoded(Image.fromarray(DEEP), "PNG", exif=exif))
    assert np.array_equal(pixels, np.rot90(np.reshape(SHALLOW, (2, 3)), 3))


TWO = [Image.fromarray(GREY), Image.fromarray(GREY + 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(Image.fromarray(DEEP / np.float32(65535)), "TIFF"), "floating-point numbers of no stated range"),
        (encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), "its pixels are signed numbers"),
        (encoded(TWO[0], "GIF", save_all=True, append_images=TWO[1:]), "holds 2 frames or pages"),
        (encoded(TWO[0], "PNG", save_all=True, append_images=TWO[1:]), "holds 2 frames or pages"),
        (encoded(TWO[0], "TIFF", save_all=True, append_images=TWO[1:]), "holds 2 frames or pages"),
        (encoded(TWO[0], "PNG")[:-24], "truncated"),
        (png(DEEP, 0, size=(10**4, 10**4)), "claims more than 89 million pixels"),
        (png(DEEP, 0, size=(10**5, 10**5)), "claims more than 89 million pixels"),
        (png(DEEP, 0, size=(0, 2)), "truncated or corrupt"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of BMP, GIF, JPEG"),
        (b"", "truncated or corrupt"),
    ],
)
def test_what_has_no_one_meaning_is_refused(content, message):
    with pytest.raises(InputError, match=f"^cannot decode x: .*{message}"):
        decoded(content)


def test_resizing__a_thread_of_pixels():
    with pytest.raises(InputError, match="cannot decode x: with a short side of 4096 it would be 81920000x4096 pixels"):
        decoded(encoded(Image.new("L", (20000, 1)), "PNG"), 4096)


def test_is_image():
    assert is_image(encoded(TWO[0], "PNG")) and not is_image(b"0123") and not is_image(b"")
