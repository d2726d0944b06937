"""Remake results/digits_recipes: the steps that recipes of the trainer want for one quality, on the 8x8 digits.

    python experiments/recipes.py                         # everything: half an hour on one CPU core
    python experiments/recipes.py --only fast --seeds 0   # the recipes whose name begins so

Every recipe trains the same network on the same batches of 64. At each number of steps 100 images per class are sampled
and judged: their distance from the training images, and the accuracy of classifiers trained on them. The recipes were
chosen by the distance. Finished sets are not made again, and a training that was killed goes on. OUT gets what there is
then, RECIPE-seedN/stats.jsonl: by the number of steps the distance, the accuracy (a fraction), and the seconds of
training without compiling.
"""

import copy
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import torch

from core_dd import DistilledSet, ImageData, cli, files, records
from core_dd.config import load_config
from core_dd.data.images import load_data
from core_dd.data.readers import load_tensors
from core_dd.errors import require
from core_dd.judge.evaluate import evaluate
from core_dd.judge.fidelity import classifier_frechet, real_classifier
from core_dd.judge.training import Classifiers
from core_dd.run import STATS, checkpoints
from core_dd.sets.distilled import new_meta
from core_dd.speed import prepare_device
from gen_dd.options import TrainConfig
from gen_dd.sample import sample
from gen_dd.train import train
from gen_dd.trainer import STATE, TrainerState
from gen_dd.weights import load_model

PAPER = {"lr": 2e-4, "betas": (0.99, 0.999), "ema_decay": 0.998, "ema_warmup": False}
"""The papers', but for their average of 10000 steps, which would still hold the first weights."""

ADAMW = {"lr": 3e-3, "betas": (0.9, 0.999), "ema_decay": 0.998}
"""The same optimiser at the learning rate that suits this small network."""

FAST = {"optimizer": "muon", "lr": 6e-3, "betas": (0.9, 0.999), "ema_decay": 0.99}
FAST |= {"time_sampling": "logit_normal", "weighting": "min_snr", "anneal": 0.5}
"""Ours, with the values of configs/gen/digits.yaml."""

RECIPES: MappingProxyType[str, tuple[tuple[int, ...], dict[str, Any]]] = MappingProxyType(
    {
        "fast500": ((500,), FAST),
        "fast1000": ((1000,), FAST),
        "adamw": ((1000, 2000), ADAMW),
        "paper": ((1000, 2000, 4000), PAPER),
    }
)
"""Trainings by name: the numbers of steps at which they are judged, the last of which ends them, and their options. An
annealed training has one end."""


class Measured(TypedDict):
    """What stands in the file of one recipe, seed and number of steps."""

    classifier_frechet: float
    weights: str
    accuracies: list[float]
    seconds_per_step: float


@dataclass(kw_only=True)
class RecipesConfig:
    """Measure how many steps recipes of the trainer want."""

    only: str = ""
    """The trainings whose name begins so; default: all."""
    seeds: tuple[int, ...] = (0, 1)
    """Each training is done with each of these."""
    max_steps: int = 4000
    """Leave out what wants more steps."""
    checkpoint_every: int = 125
    """Steps between checkpoints; what is judged is a multiple."""
    num_per_class: int = 100
    """Images per class in each set."""
    classifiers: int = 2
    """Classifiers per set."""
    out: str = "results/digits_recipes"
    """The folder of results."""
    work: str = "runs/digits_recipes"
    """Where trainings and scores are kept while at work."""

    def __post_init__(self) -> None:
        names = [name for name in RECIPES if name.startswith(self.only)]
        require(bool(names), f"no recipe's name begins with '{self.only}'. Choose from {', '.join(RECIPES)}.")
        require(self.classifiers >= 1, f"classifiers must be >= 1, got {self.classifiers}.")


def run(config: RecipesConfig) -> None:
    """Train and judge what is not there yet, then keep the curves of everything that is."""
    data, device = load_data("digits"), prepare_device("cpu")
    judge = real_classifier(data, device=device)
    for seed in config.seeds:
        for name, (every, options) in RECIPES.items():
            steps = [count for count in every if count <= config.max_steps]
            if not name.startswith(config.only) or not steps:
                continue
            folder = Path(config.work) / f"{name}-seed{seed}"
            learn(folder / "train", steps[-1], options, seed, config.checkpoint_every)
            for count in steps:
                place = folder / f"{count}.json"
                if not place.exists():
                    files.write_json(place, measure(folder / "train", count, seed, config, data, judge))
                    print(place, records.read(place, Measured), flush=True)
    write(Path(config.work), Path(config.out))


def learn(folder: Path, steps: int, options: dict[str, Any], seed: int, checkpoint_every: int) -> None:
    """Train for so many steps, going on from what is there."""
    done = checkpoints(folder)
    if done and done[-1][0] >= steps:
        return
    torch.compiler.reset()  # each training compiles for itself, else the later ones would run uncompiled
    common = {"data": "digits", "preset": "tiny", "batch_size": 64, "warmup": 100, "device": "cpu", "tracker": "none"}
    common |= {
        "checkpoint_every": checkpoint_every,
        "keep": 1000,
        "grid_every": 0,
        "out": str(folder),
        "resume": folder.exists(),
    }
    train(TrainConfig(**common, **options, iterations=steps, seed=seed))


def measure(
    folder: Path, steps: int, seed: int, config: RecipesConfig, data: ImageData, judge: Classifiers
) -> dict[str, Any]:
    """Sample after so many steps, judge; from the averaged weights or the last ones, whichever are nearer the real
    images: early on, an average still holds the first weights."""
    places = dict(checkpoints(folder))
    averaged, _ = load_model(places[steps] / "model")
    last = copy.deepcopy(averaged)
    last.load_state_dict(state_of(places[steps])["model"])
    found = {}
    for name, model in (("averaged", averaged), ("last", last)):
        drawn = sample(model, num_per_class=config.num_per_class, steps=20, seed=seed, device="cpu")
        found[name] = (classifier_frechet(drawn.images, data, judge), drawn)
    weights = min(found, key=lambda name: found[name][0])
    distance, drawn = found[weights]
    dset = DistilledSet(drawn.images, drawn.labels, new_meta(data, method="uvit", ipc=config.num_per_class, seed=seed))
    scores = evaluate(dset, data, protocol="quick", runs=config.classifiers, seed=seed, device="cpu")
    clock = {step: state_of(place)["seconds"] for step, place in places.items() if step <= steps}
    first = min(clock)
    return {
        "classifier_frechet": distance,
        "weights": weights,
        "accuracies": scores.accuracies,
        "seconds_per_step": (clock[steps] - clock[first]) / (steps - first),  # without compiling
    }


def state_of(checkpoint: Path) -> TrainerState:
    """What a checkpoint of a training holds."""
    return records.checked(load_tensors(checkpoint / STATE), TrainerState, str(checkpoint / STATE))


def write(work: Path, out: Path) -> None:
    """The curve of every training that was judged, in a folder of its own."""
    for folder in sorted(work.glob("*-seed*")):
        lines = []
        for steps, path in sorted((int(path.stem), path) for path in folder.glob("*.json")):
            found = records.read(path, Measured)
            line = {"step": steps, "classifier_frechet": found["classifier_frechet"]}
            line |= {"accuracy": statistics.fmean(found["accuracies"]), "seconds": steps * found["seconds_per_step"]}
            lines.append(json.dumps(line) + "\n")
        files.write_text(out / folder.name / STATS, "".join(lines))
        print(f"{out / folder.name / STATS}\n{''.join(lines)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Everything, or what is asked for."""
    run(load_config(RecipesConfig, argv, prog="recipes.py"))


if __name__ == "__main__":
    cli.entry(main)
