"""DC: dataset condensation with gradient matching ([Zhao, Mopuri & Bilen, ICLR
2021](https://arxiv.org/abs/2006.05929))."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core_dd.data.images import ImageData
from core_dd.errors import above, at_least, require
from core_dd.judge.networks import interact
from core_dd.options import option
from core_dd.rng import stream
from matching_dd.base import MatchingConfig, Method
from matching_dd.gradients import Gradients, NetworkSGD
from matching_dd.losses import gradient_distance

LOOPS: MappingProxyType[int, tuple[int, int]] = MappingProxyType(
    {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
)
"""Published outer and inner loops by images per class."""

_NORM_BATCH = 16
"""Real images per class that batch normalisation takes its statistics from."""

DISTANCE_CHOICES = MappingProxyType(
    {
        "dc": "one minus the cosine, of each output unit's",
        "cos": "the same, of all",
        "mse": "summed squares of differences",
        "l1": "summed absolute differences",
    }
)
"""`matching_dd.losses.GRADIENT_DISTANCES`."""


@dataclass(kw_only=True)
class DCConfig(MatchingConfig):
    """Distil by DC: match the gradients of networks in training. The defaults are the paper's.

    Only where the network is an MLP is the paper's lr_img another: pass --lr_img 0.01.
    """

    GROUP: ClassVar[str] = "dc"

    method: str = "dc"
    iterations: int = 1000
    """Networks drawn; each is matched `outer` times."""
    lr_img: float = 0.1
    """Learning rate of the images, in the space they are learnt in."""
    init: str = "noise"
    augment: str = "none"
    outer: int | None = None
    """Image steps per network. Default: the published number of the largest listed ipc that is not above yours, 1, 10,
    20, 30, 40, 50 for these ipc."""
    inner: int | None = None
    """Passes over the synthetic set by which the network is trained between two image steps. Default: as published, 1,
    50, 25, 20, 15, 10 for the same ipc."""
    distance: str = option("dc", choices=DISTANCE_CHOICES)
    """Of the gradients. lr_img is that of dc; at it (Fashion-MNIST, ConvNet-3) mse takes steps 3 times as long, l1 25
    times, cos a seven-hundredth."""
    lr_net: float = 0.01
    """Learning rate of the network, SGD."""
    momentum_net: float = 0.0
    """Momentum of the network's optimiser."""
    decay_net: float = 0.0
    """Weight decay of the network."""
    batch_train: int = 256
    """Images per step of the network."""
    checkpoint_every: int = 50
    log_every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        published = LOOPS[max(ipc for ipc in LOOPS if ipc <= self.ipc)]
        self.outer, self.inner = (
            default if given is None else given
            for given, default in zip((self.outer, self.inner), published, strict=True)
        )
        at_least(self, 1, "outer", "inner", "batch_train")
        above(self, 0, "lr_net")
        require(0 <= self.momentum_net < 1, f"momentum_net must be in [0, 1), got {self.momentum_net}.")
        at_least(self, 0, "decay_net")

    @property
    def rounds(self) -> int:
        assert self.outer is not None
        return self.outer


class DC(Method):
    """Match, class by class, the gradients of real and synthetic images at the weights of a network in training.

    An iteration is a fresh network's life: `outer` times a step of the images, and between two steps the network is
    trained on the synthetic set. With one image per class it is matched once, untrained.
    """

    Config = DCConfig
    graph_copies = 2
    sees = None

    def __init__(self, config: DCConfig, data: ImageData) -> None:
        super().__init__(config, data)
        self.gradients = Gradients(self.net, self.device, bf16=config.bf16, compile=self.compile)
        sgd = {"lr": config.lr_net, "momentum": config.momentum_net, "weight_decay": config.decay_net}
        self.sgd = NetworkSGD(self.net, self.gradients, **sgd)

    def step(self, step: int) -> Tensor:
        """One network's life; returns its mean loss."""
        net, turns = self.begin_network(step), range(step * self.config.outer, (step + 1) * self.config.outer)
        total = torch.zeros((), device=self.device)
        for turn in turns:
            total += self.match(net, turn)
            if turn != turns[-1]:
                self.train(net, turn)
        return total / len(turns)

    def begin_network(self, step: int) -> nn.Module:
        """A fresh network and optimiser."""
        self.begin()
        self.sgd.restart()
        return self.draw_network(step)

    def match(self, net: nn.Module, turn: int) -> Tensor:
        """One step of the images; returns the loss, summed over classes."""
        self.fix_statistics(net, turn)
        return super().match(net, turn)

    def class_loss(self, net: nn.Module, step: int, classes: range) -> Tensor:
        """The loss of some classes, on the images of one step."""
        return self.loss(net, *self.draw(step, classes), torch.tensor(classes, device=self.device))

    def loss(  # type: ignore[override]  # called by `class_loss` above, which knows the labels
        self, net: nn.Module, real: Tensor, syn: Tensor, labels: Tensor
    ) -> Tensor:
        """Distance of the gradients at the weights of `net`, a scalar, summed over classes.

        Args:
            net: the network.
            real: (K, B, C, H, W), training space, augmented.
            syn: (K, M, C, H, W).
            labels: int64 (K,).
        """
        on_real = self.gradients.in_parts(real, labels[:, None].expand(real.shape[:2]), self.most_at_once)
        on_syn = self.gradients(syn, labels[:, None].expand(syn.shape[:2]))
        return self.compare(on_real, on_syn).sum()

    def compare(self, real: list[Tensor], syn: list[Tensor]) -> Tensor:
        """Distance (K,) of gradients by parameter, each (K, *shape)."""
        return gradient_distance(real, syn, self.config.distance)

    def train(self, net: nn.Module, turn: int) -> None:
        """Train the network on the synthetic set for `inner` passes, augmented image by image."""
        net.train()
        every = range(self.data.num_classes)
        images = self.synthetic.decoded(every).detach()
        labels = torch.arange(len(images)).repeat_interleave(images.shape[1]).to(self.device)
        images, seed = images.flatten(0, 1), self.config.seed
        for inner in range(self.config.inner):
            order = torch.randperm(len(images), generator=stream(seed, "inner order", turn, inner)).to(self.device)
            for i, batch in enumerate(order.split(self.config.batch_train)):
                own = images[batch]
                if self.augment is not None:
                    generator = stream(seed, "augment network", turn, inner, i)
                    own = self.augment.per_image(own[None], [generator])[0]
                self.sgd.step(own, labels[batch])

    def together(self) -> bool:
        """No: statistics are fixed while matching."""
        return False

    @torch.no_grad()
    def fix_statistics(self, net: nn.Module, turn: int) -> None:
        """Where the network has batch normalisation: statistics of real images of all classes, fixed while matching."""
        if not interact(net):
            return
        classes = range(self.data.num_classes)
        net.train()
        net(self.real.at(self.real.indices(turn, classes)[:, :_NORM_BATCH]).flatten(0, 1))
        for module in net.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
