"""Moments of features by class, and how far two sets of images are apart in them."""

import torch
from torch import Tensor

from core_dd.errors import require


def central_moment(features: Tensor, order: int) -> Tensor:
    """The mean (order 1), the variance (2), the third central moment (3) and so on of every feature dimension.

    Args:
        features: (..., N, D).
        order: >= 1. Moments divide by N (biased) and are not standardised, so that a single image, whose higher moments
            are 0, makes no division by zero.

    Returns:
        (..., D), at least float32.

    Raises:
        ValueError: if order < 1, or there are no features.

    Examples:
        >>> import torch
        >>> central_moment(torch.tensor([[1.0], [3.0]]), 2)
        tensor([1.])
    """
    require(order >= 1, f"order must be >= 1, got {order}.")
    require(
        features.ndim >= 2 and features.shape[-2] >= 1,
        f"features must be (..., N, D) with N >= 1, got shape {tuple(features.shape)}.",
    )
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    mean = features.mean(-2, keepdim=True)
    return mean.squeeze(-2) if order == 1 else (features - mean).pow(order).mean(-2)


def moment_distance(real: Tensor, syn: Tensor, order: int) -> Tensor:
    """Distance of the `order`-th moments of each class (a metric; [Zhang et al., M3D, AAAI
    2024](https://arxiv.org/abs/2312.15927), table 1).

    The paper names its columns mean, variance and skewness without a formula; here they are `central_moment`s of order
    1, 2 and 3, and the distance is the Euclidean norm over feature dimensions.

    Args:
        real: features of real images, (K, B, D).
        syn: features of the distilled images, (K, M, D); M may differ from B.
        order: >= 1.

    Returns:
        (K,), at least float32; the table's number is its mean.

    Raises:
        ValueError: if order < 1, either has no images, or K or D differ.

    Examples:
        >>> import torch
        >>> real, syn = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[3.0, 4.0]]])
        >>> moment_distance(real, syn, 1)
        tensor([5.])
    """
    first, second = central_moment(real, order), central_moment(syn, order)
    require(
        first.shape == second.shape and first.ndim == 2,
        f"real and syn features must be (K, N, D), equal in K and D; got {tuple(real.shape)} and {tuple(syn.shape)}.",
    )
    return torch.linalg.vector_norm(first - second, dim=1)
