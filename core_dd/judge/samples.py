"""Distances of two samples of features beside Frechet's: KID, Inception score, precision, recall, density, coverage."""

import torch
from torch import Tensor

from core_dd.errors import require

NEIGHBOURS = 5
"""k of `prdc`, as its authors recommend."""

SPLITS = 10
"""Parts over which an Inception score is averaged."""

_CHUNK = 1000
"""Rows of a matrix of distances at a time."""


def squared_mmd(a: Tensor, b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel `(x'y / D + 1)^3` (Binkowski et al., ICLR 2018).

    The mean of k(x, x') over pairs of different rows of a, plus the same of b, less twice the mean over pairs of both;
    in float64. It may be negative.

    Args:
        a, b: features, (N, D) and (M, D), N and M >= 2.

    Raises:
        InputError: for fewer than two rows.
    """
    require(min(len(a), len(b)) >= 2, f"an unbiased distance needs at least 2 images, got {min(len(a), len(b))}.")
    a, b = a.double(), b.double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.mT / x.shape[1] + 1).pow(3)

    within = 0.0
    for x in (a, b):
        pairs = kernel(x, x)
        within += float((pairs.sum() - pairs.trace()) / (len(x) * (len(x) - 1)))
    return within - 2 * float(kernel(a, b).mean())


def kernel_distance(a: Tensor, b: Tensor, generator: torch.Generator, subsets: int = 100, size: int = 1000) -> float:
    """KID (Binkowski et al., ICLR 2018): the mean `squared_mmd` of random parts of both samples.

    Args:
        a, b: features, (N, D) and (M, D), N and M >= 2.
        generator: draws the parts.
        subsets: how many; one where both samples are no larger than a part.
        size: of a part; smaller samples make smaller ones.
    """
    if max(len(a), len(b)) <= size:
        return squared_mmd(a, b)
    size, found = min(size, len(a), len(b)), []
    for _ in range(subsets):
        first, second = (x[torch.randperm(len(x), generator=generator)[:size]] for x in (a, b))
        found.append(squared_mmd(first, second))
    return sum(found) / len(found)


def inception_score(logits: Tensor, generator: torch.Generator, splits: int = SPLITS) -> float:
    """Inception score (Salimans et al., NeurIPS 2016): `exp(mean KL(p(y|x) || p(y)))`, the mean over parts.

    Args:
        logits: of classes, (N, K), N >= splits.
        generator: shuffles the images, which sets hold in the order of their classes.
        splits: parts of as equal size as can be.

    Returns:
        From 1 to K.

    Raises:
        InputError: for fewer images than splits.
    """
    require(len(logits) >= splits, f"an Inception score needs at least {splits} images, got {len(logits)}.")
    logs = logits.double().log_softmax(1)[torch.randperm(len(logits), generator=generator)]
    scores = []
    for part in logs.tensor_split(splits):
        marginal = part.exp().mean(0).log()
        scores.append((part.exp() * (part - marginal)).sum(1).mean().exp())
    return float(torch.stack(scores).mean())


def prdc(fake: Tensor, real: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    A ball about each image reaches to its k-th nearest neighbour within its own sample. precision: the part of fake
    images within any real ball; recall: of real images within any fake ball; density: in how many real balls a fake
    image lies, over k; coverage: the part of real balls that hold a fake image.

    Args:
        fake, real: features, (N, D) and (M, D), N and M > k.
        k: >= 1.

    Returns:
        By name; all in [0, 1] but density, which may be larger.

    Raises:
        InputError: for k images or fewer.
    """
    fewest = min(len(fake), len(real))
    require(fewest > k, f"precision, recall, density and coverage need more than {k} images, got {fewest}.")
    fake, real = fake.double(), real.double()
    fake_radius, real_radius = (_neighbour(x, k) for x in (fake, real))
    inside, recalled, nearest = [], torch.zeros(len(real), dtype=torch.bool), torch.full((len(real),), torch.inf)
    for x, radius in zip(fake.split(_CHUNK), fake_radius.split(_CHUNK), strict=True):
        distance = torch.cdist(x, real)
        inside.append((distance < real_radius).sum(1))
        recalled |= (distance < radius[:, None]).any(0)
        nearest = torch.minimum(nearest, distance.min(0).values)
    balls = torch.cat(inside).double()
    return {
        "precision": float((balls > 0).double().mean()),
        "recall": float(recalled.double().mean()),
        "density": float(balls.mean() / k),
        "coverage": float((nearest < real_radius).double().mean()),
    }


def _neighbour(x: Tensor, k: int) -> Tensor:
    """The distance of each row to its k-th nearest other one, (N,)."""
    parts = [torch.cdist(rows, x).kthvalue(k + 1, 1).values for rows in x.split(_CHUNK)]
    return torch.cat(parts)
