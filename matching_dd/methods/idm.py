"""IDM: improved distribution matching for dataset condensation ([Zhao et al., CVPR
2023](https://arxiv.org/abs/2307.09742))."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_dd.data.images import ImageData
from core_dd.errors import above, at_least, require
from core_dd.judge.networks import build_network
from core_dd.records import fitting
from core_dd.rng import stream
from core_dd.speed import autocast, compiled
from matching_dd.base import MatchingConfig, Method, without_dropout
from matching_dd.losses import mean_discrepancy

_STARTERS = 3
"""Networks in the queue at the start."""


@dataclass(kw_only=True)
class IDMConfig(MatchingConfig):
    """Distil by IDM: match class means in the features of networks in training, and have these classify the synthetic
    images. The defaults are the authors' for CIFAR-10, ipc 10.

    Ipc 1: all of a class as batch_real, push_every 5. ImageNet subsets at ipc 50: no tiles, that is factor 1.
    """

    GROUP: ClassVar[str] = "idm"

    method: str = "idm"
    lr_img: float = 0.2
    init: str = "mix_bilinear"
    factor: int = 2
    per_class: bool = True
    ce_weight: float = 0.5
    """Weight of the synthetic images' cross-entropy, times the network's training accuracy in percent."""
    queue: int = 100
    """Networks kept at most; the oldest goes first."""
    push_every: int = 30
    """Iterations between new networks."""
    trained: int = 2
    """Networks of the queue, drawn at random, that each iteration trains on real images."""
    train_steps: int = 10
    """Steps of each."""
    batch_train: int = 256
    """Real images per step, not augmented."""
    lr_net: float = 0.01
    """Learning rate of the networks, SGD with momentum 0.9 and weight decay 5e-4."""
    accuracy_every: int = 100
    """Iterations after which training accuracies are counted anew (the authors' evaluation interval)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "ce_weight")
        above(self, _STARTERS, "queue")
        above(self, 0, "lr_net")
        at_least(self, 1, "push_every", "trained", "train_steps", "batch_train", "accuracy_every")


class _Trainee:
    """A network of the queue, its optimiser, and how often it was right in training of late."""

    def __init__(self, net: nn.Module, lr: float) -> None:
        self.net, self.right, self.seen = net, 0, 0
        self.optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)

    @property
    def percent(self) -> float:
        """Training accuracy since the last reset, 0 to 100; 0 where it was not trained."""
        return 100 * self.right / max(1, self.seen)

    def state(self) -> dict[str, Any]:
        """What its next step depends on."""
        counts = {"right": self.right, "seen": self.seen}
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), **counts}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        fitting(self.optimizer)
        self.right, self.seen = int(state["right"]), int(state["seen"])


class IDM(Method):
    """Match class means in a random network of a queue in which every network is a little further in its training.

    The authors weigh the cross-entropy by the accuracy in percent, not as a fraction.
    """

    Config = IDMConfig

    def __init__(self, config: IDMConfig, data: ImageData) -> None:
        super().__init__(config, data)
        self.net.eval()
        self.labels = data.train_labels.to(self.device)
        self.queue = [self.new_trainee("start", i) for i in range(_STARTERS)]
        self.percent = 0.0

        def logits(net: nn.Module, images: Tensor) -> Tensor:
            return net(images)

        self._logits = compiled(logits, self.device, dynamic=False) if self.compile else logits

    def check_network(self) -> None:
        """See `matching_dd.base.Method.check_network`; logits are those of the features' last layer."""
        super().check_network()
        named = self.config.network
        own = isinstance(getattr(self.net, "classifier", None), nn.Module)
        require(own, f"idm needs a network with a classifier layer: not {named}. Choose another, such as convnet3.")

    def together(self) -> bool:
        """No: networks are in evaluation mode while matching."""
        return False

    def new_trainee(self, *names: str | int) -> _Trainee:
        """An untrained network, its weights drawn from the stream of these names."""
        generator = stream(self.config.seed, "drawn network", *names)
        net = build_network(self.config.network, self.data.shape, self.data.num_classes, generator)
        return _Trainee(without_dropout(net.to(self.device)), self.config.lr_net)

    def measure(self, net: nn.Module, images: Tensor) -> Tensor:
        """Of each image its features, then its logits."""
        features = net.features(images)
        return torch.cat([features, net.classifier(features)], 1)

    def draw_network(self, step: int) -> nn.Module:
        """A random network of the queue, whose accuracy becomes `percent`; a new one has joined when it is time."""
        if step and step % self.config.accuracy_every == 0:
            for trainee in self.queue:
                trainee.right = trainee.seen = 0
        if step % self.config.push_every == 0:
            self.queue = [*self.queue, self.new_trainee(step)][-self.config.queue :]
        chosen = self.queue[int(torch.randint(len(self.queue), (), generator=stream(self.config.seed, "queue", step)))]
        self.percent = chosen.percent
        self.net.load_state_dict(chosen.net.state_dict())
        return self.net

    def class_loss(self, net: nn.Module, step: int, classes: range) -> Tensor:
        """The loss of some classes, on the images of an iteration."""
        return self.loss(net, *self.draw(step, classes), classes)

    def loss(  # type: ignore[override]  # called by `class_loss` above, which knows the classes
        self, net: nn.Module, real: Tensor, syn: Tensor, classes: range
    ) -> Tensor:
        """Scalar, summed over `classes`; real (K, B, C, H, W), syn (K, M, C, H, W), training space."""
        real_features, _ = self._split(self.features.fixed(net, real))
        syn_features, logits = self._split(self.features(net, syn))
        labels = torch.tensor(classes, device=logits.device).repeat_interleave(syn.shape[1])
        entropy = F.cross_entropy(logits.flatten(0, 1), labels, reduction="sum") / syn.shape[1]
        return mean_discrepancy(real_features, syn_features).sum() + self.config.ce_weight * self.percent * entropy

    def step(self, step: int) -> Tensor:
        """One iteration; then some networks of the queue are trained a little further."""
        total, generator = super().step(step), stream(self.config.seed, "trained", step)
        for i in torch.randperm(len(self.queue), generator=generator)[: self.config.trained].tolist():
            self.train(self.queue[i], generator)
        return total

    def train(self, trainee: _Trainee, generator: torch.Generator) -> None:
        """`train_steps` steps on random real images."""
        trainee.net.train()
        for _ in range(self.config.train_steps):
            index = torch.randperm(len(self.labels), generator=generator)[: self.config.batch_train]
            images, labels = self.real.at(index), self.labels[index.to(self.device)]
            with autocast(self.device, self.config.bf16):
                logits = self._logits(trainee.net, images).float()
            trainee.optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits, labels).backward()
            trainee.optimizer.step()
            trainee.right += int((logits.argmax(1) == labels).sum())
            trainee.seen += len(labels)

    def state(self) -> dict[str, Any]:
        """The images, and the queue."""
        return super().state() | {"queue": [trainee.state() for trainee in self.queue]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        super().load_state(state)
        self.queue = [self.new_trainee("start", 0) for _ in state["queue"]]
        for trainee, own in zip(self.queue, state["queue"], strict=True):
            trainee.load_state(own)

    def _split(self, measured: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits, of what `measure` gave."""
        return measured[..., : -self.data.num_classes], measured[..., -self.data.num_classes :]
