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
        self._seconds.setdefault(order.like, []).append(done["seconds"])
        self._peaks.setdefault(order.like, []).append(done["peak_mib"])

    def seconds(self, numbers: Mapping[str, int]) -> tuple[float, int]:
        """What orders take one after the other, each as the median of its like.

        Others of its kind do not tell: a set is chosen in a moment, or distilled for hours.

        Args:
            numbers: how many there are, by their `like`.

        Returns:
            Seconds of those whose like was finished before, and how many the others are.
        """
        known = {like: number for like, number in numbers.items() if like in self._seconds}
        total = sum(number * statistics.median(self._seconds[like]) for like, number in known.items())
        return total, sum(numbers.values()) - sum(known.values())

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
