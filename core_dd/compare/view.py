"""How far a comparison is: a dashboard on a terminal, lines now and then anywhere else; and the same once, from its
folder alone. No torch."""

import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NotRequired, Required, TypedDict

from msgspec import Meta
from rich.console import Console
from rich.live import Live

from core_dd import files, records
from core_dd.compare.executors import Executor
from core_dd.compare.grid import Cell, Plan
from core_dd.compare.jobs import DONE, Order, read_done
from core_dd.compare.pace import Pace
from core_dd.compare.screen import Best, Standing, line, screen
from core_dd.errors import InputError, require
from core_dd.locks import require_free
from core_dd.notes import printable

PLAN, STATE, SCORES = "plan.json", "state.json", "scores.json"
"""What a comparison keeps in its folder of what is to be done, and of what is going on; and a score in its own."""
SAVED_EVERY_S = 2.0
"""The least time between two writings of the state."""
SAID_EVERY_S, SAID_EVERY_PART = 5.0, 0.02
"""The least time between two lines: so many seconds, and this part of the time that has passed."""
DRAWN_PER_S = 4
"""How often the dashboard is drawn."""


class CellPlace(TypedDict):
    """A cell's values by the axes."""

    producer: str
    data: str
    ipc: int | None
    seed: int
    network: str
    protocol: str


Moment = Annotated[float, Meta(ge=0, le=1e11)]
"""Seconds since the epoch."""


class Planned(TypedDict):
    """Of a job in plan.json; paths are from the comparison's folder."""

    kind: str
    title: str
    folder: str
    log: str
    cells: list[str]
    places: NotRequired[list[CellPlace]]
    """Of the cells, by the axes; of those whose sets have the ipc of their column."""
    wanted: NotRequired[bool]
    """Whether it was asked for."""


class State(TypedDict):
    """What state.json holds, as `Standing` does, but by the keys of jobs."""

    by: str
    began: Moment
    ends: Moment | None
    unknown: NotRequired[Annotated[int, Meta(ge=0)]]
    running: dict[str, Moment]
    failed: dict[str, str]
    blocked: dict[str, str]


class _Mean(TypedDict, total=False):
    """Of scores.json, what is shown."""

    mean: Required[Annotated[float, Meta(ge=0, le=1)]]


class View:
    """Shows what is done, what runs since when, what failed, how long the rest takes, and the best scores so far.

    A context, which ends what is shown.

    Args:
        plan: what is to be done.
        out: the comparison's folder, where the state is kept for `status`.
        executor: who does it.
        console: where it is shown; default: stderr.
    """

    def __init__(self, plan: Plan, out: Path, executor: Executor, console: Console | None = None) -> None:
        self._plan, self._out, self._executor = plan, out, executor
        self._places = write_plan(plan, out)
        self._undone = {order.key for order in plan.undone}
        self._left = Counter(order.like for order in plan.undone)
        done = [order for order in plan.orders.values() if order.key not in self._undone and order.done]
        self._kinds = {order.kind: [0, 0] for order in plan.wanted.values()}
        for order in plan.wanted.values():
            self._kinds[order.kind][1] += 1
        self._pace, self._best = Pace(done), Best()
        for order in done:
            self._count(order)
        self.failed: dict[str, str] = {}
        self.blocked: dict[str, str] = {}
        self._running: dict[str, float] = {}
        self._began = self._spoke = time.time()
        self._taken = self._written = 0.0
        # stderr as it is now: a job that is done in this process sends it to its log.
        self._console = console or Console(file=sys.stderr)
        self._standing = self.standing()
        self._live = Live(
            get_renderable=lambda: screen(self._standing), console=self._console, refresh_per_second=DRAWN_PER_S
        )
        self._lines = not self._console.is_terminal or self._console.is_dumb_terminal

    def __enter__(self) -> "View":
        if not self._lines:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._show(last=True)
        except InputError:
            if error is None:  # else the message that matters is the block's
                raise
        finally:
            self._live.stop()

    def given(self, order: Order) -> None:
        """An order is being done."""
        self._running[order.key] = time.time()
        self._show()

    def ended(self, order: Order, error: str | None = None) -> None:
        """An order is done, or failed."""
        del self._running[order.key]
        if error is None:
            self._pace.learn(order)
            self._count(order)
        else:
            self.failed[order.key] = error
            self._say(f"failed: {order.title}: {error} (log: {order.log})")
        self._settle(order)

    def cannot(self, order: Order, cause: str) -> None:
        """An order cannot be done, because the one with the key `cause` failed."""
        if order.key not in self.blocked:
            self.blocked[order.key] = cause
            self._settle(order)

    def tick(self, waiting: Iterable[str] = ()) -> None:
        """Some time has passed, and of what was given out these keys still wait to begin."""
        waiting = set(waiting)
        for key, since in self._running.items():
            if key in waiting:
                self._running[key] = 0.0
            elif not since:
                self._running[key] = time.time()
        self._show()

    def standing(self) -> Standing:
        """How far it is now."""
        orders, (left, unknown) = self._plan.orders, self._pace.seconds(self._left)
        for key, since in self._running.items():  # of which a part is done
            alike = self._pace.alike(orders[key]) if since else None
            left -= min(time.time() - since, alike[1]) if alike else 0.0
        at_once = max(1, min(self._executor.capacity, self._left.total()))
        return Standing(
            folder=str(self._out),
            by=self._executor.said,
            kinds={kind: (done, of) for kind, (done, of) in self._kinds.items()},
            running=[(orders[key].title, since) for key, since in self._running.items()],
            failed=[(orders[key].title, why, orders[key].log) for key, why in self.failed.items()],
            blocked=len(self.blocked),
            began=self._began,
            ends=time.time() + max(left, 0.0) / at_once if self._left.total() > unknown else None,
            unknown=unknown,
            best=self._best.found(),
        )

    def _count(self, order: Order) -> None:
        """An order is among the finished ones; one that is not asked for is only compared with the others."""
        if order.key in self._plan.wanted:
            self._kinds[order.kind][0] += 1
        for place in self._places.get(order.key, ()):
            self._best.learn(place, _mean(Path(order.folder)))

    def _settle(self, order: Order) -> None:
        """An order needs no more work."""
        self._undone.discard(order.key)
        self._left[order.like] -= 1
        self._show()

    def _show(self, last: bool = False) -> None:
        """What is seen, and kept for `status`, where it is time for that."""
        now = time.time()
        if last or now - self._taken >= 1 / DRAWN_PER_S:
            self._taken, self._standing = now, self.standing()
        if last or now - self._written >= SAVED_EVERY_S:
            self._written = now
            state: State = {
                "by": self._standing.by,
                "began": self._began,
                "ends": self._standing.ends,
                "unknown": self._standing.unknown,
                "running": self._running,
                "failed": self.failed,
                "blocked": self.blocked,
            }
            files.write_json(self._out / STATE, state)
        if self._lines and (last or now - self._spoke >= max(SAID_EVERY_S, SAID_EVERY_PART * (now - self._began))):
            self._spoke = now
            self._say(line(self._standing))

    def _say(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def write_plan(plan: Plan, out: Path) -> dict[str, list[dict[str, Any]]]:
    """Keep what is to be done, for `status`; returns the places of cells by the keys of their scores."""
    cells: dict[str, list[Cell]] = {}
    for cell, key in plan.cells:
        cells.setdefault(key, []).append(cell)
    places: dict[str, list[Any]] = {
        key: [cell.place for cell in own if cell.made is None or cell.made.of_ipc] for key, own in cells.items()
    }
    listing: dict[str, Planned] = {
        key: {
            "kind": order.kind,
            "title": order.title,
            "folder": str(Path(order.folder).relative_to(out)),
            "log": str(Path(order.log).relative_to(out)),
            "cells": [cell.name for cell in cells.get(key, [])],
            "places": places.get(key, []),
            "wanted": key in plan.wanted,
        }
        for key, order in plan.orders.items()
    }
    files.write_json(out / PLAN, listing)
    return places


def status(out: Path) -> Standing:
    """How far the comparison in a folder is, from its files alone.

    Raises:
        InputError: if there is none.
    """
    require((out / PLAN).is_file(), f"no comparison has begun in {out}. Name its folder: --out FOLDER.")
    again = "Start the comparison again."
    plan: dict[str, Planned] = records.read(out / PLAN, dict[str, Planned], again)
    places = {key: out / own["folder"] for key, own in plan.items()}
    done = {key for key, place in places.items() if (place / DONE).is_file() and read_done(place)["key"] == key}
    wanted = {key: own for key, own in plan.items() if own.get("wanted", True)}
    kinds = {own["kind"]: (0, 0) for own in wanted.values()}
    best = Best()
    for key, own in wanted.items():
        finished, of = kinds[own["kind"]]
        kinds[own["kind"]] = (finished + (key in done), of + 1)
    for key, own in plan.items():
        for place in own.get("places", []) if key in done else ():
            best.learn(place, _mean(out / own["folder"]))
    state: State = {"by": "", "began": 0.0, "ends": None, "running": {}, "failed": {}, "blocked": {}}
    if (out / STATE).is_file():
        state = records.read(out / STATE, State, again)
    at_work, undone = _in_use(out), plan.keys() - done
    return Standing(
        folder=str(out),
        by=state["by"] if at_work else "",
        kinds=kinds,
        running=[(plan[key]["title"], since) for key, since in state["running"].items() if at_work and key in undone],
        failed=[
            (plan[key]["title"], why, str(out / plan[key]["log"]))
            for key, why in state["failed"].items()
            if key in undone
        ],
        blocked=len(state["blocked"].keys() & undone),
        began=state["began"] if at_work else None,
        ends=state["ends"] if at_work else None,
        unknown=state.get("unknown", 0) if at_work else 0,
        best=best.found(),
    )


def _mean(folder: Path) -> float:
    """The mean accuracy of the score in a folder."""
    return records.read(folder / SCORES, _Mean, "Remove the folder, to judge again.")["mean"]


def _in_use(out: Path) -> bool:
    """Whether a process has the folder."""
    try:
        require_free(out)
    except InputError:
        return True
    return False
