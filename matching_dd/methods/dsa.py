"""DSA: dataset condensation with differentiable siamese augmentation ([Zhao & Bilen, ICML
2021](https://arxiv.org/abs/2102.08259))."""

from dataclasses import dataclass

from matching_dd.methods.dc import DC, DCConfig


@dataclass(kw_only=True)
class DSAConfig(DCConfig):
    """Distil by DSA: DC from real images, augmented alike. The defaults are the paper's."""

    method: str = "dsa"
    init: str = "real"
    augment: str = "auto"


class DSA(DC):
    """DC whose real and synthetic images of a class go through one transform, drawn anew for every image step; the
    network is trained on synthetic images augmented one by one."""

    Config = DSAConfig
