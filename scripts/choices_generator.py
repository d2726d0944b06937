"""What each option of the generator's training is worth at equal compute, on the 8x8 digits or on Fashion-MNIST.

    python scripts/choices_generator.py costs                       # what a step costs beside the plain one's
    python scripts/choices_generator.py train --workers 2           # train, at steps of equal cost, and judge
    python scripts/choices_generator.py costs --data fashion_mnist  # the same of Fashion-MNIST, where the config has it
    python scripts/choices_generator.py train --data fashion_mnist --steps 500 --workers 2

Each option alone is added to the config of the data's generator. A clock would measure what else the machine does: so
the cost of a step is measured once, in processor time and by turns with the plain one, and every training gets the
steps that make up the same compute. What is judged are samples of the averaged weights, 10 evaluations each: the
accuracy on a validation split of a ConvNet trained on 500 of them, and their distance from the training images. The
test images are not looked at. Neon steps on from the plain model, so that its pool and its short training come on top;
its control, `longer`, takes as many plain steps more.
The scores go to results/DATA_generator_choices/OPTION-seedN/stats.jsonl.
"""

import argparse
import itertools
import multiprocessing
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from core_dd import cli, files, records
from core_dd.config import load_config
from core_dd.run import read_stats
from gen_dd.options import SampleConfig, TrainConfig
from gen_dd.sample import run as sample
from gen_dd.train import train
from gen_dd.trainer import Trainer

RESULTS = Path(__file__).resolve().parents[1] / "results"


class Course(NamedTuple):
    """What the options are added to."""

    config: str
    """In configs/gen/."""
    own: dict[str, object]
    """What its judging is like."""


COURSES = {
    "digits": Course("digits", {"val_fraction": 0.3}),
    "fashion_mnist": Course("fashion_mnist_cpu", {"val_fraction": 0.1, "eval_network": "convnet3_w32"}),
}
"""By the data's name."""
OPTIONS = {
    "plain": {},
    "augment": {"augment": 0.12},
    "dropout": {"dropout": 0.1},
    "growth": {"growth": 4},
    "supervise": {"supervise": 0.25},
    "align": {"align": 0.5},
}
"""What is added to the plain recipe, by the option's name."""
NEON_WEIGHTS = (0.5, 1.0)
NEON = {"lr": 1e-3, "iterations": 25, "warmup": 0, "anneal": 0.0, "ema_decay": 0.8}
"""Of the short training on own samples."""
LONGER = 80
"""Plain steps that cost what Neon's pool and its short training do (some 75 of digits, 77 of Fashion-MNIST)."""
POOL = 100
"""Own samples per class."""
EVALUATIONS = 10
"""Of the network, per sample."""
JUDGED = {
    "eval_every": 1, "eval_ipc": 50, "eval_images": 500, "eval_steps": EVALUATIONS, "inception_weights": "none",
    "check_images": 0, "grid_every": 0, "log_every": 100, "tracker": "none", "compile": False, "device": "cpu",
}  # fmt: skip


def kept(data: str) -> Path:
    """Where the scores of these data go."""
    return RESULTS / f"{data}_generator_choices"


def recipe(data: str, out: Path, **options: object) -> TrainConfig:
    """The data's recipe, judged at its end, with other options."""
    course, flags = COURSES[data], []
    for name, value in {"out": out, **JUDGED, **course.own, **options}.items():
        flags += [f"--{'' if value else 'no_'}{name}"] if isinstance(value, bool) else [f"--{name}", str(value)]
    config = load_config(TrainConfig, ["--config", course.config, *flags])
    config.eval_every, config.max_seconds = config.iterations, None
    return config


def costs(data: str, steps: int, repeats: int) -> None:
    """Measure what each option's steps cost on average, the plain one's being 1."""
    plain: dict[str, Any] = {"iterations": steps}
    images = recipe(data, Path("-")).training_data()
    trainers = {name: Trainer.start(recipe(data, Path("-"), **plain, **own), images) for name, own in OPTIONS.items()}
    spent: dict[tuple[str, int], list[float]] = defaultdict(list)
    for i in range(-3, repeats):  # three that are not counted
        step = max(i, 0) * steps // repeats
        for name, trainer in trainers.items():
            began = time.process_time()
            trainer.step(step)
            if i >= 0:
                spent[name, trainer.batches_of(step)].append(time.process_time() - began)
    one = statistics.median(spent["plain", 1])
    found = {}
    for name in OPTIONS:  # steps of one size are as many as they are in the training
        own = [(len(times), statistics.median(times)) for (of, _), times in spent.items() if of == name]
        found[name] = sum(count * median for count, median in own) / repeats / one
    files.write_json(kept(data) / "costs.json", found)
    print(found)


def trained(data: str, runs: Path, option: str, seed: int, steps: int) -> None:
    """Train and judge with an option and a seed, and with Neon after the plain one; what is kept is left alone."""
    of = records.read(kept(data) / "costs.json", dict[str, float], f"Run this script's costs --data {data} first.")
    name = f"{option}-seed{seed}"
    if option == "longer":
        judge(data, name, recipe(data, runs / name, iterations=steps + LONGER, seed=seed))
        return
    course = recipe(data, runs / name, **OPTIONS[option], iterations=round(steps / of[option]), seed=seed)
    judge(data, name, course)
    if option != "plain":
        return
    before, pool = runs / f"plain-seed{seed}", runs / f"pool-seed{seed}"
    if all(score(data, f"neon_{weight:g}-seed{seed}").exists() for weight in NEON_WEIGHTS):
        return
    if not (before / "model").exists():  # whose score is kept, and the model is not
        train(replace(course, resume=before.exists()))
    if not (pool / "summary.txt").exists():  # which ends a pool
        options = {"model": str(before), "num_per_class": POOL, "steps": EVALUATIONS, "seed": seed + 100}
        sample(SampleConfig(out=str(pool), device="cpu", resume=pool.exists(), **options))
    for weight in NEON_WEIGHTS:
        name = f"neon_{weight:g}-seed{seed}"
        own = {"init_from": before, "neon": pool, "neon_weight": weight, "seed": seed}
        judge(data, name, recipe(data, runs / name, **NEON, **own))


def score(data: str, name: str) -> Path:
    """The file that keeps a score."""
    return kept(data) / name / "stats.jsonl"


def judge(data: str, name: str, config: TrainConfig) -> None:
    """Train, or go on, and keep the last scores."""
    out = score(data, name)
    if out.exists():
        print(f"{out} is there already")
    else:
        train(replace(config, resume=Path(str(config.out)).exists()))
        last = read_stats(Path(config.out) / "stats.jsonl")[-1]
        scores = {key: last[key] for key in ("step", "classifier_frechet", "val_accuracy")}
        files.write_text(out, files.json_text(scores) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the costs, or train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["costs", "train"])
    parser.add_argument("--data", choices=sorted(COURSES), default="digits")
    parser.add_argument("--steps", type=int, default=1000, help="of the plain training")
    parser.add_argument("--repeats", type=int, default=50, help="steps of each option whose cost is measured")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = [*OPTIONS, "longer"]
    parser.add_argument("--options", nargs="+", choices=options, default=options, help="to train with")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/choices_generator"), help="where the trainings go")
    arguments = parser.parse_args(argv)
    if arguments.what == "costs":
        costs(arguments.data, arguments.steps, arguments.repeats)
        return
    runs = arguments.runs / arguments.data
    jobs = itertools.product([arguments.data], [runs], arguments.options, arguments.seeds, [arguments.steps])
    with multiprocessing.get_context("fork").Pool(arguments.workers) as pool:  # which has imported everything
        pool.starmap(trained, jobs, chunksize=1)


if __name__ == "__main__":
    cli.entry(main)
