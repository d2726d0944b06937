"""Where the work of a comparison is done: one thin interface, and its engines by name. No torch."""

import os
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol

from core_dd.commands import imported
from core_dd.compare.jobs import Order, Outcome
from core_dd.errors import InputError, pick


@dataclass(frozen=True, kw_only=True)
class Means:
    """What an executor may use.

    Attributes:
        out: the comparison's folder, which the workers share.
        workers, threads: how many, and of how many threads each; None: as many as fit.
        memory_gib: what a worker is expected to take.
        device: cpu or cuda; None: cuda where there is one.
        paths: folders in which the workers look for modules, too.
        address: of a Ray cluster; None: an instance of its own.
        copy: whether Ray's nodes do not share the folder.
        slurm: what sbatch is told, by submitit's names.
    """

    out: Path
    workers: int | None
    threads: int | None
    memory_gib: float
    device: str | None
    paths: tuple[str, ...]
    address: str | None = None
    copy: bool = False
    slurm: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def threads_asked(self) -> int | None:
        """By option, else by OMP_NUM_THREADS."""
        asked = os.environ.get("OMP_NUM_THREADS", "")
        return self.threads or (int(asked) if asked.isdecimal() and int(asked) else None)


def shares(cores: float, gib: float, gpus: float, each_gib: float) -> int:
    """How many workers a machine takes: one for each of its GPUs; without any as many as it has cores, and memory for.

    Args:
        cores: that it has.
        gib: its free memory.
        gpus: those to use.
        each_gib: what a worker is expected to take.
    """
    return int(gpus) or min(int(cores), int(gib / each_gib))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Executor(Protocol):
    """Does orders, several at once. Made by a call with `Means`, which starts nothing; a context, which starts what it
    takes, or raises InputError where that cannot be, and at whose end whatever runs is stopped.
    """

    @property
    def capacity(self) -> int:
        """How many orders it takes at once, 1 or more; others are held back, so that they are done in their order."""
        ...

    @property
    def said(self) -> str:
        """What it works with, for people."""
        ...

    def submit(self, order: Order) -> "Future[Outcome]":
        """Have an order done by `core_dd.compare.jobs.perform`, in any process that sees the folder.

        The future runs as soon as the order does, where that can be told. It never raises: where a process or a machine
        is lost, its outcome says so. An order may be done again from its beginning; it goes on from what it left in its
        folder.
        """
        ...

    def __enter__(self) -> "Executor": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


EXECUTORS: MappingProxyType[str, str] = MappingProxyType(
    {
        "local": "core_dd.compare.local:LocalExecutor",
        "ray": "core_dd.compare.ray:RayExecutor",
        "slurm": "core_dd.compare.slurm:SlurmExecutor",
    }
)
"""Executors by name: a class that is called with `Means`."""
NEEDS = ("ray", "submitit")
"""Packages of which executors need one, and that come as extras of the executors' names."""


def executor_class(name: str) -> Any:
    """An executor's class, by its name.

    Raises:
        InputError: if there is none, or what it needs is not installed.
    """
    try:
        return imported(pick(EXECUTORS, name, "executor"))
    except ModuleNotFoundError as error:
        if error.name not in NEEDS:
            raise
        raise InputError(
            f"--executor {name} needs the package {error.name}, which is not installed: pip install 'gendd[{name}]'."
        ) from None
