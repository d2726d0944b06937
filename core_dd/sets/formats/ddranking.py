"""DD-Ranking 0.2: a folder of `images.pt` (N, C, H, W), class by class, as many of each, and `labels.pt`.

Its demo reads them so. Labels are hard, or logits, of which its loss takes the softmax. The learning rate is an
argument there; where there is one it lies beside as `lr.pt`.
"""

from dataclasses import replace
from pathlib import Path

import torch

from core_dd.sets.formats.base import IMAGES, LABELS, RATE, Foreign, Format, Outgoing, Place, of_mtt
from core_dd.sets.formats.challenge import class_by_class
from core_dd.sets.formats.mtt import kind_of, logits, pair
from core_dd.sets.labels import hardened


def read(place: Place) -> Foreign | None:
    """The set of such a folder."""
    found = pair(place) if (place.path / f"{IMAGES}.pt").is_file() else None
    if found is None:
        return None
    return replace(found, layout="a folder for DD-Ranking", soft=kind_of(found.labels), learns_lr=False)


def write(out: Outgoing, folder: Path) -> None:
    """Class by class, as many as the smallest class has; soft labels as logarithms, of which it takes the softmax."""
    images, labels = out.decoded
    order = class_by_class(hardened(labels), len(out.class_names))
    labels = labels[order]
    lr = out.dset.meta.get("lr")
    tensors = {
        IMAGES: images[order].contiguous(),
        LABELS: labels if labels.ndim == 1 else logits(labels),
        RATE: None if lr is None else torch.tensor(lr),
    }
    folder.mkdir()
    for name, tensor in tensors.items():
        if tensor is not None:
            torch.save(tensor, folder / f"{name}.pt")


DDRANKING = Format(
    looks="a folder for DD-Ranking: images.pt and labels.pt",
    source="https://github.com/NUS-HPC-AI-Lab/DD-Ranking",
    read=read,
    write=write,
    normalised=of_mtt,
    takes=frozenset({"zca"}),
    keeps=frozenset({"lr", "soft"}),
)
