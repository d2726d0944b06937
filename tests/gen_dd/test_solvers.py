import math

import pytest
import torch

from core_dd.errors import InputError
from gen_dd.diffusion import alpha_sigma
from gen_dd.solvers import SOLVERS, ExactDPMSolver, dpmpp_2m, guided
from gen_dd.uvit import UViT


def schedule(t):
    """alpha, sigma, lambda in float64, straight from the definition."""
    alpha = math.exp(-19.9 * t * t / 4 - 0.05 * t)
    sigma = math.sqrt(-math.expm1(2 * math.log(alpha)))
    return alpha, sigma, math.log(alpha / sigma)


def plain_2m(noise_of, x, steps):
    """DPM-Solver++ 2M from its formulas (facts, section 3), float64."""
    x = x.double()
    times = [1 + (1e-3 - 1) * k / steps for k in range(steps + 1)]
    previous, h_previous = None, None
    for k in range(steps):
        (a_s, std_s, lam_s), (a_t, std_t, lam_t) = schedule(times[k]), schedule(times[k + 1])
        h = lam_t - lam_s
        x0 = (x - std_s * noise_of(x.float(), torch.tensor(999 * times[k])).double()) / a_s
        first = previous is None or (steps < 10 and k == steps - 1)
        mixed = x0 if first else x0 + 0.5 * h / h_previous * (x0 - previous)
        x = std_t / std_s * x - a_t * math.expm1(-h) * mixed
        previous, h_previous = x0, h
    return x


def gaussian_noise_of(mean, std):
    """The exact noise prediction for x_0 ~ N(mean, std^2)."""

    def noise_of(x, timestep):
        alpha, sigma = (part.float() for part in alpha_sigma(timestep.double() / 999))
        return sigma * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)

    return noise_of


@pytest.mark.parametrize("steps", [5, 9, 10, 14, 20, 50])
def test_dpmpp_2m__equals_the_plain_formulas(steps, generator):
    x, noise_of = torch.randn(4, 1, 4, 4, generator=generator), gaussian_noise_of(0.3, 0.2)
    assert torch.allclose(dpmpp_2m(noise_of, x, steps).double(), plain_2m(noise_of, x, steps), atol=3e-5)


def test_dpmpp_2m__samples_a_gaussian(generator):
    """The ODE maps x_1 ~ N(0, 1) to N(mean, std^2) at t = 1e-3, where alpha and sigma are nearly 1 and 0."""
    x = dpmpp_2m(gaussian_noise_of(0.3, 0.2), torch.randn(20000, 1, 1, 1, generator=generator), 400)
    assert x.mean().item() == pytest.approx(0.3, abs=0.006) and x.std().item() == pytest.approx(0.2, abs=0.006)


def test_exact_solver__times_and_sigmas():
    scheduler = ExactDPMSolver()
    scheduler.set_timesteps(4)
    assert torch.allclose(
        scheduler.timesteps, torch.tensor([999.0, 749.25, 499.5, 249.75]) + 999e-3 * torch.tensor([0, 0.25, 0.5, 0.75])
    )
    alpha, sigma, _ = schedule(1e-3)
    assert scheduler.sigmas[-1].item() == pytest.approx(sigma / alpha, rel=1e-6)
    with pytest.raises(InputError, match="steps must be >= 1, got 0"):
        scheduler.set_timesteps(0)


def test_guided__one_forward_equals_the_formula(generator):
    model = UViT.from_preset("tiny", num_classes=10).eval()
    x, labels, t = torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([1, 5, 9]), torch.tensor(500.0)
    cond, null = model(x, t, labels), model(x, t, torch.full((3,), 10))
    assert torch.allclose(guided(model, labels, 0.4, 10)(x, t), cond + 0.4 * (cond - null), atol=1e-5)
    assert torch.equal(guided(model, labels, 0.0, 10)(x, t), cond)
    assert "dpmpp_2m" in SOLVERS
