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
        InputError: no such pool, one of other data or from another model, or a model that is tuned.
    """

    def __init__(self, config: TrainConfig, data: RealData, parameters: Iterable[Tensor]) -> None:
        assert config.neon is not None and config.init_from is not None  # the config checks it
        hint = f"Expected a folder that gendd sample drew from --model {config.init_from}."
        drew = records.read(Path(config.neon) / INDEX, _Index, hint)["identity"].get("weights")
        model, card = load_model(config.init_from)
        require(
            drew == card["weights"], f"{config.neon} was drawn from another model than {config.init_from} holds. {hint}"
        )
        require(
            not model.config.consistency,
            f"{config.init_from} was tuned into a consistency model, and neon improves a diffusion model. Apply it to "
            "the model that was tuned, and tune what comes of it.",
        )
        pool = DistilledSet.load(config.neon)
        require(
            pool.meta.get("fingerprint") in (None, data.fingerprint)
            and tuple(pool.images.shape[1:]) == tuple(data.shape)
            and int(pool.hard_labels.max()) < data.num_classes,
            f"{config.neon} was drawn for {pool.meta.get('data')}, images of {tuple(pool.images.shape[1:])}, and here "
            f"the data are {data.name}, {tuple(data.shape)}. Pass the --data that the model was trained on.",
        )
        self.samples = _as_data(pool, data)
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
