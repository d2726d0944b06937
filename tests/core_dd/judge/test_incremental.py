"""Class-incremental learning: the same as evaluations of the parts written out, and what cannot come in steps."""

import pytest
import torch

from core_dd import DistilledSet, evaluate
from core_dd.errors import InputError
from core_dd.judge.incremental import class_groups, incremental
from core_dd.rng import stream
from matching_dd import coreset

HOW = {"protocol": "quick", "network": "convnet1_w8", "runs": 2, "seed": 3, "device": "cpu"}


@pytest.mark.parametrize(("classes", "steps"), [(10, 5), (10, 3), (7, 1)])
def test_class_groups__are_as_equal_as_can_be_and_of_the_seed(classes, steps):
    groups = class_groups(classes, steps, seed=0)
    sizes = [len(group) for group in groups]
    assert sorted(torch.cat(groups).tolist()) == list(range(classes)) and max(sizes) - min(sizes) <= 1
    assert torch.cat(groups).tolist() != torch.cat(class_groups(classes, steps, seed=1)).tolist()


def test_incremental__is_an_evaluation_of_what_is_known_at_each_step(digits):
    dset = coreset("random", digits, 2, seed=0)
    scores = incremental(dset, digits, 3, iterations=4, **HOW)
    order = torch.randperm(10, generator=stream(3, "class_order")).tolist()
    record = scores.record["incremental"]
    assert record["order"] == order and record["classes"] == [4, 7, 10]
    for count, own in zip(record["classes"], record["accuracies"], strict=True):
        known = sorted(order[:count])
        part = [i for i, label in enumerate(dset.labels.tolist()) if label in known]
        memory = DistilledSet(dset.images[part], dset.labels[part], dset.meta)
        classifiers = evaluate(memory, digits, steps=4, **HOW)
        if count == 10:
            assert own == classifiers.accuracies
        classes = classifiers.record["answers"]["confusion"]  # both classifiers together
        right = sum(classes[k][k] for k in known) / sum(sum(classes[k]) for k in known)
        assert sum(own) / len(own) == pytest.approx(right)
    means = [sum(column) / 3 for column in zip(*record["accuracies"], strict=True)]
    assert scores.accuracies == pytest.approx(means)
    assert scores.record["protocol"] == "quick_4_steps_incremental_3" and scores.record["smoke"]


def test_incremental__soft_labels_go_by_their_class(digits):
    dset = coreset("random", digits, 1, seed=0)
    soft = DistilledSet(dset.images, 0.9 * torch.eye(10)[dset.labels] + 0.01, dset.meta)
    assert incremental(soft, digits, 5, iterations=1, **HOW).record["incremental"]["classes"] == [2, 4, 6, 8, 10]


def test_incremental__refuses_steps_of_a_single_class(digits):
    with pytest.raises(InputError, match="10 classes cannot come in 6 steps of two or more. .* at most 5 steps"):
        incremental(coreset("random", digits, 1), digits, 6, **HOW)
