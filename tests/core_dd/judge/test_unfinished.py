"""A training of classifiers that was stopped goes on, and ends as if it had not been."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from core_dd.compare.sets import judge
from core_dd.errors import InputError
from core_dd.judge import evaluate as judging
from core_dd.judge import fidelity, unfinished
from core_dd.judge.evaluate import evaluate, real_set
from core_dd.judge.protocols import DM, IDC, QUICK, RD3
from core_dd.judge.training import Training, train
from core_dd.judge.unfinished import beside
from core_dd.sets.distilled import DistilledSet

CPU = torch.device("cpu")


def with_dropout(in_shape, num_classes):
    """A network that draws in every step."""
    pixels = math.prod(in_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, num_classes))


class Stop(Exception):
    """What ends a training before its time."""


@pytest.fixture
def few(digits):
    """Four images of each digit and their labels."""
    index = torch.cat([members[:4] for members in digits.class_indices()])
    return digits.train_images[index], digits.train_labels[index]


@pytest.fixture
def often(monkeypatch):
    """The state is written after every step."""
    monkeypatch.setattr(unfinished, "EVERY_S", 0.0)
    monkeypatch.setattr(unfinished, "_SHARE", float("inf"))


@pytest.fixture
def stopping(monkeypatch):
    """A function of n: the next training stops before its step number n."""

    def stop(at):
        step = Training.step

        def until(self, number):
            if number == at:
                monkeypatch.setattr(Training, "step", step)
                raise Stop
            return step(self, number)

        monkeypatch.setattr(Training, "step", until)

    return stop


def options(**changes):
    how = {"protocol": DM.shortened(epochs=9), "network": "convnet2_w8", "runs": [0, 3], "seed": 1, "device": CPU}
    return {**how, "bf16": False, **changes}


def assert_equal(ours, theirs):
    """Two results of a training are one."""
    for name, tensor in ours.params.items():
        torch.testing.assert_close(tensor, theirs.params[name])
    for name, tensor in ours.buffers.items():
        torch.testing.assert_close(tensor, theirs.buffers[name])
    assert ours.curve_steps == theirs.curve_steps and ours.images_seen == theirs.images_seen
    torch.testing.assert_close(torch.tensor(ours.curve_loss), torch.tensor(theirs.curve_loss))
    assert ours.paused == theirs.paused


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"protocol": IDC.shortened(epochs=9)},
        {"protocol": replace(RD3, teacher=None).shortened(epochs=9)},
        {"network": "convnet2_w8_bn"},
        {"network": with_dropout},
    ],
    ids=["dm", "idc: cutmix", "rd3: AdamW", "batch norm", "dropout"],
)
@pytest.mark.parametrize("at", [2, 7])
def test_train__goes_on_as_if_it_had_not_been_stopped(digits, few, tmp_path, often, stopping, changes, at):
    how = options(**changes)
    place = tmp_path / "kept"
    whole = train(*few, digits, **how)
    stopping(at)
    with pytest.raises(Stop):
        train(*few, digits, unfinished=place, **how)
    assert place.exists()
    steps = []
    first = Training.step

    def counted(self, number):
        steps.append(number)
        return first(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "step", counted)
        again = train(*few, digits, unfinished=place, **how)
    assert steps[0] == at
    assert_equal(again, whole)
    assert again.earlier_seconds > 0 == whole.earlier_seconds


def test_train__that_is_over_is_not_repeated(digits, few, tmp_path, often):
    whole = train(*few, digits, unfinished=tmp_path / "kept", **options())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "step", None)
        assert_equal(train(*few, digits, unfinished=tmp_path / "kept", **options()), whole)


def test_train__keeps_what_was_found_at_pauses(digits, few, tmp_path, often, stopping):
    tests = digits.test_images, digits.test_labels
    pauses = {"pauses": [0.2, 0.6], "at_pause": lambda half: half.accuracies(*tests)}
    whole = train(*few, digits, **pauses, **options())
    stopping(4)
    with pytest.raises(Stop):
        train(*few, digits, unfinished=tmp_path / "kept", **pauses, **options())
    again = train(*few, digits, unfinished=tmp_path / "kept", **pauses, **options())
    assert len(whole.paused) == 2
    assert_equal(again, whole)


def test_train__a_short_one_writes_nothing(digits, few, tmp_path):
    train(*few, digits, unfinished=tmp_path / "kept", **options())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"runs": [0, 1]},
        {"network": "convnet2_w8_maxpool"},
        {"protocol": DM.shortened(epochs=10)},
        {"bf16": True},
        {"pauses": [0.5]},
        {"images": True},
        {"labels": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_train__another_one_starts_at_its_beginning(digits, few, tmp_path, often, stopping, capsys, change):
    stopping(5)
    with pytest.raises(Stop):
        train(*few, digits, unfinished=tmp_path / "kept", **options())
    images, labels = few
    images = images.flip(-1) if change.pop("images", False) else images
    labels = labels.flip(0) if change.pop("labels", False) else labels
    found = train(images, labels, digits, unfinished=tmp_path / "kept", **options(**change))
    assert "is of another training" in capsys.readouterr().err
    assert_equal(found, train(images, labels, digits, **options(**change)))


def spoil(place, change):
    """Change what a file keeps."""
    state = torch.load(place, weights_only=True)
    change(state)
    torch.save(state, place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("optimizer"), "does not hold the state"),
        (lambda state: state.pop("step"), "step"),
        (lambda state: state.update(step=-1), "step"),
        (lambda state: state.update(step=10**6), "at step 1000000 of"),
        (lambda state: state.update(seconds=float("nan")), "seconds"),
        (lambda state: state.update(paused=[[1.5]]), "paused"),
        (lambda state: state.update(curve_losses=torch.zeros(1, 1)), "curve_losses has shape"),
        (lambda state: next(iter(state["params"].values())).fill_(torch.nan), "not finite"),
        (lambda state: state["params"].popitem(), "does not hold the state"),
        (lambda state: state["params"].update({k: v[:1] for k, v in state["params"].items()}), "has shape"),
        (lambda state: state["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(1)), "has shape"),
    ],
)
def test_train__refuses_a_spoilt_file(digits, few, tmp_path, often, stopping, change, message):
    place = tmp_path / "kept"
    stopping(5)
    with pytest.raises(Stop):
        train(*few, digits, unfinished=place, **options())
    spoil(place, change)
    with pytest.raises(InputError, match=message) as caught:
        train(*few, digits, unfinished=place, **options())
    assert "Remove it, to train from the start." in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"PK\x03\x04"])
def test_train__refuses_a_file_that_is_none(digits, few, tmp_path, content):
    (tmp_path / "kept").write_bytes(content)
    with pytest.raises(InputError, match=r"kept.* Remove it, to train from the start\."):
        train(*few, digits, unfinished=tmp_path / "kept", **options())


def test_train__goes_on_without_a_file_that_cannot_be_written(digits, few, tmp_path, often, capsys):
    (tmp_path / "file").write_text("")
    found = train(*few, digits, unfinished=tmp_path / "file" / "kept", **options())
    assert capsys.readouterr().err.count("cannot be gone on from") == 1
    assert_equal(found, train(*few, digits, **options()))


def test_evaluate__goes_on_and_leaves_its_state_to_whoever_writes_the_score(digits, few, tmp_path, often, stopping):
    dset = DistilledSet(*few, {})
    how = {"protocol": "quick", "network": "convnet2_w8", "runs": 2, "steps": 8, "bf16": False}
    whole = evaluate(dset, digits, **how)
    stopping(6)
    with pytest.raises(Stop):
        evaluate(dset, digits, unfinished=tmp_path / "kept", **how)
    again = evaluate(dset, digits, unfinished=tmp_path / "kept", **how)
    assert again.accuracies == pytest.approx(whole.accuracies, abs=0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    third = evaluate(dset, digits, unfinished=tmp_path / "kept", **how)
    assert third.accuracies == pytest.approx(whole.accuracies, abs=0.01)


def test_command__evaluate_goes_on_beside_the_score(digits, tmp_path, often, stopping, capsys):
    out = tmp_path / "scores.json"
    argv = ["--set=real", "--network=convnet2_w8", "--protocol=quick", "--iterations=8", "--classifiers=1"]
    stopping(6)
    with pytest.raises(Stop):
        judging.main([*argv, "--out", str(out)])
    assert beside(out).is_file() and not out.exists()
    judging.main([*argv, "--out", str(out)])
    assert "goes on at step 6 of 8" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_comparison__goes_on_within_a_score(digits, tmp_path, often, stopping, capsys):
    how = {"name": "real", "place": {}, "network": "convnet2_w8", "protocol": "quick", "seed": 0, "iterations": 8}
    stopping(6)
    with pytest.raises(Stop):
        judge(digits, tmp_path, "cpu", **how)
    judge(digits, tmp_path, "cpu", **how)
    assert "goes on at step 6 of 8" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [judging.SCORES]


def test_real_classifier__goes_on(digits, tmp_path, often, stopping):
    cache = tmp_path / "classifier.safetensors"
    how = {"network": "convnet2_w8", "protocol": QUICK.shortened(steps=8), "bf16": False}
    whole = fidelity.real_classifier(digits, device=CPU, **how)
    stopping(6)
    with pytest.raises(Stop):
        fidelity.real_classifier(digits, device=CPU, cache=cache, **how)
    assert beside(cache).is_file() and not cache.exists()
    again = fidelity.real_classifier(digits, device=CPU, cache=cache, **how)
    assert_equal(again, whole)
    assert [path.name for path in tmp_path.iterdir()] == [cache.name]


@pytest.mark.parametrize("spoilt", [b"no tensors", None])
def test_kept_classifier__begins_anew_where_its_state_is_damaged(digits, often, stopping, capsys, monkeypatch, spoilt):
    monkeypatch.setenv("GENDD_CACHE", "cache")
    how = {"network": "convnet1_w8", "seed": 3, "device": CPU, "protocol": QUICK.shortened(steps=8)}
    stopping(6)
    with pytest.raises(Stop):
        fidelity.kept_classifier(digits, **how)
    [place] = Path("cache").glob("*.training")
    if spoilt is None:
        spoil(place, lambda state: state.pop("optimizer"))
    else:
        place.write_bytes(spoilt)
    found = fidelity.kept_classifier(digits, **how)
    assert "the classifier is trained from the start, because" in capsys.readouterr().err
    assert_equal(found, fidelity.real_classifier(digits, **how))
    assert not list(Path("cache").glob("*.training"))


def test_identity__is_that_of_the_values_however_they_lie():
    table = torch.arange(12).view(4, 3)
    assert unfinished.identity_of("x", [table[:, 0]]) == unfinished.identity_of("x", [table[:, 0].clone()])
    assert unfinished.identity_of("x", [table[:, 1]]) != unfinished.identity_of("x", [table[:, 0]])


def test_real_set__can_be_told_from_others(digits):
    """The identity is that of the content."""
    dset = real_set(digits, 0)
    training = Training(dset.images, dset.labels, digits, **options())
    other = Training(dset.images, dset.labels, digits, **options(seed=2))
    assert training.identity() != other.identity()
    assert training.identity() == Training(dset.images, dset.labels, digits, **options()).identity()
