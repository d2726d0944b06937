"""How a classifier is trained on a set before its one test: one frozen dataclass per published protocol."""

import math
from dataclasses import dataclass, replace
from types import MappingProxyType

from core_dd.augment import DSA, DCAugment, strategy_for
from core_dd.data import ImageData
from core_dd.errors import require


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """SGD on shuffled batches, then one test in evaluation mode, without augmentation.

    A published protocol counts `epochs` as its code does: passes 0..E over the set, the last partial batch kept, and
    after pass E // 2 + 1 a new optimiser (momentum cleared) with a tenth of the learning rate. A protocol with `steps`
    takes that many batches, the last partial one of each pass left out, under a cosine learning rate after a warm-up.
    """

    name: str
    epochs: int | None = None
    """E, where passes are counted."""
    augmented_epochs: int | None = None
    """E with augmentation, where it differs."""
    steps: int | None = None
    """Batches, where those are counted."""
    batch_size: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: str = "dsa"
    """dsa, or dc: that of DC, which augments MNIST and BatchNorm networks only."""
    runs: int = 5
    """Classifiers per score, unless said otherwise."""
    smoke: bool = False
    """Shortened: the score says nothing beyond that things run."""

    def augmentation(self, data: ImageData, network: str) -> DSA | DCAugment | None:
        """What training images go through, or None."""
        if self.augment == "dsa":
            return DSA(strategy_for(data))
        if "bn" in network.split("_"):
            return DCAugment("crop_noise")
        return DCAugment("crop_scale_rotate") if data.name == "mnist" else None

    def shortened(self, epochs: int | None = None, steps: int | None = None) -> "Protocol":
        """The same protocol with E or the number of steps set by hand, marked as smoke; None leaves it as it is.

        Steps given to a protocol that counts passes cut its schedule to that length.

        Raises:
            InputError: both at once, or values below 1.
        """
        if epochs is None and steps is None:
            return self
        require(epochs is None or steps is None, "give epochs or steps, not both.")
        require(epochs is None or epochs >= 1, f"epochs must be >= 1, got {epochs}.")
        require(steps is None or steps >= 1, f"steps must be >= 1, got {steps}.")
        require(epochs is None or self.epochs is not None, f"protocol {self.name} counts steps; pass steps instead.")
        if epochs is not None:
            return replace(self, epochs=epochs, augmented_epochs=None, smoke=True)
        return replace(self, steps=steps, smoke=True)

    def plan(self, images: int, augmented: bool) -> "Plan":
        """The schedule for a set of `images` images."""
        batch = min(self.batch_size, images)
        if self.epochs is None:
            return Plan(batch, images // batch, self.steps, self.lr, warmup=max(1, self.steps // 10))
        epochs = self.augmented_epochs if augmented and self.augmented_epochs else self.epochs
        per_pass = math.ceil(images / batch)
        total, drop = (epochs + 1) * per_pass, (epochs // 2 + 2) * per_pass
        steps = total if self.steps is None else self.steps
        return Plan(batch, per_pass, steps, self.lr, drop=drop * steps // total)


@dataclass(frozen=True)
class Plan:
    """A protocol on a set of known size: which step uses which images at which learning rate."""

    batch: int
    per_pass: int
    """Batches in one pass over the set."""
    steps: int
    lr: float
    drop: int | None = None
    """The step that starts with a new optimiser and a tenth of the learning rate."""
    warmup: int = 0
    """Steps of linear warm-up before the cosine, where there is no drop."""

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        if self.drop is not None:
            return self.lr * (0.1 if step >= self.drop else 1.0)
        rise = min(1.0, (step + 1) / self.warmup)
        return self.lr * rise * (1 + math.cos(math.pi * step / self.steps)) / 2


DM = Protocol(name="dm", epochs=1000)
"""DSA and DM (Zhao & Bilen 2021, 2023): 1001 passes with DSA."""

DC = Protocol(name="dc", epochs=300, augmented_epochs=1000, augment="dc")
"""DC (Zhao et al. 2021): 301 passes without augmentation; MNIST and BatchNorm networks: 1001 with DC's."""

CHALLENGE = Protocol(name="challenge", epochs=1000, runs=3)
"""The ECCV 2024 challenge on dataset distillation: as DM, 3 classifiers."""

QUICK = Protocol(name="quick", steps=200, batch_size=64, lr=0.05)
"""Ours, for trials and for classifiers that measure: the same few steps whatever the size of the set."""

PROTOCOLS = MappingProxyType({"dm": DM, "dc": DC, "challenge": CHALLENGE, "quick": QUICK})
"""Protocols by name."""
