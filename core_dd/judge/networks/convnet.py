"""ConvNet-D, the network of the dataset-distillation literature (Gidaris & Komodakis 2018; Zhao et al. 2021)."""

from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_dd.errors import InputError, pick, require


class AvgPool(nn.Module):
    """2x2 average pooling, an odd last row or column left out."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H // 2, W // 2)."""
        if not torch.compiler.is_compiling():
            return F.avg_pool2d(x, 2)
        height, width = x.shape[2] // 2, x.shape[3] // 2  # the compiler fuses a mean, and its gradient, better
        return x[:, :, : 2 * height, : 2 * width].unflatten(3, (width, 2)).unflatten(2, (height, 2)).mean((3, 5))


NORMS = MappingProxyType(
    {
        "none": lambda c, h, w: nn.Identity(),
        "batch": lambda c, h, w: nn.BatchNorm2d(c),
        "instance": lambda c, h, w: nn.GroupNorm(c, c),  # as published: affine, the same in training and evaluation
        "group": lambda c, h, w: nn.GroupNorm(4, c),
        "layer": lambda c, h, w: nn.LayerNorm((c, h, w)),
    }
)
"""Normalisation layers by name, each built from the shape (C, H, W) before pooling."""

POOLS = MappingProxyType({"none": nn.Identity, "avg": AvgPool, "max": lambda: nn.MaxPool2d(2)})
"""Pooling layers by name."""

ACTIVATIONS = MappingProxyType({"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "leakyrelu": lambda: nn.LeakyReLU(0.01)})
"""Activations by name."""

VARIANTS = MappingProxyType(
    {
        "nonorm": {"norm": "none"},
        "bn": {"norm": "batch"},
        "in": {"norm": "instance"},
        "gn": {"norm": "group"},
        "ln": {"norm": "layer"},
        "nopool": {"pool": "none"},
        "avgpool": {"pool": "avg"},
        "maxpool": {"pool": "max"},
        "relu": {"act": "relu"},
        "sigmoid": {"act": "sigmoid"},
        "leakyrelu": {"act": "leakyrelu"},
    }
)
"""What a suffix of a network's name changes; `w` and a number sets the width, as in `convnet3_bn_w256`."""


def variant(suffix: str) -> dict[str, Any]:
    """The options one suffix of a name stands for.

    Raises:
        InputError: for an unknown suffix.
    """
    if suffix[:1] == "w" and suffix[1:].isdecimal():
        return {"width": int(suffix[1:])}
    return pick(VARIANTS, suffix, "network variant")


class ConvNet(nn.Module):
    """`depth` blocks of [3x3 convolution, norm, activation, 2x2 pooling], then a linear classifier.

    Args:
        in_shape: (C, H, W) of the images. With one channel the first convolution pads by 3, which adds 4 pixels to each
            side: 28x28 becomes 32x32, as published.
        num_classes: width of the output.
        depth, width: blocks, and channels of each.
        norm, act, pool: keys of `NORMS`, `ACTIVATIONS`, `POOLS`.

    Raises:
        InputError: an unknown key, or images too small to be pooled `depth` times.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        *,
        depth: int = 3,
        width: int = 128,
        norm: str = "instance",
        act: str = "relu",
        pool: str = "avg",
    ) -> None:
        super().__init__()
        require(depth >= 1 and width >= 1, f"depth and width must be >= 1, got {depth} and {width}.")
        require(norm != "group" or width % 4 == 0, f"group norm needs a width divisible by 4, got {width}.")
        make_norm, make_act = pick(NORMS, norm, "norm"), pick(ACTIVATIONS, act, "activation")
        make_pool, halves = pick(POOLS, pool, "pooling"), pool != "none"
        self.in_shape = tuple(in_shape)
        channels, height, side = self.in_shape
        blocks = []
        for i in range(depth):
            padding = 3 if i == 0 and channels == 1 else 1
            height, side = height + 2 * padding - 2, side + 2 * padding - 2
            if min(height, side) < (2 if halves else 1):
                raise InputError(
                    f"images of {in_shape[1]}x{in_shape[2]} are too small for {depth} poolings. "
                    f"Use at most convnet{i}, or larger images (image_size)."
                )
            conv = nn.Conv2d(width if i else channels, width, 3, padding=padding)
            blocks.append(nn.Sequential(conv, make_norm(width, height, side), make_act(), make_pool()))
            height, side = (height // 2, side // 2) if halves else (height, side)
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * height * side, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in training space to (N, D): the last block's output, flattened channel-major."""
        self._check(x)
        return self.blocks(x).flatten(1)

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The output of each block's activation, before its pooling, (N, width, H', W'); and `features(x)`."""
        self._check(x)
        outputs = []
        for *layers, pool in self.blocks:
            for layer in layers:
                x = layer(x)
            outputs.append(x)
            x = pool(x)
        return outputs, x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in training space to logits (N, K)."""
        return self.classifier(self.features(x))

    def _check(self, x: Tensor) -> None:
        require(
            tuple(x.shape[1:]) == self.in_shape,
            f"the network was built for images of shape {self.in_shape}, got {tuple(x.shape[1:])}.",
        )
