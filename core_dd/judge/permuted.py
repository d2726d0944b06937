"""Whether a set's labels look permuted: a classifier of the real data disagrees with them as they are, and agrees once
they are renamed. Files of other codes count classes in orders of their own, which no file says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.judge import fidelity, training
from core_dd.judge.chance import by_luck
from core_dd.rng import stream
from core_dd.sets.distilled import DistilledSet
from core_dd.sets.labels import hardened

_DRAWS = 200
"""How often the best renaming of answers that know nothing of the labels is looked at: it must be beaten every time."""

_AGREE = 0.7
"""How often a classifier must agree with renamed labels, as a part of how often it agrees with those of real images."""

_REAL_IMAGES = 1000
"""Of so many of them."""


@dataclass(frozen=True)
class Permuted:
    """Labels that look permuted.

    Attributes:
        as_labelled: the share of images on which the classifier agrees with the labels.
        renamed: the same once the labels are renamed in the best way.
        to: which class the images of each label show, (K,).
    """

    as_labelled: float
    renamed: float
    to: tuple[int, ...]

    def warning(self, name: str, class_names: Sequence[str]) -> str:
        """What to say of it, loudly."""
        pairs = [f"{class_names[k]} shows {class_names[to]}" for k, to in enumerate(self.to) if k != to]
        return (
            f"WARNING: {name}: its labels look PERMUTED. A classifier of the real data agrees with "
            f"{100 * self.as_labelled:.0f} % of them as they are, and with {100 * self.renamed:.0f} % once they are "
            f"renamed: {', '.join(pairs[:10])}{', ...' if len(pairs) > 10 else ''}. Say in which order the file counts "
            "its classes: --class_order FILE, a name a line."
        )

    def to_json(self) -> dict[str, Any]:
        """For the record of a score."""
        return {"as_labelled": self.as_labelled, "renamed": self.renamed, "to": list(self.to)}


def best_renaming(predicted: Tensor, labels: Tensor, classes: int) -> tuple[float, tuple[int, ...]]:
    """The renaming of labels that agrees most with predictions (the assignment problem; Kuhn 1955).

    Args:
        predicted: int64 (N,), the classifier's answers.
        labels: int64 (N,).
        classes: K.

    Returns:
        The share of images on which they agree, and the class that each label becomes, (K,).
    """
    from scipy.optimize import linear_sum_assignment

    confusion = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes).numpy()
    rows, columns = linear_sum_assignment(confusion, maximize=True)
    return float(confusion[rows, columns].sum()) / len(labels), tuple(columns.tolist())


def permuted(predicted: Tensor, labels: Tensor, classes: int, on_real: float = 1.0, seed: int = 0) -> Permuted | None:
    """Whether labels look permuted beside a classifier's answers; None if not.

    They do if the answers agree with them as they are no more often than luck, and with the best renaming about as
    often (`_AGREE`) as with the labels of real images, and more often than the best renaming of answers that are drawn
    without regard to the labels from the same shares of classes, in each of `_DRAWS` draws: few images can always be
    renamed to agree by luck.

    Args:
        predicted, labels: int64 (N,).
        classes: K.
        on_real: the share of real images that the classifier gets right.
        seed: of the draws.
    """
    predicted, labels = predicted.cpu(), labels.cpu()
    right, count = int((predicted == labels).sum()), len(labels)
    shares = torch.bincount(predicted, minlength=classes).double() / count
    if not by_luck(right, count, max(1 / classes, float(shares[labels].mean()))):
        return None
    best, to = best_renaming(predicted, labels, classes)
    if best < _AGREE * on_real:
        return None
    generator = stream(seed, "permuted")
    for _ in range(_DRAWS):
        drawn = shares.multinomial(count, replacement=True, generator=generator)
        if best_renaming(drawn, labels, classes)[0] >= best:
            return None
    return Permuted(right / count, best, to)


def look(dset: DistilledSet, data: ImageData, network: str, seed: int, device: torch.device) -> Permuted | None:
    """Whether the labels of a set look permuted to a classifier of the real data, which is trained once and cached.

    Args:
        dset: the set, made from `data` or said to be.
        data: the real data.
        network, seed, device: of the classifier, see `core_dd.judge.fidelity.real_classifier`.

    Raises:
        InputError: a network that cannot take the images.
    """
    classifier = fidelity.kept_classifier(data, network, seed, device)
    images, labels = dset.as_trained()
    some = torch.linspace(0, len(data.train_labels) - 1, min(_REAL_IMAGES, len(data.train_labels))).long()
    on_real = classifier.accuracies(data.train_images[some], data.train_labels[some])[0]
    return permuted(_answers(classifier, images), hardened(labels), data.num_classes, on_real, seed)


@torch.inference_mode()
def _answers(classifier: training.Classifiers, images: Tensor) -> Tensor:
    """The classes that the first of some classifiers sees in pixels (N, C, H, W): int64 (N,), on the CPU."""
    net = classifier.network(0)
    device = next(net.parameters()).device
    parts = images.split(training.TEST_CHUNK)
    return torch.cat([net(classifier.preprocess.forward(part.to(device))).argmax(1).cpu() for part in parts])
