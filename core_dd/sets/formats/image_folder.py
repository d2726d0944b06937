"""Image files in a folder per class, which is called as the class is (of ImageNet also by wnid), or by number."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from core_dd.data import readers
from core_dd.data.encoded import Files
from core_dd.data.folders import TEST_SPLITS, TRAIN_SPLITS, class_folders, labelled
from core_dd.data.imagenet import as_called
from core_dd.data.options import PIXELS
from core_dd.errors import require
from core_dd.sets.formats.base import Foreign, Format, Outgoing, Place
from core_dd.sets.labels import hardened
from core_dd.sets.pictures import image_bytes

_OF_SETS = ("distilled.safetensors", "config.yaml", "scores.json", "index.json")
"""Files that lie with sets and runs, and in no folder of a class's images."""


def read(place: Place) -> Foreign | None:
    """The images of all class folders; classes that are called by number are counted so."""
    path = place.path
    own = class_folders(path) if path.is_dir() else ()
    splits = [name for name in own if name.lower() in (*TRAIN_SPLITS, *TEST_SPLITS) and class_folders(path / name)]
    require(
        not splits or (len(splits) < len(own) and not ({*TRAIN_SPLITS} & {*splits} and {*TEST_SPLITS} & {*splits})),
        f"{path} has folders of classes in {' and '.join(splits)}: it is data, not a set. Write folder:{path} for data "
        f"or {'/'.join([str(path), *splits[:1]])} for the images of one split as a set.",
    )
    sets = [name for name in own if any((path / name / file).exists() for file in _OF_SETS)]
    require(
        not sets,
        f"{path} has no folders of classes but of sets and runs: {', '.join(sets[:5])}. Give one, such as "
        f"{path / (sets or [''])[0]}.",
    )
    members = labelled(path, own) if own else []
    if not members:
        return None
    names = None if place.data is None else place.data.class_names
    own = as_called(own, names or ())
    numbers = [int(name) if name.isascii() and name.isdecimal() else len(names or own) for name in own]
    numbered = all(number < len(names or own) for number in numbers) and not set(own) <= set(names or ())
    labels = torch.tensor([numbers[label] if numbered else label for _, label in members])
    images = readers.decode_images(Files(file for file, _ in members), None, f"images of {path}", len(members))
    require(
        numbered or names is None or set(own) <= set(names),
        f"{path} has folders that are no classes of the data: "
        f"{', '.join([name for name in own if name not in (names or ())][:5])}. Call each as its class is called, or "
        f"by its number, 0 to {len(names or own) - 1}.",
    )
    if not numbered and names is not None:  # a class may have no image at all
        labels, own = torch.tensor([names.index(own[label]) for label in labels.tolist()]), names
    return Foreign(
        images=images,
        labels=labels,
        layout="a folder of images per class",
        normalised_by=PIXELS,
        class_names=None if numbered else tuple(own),
        by_name=not numbered,
    )


def write(out: Outgoing, folder: Path) -> None:
    """`CLASS/0000.png`, 8 bits."""
    images, labels = out.decoded
    names, labels = folder_names(out.class_names), hardened(labels)
    for k in labels.unique().tolist():
        (folder / names[k]).mkdir(parents=True)
        for number, index in enumerate(torch.nonzero(labels == k).flatten().tolist()):
            (folder / names[k] / f"{number:05d}.png").write_bytes(image_bytes(images[index]))


def folder_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of folders for classes: their own where every file system takes them and keeps them apart, else numbers."""
    plain = all(re.fullmatch(r"[\w()+,'-]([\w ()+,'.-]*[\w()+,'-])?", name) and len(name) < 100 for name in names)
    apart = len({name.casefold() for name in names}) == len(names)
    digits = len(str(len(names) - 1))
    return tuple(names) if plain and apart else tuple(f"{number:0{digits}d}" for number in range(len(names)))


IMAGE_FOLDER = Format(
    looks="a folder of images per class",
    source="torchvision.datasets.ImageFolder",
    read=read,
    write=write,
)
