"""Consistency models: one evaluation from a noisy image to the end of its probability-flow trajectory.

A noise predictor is one already: in the scaled space x_t / alpha, where the noise level is sigma = sqrt(1 - alpha^2) /
alpha, f(x, sigma) = x - sigma eps(x, sigma) is x itself at sigma 0. Easy Consistency Tuning (ECT; Geng et al.,
"Consistency Models Made Easy", ICLR 2025, https://arxiv.org/abs/2406.14548) teaches it to map two points of one
trajectory to one image.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core_dd.errors import require
from gen_dd.diffusion import TIME_SCALE, alpha_sigma, time_of
from gen_dd.options import check_steps
from gen_dd.uvit import CONSISTENCY

if TYPE_CHECKING:
    from gen_dd.guidance import Guide

SIGMA_MEAN, SIGMA_STD = -1.1, 2.0
"""Of log sigma, the noise levels that are tuned at (ECT, appendix G.2, as on CIFAR-10)."""

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
"""The noise levels that are tuned at lie between these, as EDM's."""

SIGMA_START = 20.0
"""Where sampling starts from noise alone. Higher levels are hardly ever tuned at, and an error in the noise counts too
much: of 8x8 digits far fewer of one step's samples are recognised from 40, and fewer still from 80."""

FALL = 5.0
"""How many times lower each step of two, three and four begins than the one before: at 20, 4, 0.8, 0.16. The published
second of two, for CIFAR-10 and a long tuning, is 0.821: after a short one 4 is better on Fashion-MNIST (75 % of the
samples recognised instead of 70) and as good on digits (results/seconds/levels.csv)."""

_Q, _K, _B = 2.0, 8.0, 1.0
_HUBER = 0.00054
"""Of the loss's c = 0.00054 sqrt(CHW), below which a difference counts by its square (Song & Dhariwal, ICLR 2024)."""


def levels(u: Tensor) -> Tensor:
    """Noise levels sigma whose logarithm is normal, in SIGMA_MIN..SIGMA_MAX, the shape of `u`: uniform draws in [0, 1).

    Examples:
        >>> import torch
        >>> torch.round(levels(torch.tensor([0.0, 0.5, 1 - 1e-6])), decimals=3)
        tensor([2.0000e-03, 3.3300e-01, 8.0000e+01])
    """
    return (SIGMA_MEAN + SIGMA_STD * torch.special.ndtri(u)).exp().clamp(SIGMA_MIN, SIGMA_MAX)


def lower(sigma: Tensor, stage: int) -> Tensor:
    """The lower noise level of each pair: r = t (1 - n(t) / 2^(stage + 1)), at least 0, n(t) = 1 + 8 sigmoid(-t).

    With rising stages it moves from 0, where tuning is diffusion training, towards t, where it is consistency.

    Args:
        sigma: t > 0, any shape.
        stage: from 0.

    Examples:
        >>> import torch
        >>> lower(torch.tensor([0.1, 50.0]), 0), lower(torch.tensor([0.1, 50.0]), 7)
        (tensor([ 0., 25.]), tensor([ 0.0981, 49.8047]))
    """
    return (sigma * (1 - (1 + _K * torch.sigmoid(-_B * sigma)) / _Q ** (stage + 1))).clamp(min=0)


def _scaled(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Of a noise level > 0: the time fed to the network, and alpha; its shape."""
    t = time_of(-sigma.log())
    return TIME_SCALE * t, alpha_sigma(t)[0]


def ends(network: Callable[..., Tensor], x: Tensor, sigma: Tensor, *told: Tensor) -> Tensor:
    """f(x, sigma): where the network says that trajectories end, (B, C, H, W), float32.

    Args:
        network: predicts the noise from (alpha x, 999 t, *told).
        x: x_0 + sigma noise, (B, C, H, W).
        sigma: (B,), > 0.
        told: what else it takes: labels, int64 (B,), for a network of classes.
    """
    timestep, alpha = _scaled(sigma)
    noise = network(alpha.view(-1, 1, 1, 1) * x, timestep, *told).float()
    return x - sigma.view(-1, 1, 1, 1) * noise


def tuning_loss(
    network: Callable[..., Tensor], images: Tensor, noise: Tensor, sigma: Tensor, stage: int, *told: Tensor
) -> Tensor:
    """ECT's loss: how far apart the ends of x_0 + t noise and x_0 + r noise are, over t - r; (B,), float32.

    The distance is pseudo-Huber, sqrt(|d|^2 + c^2) - c; the end at the lower level r, which is x_0 at r = 0, is not
    differentiated.

    Args:
        network, told: see `ends`.
        images: clean, in [-1, 1], (B, C, H, W).
        noise: standard normal, like `images`.
        sigma: t, (B,), > 0.
        stage: see `lower`.
    """
    below = lower(sigma, stage)
    with torch.no_grad():
        at = below.clamp(min=SIGMA_MIN)
        target = ends(network, images + at.view(-1, 1, 1, 1) * noise, at, *told)
        target = torch.where((below > SIGMA_MIN).view(-1, 1, 1, 1), target, images)
    found = ends(network, images + sigma.view(-1, 1, 1, 1) * noise, sigma, *told)
    c = _HUBER * math.sqrt(images[0].numel())
    apart = ((found - target).square().flatten(1).sum(1) + c**2).sqrt() - c
    return apart / (sigma - torch.where(below > SIGMA_MIN, below, 0.0))


def times(steps: int) -> Tensor:
    """The times t at which the evaluations of a sampling in so many steps are made: float64 (steps,), falling.

    Their noise levels fall from SIGMA_START by the factor FALL; of more than four steps by less, to the fourth's level.

    Raises:
        InputError: fewer than one step, or more than `gen_dd.options.MOST_STEPS`.
    """
    check_steps(CONSISTENCY, steps)
    part = torch.arange(steps, dtype=torch.float64) * 3 / max(3, steps - 1)
    return time_of(part * math.log(FALL) - math.log(SIGMA_START))


def check_guide(guide: "Guide", steps: int) -> None:
    """Refuse a guide that would still act when the last of so many steps gives the image, and stay in it.

    Raises:
        InputError: such a guide.
    """
    last = float(times(steps)[-1])
    require(
        guide.until >= last,
        f"the last of {steps} steps of a consistency model, at time {last:.2g}, gives the image itself, and this guide "
        f"acts until {guide.until:g}: it would stay in it. Pass more --steps (4 end at {float(times(4)[-1]):.2g}), a "
        "larger --guide_until, or draw without a guide.",
    )


def sample(
    noise_of: Callable[[Tensor, Tensor], Tensor], x: Tensor, steps: int, fresh: Callable[[int], Tensor]
) -> Tensor:
    """Multistep consistency sampling (Song et al., ICML 2023, algorithm 1): denoise, add fresh noise, denoise, ...

    Args:
        noise_of: the network's prediction at x_t for the scalar timestep 999 t.
        x: standard normal noise (B, C, H, W).
        steps: evaluations of the network; see `times`.
        fresh: other noise for evaluation number 1, 2, ..., like `x`.
    """
    for number, t in enumerate(times(steps)):
        alpha, sigma = (float(part) for part in alpha_sigma(t))
        if number:
            x = alpha * x.clamp(-1, 1) + sigma * fresh(number)
        x = (x - sigma * noise_of(x, (TIME_SCALE * t).to(x))) / alpha
    return x
