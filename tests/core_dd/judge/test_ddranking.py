"""DD-Ranking's scores against their formulas, worked by hand."""

import math

import pytest

from core_dd.errors import InputError
from core_dd.judge.ddranking import augmentation_robust_score, label_robust_score, label_robust_score_of


def test_label_robust_score__by_hand():
    """HLR = 0.848 - 0.489 = 0.359, IOR = 0.489 - 0.26 = 0.229, alpha = -0.065."""
    expected = (math.exp(-0.065) - 0.36787944) / (2.71828183 - 0.36787944)
    assert label_robust_score(0.848, 0.489, 0.489, 0.26) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.2422, abs=1e-4)


def test_label_robust_score__ends_of_the_scale():
    assert label_robust_score(1, 0, 0, 1) == pytest.approx(0)
    assert label_robust_score(0, 1, 1, 0) == pytest.approx(1)
    assert label_robust_score(0.5, 0.5, 0.5, 0.5) == pytest.approx((1 - math.exp(-1)) / (math.e - math.exp(-1)))


def test_label_robust_score__weights_the_labels_of_the_method():
    """Soft labels that lift a set count only as far as the weight says."""
    plain, lifted = (label_robust_score(0.8, 0.5, own, 0.3) for own in (0.5, 0.7))
    assert lifted > plain
    assert label_robust_score(0.8, 0.5, 0.7, 0.3, weight=0) == label_robust_score(0.8, 0.5, 0.5, 0.3, weight=0)


def test_augmentation_robust_score__by_hand():
    """beta = 0.5 (0.6 - 0.4) + 0.5 (0.5 - 0.35) = 0.175."""
    expected = (math.exp(0.175) - math.exp(-1)) / (math.e - math.exp(-1))
    assert augmentation_robust_score(0.6, 0.4, 0.5, 0.35) == pytest.approx(expected)
    assert augmentation_robust_score(0.4, 0.4, 0.3, 0.3) == pytest.approx(0.27, abs=0.005)


def test_scores__refuse_percents():
    with pytest.raises(InputError, match="syn_hard must be a fraction from 0 to 1, got 48.9. Divide percents by 100"):
        label_robust_score(0.8, 48.9, 0.5, 0.3)
    with pytest.raises(InputError, match="random_plain must be a fraction"):
        augmentation_robust_score(0.5, 0.5, 0.5, -0.1)


def record(mean, *, labels="hard", images=100, **changes):
    known = {"mean": mean, "data": {"fingerprint": "f"}, "network": "convnet3", "protocol": "dm"}
    return known | {"set": {"labels": labels, "images": images}} | changes


def test_label_robust_score_of__records():
    full, hard, random = record(0.848, images=50000), record(0.489), record(0.26)
    assert label_robust_score_of(full, hard, random) == label_robust_score(0.848, 0.489, 0.489, 0.26)
    own, soft = record(0.6, labels="soft"), record(0.35, labels="soft")
    assert label_robust_score_of(full, hard, soft, own) == label_robust_score(0.848, 0.489, 0.6, 0.35)
    for wrong, message in (
        ((full, hard, random, own), "score 'random' is of hard labels, expected soft ones"),
        ((full, own, random), "score 'hard' is of soft labels, expected hard ones"),
        ((full, hard, record(0.3, images=10)), "score 'random' is of 10 images, the set has 100"),
        ((record(0.8, network="convnet4"), hard, random), "score 'full' has network convnet4, but score 'hard' conv"),
        ((full, hard, record(0.3, protocol="idc")), "score 'random' has protocol idc, but score 'hard' dm"),
    ):
        with pytest.raises(InputError, match=message):
            label_robust_score_of(*wrong)
