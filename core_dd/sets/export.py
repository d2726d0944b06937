"""Command: one of our sets -> the file or folder that another code reads."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core_dd import cli, files
from core_dd.config import load_config, with_first
from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.errors import InputError, needed, pick, require
from core_dd.notes import note
from core_dd.sets.distilled import DistilledSet
from core_dd.sets.formats import FORMATS
from core_dd.sets.formats.base import PARTS, Outgoing, converted_first
from core_dd.sets.options import ExportConfig


def export(
    dset: DistilledSet,
    place: str | Path,
    to: str,
    data: ImageData | None = None,
    normalised_by: str | None = None,
) -> Path:
    """Write a set in another code's layout, whole or not at all; what the layout has no place for is said on stderr.

    Args:
        dset: the set.
        place: the file or folder to write, which must not be there yet.
        to: a key of `core_dd.sets.formats.FORMATS` whose layout is written.
        data: the real data, whose constants normalise images where the set brings no such map, and whose classes are
            named.
        normalised_by: for layouts of normalised images a key of `core_dd.data.preprocess.PREPROCESSES`; None: the map
            the set was distilled in where the layout's code can be told of it, else the one that it takes for the data.

    Returns:
        The place.

    Raises:
        InputError: a set that is not sound or that the layout cannot hold, a map that is not known, or a place that is
            taken or cannot be written.
    """
    place = Path(place)
    files.require_new(place)
    dset.check(data, where="the set")
    writers = {name: own.write for name, own in FORMATS.items() if own.write is not None}
    write, layout = pick(writers, to, "layout to write"), FORMATS[to]
    named = data is not None or bool(dset.meta.get("class_names"))
    out = Outgoing(dset, _map(dset, to, data, normalised_by), _names(dset, data), named)
    for part, lost in PARTS.items():
        said = None if part in layout.keeps or _kept(part, dset, out.preprocess) else lost(dset)
        if said:
            note(f"{to} has no place for {said}.")
    with files.atomic(place) as temporary:
        write(out, temporary)
    if out.preprocess is not None:
        note(f"{place}: images are normalised by {out.preprocess.kind}; tell that to who reads them.")
    return place


def _kept(part: str, dset: DistilledSet, space: Preprocess | None) -> bool:
    """Whether images in the space of a map keep a part by themselves: its name must be told, the values are whole."""
    same = space is not None and dset.preprocess is not None and space.kind == dset.preprocess.kind
    return same if part == "map" else space is not None and part == "floats"


def _map(dset: DistilledSet, to: str, data: ImageData | None, normalised_by: str | None) -> Preprocess | None:
    """The map of the layout's images, or None where they are pixels.

    Raises:
        InputError: if neither the set nor the data tell it, or one is asked for that the layout does not have.
    """
    layout, own = FORMATS[to], dset.preprocess
    if layout.normalised is None:
        require(normalised_by is None, f"{to} holds images in pixels. Leave out --normalised_by.")
        return None
    name = str(dset.meta.get("data") or "") if data is None else data.name
    told = own.kind if own is not None and own.kind in layout.takes else layout.normalised(name)
    kind = normalised_by or told
    if own is not None and own.kind == kind:
        return own
    data = needed(
        data,
        f"{to} holds images normalised by {kind}, and the set brings no such map. Add --data NAME, whose training "
        "images have the constants.",
    )
    return Preprocess.fit(data, kind)


def _names(dset: DistilledSet, data: ImageData | None) -> tuple[str, ...]:
    """A name for every class: those of the data, of the set, else numbers."""
    return tuple(dset.class_names if data is None else data.class_names)


def upload(dset: DistilledSet, repo_id: str, *, private: bool | None, token: str | None, api: Any) -> str:
    """See `DistilledSet.push_to_hub`."""
    import huggingface_hub

    api = api or huggingface_hub.HfApi(token=token)
    with tempfile.TemporaryDirectory() as place:
        folder = export(dset, Path(place) / "set", "huggingface")
        try:
            made = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
            title = f"{dset.meta.get('method') or 'A set'}, {len(dset)} images"
            api.upload_folder(repo_id=repo_id, repo_type="dataset", folder_path=str(folder), commit_message=title)
        except Exception as error:  # the hub raises many kinds; each means the same to the user
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"cannot push to {repo_id}: {type(error).__name__}: {reason}. Log in (hf auth login), or see "
                "whether the name is NAMESPACE/NAME and the network is there."
            ) from None
    return str(made)


def main(argv: Sequence[str] | None = None) -> None:
    """Read, write."""
    config = load_config(ExportConfig, with_first(sys.argv[1:] if argv is None else argv, "set"), prog="gendd export")
    files.require_new(Path(config.out))
    data = config.load_data(seed=0) if config.data else None
    with converted_first():
        dset = DistilledSet.load(config.set, data)
    print(export(dset, config.out, config.to, data, config.normalised_by))


if __name__ == "__main__":
    cli.entry(main)
