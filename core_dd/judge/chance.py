"""What a handful of classifiers says for sure: an interval of their mean accuracy, and whether they know anything."""

import math
import statistics
from collections.abc import Sequence

from torch import Tensor

from core_dd.errors import require

CONFIDENCE = 0.95
"""Of every interval: one in twenty does not cover the truth."""


def mean_interval(accuracies: Sequence[float]) -> tuple[float, float] | None:
    """95 % confidence interval of the mean of n accuracies: Student's t on the logit scale.

    With m the mean and s the standard deviation of the accuracies (n - 1 below the sum), the delta method gives
    logit(m) the standard error s / sqrt(n) / (m (1 - m)); the interval is `expit(logit(m) -+ t standard errors)`, t the
    97.5 % quantile with n - 1 degrees of freedom. (The "logit interval" of Brown, Cai & DasGupta, Statistical
    Science 2001, with Student's t for the few values.) Narrow intervals away from 0 and 1 are the usual t interval's;
    unlike those, all lie within [0, 1]. It covers the classifiers' randomness, not that of the test images.

    Args:
        accuracies: fractions in [0, 1], n >= 1.

    Returns:
        (low, high), which hold the mean and lie in [0, 1]; the mean twice where all accuracies are equal; None for a
        single one, which says nothing of its spread.

    Raises:
        InputError: no accuracies, or one that is no fraction.

    Examples:
        >>> low, high = mean_interval([0.48, 0.50, 0.52])
        >>> print(f"{low:.3f} to {high:.3f}")
        0.450 to 0.550
        >>> mean_interval([0.5])
    """
    n = len(accuracies)
    require(n > 0 and all(0 <= value <= 1 for value in accuracies), f"expected accuracies in 0..1, got {accuracies}.")
    if n == 1:
        return None
    mean, spread = statistics.fmean(accuracies), statistics.stdev(accuracies)
    if spread == 0 or not 0 < mean < 1:
        return mean, mean
    from scipy.special import expit, logit
    from scipy.stats import t

    half = t.ppf((1 + CONFIDENCE) / 2, n - 1) * spread / math.sqrt(n) / (mean * (1 - mean))
    return float(expit(logit(mean) - half)), float(expit(logit(mean) + half))


def chance(labels: Tensor) -> float:
    """The accuracy that needs no knowledge of the images: the share of the most frequent class, 1/K of balanced labels.

    It is the best of all guesses that do not look (and at least 1/K, that of guessing evenly).

    Args:
        labels: of the test images, int64 (N,), N >= 1.

    Examples:
        >>> import torch
        >>> chance(torch.tensor([0, 0, 0, 1]))
        0.75
    """
    return float(labels.bincount().max()) / len(labels)


def by_luck(right: int, count: int, chance: float) -> bool:
    """Whether guessing explains `right` right answers of `count`: one-sided exact binomial test at 2.5 %.

    That is where the lower end of the exact (Clopper-Pearson) 95 % interval of their share is at chance or below.

    Examples:
        >>> by_luck(12, 100, 0.1), by_luck(30, 100, 0.1)
        (True, False)
    """
    from scipy.stats import binomtest

    return bool(binomtest(right, count, chance, alternative="greater").pvalue > (1 - CONFIDENCE) / 2)


def at_chance(accuracies: Sequence[float], chance: float, test_images: int) -> bool:
    """Whether classifiers cannot be told from ones that know nothing, as far as their few accuracies go.

    Several: the lower end of their `mean_interval` is at chance or below. One: `by_luck`, over the test images. Also
    where the mean itself, over the test images, is no better than luck: equal accuracies have no width.

    Examples:
        >>> at_chance([0.10, 0.11, 0.09], 0.1, test_images=1000), at_chance([0.50, 0.52, 0.51], 0.1, test_images=1000)
        (True, False)
    """
    interval, right = mean_interval(accuracies), round(statistics.fmean(accuracies) * test_images)
    return (interval is not None and interval[0] <= chance) or by_luck(right, test_images, chance)


def below_chance(accuracies: Sequence[float], chance: float, test_images: int) -> bool:
    """Whether classifiers are wrong more often than ones that know nothing: as `at_chance`, on the other side."""
    interval, wrong = mean_interval(accuracies), round((1 - statistics.fmean(accuracies)) * test_images)
    return (interval is None or interval[1] < chance) and not by_luck(wrong, test_images, 1 - chance)
