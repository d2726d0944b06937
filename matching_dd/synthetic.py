"""The learnable set: what the image optimiser changes and what becomes the distilled file."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess, fractions
from core_dd.errors import pick, require
from core_dd.judge.choose import choose, members_of
from core_dd.records import same_shape
from core_dd.rng import stream
from core_dd.sets import subset
from core_dd.sets.distilled import DistilledSet
from core_dd.sets.factor import check_factor, decode, sources

SPACES = MappingProxyType({"training": False, "pixels": True})
"""Where images may be learnt, by name, and whether that is the 0..1 scale of pixels."""


class Synthetic:
    """Synthetic images of every class, and whatever else is learnt with them.

    Args:
        images: (K, ipc, C, H, W), training space; becomes the leaf that learns, on the device it is on.
        preprocess: the map from pixels to training space, on the same device.
        factor: every image holds factor x factor smaller ones, see `core_dd.sets.factor`.
        decode: which tiles are seen, a key of `core_dd.sets.factor.DECODES`.
        most: tiles of a class, where `decode` is bound.
        space: a key of `SPACES`; the leaf is in it.

    Attributes:
        images: the leaf, (K, ipc, C, H, W).
        labels: None for fixed hard labels, else soft ones, float (K * ipc, K), class by class as the images. A method
            that learns them puts its leaf here.
        average: None, or what the images have been on the average since `average_in` was first called; it then becomes
            the set.
        lr: None, or the learning rate a classifier is to train with, a scalar tensor, where a method learns it.

    Raises:
        InputError: a factor that does not fit the images, an unknown `decode` or `space`.
    """

    def __init__(
        self,
        images: Tensor,
        preprocess: Preprocess,
        *,
        factor: int = 1,
        decode: str = "single",
        most: int | None = None,
        space: str = "training",
    ) -> None:
        check_factor(factor, images.shape[-2], images.shape[-1], decode)
        self.factor, self.decode_kind, self.most = factor, decode, most
        self.in_pixels, self.preprocess = pick(SPACES, space, "space"), preprocess
        start = preprocess.inverse(images) if self.in_pixels else images
        self.images = start.detach().clone().requires_grad_()
        self.labels: Tensor | None = None
        self.lr: Tensor | None = None
        self.average: Tensor | None = None
        self._averaged = 0

    def pixels(self, classes: range | None = None) -> Tensor:
        """The images as stored, on the 0..1 scale, not clamped: (len(classes), ipc, C, H, W), differentiable."""
        return self._in_pixels(self.images if classes is None else self.images[classes.start : classes.stop])

    def _in_pixels(self, images: Tensor) -> Tensor:
        return images if self.in_pixels else self.preprocess.inverse(images)

    def decoded(self, classes: range) -> Tensor:
        """The images that classifiers will train on, of some classes, in training space.

        Returns:
            (len(classes), M, C, H, W), M = ipc * factor^2 for decode single, tile by tile; differentiable.
        """
        if self.factor == 1 and not self.in_pixels:
            return self.images[classes.start : classes.stop]
        return self.preprocess.forward(decode(self.pixels(classes), self.factor, self.decode_kind, self.most))

    @property
    def sources(self) -> Tensor:
        """Which of a class's images each of the decoded ones comes from: int64 (M,)."""
        return sources(self.images.shape[1], self.factor, self.decode_kind, self.most)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring every pixel back to 0..1, in place."""
        pixels = self.pixels().clamp(0, 1)
        self.images.copy_(pixels if self.in_pixels else self.preprocess.forward(pixels))

    @torch.no_grad()
    def average_in(self) -> None:
        """Count the images as they are now into their average."""
        if self.average is None:
            self.average = torch.zeros_like(self.images)
        self._averaged += 1
        self.average += (self.images - self.average) / self._averaged

    def state(self) -> dict[str, Tensor]:
        """What is learnt, by name, and the average with how many it is of."""
        averaged = {} if self.average is None else {"average": self.average, "averaged": torch.tensor(self._averaged)}
        return self._learnt() | averaged

    def _learnt(self) -> dict[str, Tensor]:
        learnt = {"images": self.images, "labels": self.labels, "lr": self.lr}
        return {name: tensor.detach() for name, tensor in learnt.items() if tensor is not None}

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave, in place."""
        for name, tensor in self._learnt().items():
            tensor.copy_(same_shape(state[name], tensor, name))
        if "average" in state:
            self.average = same_shape(state["average"], self.images, "average").to(self.images.device, copy=True)
            self._averaged = int(state["averaged"])

    def to_distilled(self, meta: dict[str, Any]) -> DistilledSet:
        """The set in pixel units, class by class, undecoded, with `meta` as `core_dd.sets.distilled.new_meta` makes it.

        What was bound for the sake of the matching is judged whole, as IDC does.
        """
        classes, ipc = self.images.shape[:2]
        hard = torch.arange(classes).repeat_interleave(ipc)
        labels = hard if self.labels is None else self.labels.detach().float().cpu()
        kind, tensors = self.preprocess.to_meta()
        lr = None if self.lr is None else self.lr.item()
        seen = "single" if self.decode_kind == "bound" else self.decode_kind
        meta = {**meta, "preprocess": kind, "factor": self.factor, "decode": seen, "lr": lr}
        images = self._in_pixels(self.images.detach() if self.average is None else self.average)
        return DistilledSet(images.flatten(0, 1).cpu(), labels, meta, tensors)


def initial_images(init: str, data: ImageData, ipc: int, preprocess: Preprocess, seed: int, factor: int = 1) -> Tensor:
    """The images a `Synthetic` starts from: (K, ipc, C, H, W), training space, on the CPU.

    Args:
        init: a key of `INITS`.
        data: the real data.
        ipc: images per class.
        preprocess: on the CPU.
        seed: of the draws.
        factor: of the `Synthetic`.

    Raises:
        InputError: an unknown `init`, too few real images in a class, or a factor that does not fit the images.
    """
    check_factor(factor, *data.shape[1:])
    return pick(INITS, init, "init")(data, ipc, preprocess, seed, factor)


def _real_images(data: ImageData, ipc: int, preprocess: Preprocess, seed: int, factor: int) -> Tensor:
    """Random real images of each class, none twice."""
    return preprocess.forward(data.train_images[choose("random", data, ipc, seed)])


def _noise(data: ImageData, ipc: int, preprocess: Preprocess, seed: int, factor: int) -> Tensor:
    """Standard normal noise in training space."""
    return torch.randn(data.num_classes, ipc, *data.shape, generator=stream(seed, "noise"))


def _noise_pixels(data: ImageData, ipc: int, preprocess: Preprocess, seed: int, factor: int) -> Tensor:
    """Grey noise as IDC has it: pixels of mean 1/2 and deviation 1/4, brought to 0..1."""
    drawn = torch.randn(data.num_classes, ipc, *data.shape, generator=stream(seed, "noise"))
    return preprocess.forward((drawn / 4 + 0.5).clamp(0, 1))


Whole = Callable[[ImageData, int, Preprocess, int], Tensor]
"""(data, count, preprocess, seed) -> float (K, count, C, H, W): whole images of every class, on the 0..1 scale."""


def _k_center(data: ImageData, count: int, preprocess: Preprocess, seed: int) -> Tensor:
    """Images that cover their class: the one nearest the mean, then the farthest ones, in training space."""
    return _by_class(data, count, preprocess, lambda own: own[subset.k_center(own, count)])


def _medoids(data: ImageData, count: int, preprocess: Preprocess, seed: int) -> Tensor:
    """The image nearest each centre of k-means of its class, in training space."""
    return _by_class(data, count, preprocess, lambda own: own[subset.medoids(own, count, seed)])


def _centroids(data: ImageData, count: int, preprocess: Preprocess, seed: int) -> Tensor:
    """The centres themselves: the mean image of each cluster."""
    return _by_class(data, count, preprocess, lambda own: subset.centroids(own, count, seed))


def _by_class(data: ImageData, count: int, preprocess: Preprocess, of: Callable[[Tensor], Tensor]) -> Tensor:
    """What is made of the images of each class, as rows (N, D) in training space: rows (count, D)."""
    rows = [of(preprocess.forward(data.train_images[own]).flatten(1)) for own in members_of(data, count)]
    return preprocess.inverse(torch.stack(rows).unflatten(2, data.shape))


def _at_random(data: ImageData, count: int, preprocess: Preprocess, seed: int) -> Tensor:
    """Random images: those of coreset random."""
    return fractions(data.train_images[choose("random", data, count, seed)])


def _first(data: ImageData, count: int, preprocess: Preprocess, seed: int) -> Tensor:
    """The first images of every class."""
    return torch.stack([fractions(data.train_images[members[:count]]) for members in members_of(data, count)])


def _tiles(whole: Whole, mode: str = "nearest") -> Callable[..., Tensor]:
    """Images of which none is there twice, shrunk by interpolation `mode`, as the tiles that `core_dd.sets.factor`
    cuts."""

    def start(data: ImageData, ipc: int, preprocess: Preprocess, seed: int, factor: int) -> Tensor:
        count, (_, height, width) = ipc * factor**2, data.shape
        smallest = min(len(members) for members in members_of(data, 1))
        require(
            factor == 1 or count <= smallest,
            f"the start takes ipc x factor^2 = {count} real images of every class, the smallest of {data.name} has "
            f"{smallest}. Lower ipc or factor, or use init real or noise.",
        )
        images = whole(data, count, preprocess, seed).flatten(0, 1)
        small = F.interpolate(images, size=(-(-height // factor), -(-width // factor)), mode=mode)
        grid = small.unflatten(0, (data.num_classes, ipc, factor, factor)).permute(0, 1, 4, 2, 5, 3, 6)
        return preprocess.forward(grid.flatten(5, 6).flatten(3, 4)[..., :height, :width])

    return start


INITS: MappingProxyType[str, Callable[[ImageData, int, Preprocess, int, int], Tensor]] = MappingProxyType(
    {
        "real": _real_images,
        "noise": _noise,
        "noise_pixels": _noise_pixels,
        "k_center": _tiles(_k_center),
        "medoids": _tiles(_medoids),
        "centroids": _tiles(_centroids),
        "mix": _tiles(_at_random),  # M3D
        "mix_first": _tiles(_first),  # IDC
        "mix_bilinear": _tiles(_at_random, "bilinear"),  # IDM
    }
)
"""How a set starts, by name: (data, ipc, preprocess, seed, factor) -> images."""


def taken(init: str, ipc: int, factor: int) -> int:
    """Real training images of every class that a start takes, none of them twice: 0 for noise."""
    if init.startswith("noise"):
        return 0
    return ipc if init == "real" else ipc * factor**2
