"""Command: choose ipc real training images of every class, the baselines of every matching method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from core_dd import cli
from core_dd.config import load_config, to_dict
from core_dd.data import DataConfig, ImageData, load_data
from core_dd.distilled import DistilledSet, new_meta
from core_dd.errors import pick, require
from core_dd.run import find_folder
from matching_dd.real import choose

CORESETS: MappingProxyType[str, Callable[[ImageData, int, int], Tensor]] = MappingProxyType({"random": choose})
"""Coresets by name: (data, ipc, seed) -> indices of training images, int64 (K, ipc)."""


@dataclass(kw_only=True)
class CoresetConfig(DataConfig):
    """Choose ipc real training images of every class."""

    name: str = "random"
    """How: random (uniformly, without replacement)."""
    ipc: int = 10
    """Images per class."""
    seed: int = 0
    """Seed of the choice."""
    out: str | None = None
    """The file to write; default: distilled.safetensors in the next folder under runs/DATA-NAME-ipcN/."""


def coreset(name: str, data: str | ImageData, ipc: int, seed: int = 0) -> DistilledSet:
    """Real images as a distilled set: uint8, class by class, hard labels.

    Args:
        name: a key of `CORESETS`.
        data: the real data, or its spec.
        ipc: images per class.
        seed: of the choice.

    Raises:
        InputError: an unknown name, `ipc` < 1, or a class that is empty or has fewer than `ipc` images.
    """
    data = load_data(data, seed=seed) if isinstance(data, str) else data
    chosen = pick(CORESETS, name, "coreset")(data, ipc, seed).flatten()
    meta = new_meta(data, method=name, ipc=ipc, seed=seed)
    return DistilledSet(data.train_images[chosen], data.train_labels[chosen], meta)


def main(argv: Sequence[str] | None = None) -> None:
    """Choose and write one coreset."""
    config = load_config(CoresetConfig, argv, prog="gendd coreset")
    require(
        config.out is None or not Path(config.out).exists(),
        f"{config.out} exists. Choose another --out or remove it first.",
    )
    data = config.load_data(config.seed)
    dset = coreset(config.name, data, config.ipc, config.seed)
    dset.meta["config"] = to_dict(config)
    folder = f"{data.name}-{config.name}-ipc{config.ipc}"
    path = Path(config.out) if config.out else find_folder(None, folder, resume=False) / "distilled.safetensors"
    dset.save(path)
    print(f"{path}: {len(dset)} images, {config.ipc} per class of {data.name}")


if __name__ == "__main__":
    cli.entry(main)
