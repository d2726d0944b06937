"""Command: say in a few lines what a distilled set, a run folder or a dataset is."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from core_dd import cli
from core_dd.config import load_config, with_first
from core_dd.data.options import DATA_CHOICES, DataConfig
from core_dd.errors import require
from core_dd.notes import printable
from core_dd.run import CONFIG, checkpoints, read_stats


@dataclass(kw_only=True)
class InfoConfig(DataConfig):
    """Say what a distilled set (file or folder of shards), a run folder, or a dataset is.

    It is given first, without a flag: gendd info runs/demo/00000, or gendd info folder:birds --image_size 32.
    """

    GROUP: ClassVar[str] = "what is described"

    what: str | None = None
    """A path; or how other commands name data, read with the options below. Default: the data."""


def main(argv: Sequence[str] | None = None) -> None:
    """Describe the one thing named on the command line."""
    argv = with_first(sys.argv[1:] if argv is None else argv, "what")
    require(bool(argv), "info of what? Give a set, a run folder or data: gendd info digits.")
    config = load_config(InfoConfig, argv, prog="gendd info")
    path = Path(config.what or config.data)
    if (path / CONFIG).is_file():
        lines = describe_run(path)
    elif path.exists() and not _is_data(path):
        lines = describe_set(path)
    else:
        lines = describe_data(replace(config, data=config.what or config.data))
    print("\n".join(f"{name:>14}  {printable(str(value))}" for name, value in lines.items()))


def _is_data(path: Path) -> bool:
    """Whether a folder is called as data are, and no set: the data are meant."""
    if str(path) not in DATA_CHOICES or not path.is_dir():
        return False
    from core_dd.sets.distilled import is_ours  # with torch, as below

    return not is_ours(path)


def describe_set(path: Path) -> dict[str, object]:
    """What a distilled set holds."""
    from core_dd.sets.distilled import DistilledSet  # with torch, which --help need not wait for
    from core_dd.sets.formats.base import converted_first

    with converted_first():
        dset = DistilledSet.load(path)
    counts = dset.hard_labels.bincount(minlength=len(dset.class_names))
    return {
        "set": path,
        "images": f"{len(dset)} of shape {tuple(dset.images.shape[1:])}, {dset.images.dtype}",
        "per class": f"{int(counts.min())} to {int(counts.max())}, {len(counts)} classes",
        "pixels": f"{dset.images.min():.3g} to {dset.images.max():.3g}",
        "labels": "soft" if dset.labels.ndim == 2 else "hard",
        "digest": dset.digest(),
        **{
            name: dset.meta.get(name) for name in ("method", "data", "fingerprint", "ipc", "preprocess", "seed", "cost")
        },
    }


def describe_run(folder: Path) -> dict[str, object]:
    """How far a run is."""
    stats, saved = read_stats(folder / "stats.jsonl"), checkpoints(folder)
    return {
        "run": folder,
        "checkpoint": saved[-1][1] if saved else "none yet",
        "last step": stats[-1] if stats else "none yet",
        "config": ", ".join((folder / CONFIG).read_text(encoding="utf-8", errors="replace").splitlines()),
    }


def describe_data(config: DataConfig) -> dict[str, object]:
    """What a dataset holds."""
    data = config.load_data(seed=0)
    counts = data.train_labels.bincount(minlength=data.num_classes)
    return {
        "data": data.name,
        "shape": data.shape,
        "training": f"{len(data.train_labels)} images, {int(counts.min())} to {int(counts.max())} per class",
        "test": f"{len(data.test_labels)} images",
        "classes": f"{data.num_classes}: {', '.join(data.class_names[:20])}{', ...' if data.num_classes > 20 else ''}",
        "mean, std": f"{[round(x, 4) for x in data.mean.tolist()]}, {[round(x, 4) for x in data.std.tolist()]}",
        "mirror": "keeps the label" if data.hflip else "changes the label",
        "fingerprint": data.fingerprint,
    }


if __name__ == "__main__":
    cli.entry(main)
