"""The diffusion process: continuous-time variance-preserving schedule and noise prediction (Song et al., ICLR 2021;
Ho et al., NeurIPS 2020), as pure functions. Time t lies in [0, 1]; x_t = alpha(t) x_0 + sigma(t) noise."""

import torch
from torch import Tensor
from torch.nn import functional as F

BETA_MIN, BETA_MAX = 0.1, 20.0
"""beta(t) = 0.1 + 19.9 t."""

TIME_SCALE = 999.0
"""The network is fed 999 t."""


def log_alpha(t: Tensor) -> Tensor:
    """log of the mean coefficient: -19.9 t^2 / 4 - 0.1 t / 2; any shape, dtype of `t`."""
    return -(BETA_MAX - BETA_MIN) * t**2 / 4 - BETA_MIN * t / 2


def alpha_sigma(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha(t) and sigma(t) = sqrt(1 - alpha^2), without the cancellation near t = 0; any shape, dtype of `t`.

    Examples:
        >>> import torch
        >>> alpha, sigma = alpha_sigma(torch.tensor([0.1, 0.9]))
        >>> torch.round(alpha**2 + sigma**2, decimals=4)
        tensor([1., 1.])
    """
    log = log_alpha(t)
    return log.exp(), (-torch.expm1(2 * log)).sqrt()


def half_log_snr(t: Tensor) -> Tensor:
    """lambda(t) = log(alpha / sigma): from about 5.75 at t = 1e-4 down to -5.02 at t = 1."""
    log = log_alpha(t)
    return log - 0.5 * torch.log(-torch.expm1(2 * log))


def time_of(lam: Tensor) -> Tensor:
    """The inverse of `half_log_snr`.

    Examples:
        >>> import torch
        >>> t = torch.tensor([0.25, 0.75])
        >>> torch.round(time_of(half_log_snr(t)), decimals=4)
        tensor([0.2500, 0.7500])
    """
    u = 2 * (BETA_MAX - BETA_MIN) * F.softplus(-2 * lam)
    return u / (((BETA_MIN**2 + u).sqrt() + BETA_MIN) * (BETA_MAX - BETA_MIN))


def add_noise(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = alpha(t) x_0 + sigma(t) noise.

    Args:
        x0: clean images in [-1, 1], (B, C, H, W).
        noise: standard normal, like `x0`.
        t: (B,), in [0, 1].

    Examples:
        >>> import torch
        >>> x0 = torch.ones(1, 1, 2, 2)
        >>> torch.round(add_noise(x0, torch.zeros_like(x0), torch.tensor([0.5])), decimals=3).unique()
        tensor([0.2810])
    """
    alpha, sigma = (part.view(-1, 1, 1, 1).to(x0.dtype) for part in alpha_sigma(t))
    return alpha * x0 + sigma * noise


def drop_labels(labels: Tensor, null_class: int, u: Tensor, probability: float) -> Tensor:
    """Label dropout for classifier-free guidance (Ho & Salimans 2022): the null class where u < probability.

    Args:
        labels: int64 (B,).
        null_class: K, the label that stands for "no label".
        u: uniform draws in [0, 1), (B,).
        probability: in [0, 1].

    Returns:
        int64 (B,).

    Examples:
        >>> import torch
        >>> drop_labels(torch.tensor([3, 7]), 10, torch.tensor([0.05, 0.5]), 0.1)
        tensor([10,  7])
    """
    return torch.where(u < probability, null_class, labels)


def noise_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the predicted noise, mean over C, H, W: (B,), float32 (Ho et al. 2020, eq. 14).

    Examples:
        >>> import torch
        >>> noise_loss(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4))
        tensor([1., 1.])
    """
    return (predicted.float() - noise.float()).square().flatten(1).mean(1)


def min_snr(t: Tensor) -> Tensor:
    """Weight of the noise's squared error, min(SNR, 5) / SNR (Hang et al., ICCV 2023, section 3.4).

    Below t = 0.13, where the image hardly needs denoising and its noise can hardly be told, the weight falls to zero.

    Args:
        t: (B,), in [0, 1].

    Returns:
        (B,), in [0, 1].

    Examples:
        >>> import torch
        >>> torch.round(min_snr(torch.tensor([0.01, 0.9])), decimals=4)
        tensor([0.0100, 1.0000])
    """
    return (5 / torch.exp(2 * half_log_snr(t))).clamp(max=1)
