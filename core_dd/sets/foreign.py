"""Sets in the files of other authors' code, recognised by their layout.

`res_METHOD_DATA_NET_IPCipc.pt` of DC, DSA, DM and DataDAM; the pair `images_best.pt`, `labels_best.pt` of MTT;
`data.pt` of IDC and M3D; a folder of image files per class; a dict of images and labels. What a layout leaves open
(which map its images are in, how many tiles each holds) is asked for, never guessed.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core_dd.data import readers
from core_dd.data.folders import class_folders, labelled
from core_dd.data.options import PIXELS
from core_dd.errors import InputError, require

_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle")
IMAGES, LABELS = "images", "labels"


@dataclass(frozen=True)
class Foreign:
    """What a file of another code holds.

    Attributes:
        images: (N, C, H, W), in the space of the map.
        labels: (N,), int64 where they are whole numbers, or (N, K).
        layout: what the file looks like, in words.
        normalised_by: the map its images are in: a key of `core_dd.data.preprocess.PREPROCESSES`, or `PIXELS`; None:
            the layout leaves it open.
        factor: every image holds factor x factor smaller ones; None: the layout leaves it open.
    """

    images: Tensor
    labels: Tensor
    layout: str
    normalised_by: str | None
    factor: int | None


def find(path: Path, class_names: Sequence[str] | None = None) -> Foreign | None:
    """What is at a place, if it has one of the layouts; None for a safetensors file or a folder of another kind.

    Args:
        path: a file or a folder.
        class_names: of the data, by which image folders get their labels; None: by the folders' own order.

    Raises:
        InputError: for a `.pt` file that holds something else, or is damaged.
    """
    found = _recognised(path, class_names)
    return found and replace(found, labels=_whole(found.labels))


def _recognised(path: Path, class_names: Sequence[str] | None) -> Foreign | None:
    """What `find` finds, its labels as they are."""
    if path.is_dir():
        pair = path / f"{IMAGES}_best.pt"
        if pair.is_file():
            return _pair(pair, readers.load_tensors(pair))
        own = class_folders(path)
        return _image_folder(path, own, class_names) if labelled(path, own) else None
    saved = path.suffix.lower() in _SUFFIXES or zipfile.is_zipfile(path)
    return _tensors(path, readers.load_tensors(path)) if saved else None


def _whole(labels: Tensor) -> Tensor:
    """Labels that are classes as int64, whatever the type of their numbers; others as they are."""
    floats = labels.is_floating_point() and bool((labels == labels.round()).all())
    return labels.long() if labels.ndim == 1 and (floats or labels.dtype in readers.INTEGERS) else labels


def _tensors(path: Path, content: Any) -> Foreign:
    """What a file of torch.save holds."""
    if isinstance(content, Tensor):
        return _pair(path, content)
    if isinstance(content, dict) and _are_tensors(content.get(IMAGES), content.get(LABELS)):
        return Foreign(content[IMAGES], content[LABELS], "a dict of images and labels", PIXELS, 1)
    if isinstance(content, dict) and isinstance(content.get("data"), list | tuple) and content["data"]:
        sets = [content["data"]] if _is_set(content["data"]) else content["data"]
        require(_is_set(sets[-1]), f"{path} looks like a result of DC's code, but its last set is no pair of tensors.")
        layout = f"a result of DC's code (the last of its {len(sets)} sets)"
        tiled = "idm" in path.stem.lower()  # whose files look the same
        return Foreign(*sets[-1], layout, "mean_std", None if tiled else 1)
    if _is_set(content):
        return Foreign(*content, "IDC's data.pt", PIXELS, None)
    keys = f"a dict with {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) else "no images"
    raise InputError(
        f"{path} holds no distilled set: {keys}. Expected a dict with tensors 'images' (0..1) and 'labels', a result "
        "of DC's code (data), [images, labels], or the pair images_best.pt and labels_best.pt."
    )


def _are_tensors(*values: Any) -> bool:
    return all(isinstance(value, Tensor) for value in values)


def _is_set(value: Any) -> bool:
    """Whether this is [images, labels]."""
    return isinstance(value, list | tuple) and len(value) == 2 and _are_tensors(*value)


def _pair(path: Path, images: Any) -> Foreign:
    """MTT's two files; the labels' is called as the images' is, but for that word."""
    labels = path.with_name(path.name.replace(IMAGES, LABELS))
    require(
        isinstance(images, Tensor) and labels != path and labels.is_file(),
        f"{path} holds images without labels. Put those beside images_NAME.pt as labels_NAME.pt, or save a dict of "
        "both.",
    )
    content = readers.load_tensors(labels)
    require(isinstance(content, Tensor), f"{labels} holds no tensor of labels but a {type(content).__name__}.")
    return Foreign(images, content, f"a pair of MTT's code, with {labels.name}", None, 1)


def _image_folder(path: Path, own: Sequence[str], class_names: Sequence[str] | None) -> Foreign:
    """Image files in a folder per class, which is called as the class is, or by its number."""
    names = own if class_names is None else class_names
    numbers = {name: number for number, name in enumerate(names)}
    if not set(own) <= numbers.keys():
        extra = [name for name in own if not (name.isascii() and name.isdecimal() and int(name) < len(names))]
        require(
            not extra,
            f"{path} has folders that are no classes of the data: {', '.join(extra[:5])}. Call each as its class is "
            f"called, or by its number, 0 to {len(names) - 1}.",
        )
        numbers = {name: int(name) for name in own}
    members = labelled(path, own)
    labels = torch.tensor([numbers[own[label]] for _, label in members])
    cells = ((str(file), readers.read_file(file)) for file, _ in members)
    images = readers.decode_images(cells, None, f"images of {path}", len(members))
    return Foreign(images, labels, "a folder of images per class", PIXELS, 1)
