"""IDC (Kim et al., ICML 2022), and M3D: `data.pt`, [images, labels] in pixels, each image factor x factor tiles.

The decode type (single or multi) is a flag of that code, not in the file.
"""

from pathlib import Path

import torch

from core_dd.data import readers
from core_dd.sets.formats.base import Foreign, Format, Outgoing, Place, is_set, of_mtt
from core_dd.sets.labels import hardened


def read(place: Place) -> Foreign | None:
    """The set of a `data.pt`, or of the folder it is in."""
    nested = place.path / "data.pt"
    content = readers.load_tensors(nested) if place.path.is_dir() and nested.is_file() else place.content
    if not is_set(content):
        return None
    images, labels = content
    constants = None if place.data is None else of_mtt(place.data.name)
    return Foreign(
        images=images,
        labels=labels,
        layout="IDC's data.pt",
        normalised_by="pixels",
        trained_in=None if constants == "mean_std" else constants,  # the data's own are the default
        factor=None,
    )


def write(out: Outgoing, path: Path) -> None:
    """Images with their tiles, and hard labels."""
    torch.save([out.stored, hardened(out.dset.labels)], path)


IDC = Format(
    looks="IDC's data.pt: a list of images and labels",
    source="https://github.com/snu-mllab/Efficient-Dataset-Condensation",
    read=read,
    guess=lambda place: not place.is_pickle if place.path.is_file() else True,
    write=write,
    keeps=frozenset({"factor"}),
)
