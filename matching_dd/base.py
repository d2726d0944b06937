"""What every matching method shares: its config fields, the protocol the loop calls, and fast features."""

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core_dd.augment import DSA
from core_dd.data import DataConfig, ImageData
from core_dd.errors import require
from core_dd.networks import build_network
from core_dd.speed import autocast, can_compile, compiled


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
    """Learning rate of the images, which live in training space (normalised)."""
    momentum: float = 0.5
    """Momentum of the image optimiser, SGD."""
    batch_real: int = 256
    """Real images per class and iteration; classes that have fewer are sampled with replacement."""
    network: str = "convnet3"
    """Network whose features are matched: convnet1 to convnet6, with suffixes such as convnet3_bn_w64."""
    init: str = "real"
    """What the set starts from: real (random training images) or noise."""
    preprocess: str = "mean_std"
    """The training space: mean_std or zca."""
    augment: str = "auto"
    """DSA operations, one drawn per class and applied alike to its real and synthetic images: names joined by _, or
    auto (all six, without flip where a mirror image changes the label)."""
    bf16: bool = True
    """Compute features in bf16 where the hardware does it faster; reductions stay in fp32."""
    compile: bool = True
    """Compile the network where that works: about 10 s once, then 2 to 5 times faster."""
    memory_gib: float | None = None
    """Largest memory for one forward and backward, in GiB: classes then go through in chunks that fit, to the same
    result. Default: all classes at once."""
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
    """How many checkpoints to keep."""
    log_every: int = 10
    """Iterations between lines of stats.jsonl."""
    tracker: str = "tensorboard"
    """Experiment tracker: tensorboard, wandb and others that accelerate knows, or none."""

    def __post_init__(self) -> None:
        for name in ("ipc", "iterations", "batch_real", "checkpoint_every", "keep", "log_every"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}.")
        require(self.lr_img > 0, f"lr_img must be > 0, got {self.lr_img}.")
        require(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}.")
        require(self.memory_gib is None or self.memory_gib > 0, f"memory_gib must be > 0, got {self.memory_gib}.")
        if self.augment != "auto":
            DSA(self.augment)


class Method(Protocol):
    """A matching method: built once per run, asked for a network and a loss in every iteration."""

    Config: ClassVar[type[MatchingConfig]]

    def __init__(self, config: Any, data: ImageData, device: torch.device) -> None: ...

    def draw_network(self, step: int, generator: torch.Generator) -> nn.Module:
        """The network of this iteration; its weights come from `generator` alone."""
        ...

    def loss(self, net: nn.Module, real: Tensor, syn: Tensor) -> Tensor:
        """Scalar, summed over classes; real (K, B, C, H, W), syn (K, M, C, H, W), training space, augmented.

        K may be any part of the classes: the loop sums the parts, unless the network's samples `interact`.
        """
        ...


def frozen_network(name: str, data: ImageData, device: torch.device) -> nn.Module:
    """A network for the images of `data` whose weights are never trained, on `device`, in training mode."""
    return build_network(name, data.shape, data.num_classes).requires_grad_(False).to(device).train()


def interact(net: nn.Module) -> bool:
    """Whether one sample's features depend on the others of its batch (batch normalisation)."""
    return any(isinstance(module, _BatchNorm) for module in net.modules())


PIECE_PIXELS = {"cpu": 2**14, "cuda": 2**22}
"""Pixels per forward without gradient. On a CPU the activations of 128 channels then stay in its cache (measured twice
as fast as 256 images of 32x32 at once); on a GPU that many fill it, in little memory."""


class Features:
    """`net.features` of images by class: compiled, in bf16 where it pays, with fp32 results.

    The graph is compiled once per shape: redraw the network's weights in place (`core_dd.networks.reset`).
    """

    def __init__(self, device: torch.device, *, bf16: bool = True, compile: bool = True) -> None:
        self.device, self.bf16 = device, bf16
        compile = compile and can_compile(device.type)
        # Uncompiled, PyTorch's group norm is slow on channels-last images (half the speed of all of ConvNet-3).
        layout = torch.channels_last if compile else torch.contiguous_format

        def compute(net: nn.Module, images: Tensor) -> Tensor:
            return net.features(images.contiguous(memory_format=layout)).float()

        self._compute = compiled(compute, device, dynamic=False) if compile else compute

    def __call__(self, net: nn.Module, images: Tensor) -> Tensor:
        """Features (K, N, D), float32, of images (K, N, C, H, W); differentiable with respect to the images."""
        with autocast(self.device, self.bf16):
            return self._compute(net, images.flatten(0, 1)).unflatten(0, images.shape[:2])

    @torch.no_grad()
    def fixed(self, net: nn.Module, images: Tensor) -> Tensor:
        """The same without gradient, computed piece by piece unless the samples interact."""
        flat = images.flatten(0, 1)
        total, (height, width) = len(flat), flat.shape[2:]
        size = total if interact(net) else min(total, max(1, PIECE_PIXELS[self.device.type] // (height * width)))
        starts = range(0, total - size + 1, size)
        with autocast(self.device, self.bf16):
            parts = [self._compute(net, flat[start : start + size]) for start in starts]
            if total % size:  # the rest, as the end of a piece of the size that is compiled already
                parts.append(self._compute(net, flat[-size:])[-(total % size) :])
        return torch.cat(parts).unflatten(0, images.shape[:2])


def graph_bytes(net: nn.Module, shape: tuple[int, int, int]) -> int:
    """Bytes that autograd keeps between forward and backward of one image (C, H, W), in fp32, uncompiled."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    image = torch.zeros(1, *shape, device=next(net.parameters()).device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features = net.features(image)
    return sum(kept.values()) + features.nbytes


def class_chunks(classes: int, config: MatchingConfig, net: nn.Module, shape: tuple[int, int, int]) -> list[range]:
    """The classes in parts of nearly equal size, as few as `config.memory_gib` allows.

    Counted per class: the real batch as pixels, in training space, augmented and between the two, and what the graph
    of the synthetic images keeps.

    Raises:
        InputError: if a single class does not fit, or the network's samples interact and not all classes fit.
    """
    if config.memory_gib is None:
        return [range(classes)]
    image_bytes = 4 * shape[0] * shape[1] * shape[2]
    per_class = 4 * config.batch_real * image_bytes + config.ipc * (graph_bytes(net, shape) + 4 * image_bytes)
    limit = int(config.memory_gib * 2**30 / per_class)
    needed = classes if interact(net) else 1
    require(
        limit >= needed,
        f"memory_gib {config.memory_gib} is too small: {'one class needs' if needed == 1 else 'all classes together'}"
        f" {'' if needed == 1 else 'need '}{needed * per_class / 2**30:.3g}. Raise it, or lower batch_real or ipc.",
    )
    count = -(-classes // limit)
    edges = [classes * i // count for i in range(count + 1)]
    return [range(low, high) for low, high in itertools.pairwise(edges)]
