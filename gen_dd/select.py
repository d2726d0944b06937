"""Command: choose which images of a generated pool become the ipc images of each class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from core_dd import cli, files, locks
from core_dd.config import load_config, to_dict
from core_dd.data.images import ImageData
from core_dd.errors import pick, require
from core_dd.judge import fidelity
from core_dd.judge.chance import warn_of
from core_dd.judge.training import Classifiers
from core_dd.rng import stream
from core_dd.sets import subset
from core_dd.sets.distilled import DistilledSet, new_meta
from core_dd.speed import prepare_device
from gen_dd.options import SelectConfig


@dataclass(frozen=True)
class Pool:
    """One class of a generated pool, as a selector sees it.

    Attributes:
        size: N, how many images.
        generator: of the selector's draws.
        features, real_features: of the images and of the class's real training images, (N, D) and (M, D), by a
            classifier trained on real data; None unless the selector wants them.
        confidence, real_confidence: the classifier's probability of the right class, (N,) and (M,).
        correct: whether the classifier gets the image right, bool (N,).
    """

    size: int
    generator: torch.Generator
    features: Tensor | None = None
    real_features: Tensor | None = None
    confidence: Tensor | None = None
    real_confidence: Tensor | None = None
    correct: Tensor | None = None


Selector = Callable[[Pool, int], Tensor]
"""(pool, ipc) -> int64 (ipc,): distinct images of one class."""


def random(pool: Pool, ipc: int) -> Tensor:
    """Uniformly, without replacement."""
    return torch.randperm(pool.size, generator=pool.generator)[:ipc]


def herding(pool: Pool, ipc: int) -> Tensor:
    """The running mean of the features follows the pool's (Welling 2009)."""
    return subset.herding(pool.features, ipc)


def k_center(pool: Pool, ipc: int) -> Tensor:
    """Farthest-first: every image has a chosen one near it in feature space."""
    return subset.k_center(pool.features, ipc)


def medoids(pool: Pool, ipc: int) -> Tensor:
    """The images nearest the centres of k-means in feature space."""
    return subset.medoids(pool.features, ipc, seed=pool.generator.initial_seed())


def correct(pool: Pool, ipc: int) -> Tensor:
    """Uniformly, of the images the classifier gets right."""
    return _ranked(pool, torch.rand(pool.size, generator=pool.generator), ipc)


def most_confident(pool: Pool, ipc: int) -> Tensor:
    """Of the images the classifier gets right, those it is surest of (CaO2's first stage for few images per class)."""
    return _ranked(pool, pool.confidence, ipc)


def least_confident(pool: Pool, ipc: int) -> Tensor:
    """Of the images the classifier gets right, those it is least sure of (CaO2's first stage for many)."""
    return _ranked(pool, -pool.confidence, ipc)


def _ranked(pool: Pool, score: Tensor, ipc: int) -> Tensor:
    """The best by score among the right ones; wrong ones follow, surest first, where the right are too few."""
    order = torch.argsort(torch.where(pool.correct, score, pool.confidence - 3), descending=True, stable=True)
    return order[:ipc]


def difficulty(pool: Pool, ipc: int) -> Tensor:
    """Difficulties log(1 - confidence) spread like the real images' (after DiffGuideSamp, ICCVW 2025).

    The real difficulties are cut at ipc evenly spaced quantiles; each takes the free image nearest to it.
    """
    ours, real = (torch.log((1 - c.double()).clamp_min(1e-6)) for c in (pool.confidence, pool.real_confidence))
    targets = torch.quantile(real, (torch.arange(ipc, dtype=torch.float64) + 0.5) / ipc)
    free, picked = torch.ones(pool.size, dtype=torch.bool), []
    for target in targets[torch.randperm(ipc, generator=pool.generator)]:
        picked.append(int((ours - target).abs().masked_fill(~free, torch.inf).argmin()))
        free[picked[-1]] = False
    return torch.tensor(picked)


GROUPS = 2000
"""Candidate groups that `moments` draws per class."""


def moments(pool: Pool, ipc: int) -> Tensor:
    """Of many random groups, the one whose moments are nearest the real images' (D3HR's metric, ICML 2025).

    |mean - mu| + |std - sigma| + 0.1 |skew - real skew| over features; the last two only from 2 images up.
    """

    def describe(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, std = x.mean(-2), x.std(-2, correction=0)
        skew = ((x - mean.unsqueeze(-2)) / std.unsqueeze(-2).clamp_min(1e-6)).pow(3).mean(-2)
        return mean, std, skew

    real, best, chosen = describe(pool.real_features), torch.inf, None
    weights = (1.0, 1.0, 0.1) if ipc > 1 else (1.0, 0.0, 0.0)
    for _ in range(GROUPS):
        group = torch.randperm(pool.size, generator=pool.generator)[:ipc]
        gaps = [(a - b).norm() for a, b in zip(describe(pool.features[group]), real, strict=True)]
        score = sum(weight * gap for weight, gap in zip(weights, gaps, strict=True))
        if score < best:
            best, chosen = score, group
    return chosen


SELECTORS: MappingProxyType[str, Selector] = MappingProxyType(
    {
        "random": random,
        "herding": herding,
        "k_center": k_center,
        "medoids": medoids,
        "correct": correct,
        "most_confident": most_confident,
        "least_confident": least_confident,
        "difficulty": difficulty,
        "moments": moments,
    }
)
"""Selectors by name."""


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
        pool: generated images with hard labels.
        data: the real data the pool imitates; only its training images are used.
        ipc: images per class.
        selector: a key of `SELECTORS`.
        seed, network, device: of the choice and of the classifier whose features are compared.
        cache: the classifier's file, read where there is one, else written after training.

    Returns:
        The chosen images as they are in the pool, class by class.

    Raises:
        InputError: an unknown selector, a pool of other data, a class with fewer than `ipc` images, or a cache of
            another classifier.
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
    views = [{}] * len(members)
    if rule is not random:
        fidelity.check_features(network, data)
        classifier = fidelity.real_classifier(data, network, seed, prepare_device(device), cache=cache)
        views = classifier_views(pool, data, classifier)
    chosen = [
        own[rule(Pool(len(own), stream(seed, "select", k), **view), ipc)]
        for k, (own, view) in enumerate(zip(members, views, strict=True))
    ]
    index = torch.cat(chosen)
    method = f"{pool.meta.get('method', 'pool')}+{selector}"
    config = {"selector": selector, "network": network, "pool": pool.meta.get("config"), "pool_images": len(pool)}
    meta = new_meta(data, method=method, ipc=ipc, seed=seed, config=config, cost=pool.meta.get("cost"))
    meta |= {"learnt": pool.meta.get("learnt")}
    return DistilledSet(pool.images[index], labels[index], meta)


def classifier_views(pool: DistilledSet, data: ImageData, classifier: Classifiers) -> list[dict[str, Tensor]]:
    """For each class, what a classifier trained on the real training images makes of the pool and of those images."""
    net = classifier.network(0)
    ours = [fidelity.features(net, images, classifier.preprocess) for images in (pool.images, data.train_images)]
    with torch.inference_mode():
        guesses = [torch.softmax(net.classifier(features), dim=1).cpu() for features in ours]
    ours = [features.cpu() for features in ours]
    labels, views = (pool.hard_labels, data.train_labels), []
    for k in range(data.num_classes):
        (own, sure), (real, real_sure) = (
            (features[label == k], guess[label == k])
            for features, guess, label in zip(ours, guesses, labels, strict=True)
        )
        views.append(
            {
                "features": own,
                "real_features": real,
                "confidence": sure[:, k],
                "real_confidence": real_sure[:, k],
                "correct": sure.argmax(1) == k,
            }
        )
    return views


def main(argv: Sequence[str] | None = None) -> None:
    """Choose and write one set."""
    config = load_config(SelectConfig, argv, prog="gendd select")
    files.require_new(Path(config.out))
    pool, data = DistilledSet.load(config.pool), config.load_data(config.seed)
    warn_of(pool.meta, config.pool)
    cache = Path(config.classifier) if config.classifier else None
    with locks.own_file(Path(config.out)):
        dset = select(pool, data, config.ipc, config.selector, config.seed, config.network, config.device, cache)
        dset.meta["config"] |= {"select": to_dict(config)}
        path = dset.save(config.out)
    print(f"{path}: {len(dset)} of {len(pool)} images, {config.ipc} per class, by {config.selector}")


if __name__ == "__main__":
    cli.entry(main)
