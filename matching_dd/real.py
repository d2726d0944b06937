"""Real images by class: uint8 on the device, drawn anew every step from streams of their own."""

import torch
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.errors import require
from core_dd.rng import stream


class RealImages:
    """Random batches of every class's training images.

    Args:
        data: the real data; its training images move to `device` once, as uint8.
        batch: images per class and step. A smaller class is sampled with replacement, the others without.
        preprocess: on `device`.
        seed: of the draws; those of (step, class) depend on nothing else.
    """

    def __init__(self, data: ImageData, batch: int, preprocess: Preprocess, seed: int, device: torch.device) -> None:
        self.images, self.members = data.train_images.to(device), data.class_indices()
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


def choose(data: ImageData, ipc: int, seed: int) -> Tensor:
    """Indices of `ipc` random training images of every class, without replacement: int64 (K, ipc).

    Raises:
        InputError: if a class is empty or has fewer than `ipc` images.
    """
    shuffled = (
        members[torch.randperm(len(members), generator=stream(seed, "choose", k))]
        for k, members in enumerate(members_of(data, ipc))
    )
    return torch.stack([members[:ipc] for members in shuffled])


def members_of(data: ImageData, ipc: int) -> list[Tensor]:
    """The training images of every class, of which `ipc` are to be chosen.

    Raises:
        InputError: if a class is empty or has fewer than `ipc` images.
    """
    require(ipc >= 1, f"ipc must be >= 1, got {ipc}. Set 'ipc: 10' in the YAML or pass --ipc 10.")
    classes = data.class_indices()
    for k, members in enumerate(classes):
        require(
            len(members) >= ipc,
            f"class {k} ('{data.class_names[k]}') of {data.name} has {len(members)} training images, "
            f"ipc is {ipc}. Choose an ipc of at most {len(members)}."
            if len(members)
            else f"class {k} ('{data.class_names[k]}') of {data.name} has no training image. Add some or drop it.",
        )
    return classes
