"""Choosing the ipc images of every class by their features: of a generated pool, or of the real training images.

A chooser sees one class at a time as `Candidates` and says which of them it takes. What a classifier of the real data
makes of the candidates is worked out where a chooser asks for it, class by class and once, so `random` trains nothing
and the memory holds one class's features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.errors import pick, require, whole
from core_dd.judge import fidelity
from core_dd.judge.training import Classifiers
from core_dd.rng import stream
from core_dd.sets import subset
from core_dd.sets.distilled import DistilledSet


class Seen:
    """What a classifier trained on the real data makes of N images of one class: worked out when asked for, once.

    Args:
        images: pixels, uint8 or float on the 0..1 scale, (M, C, H, W), of all classes.
        index: which of them are meant, int64 (N,).
        label: their class.
        classifier: gives the classifier.
    """

    def __init__(self, images: Tensor, index: Tensor, label: int, classifier: Callable[[], Classifiers]) -> None:
        self._images, self._index, self._label, self._classifier = images, index, label, classifier

    @cached_property
    def features(self) -> Tensor:
        """What the classifier's last layer sees, float32 (N, D), on the CPU."""
        trained, images = self._classifier(), self._images[self._index]
        return fidelity.features(trained.network(0), images, trained.preprocess, trained.bf16).cpu()

    @cached_property
    def _shares(self) -> Tensor:
        trained, images = self._classifier(), self._images[self._index]
        return fidelity.probabilities(trained.network(0), images, trained.preprocess).cpu()

    @property
    def confidence(self) -> Tensor:
        """The probability that the classifier gives to the class, in [0, 1], (N,)."""
        return self._shares[:, self._label]

    @property
    def correct(self) -> Tensor:
        """Whether the classifier finds the class the likeliest, bool (N,)."""
        return self._shares.argmax(1) == self._label


@dataclass(frozen=True)
class Candidates:
    """One class's images, of which a chooser takes some.

    Attributes:
        size: N, how many images.
        generator: of the chooser's draws.
        own: what the classifier makes of them.
        real: what it makes of the class's real training images; where these are the candidates, the same object.
    """

    size: int
    generator: torch.Generator
    own: Seen
    real: Seen


Chooser = Callable[[Candidates, int], Tensor]
"""(candidates, ipc) -> int64 (ipc,): distinct positions among the candidates, 1 <= ipc <= N."""


def random(candidates: Candidates, ipc: int) -> Tensor:
    """Uniformly, without replacement."""
    return torch.randperm(candidates.size, generator=candidates.generator)[:ipc]


def herding(candidates: Candidates, ipc: int) -> Tensor:
    """The running mean of the chosen features follows the mean of all ([Welling, ICML
    2009](https://doi.org/10.1145/1553374.1553517)); see `core_dd.sets.subset.herding`."""
    return subset.herding(candidates.own.features, ipc)


def k_center(candidates: Candidates, ipc: int) -> Tensor:
    """Farthest-first, so that every image has a chosen one near it in feature space ([Gonzalez,
    1985](https://doi.org/10.1016/0304-3975(85)90224-5)); see `core_dd.sets.subset.k_center`."""
    return subset.k_center(candidates.own.features, ipc)


def medoids(candidates: Candidates, ipc: int) -> Tensor:
    """The images nearest the centres of k-means in feature space; see `core_dd.sets.subset.medoids`."""
    return subset.medoids(candidates.own.features, ipc, seed=candidates.generator.initial_seed())


def correct(candidates: Candidates, ipc: int) -> Tensor:
    """Uniformly, of the images the classifier gets right."""
    return _ranked(candidates.own, torch.rand(candidates.size, generator=candidates.generator), ipc)


def most_confident(candidates: Candidates, ipc: int) -> Tensor:
    """Of the images the classifier gets right, those it is surest of: the first stage of CaO2 ([Wang et al., ICCV
    2025](https://arxiv.org/abs/2506.22637)) for few images per class."""
    return _ranked(candidates.own, candidates.own.confidence, ipc)


def least_confident(candidates: Candidates, ipc: int) -> Tensor:
    """Of the images the classifier gets right, those it is least sure of: the first stage of CaO2 ([Wang et al., ICCV
    2025](https://arxiv.org/abs/2506.22637)) for many images per class."""
    return _ranked(candidates.own, -candidates.own.confidence, ipc)


def _ranked(seen: Seen, score: Tensor, ipc: int) -> Tensor:
    """The best by score, in [-1, 1], among the right ones; wrong ones follow, surest first, where those are too few."""
    order = torch.argsort(torch.where(seen.correct, score, seen.confidence - 3), descending=True, stable=True)
    return order[:ipc]


def difficulty(candidates: Candidates, ipc: int) -> Tensor:
    """Difficulties log(1 - confidence) spread like the real images', after DiffGuideSamp ([Li et al., ICCV workshops
    2025](https://arxiv.org/abs/2507.03331)).

    The real difficulties are cut at ipc evenly spaced quantiles; each takes the free image nearest to it.
    """
    own, real = (
        torch.log((1 - seen.confidence.double()).clamp_min(1e-6)) for seen in (candidates.own, candidates.real)
    )
    targets = torch.quantile(real, (torch.arange(ipc, dtype=torch.float64) + 0.5) / ipc)
    free, picked = torch.ones(candidates.size, dtype=torch.bool), []
    for target in targets[torch.randperm(ipc, generator=candidates.generator)]:
        picked.append(int((own - target).abs().masked_fill(~free, torch.inf).argmin()))
        free[picked[-1]] = False
    return torch.tensor(picked)


GROUPS = 2000
"""Random groups of images that `moments` compares for each class."""


def moments(candidates: Candidates, ipc: int) -> Tensor:
    """Of `GROUPS` random groups, the one whose moments are nearest the real images': the metric of D3HR ([Zhao et
    al., ICML 2025](https://arxiv.org/abs/2505.18399)).

    |mean - mu| + |std - sigma| + 0.1 |skew - real skew| over features; the last two only from 2 images up.
    """

    def describe(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, std = x.mean(-2), x.std(-2, correction=0)
        skew = ((x - mean.unsqueeze(-2)) / std.unsqueeze(-2).clamp_min(1e-6)).pow(3).mean(-2)
        return mean, std, skew

    features, real = candidates.own.features, describe(candidates.real.features)
    weights = (1.0, 1.0, 0.1) if ipc > 1 else (1.0, 0.0, 0.0)

    def gap(group: Tensor) -> float:
        parts = zip(weights, describe(features[group]), real, strict=True)
        return float(sum(weight * (ours - theirs).norm() for weight, ours, theirs in parts))

    groups = (torch.randperm(candidates.size, generator=candidates.generator)[:ipc] for _ in range(GROUPS))
    return min(groups, key=gap)


CHOOSERS: MappingProxyType[str, Chooser] = MappingProxyType(
    {
        "random": random,
        "herding": herding,
        "k_center": k_center,
        "medoids": medoids,
        "correct": correct,
        "most_confident": most_confident,
        "least_confident": least_confident,
        "difficulty": difficulty,
        "moments": moments,
    }
)
"""Choosers by name: `--selector` of gendd select and gendd coreset."""


def choose(
    chooser: str, data: ImageData, ipc: int, seed: int = 0, *, pool: DistilledSet | None = None, **classifier: Any
) -> Tensor:
    """Choose `ipc` images of every class.

    Args:
        chooser: a key of `CHOOSERS`.
        data: the real data; only its training images are used.
        ipc: images per class, >= 1.
        seed: of the choice, and of the classifier.
        pool: generated images with labels of the data's classes, to choose from; None: from the training images.
        classifier: other options of `core_dd.judge.fidelity.real_classifier`, which is trained (or read from its
            file) where the chooser asks for what it sees.

    Returns:
        int64 (K, ipc): positions in the pool, or among the training images.

    Raises:
        InputError: an unknown chooser, `ipc` < 1, a class with fewer than `ipc` images, or a file of another
            classifier.
    """
    rule, members, real_members = pick(CHOOSERS, chooser, "selector"), members_of(data, ipc, pool), data.class_indices()
    images = data.train_images if pool is None else pool.images
    # The names of the random streams are older than this function: published sets were drawn from them.
    purpose = "select" if pool is not None else "choose" if chooser == "random" else "coreset"

    @cache
    def trained() -> Classifiers:
        fidelity.check_features(classifier.get("network", "convnet3"), data)
        return fidelity.real_classifier(data, seed=seed, **classifier)

    chosen = []
    for k, index in enumerate(members):
        own = Seen(images, index, k, trained)
        real = own if pool is None else Seen(data.train_images, real_members[k], k, trained)
        chosen.append(index[rule(Candidates(len(index), stream(seed, purpose, k), own, real), ipc)])
    return torch.stack(chosen)


def members_of(data: ImageData, ipc: int, pool: DistilledSet | None = None) -> list[Tensor]:
    """Where the images of every class are, of which `ipc` are to be chosen.

    Args:
        data: the real data.
        ipc: images per class, >= 1.
        pool: generated images of the data's classes; None: the training images.

    Returns:
        For each class int64 positions in the pool, or among the training images, ascending.

    Raises:
        InputError: `ipc` < 1, or a class with fewer than `ipc` images.
    """
    whole("ipc", ipc, 1)
    labels, has = (data.train_labels, f"{data.name} has") if pool is None else (pool.hard_labels, "the pool has")
    members = [torch.nonzero(labels == k).flatten() for k in range(data.num_classes)]
    k = min(range(len(members)), key=lambda k: len(members[k]))
    count, kind = len(members[k]), "training images" if pool is None else "images"
    way_out = f"Choose an ipc of at most {count}" if count else "Drop the class"
    require(
        count >= ipc,
        f"{has} {count} {kind} of class {k} ('{data.class_names[k]}'), ipc is {ipc}. {way_out}, or add images of it.",
    )
    return members
