"""Choosing n of N points by their features: pure functions on one class, used by selectors and coresets alike."""

import torch
from torch import Tensor

from core_dd.errors import require


def herding(features: Tensor, n: int) -> Tensor:
    """Greedy picks whose running mean follows the class mean ([Welling, ICML
    2009](https://doi.org/10.1145/1553374.1553517); the exemplars of [iCaRL](https://arxiv.org/abs/1611.07725)).

    Step k picks the unused i that minimises || (k + 1) mu - sum_selected - f_i ||, k from 0.

    Args:
        features: (N, D), un-normalised.
        n: how many to pick, 1 <= n <= N.

    Returns:
        int64 (n,), in the order picked; the first is the point nearest the mean.

    Raises:
        InputError: if n is out of range.

    Examples:
        >>> import torch
        >>> herding(torch.tensor([[0.0], [1.0], [2.0], [9.0]]), 2)
        tensor([2, 1])
    """
    _check(features, n)
    features = features.double()
    mean, total = features.mean(0), torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    picked = []
    for k in range(n):
        gap = ((k + 1) * mean - total - features).square().sum(1)
        i = int(gap.masked_fill(~free, torch.inf).argmin())
        picked.append(i)
        free[i] = False
        total += features[i]
    return torch.tensor(picked)


def k_center(features: Tensor, n: int) -> Tensor:
    """Greedy farthest-first k-center ([Gonzalez, 1985](https://doi.org/10.1016/0304-3975(85)90224-5)); the first centre
    is the point nearest the mean.

    Args:
        features: (N, D).
        n: how many to pick, 1 <= n <= N.

    Returns:
        int64 (n,), in the order picked.

    Raises:
        InputError: if n is out of range.

    Examples:
        >>> import torch
        >>> k_center(torch.tensor([[0.0], [1.0], [2.0], [9.0]]), 2)
        tensor([2, 3])
    """
    _check(features, n)
    features = features.double()
    picked = [int((features - features.mean(0)).square().sum(1).argmin())]
    gap = torch.full((len(features),), torch.inf, dtype=torch.float64, device=features.device)
    while len(picked) < n:
        gap = torch.minimum(gap, (features - features[picked[-1]]).square().sum(1))
        gap[picked[-1]] = -1
        picked.append(int(gap.argmax()))
    return torch.tensor(picked)


def medoids(features: Tensor, n: int, seed: int) -> Tensor:
    """The real point nearest each of n k-means centres, no point twice.

    Args:
        features: (N, D).
        n: how many to pick, 1 <= n <= N.
        seed: of k-means++ (a 32-bit number).

    Returns:
        int64 (n,), largest cluster first.

    Raises:
        InputError: if n is out of range.
    """
    distance = torch.cdist(centroids(features, n, seed).double(), features.cpu().double())
    picked: list[int] = []
    for own in distance:
        own[picked] = torch.inf
        picked.append(int(own.argmin()))
    return torch.tensor(picked)


def centroids(features: Tensor, n: int, seed: int) -> Tensor:
    """The n centres of k-means (Lloyd, 1982), each the mean of its cluster.

    Args:
        features: (N, D).
        n: how many, 1 <= n <= N.
        seed: of k-means++ (a 32-bit number).

    Returns:
        (n, D), on the CPU, largest cluster first.

    Raises:
        InputError: if n is out of range.
    """
    from sklearn.cluster import KMeans

    _check(features, n)
    means = KMeans(n, n_init=4, random_state=seed % 2**32).fit(features.cpu().numpy())
    sizes = torch.bincount(torch.from_numpy(means.labels_).long(), minlength=n)
    return torch.from_numpy(means.cluster_centers_)[sizes.argsort(descending=True, stable=True)]


def _check(features: Tensor, n: int) -> None:
    require(
        1 <= n <= len(features),
        f"cannot choose {n} of {len(features)} images. ipc must be between 1 and the size of the smallest class.",
    )
