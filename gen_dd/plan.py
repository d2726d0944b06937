"""A plan for a budget: which steps, guidance scale and filter draw the pool that teaches most, found by short trials.

Successive halving ([Jamieson & Talwalkar, AISTATS 2016](https://arxiv.org/abs/1502.07943)): every setting draws with
the same number of network evaluations, so that cheaper ones draw more images, and a classifier trained on what it drew
is tested on the validation split of the training data; the best are tried again with more. A filter's looks count as
evaluations of as many floating-point operations. Only counted things decide, no seconds, so that a seed gives the same
plan on a fast and on a slow machine.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from msgspec import Meta
from torch import Tensor

from core_dd import records
from core_dd.data.images import ImageData
from core_dd.errors import require
from core_dd.judge import training
from core_dd.judge.protocols import QUICK
from core_dd.progress import Progress
from core_dd.report.tables import text_table
from core_dd.speed import forward_flops
from gen_dd.budget import Clock
from gen_dd.sampler import Sampler
from gen_dd.sieve import TRIES, Replacing, Sieve
from gen_dd.uvit import CONSISTENCY, image_flops

STEPS = {CONSISTENCY: (1, 2, 4), "": (10, 20, 50)}
"""The steps that are tried, by solver; "" stands for all others."""

CFG_SCALES = (0.0, 0.5)
"""The guidance scales that are tried; above 0 where the model has learnt without labels."""

FILTERS = (None, 0.05)
"""What is tried as a filter."""

KEPT, GROWTH = 3, 4
"""How many settings are tried again, and with how many times the evaluations."""

SHARE = 0.5
"""The part of what is left of the budget that the trials may take."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a pool is drawn; see `SampleConfig`."""

    steps: int
    cfg_scale: float
    filter: float | None

    @property
    def evaluations(self) -> int:
        """Of the network, for one image drawn once."""
        return self.steps * (2 if self.cfg_scale else 1)

    def __str__(self) -> str:
        return f"steps {self.steps}, cfg_scale {self.cfg_scale:g}, filter {_shown(self.filter)}"


class _Chosen(TypedDict):
    """A setting, as a file has it."""

    steps: Annotated[int, Meta(ge=1)]
    cfg_scale: Annotated[float, Meta(ge=0)]
    filter: Annotated[float, Meta(ge=0, lt=1)] | None


class Trial(_Chosen):
    """What a setting reached."""

    round: int
    per_class: int
    accuracy: float


class PoolPlan(TypedDict):
    """What plan.json holds."""

    weights: str
    """The digest of the model's."""
    solver: str
    expansion: NotRequired[Annotated[float, Meta(ge=1)] | None]
    seed: int
    budget: str | None
    seconds: float
    """Of the budget that were over when it was made."""
    validation_images: NotRequired[Annotated[int, Meta(ge=1)]]
    """That the trials were tested on; plans of before do not say, nor of what the filter was."""
    filter_network: NotRequired[str | None]
    filter_protocol: NotRequired[str | None]
    chosen: _Chosen
    trials: Annotated[list[Trial], Meta(min_length=1)]


def settings(solver: str, guidable: bool) -> list[Setting]:
    """What is tried, the cheapest first: of equals the first wins.

    Args:
        solver: a key of `SOLVERS`.
        guidable: whether the model has learnt without labels, too.
    """
    grid = itertools.product(STEPS.get(solver, STEPS[""]), CFG_SCALES if guidable else (0.0,), FILTERS)
    found = [Setting(steps=steps, cfg_scale=cfg_scale, filter=share) for steps, cfg_scale, share in grid]
    return sorted(found, key=lambda setting: setting.evaluations)


def halving(candidates: Sequence[Setting], attempt: Callable[[Setting, int], tuple[int, float]]) -> list[Trial]:
    """Try all, then the best `KEPT` again, `GROWTH` times as long.

    Args:
        candidates: what is tried.
        attempt: (setting, times) -> images per class and accuracy, of a trial so many times as long as a first one.

    Returns:
        The trials, round by round, each round best first.
    """
    trials: list[Trial] = []
    for number, times in enumerate((1, GROWTH), start=1):
        found = []
        for setting in candidates:
            per_class, accuracy = attempt(setting, times)
            found.append((setting, per_class, accuracy))
        found.sort(key=lambda trial: -trial[2])
        trials += [
            Trial(round=number, per_class=per_class, accuracy=round(accuracy, 4), **_fields(setting))
            for setting, per_class, accuracy in found
        ]
        candidates = [setting for setting, *_ in found[:KEPT]]
    return trials


class Trials:
    """Tries settings on the validation split.

    Args:
        make: gives the sampler of some steps and a guidance scale.
        sieve: what the filter is.
        data: the real data, with a validation split; test images are not looked at.
        per_class: images of each class that the setting of most evaluations draws in a first trial.
        candidates: what will be tried.
        network, seed, device: of the classifiers that are trained on what is drawn, by protocol `quick`.
        filter_network: the filter's classifier, trained alike.
    """

    def __init__(
        self,
        make: Callable[[int, float], Sampler],
        sieve: Callable[[float], Sieve],
        data: ImageData,
        per_class: int,
        candidates: Sequence[Setting],
        *,
        network: str,
        filter_network: str,
        seed: int,
        device: torch.device,
    ) -> None:
        self.filter_network = filter_network
        self.make, self.sieve, self.data, self.candidates = make, sieve, data, candidates
        self.evaluations = per_class * max(setting.evaluations for setting in candidates)
        self.options: dict[str, Any] = {
            "protocol": QUICK,
            "network": network,
            "runs": [0],
            "seed": seed,
            "device": device,
        }
        self.passing: dict[tuple[int, float], float] = {}

    @property
    def count(self) -> int:
        """How many trials there will be."""
        return len(self.candidates) + min(KEPT, len(self.candidates))

    @cached_property
    def look(self) -> float:
        """What it costs to show an image to the filter's classifier, in evaluations of the network: by their
        floating-point operations, none where other people's code cannot be counted."""
        classifier = self.sieve(FILTERS[-1]).classifier.network(0)
        model = self.make(self.candidates[0].steps, self.candidates[0].cfg_scale).model
        with contextlib.suppress(RuntimeError, NotImplementedError):
            return forward_flops(classifier, torch.zeros(2, *self.data.shape)) / image_flops(model)
        return 0.0

    def forecast(self, clock: Clock) -> float:
        """Seconds that all trials will take, by a look at the speed of drawing and of training a classifier."""
        dearest = max(self.candidates, key=lambda setting: setting.evaluations)
        sampler = self.make(dearest.steps, dearest.cfg_scale)
        pace = sampler.calibrate(clock)
        rounds = len(self.candidates) + GROWTH * min(KEPT, len(self.candidates))
        drawing = pace.full / pace.batch / dearest.evaluations * self.evaluations * self.data.num_classes * rounds
        return drawing + self.count * self.judging(self.options["network"]) + self.judging(self.filter_network)

    def judging(self, network: str) -> float:
        """Seconds to train a classifier on a trial's images and to test it on the validation images, by a look."""
        some = self.data.train_images[: QUICK.batch_size], self.data.train_labels[: QUICK.batch_size]
        shown = training.Training(*some, self.data, **self.options | {"network": network})
        tested = self.data.val_images[: training.TEST_CHUNK], self.data.val_labels[: training.TEST_CHUNK]
        step = min(_seconds(lambda: shown.step(0).sum().item()) for _ in range(4))
        test = min(_seconds(lambda: shown.classifiers().accuracies(*tested)) for _ in range(2))
        return (QUICK.steps or 0) * step + test * len(self.data.val_images) / len(tested[0])

    def __call__(self, setting: Setting, times: int) -> tuple[int, float]:
        """Images per class and validation accuracy of a trial, for `halving`."""
        classes, key = self.data.num_classes, (setting.steps, setting.cfg_scale)
        evaluations = self.evaluations * times
        per_class = max(1, evaluations // setting.evaluations)
        sampler = self.make(*key)
        if setting.filter is None:
            images = _drawn(sampler.draw, per_class * classes, sampler.batch)
            accepted = self.sieve(FILTERS[-1])(images, sampler.labels(range(len(images))))[1]
            self.passing[key] = float(accepted.float().mean())
        else:
            share = max(self.passing[key], 1e-6)
            draws = (1 - (1 - share) ** TRIES) / share  # of an image, on average
            per_class = max(1, int(evaluations / (draws * (setting.evaluations + self.look))))
            replacing = Replacing(sampler, self.sieve(setting.filter))
            images = _drawn(lambda numbers: replacing.draw(numbers)["images"], per_class * classes, sampler.batch)
        labels = sampler.labels(range(len(images)))
        classifiers = training.train(images, labels, self.data, **self.options)
        return per_class, classifiers.accuracies(self.data.val_images, self.data.val_labels)[0]


def _seconds(act: Callable[[], object]) -> float:
    """What something takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _drawn(draw: Callable[[range], Tensor], count: int, batch: int) -> Tensor:
    """So many images, batch by batch."""
    return torch.cat([draw(range(i, min(i + batch, count))) for i in range(0, count, batch)])


def make_plan(
    trials: Trials,
    clock: Clock,
    *,
    weights: str,
    solver: str,
    seed: int,
    expansion: float | None = None,
    budget: str | None = None,
) -> PoolPlan:
    """Try all settings and choose, inside the budget.

    Args:
        trials: tries.
        clock: the budget.
        weights, solver, seed, expansion, budget: what the plan says of itself, see `PoolPlan`.

    Raises:
        InputError: trials that would take more than `SHARE` of what is left of the budget; one that is spent before
            they end.
    """
    left, expected, given = clock.left(), trials.forecast(clock), clock.budget or 0.0
    enough = 1.05 * expected / SHARE + given - left
    require(
        expected <= SHARE * left,
        f"the trials of --plan auto take about {expected:.3g} s here, more than {SHARE:.0%} of the {max(left, 0):.3g} "
        f"s that a budget of {given:g} s leaves. Give a budget of {enough:.0f} s or more, a smaller --plan_per_class "
        "or --plan_network, or steps, cfg_scale and filter by yourself.",
    )

    progress = Progress("plan", trials.count, unit="trial")

    def attempt(setting: Setting, times: int) -> tuple[int, float]:
        require(
            clock.left() > 0,
            f"the budget of {given:g} s ended before the trials of --plan auto did: this machine got slower than "
            "measured. Nothing was drawn; sample again, or with a larger budget.",
        )
        per_class, accuracy = trials(setting, times)
        progress.note = f"{setting}: {100 * accuracy:.1f} %"
        progress.update()
        return per_class, accuracy

    found = halving(trials.candidates, attempt)
    progress.close()
    best = next(trial for trial in found if trial["round"] == found[-1]["round"])
    clock.book("plan")
    chosen = _Chosen(steps=best["steps"], cfg_scale=best["cfg_scale"], filter=best["filter"])
    return PoolPlan(
        weights=weights,
        solver=solver,
        expansion=expansion,
        seed=seed,
        budget=budget,
        seconds=round(clock.elapsed(), 3),
        validation_images=len(trials.data.val_labels),
        chosen=chosen,
        trials=found,
    )


def read_plan(path: Path, wanted: Mapping[str, Any]) -> PoolPlan:
    """A plan that was made before.

    Args:
        path: its file.
        wanted: what it must say of itself, see `PoolPlan`.

    Raises:
        InputError: no plan there, or one that says something else.
    """
    plan = records.read(path, PoolPlan, "Let --plan auto make a plan.")
    for name, value in wanted.items():
        require(
            plan.get(name) == value,
            f"{path} is a plan for {name} {plan.get(name)}, and here they are {value}. Let --plan auto make another.",
        )
    own = plan["chosen"]  # a file may hold more
    plan["chosen"] = _Chosen(steps=own["steps"], cfg_scale=own["cfg_scale"], filter=own["filter"])
    return plan


def said(plan: PoolPlan) -> str:
    """The choice, in a line, and how sure so many validation images make it: a 95 % interval of its accuracy (E. B.
    Wilson's, JASA 1927), and how many settings of the last round lie inside."""
    last = max(trial["round"] for trial in plan["trials"])
    score, *others = [trial["accuracy"] for trial in plan["trials"] if trial["round"] == last]
    count, images = sum(trial["round"] == 1 for trial in plan["trials"]), plan.get("validation_images")
    chosen = f"plan: {Setting(**plan['chosen'])}; {100 * score:.1f}"
    if images is None:
        return f"{chosen} % on the validation split, the best of {count} settings"
    from scipy.stats import binomtest  # takes a while, and few pools have a plan

    interval = binomtest(round(score * images), images).proportion_ci(method="wilson")
    alike = sum(other >= interval.low for other in others)
    between = f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    text = f"{chosen} % ({between}) on {images} validation images, the best of {count} settings"
    return text + f", which they do not tell from {alike} of the last round" * bool(alike)


def table(plan: PoolPlan) -> str:
    """The trials, for people."""
    head = ["round", "steps", "cfg_scale", "filter", "images per class", "validation accuracy"]
    rows = [
        [str(own["round"]), str(own["steps"]), f"{own['cfg_scale']:g}", _shown(own["filter"]), str(own["per_class"]),
         f"{100 * own['accuracy']:.1f} %"]
        for own in plan["trials"]
    ]  # fmt: skip
    return text_table([head, *rows], left=frozenset())


def _fields(setting: Setting) -> _Chosen:
    return _Chosen(steps=setting.steps, cfg_scale=setting.cfg_scale, filter=setting.filter)


def _shown(share: float | None) -> str:
    return "none" if share is None else f"{share:g}"
