"""The options of the commands of this track that all methods share; each method's own stand beside it. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from core_dd.data.options import PREPROCESS_CHOICES, DataConfig
from core_dd.errors import above, at_least, require
from core_dd.judge.options import CHOOSER_CHOICES, NETWORK_CHOICES, PROTOCOL_CHOICES
from core_dd.options import RunConfig, option

if TYPE_CHECKING:
    from core_dd.judge.protocols import Protocol

METHOD_CHOICES = MappingProxyType(
    {
        "dm": "class means in the features of random networks (Zhao & Bilen, WACV 2023)",
        "m3d": "class distributions in a kernel's feature space (Zhang et al., AAAI 2024)",
        "datadam": "mean attention maps and features (Sajedi et al., ICCV 2023)",
        "idm": "class means in networks in training, which the images also classify (Zhao et al., CVPR 2023)",
        "cafe": "the features of every layer; class means that classify (Wang et al., CVPR 2022)",
        "dc": "the gradients of networks in training (Zhao et al., ICLR 2021)",
        "dsa": "the same, of images that are augmented alike (Zhao & Bilen, ICML 2021)",
        "idc": "the gradients of convolutions, several small images per stored one (Kim et al., ICML 2022)",
        "mtt": "the training trajectories of experts (Cazenavette et al., CVPR 2022)",
        "ead": "the effect on an expert's training of replacing real data (anonymous draft)",
    }
)
"""What is matched (`matching_dd.METHODS`)."""

INIT_CHOICES = MappingProxyType(
    {
        "real": "random training images, whole whatever the factor: each tile is then a part of one",
        "k_center": "training images that cover their class, shrunk to the factor's tiles",
        "medoids": "the training images nearest the centres of k-means in their class, shrunk likewise",
        "centroids": "these centres, each the mean image of its cluster, shrunk likewise",
        "noise": "normal noise in training space",
        "noise_pixels": "grey noise",
        "mix": "random training images, shrunk likewise (M3D)",
        "mix_bilinear": "the same, shrunk smoothly (IDM)",
        "mix_first": "the first training images of each class, shrunk likewise (IDC)",
    }
)
"""What a set starts from (`matching_dd.synthetic.INITS`)."""

DECODE_CHOICES = MappingProxyType(
    {
        "single": "those of the factor",
        "multi": "those of every factor from 1 up to it",
        "bound": "those of the factor for as many images as max_syn has room for, of smaller ones for the others",
    }
)
"""Which tiles are matched (`core_dd.sets.factor.DECODES`)."""

SPACE_CHOICES = MappingProxyType({"training": "normalised", "pixels": "the 0..1 scale"})
"""Where images are learnt (`matching_dd.synthetic.SPACES`)."""

AUGMENT_MODE_CHOICES = MappingProxyType(
    {
        "S": "one of the operations per class and iteration",
        "M": "all of them, in order",
        "idc": "flip, color and cutout, and one of the others",
    }
)
"""Which operations are applied (`matching_dd.base.AUGMENT_MODES`)."""


LR_COURSE_CHOICES = MappingProxyType(
    {
        "constant": "as published",
        "cosine": "to 0 at the last iteration, along half a cosine (Loshchilov & Hutter, ICLR 2017)",
    }
)
"""How the learning rate of the images goes on."""

SHORTER = "shorter courses"
"""The heading of what may save iterations, or make them cheaper; but for M3D's `ipm`, no paper of these methods does
it."""
VALIDATION = "validation"
"""The heading of early stopping."""


@dataclass(kw_only=True)
class MatchingConfig(RunConfig, DataConfig):
    """Learn a few images per class by matching what networks make of them with what they make of real data.

    Each method has its paper's defaults and options of its own: gendd distill --method m3d --help shows them.
    """

    GROUP: ClassVar[str] = "method"
    HOME: ClassVar[str] = "matching"

    method: str = option("dm", choices=METHOD_CHOICES)
    """What is matched."""
    ipc: int = 10
    """Synthetic images per class."""
    iterations: int = option(20000, free_on_resume=True)
    """Steps of the image optimiser."""
    max_seconds: float | None = option(None, free_on_resume=True)
    """Stop after this many seconds of iterations, over all calls of the run, if they come first; imports, the first
    iteration of a call where it compiles, checkpoints and their validation are not counted."""
    lr_img: float = 1.0
    """Learning rate of the images, in the space they are learnt in."""
    momentum: float = 0.5
    """Momentum of the image optimiser, SGD."""
    batch_real: int = 256
    """Real images per class and iteration; classes that have fewer are sampled with replacement."""
    network: str = option("convnet3", choices=NETWORK_CHOICES, others=True)
    """Network that real and synthetic data are compared by. DataDAM and CAFE look at its layers, which mlp and timm's
    models do not show."""
    init: str = option("real", choices=INIT_CHOICES)
    """What the set starts from."""
    factor: int = 1
    """Every stored image holds factor x factor smaller ones, which are enlarged to be matched and trained on."""
    decode: str = option("single", choices=DECODE_CHOICES)
    """Which tiles are matched; bound is judged as single."""
    max_syn: int | None = None
    """Synthetic images per class and iteration, after the factor; more are sampled at random. Default: all."""
    space: str = option("training", choices=SPACE_CHOICES)
    """Where the images are learnt, and so what lr_img means."""
    clamp: bool = False
    """Bring every pixel back to 0..1 before each iteration."""
    per_class: bool = False
    """Step the images once per class and iteration, as the IDC family does: momentum moves the other classes, too."""
    preprocess: str = option("mean_std", choices=PREPROCESS_CHOICES)
    """The training space."""
    augment: str = "auto"
    """DSA operations, applied alike to a class's real and synthetic images: names joined by _, auto (all six, without
    flip where a mirror image changes the label), or none."""
    augment_mode: str = option("S", choices=AUGMENT_MODE_CHOICES)
    """Which of these operations are applied."""
    lr_course: str = option("constant", group=SHORTER, choices=LR_COURSE_CHOICES)
    """How lr_img, and what else is learnt beside the images, goes on over the iterations, or over max_seconds where
    these end first."""
    average_last: float = option(0.0, group=SHORTER)
    """The part of the iterations (or of max_seconds where these end first), at the end, over which the images are
    averaged; their average is then the set (Polyak & Juditsky, 1992). 0: the images as they are, as published."""
    val_fraction: float = option(0.0, group=VALIDATION)
    """The part of each class's training images kept aside as the validation split; at every checkpoint classifiers are
    then trained on the set and tested on it, and the best set is the result. 0: no validation, as published, and the
    last set is the result."""
    patience: int | None = option(None, group=VALIDATION, free_on_resume=True)
    """Stop when so many checkpoints in a row brought no better set. Default: go on to the last iteration."""
    val_protocol: str = option("quick", group=VALIDATION, choices=PROTOCOL_CHOICES)
    """How these classifiers, of the method's network, are trained."""
    val_classifiers: int = option(2, group=VALIDATION)
    """How many; their mean counts."""
    bf16: bool = option(True, group="speed")
    """Compute features in bf16 where the hardware does it faster; reductions stay in fp32."""
    compile: bool = option(True, group="speed")
    """Compile the network where all the iterations, or max_seconds of them, however many a resumed call has left, earn
    back what that takes."""
    memory_gib: float | None = option(None, group="speed", free_on_resume=True)
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
        at_least(self, 1, "ipc", "iterations", "batch_real", "factor", "max_syn")
        above(self, 0, "lr_img", "memory_gib", "max_seconds")
        at_least(self, 1, "patience", "val_classifiers")
        require(0 <= self.average_last <= 1, f"average_last must be in [0, 1], got {self.average_last}.")
        require(
            self.average_last == 0 or self.average_last * self.iterations >= 1,
            f"average_last {self.average_last} of {self.iterations} iterations is less than one. Give a larger part, "
            "or 0 for no average.",
        )
        require(0 <= self.val_fraction < 1, f"val_fraction must be in [0, 1), got {self.val_fraction}.")
        require(
            self.patience is None or self.val_fraction > 0,
            "patience wants a validation split. Pass --val_fraction 0.1, or leave it out.",
        )
        require(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}.")
        require(
            self.decode != "bound" or (self.max_syn or 0) >= self.ipc,
            f"decode bound needs max_syn >= ipc {self.ipc}, got {self.max_syn}. Set max_syn to the most tiles of a "
            "class that an iteration may take.",
        )
        if self.augment not in ("auto", "none"):
            from core_dd.judge.augment import DSAugment

            DSAugment(self.augment)

    def kept_on_resume(self, name: str) -> str | None:
        """Also the length of the run where it decides what was done so far."""
        if name in ("iterations", "max_seconds"):
            if self.lr_course != "constant":
                return f", which lr_course {self.lr_course} goes by"
            if self.average_last > 0:
                return f", of which average_last {self.average_last} is the last part"
        return super().kept_on_resume(name)

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
    def period(self) -> int:
        """After how many iterations what they take comes again."""
        return 1

    @property
    def syn_per_class(self) -> int:
        """Synthetic images of a class that an iteration takes."""
        return min(self.decoded_per_class, self.max_syn or self.decoded_per_class)


@dataclass(kw_only=True)
class RandomNetworksConfig(MatchingConfig):
    """What methods share that compare by random networks, never trained."""

    ipm: int = option(1, group=SHORTER)
    """Iterations per model: how many batches of real images a random network sees."""
    steps_per_batch: int = option(1, group=SHORTER)
    """Iterations per batch of real images, which share the network and the augmentation: what the network makes of the
    real images is computed once for all of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "ipm", "steps_per_batch")

    @property
    def period(self) -> int:
        return self.steps_per_batch


@dataclass(kw_only=True)
class ExpertsConfig(RunConfig, DataConfig):
    """Record training trajectories on real data. The defaults are MTT's (Cazenavette et al., CVPR 2022)."""

    GROUP: ClassVar[str] = "experts"
    HOME: ClassVar[str] = "experts"

    network: str = option("convnet3", choices=NETWORK_CHOICES, others=True)
    """What to train."""
    experts: int = 100
    """How many."""
    epochs: int = 50
    """Passes over the training images; the weights are recorded before the first and after each."""
    lr: float = 0.01
    """Learning rate, plain SGD."""
    batch_size: int = 256
    """Images per step."""
    augment: str = option("dsa", choices={"dsa": "DSA, as published", "none": "images as they are"})
    """What images go through before the network."""
    preprocess: str = option("mean_std", choices=PREPROCESS_CHOICES)
    """The training space, that of the distillation to come."""
    val_fraction: float = 0.0
    """The part of each class's training images that they never see: for distillations of the same val_fraction and
    seed, whose validation split it is."""
    at_once: int | None = option(None, group="speed")
    """Networks trained side by side; default: 10 on a GPU, 1 on a CPU, where it is no faster. Which has no influence on
    any of them."""
    bf16: bool = option(True, group="speed")
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
        require(0 <= self.val_fraction < 1, f"val_fraction must be in [0, 1), got {self.val_fraction}.")

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

    GROUP: ClassVar[str] = "choice"
    RENAMED: ClassVar[Mapping[str, str]] = MappingProxyType({"name": "selector"})

    selector: str = option("random", choices=CHOOSER_CHOICES)
    """How they are chosen."""
    ipc: int = 10
    """Images per class."""
    network: str = option("convnet3", choices=NETWORK_CHOICES, others=True)
    """The classifier whose features choose."""
    protocol: str = option("quick", choices=PROTOCOL_CHOICES)
    """How it is trained."""
    classifier: str | None = None
    """Its file: read where there is one, else written after training; default: classifier.safetensors beside the
    set."""
    seed: int = option(0, group="run")
    """Seed of the choice and of the classifier."""
    device: str | None = option(None, group="run")
    """cpu or cuda; default: cuda where there is one."""
    out: str | None = option(None, group="run")
    """The file to write; default: distilled.safetensors in the next folder under runs/DATA-SELECTOR-ipcN/."""

    def __post_init__(self) -> None:
        from core_dd.judge.protocols import of_real

        super().__post_init__()
        of_real(self.protocol)
