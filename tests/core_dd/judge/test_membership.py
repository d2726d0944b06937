"""Membership inference: hand-made losses, normal confidences, and classifiers that know their few images by heart."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from core_dd import DistilledSet, evaluate
from core_dd.errors import InputError
from core_dd.judge import membership
from core_dd.judge.membership import attack, check, confidences, likelihood_ratios, losses, shadows_of
from core_dd.judge.protocols import QUICK
from core_dd.judge.scores import read_score
from core_dd.judge.training import train
from core_dd.sets.distilled import new_meta


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


def normal(x):
    """The probability of less than x."""
    return (1 + math.erf(x / 2**0.5)) / 2


@pytest.mark.parametrize("leak", [0.0, 1.5])
def test_likelihood_ratios__of_normal_confidences_find_what_the_closed_form_says(leak, generator):
    """Images are as hard as a normal variable of deviation 5, others harder by 2, and a classifier adds one of 1: S
    shadows leave a variance of 1 + 1 / S. Members of whom it is surer by `leak` are told apart so far; a threshold on
    the loss takes the harder images for others where nothing leaks, too."""
    count, shadows = 4000, 4
    hard = 5 * torch.randn(2, count, generator=generator) - torch.tensor([[0.0], [2.0]])
    seen = hard + torch.randn(2, count, generator=generator) + torch.tensor([[leak], [0.0]])
    without = hard[:, None] + torch.randn(2, shadows, count, generator=generator)
    found = attack(*(-likelihood_ratios(*side) for side in zip(seen, without, strict=True)))
    spread = (1 + 1 / shadows) ** 0.5
    error = ((2 * count + 1) / (12 * count**2)) ** 0.5  # of the AUC of two samples that are alike
    assert abs(found["auc"] - normal(leak / spread / 2**0.5)) < 3 * error
    assert found["tpr_at_1_fpr"] == pytest.approx(1 - normal(2.3263 - leak / spread), abs=0.025)
    assert abs(attack(*-seen)["auc"] - normal((2 + leak) / (26 * 2) ** 0.5)) < 3 * error


def test_shadows__every_image_is_asked_of_classifiers_that_had_not_its_half(digits, monkeypatch):
    """Sets of whole halves, learnt by heart: without its half a classifier is less sure of an image than with it."""
    monkeypatch.setattr(membership, "PAIRS", 2)
    few = replace(digits, train_images=digits.train_images[:240], train_labels=digits.train_labels[:240])
    made = []

    def whole(half, number):
        made.append(half)
        return DistilledSet(half.train_images, half.train_labels, new_meta(few, method="all", ipc=None, seed=number))

    protocol = replace(QUICK, steps=100, augment="none")
    options = {"protocol": protocol, "network": "mlp", "runs": [0], "device": torch.device("cpu")}
    found = shadows_of(whole, few, seed=0, **options)
    assert len(found) == 2 and len(made) == 4
    for pair, first, second in zip(found, made[::2], made[1::2], strict=True):
        assert torch.equal(first.train_images, few.train_images[pair.train])
        assert torch.equal(second.train_images, few.train_images[~pair.train])
        assert int((first.train_labels.bincount() - second.train_labels.bincount()).abs().max()) <= 1
        seen = pair.without(few.train_images, few.train_labels, ~pair.train)
        assert float((seen - pair.without(few.train_images, few.train_labels, pair.train)).mean()) > 0.5
    assert not torch.equal(found[0].train, found[1].train)


def test_confidences__are_those_of_the_probabilities_and_never_infinite(digits):
    sure = torch.tensor([[[9.0, 2.0, -1.0], [300.0, 0.0, 0.0], [0.0, 300.0, 0.0], [torch.nan, 0.0, 0.0]]])
    found = confidences(SimpleNamespace(logits=lambda images: [sure]), None, torch.zeros(4, dtype=torch.long))
    p = sure[0, 0].double().softmax(0)[0]
    assert float(found[0, 0]) == pytest.approx(float((p / (1 - p)).log()), rel=1e-5)
    assert float(found[0, 1]) == pytest.approx(300 - math.log(2)) and float(found[0, 2]) == pytest.approx(-300)
    assert found.isfinite().all() and float(found[0, 3]) < -1e5


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


def test_evaluate__classifiers_give_away_real_images_they_trained_on(digits, tmp_path, monkeypatch):
    """A set of noise gives nothing away; the random real images beside it are known by heart."""
    monkeypatch.setattr(membership, "PAIRS", 2)
    halves = []

    def noise(data, seed):
        halves.append(data)
        images = torch.rand(30, 1, 8, 8, generator=torch.manual_seed(seed))
        return DistilledSet(
            images, torch.arange(10).repeat_interleave(3), new_meta(data, method="noise", ipc=3, seed=0)
        )

    scores = evaluate(noise(digits, 0), digits, "dc", "mlp", runs=1, epochs=80, with_membership=noise)
    assert [len(own.train_labels) for own in halves[1:]] == [719, 723] * 2  # every class halved
    found = scores.record["membership"]
    for own in (found, found["likelihood_ratio"]):
        assert abs(own["auc"] - 0.5) < 3 * (1 / 12 / 360) ** 0.5 and own["tpr_at_1_fpr"] < 0.05
    assert found["likelihood_ratio"]["shadows"] == 4
    assert found["random"]["auc"] > 0.65 and found["random"]["likelihood_ratio"]["auc"] > 0.65
    (tmp_path / "s.json").write_text(json.dumps(scores.to_json()))
    assert read_score(tmp_path / "s.json")["membership"] == found


def test_check__refuses_few_test_images_and_what_cannot_be_halved(digits):
    one = digits.train_labels != 3
    one[(digits.train_labels == 3).nonzero()[0]] = True
    with pytest.raises(InputError, match="halves the training images of each class, and digits has a class of 1"):
        check(replace(digits, train_images=digits.train_images[one], train_labels=digits.train_labels[one]))
    few = replace(digits, test_images=digits.test_images[:99], test_labels=digits.test_labels[:99])
    with pytest.raises(InputError, match="needs 100 test images, digits has 99"):
        check(few)
