"""What a U-ViT is trained with and saved without: a condition of augmented images, dropout, an early prediction.

The samplers know nothing of it: without its scaffold the network is the plain one, which is told of no transform, drops
nothing and predicts once.
"""

import torch
from torch import Tensor, nn

from gen_dd.augment import CONDITIONS
from gen_dd.dropout import Dropout
from gen_dd.options import TrainConfig
from gen_dd.uvit import UViT, unpatchify


def make_aids(model: UViT, config: TrainConfig, generator: torch.Generator) -> nn.ModuleDict:
    """The layers beside the network that a training wants; none for one that wants none.

    "augment" maps a condition to what is added to the time's token (as EDM adds it to its embedding of the noise), at
    first 0. "supervise" predicts the noise from the tokens of the middle block.

    Args:
        model: the network.
        config: of the training.
        generator: of the first weights.
    """
    aids, width = nn.ModuleDict(), model.config.hidden_size
    if config.augment:
        aids["augment"] = nn.utils.skip_init(nn.Linear, CONDITIONS, width, bias=False)
        nn.init.zeros_(aids["augment"].weight)
    if config.supervise:
        last = nn.utils.skip_init(nn.Linear, width, model.decoder_pred.out_features)
        nn.init.trunc_normal_(last.weight, std=0.02, generator=generator)
        nn.init.zeros_(last.bias)
        aids["supervise"] = nn.Sequential(nn.LayerNorm(width), last)
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

    def forward(
        self, sample: Tensor, timestep: Tensor, labels: Tensor, conditions: Tensor, keys: Tensor
    ) -> tuple[Tensor, ...]:
        """The network's prediction of the noise, and the middle block's where that is supervised: (B, C, H, W) each.

        Args:
            sample, timestep, labels: see `UViT.forward`.
            conditions: what augmentation did to the images (`gen_dd.augment`), (B, 9), or (B, 0) without.
            keys: of the dropout's masks, int32 (B,).
        """
        told = self.aids["augment"](conditions) if "augment" in self.aids else None
        dropout = Dropout(self.dropout, keys) if self.dropout else None
        predicted, middle = self.model.traced(sample, timestep, labels, told, dropout)
        if "supervise" not in self.aids:
            return (predicted,)
        patches = self.aids["supervise"](middle[:, self.model.extra_tokens :])
        return predicted, unpatchify(patches, self.model.config.patch_size).to(sample.dtype)
