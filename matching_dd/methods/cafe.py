"""CAFE: learning to condense dataset by aligning features ([Wang et al., CVPR
2022](https://arxiv.org/abs/2203.01531))."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_dd.data.images import ImageData
from core_dd.errors import above, at_least, require
from core_dd.judge.networks import interact
from core_dd.rng import stream
from matching_dd.base import Features, MatchingConfig, Method
from matching_dd.losses import discrimination_loss, layer_discrepancy, mean_discrepancy
from matching_dd.real import RealImages

WATCHED = 10
"""How many accuracies a watcher looks back at."""

_HALVED_AT = (1200, 1600, 1800)
"""Iterations from which lr_img is halved, of the published 2000."""


@dataclass(kw_only=True)
class CAFEConfig(MatchingConfig):
    """Distil by CAFE: align the features of every layer, and have synthetic class means classify real images. The
    defaults are the authors' for CIFAR-10; CAFE+DSA is augment auto.

    An iteration is a new network, on which the images are stepped until its accuracy on real images is steady; between
    steps it trains on the synthetic images until that accuracy moves. The authors bound neither loop.
    """

    GROUP: ClassVar[str] = "cafe"

    method: str = "cafe"
    iterations: int = 2000
    lr_img: float = 0.1
    """Learning rate of the images, halved from iterations 1200, 1600 and 1800 on."""
    init: str = "noise"
    augment: str = "none"
    early_weight: float = 0.1
    """Weight of the layers' activations but the last."""
    late_weight: float = 1.0
    """Weight of the last layer's activations, and of the features."""
    discrimination: float = 0.01
    """Weight of the cross-entropy, summed over all real images."""
    steady: float = 0.04
    """Images are stepped until the last 10 accuracies span less than this."""
    moved: float = 0.03
    """The network trains until the last 10 accuracies span more than this."""
    batch_watched: int = 128
    """Real images per class that each accuracy is measured on."""
    max_steps: int = 100
    """Image steps per iteration at most."""
    max_epochs: int = 100
    """Passes of the network's training at most, between two image steps."""
    lr_net: float = 0.01
    """Learning rate of the network's training, plain SGD."""
    batch_train: int = 256
    """Synthetic images per step of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.per_class, "cafe steps all classes at once: leave out per_class.")
        at_least(self, 0, "early_weight", "late_weight", "discrimination")
        above(self, 0, "steady", "moved", "lr_net")
        at_least(self, WATCHED, "max_steps", "max_epochs")
        at_least(self, 1, "batch_watched", "batch_train")

    @property
    def rounds(self) -> int:
        return self.max_steps


class CAFE(Method):
    """Match class means in every layer of a network that is trained on the synthetic images as they come to be.

    The authors add a cross-entropy on real images, which has no gradient in the synthetic ones, to the printed loss,
    and a tenth of each accuracy leaks into the next: neither is done here.
    """

    Config = CAFEConfig
    sees = "activations"

    def __init__(self, config: CAFEConfig, data: ImageData) -> None:
        super().__init__(config, data)
        with torch.no_grad():
            layers, features = self.net.activations(torch.zeros(2, *data.shape, device=self.device))
        self.widths = [*(layer[0].numel() for layer in layers), features.shape[1]]
        self.weights = [config.early_weight] * (len(layers) - 1) + [config.late_weight] * 2
        self.logits = Features(self.device, lambda net, images: net(images), bf16=config.bf16, compile=self.compile)
        seed = stream(config.seed, "watched").initial_seed()
        self.watched = RealImages(data, config.batch_watched, self.real.preprocess, seed, self.device)
        self.drawn["batch_watched"] = self.watched

    def measure(self, net: nn.Module, images: Tensor) -> Tensor:
        """Of each image every layer's activation, then its features, all flattened: (N, sum of `widths`)."""
        layers, features = net.activations(images)
        return torch.cat([*(layer.flatten(1) for layer in layers), features], 1)

    def loss(self, net: nn.Module, real: Tensor, syn: Tensor) -> Tensor:
        """Scalar, summed over all K classes; real (K, B, C, H, W), syn (K, M, C, H, W), training space."""
        return self.misfit(*self.of_real(net, real), self.features(net, syn))

    def of_real(self, net: nn.Module, real: Tensor) -> tuple[Tensor, Tensor]:
        """What real images (K, B, C, H, W) are to be met in: the class means of all that is measured (K, 1, D), and the
        features (K, B, d)."""
        if interact(net):
            own = self.features.fixed(net, real)
            return own.mean(1, keepdim=True), own[..., -self.widths[-1] :]
        means, features = [], []
        for own in real:  # a class, and of it a piece, at a time: the layers of all images are large
            total, kept = torch.zeros((), device=self.device), []
            for piece in self.features.pieces(net, own):
                total = total + piece.sum(0, keepdim=True)
                kept.append(piece[:, -self.widths[-1] :].clone())
            means.append(total / len(own))
            features.append(torch.cat(kept))
        return torch.stack(means), torch.stack(features)

    def misfit(self, means: Tensor, features: Tensor, measured: Tensor) -> Tensor:
        """The loss of what is measured of all synthetic images, (K, M, D), beside what `of_real` gives."""
        pair = means.split(self.widths, 2), measured.split(self.widths, 2)
        alignment = layer_discrepancy(*pair, self.weights) + mean_discrepancy(features, pair[1][-1])
        return alignment.sum() + self.config.discrimination * discrimination_loss(features, pair[1][-1]).sum()

    def backward(self, net: nn.Module, turn: int) -> Tensor:
        """Give the images their gradient; returns the loss.

        The discrimination compares all classes, but sees nothing of the synthetic images but class means. Where classes
        go in parts, these come first, without graph; their gradient then leads each part back to its images.
        """
        if len(self.chunks) == 1:
            return super().backward(net, turn)
        loss, drawn, slope = self.compared(net, turn)
        for syn, own in zip(drawn, slope.split([len(classes) for classes in self.chunks]), strict=True):
            self.features(net, syn).mean(1, keepdim=True).backward(own)
        return loss

    def compared(self, net: nn.Module, turn: int) -> tuple[Tensor, list[Tensor], Tensor]:
        """The loss, the synthetic images of each part of the classes, and the gradient of their means, (K, 1, D)."""
        real, drawn, means = [], [], []
        for classes in self.chunks:
            own, syn = self.draw(turn, classes)
            real.append(self.of_real(net, own))
            drawn.append(syn)
            means.append(self.features.fixed(net, syn).mean(1, keepdim=True))
        real_means, features = (torch.cat(parts) for parts in zip(*real, strict=True))
        measured = torch.cat(means).requires_grad_()
        loss = self.misfit(real_means, features, measured)
        return loss.detach(), drawn, torch.autograd.grad(loss, measured)[0]

    def decay(self, step: int) -> float:
        return 0.5 ** sum(step >= milestone for milestone in _HALVED_AT)

    def step(self, step: int) -> Tensor:
        """All image steps of one network; returns their mean loss."""
        config, net, accuracies, losses = self.config, self.draw_network(step), [], []
        for moment in range(step * config.max_steps, (step + 1) * config.max_steps):
            self.begin()
            losses.append(self.match(net, moment))
            accuracies.append(self.accuracy(net, moment * (config.max_epochs + 1)))
            if len(accuracies) >= WATCHED and span(accuracies) < config.steady:
                break
            self.train(net, moment)
        return torch.stack(losses).mean()

    def accuracy(self, net: nn.Module, key: int) -> float:
        """The share, 0..1, of random real images, not augmented, that the network classifies right."""
        parts = [range(self.data.num_classes)] if interact(net) else self.chunks
        predicted = torch.cat([self.logits.fixed(net, self.watched.draw(key, part)).argmax(2).cpu() for part in parts])
        return (predicted == torch.arange(len(predicted))[:, None]).float().mean().item()

    def train(self, net: nn.Module, moment: int) -> None:
        """Passes over the synthetic images, until the accuracy on real ones moves."""
        config, accuracies = self.config, []
        images = self.synthetic.decoded(range(self.data.num_classes)).detach().flatten(0, 1)
        labels = torch.arange(self.data.num_classes, device=self.device)
        labels = labels.repeat_interleave(len(images) // len(labels))
        optimizer = torch.optim.SGD(net.requires_grad_().parameters(), lr=config.lr_net)
        for epoch in range(moment * (config.max_epochs + 1) + 1, (moment + 1) * (config.max_epochs + 1)):
            generator = stream(config.seed, "epoch", epoch)
            for batch in torch.randperm(len(images), generator=generator).split(config.batch_train):
                own = images[batch.to(self.device)]
                if self.augment is not None:
                    own = self.augment.per_image(own[None], [generator])[0]
                optimizer.zero_grad()
                F.cross_entropy(net(own), labels[batch.to(self.device)]).backward()
                optimizer.step()
            accuracies.append(self.accuracy(net, epoch))
            if len(accuracies) >= WATCHED and span(accuracies) > config.moved:
                break
        net.requires_grad_(False)


def span(accuracies: list[float]) -> float:
    """The difference between the highest and the lowest of the last accuracies, as many as a watcher looks at."""
    return max(accuracies[-WATCHED:]) - min(accuracies[-WATCHED:])
