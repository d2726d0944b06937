"""IDM (Zhao et al., CVPR 2023): a pickle `acc_NUMBER.pkl` of (images, labels), tensors on a GPU, or DC's dict.

Images hold 2 x 2 tiles where that code was called with `--aug`, and are normalised as DC's, CIFAR-100's by its own
constants.
"""

import pickle
from pathlib import Path

from core_dd.sets.formats.base import Foreign, Format, Outgoing, Place, is_set, mean_std
from core_dd.sets.formats.dc import sets_of
from core_dd.sets.labels import hardened


def read(place: Place) -> Foreign | None:
    """The set of a pickle, or the last one of a dict."""
    found = place.content if place.path.is_file() and is_set(place.content) else (sets_of(place) or [None])[-1]
    if found is None:
        return None
    images, labels = found
    kind = "a pickle" if place.is_pickle else "a result"
    return Foreign(images=images, labels=labels, layout=f"{kind} of IDM's code", normalised_by="mean_std", factor=None)


def write(out: Outgoing, path: Path) -> None:
    """The pickle that IDM's code leaves, with tensors on the CPU."""
    with path.open("wb") as file:
        pickle.dump((out.stored, hardened(out.dset.labels)), file)


IDM = Format(
    looks="a file of IDM's code: a pickle of images and labels, or a dict with a list 'data' in res_IDM_*.pt",
    source="https://github.com/uitrbn/IDM",
    read=read,
    guess=lambda place: place.path.is_file() and (place.is_pickle or "idm" in place.path.stem.lower()),
    write=write,
    normalised=mean_std,
    keeps=frozenset({"factor"}),
)
