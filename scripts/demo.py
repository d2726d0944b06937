"""The whole path on real 8x8 handwritten digits, in minutes on two CPU cores.

Trains a small U-ViT, samples labelled images from it for 20 seconds, selects and distils 10 images per class, scores
everything with the shared evaluator, and writes the report. Every command is printed the way it would be typed. A new
run gets a new folder under runs/demo/; --resume continues the last one and skips what is finished. The exit status is 1
where the generated pool turns out worse than it should.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from core_dd import cli, files, records
from core_dd.judge.scores import read_score
from core_dd.run import claimed
from gen_dd.weights import CARD, Card

GOOD = 0.8
"""The accuracy by the generated pool below which something is wrong; a generator trained to the end gives 0.95."""


@dataclass(frozen=True)
class Step:
    """One command."""

    words: str
    """What is typed after `gendd`."""
    writes: Path
    """There once the command has finished."""
    resumable: bool = False
    """Whether its --resume continues what a kill left."""
    separate: bool = False
    """Runs in a process of its own: the command counts its time from the start of its process."""


@dataclass(frozen=True)
class Stage:
    """Commands under one heading."""

    title: str
    steps: tuple[Step, ...]


def stages(out: Path) -> list[Stage]:
    """The whole path; everything is written under `out`."""
    sets = {
        "full real training set": "real",
        "random real ipc 10": f"{out}/random-real",
        "DM ipc 10": f"{out}/dm",
        "generated, herding ipc 10": f"{out}/generated-herding",
        "generated, random ipc 10": f"{out}/generated-random",
        "generated pool": f"{out}/pool",
    }
    places = {name: out / "real" if place == "real" else Path(place) for name, place in sets.items()}
    score = "evaluate --config digits --set {} --name {} --out {}"
    return [
        Stage(
            "Train a class-conditional U-ViT",
            (Step(f"train --config digits --out {out}/train", out / "train/model", resumable=True),),
        ),
        Stage(
            "Sample labelled images for 20 seconds",
            (
                Step(
                    f"sample --model {out}/train --budget 20s --out {out}/pool",
                    out / "pool/summary.txt",
                    resumable=True,
                    separate=True,
                ),
            ),
        ),
        Stage(
            "Select 10 images per class from the pool",
            tuple(
                Step(f"select --pool {out}/pool --selector {name} --ipc 10 --network convnet3_w64 --out {path}", path)
                for name in ("herding", "random")
                for path in [out / f"generated-{name}/distilled.safetensors"]
            ),
        ),
        Stage(
            "Distil 10 images per class by distribution matching",
            (
                Step(
                    f"distill --config dm --data digits --ipc 10 --out {out}/dm",
                    out / "dm/distilled.safetensors",
                    resumable=True,
                ),
            ),
        ),
        Stage(
            "Draw 10 real images per class",
            (
                Step(
                    f"coreset --selector random --ipc 10 --out {out}/random-real/distilled.safetensors",
                    out / "random-real/distilled.safetensors",
                ),
            ),
        ),
        Stage(
            "Score every set: 5 classifiers each, tested once on the real test images",
            tuple(
                Step(score.format(place, shlex.quote(name), path), path)
                for name, place in sets.items()
                for path in [places[name] / "scores.json"]
            ),
        ),
        Stage(
            "Report",
            (
                Step(
                    f"report {out} --curves {out}/train {out}/dm --title 'Digits, both tracks' --out {out}/report",
                    out / "report/report.html",
                ),
            ),
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resume", action="store_true", help="continue the last demo, skipping what is finished")
    arguments = parser.parse_args(argv)
    os.chdir(Path(__file__).resolve().parents[1])
    with claimed(None, "demo", arguments.resume) as out:
        return play(out)


def play(out: Path) -> int:
    """Run the stages in order, in a folder that is this demo's alone; returns the exit status."""
    ledger = out / "stages.json"
    seconds = (
        records.read(ledger, dict[str, Annotated[float, Meta(ge=0)]], f"Remove it, or {out}.")
        if ledger.exists()
        else {}
    )

    plan = stages(out)
    for number, stage in enumerate(plan, start=1):
        print(f"\n[{number}/{len(plan)}] {stage.title}", flush=True)
        started = time.perf_counter()
        for step in stage.steps:
            status = run(step)
            if status != 0:
                print(f"\nstopped in stage {number}. Continue with: make demo ARGS=--resume", file=sys.stderr)
                return status
        seconds[stage.title] = seconds.get(stage.title, 0.0) + time.perf_counter() - started
        files.write_json(ledger, seconds)

    report_time(seconds)
    print(f"\nOpen {out}/report/report.html")
    return verdict(out)


def report_time(seconds: Mapping[str, float]) -> None:
    """Print what each stage took, in seconds by title."""
    print("\nWhere the time went:")
    for title, value in {**seconds, "total": sum(seconds.values())}.items():
        print(f"  {value:6.1f} s  {title}")


def verdict(out: Path) -> int:
    """The demo's exit status: 1 where its generated pool is not worth what it should be, which is said."""
    mean = read_score(out / "pool" / "scores.json")["mean"]
    card = records.read(out / "train" / "model" / CARD, Card)
    ended = f"The generator was trained for {card['step']} of {card['train']['iterations']} steps"
    if card["step"] < card["train"]["iterations"]:
        ended += f": the clock (max_seconds {card['train']['max_seconds']:g}) ended it"
        print(f"{ended}.")
    if mean >= GOOD:
        return 0
    print(
        f"\nThe demo failed: classifiers trained on the generated pool reach {100 * mean:.1f} %, less than the "
        f"{100 * GOOD:.0f} % that a generator which has learnt the digits gives. {ended}. On a slow or busy machine "
        "give it more time: raise max_seconds in configs/gen/digits.yaml.",
        file=sys.stderr,
    )
    return 1


def run(step: Step) -> int:
    """Print and run one command, unless it has finished before; returns its exit status."""
    if step.writes.exists():
        print(f"done before: {step.writes}")
        return 0
    left = step.resumable and step.writes.parent.exists() and any(step.writes.parent.iterdir())
    words = f"{step.words} --resume" if left else step.words
    print(f"$ gendd {words}", flush=True)
    if step.separate:
        return subprocess.run([sys.executable, "-m", "core_dd.cli", *shlex.split(words)], check=False).returncode
    return cli.main(shlex.split(words))


if __name__ == "__main__":
    cli.entry(lambda argv: sys.exit(main(argv)))
