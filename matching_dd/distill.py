"""Command: learn ipc images per class by matching real data."""

import datetime
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch

from core_dd import cli, files, records
from core_dd.config import load_config, peek, to_dict, to_yaml
from core_dd.data import readers
from core_dd.data.images import ImageData
from core_dd.errors import pick, require
from core_dd.progress import Progress
from core_dd.run import Run, checkpoints, find_folder
from core_dd.sets import pictures
from core_dd.sets.distilled import DistilledSet, Spent, new_meta
from core_dd.speed import peak_mib, prepare_device
from matching_dd.methods import METHODS
from matching_dd.options import MatchingConfig


def distill(method: str, data: str | ImageData, ipc: int, **config: Any) -> DistilledSet:
    """Distil a dataset, in a run folder, as the command does.

    Args:
        method: a key of `METHODS`.
        data: the real data, or its spec.
        ipc: synthetic images per class.
        config: other fields of the method's config, e.g. `iterations=1000, seed=1, out="runs/mine"`.

    Returns:
        The set that the run folder's distilled.safetensors holds: float images in pixel units, hard labels, or the
        soft ones (N, K) that a method learns.

    Raises:
        InputError: an unknown method or option, one of another type, data or options that do not fit, or a run folder
            that exists.
    """
    cls = pick(METHODS, method, "method").Config
    known = {field.name: field for field in fields(cls) if field.name != "dry_run"}
    kinds = get_type_hints(cls)
    for name, value in {"ipc": ipc, **config}.items():
        pick(known, name, f"option of {method}")
        records.checked(value, kinds[name], name, f"Give {method} a value of that type.")
    spec = data if isinstance(data, str) else data.name
    return run(cls(method=method, data=spec, ipc=ipc, **config), None if isinstance(data, str) else data)


def run(config: MatchingConfig, data: ImageData | None = None) -> DistilledSet:
    """Distil as `config` says (on `data`, where it is loaded already) in a run folder, and return the set.

    Raises:
        InputError: whatever does not fit, before any work; a loss that is not finite.
    """
    # Whatever can be wrong is found before any work.
    data = data or config.load_data(config.seed)
    name = _run_name(config, data)
    find_folder(config.out, name, config.resume)
    prepare_device(config.device)
    method = METHODS[config.method](config, data)
    with Run.open(config, name, data.origin | method.origin) as run:
        # A resumed run continues where its last checkpoint was; every draw is keyed by (seed, purpose, step).
        first, folder = run.last() or (0, None)
        if folder is not None:
            require(first <= config.iterations, f"{folder} is past iteration {config.iterations}. Raise --iterations.")
            state = records.checked(
                readers.load_tensors(folder / _STATE), dict[str, Any], str(folder / _STATE), _BEFORE
            )
            with records.restoring(str(folder / _STATE), _BEFORE):
                method.load_state(state)
            run.say(f"resumed at iteration {first} from {folder}")
        for name, images in method.drawn.items():
            if images.smaller_classes:
                run.say(
                    f"{len(images.smaller_classes)} of {data.num_classes} classes have fewer than {name} "
                    f"{images.batch} images: they are sampled with replacement."
                )
        earlier = _spent(folder / _DISTILLED) if folder else 0.0
        started = time.perf_counter() - earlier

        # Match.
        progress = Progress("distil", config.iterations, first)
        for step in range(first, config.iterations):
            loss, done = method.step(step), step + 1
            progress.update()
            if done % config.log_every == 0 or done % config.checkpoint_every == 0 or done == config.iterations:
                run.log(done, loss=loss.item())  # stops on a loss that is not finite, before anything is saved
                progress.note = f"loss {loss.item():.4g}"
            if done % config.checkpoint_every == 0 or done == config.iterations:
                dset = method.synthetic.to_distilled(_describe(config, data, done, time.perf_counter() - started))
                with run.checkpoint(done) as folder:
                    torch.save(method.state(), folder / _STATE)
                    dset.save(folder / _DISTILLED)
                    pictures.save_grid(folder / _GRID, dset.images, dset.labels)
                for _, old in checkpoints(run.folder)[:-_STATES]:  # IDM's hold hundreds of MB of networks
                    (old / _STATE).unlink(missing_ok=True)

        progress.close()

        # The result is the last checkpoint's set.
        last = run.last()
        assert last is not None
        for file in (_DISTILLED, _GRID):
            with files.atomic(run.folder / file) as temporary:
                shutil.copyfile(last[1] / file, temporary)
        run.say(f"{run.folder / _DISTILLED}: {config.ipc} images per class of {data.name}")
        return DistilledSet.load(run.folder / _DISTILLED)


def _spent(place: Path) -> float:
    """The seconds that a set took so far, as it says itself."""
    meta = DistilledSet.load(place).meta
    return records.checked(meta, Spent, f"the metadata of {place}", _BEFORE)["cost"]["seconds"]


def _run_name(config: MatchingConfig, data: ImageData) -> str:
    """What the run folder is called where none is given."""
    return f"{data.name}-{config.method}-ipc{config.ipc}"


def _describe(config: MatchingConfig, data: ImageData, iterations: int, seconds: float) -> dict[str, Any]:
    """The metadata of the set after so many iterations and seconds, those of earlier calls included."""
    cost = {"iterations": iterations, "seconds": round(seconds, 3)}
    return new_meta(data, method=config.method, ipc=config.ipc, seed=config.seed, config=to_dict(config), cost=cost)


def _dry_run(config: MatchingConfig) -> None:
    """Print the resolved config, and the memory and time to expect, measured on a few iterations that are then lost."""
    data = config.load_data(config.seed)
    find_folder(config.out, _run_name(config, data), config.resume)
    found = measured(config, data)
    print(to_yaml(config), end="")
    print(f"# checked on {found.device}: {found.parts} part(s) of the classes per iteration")
    print(f"# memory: {found.mib / 1024:.2f} GiB at its peak")
    print(
        f"# time: {found.first:.1f} s to start, then {found.each:.3g} s per iteration: "
        f"{datetime.timedelta(seconds=round(found.first + found.each * config.iterations))} for {config.iterations}"
    )


class _Measured(NamedTuple):
    """What a distillation takes."""

    device: torch.device
    parts: int
    """Into which the classes are cut."""
    first: float
    """Seconds of the first iteration, with whatever it compiles."""
    each: float
    """Seconds of every other one."""
    mib: float
    """Memory at its peak, in MiB."""


def measured(config: MatchingConfig, data: ImageData) -> _Measured:
    """What a distillation takes, by a few iterations that are then lost."""
    prepare_device(config.device)
    method, seconds = METHODS[config.method](config, data), []
    for step in range(1 + _TRIALS):
        started = time.perf_counter()
        method.step(step).item()
        seconds.append(time.perf_counter() - started)
        if sum(seconds) > _PATIENCE:  # an iteration may be the whole life of a network
            break
    each = statistics.median(seconds[1:] or seconds)
    return _Measured(method.device, len(method.chunks), seconds[0], each, peak_mib(method.device))


_BEFORE = "Remove this checkpoint to resume from the one before it, or start a new run."
_TRIALS, _PATIENCE = 5, 60
_STATES = 3  # how many checkpoints can be gone on from; the others are kept for their sets
_STATE, _DISTILLED, _GRID = "state.pt", "distilled.safetensors", "grid.png"


def main(argv: Sequence[str] | None = None) -> None:
    """Distil one set."""
    method = peek(argv, "method", "matching") or MatchingConfig.method
    config = load_config(pick(METHODS, method, "method").Config, argv, prog="gendd distill", home="matching")
    (_dry_run if config.dry_run else run)(config)


if __name__ == "__main__":
    cli.entry(main)
