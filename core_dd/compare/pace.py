"""What finished work took, for what is still to come. No torch."""

import datetime
import statistics
from collections.abc import Iterable, Mapping

from core_dd.compare.jobs import Order, read_done


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

    def seconds(self, numbers: Mapping[tuple[str, str], int]) -> float | None:
        """What orders take one after the other: for each the median of its like, else of its kind.

        Args:
            numbers: how many there are, by their `like` and `kind`.

        Returns:
            None where of some neither was finished before.
        """
        total = 0.0
        for (like, kind), number in numbers.items():
            found = self._seconds.get(like) or self._seconds.get(kind)
            if number and not found:
                return None
            total += number * statistics.median(found) if number else 0.0
        return total

    def alike(self, order: Order) -> tuple[int, float, float] | None:
        """How many of its like are finished, the median of their seconds and the largest of their memory, in MiB."""
        found = self._seconds.get(order.like)
        return (len(found), statistics.median(found), max(self._peaks[order.like])) if found else None

    @property
    def peak_mib(self) -> float | None:
        """The most memory that anything took."""
        return max((peak for peaks in self._peaks.values() for peak in peaks), default=None)


def duration(seconds: float) -> str:
    """Seconds as 1:02:03."""
    return str(datetime.timedelta(seconds=round(seconds)))
