"""The image optimiser of the IDC family: a step per class, on one tensor with one momentum."""

from typing import Any

import torch
from torch import Tensor


class PerClassSGD(torch.optim.SGD):
    """What `torch.optim.SGD` does to images (K, ...) when stepped K times a sweep, each time on one class's loss.

    The others' gradient is then zero, but their momentum goes on, so class k meets its own gradient after k steps of
    drift and drifts for K - 1 - k more. As no class's drift depends on another's gradient, a sweep is done at once:
    `approach`, all gradients, `step`.

    Args:
        images: the leaf, (K, ...).
        lr, momentum: of SGD.
    """

    def __init__(self, images: Tensor, lr: float, momentum: float) -> None:
        super().__init__([images], lr=lr, momentum=momentum)
        self.images, self.turn = images, torch.arange(len(images), device=images.device)

    def approach(self) -> None:
        """Drift every class to its own turn of the sweep; call before the gradients are taken."""
        self._drift(self.turn)

    def step(self, closure: Any = None) -> Any:  # Any, as torch overloads it
        """Every class's own step, then its drift to the end of the sweep."""
        super().step(closure)
        self._drift(len(self.images) - 1 - self.turn)

    @torch.no_grad()
    def _drift(self, steps: Tensor) -> None:
        """So many steps (K,) without gradient."""
        velocity = self.state[self.images].get("momentum_buffer")
        if velocity is None:
            return
        group = self.param_groups[0]
        shape = (-1, *[1] * (self.images.ndim - 1))
        left = (group["momentum"] ** steps.to(velocity)).view(shape)
        way = (1 - left) * (group["momentum"] / (1 - group["momentum"]))
        self.images -= group["lr"] * way * velocity
        velocity *= left
