"""A run folder: config.yaml, log.txt, stats.jsonl, checkpoints/step-004000 and checkpoints/last; written so that a kill
at any moment loses at most the work since the last checkpoint."""

import contextlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from core_dd import files, records
from core_dd.config import renamed, to_dict
from core_dd.errors import Diverged, InputError, pick, require
from core_dd.locks import Taken, own_file, own_folder, require_free
from core_dd.options import RunConfig, mark
from core_dd.yaml_files import read_yaml, yaml_text


class Run:
    """One run of a command, and its folder: `Run.open` makes it. Under a launcher only the first process opens one; the
    others have a `SilentRun`.

    Attributes:
        folder: where everything goes.
        keep: how many of the newest checkpoints stay.
        resumed: whether it goes on from an earlier call.
    """

    def __init__(self, folder: Path, keep: int, resumed: bool, claim: contextlib.ExitStack) -> None:
        self.folder, self.keep, self.resumed = folder, keep, resumed
        self._claim = claim
        self._tracker: Any = None

    @classmethod
    def open(cls, config: RunConfig, name: str, origin: Mapping[str, str] | None = None) -> "Run":
        """Make a run folder, or continue one; it is this process's alone until `close` or the process's end.

        Args:
            config: the resolved config, written to config.yaml. Its `out` is the folder; None picks the next number
                under `runs/NAME/` (or, with `resume`, the highest one). With `resume` that folder's config and origin
                must equal these, but for what is marked as free to change.
            name: what is run, e.g. "digits-dm-ipc10".
            origin: what the run is made from that the config does not tell, as strings: its data's digests. Kept in
                origin.json.

        Raises:
            InputError: if the folder exists and `resume` is off, is missing and `resume` is on, is in use, cannot be
                written, or its config or origin differs; an unknown tracker, or one that is not installed.
        """
        folder, kind = find_folder(config.out, name, config.resume), _tracker_class(config.tracker)
        if config.resume:
            _check_same(folder, config, origin or {})
        claim = contextlib.ExitStack()
        run = cls(claim.enter_context(claimed(config.out, name, config.resume)), config.keep, config.resume, claim)
        try:
            run._begin(saved(config), origin or {}, kind)
        except BaseException:
            run.close()
            raise
        return run

    def _begin(self, settings: dict[str, Any], origin: Mapping[str, Any], tracker: Any) -> None:
        """Write down what is run, anew where that has changed, and forget what a killed run left."""
        said, place = yaml_text(settings), self.folder / CONFIG
        if not place.exists() or place.read_text(encoding="utf-8") != said:
            files.write_text(place, said)
        if origin and not (self.folder / _ORIGIN).exists():
            files.write_json(self.folder / _ORIGIN, origin)
        files.sweep(self.folder / "checkpoints")
        last = self.last()
        self._drop_stats_after(last[0] if last else 0)
        if tracker is not None:
            with files.explained(self.folder / "tracker"):
                self._tracker = _start_tracker(tracker, self.folder)

    def log(self, step: int, **values: float) -> None:
        """Append one line to stats.jsonl and to the tracker.

        Raises:
            Diverged: if a value is not finite; nothing is written.
            InputError: if the disk is full.
        """
        plain = {name: float(value) for name, value in values.items()}
        self.check(step, **plain)
        _append(self.folder / STATS, json.dumps({"step": step, **plain}) + "\n")
        if self._tracker is not None:
            with files.explained(self.folder / "tracker"):
                self._tracker.log(plain, step=step)

    def check(self, step: int, **values: float) -> None:
        """Stop at a value that is not finite.

        Raises:
            Diverged: if there is one; the message names it, the step and the last checkpoint.
        """
        for name, value in values.items():
            if not math.isfinite(value):
                last = self.last()
                raise Diverged(
                    f"{name} is {value} at step {step}. The last good checkpoint is {last[1] if last else 'none yet'}; "
                    "start a new run with a lower learning rate."
                )

    def say(self, text: str) -> None:
        """A line for people: to stderr (around any progress bar) and to log.txt."""
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
        _append(self.folder / "log.txt", text + "\n")

    @contextlib.contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """Yield a temporary folder; on success it becomes `checkpoints/step-NNNNNN`, and `last` points to it."""
        place = self.folder / "checkpoints" / f"step-{step:06d}"
        if place.exists():
            shutil.rmtree(place)
        with files.atomic(place) as temporary:
            temporary.mkdir()
            yield temporary
            files.sync(self.folder / STATS)
        files.link(place.with_name("last"), Path(place.name))
        with files.explained(place):
            for old in checkpoints(self.folder)[: -self.keep]:
                shutil.rmtree(old[1])

    def write(self, path: Path, make: Callable[[Path], object]) -> Path:
        """Have `make` write a file or a folder of this run at `path`, which is returned."""
        make(path)
        return path

    def last(self) -> tuple[int, Path] | None:
        """(step, folder) of the newest checkpoint, or None."""
        found = checkpoints(self.folder)
        return found[-1] if found else None

    def close(self) -> None:
        """Flush the tracker, and let others have the folder."""
        tracker, self._tracker = self._tracker, None
        try:
            if tracker is not None:
                with files.explained(self.folder / "tracker"):
                    tracker.finish()
        finally:
            self._claim.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self.close()
        else:  # the message that matters is the block's
            with contextlib.suppress(InputError):
                self.close()

    def _drop_stats_after(self, step: int) -> None:
        """Forget lines past the checkpoint a resumed run starts from (and a line cut by the kill)."""
        path = self.folder / STATS
        kept = [line for line in read_stats(path) if line["step"] <= step]
        files.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


class SilentRun(Run):
    """What the other processes of a launcher have in place of the first one's `Run`: it takes whatever that takes, and
    says, checks and writes nothing. Its folder is no folder."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), keep=0, resumed=False, claim=contextlib.ExitStack())

    def log(self, step: int, **values: float) -> None:
        """Nothing."""

    def check(self, step: int, **values: float) -> None:
        """Nothing: the first process stops all of them."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """The folder that is none, to be given to `write`."""
        yield self.folder

    def write(self, path: Path, make: Callable[[Path], object]) -> Path:
        """Nothing; returns the path, where the first process writes."""
        return path

    def last(self) -> None:
        """None: which checkpoint is the newest is the first process's to say."""


CONFIG, _ORIGIN, STATS = "config.yaml", "origin.json", "stats.jsonl"
_BY_CONTENT = ("data", "experts")
"""Options that name places, which may move: what was there is told by origin.json."""


def saved(config: RunConfig) -> dict[str, Any]:
    """What config.yaml holds of a config: what it computes, not how the command was called."""
    return {key: value for key, value in to_dict(config).items() if mark(type(config), key, "saved", True)}


def _append(path: Path, text: str) -> None:
    """Add to a file that is read line by line; what a full disk cuts is its last line.

    Raises:
        InputError: if the disk is full or the file cannot be written.
    """
    with files.explained(path), path.open("ab", buffering=0) as file:
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[file.write(data) :]


def find_folder(out: str | Path | None, name: str, resume: bool | None) -> Path:
    """The folder a run will use, which is neither made nor kept from others yet; see `Run.open` and `claimed`.

    `resume` is None where the command cannot.
    """
    if out is None:
        numbered = sorted((path for path in Path("runs", name).glob("[0-9]*") if path.name.isdecimal()), key=_number)
        if not resume:
            return Path("runs", name, f"{_number(numbered[-1]) + 1 if numbered else 0:05d}")
        folders = list(filter(Path.is_dir, numbered))
        require(bool(folders), f"nothing to resume under runs/{name}. Start without --resume first.")
        folder = folders[-1]
    else:
        folder = Path(out)
    if resume:
        require(folder.is_dir(), f"nothing to resume at {folder}. Start without --resume first.")
        require_free(folder)
    else:
        require_unoccupied(folder, resumable=resume is not None)
    return folder


def foreseen(config: RunConfig, name: str) -> int:
    """After how many steps a run would go on, 0 for a new one; nothing is made or kept from others.

    Args:
        config, name: as for `Run.open`.

    Raises:
        InputError: what `Run.open` refuses, as far as the data's digests do not have to be known for it.
    """
    folder = find_folder(config.out, name, config.resume)
    _tracker_class(config.tracker)
    if not config.resume:
        return 0
    _check_same(folder, config, {})
    return max((step for step, _ in checkpoints(folder)), default=0)


def _number(folder: Path) -> int:
    return int(folder.name)


def require_unoccupied(folder: Path, *, resumable: bool = True) -> None:
    """Refuse a folder with anything in it, which may be continued if it is `resumable`.

    Raises:
        InputError: if there is; or a file is in its place.
    """
    if folder.is_dir():
        way_out = ", or continue it with --resume." if resumable else " or remove it first."
        require(not files.occupied(folder), f"{folder} exists. Choose another --out{way_out}")
    else:
        files.require_new(folder)


@contextlib.contextmanager
def claimed(out: str | Path | None, name: str, resume: bool | None = None) -> Iterator[Path]:
    """Make the folder that `find_folder` finds, and have it to oneself during the block.

    Of several processes that start at the same moment each gets a number of its own; of those that name one folder the
    first gets it.

    Raises:
        InputError: as `find_folder`; or if the folder is in use or cannot be written.
    """
    numbered = out is None and not resume
    with contextlib.ExitStack() as stack:
        while True:
            folder = find_folder(out, name, resume)
            try:
                stack.enter_context(own_folder(folder, new=numbered))
                break
            except Taken:  # another process took this number
                continue
        if not resume:
            require_unoccupied(folder, resumable=resume is not None)
        yield folder


@contextlib.contextmanager
def claimed_file(out: str | Path | None, name: str, file: str) -> Iterator[Path]:
    """Have a file that is to be written to oneself during the block: `out`, or `file` in the next folder of `name`.

    Raises:
        InputError: if it is there, another process is writing it, or its folder cannot be written.
    """
    if out is None:
        with claimed(None, name) as folder:
            yield folder / file
    else:
        with own_file(Path(out)):
            yield Path(out)


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every finished checkpoint of a run, oldest first."""
    found = []
    for path in (folder / "checkpoints").glob("step-*"):
        match = re.fullmatch(r"step-(\d+)", path.name)
        if match:
            found.append((int(match[1]), path))
    return sorted(found)


class _Stats(TypedDict):
    """A line of stats.jsonl: its step, and numbers by name."""

    step: Annotated[int, Meta(ge=0)]


def read_stats(path: Path) -> list[dict[str, float]]:
    """The lines of a stats.jsonl, without a last one that a kill cut short.

    Raises:
        InputError: a line that is damaged, or no step with numbers; the message names it.
    """
    content = path.read_bytes() if path.is_file() else b""
    whole, _, cut = content.rpartition(b"\n")
    lines = []
    for number, text in enumerate(whole.split(b"\n") if whole else [], 1):
        lines.append(_stats_line(text, f"line {number} of {path}"))
    with contextlib.suppress(InputError):
        lines += [_stats_line(cut, "the last line")] if cut else []
    return lines


def _stats_line(text: bytes, where: str) -> dict[str, float]:
    hint = "Remove that line."
    return records.checked(records.parse(text, dict[str, records.Number], where, hint), _Stats, where, hint)


def _check_same(folder: Path, config: RunConfig, origin: Mapping[str, Any]) -> None:
    """Refuse to resume with another config, naming the first difference, or from other data; what is marked as free to
    change on resume may.

    Raises:
        InputError: if there is a difference, or what the folder says cannot be read.
    """
    settings = before = saved(config)
    if (folder / CONFIG).exists():
        new = {own.name: own.default for own in fields(config)}  # options that there were not yet when it was begun
        before = new | renamed(type(config), read_yaml(folder / CONFIG))
    told = (folder / _ORIGIN).exists()
    for key, value in settings.items():
        placed = told and key in _BY_CONTENT and isinstance(value, str)
        why = None if placed else config.kept_on_resume(key)
        require(
            why is None or before.get(key) == value,
            f"{folder} was started with {key} {before.get(key)}, now it is {value}{why}. "
            "Resume with the same settings, or start a new run.",
        )
    if not origin or not ((folder / _ORIGIN).exists() or checkpoints(folder)):
        return
    hint = "It does not say what the run was made from. Start a new run."
    began = records.read(folder / _ORIGIN, dict[str, Any], hint)
    for key, value in origin.items():
        unsaid = key == "experts" and key not in began  # by runs that were begun before it was kept
        unsaid |= key == "data" and "training_digest" in origin  # which tells data better than their name
        require(
            unsaid or began.get(key) == value,
            f"{folder} was begun with other data: their {key} was {began.get(key)}, now it is {value}. Resume with the "
            "data it was begun with, or start a new run.",
        )


def _tracker_class(name: str) -> Any:
    """One of accelerate's experiment trackers, or None for "none"."""
    if name == "none":
        return None
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    kinds = {str(kind): cls for kind, cls in LOGGER_TYPE_TO_CLASS.items()}
    cls = pick(kinds | {"none": None}, name, "tracker")
    require(
        name in map(str, get_available_trackers()),
        f"tracker '{name}' is not installed. pip install it, or pass --tracker none.",
    )
    return cls


def _start_tracker(cls: Any, folder: Path) -> Any:
    """A tracker of the run in `folder`, of one of accelerate's classes."""
    from accelerate import PartialState

    PartialState()
    if cls.requires_logging_directory:
        tracker = cls(cls.name, logging_dir=folder)
    else:
        tracker = cls(f"{folder.parent.name}-{folder.name}")
    if hasattr(tracker, "start"):
        tracker.start()
    return tracker
