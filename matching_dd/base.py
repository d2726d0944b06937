"""What every matching method shares: its config fields, the iteration, and fast features."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from core_dd.data.images import DataConfig, ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.errors import above, at_least, pick, require
from core_dd.judge.augment import DSA, IDCAugment, strategy_for
from core_dd.judge.networks import build_network, interact, reset
from core_dd.records import fitting
from core_dd.rng import stream
from core_dd.sets.factor import DECODES, sources
from core_dd.speed import MATCHING, autocast, can_compile, compiled, forward_flops, pick_device
from matching_dd.optim import PerClassSGD
from matching_dd.real import RealImages
from matching_dd.synthetic import SPACES, Synthetic, initial_images

AUGMENT_MODES: MappingProxyType[str, Callable[[str], DSA]] = MappingProxyType(
    {"S": DSA, "M": partial(DSA, mode="M"), "idc": IDCAugment}
)
"""How operations are chosen, by name: strategy -> augmentation."""


@dataclass(kw_only=True)
class MatchingConfig(DataConfig):
    """Fields all matching methods share; each method's own config derives from it and sets the paper's values."""

    method: str = "dm"
    """How real and synthetic data are matched: a name of matching_dd.METHODS."""
    ipc: int = 10
    """Synthetic images per class."""
    iterations: int = 20000
    """Steps of the image optimiser."""
    lr_img: float = 1.0
    """Learning rate of the images, in the space they are learnt in."""
    momentum: float = 0.5
    """Momentum of the image optimiser, SGD."""
    batch_real: int = 256
    """Real images per class and iteration; classes that have fewer are sampled with replacement."""
    network: str = "convnet3"
    """Network whose features are matched: convnet1 to convnet6, with suffixes such as convnet3_bn_w64."""
    init: str = "real"
    """What the set starts from: real (random training images), k_center (training images that cover their class),
    noise (normal in training space), noise_pixels (grey), or training images shrunk to the factor's tiles: mix and
    mix_bilinear (random ones) or mix_first (the first of each class)."""
    factor: int = 1
    """Every stored image holds factor x factor smaller ones, which are enlarged to be matched and trained on."""
    decode: str = "single"
    """Which tiles are matched: single, those of the factor; multi, those of every factor from 1 up to it; bound, those
    of the factor for as many images as max_syn has room for, of smaller ones for the others (judged as single)."""
    max_syn: int | None = None
    """Synthetic images per class and iteration, after the factor; more are sampled at random. Default: all."""
    space: str = "training"
    """Where the images are learnt, and so what lr_img means: training (normalised) or pixels (0..1)."""
    clamp: bool = False
    """Bring every pixel back to 0..1 before each iteration."""
    per_class: bool = False
    """Step the images once per class and iteration, as the IDC family does: momentum moves the other classes, too."""
    preprocess: str = "mean_std"
    """The training space: mean_std (the data's own constants), cifar10_mean_std (CIFAR-10's, for any colour images: on
    CIFAR-100 those of MTT, IDC and M3D) or zca (whitened)."""
    augment: str = "auto"
    """DSA operations, applied alike to a class's real and synthetic images: names joined by _, auto (all six, without
    flip where a mirror image changes the label), or none."""
    augment_mode: str = "S"
    """S draws one of the operations per class and iteration, M applies all of them in order; idc applies flip, color
    and cutout, and draws one of the others."""
    bf16: bool = True
    """Compute features in bf16 where the hardware does it faster; reductions stay in fp32."""
    compile: bool = True
    """Compile the network where all the iterations, however many a resumed call has left, earn back what that takes."""
    memory_gib: float | None = None
    """Largest memory for one forward and backward, in GiB: classes then go through in chunks that fit, to the same
    result. Default: half of a GPU's free memory, or 0.75 GiB on a CPU, which fewer classes keep busy."""
    seed: int = 0
    """Seed of every draw of the run."""
    device: str | None = None
    """cpu, cuda, cuda:1; default: cuda where there is one."""
    out: str | None = None
    """The run folder; default: the next number under runs/DATA-METHOD-ipcN/."""
    resume: bool = False
    """Go on from the last checkpoint of the run folder."""
    dry_run: bool = False
    """Check everything, print the resolved config, and the memory and time to expect by a few iterations; then stop."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints; each also holds the set so far and its picture."""
    keep: int = 3
    """How many checkpoints to keep: the last 3 to go on from, earlier ones without what that needs beside the set."""
    log_every: int = 10
    """Iterations between lines of stats.jsonl."""
    tracker: str = "tensorboard"
    """Experiment tracker: tensorboard, wandb and others that accelerate knows, or none."""

    def __post_init__(self) -> None:
        at_least(
            self, 1, "ipc", "iterations", "batch_real", "factor", "checkpoint_every", "keep", "log_every", "max_syn"
        )
        above(self, 0, "lr_img", "memory_gib")
        require(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}.")
        pick(DECODES, self.decode, "decode")
        require(
            self.decode != "bound" or (self.max_syn or 0) >= self.ipc,
            f"decode bound needs max_syn >= ipc {self.ipc}, got {self.max_syn}. Set max_syn to the most tiles of a "
            "class that an iteration may take.",
        )
        pick(SPACES, self.space, "space")
        pick(AUGMENT_MODES, self.augment_mode, "augment_mode")
        if self.augment not in ("auto", "none"):
            DSA(self.augment)

    @property
    def decoded_per_class(self) -> int:
        """Images that those of a class decode to."""
        return len(sources(self.ipc, self.factor, self.decode, self.max_syn))

    @property
    def rounds(self) -> int:
        """About how often an iteration looks at a batch of every class."""
        return 1

    @property
    def syn_per_class(self) -> int:
        """Synthetic images of a class that an iteration takes."""
        return min(self.decoded_per_class, self.max_syn or self.decoded_per_class)


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
    sees_layers: ClassVar[bool] = False
    """Whether `measure` looks at a network's layers, as ConvNets show them by `activations`."""
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
        self.net.to(self.device).train()
        require(
            hasattr(self.net, "activations") or not self.sees_layers,
            f"{config.method} needs a ConvNet, whose layers it can see: not {config.network}.",
        )
        self.compile = config.compile and self.pays_to_compile()
        self.features = Features(self.device, self.measure, bf16=config.bf16, compile=self.compile)
        each, classes = graph_bytes(self.net, data.shape, self.measure), data.num_classes
        self.most_at_once = images_at_once(config, each, self.device)
        graph = self.graph_copies * each
        self.chunks = class_chunks(classes, data.shape, config, graph, self.device, whole=interact(self.net))

    def pays_to_compile(self) -> bool:
        """Whether the iterations are work enough to earn back the compilation; a backward pass is two forward ones."""
        config = self.config
        images = self.data.num_classes * self.graph_copies * (config.batch_real + 3 * config.syn_per_class)
        flops = images * forward_flops(self.net, torch.zeros(2, *self.data.shape))
        seconds = MATCHING.seconds(flops, config.iterations * config.rounds, self.device)
        return MATCHING.pays(seconds, self.device)

    def draw_network(self, step: int) -> nn.Module:
        """The network of this iteration: the one module, compiled once, with new random weights."""
        return reset(self.net, stream(self.config.seed, "network", step))

    def image_optimizer(self) -> torch.optim.Optimizer:
        """SGD on the images: one joint step per iteration, or one per class."""
        images, lr, momentum = self.synthetic.images, self.config.lr_img, self.config.momentum
        if self.config.per_class:
            return PerClassSGD(images, lr=lr, momentum=momentum)
        return torch.optim.SGD([images], lr=lr, momentum=momentum)

    def measure(self, net: nn.Module, images: Tensor) -> Tensor:
        """What `features` computes of each image, (N, D), of augmented images (N, C, H, W); compiled."""
        return net.features(images)

    def draw(self, step: int, classes: range) -> tuple[Tensor, Tensor]:
        """Real (len(classes), B, C, H, W) and synthetic (len(classes), M, C, H, W) images, augmented alike."""
        real, syn = self.real.draw(step, classes), self.synthetic.decoded(classes)
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

    def step(self, step: int) -> Tensor:
        """One iteration; returns its loss."""
        net = self.draw_network(step)
        self.begin()
        return self.match(net, step)

    def state(self) -> dict[str, Any]:
        """Everything the next iteration depends on: tensors and plain values."""
        return {**self.synthetic.state(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.synthetic.load_state(state)
        self.optimizer.load_state_dict(state["optimizer"])
        fitting(self.optimizer)


PIECE_PIXELS = {"cpu": 2**14, "cuda": 2**22}
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
        """The same without gradient, computed piece by piece unless the samples interact."""
        return torch.cat(list(self.pieces(net, images.flatten(0, 1)))).unflatten(0, images.shape[:2])

    def pieces(self, net: nn.Module, images: Tensor) -> Iterator[Tensor]:
        """Features of images (N, C, H, W) without gradient, in pieces (n, D), for whoever need not hold them all."""
        total, (height, width) = len(images), images.shape[2:]
        size = total if interact(net) else min(total, max(1, PIECE_PIXELS[self.device.type] // (height * width)))
        for start in range(0, total - size + 1, size):
            yield self._constant(net, images[start : start + size])
        if total % size:  # the rest, as the end of a piece of the size that is compiled already
            yield self._constant(net, images[-size:])[-(total % size) :]

    @torch.no_grad()
    def _constant(self, net: nn.Module, images: Tensor) -> Tensor:
        with autocast(self.device, self.bf16):
            return self._compute(net, images)


def graph_bytes(net: nn.Module, shape: tuple[int, int, int], measure: Callable[[nn.Module, Tensor], Tensor]) -> int:
    """Bytes that autograd keeps for the backward of `measure`, of one image (C, H, W), in fp32 and uncompiled."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    image = torch.zeros(1, *shape, device=next(net.parameters()).device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        measured = measure(net, image)
    return sum(kept.values()) + measured.nbytes


def images_at_once(config: MatchingConfig, each: int, device: torch.device) -> int:
    """How many real images, of so many bytes each, may be in one graph under `config.memory_gib`; at least 1."""
    return max(1, int((config.memory_gib or default_gib(device)) * 2**30 / each))


def default_gib(device: torch.device) -> float:
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
    memory, image_bytes = config.memory_gib or default_gib(device), 4 * math.prod(shape)
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
