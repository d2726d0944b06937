"""From two models to a submission, on two small sets that call themselves the challenge's."""

import dataclasses

import pytest
import torch
from makers import write_image_folder

from core_dd import records
from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.files import write_json
from core_dd.judge.submit import TARGETS
from core_dd.sets.distilled import DistilledSet
from gen_dd.challenge import challenge, main, table, with_models
from gen_dd.options import ChallengeConfig
from gen_dd.uvit import UViT
from gen_dd.weights import save_model

CLASSES = {"cifar100": 2, "tiny_imagenet": 3}
OURS = {"cifar100": "small", "tiny_imagenet": "smaller"}
"""What the two sets are called here."""


@pytest.fixture
def models(tmp_path, generator, monkeypatch):
    """The folders of two untrained models of 8x8 colour images, each with its data."""
    targets = {}
    torch.manual_seed(0)
    for name, classes in CLASSES.items():
        targets[OURS[name]] = dataclasses.replace(TARGETS[name], classes=classes, shape=(3, 8, 8))
        images = torch.randint(0, 256, (24, 8, 8, 3), generator=generator, dtype=torch.uint8).numpy()
        for split in ("train", "test"):
            write_image_folder(tmp_path / OURS[name] / split, images, [number % classes for number in range(24)])
        spec = f"folder:{tmp_path / OURS[name]}"
        data = load_data(spec)
        card = {"data": data.name, "fingerprint": data.fingerprint, "class_names": list(data.class_names)}
        network = UViT.from_preset("tiny", num_classes=classes, in_channels=3)
        save_model(network, tmp_path / f"run_{name}" / "model", card | {"train": {"data": spec}})
    monkeypatch.setattr("core_dd.judge.submit.TARGETS", targets)
    return [str(tmp_path / f"run_{name}") for name in CLASSES]


OPTIONS = {
    "out": "out", "budget": "10h", "num_per_class": 11, "steps": 1, "selector": "random", "iterations": 2,
    "device": "cpu",
}  # fmt: skip


def config(models, **more):
    return ChallengeConfig(**dict(zip(CLASSES, models, strict=True)), **OPTIONS | more)


def test_main__makes_both_tracks_of_both_sets_and_averages(models, tmp_path, capsys):
    main([*models, *(word for name, value in OPTIONS.items() for word in (f"--{name}", str(value)))])
    said, found = capsys.readouterr().out, records.read(tmp_path / "out" / "challenge.json")
    for name, file in (("cifar100", "cifar100.pt"), ("tiny_imagenet", "tinyimagenet.pt")):
        for track, count in (("track1", 10), ("track2", 11)):
            tensor = torch.load(tmp_path / "out" / track / file, weights_only=True)
            assert tensor.shape == (count * CLASSES[name], 3, 8, 8) and tensor.dtype == torch.float32
            scores = records.read((tmp_path / "out" / track / file).with_suffix(".scores.json"))
            assert scores["protocol"].startswith("challenge") and len(scores["accuracies"]) == 3
            assert found["accuracies"][track][name] == scores["mean"]
        assert len(DistilledSet.load(tmp_path / "out" / "pools" / name)) == 11 * CLASSES[name]
    for track, own in found["accuracies"].items():
        assert found["means"][track] == pytest.approx((own["cifar100"] + own["tiny_imagenet"]) / 2)
    assert "accuracies in percent by a cut of the challenge protocol" in said and said.endswith(f"{table(found)}\n")

    with pytest.raises(InputError, match="out exists"):
        challenge(config(models))
    with pytest.raises(InputError, match="out was begun with seed 0, now it is 1"):
        challenge(config(models, resume=True, seed=1))
    place = tmp_path / "out" / "challenge.json"
    write_json(place, found | {"weights": found["weights"] | {"tiny_imagenet": "0123"}})
    with pytest.raises(InputError, match="out was begun with other weights in .*run_tiny_imagenet. Resume with those"):
        challenge(config(models, resume=True))
    write_json(place, found)
    gone = tmp_path / "out" / "track2" / "cifar100.pt"
    kept = torch.load(gone, weights_only=True)
    gone.unlink()
    gone.with_suffix(".scores.json").unlink()
    capsys.readouterr()
    assert challenge(config(models, resume=True)) == found
    assert torch.equal(torch.load(gone, weights_only=True), kept)
    assert capsys.readouterr().out.count("is ready") == 1, "what is finished is not made again"


def test_challenge__refuses_what_does_not_fit_before_any_work(models, tmp_path):
    with pytest.raises(InputError, match="is smaller, and here cifar100 is expected: the model"):
        challenge(config(models[::-1]))
    with pytest.raises(InputError, match="was not tuned into a consistency model"):
        challenge(config(models, solver="consistency"))
    with pytest.raises(InputError, match="is other data. Pass its own as --cifar100_data"):
        for split in ("train", "test"):
            write_image_folder(
                tmp_path / "else" / "small" / split, torch.zeros(4, 8, 8, 3).byte().numpy(), [0, 0, 1, 1]
            )
        challenge(config(models, cifar100_data=f"folder:{tmp_path / 'else' / 'small'}"))
    with pytest.raises(InputError, match="network convent3: .*did you mean 'convnet3'"):
        challenge(config(models, network="convent3", selector="herding"))
    with pytest.raises(InputError, match="the trials of --plan auto take about"):
        challenge(config(models, plan="auto", steps=None, budget="1s", num_per_class=None))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("a b --out c", "--cifar100 a --tiny_imagenet b --out c"),
        ("a --out c", "--cifar100 a --out c"),
        ("--out c", "--out c"),
    ],
)
def test_with_models__may_go_without_flags(given, words):
    assert with_models(given.split()) == words.split()
