"""Command: choose which images of a generated pool become the ipc images of each class."""

from collections.abc import Sequence
from pathlib import Path

import torch

from core_dd import cli, locks
from core_dd.config import load_config, to_dict
from core_dd.data.images import ImageData
from core_dd.errors import require
from core_dd.judge.choose import choose
from core_dd.sets.distilled import DistilledSet, new_meta, require_place
from core_dd.sets.formats.base import converted_first
from core_dd.sets.learnt import warn_of
from core_dd.speed import prepare_device
from gen_dd.options import SelectConfig


def select(
    pool: DistilledSet,
    data: ImageData,
    ipc: int,
    selector: str = "herding",
    seed: int = 0,
    network: str = "convnet3",
    device: torch.device | str | None = None,
    cache: Path | None = None,
) -> DistilledSet:
    """Choose `ipc` images of every class.

    Args:
        pool: generated images, one in each; soft labels, a map and a learning rate are kept.
        data: the real data the pool imitates; only its training images are used.
        ipc: images per class.
        selector: a key of `core_dd.judge.choose.CHOOSERS`.
        seed, network, device: of the choice and of the classifier whose features are compared.
        cache: the classifier's file, read where there is one, else written after training.

    Returns:
        The chosen images as they are in the pool, class by class.

    Raises:
        InputError: an unknown selector, a pool of other data or of images that hold several, a class with fewer than
            `ipc` images, or a cache of another classifier.
    """
    pool.check(data, where="the pool")
    require(
        pool.factor == 1,
        f"each image of the pool holds {pool.factor} x {pool.factor} smaller ones, which cannot be chosen alone. Give "
        "a pool of whole images.",
    )
    options = {"network": network, "device": prepare_device(device), "cache": cache}
    index = choose(selector, data, ipc, seed, pool=pool, **options).flatten()
    method = f"{pool.meta.get('method', 'pool')}+{selector}"
    config = {"selector": selector, "network": network, "pool": pool.meta.get("config"), "pool_images": len(pool)}
    meta = new_meta(data, method=method, ipc=ipc, seed=seed, config=config, cost=pool.meta.get("cost"))
    meta |= {key: pool.meta.get(key) for key in ("learnt", "preprocess", "lr")}
    return DistilledSet(pool.images[index], pool.labels[index], meta, pool.tensors)


def main(argv: Sequence[str] | None = None) -> None:
    """Choose and write one set."""
    config = load_config(SelectConfig, argv, prog="gendd select")
    require_place(Path(config.out))
    data = config.load_data(config.seed)
    with converted_first():
        pool = DistilledSet.load(config.pool, data)
    warn_of(pool.meta, config.pool)
    cache = Path(config.classifier) if config.classifier else None
    with locks.own_file(Path(config.out)):
        dset = select(pool, data, config.ipc, config.selector, config.seed, config.network, config.device, cache)
        dset.meta["config"] |= {"select": to_dict(config)}
        path = dset.save(config.out)
    print(f"{path}: {len(dset)} of {len(pool)} images, {config.ipc} per class, by {config.selector}")


if __name__ == "__main__":
    cli.entry(main)
