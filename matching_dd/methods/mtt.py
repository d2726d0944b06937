"""MTT: dataset distillation by matching training trajectories ([Cazenavette et al., CVPR
2022](https://arxiv.org/abs/2203.11932))."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.errors import above, at_least, require
from core_dd.judge.training import State
from core_dd.rng import stream
from core_dd.speed import graph_bytes
from matching_dd.base import MatchingConfig, Method
from matching_dd.experts import Experts
from matching_dd.gradients import Gradients, dot
from matching_dd.losses import trajectory_loss


@dataclass(kw_only=True)
class MTTConfig(MatchingConfig):
    """Distil by MTT: a student trained on the synthetic set is to arrive where experts did on real data.

    The defaults are the authors' for CIFAR-10, ipc 10, but for its whitening, which is to be asked for: preprocess zca,
    as their settings in configs/matching/mtt.yaml do. Record experts first, with `gendd experts`.
    """

    GROUP: ClassVar[str] = "mtt"

    method: str = "mtt"
    iterations: int = 5000
    lr_img: float = 100.0
    """Learning rate of the images, in the space they are learnt in."""
    batch_real: int = 1
    """Not used: only the experts saw real images."""
    experts: str | None = None
    """Folder of recorded experts, of the same data, network and preprocess."""
    syn_steps: int = 30
    """Steps of the student."""
    expert_epochs: int = 2
    """Epochs of the expert that they are to match."""
    max_start_epoch: int = 20
    """The student starts where the expert was after 0 to this many epochs, exclusive."""
    lr_student: float = 0.001
    """Learning rate of the student at the start; it is learnt with the images, and the set carries it."""
    lr_lr: float = 1e-5
    """Learning rate of that learning rate."""
    batch_syn: int | None = None
    """Synthetic images per step of the student, all classes together; default: all."""
    memory_gib: float | None = None
    """Largest memory for the graphs of the student's steps, in GiB: those that do not fit are computed again on the way
    back, to the same result. Default: keep them all."""

    def __post_init__(self) -> None:
        require(self.decode != "bound", "mtt draws its batches from all classes together: leave out decode bound.")
        super().__post_init__()
        at_least(self, 1, "syn_steps", "expert_epochs", "max_start_epoch", "batch_syn")
        above(self, 0, "lr_student", "lr_lr")
        require(not self.per_class, "mtt steps all classes at once: leave out per_class.")
        require(self.max_syn is None, "mtt draws its batches from all classes together: set batch_syn, not max_syn.")

    @property
    def rounds(self) -> int:
        return self.syn_steps

    @property
    def epochs_followed(self) -> int:
        """Epochs that an expert must have."""
        return self.max_start_epoch - 1 + self.expert_epochs


class _StudentStep(NamedTuple):
    """What the way back needs of a step of the student."""

    params: State
    """Its weights before the step, each a leaf."""
    images: Tensor
    """The batch, with the graph that leads to the synthetic images."""
    batch: Tensor
    """The same, a leaf."""
    labels: Tensor
    gradients: tuple[Tensor, ...]
    """Of the loss with respect to the weights."""
    kept: bool
    """Whether their graph is there."""


class MTT(Method):
    """Match where N steps on the synthetic set lead to with where M epochs on the real data led an expert.

    The student's steps are differentiated one at a time, from the last to the first: with respect to its weights, which
    hands the gradient on to the step before, and with respect to its batch.
    """

    Config = MTTConfig
    sees = None

    def __init__(self, config: MTTConfig, data: ImageData) -> None:
        self.experts = Experts(config.experts, data, config.network, config.preprocess, config)  # before whitening
        self.origin = self.experts.origin
        super().__init__(config, data)
        self.gradients = Gradients(self.net, self.device, bf16=config.bf16, compile=self.compile)
        require(
            config.epochs_followed <= self.experts.epochs,
            f"max_start_epoch {config.max_start_epoch} and expert_epochs {config.expert_epochs} need experts of "
            f"{config.epochs_followed} epochs; those in {config.experts} have {self.experts.epochs}. Lower either, or "
            "record others.",
        )
        self.labels = torch.arange(data.num_classes, device=self.device).repeat_interleave(config.decoded_per_class)
        self.batch = min(config.batch_syn or len(self.labels), len(self.labels))
        self.kept = config.syn_steps
        if config.memory_gib is not None:
            each = self.batch * 2 * graph_bytes(self.net, data.shape, self.measure)
            self.kept = int(config.memory_gib * 2**30 / each)
            require(
                self.kept >= 1,
                f"memory_gib {config.memory_gib} is too small: one step of the student needs {each / 2**30:.3g}. "
                "Raise it, or lower batch_syn.",
            )

    def parts(self, each: int) -> list[range]:
        """All classes at once: what takes memory is a step of the student, of a batch of them."""
        return [range(self.data.num_classes)]

    def image_optimizer(self) -> torch.optim.Optimizer:
        """SGD on the images and on the student's learning rate."""
        config = self.config
        self.synthetic.lr = torch.tensor(config.lr_student, device=self.device, requires_grad=True)
        groups = [
            {"params": [self.synthetic.images], "lr": config.lr_img},
            {"params": [self.synthetic.lr], "lr": config.lr_lr},
        ]
        return torch.optim.SGD(groups, momentum=config.momentum)

    def step(self, step: int) -> Tensor:
        """One iteration: train a student, and step the images by where it ended; returns the loss."""
        self.begin()
        start, target = self.draw_expert(step)
        path, params = [], start
        for i in range(self.config.syn_steps):
            path.append(self.student_step(params, step, i))
            params = self.moved(path[-1])
        loss = self.pull_back(path, params, start, target)
        self.optimizer.step()
        return loss

    def draw_expert(self, step: int) -> tuple[State, State]:
        """An expert's parameters at a random epoch t, and at t + M."""
        generator = stream(self.config.seed, "expert", step)
        expert = int(torch.randint(len(self.experts), (), generator=generator))
        epoch = int(torch.randint(self.config.max_start_epoch, (), generator=generator))
        names = dict(self.net.named_parameters())

        def weights(epoch: int) -> State:
            own = self.experts.weights(expert, epoch)
            return {name: own[name].to(self.device) for name in names}

        return weights(epoch), weights(epoch + self.config.expert_epochs)

    def draw_batch(self, step: int, i: int) -> tuple[Tensor, Tensor]:
        """Synthetic images (N, C, H, W) of the student's step i, augmented one by one, and their labels (N,)."""
        seed, per_pass = self.config.seed, -(-len(self.labels) // self.batch)
        number, position = divmod(i, per_pass)
        order = torch.randperm(len(self.labels), generator=stream(seed, "student order", step, number))
        index = order.split(self.batch)[-1 - position].to(self.device)  # from the last, as the authors do
        images = self.synthetic.decoded(range(self.data.num_classes)).flatten(0, 1)[index]
        if self.augment is not None:
            images = self.augment.per_image(images[None], [stream(seed, "augment", step, i)])[0]
        return images, self.labels[index]

    def student_step(self, params: State, step: int, i: int) -> _StudentStep:
        """The gradients of step i, with their graph for as many of the last steps as are kept."""
        images, labels = self.draw_batch(step, i)
        params = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
        batch, kept = images.detach().requires_grad_(), i >= self.config.syn_steps - self.kept
        with torch.set_grad_enabled(kept):
            gradients = self.gradients.at(params, batch, labels)
        return _StudentStep(params, images, batch, labels, gradients, kept)

    @torch.no_grad()
    def moved(self, done: _StudentStep) -> State:
        """The student's weights after a step."""
        pairs = zip(done.params.items(), done.gradients, strict=True)
        return {name: tensor - self.synthetic.lr * gradient for (name, tensor), gradient in pairs}

    def pull_back(self, path: list[_StudentStep], end: State, start: State, target: State) -> Tensor:
        """Give images and learning rate the gradient of the loss, which is returned; empties `path`."""
        weights, learnt = [tensor.requires_grad_() for tensor in end.values()], self.synthetic.lr
        assert learnt is not None
        loss = trajectory_loss(weights, list(start.values()), list(target.values()))
        slope, lr = torch.autograd.grad(loss, weights), learnt.detach()
        self.optimizer.zero_grad(set_to_none=True)
        learnt.grad = torch.zeros_like(lr)
        while path:
            done = path.pop()
            gradients = done.gradients
            if not done.kept:
                gradients = self.gradients.at(done.params, done.batch, done.labels)
            learnt.grad -= dot(slope, gradients).detach()
            leaves = (done.batch, *(done.params.values() if path else ()))  # nothing comes before the first step
            on_batch, *on_params = torch.autograd.grad(gradients, leaves, [-lr * own for own in slope])
            done.images.backward(on_batch)
            slope = tuple(own + more for own, more in zip(slope, on_params, strict=bool(path)))
        return loss.detach()
