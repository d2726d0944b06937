"""Has a generator learnt its classes? A classifier of the real data reads the labels of its samples back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.judge import fidelity, training
from core_dd.judge.chance import by_luck
from core_dd.rng import stream

LEARNT = "learnt.json"
"""Where a run folder keeps what was found; the model's card has the same under "learnt"."""

_REAL = 2000
"""Training images, at most, that the samples are compared with."""

_LARGE_SHARE = 0.05
"""The part of the weights a training began with from which an average is ruled by them: noise draws noise."""


class SampleJudge:
    """A classifier of the real data, trained by protocol `quick` when it is first asked, and kept in the cache.

    Args:
        data: the real data.
        network: a name `build_network` takes.
        seed: of the classifier.
        device: where to compute.

    Raises:
        InputError: if the network cannot take the images, or has no features.
    """

    def __init__(self, data: ImageData, network: str, seed: int, device: torch.device) -> None:
        fidelity.check_features(network, data)
        self.data, self.network, self.seed, self.device = data, network, seed, device

    @cached_property
    def classifier(self) -> training.Classifiers:
        """The classifier; all its training images are those of the data."""
        return fidelity.kept_classifier(self.data, self.network, self.seed, self.device)

    def features(self, images: Tensor) -> Tensor:
        """What its last layer sees of uint8 images (N, C, H, W): (N, D)."""
        return fidelity.features(self.classifier.network(0), images, self.classifier.preprocess)

    def agreement(self, images: Tensor, labels: Tensor) -> float:
        """The share of images (N, C, H, W) that it gives their label, int64 (N,)."""
        return self.classifier.accuracies(images, labels)[0]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the classifier said of a model's samples."""

    step: int
    """How long the model was trained."""
    samples: int
    """How many were drawn, as many of each class."""
    label_agreement: float
    """The share whose intended label the classifier predicts."""
    chance: float
    """What that is where samples and labels have nothing to do with each other: 1 / classes."""
    at_chance: bool
    """Whether luck explains the agreement (`core_dd.judge.chance.by_luck`)."""
    real_label_agreement: float
    """The same share of training images: what the classifier knows at best."""
    classifier_frechet: float
    """Distance of the samples from `real_images` training images (`core_dd.judge.fidelity`)."""
    real_images: int
    initial_share: float
    """The part of the averaged weights that is still those the training began with."""

    @property
    def judged(self) -> bool:
        """Whether the classifier knows the real images' labels, and so can tell."""
        return not by_luck(round(self.real_label_agreement * self.real_images), self.real_images, self.chance)

    def said(self, train: Mapping[str, Any], images: int) -> str:
        """For people: the numbers; and where they are no better than chance, why that may be and what to do.

        Args:
            train: the training's configuration.
            images: the training images there are.
        """
        agreed, real, chance = (
            f"{100 * share:.1f} %" for share in (self.label_agreement, self.real_label_agreement, self.chance)
        )
        numbers = (
            f"a classifier of the real data gives {agreed} of {self.samples} samples the label they were drawn for "
            f"(chance {chance}; of real images {real}); classifier_frechet {self.classifier_frechet:.3g}"
        )
        if not self.at_chance:
            return f"learnt: {numbers}"
        if not self.judged:
            return (
                f"not known whether anything was learnt, the classifier does not know the real images either: {numbers}"
            )
        return f"WARNING: this model is no better than chance: {numbers}. {self._why(train, images)}"

    def _why(self, train: Mapping[str, Any], images: int) -> str:
        """The likely cause, and the way out."""
        passes = self.step * train["batch_size"] / images
        few = f"{self.step} steps of {train['batch_size']} images ({passes:.1f} passes over the data)"
        if train.get("max_seconds") and self.step < train["iterations"]:
            few += f", ended by max_seconds {train['max_seconds']:g} before the {train['iterations']} steps asked for,"
        longer = "Train longer (--resume with more --iterations"
        longer += " and --max_seconds)" if train.get("max_seconds") else ")"
        if self.initial_share >= _LARGE_SHARE:
            return (
                f"Likely cause: {100 * self.initial_share:.1f} % of the average of weights that draws the samples "
                f"are those it began with, after {few} at ema_decay {train['ema_decay']:g}. {longer}, or "
                "start anew with --ema_warmup or a smaller --ema_decay."
            )
        return f"Likely cause: {few} are too few. {longer}; if the loss no longer falls, start anew with another --lr."


def find(judge: SampleJudge, images: Tensor, labels: Tensor, *, step: int, initial_share: float) -> Finding:
    """Measure a model's samples.

    Args:
        judge: the classifier of the real data.
        images: uint8 (N, C, H, W), as many of each class.
        labels: those they were drawn for, int64 (N,).
        step, initial_share: see `Finding`.
    """
    data = judge.data
    chosen = torch.randperm(len(data.train_labels), generator=stream(judge.seed, "learnt"))[:_REAL]
    real, real_labels = data.train_images[chosen], data.train_labels[chosen]
    agreement, chance = judge.agreement(images, labels), 1 / data.num_classes
    return Finding(
        step=step,
        samples=len(labels),
        label_agreement=agreement,
        chance=chance,
        at_chance=by_luck(round(agreement * len(labels)), len(labels), chance),
        real_label_agreement=judge.agreement(real, real_labels),
        classifier_frechet=fidelity.frechet_of_features(judge.features(images), judge.features(real)),
        real_images=len(chosen),
        initial_share=initial_share,
    )


def numbers_for(images: int, classes: int) -> Sequence[int]:
    """The numbers of at least so many samples, as many of each class."""
    return range(math.ceil(images / classes) * classes)


def initial_share(average: EMAModel) -> float:
    """The part of a moving average of weights, in [0, 1], that is still the weights it began with."""
    return math.prod(average.get_decay(step) for step in range(1, average.optimization_step + 1))
