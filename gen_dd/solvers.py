"""From noise to images: solvers of the probability-flow ODE, each a function (noise_of, x, steps) -> x.

`noise_of(x, timestep)` is the network's prediction at x_t for the scalar timestep 999 t.
"""

import warnings
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from core_dd.errors import require
from gen_dd.diffusion import TIME_SCALE, alpha_sigma, log_alpha

NoiseOf = Callable[[Tensor, Tensor], Tensor]

T_START, T_END = 1.0, 1e-3


class ExactDPMSolver(DPMSolverMultistepScheduler):
    """diffusers' DPM-Solver++ (Lu et al. 2022) on the exact continuous-time grid, uniform from t = 1 to 1e-3.

    The stock class rounds times to a table of 1000 betas; here sigma / alpha is exact at every grid point, and the
    network is fed 999 t. Agrees with the plain formulas to about 1e-5.
    """

    def __init__(self, solver_order: int = 2) -> None:
        grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
        betas = -torch.expm1(2 * log_alpha(grid[1:]) - 2 * log_alpha(grid[:-1]))
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # diffusers on numpy 2
        super().__init__(
            trained_betas=betas.tolist(),
            solver_order=solver_order,
            prediction_type="epsilon",
            algorithm_type="dpmsolver++",
            solver_type="midpoint",
            final_sigmas_type="sigma_min",
            timestep_spacing="linspace",
        )

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None, **options: Any) -> None:
        """Lay `num_inference_steps` + 1 exact times; the last step is of lower order only below 10 steps."""
        require(
            bool(num_inference_steps) and num_inference_steps >= 1, f"steps must be >= 1, got {num_inference_steps}."
        )
        super().set_timesteps(num_inference_steps, device=device, **options)
        times = torch.linspace(T_START, T_END, num_inference_steps + 1, dtype=torch.float64)
        alpha, sigma = alpha_sigma(times)
        self.sigmas = (sigma / alpha).float()
        self.timesteps = (TIME_SCALE * times[:-1]).float().to(device or "cpu")
        self.register_to_config(lower_order_final=num_inference_steps < 10)
        self.set_begin_index(0)


def dpmpp_2m(noise_of: NoiseOf, x: Tensor, steps: int) -> Tensor:
    """DPM-Solver++ multistep of order 2: one network evaluation per step.

    Args:
        noise_of: predicted noise at (x, 999 t).
        x: standard normal noise, (B, C, H, W).
        steps: network evaluations, >= 1.

    Returns:
        The image at t = 1e-3, like `x`, not clamped.
    """
    scheduler = ExactDPMSolver()
    scheduler.set_timesteps(steps, device=x.device)
    for timestep in scheduler.timesteps:
        x = scheduler.step(noise_of(x, timestep), timestep, x).prev_sample
    return x


SOLVERS: MappingProxyType[str, Callable[[NoiseOf, Tensor, int], Tensor]] = MappingProxyType({"dpmpp_2m": dpmpp_2m})
"""Solvers by name."""


def guided(model: Callable[..., Tensor], labels: Tensor, cfg_scale: float, null_class: int) -> NoiseOf:
    """Classifier-free guidance: cond + s (cond - null), both halves in one forward.

    s = 0 is plain conditional sampling; the other convention's scale w (null + w (cond - null)) is 1 + s.

    Args:
        model: a `UViT` with labels, or a compiled one.
        labels: int64 (B,) in 0..K-1.
        cfg_scale: s >= 0.
        null_class: the label that stands for "no label".
    """
    if cfg_scale == 0:
        return lambda x, timestep: model(x, timestep, labels)
    both = torch.cat([labels, torch.full_like(labels, null_class)])

    def noise_of(x: Tensor, timestep: Tensor) -> Tensor:
        cond, null = model(torch.cat([x, x]), timestep, both).chunk(2)
        return cond + cfg_scale * (cond - null)

    return noise_of
