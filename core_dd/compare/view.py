"""How far a comparison is: one line that is kept up on a terminal, lines now and then anywhere else; and its status
from its folder alone. No torch."""

import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from tqdm import tqdm

from core_dd import files, records
from core_dd.compare.grid import Cell, Plan
from core_dd.compare.jobs import DONE, Order, read_done
from core_dd.errors import InputError, require
from core_dd.judge.options import REAL
from core_dd.judge.scores import read_score
from core_dd.locks import require_free
from core_dd.notes import printable

PLAN, STATE, SCORES = "plan.json", "state.json", "scores.json"
"""What a comparison keeps in its folder of what is to be done, and of what is going on; and a score in its own."""
SAVED_EVERY_S = 2.0
"""The least time between two writings of the state."""
SAID_EVERY_S, SAID_EVERY_PART = 5.0, 0.02
"""The least time between two lines: so many seconds, and this part of the time that has passed."""


class Planned(TypedDict):
    """Of a job in plan.json; paths are from the comparison's folder."""

    kind: str
    title: str
    folder: str
    log: str
    cells: list[str]


class State(TypedDict):
    """What state.json holds: by the keys of jobs, the titles of those that were running, and why others failed."""

    running: dict[str, str]
    failed: dict[str, str]
    blocked: dict[str, str]
    left_s: float | None


class View:
    """Shows how many scores are done, what runs and failed, how long the rest takes, and the best score so far.

    Args:
        plan: what is to be done.
        out: the comparison's folder, where the state is kept for `status`.
        workers: how many work at once.
    """

    def __init__(self, plan: Plan, out: Path, workers: int) -> None:
        self._out, self._workers = out, workers
        self._cells: dict[str, Cell] = {key: cell for cell, key in reversed(plan.cells)}
        self._undone = {order.key: order for order in plan.undone}
        self._pace = Pace(order for order in plan.orders.values() if order.done)
        self._best: tuple[float, str] | None = None
        self.failed: dict[str, str] = {}
        self.blocked: dict[str, str] = {}
        self._running: dict[str, str] = {}
        self._began = self._spoke = time.monotonic()
        self._written = 0.0
        self._lines = not (sys.stderr is not None and sys.stderr.isatty())
        self._bar = tqdm(
            total=len(self._cells),
            initial=len(self._cells) - sum(key in self._undone for key in self._cells),
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} scores [{elapsed}{postfix}]",
            disable=self._lines,
        )
        self._done = len(self._cells) - sum(key in self._undone for key in self._cells)
        write_plan(plan, out)

    def started(self, order: Order) -> None:
        """An order is being done."""
        self._running[order.key] = order.title
        self._show()

    def ended(self, order: Order, error: str | None = None) -> None:
        """An order is done, or failed."""
        del self._running[order.key]
        if error is None:
            self._pace.learn(order)
            self._note_best(order)
        else:
            self.failed[order.key] = error
            self._say(f"failed: {order.title}: {error} (log: {order.log})")
        self._settle(order)

    def cannot(self, order: Order, cause: str) -> None:
        """An order cannot be done, because the one with the key `cause` failed."""
        self.blocked[order.key] = cause
        self._settle(order)

    def tick(self) -> None:
        """Some time has passed."""
        self._show()

    def close(self) -> None:
        """Nothing is to be done any more."""
        self._show(last=True)
        self._bar.close()

    def left(self) -> float | None:
        """Seconds that the rest takes, where that can be told."""
        expected = [self._pace.seconds(order) for order in self._undone.values()]
        if any(seconds is None for seconds in expected):
            return None
        return sum(expected) / self._workers

    def __str__(self) -> str:
        left = self.left()
        parts = [f"{self._done} of {len(self._cells)} scores", f"{len(self._running)} running"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if left is not None and self._undone:
            parts.append(f"about {tqdm.format_interval(left)} left")
        if self._best is not None:
            parts.append(f"best {100 * self._best[0]:.1f} % by {self._best[1]}")
        return "compare: " + ", ".join(parts)

    def _settle(self, order: Order) -> None:
        """An order needs no more work."""
        self._undone.pop(order.key, None)
        if order.key in self._cells and order.key not in self.failed and order.key not in self.blocked:
            self._done += 1
            self._bar.update()
        self._show()

    def _note_best(self, order: Order) -> None:
        cell = self._cells.get(order.key)
        if cell is not None and cell.producer != REAL:
            mean = read_score(Path(order.folder) / SCORES)["mean"]
            if self._best is None or mean > self._best[0]:
                self._best = (mean, cell.name)

    def _show(self, last: bool = False) -> None:
        """What is seen, and kept for `status`, where it is time for that."""
        now = time.monotonic()
        if last or now - self._written >= SAVED_EVERY_S:
            self._written = now
            state = {"running": self._running, "failed": self.failed, "blocked": self.blocked, "left_s": self.left()}
            files.write_json(self._out / STATE, state)
        if not self._lines:
            self._bar.set_postfix_str(str(self).partition(" scores, ")[2])
        elif last or now - self._spoke >= max(SAID_EVERY_S, SAID_EVERY_PART * (now - self._began)):
            self._spoke = now
            self._say(str(self))

    def _say(self, text: str) -> None:
        tqdm.write(printable(text), file=sys.stderr)


class Pace:
    """What finished work took, for what is still to come.

    Args:
        orders: finished ones.
    """

    def __init__(self, orders: Iterable[Order]) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._peaks: dict[str, list[float]] = {}
        for order in orders:
            self.learn(order)

    def learn(self, order: Order) -> None:
        """Take note of an order that is done."""
        done = read_done(order.folder)
        for name in (order.like, order.kind):
            self._seconds.setdefault(name, []).append(done["seconds"])
            self._peaks.setdefault(name, []).append(done["peak_mib"])

    def seconds(self, order: Order) -> float | None:
        """What an order takes: the median of its like, else of its kind; None where none is finished."""
        found = self._seconds.get(order.like) or self._seconds.get(order.kind)
        return statistics.median(found) if found else None

    def alike(self, order: Order) -> tuple[int, float, float] | None:
        """How many of its like are finished, the median of their seconds and the largest of their memory, in MiB."""
        found = self._seconds.get(order.like)
        return (len(found), statistics.median(found), max(self._peaks[order.like])) if found else None

    @property
    def peak_mib(self) -> float | None:
        """The most memory that anything took."""
        return max((peak for peaks in self._peaks.values() for peak in peaks), default=None)


def write_plan(plan: Plan, out: Path) -> None:
    """Keep what is to be done, for `status`."""
    cells: dict[str, list[str]] = {}
    for cell, key in plan.cells:
        cells.setdefault(key, []).append(cell.name)
    listing = {
        key: {
            "kind": order.kind,
            "title": order.title,
            "folder": str(Path(order.folder).relative_to(out)),
            "log": str(Path(order.log).relative_to(out)),
            "cells": cells.get(key, []),
        }
        for key, order in plan.orders.items()
    }
    files.write_json(out / PLAN, listing)


def status(out: Path) -> str:
    """How far the comparison in a folder is, in words, from its files alone.

    Raises:
        InputError: if there is none.
    """
    require((out / PLAN).is_file(), f"no comparison has begun in {out}. Name its folder: --out FOLDER.")
    plan = records.read(out / PLAN, dict[str, Planned], "Start the comparison again.")
    state: State = {"running": {}, "failed": {}, "blocked": {}, "left_s": None}
    if (out / STATE).is_file():
        state = records.read(out / STATE, State, "Start the comparison again.")
    done = {key for key, own in plan.items() if (out / own["folder"] / DONE).is_file()}
    lines = [f"{out}: {'running' if _in_use(out) else 'not running'}"]
    for kind in dict.fromkeys(own["kind"] for own in plan.values()):
        keys = [key for key, own in plan.items() if own["kind"] == kind]
        lines.append(f"  {kind:<10} {sum(key in done for key in keys):>5} of {len(keys)} done")
    if _in_use(out):
        lines += [f"  running: {title}" for key, title in state["running"].items() if key not in done]
        left = state["left_s"]
        lines += [] if left is None else [f"  about {tqdm.format_interval(left)} left"]
    for key, why in state["failed"].items():
        if key in plan and key not in done:
            lines.append(f"  failed: {plan[key]['title']}: {why} (log: {out / plan[key]['log']})")
    scored = [(out / own["folder"], own["cells"][0]) for key, own in plan.items() if key in done and own["cells"]]
    means = [(read_score(folder / SCORES)["mean"], name) for folder, name in scored if not name.startswith(f"{REAL}/")]
    lines += [f"  best so far: {100 * mean:.1f} % by {name}" for mean, name in sorted(means)[-1:]]
    return "\n".join(lines)


def _in_use(out: Path) -> bool:
    """Whether a process has the folder."""
    try:
        require_free(out)
    except InputError:
        return True
    return False
