"""Figures of what sets look like: t-SNE of their images among the real ones, and sheets of the images themselves."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core_dd.compare import figures
from core_dd.compare.grid import Plan
from core_dd.compare.jobs import Order, load
from core_dd.compare.sets import CLASSIFIER, SET
from core_dd.data.images import ImageData
from core_dd.judge import fidelity
from core_dd.judge.protocols import PROTOCOLS
from core_dd.notes import printable
from core_dd.sets.distilled import DistilledSet
from core_dd.sets.labels import hardened
from core_dd.speed import pick_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_CLASSES = 20
"""So many classes are shown on one sheet per method; of more, each class has a sheet with all methods."""
PER_CLASS = 10
"""Images of a class on a sheet, and of a set in the plane, at most."""
CLASSES_EMBEDDED, REAL_EMBEDDED, PANELS = 10, 50, 12
"""Classes, real images of each, and sets that the plane shows at most: more cannot be told apart."""


def sets_of(plan: Plan, data: str, ipc: int) -> dict[str, DistilledSet]:
    """Of every method, the first set of some data and ipc that is made and judged."""
    found: dict[str, DistilledSet] = {}
    for cell, key in plan.cells:
        order = plan.orders[key]
        if (cell.data, cell.ipc) == (data, ipc) and cell.producer not in found and order.done:
            folder = next(plan.orders[need].folder for need in order.needs if plan.orders[need].kind == "set")
            found[cell.producer] = DistilledSet.load(Path(folder) / SET)
    return found


def embedding(plan: Plan, data: str, ipc: int, device: str | None) -> "Figure | None":
    """t-SNE (van der Maaten & Hinton, JMLR 2008) of the sets' images and of real ones, all at once, by the features of
    a classifier of the real data; None where the comparison has trained none (coresets do)."""
    orders = [order for order in plan.orders.values() if order.kind == "classifier" and order.data.name == data]
    order = next((order for order in orders if order.done), None)
    sets = dict(list(sets_of(plan, data, ipc).items())[:PANELS])
    if order is None or not sets:
        return None
    images = load(order.data)
    real = images.train_images, images.train_labels
    parts = [_first(*real, REAL_EMBEDDED), *(_first(*dset.decoded(), PER_CLASS) for dset in sets.values())]
    classifier = _classifier(order, images, device)
    net = classifier.network(0)
    found = [fidelity.features(net, part, classifier.preprocess, classifier.bf16).cpu() for part, _ in parts]
    places = iter(plane(torch.cat(found)).split([len(part) for part in found]))
    (shown, *others) = [(next(places).numpy(), labels.tolist()) for _, labels in parts]
    title = f"{data}, ipc {ipc}: real (pale) and synthetic images, t-SNE of the features of {order.options['network']}"
    return figures.embedding(title, shown, dict(zip(sets, others, strict=True)), images.class_names)


def plane(features: Tensor) -> Tensor:
    """Features (N, D) in the plane by t-SNE, (N, 2): begun at their principal components, the same each time."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    return torch.from_numpy(TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features.numpy()))


def sheets(plan: Plan, data: str, ipc: int) -> "Iterator[tuple[str, Callable[[], Figure]]]":
    """Pages of images, what each shows and how it is drawn: of few classes a page per method, with a row per class; of
    more a page per class, with a row per method."""
    sets = sets_of(plan, data, ipc)
    decoded = {method: dset.decoded() for method, dset in sets.items()}
    named = [dset.class_names for dset in sorted(sets.values(), key=lambda dset: not dset.meta.get("class_names"))]
    names = [printable(name) for name in named[0]] if named else []
    if len(names) <= FEW_CLASSES:
        for method, own in decoded.items():
            rows = {name: _of(*own, k) for k, name in enumerate(names)}
            yield method, partial(figures.sheet, f"{method}, {data}, ipc {ipc}", rows, PER_CLASS)
        return
    for k, name in enumerate(names):
        rows = {method: _of(*own, k) for method, own in decoded.items()}
        yield f"{k} {name}", partial(figures.sheet, f"{name}, {data}, ipc {ipc}", rows, PER_CLASS)


def _of(images: Tensor, labels: Tensor, k: int) -> Tensor:
    return images[hardened(labels) == k]


def _first(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first images of each of the first classes, and their classes."""
    labels = hardened(labels)
    chosen = torch.cat([torch.nonzero(labels == k).flatten()[:count] for k in range(CLASSES_EMBEDDED)])
    return images[chosen], labels[chosen]


def _classifier(order: Order, data: ImageData, device: str | None) -> fidelity.training.Classifiers:
    """The classifier that a job has trained."""
    options = order.options
    how = {"protocol": PROTOCOLS[options["protocol"]], "cache": Path(order.folder) / CLASSIFIER}
    return fidelity.real_classifier(data, options["network"], options["seed"], pick_device(device), **how)
