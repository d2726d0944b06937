"""DataDAM: efficient dataset distillation with attention matching ([Sajedi et al., ICCV
2023](https://arxiv.org/abs/2310.00093))."""

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from core_dd.data.images import ImageData
from core_dd.errors import InputError, above, at_least, require
from core_dd.options import option
from matching_dd.base import RandomNetworks, RandomNetworksConfig
from matching_dd.losses import attention_loss, attention_map, in_lengths, mean_discrepancy

NORM_CHOICES = MappingProxyType(
    {"l2": "its l2 norm, as published", "l1": "its l1 norm", "none": "nothing: maps as they are"}
)
"""`matching_dd.losses.MAP_NORMS`."""

ATTENTION_CHOICES = MappingProxyType(
    {
        "mse": "a sum of squares, as published",
        "mae": "a sum of absolute differences over the root of their number",
        "cosine": "one minus their cosine",
    }
)
"""`matching_dd.losses.MAP_DISTANCES`."""


@dataclass(kw_only=True)
class DataDAMConfig(RandomNetworksConfig):
    """Distil by DataDAM: match mean attention maps of hidden layers, and mean features. The defaults are the paper's.

    The authors' code differs: p 1, network convnet3_bn, batch_real 64, iterations 20000, no zca. The paper also sets
    lr_img 10 above ipc 50, mmd_weight 0.02 for 64 pixels and more, and preprocess zca for CIFAR.
    """

    GROUP: ClassVar[str] = "datadam"

    method: str = "datadam"
    iterations: int = 8000
    p: float = 4.0
    """Power of the attention: its map is the sum over channels of |activation|^p. The authors' code runs with 1."""
    norm: str = option("l2", choices=NORM_CHOICES)
    """What every image's map is divided by. Maps of norm l1 or none are then taken in units of their common length,
    which for l2 is 1: lr_img would fit neither of them otherwise."""
    attention: str = option("mse", choices=ATTENTION_CHOICES)
    """How mean maps are compared."""
    layers: str = "auto"
    """Whose maps: numbers of the layers that the network shows, from 1, joined by _; auto: all but the last."""
    mmd_weight: float = 0.01
    """Weight of the squared distance of mean features, lambda in the paper."""
    scale: float = 100.0
    """Factor of both terms. The paper names none; without the 100 of the authors' code lr_img 1 hardly moves a set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "p")
        at_least(self, 0, "mmd_weight")
        above(self, 0, "scale")


class DataDAM(RandomNetworks):
    """Match spatial attention maps and mean features: a fresh, untrained network in every iteration.

    Both terms are sums, over layers, positions or feature dimensions, and classes.
    """

    Config = DataDAMConfig
    sees = "activations"

    def __init__(self, config: DataDAMConfig, data: ImageData) -> None:
        super().__init__(config, data)
        with torch.no_grad():
            maps, features = self.net.activations(torch.zeros(2, *data.shape, device=self.device))
        self.widths = [*(maps[i][0, 0].numel() for i in self.layers), features.shape[1]]

    @cached_property
    def layers(self) -> list[int]:
        """The indices, from 0, of the layers whose maps are matched, of those that the network shows."""
        with torch.no_grad():
            shown, _ = self.net.activations(torch.zeros(2, *self.data.shape, device=self.device))
        return chosen_layers(self.config.layers, len(shown))

    def measure(self, net: nn.Module, images: Tensor) -> Tensor:
        """Of each image its attention maps, one layer after the other, then its features: (N, sum of `widths`)."""
        outputs, features = net.activations(images)
        maps = [attention_map(outputs[i], self.config.p, self.config.norm) for i in self.layers]
        return torch.cat([*maps, features.float()], 1)

    def compare(self, real: Tensor, syn: Tensor) -> Tensor:
        """Both terms, summed over classes; maps and features of real (K, B, D) and synthetic images (K, M, D)."""
        *maps, features = zip(*(rows.split(self.widths, 2) for rows in (real, syn)), strict=True)
        attention = sum(self.attention(*pair).sum() for pair in maps)
        return self.config.scale * (attention + self.config.mmd_weight * mean_discrepancy(*features).sum())

    def attention(self, real: Tensor, syn: Tensor) -> Tensor:
        """Distance (K,) of the maps of one layer, (K, B, P) and (K, M, P), of the size of the published one.

        A sum of P absolute differences is up to the root of P times as long as their Euclidean norm; divided by that,
        its gradient is no longer than 1, where that of the squares is twice the difference.
        """
        if self.config.norm != "l2":
            real, syn = in_lengths(real, syn)
        loss = attention_loss(real, syn, self.config.attention)
        return loss / real.shape[2] ** 0.5 if self.config.attention == "mae" else loss


def chosen_layers(names: str, shown: int) -> list[int]:
    """The indices, from 0, of the layers that `DataDAMConfig.layers` names, of so many that the network shows.

    Raises:
        InputError: if there are none, or no such.
    """
    if names == "auto":
        require(shown > 1, "layers auto is all but the last, and this network shows one. Set layers to 1.")
        return list(range(shown - 1))
    chosen = [int(name) - 1 if name.isdecimal() else -1 for name in names.split("_")]
    if not all(0 <= i < shown for i in chosen):
        raise InputError(f"layers '{names}' must be numbers from 1 to {shown} joined by _, or auto.")
    return chosen
