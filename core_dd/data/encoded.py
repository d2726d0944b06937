"""Encoded images with their labels, as image folders and parquet files hold them.

Both ways of holding a set begin here: in memory all of a source's images are decoded, in their order
(`core_dd.data.readers.decoded`); streamed, each is decoded when it is asked for (`core_dd.data.streaming`).
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from core_dd.data import folders, imagenet, tables
from core_dd.data.cache import cache_folder
from core_dd.errors import InputError, require

Cell = tuple[str, bytes]
"""Where an image is, for messages, and the encoded image."""


class Cells(Protocol):
    """Encoded images, each to be had by its number."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Cell: ...


class Files:
    """The images of files, one each."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = np.array([os.fsencode(path) for path in paths])  # a list would be copied into every worker

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> Cell:
        path = os.fsdecode(bytes(self._paths[i]))
        return path, folders.read_file(Path(path))

    def __iter__(self) -> Iterator[Cell]:
        return map(self.__getitem__, range(len(self)))

    def by_number(self) -> Cells:
        """The same images, for whoever wants them in another order than theirs."""
        return self


class Rows:
    """The images of one column of parquet files, in the order of their rows.

    Args:
        shards: the files.
        column: its name in all of them.
        key: stands for the files and their content.

    Raises:
        InputError: for a file that cannot be read or lacks the column.
    """

    def __init__(self, shards: Sequence[Path], column: str, key: str) -> None:
        self._shards, self._column, self._key = shards, column, key
        self._ends = np.cumsum([tables.count_rows(shard, column) for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __iter__(self) -> Iterator[Cell]:
        return tables.cells(self._shards, self._column)

    def by_number(self) -> Cells:
        """The same images, for whoever wants them in another order than theirs: of a memory-mapped copy of the column,
        which Hugging Face `datasets` makes in the cache folder the first time.

        Raises:
            InputError: if it cannot make one.
        """
        place = cache_folder() / "datasets" / self._key
        try:
            try:
                return self._copied(place)
            except Exception:  # an earlier copy may be damaged, which shows in many ways; then it is made again
                shutil.rmtree(place, ignore_errors=True)
                return self._copied(place)
        except Exception as error:  # as above, and now it is the files
            raise InputError(
                f"cannot read column '{self._column}' of the parquet files in {self._shards[0].parent}: {error}. "
                "A file is truncated or no parquet; fetch it again."
            ) from None

    def _copied(self, place: Path) -> "_Copied":
        import datasets

        features = datasets.Features({self._column: datasets.Image(decode=False)})
        options = {"cache_dir": str(place), "columns": [self._column], "features": features}
        return _Copied(datasets.Dataset.from_parquet([str(shard) for shard in self._shards], **options), self)

    def cell(self, i: int, content: Any) -> Cell:
        """What row i of all holds, given the content of its cell."""
        shard = int(np.searchsorted(self._ends, i, side="right"))
        row = i - int(self._ends[shard - 1]) if shard else i
        return tables.cell(content, row, self._shards[shard], self._column)


class _Copied:
    """The images of `Rows`, from a Hugging Face dataset that holds nothing else."""

    def __init__(self, table: Any, rows: Rows) -> None:
        self._table, self._rows = table, rows

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, i: int) -> Cell:
        [content] = self._table[int(i)].values()
        return self._rows.cell(int(i), content)


@dataclass(frozen=True)
class Source:
    """A place that holds encoded images with labels; none of them is read yet.

    Attributes:
        path: the place, for messages.
        cells: the images of the splits "train" and "test".
        labels: theirs, int64 (N,), not checked yet.
        class_names: one for each class.
        key: stands for the place and its files' content.
    """

    path: Path
    cells: Mapping[str, Files | Rows | imagenet.NpzBatches]
    labels: Mapping[str, Tensor]
    class_names: tuple[str, ...]
    key: str


def folder(path: Path) -> Source:
    """An image folder; see `core_dd.data.folders.list_folder`.

    Raises:
        InputError: if there is none.
    """
    return of_files(path, *folders.list_folder(path))


def of_files(path: Path, members: Mapping[str, folders.Members], names: tuple[str, ...]) -> Source:
    """Image files that are listed: those of the splits "train" and "test", each with its class's number."""
    cells = {split: Files(file for file, _ in pairs) for split, pairs in members.items()}
    labels = {split: torch.tensor([label for _, label in pairs]) for split, pairs in members.items()}
    return Source(path, cells, labels, names, folders.listing_key(members, names))


def tiny_imagenet(path: Path) -> Source:
    """Tiny-ImageNet as it is unpacked, classes in the order of their names (wnids).

    Raises:
        InputError: if it is another folder.
    """
    folders.check_tiny_imagenet(path)
    return folder(path)


def of_imagenet(name: str, path: Path) -> Source:
    """A subset of ImageNet, a key of `core_dd.data.imagenet.SUBSETS`, from a folder by wnid or the downsampled archive.

    Raises:
        InputError: if it is neither, or classes or files are missing.
    """
    classes = imagenet.classes_of(name)
    names = tuple(one.name for one in classes)
    files = None if imagenet.is_tree(name, path) or not path.is_dir() else imagenet.find_batches(name, path)
    if files is None:
        return of_files(path, imagenet.list_tree(name, path), names)
    key = folders.listing_key({split: [(file, 0) for file in own] for split, own in files.items()}, names)
    cells = {split: imagenet.NpzBatches(own, classes, f"{split}-{key}") for split, own in files.items()}
    labels = {split: torch.from_numpy(own.labels) for split, own in cells.items()}
    return Source(path, cells, labels, names, key)


def parquet(path: Path) -> Source:
    """Hugging Face parquet shards: `train-*.parquet` and `test-*.parquet` (or validation) under a folder, any depth.

    The image column holds encoded bytes (`{bytes, path}` structs or plain binary); for which it is see
    `core_dd.data.tables.find_columns`. Class names come from the Hugging Face schema where it is there.

    Raises:
        InputError: if there are none, or their columns are not to be understood.
    """
    shards = dict(zip(("train", "test"), tables.list_parquet(path), strict=True))
    image, label = tables.find_columns(shards["train"][0])
    (train_labels, names), (test_labels, other) = (tables.read_labels(own, label) for own in shards.values())
    tables.check_same_names(names, other, f"the test split of {path}")
    key = folders.listing_key({split: [(s, 0) for s in own] for split, own in shards.items()}, (image, label))
    return Source(
        path,
        cells={split: Rows(own, image, key) for split, own in shards.items()},
        labels={"train": train_labels, "test": test_labels},
        class_names=names or other or numbered(train_labels, path),
        key=key,
    )


def hf(repo: Path) -> Source:
    """`parquet` of a local folder, else of a Hugging Face dataset repository, which is downloaded; no code is fetched.

    Raises:
        InputError: if there is neither.
    """
    if repo.exists():
        return parquet(repo)
    import huggingface_hub

    try:
        place = huggingface_hub.snapshot_download(str(repo), repo_type="dataset", allow_patterns=["*.parquet"])
    except Exception as error:  # the hub raises many kinds; each means the same to the user
        raise InputError(
            f"neither a folder nor a Hugging Face dataset: {repo} ({type(error).__name__}: {error})."
        ) from None
    return parquet(Path(place))


SOURCES: MappingProxyType[str, Callable[[Path], Source]] = MappingProxyType(
    {
        "folder": folder,
        "tiny_imagenet": tiny_imagenet,
        "parquet": parquet,
        "hf": hf,
        **{name: partial(of_imagenet, name) for name in imagenet.SUBSETS},
    }
)
"""Formats of data whose images can be read one by one: the spec is `FORMAT:PATH`."""


def numbered(labels: Tensor, where: object) -> tuple[str, ...]:
    """The names of classes that have none: "0" to the highest label.

    Raises:
        InputError: if there is no label, or more classes than images, which then are no labels.
    """
    require(len(labels) > 0, f"{where} has no training images.")
    low, high = int(labels.min()), int(labels.max())
    require(
        low >= 0 and high < len(labels),
        f"{where} has training labels from {low} to {high}, expected 0 to K-1, with images of each of the K classes; "
        f"it has {len(labels)} images.",
    )
    return tuple(map(str, range(high + 1)))
