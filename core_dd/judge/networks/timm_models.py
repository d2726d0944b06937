"""Models of timm (https://github.com/huggingface/pytorch-image-models), untrained, adapted to small images."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import timm
from torch import Tensor, nn

from core_dd.errors import InputError, brief, likely, needed, require
from core_dd.notes import note

SMALL = 64
"""Pixels per side up to which a stem for 224 pixels leaves too little: images of CIFAR and Tiny-ImageNet."""

POOLS = ("maxpool", "features.pool0", "stem.pool")
"""Where the convolutional models have the pooling of their stem: ResNets, DenseNets, pre-activation ResNets."""

say = cache(note)
"""A note, once however often a model is made."""


class TimmModel(nn.Module):
    """One of timm's models as the judge sees it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in training space to (N, D): what timm pools, before the classifier layer."""
        return self.net.forward_head(self.net.forward_features(x), pre_logits=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in training space to logits (N, K)."""
        return self.net(x)


def timm_model(name: str, in_shape: tuple[int, int, int], num_classes: int) -> TimmModel:
    """A model without pretrained weights, drawn from torch's global generator; nothing is downloaded.

    For images of up to `SMALL` pixels the first convolution of a convolutional model gets stride 1 (and 3x3 weights, if
    it had more) and its max pooling is left out, as the distillation literature does with torchvision's; a model of
    patches gets patches of 4, or of 2 or 1 where 4 leave fewer than 7 per side. Both are said once.

    Args:
        name: as timm.list_models() has it.
        in_shape: (C, H, W) of the images.
        num_classes: number of outputs.

    Raises:
        InputError: an unknown name, or a model that cannot be built for this size.
    """
    require(
        timm.is_model(name),
        f"timm has no model '{name}'{likely(name, timm.list_models())} List them: "
        "python -c 'import timm; print(timm.list_models())'.",
    )
    channels, *size = in_shape
    shown, small = "x".join(map(str, size)), max(size) <= SMALL
    try:
        own = timm.get_pretrained_cfg(name)
        in_patches, meant = own is not None and own.fixed_input_size, own.input_size[1] if own else 224
        options: dict[str, Any] = {"img_size": tuple(size)} if in_patches else {}
        if in_patches and small:
            options["patch_size"] = _patch(size)
        net = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=num_classes, **options)
    except Exception as error:  # timm's models raise anything for sizes they do not take
        said = f"{type(error).__name__}: {brief(str(error))}"
        raise InputError(
            f"timm:{name} cannot be built for images of {shown} ({said}). Choose another, or another image_size."
        ) from error
    if small:
        changes = [f"it sees them in patches of {_patch(size)}"] if in_patches else _adapt_stem(net, own, name, shown)
        if changes:
            say(f"note: timm:{name} is made for {meant} pixels; for images of {shown} {' and '.join(changes)}.")
    return TimmModel(net)


def _patch(size: Sequence[int]) -> int:
    """The side of patches for small images."""
    return next(p for p in (4, 2, 1) if p == 1 or all(side % p == 0 and side // p >= 7 for side in size))


def _adapt_stem(net: nn.Module, own: object, name: str, shown: str) -> list[str]:
    """Take the strides away from the first layers of a convolutional model, in place; says what was done."""
    first = getattr(own, "first_conv", None)
    first = first if isinstance(first, str) or first is None else first[0]
    found = net.get_submodule(first) if first else None
    conv = needed(
        found if isinstance(found, nn.Conv2d) else None,
        f"how to adapt the first layers of timm:{name} to images of {shown} is not known. Choose another network, or "
        f"more than {SMALL} pixels (image_size).",
    )
    changes = []
    if conv.stride != (1, 1):
        if type(conv) is nn.Conv2d and max(conv.kernel_size) > 3:
            bias = conv.bias is not None
            net.set_submodule(first, nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=bias))
            changes.append("its first convolution is 3x3 of stride 1")
        else:
            conv.stride = (1, 1)
            changes.append("its first convolution has stride 1")
    for place in POOLS:
        try:
            net.get_submodule(place)
        except AttributeError:
            continue
        net.set_submodule(place, nn.Identity())
        changes.append("its max pooling is left out")
    return changes
