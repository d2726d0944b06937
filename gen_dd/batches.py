"""The global batch of any training step: images, noise, times, labels and what else it takes, from the run's seed and
the step's number."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from core_dd.data.real import RealData
from core_dd.rng import stream
from gen_dd.augment import draw_conditions, transform
from gen_dd.diffusion import drop_labels
from gen_dd.dropout import KEYS


@dataclass(frozen=True)
class Batch:
    """What a step learns from, or a process's part of it: images in [-1, 1], noise, times in [0, 1), labels; what
    augmentation did to the images, (B, 9), or (B, 0) without; keys of dropout's masks."""

    images: Tensor
    noise: Tensor
    time: Tensor
    labels: Tensor
    conditions: Tensor
    keys: Tensor


class Batches:
    """The global batch of any step, or this process's rows of it, from the seed and the step's number.

    Args:
        data: the real images. They live on `device` as uint8, or are streamed: then only the rows asked for are
            decoded, by the data's workers, some steps ahead. Flipped and scaled on the device either way.
        size: images per global batch. Each epoch is a permutation; its incomplete last batch is left out.
        null_class: what dropped labels become.
        flip: mirror half of the images.
        dropout: probability that an image loses its label.
        seed: of every draw. All are made for the global batch, so they do not depend on `rows`.
        device: where the draws are made.
        rows: which images of the global batch are wanted, int64; default: all.
        augment: probability of each transform of `gen_dd.augment`.
        part: of several such sequences, each of its own draws and its own permutations, which one.
    """

    def __init__(
        self,
        data: RealData,
        size: int,
        *,
        null_class: int,
        flip: bool,
        dropout: float,
        seed: int,
        device: torch.device,
        rows: Tensor | None = None,
        augment: float = 0.0,
        part: int = 0,
    ) -> None:
        rows = torch.arange(size) if rows is None else rows
        self.labels, self.rows = data.train_labels.to(device), rows.to(device)
        self.size, self.null_class, self.flip, self.dropout = size, null_class, flip, dropout
        self.seed, self.device, self.augment = seed, device, augment
        self.names = (part,) if part else ()  # of its draws, beside the step's number
        self.pixels = data.pixels(self.members, device)
        self.home = self.pixels.home
        self.chosen = rows.to(self.home)
        self.order = functools.lru_cache(maxsize=2)(self._order)  # two: streaming looks into the next epoch

    def __call__(self, step: int) -> Batch:
        """The rows of the global batch of one step."""
        generator = stream(self.seed, "batch", step, *self.names, device=self.device)
        uniform = torch.rand(3, self.size, generator=generator, device=self.device)[:, self.rows]
        images = self.pixels(step).float().div_(127.5).sub_(1)
        if self.flip:
            images = torch.where(uniform[0].view(-1, 1, 1, 1) < 0.5, images.flip(3), images)
        noise = torch.randn(self.size, *images.shape[1:], generator=generator, device=self.device)[self.rows]
        labels = drop_labels(self.labels[self.members(step).to(self.device)], self.null_class, uniform[2], self.dropout)
        conditions = self._conditions(step)
        images = transform(images, conditions) if self.augment else images
        keys = torch.randint(KEYS, (self.size,), generator=generator, device=self.device, dtype=torch.int32)
        return Batch(images, noise, uniform[1], labels, conditions, keys[self.rows])

    def _conditions(self, step: int) -> Tensor:
        """What augmentation does to the rows, (B, 9); (B, 0) without."""
        if not self.augment:
            return torch.empty(len(self.rows), 0, device=self.device)
        generator = stream(self.seed, "augment", step, *self.names, device=self.device)
        return draw_conditions(self.size, self.augment, generator)[self.rows]

    def members(self, step: int) -> Tensor:
        """Which training images the rows are, at `home`: from a slice of the epoch's permutation, or from draws with
        replacement where the set is below one batch."""
        count = len(self.labels)
        if count < self.size:
            drawn = torch.randint(count, (self.size,), generator=stream(self.seed, "members", step, *self.names))
            return drawn.to(self.home)[self.chosen]
        epoch, position = divmod(step, count // self.size)
        return self.order(epoch)[position * self.size : (position + 1) * self.size][self.chosen]

    def _order(self, epoch: int) -> Tensor:
        generator = stream(self.seed, "epoch", epoch, *self.names)
        return torch.randperm(len(self.labels), generator=generator).to(self.home)
