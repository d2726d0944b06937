"""The executor on this machine: worker processes that do one order after the other, or none but this process."""

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import queue
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from types import TracebackType

import psutil

from core_dd.compare import executors
from core_dd.compare.executors import Means
from core_dd.compare.jobs import Order, Outcome, perform, perform_alone, settle
from core_dd.compare.producers import KINDS
from core_dd.errors import Terminated, require

ENDED = "its code asked its process to end (SystemExit: {})."
"""Of a function that calls another command's main()."""
LOST = "its process ended abruptly: killed, or out of memory. Give fewer --workers, or look into its log."


def start_server() -> None:
    """Start the process that workers are forked from; it imports what they need once, and in the background."""
    needed = sorted({"core_dd.compare.sets", *(target.partition(":")[0] for target in KINDS.values())})
    multiprocessing.get_context("forkserver").set_forkserver_preload(needed)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or "1"  # of what reads it when imported; torch is told in the workers
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


class LocalExecutor:
    """Worker processes, each with its threads or its GPU; or, for `workers` 0, this process."""

    def __init__(self, means: Means) -> None:
        gpus = _gpus(means.device)
        asked = (means.device or "").partition(":")[0]
        require(asked != "cuda" or bool(gpus), "this machine has no GPU that PyTorch can use. Give --device cpu.")
        cores, free = executors.cores(), psutil.virtual_memory().available / 2**30
        workers = max(1, executors.shares(cores, free, len(gpus), means.memory_gib))
        workers = workers if means.workers is None else means.workers
        threads = means.threads_asked or max(1, cores // max(workers, 1))
        self.capacity = max(workers, 1)
        self._own = workers == 0
        if self._own:
            if means.threads_asked:
                settle(threads, means.paths)
            self.said = "in this process"
            return
        self.said = f"{workers} worker{'s' * (workers > 1)} of {threads} thread{'s' * (threads > 1)}"
        self.said += f" on {len(gpus)} GPU{'s' * (len(gpus) > 1)}" if gpus else ""
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers = [
            _Worker(threads, gpus[number % len(gpus)] if gpus else None, means.paths) for number in range(workers)
        ]
        for worker in self._workers:
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def submit(self, order: Order) -> "Future[Outcome]":
        """See `core_dd.compare.executors.Executor`."""
        if self._own:
            done: Future[Outcome] = Future()
            try:
                done.set_result(perform(order))
            except Terminated:
                raise
            except SystemExit as end:
                done.set_result(Outcome(order.key, ENDED.format(end)))
            return done
        return self._threads.submit(self._do, order)

    def _do(self, order: Order) -> Outcome:
        """Have a worker that is free do an order."""
        worker = self._free.get()
        try:
            return worker.do(order)
        finally:
            self._free.put(worker)

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            return
        if kind is not None:
            for worker in self._workers:
                worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()


class _Worker:
    """One process, made when there is something to do, and anew after it died."""

    def __init__(self, threads: int, gpu: str | None, paths: Sequence[str]) -> None:
        self._setting = (threads, gpu, tuple(paths))
        self._pool: ProcessPoolExecutor | None = None
        self._number: int | None = None
        self._ended, self._lock = False, threading.Lock()

    def do(self, order: Order) -> Outcome:
        """Have the process do an order."""
        try:
            if self._pool is None:
                context = multiprocessing.get_context("forkserver")
                self._pool = ProcessPoolExecutor(1, context, initializer=_prepare, initargs=self._setting)
                self._number = self._pool.submit(os.getpid).result()
            with self._lock:  # killed while the process began, it must not begin to work
                doing = None if self._ended else self._pool.submit(perform_alone, order)
            return Outcome(order.key, LOST) if doing is None else doing.result()
        except SystemExit as end:  # what the process was made to raise; this one is asked to end in its main thread
            return Outcome(order.key, ENDED.format(end))
        except RuntimeError:  # a BrokenExecutor; or it was ended in between
            self._pool = self._number = None
            return Outcome(order.key, LOST)

    def kill(self) -> None:
        """End the process at once, for good; whatever it does goes on from its last checkpoint another time."""
        with self._lock:
            self._ended = True
            if self._number is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._number, signal.SIGKILL)

    def close(self) -> None:
        """Let the process end, which has nothing to do."""
        if self._pool is not None:
            self._pool.shutdown()


def _prepare(threads: int, gpu: str | None, paths: Sequence[str]) -> None:
    """What a worker does first: its threads, its GPU, where modules are; it ends when the comparison's process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the comparison, which then ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    settle(threads, paths)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _gpus(device: str | None) -> list[str]:
    """The GPUs to use, as CUDA_VISIBLE_DEVICES names them; none on the CPU."""
    if device == "cpu":
        return []
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(number) for number in range(count)]
