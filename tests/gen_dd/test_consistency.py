"""Consistency models: the loss and the sampling against the formulas, a toy's known trajectories, and the commands."""

import itertools
import math

import commands
import pytest
import torch
from torch import nn

from core_dd.errors import InputError
from core_dd.run import read_stats
from gen_dd import consistency
from gen_dd.diffusion import alpha_sigma, half_log_snr, noise_loss, time_of
from gen_dd.options import SampleConfig, TrainConfig, TuneConfig
from gen_dd.pipeline import UViTPipeline
from gen_dd.sample import run, sample
from gen_dd.sampler import Sampler
from gen_dd.train import train
from gen_dd.uvit import UViT
from gen_dd.weights import load_model

SHORT = {
    "data": "digits", "iterations": 4, "batch_size": 8, "warmup": 0, "lr": 1e-3, "log_every": 1, "checkpoint_every": 2,
    "grid_every": 0, "check_images": 0, "tracker": "none", "device": "cpu", "compile": False, "limit_per_class": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A model of two steps, tuned for four, in stages of two."""
    folder = tmp_path_factory.mktemp("tuned")
    train(TrainConfig(**SHORT | {"iterations": 2}, out=str(folder / "first")))
    train(TuneConfig(**SHORT, init_from=str(folder / "first"), stages=2, out=str(folder / "run")))
    return folder


def noise_of(x, timestep, labels):
    """Some smooth network."""
    return torch.tanh(x * (1 + labels.view(-1, 1, 1, 1))) + torch.sin(timestep / 999).view(-1, 1, 1, 1)


def plain_end(x, sigma, label):
    """f of one image by the definitions, float64."""
    alpha = 1 / math.sqrt(1 + sigma**2)
    t = float(time_of(torch.tensor(-math.log(sigma), dtype=torch.float64)))
    return x - sigma * (torch.tanh(alpha * x * (1 + label)) + math.sin(t))


@pytest.mark.parametrize("stage", [0, 3, 7])
def test_tuning_loss__is_the_formula(generator, stage):
    images, noise = (torch.randn(4, 3, 2, 2, generator=generator) for _ in range(2))
    sigma, labels = torch.tensor([0.01, 0.3, 2.0, 30.0]), torch.tensor([0, 1, 2, 3])
    expected = []
    for x, e, t, label in zip(images.double(), noise.double(), sigma.tolist(), labels.tolist(), strict=True):
        r = max(0.0, t * (1 - (1 + 8 / (1 + math.exp(t))) / 2 ** (stage + 1)))
        target = plain_end(x + r * e, r, label) if r else x
        apart = (plain_end(x + t * e, t, label) - target).square().sum()
        c = 0.00054 * math.sqrt(12)
        expected.append(((apart + c**2).sqrt() - c) / (t - r))
    found = consistency.tuning_loss(noise_of, images, noise, sigma, stage, labels)
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=2e-3, atol=1e-4)


def test_tuning_loss__is_diffusion_s_at_first_and_moves_the_higher_end_alone(generator):
    """With r = 0 the distance over t is that of the noises; the lower end's part of the gradient is left out."""
    weight = torch.ones((), requires_grad=True)
    images, noise = (torch.randn(2, 1, 4, 4, generator=generator) for _ in range(2))
    low = torch.tensor([0.1, 0.2])
    loss = consistency.tuning_loss(lambda x, t: weight * torch.tanh(x), images, noise, low, 0)
    x = (images + low.view(-1, 1, 1, 1) * noise) / (1 + low.view(-1, 1, 1, 1) ** 2).sqrt()
    torch.testing.assert_close(loss, (torch.tanh(x) - noise).square().flatten(1).sum(1).sqrt(), rtol=2e-2, atol=0)
    high = torch.full((2,), 3.0)
    consistency.tuning_loss(lambda x, t: weight * torch.tanh(x), images, noise, high, 5).sum().backward()
    step, one = 1e-3, weight.detach()
    target = consistency.ends(lambda x, t: torch.tanh(x), images + (r := consistency.lower(high, 5))[0] * noise, r)
    ends = [
        (consistency.ends(lambda x, t, w=w: w * torch.tanh(x), images + 3 * noise, high) - target)
        .flatten(1)
        .norm(dim=1)
        for w in (one - step, one + step)
    ]
    slope = ((ends[1] - ends[0]) / (2 * step) / (3 - r)).sum()
    assert float(weight.grad) == pytest.approx(float(slope), rel=0.02)


def test_lower__rises_from_nothing_towards_the_higher_level():
    sigma = torch.tensor([0.05, 1.0, 80.0])
    levels = torch.stack([consistency.lower(sigma, stage) for stage in range(8)])
    assert float(levels[0, 0]) == 0 and (levels.diff(dim=0) >= 0).all() and (levels < sigma).all()
    assert (sigma - levels[7] <= 5.01 / 256 * sigma).all()


@pytest.mark.parametrize("steps", range(1, 9))
def test_times__noise_levels_fall_by_a_factor_and_not_below_the_fourth(steps):
    sigma = [math.exp(-float(half_log_snr(t))) for t in consistency.times(steps)]
    assert len(sigma) == steps and sigma[0] == pytest.approx(consistency.SIGMA_START, rel=1e-6)
    assert sigma[:4] == pytest.approx([20, 4, 0.8, 0.16][:steps], rel=1e-6) or steps > 4
    falls = [high / low for high, low in itertools.pairwise(sigma)]
    assert falls == pytest.approx(falls[:1] * (steps - 1), rel=1e-6)
    assert sigma[-1] == pytest.approx(0.16, rel=1e-6) or steps < 4


def test_times__refuses_other_numbers_of_steps():
    for steps in (0, 9):
        with pytest.raises(InputError, match=f"draws in 1 to 8 steps, got {steps}"):
            consistency.times(steps)


def test_sample__denoises_adds_noise_and_denoises(generator):
    x, again = (torch.randn(3, 1, 4, 4, generator=generator) for _ in range(2))
    found = consistency.sample(lambda x, t: torch.tanh(x), x, 2, lambda number: again * number)
    start, alpha = consistency.SIGMA_START, 1 / math.sqrt(1 + 4**2)
    first = math.sqrt(1 + start**2) * x - start * torch.tanh(x)
    noisy = alpha * (first.clamp(-1, 1) + 4 * again)
    expected = noisy / alpha - 4 * torch.tanh(noisy)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


MEANS, STD = torch.tensor([[-0.6, 0.5], [0.7, 0.3], [0.0, -0.7]]), 0.15
"""A mixture of three Gaussians, whose trajectories are known."""


class Toy(nn.Module):
    """A noise predictor of points, as images of 1 x 1 x 2."""

    def __init__(self):
        super().__init__()
        widths = (12, 96, 96, 96)
        layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*layers, nn.Linear(96, 2))

    def forward(self, x, timestep):
        lam = half_log_snr((timestep / 999).double().clamp(1e-5)).float().view(-1, 1).expand(len(x), 1)
        waves = [wave(lam * f) for f in (0.25, 0.5, 1, 2) for wave in (torch.sin, torch.cos)]
        return self.net(torch.cat([x.flatten(1), *waves, lam / 5, lam.sign()], 1)).view_as(x)


def points(count, generator):
    return (
        MEANS[torch.randint(3, (count,), generator=generator)] + STD * torch.randn(count, 2, generator=generator)
    ).view(count, 1, 1, 2)


def true_ends(x, sigma):
    """Where trajectories end: Runge-Kutta of dx / dsigma = noise, with the exact score of the mixture, float64."""

    def noise(x, s):
        away = x.flatten(1)[:, None] - MEANS
        share = torch.softmax(-away.square().sum(2) / (2 * (STD**2 + s**2)), 1)
        return (s * (share[..., None] * away).sum(1) / (STD**2 + s**2)).view_as(x)

    x, grid = x.double(), torch.linspace(math.log(sigma), math.log(1e-3), 201, dtype=torch.float64).exp().tolist()
    for s, r in itertools.pairwise(grid):
        h = r - s
        a = noise(x, s)
        b = noise(x + h / 2 * a, s + h / 2)
        c = noise(x + h / 2 * b, s + h / 2)
        x = x + h / 6 * (a + 2 * b + 2 * c + noise(x + h * c, r))
    return x.float()


@pytest.mark.slow
def test_tuning__finds_the_ends_of_a_mixture_s_trajectories(generator):
    """A diffusion model's single step is far from them; tuned, it is near, from every noise level."""
    torch.manual_seed(0)
    net = Toy()

    def learn(steps, lr, loss):
        optimizer = torch.optim.Adam(net.parameters(), lr)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            images, noise = points(256, generator), torch.randn(256, 1, 1, 2, generator=generator)
            optimizer.zero_grad()
            loss(
                images, noise, consistency.levels(torch.rand(256, generator=generator)), step / steps
            ).mean().backward()
            optimizer.step()

    def diffusion(images, noise, sigma, done):
        t = time_of(-sigma.log())
        alpha, std = (part.view(-1, 1, 1, 1) for part in alpha_sigma(t))
        return noise_loss(net(alpha * images + std * noise, 999 * t), noise)

    @torch.no_grad()
    def wrong(sigma):
        x = points(1000, torch.Generator().manual_seed(5)) + sigma * torch.randn(1000, 1, 1, 2, generator=generator)
        found = consistency.ends(net, x, torch.full((1000,), sigma))
        return float((found - true_ends(x, sigma)).flatten(1).norm(dim=1).median())

    learn(800, 2e-3, diffusion)
    before = [wrong(sigma) for sigma in (0.3, 1.0, 5.0, 20.0)]
    learn(1500, 1e-3, lambda *batch: consistency.tuning_loss(net, *batch[:3], int(8 * batch[3])))
    after = [wrong(sigma) for sigma in (0.3, 1.0, 5.0, 20.0)]
    assert max(after[:3]) < 0.25 and after[3] < 0.5
    assert all(new < old / 2 for new, old in zip(after, before, strict=True))


def test_tune__writes_a_consistency_model_that_draws(tuned, tmp_path):
    model, card = load_model(tuned / "run")
    assert (
        model.config.consistency
        and card["train"]["stages"] == 2
        and not load_model(tuned / "first")[0].config.consistency
    )
    assert "consistency model" in (tuned / "run" / "model" / "README.md").read_text()
    whole = sample(model, num_per_class=2, steps=2, solver="consistency", batch=20)
    parts = sample(model, num_per_class=2, steps=2, solver="consistency", batch=7)
    assert whole.images.shape == (20, 1, 8, 8)
    assert (whole.images.int() - parts.images.int()).abs().max() <= 1
    config = SampleConfig(
        model=str(tuned / "run"), out="pool", num_per_class=1, steps=1, solver="consistency", device="cpu"
    )
    assert (run(config) / "index.json").is_file()
    pipeline = UViTPipeline.from_pretrained(tuned / "run" / "model")
    drawn = [pipeline([0, 1], generator=torch.Generator().manual_seed(1), output_type="pt").images for _ in range(2)]
    assert drawn[0].shape == (2, 1, 8, 8) and torch.allclose(*drawn)


def test_tune__goes_on_as_if_never_stopped(tuned, tmp_path):
    config = {**SHORT, "init_from": str(tuned / "first"), "stages": 2, "out": str(tmp_path / "run")}
    train(TuneConfig(**config, chunk_seconds=1e-6))
    train(TuneConfig(**config, resume=True))
    ours, theirs = (load_model(place)[0].state_dict() for place in (tmp_path / "run", tuned / "run"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    losses = [
        [line["loss"] for line in read_stats(place / "stats.jsonl")] for place in (tmp_path / "run", tuned / "run")
    ]
    assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.slow
def test_tune__on_two_processes_equals_one(tuned, tmp_path):
    """Up to rounding, which AdamW enlarges where a gradient is next to nothing: 2 % of what was learnt."""
    options = SHORT | {"init_from": tuned / "first", "stages": 2, "out": tmp_path / "run"}
    words = [f"--no_{name}" if value is False else f"--{name}={value}" for name, value in options.items()]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "gen_dd.tune"]
    done = commands.run(*launch, *words)
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu, fp32, 4 images per process and pass" in (tmp_path / "run" / "log.txt").read_text()
    ours, theirs = (read_stats(place / "stats.jsonl") for place in (tmp_path / "run", tuned / "run"))
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in theirs], rel=1e-3)
    first, one, other = (
        torch.cat([own.flatten() for own in load_model(place)[0].parameters()])
        for place in (tuned / "first", tmp_path / "run", tuned / "run")
    )
    assert (one - other).norm() < 0.02 * (other - first).norm()


def test_solvers__are_refused_of_the_other_kind_of_model(tuned):
    torch.manual_seed(0)
    with pytest.raises(InputError, match="this model was not tuned into a consistency model. Tune it by gendd tune"):
        Sampler(UViT.from_preset("tiny", num_classes=10), steps=2, solver="consistency")
    model, _ = load_model(tuned / "run")
    with pytest.raises(InputError, match="which the solver dpmpp_2m cannot draw with. Pass --solver consistency"):
        Sampler(model)
    with pytest.raises(InputError, match="draws in 1 to 8 steps, got 50"):
        Sampler(model, steps=50, solver="consistency")
    assert Sampler(model, solver="consistency").steps == 2
