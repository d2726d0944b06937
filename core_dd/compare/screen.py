"""What people see of a comparison that goes on: a dashboard, or a line. No torch."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from core_dd.compare.pace import duration
from core_dd.judge.options import REAL
from core_dd.notes import printable

SCORE = "score"
"""The kind of jobs that fill cells."""
ROWS = 12
"""Of what runs, or failed, at most so many are shown."""
WIDTH = 120
"""The letters of a line where there is no terminal."""
BAR = 30
"""The width of a bar, in letters."""


class Best:
    """The best producer so far of every column of every table, by the mean over its sets that are judged."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[int, dict[str, tuple[float, int]]]] = {}

    def learn(self, place: Mapping[str, Any], mean: float) -> None:
        """A cell is judged; the real training set is never best.

        Args:
            place: by the axes.
            mean: accuracy, 0..1.
        """
        if place["producer"] != REAL:
            table = self._sums.setdefault("{data}, {network}, protocol {protocol}".format(**place), {})
            column = table.setdefault(place["ipc"], {})
            total, count = column.get(place["producer"], (0.0, 0))
            column[place["producer"]] = (total + mean, count + 1)

    def found(self) -> dict[str, dict[int, str]]:
        """By tables and by images per class, the best producer with its accuracy in per cent: "DM 45.2"."""
        found: dict[str, dict[int, str]] = {}
        for title, table in self._sums.items():
            for ipc, column in sorted(table.items()):
                mean, name = max((total / count, name) for name, (total, count) in column.items())
                found.setdefault(title, {})[ipc] = f"{name} {100 * mean:.1f}"
        return found


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a comparison is. Times are seconds since the epoch.

    Attributes:
        folder: its folder.
        by: who works on it; empty: nobody.
        kinds: of each kind of job, how many are done, and how many there are.
        running: titles, with since when; 0: waits to begin.
        failed: titles, why, and logs.
        blocked: how many jobs cannot be done for that.
        began: when somebody began to work on it, or went on.
        ends: when it is expected to be done, but for `unknown`; None: not known.
        unknown: how many jobs are left of which nothing tells how long they take.
        best: see `Best.found`.
    """

    folder: str
    by: str
    kinds: Mapping[str, tuple[int, int]]
    running: Sequence[tuple[str, float]]
    failed: Sequence[tuple[str, str, str]]
    blocked: int
    began: float | None
    ends: float | None
    unknown: int = 0
    best: Mapping[str, Mapping[int, str]]

    @property
    def waiting(self) -> int:
        """How many jobs were given out, and have not begun."""
        return sum(not since for _, since in self.running)


def screen(standing: Standing) -> RenderableType:
    """All of it, the times as of now."""
    parts: list[RenderableType] = [_head(standing), _kinds(standing.kinds)]
    if standing.running:
        parts += [Text("running"), _indented(_running(standing))]
    if standing.failed:
        parts += [Text("failed"), _indented(_failed(standing))]
    if standing.best:
        parts += [Text("best so far"), _indented(_best(standing.best))]
    return Group(*parts)


def show(standing: Standing) -> None:
    """Print it, once, on stdout."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(screen(standing), highlight=False)


def line(standing: Standing) -> str:
    """In a line, how far it is."""
    done, of = standing.kinds.get(SCORE, (0, 0))
    parts = [f"{done} of {of} scores", f"{len(standing.running) - standing.waiting} running"]
    parts += [f"{standing.waiting} waiting"] * bool(standing.waiting)
    parts += [f"{len(standing.failed)} failed"] * bool(standing.failed)
    parts += _left(standing)
    if len(standing.best) == 1:
        [columns] = standing.best.values()
        parts.append("best " + ", ".join(f"{own} at ipc {ipc}" for ipc, own in columns.items()))
    return "compare: " + ", ".join(parts)


def _head(standing: Standing) -> Text:
    """Where, by whom, since when, and how long still."""
    parts = [standing.folder, standing.by or "not running"]
    parts += [] if standing.began is None else [f"{duration(time.time() - standing.began)} so far"]
    return Text(", ".join(map(printable, parts + _left(standing))), style="bold")


def _left(standing: Standing) -> list[str]:
    """How long the rest takes, and how many jobs are not in that."""
    seconds = 0.0 if standing.ends is None else max(standing.ends - time.time(), 0)
    known = seconds >= 1 or (standing.ends is not None and not standing.unknown)
    parts = [f"about {duration(seconds)}"] * known
    parts += [f"{standing.unknown} job{'s' * (standing.unknown > 1)} of unknown length"] * bool(standing.unknown)
    return [f"{' and '.join(parts)} left"] * bool(parts)


def _kinds(kinds: Mapping[str, tuple[int, int]]) -> Table:
    """How many jobs of each kind are done."""
    table = _table()
    for kind, (done, of) in kinds.items():
        table.add_row(
            Text(printable(kind)), ProgressBar(total=max(of, 1), completed=done, width=BAR), f"{done} of {of} done"
        )
    return table


def _running(standing: Standing) -> Table:
    """What runs, and since when."""
    table, now = _table(), time.time()
    for title, since in sorted(standing.running, key=lambda own: own[1] or now)[:ROWS]:
        table.add_row(Text(printable(title)), duration(now - since) if since else "waits")
    return _and_more(table, len(standing.running))


def _failed(standing: Standing) -> Table:
    """What failed last, and why."""
    table = _table()
    for title, why, log in standing.failed[-ROWS:]:
        table.add_row(Text(printable(f"{title}: {why} (log: {log})"), style="red"))
    _and_more(table, len(standing.failed))
    if standing.blocked:
        table.add_row(f"for that, {standing.blocked} could not be done")
    return table


def _best(best: Mapping[str, Mapping[int, str]]) -> Table:
    """The best of every table, by images per class."""
    columns = sorted({ipc for found in best.values() for ipc in found})
    table = Table("", *(f"ipc {ipc}" for ipc in columns), box=None, pad_edge=False, header_style="")
    for title, found in best.items():
        table.add_row(*(Text(printable(text)) for text in (title, *(found.get(ipc, "") for ipc in columns))))
    return table


def _table() -> Table:
    return Table(box=None, show_header=False, pad_edge=False)


def _and_more(table: Table, number: int) -> Table:
    if number > ROWS:
        table.add_row(f"and {number - ROWS} more")
    return table


def _indented(table: Table) -> Padding:
    return Padding(table, (0, 0, 0, 2))
