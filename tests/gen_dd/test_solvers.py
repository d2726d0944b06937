import itertools
import math

import pytest
import torch

from core_dd.errors import InputError
from gen_dd.diffusion import alpha_sigma
from gen_dd.solvers import SOLVERS, ExactDPMSolver, dpm_fast, exact_betas, guided
from gen_dd.uvit import CONSISTENCY, UViT

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def schedule(t):
    """alpha, sigma, lambda in float64, straight from the definition."""
    alpha = math.exp(-19.9 * t * t / 4 - 0.05 * t)
    sigma = math.sqrt(-math.expm1(2 * math.log(alpha)))
    return alpha, sigma, math.log(alpha / sigma)


def uniform_times(steps):
    return [1 + (1e-3 - 1) * k / steps for k in range(steps + 1)]


def clean(noise_of, x, t):
    """What the network makes of x at time t: the estimate of x0, and the noise."""
    alpha, std, _ = schedule(t)
    noise = noise_of(x.float(), torch.tensor(999 * t)).double()
    return (x - std * noise) / alpha, noise


def plain_ddim(noise_of, x, steps):
    """DDIM without noise (Song et al. 2021, eq. 12 at sigma = 0), float64."""
    x = x.double()
    for now, then in itertools.pairwise(uniform_times(steps)):
        (x0, noise), (alpha, std, _) = clean(noise_of, x, now), schedule(then)
        x = alpha * x0 + std * noise
    return x


def plain_multistep(noise_of, x, steps, order):
    """DPM-Solver++ 2M and 3M from the formulas of Lu et al. (2022) and their code, float64.

    The first steps, and below 10 steps the last ones, are of lower order.
    """
    x, times, past, widths = x.double(), uniform_times(steps), [], []  # past estimates of x0 and steps h, latest first
    for k in range(steps):
        (_, std_s, lam_s), (a_t, std_t, lam_t) = schedule(times[k]), schedule(times[k + 1])
        x0, h = clean(noise_of, x, times[k])[0], lam_t - lam_s
        phi1, phi2 = math.expm1(-h), math.expm1(-h) / h + 1
        x = std_t / std_s * x - a_t * phi1 * x0
        this_order = min(order, k + 1, steps - k if steps < 10 else order)
        if this_order == 2:
            x -= a_t * phi1 / 2 * (x0 - past[0]) * h / widths[0]
        elif this_order == 3:
            r0, r1 = widths[0] / h, widths[1] / h
            near, far = (x0 - past[0]) / r0, (past[0] - past[1]) / r1
            bend = (near - far) / (r0 + r1)
            x += a_t * phi2 * (near + r0 * bend) - a_t * (phi2 / h - 0.5) * bend
        past, widths = [x0, *past][:2], [h, *widths][:2]
    return x


def plain_unipc(noise_of, x, steps):
    """UniPC-2 with B(h) = e^h - 1 on estimates of x0 (Zhao et al. 2023, algorithms 1 and 2), float64.

    The network is evaluated where the predictor arrives; its estimate then corrects that step, and predicts the next.
    """
    points = [schedule(t) for t in uniform_times(steps)]

    def step(k, x, x0s, order, arrived=None):
        """From point k to the next: by the predictor, or with the estimate from there, `arrived`, by the corrector."""
        (_, std_s, lam_s), (a_t, std_t, lam_t) = points[k], points[k + 1]
        h, last = lam_t - lam_s, x0s[-1]
        phi1 = -math.expm1(-h)
        r = (points[k - 1][2] - lam_s) / h
        slope = (x0s[-2] - last) / r if order == 2 else torch.zeros_like(x)
        x = std_t / std_s * x + a_t * phi1 * last
        if arrived is None:
            return x + a_t * phi1 / 2 * slope
        if order == 1:
            return x + a_t * phi1 / 2 * (arrived - last)
        phi2 = 1 - phi1 / h
        old = (phi2 - 2 * (0.5 - phi2 / h)) / (1 - r)  # of two equations for the weights of both differences
        return x + a_t * (old * slope + (phi2 - old) * (arrived - last))

    x, corrected, x0s, order = x.double(), x.double(), [], 1
    for k in range(steps):
        x0 = clean(noise_of, x, uniform_times(steps)[k])[0]
        corrected = step(k - 1, corrected, x0s, order, x0) if k else x
        x0s, order = [*x0s, x0], min(2, k + 1, steps - k if steps < 10 else 2)
        x = step(k, corrected, x0s, order)
    return x


PLAIN = {
    "dpmpp_2m": lambda *inputs: plain_multistep(*inputs, order=2),
    "dpmpp_3m": lambda *inputs: plain_multistep(*inputs, order=3),
    "ddim": plain_ddim,
    "unipc": plain_unipc,
}


def gaussian_noise_of(mean, std):
    """The exact noise prediction for x_0 ~ N(mean, std^2)."""

    def noise_of(x, timestep):
        alpha, sigma = (part.float() for part in alpha_sigma(timestep.double() / 999))
        return sigma * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)

    return noise_of


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("steps", [5, 9, 10, 14, 20, 50])
def test_solvers__equal_the_plain_formulas(name, steps, generator):
    x, noise_of = torch.randn(4, 1, 4, 4, generator=generator), gaussian_noise_of(0.3, 0.2)
    ours, plain = SOLVERS[name](noise_of, x, steps).double(), PLAIN[name](noise_of, x, steps)
    assert torch.allclose(ours, plain, rtol=0, atol=1e-5)


def error(name, steps, x, mean, std):
    """How far a solver ends from the exact solution for x_0 ~ N(mean, std^2).

    The ODE moves x_1 along (x_t - alpha_t mean) / sqrt(alpha_t^2 std^2 + sigma_t^2) = const.
    """
    (a1, s1, _), (a0, s0, _) = schedule(1.0), schedule(1e-4 if name == "dpm_fast" else 1e-3)
    exact = a0 * mean + (x - a1 * mean) * math.sqrt(a0**2 * std**2 + s0**2) / math.sqrt(a1**2 * std**2 + s1**2)
    return (SOLVERS[name](gaussian_noise_of(mean, std), x, steps) - exact).abs().max().item()


@pytest.mark.parametrize("name", sorted(SOLVERS.keys() - {CONSISTENCY}))
def test_solvers__converge_to_the_exact_solution(name, generator):
    x = torch.randn(64, 1, 1, 1, generator=generator)
    errors = [error(name, steps, x, 0.3, 0.2) for steps in (30, 300)]
    assert errors[1] < 0.35 * errors[0] and errors[1] < 0.03


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("unipc", 2), ("dpmpp_3m", 3)])
def test_solvers__error_falls_by_their_order(name, order, generator):
    """Half the step, 2^-p of the error: UniPC comes out above 2, as its corrector looks one point further."""
    x = torch.randn(64, 1, 1, 1, generator=generator)
    p = math.log2(error(name, 80, x, 0.3, 1.0) / error(name, 160, x, 0.3, 1.0))
    assert order - 0.15 < p < order + 0.5


def plain_fast(noise_of, x, steps):
    """DPM-Solver-fast from its formulas (Lu et al. 2022), float64, with scalar arithmetic only."""

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
