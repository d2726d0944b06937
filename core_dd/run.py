"""A run folder: config.yaml, log.txt, stats.jsonl, checkpoints/step-004000 and checkpoints/last; written so that a kill
at any moment loses at most the work since the last checkpoint."""

import contextlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from core_dd import files
from core_dd.config import to_dict
from core_dd.errors import Diverged, pick, require


class Run:
    """One run of a command. Open it with `Run.open`; under a launcher only the main process opens it to write."""

    def __init__(self, folder: Path, keep: int, tracker: Any, resumed: bool) -> None:
        self.folder, self.keep, self.resumed = folder, keep, resumed
        self._tracker = tracker
        self._stats = (folder / "stats.jsonl").open("a", encoding="utf-8")

    @classmethod
    def open(
        cls,
        out: str | Path | None,
        name: str,
        config: Any,
        *,
        resume: bool = False,
        tracker: str = "tensorboard",
        keep: int = 3,
    ) -> "Run":
        """Make a run folder, or continue one.

        Args:
            out: the folder; None picks the next number under `runs/NAME/` (or, with `resume`, the highest one).
            name: what is run, e.g. "digits-dm-ipc10".
            config: the resolved config dataclass; written to config.yaml.
            resume: continue a folder that has checkpoints or none yet; its config must equal `config`.
            tracker: tensorboard, another tracker known to accelerate (wandb, ...), or none.
            keep: how many of the newest checkpoints to keep.

        Raises:
            InputError: if the folder exists and `resume` is off, is missing and `resume` is on, or its config differs;
                an unknown tracker, or one that is not installed.
        """
        folder, kind = find_folder(out, name, resume), _tracker_class(tracker)
        settings = {key: value for key, value in to_dict(config).items() if key not in UNSAVED}
        if resume and (folder / "config.yaml").exists():
            _check_same(folder / "config.yaml", settings)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            files.write_text(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
        for leftover in folder.glob("checkpoints/.*.tmp"):
            shutil.rmtree(leftover)
        run = cls(folder, keep, _start_tracker(kind, folder) if kind else None, resume)
        run._drop_stats_after(run.last()[0] if run.last() else 0)
        return run

    def log(self, step: int, **values: float) -> None:
        """Append one line to stats.jsonl and to the tracker.

        Raises:
            Diverged: if a value is not finite; nothing is written.
        """
        plain = {name: float(value) for name, value in values.items()}
        self.check(step, **plain)
        self._stats.write(json.dumps({"step": step, **plain}) + "\n")
        self._stats.flush()
        if self._tracker is not None:
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
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(text + "\n")

    @contextlib.contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """Yield a temporary folder; on success it becomes `checkpoints/step-NNNNNN`, and `last` points to it."""
        place = self.folder / "checkpoints" / f"step-{step:06d}"
        if place.exists():
            shutil.rmtree(place)
        with files.atomic(place) as temporary:
            temporary.mkdir()
            yield temporary
            self._stats.flush()
            os.fsync(self._stats.fileno())
        pointer = place.with_name(".last")
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(place.name)
        os.replace(pointer, place.with_name("last"))
        for old in checkpoints(self.folder)[: -self.keep]:
            shutil.rmtree(old[1])

    def last(self) -> tuple[int, Path] | None:
        """(step, folder) of the newest checkpoint, or None."""
        found = checkpoints(self.folder)
        return found[-1] if found else None

    def close(self) -> None:
        """Flush the tracker and the statistics."""
        if self._tracker is not None:
            self._tracker.finish()
        self._stats.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _drop_stats_after(self, step: int) -> None:
        """Forget lines past the checkpoint a resumed run starts from (and a line cut by the kill)."""
        path = self.folder / "stats.jsonl"
        kept = [line for line in read_stats(path) if line["step"] <= step]
        self._stats.close()
        files.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._stats = path.open("a", encoding="utf-8")


UNSAVED = ("resume", "dry_run", "out")
"""Config fields that say how a command was called, not what it computes."""


def find_folder(out: str | Path | None, name: str, resume: bool) -> Path:
    """The folder a run will use; see `Run.open`."""
    if out is None:
        numbered = sorted(path for path in Path("runs", name).glob("[0-9]*") if path.is_dir() and path.name.isdecimal())
        if resume:
            require(bool(numbered), f"nothing to resume under runs/{name}. Start without --resume first.")
            return numbered[-1]
        return Path("runs", name, f"{int(numbered[-1].name) + 1 if numbered else 0:05d}")
    folder = Path(out)
    if resume:
        require(folder.is_dir(), f"nothing to resume at {folder}. Start without --resume first.")
    else:
        require(
            not folder.exists() or (folder.is_dir() and not any(folder.iterdir())),
            f"{folder} exists. Choose another --out, or continue it with --resume.",
        )
    return folder


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every finished checkpoint of a run, oldest first."""
    found = []
    for path in (folder / "checkpoints").glob("step-*"):
        match = re.fullmatch(r"step-(\d+)", path.name)
        if match:
            found.append((int(match[1]), path))
    return sorted(found)


def read_stats(path: Path) -> list[dict[str, float]]:
    """The lines of a stats.jsonl, without a last one that a kill cut short."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _check_same(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to resume with another config, naming the first difference; how long and how often may change."""
    saved = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in settings.items():
        require(
            key in FREE_ON_RESUME or saved.get(key) == value,
            f"{path.parent} was started with {key} {saved.get(key)}, now it is {value}. "
            "Resume with the same settings, or start a new run.",
        )


FREE_ON_RESUME = frozenset(
    {"iterations", "steps", "max_seconds", "chunk_seconds", "checkpoint_every", "grid_every", "log_every", "keep"}
    | {"tracker", "device", "eval_every", "eval_images", "eval_steps", "eval_solver", "inception_weights"}
    | {"stream", "workers"}
)
"""Config fields a resumed run may change without becoming another run."""


def _tracker_class(name: str) -> type | None:
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


def _start_tracker(cls: type, folder: Path) -> Any:
    """A tracker of the run in `folder`."""
    from accelerate import PartialState

    PartialState()
    if cls.requires_logging_directory:
        tracker = cls(cls.name, logging_dir=folder)
    else:
        tracker = cls(f"{folder.parent.name}-{folder.name}")
    if hasattr(tracker, "start"):
        tracker.start()
    return tracker
