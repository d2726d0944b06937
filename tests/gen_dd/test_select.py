import pytest
import torch

from core_dd.errors import InputError
from core_dd.judge import training
from core_dd.judge.fidelity import real_classifier
from core_dd.rng import stream
from core_dd.sets import subset
from core_dd.sets.distilled import DistilledSet, new_meta
from gen_dd.select import (
    SELECTORS,
    Pool,
    classifier_views,
    correct,
    difficulty,
    least_confident,
    main,
    moments,
    most_confident,
    select,
)


@pytest.fixture(scope="module")
def pool(digits):
    """30 real digits per class, in the sampler's order."""
    members = torch.stack([own[:30] for own in digits.class_indices()], dim=1).flatten()
    meta = new_meta(digits, method="uvit", ipc=None, seed=0)
    return DistilledSet(digits.train_images[members], digits.train_labels[members], meta)


@pytest.fixture(scope="module")
def views(pool, digits):
    """What one classifier makes of every class."""
    return classifier_views(pool, digits, real_classifier(digits, "convnet2_w32", device=torch.device("cpu")))


@pytest.mark.parametrize("selector", sorted(SELECTORS))
@pytest.mark.parametrize("ipc", [1, 4, 30])
def test_selectors__distinct_images(views, selector, ipc):
    chosen = SELECTORS[selector](Pool(30, stream(0, "test"), **views[3]), ipc)
    assert chosen.dtype == torch.int64 and len(set(chosen.tolist())) == ipc
    assert chosen.min() >= 0 and chosen.max() < 30


def test_select__herding_by_command_of_the_function(pool, digits, views):
    dset = select(pool, digits, 4, "herding", network="convnet2_w32", device="cpu")
    assert dset.labels.tolist() == [k for k in range(10) for _ in range(4)]
    assert dset.meta["ipc"] == 4 and dset.meta["method"] == "uvit+herding"
    own = torch.nonzero(pool.labels == 7).flatten()
    assert torch.equal(dset.images[28:32], pool.images[own[subset.herding(views[7]["features"], 4)]])


def test_confident__right_ones_first_then_the_surest_wrong():
    confidence = torch.tensor([0.9, 0.6, 0.3, 0.4, 0.7])
    pool = Pool(5, stream(0), confidence=confidence, correct=torch.tensor([True, True, False, False, True]))
    assert most_confident(pool, 4).tolist() == [0, 4, 1, 3]
    assert least_confident(pool, 4).tolist() == [1, 4, 0, 3]


def test_correct__is_random_among_the_right_ones():
    confidence, right = torch.tensor([0.9, 0.6, 0.3, 0.4, 0.7]), torch.tensor([True, True, False, False, True])
    chosen = [correct(Pool(5, stream(seed), confidence=confidence, correct=right), 4).tolist() for seed in range(30)]
    assert all(sorted(four[:3]) == [0, 1, 4] and four[3] == 3 for four in chosen)
    assert len({tuple(four) for four in chosen}) == 6  # every order of the three


def test_difficulty__follows_the_real_quantiles():
    ours, real = torch.linspace(0.01, 0.99, 99), torch.linspace(0.8, 0.99, 200)
    chosen = difficulty(Pool(99, stream(0), confidence=ours, real_confidence=real), 10)
    assert ours[chosen].min() > 0.75
    easy = difficulty(Pool(99, stream(0), confidence=ours, real_confidence=torch.linspace(0.01, 0.99, 200)), 10)
    assert ours[easy].min() < 0.2 and ours[easy].max() > 0.9


def test_moments__beats_a_random_group(generator):
    real = torch.randn(200, 6, generator=generator)
    pool = Pool(60, stream(0), features=torch.randn(60, 6, generator=generator) * 2 + 1, real_features=real)

    def gap(index):
        x = pool.features[index]
        return (x.mean(0) - real.mean(0)).norm() + (x.std(0, correction=0) - real.std(0, correction=0)).norm()

    typical = torch.stack([gap(torch.randperm(60, generator=generator)[:10]) for _ in range(100)])
    assert gap(moments(pool, 10)) < typical.quantile(0.05)


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
