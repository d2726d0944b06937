"""Real data read whole: each reader turns one place on disk into a `Raw` set of uint8 images.

A reader checks what it reads and says what it looked for; nothing here unpickles untrusted bytes or runs remote code.
"""

import contextlib
import gzip
import math
import os
import pickle
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, __version__

from core_dd.data import decoding
from core_dd.data.arrays import check_memory, opened
from core_dd.data.cache import cache_folder, kept_tensors, one_at_a_time
from core_dd.data.decoding import decode_image, fit
from core_dd.data.encoded import Cell, Source, numbered
from core_dd.errors import InputError, needed, require
from core_dd.progress import Progress


@dataclass(frozen=True)
class Raw:
    """A dataset as read: images uint8 (N, C, H, W), labels int64 (N,), one name per class."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    class_names: tuple[str, ...]


def digits() -> Raw:
    """scikit-learn's 1797 handwritten digits, 8x8, grey 0..16 stretched to 0..255; every fifth of a class is test."""
    table = _digits_table()
    images = torch.from_numpy(np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(table[:, -1]).long()
    number = torch.nn.functional.one_hot(labels).cumsum(0).gather(1, labels[:, None])[:, 0]  # in its class, from 1
    test = number % 5 == 0
    return Raw(images[~test], labels[~test], images[test], labels[test], tuple(map(str, range(10))))


@cache
def _digits_table() -> np.ndarray:
    """A row per digit: 64 pixels and the label, floats."""
    # Read from its file: importing sklearn.datasets takes as long as importing torch.
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    return np.loadtxt(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")


def idx(folder: Path, image_size: int | None = None) -> Raw:
    """The four MNIST-style IDX files (`train-images-idx3-ubyte`, ... plain or .gz) of a folder."""
    require(
        folder.is_dir(), f"no folder at {folder}. idx:PATH wants the folder that holds train-images-idx3-ubyte[.gz]."
    )
    arrays = {}
    for split in ("train", "t10k"):
        for kind, dims in (("images", 3), ("labels", 1)):
            arrays[split, kind] = _read_idx(_find_idx(folder, f"{split}-{kind}-idx{dims}-ubyte"), dims)
    images = {s: torch.from_numpy(resized(arrays[s, "images"][..., None], image_size)) for s in ("train", "t10k")}
    labels = {s: torch.from_numpy(arrays[s, "labels"].astype(np.int64)) for s in ("train", "t10k")}
    return Raw(images["train"], labels["train"], images["t10k"], labels["t10k"], numbered(labels["train"], folder))


def _find_idx(folder: Path, stem: str) -> Path:
    candidates = [folder / name for name in (stem, f"{stem}.gz", stem.replace("-idx", ".idx"))]
    return needed(
        next((path for path in candidates if path.is_file()), None),
        f"no {stem} or {stem}.gz in {folder}. An IDX folder holds train- and t10k- images and labels.",
    )


_IDX_TYPES = {8: "unsigned bytes", 9: "signed bytes", 11: "16-bit integers", 12: "32-bit integers", 13: "floats"} | {
    14: "doubles"
}


def _read_idx(path: Path, dims: int) -> np.ndarray:
    """One IDX file of unsigned bytes (magic 0, 0, 8, dims; big-endian sizes; data), plain or gzip.

    Raises:
        InputError: if the magic, the number of dimensions or the length disagree, or the gzip stream is cut.
    """
    try:
        with _plain_stream(path) as stream:
            magic = stream.read(4)
            require(
                magic == bytes([0, 0, 8, dims]),
                f"{path} is no IDX file of {dims}-d unsigned bytes: it starts with {magic.hex() or 'nothing'}"
                + (f", {magic[3]}-d {_IDX_TYPES[magic[2]]}" if len(magic) == 4 and magic[2] in _IDX_TYPES else "")
                + ". Fetch it again, or write it so.",
            )
            shape = tuple(map(int, np.frombuffer(stream.read(4 * dims), ">u4")))
            expected = math.prod(shape)
            check_memory(expected, f"{path}: what its header promises")
            content = stream.read(expected + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {path}: {error}. The file is truncated or corrupt; fetch it again.") from None
    require(
        len(shape) == dims and expected == len(content),
        f"{path} is truncated or corrupt: its header promises {expected} bytes, it holds "
        f"{'more' if len(content) > expected else len(content)}. Fetch it again.",
    )
    return np.frombuffer(content, np.uint8).reshape(shape)


@contextlib.contextmanager
def _plain_stream(path: Path) -> Iterator[BufferedIOBase]:
    """The bytes of a file, or what they are if they are gzip."""
    with path.open("rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        yield gzip.GzipFile(fileobj=file) if packed else file


def decoded(source: Source, image_size: int | None = None) -> Raw:
    """All images of a source; decoded the first time, then kept in the cache folder and memory-mapped."""

    def decode() -> dict[str, torch.Tensor]:
        return {
            split: decode_images(cells, image_size, f"{split} images of {source.path}", len(cells))
            for split, cells in source.cells.items()
        }

    images, labels = kept_tensors(decoded_as(source.key, image_size), ("train", "test"), decode), source.labels
    return Raw(images["train"], labels["train"], images["test"], labels["test"], source.class_names)


def decoded_as(source: str, image_size: int | None) -> str:
    """What decoded images are kept under: the source, and all else that decides their pixels."""
    return f"images {source} {image_size} {decoding.VERSION} {__version__}"


def pt(path: Path, image_size: int | None = None) -> Raw:
    """The DC family's `tinyimagenet.pt`: a dict of classes, images_train, labels_train, images_val, labels_val."""
    content = load_tensors(path)
    keys = ("images_train", "labels_train", "images_val", "labels_val")
    require(
        isinstance(content, dict) and all(isinstance(content.get(key), torch.Tensor) for key in keys),
        f"{path} holds no dataset: expected a dict with tensors {', '.join(keys)} (and a list 'classes').",
    )
    for key in keys:
        tensor, shape = content[key], tuple(content[key].shape)
        usable = tensor.layout == torch.strided and not tensor.is_meta
        if key.startswith("images"):
            sound, wanted = (
                tensor.dtype == torch.uint8 and len(shape) == 4 and shape[1] in (1, 3),
                "uint8 (N, 1 or 3, H, W)",
            )
        else:
            sound, wanted = tensor.dtype in INTEGERS and len(shape) == 1, "int64 (N,)"
        require(usable and sound, f"{path}: {key} is {tensor.dtype} of shape {shape}, expected {wanted}.")
    train, test = (
        torch.from_numpy(resized(content[key].permute(0, 2, 3, 1).numpy(), image_size))
        for key in ("images_train", "images_val")
    )
    names = content.get("classes")
    require(
        names is None or (isinstance(names, list | tuple) and all(isinstance(name, str | int) for name in names)),
        f"{path}: 'classes' is a {type(names).__name__}, expected a list of names.",
    )
    names = names or numbered(content["labels_train"], path)
    return Raw(train, content["labels_train"].long(), test, content["labels_val"].long(), tuple(map(str, names)))


INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

_NUMPY_TYPES = [
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
    np.ndarray,
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((np.zeros(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
"""What a numpy number or array in a pickle asks for: a type and its bytes."""


def load_tensors(path: Path) -> Any:
    """`torch.load` of a file that may come from anywhere: tensors, numbers and plain containers, nothing is executed.

    Arrays of numpy come back as tensors.

    Raises:
        InputError: if the file is missing, truncated, or a pickle that asks for anything else.
    """
    require(Path(path).is_file(), f"no file at {path}.")
    try:
        with torch.serialization.safe_globals(_NUMPY_TYPES):
            return as_tensors(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else "no tensors saved by torch.save"
        raise InputError(
            f"{path} is a pickle that wants to run code or is damaged; it was not loaded ({reason}). "
            "Offer safetensors, or tensors saved by torch.save."
        ) from None
    except Exception as error:  # torch raises many kinds for a damaged file; each means the same to the user
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot read {path}: {reason}. It is truncated or no tensor file.") from None


def as_tensors(content: Any) -> Any:
    """Arrays of numbers as tensors, also in plain containers; anything else as it is."""
    if isinstance(content, np.ndarray) and content.dtype.kind in "biuf" and content.dtype.itemsize <= 8:
        return torch.from_numpy(content.astype(content.dtype.newbyteorder("=")))
    if type(content) is dict:
        return {key: as_tensors(value) for key, value in content.items()}
    if type(content) in (list, tuple):
        return type(content)(map(as_tensors, content))
    return content


def load_arrays(path: Path) -> dict[str, Any]:
    """What an .npz holds, by name: numbers as tensors, text as lists of it or as one; nothing is unpickled.

    Raises:
        InputError: if the file is missing, damaged, larger than the memory, or holds objects of Python.
    """
    with opened(path) as content:
        arrays = {name: np.asarray(content[name]) for name in content.files}
    return {name: array.tolist() if array.dtype.kind == "U" else as_tensors(array) for name, array in arrays.items()}


def torchvision_set(name: str, image_size: int | None = None) -> Raw:
    """mnist, fashion_mnist, cifar10, cifar100 or svhn through torchvision, downloaded on first use.

    Files go to `$GENDD_DATA`, by default the cache folder; torchvision checks the MD5 sums of what it downloads. Of
    several processes that ask at once, one downloads and the others wait.
    """
    import torchvision.datasets as sets

    cls = {
        "mnist": sets.MNIST,
        "fashion_mnist": sets.FashionMNIST,
        "cifar10": sets.CIFAR10,
        "cifar100": sets.CIFAR100,
        "svhn": sets.SVHN,
    }[name]
    root = Path(os.environ.get("GENDD_DATA", cache_folder() / "downloads"))
    try:
        with one_at_a_time(root / name):
            splits = [
                cls(root, split=split, download=True)
                if name == "svhn"
                else cls(root, train=split == "train", download=True)
                for split in ("train", "test")
            ]
    except (RuntimeError, OSError, ValueError, EOFError, AssertionError) as error:  # the last three: files cut short
        raise InputError(
            f"cannot get {name} into {root}: {error or 'its files are damaged'}. Without a network, offer local files: "
            "idx:FOLDER, parquet:FOLDER or folder:FOLDER, or set GENDD_DATA to where torchvision's files are. Files "
            "there that a kill cut short want to be removed."
        ) from None
    arrays: list[torch.Tensor] = []
    for split in splits:
        images = np.asarray(split.data)
        images = images.transpose(0, 2, 3, 1) if name == "svhn" else images.reshape(*images.shape[:3], -1)
        labels = split.labels if name == "svhn" else split.targets
        arrays += [
            torch.from_numpy(resized(images, image_size)),
            torch.as_tensor(np.asarray(labels), dtype=torch.int64),
        ]
    names = getattr(splits[0], "classes", None) or range(10)
    train_images, train_labels, test_images, test_labels = arrays
    return Raw(train_images, train_labels, test_images, test_labels, tuple(map(str, names)))


def decode_images(encoded: Iterable[Cell], image_size: int | None, what: str, total: int) -> torch.Tensor:
    """Decode images to uint8 (N, C, H, W); grey stays one channel unless any image has colour.

    Args:
        encoded: (where it came from, file content) pairs.
        image_size: short side after resizing, then centre crop; None keeps the size.
        what: for the progress bar.
        total: how many there are.

    Raises:
        InputError: an image that does not decode, images of different sizes without `image_size`, or more of them
            than fit in memory.
    """
    images, first = None, None
    with Progress(f"decoding {what}", total, unit="img", leave=False) as progress:
        for i, (place, content) in zip(range(total), encoded, strict=True):
            picture = decode_image(place, content, image_size)
            size, channels = picture.shape[:2], 1 if picture.ndim == 2 else 3
            if images is None:
                first = (place, *size)
                check_memory(total * picture.size, f"decoding the {total} {what}")
                images = np.empty((total, channels, *size), np.uint8)
            same_size(first, (place, *size))
            if channels > images.shape[1]:  # the first with colour
                images = np.repeat(images, channels, axis=1)
            images[i] = picture if channels == 1 else picture.transpose(2, 0, 1)
            progress.update()
    return torch.from_numpy(needed(images, f"there are no {what}."))


def same_size(first: tuple[str, int, int], other: tuple[str, int, int]) -> None:
    """Refuse two images, (place, height, width) each, of different sizes."""
    require(
        first[1:] == other[1:],
        f"images differ in size: {first[0]} is {first[2]}x{first[1]}, {other[0]} is {other[2]}x{other[1]}. "
        "Pass image_size to bring them to one size, e.g. --image_size 32.",
    )


@contextlib.contextmanager
def reading(what: object) -> Iterator[None]:
    """Name what is read in whatever the system says of its files: a name too long, no permission, a disk that fails."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {what}: {error.strerror or error}. Give the place of readable files.") from None
    except MemoryError:
        raise InputError(f"{what} does not fit in memory. Pass a smaller image_size, or stream it.") from None


def resized(images: np.ndarray, size: int | None) -> np.ndarray:
    """uint8 (N, H, W, C) arrays to (N, C, S, S); a copy, writable.

    Raises:
        InputError: if they have no pixels, or would not fit in memory.
    """
    require(0 not in images.shape[1:], f"the images are of height {images.shape[1]} and width {images.shape[2]}.")
    check_memory(len(images) * images.shape[3] * (size**2 if size else math.prod(images.shape[1:3])), "decoding them")
    if size is not None and images.shape[1:3] != (size, size):
        mode = "L" if images.shape[3] == 1 else "RGB"
        squeezed = images[..., 0] if mode == "L" else images
        resized = [np.asarray(fit(Image.fromarray(image, mode), size)) for image in squeezed]
        images = np.stack(resized).reshape(len(images), size, size, -1)
    return np.array(images.transpose(0, 3, 1, 2), order="C")
