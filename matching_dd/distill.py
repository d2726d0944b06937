"""Command: learn ipc images per class by matching real data."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch

from core_dd import cli, files, records
from core_dd.config import load_config, peek, to_dict, to_yaml
from core_dd.data import readers
from core_dd.data.images import ImageData
from core_dd.data.options import DataConfig
from core_dd.errors import Diverged, InputError, pick, require
from core_dd.judge.habits import trains
from core_dd.progress import Progress
from core_dd.run import Run, checkpoints, find_folder, foreseen
from core_dd.sets.distilled import Cost, DistilledSet, Spent, new_meta
from core_dd.speed import peak_mib, prepare_device
from matching_dd.base import Method
from matching_dd.methods import METHODS
from matching_dd.options import MatchingConfig
from matching_dd.stopping import DISTILLED, GRID, EarlyStopping, keep
from matching_dd.watch import Watch, interval, settled


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
    if isinstance(data, str):
        return run(cls(method=method, data=data, ipc=ipc, **config))
    for own in fields(DataConfig):
        require(
            own.name not in config,
            f"{own.name} says how data are loaded, and these are: it would change nothing. Say it to load_data.",
        )
    return run(cls(method=method, data=data.name, ipc=ipc, **config), data)


def run(config: MatchingConfig, data: ImageData | None = None) -> DistilledSet:
    """Distil as `config` says (on `data`, where it is loaded already) in a run folder, and return the set.

    Raises:
        InputError: whatever does not fit, before any work; a loss that is not finite.
    """
    # Whatever can be wrong is found before any work.
    data = data or config.load_data(config.seed, config.val_fraction)
    name = _run_name(config, data)
    for done, place in checkpoints(find_folder(config.out, name, config.resume))[-1:]:
        require(done <= config.iterations, f"{place} is past iteration {config.iterations}. Raise --iterations.")
    prepare_device(config.device)
    method = METHODS[config.method](config, data)
    stopping = EarlyStopping(config, data) if config.val_fraction else None
    with Run.open(config, name, data.origin | method.origin) as run:
        # A resumed run continues where its last checkpoint was; every draw is keyed by (seed, purpose, step).
        first, folder = run.last() or (0, None)
        if folder is not None:
            _restore(method, folder)
            run.say(f"resumed at iteration {first} from {folder}")
        for drawn, images in method.drawn.items():
            if images.smaller_classes:
                run.say(
                    f"{len(images.smaller_classes)} of {data.num_classes} classes have fewer than {drawn} "
                    f"{images.batch} images: they are sampled with replacement."
                )
        if stopping is not None:
            stopping.resume(run, first)
        watch = Watch(config, _spent(folder / DISTILLED) if folder else _NOTHING)

        # Match.
        progress, done = Progress("distil", config.iterations, first), first
        stop = stopping is not None and stopping.over()
        while done < config.iterations and not stop and not watch.over():
            read = done + 1 == config.iterations or not all(
                (done + 1) % n for n in (config.checkpoint_every, config.log_every)
            )
            with watch.iteration(method.compile, read) as wait:
                loss, done = method.iterate(done, watch.part()), done + 1
                wait(loss)
            stop, scores = done == config.iterations or watch.over(), {}
            progress.update(ends_in=watch.left())
            if (said := watch.forecast(done)) is not None:
                run.say(said)
            save = stop or done % config.checkpoint_every == 0
            if save or done % config.log_every == 0:
                run.check(done, loss=loss.item())  # before anything is saved of a loss that is not finite
                progress.note = f"loss {loss.item():.4g}"
                if save:
                    dset = method.synthetic.to_distilled(_describe(config, data, watch.cost(done)))
                    _check_pixels(dset, done)
                    if stopping is not None:
                        with watch.validation():
                            scores = stopping.measure(dset)
                        dset = replace(dset, meta=dset.meta | {"cost": watch.cost(done)})
                        stop = stopping.keep(run, dset, scores["val_accuracy"]) or stop
                run.log(done, loss=loss.item(), **scores)
                if save:
                    _checkpoint(run, done, method, dset)
        progress.close()
        if done < config.iterations:
            run.say(
                f"ended at iteration {done} of {config.iterations} by {'max_seconds' if watch.over() else 'patience'}"
            )

        # The result is the best set, or without validation the last checkpoint's.
        last = run.last()
        assert last is not None
        if stopping is None:
            for file in (DISTILLED, GRID):
                with files.atomic(run.folder / file) as temporary:
                    shutil.copyfile(last[1] / file, temporary)
        else:
            stopping.deliver(run.folder, _spent(last[1] / DISTILLED))
        run.say(f"{run.folder / DISTILLED}: {config.ipc} images per class of {data.name}")
        result = DistilledSet.load(run.folder / DISTILLED)
        for warning in _warnings(method, stopping, result):
            run.say(warning)
        return result


def _warnings(method: Method, stopping: EarlyStopping | None, result: DistilledSet) -> Iterator[str]:
    """What there is to say of a set that cannot be right, or is not what was asked for."""
    if method.config.average_last > 0 and method.synthetic.average is None:
        yield "note: the run ended before the part that average_last wants averaged: this is the set as it is."
    if stopping is not None and (warning := stopping.warning()) is not None:
        yield warning
    if not trains(result):
        yield (
            f"WARNING: the learning rate learnt with the set is {result.meta['lr']:.3g}, at which no classifier can "
            "train. Lower lr_lr or lr_img, or give another lr_student."
        )


def _check_pixels(dset: DistilledSet, done: int) -> None:
    """Stop where images went so far from 0..1 that nobody would take them for images.

    Raises:
        Diverged: if they did.
    """
    try:
        dset.check_scale("the set")
    except InputError:
        low, high = (float(own) for own in dset.images.aminmax())
        raise Diverged(
            f"the images diverged: at iteration {done} their pixels lie between {low:.3g} and {high:.3g}, expected "
            "about 0..1. Lower lr_img; what earlier checkpoints hold stays."
        ) from None


def _restore(method: Method, folder: Path) -> None:
    """Take over the state that a checkpoint holds."""
    state = records.checked(readers.load_tensors(folder / _STATE), dict[str, Any], str(folder / _STATE), _BEFORE)
    with records.restoring(str(folder / _STATE), _BEFORE):
        method.load_state(state)


def _checkpoint(run: Run, done: int, method: Method, dset: DistilledSet) -> None:
    """Keep what the next iteration depends on, the set so far and its picture."""
    with run.checkpoint(done) as folder:
        torch.save(method.state(), folder / _STATE)
        keep(dset, folder)
    for _, old in checkpoints(run.folder)[:-_STATES]:  # IDM's hold hundreds of MB of networks
        with files.explained(old / _STATE):
            (old / _STATE).unlink(missing_ok=True)


def _spent(place: Path) -> Cost:
    """What a set took so far, as it says itself."""
    meta = DistilledSet.load(place).meta
    return records.checked(meta, Spent, f"the metadata of {place}", _BEFORE)["cost"]


def _run_name(config: MatchingConfig, data: ImageData) -> str:
    """What the run folder is called where none is given."""
    return f"{data.name}-{config.method}-ipc{config.ipc}"


def _describe(config: MatchingConfig, data: ImageData, cost: Cost) -> dict[str, Any]:
    """The metadata of the set so far, and what all calls took for it."""
    return new_meta(data, method=config.method, ipc=config.ipc, seed=config.seed, config=to_dict(config), cost=cost)


def _dry_run(config: MatchingConfig) -> None:
    """Print the resolved config, and the memory and time to expect, measured on a few iterations that are then lost."""
    data = config.load_data(config.seed, config.val_fraction)
    name, limit = _run_name(config, data), config.max_seconds
    left = config.iterations - foreseen(config, name)
    if limit is not None and config.resume:
        for _, place in checkpoints(find_folder(config.out, name, True))[-1:]:
            spent = _spent(place / DISTILLED)
            limit -= spent.get("stepping", spent["seconds"])
    over = left <= 0 or (limit is not None and limit <= 0)
    found = measured(config, data)
    print(to_yaml(config), end="")
    print(f"# checked on {found.device}: {found.parts} part(s) of the classes per iteration")
    print(f"# memory: {found.mib / 1024:.2f} GiB at its peak")
    ahead = "none is left" if over else found.said(replace(config, iterations=left, max_seconds=limit, average_last=0))
    print(f"# time: {found.first:.1f} s to start, then {found.each:.3g} s per iteration: {ahead}")
    if config.val_fraction:
        print(
            f"# beside it, after every {config.checkpoint_every} iterations, the training of {config.val_classifiers}"
        )
        print(f"# classifier(s) by protocol {config.val_protocol}, whose time is not counted here")


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

    def seconds(self, config: MatchingConfig) -> float:
        """Of all iterations, or of those that the time limit lets happen, and of the start."""
        whole = self.each * config.iterations
        return self.first + min(whole, config.max_seconds or whole)

    def said(self, config: MatchingConfig) -> str:
        """The same in words."""
        fitting, limit = config.iterations, config.max_seconds
        if limit is None or self.each * fitting <= limit:
            return f"{interval(self.seconds(config))} for {fitting}"
        return (
            f"{interval(self.seconds(config))}, in which max_seconds {limit:g} leaves about "
            f"{max(1, round(limit / self.each))} of {fitting}"
        )


def measured(config: MatchingConfig, data: ImageData, now: Callable[[], float] = time.perf_counter) -> _Measured:
    """What a distillation takes, by a few iterations that are then lost.

    Args:
        config: of the distillation.
        data: the real data.
        now: a clock, in seconds.
    """
    prepare_device(config.device)
    method, seconds, each = METHODS[config.method](config, data), list[float](), None
    if config.val_fraction:
        EarlyStopping(config, data)  # which may refuse
    while each is None:
        started = now()
        method.step(len(seconds)).item()
        seconds.append(now() - started)
        # An iteration may be the whole life of a network: one must do where it took long and compiled nothing.
        alone = len(seconds) == 1 and not method.compile
        each = settled(seconds if alone else seconds[1:], sum(seconds), config.period)
    return _Measured(method.device, len(method.chunks), seconds[0], each, peak_mib(method.device))


_NOTHING: Cost = {"iterations": 0, "seconds": 0.0}
_BEFORE = "Remove this checkpoint to resume from the one before it, or start a new run."
_STATES = 3  # how many checkpoints can be gone on from; the others are kept for their sets
_STATE = "state.pt"


def main(argv: Sequence[str] | None = None) -> None:
    """Distil one set."""
    method = peek(argv, "method", "matching") or MatchingConfig.method
    config = load_config(pick(METHODS, method, "method").Config, argv, prog="gendd distill")
    (_dry_run if config.dry_run else run)(config)


if __name__ == "__main__":
    cli.entry(main)
