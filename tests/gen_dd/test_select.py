import pytest
import torch

from core_dd.errors import InputError
from core_dd.judge import training
from core_dd.judge.choose import choose
from core_dd.sets.distilled import DistilledSet, new_meta
from gen_dd.select import main, select


@pytest.fixture(scope="module")
def pool(digits):
    """30 real digits per class, in the sampler's order."""
    members = torch.stack([own[:30] for own in digits.class_indices()], dim=1).flatten()
    meta = new_meta(digits, method="uvit", ipc=None, seed=0)
    return DistilledSet(digits.train_images[members], digits.train_labels[members], meta)


def test_select__what_is_chosen_of_the_pool_class_by_class(pool, digits, tmp_path):
    options = {"network": "convnet1_w8", "cache": tmp_path / "classifier.safetensors"}
    dset = select(pool, digits, 4, "herding", device="cpu", **options)
    assert dset.labels.tolist() == [k for k in range(10) for _ in range(4)]
    assert dset.meta["ipc"] == 4 and dset.meta["method"] == "uvit+herding"
    index = choose("herding", digits, 4, pool=pool, **options).flatten()
    assert torch.equal(dset.images, pool.images[index]) and torch.equal(dset.labels, pool.labels[index])


def test_select__keeps_what_a_set_brings_and_refuses_tiles(pool, digits):
    soft = torch.nn.functional.one_hot(pool.labels, 10) * 0.9 + 0.01
    fitted = {"mean": torch.zeros(1), "std": torch.ones(1)}
    own = DistilledSet(pool.images, soft, pool.meta | {"lr": 0.02, "preprocess": {"kind": "pixel_mean_std"}}, fitted)
    dset = select(own, digits, 3, "random")
    assert dset.labels.shape == (30, 10) and dset.hard_labels.tolist() == [k for k in range(10) for _ in range(3)]
    assert dset.meta["lr"] == 0.02 and dset.preprocess.kind == "pixel_mean_std"
    tiled = DistilledSet(pool.images, pool.labels, pool.meta | {"factor": 2})
    with pytest.raises(InputError, match="each image of the pool holds 2 x 2 smaller ones"):
        select(tiled, digits, 3, "random")


def test_select__is_fixed_by_the_seed(pool, digits):
    a, b, c = (select(pool, digits, 3, "random", seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_select__keeps_the_classifier_where_asked_to(pool, digits, tmp_path, monkeypatch):
    options = {"network": "convnet1_w8", "device": "cpu", "cache": tmp_path / "classifier.safetensors"}
    first = select(pool, digits, 3, "herding", **options)
    monkeypatch.setattr(training, "train", None)  # not called again
    assert torch.equal(select(pool, digits, 3, "herding", **options).images, first.images)
    with pytest.raises(InputError, match="another classifier: seed 0 instead of 1"):
        select(pool, digits, 3, "herding", seed=1, **options)


def test_select__too_few_images(pool, digits):
    with pytest.raises(InputError, match="the pool has 30 images of class 0 .*, ipc is 31"):
        select(pool, digits, 31, "random")


def test_command__writes_a_set_that_loads(pool, tmp_path):
    pool.save(tmp_path / "pool.safetensors")
    argv = ["--pool", "pool.safetensors", "--selector", "random", "--ipc", "2", "--out", "set.safetensors"]
    main(argv)
    assert len(DistilledSet.load(tmp_path / "set.safetensors")) == 20
    with pytest.raises(InputError, match="exists"):
        main(argv)


def test_command__trains_the_classifier_once(pool, tmp_path, monkeypatch):
    pool.save(tmp_path / "pool.safetensors")
    common = ["--pool=pool.safetensors", "--ipc=2", "--network=convnet1_w8", "--classifier=judge.safetensors"]
    main([*common, "--selector=herding", "--out=herding.safetensors"])
    assert (tmp_path / "judge.safetensors").exists()
    monkeypatch.setattr(training, "train", None)  # not called again
    main([*common, "--selector=k_center", "--out=k_center.safetensors"])
    assert len(DistilledSet.load(tmp_path / "k_center.safetensors")) == 20
