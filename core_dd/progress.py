"""How far a command is, on stderr: a bar on a terminal, a line now and then anywhere else."""

import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from core_dd import processes

_EVERY_S, _EVERY_PART = 5.0, 0.02
"""The least time between lines: so many seconds, and this part of the time that has passed."""


class Progress:
    """How many of the steps are done, how fast they are and how long the rest takes, on the first process.

    Args:
        what: is done.
        total: steps in all; None: as many as the time allows.
        done: of them before.
        unit: what a step is called, in the singular.
        leave: whether the bar stays when it is closed.

    Attributes:
        note: what else to show, such as the loss.
    """

    def __init__(self, what: str, total: int | None, done: int = 0, *, unit: str = "step", leave: bool = True) -> None:
        self.what, self.total, self.done, self.unit = what, total, done, unit
        self.began = self.spoke = time.monotonic()
        self.first, self.note = done, ""
        self.ends_in: float | None = None
        lines = not (sys.stderr is not None and sys.stderr.isatty())
        self.lines = lines and processes.is_first()
        self.bar = _Bar(
            desc=what,
            total=total,
            initial=done,
            unit=unit,
            leave=leave,
            disable=lines or not processes.is_first(),
        )
        self.bar.progress = self

    def update(self, count: int = 1, *, ends_in: float | None = None) -> None:
        """So many steps more are done.

        Args:
            count: how many.
            ends_in: seconds after which a time limit ends this, if there is one.
        """
        self.done, self.ends_in = self.done + count, ends_in
        self.bar.set_postfix_str(self.note, refresh=False)
        self.bar.update(count)
        now = time.monotonic()
        if self.lines and now - self.spoke >= max(_EVERY_S, _EVERY_PART * (now - self.began)):
            self.spoke = now
            print(self, file=sys.stderr, flush=True)

    def rate(self) -> float:
        """Steps per second so far, of this process."""
        return (self.done - self.first) / max(time.monotonic() - self.began, 1e-9)

    def expected(self) -> int | None:
        """How many steps there will have been at the end, be that by their number or by time; None: not known yet."""
        if self.ends_in is None or self.done == self.first:
            return self.total
        by_time = self.done + int(max(self.ends_in, 0.0) * self.rate())
        return by_time if self.total is None else min(self.total, by_time)

    def __str__(self) -> str:
        expected, rate = self.expected(), self.rate()
        of = f" of {expected}" if expected is not None else ""
        left = f", {tqdm.format_interval((expected - self.done) / rate)} left" if expected is not None and rate else ""
        speed = f"{rate:.3g} {self.unit}/s" if rate >= 1 or not rate else f"{1 / rate:.3g} s/{self.unit}"
        return f"{self.what}: {self.unit} {self.done}{of}, {speed}{left}" + (f", {self.note}" if self.note else "")

    def close(self) -> None:
        """The bar has its end."""
        self.bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def steps(what: str, total: int, first: int = 0, **options: Any) -> Iterator[int]:
    """The numbers of the steps from `first` to `total` (exclusive), whose progress is shown; options: of `Progress`."""
    with Progress(what, total, first, **options) as progress:
        for step in range(first, total):
            yield step
            progress.update()


class _Bar(tqdm):
    """tqdm's bar, its end where it is expected."""

    progress: Progress | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        facts = super().format_dict
        return facts | {"total": self.progress.expected()} if self.progress else facts
