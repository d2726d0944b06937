from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.judge.choose import choose
from core_dd.judge.protocols import QUICK
from core_dd.sets.distilled import DistilledSet
from matching_dd import coreset
from matching_dd.coresets import main


def test_random__real_images_of_each_class_none_twice(digits):
    dset = coreset("random", digits, 10, seed=3)
    assert dset.images.dtype == torch.uint8
    assert dset.labels.tolist() == [k for k in range(10) for _ in range(10)]
    index = [
        int(torch.nonzero((digits.train_images == image).all((1, 2, 3)) & (digits.train_labels == label)).flatten()[0])
        for image, label in zip(dset.images, dset.labels, strict=True)
    ]
    assert len(set(index)) == 100
    dset.check(digits)


def test_random__depends_on_the_seed_alone(digits):
    first, again, other = (coreset("random", digits, 2, seed=seed).digest() for seed in (0, 0, 1))
    assert first == again != other


def test_random__can_take_a_whole_class():
    data = load_data("digits", limit_per_class=4)
    dset = coreset("random", data, 4, seed=0)
    for k, members in enumerate(data.class_indices()):
        own = dset.images[dset.labels == k].flatten(1).tolist()
        assert sorted(own) == sorted(data.train_images[members].flatten(1).tolist())


def test_coreset__refuses_what_cannot_be_chosen():
    data = load_data("digits", limit_per_class=4)
    with pytest.raises(InputError, match=r"digits has 4 training images of class 0 \('0'\), ipc is 5"):
        coreset("random", data, 5, seed=0)
    with pytest.raises(InputError, match="unknown selector 'randon'; did you mean 'random'"):
        coreset("randon", data, 1, seed=0)


def test_command__writes_what_the_function_returns(digits, capsys):
    main(["--selector", "random", "--data", "digits", "--ipc", "2", "--seed", "5", "--out", "set.safetensors"])
    assert "set.safetensors: 20 images" in capsys.readouterr().out
    dset = DistilledSet.load("set.safetensors")
    assert dset.digest() == coreset("random", digits, 2, seed=5).digest()
    assert dset.meta["method"] == "random" and dset.meta["ipc"] == 2 and dset.meta["config"]["seed"] == 5
    with pytest.raises(InputError, match="exists"):
        main(["--out", "set.safetensors"])


def test_command__numbers_folders():
    for number in ("00000", "00001"):
        main(["--ipc", "1"])
        assert len(DistilledSet.load(f"runs/digits-random-ipc1/{number}")) == 10


def test_command__keeps_its_classifier_beside_the_set():
    with pytest.raises(InputError, match="safetensors is where the classifier is kept. Choose another --out"):
        main(["--selector", "herding", "--ipc", "1", "--network=convnet1_w8", "--out", "classifier.safetensors"])
    assert not list(Path().iterdir())


CLASSIFIER = {"network": "convnet1_w8", "protocol": replace(QUICK, steps=10)}


@pytest.mark.parametrize("name", ["herding", "most_confident"])
def test_coreset__is_what_is_chosen_of_the_real_images(digits, name, tmp_path):
    options = CLASSIFIER | {"cache": tmp_path / "classifier.safetensors"}
    dset, index = coreset(name, digits, 3, seed=1, **options), choose(name, digits, 3, seed=1, **options).flatten()
    assert torch.equal(dset.images, digits.train_images[index]) and torch.equal(dset.labels, digits.train_labels[index])


def test_medoids__are_real_images_and_repeatable(digits):
    first, again = (coreset("medoids", digits, 4, seed=2, **CLASSIFIER) for _ in range(2))
    assert first.digest() == again.digest()
    for k, members in enumerate(digits.class_indices()):
        own = {tuple(image) for image in digits.train_images[members].flatten(1).tolist()}
        assert len({tuple(image) for image in first.images[first.labels == k].flatten(1).tolist()} & own) == 4


def test_command__trains_the_classifier_once(digits, capsys):
    options = ["--data", "digits", "--ipc", "1", "--network", "convnet1_w8", "--classifier", "judge.safetensors"]
    main([*options, "--selector", "herding", "--out", "first.safetensors"])
    written = Path("judge.safetensors").read_bytes()
    main([*options, "--selector", "herding", "--out", "second.safetensors"])
    assert Path("judge.safetensors").read_bytes() == written
    assert DistilledSet.load("first.safetensors").digest() == DistilledSet.load("second.safetensors").digest()
    with pytest.raises(
        InputError, match=r"judge.safetensors holds another classifier: seed 0 instead of 1. Name another file"
    ):
        main([*options, "--selector", "k_center", "--seed", "1", "--out", "third.safetensors"])
    assert not Path("third.safetensors").exists()
