"""MTT, TESLA, FTD, DATM: `images_best.pt`, `labels_best.pt` and, from some, `lr_best.pt` (or `_ITERATION`) in a folder.

Images are whitened or normalised, which the files do not say; where `images_zca_ITERATION.pt` lies beside, which is the
same images brought back for the eye, they are whitened. TESLA's soft labels are probabilities, DATM's are logits.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core_dd.data import readers
from core_dd.errors import InputError, require
from core_dd.sets.formats.base import (
    IMAGES,
    LABELS,
    RATE,
    Foreign,
    Format,
    Outgoing,
    Place,
    of_mtt,
    told,
)
from core_dd.sets.labels import are_probabilities

FOR_THE_EYE = f"{IMAGES}_zca_"


def read(place: Place) -> Foreign | None:
    """The set with hard labels, or with probabilities."""
    found = pair(place)
    if found is None or (found.labels.ndim == 2 and not are_probabilities(found.labels)):
        return None
    return found


def read_datm(place: Place) -> Foreign | None:
    """The set with logits as labels."""
    found = pair(place)
    if found is None or found.labels.ndim != 2:
        return None
    soft = kind_of(found.labels)
    return replace(found, layout=f"DATM's files, with labels that are {soft}", soft=soft)


def kind_of(labels: Tensor) -> str | None:
    """What labels (N, K) of these codes are: probabilities, or logits, of which their losses take the softmax."""
    return None if labels.ndim != 2 else "probabilities" if are_probabilities(labels) else "logits"


def pair(place: Place) -> Foreign | None:
    """What the files of a set hold, whose names differ from the images' by that word alone.

    Raises:
        InputError: for images without labels, or a file of something else.
    """
    file = images_file(place.path)
    if file is None:
        return None
    images = place.content if file == place.path else readers.load_tensors(file)
    if not isinstance(images, Tensor):
        return None
    original = file.with_name(file.name.replace(FOR_THE_EYE, f"{IMAGES}_"))
    told(
        original == file,
        f"{file} holds pictures of whitened images, for the eye. Give {original}, which classifiers train on.",
        "--normalised_by zca",
    )
    labels = beside(file, LABELS)
    require(
        labels != file and labels.is_file(),
        f"{file} holds images without labels. Put those beside images_NAME.pt as labels_NAME.pt, or save a dict of "
        "both.",
    )
    content = readers.load_tensors(labels)
    require(isinstance(content, Tensor), f"{labels} holds no tensor of labels but a {type(content).__name__}.")
    for_the_eye = file.with_name(file.name.replace(f"{IMAGES}_", FOR_THE_EYE))
    whitened = for_the_eye != file and for_the_eye.is_file()
    return Foreign(
        images=images,
        labels=content,
        layout=f"a pair of MTT's code, with {labels.name}",
        normalised_by="zca" if whitened else None,
        lr=learned_rate(beside(file, RATE)),
        learns_lr=True,
    )


def images_file(path: Path) -> Path | None:
    """The file of the images at a place: that itself, or in a folder the best, else the only one; None: no such."""
    if path.is_file():
        return path
    for name in (f"{IMAGES}_best.pt", f"{IMAGES}.pt"):
        if (path / name).is_file():
            return path / name
    found = [file for file in sorted(path.glob(f"{IMAGES}_*.pt")) if not file.name.startswith(FOR_THE_EYE)]
    require(
        len(found) < 2,
        f"{path} holds the sets of {len(found)} iterations: {', '.join(file.name for file in found[:5])}. Give one.",
    )
    return found[0] if found else None


def beside(images: Path, word: str) -> Path:
    """The file that belongs to the images' and is called as that is, but for the word."""
    return images.with_name(images.name.replace(IMAGES, word))


def learned_rate(file: Path) -> float | None:
    """The number in a file: a tensor of one value, or a number; None where there is no file.

    Raises:
        InputError: if it holds something else.
    """
    if not file.is_file() or not file.name.startswith(RATE):
        return None
    content: Any = readers.load_tensors(file)
    try:
        return float(content)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{file} holds no learning rate but a {type(content).__name__}. Expected one number."
        ) from None


def write(out: Outgoing, folder: Path) -> None:
    """Images, labels as they are, and the learning rate where there is one."""
    images, labels = out.decoded
    write_files(folder, images, labels, out.dset.meta.get("lr"))


def write_datm(out: Outgoing, folder: Path) -> None:
    """The same with the logarithms of the probabilities, of which DATM's code takes the softmax."""
    images, labels = out.decoded
    require(labels.ndim == 2, "DATM's layout has soft labels, and this set has hard ones. Export it --to mtt.")
    write_files(folder, images, logits(labels), out.dset.meta.get("lr"))


def logits(probabilities: Tensor) -> Tensor:
    """Numbers (N, K) whose softmax is these probabilities; below 1e-12 they count as that."""
    return probabilities.clamp_min(1e-12).log()


def write_files(folder: Path, images: Tensor, labels: Tensor, lr: float | None) -> None:
    """`images_best.pt`, `labels_best.pt`, and `lr_best.pt` where there is a learning rate."""
    folder.mkdir()
    tensors = {IMAGES: images, LABELS: labels, RATE: None if lr is None else torch.tensor(lr)}
    for word, tensor in tensors.items():
        if tensor is not None:
            torch.save(tensor, folder / f"{word}_best.pt")


MTT = Format(
    looks="a pair of MTT's code: images_best.pt and labels_best.pt",
    source="https://github.com/GeorgeCazenavette/mtt-distillation",
    read=read,
    write=write,
    normalised=of_mtt,
    takes=frozenset({"zca"}),
    keeps=frozenset({"lr", "soft"}),
)
DATM = Format(
    looks="DATM's files: images_best.pt, labels_best.pt with logits, lr_best.pt",
    source="https://github.com/NUS-HPC-AI-Lab/DATM",
    read=read_datm,
    write=write_datm,
    normalised=of_mtt,
    takes=frozenset({"zca"}),
    keeps=frozenset({"lr", "soft"}),
)
