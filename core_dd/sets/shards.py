"""The index of a set that lies in a folder of shards: index.json names the files and counts their images."""

import re
from pathlib import Path
from typing import Annotated, Any, Required, TypedDict

from msgspec import Meta

from core_dd import records
from core_dd.errors import require

INDEX = "index.json"


class _Shard(TypedDict):
    """One file of images."""

    file: str
    images: Annotated[int, Meta(ge=1)]


class Index(TypedDict, total=False):
    """What index.json holds."""

    shards: Required[list[_Shard]]
    meta: Required[dict[str, Any]]
    identity: dict[str, Any]


def shard_name(start: int, stop: int) -> str:
    """The file of the images number `start` to `stop` (exclusive).

    Examples:
        >>> shard_name(0, 64)
        'images-00000000-00000064.safetensors'
        >>> shard_numbers(shard_name(0, 64))
        (0, 64)
    """
    return f"images-{start:08d}-{stop:08d}.safetensors"


def shard_numbers(name: str) -> tuple[int, int] | None:
    """(start, stop) of a file that `shard_name` named, else None."""
    match = re.fullmatch(r"images-([0-9]{8,12})-([0-9]{8,12})\.safetensors", name)
    return (int(match[1]), int(match[2])) if match else None


def read_index(folder: Path) -> Index:
    """The index of a folder of shards.

    Raises:
        InputError: a damaged index, one of something else, or one whose files lie elsewhere, are listed twice, overlap
            or leave a gap; the message names the index and the file.
    """
    place = folder / INDEX
    hint = f"{folder} holds no distilled set, or a damaged one. Go on with what wrote it, or make it again."
    index = records.read(place, Index, hint)
    seen, expected = set(), 0
    for shard in index["shards"]:
        name = shard["file"]
        require(name == Path(name).name, f"{place} names '{name}', which is no file beside it. {hint}")
        require(name not in seen, f"{place} lists '{name}' twice. {hint}")
        seen.add(name)
        numbers = shard_numbers(name)
        if numbers is not None:
            start, stop = numbers
            require(
                start == expected and stop - start == shard["images"],
                f"{place} lists '{name}' with {shard['images']} images where those from number {expected} on should "
                f"follow: shards must neither overlap nor leave a gap. {hint}",
            )
            expected = stop
    return index
