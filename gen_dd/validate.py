"""Evaluation while training: samples of the averaged weights against training images and a validation split.

The test images are never looked at, so that the checkpoint kept as `best` was not chosen by them.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core_dd import files, records
from core_dd.data.cache import kept_tensors
from core_dd.data.real import RealData
from core_dd.judge import fidelity, training
from core_dd.judge.inception import inception_outputs, load_inception, weights_digest
from core_dd.judge.protocols import QUICK
from core_dd.run import Run
from core_dd.sets import pictures
from gen_dd.learnt import SampleJudge
from gen_dd.weights import CARD, Card

_BEST = "best"
"""Where a run folder keeps the best model: a link into `models/`."""

_LOWER_IS_BETTER = {"val_accuracy": False, "fid": True, "classifier_frechet": True}
"""What can choose the best model: the first of these that was measured does."""


class Validator:
    """Measures generated images; `open` makes one of what a config says.

    Args:
        judge: a classifier of the real data, whose features stand in for Inception's. The data's validation split may
            be empty.
        images: how many samples are compared with the training images, >= 2.
        ipc: images per class of the generated set that a ConvNet is trained on; 0: none.
        inception: torch-fidelity's network; None: do without.
        weights: which weights that network has, for the cache.
        notes: what there is to say about the measurements, line by line.
    """

    def __init__(
        self,
        judge: SampleJudge,
        *,
        images: int,
        ipc: int,
        inception: nn.Module | None = None,
        weights: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        self.judge, self.data, self.device = judge, judge.data, judge.device
        self.images, self.ipc, self.inception, self.notes = images, ipc, inception, tuple(notes)
        self._stem, self._weights = f"{self.data.fingerprint}-{self.data.training_digest}", weights
        self._reference: tuple[Tensor, Tensor] | None = None
        self._real: tuple[Tensor, Tensor] | None = None

    @classmethod
    def open(
        cls,
        data: RealData,
        *,
        images: int,
        ipc: int,
        inception_weights: str | None,
        network: str,
        seed: int,
        device: torch.device,
    ) -> "Validator":
        """Load what measures, downloading Inception's weights if need be.

        Args:
            data: the real data; of streamed ones a part is compared with.
            images, ipc: see `Validator`.
            inception_weights: a file of torch-fidelity's Inception weights; None: its download; "none": do without.
            network: the judge's, which is also trained on a generated set.
            seed: of the classifiers.
            device: where to compute.

        Raises:
            InputError: if the named weights cannot be read, or the network cannot take the images.
        """
        real = data.sample(seed)
        judge = SampleJudge(real, network, seed, device)  # refuses what does not fit before any work
        inception, reason = load_inception(inception_weights, device)
        notes = [f"FID is not measured because {reason}; classifier_frechet takes its place."] if reason else []
        if real is not data:
            notes.append(f"scores compare with {len(real.train_labels)} of the training images")
        weights = weights_digest(inception_weights)
        return cls(judge, images=images, ipc=ipc, inception=inception, weights=weights, notes=notes)

    def measure(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """What these samples are worth: fid or classifier_frechet, and val_accuracy where it was asked for.

        Args:
            images: uint8 (N, C, H, W), round the classes; enough for both.
            labels: int64 (N,).
        """
        compared, (K, ipc) = images[: self.images], (self.data.num_classes, self.ipc)
        scores = {"fid": self.fid(compared)} if self.inception else {"classifier_frechet": self.frechet(compared)}
        if ipc:
            scores["val_accuracy"] = self.accuracy(images[: K * ipc], labels[: K * ipc])
        return scores

    def fid(self, images: Tensor) -> float:
        """Frechet Inception distance (Heusel et al. 2017) to the training images, in torch-fidelity's features."""
        if self._reference is None:
            self._reference = self._cached_reference()
        return fidelity.frechet_distance(*fidelity.moments(self.inception_features(images)), *self._reference)

    def frechet(self, images: Tensor) -> float:
        """`core_dd.judge.fidelity.classifier_frechet` to the training images."""
        if self._real is None:
            self._real = fidelity.moments(self.judge.features(self.data.train_images))
        return fidelity.frechet_distance(*fidelity.moments(self.judge.features(images)), *self._real)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """The accuracy on the validation split of a ConvNet trained on these images by protocol `quick`."""
        options: dict[str, Any] = {"protocol": QUICK, "runs": [0], "network": self.judge.network}
        options |= {"seed": self.judge.seed, "device": self.device}
        classifiers = training.train(images, labels, self.data, **options)
        return classifiers.accuracies(self.data.val_images, self.data.val_labels)[0]

    def inception_features(self, images: Tensor) -> Tensor:
        """torch-fidelity's features (N, 2048) of uint8 images (N, 1 or 3, H, W)."""
        assert self.inception is not None
        return inception_outputs(self.inception, images)[0]

    def _cached_reference(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the training images' features, kept per data and per weights."""

        def make() -> dict[str, Tensor]:
            return dict(
                zip(("mu", "cov"), fidelity.moments(self.inception_features(self.data.train_images)), strict=True)
            )

        tensors = kept_tensors(f"fid {self._stem} {self._weights}", ("mu", "cov"), make)
        return tensors["mu"], tensors["cov"]


def _chooser(scores: dict[str, float]) -> str:
    """Which of the scores chooses the best model."""
    return next(name for name in _LOWER_IS_BETTER if name in scores)


def is_better(scores: dict[str, float], best: dict[str, float]) -> bool:
    """Whether `scores` beat those of the best so far, by what chooses now; so do they if it was not measured then."""
    name = _chooser(scores)
    if name not in best:
        return True
    return scores[name] < best[name] if _LOWER_IS_BETTER[name] else scores[name] > best[name]


_MEASURED_BY = {
    "val_accuracy": ("eval_ipc",),
    "fid": ("eval_images", "inception_weights"),
    "classifier_frechet": ("eval_images",),
}
"""Options, beside how samples are drawn, that decide what a score means; a resumed run may change some of them."""


def keep_best(
    run: Run, scores: dict[str, float], step: int, options: Mapping[str, Any], save: Callable[[Path], None]
) -> None:
    """Save the model and point `best` to it where it beats what `best` points to, or that was measured otherwise.

    Args:
        run: the run folder.
        scores: what was measured.
        step: when.
        options: those of the training; a distance of few samples cannot be compared with that of many.
        save: writes the model folder.
    """
    pointer = run.folder / _BEST
    card: Mapping[str, Any] = records.read(pointer / CARD, Card) if pointer.exists() else {}
    before = card.get("train", {})
    decisive = ("eval_steps", "eval_solver", *_MEASURED_BY[_chooser(scores)])
    alike = all(before[name] == options[name] for name in decisive if name in before)
    if not is_better(scores, card.get("metrics", {}) if alike else {}):
        return
    place = run.folder / "models" / f"step-{step:06d}"
    if place.exists():
        shutil.rmtree(place)
    save(place)
    files.link(pointer, place.relative_to(run.folder))
    for old in set(place.parent.iterdir()) - {place}:
        shutil.rmtree(old)
    run.say(f"{pointer}: the best so far, {_chooser(scores)} {scores[_chooser(scores)]:.4g} at step {step}")


def save_samples(run: Run, images: Tensor, labels: Tensor, step: int) -> Path:
    """Write the picture of a step's samples: ten for each of the first ten classes."""
    classes = range(min(10, int(labels.max()) + 1))
    path = run.folder / "grids" / f"step-{step:06d}.png"
    return run.write(path, lambda path: pictures.save_grid(path, images, labels, classes=classes))
