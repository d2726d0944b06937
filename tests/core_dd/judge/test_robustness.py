"""Attacks and corruptions: closed forms on a linear classifier, bounds, and classifiers that suffer from them."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from core_dd import DistilledSet, evaluate
from core_dd.data.preprocess import Preprocess
from core_dd.judge.robustness import CORRUPTIONS, RADIUS, STEP, STEPS, attacked
from core_dd.judge.scores import read_score
from core_dd.sets.distilled import new_meta


@pytest.fixture
def linear(generator):
    """Two classes of 2x2 pixels, told apart by a sum with signs."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, -1, 1, -1], [-1, 1, -1, 1]]))
        net[1].bias.zero_()
    return net


def test_attacked__of_a_linear_classifier_is_known(digits, linear):
    """Away from class 0: less where its weight is positive, more where it is negative."""
    preprocess = Preprocess.fit(replace(digits, mean=torch.zeros(1), std=torch.ones(1)))
    x, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    signs = torch.tensor([[[[-1.0, 1], [-1, 1]]]])
    fgsm = attacked(linear, preprocess, x, labels, RADIUS, RADIUS, 1)
    torch.testing.assert_close(fgsm, x + RADIUS * signs)
    pgd = attacked(linear, preprocess, x, labels, RADIUS, STEP, STEPS)
    torch.testing.assert_close(pgd, x + RADIUS * signs)  # 10 steps of 2 / 255 stop at 8 / 255
    few = attacked(linear, preprocess, x, labels, RADIUS, STEP, 2)
    torch.testing.assert_close(few, x + 2 * STEP * signs)
    black = attacked(linear, preprocess, 0 * x, labels, RADIUS, RADIUS, 1)
    torch.testing.assert_close(black, RADIUS * signs.clamp(0))  # pixels stay pixels


def test_corruptions__by_hand(generator):
    x = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    torch.testing.assert_close(CORRUPTIONS["brightness"](x, generator), x + 0.2)
    torch.testing.assert_close(CORRUPTIONS["contrast"](x, generator)[0, 0], torch.tensor([[0.3, 0.7], [0.5, 0.5]]))
    torch.testing.assert_close(CORRUPTIONS["pixelate"](x, generator), torch.full_like(x, 0.5))
    flat = torch.full((2, 3, 32, 32), 0.5)
    torch.testing.assert_close(CORRUPTIONS["blur"](flat, generator), flat)
    assert float((CORRUPTIONS["noise"](flat, generator) - flat).std()) == pytest.approx(0.08, rel=0.05)
    changed = CORRUPTIONS["impulse"](flat - 0.1, generator)
    assert float((changed == 1).float().mean()) == pytest.approx(0.06, abs=0.01)


def test_evaluate__robustness_is_recorded(digits, tmp_path):
    index = torch.cat([members[:10] for members in digits.class_indices()])
    dset = DistilledSet(
        digits.train_images[index], digits.train_labels[index], new_meta(digits, method="random", ipc=10, seed=0)
    )
    scores = evaluate(dset, digits, "quick", "convnet2_w16", runs=1, steps=80, with_robustness=True)
    found = scores.record["robustness"]
    assert found.keys() == {"clean", "fgsm", "pgd", *CORRUPTIONS}
    assert found["clean"] == pytest.approx(scores.mean, abs=0.01)  # of all 355 test images
    assert found["pgd"] <= found["fgsm"] + 0.01 < found["clean"]
    assert found["impulse"] < found["clean"]
    (tmp_path / "s.json").write_text(json.dumps(scores.to_json()))
    assert read_score(tmp_path / "s.json")["robustness"] == found
