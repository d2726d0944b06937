"""Real data: `load_data("cifar10")` and friends give an `ImageData`, whatever the file format behind it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core_dd.data import encoded, imagenet, readers, sources
from core_dd.data.real import SAMPLE_IMAGES, Pixels, RealData
from core_dd.errors import InputError, pick, require, whole
from core_dd.notes import note, printable
from core_dd.rng import stream


@dataclass(frozen=True, kw_only=True)
class ImageData(RealData):
    """A labelled image dataset, in memory or memory-mapped.

    Images are uint8 (N, C, H, W), labels int64 (N,) in 0..K-1. The validation split is cut from the training images
    (empty unless asked for); every selection uses it, and the test images are read once, for the final score.

    Attributes:
        train_images, val_images, test_images: uint8 (N, C, H, W).
        train_labels, val_labels, test_labels: int64 (N,).
        name, class_names, mean, std, fingerprint, hflip: see `core_dd.data.real.RealData`.
    """

    train_images: Tensor
    val_images: Tensor
    test_images: Tensor
    test_labels: Tensor

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        counts = f"{len(self.train_labels)} training, {len(self.val_labels)} validation, {len(self.test_labels)} test"
        return f"ImageData({self.name}: {self.num_classes} classes, {counts} images {shape})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image, (C, H, W)."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width

    @property
    def how(self) -> str:
        """How the images are held, for people: in memory."""
        return "in memory"

    def sample(self, seed: int, most: int = SAMPLE_IMAGES) -> "ImageData":
        """These data themselves: whatever wants statistics of real images in memory takes all that are there."""
        return self

    def pixels(self, members: Callable[[int], Tensor], device: torch.device) -> Pixels:
        """The images of a training's steps, taken on `device`, where they all live as bytes."""
        return _Resident(self.on(device), members)

    def on(self, device: torch.device) -> Tensor:
        """The training images, uint8 (N, C, H, W), on a device: placed there once for all who ask."""
        if device not in self._placed:
            self._placed[device] = self.train_images.to(device)
        return self._placed[device]

    @cached_property
    def _placed(self) -> dict[torch.device, Tensor]:
        """The training images by the devices on which they are wanted."""
        return {}

    def class_indices(self) -> list[Tensor]:
        """For each class, the indices of its training images, in order."""
        return [torch.nonzero(self.train_labels == k).flatten() for k in range(self.num_classes)]

    @cached_property
    def training_digest(self) -> str:
        """A hash of the training images in use and their labels, whatever their order; half a second for CIFAR-10.

        The fingerprint names the dataset, whole; this also tells which of its images a validation split and a limit
        left to train on, and so is the identity of whatever was learned from them.
        """
        return combined([_digests(self.train_images, self.train_labels)])

    @property
    def validation_digest(self) -> str:
        """A hash of the validation images and their labels, whatever their order."""
        return combined([_digests(self.val_images, self.val_labels)])

    @property
    def origin(self) -> dict[str, str]:
        """What a file made from the training images says of them, for `check_origin`."""
        return {"data": self.name, "fingerprint": self.fingerprint, "training_digest": self.training_digest}

    def check_origin(self, origin: Mapping[str, str], what: str, how: str) -> None:
        """Refuse what was made from other data, or from other training images of the same.

        Args:
            origin: the `origin` its file has, among other entries.
            what: its name in the message, e.g. "FOLDER holds experts".
            how: the way out, a sentence.

        Raises:
            InputError: if it was, or the file does not say.
        """
        made_from = origin.get("fingerprint")
        require(
            made_from == self.fingerprint,
            f"{what} of {origin.get('data')} (fingerprint {made_from}), but the data are {self.name} (fingerprint "
            f"{self.fingerprint}). {how}",
        )
        require(
            origin.get("training_digest") == self.training_digest,
            f"{what} trained on other training images of {self.name} than these {len(self.train_labels)}: with another "
            f"limit_per_class, val_fraction or seed, or by a version that did not note which. {how}",
        )


class _Resident:
    """Training images in the device's memory, uint8 (N, C, H, W)."""

    def __init__(self, images: Tensor, members: Callable[[int], Tensor]) -> None:
        self.images, self.members, self.home = images, members, images.device

    def __call__(self, step: int) -> Tensor:
        return self.images[self.members(step)]


@dataclass(frozen=True)
class Known:
    """What the literature fixes for a dataset: normalisation, whether flips keep labels, class names."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    hflip: bool = True
    fingerprint: str = ""
    class_names: tuple[str, ...] = ()
    sizes: tuple[int, int, int] = (0, 0, 0)
    """Classes, training images, test images."""


_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

KNOWN = MappingProxyType(
    {
        "mnist": Known((0.1307,), (0.3081,), hflip=False, fingerprint="ea358c2091367acc", sizes=(10, 60000, 10000)),
        "fashion_mnist": Known(
            (0.2861,), (0.3530,), fingerprint="9065d9606b2c9416", class_names=_FASHION_CLASSES, sizes=(10, 60000, 10000)
        ),
        "cifar10": Known(
            (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), fingerprint="970cdcf2f1ab9fa6", sizes=(10, 50000, 10000)
        ),
        "cifar100": Known(
            (0.5071, 0.4866, 0.4409),
            (0.2673, 0.2564, 0.2762),
            fingerprint="f87d7c1eb7ed4f9b",
            sizes=(100, 50000, 10000),
        ),
        "svhn": Known((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), hflip=False, sizes=(10, 73257, 26032)),
        "tiny_imagenet": Known(_IMAGENET_MEAN, _IMAGENET_STD, sizes=(200, 100000, 10000)),
        **{name: Known(_IMAGENET_MEAN, _IMAGENET_STD) for name in imagenet.SUBSETS},
    }
)
"""Datasets recognised by content, so that `idx:` or `parquet:` files of a known set get its name and constants; those
without fingerprint and sizes, by their spec alone."""

DATASETS: MappingProxyType[str, Callable[[int | None], readers.Raw]] = MappingProxyType(
    {
        "digits": lambda image_size: _resize_raw(readers.digits(), image_size),
        "mnist": lambda image_size: readers.torchvision_set("mnist", image_size),
        "fashion_mnist": lambda image_size: readers.torchvision_set("fashion_mnist", image_size),
        "cifar10": lambda image_size: readers.torchvision_set("cifar10", image_size),
        "cifar100": lambda image_size: readers.torchvision_set("cifar100", image_size),
        "svhn": lambda image_size: readers.torchvision_set("svhn", image_size),
    }
)
"""Datasets by name."""


def _decoded(opened: Callable[[Path], encoded.Source], path: Path, image_size: int | None) -> readers.Raw:
    return readers.decoded(opened(path), image_size)


FORMATS: MappingProxyType[str, Callable[[Path, int | None], readers.Raw]] = MappingProxyType(
    {
        "idx": readers.idx,
        **{name: partial(_decoded, opened) for name, opened in encoded.SOURCES.items()},
        "pt": readers.pt,
        "npz": sources.npz,
        "csv": sources.table,
        "mhist": sources.mhist,
    }
)
"""Datasets by file format: the spec is `FORMAT:PATH`."""


def load_data(
    spec: Any,
    *,
    image_size: int | None = None,
    val_fraction: float = 0.0,
    limit_per_class: int | None = None,
    seed: int = 0,
    test_fraction: float = 0.0,
    name: str = "own",
) -> ImageData:
    """Load a dataset.

    Args:
        spec: a name of `DATASETS`, `FORMAT:PATH` with a format of `FORMATS`, or the data themselves: tensors, a pair of
            torch datasets, or a `datasets.DatasetDict`, see `core_dd.data.sources.in_memory`.
        image_size: resize the short side to it and crop the centre.
        val_fraction: part of each class's training images cut off as the validation split, in [0, 1).
        limit_per_class: keep at most this many training images per class (after the validation split).
        seed: of the validation split and the limit.
        test_fraction: part of each class's images cut off as the test split, where the data have none.
        name: of data that are given themselves.

    Raises:
        InputError: unknown spec, missing or damaged files, an empty class, labels out of range, mixed sizes.

    Examples:
        >>> data = load_data("digits", val_fraction=0.1, seed=0)
        >>> data.shape, data.num_classes, len(data.train_images), len(data.val_images), len(data.test_images)
        ((1, 8, 8), 10, 1299, 143, 355)
    """
    check_options(image_size, val_fraction, limit_per_class)
    require(0 <= test_fraction < 1, f"test_fraction must be in [0, 1), got {test_fraction}.")
    given, spec = (None, spec) if isinstance(spec, str) else (spec, name)
    kind, colon, place = spec.partition(":")
    with readers.reading(spec):
        if given is not None:
            raw = sources.in_memory(given, image_size, test_fraction, name)
        elif colon and not place:
            raise InputError(f"'{spec}' names no path. Write {kind}:PATH.")
        elif test_fraction:
            reader = pick(sources.UNSPLIT, kind, "data format without a test split")
            raw = reader(expanded(place), image_size, test_fraction)
        elif colon:
            raw = pick(FORMATS, kind, "data format")(expanded(place), image_size)
        else:
            raw = pick(DATASETS, spec, "dataset")(image_size)
        check(raw.train_labels, raw.test_labels, raw.class_names, spec)
        _check_images(raw, spec)
        fingerprint = _fingerprint(raw)
        facts = KNOWN.get(spec) if given is None and image_size is None else None
        require(
            facts is None or facts.fingerprint in ("", fingerprint),
            f"what torchvision loads as {spec} is not the published {spec}: its fingerprint is {fingerprint}, expected "
            f"{facts.fingerprint if facts else ''}. Remove its files, to download them anew, or name other data by "
            "their place, such as idx:FOLDER.",
        )
    sizes = (len(raw.class_names), len(raw.train_labels), len(raw.test_labels))
    known_as = spec if given is None else f"own:{name}"
    data = _image_data(raw, recognised(fingerprint, known_as, sizes, image_size), fingerprint, spec)
    data = _split_validation(data, val_fraction, seed)
    return _limit(data, limit_per_class, seed)


_MAX_SIDE = 4096
"""The largest `image_size`."""


def check_options(image_size: int | None, val_fraction: float, limit_per_class: int | None) -> None:
    """Refuse options out of their range, see `load_data`."""
    for name, number in (("image_size", image_size), ("limit_per_class", limit_per_class)):
        if number is not None:
            whole(name, number, 1)
    require(image_size is None or image_size <= _MAX_SIDE, f"image_size must be <= {_MAX_SIDE}, got {image_size}.")
    require(0 <= val_fraction < 1, f"val_fraction must be in [0, 1), got {val_fraction}.")


def expanded(place: str) -> Path:
    """The path, with a leading ~ or ~USER as that home.

    Raises:
        InputError: if there is no such user.
    """
    try:
        return Path(place).expanduser()
    except RuntimeError:
        raise InputError(f"{place} begins with ~ and no user is called so. Write ./{place} for a folder.") from None


def recognised(fingerprint: str, spec: str, sizes: tuple[int, int, int], image_size: int | None) -> str:
    """The name of the data of a spec: that of the known set with this fingerprint, else that of its place.

    A place called like a known set is believed if nothing speaks against it: its fingerprint cannot be told, because
    the images are resized or there is none on record, and it has as many classes, training and test images. Otherwise
    the name keeps its format before it, so that it is not taken for the known set.
    """
    kind, colon, place = spec.partition(":")
    found = next((own for own, facts in KNOWN.items() if facts.fingerprint == fingerprint), None)
    if found or not colon or kind in KNOWN:
        return found or kind
    name = Path(place).name or Path(place).resolve().name
    if (usual := name.replace("-", "_")) in (*KNOWN, *DATASETS):  # Debian has fashion-mnist
        name = usual
    facts = KNOWN.get(name)
    untold = facts is not None and facts.sizes == sizes and (image_size is not None or not facts.fingerprint)
    return printable(name if untold or name not in (*KNOWN, *DATASETS) else f"{kind}:{name}")


def known(name: str, channels: int) -> Known | None:
    """What the literature fixes for a set of this name and number of channels."""
    facts = KNOWN.get(name)
    return facts if facts is not None and len(facts.mean) == channels else None


def _image_data(raw: readers.Raw, name: str, fingerprint: str, spec: str) -> ImageData:
    facts = known(name, raw.train_images.shape[1])
    if facts is None:
        pixels = raw.train_images.transpose(0, 1).flatten(1).float().div_(255)
        facts = Known(tuple(pixels.mean(1).tolist()), tuple(pixels.std(1).tolist()), hflip=name != "digits")
    return ImageData(
        name=name,
        train_images=raw.train_images,
        train_labels=raw.train_labels,
        val_images=raw.train_images[:0],
        val_labels=raw.train_labels[:0],
        test_images=raw.test_images,
        test_labels=raw.test_labels,
        class_names=facts.class_names or told_apart(raw.class_names, spec),
        mean=torch.tensor(facts.mean),
        std=torch.tensor(facts.std).clamp_min(1e-6),
        fingerprint=fingerprint,
        hflip=facts.hflip,
    )


def told_apart(names: Sequence[str], spec: str) -> tuple[str, ...]:
    """Class names, printable, no two alike: those that several classes bear get the class's number, "crane (517)".

    ImageNet has two classes called crane. Which names were changed is said on stderr.
    """
    shown = [printable(name) for name in names]
    alike = {name for name, count in Counter(shown).items() if count > 1}
    if alike:
        note(
            f"note: several classes of {spec} are called {', '.join(sorted(alike)[:5])}; they are told apart by their "
            f"numbers, e.g. '{(first := min(alike))} ({shown.index(first)})'."
        )
    return tuple(f"{name} ({k})" if name in alike else name for k, name in enumerate(shown))


def check(train_labels: Tensor, test_labels: Tensor, class_names: Sequence[str], spec: str) -> None:
    """Refuse labels that no later step could use.

    Raises:
        InputError: for a split without images, labels out of range, a class without training images.
    """
    classes = len(class_names)
    for split, labels in (("training", train_labels), ("test", test_labels)):
        require(len(labels) > 0, f"{spec} has no {split} images.")
        low, high = int(labels.min()), int(labels.max())
        require(
            low >= 0 and high < classes,
            f"{spec} has {split} labels from {low} to {high}, expected 0 to {classes - 1} ({classes} classes).",
        )
    counts = torch.bincount(train_labels, minlength=classes)
    for k in torch.nonzero(counts == 0).flatten().tolist():
        raise InputError(f"class {k} ('{class_names[k]}') of {spec} has no training image. Add some or drop it.")


def _check_images(raw: readers.Raw, spec: str) -> None:
    """Refuse images that are not one to a label, or of two shapes."""
    for split, images, labels in (
        ("training", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        require(len(images) == len(labels), f"{spec} has {len(images)} {split} images but {len(labels)} labels.")
    check_shapes(tuple(raw.train_images.shape[1:]), tuple(raw.test_images.shape[1:]), spec)


def check_shapes(train: tuple[int, ...], test: tuple[int, ...], spec: str) -> None:
    """Refuse training and test images of two shapes (C, H, W)."""
    require(
        train == test,
        f"{spec} has training images of shape {train} but test images of shape {test}. Pass image_size to bring them "
        "to one size, or mend the channels.",
    )


def _fingerprint(raw: readers.Raw) -> str:
    splits = (raw.train_images, raw.train_labels), (raw.test_images, raw.test_labels)
    return combined([_digests(images, labels) for images, labels in splits])


def _digests(images: Tensor, labels: Tensor) -> tuple[tuple[int, ...], list[bytes]]:
    """What a fingerprint knows of one split: the images' shape and the digest of each."""
    rows = images.reshape(len(images), -1).numpy()
    return tuple(images.shape[1:]), [digest(row, label) for row, label in zip(rows, labels.tolist(), strict=True)]


def digest(pixels: bytes | np.ndarray, label: int) -> bytes:
    """What a fingerprint knows of one image, contiguous uint8 (C, H, W), and its label."""
    return hashlib.blake2b(pixels, digest_size=8, key=label.to_bytes(4, "little")).digest()


def combined(splits: Sequence[tuple[tuple[int, ...], Sequence[bytes]]]) -> str:
    """A fingerprint: 16 hex digits that depend on each split's shape and set of digests, not on their order."""
    total = hashlib.blake2b(digest_size=8)
    for shape, digests in splits:
        total.update(str(shape).encode())
        total.update(b"".join(sorted(digests)))
    return total.hexdigest()


def _split_validation(data: ImageData, fraction: float, seed: int) -> ImageData:
    """Move `fraction` of each class's training images to the validation split."""
    mask = held_out(data.train_labels, data.class_names, fraction, seed)
    if not mask.any():
        return data
    return replace(
        data,
        val_images=data.train_images[mask],
        val_labels=data.train_labels[mask],
        train_images=data.train_images[~mask],
        train_labels=data.train_labels[~mask],
    )


def held_out(labels: Tensor, class_names: Sequence[str], fraction: float, seed: int) -> Tensor:
    """Which training images make the validation split: bool (N,), at least one of each class when fraction > 0.

    Raises:
        InputError: if a class would lose all its images.
    """
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for k, name in enumerate(class_names if fraction > 0 else ()):
        members = torch.nonzero(labels == k).flatten()
        count = max(1, round(fraction * len(members)))
        require(
            count < len(members),
            f"val_fraction {fraction} leaves class {k} ('{name}') none of its {len(members)} images.",
        )
        mask[members[torch.randperm(len(members), generator=stream(seed, "validation", k))[:count]]] = True
    return mask


def _limit(data: ImageData, limit: int | None, seed: int) -> ImageData:
    """Keep at most `limit` training images per class, in their order."""
    if limit is None:
        return data
    index = limited(data.train_labels, data.num_classes, limit, seed)
    return replace(data, train_images=data.train_images[index], train_labels=data.train_labels[index])


def limited(labels: Tensor, classes: int, limit: int, seed: int) -> Tensor:
    """Which training images are kept when each class keeps at most `limit`: int64 indices, ascending."""
    kept = []
    for k in range(classes):
        members = torch.nonzero(labels == k).flatten()
        kept.append(members[torch.randperm(len(members), generator=stream(seed, "limit", k))[:limit]])
    return torch.cat(kept).sort().values


def _resize_raw(raw: readers.Raw, image_size: int | None) -> readers.Raw:
    if image_size is None:
        return raw
    train, test = (
        torch.from_numpy(readers.resized(images.permute(0, 2, 3, 1).numpy(), image_size))
        for images in (raw.train_images, raw.test_images)
    )
    return replace(raw, train_images=train, test_images=test)
