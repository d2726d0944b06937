"""What `evaluate --fidelity` measures, by name: distances of a set's images from the real training images, in the
features of a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from core_dd.data.cache import kept_tensors
from core_dd.data.images import ImageData
from core_dd.data.preprocess import as_bytes, fractions
from core_dd.errors import pick, require
from core_dd.judge import copies, fidelity, lpips, samples
from core_dd.judge.inception import inception_outputs, load_inception, weights_digest
from core_dd.judge.lite import lite_features, load_lite
from core_dd.judge.networks import NetworkLike
from core_dd.judge.training import Classifiers
from core_dd.notes import note
from core_dd.rng import stream
from core_dd.sets.labels import hardened

COPIES = "copies"
"""What asks for `core_dd.judge.copies`, which looks at images beside their features."""

PERCEIVED = "copies_lpips"
"""What asks for it as people see images, too."""

FID_IMAGES = 10_000
"""Images below which FID is said to be too high by their number."""

PRDC_IMAGES = 10_000
"""Images of either side that precision, recall, density and coverage look at, at most."""


@dataclass(frozen=True)
class Measuring:
    """What to measure, in what.

    Attributes:
        names: of `MEASURES`, `COPIES` and `PERCEIVED`.
        inception_weights: see `core_dd.judge.inception.load_inception`.
        real_images: compare with so many training images, drawn at random; None: with all.
        per_class: also class by class, where a measure is of samples alone.
    """

    names: Sequence[str] = ("classifier_frechet",)
    inception_weights: str | None = None
    real_images: int | None = None
    per_class: bool = False


@dataclass(frozen=True)
class Sample:
    """One side: features (N, D), classes int64 (N,) and, where its network has them, logits."""

    features: Tensor
    labels: Tensor
    logits: Tensor | None = None

    def of_class(self, k: int) -> "Sample":
        """Its images of a class."""
        mine = self.labels == k
        return Sample(self.features[mine], self.labels[mine], None if self.logits is None else self.logits[mine])


@dataclass(frozen=True)
class Measure:
    """How one is measured.

    Attributes:
        space: the network whose features it is of: a name of `SPACES`.
        of: (ours, real) -> values by name.
        fewest: images of each side it needs.
        per_class: whether it means anything of a single class.
    """

    space: str
    of: Callable[[Sample, Sample], dict[str, float]]
    fewest: int = 2
    per_class: bool = True


def _frechet(ours: Sample, real: Sample) -> float:
    a, b = ours.features, real.features
    if min(len(a), len(b)) < a.shape[1]:
        return fidelity.frechet_of_features(a, b)
    return fidelity.frechet_distance(*fidelity.moments(a), *fidelity.moments(b))


def _kernel(ours: Sample, real: Sample) -> float:
    return samples.kernel_distance(ours.features, real.features, stream(0, "kid"))


def _prdc(ours: Sample, real: Sample) -> dict[str, float]:
    a, b = (
        x.features[torch.randperm(len(x.features), generator=stream(0, "prdc", side))[:PRDC_IMAGES]]
        for side, x in enumerate((ours, real))
    )
    return samples.prdc(a, b)


def _classifier(ours: Sample, real: Sample) -> dict[str, float]:
    return fidelity.distances_of(ours.features, ours.labels, real.features, real.labels)


def _score(ours: Sample, real: Sample) -> dict[str, float]:
    assert ours.logits is not None
    return {"is": samples.inception_score(ours.logits, stream(0, "is"))}


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "classifier_frechet": Measure("classifier", _classifier, per_class=False),
        "fid": Measure("inception", lambda ours, real: {"fid": _frechet(ours, real)}),
        "kid": Measure("inception", lambda ours, real: {"kid": _kernel(ours, real)}),
        "is": Measure("inception", _score, fewest=samples.SPLITS, per_class=False),
        "prdc": Measure("inception", _prdc, fewest=samples.NEIGHBOURS + 1),
        "fd_efficientnet_lite0": Measure(
            "efficientnet_lite0", lambda ours, real: {"fd_efficientnet_lite0": _frechet(ours, real)}
        ),
        "kid_efficientnet_lite0": Measure(
            "efficientnet_lite0", lambda ours, real: {"kid_efficientnet_lite0": _kernel(ours, real)}
        ),
        "prdc_efficientnet_lite0": Measure(
            "efficientnet_lite0",
            lambda ours, real: {f"{name}_efficientnet_lite0": value for name, value in _prdc(ours, real).items()},
            fewest=samples.NEIGHBOURS + 1,
        ),
    }
)
"""By name, as `MEASURE_CHOICES` explains them."""


class Space(Protocol):
    """A network to measure in."""

    def sample(self, images: Tensor, labels: Tensor) -> Sample:
        """The features of images as classifiers train on them, (N, C, H, W) in pixels, and their labels."""

    def real(self, data: ImageData, index: Tensor) -> Sample:
        """The features of the training images of an index."""


class Classifier:
    """A classifier of the real data, trained when it is first asked."""

    def __init__(self, network: NetworkLike, data: ImageData, seed: int, device: torch.device, bf16: bool) -> None:
        fidelity.check_features(network, data)
        self._train = partial(fidelity.real_classifier, data, network, seed, device, bf16=bf16)
        self._trained: Classifiers | None = None

    def sample(self, images: Tensor, labels: Tensor) -> Sample:
        """See `Space`."""
        self._trained = own = self._trained or self._train()
        return Sample(fidelity.features(own.network(0), images, own.preprocess, own.bf16), hardened(labels))

    def real(self, data: ImageData, index: Tensor) -> Sample:
        """See `Space`."""
        return self.sample(data.train_images[index], data.train_labels[index])


class Pretrained:
    """A network that knows other images than the data's, whose features of these are kept in the cache.

    Args:
        name: what tells it and its weights from another.
        outputs: features, on the CPU, of uint8 images (N, C, H, W), and logits where it has them.
    """

    def __init__(self, name: str, outputs: Callable[[Tensor], tuple[Tensor, Tensor | None]]) -> None:
        self._name, self._outputs = name, outputs

    def sample(self, images: Tensor, labels: Tensor) -> Sample:
        """See `Space`."""
        features, logits = self._outputs(as_bytes(images))
        return Sample(features, hardened(labels).cpu(), logits)

    def real(self, data: ImageData, index: Tensor) -> Sample:
        """See `Space`."""
        own = f"{self._name} {data.fingerprint} {data.training_digest} {len(index)}"
        labels = data.train_labels[index]
        kept = kept_tensors(
            f"features {own}",
            ("features", "labels"),
            lambda: {"features": self._outputs(data.train_images[index])[0], "labels": labels},
        )
        return Sample(kept["features"], kept["labels"])


def _inception(measuring: Measuring, device: torch.device) -> Space:
    net, reason = load_inception(measuring.inception_weights, device)
    require(
        net is not None,
        f"fid, kid, is and prdc need the Inception network, but {reason}. Give its file, --inception_weights FILE "
        "(weights-inception-2015-12-05-6726825d.pth of torch-fidelity), or ask for fd_efficientnet_lite0, "
        "kid_efficientnet_lite0 and prdc_efficientnet_lite0, which need no download.",
    )
    assert net is not None
    name = f"inception {weights_digest(measuring.inception_weights)}"
    return Pretrained(name, lambda images: inception_outputs(net, images))


def _lite(device: torch.device) -> Space:
    net = load_lite(device)
    return Pretrained("efficientnet_lite0", lambda images: (lite_features(net, images), None))


class Meter:
    """Measures sets of one data; everything that can be missing is loaded, and refused, when it is made.

    Args:
        measuring: what.
        data: the real data.
        network, seed, device, bf16: of the classifier of `classifier_frechet`, and where all is computed.

    Raises:
        InputError: an unknown measure, a package or weights that are missing, a network that shows no features, too few
            training images.
    """

    def __init__(
        self,
        measuring: Measuring,
        data: ImageData,
        *,
        network: NetworkLike,
        seed: int,
        device: torch.device,
        bf16: bool = True,
    ) -> None:
        self._data, self._per_class = data, measuring.per_class
        self._copies = not {COPIES, PERCEIVED}.isdisjoint(measuring.names)
        self._lpips = lpips.load_lpips(device) if PERCEIVED in measuring.names else None
        self._measures = {
            name: pick(MEASURES, name, "measure") for name in measuring.names if name not in (COPIES, PERCEIVED)
        }
        open_space: dict[str, Callable[[], Space]] = {
            "classifier": lambda: Classifier(network, data, seed, device, bf16),
            "inception": lambda: _inception(measuring, device),
            "efficientnet_lite0": lambda: _lite(device),
        }
        classes = [name for name, measure in MEASURES.items() if measure.per_class]
        require(
            not self._per_class or not self._measures.keys().isdisjoint(classes),
            f"of {', '.join(measuring.names)} nothing is told class by class. Ask for one that is, too: "
            f"{', '.join(classes)}; or leave out fidelity_per_class.",
        )
        used = dict.fromkeys(measure.space for measure in self._measures.values())
        used |= {"classifier": None} if self._copies else {}
        self._spaces = {name: open_space[name]() for name in used}
        count = len(data.train_labels)
        self._index = torch.arange(count)
        if measuring.real_images is not None and measuring.real_images < count:
            self._index = torch.randperm(count, generator=stream(0, "reference"))[: measuring.real_images]
        self.check(len(self._index), "there are")

    def check(self, images: int, who: str = "the set has") -> None:
        """Refuse too few images.

        Raises:
            InputError: if a measure needs more.
        """
        for name, measure in self._measures.items():
            others = ",".join(other for other, own in self._measures.items() if own.fewest <= images)
            rest = f"Leave it out: --fidelity {others}." if others else "Leave it out."
            require(images >= measure.fewest, f"{name} needs at least {measure.fewest} images, {who} {images}. {rest}")

    def measure(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """Measure a set.

        Args:
            images, labels: decoded, as classifiers train on them: pixels (N, C, H, W), uint8 or float on the 0..1
                scale; int64 (N,), or float (N, K) soft.

        Returns:
            For scores.json: `fidelity`, all values by name; where asked for `fidelity_per_class`: (K,) of each that
            means anything there, None for a class of which either side has too few images; and `copies`, as
            `core_dd.judge.copies.compared` says, of the training images by their number in the data, whose
            `training_digest` stands beside.

        Raises:
            InputError: too few images.
        """
        self.check(len(images))
        if "fid" in self._measures and len(images) < FID_IMAGES:
            note(
                f"WARNING: fid of {len(images)} images, fewer than {FID_IMAGES}, is too high by their number alone: "
                "compare it with that of sets of as many images only, never with published values."
            )
        sides = {
            name: (own.sample(images, labels), own.real(self._data, self._index)) for name, own in self._spaces.items()
        }
        values: dict[str, float] = {}
        by_class: dict[str, list[float | None]] = {}
        for measure in self._measures.values():
            ours, real = sides[measure.space]
            values |= measure.of(ours, real)
            if self._per_class and measure.per_class:
                by_class |= _by_class(measure, ours, real, self._data.num_classes)
        record: dict[str, Any] = {"fidelity": values}
        if self._per_class:
            record["fidelity_per_class"] = by_class
        if self._copies:
            record[COPIES] = own = self._compare(images, sides["classifier"])
            values |= {f"copies_{name}": own[name]["share"] for name in copies.WAYS if name in own}
        return record

    def _compare(self, images: Tensor, features: tuple[Sample, Sample]) -> dict[str, Any]:
        """What `core_dd.judge.copies.compared` says of images, in pixels and in the classifier's features, and what
        `copies.perceived` does, where asked for."""
        data, count = self._data, len(self._data.test_labels)
        some = torch.randperm(count, generator=stream(0, "unseen"))[: copies.TEST_IMAGES]
        unseen, real = data.test_images[some], data.train_images[self._index]
        theirs = self._spaces["classifier"].sample(unseen, data.test_labels[some])
        pixels = [fractions(side).float() for side in (images, real, unseen)]
        spaces = zip(pixels, (side.features for side in (*features, theirs)), strict=True)
        found = copies.compared(*spaces)
        if self._lpips is not None:
            found |= copies.perceived(partial(lpips.distances, self._lpips), *pixels)
        for name in found.keys() & {"pairs", "lpips_pairs"}:
            found[name] = [[i, int(self._index[j]), distance] for i, j, distance in found[name]]
        return found | {"training_digest": data.training_digest}


def _by_class(measure: Measure, ours: Sample, real: Sample, classes: int) -> dict[str, list[float | None]]:
    """The values of each class, by name; None where there are too few images."""
    found: list[dict[str, float] | None] = []
    for k in range(classes):
        pair = ours.of_class(k), real.of_class(k)
        enough = min(len(side.features) for side in pair) >= measure.fewest
        found.append(measure.of(*pair) if enough else None)
    names = next((list(one) for one in found if one), [])
    return {name: [None if one is None else one[name] for one in found] for name in names}
