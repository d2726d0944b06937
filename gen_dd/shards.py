"""The folder that a sampling draws into: shards of images, an index of them, and a picture; stopped, it can go on."""

import itertools
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta
from torch import Tensor

from core_dd import files, records
from core_dd.errors import require
from core_dd.notes import printable
from core_dd.run import require_unoccupied
from core_dd.sets import pictures
from core_dd.sets.distilled import SCHEMA, Spent, read_tensors, versions, write_tensors
from core_dd.sets.shards import INDEX, shard_name, shard_numbers
from gen_dd.budget import WRITE_S, Clock, Ranks
from gen_dd.sampler import Sampler
from gen_dd.sieve import Tally

_ROWS, _COLUMNS = 10, 10
"""Classes in the picture at most, and images of each."""

PLAN = "plan.json"
"""The plan of a pool that was planned."""

_SUMMARY = "summary.txt"
"""The last file written."""

_BETWEEN = 20
"""A shard is written once so many times the seconds have passed that the last one took."""


class ShardFolder:
    """The folder that a run draws into: shards, an index of them, and a picture.

    Small batches wait for each other: after the first, a shard is written once twenty times as long has passed as the
    last one took, which is what a kill loses at most. Those of several processes are written one by one.

    Once open, it keeps the clock's reserve at what will still have to be written when the last batch is drawn. The
    picture is made once it can be full or the budget is mostly spent, so that what it takes does not stay a guess to
    the end.

    Args:
        out: the folder.
        sampler, clock, ranks: of the run.
        identity: what a resumed run must agree with.
        meta: what `DistilledSet.meta` will be.
        tally: where images are filtered, counts what is rejected.
    """

    def __init__(
        self,
        out: Path,
        sampler: Sampler,
        clock: Clock,
        ranks: Ranks,
        identity: dict,
        meta: dict,
        tally: Tally | None = None,
    ) -> None:
        self.out, self.sampler, self.clock, self.ranks, self.tally = out, sampler, clock, ranks, tally
        self.identity, self.meta = identity, meta
        self.enough = math.ceil(_COLUMNS / sampler.group) * sampler.group * sampler.classes
        self.pictured, self.picture_s = not ranks.first, 0.0
        self.writes = deque([WRITE_S], maxlen=5)
        self.listed: tuple[int, int | None] | None = None
        self.held: list[tuple[range, dict[str, Tensor]]] = []
        self.next_s = 0.0

    def open(self) -> None:
        """Begin to draw: the pool is not finished any more, and time is kept for what will have to be written."""
        if self.ranks.first:
            (self.out / _SUMMARY).unlink(missing_ok=True)
            self.picture_s = self.expected_picture()
        if self.ranks.first and self.tally is not None:
            for shard in finished(self.out, resume=True):
                self.tally.add(read_tensors(self.out / shard_name(*shard))[0])
        self.keep()

    def keep(self) -> None:
        """Keep time for a shard and the index, for the index of the other processes' shards, and for the picture."""
        self.clock.reserve = max(self.writes) * (1 if self.ranks.count == 1 else 1.5) + self.picture_s

    def add(self, numbers: range, drawn: dict[str, Tensor]) -> None:
        """Take a batch, its images and what else was found of them; write it with those before it when that is due."""
        if self.held and self.held[-1][0].stop != numbers.start:
            self.write()
        self.held.append((numbers, drawn))
        if self.ranks.count > 1 or self.clock.elapsed() >= self.next_s:
            self.write()

    def write(self) -> None:
        """The batches at hand as one shard, and the index."""
        if not self.held:
            return
        numbers = range(self.held[0][0].start, self.held[-1][0].stop)
        drawn = {name: torch.cat([own[name] for _, own in self.held]) for name in self.held[0][1]}
        tensors = drawn | {"labels": self.sampler.labels(numbers)}
        if self.tally is not None:
            self.tally.add(tensors)
        header = {"identity": self.identity, "seconds": self.clock.elapsed()}
        write_tensors(self.out / shard_name(numbers.start, numbers.stop), tensors, header)
        self.held = []
        if self.ranks.first:
            self.index()
        self.writes.append(self.clock.book("write"))
        self.next_s = self.clock.elapsed() + _BETWEEN * self.writes[-1]
        self.keep()

    def index(self, number: int | None = None) -> int:
        """Write index.json, unless it is up to date: what `DistilledSet.load` reads and a resumed run must agree with.

        It lists the shards up to the first hole, which a kill may leave between those of several processes: classes are
        balanced up to there alone. Those behind it wait for a resumed run to fill it.

        Args:
            number: the images per class that were wanted; noted where they are all there.

        Returns:
            How many images it lists.
        """
        done = leading(finished(self.out, resume=True))
        shards = [{"file": shard_name(start, stop), "images": stop - start} for start, stop in done]
        count = done[-1][1] if done else 0
        ipc = number if number is not None and count == number * self.sampler.classes else None
        if self.listed != (count, ipc):
            meta = self.meta | {"ipc": ipc, "cost": {"seconds": round(self.clock.elapsed(), 3)}}
            files.write_json(self.out / INDEX, {"meta": meta, "identity": self.identity, "shards": shards})
            self.listed = count, ipc
        return count

    def picture(self) -> None:
        """Write grid.png, once: the first images of the first classes, a class per row."""
        if self.pictured:
            return
        self.write()
        shards = [shard for shard in finished(self.out, resume=True) if shard[0] < self.enough]
        parts = [read_tensors(self.out / shard_name(*shard))[0] for shard in shards]
        images, labels = (torch.cat([part[name] for part in parts]) for name in ("images", "labels"))
        rows = range(min(_ROWS, self.sampler.classes))
        pictures.save_grid(self.out / "grid.png", images, labels, per_class=_COLUMNS, classes=rows)
        self.pictured, self.picture_s = True, 0.0
        self.clock.book("picture")
        self.keep()

    def expected_picture(self) -> float:
        """Seconds the picture may take, from one row of slightly noisy ramps, which compress as slowly as photos."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(_COLUMNS, *self.sampler.shape, generator=generator)
        row = (3 * noise + torch.linspace(10, 245, noise.shape[-1])).clamp(0, 255).to(torch.uint8)

        def timed() -> float:
            began = time.perf_counter()
            pictures.png(pictures.grid(row, torch.zeros(_COLUMNS, dtype=torch.int64)))
            return time.perf_counter() - began

        return 1.5 * min(timed(), timed()) * min(_ROWS, self.sampler.classes)

    def finish(self, before: int, number: int | None) -> str:
        """Write the last index, and the picture unless it is there; say what was drawn and where every second went.

        The same goes into summary.txt, last of all: where it is, the pool is finished.
        """
        clock = self.clock
        self.picture()
        if self.tally is not None:
            self.meta["filter"] |= self.tally.facts()
            self.listed = None
        count = self.index(number)
        clock.book("rest")
        counts = torch.bincount(self.sampler.labels(range(count)), minlength=self.sampler.classes)
        low, high = int(counts.min()), int(counts.max())
        each = f"{low}" if low == high else f"{low} or {high}"
        asked = f" of {number} asked for" if number is not None and low < number else ""
        there = sum(stop - start for start, stop in finished(self.out, resume=True))
        rate = (there - before) / max(clock.parts["sample"], 1e-9)
        text = (
            f"{self.out}: {count} images, {each} per class{asked}, {self.sampler.steps} steps, batches of "
            f"{self.sampler.batch}, {rate:.0f} images/s; {clock.summary()}"
        )
        if there > count:
            text += (
                f"\nnote: {there - count} more images lie behind a hole, which a kill left at number {count} and for "
                "which there was no time: they do not belong to the set. Go on with --resume and a larger --budget."
            )
        if "plan" in self.meta:
            text += f"\n{self.meta['plan']}"
        if self.tally is not None:
            names = printable(self.meta["class_names"]) or [str(k) for k in range(self.sampler.classes)]
            text += f"\n{self.tally.said(names, count)}"
        files.write_text(self.out / _SUMMARY, text + "\n")
        return text


def finished(out: Path, resume: bool) -> list[tuple[int, int]]:
    """The number ranges whose shards are on the disk, in order.

    Raises:
        InputError: if the folder holds anything and `resume` is off.
    """
    if not resume:
        require_unoccupied(out)
    found = sorted(numbers for path in out.glob("images-*") if (numbers := shard_numbers(path.name)))
    for (_, end), (start, stop) in itertools.pairwise([(0, 0), *found]):
        require(
            end <= start < stop,
            f"{out / shard_name(start, stop)} holds images that another shard holds, too, or none. Remove one of them, "
            "or choose another --out.",
        )
    return found


def leading(done: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of the number ranges that are there, in order, those before the first hole.

    Examples:
        >>> leading([(0, 50), (50, 80), (100, 120)])
        [(0, 50), (50, 80)]
    """
    ends = itertools.accumulate(stop - start for start, stop in done)  # as long as there is no hole
    return [shard for shard, end in zip(done, ends, strict=True) if shard[1] == end]


def gaps(done: Sequence[tuple[int, int]], total: int | None) -> list[tuple[int, int | None]]:
    """The number ranges below `total` not drawn yet: holes between shards, then everything after the last one.

    Examples:
        >>> gaps([(0, 40), (60, 100)], 50), gaps([(0, 40)], None)
        ([(40, 50)], [(40, None)])
    """
    free: list[tuple[int, int | None]] = []
    low = 0
    for start, stop in done:
        high = start if total is None else min(start, total)
        if low < high:
            free.append((low, high))
        low = stop
    return [*free, (low, total)] if total is None or low < total else free


class _Identity(TypedDict):
    """What decides the images of a pool; more stands beside the steps."""

    steps: Annotated[int, Meta(ge=1)]


class _Header(TypedDict):
    """The metadata of a shard."""

    identity: _Identity
    seconds: Annotated[float, Meta(ge=0)]


class _Begun(TypedDict):
    """Of the index of a pool, what a resumed run needs."""

    identity: _Identity
    meta: Spent


def resumed(
    out: Path, done: Sequence[tuple[int, int]], identity: dict[str, Any], clock: Clock, planning: float = 0.0
) -> dict[str, Any]:
    """Refuse a folder drawn by another model or other settings; count the seconds it took so far.

    Args:
        out: the folder.
        done: the number ranges that are there.
        identity: what must agree.
        clock: counts.
        planning: seconds after which its plan was made, where that was all that an earlier run did.

    Returns:
        The identity of what is there, its steps a number; the one given, where nothing is there.
    """
    index = out / INDEX
    if not index.exists() and not done:
        if planning and (out / PLAN).exists():
            clock.resume(planning)
        return identity
    hint = f"It does not say what was drawn and how long that took. Choose another --out than {out}."
    if index.exists():
        content = records.read(index, _Begun, hint)
        there, seconds = content["identity"], content["meta"]["cost"]["seconds"]
    else:  # killed between the first shard and its index
        header = read_tensors(out / shard_name(*done[0]), _Header)[1]
        there, seconds = header["identity"], header["seconds"]
    for name, value in identity.items():
        require(
            there.get(name) == value or (name == "steps" and value == "auto"),
            f"{out} was drawn with {name} {there.get(name)}, now it is {value}. Resume with the same, or choose "
            "another --out.",
        )
    clock.resume(float(seconds))
    return there


def describe(
    card: dict[str, Any], seed: int, config: dict[str, Any], seconds: float, ipc: int | None = None
) -> dict[str, Any]:
    """The metadata of a sampled set, from the model's card."""
    return {
        "schema": SCHEMA,
        "data": card.get("data"),
        "fingerprint": card.get("fingerprint"),
        "class_names": card.get("class_names"),
        "learnt": card.get("learnt"),
        "ipc": ipc,
        "preprocess": None,
        "factor": 1,
        "lr": None,
        "method": "uvit",
        "config": config,
        "seed": seed,
        "cost": {"seconds": round(seconds, 3)},
        "versions": versions(),
    }
