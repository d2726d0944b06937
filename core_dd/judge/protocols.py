"""How a classifier is trained on a set before its one test: one frozen dataclass per published protocol."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

from core_dd.data.images import ImageData
from core_dd.errors import pick, require, whole
from core_dd.judge.augment import (
    Augment,
    CropAugment,
    DCAugment,
    DSAugment,
    IDCAugment,
    PolicyAugment,
    policy_for,
    strategy_for,
)
from core_dd.judge.options import AUGMENT_CHOICES

_AUGMENTS: MappingProxyType[str, Callable[[ImageData], Augment | None]] = MappingProxyType(
    {
        "none": lambda data: None,
        "dsa": lambda data: DSAugment(strategy_for(data)),
        "idc": lambda data: IDCAugment(strategy_for(data).replace("_cutout", "")),
        "idc_cutout": lambda data: IDCAugment(strategy_for(data)),
        "flip_crop": lambda data: DSAugment("crop_flip" if data.hflip else "crop", mode="M"),
        "resized_crop": lambda data: CropAugment(flips=data.hflip),
        "autoaugment": lambda data: PolicyAugment(policy_for(data)),
        "randaugment": lambda data: PolicyAugment("randaugment"),
    }
)
"""Augmentations by name, but for dc, which asks for the network, too; beside CutMix, IDC leaves out cutout."""


@dataclass(frozen=True)
class Schedule:
    """How many passes over the set E stands for, and after which of them the learning rate drops, to what part."""

    passes: int
    drops: tuple[int, ...]
    factor: float
    restarts: bool = False
    """A new optimiser at each drop: its momentum is cleared."""
    cosine: float = 0.0
    """The part of half a cosine wave that the learning rate falls along: 1 to zero, 0.5 to a half, 0 not at all."""


SCHEDULES: MappingProxyType[str, Callable[[int], Schedule]] = MappingProxyType(
    {
        "dc": lambda epochs: Schedule(epochs + 1, (epochs // 2 + 2,), 0.1, restarts=True),
        "idc": lambda epochs: Schedule(epochs, (2 * epochs // 3, 5 * epochs // 6), 0.2),
        "constant": lambda epochs: Schedule(epochs, (), 1.0),
        "cosine": lambda epochs: Schedule(epochs, (), 1.0, cosine=1.0),
        "half_cosine": lambda epochs: Schedule(epochs, (), 1.0, cosine=0.5),
        "datadam": lambda epochs: Schedule(epochs, tuple(range(15, epochs, 15)), 0.5),
    }
)
"""The published codes' counting by family: E -> schedule. DC's loop runs over 0..E and drops after pass E // 2 + 1."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """SGD or AdamW on shuffled batches, then one test in evaluation mode, without augmentation.

    A published protocol counts `epochs` as its code does (`SCHEDULES`), the last partial batch of a pass kept. A
    protocol with `steps` takes that many batches, the last partial one of each pass left out, or with `wraps` filled up
    from the next pass, under a cosine learning rate after a warm-up.
    """

    name: str
    epochs: int | None = None
    """E, where passes are counted."""
    augmented_epochs: int | None = None
    """E with augmentation, where it differs."""
    schedule: str = "dc"
    """What E stands for: a name of `SCHEDULES`."""
    steps: int | None = None
    """Batches, where those are counted."""
    wraps: bool = False
    """Batches run over the ends of passes, so all have `batch_size` images, however few the set has."""
    batch_size: int = 256
    optimiser: str = "sgd"
    """sgd; adamw: with betas 0.9 and 0.999, no decay of biases and norms."""
    lr: float = 0.01
    learned_lr: bool = False
    """The set brings its own learning rate."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 5e-4
    augment: str = "dsa"
    """dsa; dc: that of DC, which augments MNIST and ConvNets with batch normalisation only; idc: that of IDC, without
    cutout, and idc_cutout, with it; flip_crop; resized_crop; autoaugment; randaugment; none."""
    cutmix: float = 0.0
    """Probability that a batch is mixed by CutMix, with Beta(1, 1)."""
    teacher: str | None = None
    """A network that, trained on the real data, labels every batch as it is augmented, in place of the set's labels
    (`core_dd.judge.teacher`); the loss is the Kullback-Leibler divergence from it."""
    temperature: float = 1.0
    """By which the outputs of classifier and teacher are divided in that loss."""
    runs: int = 5
    """Classifiers per score, unless said otherwise."""
    smoke: bool = False
    """Shortened: the score says nothing beyond that things run."""

    def augmentation(self, data: ImageData, network: str) -> Augment | None:
        """What training images go through, or None.

        Raises:
            InputError: images of a number of channels that it does not know.
        """
        if self.augment != "dc":
            made = _AUGMENTS[self.augment](data)
            channels = data.shape[0]
            require(
                not isinstance(made, PolicyAugment) or channels in (1, 3),
                f"augment {self.augment} knows images of 1 or 3 channels, {data.name} has {channels}. Choose another.",
            )
            return made
        if network.startswith("convnet") and "bn" in network.split("_"):
            return DCAugment("crop_noise")
        return DCAugment("crop_scale_rotate") if data.name == "mnist" else None

    def augmented(self, augment: str | None) -> "Protocol":
        """The protocol with another augmentation in place of its own, CutMix included, and named so: dm, augment
        randaugment. None leaves it as it is.

        Raises:
            InputError: an augmentation that is none of `core_dd.judge.options.AUGMENT_CHOICES`.
        """
        if augment is None:
            return self
        pick(AUGMENT_CHOICES, augment, "augment")
        return replace(self, name=f"{self.name}, augment {augment}", augment=augment, cutmix=0.0)

    def shortened(self, epochs: int | None = None, steps: int | None = None) -> "Protocol":
        """The protocol with E or the number of steps set by hand, smoke and named so, e.g. challenge_4000_steps.

        Steps given to a protocol that counts passes cut its schedule to that length. None leaves it as it is.

        Raises:
            InputError: both at once, or what is no whole number >= 1.
        """
        if epochs is None and steps is None:
            return self
        require(epochs is None or steps is None, "give epochs or a number of iterations, not both.")
        for name, number in (("epochs", epochs), ("steps", steps)):
            if number is not None:
                whole(name, number, 1)
        require(epochs is None or self.epochs is not None, f"protocol {self.name} counts iterations; give those.")
        if epochs is not None:
            return replace(self, name=f"{self.name}_{epochs}_epochs", epochs=epochs, augmented_epochs=None, smoke=True)
        return replace(self, name=f"{self.name}_{steps}_steps", steps=steps, smoke=True)

    def fitted_to(self, learned_lr: float | None) -> "Protocol":
        """The protocol at the learning rate that a set brings, where it asks for one.

        Raises:
            InputError: if the set has none, or one that is not positive.
        """
        if not self.learned_lr:
            return self
        require(
            learned_lr is not None and learned_lr > 0,
            f"protocol {self.name} trains at the learning rate learnt with the set, and this set has {learned_lr}. "
            "Give a set that MTT distilled (add --learned_lr if its file lacks it), or another protocol, such as dm.",
        )
        return replace(self, lr=learned_lr)

    def plan(self, images: int, augmented: bool) -> "TrainingPlan":
        """The schedule for a set of `images` images."""
        batch = self.batch_size if self.wraps else min(self.batch_size, images)
        if self.epochs is None:
            per_pass, warmup = max(1, images // batch), max(1, self.steps // 10)
            return TrainingPlan(batch, per_pass, self.steps, self.lr, warmup=warmup, cosine=1.0, wraps=self.wraps)
        epochs = self.augmented_epochs if augmented and self.augmented_epochs else self.epochs
        per_pass, schedule = math.ceil(images / batch), SCHEDULES[self.schedule](epochs)
        total = schedule.passes * per_pass
        steps = total if self.steps is None else self.steps
        drops = tuple(drop * per_pass * steps // total for drop in schedule.drops)
        falls = {"drops": drops, "factor": schedule.factor, "restarts": schedule.restarts, "cosine": schedule.cosine}
        return TrainingPlan(batch, per_pass, steps, self.lr, **falls)


@dataclass(frozen=True)
class TrainingPlan:
    """A protocol on a set of known size: which step uses which images at which learning rate."""

    batch: int
    per_pass: int
    """Batches in one pass over the set."""
    steps: int
    lr: float
    drops: tuple[int, ...] = ()
    """The steps from which the learning rate is `factor` times what it was."""
    factor: float = 1.0
    restarts: bool = False
    """Whether each drop starts with a new optimiser."""
    warmup: int = 0
    """Steps of linear warm-up."""
    cosine: float = 0.0
    """See `Schedule.cosine`."""
    wraps: bool = False
    """Whether batches run over the ends of passes."""

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = (1 + math.cos(math.pi * self.cosine * step / self.steps)) / 2
        return self.lr * self.factor ** sum(step >= drop for drop in self.drops) * rise * fall

    def images_seen(self, images: int) -> int:
        """How many of a set of `images` images a classifier trains on, each counted as often as it is."""
        if self.wraps:
            return self.steps * self.batch
        passes, rest = divmod(self.steps, self.per_pass)
        return passes * min(images, self.per_pass * self.batch) + min(images, rest * self.batch)

    def new_optimizer_at(self, step: int) -> bool:
        """Whether a step begins without momentum."""
        return step == 0 or (self.restarts and step in self.drops)


DM = Protocol(name="dm", epochs=1000)
"""DSA ([Zhao & Bilen, ICML 2021](https://arxiv.org/abs/2102.08259)) and DM ([Zhao & Bilen, WACV
2023](https://arxiv.org/abs/2110.04181)): 1001 passes with DSA."""

DC = Protocol(name="dc", epochs=300, augmented_epochs=1000, augment="dc")
"""DC ([Zhao et al., ICLR 2021](https://arxiv.org/abs/2006.05929)): 301 passes without augmentation; MNIST and BatchNorm
networks: 1001 with DC's."""

CHALLENGE = Protocol(name="challenge", epochs=1000, runs=3)
"""The [ECCV 2024 challenge on dataset distillation](https://www.dd-challenge.com): as DM, 3 classifiers."""

QUICK = Protocol(name="quick", steps=200, batch_size=64, lr=0.05)
"""Ours, for trials and for classifiers that measure: the same few steps whatever the size of the set."""

IDM = Protocol(name="idm", epochs=1000)
"""IDM ([Zhao et al., CVPR 2023](https://arxiv.org/abs/2307.09742)): as DM, on the decoded set. (The authors also keep
the set that tests best; ours is the last.)"""

MTT = Protocol(name="mtt", epochs=1000, learned_lr=True)
"""MTT ([Cazenavette et al., CVPR 2022](https://arxiv.org/abs/2203.11932)): as DM, at the learning rate learnt with the
set. (The published numbers are the best of the tests every 100 iterations; ours is one test of the last set.)"""

IDC = Protocol(name="idc", epochs=1000, schedule="idc", batch_size=64, augment="idc", cutmix=0.5, runs=3)
"""IDC ([Kim et al., ICML 2022](https://arxiv.org/abs/2205.14959)) on images up to 32 pixels: 1000 passes in
batches of 64 with CutMix. (The published numbers are the best of four tests along the way; ours is the last.)"""

M3D = replace(IDC, name="m3d", runs=10)
"""M3D ([Zhang et al., AAAI 2024](https://arxiv.org/abs/2312.15927)) on images up to 32 pixels: 10 classifiers. The
paper says no more of its evaluation than that training is from scratch; the rest is IDC's, whose code its pipeline
presumably is. (On MNIST: `idc_mnist`, on SVHN with one whole image per class `idc_svhn_ipc1`.)"""

IDC_MNIST = replace(IDC, name="idc_mnist", cutmix=0.0)
"""The same without CutMix: IDC's on MNIST, where images hold several."""

IDC_SVHN_IPC1 = replace(IDC, name="idc_svhn_ipc1", cutmix=0.0, augment="idc_cutout")
"""The same with cutout instead of CutMix: IDC's on SVHN with one whole image per class."""

DATADAM_PAPER = Protocol(name="datadam_paper", epochs=300, schedule="datadam", runs=100)
"""DataDAM's supplement ([Sajedi et al., ICCV 2023](https://arxiv.org/abs/2310.00093)): the learning rate halves every
15 passes, 100 classifiers. It states neither passes nor batch size: after 300 passes the learning rate is two
millionths of what it was. Where a pass is one batch that is too short: a set of CIFAR-10 with 10 images per class has
43.7 % by it and 49.5 % by `datadam_code`."""

DATADAM_CODE = Protocol(name="datadam_code", epochs=1800, batch_size=64, runs=10)
"""DataDAM's [released code](https://github.com/DataDistillation/DataDAM): 1801 passes in batches of 64. (It
prints the best checkpoint's test; ours is the last's.)"""

CONSTANT_COMPUTE = Protocol(name="constant_compute", steps=2000, wraps=True)
"""Ours: 2000 batches of 256, so 512,000 images and 2000 steps whatever the size of the set, about what DM's protocol
shows of 50 images of each of 10 classes. Under a protocol that counts passes a larger set also trains longer; at one
budget of compute sets of different size can be told apart by what is in them ([Sahdev et al., CVPR
2026](https://arxiv.org/abs/2604.18811))."""

RDED = Protocol(
    name="rded",
    epochs=300,
    schedule="half_cosine",
    batch_size=50,
    optimiser="adamw",
    lr=1e-3,
    weight_decay=0.01,
    augment="resized_crop",
    cutmix=1.0,
    teacher="resnet18_bn",
    temperature=20.0,
)
"""The soft labels of RDED ([Sun et al., CVPR 2024](https://arxiv.org/abs/2312.03526); [its
code](https://github.com/LINs-lab/RDED)): a ResNet-18 of the real data labels every batch after random resized crop,
flip and CutMix; Kullback-Leibler divergence at temperature 20, AdamW, learning rate 0.001 down the first half of a
cosine wave, 300 passes in batches of 50, the code's for 10 images of each of 10 classes. (The code reports the best of
several tests; ours is the last. It also shuffles the tiles of images that hold several; ours are cut into their tiles
before.)"""

RD3 = replace(RDED, name="rd3", epochs=400, schedule="cosine")
"""RD3 ([Zhong et al., ICLR 2026](https://arxiv.org/abs/2509.19743)), which puts one soft-label protocol in place of
many: as RDED, but 400 passes, and a cosine down to zero. (Temperature, decay and the crops' sizes are RDED's.)"""

PROTOCOLS = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            DM, DC, CHALLENGE, IDM, MTT, IDC, M3D, IDC_MNIST, IDC_SVHN_IPC1, DATADAM_PAPER, DATADAM_CODE, RDED, RD3,
            CONSTANT_COMPUTE, QUICK,
        )
    }
)  # fmt: skip
"""Protocols by name."""

UNSTATED = frozenset({M3D.name, DATADAM_PAPER.name})
"""Those whose papers state neither passes nor batch size: ours are a guess, and nothing to be told as the paper's."""


def resolved(name: str, epochs: int | None = None, steps: int | None = None, augment: str | None = None) -> Protocol:
    """The protocol of a name, shortened and augmented as asked for.

    Raises:
        InputError: an unknown name, or what `Protocol.shortened` and `Protocol.augmented` refuse.
    """
    return pick(PROTOCOLS, name, "protocol").shortened(epochs, steps).augmented(augment)


def of_real(name: str) -> Protocol:
    """The protocol of a name, for a classifier of the real training images themselves.

    Raises:
        InputError: one that asks for what only distilled sets come with: a learnt learning rate, or a teacher.
    """
    protocol = pick(PROTOCOLS, name, "protocol")
    require(
        not protocol.learned_lr,
        f"protocol {name} trains at a learning rate learnt with a distilled set; a classifier of the training images "
        "has none. Choose another, such as quick.",
    )
    require(
        protocol.teacher is None,
        f"protocol {name} trains by the labels of a teacher, which a classifier of the training images would itself "
        "be. Choose another, such as quick.",
    )
    return protocol


def alike(first: str, second: str) -> bool:
    """Whether protocols of two names train alike: they are one, or differ in the number of classifiers only.

    Examples:
        >>> alike("challenge", "dm"), alike("idc", "dm"), alike("dm_60_epochs", "dm")
        (True, False, False)
    """
    known = [PROTOCOLS.get(name) for name in (first, second)]
    if None in known:
        return first == second
    one, other = (replace(protocol, name="", runs=1) for protocol in known if protocol is not None)
    return one == other
