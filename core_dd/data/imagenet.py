"""ImageNet and its subsets by name: which classes, in which order, and where their images are.

Classes count as the authors' lists do, so that the labels of their files mean the same here: those of imagenette,
imagewoof and imagesquawk as in MTT's code and DataDAM's supplement, table 1; those of imagenet100 as in IDC's list,
which is [CMC's](https://github.com/HobbitLong/CMC/blob/master/imagenet100.txt); imagenet10 is its first ten and
imagenet100_0 to imagenet100_4 are its five parts of twenty, on which M3D distils. imagenet1k counts by wnid, as
torchvision does. `imagenet.csv` holds all of them, with the first word that WordNet has for each class.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from core_dd.data.arrays import opened
from core_dd.data.cache import cache_folder, kept
from core_dd.data.folders import Members, files_under, images_of, split_folders
from core_dd.errors import InputError, needed, require
from core_dd.progress import Progress

SUBSETS: Mapping[str, tuple[str, slice]] = MappingProxyType(
    {
        "imagenette": ("imagenette", slice(None)),
        "imagewoof": ("imagewoof", slice(None)),
        "imagesquawk": ("imagesquawk", slice(None)),
        "imagenet10": ("imagenet100", slice(10)),
        "imagenet100": ("imagenet100", slice(None)),
        "imagenet100_0": ("imagenet100", slice(0, 20)),
        "imagenet100_1": ("imagenet100", slice(20, 40)),
        "imagenet100_2": ("imagenet100", slice(40, 60)),
        "imagenet100_3": ("imagenet100", slice(60, 80)),
        "imagenet100_4": ("imagenet100", slice(80, 100)),
        "imagenet1k": ("imagenet1k", slice(None)),
    }
)
"""By name: the column of `imagenet.csv` that numbers the classes, and which of them."""

_SMALL = MappingProxyType(
    {name: f"https://github.com/fastai/imagenette ({name}2-160.tgz)" for name in ("imagenette", "imagewoof")}
)
"""Where subsets are to be had alone."""

_BATCHES = tuple(f"train_data_batch_{number}" for number in range(1, 11))
_TEST_BATCH = "val_data"
"""Files of the downsampled ImageNet (Chrabaszcz et al. 2017), .npz."""


class Class(NamedTuple):
    """A class of ImageNet: its WordNet ID, a word for it, and its number in the downsampled archive, from 1."""

    wnid: str
    name: str
    downsampled: int


@cache
def classes_of(name: str) -> tuple[Class, ...]:
    """The classes of a subset in their order.

    Examples:
        >>> [one.name for one in classes_of("imagenette")][:3]
        ['tench', 'English springer', 'cassette player']
    """
    column, part = SUBSETS[name]
    with Path(__file__).with_name("imagenet.csv").open(newline="", encoding="utf-8") as table:
        rows = sorted((row for row in csv.DictReader(table) if row[column]), key=lambda row: int(row[column]))
    return tuple(Class(row["wnid"], row["name"], int(row["downsampled"])) for row in rows[part])


@cache
def words() -> Mapping[str, str]:
    """The name of every class of ImageNet by its WordNet ID."""
    return MappingProxyType({one.wnid: one.name for one in classes_of("imagenet1k")})


def as_called(names: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, those that are WordNet IDs as the words for them where `classes` calls them so.

    Examples:
        >>> as_called(["n01440764", "n02102040"], ["tench", "church"])
        ('tench', 'n02102040')
    """
    called = set(classes)
    return tuple(words()[name] if words().get(name) in called else name for name in names)


# Folders by wnid.


def is_tree(name: str, path: Path) -> bool:
    """Whether a folder holds images of a subset in folders by wnid, as far as its training split says."""
    train, _ = split_folders(path)
    return train is not None and any((train / one.wnid).is_dir() for one in classes_of(name))


def list_tree(name: str, path: Path) -> dict[str, Members]:
    """The files of a subset in a folder `PATH/train/WNID/*.JPEG` and `PATH/val/WNID/*.JPEG`; there may be more classes.

    Returns:
        For "train" and "test" each file with its class's number in the order of `classes_of`.

    Raises:
        InputError: if a split or a class is missing; the sentence says which, and where to get them.
    """
    require(path.is_dir(), f"no folder at {path}. {_wanted(name, path)}")
    roots = [
        needed(root, f"{path} lacks its train or its val folder. {_wanted(name, path)}") for root in split_folders(path)
    ]
    _check_classes(name, roots, path)
    wnids = [one.wnid for one in classes_of(name)]
    return {split: images_of(root, wnids) for split, root in zip(("train", "test"), roots, strict=True)}


def _check_classes(name: str, roots: Sequence[Path], path: Path) -> None:
    """Refuse splits that lack folders of a subset's classes."""
    classes, lacking = classes_of(name), dict[tuple[str, ...], list[str]]()
    for root in roots:
        missing = tuple(f"{one.wnid} ({one.name})" for one in classes if not (root / one.wnid).is_dir())
        lacking.setdefault(missing, []).append(str(root))
    lacking.pop((), None)
    said = [
        f"{' and '.join(places)} {'lack' if len(places) > 1 else 'lacks'} {len(missing)} of the {len(classes)} classes "
        f"of {name}: {', '.join(missing[:5])}" + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        for missing, places in lacking.items()
    ]
    require(not said, f"{'; '.join(said)}. {_wanted(name, path)}")


def _wanted(name: str, path: Path) -> str:
    """What a subset is read from, and where to get it."""
    small = f"{_SMALL[name]}, or from " if name in _SMALL else ""
    return (
        f"{name}:PATH wants {path}/train/WNID/*.JPEG and {path}/val/WNID/*.JPEG, or the .npz files of the downsampled "
        f"ImageNet. Get it from {small}https://image-net.org/download-images: ILSVRC 2012 (with its validation images "
        "put into folders by class), or the downsampled archives whose names end in _npz.zip."
    )


# The downsampled archive.


def find_batches(name: str, path: Path) -> dict[str, list[Path]] | None:
    """The .npz files of the downsampled ImageNet under a folder, any depth, for "train" and "test"; None: it has none.

    Raises:
        InputError: if some are missing, there twice or pickles; the sentence says which.
    """
    places: dict[str, Path] = {}
    for file in files_under(path, {".npz", ""}):
        if file.stem in (*_BATCHES, _TEST_BATCH):
            other = places.setdefault(file.stem, file)
            require(other == file, f"{path} holds {file.stem} twice: {other} and {file}. Give one of their folders.")
            require(
                file.suffix != "",
                f"{file} is a pickle, which is not opened: it could run code. {_wanted(name, path)}",
            )
    missing = [f"{stem}.npz" for stem in (*_BATCHES, _TEST_BATCH) if stem not in places]
    require(
        not places or not missing,
        f"{path} holds {len(places)} files of the downsampled ImageNet and lacks {', '.join(missing)}. Unpack all its "
        "archives there: two of training images for 64 pixels, one of validation images.",
    )
    return {"train": [places[stem] for stem in _BATCHES], "test": [places[_TEST_BATCH]]} if places else None


class NpzBatches:
    """The images of a subset in files of the downsampled ImageNet, in the order of their rows.

    A file holds `data`, uint8 (N, 3 S S), each image's planes one after the other, and `labels`, (N,), from 1 to 1000.
    Images come as the PPM files that they would be, so that they are read as all others are.

    Args:
        files: the .npz files.
        classes: those that are taken.
        key: stands for the files, their content and the classes.

    Attributes:
        labels: int64 (len,), in the order of the classes.

    Raises:
        InputError: for a file that cannot be read or holds something else.
    """

    def __init__(self, files: Sequence[Path], classes: Sequence[Class], key: str) -> None:
        self._files, self._key = files, key
        number = np.full(1001, -1)
        number[[one.downsampled for one in classes]] = range(len(classes))
        labels = [number[_labels(file)] for file in files]
        self._rows = [np.flatnonzero(own >= 0) for own in labels]
        self.labels = np.concatenate([own[own >= 0] for own in labels])

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for file, rows in zip(self._files, self._rows, strict=True):
            head, pixels = _pixels(file)
            require(len(pixels) > rows.max(initial=-1), f"{file} has more labels than images. Fetch it again.")
            for row in rows:
                yield f"image {row} of {file}", head + pixels[row].tobytes()

    def by_number(self) -> "_Copied":
        """The same images, for whoever wants them in another order than theirs: of a memory-mapped copy, which is made
        in the cache folder the first time.

        Raises:
            InputError: if it cannot be made.
        """
        place = cache_folder() / f"imagenet-{self._key}.npy"

        def write(place: Path, _: None) -> None:
            try:
                first = len(next(iter(self))[1])
                copy = np.lib.format.open_memmap(place, mode="w+", dtype=np.uint8, shape=(len(self), first))
                with Progress(f"unpacking {self._files[0].parent}", len(self), unit="img", leave=False) as progress:
                    for row, (where, content) in enumerate(self):
                        require(len(content) == first, f"{where} has another size than those before. Fetch it again.")
                        copy[row] = np.frombuffer(content, np.uint8)
                        progress.update()
                copy.flush()
            except InputError as error:
                unread.append(error)
                raise

        def read(place: Path) -> None:
            if len(np.load(place, mmap_mode="r", allow_pickle=False)) != len(self):
                raise ValueError("it has another number of images")

        unread: list[InputError] = []  # what fails in `write` is otherwise laid to the cache folder
        kept(place.name, lambda: None, read, write)
        if unread:
            raise unread[0]
        require(
            place.is_file(),
            f"{self._files[0].parent} cannot be streamed: its images find no place in {place.parent}. Set GENDD_CACHE "
            "to a folder with room.",
        )
        return _Copied(place)


class _Copied:
    """The images of `NpzBatches` in an .npy file, a row each; opened anew by every process."""

    def __init__(self, place: Path) -> None:
        self._place = place

    @cached_property
    def _images(self) -> np.ndarray:
        return np.load(self._place, mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        return f"image {i} of {self._place}", self._images[i].tobytes()


def _labels(file: Path) -> np.ndarray:
    """The labels of a file, from 1 to 1000."""
    with opened(file) as content:
        labels = content["labels"] if "labels" in content.files else np.empty((0, 0))
    require(
        labels.ndim == 1 and labels.dtype.kind in "iu" and bool(((labels >= 1) & (labels <= 1000)).all()),
        f"{file} is no file of the downsampled ImageNet: expected 'labels' from 1 to 1000 and 'data'. Fetch it again.",
    )
    return labels


def _pixels(file: Path) -> tuple[bytes, np.ndarray]:
    """How the PPM file of an image of a file begins, and what follows of each, uint8 (N, S, S, 3)."""
    with opened(file) as content:
        data = content["data"] if "data" in content.files else np.empty(0)
    side = round((data.shape[1] / 3) ** 0.5) if data.ndim == 2 else 0
    require(
        data.dtype == np.uint8 and side > 0 and data.shape[1] == 3 * side**2,
        f"{file} has data {data.dtype} of shape {data.shape}, expected uint8 (N, 3 S S). Fetch it again.",
    )
    return f"P6 {side} {side} 255\n".encode(), data.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
