"""What every matching method shares: its config fields, the iteration, and fast features."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.errors import require
from core_dd.judge.augment import DSAugment, IDCAugment, strategy_for
from core_dd.judge.networks import ForeignNetwork, build_network, interact, require_shown, reset
from core_dd.judge.training import draws
from core_dd.records import fitting
from core_dd.rng import stream
from core_dd.speed import MATCHING, autocast, can_compile, compiled, forward_flops, graph_bytes, pick_device
from matching_dd.optim import PerClassSGD
from matching_dd.options import MatchingConfig, RandomNetworksConfig
from matching_dd.real import RealImages
from matching_dd.synthetic import Synthetic, initial_images

AUGMENT_MODES: MappingProxyType[str, Callable[[str], DSAugment]] = MappingProxyType(
    {"S": DSAugment, "M": partial(DSAugment, mode="M"), "idc": IDCAugment}
)
"""How operations are chosen, by name: strategy -> augmentation."""


class Method:
    """One distillation, ready to iterate: the real images, the synthetic ones, a network, the image optimiser.

    Most methods give a `loss` and nothing else: every iteration draws a fresh random network and steps all images
    once, jointly. One that keeps its networks longer overrides `draw_network`; one with loops of its own overrides
    `step` and, for what the next iteration depends on beside the images, `state` and `load_state`.

    Args:
        config: of the class `Config`.
        data: the real data.

    Attributes:
        drawn: the samplers of real images by class, by the field that says how many they draw.

    Raises:
        InputError: whatever in `config` does not fit `data` or this machine.
    """

    Config: ClassVar[type[MatchingConfig]] = MatchingConfig
    graph_copies: ClassVar[int] = 1
    """How often autograd keeps what `graph_bytes` counts: twice where it differentiates a gradient."""
    sees: ClassVar[str | None] = "features"
    """What `measure` looks at: a network's features, its activations, or None: nothing but its logits."""
    origin: Mapping[str, str] = MappingProxyType({})
    """What it is made from beside the data, which a resumed run must find again; see `core_dd.run.Run.open`."""

    def __init__(self, config: Any, data: ImageData) -> None:
        self.config, self.data, self.device = config, data, pick_device(config.device)
        preprocess = Preprocess.fit(data, config.preprocess)
        start = initial_images(config.init, data, config.ipc, preprocess, config.seed, config.factor)
        preprocess = preprocess.to(self.device)
        self.real = RealImages(data, config.batch_real, preprocess, config.seed, self.device)
        self.drawn = {"batch_real": self.real}
        shown = {"factor": config.factor, "decode": config.decode, "most": config.max_syn, "space": config.space}
        self.synthetic = Synthetic(start.to(self.device), preprocess, **shown)
        strategy = strategy_for(data) if config.augment == "auto" else config.augment
        self.augment = None if strategy == "none" else AUGMENT_MODES[config.augment_mode](strategy)
        self.optimizer = self.image_optimizer()
        self.net = build_network(config.network, data.shape, data.num_classes).requires_grad_(False)
        without_dropout(self.net.to(self.device).train())
        require(
            not draws(self.net, data.shape),
            f"network {config.network} draws random numbers when it is trained (dropout or dropped layers of its own), "
            "which no seed governs. Switch that off in its code.",
        )
        self.check_network()
        self.compile = config.compile and self.pays_to_compile()
        self.features = Features(self.device, self.measure, bf16=config.bf16, compile=self.compile)
        each = graph_bytes(self.net, data.shape, self.measure)
        self.most_at_once = _images_at_once(config, each, self.device)
        self.chunks = self.parts(self.graph_copies * each)

    def parts(self, each: int) -> list[range]:
        """The classes in parts that go through one after the other; `each` image's graph takes so many bytes."""
        config, shape = self.config, self.data.shape
        return class_chunks(self.data.num_classes, shape, config, each, self.device, self.together())

    def together(self) -> bool:
        """Whether the network sees all classes at once, because it normalises the images of a batch by each other."""
        return interact(self.net)

    def check_network(self) -> None:
        """Refuse a network that does not show what `measure` looks at.

        Raises:
            InputError: for such a network.
        """
        if self.sees is not None:
            require_shown(self.net, self.sees, self.config.network, self.config.method)

    def pays_to_compile(self) -> bool:
        """Whether the iterations are work enough to earn back the compilation; a backward pass is two forward ones."""
        config = self.config
        images = self.data.num_classes * self.graph_copies * (config.batch_real + 3 * config.syn_per_class)
        flops = 0.0  # where other code does not work without values
        with contextlib.suppress(*([RuntimeError] if isinstance(self.net, ForeignNetwork) else [])):
            flops = images * forward_flops(self.net, torch.zeros(2, *self.data.shape))  # on "meta"
        seconds = MATCHING.seconds(flops, config.iterations * config.rounds, self.device)
        return MATCHING.pays(min(seconds, config.max_seconds or seconds), self.device)

    def draw_network(self, step: int) -> nn.Module:
        """The network of this iteration: the one module, compiled once, with new random weights, which are none that
        the judge's classifiers begin with."""
        return reset(self.net, stream(self.config.seed, "drawn network", step))

    def image_optimizer(self) -> torch.optim.Optimizer:
        """SGD on the images: one joint step per iteration, or one per class."""
        images, lr, momentum = self.synthetic.images, self.config.lr_img, self.config.momentum
        if self.config.per_class:
            return PerClassSGD(images, lr=lr, momentum=momentum)
        return torch.optim.SGD([images], lr=lr, momentum=momentum)

    def measure(self, net: nn.Module, images: Tensor) -> Tensor:
        """What `features` computes of each image, (N, D), of augmented images (N, C, H, W); compiled."""
        return net(images) if self.sees is None else net.features(images)

    def draw(self, step: int, classes: range) -> tuple[Tensor, Tensor]:
        """Real (len(classes), B, C, H, W) and synthetic (len(classes), M, C, H, W) images, augmented alike."""
        return self.beside(self.real.draw(step, classes), step, classes)

    def beside(self, real: Tensor, step: int, classes: range) -> tuple[Tensor, Tensor]:
        """Images of some classes, (len(classes), B, C, H, W), and the synthetic ones, augmented as in `draw`."""
        syn = self.synthetic.decoded(classes)
        if syn.shape[1] > self.config.syn_per_class:
            syn = syn[torch.arange(len(classes))[:, None], self.chosen(step, classes)]
        if self.augment is None:
            return real, syn
        return self.augment.siamese(real, syn, [stream(self.config.seed, "augment", step, k) for k in classes])

    def chosen(self, step: int, classes: range) -> Tensor:
        """Which of a class's decoded images `draw` takes where it leaves some out: int64 (len(classes), M)."""
        decoded, seed = self.config.decoded_per_class, self.config.seed
        orders = [torch.randperm(decoded, generator=stream(seed, "synthetic", step, k)) for k in classes]
        return torch.stack(orders)[:, : self.config.syn_per_class]

    def begin(self) -> None:
        """What comes before an iteration: clamping."""
        if self.config.clamp:
            self.synthetic.clamp_()

    def loss(self, net: nn.Module, real: Tensor, syn: Tensor) -> Tensor:
        """Scalar, summed over classes; real (K, B, C, H, W), syn (K, M, C, H, W), training space, augmented.

        K may be any part of the classes: `step` sums the parts, unless the network's samples `interact`.
        """
        raise NotImplementedError

    def class_loss(self, net: nn.Module, step: int, classes: range) -> Tensor:
        """The loss of some classes, on the images of one step."""
        return self.loss(net, *self.draw(step, classes))

    def match(self, net: nn.Module, turn: int) -> Tensor:
        """One step of the images, at one network; `turn` numbers those of the whole run. Returns the loss."""
        if self.config.per_class:
            self.optimizer.approach()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backward(net, turn)
        self.optimizer.step()
        return loss

    def backward(self, net: nn.Module, turn: int) -> Tensor:
        """Give the images their gradient, part by part of the classes; returns the loss."""
        total = torch.zeros((), device=self.device)
        for classes in self.chunks:
            loss = self.class_loss(net, turn, classes)
            loss.backward()
            total += loss.detach()
        return total

    def iterate(self, step: int, elapsed: float = 0.0) -> Tensor:
        """One iteration of a run, at its learning rate, counted into the average of the last ones; returns its loss.

        Args:
            step: its number, from 0.
            elapsed: the part of the run's time limit that is used up, 0..1; the end is where iterations or time end
                first.
        """
        done = max(step / self.config.iterations, elapsed)
        part = self.decay(step) * ((1 + math.cos(math.pi * done)) / 2 if self.config.lr_course == "cosine" else 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * part
        loss = self.step(step)
        if done >= 1 - self.config.average_last:
            self.synthetic.average_in()
        return loss

    def decay(self, step: int) -> float:
        """The part of the learning rates that the method itself leaves at an iteration."""
        return 1.0

    def step(self, step: int) -> Tensor:
        """One iteration; returns its loss."""
        net = self.draw_network(step)
        self.begin()
        return self.match(net, step)

    def state(self) -> dict[str, Any]:
        """Everything the next iteration depends on: tensors and plain values."""
        return {**self.synthetic.state(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave, in a distillation that has not begun."""
        self.synthetic.load_state(state)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        fitting(self.optimizer)
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["initial_lr"] = lr


class RandomNetworks(Method):
    """A method that compares what random networks, never trained, make of real and of synthetic images.

    It gives `compare`, where others give a loss.
    """

    Config = RandomNetworksConfig

    def __init__(self, config: RandomNetworksConfig, data: ImageData) -> None:
        super().__init__(config, data)
        self._of_real: dict[tuple[int, range], Tensor] = {}  # by the first step with a batch, of those that share it

    def draw_network(self, step: int) -> nn.Module:
        """A new one for every `ipm` batches of real images."""
        batch = step // self.config.steps_per_batch
        return reset(self.net, stream(self.config.seed, "drawn network", batch // self.config.ipm))

    def compare(self, real: Tensor, syn: Tensor) -> Tensor:
        """The loss, a scalar, summed over classes, of what `measure` makes of real images, (K, B, D), and of synthetic
        ones, (K, M, D)."""
        raise NotImplementedError

    def loss(self, net: nn.Module, real: Tensor, syn: Tensor) -> Tensor:
        """Scalar, summed over classes; real (K, B, C, H, W), syn (K, M, C, H, W), training space."""
        return self.compare(self.features.fixed(net, real), self.features(net, syn))

    def class_loss(self, net: nn.Module, step: int, classes: range) -> Tensor:
        """The loss of some classes, on the images of one step; of steps that share a batch, the first sees the real
        ones."""
        if self.config.steps_per_batch == 1:
            return super().class_loss(net, step, classes)
        first = step - step % self.config.steps_per_batch
        if (first, classes) not in self._of_real:
            self._of_real = {place: own for place, own in self._of_real.items() if place[0] == first}
            real, syn = self.draw(first, classes)
            self._of_real[first, classes] = self.features.fixed(net, real)
        else:
            _, syn = self.beside(self.real.images.new_zeros(len(classes), 1, *self.data.shape).float(), first, classes)
        return self.compare(self._of_real[first, classes], self.features(net, syn))


_PIECE_PIXELS = {"cpu": 2**14, "cuda": 2**22}
"""Pixels per forward without gradient. On a CPU the activations of 128 channels then stay in its cache (measured twice
as fast as 256 images of 32x32 at once); on a GPU that many fill it, in little memory."""


class Features:
    """What a network makes of images by class: compiled, in bf16 where it pays, with fp32 results.

    The graph is compiled once per shape: redraw the network's weights in place (`core_dd.judge.networks.reset`).

    Args:
        device: where it computes.
        measure: (net, images (N, C, H, W)) -> (N, D); default: the network's features.
        bf16, compile: as in `MatchingConfig`.
    """

    def __init__(
        self,
        device: torch.device,
        measure: Callable[[nn.Module, Tensor], Tensor] = lambda net, images: net.features(images),
        *,
        bf16: bool = True,
        compile: bool = True,
    ) -> None:
        self.device, self.bf16 = device, bf16
        compile = compile and can_compile(device.type)
        # Uncompiled, PyTorch's group norm is slow on channels-last images (half the speed of all of ConvNet-3).
        layout = torch.channels_last if compile else torch.contiguous_format

        def compute(net: nn.Module, images: Tensor) -> Tensor:
            return measure(net, images.contiguous(memory_format=layout)).float()

        self._compute = compiled(compute, device, dynamic=False) if compile else compute

    def __call__(self, net: nn.Module, images: Tensor) -> Tensor:
        """Features (K, N, D), float32, of images (K, N, C, H, W); differentiable with respect to the images."""
        with autocast(self.device, self.bf16):
            return self._compute(net, images.flatten(0, 1)).unflatten(0, images.shape[:2])

    def fixed(self, net: nn.Module, images: Tensor) -> Tensor:
        """Features (K, N, D), float32, of images (K, N, C, H, W) without gradient, computed piece by piece unless the
        samples of a batch interact."""
        return torch.cat(list(self.pieces(net, images.flatten(0, 1)))).unflatten(0, images.shape[:2])

    def pieces(self, net: nn.Module, images: Tensor) -> Iterator[Tensor]:
        """Features of images (N, C, H, W) without gradient, in pieces (n, D), for whoever need not hold them all."""
        total, (height, width) = len(images), images.shape[2:]
        pixels = _PIECE_PIXELS.get(self.device.type, _PIECE_PIXELS["cuda"])
        size = total if interact(net) else min(total, max(1, pixels // (height * width)))
        for start in range(0, total - size + 1, size):
            yield self._constant(net, images[start : start + size])
        if total % size:  # the rest, as the end of a piece of the size that is compiled already
            yield self._constant(net, images[-size:])[-(total % size) :]

    @torch.no_grad()
    def _constant(self, net: nn.Module, images: Tensor) -> Tensor:
        with autocast(self.device, self.bf16):
            return self._compute(net, images)


def without_dropout(net: nn.Module) -> nn.Module:
    """Switch off a network's dropout, for good: what is matched depends on its weights and on the images alone."""
    for module in net.modules():
        if isinstance(module, (_DropoutNd, StochasticDepth)):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return net


def _images_at_once(config: MatchingConfig, each: int, device: torch.device) -> int:
    """How many real images, of so many bytes each, may be in one graph under `config.memory_gib`; at least 1."""
    return max(1, int((config.memory_gib or _default_gib(device)) * 2**30 / each))


def _default_gib(device: torch.device) -> float:
    """What a chunk may take where `memory_gib` does not say: half of a GPU's free memory; on a CPU, which few classes
    keep busy, three quarters of a GiB."""
    return torch.cuda.mem_get_info(device)[0] / 2**31 if device.type == "cuda" else 0.75


def class_chunks(
    classes: int,
    shape: tuple[int, int, int],
    config: MatchingConfig,
    each: int,
    device: torch.device,
    whole: bool = False,
) -> list[range]:
    """The classes in parts of nearly equal size, as few as `config.memory_gib` allows; all in one part if `whole`.

    Counted per class: the real batch as pixels, in training space, augmented and between the two, and the graph of the
    synthetic images, `each` bytes per image. The device's default never refuses: a class too large for it goes alone.

    Raises:
        InputError: if a single class, or the whole, does not fit into `config.memory_gib`.
    """
    memory, image_bytes = config.memory_gib or _default_gib(device), 4 * math.prod(shape)
    syn_bytes = config.syn_per_class * (each + 4 * image_bytes)
    per_class = 4 * config.batch_real * image_bytes + syn_bytes
    fitting, needed = int(min(classes, memory * 2**30 / per_class)), classes if whole else 1
    require(
        fitting >= needed or config.memory_gib is None,
        f"memory_gib {config.memory_gib} is too small: {'all classes together need' if whole else 'one class needs'}"
        f" {needed * per_class / 2**30:.3g}. Raise it, or lower batch_real or ipc.",
    )
    limit = max(fitting, needed)
    count = -(-classes // limit)
    edges = [classes * i // count for i in range(count + 1)]
    return [range(low, high) for low, high in itertools.pairwise(edges)]
