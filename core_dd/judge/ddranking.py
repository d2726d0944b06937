"""The two scores of DD-Ranking (Li et al. 2025, https://github.com/NUS-HPC-AI-Lab/DD-Ranking, 0.2), from accuracies.

They ask how much of a method's accuracy is the images' and how much the soft labels' or the augmentation's. Accuracies
are fractions, as the definition has them; the authors' code passes percents into the exponential, and its numbers
differ. It also draws other random images for every classifier, and takes the best of several tests; here all
classifiers get one draw, and are tested once.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core_dd.data.images import ImageData
from core_dd.errors import require
from core_dd.judge.fidelity import probabilities, real_classifier
from core_dd.judge.networks import NetworkLike
from core_dd.judge.protocols import Protocol
from core_dd.judge.scores import read_score
from core_dd.rng import stream
from core_dd.sets.distilled import DistilledSet, new_meta


def label_robust_score(
    real_hard: float, syn_hard: float, syn_any: float, random_any: float, weight: float = 0.5
) -> float:
    """LRS: what a set is worth whatever labels it is used with.

    `alpha = w IOR - (1 - w) HLR`, with the hard label recovery `HLR = real_hard - syn_hard` and the improvement over
    random `IOR = syn_any - random_any`; the score is `(e^alpha - e^-1) / (e - e^-1)`.

    Args:
        real_hard: accuracy of classifiers of all real training images, hard labels.
        syn_hard: of the set, hard labels.
        syn_any: of the set with the labels of its method, soft or hard.
        random_any: of as many random real images, trained and labelled as for `syn_any`.
        weight: w, in [0, 1].

    Returns:
        In [0, 1], shown times 100; higher is better. A set that teaches as well as all real images, where
        that is without error and random ones teach nothing: 0.54.

    Raises:
        InputError: an accuracy or a weight that is not in [0, 1].
    """
    _fractions(real_hard=real_hard, syn_hard=syn_hard, syn_any=syn_any, random_any=random_any, weight=weight)
    return _scaled(weight * (syn_any - random_any) - (1 - weight) * (real_hard - syn_hard))


def augmentation_robust_score(
    syn_augmented: float, random_augmented: float, syn_plain: float, random_plain: float, weight: float = 0.5
) -> float:
    """ARS: what a set is worth with and without the augmentation of its method.

    `beta = g (syn_augmented - random_augmented) + (1 - g) (syn_plain - random_plain)`, mapped as in
    `label_robust_score`.

    Args:
        syn_augmented, random_augmented: accuracies of the set and of as many random real images, with augmentation.
        syn_plain, random_plain: the same without.
        weight: g, in [0, 1].

    Returns:
        In [0, 1], shown times 100; higher is better, and a set as good as random images has 0.27.

    Raises:
        InputError: an accuracy or a weight that is not in [0, 1].
    """
    _fractions(syn_augmented=syn_augmented, random_augmented=random_augmented, weight=weight)
    _fractions(syn_plain=syn_plain, random_plain=random_plain)
    return _scaled(weight * (syn_augmented - random_augmented) + (1 - weight) * (syn_plain - random_plain))


def label_robust_score_of(
    full: Mapping, hard: Mapping, random: Mapping, own: Mapping | None = None, weight: float = 0.5
) -> float:
    """LRS from scores.json records (`core_dd.judge.scores.read_score`, or `Scores.to_json()`).

    Args:
        full: the score of all real training images.
        hard: of the set with hard labels.
        random: of random real images, in the label regime of `own`.
        own: of the set with the labels of its method; None: these are the hard ones.
        weight: see `label_robust_score`.

    Raises:
        InputError: scores that do not belong together: of other data, network or protocol, of another label regime
            than their place asks for, or random images of another number than the set's.
    """
    own = hard if own is None else own
    for name, score in (("full", full), ("random", random), ("own", own)):
        _together(name, score, hard)
    for name, score, regime in (("full", full, "hard"), ("hard", hard, "hard"), ("random", random, _labels(own))):
        require(_labels(score) == regime, f"score '{name}' is of {_labels(score)} labels, expected {regime} ones.")
    images, others = own["set"]["images"], random["set"]["images"]
    require(images == others, f"score 'random' is of {others} images, the set has {images}. Draw as many.")
    return label_robust_score(full["mean"], hard["mean"], own["mean"], random["mean"], weight)


def check(asked: bool | str, protocol: Protocol, dset: DistilledSet, data: ImageData, network: str) -> None:
    """Refuse what the two scores cannot be said of, before any work.

    Args:
        asked: whether they are asked for, or `real` as `scores_of` takes it.
        protocol: as it is resolved.
        dset: the set.
        data: the real data.
        network: its name.

    Raises:
        InputError: a protocol that trains by what only the set comes with (a learnt learning rate) or by a teacher's
            labels, fewer real images of a class than the set has, or a file that is no score of all real images by
            this protocol and network.
    """
    if not asked:
        return
    for kind, has in (("learning rate of the set", protocol.learned_lr), ("labels of a teacher", protocol.teacher)):
        require(
            not has,
            f"ddranking compares with random images under the same recipe and hard labels; protocol {protocol.name} "
            f"trains by the {kind}. Choose another, such as dm.",
        )
    wanted, there = (labels.bincount(minlength=data.num_classes) for labels in (dset.hard_labels, data.train_labels))
    k = int((there - wanted).argmin())
    require(
        bool(wanted[k] <= there[k]),
        f"ddranking compares with as many random real images, but {data.name} has {there[k]} of class {k}, the set "
        f"{wanted[k]}.",
    )
    if isinstance(asked, str):
        score, own = read_score(Path(asked)), {"data": {"fingerprint": data.fingerprint}}
        _together(asked, score, own | {"network": network, "protocol": protocol.name}, "what is asked for is")
        require(score["set"]["images"] == len(data.train_labels), f"{asked} is no score of all real training images.")


def scores_of(
    own: Mapping[str, Any],
    dset: DistilledSet,
    random: DistilledSet,
    full: DistilledSet,
    again: Callable[..., Any],
    real: bool | str = True,
    *,
    augmented: bool = True,
) -> dict[str, Any]:
    """LRS and ARS of a set, from its score and from those they compare it with.

    Args:
        own: the score of the set, as a record.
        dset: the set.
        random: what `random_like` draws.
        full: all real training images.
        again: `again(dset)` trains and tests as for `own`, `again(dset, augment="none")` without augmentation; returns
            `Scores`.
        real: a scores.json of `full` by the same protocol, network and data, in place of training on it once more.
        augmented: whether the protocol augments these data for this network.

    Returns:
        `lrs`, and `ars` (None for a protocol that does not augment), in [0, 1], and the `accuracies` they are of.
    """
    soft = dset.labels.is_floating_point()
    hard = again(replace(dset, labels=dset.hard_labels)).to_json() if soft else own
    real_hard = read_score(Path(real)) if isinstance(real, str) else again(full).to_json()
    random_any = again(random).to_json()
    found: dict[str, Any] = {"lrs": label_robust_score_of(real_hard, hard, random_any, own), "ars": None}
    by_name = {"real_hard": real_hard, "syn_hard": hard, "syn_any": own, "random_any": random_any}
    if augmented:
        plain = {"syn_plain": again(dset, augment="none"), "random_plain": again(random, augment="none")}
        by_name |= {name: scores.to_json() for name, scores in plain.items()}
        of = [by_name[name]["mean"] for name in ("syn_any", "random_any", "syn_plain", "random_plain")]
        found["ars"] = augmentation_robust_score(*of)
    return found | {"accuracies": {name: score["mean"] for name, score in by_name.items()}}


def random_like(
    dset: DistilledSet, data: ImageData, network: NetworkLike, seed: int, device: torch.device, bf16: bool = True
) -> DistilledSet:
    """As many random real training images of each class as a set stores, in its preprocessing and label regime: where
    the set has soft labels, theirs are what a classifier of the real data says (`network`, protocol quick)."""
    draws = [
        members[torch.randperm(len(members), generator=stream(seed, "ddranking", k))[:count]]
        for k, (members, count) in enumerate(
            zip(data.class_indices(), dset.hard_labels.bincount(minlength=data.num_classes).tolist(), strict=True)
        )
    ]
    index = torch.cat(draws)
    images, labels = data.train_images[index], data.train_labels[index]
    if dset.labels.is_floating_point():
        judge = real_classifier(data, network, seed, device, bf16=bf16)
        labels = probabilities(judge.network(0), images, judge.preprocess).cpu()
    preprocess = dset.meta.get("preprocess")
    meta = new_meta(data, method="random", ipc=dset.meta.get("ipc"), seed=seed, preprocess=preprocess)
    return DistilledSet(images, labels, meta, dict(dset.tensors))


def _together(name: str, score: Mapping, other: Mapping, than: str = "score 'hard'") -> None:
    """Refuse a score of other data, network or protocol than another one."""
    for what, found, expected in (
        ("data", score["data"]["fingerprint"], other["data"]["fingerprint"]),
        ("network", score["network"], other["network"]),
        ("protocol", score["protocol"], other["protocol"]),
    ):
        require(found == expected, f"score '{name}' has {what} {found}, but {than} {expected}.")


def _labels(score: Mapping) -> str:
    """The label regime of a score; one that does not say is of hard labels."""
    return score["set"].get("labels") or "hard"


def _scaled(value: float) -> float:
    """[-1, 1] onto [0, 1] by the exponential."""
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))


def _fractions(**values: float) -> None:
    """Refuse what is no fraction."""
    for name, value in values.items():
        require(0 <= value <= 1, f"{name} must be a fraction from 0 to 1, got {value}. Divide percents by 100.")
