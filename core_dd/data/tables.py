"""Parquet files as Hugging Face writes them: which column is what, labels, class names, encoded images."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch

from core_dd import records
from core_dd.data.decoding import is_image
from core_dd.data.folders import TEST_SPLITS, TRAIN_SPLITS, files_under
from core_dd.errors import InputError, needed, require

_IMAGE_NAMES, _LABEL_NAMES = ("image", "img"), ("label", "fine_label", "labels")
"""What decides between columns that could all be the one wanted."""


def list_parquet(path: Path) -> tuple[list[Path], list[Path]]:
    """The training and the test shards under a folder: `train-*.parquet` and `test-*.parquet` (or validation).

    Raises:
        InputError: if there is no folder, or not both.
    """
    require(
        path.exists(), f"no such folder: {path}. parquet:PATH wants a folder with train-*.parquet and test-*.parquet."
    )
    found = files_under(path, {".parquet"})
    train, test = (_shards_of(found, splits) for splits in (TRAIN_SPLITS, TEST_SPLITS))
    require(
        bool(train) and bool(test),
        f"{path} holds {len(found)} parquet files, but not both train-*.parquet and test-*.parquet (or validation-*).",
    )
    for split in (train, test):
        folders = sorted({str(shard.parent.relative_to(path)) for shard in split})
        require(
            len(folders) == 1,
            f"{path} holds several datasets, in {', '.join(folders)}. Name one: parquet:{path / folders[-1]}",
        )
        _check_numbered(split)
    return train, test


def _shards_of(shards: Sequence[Path], splits: Sequence[str]) -> list[Path]:
    """The shards of the first split name that has any."""
    for split in splits:
        found = [shard for shard in shards if shard.name.split("-")[0].split(".")[0] == split]
        if found:
            return found
    return []


def _check_numbered(shards: Sequence[Path]) -> None:
    """Refuse shards that say how many they are, as train-00000-of-00003.parquet does, and are others.

    Raises:
        InputError: if one is missing or there twice, or some are of another division.
    """
    divisions: dict[str, dict[int, list[int]]] = {}
    for shard in shards:
        if (said := re.fullmatch(r"(.*)-(\d+)-of-(\d+)(\D.*)?", shard.name)) is not None:
            divisions.setdefault(said[1], {}).setdefault(int(said[3]), []).append(int(said[2]))
    for name, own in divisions.items():
        totals = " and in ".join(map(str, sorted(own)))
        require(len(own) == 1, f"{shards[0].parent} holds {name} in {totals} shards. Remove the older ones.")
        [(total, numbers)] = own.items()
        require(
            len(set(numbers)) == len(numbers), f"{shards[0].parent} holds shards of {name} twice. Remove the older."
        )
        missing = sorted(set(range(total)) - set(numbers))
        require(
            not missing,
            f"{shards[0].parent} lacks {len(missing)} of the {total} shards of {name}, such as number "
            f"{next(iter(missing), 0)}, counted from 0. Fetch all of them.",
        )


@contextlib.contextmanager
def opened(shard: Path) -> Iterator[Any]:
    """The `pyarrow.parquet.ParquetFile` of a shard.

    Raises:
        InputError: if it is no parquet file, also where a damaged part is only read in the block.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(shard) as file:
            yield file
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"cannot read {shard}: {reason}. It is truncated or no parquet file; fetch it again."
        ) from None


class _Feature(TypedDict, total=False):
    """Of one column in a parquet file's metadata of Hugging Face, what is used."""

    _type: str
    names: list[str] | None


class _Info(TypedDict, total=False):
    """Of a parquet file's metadata of Hugging Face, what is used."""

    features: dict[str, Any]


class _HuggingFace(TypedDict, total=False):
    """A parquet file's metadata of Hugging Face."""

    info: _Info


_HINT = "Write the file anew, with its metadata or without."


def _features(schema: Any, shard: Path) -> dict[str, Any]:
    """What the metadata of Hugging Face say of each column.

    Raises:
        InputError: if they are damaged.
    """
    content = (schema.metadata or {}).get(b"huggingface", b"{}")
    where = f"the metadata 'huggingface' of {shard}"
    return records.parse(content, _HuggingFace, where, _HINT).get("info", {}).get("features", {})


def find_columns(shard: Path) -> tuple[str, str]:
    """The names of the image and the label column.

    What the metadata declare as Image and ClassLabel counts first; then images are columns of bytes that begin like
    one, labels are integers. Of several, a name of `_IMAGE_NAMES` or `_LABEL_NAMES` decides.

    Raises:
        InputError: if there is none of either kind, or no telling which.
    """
    import pyarrow.types as kinds

    with opened(shard) as file:
        schema = file.schema_arrow
        declared = {
            name: feature.get("_type")
            for name, feature in _features(schema, shard).items()
            if isinstance(feature, dict)
        }
        holders = [field.name for field in schema if _holds_bytes(field.type)]
        images = [name for name in holders if declared.get(name) == "Image"]
        if not images:
            images = holders if len(holders) == 1 else [name for name in holders if _begins_like_image(file, name)]
        integers = [field.name for field in schema if kinds.is_integer(field.type)]
        labels = [name for name in integers if declared.get(name) == "ClassLabel"] or integers

    def the_one(kind: str, columns: Sequence[str], known: Sequence[str]) -> str:
        found = f"{len(columns)} could be that: {', '.join(columns)}" if columns else "none is that"
        return needed(
            _the_one(columns, known),
            f"{shard} has columns {', '.join(schema.names)}; expected one of {kind}, {found}. "
            f"Write one, called {known[0]}.",
        )

    return the_one("encoded images", images, _IMAGE_NAMES), the_one("integer labels", labels, _LABEL_NAMES)


def _the_one(columns: Sequence[str], known: Sequence[str]) -> str | None:
    if len(columns) == 1:
        return columns[0]
    named = [name for name in columns if name in known]
    return named[0] if len(named) == 1 else None


def _holds_bytes(kind: Any) -> bool:
    """Whether a column's type is bytes, or Hugging Face's struct of bytes and path."""
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return kinds.is_binary(kind) or kinds.is_large_binary(kind)


def _begins_like_image(file: Any, column: str) -> bool:
    """Whether the first cell of a column that is not empty holds an image."""
    for batch in file.iter_batches(16, columns=[column]):
        for value in batch.column(0).to_pylist():
            content = _content_of(value)
            if content:
                return is_image(content)
    return False


def _content_of(value: Any) -> Any:
    """The bytes of a value of an image column, where there are any."""
    return value["bytes"] if isinstance(value, dict) else value


def cell(value: Any, row: int, shard: Path, column: str) -> tuple[str, bytes]:
    """(place, encoded image) of a value of an image column: the bytes, or Hugging Face's {bytes, path}.

    Raises:
        InputError: if it has no bytes.
    """
    content, place = _content_of(value), f"row {row} of {shard}"
    require(isinstance(content, bytes), f"{place}: column '{column}' holds no image bytes.")
    return place, content


def cells(shards: Sequence[Path], column: str) -> Iterator[tuple[str, bytes]]:
    """The `cell` of every row of some shards, in order.

    Raises:
        InputError: for a shard that cannot be read or lacks the column, or a row without bytes.
    """
    for shard in shards:
        with opened(shard) as file:
            _check_column(file, shard, column)
            batches = (batch.column(0).to_pylist() for batch in file.iter_batches(1024, columns=[column]))
            for row, value in enumerate(value for batch in batches for value in batch):
                yield cell(value, row, shard, column)


def read_labels(shards: Sequence[Path], column: str) -> tuple[torch.Tensor, tuple[str, ...] | None]:
    """Labels, int64 (N,), and class names, or None where the files name none.

    Raises:
        InputError: for a shard that cannot be read, lacks the column or names other classes, and for labels that are
            missing or exceed 64 bits.
    """
    import pyarrow

    parts, names = [], None
    for shard in shards:
        with opened(shard) as file:
            _check_column(file, shard, column)
            values = file.read(columns=[column]).column(0).combine_chunks()
            feature = _features(file.schema_arrow, shard).get(column) or {}
            own = records.checked(feature, _Feature, f"what {shard} says of column '{column}'", _HINT).get("names")
        require(
            values.null_count == 0,
            f"{shard}: {values.null_count} cells of column '{column}' are empty. Fill or drop them.",
        )
        try:
            parts.append(torch.tensor(values.cast(pyarrow.int64()).to_numpy(zero_copy_only=False)))
        except pyarrow.ArrowException as error:
            raise InputError(f"{shard}: column '{column}' holds no labels: {error}. Count classes from 0.") from None
        if own:
            check_same_names(names, tuple(own), shard)
            names = tuple(own)
    labels = torch.cat(parts)
    require(len(labels) > 0, f"{shards[0]} has no rows. Fetch it again.")
    return labels, names


def check_same_names(names: Sequence[str] | None, other: Sequence[str] | None, where: object) -> None:
    """Refuse class names of two orders: labels would mean two things."""
    first, then = (", ".join((given or ())[:5]) for given in (names, other))
    require(
        None in (names, other) or names == other,
        f"{where} names its classes {then}, ... and the files before it {first}, ... "
        "Write all with the same names in the same order.",
    )


def _check_column(file: Any, shard: Path, column: str) -> None:
    """Refuse a file that lacks the column of the others."""
    require(
        column in file.schema_arrow.names,
        f"{shard} has columns {', '.join(file.schema_arrow.names)}, and the first file's '{column}' is not among them.",
    )


def count_rows(shard: Path, column: str) -> int:
    """The rows of a shard, which must have a column.

    Raises:
        InputError: if it cannot be read or lacks the column.
    """
    with opened(shard) as file:
        _check_column(file, shard, column)
        return file.metadata.num_rows
