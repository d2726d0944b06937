"""The learnable set: what the image optimiser changes and what becomes the distilled file."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from core_dd.data import ImageData
from core_dd.distilled import DistilledSet
from core_dd.errors import pick
from core_dd.preprocess import Preprocess
from core_dd.rng import stream
from matching_dd.real import choose


class Synthetic:
    """Synthetic images of every class, learnt in training space, with fixed hard labels.

    Args:
        images: (K, ipc, C, H, W), training space; becomes the leaf that learns, on the device it is on.
        preprocess: the map from pixels to training space, on the CPU.
    """

    def __init__(self, images: Tensor, preprocess: Preprocess) -> None:
        self.images = images.detach().clone().requires_grad_()
        self.preprocess = preprocess

    def decoded(self, classes: range) -> Tensor:
        """The images that classifiers will train on, of some classes: (len(classes), M, C, H, W), differentiable."""
        return self.images[classes.start : classes.stop]

    def to_distilled(self, meta: dict[str, Any]) -> DistilledSet:
        """The set in pixel units, class by class, with `meta` as `core_dd.distilled.new_meta` makes it."""
        classes, ipc = self.images.shape[:2]
        pixels = self.preprocess.inverse(self.images.detach().cpu()).flatten(0, 1)
        labels = torch.arange(classes).repeat_interleave(ipc)
        kind, tensors = self.preprocess.to_meta()
        return DistilledSet(pixels, labels, {**meta, "preprocess": kind}, tensors)


def initial_images(init: str, data: ImageData, ipc: int, preprocess: Preprocess, seed: int) -> Tensor:
    """The images a `Synthetic` starts from: (K, ipc, C, H, W), training space, on the CPU.

    Raises:
        InputError: an unknown `init`, or fewer than `ipc` real images in a class to start from.
    """
    return pick(INITS, init, "init")(data, ipc, preprocess, seed)


def real_images(data: ImageData, ipc: int, preprocess: Preprocess, seed: int) -> Tensor:
    """Random real images of each class, none twice."""
    return preprocess.forward(data.train_images[choose(data, ipc, seed)])


def noise(data: ImageData, ipc: int, preprocess: Preprocess, seed: int) -> Tensor:
    """Standard normal noise in training space."""
    return torch.randn(data.num_classes, ipc, *data.shape, generator=stream(seed, "noise"))


INITS: MappingProxyType[str, Callable[[ImageData, int, Preprocess, int], Tensor]] = MappingProxyType(
    {"real": real_images, "noise": noise}
)
"""How a set starts, by name: (data, ipc, preprocess, seed) -> images."""
