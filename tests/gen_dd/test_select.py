import pytest
import torch

from core_dd import subset
from core_dd.distilled import DistilledSet, new_meta
from core_dd.errors import InputError
from gen_dd.select import SELECTORS, classifier_features, main, select


@pytest.fixture(scope="module")
def pool(digits):
    """30 real digits per class, in the sampler's order."""
    members = torch.stack([own[:30] for own in digits.class_indices()], dim=1).flatten()
    meta = new_meta(digits, method="uvit", ipc=None, seed=0)
    return DistilledSet(digits.train_images[members], digits.train_labels[members], meta)


@pytest.mark.parametrize("selector", sorted(SELECTORS))
def test_select__ipc_distinct_images_of_every_class(pool, digits, selector):
    dset = select(pool, digits, 4, selector, device="cpu")
    assert dset.labels.tolist() == [k for k in range(10) for _ in range(4)]
    assert dset.meta["ipc"] == 4 and dset.meta["method"] == f"uvit+{selector}"
    rows = {(label, row.numpy().tobytes()) for label, row in zip(dset.labels.tolist(), dset.images, strict=True)}
    there = {(label, row.numpy().tobytes()) for label, row in zip(pool.labels.tolist(), pool.images, strict=True)}
    assert len(rows) == 40 and rows <= there


def test_select__herding_is_herding_on_classifier_features(pool, digits):
    features = classifier_features(pool, digits, "convnet3", 0, torch.device("cpu"))
    own = torch.nonzero(pool.labels == 7).flatten()
    expected = pool.images[own[subset.herding(features[own], 4)]]
    assert torch.equal(select(pool, digits, 4, "herding", device="cpu").images[28:32], expected)


def test_select__is_fixed_by_the_seed(pool, digits):
    a, b, c = (select(pool, digits, 3, "random", seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


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
