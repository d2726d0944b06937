"""What holds for every method: a short run lowers its objective and beats random selection, and resumes exactly."""

import functools
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import fashion_folder
from torch import nn

from core_dd import evaluate, speed
from core_dd.data.images import ImageData, load_data
from core_dd.data.preprocess import Preprocess
from core_dd.sets.distilled import DistilledSet
from matching_dd import coreset, distill
from matching_dd.base import Method
from matching_dd.methods import METHODS
from matching_dd.methods.cafe import CAFE
from matching_dd.methods.idm import IDM

SMALL = {"network": "convnet2_w16", "batch_real": 16, "compile": False}
WAYS = {
    "cafe": {"batch_real": 32, "iterations": 3, "init": "real", "max_steps": 10, "max_epochs": 10, "batch_watched": 8},
    "datadam": {"iterations": 80},
    "dm": {"iterations": 40},
    "dm with moments": {"iterations": 40, "second_moment": 0.3, "third_moment": 0.1, "ipc": 3},
    "idm": {"iterations": 40, "factor": 1, "push_every": 10, "train_steps": 4, "batch_train": 64},
    "m3d": {"iterations": 80, "factor": 1, "lr_img": 0.05},
    "m3d linear": {"iterations": 80, "factor": 1, "lr_img": 0.05, "kernel": "linear"},
}
"""Methods, after their first word, and the options that suit the digits in seconds."""

HASTY = {"max_steps": 3, "max_epochs": 3, "batch_real": 16}
"""Options of a CAFE that is `hasty`."""

OF_GRADIENTS = {
    "dc": {"outer": 2, "inner": 2},
    "dsa": {"outer": 2, "inner": 2, "batch_train": 4},
    "idc": {"outer": 2, "real_net": 64, "side_img": 8, "pretrain": 1, "batch_train": 64},
    "ead": {"checkpoints": 2, "batch_real": 4, "ipc": 2},
    "mtt": {"syn_steps": 3, "max_start_epoch": 2, "expert_epochs": 1, "ipc": 2},
}
"""The others, whose short runs are in files of their own."""

FASHION = {"network": "convnet2_w8", "iterations": 30, "batch_real": 16}


def build(way: str, data: ImageData, **options) -> Method:
    cls = METHODS[way.split()[0]]
    return cls(cls.Config(**SMALL | {"ipc": 1} | WAYS.get(way, {}) | options), data)


def network(method: Method, step: int) -> nn.Module:
    """As the method matches in it: random, or trained on real images, or on its synthetic ones."""
    if isinstance(method, IDM):
        return method.queue[step % len(method.queue)].net
    net = method.draw_network(step)
    if isinstance(method, CAFE):
        method.train(net, step)
    return net


def short_run(way: str, data: ImageData, seed: int, judged: int = 200, **options) -> tuple[float, float]:
    """A distillation's accuracy above that of random selection, and what is left of its objective.

    The first is of the same ipc and seed, which draws the set, its start, and the classifiers. The second is the loss
    at the end over that at the start, in the same networks, on the same real images. Classifiers train `judged` steps.
    """
    method = build(way, data, seed=seed, **options)
    start = method.synthetic.images.detach().clone()
    for step in range(method.config.iterations):
        method.step(step)
    ours = method.synthetic.to_distilled({})
    how = method.config.network, seed, judged
    random = of_random_images(data, method.config.ipc, *how)
    return accuracy(ours, data, *how) - random, objective_left(method, start)


def accuracy(dset: DistilledSet, data: ImageData, network: str, seed: int, judged: int) -> float:
    return evaluate(dset, data, "quick", network, runs=2, seed=seed, steps=judged).mean


@functools.cache
def of_random_images(data: ImageData, ipc: int, network: str, seed: int, judged: int) -> float:
    return accuracy(coreset("random", data, ipc, seed=seed), data, network, seed, judged)


def objective_left(method: Method, start: torch.Tensor) -> float:
    """The loss of the method's images over that of those it started from."""
    end, losses = method.synthetic.images.detach().clone(), {"start": 0.0, "end": 0.0}
    for step in range(10**6, 10**6 + 10):
        net = network(method, step)
        for name, images in (("start", start), ("end", end)):
            method.synthetic.images.data.copy_(images)
            losses[name] += method.class_loss(net, step, range(10)).item()
    return losses["end"] / losses["start"]


CLEAR = ("dm", "m3d")
"""Ways that are better than random selection in half of the classifiers' steps, too."""


@pytest.mark.parametrize("way", [pytest.param(way, marks=[pytest.mark.slow] * (way not in CLEAR)) for way in WAYS])
def test_short_run__beats_random_selection_and_lowers_its_objective(digits, way):
    gain, left = short_run(way, digits, seed=0, judged=100 if way in CLEAR else 200)
    assert gain > 0.03 and left < 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("way", "lr_img"), [("dm", 1.0), ("m3d", 0.3), ("datadam", 1.0)])
def test_short_run__does_both_on_fashion_mnist(way, lr_img):
    data = load_data(f"idx:{fashion_folder()}", limit_per_class=200)
    data = replace(data, test_images=data.test_images[:2000], test_labels=data.test_labels[:2000])
    gain, left = short_run(way, data, seed=0, lr_img=lr_img, **FASHION)
    assert gain > 0 and left < 0.9


def learnt(method: Method) -> list[torch.Tensor]:
    """Images, and soft labels and learning rate where the method learns them."""
    return list(method.synthetic.state().values())


@pytest.mark.parametrize("way", [*WAYS, *OF_GRADIENTS])
def test_state__of_every_step_goes_on_exactly(digits, few_digits, experts, hasty, way):
    """Written to a file and read back after every step, into a new object: the run is the uninterrupted one's, bit for
    bit."""
    options = {"seed": 2, **OF_GRADIENTS.get(way, {}), **(HASTY if way == "cafe" else {})}
    data = few_digits
    if way in ("ead", "mtt"):
        data, options = digits, options | {"experts": experts, "network": "convnet1_w8"}
    whole, parts = build(way, data, **options), build(way, data, **options)
    before = learnt(whole)[0].clone()
    for step in range(3):
        expected = whole.step(step)
        assert torch.equal(parts.step(step), expected)
        file = io.BytesIO()
        torch.save(parts.state(), file)
        file.seek(0)
        parts = build(way, data, **options)
        parts.load_state(torch.load(file, weights_only=True))
        assert all(torch.equal(a, b) for a, b in zip(learnt(parts), learnt(whole), strict=True))
    assert not torch.equal(before, learnt(whole)[0])


@pytest.mark.parametrize("way", ["dm", "dc"])
def test_compile__pays_in_many_iterations_only(digits, way, monkeypatch):
    monkeypatch.setattr(speed, "can_compile", lambda kind: True)
    for iterations, worth in ((3, False), (10**6, True)):
        assert build(way, digits, compile=True, iterations=iterations).compile == worth
        assert not build(way, digits, compile=False, iterations=iterations).compile


@pytest.mark.parametrize("way", [*WAYS, "dc", "dsa", "idc"])
def test_step__classes_in_parts_give_the_same_step(few_digits, hasty, way):
    options = {"ipc": 3, "bf16": False} | ({} if way in WAYS else {"outer": 2, "inner": 1})
    options |= {"real_net": 64, "side_img": 8} if way == "idc" else HASTY if way == "cafe" else {}
    whole, parts = (build(way, few_digits, **options) for _ in range(2))
    whole.chunks, parts.chunks = [range(4)], [range(2), range(2, 3), range(3, 4)]
    for step in range(2):
        torch.testing.assert_close(parts.step(step), whole.step(step), rtol=1e-4, atol=1e-5)
    moved = (whole.synthetic.images - build(way, few_digits, **options).synthetic.images).abs().max()
    assert moved > 0
    torch.testing.assert_close(parts.synthetic.images, whole.synthetic.images, rtol=1e-3, atol=1e-3 * moved.item())


def losses(dset: DistilledSet, data: ImageData, **options) -> list[float]:
    """The training loss of one classifier of the set."""
    return evaluate(dset, data, "quick", **options).record["curves"]["loss"][0]


def test_factor__reaches_the_judge(digits):
    """The file holds undecoded images and their factor; classifiers train on the decoded ones."""
    distill("m3d", digits, 2, **SMALL | {"iterations": 2, "factor": 2, "out": "run", "tracker": "none"})
    dset = DistilledSet.load("run")
    dset.check(digits)
    assert len(dset) == 20 and dset.meta["factor"] == 2 and dset.meta["method"] == "m3d"
    images, labels = dset.decoded()
    assert len(images) == 80 and labels.bincount().tolist() == [8] * 10
    by_hand = replace(dset, images=images, labels=labels, meta=dset.meta | {"factor": 1})
    small = replace(by_hand, images=images[::4], labels=labels[::4])
    options = {"network": "convnet1_w8", "runs": 1, "steps": 5}
    ours, same, other = (losses(each, digits, **options) for each in (dset, by_hand, small))
    assert ours == pytest.approx(same, rel=1e-4) and ours != pytest.approx(other, rel=1e-2)


def test_zca__is_learnt_in_and_judged_in_but_stored_as_pixels(digits):
    """The file brings the whitening along, so that whoever judges it whitens alike; what it shows are images."""
    options = SMALL | {"iterations": 1, "lr_img": 1e-9, "preprocess": "zca", "out": "run", "tracker": "none"}
    distill("dm", digits, 2, **options)
    dset, real = DistilledSet.load("run"), coreset("random", digits, 2)
    torch.testing.assert_close(dset.images, real.images / 255, atol=1e-3, rtol=0)  # lr 1e-9: as at the start
    whitened = dset.preprocess.forward(dset.images).flatten(1)
    expected = Preprocess.fit(digits, "zca").forward(real.images).flatten(1)
    torch.testing.assert_close(whitened, expected, atol=1e-2, rtol=0)
    assert (whitened - Preprocess.fit(digits).forward(real.images).flatten(1)).abs().max() > 0.1
    assert Path("run/grid.png").exists()
    plain = replace(dset, meta=dset.meta | {"preprocess": {"kind": "mean_std"}})
    plain = replace(plain, tensors={"mean": digits.mean, "std": digits.std})
    options = {"network": "convnet1_w8_nonorm", "runs": 1, "steps": 1}
    assert losses(dset, digits, **options) != pytest.approx(losses(plain, digits, **options), rel=1e-3)
