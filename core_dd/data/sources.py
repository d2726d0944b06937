"""Real data of other kinds: tensors and datasets in memory, .npz, tables of file names, and what has no test split.

From the last a part of each class is cut to test on, the same images whatever the seed of a run.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core_dd.data import readers
from core_dd.data.decoding import decode_image, fit
from core_dd.data.encoded import numbered, of_files
from core_dd.data.folders import TEST_SPLITS, TRAIN_SPLITS, Members, class_folders, in_order, labelled, read_file
from core_dd.data.readers import Raw
from core_dd.errors import InputError, needed, require
from core_dd.notes import note
from core_dd.rng import stream

_Split = tuple[Tensor, Tensor, tuple[str, ...] | None]
"""Images uint8 (N, C, H, W), labels int64 (N,), and class names where they are known."""

_FILE_COLUMNS = ("file", "filename", "file_name", "path", "image", "image name", "image_name")
_LABEL_COLUMNS = ("label", "class", "class_name", "majority vote label")
_SPLIT_COLUMNS = ("split", "partition", "set")
"""Headings of a table, in whatever case."""

KEYS = ("train_images", "train_labels", "test_images", "test_labels")


# Tables of file names.


def table(path: Path, image_size: int | None = None, test_fraction: float = 0.0) -> Raw:
    """A CSV with a line per image: its file, its class, and perhaps its split (train or test).

    Columns are found by their headings, `_FILE_COLUMNS`, `_LABEL_COLUMNS` and `_SPLIT_COLUMNS`; files are looked for
    beside the table and in `images/` there. Classes are in the order of their names, numbers by number.

    Raises:
        InputError: a table without those columns, a file that is missing, or no test split and no `test_fraction`.
    """
    rows, names = _rows(path)
    members: dict[str, Members] = {"train": [], "test": []}
    for file, name, split in rows:
        members[split].append((file, names.index(name)))
    if members["test"]:
        _no_fraction(path, test_fraction)
    else:
        members["train"], members["test"] = _cut(members["train"], names, test_fraction, path)
    return _decoded(path, members, names, image_size)


def mhist(folder: Path, image_size: int | None = None) -> Raw:
    """MHIST (Wei et al. 2021) as it is unpacked: `annotations.csv` with a column Partition, and `images/`.

    Raises:
        InputError: if either is missing.
    """
    annotations = folder / "annotations.csv"
    require(
        annotations.is_file() and (folder / "images").is_dir(),
        f"{folder} is not MHIST as it is unpacked: expected annotations.csv and images/*.png there. Ask for it at "
        "https://bmirds.github.io/MHIST.",
    )
    return table(annotations, image_size)


def _rows(path: Path) -> tuple[list[tuple[Path, str, str]], tuple[str, ...]]:
    """(file, class, train or test) of every line of these two splits, and the classes in order."""
    require(path.is_file(), f"no file at {path}. csv:PATH wants a table with a line per image: file,label[,split].")
    try:
        with path.open(newline="", encoding="utf-8-sig") as content:
            lines = list(csv.DictReader(content))
    except (UnicodeError, csv.Error) as error:
        raise InputError(f"{path} is no table of text: {error}. Save it as CSV in UTF-8.") from None
    require(bool(lines), f"{path} has no lines below its headings.")
    headings = {str(name).strip().lower(): name for name in lines[0]}
    file, label, split = (
        next((headings[name] for name in known if name in headings), None)
        for known in (_FILE_COLUMNS, _LABEL_COLUMNS, _SPLIT_COLUMNS)
    )
    for found, known in ((file, _FILE_COLUMNS), (label, _LABEL_COLUMNS)):
        require(
            found is not None,
            f"{path} has columns {', '.join(map(str, lines[0]))}; expected one called {' or '.join(known[:4])}.",
        )
    rows = []
    for number, line in enumerate(lines, 2):
        where = f"line {number} of {path}"
        require(bool(line[file]) and bool(line[label]), f"{where} has no file or no class.")
        rows.append((_file(path.parent, line[file], where), line[label].strip(), _split(split and line[split], where)))
    others = {found for _, _, found in rows} - set(TRAIN_SPLITS)
    test = next((name for name in TEST_SPLITS if name in others), None)
    if left_out := sorted(others - {test}):
        note(f"note: {path}: the test images are those of split {test}; {', '.join(left_out)} are left out")
    kept = [(place, name, "test" if own == test else "train") for place, name, own in rows if own not in left_out]
    return kept, in_order({name for _, name, _ in rows})


def _file(folder: Path, name: str, where: str) -> Path:
    """The file that a table names, beside it or in `images/` there, or wherever it says."""
    places = [folder / name, folder / "images" / name]
    found = next((place for place in places if place.is_file()), None)
    return needed(found, f"{where}: no file at {places[0]} or {places[1]}.")


def _split(value: str | None, where: str) -> str:
    """One of `TRAIN_SPLITS` and `TEST_SPLITS`."""
    plain = (value or "train").strip().lower()
    require(plain in (*TRAIN_SPLITS, *TEST_SPLITS), f"{where}: split '{value}', expected train or test.")
    return plain


# Folders of classes that are not split.


def _unsplit_folder(path: Path, image_size: int | None, test_fraction: float) -> Raw:
    """`PATH/CLASS/*.png`, or `PATH/train/CLASS/*.png` alone, of which a part of each class becomes the test split.

    Raises:
        InputError: if there is no class, or the folder is split already.
    """
    require(path.is_dir(), f"no folder at {path}. folder:PATH with test_fraction wants {path}/CLASS/*.png.")
    names = class_folders(path)
    own = [name for name in names if name.lower() in (*TRAIN_SPLITS, *TEST_SPLITS)]
    if len(own) > 1:
        _no_fraction(path, test_fraction)
    if own == list(names) and class_folders(path / own[0]):  # the only split there is
        return _unsplit_folder(path / own[0], image_size, test_fraction)
    members = labelled(path, names)
    require(bool(members), f"{path} has no class folders with images. Expected {path}/CLASS/*.png.")
    train, test = _cut(members, names, test_fraction, path)
    return _decoded(path, {"train": train, "test": test}, names, image_size)


def _decoded(path: Path, members: Mapping[str, Members], names: tuple[str, ...], image_size: int | None) -> Raw:
    """The images of listed files, decoded once and kept."""
    for split, pairs in members.items():
        require(bool(pairs), f"{path} has no {split} images.")
    return readers.decoded(of_files(path, members, names), image_size)


# Arrays and objects in memory.


def npz(path: Path, image_size: int | None = None, test_fraction: float = 0.0) -> Raw:
    """An .npz of `train_images`, `train_labels`, `test_images`, `test_labels` (or `x_train`, ..., `y_test`), perhaps
    `class_names`; or of `images` and `labels`, from which a test split is cut."""
    content = readers.load_arrays(path)
    renamed = dict(zip(("x_train", "y_train", "x_test", "y_test"), KEYS, strict=True))
    return in_memory({renamed.get(key, key): value for key, value in content.items()}, image_size, test_fraction, path)


def in_memory(
    source: Any, image_size: int | None = None, test_fraction: float = 0.0, where: object = "the data"
) -> Raw:
    """Data that are given as objects.

    Args:
        source: (train, test) or a dict of both by these names, each (images, labels) as tensors or arrays, a
            `torch.utils.data.Dataset` of (image, label), or a `datasets.Dataset`; a dict with the keys `KEYS` and
            perhaps `class_names`; or one split of these, from which a test split is cut.
            Images are uint8, or floats on the 0..1 scale (rounded to 8 bits), (N, C, H, W), (N, H, W, C) or (N, H, W);
            those of datasets may be PIL's.
        image_size: short side after resizing, then centre crop; None keeps the size.
        test_fraction: part of each class that becomes the test split, where there is none.
        where: what messages call it.

    Raises:
        InputError: for anything else.
    """
    names: Sequence[str] | None = None
    if isinstance(source, Mapping):
        named = source.get("class_names")
        names = None if named is None else _names(named, where)
        source = _pair_of(source, where)
    if isinstance(source, tuple | list) and len(source) == 2 and not _is_array(source[0]):
        _no_fraction(where, test_fraction)
        (train, labels, own), (test, test_labels, other) = (
            _of_split(part, image_size, f"the {split} images of {where}")
            for part, split in zip(source, ("training", "test"), strict=True)
        )
        require(
            None in (own, other) or own == other,
            f"{where}: the two splits name other classes, or in another order. Write both with the same names.",
        )
        names = names or own or other
    else:
        train, labels, own = _of_split(source, image_size, f"the images of {where}")
        names = names or own or numbered(labels, where)
        require(len(train) == len(labels), f"{where}: {len(train)} images but {len(labels)} labels.")
        pairs = list(enumerate(labels.tolist()))
        kept, held = ([i for i, _ in part] for part in _cut(pairs, tuple(map(str, names)), test_fraction, where))
        train, labels, test, test_labels = train[kept], labels[kept], train[held], labels[held]
    names = names or numbered(labels, where)
    return Raw(train, labels, test, test_labels, tuple(map(str, names)))


def _names(named: Any, where: object) -> list[str]:
    """Class names that are given in a list or an array."""
    listed = named.tolist() if _is_array(named) else named
    require(
        isinstance(listed, list | tuple) and all(isinstance(own, str | bytes | int | np.integer) for own in listed),
        f"{where}: class_names is a {type(listed).__name__}, expected a list of names.",
    )
    return [_text(own) for own in listed]


def _text(name: object) -> str:
    """A class name, perhaps of bytes."""
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _pair_of(source: Mapping[str, Any], where: object) -> Any:
    """The (train, test) of a dict, or its only split."""
    if set(KEYS) <= source.keys():
        return (source[KEYS[0]], source[KEYS[1]]), (source[KEYS[2]], source[KEYS[3]])
    train, test = (next((source[s] for s in splits if s in source), None) for splits in (TRAIN_SPLITS, TEST_SPLITS))
    if train is not None:
        return train if test is None else (train, test)
    require(
        {"images", "labels"} <= source.keys(),
        f"{where} has {', '.join(map(str, list(source)[:6]))}; expected {', '.join(KEYS)}, or train and test, or "
        "images and labels.",
    )
    return source["images"], source["labels"]


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _of_split(source: Any, image_size: int | None, what: str) -> _Split:
    """One split, of whichever kind."""
    if isinstance(source, tuple | list) and len(source) == 2:
        images, labels = source
        return _eight_bits(images, image_size, what), _classes(labels, what), None
    if hasattr(source, "features") and hasattr(source, "cast_column"):
        return _of_hugging_face(source, image_size, what)
    require(
        hasattr(source, "__len__") and hasattr(source, "__getitem__"),
        f"{what}: got a {type(source).__name__}, expected (images, labels), a torch Dataset with a length, or a "
        "datasets.Dataset.",
    )
    return _of_torch(source, image_size, what)


def _of_torch(dataset: Any, image_size: int | None, what: str) -> _Split:
    """A `torch.utils.data.Dataset` of (image, label)."""
    images, labels = [], []
    for index in range(len(dataset)):
        item = dataset[index]
        require(
            isinstance(item, tuple | list) and len(item) == 2,
            f"{what}: item {index} is a {type(item).__name__}, expected (image, label).",
        )
        images.append(_picture(item[0], what))
        labels.append(item[1])
    names = getattr(dataset, "classes", None)
    stacked = _stacked(images, image_size, what)
    return _eight_bits(stacked, None, what), _classes(labels, what), names and tuple(map(str, names))


def _of_hugging_face(dataset: Any, image_size: int | None, what: str) -> _Split:
    """A `datasets.Dataset` with an Image and a ClassLabel column."""
    from datasets import ClassLabel
    from datasets import Image as ImageColumn

    columns = {
        kind: [name for name, own in dataset.features.items() if isinstance(own, kind)]
        for kind in (ImageColumn, ClassLabel)
    }
    for kind, found in columns.items():
        require(
            len(found) == 1,
            f"{what}: expected one column of type {kind.__name__}, got {', '.join(found) or 'none'}. Drop the rest.",
        )
    (image,), (label,) = columns.values()
    cells = dataset.select_columns([image]).cast_column(image, ImageColumn(decode=False))
    encoded = ((f"{what}, row {row}", _bytes(cell[image])) for row, cell in enumerate(cells))
    images = readers.decode_images(encoded, image_size, what, len(dataset))
    return images, _classes(dataset[label], what), tuple(dataset.features[label].names)


def _bytes(cell: Mapping[str, Any]) -> bytes:
    """The file of a cell of an undecoded Image column."""
    return cell["bytes"] if cell.get("bytes") is not None else read_file(Path(cell["path"]))


def _picture(image: Any, what: str) -> np.ndarray:
    """One image as an array (H, W), (H, W, C) or (C, H, W), as it is."""
    if isinstance(image, Image.Image):
        return np.asarray(image) if image.mode in ("L", "RGB") else _decoded_picture(image, what)
    require(
        _is_array(image),
        f"{what}: got a {type(image).__name__} for an image. Expected a tensor, an array or a PIL image.",
    )
    return np.asarray(image)


def _decoded_picture(image: Image.Image, what: str) -> np.ndarray:
    """A PIL image of 16 bits, of a palette or with transparency, as it would be read from a file."""
    require(
        image.mode != "F",
        f"{what}: an image's pixels are floating-point numbers of no stated range. Give arrays, or 8 or 16 bits.",
    )
    low, high = image.getextrema() if image.mode == "I" else (0, 0)
    require(
        low >= 0 and high <= 65535, f"{what}: an image has pixels from {low} to {high}. Give 8 or 16 unsigned bits."
    )
    stored = io.BytesIO()
    whole = image.mode in ("1", "LA", "P", "RGBA") or image.mode.startswith("I")
    (image if whole else image.convert("RGBA" if image.has_transparency_data else "RGB")).save(stored, "PNG")
    return decode_image(what, stored.getvalue(), None)


def _stacked(images: Sequence[np.ndarray], image_size: int | None, what: str) -> np.ndarray:
    """Images of one size in one array; those of several are brought to `image_size`."""
    require(bool(images), f"{what}: there are none.")
    if image_size is not None:
        images = [_fitted(image, image_size) for image in images]
    shapes = sorted({image.shape for image in images})
    require(len(shapes) == 1, f"{what} differ in shape: {shapes[0]} and {shapes[-1]}. Pass image_size, or mend them.")
    return np.stack(images)


def _fitted(image: np.ndarray, size: int) -> np.ndarray:
    """An image of uint8 with its short side at `size`, centre cropped; floats are left to `_eight_bits`."""
    if image.dtype != np.uint8:
        image = _rounded(torch.from_numpy(image), "an image").numpy()
    if image.ndim == 3 and image.shape[0] in (1, 3):
        image = image.transpose(1, 2, 0)
    picture = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    return np.asarray(fit(picture, size))


def _eight_bits(images: Any, image_size: int | None, what: str) -> Tensor:
    """uint8 (N, C, H, W)."""
    require(_is_array(images), f"{what}: got a {type(images).__name__}, expected a tensor or an array.")
    plain = not isinstance(images, np.ndarray) or (images.dtype.kind in "biuf" and images.dtype.itemsize <= 8)
    require(plain, f"{what} are {images.dtype}, expected uint8, or floats on the 0..1 scale.")
    images = torch.as_tensor(images)
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    require(
        images.ndim == 4 and images.shape[1] in (1, 3),
        f"{what} are of shape {tuple(images.shape)}, expected (N, C, H, W), (N, H, W, C) or (N, H, W), C 1 or 3.",
    )
    whole = images.detach().cpu() if images.dtype == torch.uint8 else _rounded(images.detach().cpu(), what)
    return torch.from_numpy(readers.resized(whole.permute(0, 2, 3, 1).contiguous().numpy(), image_size))


def _rounded(images: Tensor, what: str) -> Tensor:
    """Floats on the 0..1 scale as uint8."""
    require(
        images.is_floating_point() and images.numel() > 0,
        f"{what} are {images.dtype}, expected uint8, or floats on the 0..1 scale.",
    )
    low, high = float(images.min()), float(images.max())
    require(
        low >= 0 and high <= 1,
        f"{what} have values from {low:.3g} to {high:.3g}, expected floats on the 0..1 scale, or uint8. Leave out what "
        "normalises them: the judge does that itself.",
    )
    return images.mul(255).round().to(torch.uint8)


def _classes(labels: Any, what: str) -> Tensor:
    """int64 (N,)."""
    try:
        found = np.asarray(labels)
    except (TypeError, ValueError):
        found = np.asarray("")
    require(found.dtype.kind in "biufc", f"{what} have labels that are no numbers. Count classes from 0.")
    require(
        found.ndim == 1 and found.dtype.kind in "iu",
        f"{what} have labels {found.dtype} of shape {tuple(found.shape)}, expected integers (N,).",
    )
    largest = int(found.max(initial=0))
    require(largest < 2**63, f"{what} have a label {largest}. Count classes from 0.")
    return torch.from_numpy(found.astype(np.int64))


# Test splits.


def _cut(members: Sequence[tuple[Any, int]], names: Sequence[str], fraction: float, where: object) -> tuple[list, list]:
    """Items with labels, as those that train and those that test: the same ones whatever the seed of a run.

    Args:
        members: (item, label) pairs.
        names: of the classes.
        fraction: of each class that tests, in (0, 1); at least one image.
        where: what messages call it.

    Raises:
        InputError: if no fraction is given, or a class would lose all its images.
    """
    require(
        0 < fraction < 1,
        f"{where} has no test split. Say which part of each class becomes one: --test_fraction 0.2.",
    )
    labels, tests = torch.tensor([label for _, label in members]), set()
    for k, name in enumerate(names):
        own = torch.nonzero(labels == k).flatten()
        count = max(1, round(fraction * len(own)))
        require(
            count < len(own),
            f"test_fraction {fraction} leaves class {k} ('{name}') of {where} none of its {len(own)} images.",
        )
        tests |= set(own[torch.randperm(len(own), generator=stream(0, "test split", k))[:count]].tolist())
    parts = [[pair for i, pair in enumerate(members) if (i in tests) == wanted] for wanted in (False, True)]
    return parts[0], parts[1]


def _no_fraction(where: object, test_fraction: float) -> None:
    require(not test_fraction, f"{where} has its own test split. Leave out test_fraction.")


UNSPLIT: Mapping[str, Callable[[Path, int | None, float], Raw]] = MappingProxyType(
    {"folder": _unsplit_folder, "csv": table, "npz": npz}
)
"""Formats from which a test split can be cut."""
