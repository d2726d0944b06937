"""The pieces of work of a comparison: each fills one folder, is keyed by all that decides its content, and done once.

A job is a function by its dotted name and plain values to call it with, so that any process on any machine that shares
the folder can do it.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from msgspec import Meta

from core_dd import files, records
from core_dd.commands import imported
from core_dd.compare.reading import DataChoice
from core_dd.errors import InputError
from core_dd.locks import require_free

if TYPE_CHECKING:
    from core_dd.data.images import ImageData

DONE = "done.json"
"""The last file a job writes into its folder: what it was and what it took."""

PACKAGES = ("core_dd", "gen_dd", "matching_dd")
PATIENCE_S = 20
"""How long a job waits for a process that has just been killed to let go of its folder."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A piece of work.

    Attributes:
        kind: experts, generator, pool, classifier, set or score.
        title: what people read.
        function: `module:name`, called as `function(data, out, device, **options, **shown, **needs)`: `ImageData`, the
            folder to fill, the device's name or None; for each of `needs` the folder of that job.
        options: plain values; they decide what comes out.
        usual: what some of them are by default. A job is keyed by the others alone, so that an option which is new to
            gendd throws no result away.
        data: what it is about.
        needs: jobs that must be done before, by the argument that gets their folder.
        shown: plain values that change how the result is called, not what it is.
        identity: what else decides the result, such as the source of a user's function.
        measure: `module:name` of a function called as `function` is, but for `shown` and `needs`, that returns a
            `Forecast`; None: there is none that is cheap.
    """

    kind: str
    title: str
    function: str
    options: Mapping[str, Any]
    data: DataChoice
    needs: Mapping[str, "Job"] = field(default_factory=dict)
    usual: Mapping[str, Any] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    measure: str | None = None


@dataclass(frozen=True)
class Forecast:
    """What a job is expected to take.

    Attributes:
        seconds: its time.
        mib: memory at its peak, in MiB, that of the process included.
    """

    seconds: float
    mib: float


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job, ready to be done somewhere: paths instead of other jobs. Plain values throughout."""

    key: str
    kind: str
    title: str
    function: str
    options: Mapping[str, Any]
    data: DataChoice
    folder: str
    log: str
    needs: tuple[str, ...]
    """Keys."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Of what it needs, by the argument that gets them."""
    device: str | None = None
    like: str = ""
    """What jobs of about the same time and memory have in common."""
    measure: str | None = None
    measured_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether its folder is filled, by a job of this key.

        Raises:
            InputError: if what says so is damaged.
        """
        return (Path(self.folder) / DONE).is_file() and read_done(self.folder)["key"] == self.key


@dataclass(frozen=True)
class Outcome:
    """How an order ended: well, or with an error, a sentence."""

    key: str
    error: str | None = None


class Done(TypedDict):
    """What done.json holds."""

    key: str
    kind: str
    title: str
    like: str
    seconds: Annotated[float, Meta(ge=0)]
    peak_mib: Annotated[float, Meta(ge=0)]
    sources: str


def read_done(folder: str | Path) -> Done:
    """What a finished job took.

    Raises:
        InputError: if it is damaged.
    """
    return records.read(Path(folder) / DONE, Done, "Remove the folder, to do it again.")


def perform(order: Order) -> Outcome:
    """Do an order in this process, unless it is done; whatever it prints goes to its log, and why it failed, too."""
    with logged(Path(order.log)):
        print(f"{time.strftime('%F %T')} {order.title}", flush=True)
        try:
            if not order.done:
                _fill(order)
        except Exception as error:
            traceback.print_exc()
            said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            return Outcome(order.key, " ".join(said.split()) or type(error).__name__)
    return Outcome(order.key)


def perform_alone(order: Order) -> Outcome:
    """`perform` in a process that does nothing else: what is printed past Python goes to its log, too."""
    place = Path(order.log)
    place.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    return perform(order)


def settle(threads: int, paths: Sequence[str]) -> None:
    """What a process that does orders does first.

    Args:
        threads: how many it computes with.
        paths: folders in which it looks for modules, too.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    sys.path[:0] = [path for path in paths if path not in sys.path]
    import torch

    torch.set_num_threads(threads)


def _fill(order: Order) -> None:
    """Fill an order's folder, and say what that took."""
    from core_dd.speed import peak_mib, prepare_device, restart_peak

    folder, host = Path(order.folder), "cpu"  # whose memory workers share; each has its own GPU
    prepare_device(order.device)
    await_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    restart_peak(host)
    data, began = load(order.data), time.perf_counter()
    imported(order.function)(data, folder, order.device, **{**order.options, **order.folders})
    done: Done = {
        "key": order.key,
        "kind": order.kind,
        "title": order.title,
        "like": order.like,
        "seconds": round(time.perf_counter() - began, 3),
        "peak_mib": round(peak_mib(host), 1),
        "sources": sources(),
    }
    files.write_json(folder / DONE, done)


def await_free(folder: Path) -> None:
    """Wait a little until no other process has a folder, as one that was killed a moment ago may.

    Raises:
        InputError: if one still has it then.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return require_free(folder)
        except InputError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def logged(place: Path) -> Iterator[None]:
    """Whatever this process prints in the block is added to a file."""
    with files.explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        file = place.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    with file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


@lru_cache(maxsize=2)
def load(choice: DataChoice) -> "ImageData":
    """The data of a choice; the last two stay in memory."""
    from core_dd.data.images import load_data
    from core_dd.errors import about

    with about(f"data {choice.name}"):
        return load_data(choice.spec, image_size=choice.image_size, limit_per_class=choice.limit_per_class)


def key_of(job: Job, origins: Mapping[str, Mapping[str, str]], code: str) -> str:
    """16 hex digits that tell a job from any that could give something else.

    Args:
        job: the job.
        origins: of the data by their names: what `ImageData.origin` says.
        code: what of gendd's code counts, see `code_version`.
    """
    said = {
        "kind": job.kind,
        "function": job.function,
        "options": {name: value for name, value in job.options.items() if (name, value) not in job.usual.items()},
        "identity": {**job.identity, **_own_code(job.options)},
        "data": origins[job.data.name],
        "needs": {name: key_of(need, origins, code) for name, need in job.needs.items()},
        "code": code,
    }
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _own_code(options: Mapping[str, Any]) -> dict[str, str]:
    """Of the options that name a network of other code: what that code is now."""
    named = {name: own for name, own in options.items() if name.endswith("network") and isinstance(own, str)}
    foreign = {name: own for name, own in named.items() if ":" in own}
    if not foreign:
        return {}
    from core_dd.judge.networks.foreign import source_of  # torch takes seconds to import

    return {name: source_of(own) for name, own in foreign.items()}


def code_version(kind: str) -> str:
    """What of gendd's code tells whether a result may be taken: its version, or also its sources."""
    return f"gendd {version('gendd')}" + (f" {sources()}" if kind == "sources" else "")


@cache
def sources() -> str:
    """16 hex digits of all Python files of the packages of gendd."""
    total = hashlib.blake2b(digest_size=8)
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            total.update(f"{package}/{path.relative_to(root)}".encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
