"""M3D: dataset condensation by minimizing maximum mean discrepancy ([Zhang et al., AAAI
2024](https://arxiv.org/abs/2312.15927))."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from core_dd.options import option
from matching_dd.base import RandomNetworks, RandomNetworksConfig
from matching_dd.losses import kernel_mmd, standardised

KERNEL_CHOICES = MappingProxyType(
    {
        "gaussian": "five, as wide as the data",
        "linear": "of standardised features, like the next",
        "polynomial": "likewise",
        "laplace": "likewise",
    }
)
"""`matching_dd.losses.KERNELS`."""


@dataclass(kw_only=True)
class M3DConfig(RandomNetworksConfig):
    """Distil by M3D: match class distributions in a kernel's feature space. The defaults are the paper's where it says.

    It says: 10000 iterations, lr_img 1, ipm 5, factor 2 (ImageNet subsets: 1000, 0.1, 5, 3). What it leaves open is
    that of IDC's code, on which it builds, and of its re-uses: the kernel's width, images learnt and clamped as pixels,
    a step per class with momentum, 128 real and up to 200 synthetic images per class, and the augmentation.
    """

    GROUP: ClassVar[str] = "m3d"

    method: str = "m3d"
    iterations: int = 10000
    init: str = "mix"
    factor: int = 2
    max_syn: int | None = 200
    space: str = "pixels"
    clamp: bool = True
    per_class: bool = True
    batch_real: int = 128
    augment: str = "color_crop_cutout"
    augment_mode: str = "idc"
    kernel: str = option("gaussian", choices=KERNEL_CHOICES)
    """Of the discrepancy. All are as wide as the data, so that the published lr_img serves them all."""
    ipm: int = 5


class M3D(RandomNetworks):
    """Match class distributions in the reproducing kernel Hilbert space over random features."""

    Config = M3DConfig

    def compare(self, real: Tensor, syn: Tensor) -> Tensor:
        """Discrepancies in the kernel's space, summed over classes; real (K, B, D), syn (K, M, D)."""
        if self.config.kernel != "gaussian":  # which measures its width itself
            real, syn = standardised(real, syn)
        return kernel_mmd(real, syn, self.config.kernel).sum()
