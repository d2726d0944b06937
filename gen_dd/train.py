"""Command: train a class-conditional U-ViT on real images, on any number of processes."""

import datetime
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch
from accelerate.utils import broadcast_object_list

from core_dd import cli, files, processes, records
from core_dd.config import load_config, to_dict, to_yaml
from core_dd.data.real import RealData
from core_dd.errors import about, require
from core_dd.judge import fidelity
from core_dd.progress import Progress
from core_dd.run import Run, SilentRun, foreseen
from core_dd.sets.learnt import Learnt
from core_dd.speed import peak_mib
from gen_dd.learnt import LEARNT, SampleJudge
from gen_dd.options import TrainConfig
from gen_dd.trainer import Trainer
from gen_dd.validate import Validator
from gen_dd.weights import amend_card

_CHECK_SAMPLE = 10_000
"""Streamed training images, at most, that the classifier which checks a training learns from."""


def train(config: TrainConfig) -> None:
    """Train as `config` says, in a run folder whose `model/` the sampler reads.

    Raises:
        InputError: whatever does not fit, before any work; a loss that is not finite.
    """
    # Whatever can be wrong is found before any work; only the first process has a run folder.
    data = config.training_data()
    if processes.is_first():
        foreseen(config, _run_name(config, data))
    trainer = Trainer.start(config, data)
    validator = _open_validator(config, data, trainer.device) if trainer.first and config.eval_every else None
    _check_network(config, data)
    run = open_run(config, data) if trainer.first else SilentRun()
    [last] = broadcast_object_list([run.last()])
    start, folder = last or (0, None)
    if folder is not None:
        require(start <= config.iterations, f"{folder} is past step {config.iterations}. Raise --iterations.")
        said = trainer.load(folder)
        run.say(f"resumed at step {start} from {folder}{said}")
    run.say(f"{trainer.summary()}; {config.iterations - start} steps to go")
    for line in validator.notes if validator else ():
        run.say(line)
    done, stop = start, True
    progress = Progress("train", config.iterations, start)
    trainer.compile(start)
    began, earlier, losses = time.perf_counter(), trainer.seconds, []

    for step in range(start, start if _over(earlier, config.max_seconds) else config.iterations):
        # One step, the same whatever the number of processes; stop in time, on all of them together.
        losses.append(trainer.step(step))
        done = step + 1
        seconds = trainer.clock(time.perf_counter() - began)
        trainer.seconds = earlier + seconds
        stop = done == config.iterations or _over(trainer.seconds, config.max_seconds)
        pause = _over(seconds, config.chunk_seconds)
        progress.update(ends_in=_time_left(config, trainer.seconds, seconds))

        # Stop at a loss that is not finite, before anything is kept of it; evaluate or picture, log, checkpoint.
        evaluate, picture = (_due(done, every, stop) for every in (config.eval_every, config.grid_every))
        log, save = _due(done, config.log_every, stop) or evaluate, _due(done, config.checkpoint_every, stop or pause)
        if log or save or picture:
            values, losses = trainer.mean(losses), []
            _check(run, done, values)
            progress.note = f"loss {values[-1]:.4f}, {trainer.shown / seconds:.0f} img/s"
        aside = time.perf_counter()
        grid = trainer.validate(validator, run, done) if evaluate else trainer.picture(run, done) if picture else None
        scores = trainer.scores if evaluate else {}
        if log:
            run.log(done, loss=values[-1], lr=trainer.optimizer.param_groups[0]["lr"], **scores)
        if save:
            trainer.save(run, done, grid, scores)
        if stop or pause:
            break
        began += time.perf_counter() - aside  # only steps count

    # The result is the last checkpoint's model; a training that ended is asked what it learnt.
    progress.close()
    trainer.wait()
    finish(run)
    if _over(trainer.seconds, config.max_seconds) and done < config.iterations:
        run.say(f"max_seconds {config.max_seconds:g} ended the training at step {done} of {config.iterations}")
    if not stop:
        run.say(
            f"chunk_seconds {config.chunk_seconds:g} ended this call at step {done} of {config.iterations}, and the "
            "training goes on with --resume"
        )
    if stop and config.check_images:
        _check_learnt(trainer, validator, run, done)
    run.close()


def _time_left(config: TrainConfig, trained: float, called: float) -> float | None:
    """Seconds until a time limit ends this call, after so many of training in all and in this call; None: no limit."""
    limits = ((config.max_seconds, trained), (config.chunk_seconds, called))
    return min((limit - seconds for limit, seconds in limits if limit is not None), default=None)


def _over(seconds: float, limit: float | None) -> bool:
    """Whether a time limit, if there is one, is reached."""
    return limit is not None and seconds >= limit


def _due(done: int, every: int, stop: bool) -> bool:
    """Whether what happens every so many steps, and at the end, happens now; 0 steps: never."""
    return every > 0 and (done % every == 0 or stop)


def open_run(config: TrainConfig, data: RealData) -> Run:
    """The run folder, new or continued."""
    return Run.open(config, _run_name(config, data))


def _run_name(config: TrainConfig, data: RealData) -> str:
    """What the run folder is called where none is given."""
    return f"{data.name}-{config.WORD}"


def _open_validator(config: TrainConfig, data: RealData, device: torch.device) -> Validator:
    """What scores the samples of a run; see `TrainConfig`."""
    return Validator.open(
        data,
        images=config.eval_images,
        ipc=config.eval_ipc,
        inception_weights=config.inception_weights,
        network=config.eval_network,
        seed=config.seed,
        device=device,
    )


def _check_network(config: TrainConfig, data: RealData) -> None:
    """Refuse, before any work, a classifier that cannot take the images."""
    if config.check_images:
        with about(f"--eval_network {config.eval_network}, to check what is learnt (--check_images 0: no check)"):
            fidelity.check_features(config.eval_network, data)


def _check_learnt(trainer: Trainer, validator: Validator | None, run: Run, step: int) -> None:
    """Say what a training that ended has learnt, and keep it in the run folder and in the card of its model; on all
    processes together."""
    finding = trainer.learnt(_make_judge(trainer, validator) if trainer.first else None, step)
    if finding is not None:
        said = finding.said(to_dict(trainer.config), len(trainer.data.train_labels))
        found = asdict(finding) | {"said": said}
        files.write_json(run.folder / LEARNT, found)
        amend_card(run.folder / "model", learnt=found)
        run.say(said)


def _make_judge(trainer: Trainer, validator: Validator | None) -> SampleJudge:
    """What checks a training's samples: the validator's classifier, or one of (a part of) the training images."""
    if validator is not None:
        return validator.judge
    config, data = trainer.config, trainer.data
    real = data.sample(config.seed, _CHECK_SAMPLE)
    return SampleJudge(real, config.eval_network, config.seed, trainer.device)


def finish(run: Run) -> None:
    """Copy the last checkpoint's model to `model/`, on the process that has one, with what is known of its learning."""
    last, known = run.last(), run.folder / LEARNT
    if last is not None:
        place = run.folder / "model"
        with files.atomic(place, replace=True) as temporary:
            shutil.copytree(last[1] / "model", temporary)
            found = records.read(known, Learnt) if known.exists() else None
            if found is not None and found.get("step") == last[0]:
                amend_card(temporary, learnt=found)
        run.say(f"{place}: the averaged weights after {last[0]} steps")


def _check(run: Run, done: int, losses: Sequence[float]) -> None:
    """Stop at the first of the last steps whose loss is not finite; see `Run.check`."""
    for step, loss in enumerate(losses, done - len(losses) + 1):
        run.check(step, loss=loss)


class Measured(NamedTuple):
    """What a training takes."""

    first: float
    """Seconds to start, the first step included."""
    each: float
    """Seconds of a step, on average over the training."""
    mib: float
    """Memory at its peak, in MiB."""
    summary: str
    """The network and the device, in a line."""


def measured(config: TrainConfig, data: RealData) -> Measured:
    """What a training takes, from a few steps that are then lost.

    Raises:
        InputError: whatever does not fit.
    """
    trainer, seconds = Trainer.start(config, data), []
    if config.eval_every:
        _open_validator(config, data, trainer.device)
    started = time.perf_counter()
    trainer.compile()
    for step in range(4):
        trainer.step(step).item()
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    passes = statistics.fmean(trainer.batches_of(step) for step in range(config.iterations))
    return Measured(seconds[0], passes * statistics.median(seconds[1:]), peak_mib(trainer.device), trainer.summary())


def dry_run(config: TrainConfig) -> None:
    """Print the resolved config, and the memory and time to expect, measured on a few steps that are then lost."""
    data = config.training_data()
    done = foreseen(config, _run_name(config, data))
    require(done <= config.iterations, f"{config.out} is past step {config.iterations}. Raise --iterations.")
    left = config.iterations - done
    _check_network(config, data)
    found = measured(config, data)
    if not processes.is_first():
        return
    limits = [limit for limit in (config.max_seconds, config.chunk_seconds) if limit is not None]
    seconds = min([found.each * left, *limits])
    total = datetime.timedelta(seconds=round(found.first + seconds))
    until = f"{total} for {left}" if seconds not in limits else f"{total}, its limit of seconds"
    print(to_yaml(config), end="")
    print(f"# {found.summary}")
    print(f"# memory: {found.mib / 1024:.2f} GiB at its peak")
    print(f"# time: {found.first:.1f} s to start, then {found.each:.3g} s per step: {until}")


def main(argv: Sequence[str] | None = None) -> None:
    """Train one model."""
    config = load_config(TrainConfig, argv, prog="gendd train")
    (dry_run if config.dry_run else train)(config)


if __name__ == "__main__":
    cli.entry(main)
