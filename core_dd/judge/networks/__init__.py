"""Classifiers by name; every network has `forward(x)` (logits) and `features(x)` (input of the classifier layer)."""

import math
from collections.abc import Callable
from functools import partial
from types import MappingProxyType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from core_dd.errors import pick, require
from core_dd.judge.networks.convnet import ConvNet, variant

NETWORKS: MappingProxyType[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "convnet1": partial(ConvNet, depth=1),
        "convnet2": partial(ConvNet, depth=2),
        "convnet3": partial(ConvNet, depth=3),
        "convnet4": partial(ConvNet, depth=4),
        "convnet5": partial(ConvNet, depth=5),
        "convnet6": partial(ConvNet, depth=6),
    }
)
"""Networks by name; suffixes of `convnet.VARIANTS` change one option each: `convnet3_bn`, `convnet4_w256_maxpool`."""


def build_network(
    name: str, in_shape: tuple[int, int, int], num_classes: int, generator: torch.Generator | None = None
) -> nn.Module:
    """A freshly initialised network on the CPU.

    Args:
        name: a key of `NETWORKS`, plus suffixes.
        in_shape: (C, H, W) of the images.
        num_classes: number of outputs.
        generator: of the initial weights; None draws from torch's global generator.

    Raises:
        InputError: an unknown name or suffix, or images the network cannot take.
    """
    base, *suffixes = name.split("_")
    build = pick(NETWORKS, base, "network")
    require(len(in_shape) == 3 and min(in_shape) >= 1, f"in_shape must be (C, H, W), all >= 1, got {tuple(in_shape)}.")
    require(num_classes >= 1, f"num_classes must be >= 1, got {num_classes}.")
    options = {key: value for suffix in suffixes for key, value in variant(suffix).items()}
    with torch.device("meta"):  # allocated, not drawn: torch's global generator stays as it was
        net = build(in_shape, num_classes, **options)
    return reset(net.to_empty(device="cpu"), generator)


def interact(net: nn.Module) -> bool:
    """Whether one sample's features depend on the others of its batch (batch normalisation)."""
    return any(isinstance(module, _BatchNorm) for module in net.modules())


@torch.no_grad()
def reset(net: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Draw the weights of `net` anew, in place (a compiled graph of it stays valid), by torch's default initialisation.

    Convolutions and linear layers: weight and bias uniform in +-1/sqrt(fan_in). Normalisation: weight 1, bias 0,
    running statistics cleared. The draws are the same on every device when the generator is on the CPU.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in (module.weight, module.bias):
                drawn = torch.empty(parameter.shape, device=generator.device if generator else "cpu")
                parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.BatchNorm2d):
            module.reset_parameters()
        else:
            assert not any(True for _ in module.parameters(recurse=False)), f"reset does not know {type(module)}"
    return net
