"""DenseNet-121 for small images (Huang et al. 2017; as in the code of IDC, Kim et al. 2022)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_dd.errors import pick, require
from core_dd.judge.networks.layers import NORMS, BlockNetwork, Shrink

DEPTHS = (6, 12, 24, 16)
"""Layers of each dense block."""


class Dense(nn.Module):
    """A layer that adds `growth` channels to those it is given: norm, ReLU, 1x1 and norm, ReLU, 3x3 convolution."""

    def __init__(self, before: int, growth: int, norm: str) -> None:
        super().__init__()
        self.norm1, self.conv1 = NORMS[norm](before), nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = NORMS[norm](4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) to (N, growth + before, H, W), the new channels first."""
        out = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([self.conv2(F.relu(self.norm2(out))), x], 1)


class DenseNet(BlockNetwork):
    """A 3x3 convolution, four dense blocks with transitions that halve channels and size, a linear classifier.

    It shows the output of each dense block, of the last after its norm and ReLU. The classifier sees the average over
    positions.

    Args:
        in_shape: (C, H, W) of the images.
        num_classes: width of the output.
        width: channels that each layer adds. IDC judges by 12 (1.0 million parameters, "DenseNet" there and
            "DenseNet-121" in papers after it); the DenseNet-121 of Huang et al. has 32.
        norm: a key of `layers.NORMS`.

    Raises:
        InputError: an unknown norm, or images too small.
    """

    def __init__(
        self, in_shape: tuple[int, int, int], num_classes: int, *, width: int = 12, norm: str = "batch"
    ) -> None:
        super().__init__(in_shape)
        make_norm, channels = pick(NORMS, norm, "norm"), 2 * width
        require(width >= 1, f"width must be >= 1, got {width}.")
        require(norm != "group" or width % 4 == 0, f"group norm needs a width divisible by 4, got {width}.")
        blocks = []
        for i, depth in enumerate(DEPTHS):
            layers: list[nn.Module] = [] if i else [nn.Conv2d(self.in_shape[0], channels, 3, padding=1, bias=False)]
            layers += [Dense(channels + j * width, width, norm) for j in range(depth)]
            channels += depth * width
            normed = make_norm(channels), nn.ReLU()
            if i == len(DEPTHS) - 1:
                blocks.append(nn.Sequential(*layers, *normed, nn.Identity()))
                break
            halved = nn.Conv2d(channels, channels // 2, 1, bias=False)
            blocks.append(nn.Sequential(*layers, nn.Sequential(*normed, halved, nn.AvgPool2d(2))))
            channels //= 2
        self.blocks, self.neck = nn.Sequential(*blocks), nn.Sequential(Shrink(1), nn.Flatten())
        self.classifier = self.linear_on_map(channels, 1, num_classes)
