"""DC, DSA, DM (Zhao & Bilen): `res_METHOD_DATA_NET_IPCipc.pt`, a dict `data` of [images, labels] per experiment.

Images are normalised by the data's mean and standard deviation. DataDAM's code writes the same, whitened where it was
called with `--zca`, and its authors published a single pair in `syn_data_DATA_ipc_NUMBER.pt`; BEARD reads the first set
of such a file.
"""

from pathlib import Path
from typing import Any

import torch

from core_dd.errors import require
from core_dd.sets.formats.base import Foreign, Format, Outgoing, Place, is_set, mean_std
from core_dd.sets.labels import hardened


def sets_of(place: Place) -> list[Any] | None:
    """The sets of all experiments, or None where a file is not of this kind.

    Raises:
        InputError: if what it has in their place is no set.
    """
    content = place.content
    if not (isinstance(content, dict) and isinstance(content.get("data"), list | tuple) and content["data"]):
        return None
    sets = [content["data"]] if is_set(content["data"]) else list(content["data"])
    require(is_set(sets[-1]), f"{place.path} looks like a result of DC's code, but its last set is no pair of tensors.")
    return sets


def read(place: Place) -> Foreign | None:
    """The last experiment's set."""
    sets = sets_of(place)
    if sets is None:
        return None
    images, labels = sets[-1]
    layout = f"a result of DC's code (the last of its {len(sets)} sets)"
    return Foreign(images=images, labels=labels, layout=layout, normalised_by="mean_std")


def read_datadam(place: Place) -> Foreign | None:
    """The last set that DataDAM's code kept, which tested best so far."""
    sets = sets_of(place)
    if sets is None:
        return None
    images, labels = sets[-1]
    layout = f"a result of DataDAM's code{f' (the last of its {len(sets)} sets)' if len(sets) > 1 else ''}"
    return Foreign(images=images, labels=labels, layout=layout, normalised_by=None)


def read_beard(place: Place) -> Foreign | None:
    """The set that BEARD trains on: the first."""
    sets = sets_of(place)
    if sets is None:
        return None
    require(is_set(sets[0]), f"{place.path} looks like a file for BEARD, but its first set is no pair of tensors.")
    images, labels = sets[0]
    return Foreign(
        images=images,
        labels=labels,
        layout=f"a file for BEARD (the first of {len(sets)} sets)",
        normalised_by="mean_std",
    )


def write(out: Outgoing, path: Path) -> None:
    """One experiment, without accuracies."""
    images, labels = out.decoded
    torch.save({"data": [[images, hardened(labels)]], "accs_all_exps": {}}, path)


SOURCE = "https://github.com/VICO-UoE/DatasetCondensation"

DC = Format(
    looks="a result of DC's code: a dict with a list 'data' of [images, labels]",
    source=SOURCE,
    read=read,
    write=write,
    normalised=mean_std,
)
DATADAM = Format(
    looks="a result of DataDAM's code: a dict with a list 'data' of [images, labels], in res_DataDAM_*.pt, or with one "
    "such pair, in syn_data_*.pt",
    source="https://github.com/DataDistillation/DataDAM",
    read=read_datadam,
    guess=lambda place: "datadam" in place.path.stem.lower() or place.path.stem.startswith("syn_data_"),
    write=write,
    normalised=mean_std,
    takes=frozenset({"zca"}),
)
BEARD = Format(
    looks="a file for BEARD: a dict with a list 'data' whose first entry is [images, labels]",
    source="https://github.com/zhouzhengqd/BEARD",
    read=read_beard,
    guess=lambda place: False,
    write=write,
    normalised=mean_std,
)
