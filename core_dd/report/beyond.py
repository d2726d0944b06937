"""What stands beside the accuracy: how classifiers fare by class, how sure they are, and what it all took."""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

from core_dd.judge.robustness import CORRUPTIONS
from core_dd.report.ranking import Entry, Group
from core_dd.report.trained import optimiser_of

_UNKNOWN = "-"
"""Where a score does not say."""

_COLUMNS: MappingProxyType[str, Callable[[dict[str, Any]], str | None]] = MappingProxyType(
    {
        "labels": lambda record: record.get("label_regime", record["set"].get("labels")),
        "factor": lambda record: _count(record["set"].get("factor")),
        "optimiser": lambda record: optimiser_of(record.get("resolved_protocol") or {}),
        "balanced %": lambda record: _percent(record, "balanced_accuracy"),
        "worst class %": lambda record: _worst(record),
        "ECE %": lambda record: _percent(record, "ece"),
        "members found, AUC % (random)": lambda record: _attack(record, "auc"),
        "at 1 % FPR, %": lambda record: _attack(record, "tpr_at_1_fpr"),
        "by likelihood ratio, AUC %": lambda record: _attack(record, "auc", "likelihood_ratio"),
        "by it at 1 % FPR, %": lambda record: _attack(record, "tpr_at_1_fpr", "likelihood_ratio"),
        "FGSM %": lambda record: _robust(record, "fgsm"),
        "PGD %": lambda record: _robust(record, "pgd"),
        "corrupted %": lambda record: _robust(record, *CORRUPTIONS),
        "LRS": lambda record: _ranked(record, "lrs"),
        "ARS": lambda record: _ranked(record, "ars"),
        "parameters": lambda record: _count(record.get("parameters")),
        "images seen": lambda record: _count(record.get("training_cost", {}).get("images_seen")),
        "training FLOPs": lambda record: _short(record.get("training_cost", {}).get("training_flops")),
        "peak MiB": lambda record: _count(record.get("training_cost", {}).get("peak_mib")),
        "set KiB": lambda record: _count(record["set"]["bytes"] / 1024) if "bytes" in record["set"] else None,
    }
)
"""Headings, and what stands below them for the record of a score; None where it does not say."""

NOTE = (
    "labels are hard, soft where the set brings them, or a teacher's; balanced is the mean accuracy over classes; ECE "
    "the expected calibration error in 15 bins of confidence; images "
    "seen and training FLOPs are of one classifier (operations of matrix products and convolutions, a backward pass "
    "taken as two forward ones); members found is how well a threshold on the loss tells training images from test "
    "images (50 % of AUC, and 1 % at 1 % false positives, are luck), in brackets of classifiers trained on as many "
    "random real images, which are then the members; by likelihood ratio is the same where the loss of an image is put "
    "beside its loss by classifiers that it had no part in; FGSM, PGD and corrupted are accuracies on changed test "
    "images (within 8 / 255; the mean over six corruptions of ours); LRS and ARS are DD-Ranking's, times 100, by their "
    "definition on fractions (their code exponentiates percents, and its numbers differ); peak MiB is of the whole "
    "process; set KiB are the set's tensors as stored."
)
"""What the headings mean."""


def beyond(group: Group) -> list[list[str]]:
    """A row of headings, then one per entry that says anything of it; empty where none does. What none says is no
    column."""
    rows = [[entry.label, *_texts(entry)] for entry in group.entries]
    rows = [row for row in rows if set(row[1:]) != {_UNKNOWN}]
    if not rows:
        return []
    columns = [column for column in zip(["set", *_COLUMNS], *rows, strict=True) if set(column[1:]) != {_UNKNOWN}]
    return [list(row) for row in zip(*columns, strict=True)]


def confusions(entries: Sequence[Entry], most: int = 3) -> list[list[str]]:
    """The mistakes made most often: a row of headings, then one per entry whose score has a confusion matrix.

    Args:
        entries: the scores.
        most: how many mistakes of each.
    """
    rows = []
    for entry in entries:
        matrix = entry.record.get("answers", {}).get("confusion")
        if matrix is None:
            continue
        wrong = [
            (count / sum(row), k, j)
            for k, row in enumerate(matrix)
            for j, count in enumerate(row)
            if j != k and count > 0
        ]
        said = [f"{k} as {j}: {100 * share:.1f} %" for share, k, j in sorted(wrong, reverse=True)[:most]]
        rows.append([entry.label, "; ".join(said) or "none"])
    return [["set", "of a class's test images, by number of class"], *rows] if rows else []


def _texts(entry: Entry) -> list[str]:
    return [text(entry.record) or _UNKNOWN for text in _COLUMNS.values()]


def _percent(record: dict[str, Any], name: str) -> str | None:
    answers = record.get("answers")
    return None if answers is None else f"{100 * answers[name]:.1f}"


def _worst(record: dict[str, Any]) -> str | None:
    """The class that classifiers know least, by its number."""
    known = [(value, k) for k, value in enumerate(record.get("answers", {}).get("per_class", ())) if value is not None]
    return f"{100 * min(known)[0]:.1f} (class {min(known)[1]})" if known else None


def _attack(record: dict[str, Any], name: str, kind: str | None = None) -> str | None:
    """What an attack finds, by the loss or of another kind, and in brackets on classifiers of random real images."""
    sides = [record.get("membership"), record.get("membership", {}).get("random")]
    sides = [side if side is None or kind is None else side.get(kind) for side in sides]
    return None if None in sides else "{:.1f} ({:.1f})".format(*(100 * side[name] for side in sides))


def _ranked(record: dict[str, Any], name: str) -> str | None:
    """A score of DD-Ranking, times 100 as they are shown."""
    value = record.get("ddranking", {}).get(name)
    return None if value is None else f"{100 * value:.1f}"


def _robust(record: dict[str, Any], *names: str) -> str | None:
    """The mean accuracy on test images changed in these ways, as far as the score has them."""
    known = [record["robustness"][name] for name in names if name in record.get("robustness", {})]
    return f"{100 * sum(known) / len(known):.1f}" if known else None


def _count(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"
