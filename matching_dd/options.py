"""The options of the commands of this track that all methods share; each method's own stand beside it. No torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from core_dd.data.options import DataConfig
from core_dd.errors import above, at_least, pick, require
from core_dd.options import RunConfig, option

if TYPE_CHECKING:
    from core_dd.judge.protocols import Protocol


@dataclass(kw_only=True)
class MatchingConfig(RunConfig, DataConfig):
    """Fields all matching methods share; each method's own config derives from it and sets the paper's values."""

    GROUP: ClassVar[str] = "method"

    method: str = "dm"
    """How real and synthetic data are matched: a name of matching_dd.METHODS."""
    ipc: int = 10
    """Synthetic images per class."""
    iterations: int = option(20000, free_on_resume=True)
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
    out: str | None = None
    """The run folder; default: the next number under runs/DATA-METHOD-ipcN/."""
    dry_run: bool = False
    """Check everything, print the resolved config, and the memory and time to expect by a few iterations; then stop."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints; each also holds the set so far and its picture."""
    keep: int = 3
    """How many checkpoints to keep: the last 3 to go on from, earlier ones without what that needs beside the set."""
    log_every: int = 10
    """Iterations between lines of stats.jsonl."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from core_dd.judge.augment import DSA
        from core_dd.sets.factor import DECODES
        from matching_dd.base import AUGMENT_MODES
        from matching_dd.synthetic import SPACES

        at_least(self, 1, "ipc", "iterations", "batch_real", "factor", "max_syn")
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
        from core_dd.sets.factor import sources

        return len(sources(self.ipc, self.factor, self.decode, self.max_syn))

    @property
    def rounds(self) -> int:
        """About how often an iteration looks at a batch of every class."""
        return 1

    @property
    def syn_per_class(self) -> int:
        """Synthetic images of a class that an iteration takes."""
        return min(self.decoded_per_class, self.max_syn or self.decoded_per_class)


@dataclass(kw_only=True)
class ExpertsConfig(RunConfig, DataConfig):
    """Record training trajectories on real data. The defaults are MTT's (Cazenavette et al., CVPR 2022)."""

    GROUP: ClassVar[str] = "experts"

    network: str = "convnet3"
    """What to train: convnet1 to convnet6, with suffixes such as _w64."""
    experts: int = 100
    """How many."""
    epochs: int = 50
    """Passes over the training images; the weights are recorded before the first and after each."""
    lr: float = 0.01
    """Learning rate, plain SGD."""
    batch_size: int = 256
    """Images per step."""
    augment: str = "dsa"
    """dsa or none."""
    preprocess: str = "mean_std"
    """The training space, that of the distillation to come: mean_std (the data's own constants), cifar10_mean_std
    (CIFAR-10's, for any colour images: MTT's on CIFAR-100) or zca (whitened)."""
    at_once: int | None = None
    """Networks trained side by side; default: 10 on a GPU, 1 on a CPU, where it is no faster. Which has no influence on
    any of them."""
    bf16: bool = True
    """Train in bf16 where the hardware does it faster; the weights stay in fp32."""
    out: str | None = None
    """The folder; default: the next number under runs/DATA-experts-NETWORK/."""
    dry_run: bool = False
    """Check everything, print the resolved config, and the disk space and time to expect by a few steps; then stop."""
    checkpoint_every: int = 5
    """Epochs between checkpoints of the networks in training."""
    log_every: int = 1
    """Epochs between lines of stats.jsonl."""
    keep: int = 1
    """How many checkpoints to keep; the experts that are finished need none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "experts", "epochs", "batch_size", "at_once")
        above(self, 0, "lr")
        require(self.augment in ("dsa", "none"), f"augment must be dsa or none, got '{self.augment}'.")

    def protocol(self) -> "Protocol":
        """How the experts are trained: at one learning rate, to the last of `epochs` passes."""
        from core_dd.judge.protocols import Protocol

        return Protocol(
            name="expert",
            epochs=self.epochs,
            schedule="constant",
            batch_size=self.batch_size,
            lr=self.lr,
            momentum=0.0,
            weight_decay=0.0,
            augment=self.augment,
        )


@dataclass(kw_only=True)
class CoresetConfig(DataConfig):
    """Choose ipc real training images of every class."""

    name: str = "random"
    """How: random (uniformly, without replacement), or in the features of a classifier trained on the training images:
    herding (their running mean follows the class mean), k_center (farthest first), medoids (nearest to the centres of
    k-means)."""
    ipc: int = 10
    """Images per class."""
    network: str = "convnet3"
    """The classifier whose features choose."""
    protocol: str = "quick"
    """How it is trained: a protocol of gendd evaluate, e.g. quick or dm."""
    classifier: str | None = None
    """Its file: read where there is one, else written after training; default: classifier.safetensors beside the
    set."""
    seed: int = 0
    """Seed of the choice and of the classifier."""
    device: str | None = None
    """cpu or cuda; default: cuda where there is one."""
    out: str | None = None
    """The file to write; default: distilled.safetensors in the next folder under runs/DATA-NAME-ipcN/."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from core_dd.judge.protocols import PROTOCOLS
        from matching_dd.coresets import CORESETS

        pick(CORESETS, self.name, "coreset")
        require(
            not pick(PROTOCOLS, self.protocol, "protocol").learned_lr,
            f"protocol {self.protocol} trains at a learning rate learnt with a distilled set; a classifier of the "
            "training images has none. Choose another, such as quick.",
        )
