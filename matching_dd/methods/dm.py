"""DM: dataset condensation with distribution matching (Zhao & Bilen, WACV 2023)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core_dd.data import ImageData
from core_dd.networks import reset
from matching_dd.base import Features, MatchingConfig, frozen_network
from matching_dd.losses import mean_discrepancy


@dataclass(kw_only=True)
class DMConfig(MatchingConfig):
    """Distil by DM: match class means in the features of random networks. The defaults are the paper's.

    lr_img is 1 up to ipc 50, and 10 from ipc 100 on CIFAR-10.
    """


class DM:
    """Match class means in random feature spaces: a fresh, untrained network in every iteration.

    The loss is the sum over classes and feature dimensions, which lr_img assumes. (The authors' code prints it divided
    by the number of classes, and makes one update more than its iteration count.)
    """

    Config = DMConfig

    def __init__(self, config: DMConfig, data: ImageData, device: torch.device) -> None:
        self.net = frozen_network(config.network, data, device)
        self.features = Features(device, bf16=config.bf16, compile=config.compile)

    def draw_network(self, step: int, generator: torch.Generator) -> nn.Module:
        """The same module with new random weights."""
        return reset(self.net, generator)

    def loss(self, net: nn.Module, real: Tensor, syn: Tensor) -> Tensor:
        """Scalar, summed over classes; real (K, B, C, H, W), syn (K, M, C, H, W), training space."""
        return mean_discrepancy(self.features.fixed(net, real), self.features(net, syn)).sum()
