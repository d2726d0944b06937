"""The executor on Slurm: what is ready at once is one job array, and a job that is pre-empted is queued again."""

import contextlib
import getpass
import hashlib
import subprocess
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import submitit
from submitit.helpers import Checkpointable

from core_dd import files
from core_dd.compare.executors import Means
from core_dd.compare.jobs import Order, Outcome, perform, perform_alone, settle
from core_dd.errors import InputError, brief, likely, require

FOLDER = "slurm"
"""Where submitit keeps what it needs, in the comparison's folder; removed at the end."""
JOBS = 100
"""How many jobs are in Slurm's hands at once, where nothing else is said."""
MINUTES, TIMEOUTS = 60, 1000
"""After so many minutes a job is ended, where nothing else is said, and goes on in the queue, so often."""
LOOKED_EVERY_S = 1.0
"""How often files are looked at that tell of ended jobs, and what is ready is handed in."""
ASKED_EVERY_S = 10.0
"""How often Slurm is asked for its queue."""
UNSEEN_FOR_S = 60.0
"""After so long without a place in the queue and without a result, a job counts as lost."""
CLUSTERS = {"slurm": "Slurm", "local": "submitit on this machine", "debug": "submitit in this process"}
"""Where submitit can have jobs done."""


class SlurmExecutor:
    """Jobs of Slurm, by submitit, on nodes that share the comparison's folder.

    `means.slurm` is what sbatch is told, by submitit's names; its key `cluster` may be `local` or `debug`, submitit's
    own engines on this machine.
    """

    def __init__(self, means: Means) -> None:
        told = {"time": MINUTES, **means.slurm}
        self._cluster = str(told.pop("cluster", "slurm"))
        known = submitit.SlurmExecutor._valid_parameters()
        for key in told:
            require(key in known, f"--slurm {key}: sbatch is told no such thing by submitit{likely(key, known)}")
        require(isinstance(told["time"], int), f"--slurm time={told['time']} is no whole number of minutes.")
        require(self._cluster in CLUSTERS, f"--slurm cluster={self._cluster}: it can be {', '.join(CLUSTERS)}.")
        self._means, self._told = means, told
        self._threads = means.threads_asked or 1
        self._place = means.out.absolute() / FOLDER
        self.capacity = means.workers or JOBS
        self.said = f"up to {self.capacity} jobs of {self._threads} core{'s' * (self._threads > 1)} by "
        self.said += CLUSTERS[self._cluster]
        # Jobs that a killed comparison left are known by their name.
        self._name = "gendd-" + hashlib.blake2b(str(self._place).encode(), digest_size=5).hexdigest()
        self._new: list[tuple[Order, Future[Outcome]]] = []
        self._jobs: dict[Future[Outcome], _Job] = {}
        self._queue: dict[str, str] = {}
        self._asked = 0.0
        self._lost = False
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="slurm", daemon=True)

    def __enter__(self) -> "SlurmExecutor":
        """Raises InputError where there is no Slurm, or submitit refuses what sbatch is to be told."""
        options = {"slurm_max_num_timeout": TIMEOUTS} if self._cluster == "slurm" else {}
        try:
            self._engine = submitit.AutoExecutor(self._place, self._cluster, **options)
            self._engine.update_parameters(
                name=self._name,
                cpus_per_task=self._threads,
                mem_gb=self._means.memory_gib,
                timeout_min=self._told["time"],
                gpus_per_node=1 if self._means.device == "cuda" else None,
                **{f"slurm_{key}": value for key, value in self._told.items()},
            )
        except RuntimeError:
            raise InputError(
                "no Slurm here: srun is not found. Start gendd compare where Slurm's commands are, or try --slurm "
                "cluster=local."
            ) from None
        except (NameError, ValueError, TypeError, AssertionError) as error:
            files.remove(self._place)
            raise InputError(f"--slurm {' '.join(self._means.slurm)}: {brief(' '.join(str(error).split()))}") from None
        if self._cluster == "slurm":
            command = ["scancel", f"--name={self._name}", f"--user={getpass.getuser()}"]
            for how in (["--full", "--signal=KILL"], []):  # submitit ignores the mild signal, until its time is over
                subprocess.run([*command, *how], capture_output=True, check=False)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._watcher.join()
        for own in self._jobs.values():
            own.job.cancel(check=False)
        if not self._lost:
            files.remove(self._place)

    def submit(self, order: Order) -> "Future[Outcome]":
        """See `core_dd.compare.executors.Executor`."""
        done: Future[Outcome] = Future()
        with self._lock:
            self._new.append((order, done))
        return done

    def _watch(self) -> None:
        """Until the end, hand in what is new, and look after what was handed in."""
        while not self._stop.wait(LOOKED_EVERY_S):
            with self._lock:
                new, self._new = self._new, []
            if new:
                self._hand_in(new)
            with contextlib.suppress(OSError):  # of shared folders that stutter: another look comes
                self._ask()
            for done, own in list(self._jobs.items()):
                try:
                    self._look(done, own)
                except OSError:
                    continue
                except Exception as error:  # nobody else would say that it ended
                    self._jobs.pop(done, None)
                    if not done.done():
                        done.set_result(Outcome(own.order.key, f"its job: {type(error).__name__}: {error}"))

    def _hand_in(self, new: "list[tuple[Order, Future[Outcome]]]") -> None:
        """Hand orders in, as one array."""
        work = _Work(self._threads, self._means.paths, alone=self._cluster != "debug")
        try:
            jobs = self._engine.map_array(work, [order for order, _ in new])
        except Exception as error:  # sbatch refuses in its own words: a partition, an account, a time
            for order, done in new:
                done.set_result(Outcome(order.key, f"it was not taken: {' '.join(str(error).split())}"))
            return
        now = time.monotonic()
        self._jobs |= {done: _Job(order, job, now) for (order, done), job in zip(new, jobs, strict=True)}

    def _ask(self) -> None:
        """See what is in Slurm's queue, now and then; nothing is asked of its accounting, which not all have."""
        now = time.monotonic()
        if self._cluster != "slurm" or not self._jobs or now - self._asked < ASKED_EVERY_S:
            return
        command = ["squeue", f"--name={self._name}", f"--user={getpass.getuser()}", "--array", "--noheader", "-o%i %T"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            lines = [line.split() for line in answer.stdout.splitlines()]
            self._asked, self._queue = now, {line[0]: line[1] for line in lines if len(line) == 2}

    def _look(self, done: "Future[Outcome]", own: "_Job") -> None:
        """See whether a job began, ended, or was lost."""
        job, unseen = own.job, False
        if self._cluster == "slurm":
            state = self._queue.get(job.job_id)
            if job.paths.result_pickle.exists():
                ended, lost = True, False
            else:
                # Other machines see a result late: NFS keeps what it knows of a folder for up to a minute.
                own.seen = own.seen if state is None else self._asked
                ended = state is None and self._asked - own.seen > UNSEEN_FOR_S
                lost, unseen = ended and not own.order.done, ended
        else:
            state, ended = "RUNNING", self._cluster == "debug" or job.done()
            lost = ended and self._cluster == "local" and not job.paths.result_pickle.exists()
        if ended:
            self._lost |= lost
            outcome = Outcome(own.order.key, _last_words(job) if lost else None) if lost or unseen else _outcome(own)
            del self._jobs[done]
            done.set_result(outcome)
        elif state == "RUNNING" and not done.running():
            done.set_running_or_notify_cancel()


@dataclass(eq=False)
class _Job:
    """A job that was handed in: the order, submitit's job, and when it was last seen in the queue, or handed in."""

    order: Order
    job: "submitit.Job[Any]"
    seen: float


def _outcome(own: _Job) -> Outcome:
    """How a job ended that says so."""
    try:
        return own.job.result()
    except Exception as error:  # it could not even begin: its Python, its imports
        return Outcome(own.order.key, f"its job failed: {brief(str(error).strip().splitlines()[-1])}")


def _last_words(job: "submitit.Job[Any]") -> str:
    """What a job said last that ended without saying how."""
    log = job.paths.stderr  # read here: submitit wants UTF-8 to the last byte
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    said = [line for line in text.splitlines() if line.strip()]
    return f"its job {job.job_id} ended abruptly{': ' + brief(said[-1]) if said else ''} (see {job.paths.folder})."


@dataclass(frozen=True)
class _Work(Checkpointable):
    """What a job calls: it does an order, and queued again goes on with it.

    Attributes:
        threads, paths: see `core_dd.compare.jobs.settle`.
        alone: whether its process does nothing else.
    """

    threads: int
    paths: tuple[str, ...]
    alone: bool

    def __call__(self, order: Order) -> Outcome:
        settle(self.threads, self.paths)
        return perform_alone(order) if self.alone else perform(order)
