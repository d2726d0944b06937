"""IDC: dataset condensation via efficient synthetic-data parameterization ([Kim et al., ICML
2022](https://arxiv.org/abs/2205.14959))."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_dd.data.images import ImageData
from core_dd.errors import at_least, require
from core_dd.judge.augment import cutmix
from core_dd.rng import stream
from matching_dd.losses import conv_gradients, gradient_distance
from matching_dd.methods.dc import DC, DCConfig


@dataclass(kw_only=True)
class IDCConfig(DCConfig):
    """Distil by IDC: match convolution gradients of networks in training on real data. The defaults are CIFAR-10's.

    IDC-I is factor 1, and starts from the first images of each class as they are. MNIST and Fashion-MNIST:
    distance l1, lr_img 1e-4, real_net 500; SVHN: real_net 500. ImageNet subsets at ipc 20 and more: factor 3, decode
    bound. Judge MNIST's tiles by protocol idc_mnist, SVHN's IDC-I at ipc 1 by idc_svhn_ipc1, the others by idc.
    """

    GROUP: ClassVar[str] = "idc"

    method: str = "idc"
    iterations: int = 2000
    """Networks drawn; each is matched `outer` times."""
    lr_img: float = 5e-3
    """Learning rate of the images for ipc 10 at side_img; the one used is lr_img x (ipc / 10) x (side / side_img)^2."""
    side_img: int = 32
    """Image side for which lr_img is stated: 32, for MNIST 28, for ImageNet subsets 224."""
    batch_real: int = 64
    init: str = "mix_first"
    factor: int = 2
    max_syn: int | None = 128
    space: str = "pixels"
    clamp: bool = True
    """Bring every pixel back to 0..1 before each network, not before each step."""
    per_class: bool = True
    augment: str = "color_crop_cutout"
    """DSA operations, applied alike to a class's real and synthetic images: names joined by _, auto or none. The
    network trains with the same, without cutout."""
    augment_mode: str = "idc"
    outer: int | None = 100
    """Sweeps over the classes per network, each with a step of the images of every class."""
    inner: int | None = 1
    """How often the network is trained on real_net images between two sweeps."""
    distance: str = "mse"
    """Of the gradients of convolutions. lr_img is that of mse; the authors
    give l1, whose steps are 20 times as long, a smaller one, and cos, a seven-hundredth as long, has none."""
    real_net: int = 2000
    """Real images that the network is trained on after each sweep, all classes together; no more than there are."""
    pretrain: int = 0
    """Passes over the real data that a network is trained before it is matched; ImageNet-10: 10."""
    momentum_net: float = 0.9
    decay_net: float = 5e-4
    batch_train: int = 64
    cutmix: float = 0.5
    """Probability of CutMix for a batch of the network's training; 0 switches it off."""
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "side_img", "real_net")
        at_least(self, 0, "pretrain")
        require(0 <= self.cutmix <= 1, f"cutmix must be in [0, 1], got {self.cutmix}.")


class IDC(DC):
    """Match the gradients of convolutions, at the weights of a network in training on real data, by several small
    images per stored one.

    A sweep steps the images class by class; the optimiser does it at once, with the same result.
    """

    Config = IDCConfig

    def __init__(self, config: IDCConfig, data: ImageData) -> None:
        super().__init__(config, data)
        names = [] if self.augment is None else [name for name in self.augment.names if name != "cutout"]
        self.augment_network = replace(self.augment, strategy="_".join(names)) if self.augment and names else None

    def check_network(self) -> None:
        """See `matching_dd.base.Method.check_network`."""
        super().check_network()
        require(
            any(parameter.ndim == 4 for parameter in self.net.parameters()),
            f"idc compares the gradients of convolutions, and {self.config.network} has none. Choose a network with "
            "some, such as convnet3.",
        )

    def image_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of `Method`, its learning rate scaled by ipc and the side of the images as IDC does."""
        optimizer, config = super().image_optimizer(), self.config
        for group in optimizer.param_groups:
            group["lr"] = config.lr_img * config.ipc / 10 * (self.data.shape[2] / config.side_img) ** 2
        return optimizer

    def begin_network(self, step: int) -> nn.Module:
        """A fresh network, trained for `pretrain` passes over the real data."""
        net = super().begin_network(step)
        for number in range(self.config.pretrain):
            self.pass_over(len(self.data.train_labels), "pretrain", step, number)
        return net

    def compare(self, real: list[Tensor], syn: list[Tensor]) -> Tensor:
        """Distance (K,) of the gradients of convolutions, each (K, *shape)."""
        return gradient_distance(conv_gradients(real), conv_gradients(syn), self.config.distance)

    def train(self, net: nn.Module, turn: int) -> None:
        """Train the network on `real_net` real images, `inner` times."""
        for inner in range(self.config.inner):
            self.pass_over(self.config.real_net, "train", turn, inner)

    def pass_over(self, images: int, *names: str | int) -> None:
        """Train the network on so many random real images, in batches with CutMix; the names key the draws."""
        self.net.train()
        batches, seed = -(-images // self.config.batch_train), self.config.seed
        order = torch.randperm(len(self.data.train_labels), generator=stream(seed, "order", *names))
        for i, batch in enumerate(order.split(self.config.batch_train)[:batches]):
            x = self.real.at(batch)[None]
            y = F.one_hot(self.data.train_labels[batch], self.data.num_classes).float().to(self.device)[None]
            if self.augment_network is not None:
                x = self.augment_network.per_image(x, [stream(seed, "augment network", *names, i)])
            x, y = cutmix(x, y, self.config.cutmix, [stream(seed, "cutmix", *names, i)])
            self.sgd.step(x[0], y[0])
