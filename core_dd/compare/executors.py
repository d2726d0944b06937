"""Where the work of a comparison is done: one thin interface, and its engines by name. No torch."""

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol

from core_dd.compare.jobs import Order, Outcome


@dataclass(frozen=True, kw_only=True)
class Means:
    """What an executor may use.

    Attributes:
        out: the comparison's folder, which the workers share.
        workers, threads: how many, and of how many threads each; None: as many as fit.
        memory_gib: what a worker is expected to take.
        device: cpu or cuda; None: cuda where there is one.
        paths: folders in which the workers look for modules, too.
    """

    out: Path
    workers: int | None
    threads: int | None
    memory_gib: float
    device: str | None
    paths: tuple[str, ...]


class Executor(Protocol):
    """Does orders, several at once. Made by a call with `Means`; a context, at whose end whatever runs is stopped.

    Attributes:
        capacity: how many orders it takes at once; more are held back, so that they are done in their order.
        said: what it works with, for people.
    """

    capacity: int
    said: str

    def submit(self, order: Order) -> "Future[Outcome]":
        """Have an order done by `core_dd.compare.jobs.perform`, in any process that sees the folder.

        The future never raises: where a process or a machine is lost, its outcome says so. An order may be done again
        from its beginning; it goes on from what it left in its folder.
        """
        ...

    def __enter__(self) -> "Executor": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


EXECUTORS: MappingProxyType[str, str] = MappingProxyType({"local": "core_dd.compare.local:LocalExecutor"})
"""Executors by name: a class that is called with `Means`."""
