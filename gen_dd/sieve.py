"""Images that teach: what a classifier of the real data does not recognise is drawn again, while time lasts.

The filter of GaFi (https://arxiv.org/abs/2305.10118). An image keeps its place: what is drawn again for it starts from
other noise, keyed by (seed, class, index, attempt), so that neither batch size nor process count changes a pool beyond
rounding, and every class has as many images as without.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core_dd.clock import now
from core_dd.data.cache import kept_tensors
from core_dd.data.images import ImageData
from core_dd.errors import pick, require
from core_dd.judge import fidelity, training
from core_dd.judge.networks import is_foreign
from core_dd.judge.protocols import PROTOCOLS
from gen_dd.budget import MARGIN, BatchPace, TimeUp
from gen_dd.sampler import Sampler

TRIES = 4
"""How often an image is drawn at most; where none is accepted, the likeliest of them stays."""

VAL_FRACTION = 0.1
"""The part of each class's training images that sets the threshold, where the model was trained without such a part."""

_LOOKS, _FEW = 2, 32
"""How often, and how many images at most, are shown to the classifier, to see what that takes."""


@dataclass(frozen=True)
class Sieve:
    """Accepts an image that a classifier of the real data recognises as its label, and is sure enough of.

    Attributes:
        classifier: trained on the real training images but those of the validation split.
        threshold: the least probability of the label.
        recognised: the part of the validation split that the classifier gets right.
    """

    classifier: training.Classifiers
    threshold: float
    recognised: float

    @classmethod
    def fit(
        cls, data: ImageData, share: float, *, network: str, protocol: str, seed: int, device: torch.device
    ) -> "Sieve":
        """Train the classifier, or read the one that the cache folder has, and set the threshold. What it says of the
        validation images is kept there, too: a budget of seconds has no time for it.

        Args:
            data: the real data, with a validation split; the test images are not looked at.
            share: so many of the validation images that the classifier gets right, in [0, 1), are below the threshold;
                at 0 there is none.
            network: a name `build_network` takes.
            protocol: how it is trained, a name of `PROTOCOLS` without a teacher.
            seed: of its training.
            device: where to compute.

        Raises:
            InputError: an unknown network or protocol, or one with a teacher; a validation split of which the
                classifier recognises nothing.
        """
        rule = pick(PROTOCOLS, protocol, "protocol")
        require(
            rule.teacher is None, f"protocol {protocol} takes a teacher. Choose another --filter_protocol, e.g. quick."
        )
        classifier = fidelity.kept_classifier(data, network, seed, device, rule)
        confidence, right = _validated(classifier, data, fidelity.classifier_identity(network, seed, rule))
        require(
            bool(right.any()),
            f"the classifier of the real data recognises none of {len(right)} validation images, and cannot filter. "
            "Choose another --filter_network or --filter_protocol.",
        )
        threshold = float(confidence[right].quantile(share)) if share else 0.0
        return cls(classifier, threshold, float(right.float().mean()))

    @property
    def facts(self) -> dict[str, float]:
        """What a pool's metadata say of it."""
        return {"threshold": self.threshold, "validation_recognised": self.recognised}

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of uint8 images (N, C, H, W) and their labels, int64 (N,): the label's probability, and whether accepted."""
        confidence, right = _seen(self.classifier, images, labels)
        return confidence, right & (confidence >= self.threshold)


def _validated(classifier: training.Classifiers, data: ImageData, identity: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """`_seen` of the validation images, kept in the cache folder; of networks of other code, not."""

    def seen() -> dict[str, Tensor]:
        return dict(zip(names, _seen(classifier, data.val_images, data.val_labels), strict=True))

    names = ("confidence", "right")
    if is_foreign(identity["network"]):
        found = seen()
    else:
        data_key = f"{data.fingerprint} {data.training_digest} {data.validation_digest}"
        found = kept_tensors(f"sieve {data_key} {json.dumps(identity, sort_keys=True)}", names, seen)
    return found["confidence"], found["right"]


def _seen(classifier: training.Classifiers, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The probability that a classifier gives each label, and whether it finds it the likeliest; (N,) on the CPU."""
    shares = fidelity.probabilities(classifier.network(0), images, classifier.preprocess).cpu()
    return shares.gather(1, labels[:, None]).squeeze(1), shares.argmax(1) == labels


class Replacing:
    """Draws images by number, and again those that a sieve rejects.

    Args:
        sampler: draws.
        sieve: accepts.
        total: how many images are asked for, by all processes; none of them is given up for a replacement. None: as
            many as there is time for.
        processes: how many share the work.
    """

    def __init__(self, sampler: Sampler, sieve: Sieve, total: int | None = None, processes: int = 1) -> None:
        assert sampler.group == 1, "images that act on each other cannot be replaced alone"
        self.sampler, self.sieve, self.total, self.processes = sampler, sieve, total, processes
        self.judging = 0.0
        self._pace: BatchPace | None = None

    def look(self) -> float:
        """Seconds that the classifier takes for an image, by a look at a few: what `Sampler.calibrate` adds to every
        image, so that there is time for it."""
        few = range(min(_FEW, self.sampler.batch))
        images, labels = torch.zeros(len(few), *self.sampler.shape, dtype=torch.uint8), self.sampler.labels(few)
        times = []
        for _ in range(_LOOKS):
            began = now()
            self.sieve(images, labels)
            times.append(now() - began)
        self.judging = min(times) / len(few)
        return self.judging

    def follow(self, pace: BatchPace) -> None:
        """Go by what a batch of images, drawn and looked at once, is expected to take, which tells what is to come."""
        self._pace = pace

    @torch.inference_mode()
    def draw(self, numbers: Sequence[int], seconds: float = math.inf) -> dict[str, Tensor]:
        """The images of these numbers, (N, C, H, W); which are `accepted`, bool (N,); how often drawn, `tries`, (N,).

        Raises:
            TimeUp: as soon as it shows that not even the first of each will be there within `seconds`.
        """
        sampler, began = self.sampler, now()
        labels, judging = sampler.labels(numbers), self.judging * len(numbers)
        images = sampler.draw(numbers, seconds - judging)
        confidence, accepted = self.sieve(images, labels)
        tries, each = torch.ones(len(numbers), dtype=torch.uint8), (now() - began) / len(numbers)
        spare, first = seconds - self._kept(numbers, each), now()
        for attempt in range(1, TRIES):
            again, left = (~accepted).nonzero().flatten(), spare - (now() - began)
            if not len(again) or left < MARGIN * each * len(again):
                break
            try:
                others = sampler.draw([numbers[i] for i in again.tolist()], left - self.judging * len(again), attempt)
            except TimeUp:
                break
            tries[again] += 1
            sure, good = self.sieve(others, labels[again])
            better = good | (sure > confidence[again])
            taken = again[better]
            images[taken], confidence[taken], accepted[taken] = others[better], sure[better], good[better]
        if self.total is not None and self._pace is not None:  # else batches shrink by what none of them needs
            self._pace.besides(now() - first)
        return {"images": images, "accepted": accepted, "tries": tries}

    def _kept(self, numbers: Sequence[int], each: float) -> float:
        """Seconds to keep for this process's part of the images still to be drawn once, where one takes `each`."""
        if self.total is None:
            return 0.0
        rest, expected = math.ceil(max(self.total - numbers[-1] - 1, 0) / self.processes), 0.0
        if self._pace is not None:
            batches, more = divmod(rest, self._pace.batch)
            expected = batches * self._pace.whole + (self._pace.seconds(more) if more else 0.0)
        return MARGIN * max(expected, each * rest)


class Tally:
    """Counts, class by class, what was drawn and what of it was rejected.

    Attributes:
        counts: int64 (2, K): images drawn, counted as often as they were, and those in the pool that are accepted.
    """

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(2, classes, dtype=torch.int64)

    def add(self, shard: dict[str, Tensor]) -> None:
        """Count a shard: its labels, and what `Replacing.draw` gives."""
        for count, name in zip(self.counts, ("tries", "accepted"), strict=True):
            count.index_add_(0, shard["labels"], shard[name].long())

    @property
    def rejected(self) -> Tensor:
        """The share of every class's drawn images that was rejected, (K,), in [0, 1]."""
        drawn, accepted = self.counts
        return (drawn - accepted) / drawn.clamp_min(1)

    def facts(self) -> dict[str, Any]:
        """What a pool's metadata say."""
        drawn, accepted = self.counts.sum(1).tolist()
        return {
            "drawn": drawn,
            "accepted": accepted,
            "rejected": round(1 - accepted / max(drawn, 1), 4),
            "rejected_by_class": [round(share, 4) for share in self.rejected.tolist()],
        }

    def said(self, names: Sequence[str], images: int) -> str:
        """For people, of a pool of so many images: what was rejected, of the classes most rejected first."""
        facts, shares = self.facts(), self.rejected
        order = shares.argsort(descending=True, stable=True).tolist()
        shown = ", ".join(f"{names[k]} {100 * shares[k]:.1f} %" for k in order[:_SHOWN])
        more = f" (the {_SHOWN} most rejected of {len(names)}; all in index.json)" if len(names) > _SHOWN else ""
        return (
            f"filter: {100 * facts['rejected']:.1f} % of {facts['drawn']} images drawn were rejected, "
            f"{facts['accepted']} of {images} in the pool are accepted; rejected by class: {shown}{more}"
        )


_SHOWN = 20
"""Classes that are named at most."""
