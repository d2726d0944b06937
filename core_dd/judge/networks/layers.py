"""What the networks are made of: norms, activations, poolings, draws, and blocks that show what they compute."""

import math
from collections.abc import Callable
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from core_dd.errors import require


class AvgPool(nn.Module):
    """2x2 average pooling, an odd last row or column left out."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H // 2, W // 2)."""
        height, width = x.shape[2] // 2, x.shape[3] // 2
        if torch.compiler.is_compiling():  # which fuses a mean, and its gradient, better
            return x[:, :, : 2 * height, : 2 * width].unflatten(3, (width, 2)).unflatten(2, (height, 2)).mean((3, 5))
        if x.device.type == "cpu" and x.dtype.itemsize >= 4 and x.is_contiguous():  # in a third of avg_pool2d's time
            rows = x[:, :, 0 : 2 * height : 2] + x[:, :, 1 : 2 * height : 2]
            return (rows[..., 0 : 2 * width : 2] + rows[..., 1 : 2 * width : 2]) / 4
        return F.avg_pool2d(x, 2)


class Shrink(nn.Module):
    """Average pooling of larger maps to `side` x `side`; a map that is no longer in one direction keeps it.

    The published networks are written for one image size and flatten the map that it leaves. This gives larger images
    the same classifier layer.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, min(H, side), min(W, side))."""
        size = [min(length, self.side) for length in x.shape[2:]]
        return x if list(x.shape[2:]) == size else F.adaptive_avg_pool2d(x, size)


NORMS: MappingProxyType[str, Callable[[int], nn.Module]] = MappingProxyType(
    {
        "none": lambda channels: nn.Identity(),
        "batch": nn.BatchNorm2d,
        "instance": lambda channels: nn.GroupNorm(channels, channels),  # as published: affine, alike in evaluation
        "group": lambda channels: nn.GroupNorm(4, channels),
    }
)
"""Normalisation layers by name, each built from the number of channels."""

POOLS = MappingProxyType({"none": nn.Identity, "avg": AvgPool, "max": lambda: nn.MaxPool2d(2)})
"""Pooling layers by name."""

ACTIVATIONS = MappingProxyType({"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "leakyrelu": lambda: nn.LeakyReLU(0.01)})
"""Activations by name."""


class Network(nn.Module):
    """A classifier of images of one shape: `features`, and on them a linear layer `classifier`, which it must set.

    Args:
        in_shape: (C, H, W) of the images.
    """

    classifier: nn.Linear

    def __init__(self, in_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.in_shape = tuple(in_shape)

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in training space to (N, D), the input of the classifier layer."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in training space to logits (N, K)."""
        return self.classifier(self.features(x))

    def check(self, x: Tensor) -> None:
        """Refuse images of another shape.

        Raises:
            InputError: for those.
        """
        require(
            tuple(x.shape[1:]) == self.in_shape,
            f"the network was built for images of shape {self.in_shape}, got {tuple(x.shape[1:])}.",
        )


SHORTCUT = ".shortcut"
"""In names: the layers of a block that stand beside the others, not after them."""


class BlockNetwork(Network):
    """`blocks` one after the other, then `neck`, which makes features of the last map.

    Each block is a `nn.Sequential` whose last layer is its pooling (`nn.Identity` for none): what comes before it is
    what the block shows.
    """

    blocks: nn.Sequential
    neck: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in training space to (N, D), the input of the classifier layer."""
        self.check(x)
        return self.neck(self.blocks(x))

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The output of each block before its pooling, (N, C', H', W'); and `features(x)`."""
        self.check(x)
        outputs = []
        for block in self.blocks:
            assert isinstance(block, nn.Sequential)
            *layers, pool = block
            for layer in layers:
                x = layer(x)
            outputs.append(x)
            x = pool(x)
        return outputs, self.neck(x)

    def linear_on_map(self, channels: int, side: int, out: int) -> nn.Linear:
        """A linear layer to `out` features on the last map, of so many channels, after `Shrink(side)` and flattening.

        Raises:
            InputError: if the images are too small to leave a map, or leave an instance norm a single position, of
                which it makes zero.
        """
        size, shown = list(self.in_shape[1:]), "x".join(map(str, self.in_shape[1:]))
        small = f"images of {shown} are too small for {type(self).__name__}"
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and SHORTCUT not in name:
                lengths = zip(size, *map(_pair, (module.kernel_size, module.stride, module.padding)), strict=True)
                size = [(length + 2 * padding - kernel) // stride + 1 for length, kernel, stride, padding in lengths]
            elif isinstance(module, AvgPool) and SHORTCUT not in name:
                size = [length // 2 for length in size]
            require(min(size) >= 1, f"{small}. Use larger ones (image_size).")
            require(
                size != [1, 1] or not isinstance(module, nn.GroupNorm) or module.num_groups < module.num_channels,
                f"{small}: its instance norm would see single positions. Use larger ones (image_size), or suffix _bn.",
            )
        return nn.Linear(channels * math.prod(min(length, side) for length in size), out)


def uniform(parameter: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Draw a parameter anew, in place, from +-bound; the same on every device if the generator is on the CPU."""
    drawn = torch.empty(parameter.shape, device=generator.device if generator else "cpu")
    parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))


def normal(parameter: Tensor, std: float, generator: torch.Generator | None) -> None:
    """Likewise, from N(0, std^2)."""
    drawn = torch.empty(parameter.shape, device=generator.device if generator else "cpu")
    parameter.copy_(drawn.normal_(0, std, generator=generator))
