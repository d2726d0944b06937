"""The two scores of DD-Ranking (Li et al. 2025, https://github.com/NUS-HPC-AI-Lab/DD-Ranking, 0.2), from accuracies.

They ask how much of a method's accuracy is the images' and how much the soft labels' or the augmentation's. Accuracies
are fractions, as the definition has them; the authors' code passes percents into the exponential, and its numbers
differ.
"""

import math
from collections.abc import Mapping

from core_dd.errors import require


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
        In [0, 1], shown times 100; higher is better. A set that is worth as much as all real images, and random ones
        nothing: 0.68.

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
        for what, found, expected in (
            ("data", score["data"]["fingerprint"], hard["data"]["fingerprint"]),
            ("network", score["network"], hard["network"]),
            ("protocol", score["protocol"], hard["protocol"]),
        ):
            require(found == expected, f"score '{name}' has {what} {found}, but score 'hard' {expected}.")
    for name, score, regime in (("full", full, "hard"), ("hard", hard, "hard"), ("random", random, _labels(own))):
        require(_labels(score) == regime, f"score '{name}' is of {_labels(score)} labels, expected {regime} ones.")
    images, others = own["set"]["images"], random["set"]["images"]
    require(images == others, f"score 'random' is of {others} images, the set has {images}. Draw as many.")
    return label_robust_score(full["mean"], hard["mean"], own["mean"], random["mean"], weight)


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
