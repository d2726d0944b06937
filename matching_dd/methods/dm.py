"""DM: dataset condensation with distribution matching ([Zhao & Bilen, WACV 2023](https://arxiv.org/abs/2110.04181))."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from core_dd.errors import at_least, require
from core_dd.options import option
from matching_dd.base import RandomNetworks, RandomNetworksConfig
from matching_dd.losses import mean_discrepancy, moment_discrepancy

COMPARED_CHOICES = MappingProxyType(
    {
        "features": "what random networks make of the images, as published",
        "pixels": "the images themselves: the linear MMD of DataDAM's supplement, table 3",
    }
)
"""What a set and the real images are compared by."""


@dataclass(kw_only=True)
class DMConfig(RandomNetworksConfig):
    """Distil by DM: match class means in the features of random networks. The defaults are the paper's.

    That is up to ipc 50; on CIFAR-10 from ipc 100 on the paper's lr_img is 10, as config dm has it.
    """

    GROUP: ClassVar[str] = "dm"

    compared: str = option("features", choices=COMPARED_CHOICES)
    """What the means are of."""
    second_moment: float = 0.0
    """Weight of the squared distance of class variances, "DM + 2nd reg" of M3D's table 1, which gives no weight."""
    third_moment: float = 0.0
    """The same of third central moments, "DM + 2nd & 3rd reg"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "second_moment", "third_moment")
        for name, least in (("second_moment", 2), ("third_moment", 3)):
            require(
                getattr(self, name) == 0 or self.syn_per_class >= least,
                f"{name} wants {least} synthetic images of a class, and each step shows {self.syn_per_class}: of so "
                "few it is 0, whatever they are. Leave it out, or raise ipc or factor.",
            )


class DM(RandomNetworks):
    """Match class means in random feature spaces: a fresh, untrained network in every iteration.

    The loss is the sum over classes and feature dimensions, which lr_img assumes. (The authors' code prints it divided
    by the number of classes, and makes one update more than its iteration count.) Compared by pixels, no network has a
    say: it is the pixel-space MMD that [DataDAM](https://arxiv.org/abs/2310.00093) has beside generative models.
    """

    Config = DMConfig

    def measure(self, net: nn.Module, images: Tensor) -> Tensor:
        """Of each image what is compared, (N, D)."""
        return images.flatten(1) if self.config.compared == "pixels" else super().measure(net, images)

    def compare(self, real: Tensor, syn: Tensor) -> Tensor:
        """Squared distances of class means, and of higher moments; real (K, B, D), syn (K, M, D)."""
        total = mean_discrepancy(real, syn)
        for order, weight in ((2, self.config.second_moment), (3, self.config.third_moment)):
            if weight:
                total = total + weight * moment_discrepancy(real, syn, order)
        return total.sum()
