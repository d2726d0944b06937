"""Nearest training images and whether they are nearer than luck: loops, closed forms, and real images against noise."""

import pytest
import torch

from core_dd.errors import InputError
from core_dd.judge.copies import CANDIDATES, compared, copying, nearest, neighbours, perceived


def test_nearest__equals_a_loop(generator):
    x, others = torch.randn(7, 5, generator=generator), torch.randn(1200, 5, generator=generator)
    distance, which = nearest(x, others)
    for i in range(7):
        all_of_them = [float((x[i] - other).square().sum().sqrt()) for other in others]
        assert which[i] == min(range(1200), key=all_of_them.__getitem__)
        assert float(distance[i]) == pytest.approx(min(all_of_them), rel=1e-5)


def test_nearest__of_a_copy_is_zero(generator):
    others = 1000 + torch.randn(900, 50, generator=generator)
    distance, which = nearest(others[600:], others)
    assert torch.equal(distance, torch.zeros(300)) and which.tolist() == list(range(600, 900))


def test_copying__counts_pairs_by_hand():
    """Of 2 x 3 pairs, 1 < 2, 1 < 3, 1 < 4, 3 < 4, and 3 = 3 counts half."""
    found = copying(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0, 4.0]))
    assert found["share"] == pytest.approx(4.5 / 6)
    assert (found["median"], found["test_median"]) == (1.0, 3.0)


def test_copying__is_sure_of_copies_only(generator):
    same, other = torch.rand(2, 200, generator=generator)
    assert abs(copying(same, other)["share"] - 0.5) < 0.12 and copying(same, other)["p"] > 1e-3
    assert copying(0 * same, other)["share"] == pytest.approx(1) and copying(0 * same, other)["p"] < 1e-9
    assert copying(same + 1, other)["share"] == pytest.approx(0) and copying(same + 1, other)["p"] > 0.99
    with pytest.raises(InputError, match="one is empty"):
        copying(same[:0], other)


def test_compared__training_images_are_copies_and_test_images_are_not(digits):
    pixels, unseen = (x.float() / 255 for x in (digits.train_images, digits.test_images))

    def both(x):
        return x, x.flatten(1)[:, ::2]

    copied = compared(both(pixels[:40]), both(pixels), both(unseen[100:]))
    assert copied["pixels"]["share"] == copied["features"]["share"] == 1 and copied["pixels"]["p"] < 1e-9
    assert len(copied["pairs"]) == 10 and all(i == j and d == 0 for i, j, d in copied["pairs"])
    fresh = compared(both(unseen[:100]), both(pixels), both(unseen[100:]))
    assert 0.35 < fresh["pixels"]["share"] < 0.65


def test_neighbours__are_the_nearest_in_order(generator):
    x, others = torch.randn(3, 4, generator=generator), torch.randn(50, 4, generator=generator)
    found = neighbours(x, others, 5)
    for row, own in zip(found, x, strict=True):
        assert row.tolist() == (others - own).norm(dim=1).argsort()[:5].tolist()
    assert neighbours(x, others[:2], 5).shape == (3, 2)


def test_perceived__takes_the_likest_of_the_candidates(generator):
    """By a distance of means only: of the nearest in pixels it is the one of the nearest mean."""
    ours, real, unseen = (torch.rand(n, 1, 4, 4, generator=generator) for n in (12, 60, 30))
    found = perceived(lambda a, b: (a.mean((1, 2, 3))[:, None] - b.mean((2, 3, 4))).abs(), ours, real, unseen)
    least = []
    for image in ours:
        near = (real - image).flatten(1).norm(dim=1).argsort()[:CANDIDATES]
        gaps = (real[near].mean((1, 2, 3)) - image.mean()).abs()
        least.append((float(gaps.min()), int(near[gaps.argmin()])))
    assert found["lpips"]["median"] == pytest.approx(float(torch.tensor([gap for gap, _ in least]).median()))
    assert len(found["lpips_pairs"]) == 10
    for i, j, distance in found["lpips_pairs"]:
        assert distance == pytest.approx(least[i][0], abs=1e-6) and j == least[i][1]
