"""What a training step learns from and how far it goes: draw of times, course of the learning rate, optimiser."""

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gen_dd.diffusion import min_snr
from gen_dd.uvit import UViT

LOGIT_MEAN, LOGIT_STD = -1.0, 1.0
"""Of `logit_normal`."""


def rate(step: int, steps: int, *, warmup: int = 0, anneal: float = 0.0, elapsed: float = 0.0) -> float:
    """The learning rate of a step over its peak: up linearly, constant, down linearly to zero at the end.

    Args:
        step: from 0.
        steps: of the whole training, > step.
        warmup: steps to the peak. As in the official code the first step's rate is 0.
        anneal: the last part of the training in which the rate falls, in [0, 1]; 0 keeps it at the peak.
        elapsed: the part of the training's time limit that is used up; the end is where steps or time end first.

    Returns:
        in [0, 1].
    """
    left = max(0.0, 1 - max(step / steps, elapsed))
    return min(1.0, step / warmup if warmup else 1.0, left / anneal if anneal else 1.0)


def logit_normal(u: Tensor) -> Tensor:
    """Times whose logit is normal, with mean -1 and standard deviation 1 (Esser et al., ICML 2024, eq. 19).

    Few lie near 1, where the noisy image is the noise itself, and near 0, where it hides in the image.

    Args:
        u: uniform draws in [0, 1), any shape.

    Returns:
        in [0, 1), the shape and dtype of `u`.
    """
    return torch.sigmoid(LOGIT_MEAN + LOGIT_STD * torch.special.ndtri(u))


TIMES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"uniform": lambda u: u, "logit_normal": logit_normal}
)
"""From uniform draws to the times that are learnt from."""


WEIGHTINGS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({"none": torch.ones_like, "min_snr": min_snr})
"""From times to the weights of the noise's squared error there."""


class Joined(Optimizer):
    """Several optimisers, each of its own parameters, that step, save and load as one."""

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        self.defaults = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:
        """What the parts remember of each parameter."""
        return {parameter: value for part in self.parts for parameter, value in part.state.items()}

    def step(self, closure: None = None) -> None:
        """One step of every part."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every gradient."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As one optimiser's: the parameters are numbered through all parts."""
        state, groups, first = {}, [], 0
        for part in self.parts:
            own = part.state_dict()
            state |= {first + i: value for i, value in own["state"].items()}
            groups += [group | {"params": [first + i for i in group["params"]]} for group in own["param_groups"]]
            first += sum(len(group["params"]) for group in own["param_groups"])
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        left = iter(state_dict["param_groups"])
        for part in self.parts:
            groups = list(itertools.islice(left, len(part.param_groups)))
            numbers = [i for group in groups for i in group["params"] if i in state_dict["state"]]
            part.load_state_dict({"state": {i: state_dict["state"][i] for i in numbers}, "param_groups": groups})


def adamw(model: UViT, *, lr: float, betas: tuple[float, float], weight_decay: float) -> Optimizer:
    """AdamW on every parameter, as the official code has it."""
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


def muon(model: UViT, *, lr: float, betas: tuple[float, float], weight_decay: float) -> Optimizer:
    """Muon (Jordan 2024) on the matrices inside the blocks, AdamW on embeddings, biases, norms and the head.

    Muon replaces a matrix's averaged gradient (momentum 0.95) by its nearest orthogonal matrix, so that every direction
    moves by as much. Scaled by 0.2 sqrt(longer side), its entries move about as far as AdamW's do (Liu et al. 2025,
    eq. 4), so that both take one learning rate and weight decay.
    """
    blocks = (*model.in_blocks, model.mid_block, *model.out_blocks)
    hidden = [parameter for block in blocks for parameter in block.parameters() if parameter.ndim == 2]
    others = set(model.parameters()) - set(hidden)
    rest = [parameter for parameter in model.parameters() if parameter in others]
    return Joined(
        torch.optim.Muon(hidden, lr=lr, momentum=0.95, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay, fused=True),
    )


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType({"adamw": adamw, "muon": muon})
"""Optimisers of a network by name."""
