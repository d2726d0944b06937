"""How long a distillation takes, over all calls of its run, and how long it will."""

import contextlib
import datetime
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from core_dd.sets.distilled import Cost
from matching_dd.options import MatchingConfig

TRIALS, PATIENCE_S = 5, 60.0
"""A forecast waits for so many periods of iterations, or, when they have taken that long, for the first of them."""


class Watch:
    """Counts what a distillation takes, and forecasts the rest.

    Args:
        config: of the run.
        earlier: what calls before took.
        now: a clock, in seconds.

    Attributes:
        stepping: seconds of iterations, which a limit counts.
        validating: seconds of validation.
    """

    def __init__(self, config: MatchingConfig, earlier: Cost, now: Callable[[], float] = time.perf_counter) -> None:
        self.config, self._now = config, now
        self.stepping = earlier.get("stepping", earlier["seconds"])
        self.validating = earlier.get("validating", 0.0)
        self._before, self._began = earlier["seconds"], now()
        self._said = self._warm = False
        self._timed: list[float] = []  # the iterations of this call, until they have told enough
        self._waited = 0.0  # for them, the first included

    def cost(self, iterations: int) -> Cost:
        """What so many iterations took, with all that was done between them, validation included."""
        cost: Cost = {
            "iterations": iterations,
            "seconds": round(self._before + self._now() - self._began, 3),
            "stepping": round(self.stepping, 3),
        }
        if self.config.val_fraction:
            cost["validating"] = round(self.validating, 3)
        return cost

    @contextlib.contextmanager
    def iteration(self, compiling: bool, read: bool = True) -> Iterator[Callable[[torch.Tensor], object]]:
        """Time an iteration, which waits for its loss where that matters or is `read` afterwards, lest a GPU's time
        pass uncounted; the first of a call that compiles is not counted."""
        began, timed = self._now(), read or not self._said or self.config.max_seconds is not None
        yield torch.Tensor.item if timed else lambda loss: None
        seconds, counted = self._now() - began, self._warm or not compiling
        self._warm = True
        if counted:
            self.stepping += seconds
        if not self._said:
            self._waited += seconds
            self._timed += [seconds] * counted

    @contextlib.contextmanager
    def validation(self) -> Iterator[None]:
        """Time a validation."""
        began = self._now()
        yield
        self.validating += self._now() - began

    def part(self) -> float:
        """The part of the time limit that is used up; 0 without one."""
        return self.stepping / self.config.max_seconds if self.config.max_seconds else 0.0

    def left(self) -> float | None:
        """Seconds until the limit; None without one."""
        limit = self.config.max_seconds
        return None if limit is None else limit - self.stepping

    def over(self) -> bool:
        """Whether the limit is reached."""
        left = self.left()
        return left is not None and left <= 0

    def forecast(self, done: int) -> str | None:
        """Once a call, when a few iterations or a minute of them have told: how long the others will take."""
        each = None if self._said else settled(self._timed, self._waited, self.config.period)
        if each is None or done == self.config.iterations:
            return None
        self._said = True
        seconds, limit = each * (self.config.iterations - done), self.left()
        by = "" if limit is None or limit > seconds else f", of which max_seconds leaves {interval(limit)}"
        return f"{each:.3g} s an iteration: about {interval(seconds)} for the {self.config.iterations - done} to go{by}"


def settled(seconds: Sequence[float], waited: float, period: int) -> float | None:
    """What an iteration takes, by some that followed each other; None until they tell.

    Args:
        seconds: of each, without one that compiled.
        waited: seconds for all of them, with one that compiled.
        period: after how many their cost comes again; see `MatchingConfig.period`.

    Returns:
        The median over whole periods of the mean within one.
    """
    whole = [statistics.fmean(seconds[i : i + period]) for i in range(0, len(seconds) - period + 1, period)]
    enough = len(whole) >= TRIALS or (whole and waited >= PATIENCE_S)
    return statistics.median(whole) if enough else None


def interval(seconds: float) -> str:
    """Seconds as hours:minutes:seconds."""
    return str(datetime.timedelta(seconds=round(seconds)))
