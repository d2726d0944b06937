"""Which real data a command reads: the options that all commands on data share. No torch."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from core_dd.errors import about
from core_dd.options import Options, option

if TYPE_CHECKING:
    from core_dd.data.images import ImageData

DATA_CHOICES = MappingProxyType(
    {
        "digits": "scikit-learn's handwritten digits, 8x8, bundled",
        "mnist": "handwritten digits, 28x28; this and the next ones are downloaded on first use",
        "fashion_mnist": "clothes, 28x28, grey",
        "cifar10": "10 kinds of objects, 32x32",
        "cifar100": "100 kinds of objects, 32x32",
        "svhn": "house numbers, 32x32",
        "idx:FOLDER": "the four files of MNIST's format, plain or .gz",
        "parquet:FOLDER": "shards as Hugging Face has them: train-*.parquet, test-*.parquet",
        "folder:FOLDER": "image files, a folder per class under train and test (or val)",
        "tiny_imagenet:FOLDER": "Tiny-ImageNet as it is unpacked",
        "imagenette:FOLDER": "10 classes of ImageNet, which lies there by wnid, or they alone",
        "imagewoof:FOLDER": "likewise 10 kinds of dogs",
        "imagesquawk:FOLDER": "10 kinds of birds, of ImageNet, as the next ones",
        "imagenet10:FOLDER": "IDC's 10 classes",
        "imagenet100:FOLDER": "IDC's 100 classes",
        "imagenet100_0:FOLDER": "their first 20, M3D's first sub-task",
        "imagenet100_1:FOLDER": "its second",
        "imagenet100_2:FOLDER": "its third",
        "imagenet100_3:FOLDER": "its fourth",
        "imagenet100_4:FOLDER": "its fifth",
        "imagenet1k:FOLDER": "all 1000 classes, e.g. of the downsampled archive of 64x64",
        "pt:FILE": "tinyimagenet.pt of the DC family's code",
        "mhist:FOLDER": "MHIST as it is unpacked: annotations.csv and images",
        "npz:FILE": "arrays train_images, train_labels, test_images, test_labels",
        "csv:FILE": "a table with a line per image: file,label,split",
        "hf:REPO_OR_FOLDER": "the parquet files of a Hugging Face dataset; no code of it is run",
    }
)
"""Data by name, and by file format (`core_dd.data.images.DATASETS` and `FORMATS`)."""

PREPROCESS_CHOICES = MappingProxyType(
    {
        "mean_std": "normalised by the data's own constants",
        "cifar10_mean_std": "by CIFAR-10's, for any colour images: on CIFAR-100 those of MTT, IDC and M3D",
        "pixel_mean_std": "by the mean and deviation of all training pixels, as KIP's; those of CIFAR are others",
        "zca": "whitened",
    }
)
"""The maps from pixels to the space that networks see (`core_dd.data.preprocess.PREPROCESSES`)."""

PIXELS = "pixels"
"""The name of no map: images on the 0..1 scale, or bytes."""


@dataclass(kw_only=True)
class DataConfig(Options):
    """Which real data a command reads; the configs of the commands derive from it."""

    GROUP: ClassVar[str] = "data"

    data: str = option("digits", choices=DATA_CHOICES, others=True)
    """The real data: a set by name, or files."""
    image_size: int | None = None
    """Resize the short side to this many pixels and crop the centre; default: as stored."""
    test_fraction: float = 0.0
    """Of data without a test split (folder:FOLDER of class folders, csv:FILE, npz:FILE): the part of each class that
    becomes one, the same images whatever the seed."""
    limit_per_class: int | None = None
    """Use at most this many training images per class (a random choice fixed by the seed); for trials."""

    def load_data(self, seed: int, val_fraction: float = 0.0) -> "ImageData":
        """The data this config names."""
        from core_dd.data.images import load_data

        with about(f"--data {self.data}"):
            return load_data(
                self.data,
                image_size=self.image_size,
                limit_per_class=self.limit_per_class,
                test_fraction=self.test_fraction,
                val_fraction=val_fraction,
                seed=seed,
            )
