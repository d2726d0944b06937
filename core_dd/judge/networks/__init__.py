"""Classifiers by name; every network has `forward(x)` (logits) and `features(x)` (input of the classifier layer)."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from core_dd.errors import pick, require
from core_dd.judge.networks.alexnet import AlexNet
from core_dd.judge.networks.convnet import ConvNet
from core_dd.judge.networks.densenet import DenseNet
from core_dd.judge.networks.foreign import ForeignNetwork, NetworkLike, is_foreign, maker, name_of
from core_dd.judge.networks.layers import uniform
from core_dd.judge.networks.lenet import LeNet
from core_dd.judge.networks.mlp import MLP
from core_dd.judge.networks.resnet import ResNet
from core_dd.judge.networks.vgg import VGG11
from core_dd.judge.networks.vit import ViT

NETWORKS: MappingProxyType[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "convnet1": partial(ConvNet, depth=1),
        "convnet2": partial(ConvNet, depth=2),
        "convnet3": partial(ConvNet, depth=3),
        "convnet4": partial(ConvNet, depth=4),
        "convnet5": partial(ConvNet, depth=5),
        "convnet6": partial(ConvNet, depth=6),
        "alexnet": AlexNet,
        "vgg11": VGG11,
        "resnet10": partial(ResNet, depths=(1, 1, 1, 1), width=None, norm="batch", he=True),
        "resnet18": ResNet,
        "resnet18_ap": partial(ResNet, pooled=True, side=4),
        "resnetap10": partial(ResNet, depths=(1, 1, 1, 1), width=None, pooled=True, he=True),
        "densenet121": DenseNet,
        "vit_tiny": ViT,
        "lenet": LeNet,
        "mlp": MLP,
    }
)
"""Networks by name, as the condensation literature defines them; suffixes of `VARIANTS` change one option each:
`convnet3_bn`, `convnet4_w256_maxpool`, `resnet18_bn`."""

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


def build_network(
    network: NetworkLike, in_shape: tuple[int, int, int], num_classes: int, generator: torch.Generator | None = None
) -> nn.Module:
    """A freshly initialised network on the CPU.

    Args:
        network: a key of `NETWORKS`, plus suffixes; `timm:NAME`, a model of timm without pretrained weights, adapted to
            small images; `package.module:function`, of your own, called with (in_shape, num_classes); or from Python
            such a function, or an `nn.Module`, of which a copy with new weights is made.
        in_shape: (C, H, W) of the images.
        num_classes: number of outputs.
        generator: of the initial weights; None draws from torch's global generator.

    Raises:
        InputError: an unknown name or suffix, or images the network cannot take.

    Examples:
        >>> import torch
        >>> net = build_network("convnet3", (3, 32, 32), 10, torch.Generator().manual_seed(0))
        >>> sum(p.numel() for p in net.parameters())
        320010
        >>> net(torch.rand(2, 3, 32, 32)).shape, net.features(torch.rand(2, 3, 32, 32)).shape
        (torch.Size([2, 10]), torch.Size([2, 2048]))
    """
    require(len(in_shape) == 3 and min(in_shape) >= 1, f"in_shape must be (C, H, W), all >= 1, got {tuple(in_shape)}.")
    require(num_classes >= 1, f"num_classes must be >= 1, got {num_classes}.")
    if not isinstance(network, str) or is_foreign(network):
        return ForeignNetwork(maker(network, tuple(in_shape), num_classes), generator)
    build, options = _named(network)
    with torch.device("meta"):  # allocated, not drawn: torch's global generator stays as it was
        net = build(in_shape, num_classes, **options)
    return reset(net.to_empty(device="cpu"), generator)


def _named(name: str) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """What builds the network of a name, and the options its suffixes stand for."""
    parts = name.split("_")
    count = next((i for i in range(len(parts), 0, -1) if "_".join(parts[:i]) in NETWORKS), 1)
    base, options = "_".join(parts[:count]), {}
    build = pick(NETWORKS, base, "network")
    known = inspect.signature(build).parameters
    for suffix in parts[count:]:
        for key, value in _variant(suffix).items():
            require(key in known, f"{base} has no {key} to choose: leave out '_{suffix}'.")
            options[key] = value
    return build, options


def _variant(suffix: str) -> dict[str, Any]:
    """The options one suffix of a name stands for.

    Raises:
        InputError: for an unknown suffix.
    """
    if suffix[:1] == "w" and suffix[1:].isdecimal():
        return {"width": int(suffix[1:])}
    return pick(VARIANTS, suffix, "network variant")


def require_shown(net: nn.Module, what: str, network: NetworkLike, use: str) -> None:
    """Refuse, for some use, a network without `features` or `activations`, as networks of other code may be.

    Raises:
        InputError: for such a network.
    """
    returned = {"features": "(N, D)", "activations": "([(N, C', H', W'), ...], (N, D))"}[what]
    require(
        callable(getattr(net, what, None)),
        f"{use} needs a network that shows its {what}: {name_of(network)} has no {what}(x), images (N, C, H, W) to "
        f"{returned}. Choose another, such as convnet3.",
    )


def interact(net: nn.Module) -> bool:
    """Whether one sample's features depend on the others of its batch (batch normalisation)."""
    return any(isinstance(module, _BatchNorm) for module in net.modules())


@torch.no_grad()
def reset(net: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Draw the weights of `net` anew, in place (a compiled graph of it stays valid).

    By torch's default initialisation: weight and bias of convolutions and linear layers uniform in +-1/sqrt(fan_in);
    normalisation: weight 1, bias 0, running statistics cleared. A module with a method `draw` draws by its own law: the
    convolutions of IDC's ResNets, a transformer's tokens, and networks of other code, which are made once more. The
    draws are the same on every device when the generator is on the CPU.
    """
    for module in net.modules():
        if hasattr(module, "draw"):
            module.draw(generator)
            if isinstance(module, ForeignNetwork):
                break  # all below is its own
        elif isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            uniform(module.weight, bound, generator)
            if module.bias is not None:
                uniform(module.bias, bound, generator)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.BatchNorm2d):
            module.reset_parameters()
        else:
            assert not any(True for _ in module.parameters(recurse=False)), f"reset does not know {type(module)}"
    return net
