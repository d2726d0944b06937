"""Every chooser, on a pool and on the real images; the choices of seeds that sets were published with."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from core_dd.errors import InputError
from core_dd.judge import fidelity, training
from core_dd.judge.choose import (
    CHOOSERS,
    Candidates,
    choose,
    correct,
    difficulty,
    least_confident,
    members_of,
    moments,
    most_confident,
)
from core_dd.judge.protocols import QUICK
from core_dd.rng import stream
from core_dd.sets import subset
from core_dd.sets.distilled import DistilledSet, new_meta

CLASSIFIER = {"network": "convnet1_w8", "protocol": replace(QUICK, steps=10)}


@pytest.fixture(scope="module")
def pool(digits):
    """30 real digits per class, one of each class after the other, as the sampler orders them."""
    members = torch.stack([own[:30] for own in digits.class_indices()], dim=1).flatten()
    meta = new_meta(digits, method="uvit", ipc=None, seed=0)
    return DistilledSet(digits.train_images[members], digits.train_labels[members], meta)


@pytest.fixture(scope="module")
def cache(digits, tmp_path_factory):
    """The file of a classifier, so that no test but this trains it."""
    place = tmp_path_factory.mktemp("classifier") / "classifier.safetensors"
    fidelity.real_classifier(digits, **CLASSIFIER, cache=place)
    return place


@pytest.fixture
def few_groups(monkeypatch):
    """`moments` compares few groups: which it takes is not what is tested."""
    monkeypatch.setattr("core_dd.judge.choose.GROUPS", 40)


FIVE = {
    "confidence": torch.tensor([0.9, 0.6, 0.3, 0.4, 0.7]),
    "correct": torch.tensor([True, True, False, False, True]),
}


def seen(**what):
    """What a chooser under test looks at, and nothing else."""
    return SimpleNamespace(**what)


def candidates(own, real=None, seed=0):
    return Candidates(len(next(iter(vars(own).values()))), stream(seed), own, real)


@pytest.mark.parametrize("on", ["pool", "real"])
@pytest.mark.parametrize("chooser", sorted(CHOOSERS))
def test_choosers__distinct_images_of_each_class(digits, pool, cache, chooser, on, few_groups):
    for ipc in (1, 4, 30):
        chosen = choose(chooser, digits, ipc, pool=pool if on == "pool" else None, cache=cache, **CLASSIFIER)
        labels = pool.labels if on == "pool" else digits.train_labels
        assert chosen.dtype == torch.int64 and chosen.shape == (10, ipc)
        assert torch.equal(labels[chosen], torch.arange(10)[:, None].expand(10, ipc))
        assert len(set(chosen.flatten().tolist())) == 10 * ipc


@pytest.mark.parametrize("on", ["pool", "real"])
@pytest.mark.parametrize("chooser", sorted(set(CHOOSERS) - {"random"}))
def test_choosers__see_their_own_class_and_the_real_one(digits, pool, cache, chooser, on, few_groups):
    """The third class's choice is that of the chooser, shown what a classifier makes of this class's images."""
    of_pool = on == "pool"
    chosen = choose(chooser, digits, 5, seed=0, pool=pool if of_pool else None, cache=cache, **CLASSIFIER)[3]
    trained = fidelity.real_classifier(digits, **CLASSIFIER, cache=cache)

    def look(images):
        features = fidelity.features(trained.network(0), images, trained.preprocess)
        with torch.inference_mode():
            shares = trained.network(0).classifier(features).softmax(1)
        return seen(features=features, confidence=shares[:, 3], correct=shares.argmax(1) == 3)

    real = torch.nonzero(digits.train_labels == 3).flatten()
    own = torch.nonzero(pool.labels == 3).flatten() if of_pool else real
    images = (pool.images if of_pool else digits.train_images)[own]
    generator = stream(0, "select" if of_pool else "coreset", 3)
    shown = Candidates(len(own), generator, look(images), look(digits.train_images[real]))
    assert torch.equal(chosen, own[CHOOSERS[chooser](shown, 5)])


def test_choose__random_is_the_stream_of_its_purpose(digits, pool):
    """The numbers that published sets were drawn by."""
    for purpose, members, options in (
        ("choose", torch.nonzero(digits.train_labels == 4).flatten(), {}),
        ("select", torch.nonzero(pool.labels == 4).flatten(), {"pool": pool}),
    ):
        order = torch.randperm(len(members), generator=stream(7, purpose, 4))
        assert torch.equal(choose("random", digits, 3, 7, **options)[4], members[order[:3]])


def test_choose__random_trains_no_classifier(digits, pool, monkeypatch):
    monkeypatch.setattr(training, "train", None)
    assert choose("random", digits, 2, pool=pool).shape == choose("random", digits, 2).shape == (10, 2)


@pytest.mark.parametrize(("chooser", "what"), [("moments", "features"), ("difficulty", "probabilities")])
def test_choose__looks_at_each_class_once(digits, cache, monkeypatch, chooser, what, few_groups):
    """Also a chooser that compares with the real images, where these are the candidates."""
    looked, look = [], getattr(fidelity, what)

    def counted(net, images, *rest):
        looked.append(len(images))
        return look(net, images, *rest)

    monkeypatch.setattr(fidelity, what, counted)
    choose(chooser, digits, 2, cache=cache, **CLASSIFIER)
    assert looked == digits.train_labels.bincount().tolist()


def test_choose__refuses(digits, pool):
    with pytest.raises(InputError, match="unknown selector 'randon'; did you mean 'random'"):
        choose("randon", digits, 1)
    for ipc, said in ((0, ">= 1, got 0"), (-1, ">= 1, got -1"), (1.5, "a whole number >= 1, got 1.5")):
        with pytest.raises(InputError, match=f"ipc must be {said}"):
            choose("random", digits, ipc)
    with pytest.raises(InputError, match=r"the pool has 30 images of class 0 \('0'\), ipc is 31. Choose an ipc of at"):
        choose("random", digits, 31, pool=pool)
    with pytest.raises(InputError, match="seed must be a whole number, got 'x'"):
        choose("random", digits, 1, "x")


def test_members_of__names_the_smallest_class(digits):
    keep = torch.cat([digits.class_indices()[k][: 4 if k == 6 else 9] for k in range(10)])
    data = replace(digits, train_images=digits.train_images[keep], train_labels=digits.train_labels[keep])
    assert [len(own) for own in members_of(data, 4)] == [9, 9, 9, 9, 9, 9, 4, 9, 9, 9]
    with pytest.raises(InputError, match=r"digits has 4 training images of class 6 \('6'\), ipc is 10. Choose"):
        members_of(data, 10)
    empty = data.train_labels != 7
    data = replace(data, train_images=data.train_images[empty], train_labels=data.train_labels[empty])
    with pytest.raises(InputError, match=r"digits has 0 training images of class 7 \('7'\), .* Drop the class"):
        members_of(data, 1)


def test_confident__right_ones_first_then_the_surest_wrong():
    own = seen(**FIVE)
    assert most_confident(candidates(own), 4).tolist() == [0, 4, 1, 3]
    assert least_confident(candidates(own), 4).tolist() == [1, 4, 0, 3]


def test_correct__is_random_among_the_right_ones():
    own = seen(**FIVE)
    chosen = [correct(candidates(own, seed=seed), 4).tolist() for seed in range(30)]
    assert all(sorted(four[:3]) == [0, 1, 4] and four[3] == 3 for four in chosen)
    assert len({tuple(four) for four in chosen}) == 6  # every order of the three


def test_difficulty__follows_the_real_quantiles():
    own, hard = torch.linspace(0.01, 0.99, 99), torch.linspace(0.8, 0.99, 200)
    chosen = difficulty(candidates(seen(confidence=own), seen(confidence=hard)), 10)
    assert own[chosen].min() > 0.75
    even = torch.linspace(0.01, 0.99, 200)
    easy = difficulty(candidates(seen(confidence=own), seen(confidence=even)), 10)
    assert own[easy].min() < 0.2 and own[easy].max() > 0.9


def test_moments__beats_a_random_group(generator):
    real = torch.randn(200, 6, generator=generator)
    shown = candidates(seen(features=torch.randn(60, 6, generator=generator) * 2 + 1), seen(features=real))

    def gap(index):
        x = shown.own.features[index]
        return (x.mean(0) - real.mean(0)).norm() + (x.std(0, correction=0) - real.std(0, correction=0)).norm()

    typical = torch.stack([gap(torch.randperm(60, generator=generator)[:10]) for _ in range(100)])
    assert gap(moments(shown, 10)) < typical.quantile(0.05)


@pytest.mark.parametrize(("chooser", "points"), [("herding", subset.herding), ("k_center", subset.k_center)])
def test_features__choose_by_the_points_of_each_class(digits, cache, chooser, points):
    chosen = choose(chooser, digits, 3, cache=cache, **CLASSIFIER)
    trained = fidelity.real_classifier(digits, **CLASSIFIER, cache=cache)
    for k, members in enumerate(digits.class_indices()):
        features = fidelity.features(trained.network(0), digits.train_images[members], trained.preprocess)
        assert torch.equal(chosen[k], members[points(features, 3)])
