"""What scores.json holds, as `gendd evaluate` writes it: believed only as far as its numbers can be true together."""

import math
import statistics
from pathlib import Path
from typing import Annotated, Literal, NotRequired, Required, TypedDict

from msgspec import Meta

from core_dd import records
from core_dd.errors import require

_Fraction = Annotated[float, Meta(ge=0, le=1)]
_Count = Annotated[int, Meta(ge=1, le=2**53)]
_Amount = Annotated[float, Meta(ge=0, le=1e12)]
_Name = Annotated[str, Meta(max_length=5000)]
"""A path and what stands before it, at most."""


class _Validated(TypedDict):
    """How good a distillation found its set, on a validation split of the training images."""

    accuracy: _Fraction
    protocol: _Name


class _ScoredSet(TypedDict, total=False):
    """What was scored."""

    name: _Name | None
    path: _Name | None
    method: Required[_Name | None]
    ipc: Required[_Count | None]
    images: Required[_Count]
    hash: Required[_Name]
    cost: dict[str, _Amount] | None
    validation: _Validated
    labels: Literal["hard", "soft"]
    factor: _Count
    bytes: _Count


class _ScoredData(TypedDict, total=False):
    """What it was scored on."""

    name: Required[_Name]
    fingerprint: Required[_Name]
    test_images: _Count


class _ScoredWith(TypedDict, total=False):
    """Of the command's config, what the real training images, and a set of another code, are loaded by."""

    data: str
    image_size: int | None
    limit_per_class: int | None
    test_fraction: float
    layout: str | None
    normalised_by: str | None
    factor: int | None
    decode: str | None
    learned_lr: float | None
    soft_labels: str | None
    class_order: str | None


class _Chosen(TypedDict):
    """Of best_of_test, what is shown."""

    mean: _Fraction
    std: _Fraction


class _AnswersGiven(TypedDict):
    """What classifiers answered, beyond how often they were right (`core_dd.judge.answers`)."""

    per_class: Annotated[list[_Fraction | None], Meta(min_length=1)]
    balanced_accuracy: _Fraction
    ece: _Fraction
    confusion: list[list[Annotated[int, Meta(ge=0, le=2**53)]]] | None


class _TrainingCost(TypedDict):
    """What training a classifier took (`core_dd.judge.costs`)."""

    images_seen: Annotated[int, Meta(ge=0, le=2**53)]
    training_flops: Annotated[float, Meta(ge=0, le=1e30)] | None
    peak_mib: _Amount


_Pair = tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0)], _Amount]


class _Copying(TypedDict):
    """How near images are to training images (`core_dd.judge.copies.copying`)."""

    share: _Fraction
    p: _Fraction
    median: _Amount
    test_median: _Amount


class _Copies(TypedDict):
    """Of `core_dd.judge.copies.compared`; pairs are the number of an image, of a training image, and a distance."""

    pixels: _Copying
    features: _Copying
    lpips: NotRequired[_Copying]
    pairs: Annotated[list[_Pair], Meta(min_length=1)]
    lpips_pairs: NotRequired[Annotated[list[_Pair], Meta(min_length=1)]]
    training_digest: _Name


class _Attack(TypedDict):
    """How well a threshold tells members from others (`core_dd.judge.membership.attack`)."""

    auc: _Fraction
    tpr_at_1_fpr: _Fraction


class _RatioAttack(_Attack):
    """The same by likelihood ratios."""

    shadows: _Count


class _Attacks(_Attack, total=False):
    """By the loss and, in scores of today, by likelihood ratios."""

    likelihood_ratio: _RatioAttack


class _Membership(_Attacks):
    """The same of a set, beside random real images."""

    random: _Attacks


class _Snapshot(TypedDict):
    """What the set was worth at another time of its distillation."""

    step: Annotated[int, Meta(ge=0, le=2**53)]
    accuracies: Annotated[list[_Fraction], Meta(min_length=1)]


class _DDRanking(TypedDict):
    """DD-Ranking's scores and what they are of (`core_dd.judge.ddranking`)."""

    lrs: _Fraction
    ars: _Fraction | None
    accuracies: dict[_Name, _Fraction]


class _Trained(TypedDict, total=False):
    """Of the protocol as it was resolved, what is shown."""

    lr: _Amount
    batch_size: _Count
    optimiser: _Name


class Score(TypedDict, total=False):
    """One scores.json; more may stand there."""

    accuracies: Required[Annotated[list[_Fraction], Meta(min_length=1)]]
    mean: Required[_Fraction]
    std: Required[_Amount]
    ci95: list[float] | None
    protocol: Required[_Name]
    network: Required[_Name]
    parameters: _Count
    runs: _Count
    seed: int | None
    smoke: Required[bool]
    label_regime: Literal["hard", "soft", "teacher"]
    seconds: Required[_Amount]
    device: _Name
    machine: _Name
    making_seconds: _Amount
    set: Required[_ScoredSet]
    data: Required[_ScoredData]
    chance: Annotated[float, Meta(gt=0, le=1)] | None
    answers: _AnswersGiven
    training_cost: _TrainingCost
    resolved_protocol: _Trained
    fidelity: dict[_Name, records.Number] | None
    copies: _Copies
    membership: _Membership
    robustness: dict[_Name, _Fraction]
    ddranking: _DDRanking
    fidelity_per_class: dict[_Name, list[records.Number | None]] | None
    best_of_test: _Chosen | None
    along: list[_Snapshot]
    curve_steps: list[_Amount] | None
    curves: dict[str, list[list[records.Number]]] | None
    config: _ScoredWith | None
    versions: dict[_Name, _Name] | None


def read_score(path: Path) -> Score:
    """One scores.json, checked.

    Raises:
        InputError: if the file is no score, or says what cannot be true together: accuracies that are no fractions,
            another number, mean or deviation of them than there are, answers that do not give the mean, fewer images
            than ipc, a best_of_test below the mean, curves of another number or length than there are accuracies and
            steps.
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
    if "answers" in score:
        _check_answers(score["answers"], count, mean, f"{path} says", hint)
    copies = score.get("copies", {})
    require(("lpips" in copies) == ("lpips_pairs" in copies), f"{path} has half of what is found by LPIPS. {hint}")
    ipc, images = score["set"]["ipc"] or 1, score["set"]["images"]
    require(ipc <= images, f"{path} says ipc {ipc}, but {images} images. {hint}")
    best = (score.get("best_of_test") or {}).get("mean", 1)
    require(best >= mean - 1e-6, f"{path} says best_of_test {100 * best:.2f} %, less than the mean. {hint}")
    steps = score.get("curve_steps") or []
    require(steps == sorted(set(steps)), f"{path} has curve_steps that do not rise. {hint}")
    for name, runs in (score.get("curves") or {}).items():
        require(
            [len(run) for run in runs] == [len(steps)] * count,
            f"{path} has curves of {name} that are not {count}, one per accuracy, each as long as its curve_steps, "
            f"{len(steps)}. {hint}",
        )
    return score


def _check_answers(answers: _AnswersGiven, classifiers: int, mean: float, says: str, hint: str) -> None:
    """Refuse counts by class that do not give the accuracies beside them."""
    per_class, matrix = answers["per_class"], answers["confusion"]
    known = [value for value in per_class if value is not None]
    balanced = statistics.fmean(known) if known else math.nan
    require(
        math.isclose(answers["balanced_accuracy"], balanced, abs_tol=1e-6),
        f"{says} balanced_accuracy {answers['balanced_accuracy']:.4f}, which is not the mean of its per_class. {hint}",
    )
    if matrix is None:
        return
    size, total = len(per_class), sum(map(sum, matrix))
    require(
        [len(row) for row in matrix] == [size] * size and total > 0 and total % classifiers == 0,
        f"{says} a confusion matrix that is not {size} x {size} counts of {classifiers} classifiers. {hint}",
    )
    right = sum(matrix[k][k] for k in range(size)) / total
    require(
        math.isclose(right, mean, abs_tol=1e-6),
        f"{says} mean {100 * mean:.4f} %, but its confusion matrix has {100 * right:.4f} % right. {hint}",
    )
