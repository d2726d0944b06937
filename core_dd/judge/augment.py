"""Training augmentations: DSA ([Zhao & Bilen, ICML 2021](https://arxiv.org/abs/2102.08259)) and the older one of DC
([Zhao et al., ICLR 2021](https://arxiv.org/abs/2006.05929)).

Images come in groups, x (G, B, C, H, W): a group is a class when sets are matched, a classifier's batch when several
classifiers train at once. They are in training space, where the fill value 0 is the mean image. Every draw comes from
the generator given, and all of a group's parameters are drawn in one call.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.data.preprocess import as_bytes
from core_dd.errors import pick, require
from core_dd.rng import drawn_by

STRATEGY = "color_crop_cutout_flip_scale_rotate"
"""The published DSA strategy."""

_BRIGHTNESS, _SATURATION, _CONTRAST = 1.0, 2.0, 0.5
_CROP, _CUTOUT = 0.125, 0.5
_SCALE, _ROTATE = 1.2, 15.0


def strategy_for(data: ImageData) -> str:
    """The DSA strategy for a dataset: without flip where a mirror image changes the label.

    Examples:
        >>> from core_dd import load_data
        >>> strategy_for(load_data("digits"))
        'color_crop_cutout_scale_rotate'
    """
    return STRATEGY if data.hflip else STRATEGY.replace("_flip", "")


class Augment(Protocol):
    """What training images go through."""

    in_pixels: ClassVar[bool]
    """Whether it takes pixels, before they go to training space, or images that are there."""

    def per_image(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Images (G, B, C, H, W), changed; one generator per group."""


@dataclass(frozen=True)
class DSAugment:
    """DSA, differentiable siamese augmentation (Zhao & Bilen, ICML 2021, https://arxiv.org/abs/2102.08259).

    Args:
        strategy: names of `DSA_OPS` joined by underscores.
        mode: "S" draws one operation of the strategy per group (not per image), "M" applies all of them in order.

    Raises:
        InputError: an unknown operation or mode.
    """

    strategy: str = STRATEGY
    mode: str = "S"
    in_pixels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in self.names:
            pick(DSA_OPS, name, "DSA operation")
        require(self.mode in ("S", "M"), f"DSA mode must be S (one operation per batch) or M (all), got '{self.mode}'.")

    @property
    def names(self) -> list[str]:
        """The operations, in order."""
        return self.strategy.split("_")

    def siamese(self, real: Tensor, syn: Tensor, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """The same transform for every real and synthetic image of a group, another one for each group.

        Args:
            real: (G, B, C, H, W). syn: (G, M, C, H, W); M may differ from B.
            generators: one per group; what it gives depends on neither B nor M, nor on the other groups.

        Returns:
            Both, transformed; differentiable.
        """
        operations, u = self._draw(1, generators)
        return self._apply(real, operations, u), self._apply(syn, operations, u)

    def per_image(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """A transform of its own for every image.

        Args:
            x: (G, B, C, H, W).
            generators: one per group.

        Returns:
            (G, B, C, H, W); differentiable.
        """
        operations, u = self._draw(x.shape[1], generators)
        return self._apply(x, operations, u)

    def _draw(self, images: int, generators: Sequence[torch.Generator]) -> tuple[list[list[str]], Tensor]:
        """Each group's operations, and u ~ U[0, 1), (groups, images, 11), whatever they are."""
        operations, u = [], []
        for own in generators:
            operations.append(self._chosen(own))
            u.append(torch.rand(images, DSA_DRAWS, generator=own, device=own.device))
        return operations, torch.stack(u)

    def _chosen(self, generator: torch.Generator) -> list[str]:
        """A group's operations, in order."""
        return self.names if self.mode == "M" else _one_of(self.names, generator)

    def _apply(self, x: Tensor, operations: list[list[str]], u: Tensor) -> Tensor:
        """Transform x (G, B, ...) by u (G, B or 1, 11); groups with the same operations go together."""
        require(len(x) == len(u), f"augmentation needs one generator per group: {len(x)} groups, {len(u)} generators.")
        u, parts, order = u.to(x.device).expand(-1, x.shape[1], -1), [], []
        for names in sorted({*map(tuple, operations)}):
            groups = [g for g, own in enumerate(operations) if tuple(own) == names]
            part, columns = x[groups].flatten(0, 1), u[groups].flatten(0, 1)
            for name in names:
                operation, own = DSA_OPS[name]
                part = operation(part, columns[:, own])
            parts.append(part)
            order += groups
        transformed = torch.cat(parts).reshape(x.shape)
        return transformed[torch.tensor(order).argsort()]


@dataclass(frozen=True)
class IDCAugment(DSAugment):
    """IDC's variant ([Kim et al., ICML 2022](https://arxiv.org/abs/2205.14959)): of the strategy flip and color always,
    one of the others, cutout last."""

    def _chosen(self, generator: torch.Generator) -> list[str]:
        first, middle, last = (
            [name for name in group if name in self.names]
            for group in (("flip", "color"), ("crop", "scale", "rotate"), ("cutout",))
        )
        return [*first, *(_one_of(middle, generator) if middle else []), *last]


def _one_of(names: Sequence[str], generator: torch.Generator) -> list[str]:
    """One of the names, drawn uniformly."""
    return [names[int(torch.randint(len(names), (), generator=generator, device=generator.device))]]


def color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness, saturation, contrast, in this order; x (N, C, H, W), u (N, 3) in [0, 1)."""
    brightness, saturation, contrast = (v.reshape(-1, 1, 1, 1) for v in u.unbind(1))
    x = x + (brightness - 0.5) * _BRIGHTNESS
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (saturation * _SATURATION) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + _CONTRAST) + mean


def crop(x: Tensor, u: Tensor) -> Tensor:
    """Shift by whole pixels, up to an eighth of each side, zeros from outside; u (N, 2)."""
    rows, cols = (_shifts(size, v) for size, v in zip(x.shape[2:], u.unbind(1), strict=True))
    return _take(x, rows, cols, x.new_zeros(()))


def _shifts(size: int, u: Tensor) -> Tensor:
    """Source indices (N, size) after a shift drawn uniformly from {-s..s}, s = an eighth of the size."""
    reach = int(size * _CROP + 0.5)
    return _integer(u, 2 * reach + 1)[:, None] - reach + torch.arange(size, device=u.device)


def cutout(x: Tensor, u: Tensor) -> Tensor:
    """Set a square of half the side, clipped by the border, to zero; u (N, 2)."""
    keep = [_outside(size, v) for size, v in zip(x.shape[2:], u.unbind(1), strict=True)]
    return x * (keep[0][:, None, :, None] | keep[1][:, None, None, :])


def _outside(size: int, u: Tensor) -> Tensor:
    """(N, size): which positions lie outside an interval of half the size around a uniformly drawn centre."""
    length = int(size * _CUTOUT + 0.5)
    start = _integer(u, size + (1 - length % 2))[:, None] - length // 2
    position = torch.arange(size, device=u.device)
    return (position < start) | (position >= start + length)


def flip(x: Tensor, u: Tensor) -> Tensor:
    """Mirror left and right with probability 1/2; u (N, 1).

    Examples:
        >>> import torch
        >>> image = torch.tensor([[[[1.0, 2.0]]]])
        >>> flip(image, torch.tensor([[0.9]])), flip(image, torch.tensor([[0.1]]))
        (tensor([[[[1., 2.]]]]), tensor([[[[2., 1.]]]]))
    """
    return torch.where(u.reshape(-1, 1, 1, 1) < 0.5, x.flip(3), x)


def scale(x: Tensor, u: Tensor) -> Tensor:
    """Stretch width and height independently by U[1/1.2, 1.2]; u (N, 2)."""
    low = 1 / _SCALE
    factors = u * (_SCALE - low) + low
    return _affine(x, torch.diag_embed(factors))


def rotate(x: Tensor, u: Tensor) -> Tensor:
    """Rotate about the centre by U[-15, 15] degrees; u (N, 1)."""
    angle = (u[:, 0] - 0.5) * 2 * math.radians(_ROTATE)
    cos, sin = angle.cos(), angle.sin()
    return _affine(x, torch.stack([cos, -sin, sin, cos], 1).reshape(-1, 2, 2))


DSA_OPS = MappingProxyType(
    {
        "color": (color, slice(0, 3)),
        "crop": (crop, slice(3, 5)),
        "cutout": (cutout, slice(5, 7)),
        "flip": (flip, slice(7, 8)),
        "scale": (scale, slice(8, 10)),
        "rotate": (rotate, slice(10, 11)),
    }
)
"""DSA's operations by name, each with its columns of the uniform draws."""
DSA_DRAWS = 11


def _affine(x: Tensor, matrix: Tensor) -> Tensor:
    """Sample x (N, C, H, W) at matrix (N, 2, 2) times the output's coordinates in [-1, 1]: bilinear, zeros outside."""
    theta = F.pad(matrix, (0, 1)).to(x.dtype)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _take(x: Tensor, rows: Tensor, cols: Tensor, fill: Tensor) -> Tensor:
    """out[n, c, i, j] = x[n, c, rows[n, i], cols[n, j]], and `fill` where an index lies outside the image.

    Args:
        x: (N, C, H, W). rows: int (N, H'). cols: int (N, W'). fill: broadcasts with (N, C, 1, 1).
    """
    height, width = x.shape[2:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((cols >= 0) & (cols < width))[:, None, :]
    index = rows.clamp(0, height - 1)[:, :, None] * width + cols.clamp(0, width - 1)[:, None, :]
    taken = x.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, x.shape[1], -1))
    return torch.where(inside[:, None], taken.unflatten(2, inside.shape[1:]), fill)


def _integer(u: Tensor, count: int) -> Tensor:
    """u ~ U[0, 1) to an integer uniform in {0..count-1}."""
    return (u * count).long().clamp_max(count - 1)


def cutmix(x: Tensor, y: Tensor, probability: float, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
    """CutMix ([Yun et al., ICCV 2019](https://arxiv.org/abs/1905.04899)) with Beta(1, 1), as IDC does: one box per
    group, from another image of the group.

    Args:
        x: (G, B, C, H, W). y: soft labels (G, B, K), mixed by the box's area within the image.
        probability: that a group is mixed.
        generators: one per group.

    Returns:
        Both, mixed.
    """
    x, y = x.clone(), y.clone()
    for images, labels, generator in zip(x, y, generators, strict=True):
        draw, share, *centre = torch.rand(4, generator=generator, device=generator.device).tolist()
        partner = torch.randperm(len(images), generator=generator, device=generator.device).to(x.device)
        if draw >= probability:
            continue
        box = []
        for size, place in zip(x.shape[-2:], centre, strict=True):
            half, middle = int(size * (1 - share) ** 0.5) // 2, int(size * place)
            box.append(slice(max(0, middle - half), min(size, middle + half)))
        rows, cols = box
        kept = 1 - (rows.stop - rows.start) * (cols.stop - cols.start) / (x.shape[-1] * x.shape[-2])
        images[:, :, rows, cols] = images[partner][:, :, rows, cols]
        labels.copy_(kept * labels + (1 - kept) * labels[partner])
    return x, y


@dataclass(frozen=True)
class CropAugment:
    """Random resized crops ([Szegedy et al., CVPR 2015](https://arxiv.org/abs/1409.4842)), an own one for every image,
    stretched back to the image's size, and mirrored with probability 1/2.

    Args:
        flips: whether to mirror.
        least: the smallest part of the area, in (0, 1]; the largest is 1. Half is what RDED takes of images that hold
            2 x 2 smaller ones.
        stretch: how far the ratio of the sides is from 1, at most: drawn from 1 / stretch to stretch, evenly in its
            logarithm. A side that would be longer than the image's is as long.
    """

    flips: bool = True
    least: float = 0.5
    stretch: float = 4 / 3
    in_pixels: ClassVar[bool] = False

    def per_image(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """As `DSAugment.per_image`."""
        count = x.shape[1]
        draws = torch.stack([torch.rand(count, 5, generator=own, device=own.device) for own in generators])
        area, ratio, *place, mirror = draws.to(x.device).flatten(0, 1).unbind(1)
        area = self.least + (1 - self.least) * area
        ratio = torch.exp((2 * ratio - 1) * math.log(self.stretch))
        sides = [(area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)]  # width, height
        centres = [(2 * where - 1) * (1 - side) for where, side in zip(place, sides, strict=True)]
        theta = torch.cat([torch.diag_embed(torch.stack(sides, 1)), torch.stack(centres, 1)[:, :, None]], 2)
        images = x.flatten(0, 1)
        grid = F.affine_grid(theta.to(x.dtype), list(images.shape), align_corners=False)
        cropped = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return (flip(cropped, mirror) if self.flips else cropped).reshape(x.shape)


RANDAUGMENT = "randaugment"


def policy_for(data: ImageData) -> str:
    """The policy of AutoAugment for a dataset, of the three that were found: svhn's for digits and whatever else a
    mirror image changes the label of, imagenet's above 32 pixels, else cifar10's.

    Examples:
        >>> from core_dd import load_data
        >>> policy_for(load_data("digits"))
        'svhn'
    """
    return "svhn" if not data.hflip else "cifar10" if max(data.shape[1:]) <= 32 else "imagenet"


@dataclass(frozen=True)
class PolicyAugment:
    """AutoAugment ([Cubuk et al., CVPR 2019](https://arxiv.org/abs/1805.09501)) or RandAugment ([Cubuk et al., NeurIPS
    2020](https://arxiv.org/abs/1909.13719)), as torchvision has them, on bytes.

    All images of a group get one draw, as in DC-BENCH ([Cui et al., NeurIPS 2022](https://arxiv.org/abs/2207.09639)),
    which compares distilled sets under them. Pixels outside of 0..1 are clamped.

    Args:
        policy: randaugment, or a policy of AutoAugment: cifar10, svhn, imagenet.
    """

    policy: str = RANDAUGMENT
    in_pixels: ClassVar[bool] = True

    @torch.no_grad()
    def per_image(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Pixels (G, B, C, H, W), uint8 or float on the 0..1 scale, C 1 or 3, as uint8; one generator per group."""
        transform, changed = _policy(self.policy), []
        for images, generator in zip(as_bytes(x), generators, strict=True):
            with drawn_by(generator):
                changed.append(transform(images))
        return torch.stack(changed)


@cache
def _policy(name: str) -> Callable[[Tensor], Tensor]:
    """A transform of torchvision, which is imported where one is asked for."""
    from torchvision.transforms import AutoAugmentPolicy, v2

    return v2.RandAugment() if name == RANDAUGMENT else v2.AutoAugment(AutoAugmentPolicy(name))


_DC_CROP, _DC_SCALE, _DC_ROTATE, _DC_NOISE = 4, 0.2, 45, 0.001


@dataclass(frozen=True)
class DCAugment:
    """DC's augmentation: every image gets one operation of the strategy, drawn for it alone.

    Args:
        strategy: names of `DC_OPS` joined by underscores: "crop_scale_rotate" (MNIST), "crop_noise" (BatchNorm nets).

    Raises:
        InputError: an unknown operation.
    """

    strategy: str = "crop_scale_rotate"
    in_pixels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in self.strategy.split("_"):
            pick(DC_OPS, name, "DC augmentation")

    @torch.no_grad()
    def per_image(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """As `DSA.per_image`, but not differentiable; a group's mean colour fills what comes from outside."""
        names, out = self.strategy.split("_"), x.clone()
        for group, target, generator in zip(x, out, generators, strict=True):
            choice = torch.randint(len(names), (len(group),), generator=generator, device=generator.device)
            u = torch.rand(len(group), 2, generator=generator, device=generator.device)
            fill = group.mean((0, 2, 3)).reshape(1, -1, 1, 1)
            for i, name in enumerate(names):
                members = (choice == i).nonzero().flatten()
                target[members.to(x.device)] = DC_OPS[name](
                    group[members.to(x.device)], u[members].to(x.device), fill, generator
                )
        return out


def dc_crop(x: Tensor, u: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """A window at offset 0..7 of the image with a border of 4; x (N, C, H, W), u (N, 2), fill (1, C, 1, 1)."""
    rows, cols = (
        _integer(v, 2 * _DC_CROP)[:, None] - _DC_CROP + torch.arange(size, device=x.device)
        for size, v in zip(x.shape[2:], u.unbind(1), strict=True)
    )
    return _take(x, rows, cols, fill)


def dc_scale(x: Tensor, u: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Resize height and width independently by 0.8..1.2 (nearest), centred on zeros."""
    height, width = x.shape[2:]
    h, w = ((height * (1 - _DC_SCALE + 2 * _DC_SCALE * v)).long()[:, None] for v in u.unbind(1))
    canvas = torch.maximum(h, w).clamp_min(max(height, width))

    def index(size: int, new: Tensor) -> Tensor:
        place = torch.arange(size, device=x.device) + (canvas - size) // 2 - (canvas - new) // 2
        return torch.where((place >= 0) & (place < new), place * size // new, -1)

    return _take(x, index(height, h), index(width, w), x.new_zeros(()))


def dc_rotate(x: Tensor, u: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by a whole angle of -45..44 degrees, as scipy.ndimage.rotate does, then crop the centre."""
    return spline_rotate(x, _integer(u[:, 0], 2 * _DC_ROTATE) - _DC_ROTATE, fill.mean())


def dc_noise(x: Tensor, u: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of deviation 0.001."""
    noise = torch.randn(x.shape, generator=generator, device=generator.device)
    return x + _DC_NOISE * noise.to(x.device)


DC_OPS: MappingProxyType[str, Callable[..., Tensor]] = MappingProxyType(
    {"crop": dc_crop, "scale": dc_scale, "rotate": dc_rotate, "noise": dc_noise}
)
"""DC's operations by name."""


def spline_rotate(x: Tensor, degrees: Tensor, fill: Tensor) -> Tensor:
    """Rotate each image by its angle: `scipy.ndimage.rotate(image, degrees, cval=fill)`, cropped to the centre.

    Args:
        x: (N, C, H, W). degrees: (N,). fill: scalar, for what comes from outside.

    Returns:
        (N, C, H, W): cubic spline interpolation with mirrored borders.
    """
    height, width = x.shape[2:]
    angle = torch.deg2rad(degrees.double())[:, None, None]
    cos, sin = angle.cos(), angle.sin()
    centred = []  # output positions, from the centre of scipy's enlarged canvas
    for size, other in ((height, width), (width, height)):
        canvas = (size * cos.abs() + other * sin.abs() + 0.5).floor()
        centred.append(torch.arange(size, device=x.device) + ((canvas - size) / 2).trunc() - (canvas - 1) / 2)
    rows, cols = centred[0].mT, centred[1]
    rows, cols = (cos * rows + sin * cols + (height - 1) / 2, cos * cols - sin * rows + (width - 1) / 2)

    coefficients = (_spline_inverse(height).to(x) @ x @ _spline_inverse(width).to(x).mT).flatten(2)
    out = torch.zeros_like(coefficients)
    for row, row_weight in _taps(rows.flatten(1), height, x.dtype):
        for col, col_weight in _taps(cols.flatten(1), width, x.dtype):
            index = (row * width + col)[:, None].expand(-1, x.shape[1], -1)
            out += (row_weight * col_weight)[:, None] * coefficients.gather(2, index)
    inside = (rows >= 0) & (rows <= height - 1) & (cols >= 0) & (cols <= width - 1)
    return torch.where(inside[:, None], out.reshape(x.shape), fill)


def _taps(position: Tensor, size: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """The four spline coefficients around each position: (index, weight), indices mirrored at the borders."""
    base = position.floor()
    f = (position - base).to(dtype)
    weights = ((1 - f) ** 3 / 6, 2 / 3 - f**2 * (2 - f) / 2, 2 / 3 - (1 - f) ** 2 * (1 + f) / 2, f**3 / 6)
    mirrored = ((base.long() + k).abs() for k in (-1, 0, 1, 2))
    return [(torch.minimum(i, 2 * (size - 1) - i).clamp(0), w) for i, w in zip(mirrored, weights, strict=True)]


@cache
def _spline_inverse(size: int) -> Tensor:
    """(size, size): pixel values to cubic spline coefficients, borders mirrored."""
    spline = torch.eye(size, dtype=torch.float64) * 4 / 6
    for i in range(size):
        for neighbour in (abs(i - 1), size - 1 - abs(size - 1 - (i + 1))):
            spline[i, neighbour] += 1 / 6
    return torch.linalg.inv(spline)
