"""What scores.json holds, as `gendd evaluate` writes it: believed only as far as its numbers can be true together."""

import math
import statistics
from pathlib import Path
from typing import Annotated, Any, Required, TypedDict

from msgspec import Meta

from core_dd import records
from core_dd.errors import require

Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(ge=0)]


class ScoredSet(TypedDict, total=False):
    """What was scored."""

    name: str | None
    path: str | None
    method: Required[str | None]
    ipc: Required[Count | None]
    images: Required[Count]
    hash: Required[str]
    cost: dict[str, float] | None


class ScoredData(TypedDict, total=False):
    """What it was scored on."""

    name: Required[str]
    fingerprint: Required[str]
    test_images: Count


class Chosen(TypedDict):
    """Of best_of_test, what is shown."""

    mean: Fraction
    std: Amount


class Score(TypedDict, total=False):
    """One scores.json; more may stand there."""

    accuracies: Required[Annotated[list[Fraction], Meta(min_length=1)]]
    mean: Required[Fraction]
    std: Required[Amount]
    ci95: list[float] | None
    protocol: Required[str]
    network: Required[str]
    runs: Count
    seed: int | None
    smoke: Required[bool]
    seconds: Required[Amount]
    set: Required[ScoredSet]
    data: Required[ScoredData]
    chance: Fraction | None
    fidelity: dict[str, float] | None
    best_of_test: Chosen | None
    curve_steps: list[float] | None
    curves: dict[str, list[list[float]]] | None
    config: dict[str, Any] | None
    versions: dict[str, str] | None


def read_score(path: Path) -> Score:
    """One scores.json, checked.

    Raises:
        InputError: if the file is no score, or says what cannot be true together: accuracies that are no fractions,
            another number, mean or deviation of them than there are, curves of another length than their steps.
    """
    hint = "It is no score written by 'gendd evaluate', whose accuracies are fractions from 0 to 1. Evaluate again."
    score = records.read(path, Score, hint)
    accuracies = score["accuracies"]
    count, mean = len(accuracies), statistics.fmean(accuracies)
    std = statistics.stdev(accuracies) if count > 1 else 0.0
    require(score.get("runs", count) == count, f"{path} says {score.get('runs')} runs, its accuracies are {count}.")
    for name, own in (("mean", mean), ("std", std)):
        require(
            math.isclose(score[name], own, abs_tol=1e-6),
            f"{path} says {name} {100 * score[name]:.4f} %, but its accuracies have {name} {100 * own:.4f} %. "
            "Evaluate the set again.",
        )
    require(
        score.get("chance") is None or "test_images" in score["data"],
        f"{path} says what chance scores, but not on how many test_images. {hint}",
    )
    steps = score.get("curve_steps") or []
    for name, runs in (score.get("curves") or {}).items():
        require(
            all(len(run) == len(steps) for run in runs),
            f"{path} has curves of {name} whose lengths are not that of its curve_steps, {len(steps)}. {hint}",
        )
    return score
