"""What only a GPU can show: on CUDA every step is the CPU's within rounding, and the commands run there end to end.

Run by `GENDD_TEST_CUDA=1 pytest tests/test_cuda.py` on a machine with a GPU; all other tests stay on the CPU.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from core_dd import evaluate
from core_dd.judge.networks import build_network
from core_dd.judge.protocols import PROTOCOLS
from core_dd.judge.training import Training, gradients_of, initialise
from core_dd.rng import stream
from core_dd.run import read_stats
from core_dd.sets.distilled import DistilledSet
from core_dd.speed import bf16_pays
from gen_dd.options import SampleConfig, TrainConfig
from gen_dd.recipe import OPTIMIZERS
from gen_dd.sample import run, sample
from gen_dd.sampler import Sampler
from gen_dd.train import train
from gen_dd.trainer import Trainer
from gen_dd.uvit import UViT
from gen_dd.weights import load_model
from matching_dd import coreset, distill
from matching_dd.methods import METHODS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU (or GENDD_TEST_CUDA is not 1)")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

SMALL = {"network": "convnet2_w16", "batch_real": 32, "ipc": 2}
OPTIONS = {
    "cafe": SMALL | {"init": "real", "max_steps": 10, "max_epochs": 10, "batch_watched": 8},
    "datadam": SMALL,
    "dm": SMALL,
    "idm": SMALL | {"factor": 1, "push_every": 10, "train_steps": 4, "batch_train": 64},
    "m3d": SMALL | {"factor": 1, "lr_img": 0.05},
    "dc": SMALL | {"outer": 2, "inner": 2},
    "dsa": SMALL | {"outer": 2, "inner": 2, "batch_train": 4},
    "idc": SMALL | {"outer": 2, "real_net": 64, "side_img": 8, "pretrain": 1},
    "ead": SMALL | {"checkpoints": 2, "batch_real": 4, "network": "convnet1_w8"},
    "mtt": SMALL | {"syn_steps": 3, "max_start_epoch": 2, "expert_epochs": 1, "network": "convnet1_w8"},
}
"""Of every method, at the size of the digits."""


@pytest.fixture(autouse=True)
def exact_products():
    """fp32 products in fp32, convolutions included."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def far(ours: torch.Tensor, other: torch.Tensor) -> float:
    """The relative distance of two tensors."""
    ours, other = ours.detach().cpu().double(), other.detach().cpu().double()
    return float((ours - other).norm() / other.norm())


@pytest.mark.parametrize("method", METHODS)
def test_step__of_every_method_is_the_cpus(method, digits, experts):
    moved, kept = {}, OPTIONS[method] | ({"experts": experts} if method in ("mtt", "ead") else {})
    for device in ("cpu", "cuda"):
        config = METHODS[method].Config(method=method, device=device, bf16=False, compile=False, seed=3, **kept)
        matching = METHODS[method](config, digits)
        start = matching.synthetic.images.detach().cpu().clone()
        matching.step(0)
        moved[device] = matching.synthetic.images.detach().cpu() - start
    assert far(moved["cuda"], moved["cpu"]) < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_distill__runs_compiled_and_in_bf16(method, digits, experts, tmp_path):
    kept = OPTIONS[method] | ({"experts": experts} if method in ("mtt", "ead") else {})
    kept |= {"iterations": 2, "data": digits, "tracker": "none"}
    ours, other = (distill(method, out=str(tmp_path / device), device=device, **kept) for device in ("cuda", "cpu"))
    assert ours.images.isfinite().all() and far(ours.images, other.images) < 0.2


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """A short training with defaults: bf16, compiled, resumed once."""
    out = tmp_path_factory.mktemp("cuda") / "run"
    options = {"data": "digits", "tracker": "none", "batch_size": 64, "warmup": 10, "lr": 1e-3, "grid_every": 0}
    options |= {"out": str(out), "checkpoint_every": 40, "log_every": 10, "ema_decay": 0.9, "optimizer": "muon"}
    train(TrainConfig(iterations=80, **options))
    train(TrainConfig(iterations=120, resume=True, **options))
    return out


def test_train__learns_and_resumes(trained):
    losses = [line["loss"] for line in read_stats(trained / "stats.jsonl") if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_trainer__step_in_fp32_is_the_cpus(optimizer, digits):
    weights = {}
    for device in ("cpu", "cuda"):
        config = TrainConfig(data="digits", optimizer=optimizer, device=device, bf16=False, compile=False, warmup=0)
        trainer = Trainer.start(config, digits)
        before = copy.deepcopy(trainer.model).cpu()
        for step in range(2):
            trainer.step(step)
        pairs = zip(trainer.model.parameters(), before.parameters(), strict=True)
        weights[device] = torch.cat([(own.detach().cpu() - old).flatten() for own, old in pairs])
    assert far(weights["cuda"], weights["cpu"]) < 0.1  # Adam's first steps are signs: gradients near zero may differ


def test_uvit__attention_is_the_cpus():
    model = UViT.from_preset("tiny", num_classes=10).eval()
    x = torch.randn(4, 3, 32, 32, generator=stream(0, "x"))
    x = x[:, : model.config.in_channels, : model.config.image_size, : model.config.image_size]
    inputs = x, torch.full((4,), 300.0), torch.arange(4)
    with torch.no_grad():
        assert far(copy.deepcopy(model).cuda()(*(part.cuda() for part in inputs)), model(*inputs)) < 1e-4


def test_sample__as_a_graph_draws_the_same_images(trained):
    model, _ = load_model(trained / "model")
    plain, graph = (
        Sampler(model, steps=10, batch=20, device=CUDA, compile=compile).draw(range(20)).float()
        for compile in (False, True)
    )
    assert (plain - graph).abs().mean() < 4
    on_cpu = Sampler(model, steps=10, batch=20, device=CPU, compile=False).draw(range(20)).float()
    assert (plain - on_cpu).abs().mean() < 8


def test_sample__budget_is_used_and_never_overrun(trained, tmp_path):
    out = run(SampleConfig(model=str(trained), out=str(tmp_path / "pool"), budget="6s", steps=10))
    dset = DistilledSet.load(out)
    counts = dset.labels.bincount(minlength=10)
    assert len(dset) > 1000 and counts.max() - counts.min() <= 1
    assert dset.meta["cost"]["seconds"] <= 6


def test_sample__guided(trained, digits):
    model, _ = load_model(trained / "model")
    assert len(sample(model, num_per_class=2, steps=5, cfg_scale=1.0).images) == 20


@pytest.mark.parametrize("network", ["convnet2_w16", "convnet2_bn_w16"])
def test_gradients_of__stacked_equals_one_by_one(network, digits):
    net, params, buffers = initialise(network, digits, range(3), 0, CUDA)
    x = torch.randn(3, 8, *digits.shape, generator=stream(0, "x")).cuda()
    y = torch.randint(10, (3, 8), generator=stream(0, "y")).cuda()
    found = [
        gradients_of(net, CUDA, stacked=stacked, bf16=False, fast=False)(params, buffers, x, y)
        for stacked in (True, False)
    ]
    ours, other = (torch.cat([grads[name].flatten() for name in params]) for grads, _ in found)
    assert far(ours, other) < 1e-3  # together: a bias before a normalisation has a gradient of rounding alone


def test_training__compiled_step_is_near_the_plain_one(digits):
    losses = []
    for bf16 in (True, False):
        training = Training(
            digits.train_images[:100],
            digits.train_labels[:100],
            digits,
            protocol=PROTOCOLS["quick"],
            network="convnet2_w16",
            runs=range(3),
            seed=0,
            device=CUDA,
            bf16=bf16,
        )
        losses.append(torch.stack([training.step(step) for step in range(3)]))
    assert torch.allclose(losses[0], losses[1], atol=0.1)


def test_evaluate__agrees_with_the_cpu(digits):
    dset = coreset("random", digits, 10, seed=0)
    means = [evaluate(dset, digits, "quick", "convnet2_w16", runs=5, device=device).mean for device in ("cpu", "cuda")]
    assert abs(means[0] - means[1]) < 0.06 and min(means) > 0.7


def test_bf16__pays_here():
    assert bf16_pays("cuda") == (torch.cuda.get_device_capability() >= (8, 0))


def test_network__in_channels_last_is_the_cpus(digits):
    net = build_network("convnet3_w32", digits.shape, 10, stream(0, "net"))
    x = torch.randn(16, *digits.shape, generator=stream(0, "x"))
    own = copy.deepcopy(net).cuda()(x.cuda().contiguous(memory_format=torch.channels_last))
    assert far(F.softmax(own, 1), F.softmax(net(x), 1)) < 1e-3 and math.isfinite(float(own.sum()))
