import itertools

import pytest
import torch

from core_dd.judge.permuted import best_renaming, permuted


def test_best_renaming__equals_all_tried_out(generator):
    for _ in range(5):
        predicted, labels = torch.randint(5, (2, 40), generator=generator)
        best, to = best_renaming(predicted, labels, 5)
        tried = {
            p: float((torch.tensor(p)[labels] == predicted).float().mean()) for p in itertools.permutations(range(5))
        }
        assert best == pytest.approx(max(tried.values())) and tried[to] == pytest.approx(best)


def answers(labels, to, right, generator, classes=10):
    """A classifier that sees class `to[label]` with probability `right`, else any."""
    seen, other = torch.tensor(to)[labels], torch.randint(classes, labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < right, seen, other)


SHIFTED = [(k + 1) % 10 for k in range(10)]


@pytest.mark.parametrize("ipc", [10, 50])
def test_permuted__finds_the_renaming(generator, ipc):
    labels = torch.arange(10).repeat_interleave(ipc)
    found = permuted(answers(labels, SHIFTED, 0.8, generator), labels, 10)
    assert list(found.to) == SHIFTED and found.as_labelled < 0.15 and found.renamed > 0.7
    assert "0 shows 1" in found.warning("x", list("0123456789"))


def test_permuted__by_a_classifier_that_knows_little(generator):
    """On CIFAR-10 a small classifier gets half of the real images right, and so many of a permuted set of them."""
    labels = torch.arange(10).repeat_interleave(10)
    predicted = answers(labels, SHIFTED, 0.45, generator)
    assert permuted(predicted, labels, 10) is None
    assert list(permuted(predicted, labels, 10, on_real=0.5).to) == SHIFTED


@pytest.mark.parametrize("ipc", [1, 2, 10, 50])
def test_permuted__not_of_right_labels_nor_of_noise(generator, ipc):
    labels = torch.arange(10).repeat_interleave(ipc)
    for right in (0.0, 0.3, 0.6, 1.0):
        for _ in range(5):
            predicted = answers(labels, range(10), right, generator)
            assert permuted(predicted, labels, 10) is None and permuted(predicted, labels, 10, on_real=0.5) is None
    collapsed = torch.full_like(labels, 3)
    assert permuted(collapsed, labels, 10) is None


def test_permuted__few_images_agree_with_some_renaming_by_luck(generator):
    """One image of each class: answers at random have a renaming that suits half of them, which says nothing."""
    labels, found = torch.arange(10), 0
    for _ in range(20):
        found += permuted(torch.randint(10, (10,), generator=generator), labels, 10) is not None
    assert found == 0
