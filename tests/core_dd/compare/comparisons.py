"""A comparison on digits that takes seconds, and its command."""

import csv
import json
from pathlib import Path
from typing import Any

import yaml

from core_dd.compare.compare import main

TINY = {"network": "convnet1_w8", "iterations": 4, "batch_real": 16, "compile": False, "checkpoint_every": 2}
"""Options of a distillation in a fraction of a second."""
SMALL: dict[str, Any] = {
    "producers": {"Random": {"coreset": "random"}, "DM": {"method": "dm", **TINY}},
    "data": "digits",
    "ipc": [1, 2],
    "seeds": 2,
    "networks": "convnet1_w8",
    "protocols": [{"protocol": "quick", "iterations": 3}],
    "judge": {"classifiers": 2},
    "real": False,
}


def write(name: str = "small.yaml", **changed: Any) -> Path:
    """A file of `SMALL`, changed."""
    Path(name).write_text(yaml.safe_dump(json.loads(json.dumps({**SMALL, **changed})), sort_keys=False))
    return Path(name)


def compare(file: Path | str, *flags: str) -> int:
    """The exit status of the command, without workers and figures unless flags ask for some."""
    own = [] if any(flag.startswith("--workers") for flag in flags) else ["--workers=0"]
    own += [] if "--figures" in flags else ["--no_figures"]
    try:
        main([str(file), "--device=cpu", "--out=out", *own, *flags])
    except SystemExit as end:
        return end.code
    return 0


def files(pattern: str) -> dict[str, int]:
    """When each file of the folder was written, by its path."""
    return {str(path): path.stat().st_mtime_ns for path in Path("out").glob(pattern)}


def accuracies() -> dict[str, list[float]]:
    """Of every score of the folder, by its folder's name without the key."""
    from core_dd.records import read

    found = {path.parent.name: read(path)["accuracies"] for path in Path("out").glob("scores/*/scores.json")}
    return {name.rpartition("-")[0]: own for name, own in found.items()}


def tables(folder: str) -> dict[str, list[str]]:
    """The lines of the tables in a comparison's folder, but for the seconds that sets took."""
    found = {name: Path(folder, name).read_text().splitlines() for name in ("table.md", "table.tex")}
    rows = csv.DictReader(Path(folder, "table.csv").read_text().splitlines())
    return {**found, "table.csv": [str({key: row[key] for key in row if key != "seconds"}) for row in rows]}
