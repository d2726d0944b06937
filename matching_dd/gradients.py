"""Networks in training and the gradients of their weights: what the gradient and trajectory methods match."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from core_dd.judge.networks import interact
from core_dd.judge.training import State
from core_dd.speed import bf16_pays, compiled
from matching_dd.losses import summed


def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Inner product of two gradients by parameter, a scalar."""
    return summed((a * b).sum() for a, b in zip(left, right, strict=True))


class Gradients:
    """Gradients of a network's weights for the mean cross-entropy: compiled, in bf16 where that pays, fp32 results.

    They are computed by a function of weights, images and labels that is compiled as one, so that differentiating them
    once more is compiled too.

    Args:
        net: the network; its weights are read where they are.
        device: where it is.
        bf16, compile: as in `MatchingConfig`.
    """

    def __init__(self, net: nn.Module, device: torch.device, *, bf16: bool = True, compile: bool = True) -> None:
        # A GPU wants all groups at once. A CPU is busy with one, and its convolutions dislike vmap's grouped ones.
        self.net, self._whole = net, device.type != "cpu" and not interact(net)
        mixed = bf16 and bf16_pays(device.type)  # settled here: the compiler cannot look the hardware up

        def loss(params: State, buffers: State, images: Tensor, labels: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                logits = functional_call(net, (params, buffers), (images,))
            return F.cross_entropy(logits.float(), labels)

        compute = {"one": grad(loss), "all": vmap(grad(loss), in_dims=(None, None, 0, 0))}
        self._compute = {
            name: compiled(function, device, dynamic=False) if compile else function
            for name, function in compute.items()
        }

    def at(self, params: State, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The gradients at given weights, in the order of the parameters; differentiable in everything.

        Args:
            params: the parameters by name.
            images: (N, C, H, W), training space.
            labels: int64 (N,), or probabilities (N, K).
        """
        return tuple(self._compute["one"](params, dict(self.net.named_buffers()), images, labels).values())

    def __call__(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """The gradients of each group of images, at the network's own weights; differentiable in the images.

        Args:
            images: (G, N, C, H, W), training space.
            labels: int64 (G, N), or probabilities (G, N, K).

        Returns:
            By parameter, (G, *its shape), fp32.
        """
        params = {name: parameter.detach() for name, parameter in self.net.named_parameters()}
        if self._whole and len(images) > 1:
            buffers = dict(self.net.named_buffers())
            return list(self._compute["all"](params, buffers, images, labels).values())
        each = [self.at(params, *group) for group in zip(images, labels, strict=True)]
        return [torch.stack(own) for own in zip(*each, strict=True)]

    @torch.no_grad()
    def in_parts(self, images: Tensor, labels: Tensor, most: int | None = None) -> list[Tensor]:
        """The gradients of each group at the network's own weights, as constants.

        One group is in memory at a time, and at most `most` of its images; not for batch normalisation in training
        mode, unless in one part.

        Args:
            images: (G, N, C, H, W), training space.
            labels: int64 (G, N), or probabilities (G, N, K).
            most: images of a group that are in memory at once; None: all.

        Returns:
            By parameter, (G, *its shape), fp32.
        """
        each = []
        for x, y in zip(images, labels, strict=True):
            count = 1 if most is None else -(-len(x) // most)
            parts = [
                [own * (len(part) / len(x)) for own in self(part[None], target[None])]
                for part, target in zip(x.tensor_split(count), y.tensor_split(count), strict=True)
            ]
            each.append([torch.stack(own).sum(0) for own in zip(*parts, strict=True)])
        return [torch.cat(own) for own in zip(*each, strict=True)]


class NetworkSGD:
    """SGD on a network's weights, in place and in fp32.

    Args:
        net: the network.
        gradients: of it.
        lr, momentum, weight_decay: of SGD.
    """

    def __init__(
        self, net: nn.Module, gradients: Gradients, *, lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        self.net, self.gradients = net, gradients
        self._sgd = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        self.restart()

    def restart(self) -> None:
        """Forget the momentum: the network is another one now."""
        self.optimizer = torch.optim.SGD(self.net.parameters(), **self._sgd)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One step on a batch, images (N, C, H, W) in training space, labels (N,) or (N, K)."""
        gradients = self.gradients.in_parts(images[None], labels[None])
        for parameter, [gradient] in zip(self.net.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
