"""Without bf16 units nothing computes in 16 bits, whoever asks; with them, the same steps do."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from core_dd import speed
from core_dd.config import load_config
from core_dd.data.images import ImageData
from core_dd.judge import fidelity
from core_dd.judge.evaluate import EvaluateConfig, evaluate
from core_dd.judge.protocols import QUICK
from core_dd.judge.training import Training
from core_dd.sets.distilled import DistilledSet
from gen_dd.guidance import make_guide
from gen_dd.options import TrainConfig, TuneConfig
from gen_dd.sampler import Sampler
from gen_dd.select import select
from gen_dd.trainer import Trainer
from gen_dd.uvit import UViT
from gen_dd.weights import load_model, save_model
from matching_dd.methods import METHODS

SIXTEEN_BITS = (torch.bfloat16, torch.float16)
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "linear", "conv", "attention")
"""Parts of the names of matrix products and convolutions."""

MATCHING = {"network": "convnet1_w8", "batch_real": 8, "ipc": 1, "compile": False, "device": "cpu"}
OF_METHOD = {
    "cafe": {"max_steps": 3, "max_epochs": 3, "batch_watched": 8},
    "datadam": {"layers": "1"},
    "dc": {"outer": 2, "inner": 1},
    "dsa": {"outer": 2, "inner": 1},
    "ead": {"checkpoints": 2, "batch_real": 2},
    "idc": {"outer": 1, "real_net": 32, "side_img": 8, "pretrain": 1},
    "idm": {"train_steps": 1, "batch_train": 16},
    "mtt": {"syn_steps": 2, "max_start_epoch": 2, "expert_epochs": 1},
}


class SixteenBits(TorchDispatchMode):
    """Notes every operation that takes or gives 16-bit numbers, of forward and backward passes alike."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **kwargs or {})
        values = torch.utils._pytree.tree_leaves((args, kwargs, found))
        if any(isinstance(value, torch.Tensor) and value.dtype in SIXTEEN_BITS for value in values):
            self.seen.add(func.overloadpacket.__name__)
        return found


def a_step_of_training(optimizer: str) -> Callable:
    def work(data: ImageData, experts: str) -> None:
        options = {"batch_size": 4, "limit_per_class": 4, "tracker": "none", "device": "cpu", "compile": False}
        Trainer.start(TrainConfig(optimizer=optimizer, **options), data).step(0)

    return work


def a_step_of_matching(name: str) -> Callable:
    def work(data: ImageData, experts: str) -> None:
        options = MATCHING | OF_METHOD.get(name, {}) | ({"experts": experts} if name in ("ead", "mtt") else {})
        METHODS[name](METHODS[name].Config(method=name, **options), data).step(0)

    return work


def judging(data: ImageData, experts: str) -> None:
    half = DistilledSet(data.train_images[:20].half() / 255, data.train_labels[:20], {})
    evaluate(half, data, "dm", "convnet1_w8", runs=1, device="cpu", steps=1, with_fidelity=True)


def judging_as_told(data: ImageData, *words: str) -> None:
    """As the command's flags say."""
    config = load_config(EvaluateConfig, ["--out=scores.json", *words], prog="gendd evaluate")
    images = DistilledSet(data.train_images[:20], data.train_labels[:20], {})
    options = {"runs": 1, "device": "cpu", "steps": 1, "with_fidelity": True, "bf16": config.bf16}
    evaluate(images, data, "dm", "convnet1_w8", **options)


def choosing(data: ImageData, experts: str) -> None:
    """From a pool that is stored in 16 bits, by the features of a classifier of the real data."""
    pool = DistilledSet(data.train_images[:40].half() / 255, data.train_labels[:40], {})
    select(pool, data, 1, "herding", device="cpu")


def drawing(data: ImageData, experts: str) -> None:
    """Also by weights that somebody has saved in 16 bits, and by every guide."""
    model = UViT(image_size=8, patch_size=4, in_channels=1, hidden_size=16, depth=2, num_heads=2, num_classes=10)
    save_model(model.half(), Path("half"), {})
    for guide in (None, "mgd3", "repulsion", "classifier"):
        model = load_model("half")[0]
        guide = make_guide(guide, slots=2) if guide in ("mgd3", "repulsion") else make_guide(guide)
        if guide is not None:
            guide.prepare(None if guide.joint else data, model, torch.Generator().manual_seed(0))
        Sampler(model, steps=2, cfg_scale=0.5, guide=guide, batch=20).draw(range(20))


WORK = {
    "train, adamw": a_step_of_training("adamw"),
    "train, muon": a_step_of_training("muon"),
    **{name: a_step_of_matching(name) for name in METHODS},
    "evaluate": judging,
    "select": choosing,
    "sample": drawing,
}


@pytest.fixture
def few(digits, hasty, monkeypatch):
    """Few images to train on and to test on; a classifier of them has learnt for one step."""

    def real_classifier(data, *names, bf16=True, **options):
        protocol, options = (
            QUICK.shortened(None, 1),
            {"runs": [0], "seed": 0, "device": torch.device("cpu"), "bf16": bf16},
        )
        own = Training(data.train_images, data.train_labels, data, protocol=protocol, network="convnet1_w8", **options)
        own.step(0)
        return own.classifiers()

    monkeypatch.setattr(fidelity, "real_classifier", real_classifier)
    parts = {f"{split}_{part}": getattr(digits, f"{split}_{part}")[:100]
             for split in ("train", "test") for part in ("images", "labels")}  # fmt: skip
    return dataclasses.replace(digits, **parts)


def sixteen_bits(name: str, few: ImageData, digits: ImageData, experts: str) -> set[str]:
    """The operations in 16 bits of some work, on few images where it does not want those the experts have seen."""
    data = digits if name in ("ead", "mtt") else few
    with SixteenBits() as mode:
        WORK[name](data, experts)
    return mode.seen


@pytest.mark.parametrize("name", WORK)
def test_without_units__nothing_computes_in_16_bits(name, few, digits, experts, monkeypatch):
    monkeypatch.setattr(speed, "has_bf16_units", lambda kind: True)
    monkeypatch.setenv("GENDD_BF16", "0")
    products = {own for own in sixteen_bits(name, few, digits, experts) if any(part in own for part in PRODUCTS)}
    assert not products


@pytest.mark.parametrize("name", WORK)
def test_with_units__the_same_work_does(name, few, digits, experts, monkeypatch):
    """Which shows that the mode would see it."""
    monkeypatch.setattr(speed, "has_bf16_units", lambda kind: True)
    monkeypatch.delenv("GENDD_BF16", raising=False)
    seen = sixteen_bits(name, few, digits, experts)
    assert any(part in own for own in seen for part in PRODUCTS), seen


def test_consistency__tunes_and_draws_in_fp32(few, monkeypatch):
    """With units, too: rounding to 8 bits is larger than what tuning is to see, and than what images may be off by."""
    monkeypatch.setattr(speed, "has_bf16_units", lambda kind: True)
    monkeypatch.delenv("GENDD_BF16", raising=False)
    options = {"batch_size": 4, "tracker": "none", "device": "cpu", "compile": False}
    size = {"image_size": 8, "patch_size": 4, "in_channels": 1, "hidden_size": 16, "depth": 2, "num_heads": 2}
    save_model(UViT(num_classes=10, **size), Path("first"), {})
    save_model(UViT(num_classes=10, consistency=True, **size), Path("tuned"), {})
    with SixteenBits() as mode:
        Trainer.start(TuneConfig(init_from="first", **options), few).step(0)
        Sampler(load_model("tuned")[0], steps=2, solver="consistency", batch=20).draw(range(20))
    assert not mode.seen


@pytest.mark.parametrize(("word", "wanted"), [("--bf16", True), ("--no_bf16", False)])
def test_evaluate__computes_in_bf16_if_told(word, wanted, few, monkeypatch):
    monkeypatch.setattr(speed, "has_bf16_units", lambda kind: True)
    monkeypatch.delenv("GENDD_BF16", raising=False)
    with SixteenBits() as mode:
        judging_as_told(few, word)
    assert bool(mode.seen) == wanted
