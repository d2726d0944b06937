"""The executor on Ray: tasks with resources, on this machine or a cluster, begun again where a node is lost."""

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from core_dd import files
from core_dd.compare.executors import Means, cores, shares
from core_dd.compare.jobs import DONE, Order, Outcome, perform, settle, sources
from core_dd.errors import InputError, require

RETRIES = 3
"""How often a task is begun again whose process or node was lost."""
HTTP2, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), b"\4"
"""What a client of HTTP/2 says first, and the kind of frame by which every server, as Ray's are, answers."""
ANSWER_S = 5.0
"""How long a cluster may take to answer."""
RECEIVERS = 4
"""Threads that write down what comes back."""
LOG = "log.txt"
TEXT = (".json", ".jsonl", ".yaml", ".txt", ".log")
"""Files in which paths may stand."""
KEPT = 8
"""Of what was sent to nodes, as many folders stay ready to be sent again."""

Files = Mapping[str, Any]
"""What files hold, by their paths within a folder: arrays of bytes, which Ray passes on without copying them."""


class RayExecutor:
    """Tasks of Ray, each with its cores, memory, and GPU where the cluster has any.

    Nodes share the comparison's folder; or, with `means.copy`, what a task needs goes to a folder of its own on the
    node, and what it made and said comes back.
    """

    def __init__(self, means: Means) -> None:
        self._means, self._began = means, False
        self._receivers = ThreadPoolExecutor(RECEIVERS, thread_name_prefix="receiver")

    def __enter__(self) -> "RayExecutor":
        """Raises InputError where no cluster answers, or none of its nodes has what a task takes."""
        if not ray.is_initialized():
            connect(self._means.address)
            self._began = True
        try:
            self._plan_resources()
        except InputError:
            self._end()
            raise
        lock = self._means.out / files.LOCK
        self._setting = _Setting(
            cwd=os.getcwd(),
            paths=self._means.paths,
            threads=self._threads,
            sources=sources(),
            folder=str(lock.absolute()),
            mark=lock.read_text(encoding="utf-8"),
            copied=self._means.copy,
        )
        self._contents = lru_cache(KEPT)(lambda folder: ray.put(packed(folder)))
        as_task: Any = ray.remote(max_retries=RETRIES, **self._resources)
        self._task = as_task(_do)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._receivers.shutdown(cancel_futures=True)

    def _end(self) -> None:
        """Leave the cluster, which ends what runs there for this process."""
        if self._began:
            ray.shutdown()

    def _plan_resources(self) -> None:
        """What a task takes: by default as much as there are, of the node that has the least."""
        nodes, gib = _nodes(), self._means.memory_gib
        gpus = self._means.device != "cpu" and any(node.get("GPU") for node in nodes)
        require(gpus or self._means.device != "cuda", "no node of the Ray cluster has a GPU. Give --device cpu.")
        nodes = [node for node in nodes if node.get("GPU") or not gpus]
        fitting = [shares(node.get("CPU", 0), _gib(node), node.get("GPU", 0) if gpus else 0, gib) for node in nodes]
        threads = [int(node.get("CPU", 0)) // of for node, of in zip(nodes, fitting, strict=True) if of]
        self._threads = self._means.threads_asked or max(1, min(threads, default=1))
        self._resources: dict[str, Any] = {"num_cpus": self._threads, "num_gpus": int(gpus), "memory": int(gib * 2**30)}
        largest = max(({"CPU": 0.0, **node} for node in nodes), key=lambda node: node["CPU"], default={"CPU": 0.0})
        require(
            self._room() > 0,
            f"no node of the Ray cluster has what a task takes, {self._takes}; the largest has {largest['CPU']:.0f} "
            f"cores and {_gib(largest):.1f} GiB. Give fewer --threads, or less --memory_gib.",
        )

    @property
    def _takes(self) -> str:
        """What a task takes, for people."""
        parts = [f"{self._threads} core{'s' * (self._threads > 1)}", f"{self._means.memory_gib:.1f} GiB"]
        return ", ".join(parts + ["a GPU"] * self._resources["num_gpus"])

    def _room(self) -> int:
        """How many tasks the nodes take that are there now."""
        takes = {"CPU": self._threads, "GPU": self._resources["num_gpus"], "memory": self._resources["memory"]}
        wants = {name: amount for name, amount in takes.items() if amount}
        return sum(int(min(node.get(name, 0) / amount for name, amount in wants.items())) for node in _nodes())

    @property
    def capacity(self) -> int:
        """As many as were asked for, else as the nodes take that are there now."""
        return self._means.workers or max(self._room(), 1)

    @property
    def said(self) -> str:
        """See `core_dd.compare.executors.Executor`."""
        count, copied = len(_nodes()), ", which get copies" * self._means.copy
        return f"{self.capacity} tasks of {self._takes} on {count} Ray node{'s' * (count > 1)}{copied}"

    def submit(self, order: Order) -> "Future[Outcome]":
        """See `core_dd.compare.executors.Executor`."""
        done: Future[Outcome] = Future()
        done.set_running_or_notify_cancel()
        own: dict[str, Any] = {}
        if self._means.copy:
            own = {folder: self._contents(folder) for folder in order.folders.values()}
            own[order.folder] = ray.put(packed(order.folder))  # what it left before
        reference = self._task.options(name=order.title).remote(order, self._setting, own)
        reference.future().add_done_callback(lambda came: self._receivers.submit(_receive, order, came, done))
        return done


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """What a task must know beside its order.

    Attributes:
        cwd, paths: where relative paths and modules are found.
        threads: how many to compute with.
        sources: a hash of the sources that the comparison's process has.
        folder, mark: a file of the comparison's folder, and what it holds, by which a node sees that it shares it.
        copied: whether nodes need not share it.
    """

    cwd: str
    paths: tuple[str, ...]
    threads: int
    sources: str
    folder: str
    mark: str
    copied: bool


def _do(order: Order, setting: _Setting, contents: Mapping[str, Any]) -> tuple[Outcome, dict[str, Files]]:
    """Do an order on a node; returns also what came into its folders, if that is not shared."""
    settle(setting.threads, setting.paths)
    with contextlib.suppress(OSError):
        os.chdir(setting.cwd)
    host = socket.gethostname()
    if sources() != setting.sources:
        return Outcome(order.key, f"{host} has other sources of gendd. Install the same there."), {}
    if setting.copied:
        return _do_in_copy(order, contents)
    try:
        shared = Path(setting.folder).read_text(encoding="utf-8") == setting.mark
    except OSError:
        shared = False
    if not shared:
        return Outcome(order.key, f"{host} does not share the folder {Path(setting.folder).parent}. Give --copy."), {}
    return perform(order), {}


def _do_in_copy(order: Order, contents: Mapping[str, Any]) -> tuple[Outcome, dict[str, Files]]:
    """Do an order in a folder that is removed again; files of text name folders there, and as they are called here."""
    with tempfile.TemporaryDirectory(prefix="gendd") as scratch:
        there = {folder: str(Path(scratch, str(number), Path(folder).name)) for number, folder in enumerate(contents)}
        for folder, reference in contents.items():
            unpack(renamed(ray.get(reference), there), there[folder])
        folders = {argument: there[folder] for argument, folder in order.folders.items()}
        logs = Path(scratch, "logs")
        moved = replace(order, folder=there[order.folder], folders=folders, log=str(logs / LOG))
        outcome, here = perform(moved), {own: folder for folder, own in there.items()}
        return outcome, {"folder": renamed(packed(moved.folder), here), "logs": renamed(packed(logs), here)}


def _receive(order: Order, came: "Future[Any]", done: "Future[Outcome]") -> None:
    """Write down what came back from a task, and say how it ended."""
    try:
        outcome, made = came.result()
        if made:
            unpack(made["folder"], order.folder)
            with files.explained(Path(order.log)):
                Path(order.log).parent.mkdir(parents=True, exist_ok=True)
                with open(order.log, "ab") as log:
                    log.write(made["logs"][LOG].tobytes())
    except RayError as error:
        outcome = Outcome(order.key, f"lost by Ray: {' '.join(str(error).split())}")
    except Exception as error:  # a future that never ends would hold everything up
        outcome = Outcome(order.key, f"{type(error).__name__}: {error}")
    done.set_result(outcome)


def packed(folder: str | Path) -> dict[str, Any]:
    """What a folder's files hold, by their paths in it; nothing where there is none."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and not _passing(path))
    return {str(path.relative_to(folder)): np.fromfile(path, np.uint8) for path in paths}


def unpack(content: Files, folder: str | Path) -> None:
    """Write what `packed` gave into a folder, `DONE` last: whatever stops this before leaves it undone."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in sorted(content, key=lambda name: name == DONE):
        with files.atomic(Path(folder, name)) as temporary:
            content[name].tofile(temporary)


def renamed(content: Files, names: Mapping[str, str]) -> dict[str, Any]:
    """The same, but in files of text the keys of `names` stand as their values."""
    changed = dict(content)
    for name in content:
        if name.endswith(TEXT):
            text = content[name].tobytes()
            for old, new in names.items():
                text = text.replace(os.fsencode(old), os.fsencode(new))
            changed[name] = np.frombuffer(text, np.uint8)
    return changed


def _passing(path: Path) -> bool:
    """Whether a file is a lock, or half-written."""
    return path.name == files.LOCK or files.TEMPORARY.fullmatch(path.name) is not None


def connect(address: str | None) -> None:
    """Join a cluster, or start an instance on this machine.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or auto; None: an instance of its own.

    Raises:
        InputError: if nobody answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        with _own_signals():
            ray.init("local", include_dashboard=False, num_cpus=cores(), **quiet)
        return
    if address != "auto":
        _await_answer(address)
    with _explained(address), _own_signals():
        ray.init(address, **quiet)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, for which Ray would set its own: killing what it started, and an exit."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _await_answer(address: str) -> None:
    """Refuse an address where no server listens; Ray itself would wait for minutes, or for ever.

    Raises:
        InputError: if nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    require(
        bool(host and colon and port.isdecimal()),
        f"--address {address} is not written as HOST:PORT, ray://HOST:PORT, or auto.",
    )
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_S) as server:
            server.sendall(HTTP2)
            answer = server.recv(9)
    except (OSError, OverflowError) as error:
        raise InputError(_nobody(address, str(error))) from None
    require(answer[3:4] == SETTINGS, _nobody(address, "what listens there does not speak HTTP/2"))


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    """What goes wrong with a cluster, in a sentence."""
    try:
        yield
    except (ConnectionError, ImportError, RuntimeError, ValueError, RayError) as error:
        raise InputError(_nobody(address, str(error).splitlines()[0])) from None


def _nobody(address: str, why: str) -> str:
    return (
        f"no Ray cluster answers at {address} ({why}). Start one with 'ray start --head', or leave out --address to "
        "work on this machine."
    )


def _nodes() -> list[dict[str, float]]:
    """The resources of every node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _gib(resources: Mapping[str, float]) -> float:
    return resources.get("memory", 0) / 2**30
