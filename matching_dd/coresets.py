"""Command: choose ipc real training images of every class, the baselines of every matching method."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core_dd import cli
from core_dd.config import load_config, to_dict
from core_dd.data.images import ImageData, load_data
from core_dd.errors import require
from core_dd.judge.choose import choose
from core_dd.judge.protocols import PROTOCOLS
from core_dd.run import claimed_file
from core_dd.sets.distilled import DistilledSet, new_meta, require_place
from core_dd.speed import prepare_device
from matching_dd.options import CoresetConfig


def coreset(name: str, data: str | ImageData, ipc: int, seed: int = 0, **classifier: Any) -> DistilledSet:
    """Real images as a distilled set: uint8, class by class, hard labels.

    Args:
        name: a key of `core_dd.judge.choose.CHOOSERS`.
        data: the real data, or its spec.
        ipc: images per class.
        seed: of the choice, and of the classifier.
        classifier: other options of `core_dd.judge.fidelity.real_classifier`, which every chooser but random asks.

    Raises:
        InputError: an unknown name, `ipc` < 1, or a class that is empty or has fewer than `ipc` images.

    Examples:
        >>> from core_dd import load_data
        >>> dset = coreset("random", load_data("digits"), ipc=1, seed=0)
        >>> dset.images.shape, dset.labels
        (torch.Size([10, 1, 8, 8]), tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    """
    data = load_data(data, seed=seed) if isinstance(data, str) else data
    chosen = choose(name, data, ipc, seed, **classifier).flatten()
    meta = new_meta(data, method=name, ipc=ipc, seed=seed)
    return DistilledSet(data.train_images[chosen], data.train_labels[chosen], meta)


CLASSIFIER = "classifier.safetensors"
"""What the classifier of a choice is called, beside the set."""


def main(argv: Sequence[str] | None = None) -> None:
    """Choose and write one coreset."""
    config = load_config(CoresetConfig, argv, prog="gendd coreset")
    if config.out is not None:
        place = Path(config.out)
        require_place(place)
        cache = Path(config.classifier) if config.classifier else place.with_name(CLASSIFIER)
        require(
            config.selector == "random" or cache.resolve() != place.resolve(),
            f"{place} is where the classifier is kept. Choose another --out.",
        )
    data = config.load_data(config.seed)
    with claimed_file(config.out, f"{data.name}-{config.selector}-ipc{config.ipc}", "distilled.safetensors") as path:
        dset = coreset(
            config.selector,
            data,
            config.ipc,
            config.seed,
            network=config.network,
            protocol=PROTOCOLS[config.protocol],
            cache=Path(config.classifier) if config.classifier else path.with_name(CLASSIFIER),
            device=prepare_device(config.device),
        )
        dset.meta["config"] = to_dict(config)
        dset.save(path)
    print(f"{path}: {len(dset)} images, {config.ipc} per class of {data.name}")


if __name__ == "__main__":
    cli.entry(main)
