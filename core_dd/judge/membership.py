"""Membership inference: whether classifiers give away which real images their set was made from, by a threshold on the
loss and by likelihood ratios."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

PAIRS = 4
"""Times that the training images are halved; each half gives a shadow set, and that a shadow classifier."""

ShadowMaker = Callable[[ImageData, int], DistilledSet]
"""Makes a set from the training images of the data it is given, by a seed, as the set in question was made."""

_SHADOWS = 1_000_000
"""Runs of shadow classifiers are numbered from here, so that they share no initial weights with those attacked."""


def check(data: ImageData) -> None:
    """Refuse data of too few images, before any work.

    Raises:
        InputError: if there are fewer test images than `FEWEST`, or a class has fewer than two training images.
    """
    count = len(data.test_labels)
    require(count >= FEWEST, f"membership inference needs {FEWEST} test images, {data.name} has {count}. Leave it out.")
    fewest = int(data.train_labels.bincount(minlength=data.num_classes).min())
    require(
        fewest >= 2,
        f"membership inference halves the training images of each class, and {data.name} has a class of {fewest}. "
        "Leave it out.",
    )


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


def likelihood_ratios(confidence: Tensor, without: Tensor) -> Tensor:
    """How much more confident a classifier is of images than those that have not seen them: the offline likelihood
    ratio attack ([Carlini et al., S&P 2022](https://arxiv.org/abs/2112.03570), algorithm 1 and section VI).

    The confidences `log(p / (1 - p))` of shadow classifiers without an image are taken as normal, about a mean of each
    image's own. Their variance is one for all images, as the authors advise below some 64 shadows, so that the test,
    the probability of a smaller confidence without the image, orders images as the distance from that mean does.

    Args:
        confidence: of the classifiers that are attacked, (..., N).
        without: of S shadow classifiers that have not seen the image, (S, N), S >= 1.

    Returns:
        (..., N), larger for likelier members.

    Examples:
        >>> import torch
        >>> easy_and_hard = torch.tensor([[6.0, -2.0], [8.0, -4.0]])
        >>> likelihood_ratios(torch.tensor([7.0, 1.0]), easy_and_hard)
        tensor([0., 4.])
    """
    return confidence - without.mean(0)


def inferred(
    classifiers: training.Classifiers,
    dset: DistilledSet,
    data: ImageData,
    *,
    seed: int,
    make: ShadowMaker | None = None,
    **options: Any,
) -> dict[str, Any]:
    """What classifiers of a set give away of the real training images, beside those of random real images.

    Args:
        classifiers: trained on the set.
        dset: the set, made from all training images: those are its members, and test images the others.
        data: the real data.
        seed: draws the images that are looked at, the random ones, and the halves.
        make: makes the shadow sets of the likelihood ratios; None: random real images, as many per class as the set
            has, which is all that can be done without knowing how the set was made.
        options: how the classifiers were trained: those of `core_dd.judge.training.train`.

    Returns:
        `attack` by the loss, the mean over classifiers, and under `likelihood_ratio` the same by `likelihood_ratios`,
        with the number of `shadows`, half of which an image is compared with; and all of it under `random`: of
        classifiers trained likewise on as many random real images per class, whose members these are, their shadow
        sets random ones, too.

    Raises:
        InputError: too few images.
    """
    check(data)
    train, test = (
        torch.randperm(count, generator=stream(seed, "membership", i))[:IMAGES]
        for i, count in enumerate((len(data.train_labels), len(data.test_labels)))
    )
    counts = dset.hard_labels.bincount(minlength=data.num_classes).tolist()
    chosen = _random(data, counts, seed)
    images, labels = data.train_images[chosen], data.train_labels[chosen]
    plain = training.train(images, labels, data, seed=seed, **options)

    def at_random(half: ImageData, number: int) -> DistilledSet:
        own = _random(half, counts, seed, number)
        return DistilledSet(half.train_images[own], half.train_labels[own], {})

    shadows = shadows_of(at_random, data, seed=seed, **options)
    unlike = shadows if make is None else shadows_of(make, data, seed=seed, **options)
    return _found(classifiers, unlike, data, train, test) | {"random": _found(plain, shadows, data, chosen, test)}


@dataclass(frozen=True)
class Shadows:
    """Two classifiers, each trained on a set that was made from one half of the training images.

    Attributes:
        classifiers: of the first half and of the other.
        train, test: bool (N,) and (M,), whether an image counts to the first half; test images are in neither, and as
            many are counted to each.
    """

    classifiers: tuple[training.Classifiers, training.Classifiers]
    train: Tensor
    test: Tensor

    def without(self, images: Tensor, labels: Tensor, first: Tensor) -> Tensor:
        """The confidence (N,) of each image by the classifier of the half that it does not count to; `first` says
        which those of the first half are."""
        one, other = (confidences(own, images, labels)[0] for own in self.classifiers)
        return torch.where(first, other, one)


def shadows_of(make: ShadowMaker, data: ImageData, *, seed: int, **options: Any) -> list[Shadows]:
    """`PAIRS` pairs of shadow classifiers; every class is halved.

    Args:
        make: makes their sets.
        data: the real data, two training images of every class at least.
        seed: of the halves; the sets' are 0, 1, ...
        options: how to train: those of `core_dd.judge.training.train`, but for `runs`.
    """
    found = []
    for number in range(PAIRS):
        train, test = (
            _half(labels, data.num_classes, stream(seed, "membership", "halves", number, side))
            for side, labels in enumerate((data.train_labels, data.test_labels))
        )
        pair = []
        for run, mine in enumerate((train, ~train), 2 * number):
            half = replace(data, train_images=data.train_images[mine], train_labels=data.train_labels[mine])
            dset = make(half, run)
            how = options | {"runs": [_SHADOWS + run], "seed": seed, "preprocess": dset.preprocess}
            pair.append(training.train(*dset.as_trained(), data, **how))
        found.append(Shadows((pair[0], pair[1]), train, test))
    return found


def _half(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """Which images are in a random half of every class, bool (N,); of an odd number the smaller half."""
    mine = torch.zeros(len(labels), dtype=torch.bool)
    for k in range(classes):
        members = torch.nonzero(labels == k).flatten()
        mine[members[torch.randperm(len(members), generator=generator)[: len(members) // 2]]] = True
    return mine


def _random(data: ImageData, counts: Sequence[int], seed: int, *key: int) -> Tensor:
    """The numbers of `counts[k]` random training images of each class k, or of all where there are fewer."""
    draws = [
        members[torch.randperm(len(members), generator=stream(seed, "membership", "random", k, *key))[: counts[k]]]
        for k, members in enumerate(data.class_indices())
    ]
    return torch.cat(draws)


def _found(
    classifiers: training.Classifiers, shadows: Sequence[Shadows], data: ImageData, members: Tensor, others: Tensor
) -> dict[str, Any]:
    """The mean of both attacks over classifiers, on training images and test images of these numbers."""
    by_loss, by_ratio = [], []
    sides = (
        (data.train_images[members], data.train_labels[members], [pair.train[members] for pair in shadows]),
        (data.test_images[others], data.test_labels[others], [pair.test[others] for pair in shadows]),
    )
    for images, labels, firsts in sides:
        by_loss.append(losses(classifiers, images, labels))
        without = [pair.without(images, labels, first) for pair, first in zip(shadows, firsts, strict=True)]
        by_ratio.append(likelihood_ratios(confidences(classifiers, images, labels), torch.stack(without)))
    ratio = _mean(-by_ratio[0], -by_ratio[1]) | {"shadows": 2 * len(shadows)}
    return _mean(*by_loss) | {"likelihood_ratio": ratio}


def _mean(members: Tensor, others: Tensor) -> dict[str, Any]:
    """The mean `attack` over classifiers: what they say of members (R, N) and of others (R, M)."""
    found = [attack(*pair) for pair in zip(members, others, strict=True)]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def confidences(classifiers: training.Classifiers, images: Tensor, labels: Tensor) -> Tensor:
    """The scaled confidence `log(p / (1 - p))` in the label, p its probability, of every image by every classifier,
    float32 (R, N), on the CPU; arguments as for `losses`.

    It is the logit of the label less the logarithm of the sum of the others' exponentials, which no rounding of p to 0
    or 1 disturbs (Carlini et al. 2022, section VI). What is not finite counts as no confidence at all.
    """
    parts = []
    for logits, target in zip(classifiers.logits(images), labels.split(training.TEST_CHUNK), strict=True):
        own = target.to(logits.device).expand(len(logits), -1)[..., None]
        rest = logits.scatter(2, own, -torch.inf).logsumexp(2)
        parts.append((logits.gather(2, own)[..., 0] - rest).cpu())
    return torch.cat(parts, 1).nan_to_num(-1e6, posinf=1e6, neginf=-1e6)


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
