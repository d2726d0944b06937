import copy
from types import SimpleNamespace

import pytest
import torch
from commands import ROOT, run
from scipy import stats

from core_dd.run import read_stats
from gen_dd.diffusion import add_noise, min_snr
from gen_dd.options import TrainConfig
from gen_dd.recipe import OPTIMIZERS, Muon, logit_normal, orthogonal, rate
from gen_dd.train import train
from gen_dd.trainer import Trainer
from gen_dd.uvit import UViT

FAST = {
    "optimizer": "muon", "anneal": 0.5, "time_sampling": "logit_normal", "weighting": "min_snr",
    "iterations": 6, "batch_size": 8, "warmup": 2,
    "lr": 3e-3, "ema_decay": 0.9, "log_every": 1, "checkpoint_every": 4, "grid_every": 0, "tracker": "none",
    "check_images": 0, "device": "cpu", "limit_per_class": 8, "bf16": False, "compile": False,
}  # fmt: skip


def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UViT(image_size=8, patch_size=4, in_channels=1, hidden_size=16, depth=2, num_heads=2, num_classes=3)


def with_gradients(model, seed):
    """The same drawn gradient for every parameter, so that nothing else is measured."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


def orthogonal_plainly(matrix):
    """Muon's polynomial (Jordan 2024), plainly: five rounds of a x + b x x'x + c x x'x x'x in float64."""
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    return x


def flat(value):
    """Every tensor in a nested state, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for item in items for tensor in flat(item)]


def state(folder):
    return torch.load(folder / "checkpoints" / "last" / "state.pt", weights_only=True)


def test_rate__up_constant_and_down():
    course = [rate(step, 10, warmup=2, anneal=0.4) for step in range(10)]
    assert course == pytest.approx([0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_rate__without_options_is_the_official_one():
    assert [rate(step, 10) for step in range(10)] == [1] * 10
    assert [rate(step, 10, warmup=4) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_rate__whichever_ends_first_anneals():
    assert rate(10, 1000, anneal=0.5, elapsed=0.9) == pytest.approx(0.2)
    assert rate(900, 1000, anneal=0.5, elapsed=0.1) == pytest.approx(0.2)
    assert rate(10, 1000, anneal=0.5, elapsed=1.5) == 0


def test_logit_normal__is_the_inverse_distribution_of_scipy():
    u = torch.linspace(0, 0.999, 1000, dtype=torch.float64)
    expected = 1 / (1 + torch.exp(-torch.from_numpy(stats.norm.ppf(u.numpy(), -1, 1))))
    assert torch.allclose(logit_normal(u), expected, atol=1e-12)
    assert logit_normal(torch.rand(2, 3)).shape == (2, 3)
    assert logit_normal(torch.zeros(1)) >= 0 and logit_normal(torch.ones(1) - 2**-24) < 1


@pytest.mark.parametrize("shape", [(16, 16), (16, 24), (8, 32), (32, 8), (24, 16)])
def test_orthogonal__is_the_plain_polynomial(shape, generator):
    """Also of a matrix that has lost most of its rank, where the rounds multiply errors by 3.4445 each."""
    matrices = torch.randn(3, *shape, generator=generator)
    matrices[2] = matrices[2, :, :1] * matrices[2, :1] + 1e-4 * matrices[1]
    expected = torch.stack([orthogonal_plainly(matrix) for matrix in matrices]).float()
    assert (orthogonal(matrices) - expected).norm() < 1e-3 * expected.norm()
    assert orthogonal(torch.zeros(1, *shape)).norm() == 0


@pytest.mark.parametrize("bf16", [True, False])
def test_muon__moves_as_the_librarys_does(bf16):
    """Whose rounds are in bf16, 8 bits each: three steps agree to 2 % of their length, whichever way ours are taken."""
    models = [tiny(), tiny()]
    before = [p.detach().clone() for p in models[0].parameters() if p.ndim == 2]
    ours, theirs = ([p for p in model.parameters() if p.ndim == 2] for model in models)
    options = {"lr": 0.01, "momentum": 0.95, "weight_decay": 0.1}
    optimizers = Muon(ours, bf16=bf16, **options), torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options)
    for seed in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            with_gradients(model, seed)
            optimizer.step()
    for start, a, b in zip(before, ours, theirs, strict=True):
        assert (a - b).norm() < 0.02 * (b - start).norm()
    theirs, ours = (optimizer.state_dict()["state"] for optimizer in reversed(optimizers))
    assert all(torch.allclose(ours[i]["momentum_buffer"], theirs[i]["momentum_buffer"]) for i in theirs)


def test_muon__turns_the_blocks_matrices_like_the_plain_polynomial():
    model = with_gradients(tiny(), 0)
    before, lr, decay = copy.deepcopy(model), 0.01, 0.1
    OPTIMIZERS["muon"](model, lr=lr, betas=(0.9, 0.99), weight_decay=decay).step()
    matrices = {name: p for name, p in before.named_parameters() if "block" in name and p.ndim == 2}
    assert len(matrices) == 3 * 4 + 1
    for name, old in matrices.items():
        momentum = 0.05 * model.get_parameter(name).grad
        looked_ahead = 0.05 * model.get_parameter(name).grad + 0.95 * momentum
        move = 0.2 * max(old.shape) ** 0.5 * orthogonal_plainly(looked_ahead)
        expected = old - lr * decay * old - lr * move
        assert (model.get_parameter(name) - expected).norm() < 1e-3 * lr * move.norm(), name


def test_muon__leaves_the_rest_to_adamw():
    model, other = with_gradients(tiny(), 0), with_gradients(tiny(), 0)
    OPTIMIZERS["muon"](model, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1).step()
    OPTIMIZERS["adamw"](other, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1).step()
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) != ("block" in name and a.ndim == 2), name


def test_joined__goes_on_from_its_state():
    model = tiny()
    optimizer = OPTIMIZERS["muon"](model, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for seed in range(2):
        with_gradients(model, seed)
        optimizer.step()
    saved, twin = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model)
    numbers = [i for group in saved["param_groups"] for i in group["params"]]
    assert numbers == list(range(len(list(model.parameters())))) and set(saved["state"]) == set(numbers)
    other = OPTIMIZERS["muon"](twin, lr=0.5, betas=(0.5, 0.5), weight_decay=0.0)
    other.load_state_dict(saved)
    for net, each in ((model, optimizer), (twin, other)):
        with_gradients(net, 3)
        each.step()
        each.zero_grad()
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_step__learns_from_the_times_and_weights_asked_for(digits):
    trainer = Trainer.start(TrainConfig(**FAST), digits)
    batch, model = trainer.batches(0)(0), copy.deepcopy(trainer.model)
    t = logit_normal(batch.time)
    predicted = model(add_noise(batch.images, batch.noise, t), 999 * t, batch.labels)
    errors = (predicted - batch.noise).square().mean((1, 2, 3))
    assert trainer.step(0).item() == pytest.approx((errors * min_snr(t)).mean().item(), rel=1e-5)


def test_train__in_chunks_equals_the_uninterrupted_run(tmp_path):
    """A chunk that is over at once: every call takes one step, saves and stops."""
    train(TrainConfig(**FAST, out=str(tmp_path / "whole")))
    options = FAST | {"chunk_seconds": 1e-9, "out": str(tmp_path / "run")}
    for call in range(6):
        train(TrainConfig(**options, resume=call > 0))
    lines = read_stats(tmp_path / "whole" / "stats.jsonl")
    assert read_stats(tmp_path / "run" / "stats.jsonl") == lines
    assert [line["lr"] for line in lines] == pytest.approx([3e-3 * x for x in (0, 0.5, 1, 1, 2 / 3, 1 / 3)])
    ours, theirs = flat(state(tmp_path / "run")), flat(state(tmp_path / "whole"))
    assert len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_lr__is_that_of_the_time_used_up(digits):
    trainer = Trainer.start(
        TrainConfig(**FAST | {"iterations": 10**6, "max_seconds": 2.0, "anneal": 1.0, "warmup": 0}), digits
    )
    trainer.seconds = 0.5
    assert trainer.lr(0) == pytest.approx(trainer.config.lr * 0.75)


def test_train__anneals_by_the_clock_and_counts_it_over_calls(tmp_path, monkeypatch):
    """By a clock on which a step takes a second and nothing else any time."""
    now, real = [0.0], Trainer.step
    monkeypatch.setattr("gen_dd.train.time", SimpleNamespace(perf_counter=lambda: now[0]))

    def step(*args):
        now[0] += 1
        return real(*args)

    monkeypatch.setattr(Trainer, "step", step)
    options = FAST | {"iterations": 10**6, "max_seconds": 8.0, "anneal": 1.0, "warmup": 0, "out": str(tmp_path / "run")}
    options |= {"checkpoint_every": 10**6}
    train(TrainConfig(**options, chunk_seconds=3.0))
    middle = read_stats(tmp_path / "run" / "stats.jsonl")
    assert len(middle) == 3 and state(tmp_path / "run")["seconds"] == pytest.approx(3)
    train(TrainConfig(**options, resume=True))
    lines = read_stats(tmp_path / "run" / "stats.jsonl")
    assert lines[:3] == middle and state(tmp_path / "run")["seconds"] == pytest.approx(8)
    assert [line["lr"] for line in lines] == pytest.approx([3e-3 * left / 8 for left in range(8, 0, -1)])
    train(TrainConfig(**options, resume=True))
    assert read_stats(tmp_path / "run" / "stats.jsonl") == lines


@pytest.mark.slow
def test_muon__split_by_fsdp_equals_one_process(tmp_path):
    """Also when one process goes on from what two have saved."""
    options = FAST | {"iterations": 3, "log_every": 1}
    words = [
        f"--{'' if value else 'no_'}{name}" if isinstance(value, bool) else f"--{name}={value}"
        for name, value in (options | {"out": tmp_path / "run"}).items()
    ]
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        ROOT / "configs" / "accelerate" / "fsdp_two_cpus.yaml",
    ]
    done = run(*launch, ROOT / "scripts" / "train_uvit.py", *words)
    assert done.returncode == 0, done.stderr
    assert "weights split by FSDP" in (tmp_path / "run" / "log.txt").read_text()
    train(TrainConfig(**options | {"iterations": 5, "out": str(tmp_path / "run")}, resume=True))
    train(TrainConfig(**options | {"iterations": 3, "out": str(tmp_path / "one")}))
    train(TrainConfig(**options | {"iterations": 5, "out": str(tmp_path / "one")}, resume=True))
    losses = [[line["loss"] for line in read_stats(tmp_path / name / "stats.jsonl")] for name in ("run", "one")]
    assert len(losses[0]) == 5 and losses[0] == pytest.approx(losses[1], rel=1e-4)
