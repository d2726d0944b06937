"""What a training step learns from and how far it goes: draw of times, course of the learning rate, optimiser."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gen_dd.diffusion import min_snr
from gen_dd.sharding import split_like, whole_tensor
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

    Examples:
        >>> [round(rate(step, 10, warmup=2, anneal=0.5), 2) for step in range(10)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    """
    left = max(0.0, 1 - max(step / steps, elapsed))
    return min(1.0, step / warmup if warmup else 1.0, left / anneal if anneal else 1.0)


def batches(rate: float, most: int) -> int:
    """How many batches make up a step where the learning rate is to fall to `rate` of its peak: as many as keep the
    rate up, at most `most`.

    A step's noise goes with the rate over the batch, so that larger batches do what a smaller rate does (Smith et al.,
    "Don't Decay the Learning Rate, Increase the Batch Size", ICLR 2018, https://arxiv.org/abs/1711.00489).

    Examples:
        >>> [batches(rate, 4) for rate in (1, 0.6, 0.5, 0.3, 0.2, 0)]
        [1, 1, 2, 3, 4, 4]
    """
    return most if rate * most <= 1 else int(1 / rate)


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


class _Joined(Optimizer):
    """Several optimisers, each of its own parameters, that step, save and load as one."""

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        self.defaults = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]  # torch's optimisers have an attribute
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:  # type: ignore[override]  # likewise
        """What the parts remember of each parameter."""
        return {parameter: value for part in self.parts for parameter, value in part.state.items()}

    def step(self, closure: Any = None) -> Any:
        """One step of every part."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every gradient."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As one optimiser's: the parameters are numbered through all parts."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        first = 0
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


_ROUNDS, _TURN = 5, (3.4445, -4.7750, 2.0315)
"""Of Muon's iteration (Jordan 2024): its length, and the coefficients of x, x x' x and x x' x x' x."""


def orthogonal(matrices: Tensor) -> Tensor:
    """Muon's stand-in for the nearest orthogonal matrices: their singular vectors, with singular values around 1.

    Five rounds of x <- a x + b (x x') x + c (x x')^2 x, from unit Frobenius norm, on the side where x x' is the smaller
    matrix. In fp32 the rounds of a wide matrix are taken by x x' alone, which costs less and, at 8 bits, too much of
    the small singular values.

    Args:
        matrices: (N, m, n), float32 or bfloat16, in which the products are taken.

    Returns:
        the same shape and dtype.

    Examples:
        >>> import torch
        >>> near = orthogonal(torch.eye(4)[None] * 5)
        >>> bool(((near[0] - near[0].diag().diag()).abs() < 1e-3).all())
        True
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = _TURN
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    wide = 2 * x.shape[2] >= 3 * x.shape[1] and x.dtype == torch.float32
    gram = x @ x.mT
    moved = torch.eye(x.shape[1], device=x.device).expand_as(gram) if wide else x
    for _ in range(_ROUNDS):
        turn = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        moved = torch.baddbmm(moved, turn, moved, beta=a)
        if wide:
            half = torch.baddbmm(gram, turn, gram, beta=a).mT
            gram = torch.baddbmm(half, turn, half, beta=a)
        else:
            gram = moved @ moved.mT
    return moved @ x if wide else moved


class Muon(Optimizer):
    """Muon (Jordan 2024) at AdamW's learning rate and weight decay (Liu et al. 2025, eq. 4): `torch.optim.Muon` with
    `adjust_lr_fn="match_rms_adamw"`, but matrices of one shape are taken together, and in fp32 where it must be.

    Matrices that are split over processes are put together, turned by every process, and split again.

    Args:
        matrices: parameters (m, n).
        lr: moves a matrix's entries by about as much as AdamW's does.
        momentum: decay of the averaged gradient.
        weight_decay: as AdamW's.
        bf16: multiply in bf16, as `torch.optim.Muon` does.
    """

    def __init__(
        self, matrices: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float, bf16: bool
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = torch.bfloat16 if bf16 else torch.float32

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step."""
        for group in self.param_groups:
            shapes = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    ahead = self._ahead(parameter, parameter.grad, group["momentum"])
                    shapes[parameter.shape].append((parameter, ahead))
            for shape, pairs in shapes.items():
                parameters, gradients = zip(*pairs, strict=True)
                moves = orthogonal(torch.stack(gradients).to(self.dtype))
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, move in zip(parameters, moves, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(split_like(move.to(parameter.dtype), parameter), alpha=-size)

    def _ahead(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """A matrix's averaged gradient as it will be one step ahead (Nesterov), whole."""
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return whole_tensor(gradient.lerp(average, momentum))


def adamw(
    model: UViT,
    aids: nn.Module | None = None,
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    bf16: bool = False,
) -> Optimizer:
    """AdamW on every parameter, as the official code has it, and on those of a scaffold's aids; it multiplies no
    matrices, in bf16 or otherwise."""
    parameters = [*model.parameters(), *(aids.parameters() if aids else ())]
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


def muon(
    model: UViT,
    aids: nn.Module | None = None,
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    bf16: bool = False,
) -> Optimizer:
    """Muon on the matrices inside the blocks, AdamW on embeddings, biases, norms, the head and a scaffold's aids.

    Muon replaces a matrix's averaged gradient (momentum 0.95) by its nearest orthogonal matrix, so that every direction
    moves by as much. Scaled by 0.2 sqrt(longer side), its entries move about as far as AdamW's do, so that both take
    one learning rate and weight decay.
    """
    blocks = (*model.in_blocks, model.mid_block, *model.out_blocks)
    hidden = [parameter for block in blocks for parameter in block.parameters() if parameter.ndim == 2]
    others = set(model.parameters()) - set(hidden)
    rest = [parameter for parameter in model.parameters() if parameter in others]
    rest += aids.parameters() if aids else ()
    return _Joined(
        Muon(hidden, lr=lr, momentum=0.95, weight_decay=weight_decay, bf16=bf16),
        torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay, fused=True),
    )


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType({"adamw": adamw, "muon": muon})
"""Optimisers of a network by name."""
