"""Accuracies on two levels, sets and the classifiers trained on each: their mean, both spreads, and which method is
better for sure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core_dd.errors import require
from core_dd.judge.chance import CONFIDENCE, mean_interval

FEWEST_PAIRS = 3
"""Seeds that two methods must share to be compared: two differences that happen to be alike would look certain."""


@dataclass(frozen=True)
class Level:
    """What several sets of one method are worth; accuracies are fractions.

    Attributes:
        mean: of the sets' means, each set counting alike.
        std_sets: standard deviation of the sets' true means; None for a single set.
        std_classifiers: of classifiers trained on the same set; None where every set has a single one.
        interval: 95 % interval of the method's mean; None where its spread is not known.
        sets, classifiers: how many there are.
    """

    mean: float
    std_sets: float | None
    std_classifiers: float | None
    interval: tuple[float, float] | None
    sets: int
    classifiers: int


def two_levels(accuracies: Sequence[Sequence[float]]) -> Level:
    """The random-effects model of a one-way layout, fitted by the method of moments.

    The accuracy of classifier r on set s is y_sr = mu + a_s + e_sr with independent a_s of variance v_sets (making a
    set anew) and e_sr of variance v_classifiers (training on it anew). With n_s classifiers on set s, N in all, on S
    sets, and the mean squares within and between sets,

        MSW = sum_sr (y_sr - mean_s)^2 / (N - S),    MSB = sum_s n_s (mean_s - mean)^2 / (S - 1),

    `std_classifiers` is the root of MSW and `std_sets` that of max(0, (MSB - MSW) / n0), where
    n0 = (N - sum_s n_s^2 / N) / (S - 1) is n_s where all are equal (Searle, Casella & McCulloch, Variance Components,
    1992, section 3.6). Where every set has one classifier, the two cannot be told apart: `std_sets` is that of the
    accuracies, which holds both.

    The interval of mu is nested: Student's t over the S means of sets, with S - 1 degrees of freedom, on the logit
    scale (`core_dd.judge.chance.mean_interval`). Where the n_s are equal, the means vary by v_sets + v_classifiers / n,
    so it covers both levels, exactly on its scale. A single set says nothing of making sets anew: its interval is that
    of its classifiers.

    Args:
        accuracies: fractions in [0, 1]: of every set those of its classifiers, at least one of each.

    Raises:
        InputError: no sets, a set without classifiers, or accuracies that are no fractions.
    """
    require(
        bool(accuracies) and all(map(len, accuracies)), "expected at least one set, of at least one classifier each."
    )
    means, counts = [statistics.fmean(own) for own in accuracies], [len(own) for own in accuracies]
    sets, total = len(accuracies), sum(counts)
    within = _mean_square_within(accuracies, means)
    between = None
    if sets > 1:
        grand = sum(sum(own) for own in accuracies) / total
        square = sum(n * (mean - grand) ** 2 for n, mean in zip(counts, means, strict=True)) / (sets - 1)
        size = (total - sum(n**2 for n in counts) / total) / (sets - 1)
        between = math.sqrt(max(0.0, square - (within or 0.0)) / size)
    return Level(
        mean=statistics.fmean(means),
        std_sets=between,
        std_classifiers=None if within is None else math.sqrt(within),
        interval=mean_interval(means if sets > 1 else accuracies[0]),
        sets=sets,
        classifiers=total,
    )


def _mean_square_within(accuracies: Sequence[Sequence[float]], means: Sequence[float]) -> float | None:
    """MSW of `two_levels`; None where no set has two classifiers."""
    freedom = sum(map(len, accuracies)) - len(accuracies)
    if freedom == 0:
        return None
    squares = ((y - mean) ** 2 for own, mean in zip(accuracies, means, strict=True) for y in own)
    return sum(squares) / freedom


def surely_best(methods: Mapping[str, Mapping[int, float]]) -> str | None:
    """The method whose mean is highest, if it is better than each of the others beyond doubt; else None.

    The sets of two methods with the same seed are a pair: they are made and judged by the same draws. A method is
    better than another where the two-sided paired t-test on their pairs' differences rejects their equality at 5 %. The
    best must be better than every other one; that all tests must reject keeps the error of the claim below 5 % without
    a correction (an intersection-union test; Berger, Technometrics 1982).

    Args:
        methods: by name, the means of its sets by their seeds.

    Returns:
        Its name; None where there is no other method, a test does not reject, or one shares fewer than `FEWEST_PAIRS`
        seeds with the best.
    """
    if len(methods) < 2:
        return None
    best = max(methods, key=lambda name: statistics.fmean(methods[name].values()))
    others = (own for name, own in methods.items() if name != best)
    return best if all(_better(methods[best], own) for own in others) else None


def _better(own: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether the first is better over the seeds both have, by the paired t-test."""
    gains = [own[seed] - other[seed] for seed in own.keys() & other.keys()]
    if len(gains) < FEWEST_PAIRS or statistics.fmean(gains) <= 0:
        return False
    spread = statistics.stdev(gains)
    if spread == 0:
        return True
    from scipy.stats import t

    statistic = statistics.fmean(gains) / (spread / math.sqrt(len(gains)))
    return bool(2 * t.sf(statistic, len(gains) - 1) < 1 - CONFIDENCE)
