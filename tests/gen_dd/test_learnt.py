"""After a training, whether anything was learnt: what is measured, and what is said on both sides of chance."""

import dataclasses
import json
import shutil

import pytest
import torch
from diffusers.training_utils import EMAModel

from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.judge import fidelity
from core_dd.sets.distilled import DistilledSet
from core_dd.sets.learnt import warn_of
from gen_dd.learnt import LEARNT, Finding, SampleJudge, find, initial_share, numbers_for
from gen_dd.options import SampleConfig, TrainConfig, TuneConfig
from gen_dd.sample import run
from gen_dd.select import main as select
from gen_dd.train import train
from gen_dd.trainer import make_model
from gen_dd.uvit import UViT
from gen_dd.weights import amend_card, load_model, save_model

SHORT = {
    "iterations": 10, "batch_size": 16, "warmup": 2, "lr": 1e-3, "log_every": 5, "checkpoint_every": 100,
    "grid_every": 0, "tracker": "none", "device": "cpu", "compile": False, "eval_network": "convnet1_w8",
    "check_images": 100,
}  # fmt: skip


@pytest.fixture(scope="module")
def judge(digits):
    return SampleJudge(digits, "convnet1_w8", 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def lost(tmp_path_factory):
    """A training of ten steps whose average keeps its first weights."""
    folder = tmp_path_factory.mktemp("lost") / "run"
    train(TrainConfig(**SHORT, ema_decay=0.9999, ema_warmup=False, out=str(folder)))
    return folder


def test_train__says_that_a_short_training_is_at_chance_and_why(lost):
    found = json.loads((lost / LEARNT).read_text())
    assert found["at_chance"] and found["chance"] == 0.1 and found["samples"] == 100 and found["step"] == 10
    assert found["label_agreement"] < 0.3 < 0.8 < found["real_label_agreement"]
    assert found["initial_share"] == pytest.approx(0.9999**10)
    for text in ((lost / "log.txt").read_text(), (lost / "model" / "README.md").read_text()):
        assert "WARNING: this model is no better than chance" in text
        assert "99.9 % of the average of weights" in text and "10 steps of 16 images (0.1 passes" in text
        assert "--ema_warmup" in text and "--resume with more --iterations" in text
    assert load_model(lost)[1]["learnt"] == found


def test_sample_and_select__say_it_of_what_such_a_model_drew(lost, tmp_path, capsys):
    run(SampleConfig(model=str(lost), out=str(tmp_path / "pool"), num_per_class=2, steps=1, device="cpu"))
    assert f"{lost}, when its generator's training ended: WARNING" in capsys.readouterr().err
    assert DistilledSet.load(tmp_path / "pool").meta["learnt"]["at_chance"]
    words = ["--pool", "pool", "--ipc", "1", "--selector", "random", "--out", "chosen/distilled.safetensors"]
    select(words)
    assert "pool, when its generator's training ended: WARNING" in capsys.readouterr().err
    assert DistilledSet.load("chosen").meta["learnt"]["at_chance"]


def test_tune__doubts_a_model_that_may_have_learnt_too_little(lost, digits, tmp_path, capsys):
    def said(place, **more):
        make_model(TuneConfig(init_from=str(place), data="digits", **more), digits)
        return capsys.readouterr().err

    assert "note: what" not in said(lost), "its card says worse itself"
    found = json.loads((lost / LEARNT).read_text()) | {"at_chance": False}
    for agreement, doubt in ((0.3, "recognises 30.0 % of its samples, of real images"), (0.9, "")):
        amended = tmp_path / f"{agreement}"
        shutil.copytree(lost / "model", amended)
        amend_card(amended, learnt=found | {"label_agreement": agreement})
        words = said(amended)
        assert doubt in words and ("is tuned into draws no better than it does" in words) == bool(doubt)
    amend_card(amended, learnt=None)
    assert "its card does not say whether it has learnt anything" in said(amended)
    amend_card(amended, fingerprint="other")
    assert "it was trained on other data, so that its labels are drawn anew" in said(amended)


def test_make_model__tuning_and_neon_learn_no_guidance_that_the_model_has_not(digits, tmp_path):
    model = UViT.from_preset("tiny", num_classes=10)
    for trained in (True, False):
        model.register_to_config(null_trained=trained)
        save_model(model, tmp_path / f"{trained}", {"data": "digits", "fingerprint": digits.fingerprint})
        options = {"init_from": str(tmp_path / f"{trained}"), "data": "digits", "label_dropout": 0.1}
        made = [make_model(cls(**options), digits).config.null_trained for cls in (TuneConfig, TrainConfig)]
        assert made == [trained, True], "a whole training learns it"
        assert make_model(TrainConfig(**options, neon="pool"), digits).config.null_trained is trained


def test_train__too_few_steps_are_the_cause_where_the_average_warms_up(digit_files, tmp_path):
    """With streamed images and a validation split, from another model's weights, ended by the clock."""
    train(TrainConfig(**SHORT | {"iterations": 1, "check_images": 0}, out=str(tmp_path / "first")))
    options = SHORT | {"data": f"folder:{digit_files}", "stream": True, "workers": 0, "val_fraction": 0.2}
    options |= {"iterations": 500, "max_seconds": 1e-3, "init_from": str(tmp_path / "first")}
    train(TrainConfig(**options, out=str(tmp_path / "run")))
    found = json.loads((tmp_path / "run" / LEARNT).read_text())
    assert found["at_chance"] and found["step"] == 1 and found["initial_share"] == pytest.approx(2 / 11)
    assert "ended by max_seconds 0.001 before the 500 steps asked for" in found["said"]


@pytest.mark.parametrize("change", [{"check_images": 0}, {"chunk_seconds": 1e-3}])
def test_train__is_not_asked_when_switched_off_or_unfinished(tmp_path, change):
    train(TrainConfig(**SHORT | change, limit_per_class=8, out=str(tmp_path / "run")))
    assert (tmp_path / "run" / "model").is_dir() and not (tmp_path / "run" / LEARNT).exists()
    assert "learnt" not in load_model(tmp_path / "run")[1]


def test_train__what_was_found_stays_in_the_card_where_the_run_is_called_again(tmp_path):
    options = SHORT | {"limit_per_class": 8, "iterations": 1, "out": str(tmp_path / "run")}
    train(TrainConfig(**options))
    before = load_model(tmp_path / "run")[1]["learnt"]
    train(TrainConfig(**options | {"check_images": 0}, resume=True))
    assert load_model(tmp_path / "run")[1]["learnt"] == before
    train(TrainConfig(**options | {"check_images": 0, "iterations": 2}, resume=True))
    assert "learnt" not in load_model(tmp_path / "run")[1]


def test_train__a_classifier_that_cannot_take_the_images_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match="--check_images 0"):
        train(TrainConfig(**SHORT | {"eval_network": "convnet5"}, out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_find__tells_real_images_from_noise(judge, digits, generator):
    """The real images stand for a generator that learnt everything."""
    labels = torch.arange(100) % 10
    chosen = torch.stack([digits.class_indices()[k][i // 10] for i, k in enumerate(labels.tolist())])
    good = find(judge, digits.train_images[chosen], labels, step=1000, initial_share=0.0)
    noise = torch.randint(0, 256, (100, *digits.shape), generator=generator, dtype=torch.uint8)
    bad = find(judge, noise, labels, step=1000, initial_share=0.0)
    assert not good.at_chance and good.label_agreement > 0.8 and bad.at_chance
    assert good.classifier_frechet < 0.3 * bad.classifier_frechet
    train = dataclasses.asdict(TrainConfig())
    assert good.said(train, 1442).startswith("learnt: ") and "WARNING" not in good.said(train, 1442)
    assert "are too few" in bad.said(train, 1442)


def finding(**changes) -> Finding:
    plain = {
        "step": 66, "samples": 300, "label_agreement": 0.1, "chance": 0.1, "at_chance": True, "classifier_frechet": 9.0,
        "real_label_agreement": 0.99, "real_images": 1442, "initial_share": 0.0,
    }  # fmt: skip
    return Finding(**plain | changes)


def test_said__a_classifier_that_knows_nothing_accuses_nobody():
    said = finding(real_label_agreement=0.1).said(dataclasses.asdict(TrainConfig()), 1442)
    assert said.startswith("not known") and "WARNING" not in said


def test_initial_share__of_constant_and_warmed_up_averages():
    """The published constant keeps 99.3 % after 66 steps; the warm-up next to nothing."""
    for warm in (False, True):
        weights = [torch.nn.Parameter(torch.ones(1, dtype=torch.float64))]
        average = EMAModel(weights, decay=0.9999, min_decay=0.0 if warm else 0.9999, update_after_step=-1)
        assert initial_share(average) == 1.0
        weights[0].data.zero_()  # from here on, what is left of the first weights is their share
        for _ in range(66):
            average.step(weights)
        assert initial_share(average) == pytest.approx(float(average.shadow_params[0]), rel=1e-6)
        assert initial_share(average) < 1e-6 if warm else initial_share(average) == pytest.approx(0.9934, abs=1e-4)


def test_numbers_for__as_many_of_each_class():
    assert [len(numbers_for(300, classes)) for classes in (10, 7, 1000)] == [300, 301, 1000]


def test_warn_of__says_nothing_of_what_learnt_or_does_not_tell(capsys):
    for card in ({}, {"learnt": None}, {"learnt": {"at_chance": False, "said": "learnt: x"}}):
        warn_of(card, "pool")
    assert capsys.readouterr().err == ""


def test_frechet_of_features__equals_the_distance_of_the_moments(generator):
    a, b = (torch.randn(count, 8, generator=generator) + shift for count, shift in ((5, 0.0), (30, 0.5)))
    expected = fidelity.frechet_distance(*fidelity.moments(a), *fidelity.moments(b))
    assert fidelity.frechet_of_features(a, b) == pytest.approx(expected, rel=1e-6)
    assert fidelity.frechet_of_features(a, a) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(InputError, match="at least 2 images"):
        fidelity.frechet_of_features(a[:1], b)


def test_judge__learns_from_the_split_it_is_given(judge, digits):
    """Its cached file is that of its training images alone."""
    other = SampleJudge(load_data("digits", val_fraction=0.1), "convnet1_w8", 0, torch.device("cpu"))
    images, labels = digits.train_images[:50], digits.train_labels[:50]
    assert not torch.equal(judge.features(images), other.features(images))
    assert judge.agreement(images, labels) > 0.8
