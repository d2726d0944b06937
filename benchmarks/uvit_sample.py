"""U-ViT sampling: cifar10-small (44M), 3x32x32, 3 steps of DPM-Solver++(2M); images:"""

import math

import torch

from benchmarks.data import CLASSES, plain_device
from benchmarks.plain_uvit import PRESET, PlainUViT
from core_dd.speed import bf16_pays, prepare_device
from gen_dd.sampler import Sampler
from gen_dd.uvit import PRESETS, UViT

STEPS = 3
PART = 256 if torch.cuda.is_available() else 16
"""How many images ours draws at once: a GPU wants all, a CPU is as fast with parts, in less memory."""


def target(_batch: int) -> float:
    """The ratio to reach: on a GPU, on a CPU with bf16 units, on one without."""
    return 6.0 if torch.cuda.is_available() else 3.0 if bf16_pays("cpu") else 1.5


def ours(batch: int):
    """So many images by `gendd sample`, in batches of at most `PART`."""
    model, part = UViT.from_preset(PRESET, CLASSES), min(PART, batch)
    sampler = Sampler(model, steps=STEPS, batch=part, device=prepare_device(), compile=True)
    return lambda: torch.cat([sampler.draw(range(start, start + part)) for start in range(0, batch, part)])


def reference(batch: int):
    """The same solver written plainly: fp32, eager, explicit attention."""
    device = plain_device()
    model = PlainUViT(**PRESETS[PRESET], num_classes=CLASSES).to(device).eval()
    labels = torch.arange(batch, device=device) % CLASSES
    times = [1 + (1e-3 - 1) * k / STEPS for k in range(STEPS + 1)]
    alphas = [math.exp(-19.9 * t**2 / 4 - 0.1 * t / 2) for t in times]
    sigmas = [math.sqrt(1 - alpha**2) for alpha in alphas]
    lambdas = [math.log(alpha / sigma) for alpha, sigma in zip(alphas, sigmas, strict=True)]

    @torch.no_grad()
    def draw() -> torch.Tensor:
        x, previous, h_previous = torch.randn(batch, 3, 32, 32, device=device), None, None
        for k in range(STEPS):
            noise = model(x, torch.tensor(999 * times[k], device=device), labels)
            x0, h = (x - sigmas[k] * noise) / alphas[k], lambdas[k + 1] - lambdas[k]
            mixed = x0 if previous is None else x0 + 0.5 * h / h_previous * (x0 - previous)
            x = sigmas[k + 1] / sigmas[k] * x - alphas[k + 1] * math.expm1(-h) * mixed
            previous, h_previous = x0, h
        return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()

    return draw
