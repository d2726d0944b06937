"""Two levels told apart, against closed forms; the surely best by hand."""

import math
import statistics

import pytest
import torch

from core_dd.compare.levels import surely_best, two_levels
from core_dd.errors import InputError
from core_dd.judge.chance import mean_interval


def test_two_levels__equals_the_closed_form_of_a_balanced_layout():
    level = two_levels([[0.50, 0.52], [0.60, 0.64], [0.70, 0.70]])
    means = [0.51, 0.62, 0.70]
    within = (2 * 0.01**2 + 2 * 0.02**2 + 0) / 3
    between = 2 * sum((mean - statistics.fmean(means)) ** 2 for mean in means) / 2
    assert level.mean == pytest.approx(statistics.fmean(means))
    assert level.std_classifiers == pytest.approx(math.sqrt(within))
    assert level.std_sets == pytest.approx(math.sqrt((between - within) / 2))
    assert (level.sets, level.classifiers) == (3, 6)
    assert level.interval == pytest.approx(mean_interval(means))


def test_two_levels__equals_the_textbook_on_unequal_numbers():
    own = [[0.4, 0.5, 0.6], [0.7], [0.55, 0.65]]
    n, means = [3, 1, 2], [0.5, 0.7, 0.6]
    grand = sum(map(sum, own)) / 6
    within = (0.1**2 + 0.1**2 + 2 * 0.05**2) / 3
    between = sum(k * (mean - grand) ** 2 for k, mean in zip(n, means, strict=True)) / 2
    size = (6 - (9 + 1 + 4) / 6) / 2
    level = two_levels(own)
    assert level.std_classifiers == pytest.approx(math.sqrt(within))
    assert level.std_sets == pytest.approx(math.sqrt(max(0, (between - within) / size)))


def test_two_levels__finds_the_spreads_that_were_put_in():
    generator = torch.Generator().manual_seed(0)
    sets = 0.5 + 0.03 * torch.randn(4000, 1, generator=generator)
    level = two_levels((sets + 0.01 * torch.randn(4000, 3, generator=generator)).tolist())
    assert level.std_sets == pytest.approx(0.03, rel=0.05) and level.std_classifiers == pytest.approx(0.01, rel=0.05)


def test_two_levels__no_spread_of_sets_where_the_classifiers_explain_it():
    assert two_levels([[0.4, 0.6], [0.41, 0.61]]).std_sets == 0


def test_two_levels__a_single_set_or_classifier_leaves_one_level_open():
    one_set, one_each = two_levels([[0.5, 0.6, 0.7]]), two_levels([[0.5], [0.7]])
    assert one_set.std_sets is None and one_set.std_classifiers == pytest.approx(0.1)
    assert one_set.interval == pytest.approx(mean_interval([0.5, 0.6, 0.7]))
    assert one_each.std_classifiers is None and one_each.std_sets == pytest.approx(statistics.stdev([0.5, 0.7]))
    assert two_levels([[0.5]]).interval is None


@pytest.mark.parametrize("wrong", [[], [[]], [[0.5], []]])
def test_two_levels__wants_sets_with_classifiers(wrong):
    with pytest.raises(InputError, match="at least one set, of at least one classifier"):
        two_levels(wrong)


def test_surely_best__is_what_every_paired_test_says():
    a, b = {0: 0.60, 1: 0.70, 2: 0.80}, {0: 0.58, 1: 0.675, 2: 0.78}  # differences 2, 2.5, 2: t = 13, p < 0.01
    assert surely_best({"a": a, "b": b}) == "a"
    assert surely_best({"a": a, "b": b, "c": {0: 0.5, 1: 0.72, 2: 0.7}}) is None  # c is not surely below a
    noisy = {0: 0.70, 1: 0.60, 2: 0.65}
    assert surely_best({"a": a, "noisy": noisy}) is None


def test_surely_best__wants_three_seeds_that_both_have():
    a = {0: 0.9, 1: 0.9, 2: 0.9}
    assert surely_best({"a": a, "b": {0: 0.1, 1: 0.1}}) is None
    assert surely_best({"a": a, "b": {3: 0.1, 4: 0.1, 5: 0.1}}) is None
    assert surely_best({"a": a, "b": {0: 0.1, 1: 0.1, 2: 0.1}}) == "a"
    assert surely_best({"a": a}) is None


def test_surely_best__pairs_see_through_what_both_share():
    """Seeds of very different difficulty: unpaired, the two could not be told apart."""
    shared = [0.2, 0.5, 0.8, 0.35]
    a = {seed: value + 0.01 for seed, value in enumerate(shared)}
    b = {seed: value + 0.0001 * seed for seed, value in enumerate(shared)}
    assert surely_best({"b": b, "a": a}) == "a"
