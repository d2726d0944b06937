"""Which real data a command reads: the options that all commands on data share. No torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from core_dd.errors import about
from core_dd.options import Options

if TYPE_CHECKING:
    from core_dd.data.images import ImageData


@dataclass(kw_only=True)
class DataConfig(Options):
    """Which real data a command reads; the configs of the commands derive from it."""

    GROUP: ClassVar[str] = "data"

    data: str = "digits"
    """digits (bundled), mnist, fashion_mnist, cifar10, cifar100, svhn (downloaded on first use), or idx:FOLDER,
    parquet:FOLDER, folder:FOLDER, tiny_imagenet:FOLDER (as it is unpacked), pt:FILE, hf:REPO_OR_FOLDER."""
    image_size: int | None = None
    """Resize the short side to this many pixels and crop the centre; default: as stored."""
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
                val_fraction=val_fraction,
                seed=seed,
            )
