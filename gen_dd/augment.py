"""Non-leaky augmentation (Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS
2022, https://arxiv.org/abs/2206.00364, appendix F.2): images are transformed, and the network is told how, so that it
learns from more images and still draws none of the transformed ones: a sampler tells it nothing.

A condition is what one image's transform is, nine numbers, all 0 where it is left alone: mirrored left to right, upside
down (0 or 1 each); w of the scale 2^(0.2 w); cos - 1 and sin of the rotation; the anisotropic scale's w cos 2r and
w sin 2r, by 2^(0.2 w) along direction r and its inverse across (the paper has w cos r, w sin r, which is the same for
two transforms); the translation in eighths of the image, right and down.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

CONDITIONS = 9
"""Numbers of a condition."""

_SPREAD = 0.2 * math.log(2)
"""Of the logarithm of a scale."""

_SHIFT = 0.25
"""Standard deviation of a translation, where the image reaches from -1 to 1."""


def draw_conditions(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Conditions of so many images: each of the six transforms with that probability (a flip: half of it).

    Args:
        count: of images, B.
        probability: in [0, 1].
        generator: of the draws, on whose device they are made.

    Returns:
        (B, 9), float32.
    """
    device = generator.device
    on = (torch.rand(6, count, generator=generator, device=device) < probability).float()
    mirrored, upside_down, turn, axis, tilted = torch.rand(5, count, generator=generator, device=device)
    scale, stretch, right, down = torch.randn(4, count, generator=generator, device=device)
    turn = on[3] * math.pi * (2 * turn - 1)
    axis = 2 * math.pi * axis * (tilted < 0.5)  # 2r: half of the stretches are along the rows
    parts = [on[0] * (mirrored < 0.5), on[1] * (upside_down < 0.5), on[2] * scale, turn.cos() - 1, turn.sin()]
    parts += [on[4] * stretch * axis.cos(), on[4] * stretch * axis.sin(), on[5] * right, on[5] * down]
    return torch.stack(parts, dim=1)


def backward_maps(conditions: Tensor) -> Tensor:
    """Where each transform takes its pixels from: (B, 2, 3), which maps (x, y, 1) in the new image to the old one's
    coordinates, the centre (0, 0), the corners at +-1.

    The transform is, in this order: flips, scale, rotation (to the right where its sine is positive), anisotropic
    scale, translation.

    Examples:
        >>> import torch
        >>> backward_maps(torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0, 0]]))
        tensor([[[-1.,  0.,  0.],
                 [ 0.,  1.,  0.]]])
    """
    mirrored, upside_down, scale, cos, sin, even, odd, right, down = conditions.unbind(1)
    cos, strain = cos + 1, _SPREAD * torch.hypot(even, odd)
    away = -_SPREAD * torch.where(strain > 0, torch.sinh(strain) / strain.clamp(min=1e-12), 1.0)  # the inverse stretch
    stretch = _matrices(strain.cosh() + away * even, away * odd, away * odd, strain.cosh() - away * even)
    flips = _matrices(1 - 2 * mirrored, 0 * mirrored, 0 * mirrored, 1 - 2 * upside_down)
    linear = flips @ _matrices(cos, sin, -sin, cos) @ stretch * torch.exp(-_SPREAD * scale).view(-1, 1, 1)
    shift = -_SHIFT * torch.stack([right, down], dim=1)[:, :, None]
    return torch.cat([linear, linear @ shift], dim=2)


def _matrices(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """[[a, b], [c, d]] of (B,) each: (B, 2, 2)."""
    return torch.stack([a, b, c, d], dim=1).unflatten(1, (2, 2))


def transform(images: Tensor, conditions: Tensor) -> Tensor:
    """Images (B, C, H, W), H = W, transformed as their conditions (B, 9) say: bilinear, mirrored beyond the border.

    Those whose condition is 0 stay as they are, bit for bit.
    """
    grid = F.affine_grid(backward_maps(conditions).to(images), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return torch.where((conditions == 0).all(1).view(-1, 1, 1, 1), images, moved)
