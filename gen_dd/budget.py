"""Drawing inside a wall-clock budget: how large a batch pays, how long it takes, when to stop, how processes share."""

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

import psutil
import torch
from torch import Tensor

from core_dd import clock, processes
from core_dd.errors import require
from gen_dd.solvers import NoiseOf

T = TypeVar("T")

MARGIN = 1.1
"""A batch is begun only if the time left is this many times what it is expected to take."""
_GUARD, _GUARD_S = 0.01, (0.03, 0.3)
"""The share of the budget, and the seconds at least and at most, that are kept for what nobody can foresee."""
WRITE_S = 0.1
"""What the last writes are expected to take before any has been seen."""
_GAIN = 1.05
"""A larger batch pays if it makes images/s more than this many times higher."""
LARGEST = 1024
"""The largest batch tried."""
AUTO_STEPS = (10, 50)
"""The fewest and the most steps that "auto" chooses."""


class TimeUp(Exception):
    """A batch was given up because it would not have ended in time.

    Args:
        expected: seconds that it would have taken.
    """

    def __init__(self, expected: float) -> None:
        super().__init__(f"{expected:.3g} s")
        self.expected = expected


def within(seconds: float, shares: Sequence[float], noise_of: NoiseOf, now: Callable[[], float] = clock.now) -> NoiseOf:
    """`noise_of`, which raises `TimeUp` once its calls so far show that all of them take more than `seconds`.

    Args:
        seconds: from now; infinite for no limit.
        shares: what part of the whole each call is expected to take.
        noise_of: what is called; its device is waited for, so that the calls' times are true.
        now: the clock.
    """
    if seconds == math.inf:
        return noise_of
    began, done, part = now(), 0, [0.0, *accumulate(shares)]
    telling = max(1, min(2, len(shares) - 1))  # calls after which the others are foreseen: the first may be slower

    def watched(x: Tensor, timestep: Tensor) -> Tensor:
        nonlocal done
        wait(x.device)
        spent = now() - began
        to_come = (part[-1] - part[done]) / part[done] if done >= telling else 0.0
        if spent * (1 + to_come / MARGIN) > seconds:
            raise TimeUp(spent * (1 + to_come))
        done += 1
        return noise_of(x, timestep)

    return watched


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_mib(device: torch.device) -> float:
    """The memory that nobody uses, in MiB."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**20
    return psutil.virtual_memory().available / 2**20


class Clock:
    """A budget counted from the start of the command, and an account of every second.

    Args:
        budget: seconds, or None for no limit.
        start: when the count began, on the clock of `now`; None: now.
        now: the clock, one that setting the machine's does not change.

    Attributes:
        parts: seconds by what they were spent on; their sum is the time up to the last `book`.
        reserve: seconds that what follows the last batch is expected to take.
    """

    def __init__(self, budget: float | None, start: float | None = None, now: Callable[[], float] = clock.now) -> None:
        self.budget, self.now = budget, now
        self.start = self._mark = now() if start is None else start
        self.parts: dict[str, float] = {}
        self.reserve = WRITE_S

    def resume(self, seconds: float) -> None:
        """Count what earlier runs took."""
        self.start -= seconds
        self.parts["earlier runs"] = seconds

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.now() - self.start

    def left(self) -> float:
        """Seconds for drawing: what is left of the budget, less the reserve and the guard."""
        if self.budget is None:
            return math.inf
        guard = min(max(_GUARD * self.budget, _GUARD_S[0]), _GUARD_S[1])
        return self.budget - self.elapsed() - self.reserve - guard

    def late(self) -> bool:
        """Whether less than a quarter of the budget is left for drawing."""
        return self.budget is not None and self.left() < self.budget / 4

    def book(self, what: str) -> float:
        """Account the time since the last call for `what`; returns it."""
        now = self.now()
        seconds, self._mark = now - self._mark, now
        self.parts[what] = self.parts.get(what, 0.0) + seconds
        return seconds

    def summary(self) -> str:
        """Where every second went: the total, its part of the budget, and the parts that add up to it."""
        total = sum(self.parts.values())
        limit = f" of {self.budget:g} s ({total / self.budget:.1%})" if self.budget else ""
        return f"{total:.2f} s{limit}: " + ", ".join(f"{what} {seconds:.2f} s" for what, seconds in self.parts.items())


class BatchPace:
    """What a batch is expected to take: linear in its size, corrected by every batch drawn.

    Args:
        one, full: seconds for a batch of `least` and of `batch` images.
        batch: the largest batch.
        least: the smallest.
        whole: seconds for exactly `batch` images, where those take another path (a compiled network).
    """

    def __init__(self, one: float, full: float, batch: int, *, least: int = 1, whole: float | None = None) -> None:
        self.one, self.full, self.batch, self.least = one, max(one, full), batch, least
        self.whole = self.full if whole is None else whole
        self._besides = 0.0

    def seconds(self, images: int) -> float:
        """What a batch of so many images is expected to take."""
        if images == self.batch:
            return self.whole
        return self.one + (self.full - self.one) * (images - self.least) / (self.batch - self.least)

    def scale(self, ratio: float) -> None:
        """Expect `ratio` times as long."""
        self.one, self.full, self.whole = self.one * ratio, self.full * ratio, self.whole * ratio

    def add(self, each: float) -> None:
        """Expect so many seconds more for each image."""
        self.one += each * self.least
        self.full, self.whole = (seconds + each * self.batch for seconds in (self.full, self.whole))

    def up_to(self, batch: int) -> "BatchPace":
        """The same with a smaller largest batch."""
        return self if batch == self.batch else BatchPace(self.one, self.seconds(batch), batch, least=self.least)

    def besides(self, seconds: float) -> None:
        """Of what the next batch that is learnt from took, so many seconds went to something else."""
        self._besides += seconds

    def learn(self, images: int, seconds: float) -> None:
        """Correct the expectation by what a batch took: at once when it was slower, by half when it was faster."""
        seconds, self._besides = max(seconds - self._besides, 1e-9), 0.0
        ratio = seconds / self.seconds(images)
        self.scale(ratio if ratio > 1 else ratio**0.5)

    def fitting(self, seconds: float) -> int:
        """The largest batch expected to end within `seconds` with a margin: 0 if not even the least one does."""
        if MARGIN * self.whole <= seconds:
            return self.batch
        smaller = range(self.least, self.batch)
        count = bisect.bisect_right(smaller, seconds, key=lambda images: MARGIN * self.seconds(images))
        return smaller[count - 1] if count else 0


def fastest(
    seconds: Callable[[int], float], least: int, most: int, longest: float, affordable: Callable[[float], bool]
) -> BatchPace:
    """The pace at the batch size worth having: the smallest whose images/s come within 5 % of the best measured.

    Each size measured is four times the last, until one is clearly slower or too long.

    Args:
        seconds: measures what a batch of so many images takes.
        least: the smallest batch, of which the others are multiples.
        most: the largest, at least `least`.
        longest: seconds that a batch larger than the least may take.
        affordable: whether a batch that takes at most so many seconds may be measured.
    """
    size, each = least, {least: seconds(least) / least}
    while (larger := min(4 * size, most // least * least)) > size and affordable(each[size] * larger):
        took = seconds(larger)
        if took > longest or took / larger > _GAIN * min(each.values()):
            break
        size, each[larger] = larger, took / larger
    batch = min(size for size in each if each[size] <= _GAIN * min(each.values()))
    return BatchPace(each[least] * least, each[batch] * batch, batch, least=least)


def most_steps(each: float, seconds: float) -> int:
    """The most steps in `AUTO_STEPS` that fit into so many seconds with a margin, if each of them takes `each`."""
    return min(max(int(seconds / (MARGIN * each)), AUTO_STEPS[0]), AUTO_STEPS[1])


class Ranks:
    """The processes that share the work: this one alone, or all that were launched, as `start` gives them.

    Args:
        index: this process's number, from 0.
        count: how many there are.
        device: where this one computes.
    """

    def __init__(self, index: int = 0, count: int = 1, device: torch.device | None = None) -> None:
        self.index, self.count, self.device = index, count, device

    @classmethod
    def start(cls, device: torch.device) -> "Ranks":
        """Those that torchrun or accelerate launched, joined to one group: every one of them must call this."""
        if processes.count() == 1:
            return cls()
        group = processes.join(device)
        return cls(group.process_index, group.num_processes, device)

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

    def total(self, counts: Tensor) -> Tensor:
        """The sum of every process's counts, a tensor of one shape, on the CPU."""
        if self.count == 1:
            return counts
        tensor = counts.to(self.device)
        torch.distributed.all_reduce(tensor)
        return tensor.cpu()

    def told(self, value: T) -> T:
        """The first process's value."""
        if self.count == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, device=self.device)
        return values[0]

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
    draw: Callable[[range, float], T],
    pace: BatchPace,
    clock: Clock,
    free: Sequence[tuple[int, int | None]],
    ranks: Ranks,
    group: int = 1,
) -> Iterator[tuple[range, T]]:
    """Draw the free numbers round by round, while time lasts; yields this process's numbers and images.

    Every round takes the next free numbers and deals them to the processes in order; its size is what every process
    expects to end in the time left, so that the last rounds shrink, down to one group. A round that any process gives
    up is given up by all, so that what is yielded never has a hole.

    Args:
        draw: (numbers, seconds) -> images; raises `TimeUp` when it would take longer.
        pace: what a batch takes.
        clock: the budget.
        free: ranges of numbers (first, end) not drawn yet, in order; the last may be endless (None).
        ranks: the processes.
        group: so many consecutive numbers are never parted; every free range is a multiple of it.

    Raises:
        InputError: if not even the first group fits; says how much the budget must be here. Or if time runs out before
            it is drawn. (A resumed folder that has it may find its budget spent: then nothing is drawn.)
    """
    fits = ranks.least(pace.fitting(clock.left())) >= group
    spent, some = clock.elapsed(), all(low > 0 for low, _ in free)
    require(
        fits or some,
        f"a budget of {clock.budget or 0:g} s is too short: starting took {spent:.1f} s and {group} image(s) "
        f"take {pace.seconds(group):.2g} s. The minimum here is about "
        f"{math.ceil(1.05 * (spent + MARGIN * pace.seconds(group) + clock.reserve))} s.",
    )
    for low, high in free:
        while high is None or low < high:
            size = ranks.least(pace.fitting(clock.left()) // group * group) * ranks.count
            if size == 0:
                require(
                    some,
                    f"the budget of {clock.budget or 0:g} s ended before the first batch did: this machine got slower "
                    "than measured. Nothing was drawn; sample again, or with a larger budget.",
                )
                return
            stop = low + size if high is None else min(high, low + size)
            mine, seconds, began = ranks.share(low, stop, group), clock.left(), clock.now()
            images: T | None = None
            try:
                images, took = draw(mine, seconds) if mine else None, clock.now() - began
                finished = True
            except TimeUp as given_up:
                finished, took = False, max(1.2 * seconds, given_up.expected)
            if mine and clock.budget is not None:
                pace.learn(len(mine), took)
            if ranks.least(finished):
                low, some = stop, True
                if images is not None:
                    yield mine, images
