"""What may shorten a distillation: the course of its rate, the average of its images, what steps share, its start."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from core_dd.judge.evaluate import evaluate
from core_dd.judge.networks import reset
from core_dd.rng import stream
from matching_dd.methods.datadam import DataDAM, DataDAMConfig
from matching_dd.methods.dm import DM, DMConfig
from matching_dd.methods.m3d import M3D, M3DConfig

SMALL = {"network": "convnet2_w8", "ipc": 2, "batch_real": 6, "bf16": False, "compile": False}
METHODS = {"dm": (DM, DMConfig), "datadam": (DataDAM, DataDAMConfig), "m3d": (M3D, M3DConfig)}


def method(digits, name: str = "dm", **options):
    cls, config = METHODS[name]
    return cls(config(method=name, **{**SMALL, **options}), digits)


def test_cosine__falls_to_nothing(digits):
    """Rates along half a cosine; a run that is constant takes the same first step."""
    ours, plain = method(digits, lr_course="cosine", iterations=4, lr_img=3), method(digits, iterations=4, lr_img=3)
    rates, start = [], ours.synthetic.images.detach().clone()
    for step in range(4):
        ours.iterate(step)
        rates.append(ours.optimizer.param_groups[0]["lr"])
        if step == 0:
            plain.iterate(0)
            assert torch.equal(plain.synthetic.images, ours.synthetic.images)
            assert not torch.equal(plain.synthetic.images, start)
    assert rates == pytest.approx([3 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)])


def test_pays_to_compile__not_within_a_few_seconds(digits, monkeypatch):
    monkeypatch.setattr("core_dd.speed.can_compile", lambda kind: True)
    pays = [method(digits, iterations=10**6, max_seconds=limit).pays_to_compile() for limit in (None, 1e4, 20.0)]
    assert pays == [True, True, False]


def test_load_state__rates_are_those_of_the_config(digits):
    """A checkpoint has the rate where its course was, and may not say where that began."""
    ours = method(digits, lr_img=3, iterations=4)
    state = copy.deepcopy(ours.state())
    state["optimizer"]["param_groups"][0]["lr"] = 0.25
    ours.load_state(state)
    ours.iterate(1)
    assert ours.optimizer.param_groups[0]["lr"] == 3


def test_average__is_of_the_last_part(digits):
    ours, plain = method(digits, average_last=0.5, iterations=4), method(digits, iterations=4)
    seen = []
    for step in range(4):
        ours.iterate(step)
        plain.iterate(step)
        seen.append(ours.synthetic.pixels().detach())
        assert torch.equal(ours.synthetic.images, plain.synthetic.images)  # what learns is what it was
    found, last = (own.synthetic.to_distilled({}).images.unflatten(0, (10, 2)) for own in (ours, plain))
    torch.testing.assert_close(found, (seen[2] + seen[3]) / 2)
    assert torch.equal(last, seen[3]) and not torch.allclose(found, last)


@pytest.mark.parametrize("name", METHODS)
def test_steps_per_batch__share_real_images_network_and_augmentation(digits, name, monkeypatch):
    """A step's loss is that of its images, where they are then, beside what the first step with its batch drew."""
    together = {"per_class": False} if name == "m3d" else {}
    ours, plain = method(digits, name, steps_per_batch=3, ipm=2, **together), method(digits, name)
    measured = []
    fixed = ours.features.fixed
    monkeypatch.setattr(ours.features, "fixed", lambda net, real: measured.append(real) or fixed(net, real))
    for step in range(4):
        first = 3 * (step // 3)
        with torch.no_grad():
            plain.synthetic.images.copy_(ours.synthetic.images)
            plain.begin()
            net = reset(plain.net, stream(0, "drawn network", 0))  # two batches see it
            expected = plain.loss(net, *plain.draw(first, range(10)))
        torch.testing.assert_close(ours.iterate(step), expected, rtol=1e-4, atol=1e-5)
    assert len(measured) == 2
    nets = [next(ours.draw_network(step).parameters()).clone() for step in (0, 5, 6)]
    assert torch.equal(nets[0], nets[1]) and not torch.equal(nets[1], nets[2])


@pytest.mark.parametrize("name", METHODS)
def test_resume__amid_a_batch_and_an_average(digits, name):
    options = {"steps_per_batch": 4, "average_last": 0.7, "lr_course": "cosine", "iterations": 6, "init": "medoids"}
    whole, again = (method(digits, name, factor=1, **options) for _ in range(2))
    for step in range(6):
        if step == 3:
            again.load_state(copy.deepcopy(whole.state()))
        whole.iterate(step)
    for step in range(3, 6):
        again.iterate(step)
    assert torch.equal(whole.synthetic.images, again.synthetic.images)
    assert torch.equal(whole.synthetic.average, again.synthetic.average)


def test_medoids__are_the_images_nearest_the_centres(digits):
    """Of one image per class, the one nearest the mean; of several, real ones of the class, none twice."""
    one, some = (method(digits, init="medoids", ipc=ipc).synthetic.images.detach().flatten(2) for ipc in (1, 5))
    for k, members in enumerate(digits.class_indices()):
        own = ((digits.train_images[members] / 255 - digits.mean[0]) / digits.std[0]).flatten(1)
        assert torch.cdist(one[k], own[(own - own.mean(0)).square().sum(1).argmin()][None]) < 0.02
        found = torch.cdist(some[k], own)
        assert found.amin(1).max() < 0.02 < found.mean() and len(set(found.argmin(1).tolist())) == 5


def test_score__says_what_validation_found(digits):
    dset = method(digits).synthetic.to_distilled({"method": "dm", "ipc": 2})
    told = {"validation": {"accuracy": 0.5, "protocol": "quick"}}
    for own, expected in ((dset, None), (replace(dset, meta=dset.meta | told), told["validation"])):
        record = evaluate(own, digits, "quick", "convnet1_w8", runs=1, steps=1).to_json()
        assert record["set"].get("validation") == expected
