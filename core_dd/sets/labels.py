"""Labels, hard and soft."""

from torch import Tensor


def are_probabilities(labels: Tensor) -> bool:
    """Whether every row of soft labels (N, K) is one of probabilities, up to the rounding of bf16."""
    return bool((labels >= 0).all()) and bool(((labels.float().sum(1) - 1).abs() < 4e-3).all())


def hardened(labels: Tensor) -> Tensor:
    """int64 (N,): labels that are hard, or the arg max of soft ones (N, K)."""
    return labels.long() if labels.ndim == 1 else labels.argmax(1)
