"""Accuracy by class, confusion and calibration against loops over images and hand-made cases."""

import pytest
import torch

from core_dd.judge.answers import BINS, Answers, calibration_error, confidence_bins, confusion


def test_confusion__counts_by_hand():
    labels = torch.tensor([0, 0, 1, 2])
    found = confusion(torch.tensor([[0, 1, 1, 0], [2, 2, 2, 2]]), labels, 3)
    assert found.tolist() == [[[1, 1, 0], [0, 1, 0], [1, 0, 0]], [[0, 0, 2], [0, 0, 1], [0, 0, 1]]]


def test_answers__equal_a_loop_over_images_however_they_are_split(generator):
    logits, labels = torch.randn(3, 60, 4, generator=generator), torch.randint(0, 4, (60,), generator=generator)
    whole = Answers.of([(logits, labels)])
    parts = Answers.of((logits[:, i : i + 7], labels[i : i + 7]) for i in range(0, 60, 7))
    assert torch.equal(whole.confusion, parts.confusion)
    assert parts.calibration_error == pytest.approx(whole.calibration_error)
    for r in range(3):
        right = sum(int(logits[r, i].argmax()) == int(labels[i]) for i in range(60))
        assert whole.accuracies[r] == pytest.approx(right / 60)
    for k in range(4):
        members = [i for i in range(60) if labels[i] == k]
        right = sum(int(logits[r, i].argmax()) == k for i in members for r in range(3))
        assert whole.per_class[k] == pytest.approx(right / len(members) / 3)
    assert whole.balanced_accuracy == pytest.approx(sum(whole.per_class) / 4)


def test_answers__a_class_without_images_is_left_out():
    answers = Answers.of([(torch.eye(3)[None, :2], torch.tensor([0, 1]))])
    assert answers.per_class == [1.0, 1.0, None] and answers.balanced_accuracy == 1.0
    assert answers.to_record()["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_answers__of_many_classes_keep_no_matrix():
    record = Answers.of([(torch.zeros(1, 2, 101), torch.tensor([0, 1]))]).to_record()
    assert record["confusion"] is None and len(record["per_class"]) == 101


def test_calibration_error__by_hand():
    """Four answers of which the classifier is 0.9 sure, three right; two of which it is 0.6 sure, both right."""
    sure = torch.tensor([0.9] * 4 + [0.6] * 2, dtype=torch.float64)
    logits = torch.stack([sure.log(), (1 - sure).log()], 1)[None]
    found = calibration_error(confidence_bins(logits, torch.tensor([0, 0, 0, 1, 0, 0])))
    assert found.tolist() == pytest.approx([4 / 6 * abs(0.9 - 0.75) + 2 / 6 * abs(0.6 - 1.0)])


def test_confidence_bins__hold_their_upper_ends():
    bins = confidence_bins(torch.tensor([[[100.0, 0.0]], [[0.0, 0.0]], [[float("nan"), 0.0]]]), torch.tensor([0]))
    assert bins[0, BINS - 1].tolist() == pytest.approx([1, 1, 1])  # entirely sure: the last bin
    assert bins[1].argmax(0).tolist() == [7, 7, 7]  # 0.5 lies in (7 / 15, 8 / 15]
    assert bins[2, 7].tolist() == [1, 1, 0.5]  # no number: unsure
    assert bins.sum((1, 2)).isfinite().all()
