"""Command: choose which images of a generated pool become the ipc images of each class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from core_dd import cli, fidelity, subset
from core_dd.config import load_config, to_dict
from core_dd.data import DataConfig, ImageData
from core_dd.distilled import DistilledSet, new_meta
from core_dd.errors import pick, require
from core_dd.rng import stream
from core_dd.speed import pick_device


@dataclass(frozen=True)
class Pool:
    """One class of a generated pool, as a selector sees it.

    Attributes:
        features: (N, D), by a classifier trained on real data; None unless the selector wants them.
        generator: of the selector's draws.
    """

    size: int
    features: Tensor | None
    generator: torch.Generator


@dataclass(frozen=True)
class Selector:
    """A rule for choosing images of one class.

    Attributes:
        choose: (pool, ipc) -> int64 (ipc,), distinct.
        wants_features: whether a classifier is trained for it.
    """

    choose: Callable[[Pool, int], Tensor]
    wants_features: bool = True


SELECTORS: MappingProxyType[str, Selector] = MappingProxyType(
    {
        "random": Selector(
            lambda pool, ipc: torch.randperm(pool.size, generator=pool.generator)[:ipc], wants_features=False
        ),
        "herding": Selector(lambda pool, ipc: subset.herding(pool.features, ipc)),
    }
)
"""Selectors by name."""


@dataclass(kw_only=True)
class SelectConfig(DataConfig):
    """Choose ipc images per class from a generated pool."""

    pool: str = ""
    """What to choose from: a folder of gendd sample, or a distilled-set file."""
    selector: str = "herding"
    """How: random, or herding (the running mean follows the class mean, in the features of a classifier trained on the
    real training images)."""
    ipc: int = 10
    """Images per class."""
    network: str = "convnet3"
    """The classifier whose features are compared."""
    seed: int = 0
    """Seed of the choice and of the classifier."""
    device: str | None = None
    """cpu, cuda, cuda:1; default: cuda where there is one."""
    out: str = ""
    """The file to write."""

    def __post_init__(self) -> None:
        require(bool(self.pool), "which pool? Pass --pool FOLDER, as gendd sample wrote it.")
        require(bool(self.out), "where to? Pass --out FILE.safetensors.")
        require(self.ipc >= 1, f"ipc must be >= 1, got {self.ipc}. Pass --ipc 10.")
        pick(SELECTORS, self.selector, "selector")


def select(
    pool: DistilledSet,
    data: ImageData,
    ipc: int,
    selector: str = "herding",
    seed: int = 0,
    network: str = "convnet3",
    device: torch.device | str | None = None,
) -> DistilledSet:
    """Choose `ipc` images of every class.

    Args:
        pool: generated images with hard labels.
        data: the real data the pool imitates; only its training images are used.
        ipc: images per class.
        selector: a key of `SELECTORS`.
        seed, network, device: of the choice and of the classifier whose features are compared.

    Returns:
        The chosen images as they are in the pool, class by class.

    Raises:
        InputError: an unknown selector, a pool of other data, or a class with fewer than `ipc` images.
    """
    rule = pick(SELECTORS, selector, "selector")
    pool.check(data, where="the pool")
    labels = pool.hard_labels
    members = [torch.nonzero(labels == k).flatten() for k in range(data.num_classes)]
    smallest = min(range(data.num_classes), key=lambda k: len(members[k]))
    require(
        len(members[smallest]) >= ipc,
        f"the pool has {len(members[smallest])} images of class {smallest} ('{data.class_names[smallest]}'), ipc is "
        f"{ipc}. Sample more, or choose a smaller ipc.",
    )
    features = classifier_features(pool, data, network, seed, pick_device(device)) if rule.wants_features else None
    chosen = []
    for k, own in enumerate(members):
        of_class = Pool(len(own), None if features is None else features[own], stream(seed, "select", k))
        chosen.append(own[rule.choose(of_class, ipc)])
    index = torch.cat(chosen)
    method = f"{pool.meta.get('method', 'pool')}+{selector}"
    config = {"selector": selector, "network": network, "pool": pool.meta.get("config"), "pool_images": len(pool)}
    meta = new_meta(data, method=method, ipc=ipc, seed=seed, config=config, cost=pool.meta.get("cost"))
    return DistilledSet(pool.images[index], labels[index], meta)


def classifier_features(dset: DistilledSet, data: ImageData, network: str, seed: int, device: torch.device) -> Tensor:
    """Features (N, D), float32, of a set's images by one classifier trained on the real training images."""
    classifier = fidelity.real_classifier(data, network, seed, device)
    return fidelity.features(classifier.network(0), dset.images, classifier.preprocess).cpu()


def main(argv: Sequence[str] | None = None) -> None:
    """Choose and write one set."""
    config = load_config(SelectConfig, argv, prog="gendd select")
    require(not Path(config.out).exists(), f"{config.out} exists. Choose another --out or remove it first.")
    pool, data = DistilledSet.load(config.pool), config.load_data(config.seed)
    dset = select(pool, data, config.ipc, config.selector, config.seed, config.network, config.device)
    dset.meta["config"] |= {"select": to_dict(config)}
    path = dset.save(config.out)
    print(f"{path}: {len(dset)} of {len(pool)} images, {config.ipc} per class, by {config.selector}")


if __name__ == "__main__":
    cli.entry(main)
