"""MTT against a second, plain implementation: one graph through the whole of the student's training."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from core_dd import evaluate, load_data
from core_dd.errors import InputError
from core_dd.judge import augment
from core_dd.rng import stream
from core_dd.run import read_stats
from core_dd.speed import bf16_pays
from matching_dd import coreset, distill
from matching_dd.experts import ExpertsConfig, record
from matching_dd.methods.mtt import MTT, MTTConfig

PLAIN = {"network": "convnet1_w8", "bf16": False, "compile": False}


def plain_iteration(mtt: MTT, step: int, images: Tensor, lr: Tensor) -> Tensor:
    """The loss (Cazenavette et al. 2022), differentiable in images (K, ipc, C, H, W) and lr."""
    config, weights = mtt.config, []
    generator = stream(config.seed, "expert", step)
    expert = int(torch.randint(3, (), generator=generator))
    epoch = int(torch.randint(config.max_start_epoch, (), generator=generator))
    for t in (epoch, epoch + config.expert_epochs):
        weights.append({name: tensor.requires_grad_() for name, tensor in mtt.experts.weights(expert, t).items()})
    start, target = weights
    flat, labels = images.flatten(0, 1), torch.arange(10).repeat_interleave(config.ipc)
    student, chunks, passes = start, [], 0
    for i in range(config.syn_steps):
        if not chunks:
            order = torch.randperm(len(labels), generator=stream(config.seed, "student order", step, passes))
            chunks, passes = list(order.split(config.batch_syn or len(labels))), passes + 1
        batch = chunks.pop()
        x = flat[batch]
        if config.augment == "auto":
            dsa = augment.DSAugment("color_crop_cutout_scale_rotate")
            x = dsa.per_image(x[None], [stream(config.seed, "augment", step, i)])[0]
        loss = F.cross_entropy(functional_call(mtt.net, student, (x,)), labels[batch])
        gradients = torch.autograd.grad(loss, list(student.values()), create_graph=True)
        student = {name: p - lr * g for (name, p), g in zip(student.items(), gradients, strict=True)}
    left = sum(((student[name] - target[name]) ** 2).sum() for name in target)
    return left / sum(((start[name] - target[name]) ** 2).sum() for name in target)


@pytest.mark.parametrize("augmentation", ["auto", "none"])
@pytest.mark.parametrize("options", [{}, {"batch_syn": 8}, {"batch_syn": 8, "memory_gib": 3e-4}])
def test_step__equals_plain_iterations(digits, experts, augmentation, options):
    """Images, learned learning rate and momentum; and the same where graphs are made again on the way back."""
    steps = {"syn_steps": 5, "expert_epochs": 2, "max_start_epoch": 4, "lr_student": 0.1, "lr_lr": 1e-3, "lr_img": 20.0}
    config = MTTConfig(ipc=2, experts=experts, seed=3, augment=augmentation, **steps, **options, **PLAIN)
    ours = MTT(config, digits)
    assert ours.kept == 5 if "memory_gib" not in options else 1 <= ours.kept < 5
    images, lr = ours.synthetic.images.detach().clone(), torch.tensor(0.1)
    speed = [torch.zeros_like(images), torch.zeros(())]
    for step in range(3):
        leaves = [images.requires_grad_(), lr.requires_grad_()]
        loss = plain_iteration(ours, step, *leaves)
        gradients = torch.autograd.grad(loss, leaves)
        assert all(gradient.abs().max() > 1e-5 for gradient in gradients)
        speed = [0.5 * v + g for v, g in zip(speed, gradients, strict=True)]
        images, lr = images.detach() - 20.0 * speed[0], lr.detach() - 1e-3 * speed[1]
        torch.testing.assert_close(ours.step(step), loss.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.synthetic.images.detach(), images, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.synthetic.lr.detach(), lr, rtol=1e-5, atol=1e-7)


def test_step__zero_when_the_synthetic_set_is_what_the_experts_saw():
    """Two images of each class, all of them in every step, are both sets: the student walks in the expert's steps."""
    data = load_data("digits", limit_per_class=2)
    options = {"epochs": 4, "lr": 0.1, "batch_size": 20, "augment": "none", "bf16": False, "tracker": "none"}
    folder = record(ExpertsConfig(network="convnet1_w8", experts=1, out="run", device="cpu", **options), data)
    options = {"syn_steps": 2, "expert_epochs": 2, "max_start_epoch": 3, "augment": "none", "experts": str(folder)}
    own, other = (MTT(MTTConfig(ipc=2, lr_student=lr, **options, **PLAIN), data).step(0) for lr in (0.1, 0.05))
    assert own < 1e-6 < 0.05 < other


def step_of(digits, experts, step: int = 0, bf16: bool = True) -> Tensor:
    """How an iteration's first step moves the images."""
    options = {"syn_steps": 20, "max_start_epoch": 4, "lr_student": 0.05, "lr_img": 10.0, "experts": experts}
    mtt = MTT(MTTConfig(ipc=2, **options, **PLAIN | {"bf16": bf16}), digits)
    before = mtt.synthetic.images.detach().clone()
    mtt.step(step)
    return (mtt.synthetic.images.detach() - before).flatten()


@pytest.mark.skipif(not bf16_pays("cpu"), reason="no bf16 units: gradients are fp32 anyway")
def test_bf16__agrees_with_fp32(digits, experts):
    """Within 10 % after 20 steps of the student, far less than what another expert and start change."""
    own, fp32 = step_of(digits, experts), step_of(digits, experts, bf16=False)
    other = step_of(digits, experts, step=1, bf16=False)
    error, noise = (own - fp32).norm() / fp32.norm(), (other - fp32).norm() / fp32.norm()
    assert 0 < error < 0.1
    assert error < noise / 5


@pytest.mark.slow
def test_distill__lowers_its_loss_and_beats_random_selection(digits, experts):
    """Paired: the same seed draws the random set, the starting point, and the classifiers. The set carries its lr."""
    options = {"syn_steps": 10, "max_start_epoch": 4, "lr_student": 0.05, "lr_lr": 1e-4, "lr_img": 10.0, "log_every": 1}
    options |= {"network": "convnet1_w8", "compile": False, "tracker": "none", "experts": experts, "iterations": 60}
    ours = distill("mtt", digits, 1, out="run", **options)
    losses = [line["loss"] for line in read_stats(Path("run/stats.jsonl"))]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    assert ours.meta["lr"] > 0 and ours.meta["lr"] != pytest.approx(0.05)
    sets = ours, coreset("random", digits, 1)
    ours, random = (evaluate(dset, digits, "quick", "convnet1_w8", runs=2).mean for dset in sets)
    assert ours - random > 0.03


def test_distill__a_learning_rate_below_zero_is_said(digits, experts, capsys):
    options = {"syn_steps": 2, "max_start_epoch": 4, "iterations": 1, "network": "convnet1_w8", "experts": experts}
    dset = distill("mtt", digits, 1, lr_student=1.0, lr_lr=1e6, compile=False, tracker="none", **options)
    assert dset.meta["lr"] < 0
    assert "WARNING: the learning rate learnt with the set is -" in capsys.readouterr().err


def test_resume__refuses_experts_that_have_become_more(digits, experts):
    shutil.copytree(experts, "grown")
    index = json.loads(Path("grown/index.json").read_text())
    Path("grown/index.json").write_text(json.dumps(index | {"files": index["files"][:2]}))
    options = {"syn_steps": 2, "max_start_epoch": 4, "network": "convnet1_w8", "experts": "grown", "out": "run"}
    options |= {"compile": False, "tracker": "none"}
    distill("mtt", digits, 1, iterations=1, **options)
    Path("grown/index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="their experts was 2, now it is 3"):
        distill("mtt", digits, 1, iterations=2, resume=True, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"syn_steps": 0}, "syn_steps must be >= 1, got 0"),
        ({"expert_epochs": 0}, "expert_epochs must be >= 1, got 0"),
        ({"lr_lr": 0.0}, "lr_lr must be > 0, got 0"),
        ({"batch_syn": 0}, "batch_syn must be >= 1, got 0"),
        ({"max_syn": 3}, "set batch_syn, not max_syn"),
        ({"per_class": True}, "leave out per_class"),
        ({"max_start_epoch": 6}, "max_start_epoch 6 and expert_epochs 2 need experts of 7 epochs; those in .* have 6"),
        ({"memory_gib": 1e-5}, "memory_gib 1e-05 is too small: one step of the student"),
        ({"experts": None}, "give the folder of recorded experts"),
    ],
)
def test_distill__refuses(digits, experts, options, message):
    common = {"network": "convnet1_w8", "experts": experts, "max_start_epoch": 4, "tracker": "none"}
    with pytest.raises(InputError, match=message):
        distill("mtt", digits, 1, iterations=1, **common | options)
