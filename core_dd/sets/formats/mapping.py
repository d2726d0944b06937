"""A dict of images and labels by torch.save, and the same as arrays in an .npz: pixels, and what else is known by name.

Beside `images` (N, C, H, W) and `labels` (N,) or (N, K) there may stand `lr`, `factor`, `decode`, `class_names` and
`trained_in`, the map that classifiers train in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core_dd.data.options import PIXELS
from core_dd.errors import InputError, brief, require
from core_dd.sets.formats.base import IMAGES, LABELS, Foreign, Format, Outgoing, Place, are_tensors


def read(place: Place) -> Foreign | None:
    """The set of a dict, of either kind of file."""
    content = place.content
    if not (isinstance(content, Mapping) and are_tensors(content.get(IMAGES), content.get(LABELS))):
        return None
    known = {name: plain(content.get(name), name, place.path) for name in ("lr", "factor", "decode", "trained_in")}
    return Foreign(
        images=channels_first(content[IMAGES]),
        labels=content[LABELS],
        layout="a dict of images and labels",
        normalised_by=PIXELS,
        trained_in=known["trained_in"],
        factor=known["factor"] or 1,
        decode=known["decode"] or "single",
        lr=known["lr"],
        class_names=_names(content.get("class_names"), place.path),
    )


def channels_first(images: Tensor) -> Tensor:
    """(N, C, H, W) of images that may be (N, H, W, C) or grey (N, H, W); others as they are."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    return images


KINDS = {"lr": float, "factor": int, "decode": str, "trained_in": str}


def plain(value: Any, name: str, path: Path) -> Any:
    """An entry as the number or text it must be; None where there is none.

    Raises:
        InputError: if it is something else.
    """
    if value is None:
        return None
    try:
        own = value.item() if isinstance(value, Tensor) else value
        made = KINDS[name](own)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{path} has a '{name}' that is a {type(value).__name__}, expected one value.") from None
    require(KINDS[name] is not int or made == float(own), f"{path} has a '{name}' of {own}, expected a whole number.")
    return made


def _names(value: Any, path: Path) -> tuple[str, ...] | None:
    """Class names, which may be an array or numbers; None where there are none.

    Raises:
        InputError: if they are something else.
    """
    own = value.tolist() if isinstance(value, Tensor | np.ndarray) else value
    listed = isinstance(own, list | tuple) and all(isinstance(name, str | int) for name in own)
    require(
        own is None or listed,
        f"{path} has 'class_names' that are {brief(repr(own))}, expected a list of the classes' names.",
    )
    return None if own is None else tuple(map(str, own))


def contents(out: Outgoing) -> dict[str, Any]:
    """What is written: the images as they are stored, and all that is known of them."""
    dset = out.dset
    known = {
        "lr": dset.meta.get("lr"),
        "factor": dset.factor,
        "decode": dset.decode_kind,
        "class_names": list(out.class_names) if out.named else None,
        "trained_in": dset.preprocess and dset.preprocess.kind,
    }
    return {IMAGES: out.dset.images, LABELS: dset.labels} | {
        k: value for k, value in known.items() if value is not None
    }


def write_dict(out: Outgoing, path: Path) -> None:
    """A dict by torch.save."""
    torch.save(contents(out), path)


def write_npz(out: Outgoing, path: Path) -> None:
    """The same as arrays."""
    arrays = {k: v.numpy() if isinstance(v, Tensor) else np.array(v) for k, v in contents(out).items()}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


EVERYTHING = frozenset({"factor", "lr", "soft", "map", "floats"})

DICT = Format(
    looks="a dict of images and labels",
    source="torch.save",
    read=read,
    guess=lambda place: place.path.suffix.lower() != ".npz",
    write=write_dict,
    keeps=EVERYTHING,
)
NPZ = Format(
    looks="an .npz with arrays 'images' and 'labels'",
    source="numpy.savez",
    read=read,
    guess=lambda place: place.path.suffix.lower() == ".npz",
    write=write_npz,
    keeps=EVERYTHING,
)
