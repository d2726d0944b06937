"""Several networks judge one set: a score each, in a file of its own, and a table of all."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from core_dd import records
from core_dd.config import to_dict
from core_dd.data.images import ImageData
from core_dd.errors import require
from core_dd.judge.options import EvaluateConfig
from core_dd.judge.scores import read_score
from core_dd.sets.distilled import DistilledSet

_ELSEWHERE = frozenset({"device", "out", "dry_run", "set"})
"""Fields of the config that are no part of what a score says; a set is known by its hash."""


def place_of(out: Path, network: str) -> Path:
    """The file of one network's score: scores-vgg11.json beside scores.json."""
    return out.with_name(f"{out.stem}-{re.sub(r'[^A-Za-z0-9_.-]', '-', network)}{out.suffix}")


def files_in(folder: Path) -> list[Path]:
    """The scores in a folder, searched to the bottom: scores.json, and those of several networks."""
    return sorted([*folder.rglob("scores.json"), *folder.rglob("scores-*.json")])


def finished(place: Path, config: EvaluateConfig, dset: DistilledSet, data: ImageData) -> dict[str, Any] | None:
    """The score that is there already, by the same settings; None where there is none.

    Raises:
        InputError: if the file holds no score, or one of another set, data or settings.
    """
    if not place.exists():
        return None
    read_score(place)
    record = records.read(place, dict[str, Any])
    usual = {own.name: own.default for own in fields(config)}  # of options that there were not yet
    was, now = usual | (record.get("config") or {}), to_dict(config)
    others = [f"{name} {was.get(name)}" for name in now.keys() - _ELSEWHERE if was.get(name) != now[name]]
    others += ["another set"] if record["set"]["hash"] != dset.digest() else []
    known = {name: record["set"].get(name, own) for name, own in dset.trained_as.items()}  # older scores say less
    others += [f"the set's {name} {known[name]}" for name, own in dset.trained_as.items() if known[name] != own]
    others += ["other data"] if record["data"]["fingerprint"] != data.fingerprint else []
    require(
        not others,
        f"{place} holds a score of other settings ({', '.join(sorted(others))}). Choose another --out, or remove it.",
    )
    return record


_HEADINGS = ("network", "parameters", "accuracy %", "95 % interval", "n")


def table(scores: Sequence[Mapping[str, Any]]) -> str:
    """Scores of one set as aligned text, a line per network in their order; † marks one at chance."""
    rows = [_HEADINGS]
    for record in scores:
        ends = record["ci95"] or ()
        rows.append(
            (
                str(record["network"]),
                f"{record['parameters']:,}" if "parameters" in record else "-",
                f"{100 * record['mean']:.2f} ± {100 * record['std']:.2f}{'†' if record.get('at_chance') else ''}",
                " to ".join(f"{100 * end:.2f}" for end in ends) or "-",
                str(len(record["accuracies"])),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    return "\n".join(lines)
