"""Membership inference: hand-made losses, and classifiers that know their few images by heart."""

import json
from dataclasses import replace

import pytest
import torch

from core_dd import DistilledSet, evaluate
from core_dd.errors import InputError
from core_dd.judge.membership import attack, check, losses
from core_dd.judge.protocols import QUICK
from core_dd.judge.scores import read_score
from core_dd.judge.training import train
from core_dd.sets.distilled import new_meta

NETWORK = "convnet2_w16"


def test_attack__by_hand():
    """Others lose 1, 2, ..., 200: two of them, of 1 and 2, may be taken for members."""
    others = torch.arange(1.0, 201)
    found = attack(torch.tensor([0.0, 2.5, 3.0, 500.0]), others)
    assert found["tpr_at_1_fpr"] == pytest.approx(2 / 4)
    assert found["auc"] == pytest.approx((200 + 198 + 197.5 + 0) / 800)


def test_attack__equals_a_loop_over_thresholds(generator):
    members, others = torch.randn(50, generator=generator) - 1, torch.randn(150, generator=generator)
    best = 0.0
    for threshold in [*members.tolist(), *others.tolist()]:
        if float((others <= threshold).double().mean()) <= 0.01:
            best = max(best, float((members <= threshold).double().mean()))
    found = attack(members, others)
    assert found["tpr_at_1_fpr"] == pytest.approx(best)
    pairs = (members[:, None] < others).double().mean()
    assert found["auc"] == pytest.approx(float(pairs))


def test_attack__needs_others():
    with pytest.raises(InputError, match="needs a member and 100 other images, got 5 and 99"):
        attack(torch.zeros(5), torch.zeros(99))


def test_losses__are_the_cross_entropies(digits):
    classifiers = train(
        digits.train_images[:20],
        digits.train_labels[:20],
        digits,
        protocol=replace(QUICK, steps=3),
        network="convnet1_w8",
        runs=[0, 1],
        seed=0,
        device=torch.device("cpu"),
    )
    found = losses(classifiers, digits.test_images[:30], digits.test_labels[:30])
    assert found.shape == (2, 30)
    net = classifiers.network(1)
    logits = net(classifiers.preprocess.forward(digits.test_images[4:5])).detach()
    expected = -logits.log_softmax(1)[0, digits.test_labels[4]]
    assert float(found[1, 4]) == pytest.approx(float(expected), rel=0.05)  # bf16


def test_evaluate__classifiers_give_away_real_images_they_trained_on(digits, tmp_path):
    """A set of noise gives nothing away; the random real images beside it are known by heart."""
    noise = torch.rand(30, 1, 8, 8, generator=torch.manual_seed(0))
    meta = new_meta(digits, method="noise", ipc=3, seed=0)
    scores = evaluate(
        DistilledSet(noise, torch.arange(10).repeat_interleave(3), meta),
        digits,
        "quick",
        NETWORK,
        runs=1,
        steps=60,
        with_membership=True,
    )
    found = scores.record["membership"]
    assert 0.45 < found["auc"] < 0.55 and found["tpr_at_1_fpr"] < 0.05
    assert found["random"]["auc"] > 0.6
    (tmp_path / "s.json").write_text(json.dumps(scores.to_json()))
    assert read_score(tmp_path / "s.json")["membership"] == found


def test_check__refuses_few_test_images(digits):
    few = replace(digits, test_images=digits.test_images[:99], test_labels=digits.test_labels[:99])
    with pytest.raises(InputError, match="needs 100 test images, digits has 99"):
        check(few)
