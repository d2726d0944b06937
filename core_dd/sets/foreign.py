"""A set in the file of other people's code -> ours, with everything that file leaves open said or found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core_dd.data.imagenet import as_called
from core_dd.data.images import ImageData
from core_dd.data.preprocess import PREPROCESSES, Preprocess
from core_dd.errors import pick, require
from core_dd.notes import note
from core_dd.sets.distilled import SCHEMA, DistilledSet
from core_dd.sets.formats import PIXELS, SOFT, Foreign, find
from core_dd.sets.formats.base import LeftOpen, renamed, told, whole
from core_dd.sets.labels import are_probabilities

SLACK = 0.5
"""How far pixels of another code's file may stray from 0..1, as images that were learnt do."""


def read(
    path: Path,
    data: ImageData | None = None,
    *,
    layout: str | None = None,
    normalised_by: str | None = None,
    factor: int | None = None,
    decode: str | None = None,
    learned_lr: float | None = None,
    soft_labels: str | None = None,
    class_order: Sequence[str] | None = None,
) -> DistilledSet | None:
    """A set in pixels from a file of another code; None where a place has none of their layouts.

    Args:
        path: the file or folder.
        data: the real data: their constants bring normalised images to pixels, their class names decide the order.
        layout: a key of `core_dd.sets.formats.FORMATS`; None: what it looks like.
        normalised_by, factor, decode, learned_lr: what layouts leave open, or to override it; see
            `core_dd.sets.formats.base.Foreign`.
        soft_labels: a key of `core_dd.sets.formats.SOFT`: what labels (N, K) are.
        class_order: the class names in the order in which the file's labels count them.

    Raises:
        InputError: a damaged file, one of something else, or one that leaves open what is not given.
    """
    found = find(path, data, layout)
    if found is None:
        return None
    kind, factor = normalised_by or found.normalised_by, factor or found.factor
    looks = f"{path} looks like {found.layout}, which does not say"
    kinds = " or ".join((*PREPROCESSES, PIXELS))
    told(kind is not None, f"{looks} by what its images are normalised.", f"--normalised_by {kinds}")
    require(kind != "zca" or not found.whitened, f"{path} looks like {found.layout}, {found.whitened}")
    told(factor is not None, f"{looks} how many tiles an image holds.", "--factor 2 (1: none)")
    DistilledSet(found.images, whole(found.labels), {}).check_tensors(str(path))
    labels = _labels(found, soft_labels, path)
    require(
        class_order is None or data is None or not found.by_name,
        f"{path} looks like {found.layout}, called by their names: those say the order. Leave out --class_order.",
    )
    names = tuple(class_order or found.class_names or ())
    if data is not None and names:
        labels = in_order(labels, names, data, path)
    lr = found.lr if learned_lr is None else learned_lr
    if found.learns_lr and lr is None:
        note(
            f"{path} brings no learned learning rate, which its protocol needs. gendd evaluate takes it: --learned_lr."
        )
    meta: dict[str, Any] = {
        "schema": SCHEMA,
        "data": data and data.name,
        "class_names": list(data.class_names if data is not None else names) or None,
        "ipc": _per_class(labels),
        "factor": factor,
        "decode": decode or found.decode,
        "lr": lr,
        "method": path.stem,
        "converted": {"from": found.layout, "file": path.name, "normalised_by": kind},
    }
    dset = DistilledSet(found.images, labels, meta)
    return _pixels(dset, found, kind, kinds, data, path)


def _pixels(
    dset: DistilledSet, found: Foreign, kind: str, kinds: str, data: ImageData | None, path: Path
) -> DistilledSet:
    """The set, brought to pixels from the space of the map `kind`, with the map it is trained in."""
    space = found.trained_in if kind == PIXELS else kind
    if kind == PIXELS:
        low, high = dset.images.min(), dset.images.max()
        told(
            dset.images.dtype == torch.uint8 or (low >= -SLACK and high <= 1 + SLACK),
            f"{path} looks like {found.layout}, and has values from {low:.3g} to {high:.3g} where pixels are on "
            "the 0..1 scale. Divide by 255, or say by what they are normalised.",
            f"--normalised_by {kinds}",
        )
    if space is None:
        return dset
    told(
        data is not None,
        f"{path} looks like {found.layout}, {'trained in' if kind == PIXELS else 'normalised by'} {space}: only with "
        "the real data can it be brought to pixels.",
        "--data NAME, whose training images it was made from",
    )
    assert data is not None
    dset.check_against(data, str(path))
    fitted = Preprocess.fit(data, pick(PREPROCESSES, space, "preprocess").kind)
    described, tensors = fitted.to_meta()
    images = dset.images if kind == PIXELS else fitted.inverse(dset.images.float())
    if kind != PIXELS:
        note(f"{path} looks like {found.layout}; its images are taken as normalised by {kind} of {data.name}.")
    return DistilledSet(images, dset.labels, dset.meta | {"preprocess": described}, tensors)


def _labels(found: Foreign, soft: str | None, path: Path) -> Tensor:
    """Labels that classifiers train on: classes, or probabilities (N, K).

    Raises:
        InputError: for labels (N, K) that nothing says what they are.
    """
    labels = whole(found.labels)
    if labels.ndim != 2:
        require(soft is None, f"{path} has hard labels. Leave out --soft_labels.")
        return labels
    kind = soft or found.soft or ("probabilities" if are_probabilities(labels) else None)
    if kind is None:
        raise LeftOpen(
            f"{path} looks like {found.layout}, with labels of shape {tuple(labels.shape)} that are no probabilities.",
            f"--soft_labels {' or '.join(SOFT)}",
        )
    if kind != "probabilities":
        note(f"{path}: its labels are taken as {kind}" + (": the largest is the class." if kind == "classes" else "."))
    told(
        kind != "probabilities" or are_probabilities(labels),
        f"{path} has labels that are no probabilities: negative, or of another sum than 1.",
        "--soft_labels logits or classes",
    )
    return SOFT[kind](labels)


def in_order(labels: Tensor, names: Sequence[str], data: ImageData, path: Path) -> Tensor:
    """Labels that count the classes in the order of `names`, as the data number them.

    Raises:
        InputError: if the data have other classes.
    """
    names, own = as_called(names, data.class_names), tuple(data.class_names)
    numbers = tuple(map(str, range(len(names))))  # what a set without names is written with
    if names == own or (names == numbers and own[: len(names)] == names):
        return labels
    labels = renamed(labels, names, own, path)
    note(f"{path} counts its classes in another order than {data.name}; they are renumbered by their names.")
    return labels


def _per_class(labels: Tensor) -> int | None:
    """Images of each class, where all have as many."""
    hard = labels if labels.ndim == 1 else labels.argmax(1)
    if hard.dtype != torch.int64 or len(hard) == 0:
        return None
    counts = hard.unique(return_counts=True)[1]
    return int(counts[0]) if bool((counts == counts[0]).all()) else None
