"""What classifiers answer on the test images beyond how often they are right: by class, and how sure they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BINS = 15
"""Of confidence, all of one width (Guo et al., ICML 2017, section 2)."""

_LARGEST_MATRIX = 100
"""Classes up to which scores.json holds the confusion matrix whole."""


@dataclass
class Answers:
    """Counts over the test images, enough for everything below.

    Attributes:
        confusion: int64 (R, K, K); [r, k, j]: images of class k that classifier r calls j.
        in_bin: float64 (R, BINS, 3); of the images whose confidence is in a bin: their number, how many are right, and
            the sum of their confidences.
    """

    confusion: Tensor
    in_bin: Tensor

    @classmethod
    def of(cls, parts: Iterable[tuple[Tensor, Tensor]]) -> "Answers":
        """Count what R classifiers answer.

        Args:
            parts: of some images each, at least one part: logits (R, B, K), and labels int64 (B,) in 0..K-1.
        """
        found: Answers | None = None
        for logits, labels in parts:
            own = cls(confusion(logits.argmax(2), labels, logits.shape[2]), confidence_bins(logits, labels))
            found = own if found is None else cls(found.confusion + own.confusion, found.in_bin + own.in_bin)
        assert found is not None
        return found

    @property
    def accuracies(self) -> list[float]:
        """The fraction each classifier gets right, (R,)."""
        return (self.confusion.diagonal(dim1=1, dim2=2).sum(1) / self.confusion.sum((1, 2))).tolist()

    @property
    def per_class(self) -> list[float | None]:
        """The accuracy on each class, the mean over classifiers, (K,); None for one of which there is no image."""
        counts, right = self.confusion.sum((0, 2)), self.confusion.diagonal(dim1=1, dim2=2).sum(0)
        return [float(r / n) if n else None for r, n in zip(right, counts, strict=True)]

    @property
    def balanced_accuracy(self) -> float:
        """The mean of `per_class`, over the classes there are: the accuracy were all classes of one size."""
        known = [value for value in self.per_class if value is not None]
        return sum(known) / len(known)

    @property
    def calibration_error(self) -> float:
        """The expected calibration error of each classifier, averaged: `calibration_error`."""
        return float(calibration_error(self.in_bin).mean())

    def to_record(self) -> dict[str, Any]:
        """What scores.json holds: fractions, and the confusion matrix (K, K) summed over classifiers, true class by
        row; None above `_LARGEST_MATRIX` classes."""
        matrix = self.confusion.sum(0)
        return {
            "per_class": self.per_class,
            "balanced_accuracy": self.balanced_accuracy,
            "ece": self.calibration_error,
            "confusion": matrix.tolist() if len(matrix) <= _LARGEST_MATRIX else None,
        }


def confusion(answers: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How often each class is called each name.

    Args:
        answers: int64 (R, B) in 0..classes-1.
        labels: int64 (B,).
        classes: K.

    Returns:
        int64 (R, K, K), the true class before the answer.
    """
    pairs = labels * classes + answers
    return torch.stack([own.bincount(minlength=classes**2) for own in pairs]).view(-1, classes, classes)


def confidence_bins(logits: Tensor, labels: Tensor) -> Tensor:
    """What `calibration_error` is made of.

    Args:
        logits: (R, B, K); where they are not finite, all classes are taken for equally likely.
        labels: int64 (B,).

    Returns:
        float64 (R, BINS, 3): in each bin of the largest probability, (m - 1) / BINS < p <= m / BINS, the number of
        images, how many are right, and the sum of their probabilities.
    """
    sure, answers = logits.double().softmax(2).nan_to_num(1 / logits.shape[2]).max(2)
    place = (sure * BINS).ceil().long().clamp(1, BINS) - 1
    counted = torch.stack([torch.ones_like(sure), (answers == labels).double(), sure], 2)
    return counted.new_zeros(len(logits), BINS, 3).scatter_add_(1, place[..., None].expand(-1, -1, 3), counted)


def calibration_error(in_bin: Tensor) -> Tensor:
    """Expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017, eq. 3).

    The sum over bins of |right - confidence|, each a mean over the images of a bin, weighted by the part of all images
    that is in it.

    Args:
        in_bin: (R, BINS, 3), see `confidence_bins`.

    Returns:
        (R,), from 0 (as often right as sure) to 1.
    """
    return (in_bin[..., 1] - in_bin[..., 2]).abs().sum(1) / in_bin[..., 0].sum(1)
