"""The options of the report. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from core_dd.errors import require
from core_dd.options import Options, option


@dataclass(kw_only=True)
class ReportConfig(Options):
    """Turn scores into report.md and one self-contained report.html, and print the ranking.

    Scores may be given first, without a flag: gendd report runs/demo/00000 --out runs/report.
    """

    GROUP: ClassVar[str] = "report"
    RENAMED: ClassVar[Mapping[str, str]] = MappingProxyType({"runs": "curves"})

    scores: tuple[str, ...] = ()
    """scores.json files, folders that hold some, or glob patterns. Of a folder that holds stats.jsonl but no score, the
    curves are drawn."""
    curves: tuple[str, ...] = ()
    """Run folders (training, distilling) whose stats.jsonl are drawn as training curves."""
    out: str | None = option(None, group="run")
    """The folder to write; default: the next number under runs/report/."""
    title: str = "Dataset distillation report"
    """The heading."""
    per_class: int = 10
    """Images of each class in a picture, at most."""
    dry_run: bool = option(False, group="run")
    """Read and check everything, print the ranking, write nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.scores), "no scores given. Name scores.json files or folders: gendd report runs/demo/00000")
        require(self.per_class >= 1, f"per_class must be >= 1, got {self.per_class}.")
