"""Real data too large for memory: encoded images stay on the disk, workers decode them when they are asked for.

A folder's images are read from their files, parquet files through Hugging Face `datasets`, which keeps them
memory-mapped. What is known of the set (fingerprint, mean, shape) comes from reading every image once, at the first
use, and is what `load_data` would say; so whatever is made from a streamed set has the same name and origin.
"""

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
import psutil
import torch
from msgspec import Meta
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from core_dd import files, processes, records
from core_dd.data import folders, images, readers, tables
from core_dd.data.cache import cache_folder, kept
from core_dd.data.decoding import decode_image
from core_dd.errors import InputError, pick, require
from core_dd.notes import printable
from core_dd.progress import Progress
from core_dd.rng import stream

FOLDERS, SHARDS = ("folder", "tiny_imagenet"), ("parquet", "hf")
"""The formats of `core_dd.data.images.FORMATS` that can be streamed: image files, and parquet files."""

SHARE = 4
"""A decoded set that takes more than one part in so many of a memory is too large for it; networks want some too."""

SAMPLE_IMAGES, SAMPLE_BYTES = 50_000, 2**30
"""The most that `StreamedData.sample` decodes into memory."""

CHUNK = 128
"""Images per task of a worker that goes through them all."""


class Files(Sequence):
    """The content of files, with their paths."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = np.array([os.fsencode(path) for path in paths])  # a list would be copied into every worker

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        path = os.fsdecode(bytes(self.paths[i]))
        return path, folders.read_file(Path(path))


class Rows(Sequence):
    """The encoded images of a Hugging Face dataset, with where they stand."""

    def __init__(self, table: Any, where: str) -> None:
        self.table, self.where = table, where

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        [cell] = self.table[int(i)].values()
        require(cell is not None and cell["bytes"] is not None, f"row {i} of {self.where} holds no image bytes.")
        return f"row {i} of {self.where}", cell["bytes"]


class Decoded(Dataset):
    """The image at an index: uint8 (C, H, W)."""

    def __init__(self, cells: Sequence[tuple[str, bytes]], image_size: int | None, shape: tuple[int, int, int]) -> None:
        self.cells, self.image_size, self.shape = cells, image_size, shape

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, i: int) -> Tensor:
        place, content = self.cells[i]
        image = planes(decode_image(place, content, self.image_size), self.shape[0])
        require(image.shape == self.shape, f"{place} has changed: its shape is {image.shape}, it was {self.shape}.")
        return torch.tensor(image)


class Looked(Dataset):
    """What there is to know of the image at an index: place, height, width, channels, its digest as it is and in
    colour, the sums of its pixels and of their squares for each channel."""

    def __init__(self, cells: Sequence[tuple[str, bytes]], labels: Tensor, image_size: int | None) -> None:
        self.cells, self.labels, self.image_size = cells, labels, image_size

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, i: int) -> tuple:
        place, content = self.cells[i]
        image, label = decode_image(place, content, self.image_size), int(self.labels[i])
        own, colour = planes(image, 1), planes(image, 3)
        pixels = own.reshape(len(own), -1).astype(np.int64)
        digests = (images.digest(own, label), images.digest(colour, label))
        return place, *own.shape[1:], len(own), *digests, pixels.sum(1).tolist(), (pixels**2).sum(1).tolist()


def planes(image: np.ndarray, channels: int) -> np.ndarray:
    """An image (H, W) or (H, W, 3) as contiguous (C, H, W), grey ones repeated for three channels."""
    image = np.repeat(image[None], channels, axis=0) if image.ndim == 2 else image.transpose(2, 0, 1)
    return np.ascontiguousarray(image)


@dataclass(frozen=True)
class Source:
    """The encoded images and labels, int64 (N,), of both splits, and a key that stands for the files' content."""

    cells: dict[str, Sequence[tuple[str, bytes]]]
    labels: dict[str, Tensor]
    class_names: tuple[str, ...]
    key: str


@dataclass(frozen=True, kw_only=True)
class StreamedData:
    """A labelled image dataset on the disk. Its fields are those of `ImageData`, but for the images.

    `images` decodes any image of the source's training split; `train_index` and `val_index` say which of them are
    training images and which the validation split, int64, each with its labels.
    """

    name: str
    images: Decoded
    train_index: Tensor
    train_labels: Tensor
    val_index: Tensor
    val_labels: Tensor
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    fingerprint: str
    hflip: bool
    workers: int
    """Decoding processes; 0: none but this one."""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.images.shape

    @property
    def how(self) -> str:
        """How the images come, for people."""
        return f"streamed by {self.workers} worker(s)"

    def decode(self, groups: Iterable[Tensor], pin: bool = False) -> Iterator[Tensor]:
        """For each int64 tensor of positions among `images` those images, uint8 (B, C, H, W), in order.

        The workers are some groups ahead of the reader, so `groups` may be endless. With `pin`, in pinned memory.
        """
        loader = DataLoader(
            self.images,
            batch_sampler=map(Tensor.tolist, groups),
            num_workers=self.workers,
            pin_memory=pin,
            generator=torch.Generator(),  # the default one is not the loader's to draw from
        )
        return loaded(loader)

    def sample(self, seed: int, most: int = SAMPLE_IMAGES) -> images.ImageData:
        """A random choice of at most `most` training images in memory (all of them, where they are few), and the whole
        validation split, for whatever wants statistics of the real images. No test images."""
        limit = min(most, max(1, SAMPLE_BYTES // int(np.prod(self.shape))))
        chosen = torch.randperm(len(self.train_index), generator=stream(seed, "sample"))[:limit].sort().values
        parts = {
            split: torch.cat(
                [torch.empty(0, *self.shape, dtype=torch.uint8), *self.decode(index.split(CHUNK) if len(index) else ())]
            )
            for split, index in (("train", self.train_index[chosen]), ("val", self.val_index))
        }
        return images.ImageData(
            name=self.name,
            train_images=parts["train"],
            train_labels=self.train_labels[chosen],
            val_images=parts["val"],
            val_labels=self.val_labels,
            test_images=parts["train"][:0],
            test_labels=self.train_labels[:0],
            class_names=self.class_names,
            mean=self.mean,
            std=self.std,
            fingerprint=self.fingerprint,
            hflip=self.hflip,
        )


def load_stream(
    spec: str,
    *,
    image_size: int | None = None,
    val_fraction: float = 0.0,
    limit_per_class: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> StreamedData:
    """`load_data`, but for holding the images.

    Args:
        spec, image_size, val_fraction, limit_per_class, seed: as for `core_dd.data.images.load_data`.
        workers: decoding processes; None: what this process's share of the CPU cores allows, at most 8.

    Raises:
        InputError: for a spec that cannot be streamed, and whatever `load_data` would refuse.
    """
    images.check_options(image_size, val_fraction, limit_per_class)
    kind, _, place = spec.partition(":")
    formats = {name: images.FORMATS[name] for name in (*FOLDERS, *SHARDS)}
    require(bool(place), f"'{spec}' cannot be streamed. Only {', '.join(f'{name}:PATH' for name in formats)} can.")
    pick(formats, kind, "format that can be streamed")
    workers = default_workers() if workers is None else workers
    with readers.reading(spec):
        source = open_source(kind, images.expanded(place))
        labels, names = source.labels["train"], source.class_names
        images.check(labels, source.labels["test"], names, spec)
        facts = known_facts(source, spec, image_size, workers)

    sizes = (len(names), len(labels), len(source.labels["test"]))
    name = images.recognised(facts["fingerprint"], spec, sizes, image_size)
    known = images.known(name, facts["shape"][0])
    known = known or images.Known(tuple(facts["mean"]), tuple(facts["std"]), hflip=name != "digits")
    held = images.held_out(labels, names, val_fraction, seed)
    train_index, val_index = (torch.nonzero(mask).flatten() for mask in (~held, held))
    if limit_per_class is not None:
        train_index = train_index[images.limited(labels[train_index], len(names), limit_per_class, seed)]
    return StreamedData(
        name=name,
        images=Decoded(source.cells["train"], image_size, tuple(facts["shape"])),
        train_index=train_index,
        train_labels=labels[train_index],
        val_index=val_index,
        val_labels=labels[val_index],
        class_names=known.class_names or tuple(map(printable, names)),
        mean=torch.tensor(known.mean),
        std=torch.tensor(known.std).clamp_min(1e-6),
        fingerprint=facts["fingerprint"],
        hflip=known.hflip,
        workers=workers,
    )


def default_workers() -> int:
    """The share of the CPU cores of each process on this machine, less the one that trains; 1 to 8."""
    cores = (os.cpu_count() or 1) // processes.local_count()
    return max(1, min(8, cores - 1))


def open_source(kind: str, path: Path) -> Source:
    """The encoded images of a place, none of them read yet.

    Raises:
        InputError: if there is nothing of that format.
    """
    if kind in FOLDERS:
        if kind == "tiny_imagenet":
            folders.check_tiny_imagenet(path)
        members, names = folders.list_folder(path)
        cells = {split: Files(file for file, _ in pairs) for split, pairs in members.items()}
        labels = {split: torch.tensor([label for _, label in pairs]) for split, pairs in members.items()}
        return Source(cells, labels, names, folders.listing_key(members, names))
    train, test = tables.list_parquet(images.hub_folder(path) if kind == "hf" else path)
    image, label = tables.find_columns(train[0])
    key = folders.listing_key({"train": [(s, 0) for s in train], "test": [(s, 0) for s in test]}, (image, label))
    (train_labels, names), (test_labels, other) = (tables.read_labels(members, label) for members in (train, test))
    tables.check_same_names(names, other, f"the test split of {path}")
    names = names or other or readers.numbered(train_labels, path)
    cells = {
        split: open_shards(members, image, f"the {split} images of {path}", key)
        for split, members in (("train", train), ("test", test))
    }
    return Source(cells, {"train": train_labels, "test": test_labels}, names, key)


def open_shards(members: Sequence[Path], image: str, where: str, key: str) -> Rows:
    """The images of parquet files by Hugging Face `datasets`, whose own memory-mapped copy is kept under `key`."""
    import datasets

    for shard in members:
        with tables.opened(shard) as file:
            tables.check_column(file, shard, image)
    place = cache_folder() / "datasets" / key
    features = datasets.Features({image: datasets.Image(decode=False)})
    options = {"cache_dir": str(place), "columns": [image], "features": features}
    try:
        try:
            return Rows(datasets.Dataset.from_parquet([str(shard) for shard in members], **options), where)
        except Exception:  # its copy may be damaged, which shows in many ways; then it is made again
            shutil.rmtree(place, ignore_errors=True)
            return Rows(datasets.Dataset.from_parquet([str(shard) for shard in members], **options), where)
    except Exception as error:  # as above, and now it is the files
        raise InputError(f"cannot read {where}: {error}. A file is truncated or no parquet; fetch it again.") from None


Side = Annotated[int, Meta(ge=1)]
Channels = Annotated[list[float], Meta(min_length=1, max_length=3)]


class Facts(TypedDict):
    """What is kept of a source."""

    shape: tuple[Literal[1, 3], Side, Side]
    mean: Channels
    std: Channels
    fingerprint: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]


def known_facts(source: Source, spec: str, image_size: int | None, workers: int) -> Facts:
    """shape, fingerprint, mean and std of a source, from going through it once; kept in the cache folder.

    Raises:
        InputError: for an image that does not decode, and for images of several sizes.
    """

    def make() -> Facts:
        looked = {split: look(source, split, spec, image_size, workers) for split in ("train", "test")}
        images.check_shapes(looked["train"]["shape"], looked["test"]["shape"], spec)
        fingerprint = images.combined([(part["shape"], part.pop("digests")) for part in looked.values()])
        return looked["train"] | {"fingerprint": fingerprint}

    what = hashlib.blake2b(readers.decoded_as(source.key, image_size).encode(), digest_size=16).hexdigest()
    return kept(f"streamed-{what}.json", make, lambda place: records.read(place, Facts), files.write_json)


def look(source: Source, split: str, spec: str, image_size: int | None, workers: int) -> dict[str, Any]:
    """shape, digests of the images, and mean and std of the 0..1 pixels of each channel, of one split."""
    looked = Looked(source.cells[split], source.labels[split], image_size)
    loader = DataLoader(looked, batch_size=CHUNK, num_workers=workers, collate_fn=list, generator=torch.Generator())
    progress = Progress(f"reading {split} images of {spec}", len(looked), unit="img")
    first, channels, digests, sums = None, 1, ([], []), np.zeros((2, 3))
    for place, height, width, depth, own, colour, total, squares in itertools.chain.from_iterable(loaded(loader)):
        first = first or (place, height, width)
        readers.same_size(first, (place, height, width))
        channels = max(channels, depth)
        digests[0].append(own)
        digests[1].append(colour)
        sums += np.array([total, squares])  # of a grey image, for each of three channels
        progress.update()
    progress.close()
    count = len(looked) * first[1] * first[2]
    mean = sums[0] / count
    std = np.sqrt((sums[1] - count * mean**2) / max(1, count - 1))
    return {
        "shape": (channels, *first[1:]),
        "digests": digests[channels == 3],
        "mean": (mean[:channels] / 255).tolist(),
        "std": (std[:channels] / 255).tolist(),
    }


def loaded(loader: DataLoader) -> Iterator[Any]:
    """What a loader loads; a user's mistake that a worker found comes without the traceback torch wraps it in."""
    try:
        yield from loader
    except InputError as error:
        message = str(error).splitlines()[-1]
        raise InputError(message.removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")) from None


def too_large(spec: str, image_size: int | None, device: torch.device) -> bool:
    """Whether the decoded images of a set that can be streamed would fill the machine's or the GPU's memory.

    What cannot be read is not too large, so that it is refused by the reader that says why.
    """
    kind, _, place = spec.partition(":")
    if not place or kind not in (*FOLDERS, *SHARDS):
        return False
    memory = psutil.virtual_memory().total
    if device.type == "cuda":
        memory = min(memory, torch.cuda.get_device_properties(device).total_memory)
    try:
        return decoded_bytes(kind, images.expanded(place), image_size) > memory // SHARE
    except (InputError, OSError):
        return False


def decoded_bytes(kind: str, path: Path, image_size: int | None) -> int:
    """What the training images would take, if all are of the first one's size and have colour."""
    if kind in FOLDERS:
        members = folders.list_folder(path)[0]["train"]
        count, first = len(members), members[0][0]
        place, content = str(first), folders.read_file(first)
    else:
        train, _ = tables.list_parquet(images.hub_folder(path) if kind == "hf" else path)
        count = tables.count_rows(train)
        place, content = next(tables.cells(train, tables.find_columns(train[0])[0]), (str(train[0]), b""))
    height, width = decode_image(place, content, image_size).shape[:2]
    return count * 3 * height * width
