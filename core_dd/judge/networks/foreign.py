"""Networks of other code: a user's own, by dotted name or from Python, and those of timm."""

import copy
import hashlib
import importlib
import inspect
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core_dd.errors import InputError, brief, require
from core_dd.rng import drawn_by

NetworkLike = str | nn.Module | Callable[[tuple[int, int, int], int], nn.Module]
"""A network by name, a module that is an example of it, or a function of (in_shape, num_classes) that makes it."""

TIMM = "timm:"
"""What comes before the name of one of timm's models."""


class ForeignNetwork(nn.Module):
    """A network as other code makes it, with `features(x)` and `activations(x)` where it has them.

    Its weights are those that it is made with, from torch's global generator; with a generator, that decides what is
    drawn, and the global one stays as it was. Randomness from elsewhere (NumPy, Python) is not governed.

    Args:
        make: gives a new network, on the CPU.
        generator: of the weights; None: torch's global one.
    """

    def __init__(self, make: Callable[[], nn.Module], generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.make = make
        with drawn_by(generator):
            self.net = make()
        for name in ("features", "activations"):
            shown = getattr(self.net, name, None)
            if callable(shown) and not isinstance(shown, nn.Module):
                setattr(self, name, shown)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in training space to logits (N, K)."""
        return self.net(x)

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the weights anew, in place, by making another."""
        with drawn_by(generator):
            self.net.load_state_dict(self.make().state_dict())


def is_foreign(name: str) -> bool:
    """Whether a network's name leads to other people's code, which may change under it: what is made with it is not
    kept for later."""
    return ":" in name


def source_of(name: str) -> str:
    """What code a foreign network's name leads to now: the version of timm, or 16 hex digits of the file that defines
    the function, empty where there is none.

    Raises:
        InputError: a name that leads to nothing.
    """
    if name.startswith(TIMM):
        return f"timm {version('timm')}"
    try:
        file = inspect.getsourcefile(inspect.unwrap(_imported(name)))
    except TypeError:
        file = None
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=8).hexdigest() if file else ""


def name_of(network: NetworkLike) -> str:
    """What records call a network: its name, else where its class or function is defined."""
    if isinstance(network, str):
        return network
    network = network.func if isinstance(network, partial) else network
    known = network if hasattr(network, "__qualname__") else type(network)
    return f"{known.__module__}:{known.__qualname__}"


def maker(network: NetworkLike, in_shape: tuple[int, int, int], num_classes: int) -> Callable[[], nn.Module]:
    """What makes a network for images (C, H, W), each time with new weights.

    Raises:
        InputError: a name that leads to nothing. When it is called: code that fails, a module whose weights cannot be
            drawn anew, or outputs that are not (N, num_classes).
    """
    name = name_of(network)
    if isinstance(network, nn.Module):
        make: Callable[[], nn.Module] = partial(_redrawn, network, name)
    elif isinstance(network, str) and network.startswith(TIMM):
        from core_dd.judge.networks.timm_models import timm_model  # which imports timm

        make = partial(timm_model, network.removeprefix(TIMM), in_shape, num_classes)
    else:
        function = _imported(network) if isinstance(network, str) else network
        require(callable(function), f"network {name} is no function of (in_shape, num_classes), and no nn.Module.")
        make = partial(_called, function, name, in_shape, num_classes)
    return partial(_checked, make, name, in_shape, num_classes)


def _imported(name: str) -> Any:
    """What a dotted name stands for; its module is imported, so the name must be the user's."""
    place, _, attribute = name.partition(":")
    how = "Give package.module:function of a package that is installed or on PYTHONPATH, or timm:NAME."
    try:
        require(bool(place and attribute) and not place.startswith("."), f"'{name}' is no name of a network. {how}")
        found = importlib.import_module(place)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InputError(f"cannot find network {name} ({error}). {how}") from error
    return found


def _called(function: Callable, name: str, in_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """What a user's function gives."""
    try:
        net = function(in_shape, num_classes)
    except Exception as error:  # the user's code may raise anything
        said = f"{type(error).__name__}: {brief(str(error))}"
        raise InputError(f"network {name}, called with ({in_shape}, {num_classes}), failed ({said}).") from error
    require(isinstance(net, nn.Module), f"network {name} gave a {type(net).__name__}, expected an nn.Module.")
    return net


@torch.no_grad()
def _redrawn(example: nn.Module, name: str) -> nn.Module:
    """A copy of a module, on the CPU, with new weights."""
    net = copy.deepcopy(example).cpu()
    for module in net.modules():
        redraw = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if redraw is not None:
            redraw()
        own = [key for key, _ in module.named_parameters(recurse=False)]
        require(
            not own or redraw is not None,
            f"the weights of {name} cannot be drawn anew: {type(module).__name__} has {', '.join(own)} and no "
            "reset_parameters(). Give a function of (in_shape, num_classes) that makes the network.",
        )
    return net


def _checked(make: Callable[[], nn.Module], name: str, in_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A network that was seen to classify images of this shape, in training mode."""
    net = make()
    try:
        with torch.no_grad():
            logits = net.eval()(torch.zeros(2, *in_shape))
    except Exception as error:  # other people's code may raise anything
        said = f"{type(error).__name__}: {brief(str(error))}"
        raise InputError(f"network {name} cannot take images of shape {in_shape} ({said}).") from error
    made = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    require(
        made == (2, num_classes),
        f"network {name} makes {made} of 2 images, expected logits of shape (2, {num_classes}).",
    )
    return net.train()
