"""What a training step lowers, by name: the noise's error of diffusion, or ECT's distance of a consistency model."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from torch import Tensor

from gen_dd import consistency
from gen_dd.align import LiteEncoder, misaligned
from gen_dd.batches import Batch
from gen_dd.diffusion import TIME_SCALE, add_noise, noise_loss
from gen_dd.options import TrainConfig, TuneConfig
from gen_dd.recipe import TIMES, WEIGHTINGS
from gen_dd.scaffold import Predicted

Predictor = Callable[..., Predicted]
"""A U-ViT in its scaffold."""


class Objective(Protocol):
    """What a step lowers.

    Attributes:
        passes: forward passes that a step costs, a backward pass counted as two.
        looks: whether a step also runs the network without a gradient.
        drawing: options of a `Sampler` for pictures and for whether anything was learnt.
    """

    passes: int
    looks: bool
    drawing: Mapping[str, Any]

    def __call__(self, network: Predictor, batch: Batch, progress: float) -> Tensor:
        """The loss of each image, (B,), float32.

        Args:
            network: the U-ViT in its scaffold, as the processes share it: see `gen_dd.scaffold.Scaffold`.
            batch: what to learn from.
            progress: the part of the training that is done, in [0, 1).
        """
        ...


class NoisePrediction:
    """The noise's squared error at the config's times, with their weights (Ho et al., 2020); also that of what the
    middle block predicts, and how far that is from an encoder's features of the image, as far as the config has it
    supervised and aligned: see `TrainConfig.supervise` and `TrainConfig.align`.

    Raises:
        InputError: the encoder's weights are not installed.
    """

    passes, looks = 3, False
    drawing: Mapping[str, Any] = MappingProxyType({"steps": 20})

    def __init__(self, config: TrainConfig) -> None:
        self.times, self.weights = TIMES[config.time_sampling], WEIGHTINGS[config.weighting]
        self.supervise, self.align = config.supervise, config.align
        self.encoder = LiteEncoder() if config.align else None

    def __call__(self, network: Predictor, batch: Batch, progress: float) -> Tensor:
        """See `Objective`."""
        t = self.times(batch.time)
        noisy = add_noise(batch.images, batch.noise, t)
        predicted = network(noisy, TIME_SCALE * t, batch.labels, batch.conditions, batch.keys)
        loss = noise_loss(predicted.noise, batch.noise)
        if predicted.early is not None:
            loss = loss + self.supervise * noise_loss(predicted.early, batch.noise)
        loss = self.weights(t) * loss
        if predicted.aligned is not None and self.encoder is not None:
            loss = loss + self.align * misaligned(predicted.aligned, self.encoder(batch.images))
        return loss


class Consistency:
    """ECT (`gen_dd.consistency`), its stages as long as each other."""

    passes, looks = 4, True
    drawing: Mapping[str, Any] = MappingProxyType({"steps": 2, "solver": "consistency"})

    def __init__(self, config: TuneConfig) -> None:
        self.stages = config.stages

    def __call__(self, network: Predictor, batch: Batch, progress: float) -> Tensor:
        """See `Objective`."""
        stage = min(int(progress * self.stages), self.stages - 1)
        sigma = consistency.levels(batch.time)
        told = (batch.labels, batch.conditions, batch.keys)  # so that both ends drop the same
        return consistency.tuning_loss(
            lambda *inputs: network(*inputs).noise, batch.images, batch.noise, sigma, stage, *told
        )


OBJECTIVES: Mapping[str, Callable[[Any], Objective]] = MappingProxyType(
    {"noise": NoisePrediction, "consistency": Consistency}
)
"""Objectives by name, made from a training's config."""
