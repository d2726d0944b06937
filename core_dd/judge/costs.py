"""What a set takes to keep, and classifiers take to train on it."""

import contextlib

import torch

from core_dd.data.images import ImageData
from core_dd.judge.training import Classifiers
from core_dd.sets.distilled import DistilledSet
from core_dd.speed import forward_flops, peak_mib


def training_cost(classifiers: Classifiers, data: ImageData) -> dict[str, float | None]:
    """What training one of the classifiers took, and the memory of all.

    Args:
        classifiers: those that were trained.
        data: the real data, for the size of an image.

    Returns:
        `images_seen`, counted as often as they were; `training_flops`, the operations of matrix products and
        convolutions, a backward pass taken as two forward ones (None where other people's code cannot be counted);
        `peak_mib`, the most memory that this process has held so far.
    """
    flops = None
    with contextlib.suppress(RuntimeError, NotImplementedError):  # counted on "meta", which not every network knows
        flops = 3 * forward_flops(classifiers.net, torch.zeros(2, *data.shape)) * classifiers.images_seen
    device = next(iter(classifiers.params.values())).device
    return {"images_seen": classifiers.images_seen, "training_flops": flops, "peak_mib": peak_mib(device)}


def bytes_of(dset: DistilledSet) -> int:
    """The bytes of a set's images, labels and fitted tensors, as its file keeps them, without the metadata."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (dset.images, dset.labels, *dset.tensors.values()))
