"""The whole path on real 8x8 handwritten digits, in minutes on two CPU cores: the comparison configs/compare/demo.yaml.

It trains a small U-ViT, samples labelled images from it for 20 seconds, selects and distils 10 images per class, judges
every set, and writes tables, figures and a report. A new run gets a new folder under runs/demo/; --resume goes on with
the last one. The exit status is 1 where something failed, or the generated pool turns out worse than it should.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from core_dd import cli, files, records
from core_dd.compare.jobs import DONE, read_done
from core_dd.compare.view import PLAN, SCORES, Planned
from core_dd.judge.scores import read_score
from core_dd.report import ranking
from core_dd.run import find_folder
from gen_dd.weights import CARD, Card

COMPARISON = "compare demo --workers 1"
"""What is typed after `gendd`, but for the folder."""
GOOD = 0.8
"""The accuracy by the generated pool below which something is wrong; a generator trained to the end gives 0.95."""
POOL = "generated pool"
"""The producer of the comparison that judges all that was sampled."""
STAGES = {
    "generator": "Train a class-conditional U-ViT",
    "pool": "Sample labelled images for 20 seconds",
    "classifier": "Train the classifier by whose features herding selects",
    "set": "Select, distil and draw 10 images per class",
    "score": "Judge every set: 5 classifiers each, tested once on the real test images",
}
"""What the kinds of jobs are here."""
REST = "Start; write tables, figures and report"
SECONDS = "stages.json"
"""In the demo's folder, what each stage took."""
BY_HAND = (
    "train --config digits --out runs/by-hand/train",
    "sample --model runs/by-hand/train --budget 20s --out runs/by-hand/pool",
    "select --pool runs/by-hand/pool --selector herding --network convnet3_w64 --ipc 10 "
    "--out runs/by-hand/herding/distilled.safetensors",
    "distill --config dm --data digits --ipc 10 --out runs/by-hand/dm",
    "coreset --selector random --data digits --ipc 10 --out runs/by-hand/random/distilled.safetensors",
    "evaluate --config digits --set runs/by-hand/dm",
    "report runs/by-hand --curves runs/by-hand/train --out runs/by-hand/report",
)
"""The same stages as single commands."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resume", action="store_true", help="go on with the last demo; what is finished stays")
    arguments = parser.parse_args(argv)
    os.chdir(Path(__file__).resolve().parents[1])
    return play(find_folder(None, "demo", True) if arguments.resume else new_folder())


def new_folder() -> Path:
    """The next number under runs/demo, made; of demos that start at the same moment each gets one of its own."""
    while True:
        folder = find_folder(None, "demo", False)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder


def play(out: Path) -> int:
    """Run the comparison in a folder, or go on there, and tell how it went; returns the exit status."""
    words = f"{COMPARISON} --out {out}"
    print(
        f"$ gendd {words}\n\n"
        "That is all of it: configs/compare/demo.yaml says what is made and who judges it. --workers 1 does one thing\n"
        "after the other with all cores, since a clock ends the sampling. How far it is, from another terminal:\n\n"
        f"  gendd compare demo --out {out} --status\n"
        f"  tail -f {out}/logs/*\n\n"
        "One stage after the other, by hand:\n\n" + "\n".join(f"  gendd {own}" for own in BY_HAND) + "\n",
        flush=True,
    )
    before, began = spent(out), time.perf_counter()
    status = comparison(words)
    if status != 0:
        said = [trained(out), "stopped. Go on with: make demo ARGS=--resume"]
        print("\n" + "\n".join(filter(None, said)), file=sys.stderr)
        return status
    kinds, took = spent(out), time.perf_counter() - began
    rest = took - (sum(kinds.values()) - sum(before.values()))
    seconds = {STAGES[kind]: own for kind, own in kinds.items()} | {REST: rest}
    files.write_json(out / SECONDS, seconds)
    entries = [ranking.read_entry(path) for path in ranking.find_scores([str(out / "scores")])]
    print("\n" + ranking.printed(ranking.grouped(entries)))
    report_time(seconds)
    print(f"\nOpen {out}/report/report.html")
    return verdict(out)


def comparison(words: str) -> int:
    """Carry a comparison out in this process, so that it ends with it; returns the exit status."""
    try:
        return cli.main(shlex.split(words))
    except SystemExit as stop:  # a job failed, or the process is asked to end
        return stop.code if isinstance(stop.code, int) else 1


def finished(out: Path) -> list[tuple[Planned, Path]]:
    """The finished jobs of the comparison in a folder, and the folder of each; none where it has not begun."""
    plan = records.read(out / PLAN, dict[str, Planned]) if (out / PLAN).exists() else {}
    return [(own, out / own["folder"]) for own in plan.values() if (out / own["folder"] / DONE).exists()]


def spent(out: Path) -> dict[str, float]:
    """What finished jobs took, in seconds, by their kind."""
    seconds = dict.fromkeys(STAGES, 0.0)
    for own, folder in finished(out):
        seconds[own["kind"]] += read_done(folder)["seconds"]
    return seconds


def report_time(seconds: Mapping[str, float]) -> None:
    """Print what each stage took, in seconds by title."""
    print("\nWhere the time went:")
    for title, value in {**seconds, "total": sum(seconds.values())}.items():
        print(f"  {value:6.1f} s  {title}")


def verdict(out: Path) -> int:
    """The demo's exit status: 1 where its generated pool is not worth what it should be, which is said."""
    [pool] = [folder for own, folder in finished(out) if any(cell.startswith(f"{POOL}/") for cell in own["cells"])]
    mean, ended = read_score(pool / SCORES)["mean"], trained(out)
    if "clock" in ended:
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


def trained(out: Path) -> str:
    """How long the generator was trained, and whether the clock ended that; empty where it is still to be trained."""
    folders = [folder for own, folder in finished(out) if own["kind"] == "generator"]
    if not folders:
        return ""
    card = records.read(folders[0] / "model" / CARD, Card)
    steps = f"The generator was trained for {card['step']} of {card['train']['iterations']} steps"
    if card["step"] == card["train"]["iterations"]:
        return steps
    return f"{steps}: the clock (max_seconds {card['train']['max_seconds']:g}) ended it"


if __name__ == "__main__":
    cli.entry(lambda argv: sys.exit(main(argv)))
