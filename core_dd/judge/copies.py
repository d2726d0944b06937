"""Whether images are copies of training images: how near each is to the nearest of them, beside images nobody saw."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from core_dd.errors import require
from core_dd.rng import stream

WAYS = ("pixels", "features", "lpips")
"""In what images are compared, the last where asked for."""

PAIRS = 10
"""How many of the nearest pairs a score keeps, to be looked at."""

TEST_IMAGES = 2000
"""Of the test images, as many are compared with the training images, at most."""

CANDIDATES = 5
"""Training images nearest in pixels, among which the one that looks most alike is sought."""

PERCEIVED_IMAGES = 500
"""Of the set and of the test images, as many are looked at so, at most: it takes a second for three."""

_CHUNK = 500
"""Rows of a matrix of distances at a time."""


def nearest(x: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's Euclidean distance to the nearest of others, and which that is.

    Args:
        x, others: (N, D) and (M, D), M >= 1, floating point, on one device.

    Returns:
        Distances (N,) of the dtype of x, indices int64 (N,).
    """
    which = neighbours(x, others, 1)[:, 0]
    return (x - others[which]).norm(dim=1), which


def neighbours(x: Tensor, others: Tensor, count: int) -> Tensor:
    """The indices of each row's nearest others, int64 (N, count) or as many as there are, the nearest first; arguments
    as for `nearest`."""
    centre = others.mean(0)  # cdist makes distances of products, which lose digits far from 0
    around, count = others - centre, min(count, len(others))
    found = [torch.cdist(rows - centre, around).topk(count, largest=False).indices for rows in x.split(_CHUNK)]
    return torch.cat(found)


def copying(ours: Tensor, unseen: Tensor) -> dict[str, float]:
    """Whether images are nearer to the training images than unseen ones are (Meehan, Chaudhuri & Dasgupta, AISTATS
    2020).

    Args:
        ours: the distance of each image to its nearest training image, (N,), N >= 1.
        unseen: the same of test images, (M,), M >= 1.

    Returns:
        `share`, the probability that an image is nearer than a test image, equal ones counted half: 0.5 where they are
        alike, 1 for copies; `p`, of the one-sided Mann-Whitney test, small where images are nearer than luck explains;
        the medians `median` and `test_median`.

    Raises:
        InputError: without images on either side.
    """
    require(min(len(ours), len(unseen)) >= 1, "copies are told by images of the set and of the test set; one is empty.")
    from scipy.stats import mannwhitneyu

    a, b = ours.double().cpu(), unseen.double().cpu()
    test = mannwhitneyu(a.numpy(), b.numpy(), alternative="less")
    return {
        "share": float(1 - test.statistic / (len(a) * len(b))),
        "p": float(test.pvalue),
        "median": float(a.median()),
        "test_median": float(b.median()),
    }


def compared(ours: tuple[Tensor, Tensor], real: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Copying in pixels and in features.

    Args:
        ours: of the set's images: pixels on the 0..1 scale, (N, ...), and features, (N, D).
        real: of the training images.
        unseen: of test images.

    Returns:
        `copying` under `pixels` and `features`, and `pairs`: for the images nearest in pixels, nearest first, their
        number, the number of the training image, and the distance.
    """
    found: dict[str, Any] = {}
    for name, a, b, c in zip(("pixels", "features"), ours, real, unseen, strict=True):
        a, b, c = (x.flatten(1).float() for x in (a, b, c))
        distance, which = nearest(a, b)
        found[name] = copying(distance, nearest(c, b)[0])
        if name == "pixels":
            order = distance.argsort()[:PAIRS].tolist()
            found["pairs"] = [[i, int(which[i]), float(distance[i])] for i in order]
    return found


def perceived(
    distance: Callable[[Tensor, Tensor], Tensor], ours: Tensor, real: Tensor, unseen: Tensor
) -> dict[str, Any]:
    """Copying as people see it, by a distance that is too dear for all pairs: the nearest is sought among the
    `CANDIDATES` nearest in pixels.

    Args:
        distance: (N, C, H, W) and (N, M, C, H, W) -> (N, M).
        ours: the set's images, pixels on the 0..1 scale, (N, C, H, W); of more than `PERCEIVED_IMAGES` a random part is
            looked at.
        real: training images.
        unseen: test images, likewise.

    Returns:
        `copying` under `lpips`, and `lpips_pairs`, as `pairs` of `compared`.
    """
    found = []
    for side, images in enumerate((ours, unseen)):
        some = torch.randperm(len(images), generator=stream(0, "perceived", side))[:PERCEIVED_IMAGES]
        which = neighbours(images[some].flatten(1), real.flatten(1), CANDIDATES)
        nearest_of, column = distance(images[some], real[which]).min(1)
        found.append((some, nearest_of, which.gather(1, column[:, None])[:, 0]))
    (some, near, which), (_, theirs, _) = found
    order = near.argsort()[:PAIRS].tolist()
    pairs = [[int(some[i]), int(which[i]), float(near[i])] for i in order]
    return {"lpips": copying(near, theirs), "lpips_pairs": pairs}
