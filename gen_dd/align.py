"""Representation alignment (REPA; Yu et al., "Representation Alignment for Generation", ICLR 2025,
https://arxiv.org/abs/2410.06940): the tokens in the middle of a diffusion transformer learn what a pretrained encoder
makes of the clean image at their places.

The encoder is EfficientNet-Lite0, whose weights come as a package (`gendd[features]`), where the paper has DINOv2.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from core_dd.judge.lite import load_lite, prepared


class LiteEncoder:
    """What EfficientNet-Lite0 sees where: maps of 112 channels, 6x6 of images up to 96 pixels, else 14x14.

    Raises:
        InputError: its weights are not installed, or damaged.
    """

    def __init__(self) -> None:
        self.net = load_lite(torch.device("cpu"))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Of images (N, 1 or 3, H, W) in [-1, 1]: (N, 112, h, w), float32."""
        self.net.to(images.device)
        return self.net.maps(prepared((images.float() + 1) * 127.5)).float()


def misaligned(tokens: Tensor, maps: Tensor) -> Tensor:
    """1 - the mean cosine of tokens and the encoder's features at their places: (B,), in [0, 2] (equation 8 with cosine
    similarity, up to its constant).

    Args:
        tokens: of a square grid of L patches, projected, (B, L, D).
        maps: features of the same images, (B, D, h, w), brought to that grid (bilinear).
    """
    side = math.isqrt(tokens.shape[1])
    places = F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
    return 1 - F.cosine_similarity(tokens.float(), places.flatten(2).mT, dim=-1).mean(1)
