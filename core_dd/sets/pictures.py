"""Picture grids of image sets: one class per row, real pixels enlarged without smoothing."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageChops
from torch import Tensor

from core_dd.errors import require
from core_dd.files import atomic
from core_dd.sets.labels import hardened

_CELL = 32  # pixels a small image is enlarged to, at least


def grid(
    images: Tensor,
    labels: Tensor,
    per_class: int = 10,
    *,
    scale: int | None = None,
    classes: Sequence[int] | None = None,
    gap: int | None = None,
) -> Image.Image:
    """The first `per_class` images of each class, a class per row, in the order given.

    Args:
        images: (N, C, H, W) with C 1 or 3; uint8 0..255, or float on the 0..1 scale (clamped for display only).
        labels: int64 (N,), or soft float (N, K), shown under their largest class.
        per_class: columns at most; a class with fewer images leaves its places empty.
        scale: whole-number enlargement of every pixel; None enlarges images below 32 pixels to about 32.
        classes: the rows, as class indices; None shows 0..(largest label), so an absent class is a visible gap.
        gap: empty pixels between images; None takes a sixteenth of the cell, at least 1.

    Returns:
        An RGBA image; the gaps are transparent white, so it suits light and dark pages.

    Raises:
        InputError: if shapes, channels, `per_class` or `scale` make no picture.

    Examples:
        >>> import torch
        >>> grid(torch.rand(6, 1, 8, 8), torch.tensor([0, 0, 1, 1, 2, 2])).size
        (66, 100)
    """
    require(images.ndim == 4, f"a grid needs images (N, C, H, W), got shape {tuple(images.shape)}.")
    count, channels, height, width = images.shape
    require(channels in (1, 3), f"a grid needs 1 or 3 channels, got {channels}.")
    require(count > 0, "a grid needs at least one image, got none.")
    require(len(labels) == count, f"a grid needs one label per image, got {len(labels)} labels for {count} images.")
    require(per_class >= 1, f"per_class must be >= 1, got {per_class}.")
    scale = max(1, round(_CELL / max(height, width))) if scale is None else scale
    require(scale >= 1, f"scale must be >= 1, got {scale}.")
    gap = max(1, scale * max(height, width) // 16) if gap is None else gap

    hard = hardened(labels)
    classes = range(int(hard.max()) + 1) if classes is None else classes
    chosen = [torch.nonzero(hard == k).flatten()[:per_class] for k in classes]
    columns, step_y, step_x = max(1, *(len(row) for row in chosen)), height * scale + gap, width * scale + gap

    canvas = torch.full((len(chosen) * step_y - gap, columns * step_x - gap, 4), 255, dtype=torch.uint8)
    canvas[..., 3] = 0
    for y, row in enumerate(chosen):
        for x, index in enumerate(row.tolist()):
            top, left = y * step_y, x * step_x
            canvas[top : top + height * scale, left : left + width * scale] = _rgba(images[index], scale)
    return Image.fromarray(canvas.numpy())


def save_grid(path: str | Path, images: Tensor, labels: Tensor, **options) -> None:
    """Write `grid(images, labels, **options)` as a PNG, whole or not at all.

    Raises:
        InputError: as `grid`, and if the place cannot be written.
    """
    data = png(grid(images, labels, **options))
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def png(image: Image.Image) -> bytes:
    """The PNG file of an image, as bytes; one of greys alone is stored as greys, a third smaller."""
    if image.mode == "RGBA":
        red, green, blue, _ = image.split()
        if not any(ImageChops.difference(red, other).getbbox() for other in (green, blue)):
            image = image.convert("LA")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def image_bytes(image: Tensor) -> bytes:
    """The PNG file of one image (C, H, W), C 1 or 3: uint8, or float on the 0..1 scale, clamped and rounded to 8 bits.

    Raises:
        InputError: for another number of channels.
    """
    require(image.shape[0] in (1, 3), f"a picture needs 1 or 3 channels, got {image.shape[0]}.")
    pixels = _eight_bits(image)
    return png(Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy()))


def _eight_bits(image: Tensor) -> Tensor:
    """An image as uint8, on the CPU."""
    image = image.detach().cpu()
    if image.dtype == torch.uint8:
        return image.contiguous()
    return image.float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)


def _rgba(image: Tensor, scale: int) -> Tensor:
    """One image (C, H, W) as opaque uint8 (H * scale, W * scale, 4)."""
    image = _eight_bits(image).expand(3, -1, -1).repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)
    return torch.cat([image, torch.full_like(image[:1], 255)]).permute(1, 2, 0)
