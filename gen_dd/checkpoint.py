"""Official U-ViT weights to ours: the sizes are read off the shapes, what does not fit is dropped or made anew."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core_dd.data.readers import load_tensors
from core_dd.errors import InputError, needed, require
from core_dd.notes import note
from core_dd.wrappers import unwrapped
from gen_dd.uvit import UViT, blank, fill

_OFFICIAL_HEADS = {512: 8, 768: 12, 1024: 16, 1152: 16}
"""Attention heads by width: the one thing the official files' shapes do not tell."""

_NESTS = (
    *("ema", "ema_model", "model_ema", "nnet_ema"),
    *("state_dict", "model_state_dict", "model", "network", "net", "nnet"),
)
"""Where a checkpoint of more than a network keeps that, as an entry or before the names of its tensors; the averaged
weights first."""


@dataclass
class _Report:
    """Which entries of a checkpoint were kept, dropped, which of the network are new, with the reason, and what else
    must be known."""

    kept: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"kept {len(self.kept)} tensors as they are"]
        lines += [f"dropped {name}: {why}" for name, why in self.dropped.items()]
        lines += [f"new {name}: {why}" for name, why in self.new.items()]
        return "\n".join([*lines, *self.notes])


def load_official(
    path: str | Path,
    num_classes: int | None,
    drop_labels: bool = True,
    image_size: int | None = None,
    generator: torch.Generator | None = None,
    num_heads: int | None = None,
) -> UViT:
    """A `UViT` with the weights of an official checkpoint (`cifar10_uvit_small.pth`, `imagenet64_uvit_mid.pth`, ...).

    Args:
        path: a state_dict, read with `weights_only=True`; bare, or inside the dict of a training (of 'ema' rather than
            'model', where both are there), and as a compiled or data-parallel network names its tensors, too.
        num_classes: K of the network to make; None makes an unconditional one.
        drop_labels: draw a new label embedding; False keeps the file's (its classes must be the first K, with or
            without a null row after them).
        image_size: side of the images to make; None keeps the file's. Another one resizes the patches' positions.
        generator: of what is drawn anew; None draws from torch's global generator.
        num_heads: attention heads, which the file does not tell; None takes those of the official network of that
            width, for another width one for every 64 channels.

    Returns:
        The network in evaluation mode. What was kept, dropped and made anew is printed on stderr.

    Raises:
        InputError: a damaged file, a pickle that wants to run code, a file of another architecture, weights that are
            not finite, or heads that do not divide the width.
    """
    found, nest = _find_network(load_tensors(Path(path)))
    state = needed(
        found,
        f"{path} holds no U-ViT: expected a state_dict with pos_embed, patch_embed.proj.weight, in_blocks.* ...",
    )
    check_weights(state, str(path))
    model, report = adapt(state, num_classes, drop_labels, image_size, generator, str(path), num_heads)
    if nest:
        report.notes.append(f"read from '{nest}' in the file")
    note(f"{path}:\n{report}")
    return model.eval()


def _find_network(content: Any, nest: str = "") -> tuple[dict[str, Any] | None, str]:
    """A U-ViT's state_dict in what a file holds, its names `unwrapped`, and in which of `_NESTS` it was found.

    Returns:
        (None, "") where there is none.
    """
    if not isinstance(content, Mapping) or nest.count(".") > 3:
        return None, ""
    state = unwrapped(content)
    if {"pos_embed", "patch_embed.proj.weight"} <= state.keys():
        state.pop("n_averaged", None)  # beside the weights that torch.optim.swa_utils averages
        return state, nest
    found = (_find_network(_inside(content, name), f"{nest}.{name}".lstrip(".")) for name in _NESTS)
    return next((each for each in found if each[0] is not None), (None, ""))


def _inside(content: Mapping[Any, Any], name: str) -> Any:
    """What a dict has under a name, or under names that begin with it and a dot; None where there is nothing."""
    if name in content:
        return content[name]
    return {
        str(key).removeprefix(f"{name}."): content[key] for key in content if str(key).startswith(f"{name}.")
    } or None


def check_weights(state: Mapping[str, Any], where: str) -> None:
    """Refuse what cannot be a network's weights.

    Raises:
        InputError: no tensor, or one that is not of floating point, has no values, or values that are not finite.
    """
    for name, tensor in state.items():
        require(
            isinstance(tensor, Tensor) and tensor.dtype in _FLOATS and _is_dense(tensor),
            f"{where} holds no U-ViT: its {name} is {getattr(tensor, 'dtype', type(tensor).__name__)}, expected a "
            "dense tensor of floats.",
        )
        require(
            bool(torch.isfinite(tensor).all()),
            f"{where} is damaged or its training diverged: {name} has values that are not finite. Take an earlier "
            "checkpoint, or train again at a lower learning rate.",
        )


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_nested


_FLOATS = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})


def adapt(
    state: dict[str, Tensor],
    num_classes: int | None,
    drop_labels: bool = True,
    image_size: int | None = None,
    generator: torch.Generator | None = None,
    where: str = "the checkpoint",
    num_heads: int | None = None,
) -> tuple[UViT, _Report]:
    """Build the network a state_dict belongs to, for other labels or images where asked; see `load_official`.

    `num_heads` is what shapes do not tell; None takes the official network's of that width.
    """
    state, config, report = dict(state), infer_config(state, where), _Report()
    if num_heads is None:
        report.notes.append(
            f"guessed num_heads {config['num_heads']} from the width {config['hidden_size']}, as the file does not "
            "tell; pass num_heads if it was trained with others"
        )
    else:
        config["num_heads"] = num_heads
    labels = state.pop("label_emb.weight", None)
    old_side, old_extra = config["image_size"] // config["patch_size"], 1 if labels is None else 2
    size = config["image_size"] if image_size is None else image_size
    model = blank(**config | {"num_classes": num_classes, "image_size": size})

    new_side = model.config.image_size // config["patch_size"]
    state["pos_embed"] = _positions(state["pos_embed"], old_extra, old_side, model, new_side, generator, report)
    if num_classes is not None:
        rows = torch.randn(num_classes + 1, config["hidden_size"], generator=generator)
        state["label_emb.weight"] = _labels(labels, rows, num_classes, drop_labels, where, report)
    elif labels is not None:
        report.dropped["label_emb.weight"] = "the network is unconditional"

    try:
        wrong = fill(model, state, strict=False)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300]
        raise InputError(f"{where} is no U-ViT of this kind ({why}).") from None
    require(
        not wrong.missing_keys and not wrong.unexpected_keys,
        f"{where} is no U-ViT of this kind: missing {wrong.missing_keys[:3]}, unknown {wrong.unexpected_keys[:3]}.",
    )
    report.kept = [name for name in state if name not in report.new]
    model.register_to_config(null_trained="label_emb.weight" not in report.new)
    return model, report


def infer_config(state: Mapping[str, Tensor], where: str = "the checkpoint") -> dict:
    """The constructor arguments of the network a state_dict belongs to, read off its shapes (labels left out).

    Raises:
        InputError: if the shapes fit no U-ViT.
    """
    try:
        width, channels, patch, _ = state["patch_embed.proj.weight"].shape
        extra = 2 if "label_emb.weight" in state else 1
        side = math.isqrt(state["pos_embed"].shape[1] - extra)
        config = {
            "image_size": side * patch,
            "patch_size": patch,
            "in_channels": channels,
            "hidden_size": width,
            "depth": 2 * len({name.split(".")[1] for name in state if name.startswith("in_blocks.")}),
            "num_heads": _OFFICIAL_HEADS.get(width) or guessed_heads(width),
            "mlp_ratio": state["mid_block.mlp.fc1.weight"].shape[0] / width,
            "qkv_bias": "mid_block.attn.qkv.bias" in state,
            "mlp_time_embed": any(name.startswith("time_embed.") for name in state),
            "final_conv": "final_layer.weight" in state,
        }
    except (LookupError, ValueError, ArithmeticError) as error:
        raise InputError(f"{where} holds no U-ViT ({type(error).__name__}: {error}).") from None
    labels = state.get("label_emb.weight")
    require(
        labels is None or (labels.ndim == 2 and len(labels) > 0 and labels.shape[1] == width),
        f"{where}: label_emb.weight is {tuple(getattr(labels, 'shape', ()))}, expected (K, {width}).",
    )
    require(
        state["pos_embed"].shape == (1, extra + side**2, width),
        f"{where}: pos_embed is {tuple(state['pos_embed'].shape)}, expected (1, {extra} + L, {width}) with L a square.",
    )
    return config


def guessed_heads(width: int) -> int:
    """As many attention heads of at least 64 channels as divide a width; at least one."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)


def _positions(
    old: Tensor,
    old_extra: int,
    old_side: int,
    model: UViT,
    new_side: int,
    generator: torch.Generator | None,
    report: _Report,
) -> Tensor:
    """Position embedding for the network's tokens: [label, time, patches], or [time, patches]."""
    tokens, patches = old[:, :old_extra], old[:, old_extra:]
    label, time = tokens[:, :-1], tokens[:, -1:]
    if model.extra_tokens == 2 and old_extra == 1:
        label = 0.02 * torch.randn(time.shape, generator=generator)
        report.new["pos_embed"] = "a label position was put before the others"
    elif model.extra_tokens == 1 and old_extra == 2:
        label = label[:, :0]
        report.dropped["pos_embed[:, 0]"] = "the position of the label, which the network does not have"
    if new_side != old_side:
        grid = patches.unflatten(1, (old_side, old_side)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(new_side, new_side), mode="bicubic", align_corners=False)
        patches = grid.flatten(2).transpose(1, 2)
        why = f"patch positions resized from {old_side}x{old_side} to {new_side}x{new_side}"
        report.new["pos_embed"] = "; ".join(filter(None, (report.new.get("pos_embed"), why)))
    return torch.cat([label, time, patches], dim=1)


def _labels(
    old: Tensor | None, rows: Tensor, num_classes: int, drop_labels: bool, where: str, report: _Report
) -> Tensor:
    """Label embedding (K + 1, D), the last row for the null class: the file's, or new rows."""
    if old is None or drop_labels:
        if old is not None:
            report.dropped["label_emb.weight"] = f"the file's {len(old)} labels are another dataset's"
        report.new["label_emb.weight"] = f"{num_classes} classes and the null class"
        return rows
    require(
        len(old) in (num_classes, num_classes + 1),
        f"{where} embeds {len(old)} labels, expected {num_classes} or {num_classes + 1} (with the null class). "
        "Give that num_classes, or drop_labels=True.",
    )
    if len(old) == num_classes:
        report.new["label_emb.weight"] = "a null class was put after the file's labels"
        return torch.cat([old, rows[-1:]])
    return old
