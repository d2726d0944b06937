"""Layouts of other people's sets, one file each: `FORMATS` by name, and what a place looks like."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from core_dd.data.images import ImageData
from core_dd.data.options import PIXELS
from core_dd.errors import InputError, pick
from core_dd.sets.formats.base import SOFT, Foreign, Format, Place
from core_dd.sets.formats.challenge import CHALLENGE
from core_dd.sets.formats.dc import BEARD, DATADAM, DC
from core_dd.sets.formats.ddranking import DDRANKING
from core_dd.sets.formats.huggingface import HUGGINGFACE
from core_dd.sets.formats.idc import IDC
from core_dd.sets.formats.idm import IDM
from core_dd.sets.formats.image_folder import IMAGE_FOLDER
from core_dd.sets.formats.kip import KIP
from core_dd.sets.formats.mapping import DICT, NPZ
from core_dd.sets.formats.mtt import DATM, MTT

__all__ = ["FORMATS", "PIXELS", "SOFT", "Foreign", "Format", "find"]

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "ddranking": DDRANKING,
        "challenge": CHALLENGE,
        "mtt": MTT,
        "datm": DATM,
        "idc": IDC,
        "idm": IDM,
        "datadam": DATADAM,
        "dc": DC,
        "beard": BEARD,
        "kip": KIP,
        "npz": NPZ,
        "dict": DICT,
        "huggingface": HUGGINGFACE,
        "image_folder": IMAGE_FOLDER,
    }
)
"""Layouts by name, in the order in which a place that does not say its own is compared with them."""


def find(path: Path, data: ImageData | None = None, layout: str | None = None) -> Foreign | None:
    """What is at a place, if it has one of the layouts; None for a safetensors file or a folder of another kind.

    Args:
        path: a file or a folder.
        data: the real data, on whose classes some layouts count.
        layout: a key of `FORMATS`; None: the first that the place looks like.

    Raises:
        InputError: for a file that holds something else than the layout says, or is damaged.
    """
    place = Place(path, data)
    if layout is None:
        found = _guessed(place)
        if found is None:
            _refuse(place)
        return found
    wanted = pick(FORMATS, layout, "layout")
    found = wanted.read(place)
    if found is None:
        other = next((name for name, own in FORMATS.items() if own.guess(place) and own.read(place) is not None), None)
        instead = f" It looks like {FORMATS[other].looks}: leave out --from, or give --from {other}." if other else ""
        raise InputError(f"{path} does not look like {wanted.looks}.{instead}")
    return found


def _guessed(place: Place) -> Foreign | None:
    """The set of the first layout that a place looks like."""
    return next((found for own in FORMATS.values() if own.guess(place) and (found := own.read(place))), None)


def _refuse(place: Place) -> None:
    """Refuse a file of numbers that is no set; other places are left to other readers.

    Raises:
        InputError: the sentence says what it holds instead.
    """
    content = place.content
    if content is None:
        return
    keys = f"a dict with {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) else "no images"
    raise InputError(
        f"{place.path} holds no distilled set: {keys}. Expected a dict with tensors 'images' (0..1) and 'labels', a "
        "result of DC's code (data), [images, labels], or the pair images_best.pt and labels_best.pt."
    )
