"""KID, Inception score, precision, recall, density, coverage: closed forms, hand-made cases, torch-fidelity's code."""

import math

import pytest
import torch

from core_dd.errors import InputError
from core_dd.judge.samples import inception_score, kernel_distance, prdc, squared_mmd


def test_squared_mmd__equals_loops_over_pairs(generator):
    a, b = torch.randn(4, 3, generator=generator), torch.randn(5, 3, generator=generator)

    def k(x, y):
        return (float(x.double() @ y.double()) / 3 + 1) ** 3

    within = [
        sum(k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j) / (len(x) * (len(x) - 1))
        for x in (a, b)
    ]
    across = sum(k(x, y) for x in a for y in b) / 20
    assert squared_mmd(a, b) == pytest.approx(sum(within) - 2 * across, rel=1e-6)
    with pytest.raises(InputError, match="needs at least 2 images, got 1"):
        squared_mmd(a[:1], b)


def test_squared_mmd__is_unbiased(generator):
    """Zero in the mean for two samples of one distribution: 400 pairs of five."""
    found = torch.tensor(
        [squared_mmd(*torch.randn(2, 5, 2, generator=generator, dtype=torch.float64)) for _ in range(400)]
    )
    assert abs(found.mean()) < 4 * found.std() / 20


def test_kernel_distance__is_torch_fidelitys(generator):
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = torch.randn(30, 6, generator=generator), 0.5 + torch.randn(30, 6, generator=generator)
    options = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None}
    options |= {"kid_kernel_poly_coef0": 1, "kid_subsets": 1, "kid_subset_size": 30, "verbose": False, "rng_seed": 0}
    theirs = kid_features_to_metric(a, b, **options)["kernel_inception_distance_mean"]
    assert kernel_distance(a, b, generator) == pytest.approx(theirs, rel=1e-4)


def test_kernel_distance__of_parts_is_near_that_of_all(generator):
    a, b = torch.randn(60, 4, generator=generator), 1 + torch.randn(80, 4, generator=generator)
    assert kernel_distance(a, b, generator, size=20) == pytest.approx(squared_mmd(a, b), rel=0.3)


def test_inception_score__ends_of_the_scale(generator):
    sure = 100 * torch.eye(4).repeat(5, 1)
    assert inception_score(sure, generator, splits=1) == pytest.approx(4)
    assert inception_score(torch.zeros(20, 4), generator) == pytest.approx(1)
    with pytest.raises(InputError, match="needs at least 10 images, got 9"):
        inception_score(sure[:9], generator)


def test_inception_score__is_torch_fidelitys(generator):
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = torch.randn(37, 8, generator=generator)
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    theirs = isc_features_to_metric(logits[order], splits=1, shuffle=False)["inception_score_mean"]
    assert inception_score(logits, torch.Generator().manual_seed(1), splits=1) == pytest.approx(theirs)
    split = isc_features_to_metric(logits[order][:30], splits=3, shuffle=False)["inception_score_mean"]
    same = logits[order][:30][torch.randperm(30, generator=torch.Generator().manual_seed(2)).argsort()]
    assert inception_score(same, torch.Generator().manual_seed(2), splits=3) == pytest.approx(split)


def test_prdc__by_hand():
    """On a line: real balls of radius 1 about 0, 1, 2, 3; fake images at 0.5, 2.5 and far away; k = 1."""
    real = torch.tensor([[0.0], [1], [2], [3]])
    fake = torch.tensor([[0.5], [2.5], [50]])
    assert prdc(fake, real, k=1) == {
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,  # fake balls of radii 2, 2 and 47.5
        "density": pytest.approx(4 / 3),
        "coverage": 1.0,
    }


def test_prdc__equals_loops(generator):
    fake, real, k = torch.randn(12, 3, generator=generator), torch.randn(15, 3, generator=generator), 3

    def radii(x):
        return [sorted(math.dist(a, b) for b in x.tolist())[k] for a in x.tolist()]

    ball, other = radii(real), radii(fake)
    near = [[math.dist(f, r) for r in real.tolist()] for f in fake.tolist()]
    inside = [[near[i][j] < ball[j] for j in range(15)] for i in range(12)]
    found = prdc(fake, real, k)
    assert found["precision"] == pytest.approx(sum(map(any, inside)) / 12)
    assert found["density"] == pytest.approx(sum(map(sum, inside)) / 12 / k)
    assert found["coverage"] == pytest.approx(sum(map(any, zip(*inside, strict=True))) / 15)
    recalled = [any(near[i][j] < other[i] for i in range(12)) for j in range(15)]
    assert found["recall"] == pytest.approx(sum(recalled) / 15)


def test_prdc__of_the_real_images_and_of_others(generator):
    real = torch.randn(200, 3, generator=generator)
    assert prdc(real, real)["precision"] == prdc(real, real)["coverage"] == 1
    assert set(prdc(real + 100, real).values()) == {0}
    with pytest.raises(InputError, match="need more than 5 images, got 5"):
        prdc(real[:5], real)
