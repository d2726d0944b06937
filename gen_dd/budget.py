"""Drawing inside a wall-clock budget: how long a batch will take, when to stop, and how processes share the work."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from core_dd.errors import require
from gen_dd.solvers import NoiseOf

FINISH_S = 0.35
"""Seconds kept for the last writes: the index and the picture."""
MARGIN = 1.1
"""A batch is begun only if the time left is this many times what it is expected to take."""


class TimeUp(Exception):
    """A batch was given up because it would not have ended in time."""


def within(seconds: float, steps: int, noise_of: NoiseOf) -> NoiseOf:
    """`noise_of`, which raises `TimeUp` once its calls so far show that `steps` of them take more than `seconds`."""
    began, done = time.perf_counter(), 0

    def watched(x: Tensor, timestep: Tensor) -> Tensor:
        nonlocal done
        if (time.perf_counter() - began) * max(1.0, steps / max(done, 2)) > seconds:
            raise TimeUp
        done += 1
        return noise_of(x, timestep)

    return watched if seconds < math.inf else noise_of


class Clock:
    """A budget counted from the start of the command.

    Args:
        budget: seconds, or None for no limit.
        start: when the count began, as `time.time()`.
    """

    def __init__(self, budget: float | None, start: float) -> None:
        self.budget, self.start = budget, start
        self.parts: dict[str, float] = {}
        self._mark = start

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.time() - self.start

    def left(self) -> float:
        """Seconds for drawing: what is left of the budget, less what the last writes need."""
        return math.inf if self.budget is None else self.budget - self.elapsed() - FINISH_S

    def book(self, what: str) -> None:
        """Account the time since the last call for `what`."""
        now = time.time()
        self.parts[what] = self.parts.get(what, 0.0) + now - self._mark
        self._mark = now


class Pace:
    """What a batch is expected to take: linear in its size, corrected by every batch drawn.

    Args:
        one, full: seconds for one image and for `batch` images.
        batch: the largest batch.
    """

    def __init__(self, one: float, full: float, batch: int) -> None:
        self.one, self.full, self.batch = one, max(one, full), batch

    def seconds(self, images: int) -> float:
        """What a batch of so many images is expected to take."""
        share = (images - 1) / (self.batch - 1) if self.batch > 1 else 1.0
        return self.one + (self.full - self.one) * share

    def learn(self, images: int, seconds: float) -> None:
        """Correct the expectation by what a batch took: at once when it was slower, by half when it was faster."""
        ratio = seconds / self.seconds(images)
        ratio = ratio if ratio > 1 else ratio**0.5
        self.one, self.full = self.one * ratio, self.full * ratio

    def fitting(self, seconds: float) -> int:
        """The largest batch expected to end within `seconds` with a margin: 0 if not even one image does."""
        low, high = 0, self.batch
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if MARGIN * self.seconds(middle) <= seconds else (low, middle - 1)
        return low


class Ranks:
    """The processes that share the work: this one alone, or with `device` all that torchrun or accelerate launched."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        launched = device is not None
        self.count = int(os.environ.get("WORLD_SIZE", "1")) if launched else 1
        self.index = int(os.environ.get("RANK", "0")) if launched else 0
        if self.count > 1:
            torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this process writes the index and prints."""
        return self.index == 0

    def least(self, value: int = 0) -> int:
        """The smallest of every process's value; also a barrier."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MIN)
        return int(tensor)

    def share(self, start: int, stop: int, group: int = 1) -> range:
        """This process's part of the numbers from `start` to `stop` (exclusive), in whole groups."""
        groups = (stop - start) // group
        low, high = (start + groups * rank // self.count * group for rank in (self.index, self.index + 1))
        return range(low, high)

    def close(self) -> None:
        """Part from the other processes, when all are done."""
        if self.count > 1:
            self.least()
            torch.distributed.destroy_process_group()


def rounds(
    draw: Callable[[range, float], Tensor],
    pace: Pace,
    clock: Clock,
    free: Sequence[tuple[int, int | None]],
    ranks: Ranks,
    group: int = 1,
) -> Iterator[tuple[range, Tensor]]:
    """Draw the free numbers round by round, while time lasts; yields this process's numbers and images.

    Every round takes the next free numbers and deals them to the processes in order; its size is what every process
    expects to end in the time left. A round that any process gives up is given up by all, so that what is yielded
    never has a hole.

    Args:
        draw: (numbers, seconds) -> images; raises `TimeUp` when it would take longer.
        pace: what a batch takes.
        clock: the budget.
        free: ranges of numbers (first, end) not drawn yet, in order; the last may be endless (None).
        ranks: the processes.
        group: so many consecutive numbers are never parted; every free range is a multiple of it.

    Raises:
        InputError: if not even the first group fits; says how much the budget must be here. (A resumed folder that has
            it may find its budget spent: then nothing is drawn.)
    """
    fits = ranks.least(pace.fitting(clock.left())) >= group
    require(
        fits or all(low > 0 for low, _ in free),
        f"a budget of {clock.budget or 0:g} s is too short: starting took {clock.elapsed():.1f} s and {group} image(s) "
        f"take {pace.seconds(group):.2g} s. The minimum here is about "
        f"{1.05 * (clock.elapsed() + MARGIN * pace.seconds(group) + FINISH_S):.0f} s.",
    )
    for low, high in free:
        while high is None or low < high:
            size = ranks.least(pace.fitting(clock.left()) // group * group) * ranks.count
            if size == 0:
                return
            stop = low + size if high is None else min(high, low + size)
            mine, seconds, began = ranks.share(low, stop, group), clock.left(), time.perf_counter()
            try:
                images, took = draw(mine, seconds) if mine else None, time.perf_counter() - began
                finished = True
            except TimeUp:
                finished, took = False, 1.2 * seconds
            if mine and clock.budget is not None:
                pace.learn(len(mine), took)
            if ranks.least(finished):
                low = stop
                if mine:
                    yield mine, images
