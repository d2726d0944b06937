"""DD-Ranking's scores against their formulas, worked by hand."""

import json
import math
from dataclasses import replace

import pytest
import torch

from core_dd import DistilledSet, evaluate
from core_dd.errors import InputError
from core_dd.judge.ddranking import augmentation_robust_score, label_robust_score, label_robust_score_of, random_like
from core_dd.judge.evaluate import main, real_set
from core_dd.judge.scores import read_score
from core_dd.report.beyond import beyond
from core_dd.report.ranking import grouped, read_entry
from core_dd.sets.distilled import new_meta

CPU, HOW = torch.device("cpu"), {"protocol": "quick", "network": "convnet1_w8", "runs": 1, "steps": 15}
DRAWN = "convnet1_w8", 0, CPU


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


@pytest.fixture(scope="module")
def small(digits):
    """Three real images of each digit as a set."""
    index = torch.cat([members[:3] for members in digits.class_indices()])
    meta = new_meta(digits, method="mine", ipc=3, seed=0)
    return DistilledSet(digits.train_images[index], digits.train_labels[index], meta)


def test_evaluate__ddranking_follows_from_the_runs_it_names(small, digits):
    """Each accuracy is that of a score which anyone can make, and the two follow from them."""
    found = evaluate(small, digits, **HOW, with_ddranking=True).record["ddranking"]
    random, of = random_like(small, digits, *DRAWN), found["accuracies"]
    assert of == {
        "syn_any": evaluate(small, digits, **HOW).mean,
        "syn_hard": evaluate(small, digits, **HOW).mean,
        "random_any": evaluate(random, digits, **HOW).mean,
        "real_hard": evaluate(real_set(digits, 0), digits, **HOW).mean,
        "syn_plain": evaluate(small, digits, **HOW, augment="none").mean,
        "random_plain": evaluate(random, digits, **HOW, augment="none").mean,
    }
    alpha = 0.5 * (of["syn_any"] - of["random_any"]) - 0.5 * (of["real_hard"] - of["syn_hard"])
    beta = 0.5 * (of["syn_any"] - of["random_any"]) + 0.5 * (of["syn_plain"] - of["random_plain"])
    for name, value in (("lrs", alpha), ("ars", beta)):
        assert found[name] == pytest.approx((math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1)))
    for unaugmented in ({"augment": "none"}, {"protocol": "dc"}):  # dc augments MNIST, and networks with BatchNorm
        found = evaluate(small, digits, **HOW | unaugmented, with_ddranking=True).record["ddranking"]
        assert found["ars"] is None and "syn_plain" not in found["accuracies"]


def test_random_like__is_real_of_the_same_size_labels_and_preprocessing(small, digits):
    random = random_like(small, digits, *DRAWN)
    assert random.labels.equal(small.labels) and not random.images.equal(small.images)
    rows = {tuple(image.flatten().tolist()) for image in digits.train_images}
    assert all(tuple(image.flatten().tolist()) in rows for image in random.images)
    assert not random_like(small, digits, "convnet1_w8", 1, CPU).images.equal(random.images)
    soft = replace(small, labels=torch.nn.functional.one_hot(small.labels, 10).float())
    labels = random_like(soft, digits, *DRAWN).labels
    assert labels.shape == (30, 10) and labels.sum(1).allclose(torch.ones(30))
    assert (labels.argmax(1) == small.labels).float().mean() > 0.8 and (labels.max(1).values < 1).any()


def test_evaluate__ddranking_of_soft_labels_compares_like_with_like(small, digits):
    """The set counts with its own labels against soft ones of random images, and with hard ones against all images."""
    soft = replace(small, labels=torch.nn.functional.one_hot(small.labels, 10).float() * 0.6 + 0.04)
    real = evaluate(real_set(digits, 0), digits, **HOW)
    place = "real.json"
    with open(place, "w") as file:
        json.dump(real.to_json(), file)
    of = evaluate(soft, digits, **HOW, with_ddranking=place).record["ddranking"]["accuracies"]
    assert of["syn_hard"] == evaluate(small, digits, **HOW).mean and of["real_hard"] == real.mean
    assert of["syn_any"] == evaluate(soft, digits, **HOW).mean != of["syn_hard"]

    with pytest.raises(InputError, match="real.json' has protocol quick_15_steps, but what is asked for is quick_5"):
        evaluate(soft, digits, **(HOW | {"steps": 5}), with_ddranking=place)
    with pytest.raises(InputError, match="trains by the labels of a teacher. Choose another"):
        evaluate(soft, digits, **(HOW | {"protocol": "rd3"}), with_ddranking=True)
    many = DistilledSet(digits.train_images.repeat(2, 1, 1, 1), digits.train_labels.repeat(2), small.meta)
    with pytest.raises(InputError, match="as many random real images, but digits has"):
        evaluate(many, digits, **HOW, with_ddranking=True)


def test_command__writes_and_shows_ddranking(small, tmp_path, capsys):
    place = small.save(tmp_path / "set.safetensors")
    flags = ["--protocol", "quick", "--network", "convnet1_w8", "--classifiers", "1", "--iterations", "3"]
    main(["--set", str(place), *flags, "--ddranking", "--out", "scores.json", "--dry_run"])
    assert "those of all real images about" in capsys.readouterr().out
    main(["--set", str(place), *flags, "--ddranking", "--out", "scores.json"])
    found = read_score("scores.json")["ddranking"]
    heads, row = beyond(grouped([read_entry("scores.json")])[0])
    shown = dict(zip(heads, row, strict=True))
    assert (shown["LRS"], shown["ARS"]) == (f"{100 * found['lrs']:.1f}", f"{100 * found['ars']:.1f}")
    capsys.readouterr()
