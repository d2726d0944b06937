"""What the layouts of other people's sets share: what a file holds and leaves open, and what goes into one."""

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core_dd.data import readers
from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess, fractions
from core_dd.errors import InputError, require
from core_dd.sets.formats import pickles

if TYPE_CHECKING:
    from core_dd.sets.distilled import DistilledSet

SUFFIXES = (".pt", ".pth", ".pkl", ".pickle")

TAKEN = (*SUFFIXES, ".npz", ".parquet")
"""The suffixes by which a file is taken for one of another code."""
IMAGES, LABELS, RATE = "images", "labels", "lr"


class LeftOpen(InputError):
    """A file of another code leaves open, or gets wrong, what an option of `gendd convert` and `gendd evaluate` says.

    Attributes:
        what: is open, a sentence.
        option: says it, with its values and what else there is to know of it.
    """

    def __init__(self, what: str, option: str) -> None:
        super().__init__(f"{what} Add {option}.")
        self.what, self.option = what, option


def told(condition: bool, what: str, option: str) -> None:
    """Raise `LeftOpen(what, option)` unless the condition holds."""
    if not condition:
        raise LeftOpen(what, option)


@contextlib.contextmanager
def converted_first() -> Iterator[None]:
    """Have what is left open said to `gendd convert`: for commands that do not have its options."""
    try:
        yield
    except LeftOpen as error:
        raise InputError(
            f"{error.what} Run gendd convert on it, with {error.option}; then give what it writes."
        ) from None


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What a file of another code holds.

    Attributes:
        images: (N, C, H, W), in the space of the map.
        labels: (N,), or (N, K).
        layout: what the file looks like, in words.
        normalised_by: the map its images are in: a key of `core_dd.data.preprocess.PREPROCESSES`, or `PIXELS`; None:
            the layout leaves it open.
        whitened: what to say where the images are in `zca` and that is not ours; empty: it is.
        trained_in: of images in pixels, the map that classifiers train in; None: any.
        factor: every image holds factor x factor smaller ones; None: the layout leaves it open.
        decode: which tiles classifiers see, see `core_dd.sets.factor`.
        lr: the learning rate that was learned with the set.
        learns_lr: whether its code learns one, and a file without it lacks something.
        soft: what labels (N, K) are, a key of `SOFT`; None: probabilities if they sum to 1, else it is left open.
        class_names: in the order in which the labels count; None: that of the data.
        by_name: whether its classes are told by their names, so that no other order can be meant.
    """

    images: Tensor
    labels: Tensor
    layout: str
    normalised_by: str | None
    whitened: str = ""
    trained_in: str | None = None
    factor: int | None = 1
    decode: str = "single"
    lr: float | None = None
    learns_lr: bool = False
    soft: str | None = None
    class_names: tuple[str, ...] | None = None
    by_name: bool = False


@dataclass
class Place:
    """Where a set may lie; its content is read once, whichever formats look at it."""

    path: Path
    data: ImageData | None = None
    """The real data, where they are known: some layouts count on them."""

    @cached_property
    def content(self) -> Any:
        """What a file of torch.save, pickle or numpy holds, arrays as tensors; None for anything else.

        Raises:
            InputError: a damaged file, or a pickle that asks for more than numbers.
        """
        path = self.path
        if not path.is_file() or path.suffix.lower() == ".parquet":
            return None
        if path.suffix.lower() == ".npz" or _holds_arrays(path):
            return readers.load_arrays(path)
        if self.is_pickle:
            return pickles.load(path)
        saved = path.suffix.lower() in SUFFIXES or zipfile.is_zipfile(path)
        return readers.load_tensors(path) if saved else None

    @cached_property
    def is_pickle(self) -> bool:
        """Whether this is a file of pickle itself, not of torch.save."""
        return self.path.suffix.lower() in SUFFIXES and pickles.is_pickle(self.path)


def _holds_arrays(path: Path) -> bool:
    """Whether a file is an archive of numpy's arrays, whatever it is called."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


@dataclass(frozen=True)
class Outgoing:
    """A set on its way into another code's file.

    Attributes:
        dset: the set, checked.
        preprocess: the map of the layout's images; None where they are pixels.
        class_names: one per class, in the order of the labels.
        named: whether anybody calls them so; else they are numbers.
    """

    dset: "DistilledSet"
    preprocess: Preprocess | None
    class_names: tuple[str, ...]
    named: bool = True

    @cached_property
    def stored(self) -> Tensor:
        """The images as they are stored, tiles not cut: float32 in the layout's space."""
        return self.mapped(self.dset.images)

    @cached_property
    def decoded(self) -> tuple[Tensor, Tensor]:
        """The images that classifiers train on, float32 in the layout's space, and their labels."""
        pixels, labels = self.dset.decoded()
        return self.mapped(pixels), labels

    def mapped(self, pixels: Tensor) -> Tensor:
        """Pixels in the layout's space, float32."""
        if self.preprocess is not None:
            return self.preprocess.forward(pixels).float().contiguous()
        return fractions(pixels).float().contiguous()


@dataclass(frozen=True, kw_only=True)
class Format:
    """A layout of other people's sets."""

    looks: str
    """What it looks like, in words that fit after "looks like"."""
    source: str
    """Where its code is."""
    read: Callable[[Place], Foreign | None]
    """The set at a place, or None where that does not look so."""
    guess: Callable[[Place], bool] = lambda place: True
    """Whether a place that says nothing of its layout may be taken for this one."""
    write: Callable[[Outgoing, Path], None] | None = None
    """Writes a new file or folder; None: nobody reads this layout any more."""
    normalised: Callable[[str], str] | None = None
    """The map that the layout's code takes for data of a name; None: its images are pixels."""
    takes: frozenset[str] = field(default_factory=frozenset)
    """Other maps that its code can be told of: keys of `core_dd.data.preprocess.PREPROCESSES`."""
    keeps: frozenset[str] = field(default_factory=frozenset)
    """What of a set the layout has a place for, of `PARTS`."""


PARTS: Mapping[str, Callable[["DistilledSet"], str | None]] = MappingProxyType(
    {
        "factor": lambda dset: "the tiles are cut and enlarged" if dset.factor > 1 else None,
        "lr": lambda dset: f"the learned learning rate {dset.meta['lr']:.6g}" if dset.meta.get("lr") else None,
        "soft": lambda dset: "soft labels: the largest is the class" if dset.labels.ndim == 2 else None,
        "map": lambda dset: f"that it was distilled in {dset.preprocess.kind}" if dset.preprocess else None,
        "floats": lambda dset: "pixels finer than 8 bits, and beyond 0..1" if dset.images.is_floating_point() else None,
    }
)
"""What a set may have that a layout may lack, in words: name -> (set) -> what is lost, or None."""

SOFT: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "probabilities": lambda labels: labels.float(),
        "logits": lambda labels: labels.float().softmax(1),
        "classes": lambda labels: labels.argmax(1),
    }
)
"""What labels (N, K) may be, and how they become what classifiers train on."""


def mean_std(data: str) -> str:
    """The map of DC's code and its descendants: the constants of the data itself."""
    return "mean_std"


def of_mtt(data: str) -> str:
    """The map of MTT's code and its descendants, which give CIFAR-100 the constants of CIFAR-10."""
    return "cifar10_mean_std" if data == "cifar100" else "mean_std"


def are_tensors(*values: Any) -> bool:
    """Whether all of these are tensors."""
    return all(isinstance(value, Tensor) for value in values)


def is_set(value: Any) -> bool:
    """Whether this is [images, labels]."""
    return isinstance(value, list | tuple) and len(value) == 2 and are_tensors(*value)


def whole(labels: Tensor) -> Tensor:
    """Labels that are classes as int64, whatever the type of their numbers; others as they are."""
    if labels.ndim != 1 or labels.layout != torch.strided:
        return labels
    floats = labels.is_floating_point() and bool((labels == labels.round()).all())
    return labels.long() if floats or labels.dtype in readers.INTEGERS else labels


def renamed(labels: Tensor, own: Sequence[str], names: Sequence[str], where: object) -> Tensor:
    """Labels that count the classes in the order `own`, as they count in the order `names`.

    Args:
        labels: (N,) hard, or (N, K) soft.
        own: the class names of the labels' numbers.
        names: those of the data.
        where: the file, for messages.

    Raises:
        InputError: if the names are not the same.
    """
    numbers = {name: number for number, name in enumerate(names)}
    strangers = [name for name in own if name not in numbers]
    missing = [name for name in names if name not in set(own)]
    told(
        not strangers and len(own) == len(names) and len(set(own)) == len(own),
        f"the classes of {where} are not those of the data: {_listed(own)} against {_listed(names)}"
        + (f"; no class of the data is called {_listed(strangers)}" if strangers else "")
        + (f"; {_listed(missing)} is missing" if missing else "")
        + ". Give the data it was made from, or its classes by their names there.",
        "--class_order FILE",
    )
    to = torch.tensor([numbers[name] for name in own])
    if labels.ndim == 1:
        low, high = int(labels.min()), int(labels.max())
        require(low >= 0 and high < len(own), f"{where} has labels from {low} to {high}, but names {len(own)} classes.")
        return to[labels]
    require(labels.shape[1] == len(own), f"{where} has labels over {labels.shape[1]} classes, but names {len(own)}.")
    return labels[:, to.argsort()]


def _listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")
