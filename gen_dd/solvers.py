"""From noise to images: solvers of the probability-flow ODE, each a function (noise_of, x, steps, fresh) -> x.

`noise_of(x, timestep)` is the network's prediction at x_t for the scalar timestep 999 t; x is standard normal noise
(B, C, H, W) and what is returned is the image at the end of the grid, not clamped. `fresh(n)` is other noise like x,
for evaluation number n >= 1, and wanted by consistency models alone.
"""

import math
import warnings
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, TypeVar, cast

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401 (a pipeline looks for it in this module)
from torch import Tensor

from core_dd.errors import needed, require
from gen_dd import consistency
from gen_dd.diffusion import TIME_SCALE, alpha_sigma, half_log_snr, log_alpha, time_of
from gen_dd.guidance import Guide
from gen_dd.uvit import CONSISTENCY

NoiseOf = Callable[[Tensor, Tensor], Tensor]
Fresh = Callable[[int], Tensor]
Solver = Callable[[NoiseOf, Tensor, int, Fresh | None], Tensor]

T_START, T_END = 1.0, 1e-3


def exact_betas() -> list[float]:
    """The 1000 betas whose running product of 1 - beta is alpha^2 at t = 1/1000, 2/1000, ..., 1."""
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    return (-torch.expm1(2 * log_alpha(grid[1:]) - 2 * log_alpha(grid[:-1]))).tolist()


class _ExactGrid:
    """Put before a diffusers scheduler: exact continuous times, uniform from t = 1 to 1e-3.

    The stock classes round times to a table of 1000 betas; here sigma / alpha is exact at every grid point, and the
    network is fed 999 t. With DPM-Solver++ 2M this agrees with the plain formulas to about 1e-5.
    """

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None, **options: Any) -> None:
        """Lay `num_inference_steps` + 1 exact times; the last step is of lower order only below 10 steps."""
        steps, scheduler = num_inference_steps or 0, cast(Any, self)  # with what the scheduler behind it has
        require(steps >= 1, f"steps must be >= 1, got {num_inference_steps}.")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # diffusers on numpy 2
            cast(Any, super()).set_timesteps(steps, device=device, **options)
        times = torch.linspace(T_START, T_END, steps + 1, dtype=torch.float64)
        alpha, sigma = alpha_sigma(times)
        self.sigmas = (sigma / alpha).float()
        self.timesteps = (TIME_SCALE * times[:-1]).float().to(device or "cpu")
        scheduler.register_to_config(lower_order_final=steps < 10)
        scheduler.set_begin_index(0)


class ExactDPMSolver(_ExactGrid, DPMSolverMultistepScheduler):  # type: ignore[misc]  # diffusers' bases differ
    """DPM-Solver++ multistep (Lu et al. 2022) of order 1 (DDIM), 2 or 3 on the exact grid."""


class _ExactUniPC(_ExactGrid, UniPCMultistepScheduler):  # type: ignore[misc]  # likewise
    """UniPC (Zhao et al. 2023) on the exact grid."""


S = TypeVar("S", bound=ExactDPMSolver | _ExactUniPC)


def make_scheduler(cls: type[S], order: int) -> S:
    """One of the schedulers above, of this order, for a network that predicts the noise."""
    options = {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"} if cls is ExactDPMSolver else {}
    return cls(
        trained_betas=exact_betas(),
        solver_order=order,
        prediction_type="epsilon",
        final_sigmas_type="sigma_min",
        timestep_spacing="linspace",
        **options,
    )


def _multistep(cls: type[ExactDPMSolver] | type[_ExactUniPC], order: int) -> Solver:
    """A solver that steps one of the schedulers above: one network evaluation per step."""

    def solve(noise_of: NoiseOf, x: Tensor, steps: int, fresh: Fresh | None = None) -> Tensor:
        scheduler = make_scheduler(cls, order)
        scheduler.set_timesteps(steps, device=x.device)
        for timestep in scheduler.timesteps:
            x = scheduler.step(noise_of(x, timestep), timestep, x, return_dict=False)[0]
        return x

    return solve


def dpm_fast(noise_of: NoiseOf, x: Tensor, steps: int, fresh: Fresh | None = None) -> Tensor:
    """The official code's sampler, "DPM-Solver-fast" (Lu et al. 2022): singlestep, noise prediction, orders 3, 2, 1.

    K = steps // 3 + 1 intervals of equal lambda from t = 1 to 1e-4; all of order 3 but the last one or two, so that the
    network is evaluated exactly `steps` times.
    """
    require(steps >= 1, f"steps must be >= 1, got {steps}.")
    count = steps // 3 + 1
    orders = {0: [3] * (count - 2) + [2, 1], 1: [3] * (count - 1) + [1], 2: [3] * (count - 1) + [2]}[steps % 3]
    ends = half_log_snr(torch.tensor([1.0, 1e-4], dtype=torch.float64))
    grid = torch.linspace(float(ends[0]), float(ends[1]), count + 1, dtype=torch.float64)
    for low, high, order in zip(grid[:-1], grid[1:], orders, strict=True):
        x = _singlestep(noise_of, x, low, high, order)
    return x


def _singlestep(noise_of: NoiseOf, x: Tensor, low: Tensor, high: Tensor, order: int) -> Tensor:
    """One interval of DPM-Solver from lambda `low` to `high` (algorithms 1 and 2 of the paper)."""
    h, (alpha_s, _) = high - low, alpha_sigma(time_of(low))

    def noise(at: Tensor, x: Tensor) -> Tensor:
        return noise_of(x, (TIME_SCALE * time_of(at)).to(x))

    def first_order(to: Tensor) -> Tensor:
        alpha, sigma = alpha_sigma(time_of(to))
        return float(alpha / alpha_s) * x - float(sigma * torch.expm1(to - low)) * start

    start, (_, sigma_t) = noise(low, x), alpha_sigma(time_of(high))
    if order == 1:
        return first_order(high)
    if order == 2:
        middle = noise(low + h / 2, first_order(low + h / 2))
        return first_order(high) - float(sigma_t * torch.expm1(h)) * (middle - start)
    first = noise(low + h / 3, first_order(low + h / 3))
    part, sigma = 2 * h / 3, alpha_sigma(time_of(low + 2 * h / 3))[1]
    x2 = first_order(low + part) - float(2 * sigma * (torch.expm1(part) / part - 1)) * (first - start)
    second = noise(low + part, x2)
    return first_order(high) - float(1.5 * sigma_t * (torch.expm1(h) / h - 1)) * (second - start)


def _consistency(noise_of: NoiseOf, x: Tensor, steps: int, fresh: Fresh | None = None) -> Tensor:
    """`gen_dd.consistency.sample`."""
    return consistency.sample(
        noise_of, x, steps, needed(fresh, "a consistency model wants fresh noise for every step.")
    )


SOLVERS: MappingProxyType[str, Solver] = MappingProxyType(
    {
        "dpmpp_2m": _multistep(ExactDPMSolver, 2),
        "dpmpp_3m": _multistep(ExactDPMSolver, 3),
        "ddim": _multistep(ExactDPMSolver, 1),
        "unipc": _multistep(_ExactUniPC, 2),
        "dpm_fast": dpm_fast,
        CONSISTENCY: _consistency,
    }
)
"""Solvers by name; each evaluates the network `steps` times."""


def inside(interval: tuple[float, float] | None, t: float) -> bool:
    """Whether the time t lies in the interval; None: always."""
    return interval is None or interval[0] <= t <= interval[1]


def guided(
    model: Callable[..., Tensor],
    labels: Tensor,
    cfg_scale: float,
    null_class: int,
    *,
    interval: tuple[float, float] | None = None,
    guide: Guide | None = None,
    index: Tensor | None = None,
) -> NoiseOf:
    """Classifier-free guidance cond + s (cond - null), both halves in one forward, and a guide's correction of x0.

    s = 0 is plain conditional sampling; the other convention's scale w (null + w (cond - null)) is 1 + s.

    Args:
        model: a `UViT` with labels, or a compiled one.
        labels: int64 (B,) in 0..K-1.
        cfg_scale: s >= 0.
        null_class: the label that stands for "no label".
        interval: the times (low, high) in [0, 1] between which s applies (Kynkaanniemi et al., NeurIPS 2024); outside,
            the network is evaluated once. None: always.
        guide: moves the estimate of the clean images, prepared; `index` then are their numbers within the class, (B,).
    """
    both = torch.cat([labels, torch.full_like(labels, null_class)])

    def noise_of(x: Tensor, timestep: Tensor) -> Tensor:
        t = float(timestep) / TIME_SCALE if guide or interval else math.nan  # asking a GPU would wait for it
        if cfg_scale == 0 or not inside(interval, t):
            noise = model(x, timestep, labels)
            return noise if guide is None else corrected(noise, x, t)
        cond, null = model(torch.cat([x, x]), timestep, both).chunk(2)
        if guide is None:
            return cond + cfg_scale * (cond - null)
        if guide.inside_cfg:
            cond = corrected(cond, x, t)
            return cond + cfg_scale * (cond - null)
        return corrected(cond + cfg_scale * (cond - null), x, t)

    def corrected(noise: Tensor, x: Tensor, t: float) -> Tensor:
        """The noise that goes with the corrected x0 = (x - sigma noise) / alpha."""
        assert guide is not None and index is not None
        alpha, sigma = (float(part) for part in alpha_sigma(torch.tensor(t, dtype=torch.float64)))
        x0 = (x - sigma * noise) / alpha
        return noise - alpha / sigma * (guide.correct_x0(x0, t, labels, index) - x0)

    return noise_of
