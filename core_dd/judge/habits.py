"""The published habit of testing several times and reporting the best, which chooses by the test set: never our score,
but recorded beside it under this name, to stand beside numbers that came about so."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core_dd.errors import require
from core_dd.run import checkpoints
from core_dd.sets.distilled import DistilledSet


@dataclass(frozen=True)
class Habit:
    """Among which tests on the test set the authors of a protocol take the best."""

    tests: tuple[float, ...] = ()
    """Parts of a classifier's training after which it is tested, too."""
    sets: bool = False
    """Whether the set is tested several times along its distillation."""


_QUARTERS, _SETS = Habit(tests=(0.25, 0.5, 0.75)), Habit(sets=True)

HABITS: MappingProxyType[str, Habit] = MappingProxyType(
    {
        "idc": _QUARTERS,
        "m3d": _QUARTERS,
        "idc_mnist": _QUARTERS,
        "idc_svhn_ipc1": _QUARTERS,
        "idm": _SETS,
        "mtt": _SETS,
        "datadam_code": _SETS,
    }
)
"""By protocol; the authors of the others report their last test."""


def habit(protocol: str) -> Habit:
    """What the authors of a protocol choose by the test set.

    Raises:
        InputError: if they do not.
    """
    require(
        protocol in HABITS,
        f"the published numbers of protocol {protocol} are not the best of several tests: leave out best_of_test, "
        f"which is for {', '.join(HABITS)}.",
    )
    return HABITS[protocol]


def chosen(
    last: Sequence[float], tests: Sequence[Sequence[float]], others: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """What authors report who choose by the test set: every classifier's best test, of the set whose mean is best.

    Args:
        last: accuracies of the set's classifiers at their end, (R,).
        tests: of the same classifiers earlier in their training, any number of (R,).
        others: of other sets' classifiers at their end, any number of (R,).

    Returns:
        `accuracies` (R,), their `mean` and sample standard deviation `std` (0 for a single one), and of how many
        `tests_per_classifier` and `sets` they are the best.
    """
    own = [max(accuracies) for accuracies in zip(last, *tests, strict=True)]
    best = list(max([own, *others], key=statistics.fmean))
    std = statistics.stdev(best) if len(best) > 1 else 0.0
    of = {"tests_per_classifier": 1 + len(tests), "sets": 1 + len(others)}
    return {"accuracies": best, "mean": statistics.fmean(best), "std": std, **of}


def earlier_sets(place: Path, dset: DistilledSet) -> list[DistilledSet]:
    """The other checkpoints of the run folder that a set is from, but for those whose learned learning rate is not
    positive: no classifier can train on them.

    Raises:
        InputError: if there are none.
    """
    others = {step: other for step, other in kept(place).items() if other.digest() != dset.digest()}
    require(
        bool(others),
        f"best_of_test chooses among the checkpoints of a run folder, and {place} has none but the set itself. Give a "
        "folder that gendd distill wrote, with several: --checkpoint_every 100 --keep 50.",
    )
    return [other for other in others.values() if trains(other)]


def kept(place: Path) -> dict[int, DistilledSet]:
    """The sets that the checkpoints of a run folder hold, by iteration, rising; none where it has none."""
    files = {step: folder / "distilled.safetensors" for step, folder in checkpoints(place)}
    return {step: DistilledSet.load(file) for step, file in files.items() if file.is_file()}


def trains(dset: DistilledSet) -> bool:
    """Whether a classifier can train on a set: not where the learning rate learnt with it is not positive."""
    return dset.meta.get("lr") is None or dset.meta["lr"] > 0
