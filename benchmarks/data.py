"""The data benchmarks run on: random pixels in CIFAR-10's shape; the work does not depend on their values."""

import torch

from core_dd.data.images import ImageData
from core_dd.rng import stream

CLASSES = 10

UVIT_BATCH = 256 if torch.cuda.is_available() else 64
"""Images of the U-ViT's main rows: on a CPU half of the published batch, the most for which both sides of a training
step fit into 24 GiB; on CUDA 256, which fill the device: the reference's activations alone take 35 GiB."""


def plain_device() -> str:
    """Where the references run, as the published loops choose it; nothing else about the machine is set up."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def random_data(per_class: int, classes: int = CLASSES) -> ImageData:
    """`per_class` training images of each class, class by class; no test images."""
    labels = torch.arange(classes).repeat_interleave(per_class)
    images = torch.randint(256, (len(labels), 3, 32, 32), dtype=torch.uint8, generator=stream(0, "benchmark"))
    return ImageData(
        name="random",
        train_images=images,
        train_labels=labels,
        val_images=images[:0],
        val_labels=labels[:0],
        test_images=images[:0],
        test_labels=labels[:0],
        class_names=tuple(map(str, range(classes))),
        mean=torch.tensor((0.4914, 0.4822, 0.4465)),
        std=torch.tensor((0.2023, 0.1994, 0.2010)),
        fingerprint="",
        hflip=True,
    )
