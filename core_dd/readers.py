"""File formats of real data: each reader turns one place on disk into a `Raw` set of uint8 images.

A reader checks what it reads and says what it looked for; nothing here unpickles untrusted bytes or runs remote code.
"""

import gzip
import hashlib
import io
import json
import os
import pickle
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors.torch import load_file, save_file

from core_dd import files, records
from core_dd.errors import InputError, require
from core_dd.notes import note
from core_dd.progress import Progress

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
TRAIN_SPLITS, TEST_SPLITS = ("train", "training"), ("test", "t10k", "val", "valid", "validation")


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
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target).long()
    rank = torch.stack([(labels[:i] == labels[i]).sum() for i in range(len(labels))])
    test = rank % 5 == 4
    return Raw(images[~test], labels[~test], images[test], labels[test], tuple(map(str, range(10))))


def idx(folder: Path, image_size: int | None = None) -> Raw:
    """The four MNIST-style IDX files (`train-images-idx3-ubyte`, ... plain or .gz) of a folder."""
    require(
        folder.is_dir(), f"no folder at {folder}. idx:PATH wants the folder that holds train-images-idx3-ubyte[.gz]."
    )
    arrays = {}
    for split in ("train", "t10k"):
        for kind, dims in (("images", 3), ("labels", 1)):
            arrays[split, kind] = read_idx(_find_idx(folder, f"{split}-{kind}-idx{dims}-ubyte"), dims)
    images = {s: torch.from_numpy(resized(arrays[s, "images"][..., None], image_size)) for s in ("train", "t10k")}
    labels = {s: torch.from_numpy(arrays[s, "labels"].astype(np.int64)) for s in ("train", "t10k")}
    names = tuple(map(str, range(int(labels["train"].max()) + 1)))
    return Raw(images["train"], labels["train"], images["t10k"], labels["t10k"], names)


def _find_idx(folder: Path, stem: str) -> Path:
    candidates = [folder / name for name in (stem, f"{stem}.gz", stem.replace("-idx", ".idx"))]
    found = next((path for path in candidates if path.is_file()), None)
    require(
        found is not None,
        f"no {stem} or {stem}.gz in {folder}. An IDX folder holds train- and t10k- images and labels.",
    )
    return found


def read_idx(path: Path, dims: int) -> np.ndarray:
    """One IDX file of unsigned bytes (magic 0, 0, 8, dims; big-endian sizes; data).

    Raises:
        InputError: if the magic, the number of dimensions or the length disagree, or the gzip stream is cut.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}. The file is truncated or corrupt; fetch it again.") from None
    magic = bytes([0, 0, 8, dims])
    require(
        content[:4] == magic and len(content) >= 4 + 4 * dims,
        f"{path} is no IDX file of {dims}-d unsigned bytes: it starts with {content[:4].hex()}, not {magic.hex()}.",
    )
    shape = tuple(np.frombuffer(content, ">i4", dims, offset=4))
    expected, given = int(np.prod(shape, dtype=np.int64)), len(content) - 4 - 4 * dims
    require(
        expected == given,
        f"{path} is truncated or corrupt: its header promises {expected} bytes, it holds {given}. Fetch it again.",
    )
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dims).reshape(shape)


def parquet(path: Path, image_size: int | None = None) -> Raw:
    """Hugging Face parquet shards: `train-*.parquet` and `test-*.parquet` (or validation) under a folder, any depth.

    The image column holds encoded bytes (`{bytes, path}` structs or plain binary); the label column is `label`,
    `fine_label` or the only integer column; class names come from the Hugging Face schema when it is there.
    """
    train, test = list_parquet(path)
    key = hashlib.blake2b(f"parquet {image_size} ".encode(), digest_size=16)
    for shard in (*train, *test):
        key.update(shard.read_bytes())

    def decode() -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        arrays, names = {}, None
        for split, members in (("train", train), ("test", test)):
            encoded, labels, names_here = _read_parquet(members)
            names = names or names_here
            arrays[f"{split}_images"] = decode_images(encoded, image_size, what=f"{split} images of {path}")
            arrays[f"{split}_labels"] = labels
        return arrays, names or tuple(map(str, range(int(arrays["train_labels"].max()) + 1)))

    return _cached(key.hexdigest(), decode)


def list_parquet(path: Path) -> tuple[list[Path], list[Path]]:
    """The training and the test shards under a folder.

    Raises:
        InputError: if there is no folder, or not both.
    """
    require(
        path.exists(), f"no such folder: {path}. parquet:PATH wants a folder with train-*.parquet and test-*.parquet."
    )
    shards = sorted(path.rglob("*.parquet"))
    train, test = (_shards_of(shards, splits) for splits in (TRAIN_SPLITS, TEST_SPLITS))
    require(
        bool(train) and bool(test),
        f"{path} holds {len(shards)} parquet files, but not both train-*.parquet and test-*.parquet (or validation-*).",
    )
    for split in (train, test):
        folders = sorted({str(shard.parent.relative_to(path)) for shard in split})
        require(
            len(folders) == 1,
            f"{path} holds several datasets, in {', '.join(folders)}. Name one: parquet:{path / folders[-1]}",
        )
    return train, test


def _shards_of(shards: Sequence[Path], splits: Sequence[str]) -> list[Path]:
    """The shards of the first split name that has any."""
    for split in splits:
        found = [shard for shard in shards if shard.name.split("-")[0].split(".")[0] == split]
        if found:
            return found
    return []


def _read_parquet(shards: Sequence[Path]) -> tuple[list[tuple[str, bytes]], np.ndarray, tuple[str, ...] | None]:
    """(place, encoded image) pairs, labels and class names (or None) of some shards."""
    import pyarrow
    import pyarrow.parquet

    encoded, labels, names = [], [], None
    for shard in shards:
        try:
            table = pyarrow.parquet.read_table(shard)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(
                f"cannot read {shard}: {error}. It is truncated or no parquet file; fetch it again."
            ) from None
        image, label = parquet_columns(table.schema, shard)
        for row, cell in enumerate(table[image].to_pylist()):
            content = cell["bytes"] if isinstance(cell, dict) else cell
            require(isinstance(content, bytes), f"row {row} of {shard}: column '{image}' holds no image bytes.")
            encoded.append((f"row {row} of {shard}", content))
        labels.append(np.asarray(table[label].to_pylist(), dtype=np.int64))
        names = names or class_names(table.schema.metadata, label, shard)
    return encoded, np.concatenate(labels), tuple(names) if names else None


class Feature(TypedDict, total=False):
    """Of one column in a parquet file's metadata of Hugging Face, what is used."""

    names: list[str] | None


class Info(TypedDict, total=False):
    """Of a parquet file's metadata of Hugging Face, what is used."""

    features: dict[str, Feature | None]


class HuggingFace(TypedDict, total=False):
    """A parquet file's metadata of Hugging Face."""

    info: Info


def class_names(metadata: Mapping[bytes, bytes] | None, label: str, shard: Path) -> list[str] | None:
    """The names of the classes that a parquet file brings in its metadata, or None.

    Raises:
        InputError: if they are damaged.
    """
    where, hint = f"the metadata 'huggingface' of {shard}", "Write the file anew, with its metadata or without."
    content = records.parse((metadata or {}).get(b"huggingface", b"{}"), HuggingFace, where, hint)
    return (content.get("info", {}).get("features", {}).get(label) or {}).get("names")


def parquet_columns(schema, shard: Path) -> tuple[str, str]:
    """The names of the image and the label column."""
    import pyarrow.types as kinds

    images = [
        f.name for f in schema if kinds.is_struct(f.type) or kinds.is_binary(f.type) or kinds.is_large_binary(f.type)
    ]
    integers = [f.name for f in schema if kinds.is_integer(f.type)]
    label = next((name for name in ("label", "fine_label", "labels") if name in integers), None)
    if label is None and len(integers) == 1:
        label = integers[0]
    require(
        bool(images) and label is not None,
        f"{shard} has columns {', '.join(schema.names)}; expected one of encoded images and one of integer labels.",
    )
    return images[0], label


def folder(path: Path, image_size: int | None = None) -> Raw:
    """An image folder; see `list_folder`."""
    members, names = list_folder(path)
    key = hashlib.blake2b(f"folder {image_size} ".encode(), digest_size=16)
    for file, _ in (*members["train"], *members["test"]):
        status = file.stat()
        key.update(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())

    def decode() -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        arrays = {}
        for split, files_of in members.items():
            encoded = ((str(file), file.read_bytes()) for file, _ in files_of)
            what = f"{split} images of {path}"
            arrays[f"{split}_images"] = decode_images(encoded, image_size, what=what, total=len(files_of))
            arrays[f"{split}_labels"] = np.asarray([label for _, label in files_of], dtype=np.int64)
        return arrays, names

    return _cached(key.hexdigest(), decode)


def list_folder(path: Path) -> tuple[dict[str, list[tuple[Path, int]]], tuple[str, ...]]:
    """The files of an image folder `PATH/train/CLASS/*.png` and `PATH/test/CLASS/*.png` (or val).

    The test images may also lie in one folder, `PATH/val/images`, with their classes in `PATH/val/val_annotations.txt`:
    so comes Tiny-ImageNet, whose own test images have no labels.

    Returns:
        For "train" and "test" each file with its label, and the classes in name order.

    Raises:
        InputError: if anything of it is missing, or the test images have other classes.
    """
    layout = f"folder:PATH wants {path}/train/CLASS/*.png and {path}/test/CLASS/*.png (test may be called val)."
    require(path.is_dir(), f"no folder at {path}. {layout}")
    annotations = path / "val" / "val_annotations.txt"
    annotated = annotations.is_file() and (path / "val" / "images").is_dir()
    tests = ("val",) if annotated else TEST_SPLITS
    roots = [next((path / s for s in splits if (path / s).is_dir()), None) for splits in (TRAIN_SPLITS, tests)]
    require(None not in roots, f"{path} has no train and test folders. {layout}")
    names = tuple(sorted(entry.name for entry in roots[0].iterdir() if entry.is_dir()))
    require(len(names) > 0, f"{roots[0]} has no class folders. {layout}")
    members = {"train": _class_folders(roots[0], names)}
    members["test"] = _annotated(annotations, names) if annotated else _class_folders(roots[1], names)
    for split, root in zip(("train", "test"), roots, strict=True):
        require(bool(members[split]), f"{root} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}). {layout}")
    return members, names


def _class_folders(root: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    """Every image under `root/CLASS`, any depth, with its class's number."""
    extra = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name not in names)
    require(not extra, f"{root} has class folders that the training images lack: {', '.join(extra[:5])}.")
    return [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((root / name).rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES
    ]


def _annotated(annotations: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    """Every image of a `val_annotations.txt`: lines of a file's name, its class, and more that is not read."""
    number, members = {name: label for label, name in enumerate(names)}, []
    for i, line in enumerate(annotations.read_text(encoding="utf-8").splitlines(), 1):
        file, _, rest = line.partition("\t")
        name, path = rest.partition("\t")[0], annotations.parent / "images" / file
        require(name in number, f"line {i} of {annotations}: no class '{name}' among the training images.")
        require(path.is_file(), f"line {i} of {annotations}: no image {path}.")
        members.append((path, number[name]))
    return members


def pt(path: Path, image_size: int | None = None) -> Raw:
    """The DC family's `tinyimagenet.pt`: a dict of classes, images_train, labels_train, images_val, labels_val."""
    content = load_tensors(path)
    keys = ("images_train", "labels_train", "images_val", "labels_val")
    require(
        isinstance(content, dict) and all(isinstance(content.get(key), torch.Tensor) for key in keys),
        f"{path} holds no dataset: expected a dict with tensors {', '.join(keys)} (and a list 'classes').",
    )
    for key in ("images_train", "images_val"):
        images = content[key]
        require(
            images.dtype == torch.uint8 and images.ndim == 4,
            f"{path}: {key} is {images.dtype} of shape {tuple(images.shape)}, expected uint8 (N, C, H, W).",
        )
    train, test = (
        torch.from_numpy(resized(content[key].permute(0, 2, 3, 1).numpy(), image_size))
        for key in ("images_train", "images_val")
    )
    names = content.get("classes") or range(int(content["labels_train"].max()) + 1)
    return Raw(train, content["labels_train"].long(), test, content["labels_val"].long(), tuple(map(str, names)))


def load_tensors(path: Path) -> Any:
    """`torch.load` of a file that may come from anywhere: tensors and plain containers only, nothing is executed.

    Raises:
        InputError: if the file is missing, truncated, or a pickle that asks for anything else.
    """
    require(Path(path).is_file(), f"no file at {path}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is a pickle that wants to run code or is damaged; it was not loaded "
            f"({str(error).splitlines()[0][:200]}). Offer safetensors, or tensors saved by torch.save."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"cannot read {path}: {str(error).splitlines()[0]}. It is truncated or no tensor file."
        ) from None


def torchvision_set(name: str, image_size: int | None = None) -> Raw:
    """mnist, fashion_mnist, cifar10, cifar100 or svhn through torchvision, downloaded on first use.

    Files go to `$GENDD_DATA`, by default the cache folder; torchvision checks their MD5 sums.
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
        splits = [
            cls(root, split=split, download=True)
            if name == "svhn"
            else cls(root, train=split == "train", download=True)
            for split in ("train", "test")
        ]
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"cannot get {name} into {root}: {error}. Without a network, offer local files: "
            "idx:FOLDER, parquet:FOLDER or folder:FOLDER, or set GENDD_DATA to where torchvision's files are."
        ) from None
    arrays = []
    for split in splits:
        images = np.asarray(split.data)
        images = images.transpose(0, 2, 3, 1) if name == "svhn" else images.reshape(*images.shape[:3], -1)
        labels = split.labels if name == "svhn" else split.targets
        arrays += [
            torch.from_numpy(resized(images, image_size)),
            torch.as_tensor(np.asarray(labels), dtype=torch.int64),
        ]
    names = getattr(splits[0], "classes", None) or range(10)
    return Raw(*arrays, class_names=tuple(map(str, names)))


def decode_images(
    encoded: Iterable[tuple[str, bytes]], image_size: int | None, what: str, total: int | None = None
) -> np.ndarray:
    """Decode images to uint8 (N, C, H, W); grey stays one channel unless any image has colour.

    Args:
        encoded: (where it came from, file content) pairs.
        image_size: short side after resizing, then centre crop; None keeps the size.
        what: for the progress bar.
        total: how many, when `encoded` has no length.

    Raises:
        InputError: an image that does not decode, or images of different sizes without `image_size`.
    """
    images, first = [], None
    total = total if total is not None else len(encoded)
    with Progress(f"decoding {what}", total, unit="img", leave=False) as progress:
        for place, content in encoded:
            picture = decode_image(place, content, image_size)
            first = first or (place, *picture.shape[:2])
            same_size(first, (place, *picture.shape[:2]))
            images.append(picture)
            progress.update()
    if len({picture.ndim for picture in images}) > 1:
        images = [picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2) for picture in images]
    stack = np.stack(images)
    return np.ascontiguousarray(stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2))


def same_size(first: tuple[str, int, int], other: tuple[str, int, int]) -> None:
    """Refuse two images, (place, height, width) each, of different sizes."""
    require(
        first[1:] == other[1:],
        f"images differ in size: {first[0]} is {first[2]}x{first[1]}, {other[0]} is {other[2]}x{other[1]}. "
        "Pass image_size to bring them to one size, e.g. --image_size 32.",
    )


def decode_image(place: str, content: bytes, image_size: int | None) -> np.ndarray:
    """One image as uint8 (H, W), or (H, W, 3) if it has colour.

    Raises:
        InputError: if it does not decode; the message names `place`.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            grey = image.mode in ("1", "L", "I", "I;16", "LA")
            return np.asarray(fit(image.convert("L" if grey else "RGB"), image_size))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot decode {place}: {error}. The image is truncated or corrupt.") from None


def fit(image: Image.Image, size: int | None) -> Image.Image:
    """Bring the short side to `size` (bicubic, antialiased) and crop the centre; None returns the image as it is."""
    if size is None or image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def resized(images: np.ndarray, size: int | None) -> np.ndarray:
    """uint8 (N, H, W, C) arrays to (N, C, S, S); a copy, writable."""
    if size is not None and images.shape[1:3] != (size, size):
        mode = "L" if images.shape[3] == 1 else "RGB"
        squeezed = images[..., 0] if mode == "L" else images
        resized = [np.asarray(fit(Image.fromarray(image, mode), size)) for image in squeezed]
        images = np.stack(resized).reshape(len(images), size, size, -1)
    return np.array(images.transpose(0, 3, 1, 2), order="C")


def cache_folder() -> Path:
    """Where decoded sets and downloads are kept: `$GENDD_CACHE`, else `~/.cache/gendd`."""
    return Path(os.environ.get("GENDD_CACHE", Path.home() / ".cache" / "gendd"))


def _cached(key: str, decode: Callable[[], tuple[dict[str, np.ndarray], tuple[str, ...]]]) -> Raw:
    """Decode once, then map the uint8 arrays from the cache; `key` stands for the source's content."""
    place = cache_folder() / key
    if not (place / "info.json").is_file():
        arrays, names = decode()
        try:
            with files.atomic(place) as temporary:
                temporary.mkdir()
                for name, array in arrays.items():
                    np.save(temporary / f"{name}.npy", array, allow_pickle=False)
                (temporary / "info.json").write_text(json.dumps({"class_names": names}))
        except InputError as error:
            if not (place / "info.json").is_file():
                note(f"note: the decoded images are not cached ({error})")
            return _raw(arrays, names)
    arrays = {file.stem: np.load(file, mmap_mode="c", allow_pickle=False) for file in place.glob("*.npy")}
    return _raw(arrays, files.read_json(place / "info.json")["class_names"])


def cached_tensors(what: str, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Tensors that are costly to make, kept in the cache folder under a hash of `what` they are."""
    place = cache_folder() / f"{hashlib.blake2b(what.encode(), digest_size=16).hexdigest()}.safetensors"
    if place.is_file():
        return load_file(place)
    tensors = {name: tensor.contiguous() for name, tensor in make().items()}
    try:
        with files.atomic(place) as temporary:
            save_file(tensors, temporary)
    except InputError as error:
        note(f"note: not cached ({error})")
    return tensors


def _raw(arrays: dict[str, np.ndarray], names: Sequence[str]) -> Raw:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Raw(**tensors, class_names=tuple(names))
