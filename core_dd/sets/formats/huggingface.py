"""Hugging Face: a folder with parquet files of `image`, `label` and perhaps `soft_label`, a card, and our own file.

The Hub shows it and `datasets.load_dataset` reads it, 8 bits a pixel; in our own file the pixels are whole.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from core_dd.data import readers, tables
from core_dd.data.folders import files_under
from core_dd.data.options import PIXELS
from core_dd.errors import brief, require
from core_dd.sets.distilled import NESTED
from core_dd.sets.formats.base import Foreign, Format, Outgoing, Place
from core_dd.sets.labels import hardened
from core_dd.sets.pictures import image_bytes, save_grid

SOFT_LABEL = "soft_label"
SHARD, GRID = "data/train-00000-of-00001.parquet", "grid.png"

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""The Hub's words for numbers of images below these."""


def read(place: Place) -> Foreign | None:
    """The images of the train split's parquet files, or of all where none is called so; 8 bits as they are encoded."""
    shards = shards_of(place.path)
    if not shards:
        return None
    image, label = tables.find_columns(shards[0])
    labels, names = tables.read_labels(shards, label)
    soft = read_soft(shards)
    images = readers.decode_images(tables.cells(shards, image), None, f"images of {place.path}", len(labels))
    return Foreign(
        images=images,
        labels=labels if soft is None else soft,
        layout="parquet files of Hugging Face",
        normalised_by=PIXELS,
        class_names=names,
    )


def shards_of(path: Path) -> list[Path]:
    """The parquet files of a set: a file itself, or those in a folder, its train split where there are others."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    found = files_under(path, {".parquet"})
    return [file for file in found if file.name.startswith("train")] or found


def read_soft(shards: list[Path]) -> Tensor | None:
    """The column of soft labels, float32 (N, K), or None where there is none.

    Raises:
        InputError: rows that are no lists of numbers, or of several lengths.
    """
    rows: list[Any] = []
    for shard in shards:
        with tables.opened(shard) as file:
            if SOFT_LABEL not in file.schema_arrow.names:
                return None
            rows += file.read(columns=[SOFT_LABEL]).column(0).to_pylist()
    for row in rows:
        numbers = isinstance(row, list) and all(isinstance(value, int | float) for value in row)
        require(numbers, f"{shards[0]}: a {SOFT_LABEL} is {brief(repr(row))}, expected a list of numbers.")
    lengths = {len(row) for row in rows}
    require(len(lengths) == 1, f"{shards[0]}: soft labels of several lengths, {sorted(lengths)[:5]}.")
    return torch.tensor(rows, dtype=torch.float32)


def write(out: Outgoing, folder: Path) -> None:
    """Parquet, card, picture, and `distilled.safetensors`."""
    from datasets import ClassLabel, Dataset, Features, Image, List, Value

    dset = out.dset
    columns: dict[str, Any] = {
        "image": [{"bytes": image_bytes(image), "path": None} for image in dset.images],
        "label": hardened(dset.labels).tolist(),
    }
    features = {"image": Image(), "label": ClassLabel(names=list(out.class_names))}
    if dset.labels.ndim == 2:
        columns[SOFT_LABEL] = dset.labels.tolist()
        features[SOFT_LABEL] = List(Value("float32"))
    (folder / SHARD).parent.mkdir(parents=True)
    Dataset.from_dict(columns, features=Features(features)).to_parquet(str(folder / SHARD))
    dset.save(folder / NESTED)
    save_grid(folder / GRID, dset.images, dset.labels, classes=shown(dset.labels))
    (folder / "README.md").write_text(
        card(dset.meta, len(dset), dset.labels.ndim == 2, out.class_names), encoding="utf-8"
    )


def shown(labels: Tensor, most: int = 20) -> list[int]:
    """The classes in a picture of a set: those it has, `most` at most."""
    return hardened(labels).unique().tolist()[:most]


def card(meta: Mapping[str, Any], images: int, soft: bool, class_names: tuple[str, ...]) -> str:
    """The README.md of a set: what it is, how it is used, how it came about.

    Args:
        meta: of the set; parts it lacks are left out.
        images: how many are stored.
        soft: whether it has soft labels.
        class_names: in the order of the labels.
    """
    head = {
        "task_categories": ["image-classification"],
        "tags": ["dataset-distillation", "gendd"],
        "size_categories": [next((words for bound, words in SIZES if images < bound), "n>1M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    }
    method, name = meta.get("method") or "unnamed method", meta.get("data") or "unnamed data"
    facts = {
        "method": meta.get("method"),
        "data": meta.get("data"),
        "fingerprint of the data": meta.get("fingerprint"),
        "images": images,
        "images per class": meta.get("ipc"),
        "labels": "soft (`soft_label`), and their largest (`label`)" if soft else "hard",
        "distilled in": (meta.get("preprocess") or {}).get("kind"),
        "tiles in an image": meta["factor"] ** 2 if meta.get("factor", 1) > 1 else None,
        "learned learning rate": meta.get("lr"),
        "seed": meta.get("seed"),
    }
    rows = [f"| {key} | {value} |" for key, value in facts.items() if value is not None]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {method}, distilled from {name}",
        f"{images} images on which a classifier learns what it would from all of {name}.",
        f"![images, a class per row]({GRID})",
        "\n".join(["| what | value |", "|---|---|", *rows]),
        "## Use",
        '```python\nfrom datasets import load_dataset\n\ntrain = load_dataset("FOLDER_OR_REPO", split="train")\n```',
        "Pictures in the parquet file are rounded to 8 bits. `distilled.safetensors` holds the pixels as they were "
        "learned, with all that a judge must know:",
        "```\npip install gendd\ngendd evaluate --set FOLDER --data DATA\n```",
        "## Classes",
        f"In the order of their labels: {', '.join(class_names)}.",
        "## Licence",
        "That of the data it was made from.",
    ]
    return "\n\n".join(parts) + "\n"


HUGGINGFACE = Format(
    looks="parquet files of Hugging Face: an image column, a label column, perhaps soft_label",
    source="https://huggingface.co/docs/datasets",
    read=read,
    write=write,
    keeps=frozenset({"factor", "lr", "soft", "map", "floats"}),
)
