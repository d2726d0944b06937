"""Real images by class: uint8 on the device, drawn anew every step from streams of their own."""

import torch
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.rng import stream


class RealImages:
    """Random batches of every class's training images.

    Args:
        data: the real data, whose training images are placed on `device` as uint8.
        batch: images per class and step. A smaller class is sampled with replacement, the others without.
        preprocess: on `device`.
        seed: of the draws; those of (step, class) depend on nothing else.
    """

    def __init__(self, data: ImageData, batch: int, preprocess: Preprocess, seed: int, device: torch.device) -> None:
        self.images, self.members = data.on(device), data.class_indices()
        self.batch, self.preprocess, self.seed = batch, preprocess, seed

    @property
    def smaller_classes(self) -> list[int]:
        """The classes with fewer than `batch` images."""
        return [k for k, members in enumerate(self.members) if len(members) < self.batch]

    def indices(self, step: int, classes: range) -> Tensor:
        """int64 (len(classes), B): which training images `draw` takes."""
        return torch.stack([self._pick(self.members[k], stream(self.seed, "real", step, k)) for k in classes])

    def draw(self, step: int, classes: range) -> Tensor:
        """Real images of some classes in training space, (len(classes), B, C, H, W)."""
        return self.at(self.indices(step, classes))

    def at(self, indices: Tensor) -> Tensor:
        """The training images with these indices, of any shape (...), in training space: (..., C, H, W)."""
        return self.preprocess.forward(self.images[indices.to(self.images.device)])

    def _pick(self, members: Tensor, generator: torch.Generator) -> Tensor:
        if len(members) < self.batch:
            return members[torch.randint(len(members), (self.batch,), generator=generator)]
        return members[torch.randperm(len(members), generator=generator)[: self.batch]]
