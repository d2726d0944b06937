"""What real data are, whatever holds their images: memory (`ImageData`) or the disk (`StreamedData`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from core_dd.data.images import ImageData

SAMPLE_IMAGES = 50_000
"""The most images that `RealData.sample` decodes where nothing else is said."""


class Pixels(Protocol):
    """The training images of a training's steps, on its device."""

    home: torch.device
    """Where it wants to be told which images those are, so that no step waits for a copy."""

    def __call__(self, step: int) -> Tensor:
        """The images of a step: uint8 (B, C, H, W), on the device."""


@dataclass(frozen=True, kw_only=True)
class RealData(ABC):
    """A labelled image dataset, in memory or on the disk.

    Attributes:
        name: that of a known dataset which this is by its content, else that of its place.
        train_labels, val_labels: of the training images and of the validation split cut from them, int64 (N,) in
            0..K-1.
        class_names: one for each of the K classes, no two alike.
        mean, std: of the training pixels on the 0..1 scale, for each channel, (C,): the published constants for known
            sets.
        fingerprint: a hash of the images and labels, whatever their order and file format.
        hflip: whether a mirror image keeps its label (not for digits).
    """

    name: str
    train_labels: Tensor
    val_labels: Tensor
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    fingerprint: str
    hflip: bool

    @property
    def num_classes(self) -> int:
        """How many classes there are, K."""
        return len(self.class_names)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image, (C, H, W)."""

    @property
    @abstractmethod
    def how(self) -> str:
        """How the images are held, in a few words for people."""

    @abstractmethod
    def sample(self, seed: int, most: int = SAMPLE_IMAGES) -> "ImageData":
        """Real images in memory, for whatever wants statistics of them: all, where they are in memory anyway, else at
        most `most` random training images and the whole validation split.

        Args:
            seed: of the choice.
            most: training images to decode.
        """

    @abstractmethod
    def pixels(self, members: Callable[[int], Tensor], device: torch.device) -> Pixels:
        """The images of a training's steps.

        Args:
            members: which training images a step takes, int64 (B,), on the `home` of what is returned. Streamed data
                ask for some steps ahead, also beyond the last.
            device: where the images are wanted.
        """
