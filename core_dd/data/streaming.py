"""Real data too large for memory: encoded images stay on the disk, workers decode them when they are asked for.

A folder's images are read from their files, parquet files through Hugging Face `datasets`, which keeps them
memory-mapped. What is known of the set (fingerprint, mean, shape) comes from reading every image once, at the first
use, and is what `load_data` would say; so whatever is made from a streamed set has the same name and origin.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from core_dd.data import images, readers
from core_dd.data.cache import kept
from core_dd.data.decoding import decode_image
from core_dd.data.encoded import SOURCES, Cells, Source
from core_dd.data.images import ImageData
from core_dd.data.real import SAMPLE_IMAGES, Pixels, RealData
from core_dd.errors import InputError, pick, require
from core_dd.progress import Progress
from core_dd.rng import stream

SHARE = 4
"""A decoded set that takes more than one part in so many of a memory is too large for it; networks want some too."""

_SAMPLE_BYTES = 2**30
"""The most that `StreamedData.sample` decodes into memory, whatever number of images is asked for."""

_CHUNK = 128
"""Images per task of a worker that goes through them all."""


class Decoded(Dataset):
    """The image at an index: uint8 (C, H, W)."""

    def __init__(self, cells: Cells, image_size: int | None, shape: tuple[int, int, int]) -> None:
        self.cells, self.image_size, self.shape = cells, image_size, shape

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, i: int) -> Tensor:
        place, content = self.cells[i]
        image = _planes(decode_image(place, content, self.image_size), self.shape[0])
        require(image.shape == self.shape, f"{place} has changed: its shape is {image.shape}, it was {self.shape}.")
        return torch.tensor(image)


class _Looked(Dataset):
    """What there is to know of the image at an index: place, height, width, channels, its digest as it is and in
    colour, the sums of its pixels and of their squares for each channel."""

    def __init__(self, cells: Cells, labels: Tensor, image_size: int | None) -> None:
        self.cells, self.labels, self.image_size = cells, labels, image_size

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, i: int) -> tuple:
        place, content = self.cells[i]
        image, label = decode_image(place, content, self.image_size), int(self.labels[i])
        own, colour = _planes(image, 1), _planes(image, 3)
        pixels = own.reshape(len(own), -1).astype(np.int64)
        digests = (images.digest(own, label), images.digest(colour, label))
        return place, *own.shape[1:], len(own), *digests, pixels.sum(1).tolist(), (pixels**2).sum(1).tolist()


def _planes(image: np.ndarray, channels: int) -> np.ndarray:
    """An image (H, W) or (H, W, 3) as contiguous (C, H, W), grey ones repeated for three channels."""
    image = np.repeat(image[None], channels, axis=0) if image.ndim == 2 else image.transpose(2, 0, 1)
    return np.ascontiguousarray(image)


@dataclass(frozen=True, kw_only=True)
class StreamedData(RealData):
    """A labelled image dataset on the disk: what `ImageData` is, but for holding its images.

    Attributes:
        images: decodes any image of the source's training split.
        train_index, val_index: which of those are training images and which the validation split, int64.
        workers: decoding processes; 0: none but this one.
        name, train_labels, val_labels, class_names, mean, std, fingerprint, hflip: see `core_dd.data.real.RealData`.
    """

    images: Decoded
    train_index: Tensor
    val_index: Tensor
    workers: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image, (C, H, W)."""
        return self.images.shape

    @property
    def how(self) -> str:
        """How the images are held, for people: by how many workers they are streamed."""
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
        return _loaded(loader)

    def pixels(self, members: Callable[[int], Tensor], device: torch.device) -> Pixels:
        """The images of a training's steps, decoded by the workers some steps ahead."""
        return _Streamed(self, members, device)

    def sample(self, seed: int, most: int = SAMPLE_IMAGES) -> ImageData:
        """A random choice of at most `most` training images in memory (all of them, where they are few), and the whole
        validation split, for whatever wants statistics of the real images. No test images."""
        limit = min(most, max(1, _SAMPLE_BYTES // int(np.prod(self.shape))))
        chosen = torch.randperm(len(self.train_index), generator=stream(seed, "sample"))[:limit].sort().values
        train, val = (self._decoded(index) for index in (self.train_index[chosen], self.val_index))
        return ImageData(
            name=self.name,
            train_images=train,
            train_labels=self.train_labels[chosen],
            val_images=val,
            val_labels=self.val_labels,
            test_images=train[:0],
            test_labels=self.train_labels[:0],
            class_names=self.class_names,
            mean=self.mean,
            std=self.std,
            fingerprint=self.fingerprint,
            hflip=self.hflip,
        )

    def _decoded(self, index: Tensor) -> Tensor:
        """Some of `images` in memory: uint8 (N, C, H, W)."""
        none = torch.empty(0, *self.shape, dtype=torch.uint8)
        return torch.cat([none, *self.decode(index.split(_CHUNK))]) if len(index) else none


class _Streamed:
    """Training images decoded by workers, in the order of the steps; another order starts the workers anew.

    Args:
        data: where they come from.
        members: the images of any step, as positions among the training images, on the CPU.
        device: where they are wanted.
    """

    home = torch.device("cpu")

    def __init__(self, data: StreamedData, members: Callable[[int], Tensor], device: torch.device) -> None:
        self.data, self.members, self.device = data, members, device
        self._next: int | None = None
        self._images: Iterator[Tensor] = iter(())

    def __call__(self, step: int) -> Tensor:
        if step != self._next:
            ahead = (self.data.train_index[self.members(s)] for s in itertools.count(step))
            self._images = self.data.decode(ahead, pin=self.device.type == "cuda")
        self._next = step + 1
        return next(self._images).to(self.device, non_blocking=True)


def load_stream(
    spec: str,
    *,
    image_size: int | None = None,
    val_fraction: float = 0.0,
    limit_per_class: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> StreamedData:
    """Open a dataset whose images stay on the disk; what is known of it is what `load_data` would say.

    Args:
        spec, image_size, val_fraction, limit_per_class, seed: as for `core_dd.data.images.load_data`.
        workers: decoding processes; None: what this process's share of the CPU cores allows, at most 8.

    Raises:
        InputError: for a spec that cannot be streamed, and whatever `load_data` would refuse.
    """
    images.check_options(image_size, val_fraction, limit_per_class)
    kind, _, place = spec.partition(":")
    require(bool(place), f"'{spec}' cannot be streamed. Only {', '.join(f'{name}:PATH' for name in SOURCES)} can.")
    opened = pick(SOURCES, kind, "format that can be streamed")
    workers = _default_workers() if workers is None else workers
    with readers.reading(spec):
        source = opened(images.expanded(place))
        cells = {split: own.by_number() for split, own in source.cells.items()}  # here, once for all workers
        labels, names = source.labels["train"], source.class_names
        images.check(labels, source.labels["test"], names, spec)
        facts = _known_facts(source, cells, spec, image_size, workers)

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
        images=Decoded(cells["train"], image_size, tuple(facts["shape"])),
        train_index=train_index,
        train_labels=labels[train_index],
        val_index=val_index,
        val_labels=labels[val_index],
        class_names=known.class_names or images.told_apart(names, spec),
        mean=torch.tensor(known.mean),
        std=torch.tensor(known.std).clamp_min(1e-6),
        fingerprint=facts["fingerprint"],
        hflip=known.hflip,
        workers=workers,
    )


def _default_workers() -> int:
    """The share of the CPU cores of each process on this machine, less the one that trains; 1 to 8."""
    cores = (os.cpu_count() or 1) // processes.local_count()
    return max(1, min(8, cores - 1))


_Side = Annotated[int, Meta(ge=1)]
_Channels = Annotated[list[float], Meta(min_length=1, max_length=3)]


class _Facts(TypedDict):
    """What is kept of a source."""

    shape: tuple[Literal[1, 3], _Side, _Side]
    mean: _Channels
    std: _Channels
    fingerprint: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]


def _known_facts(source: Source, cells: Mapping[str, Cells], spec: str, image_size: int | None, workers: int) -> _Facts:
    """shape, fingerprint, mean and std of a source, from going through its cells once; kept in the cache folder.

    Raises:
        InputError: for an image that does not decode, and for images of several sizes.
    """

    def make() -> _Facts:
        looked = {
            split: look(_Looked(cells[split], source.labels[split], image_size), f"{split} images of {spec}", workers)
            for split in ("train", "test")
        }
        images.check_shapes(looked["train"]["shape"], looked["test"]["shape"], spec)
        fingerprint = images.combined([(part["shape"], part.pop("digests")) for part in looked.values()])
        train = looked["train"]
        return {"shape": train["shape"], "mean": train["mean"], "std": train["std"], "fingerprint": fingerprint}

    what = hashlib.blake2b(readers.decoded_as(source.key, image_size).encode(), digest_size=16).hexdigest()
    return kept(f"streamed-{what}.json", make, lambda place: records.read(place, _Facts), files.write_json)


def look(looked: _Looked, what: str, workers: int) -> dict[str, Any]:
    """shape, digests of the images, and mean and std of the 0..1 pixels of each channel, of one split."""
    loader = DataLoader(looked, batch_size=_CHUNK, num_workers=workers, collate_fn=list, generator=torch.Generator())
    progress = Progress(f"reading {what}", len(looked), unit="img")
    first: tuple[str, int, int] | None = None
    digests: tuple[list[Any], list[Any]] = ([], [])
    channels, sums = 1, np.zeros((2, 3))
    for place, height, width, depth, own, colour, total, squares in itertools.chain.from_iterable(_loaded(loader)):
        first = first or (place, height, width)
        readers.same_size(first, (place, height, width))
        channels = max(channels, depth)
        digests[0].append(own)
        digests[1].append(colour)
        sums += np.array([total, squares])  # of a grey image, for each of three channels
        progress.update()
    progress.close()
    assert first is not None  # every split has images
    count = len(looked) * first[1] * first[2]
    mean = sums[0] / count
    std = np.sqrt((sums[1] - count * mean**2) / max(1, count - 1))
    return {
        "shape": (channels, *first[1:]),
        "digests": digests[channels == 3],
        "mean": (mean[:channels] / 255).tolist(),
        "std": (std[:channels] / 255).tolist(),
    }


def _loaded(loader: DataLoader) -> Iterator[Any]:
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
    if not place or kind not in SOURCES:
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
    cells = SOURCES[kind](path).cells["train"]
    height, width = decode_image(*next(iter(cells)), image_size).shape[:2]
    return len(cells) * 3 * height * width
