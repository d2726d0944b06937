"""Intervals of a few accuracies, and what is no better than chance."""

import numpy as np
import pytest
import torch

from core_dd.errors import InputError
from core_dd.judge.chance import at_chance, below_chance, by_luck, chance, mean_interval


@pytest.mark.parametrize("accuracies", [[0.511, 0.667], [0.0, 1.0], [0.0, 0.02], [1.0, 0.99, 1.0], [0.1] * 5])
def test_mean_interval__lies_within_0_and_1_and_holds_the_mean(accuracies):
    low, high = mean_interval(accuracies)
    assert 0 <= low <= np.mean(accuracies) + 1e-12 and np.mean(accuracies) - 1e-12 <= high <= 1


@pytest.mark.parametrize("mean", [0.03, 0.1, 0.6, 0.97])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_mean_interval__covers_the_mean_19_times_of_20(mean, n):
    """Of accuracies from a beta distribution whose spread is a third of the way to the nearer end."""
    concentration = mean * (1 - mean) / (min(mean, 1 - mean) / 3) ** 2 - 1
    draws = np.random.default_rng(0).beta(mean * concentration, (1 - mean) * concentration, (500, n))
    covered = np.mean([low <= mean <= high for low, high in map(mean_interval, draws.tolist())])
    assert covered == pytest.approx(0.95, abs=0.03)


def test_mean_interval__is_students_where_the_spread_is_small():
    low, high = mean_interval([0.599, 0.600, 0.601])
    assert (low, high) == pytest.approx((0.6 - 4.302653e-3 / 3**0.5, 0.6 + 4.302653e-3 / 3**0.5), abs=1e-5)


def test_mean_interval__none_of_one_and_refused_of_none():
    assert mean_interval([0.5]) is None
    for wrong in ([], [1.2, 0.3], [float("nan"), 0.5]):
        with pytest.raises(InputError, match=r"accuracies in 0\.\.1"):
            mean_interval(wrong)


def test_chance__is_the_share_of_the_largest_class():
    assert chance(torch.arange(40) % 4) == 0.25
    assert chance(torch.tensor([0, 0, 0, 1])) == 0.75


@pytest.mark.parametrize(
    ("accuracies", "lost"),
    [
        ([0.097, 0.102, 0.085], True),  # around it
        ([0.02, 0.03, 0.025], True),  # below it, whatever the interval
        ([0.12, 0.12], True),  # above by no more than 355 test images can tell
        ([0.12], True),
        ([0.17, 0.25, 0.13, 0.30], False),
        ([0.15], False),
        ([0.30, 0.60], True),  # two so far apart tell nothing: 0.04 % to 99.9 %
        ([0.97, 0.98], False),
    ],
)
def test_at_chance__as_far_as_a_few_classifiers_can_tell(accuracies, lost):
    assert at_chance(accuracies, chance=0.1, test_images=355) is lost


@pytest.mark.parametrize(
    ("accuracies", "below"),
    [([0.01, 0.02, 0.02], True), ([0.02], True), ([0.0986] * 3, False), ([0.09], False), ([0.02, 0.1], False)],
)
def test_below_chance__is_worse_than_guessing(accuracies, below):
    assert below_chance(accuracies, chance=0.1, test_images=355) is below


def test_by_luck__is_the_exact_binomial_test():
    """Of ten guesses among two, nine right happen by luck in 1.1 % of cases, eight in 5.5 %."""
    assert by_luck(8, 10, 0.5) and not by_luck(9, 10, 0.5)
