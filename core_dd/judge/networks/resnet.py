"""ResNets of the condensation literature (He et al. 2016), with strides or with average pooling in their place.

ResNet-18 and ResNet-18-AP are those of DC, DSA and DM (Zhao et al. 2021); ResNet-10 and ResNetAP-10 those of IDC (Kim
et al. 2022), with narrower stages for images of CIFAR's shape and He's initialisation.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_dd.errors import pick, require
from core_dd.judge.networks.layers import NORMS, AvgPool, BlockNetwork, Shrink, normal, uniform

CIFAR = (3, 32, 32)


class HeConv(nn.Conv2d):
    """A convolution whose weights are drawn from N(0, 2 / (kernel^2 x channels out)): He et al.'s, by "fan out"."""

    def draw(self, generator: torch.Generator | None) -> None:
        """New weights, in place."""
        normal(self.weight, math.sqrt(2 / self.weight[:, 0].numel()), generator)
        if self.bias is not None:
            uniform(self.bias, 1 / math.sqrt(self.weight[0].numel()), generator)


def make_conv(before: int, after: int, kernel: int, stride: int, *, norm: str, he: bool) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1, with a bias where no norm follows."""
    kind = HeConv if he else nn.Conv2d
    return kind(before, after, kernel, stride, kernel // 2, bias=norm == "none")


class Residual(nn.Module):
    """Two 3x3 convolutions with norms beside a shortcut, the first of stride 1 or 2.

    Args:
        before, after: channels.
        stride: 2 halves the image and takes a 1x1 convolution into the shortcut.
        pooled: halve by average pooling after the first ReLU and in the shortcut, instead of by strides.
        norm, he: of all convolutions.
    """

    def __init__(self, before: int, after: int, stride: int, *, pooled: bool, norm: str, he: bool) -> None:
        super().__init__()
        options, pools = {"norm": norm, "he": he}, pooled and stride == 2
        step = 1 if pooled else stride
        self.conv1, self.norm1 = make_conv(before, after, 3, step, **options), NORMS[norm](after)
        self.pool = AvgPool() if pools else nn.Identity()
        self.conv2, self.norm2 = make_conv(after, after, 3, 1, **options), NORMS[norm](after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            shrink = [AvgPool()] if pools else []
            self.shortcut = nn.Sequential(make_conv(before, after, 1, step, **options), *shrink, NORMS[norm](after))

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) to (N, after, H / stride, W / stride)."""
        out = self.pool(F.relu(self.norm1(self.conv1(x))))
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


def stem(in_shape: tuple[int, int, int], width: int, *, pooled: bool, norm: str, he: bool) -> list[nn.Module]:
    """The first layers, by the size of the images as in IDC: up to 64 pixels a 3x3 convolution, up to 128 pixels the
    same and pooling by 2, above that a 7x7 convolution and pooling, by 4 together."""
    size, options = max(in_shape[1:]), {"norm": norm, "he": he}
    if size <= 128:
        conv, pools = make_conv(in_shape[0], width, 3, 1, **options), size > 64
        pool: nn.Module = AvgPool() if pooled else nn.MaxPool2d(3, 2, 1)
    else:
        conv, pools = make_conv(in_shape[0], width, 7, 1 if pooled else 2, **options), True
        pool = nn.AvgPool2d(4) if pooled else nn.MaxPool2d(3, 2, 1)
    return [conv, NORMS[norm](width), nn.ReLU(), *([pool] if pools else [])]


class ResNet(BlockNetwork):
    """A stem and four stages of basic blocks, of width, 2, 4 and 8 times that; then a linear classifier.

    It shows the output of each stage.

    Args:
        in_shape: (C, H, W) of the images.
        num_classes: width of the output.
        depths: blocks of each stage.
        width: channels of the first stage; None: 32 for images of CIFAR's shape, as IDC has it for its own, else 64.
        norm: a key of `layers.NORMS`.
        pooled: average pooling in place of strides.
        side: the classifier sees an average over the map, pooled to `side` x `side` positions at most. (DC's code
            averages over 4x4 positions, which are all that images of 32x32 leave.)
        he: He's initialisation of convolutions, else torch's default.

    Raises:
        InputError: an unknown norm, or images too small.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        *,
        depths: Sequence[int] = (2, 2, 2, 2),
        width: int | None = 64,
        norm: str = "instance",
        pooled: bool = False,
        side: int = 1,
        he: bool = False,
    ) -> None:
        super().__init__(in_shape)
        pick(NORMS, norm, "norm")
        width = width if width is not None else 32 if self.in_shape == CIFAR else 64
        require(width >= 1, f"width must be >= 1, got {width}.")
        require(norm != "group" or width % 4 == 0, f"group norm needs a width divisible by 4, got {width}.")
        options, before, blocks = {"pooled": pooled, "norm": norm, "he": he}, width, []
        for i, depth in enumerate(depths):
            stage = [] if i else stem(self.in_shape, width, **options)
            for j in range(depth):
                stage.append(Residual(before, width * 2**i, 2 if i and not j else 1, **options))
                before = width * 2**i
            blocks.append(nn.Sequential(*stage, nn.Identity()))
        self.blocks, self.neck = nn.Sequential(*blocks), nn.Sequential(Shrink(side), nn.Flatten())
        self.classifier = self.linear_on_map(before, side, num_classes)
