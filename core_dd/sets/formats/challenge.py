"""The ECCV 2024 challenge: `cifar100.pt` or `tinyimagenet.pt`, a bare float tensor (K x ipc, C, H, W), class by class.

It is normalised with the challenge's constants; labels are implied by the order.
"""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core_dd.data.preprocess import MeanStd
from core_dd.errors import require
from core_dd.sets.formats.base import Foreign, Format, Outgoing, Place, mean_std, told

if TYPE_CHECKING:
    from core_dd.sets.distilled import DistilledSet


@dataclass(frozen=True)
class Target:
    """One of the challenge's datasets: its file, number of classes, shape of images and normalisation."""

    file: str
    classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


TARGETS = MappingProxyType(
    {
        "cifar100": Target("cifar100.pt", 100, (3, 32, 32), (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
        "tiny_imagenet": Target("tinyimagenet.pt", 200, (3, 64, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }
)
"""The challenge's datasets, by the name of the data."""

TRACK1_IPC = 10


def to_tensor(dset: "DistilledSet", target: Target, classes: int, track: int) -> Tensor:
    """The challenge's tensor: float32 (K x ipc, C, H, W), class by class, normalised.

    Raises:
        InputError: soft labels, a class without images, or on track 1 other than 10 images per class.
    """
    require(dset.labels.ndim == 1, "the challenge takes no soft labels; give a set with hard labels.")
    images, labels = dset.decoded()
    order = class_by_class(labels, classes)
    counts = torch.bincount(labels, minlength=classes)
    require(
        track == 2 or bool((counts == TRACK1_IPC).all()),
        f"track 1 wants {TRACK1_IPC} images per class, the set has {int(counts.min())} to {int(counts.max())}. "
        "Select 10 first.",
    )
    return normaliser(target).forward(images[order]).contiguous()


def class_by_class(labels: Tensor, classes: int) -> Tensor:
    """int64 indices of as many images of each class as the smallest class has, class after class, in their order.

    Raises:
        InputError: a class without images.
    """
    counts = torch.bincount(labels, minlength=classes)
    ipc = int(counts.min())
    require(ipc >= 1, f"class {int(counts.argmin())} has no image in the set.")
    return torch.cat([torch.nonzero(labels == k).flatten()[:ipc] for k in range(classes)])


def normaliser(target: Target) -> MeanStd:
    """The challenge's normalisation."""
    return MeanStd({"mean": torch.tensor(target.mean), "std": torch.tensor(target.std)})


def read(place: Place) -> Foreign | None:
    """Images of as many classes as the data have, or as the file's name says."""
    images = place.content
    if not (isinstance(images, Tensor) and images.ndim == 4):
        return None
    named = {target.file: target.classes for target in TARGETS.values()}.get(place.path.name)
    classes = named if place.data is None else place.data.num_classes
    told(classes is not None, f"{place.path} holds one tensor without labels: of how many classes?", "--data NAME")
    assert classes is not None
    ipc, rest = divmod(len(images), classes)
    require(
        ipc > 0 and rest == 0,
        f"{place.path} holds {len(images)} images, expected as many of each of {classes} classes, class by class.",
    )
    labels = torch.arange(classes).repeat_interleave(ipc)
    return Foreign(images=images, labels=labels, layout="a submission to the challenge", normalised_by="mean_std")


def write(out: Outgoing, path: Path) -> None:
    """As many images of every class as the smallest has."""
    images, labels = out.decoded
    require(
        labels.ndim == 1, "the challenge's layout implies hard labels, and this set has soft ones. Export it --to mtt."
    )
    torch.save(images[class_by_class(labels, len(out.class_names))].contiguous(), path)


CHALLENGE = Format(
    looks="a submission to the challenge: one bare tensor, class by class, in cifar100.pt or tinyimagenet.pt",
    source="https://github.com/DataDistillation/ECCV2024-Dataset-Distillation-Challenge",
    read=read,
    guess=lambda place: place.path.name in {target.file for target in TARGETS.values()},
    write=write,
    normalised=mean_std,
)
