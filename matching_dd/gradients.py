"""Networks in training and the gradients of their weights: what the gradient and trajectory methods match."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from core_dd.speed import autocast
from core_dd.train_eval import State, gradients_of


def classification_loss(net: nn.Module, params: State, images: Tensor, labels: Tensor, *, bf16: bool = True) -> Tensor:
    """Mean cross-entropy, a scalar in fp32, of `net` with other weights; differentiable in all of them.

    Args:
        net: the architecture, and the buffers.
        params: its parameters by name.
        images: (N, C, H, W), training space.
        labels: int64 (N,), or probabilities (N, K).
        bf16: autocast where it pays.
    """
    with autocast(images.device, bf16):
        logits = functional_call(net, params, (images,))
    return F.cross_entropy(logits.float(), labels)


def class_gradients(net: nn.Module, images: Tensor, labels: Tensor, *, bf16: bool = True) -> list[Tensor]:
    """Gradient of each class's mean cross-entropy with respect to the weights; differentiable in the images.

    Args:
        net: with its batch normalisation, if any, in evaluation mode.
        images: (K, N, C, H, W), training space.
        labels: int64 (K, N).
        bf16: autocast where it pays.

    Returns:
        By parameter, (K, *its shape), fp32.
    """
    params = {name: parameter.detach() for name, parameter in net.named_parameters()}

    def loss(params: State, images: Tensor, labels: Tensor) -> Tensor:
        return classification_loss(net, params, images, labels, bf16=bf16)

    return list(vmap(grad(loss), in_dims=(None, 0, 0))(params, images, labels).values())


def weight_gradients(
    net: nn.Module, params: State, images: Tensor, labels: Tensor, *, graph: bool = True, bf16: bool = True
) -> tuple[Tensor, ...]:
    """Gradient of the mean cross-entropy with respect to `params`, in their order; differentiable in everything.

    Args:
        net, params, images, labels, bf16: as in `classification_loss`; every parameter requires a gradient.
        graph: whether it is to be differentiated.
    """
    loss = classification_loss(net, params, images, labels, bf16=bf16)
    return torch.autograd.grad(loss, list(params.values()), create_graph=graph)


def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Inner product of two gradients by parameter, a scalar."""
    return sum((a * b).sum() for a, b in zip(left, right, strict=True))


class Gradients:
    """Gradients of a network's weights, without graph: compiled, in bf16 where that pays.

    Args:
        net: the network; its weights are read where they are.
        device: where it is.
        bf16, compile: as in `MatchingConfig`.
    """

    def __init__(self, net: nn.Module, device: torch.device, *, bf16: bool = True, compile: bool = True) -> None:
        self.net, self._compute = net, gradients_of(net, device, stacked=False, bf16=bf16, fast=compile)

    def __call__(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """Those of the mean cross-entropy of each group of images, one group in memory at a time.

        Args:
            images: (G, N, C, H, W), training space.
            labels: int64 (G, N), or probabilities (G, N, K).

        Returns:
            By parameter, (G, *its shape), fp32.
        """
        params, buffers = (
            {name: tensor.detach()[None].expand(len(images), *tensor.shape) for name, tensor in named}
            for named in (self.net.named_parameters(), self.net.named_buffers())
        )
        return list(self._compute(params, buffers, images, labels)[0].values())

    def in_parts(self, images: Tensor, labels: Tensor, most: int | None) -> list[Tensor]:
        """The same, of at most so many images at a time; not for batch normalisation in training mode."""
        count, total = 1 if most is None else -(-images.shape[1] // most), images.shape[1]
        sums = [torch.zeros((), device=images.device)] * len(list(self.net.parameters()))
        for x, y in zip(images.tensor_split(count, 1), labels.tensor_split(count, 1), strict=True):
            sums = [own + more * (x.shape[1] / total) for own, more in zip(sums, self(x, y), strict=True)]
        return sums


class Trainer:
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
        for parameter, gradient in zip(self.net.parameters(), self.gradients(images[None], labels[None]), strict=True):
            parameter.grad = gradient[0]
        self.optimizer.step()
