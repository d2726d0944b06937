"""What a U-ViT is trained with and saved without: a condition of augmented images, dropout, what its middle block is to
know.

The samplers know nothing of it: without its scaffold the network is the plain one, which is told of no transform, drops
nothing and predicts once.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from core_dd.judge.lite import MAPS_WIDTH
from gen_dd.augment import CONDITIONS
from gen_dd.dropout import Dropout
from gen_dd.options import TrainConfig
from gen_dd.uvit import UViT, unpatchify


class Predicted(NamedTuple):
    """What a U-ViT in its scaffold says of noisy images (B, C, H, W).

    Attributes:
        noise: like the images.
        early: the noise again, by the middle block, where that is supervised.
        aligned: what the middle block's L tokens are projected to, (B, L, 112), where they are aligned.
    """

    noise: Tensor
    early: Tensor | None = None
    aligned: Tensor | None = None


def make_aids(model: UViT, config: TrainConfig, generator: torch.Generator) -> nn.ModuleDict:
    """The layers beside the network that a training wants; none for one that wants none.

    "augment" maps a condition to what is added to the time's token (as EDM adds it to its embedding of the noise), at
    first 0. "supervise" predicts the noise from the tokens of the middle block, "align" what an encoder makes of the
    image there (REPA's three layers with SiLU, normalised before).

    Args:
        model: the network.
        config: of the training.
        generator: of the first weights.
    """
    aids, width = nn.ModuleDict(), model.config.hidden_size

    def linear(inputs: int, outputs: int) -> nn.Linear:
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
        nn.init.zeros_(layer.bias)
        return layer

    if config.augment:
        aids["augment"] = nn.utils.skip_init(nn.Linear, CONDITIONS, width, bias=False)
        nn.init.zeros_(aids["augment"].weight)
    if config.supervise:
        aids["supervise"] = nn.Sequential(nn.LayerNorm(width), linear(width, model.decoder_pred.out_features))
    if config.align:
        inner = 4 * width
        layers = linear(width, inner), nn.SiLU(), linear(inner, inner), nn.SiLU(), linear(inner, MAPS_WIDTH)
        aids["align"] = nn.Sequential(nn.LayerNorm(width), *layers)
    return aids


class Scaffold(nn.Module):
    """A U-ViT with its aids: see `make_aids`.

    Args:
        model: the network.
        aids: the layers beside it.
        dropout: probability that a value of a branch is dropped.
    """

    def __init__(self, model: UViT, aids: nn.ModuleDict, dropout: float) -> None:
        super().__init__()
        self.model, self.aids, self.dropout = model, aids, dropout

    def forward(self, sample: Tensor, timestep: Tensor, labels: Tensor, conditions: Tensor, keys: Tensor) -> Predicted:
        """The network's prediction of the noise, and what its aids say.

        Args:
            sample, timestep, labels: see `UViT.forward`.
            conditions: what augmentation did to the images (`gen_dd.augment`), (B, 9), or (B, 0) without.
            keys: of the dropout's masks, int32 (B,).
        """
        told = self.aids["augment"](conditions) if "augment" in self.aids else None
        dropout = Dropout(self.dropout, keys) if self.dropout else None
        noise, middle = self.model.traced(sample, timestep, labels, told, dropout)
        middle, early, aligned = middle[:, self.model.extra_tokens :], None, None
        if "supervise" in self.aids:
            early = unpatchify(self.aids["supervise"](middle), self.model.config.patch_size).to(sample.dtype)
        if "align" in self.aids:
            aligned = self.aids["align"](middle)
        return Predicted(noise, early, aligned)
