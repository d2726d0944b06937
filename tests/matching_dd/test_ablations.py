"""Every kernel of M3D, every loss and norm of DataDAM is stable at the published learning rate, by steps of like size.

At lr_img 1 a linear kernel of raw features took steps 50 times as long as the Gaussians, a polynomial one 50000 times;
raw attention maps took DataDAM to 10^9 at once. The papers find that these choices cost little.
"""

from functools import cache

import pytest
import torch

from core_dd.data.images import load_data
from matching_dd.losses import KERNELS, MAP_DISTANCES, MAP_NORMS
from matching_dd.methods import METHODS

ABLATIONS = [("m3d", {"kernel": kernel}) for kernel in KERNELS] + [
    ("datadam", {"norm": norm, "attention": attention}) for norm in MAP_NORMS for attention in MAP_DISTANCES
]
PUBLISHED = {"m3d": {"kernel": "gaussian"}, "datadam": {"norm": "l2", "attention": "mse"}}
SMALL = {"init": "noise", "ipc": 5, "batch_real": 32, "network": "convnet2_w8", "bf16": False, "compile": False}
STEPS, TESTS = 12, 2


@cache
def course(method: str, *options: tuple[str, str]) -> tuple[float, float, float]:
    """Of STEPS steps: how far the first moves pixels (root mean square), the pixel farthest from grey over all of them,
    and the objective after over that before, on TESTS networks and batches that no step sees."""
    own = METHODS[method](METHODS[method].Config(method=method, **dict(options), **SMALL), load_data("digits"))

    @torch.no_grad()
    def objective() -> float:
        steps = range(1000, 1000 + 10 * TESTS, 10)  # M3D keeps a network for five
        return sum(float(own.class_loss(own.draw_network(step), step, range(10))) for step in steps)

    pixels = [own.synthetic.pixels().detach().clone()]
    before = objective()
    for step in range(STEPS):
        own.step(step)
        pixels.append(own.synthetic.pixels().detach().clone())
    moved = (pixels[1] - pixels[0]).square().mean().sqrt()
    return moved.item(), (torch.stack(pixels) - 0.5).abs().max().item(), objective() / before


@pytest.mark.parametrize(("method", "options"), ABLATIONS, ids=str)
def test_ablation__is_stable_at_the_published_learning_rate(method, options):
    moved, farthest, left = course(method, *options.items())
    published, *_ = course(method, *PUBLISHED[method].items())
    assert published / 4 < moved < 4 * published
    assert farthest < 20  # a few pixels of images whose maps keep their own size; the others stay below 10
    assert left < 0.8
