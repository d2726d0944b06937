"""EAD: dataset distillation by effect alignment (anonymous draft): what replacing real by synthetic data would do."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.errors import above, at_least, require
from core_dd.judge.networks import interact
from core_dd.judge.training import State
from core_dd.options import option
from core_dd.records import same_shape
from core_dd.rng import stream
from matching_dd.base import MatchingConfig, Method
from matching_dd.experts import Experts
from matching_dd.gradients import Gradients, dot
from matching_dd.losses import effect_alignment, effect_coefficient

COEFFICIENT_CHOICES = MappingProxyType(
    {
        "one": "that of mean losses",
        "minibatch": "by the sizes of the batches",
        "literal": "by the sizes of the sets, as printed",
    }
)
"""`matching_dd.losses.EFFECT_COEFFICIENTS`."""

LABEL_CHOICES = MappingProxyType(
    {
        "learnt": "with the images, from the first expert's probabilities, as the draft has them",
        "soft": "the first expert's probabilities, throughout",
        "hard": "the classes that the images start from, throughout",
    }
)
"""What the labels of the synthetic images are."""


@dataclass(kw_only=True)
class EADConfig(MatchingConfig):
    """Distil by EAD: align, along an expert's training, the effect of the synthetic set on a probe batch with that of
    the real data. Record experts first, with `gendd experts`.

    The draft states neither learning rates, batch sizes, iterations nor the number of checkpoints: these are ours, from
    the 8x8 digits. There, ten times the learning rates made a set worse than random images, and so did experts recorded
    so briefly that they mislabel the images it starts from.
    """

    GROUP: ClassVar[str] = "ead"

    method: str = "ead"
    iterations: int = 2000
    lr_img: float = 0.1
    """Learning rate of the images, in the space they are learnt in. The gradient is of a mean over all images: the more
    there are, the less each moves."""
    labels: str = option("learnt", choices=LABEL_CHOICES)
    """Of the synthetic images."""
    lr_label: float = 0.1
    """Learning rate of the labels' logits."""
    batch_real: int = 25
    """Real images per class and iteration of the batch that the synthetic images stand for."""
    batch_probe: int = 1
    """Real images per class and iteration of the probe batch, at most batch_real. The fewer, the more directions the
    probes' gradients take."""
    augment: str = "none"
    experts: str | None = None
    """Folder of recorded experts, of the same data, network and preprocess."""
    checkpoints: int = 5
    """Epochs of an expert, drawn at random, over which an iteration's effects are summed."""
    max_epoch: int | None = None
    """They are drawn after 0 to this many epochs, exclusive; the draft advises few. Default: all that were recorded."""
    coefficient: str = option("one", choices=COEFFICIENT_CHOICES)
    """Weight of the real data's effect."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "checkpoints", "max_epoch")
        require(
            1 <= self.batch_probe <= self.batch_real,
            f"batch_probe must be from 1 to batch_real {self.batch_real}, got {self.batch_probe}.",
        )
        above(self, 0, "lr_label")
        require(not self.per_class, "ead steps all classes at once: leave out per_class.")

    @property
    def rounds(self) -> int:
        return self.checkpoints

    @property
    def epochs_followed(self) -> int:
        """Epochs that an expert must have."""
        return max(self.checkpoints, self.max_epoch or 0)


class EAD(Method):
    """Match the projections of real and synthetic gradients on a probe batch's, summed over an expert's checkpoints.

    Images and soft labels are learnt together; the labels start as a trained expert's probabilities for the images, and
    remain probabilities. It is one scalar constraint per iteration, in which checkpoints may cancel.
    """

    Config = EADConfig
    graph_copies = 2
    sees = None

    def __init__(self, config: EADConfig, data: ImageData) -> None:
        self.experts = Experts(config.experts, data, config.network, config.preprocess, config)  # before whitening
        self.origin = self.experts.origin
        super().__init__(config, data)
        self.epochs = config.max_epoch or self.experts.epochs
        require(
            config.checkpoints <= self.epochs <= self.experts.epochs,
            f"checkpoints must be at most max_epoch, which must be at most the {self.experts.epochs} epochs of the "
            f"experts in {config.experts}; got {config.checkpoints} and {config.max_epoch}.",
        )
        self.gradients = Gradients(self.net, self.device, bf16=config.bf16, compile=self.compile)
        self.sources = self.synthetic.sources.to(self.device)
        self.logits = self.initial_logits().requires_grad_(config.labels == "learnt")
        if config.labels == "learnt":
            self.optimizer.add_param_group({"params": [self.logits], "lr": config.lr_label})
        self.publish_labels()
        sizes = len(data.train_labels), data.num_classes * config.decoded_per_class
        batches = config.batch_real, config.syn_per_class  # per class, of both
        self.coefficient = effect_coefficient(config.coefficient, sizes, batches)

    @torch.no_grad()
    def initial_logits(self) -> Tensor:
        """The logits of the first expert, trained, for the synthetic images: (K, ipc, K), averaged over an image's
        tiles."""
        self.net.load_state_dict(self.experts.weights(0, self.experts.epochs))
        images = self.synthetic.decoded(range(self.data.num_classes))
        logits = self.net.eval()(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        self.net.train()
        sums = torch.zeros(len(logits), self.config.ipc, logits.shape[2], device=self.device)
        sums.index_add_(1, self.sources, logits)
        return sums / self.sources.bincount()[:, None]

    def publish_labels(self) -> None:
        """Give the synthetic set the labels learnt so far, as probabilities; hard ones it has."""
        if self.config.labels != "hard":
            self.synthetic.labels = self.probabilities().detach().flatten(0, 1)

    def step(self, step: int) -> Tensor:
        """One iteration; returns its loss."""
        self.begin()
        self.optimizer.zero_grad(set_to_none=True)
        every, on_real, on_syn = range(self.data.num_classes), [], []
        real, syn = self.draw(2 * step, every)
        probed = self.real.at(self.real.indices(2 * step + 1, every)[:, : self.config.batch_probe])
        probe, labels = self.beside(probed, 2 * step + 1, every)[0], self.soft_labels(2 * step)
        leaves = [tensor.detach().requires_grad_() for tensor in (syn, labels)]
        for weights in self.draw_checkpoints(step):
            self.net.load_state_dict(weights)
            direction = self.real_gradients(probe)
            on_real.append(dot(direction, self.real_gradients(real)))
            on_syn.append(self.project(direction, *leaves))

        # The products' own gradients are summed by now: the loss only turns and scales the sum.
        products = torch.stack(on_syn).requires_grad_()
        loss = effect_alignment(torch.stack(on_real), products, self.coefficient)
        (slope,) = torch.autograd.grad(loss, products)
        for own, leaf in zip((syn, labels), leaves, strict=True):
            if own.requires_grad:
                own.backward(slope[0] * leaf.grad)
        self.optimizer.step()
        self.publish_labels()
        return loss.detach()

    def draw_checkpoints(self, step: int) -> Iterator[State]:
        """Weights of a random expert after random epochs, all different, of 0 to `max_epoch` - 1."""
        generator = stream(self.config.seed, "expert", step)
        expert = int(torch.randint(len(self.experts), (), generator=generator))
        epochs = torch.randperm(self.epochs, generator=generator)[: self.config.checkpoints]
        return (self.experts.weights(expert, epoch) for epoch in epochs.tolist())

    def probabilities(self) -> Tensor:
        """The labels of the stored images, (K, ipc, K); differentiable where they are learnt."""
        if self.config.labels == "hard":
            every = torch.eye(self.data.num_classes, device=self.device)
            return every[:, None].expand(-1, self.config.ipc, -1)
        return self.logits.softmax(2)

    def soft_labels(self, turn: int) -> Tensor:
        """The labels, as probabilities, of the images that `draw` gives for all classes: (K, M, K); differentiable."""
        labels = self.probabilities()[:, self.sources]
        if labels.shape[1] > self.config.syn_per_class:
            every = range(self.data.num_classes)
            labels = labels[torch.arange(len(every))[:, None], self.chosen(turn, every)]
        return labels

    def real_gradients(self, images: Tensor) -> list[Tensor]:
        """The gradients, by parameter, of the mean cross-entropy of real images of all classes, (K, B, C, H, W)."""
        labels = torch.arange(len(images), device=self.device).repeat_interleave(images.shape[1])
        most = None if interact(self.net) else self.most_at_once
        gradients = self.gradients.in_parts(images.flatten(0, 1)[None], labels[None], most)
        return [own[0] for own in gradients]

    def project(self, direction: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """The product of `direction` with the gradient of images (K, M, C, H, W) and labels (K, M, K), a scalar; its
        own gradient is added to that of these two leaves."""
        total = torch.zeros((), device=self.device)
        params = {name: tensor.detach() for name, tensor in self.net.named_parameters()}
        for classes in self.chunks:
            part = slice(classes.start, classes.stop)
            batch = images[part].flatten(0, 1), labels[part].flatten(0, 1)
            own = self.gradients.at(params, *batch)
            product = dot(direction, own) * len(classes) / len(images)
            product.backward(inputs=[images, labels])
            total += product.detach()
        return total

    def state(self) -> dict[str, Any]:
        """The images, and the logits of their labels."""
        return super().state() | {"logits": self.logits.detach()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        super().load_state(state)
        with torch.no_grad():
            self.logits.copy_(same_shape(state["logits"], self.logits, "logits"))
        self.publish_labels()
