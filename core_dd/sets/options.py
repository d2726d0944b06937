"""What files of other people's code leave open, and the options of the commands that take sets in and out. No torch."""

from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from core_dd.data.options import PIXELS, PREPROCESS_CHOICES, DataConfig
from core_dd.errors import InputError, at_least, require
from core_dd.options import Options, option

LAYOUT_CHOICES = MappingProxyType(
    {
        "dc": "DC, DSA, DM: res_METHOD_DATA_NET_IPCipc.pt",
        "datadam": "DataDAM: the same",
        "mtt": "MTT, TESLA, FTD: images_best.pt, labels_best.pt, perhaps lr_best.pt",
        "datm": "DATM: the same with logits as labels",
        "idc": "IDC, M3D: data.pt",
        "idm": "IDM: a pickle of images and labels",
        "challenge": "the ECCV 2024 challenge: cifar100.pt or tinyimagenet.pt",
        "kip": "KIP: an .npz of images and targets",
        "npz": "an .npz of images and labels, and what else is known",
        "dict": "the same by torch.save",
        "image_folder": "a folder of pictures per class",
        "huggingface": "parquet with a card, as the Hugging Face Hub shows it",
        "ddranking": "DD-Ranking: images.pt and labels.pt",
        "beard": "BEARD: as dc, its first set",
    }
)
"""Layouts of other people's sets (`core_dd.sets.formats.FORMATS`)."""

WRITTEN_CHOICES = MappingProxyType({name: line for name, line in LAYOUT_CHOICES.items() if name != "kip"})
"""Those that are written, too."""

DECODE_CHOICES = MappingProxyType(
    {"single": "factor x factor tiles of each image", "multi": "those of smaller factors, too"}
)
"""Which tiles classifiers see, of those that another code cuts (`core_dd.sets.factor.DECODES`)."""

SOFT_CHOICES = MappingProxyType(
    {
        "probabilities": "as they are",
        "logits": "their softmax",
        "classes": "the largest is the class",
    }
)
"""What labels (N, K) may be (`core_dd.sets.formats.base.SOFT`)."""


@dataclass(kw_only=True)
class ForeignConfig(Options):
    """What the layout of another code's file leaves open; all of it may be left out where the layout says it.

    Raises:
        InputError: a number out of range.
    """

    GROUP: ClassVar[str] = "files of other people's code"

    layout: str | None = option(None, choices=LAYOUT_CHOICES, flag="from")
    """Whose layout a file has; default: what it looks like."""
    normalised_by: str | None = option(None, choices={**PREPROCESS_CHOICES, PIXELS: "not at all: the 0..1 scale"})
    """What its images are normalised by; default: what that code always does, else the command asks."""
    factor: int | None = None
    """Every image holds factor x factor smaller ones (IDC, IDM: 2); default: likewise."""
    decode: str | None = option(None, choices=DECODE_CHOICES)
    """Which tiles classifiers see, what IDC calls decode_type; default: single."""
    learned_lr: float | None = None
    """The learning rate that was learned with the set (MTT, TESLA, DATM), where no lr_*.pt lies beside."""
    soft_labels: str | None = option(None, choices=SOFT_CHOICES)
    """What labels of shape (N, K) are; default: what the layout says (DATM: logits), else the command asks."""
    class_order: str | None = None
    """A text file with a class name a line, in the order in which the labels count them; they become the numbers that
    the data give these names. Default: the names that the file has, else the order of the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "factor")
        require(self.learned_lr is None or self.learned_lr > 0, f"learned_lr must be > 0, got {self.learned_lr}.")

    def told(self) -> dict[str, Any]:
        """What was said of the file, by the names that `DistilledSet.load` takes.

        Raises:
            InputError: a class order that is no readable text file.
        """
        order = None if self.class_order is None else read_names(Path(self.class_order))
        values = {own.name: getattr(self, own.name) for own in fields(ForeignConfig)} | {"class_order": order}
        return {name: value for name, value in values.items() if value is not None}


def read_names(file: Path) -> tuple[str, ...]:
    """Class names from a text file, a name a line; blank lines are passed over.

    Raises:
        InputError: if there is none, it is not UTF-8, or it has no names or one twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(
            f"cannot read class_order {file}: {reason}. Give a text file with a class name a line."
        ) from None
    names = tuple(line.strip() for line in lines if line.strip())
    require(len(names) == len(set(names)) > 0, f"{file} must name every class once, a name a line; got {len(names)}.")
    return names


@dataclass(kw_only=True)
class OptionalDataConfig(DataConfig):
    """Real data that a command needs only where a file does not say enough by itself."""

    data: str | None = None  # type: ignore[assignment]  # wider than elsewhere: those who read it take None, too
    """The real data the set was made from: their constants bring normalised images to pixels and back, and their class
    names decide the labels' order. Default: none, which images in pixels do not need."""


@dataclass(kw_only=True)
class ConvertConfig(OptionalDataConfig, ForeignConfig):
    """Bring a set of other people's code into our file, which says by itself all that a judge must know.

    The set is given first, without a flag: gendd convert res_DM_CIFAR10_ConvNet_10ipc.pt --data cifar10 --out
    runs/dm/distilled.safetensors.
    """

    GROUP: ClassVar[str] = "conversion"

    src: str = ""
    """The file or folder."""
    out: str = option("", group="run")
    """The file to write, e.g. runs/theirs/distilled.safetensors."""
    check_labels: bool = True
    """With data: look whether a small classifier of the real data (trained once, then cached) agrees with the labels
    only after they are renamed, which is what a permuted class order looks like; a loud warning says so."""
    device: str | None = option(None, group="run")
    """Where that classifier is trained: cpu, cuda, cuda:1, ...; default: cuda where there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            bool(self.src), "convert what? Give a file or folder: gendd convert res_DM.pt --out distilled.safetensors."
        )
        require(bool(self.out), "where to? Pass --out runs/theirs/distilled.safetensors.")


@dataclass(kw_only=True)
class ExportConfig(OptionalDataConfig):
    """Write one of our sets in the layout of another code, and say what that layout has no place for.

    The set is given first, without a flag: gendd export runs/dm --to dc --out res_DM_CIFAR10_ConvNet_10ipc.pt.
    """

    GROUP: ClassVar[str] = "export"

    set: str = ""
    """The distilled set: a file, a folder of shards, a run folder."""
    to: str | None = option(None, choices=WRITTEN_CHOICES)
    """The layout; must be given."""
    out: str = option("", group="run")
    """The file or folder to write, as the layout has it."""
    normalised_by: str | None = option(None, choices=PREPROCESS_CHOICES)
    """What images are normalised by, in layouts where they are; default: the map the set was distilled in where the
    layout's code can be told of it (zca), else the one that it takes for the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.set), "export what? Give a set: gendd export runs/dm --to dc --out res_DM.pt.")
        require(bool(self.out), "where to? Pass --out FILE_OR_FOLDER.")
        require(self.to is not None, f"to which layout? Pass --to with one of {', '.join(sorted(WRITTEN_CHOICES))}.")
