"""A study: scores of several settings, each of several sets, every set made and judged by a seed of its own."""

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from scipy.stats import t as student

from core_dd.errors import require
from core_dd.judge.scores import Score, read_score

Study = Mapping[str, Sequence[Score]]
"""By the name of a setting, the scores of its sets in the order of their seeds; the first setting is what the others
are compared with."""


def read_study(folder: Path, first: str = "") -> Study:
    """The study kept as FOLDER/SETTING/SEED/scores.json, its sets named "SETTING, set N" or "SETTING, seed N".

    Args:
        folder: where it is kept.
        first: the setting that the others are compared with; default: the first by name.

    Raises:
        InputError: if there is none, or a score is none.
    """
    found: dict[str, list[Score]] = {}
    paths = [path for path in folder.glob("*/*/scores.json") if path.parts[-2].isdecimal()]
    for path in sorted(paths, key=lambda path: (path.parts[-3], int(path.parts[-2]))):
        score = read_score(path)
        found.setdefault(re.sub(r", (set|seed) \d+$", "", score["set"].get("name") or path.parts[-3]), []).append(score)
    require(bool(found), f"{folder} is no study: expected {folder}/SETTING/SEED/scores.json.")
    require(not first or first in found, f"{folder} has no setting '{first}', but {', '.join(found)}.")
    return {name: found[name] for name in dict.fromkeys([first or next(iter(found)), *found])}


def means(scores: Sequence[Score]) -> dict[str, float]:
    """A setting's numbers over its sets: accuracy in %, images, and where they were measured the seconds of sampling,
    images/s, seconds to prepare (medians) and classifier_frechet (mean)."""
    cost = [(score["set"].get("cost") or {}) for score in scores]
    fidelity = [own for score in scores if (own := score.get("fidelity"))]
    found = {"accuracy": 100 * statistics.fmean(score["mean"] for score in scores)}
    found["images"] = statistics.fmean(score["set"]["images"] for score in scores)
    if all("prepare_seconds" in each for each in cost):  # drawn in the study, not selected from a pool
        found["seconds"] = statistics.median(each["seconds"] for each in cost)
        found["images_per_s"] = statistics.median(
            score["set"]["images"] / each["seconds"] for score, each in zip(scores, cost, strict=True)
        )
        found["prepare_seconds"] = statistics.median(each["prepare_seconds"] for each in cost)
    if len(fidelity) == len(scores):
        found["classifier_frechet"] = statistics.fmean(each["classifier_frechet"] for each in fidelity)
    return found


def accuracy(scores: Sequence[Score]) -> str:
    """Mean over a setting's sets and, of several, the standard deviation of their means, in %: 94.2 ± 0.8."""
    own = [100 * score["mean"] for score in scores]
    spread = f" ± {statistics.stdev(own):.1f}" if len(own) > 1 else ""
    return f"{statistics.fmean(own):.1f}{spread}"


def gain(scores: Sequence[Score], first: Sequence[Score]) -> str:
    """By how many points a setting beats another, over pairs of the same seed, with its 95 % interval (Student's t);
    "-" where there are none."""
    others = {other["seed"]: other["mean"] for other in first}
    pairs = [100 * (own["mean"] - others[own["seed"]]) for own in scores if own["seed"] in others]
    if scores is first or not pairs:
        return "-"
    if len(pairs) < 2:
        return f"{pairs[0]:+.1f}"
    half = student.ppf(0.975, len(pairs) - 1) * statistics.stdev(pairs) / len(pairs) ** 0.5
    return f"{statistics.fmean(pairs):+.1f} ± {half:.1f}"
