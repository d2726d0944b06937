import math

import pytest
import torch

from core_dd.errors import InputError
from gen_dd.diffusion import alpha_sigma
from gen_dd.solvers import SOLVERS, ExactDPMSolver, dpm_fast, exact_betas, guided
from gen_dd.uvit import UViT

dpmpp_2m = SOLVERS["dpmpp_2m"]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


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
    assert torch.allclose(dpmpp_2m(noise_of, x, steps).double(), plain_2m(noise_of, x, steps), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_solvers__converge_to_the_exact_solution(name, generator):
    """For x_0 ~ N(m, v) the ODE moves x_1 along (x_t - alpha_t m) / sqrt(alpha_t^2 v + sigma_t^2) = const."""
    x, mean, std = torch.randn(64, 1, 1, 1, generator=generator), 0.3, 0.2
    end = 1e-4 if name == "dpm_fast" else 1e-3
    (a1, s1, _), (a0, s0, _) = schedule(1.0), schedule(end)
    exact = a0 * mean + (x - a1 * mean) * math.sqrt(a0**2 * std**2 + s0**2) / math.sqrt(a1**2 * std**2 + s1**2)
    errors = [(SOLVERS[name](gaussian_noise_of(mean, std), x, steps) - exact).abs().max().item() for steps in (30, 300)]
    assert errors[1] < 0.35 * errors[0] and errors[1] < 0.03


def plain_fast(noise_of, x, steps):
    """DPM-Solver-fast from its formulas (facts, section 3), float64, with scalar arithmetic only."""

    def time(lam):
        u = 2 * 19.9 * math.log1p(math.exp(-2 * lam))
        return u / ((math.sqrt(0.01 + u) + 0.1) * 19.9)

    def eps(x, lam):
        return noise_of(x.float(), torch.tensor(999 * time(lam))).double()

    count = steps // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if steps % 3 == 0 else [3] * (count - 1) + [1 if steps % 3 == 1 else 2]
    first, last = schedule(1.0)[2], schedule(1e-4)[2]
    x = x.double()
    for k, order in enumerate(orders):
        lam_s, lam_t = (first + (last - first) * i / count for i in (k, k + 1))
        h = lam_t - lam_s
        a_s, e_s = schedule(time(lam_s))[0], eps(x, lam_s)

        def ddim(lam, x=x, a_s=a_s, e_s=e_s, lam_s=lam_s):
            a, std, _ = schedule(time(lam))
            return a / a_s * x - std * math.expm1(lam - lam_s) * e_s

        std_t = schedule(time(lam_t))[1]
        if order == 1:
            x = ddim(lam_t)
        elif order == 2:
            e_1 = eps(ddim(lam_s + h / 2), lam_s + h / 2)
            x = ddim(lam_t) - std_t * math.expm1(h) / (2 * 0.5) * (e_1 - e_s)
        else:
            r1, r2 = 1 / 3, 2 / 3
            e_1 = eps(ddim(lam_s + r1 * h), lam_s + r1 * h)
            std_2 = schedule(time(lam_s + r2 * h))[1]
            x_2 = ddim(lam_s + r2 * h) - r2 / r1 * std_2 * (math.expm1(r2 * h) / (r2 * h) - 1) * (e_1 - e_s)
            e_2 = eps(x_2, lam_s + r2 * h)
            x = ddim(lam_t) - 1 / r2 * std_t * (math.expm1(h) / h - 1) * (e_2 - e_s)
    return x


@pytest.mark.parametrize("steps", [10, 12, 20, 50])
def test_dpm_fast__equals_the_plain_formulas(steps, generator):
    x, calls = torch.randn(4, 1, 4, 4, generator=generator), []
    exact = gaussian_noise_of(0.3, 0.2)

    def noise_of(x, timestep):
        calls.append(float(timestep))
        return exact(x, timestep)

    assert torch.allclose(dpm_fast(noise_of, x, steps).double(), plain_fast(exact, x, steps), atol=1e-4)
    assert len(calls) == steps


def test_exact_solver__times_and_sigmas():
    scheduler = ExactDPMSolver(trained_betas=exact_betas(), final_sigmas_type="sigma_min")
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
