"""Factor-and-upsample (Kim et al., IDC, ICML 2022): a stored image holds l x l smaller ones, seen enlarged."""

import torch.nn.functional as F
from torch import Tensor

from core_dd.errors import require

PAD = 0.5
"""What a side that l does not divide is filled up with, below and to the right: grey pixels."""


def decode(pixels: Tensor, factor: int) -> Tensor:
    """Cut every image into factor x factor tiles and enlarge each to the image's size (bilinear).

    Args:
        pixels: float (..., N, C, H, W) on the 0..1 scale.
        factor: l; 1 returns the images themselves.

    Returns:
        (..., N l^2, C, H, W), tile by tile: the upper left tile of all N images, then the one to its right, and so on
        row by row. Their labels are those of the images, repeated l^2 times. Differentiable.

    Raises:
        InputError: if the factor does not fit the image.
    """
    check_factor(factor, *pixels.shape[-2:])
    if factor == 1:
        return pixels
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (0, -width % factor, 0, -height % factor), value=PAD)
    rows = padded.unflatten(-2, (factor, -1)).unflatten(-1, (factor, -1))  # (..., N, C, l, h, l, w)
    tiles = rows.permute(*range(pixels.ndim - 4), -4, -2, -6, -5, -3, -1)  # (..., l, l, N, C, h, w)
    flat = tiles.flatten(0, -4)
    enlarged = F.interpolate(flat, size=(height, width), mode="bilinear", align_corners=False)
    return enlarged.reshape(*pixels.shape[:-4], -1, *pixels.shape[-3:])


def check_factor(factor: int, height: int, width: int) -> None:
    """Raise `InputError` unless every one of factor x factor tiles shows a part of an image of this size."""
    require(factor >= 1, f"factor must be >= 1, got {factor}.")
    fits = all((factor - 1) * -(-side // factor) < side for side in (height, width))
    require(fits, f"factor {factor} does not fit images of {height}x{width}: tiles would be empty. Lower it.")
