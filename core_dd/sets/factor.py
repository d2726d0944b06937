"""Factor-and-upsample ([Kim et al., IDC, ICML 2022](https://arxiv.org/abs/2205.14959)): a stored image holds l x l
smaller ones, seen enlarged."""

from collections.abc import Callable
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from core_dd.errors import pick, require

_PAD = 0.5
"""What a side that l does not divide is filled up with, below and to the right: grey pixels."""

Part = tuple[int, int, int]
"""A factor, and the stored images, from and to, that are cut by it."""


def single(count: int, factor: int, most: int | None) -> list[Part]:
    """The parts that decode `single` takes: every image, cut by the factor."""
    return [(factor, 0, count)]


def multi(count: int, factor: int, most: int | None) -> list[Part]:
    """The parts that decode `multi` takes: every image, cut by each factor from 1 up to the given one."""
    return [(smaller, 0, count) for smaller in range(1, factor + 1)]


def bound(count: int, factor: int, most: int | None) -> list[Part]:
    """At most `most` tiles (but one of each image): the first images by the factor, later ones by smaller factors.

    Room is counted as the authors do: an image that is cut by f takes f^2 of what one tile for every image not yet cut,
    itself included, leaves.
    """
    require(most is not None, "decode bound needs the number of tiles it is bound to: set max_syn.")
    parts, start, room = [], 0, most
    for smaller in range(factor, 1, -1):
        taken = min(max(0, room - (count - start)) // smaller**2, count - start)
        parts.append((smaller, start, start + taken))
        start, room = start + taken, room - taken * smaller**2
    return [part for part in (*parts, (1, start, count)) if part[1] < part[2]]


DECODES: MappingProxyType[str, Callable[[int, int, int | None], list[Part]]] = MappingProxyType(
    {"single": single, "multi": multi, "bound": bound}
)
"""What of each image is cut by which factor, by name: (stored images, factor, most tiles) -> parts."""


def decode(pixels: Tensor, factor: int, kind: str = "single", most: int | None = None) -> Tensor:
    """Cut every image into tiles and enlarge each to the image's size (bilinear).

    Args:
        pixels: float (..., N, C, H, W) on the 0..1 scale.
        factor: l; 1 returns the images themselves.
        kind: a key of `DECODES`: single, l x l tiles of every image; multi, those of each factor up to l; bound, `most`
            of them at most.
        most: tiles of N images, for bound.

    Returns:
        (..., M, C, H, W), by factor and then tile by tile: the upper left tile of all N images, then the one to its
        right, and so on row by row. For single, M is N l^2. `sources` says which image each comes from. Differentiable.

    Raises:
        InputError: if the factor does not fit the image, or the kind is unknown.

    Examples:
        >>> import torch
        >>> decode(torch.rand(10, 3, 32, 32), 2).shape
        torch.Size([40, 3, 32, 32])
    """
    check_factor(factor, pixels.shape[-2], pixels.shape[-1], kind)
    parts = DECODES[kind](pixels.shape[-4], factor, most)
    decoded = [_tiles(pixels[..., start:stop, :, :, :], own) for own, start, stop in parts]
    return decoded[0] if len(decoded) == 1 else torch.cat(decoded, -4)


def sources(count: int, factor: int, kind: str = "single", most: int | None = None) -> Tensor:
    """Which of `count` stored images each decoded one comes from, int64 (M,); the arguments are those of `decode`.

    Examples:
        >>> sources(2, 2).tolist()
        [0, 1, 0, 1, 0, 1, 0, 1]
    """
    parts = pick(DECODES, kind, "decode")(count, factor, most)
    return torch.cat([torch.arange(start, stop).repeat(own**2) for own, start, stop in parts])


def _tiles(pixels: Tensor, factor: int) -> Tensor:
    """(..., N, C, H, W) -> (..., N factor^2, C, H, W)."""
    if factor == 1:
        return pixels
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (0, -width % factor, 0, -height % factor), value=_PAD)
    rows = padded.unflatten(-2, (factor, -1)).unflatten(-1, (factor, -1))  # (..., N, C, l, h, l, w)
    tiles = rows.permute(*range(pixels.ndim - 4), -4, -2, -6, -5, -3, -1)  # (..., l, l, N, C, h, w)
    flat = tiles.flatten(0, -4)
    enlarged = F.interpolate(flat, size=(height, width), mode="bilinear", align_corners=False)
    return enlarged.reshape(*pixels.shape[:-4], -1, *pixels.shape[-3:])


def check_factor(factor: int, height: int, width: int, kind: str = "single") -> None:
    """Raise `InputError` unless every tile shows a part of an image of this size."""
    pick(DECODES, kind, "decode")
    require(factor >= 1, f"factor must be >= 1, got {factor}.")
    for own in [factor] if kind == "single" else range(1, factor + 1):
        fits = all((own - 1) * -(-side // own) < side for side in (height, width))
        require(fits, f"factor {own} does not fit images of {height}x{width}: tiles would be empty. Lower it.")
