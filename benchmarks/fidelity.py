"""Fidelity: fd_efficientnet_lite0 of 1500 images of 3x32x32, on CUDA 10000, against the network's bare forward

Ours is what `evaluate --fidelity` does, with the features of the real images at hand: features, moments, distance. The
images are more than the features have dimensions, so that both sides do what 10000 images need, per image.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.data import CLASSES, plain_device, random_data
from core_dd.judge.lite import load_lite
from core_dd.judge.measures import Measuring, Meter
from core_dd.speed import prepare_device

IMAGES, REAL = {"cpu": 1500, "cuda": 10000}, 1500
SIDE, CHUNK = 96, 100
"""Pixels that images are enlarged to, and images per forward, as ours does."""


def target() -> float:
    """The ratio to reach: within 1.3 times the forward."""
    return 1 / 1.3


def ours() -> Callable[[], None]:
    """The toolkit's distance."""
    device, data = prepare_device(), random_data(per_class=REAL // CLASSES)
    meter = Meter(Measuring(("fd_efficientnet_lite0",)), data, network="mlp", seed=0, device=device)
    own = random_data(per_class=IMAGES[device.type] // CLASSES)
    meter.measure(own.train_images[:2], own.train_labels[:2])  # keeps the real images' features
    return lambda: meter.measure(own.train_images, own.train_labels)


def reference() -> Callable[[], None]:
    """The features alone."""
    device = torch.device(plain_device())
    images, net = random_data(per_class=IMAGES[device.type] // CLASSES).train_images, load_lite(device)

    @torch.inference_mode()
    def unit() -> None:
        for chunk in images.split(CHUNK):
            x = F.interpolate((chunk.to(device).float() - 127) / 128, (SIDE, SIDE), mode="bilinear", antialias=True)
            net.features(x).cpu()

    return unit
