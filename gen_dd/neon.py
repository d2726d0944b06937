"""Neon, negative extrapolation from self-training (Alemohammad et al., ICLR 2026, https://arxiv.org/abs/2510.03597): a
model that learns from its own samples gets worse, so that the opposite step makes it better; at no cost when sampling.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from core_dd import records
from core_dd.data.images import ImageData
from core_dd.data.real import RealData
from core_dd.errors import require
from core_dd.sets.distilled import DistilledSet
from core_dd.sets.shards import INDEX
from gen_dd.options import TrainConfig
from gen_dd.weights import load_model


class _Index(TypedDict):
    """Of a pool's index, what tells the model that drew it."""

    identity: dict[str, Any]


class Neon:
    """What a training learns from, and how it steps away from where that leads.

    Args:
        config: of the training: `init_from` names the model, `neon` the pool drawn from it.
        data: what the model was trained on.
        parameters: of the network, with the model's weights, before the first step.

    Attributes:
        samples: the pool, as data to learn from.

    Raises:
        InputError: no such pool, or one of other data or from another model.
    """

    def __init__(self, config: TrainConfig, data: RealData, parameters: Iterable[Tensor]) -> None:
        assert config.neon is not None and config.init_from is not None  # the config checks it
        hint = f"Expected a folder that gendd sample drew from --model {config.init_from}."
        drew = records.read(Path(config.neon) / INDEX, _Index, hint)["identity"].get("weights")
        weights = load_model(config.init_from)[1]["weights"]
        require(drew == weights, f"{config.neon} was drawn from another model than {config.init_from} holds. {hint}")
        self.samples = _as_data(DistilledSet.load(config.neon), data)
        self.weight = config.neon_weight
        self.start = [parameter.detach().clone() for parameter in parameters]

    def weights(self, tuned: Sequence[Tensor]) -> list[Tensor]:
        """theta_0 + w (theta_0 - theta_tuned), parameter by parameter."""
        return [torch.lerp(start, other, -self.weight) for start, other in zip(self.start, tuned, strict=True)]


def _as_data(pool: DistilledSet, data: RealData) -> ImageData:
    """Samples in the place of the training images of real data."""
    kept = {name: getattr(data, name) for name in ("name", "class_names", "mean", "std", "fingerprint", "hflip")}
    none, no_labels = pool.images[:0], pool.hard_labels[:0]
    empty = {"val_images": none, "val_labels": no_labels, "test_images": none, "test_labels": no_labels}
    return ImageData(train_images=pool.images, train_labels=pool.hard_labels, **empty, **kept)
