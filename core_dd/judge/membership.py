"""Membership inference: whether classifiers give away which real images their set was made from."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.errors import require
from core_dd.judge import training
from core_dd.rng import stream
from core_dd.sets.distilled import DistilledSet

IMAGES = 10_000
"""Of members and of others, at most."""

FALSE_POSITIVES = 0.01
"""At what part of others taken for members the part of members found is said (Carlini et al., S&P 2022)."""

FEWEST = 100
"""Other images that make such a part."""


def check(data: ImageData) -> None:
    """Refuse data of too few test images, before any work.

    Raises:
        InputError: if there are fewer than `FEWEST`.
    """
    count = len(data.test_labels)
    require(count >= FEWEST, f"membership inference needs {FEWEST} test images, {data.name} has {count}. Leave it out.")


def attack(members: Tensor, others: Tensor) -> dict[str, float]:
    """How well a threshold on the loss tells members from others (Yeom et al., CSF 2018).

    Args:
        members: losses of images that were trained on, (N,), N >= 1.
        others: losses of images that were not, (M,), M >= 100.

    Returns:
        `auc`, the probability that a member has the smaller loss, equal ones counted half: 0.5 knows nothing;
        `tpr_at_1_fpr`, the largest part of members that a threshold finds which takes at most 1 % of others for
        members: 0.01 knows nothing.

    Raises:
        InputError: too few images.
    """
    require(
        len(members) >= 1 and len(others) >= FEWEST,
        f"membership inference needs a member and {FEWEST} other images, got {len(members)} and {len(others)}.",
    )
    members, others = members.double(), others.double().sort().values
    below, up_to = (torch.searchsorted(others, members, right=right).double() for right in (False, True))
    larger = (2 * len(others) - below - up_to) / 2  # others of larger loss, equal ones half
    threshold = others[int(FALSE_POSITIVES * len(others))]
    return {"auc": float(larger.mean() / len(others)), "tpr_at_1_fpr": float((members < threshold).double().mean())}


def inferred(
    classifiers: training.Classifiers, dset: DistilledSet, data: ImageData, *, seed: int, **options: Any
) -> dict[str, Any]:
    """What classifiers of a set give away of the real training images, beside those of random real images.

    Args:
        classifiers: trained on the set.
        dset: the set, made from all training images: those are its members, and test images the others.
        data: the real data.
        seed: draws the images that are looked at, and the random ones.
        options: how the classifiers were trained: those of `core_dd.judge.training.train`.

    Returns:
        `attack`, the mean over classifiers, and the same under `random`: of classifiers trained likewise on as many
        random real images per class, whose members these are.

    Raises:
        InputError: too few test images.
    """
    train, test = (
        torch.randperm(count, generator=stream(seed, "membership", i))[:IMAGES]
        for i, count in enumerate((len(data.train_labels), len(data.test_labels)))
    )
    counts = dset.hard_labels.bincount(minlength=data.num_classes).tolist()
    draws = [
        members[torch.randperm(len(members), generator=stream(seed, "membership", "random", k))[: counts[k]]]
        for k, members in enumerate(data.class_indices())
    ]
    index = torch.cat(draws)
    images, labels = data.train_images[index], data.train_labels[index]
    plain = training.train(images, labels, data, seed=seed, **options)
    unseen = data.test_images[test], data.test_labels[test]
    real = data.train_images[train], data.train_labels[train]
    return _mean(classifiers, real, unseen) | {"random": _mean(plain, (images, labels), unseen)}


def _mean(
    classifiers: training.Classifiers, members: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """The mean `attack` on classifiers; images and labels."""
    sides = [losses(classifiers, *side) for side in (members, others)]
    found = [attack(*pair) for pair in zip(*sides, strict=True)]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def losses(classifiers: training.Classifiers, images: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of every image by every classifier, float32 (R, N), on the CPU; what is not finite counts as
    large.

    Args:
        classifiers: R of them.
        images: pixels, (N, C, H, W).
        labels: int64 (N,).
    """
    parts = []
    for logits, target in zip(classifiers.logits(images), labels.split(training.TEST_CHUNK), strict=True):
        target = target.to(logits.device).expand(len(logits), -1)
        parts.append(F.cross_entropy(logits.mT, target, reduction="none").cpu())
    return torch.cat(parts, 1).nan_to_num(1e30, posinf=1e30)
