"""Image folders: which files they hold, of which class, and when they have changed. Nothing is decoded here."""

import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from core_dd.errors import InputError, require

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
TRAIN_SPLITS, TEST_SPLITS = ("train", "training"), ("test", "t10k", "val", "valid", "validation")

Members = list[tuple[Path, int]]
"""Files, each with its class's number."""


def list_folder(path: Path) -> tuple[dict[str, Members], tuple[str, ...]]:
    """The files of an image folder `PATH/train/CLASS/*.png` and `PATH/test/CLASS/*.png` (or val).

    The test images may also lie in one folder, `PATH/val/images`, with their classes in `PATH/val/val_annotations.txt`:
    so comes Tiny-ImageNet, whose own test images have no labels.

    Returns:
        For "train" and "test" each file with its label, and the classes, see `in_order`.

    Raises:
        InputError: if anything of it is missing, is no regular file, or the test images have other classes.
    """
    layout = f"folder:PATH wants {path}/train/CLASS/*.png and {path}/test/CLASS/*.png (test may be called val)."
    require(path.is_dir(), f"no folder at {path}. {layout}")
    annotations = path / "val" / "val_annotations.txt"
    annotated = annotations.is_file() and (path / "val" / "images").is_dir()
    tests = ("val",) if annotated else TEST_SPLITS
    roots = split_folders(path, tests)
    require(
        None not in roots,
        f"{path} has no train and test folders. {layout} Or cut a test split: --test_fraction 0.2.",
    )
    names = class_folders(roots[0])
    require(len(names) > 0, f"{roots[0]} has no class folders. {layout}")
    members = {"train": labelled(roots[0], names)}
    members["test"] = _annotated(annotations, names) if annotated else labelled(roots[1], names)
    for split, root in zip(("train", "test"), roots, strict=True):
        require(bool(members[split]), f"{root} has no images ({', '.join(sorted(_IMAGE_SUFFIXES))}). {layout}")
    return members, names


def split_folders(path: Path, tests: Sequence[str] = TEST_SPLITS) -> tuple[Path | None, Path | None]:
    """The folders of the training and of the test images, where they are."""
    train, test = (next((path / s for s in splits if (path / s).is_dir()), None) for splits in (TRAIN_SPLITS, tests))
    return train, test


def check_tiny_imagenet(path: Path) -> None:
    """Refuse a folder that is not Tiny-ImageNet as it is unpacked: 200 classes, those of its `wnids.txt`.

    Raises:
        InputError: the sentence says what it is instead.
    """
    require(
        path.is_dir(),
        f"no folder at {path}. tiny_imagenet:PATH wants the unpacked archive, tiny-imagenet-200. Get it from "
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip.",
    )
    names = class_folders(path / "train") if (path / "train").is_dir() else ()
    listed = path / "wnids.txt"
    wnids = listed.read_text(encoding="utf-8-sig", errors="replace").split() if listed.is_file() else []
    require(
        len(names) == len(wnids) == 200 and set(names) == set(wnids),
        f"{path} is not Tiny-ImageNet, which has 200 classes in train and in wnids.txt: it has {len(names)} and "
        f"{len(wnids)}. Give other data as folder:{path}",
    )


def class_folders(root: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, but for hidden ones, see `in_order`."""
    return in_order(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of classes: 0, 1, ..., 10 (class0, ..., class10) by number, any others by name."""
    names = sorted(names)
    found = [re.fullmatch(r"(\D*)(\d+)", name, re.ASCII) for name in names]
    parts = [part for part in found if part is not None]
    if len(parts) == len(names) and len({part[1] for part in parts}) == 1:
        parts.sort(key=lambda part: int(part[2]))
        return tuple(part[0] for part in parts)
    return tuple(names)


def labelled(root: Path, names: Sequence[str]) -> Members:
    """Every image under `root/CLASS`, any depth, with its class's number.

    Raises:
        InputError: for a folder that is none of these classes.
    """
    extra = [name for name in class_folders(root) if name not in names]
    require(not extra, f"{root} has class folders that the training images lack: {', '.join(extra[:5])}.")
    return images_of(root, names)


def images_of(root: Path, names: Sequence[str]) -> Members:
    """Every image under `root/CLASS` of these classes, any depth, with its class's number; others may be there."""
    return [(file, label) for label, name in enumerate(names) for file in files_under(root / name, _IMAGE_SUFFIXES)]


def files_under(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files under a folder, any depth, with one of these suffixes in whatever case, by name.

    Links are followed, each folder is entered once, and what is hidden is passed over.

    Raises:
        InputError: for a file that cannot be read as one: a link to nothing, a pipe, a socket, a device.
    """
    found, seen = [], set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder if folder.is_dir() else None):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in names if Path(name).suffix.lower() in suffixes and name[0] != "."]
    for path in found:
        check_regular(path)
    return sorted(found)


def _refuse_folder(error: OSError) -> None:
    raise InputError(f"cannot read the folder {error.filename}: {error.strerror}. Change its permissions.")


def check_regular(path: Path) -> None:
    """Refuse what is no regular file (nor a link to one), which might never end.

    Raises:
        InputError: if there is none, or something else.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. A link to nothing? Mend or remove it.") from None
    require(stat.S_ISREG(mode), f"{path} is no regular file but a pipe, a socket, a device or a folder. Remove it.")


def read_file(path: Path) -> bytes:
    """What a file holds.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Change its permissions or fetch it again.") from None


def _annotated(annotations: Path, names: Sequence[str]) -> Members:
    """Every image of a `val_annotations.txt`: lines of a file's name, its class, and more that is not read."""
    number, members, folder = {name: label for label, name in enumerate(names)}, [], annotations.parent / "images"
    present = {path.name: path for path in files_under(folder, _IMAGE_SUFFIXES)}
    for i, line in enumerate(annotations.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines(), 1):
        file, _, rest = line.partition("\t")
        name, where = rest.partition("\t")[0], f"line {i} of {annotations}"
        require(name in number, f"{where}: no class '{name}' among the training images.")
        require(file in present, f"{where}: no image {folder / file}, or it has a line before.")
        members.append((present.pop(file), number[name]))
    require(
        not present, f"{annotations} has no line for {len(present)} images of {folder}, {min(present, default='')}."
    )
    return members


def listing_key(members: Mapping[str, Members], names: Sequence[str]) -> str:
    """A hash of all that decides what a listing is read as: the classes, and each file's split, class and state."""
    key = hashlib.blake2b(repr(names).encode("ascii", "backslashreplace"), digest_size=16)
    resolved = cache(Path.resolve)  # of folders, which hold many files each
    for split, pairs in members.items():
        for file, label in pairs:
            place = file.resolve() if file.is_symlink() else resolved(file.parent) / file.name
            key.update(f"\n{split} {label} ".encode() + _state(file, place))
    return key.hexdigest()


def _state(file: Path, place: Path) -> bytes:
    """What changes when the content of a file does, or that of the file it links to, whose place is given."""
    status = file.stat()
    numbers = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return os.fsencode(place) + f" {' '.join(map(str, numbers))}".encode()
