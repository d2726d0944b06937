"""KIP (Nguyen et al., 2021): an .npz of images (N, H, W, C), standardised or whitened, and labels (N, K).

The labels are targets of a regression; the class is the largest. A file's name says how its images are stored, as in
`ConvNet_ssize100_nozca_nol_noaug_ckpt1000.npz`. KIP's ZCA is not the one that others use: every image loses its mean
and its length before it is whitened, and what is added to the eigenvalues is a tenth of their average.
"""

from types import MappingProxyType

from torch import Tensor

from core_dd.sets.formats.base import IMAGES, LABELS, Foreign, Format, Place, are_tensors
from core_dd.sets.formats.mapping import channels_first
from core_dd.sets.labels import are_probabilities

STORED = MappingProxyType({"nozca": "pixel_mean_std", "zca": "zca"})
"""The map of the images, by the word for it in a file's name."""

WHITENED = (
    "whitened as KIP does it: with the mean and the length that every image loses before, there is no way back to "
    "pixels. Take a file of KIP's whose name says nozca."
)


def read(place: Place) -> Foreign | None:
    """The set of an .npz that looks so."""
    content = place.content
    if not isinstance(content, dict) or not are_tensors(content.get(IMAGES), content.get(LABELS)):
        return None
    images, labels = content[IMAGES], content[LABELS]
    if not (images.ndim == 4 and images.is_floating_point() and labels.ndim == 2):
        return None
    named = [word for word in place.path.stem.split("_") if word in STORED]
    return Foreign(
        images=channels_first(images),
        labels=labels,
        layout="KIP's .npz",
        normalised_by=STORED[named[0]] if named else None,
        whitened=WHITENED,
        soft="classes",
    )


def looks_so(place: Place) -> bool:
    """Whether an .npz has channels last and targets that are no probabilities."""
    content = place.content if place.path.suffix.lower() == ".npz" else None
    if not isinstance(content, dict) or not are_tensors(content.get(IMAGES), content.get(LABELS)):
        return False
    images, labels = content[IMAGES], content[LABELS]
    return images.ndim == 4 and images.shape[3] in (1, 3) and _are_targets(labels)


def _are_targets(labels: Tensor) -> bool:
    return labels.ndim == 2 and labels.is_floating_point() and not are_probabilities(labels)


KIP = Format(
    looks="KIP's .npz: images (N, H, W, C) and labels (N, K) that are targets of a regression",
    source="https://github.com/google-research/google-research/tree/master/kip",
    read=read,
    guess=looks_so,
)
