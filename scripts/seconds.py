"""Accuracy of generated pools against the seconds of their sampling.

    python scripts/seconds.py --model RUN --tuned RUN --data fashion_mnist
    python scripts/seconds.py --model RUN --tuned RUN --data fashion_mnist --seconds 10 2 60 5 30 120    # all of it

The model draws by DPM-Solver++ in --steps evaluations, what `gendd tune` made of it in --few, every way in each of the
--seconds; those of --filtered also draw again what a classifier of the real images rejects. Pools are drawn side by
side, each by one core, and judged by one classifier; beside them random real images, DM and the whole training set,
trained alike. It is a comparison (`gendd compare`) in --out, which the same command goes on with, in the order of the
seconds as they are given. What is kept of it goes to --results: scores.csv, table.md and seconds.svg (and .pdf). The
first filtered pool also pays for the classifier of the filter, which the cache then holds.
"""

import argparse
import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from core_dd import cli, files, records
from core_dd.compare import compare
from core_dd.compare.figures import look, panel, save
from core_dd.compare.tables import REAL_NAME
from core_dd.compare.view import PLAN, Planned
from core_dd.errors import require
from core_dd.judge.options import REAL
from core_dd.judge.scores import read_score

RESULTS = Path(__file__).resolve().parents[1] / "results" / "seconds"
DM = {"method": "dm", "config": "dm", "batch_real": 64, "checkpoint_every": 10}
"""The distillation that stands beside: shortened, as the judging is."""


class Way(NamedTuple):
    """How a pool is drawn."""

    steps: int
    tuned: bool
    filtered: bool

    @property
    def name(self) -> str:
        """In tables."""
        kind = "tuned step" if self.tuned else "step"
        return f"{self.steps} {kind}{'s' * (self.steps > 1)}{', filtered' * self.filtered}"

    def producer(self, seconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
        """The whole pool of so many seconds, as a comparison's producer."""
        sample: dict[str, Any] = {"steps": self.steps, "budget": f"{seconds:g}s"}
        if self.tuned:
            sample["solver"] = "consistency"
        if self.filtered:
            sample |= {"filter": arguments.filter, "guide_data": arguments.data.partition("=")[2] or arguments.data}
        return {"generator": arguments.tuned if self.tuned else arguments.model, "sample": sample, "selector": "all"}


class Pool(NamedTuple):
    """A line of scores.csv: a set and its accuracy, in [0, 1]. Of a set that is not drawn, `seconds` is empty."""

    way: str
    seconds: float | str
    seed: int
    images: int
    accuracy: float


def ways(arguments: argparse.Namespace) -> list[Way]:
    """Every way to draw, in the order of the table."""
    plain = [Way(steps, False, False) for steps in arguments.steps]
    plain += [Way(steps, True, False) for steps in arguments.few] if arguments.tuned else []
    known = {way.name: way for way in plain}
    for name in arguments.filtered:
        require(name in known, f"--filtered '{name}': no such way to draw; there are {', '.join(known)}.")
    return plain + [known[name]._replace(filtered=True) for name in arguments.filtered]


def comparison(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a comparison's file says."""
    producers: dict[str, Any] = {"Random": {"coreset": "random"}}
    only: list[dict[str, Any]] = [{"producer": ["Random", REAL]}]
    for seconds in arguments.seconds:
        group = {f"{way.name}, {seconds:g} s": way.producer(seconds, arguments) for way in ways(arguments)}
        producers |= group
        only.append({"producer": list(group), "ipc": 1})
    if arguments.dm:
        producers["DM"] = DM | {"iterations": arguments.dm}
        only.append({"producer": "DM", "ipc": arguments.dm_ipc, "seed": 0})
    return {
        "title": "Accuracy against seconds of sampling",
        "data": arguments.data.partition("=")[0],
        "ipc": [1, 10, 50],  # of what is chosen and distilled; pools are of their own size, and stand at 1
        "seeds": arguments.pools,
        "networks": arguments.network,
        "protocols": {"protocol": arguments.protocol, "iterations": arguments.iterations},
        "judge": {"classifiers": 1, "smoke": True},
        "producers": producers,
        "only": only,
    }


def scores(out: Path, asked: Sequence[Way]) -> list[Pool]:
    """Of a comparison's folder, what is scored."""
    order, found = {way.name: place for place, way in enumerate(asked)}, []
    for job in records.read(out / PLAN, dict[str, Planned]).values():
        place = out / job["folder"] / "scores.json"
        if not job["cells"] or not place.exists():
            continue
        producer, _, ipc, seed = job["cells"][0].split("/")[:4]
        way, _, budget = producer.rpartition(", ")
        seconds: float | str = float(budget.removesuffix(" s")) if way in order else ""
        if way not in order:
            way = REAL_NAME if producer == REAL else f"{producer}, {ipc.replace('ipc', 'ipc ')}"
        score, number = read_score(place), int(seed.removeprefix("seed")) if seed.startswith("seed") else 0
        found.append(Pool(way, seconds, number, score["set"]["images"], statistics.mean(score["accuracies"])))
    return sorted(found, key=lambda pool: (order.get(pool.way, len(order)), pool.way, pool.seconds or 0.0, pool.seed))


def by_way(pools: Sequence[Pool]) -> dict[str, dict[float | str, list[Pool]]]:
    """Scores by the way and the seconds."""
    groups: dict[str, dict[float | str, list[Pool]]] = defaultdict(lambda: defaultdict(list))
    for pool in pools:
        groups[pool.way][pool.seconds].append(pool)
    return groups


def said(pools: Sequence[Pool]) -> str:
    """Mean and standard deviation of the accuracy in %, and how many images there are on the average."""
    own = [100 * pool.accuracy for pool in pools]
    spread = f" ± {statistics.stdev(own):.1f}" if len(own) > 1 else ""
    return f"{statistics.mean(own):.1f}{spread} ({statistics.mean(pool.images for pool in pools):,.0f})"


def table(pools: Sequence[Pool]) -> str:
    """A row per way, a column per budget; what is not drawn below."""
    groups = by_way(pools)
    budgets = sorted({pool.seconds for pool in pools if pool.seconds != ""})
    lines = ["| drawn in | " + " | ".join(f"{seconds:g} s" for seconds in budgets) + " |"]
    lines.append("| --- |" + " ---: |" * len(budgets))
    beside = []
    for way, of in groups.items():
        if "" in of:
            beside.append(f"| {way} | {said(of[''])} |")
        else:
            lines.append(f"| {way} | " + " | ".join(said(of[s]) if s in of else "" for s in budgets) + " |")
    return "\n".join([*lines, "", "| beside them | |", "| --- | ---: |", *beside, ""])


def draw(pools: Sequence[Pool], place: Path) -> None:
    """A curve per way, over the seconds, as place.svg and place.pdf; what is not drawn as level lines."""
    title = "Accuracy of pools against the seconds of their sampling"
    with panel(title, (6.0, 4.0), "accuracy of the pool, %") as (figure, axes):
        places: dict[str, int] = {}
        for way, of in by_way(pools).items():
            means = {s: statistics.mean(100 * pool.accuracy for pool in own) for s, own in of.items()}
            if "" in means:
                axes.axhline(means[""], color="#777777", linewidth=0.8, linestyle=":")
                axes.annotate(f" {way}", (1, means[""]), xycoords=("axes fraction", "data"), fontsize=6, va="center")
                continue
            spreads = [statistics.stdev(100 * p.accuracy for p in of[s]) if len(of[s]) > 1 else 0.0 for s in means]
            plain, _, filtered = way.partition(", ")
            style = look(places.setdefault(plain, len(places))) | ({"linestyle": ":"} if filtered else {})
            axes.errorbar(list(means), list(means.values()), spreads, label=way, markersize=4, capsize=2, **style)
        axes.set_xscale("log")
        budgets = sorted({pool.seconds for pool in pools if pool.seconds != ""})
        axes.set_xticks(budgets, [f"{seconds:g}" for seconds in budgets])
        axes.minorticks_off()
        axes.set_xlabel("seconds of sampling, of one core")
    save(figure, place)


def keep(out: Path, results: Path, asked: Sequence[Way]) -> None:
    """Write what is kept of a comparison, as far as it is scored."""
    pools = scores(out, asked) if (out / PLAN).exists() else []
    if not pools:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Pool._fields)
    writer.writerows(pools)
    results.mkdir(parents=True, exist_ok=True)
    files.write_text(results / "scores.csv", text.getvalue())
    files.write_text(results / "table.md", table(pools))
    draw(pools, results / "seconds")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison, and keep what is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="run folder of gendd train")
    parser.add_argument("--tuned", help="run folder of gendd tune, made from it")
    parser.add_argument("--data", default="fashion_mnist", help="NAME, or NAME=SPEC where it lies elsewhere")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 2, 60], help="budgets, in this order")
    parser.add_argument("--steps", type=int, nargs="*", default=[50, 25, 10])
    parser.add_argument("--few", type=int, nargs="*", default=[4, 2, 1], help="steps of the tuned model")
    parser.add_argument("--filtered", nargs="*", default=[], help="ways that also filter: '10 steps', '2 tuned steps'")
    parser.add_argument("--filter", type=float, default=0.0, help="theirs; default 0, which asks for the label alone")
    parser.add_argument("--pools", type=int, default=3, help="of each way and budget")
    parser.add_argument("--network", default="convnet3_w64")
    parser.add_argument("--protocol", default="challenge")
    parser.add_argument("--iterations", type=int, help="of each classifier, where the protocol is to be cut")
    parser.add_argument("--dm", type=int, default=60, help="iterations of DM; 0: without it")
    parser.add_argument("--dm_ipc", type=int, nargs="+", default=[10], choices=[1, 10, 50])
    parser.add_argument("--workers", type=int, help="pools at a time; default: as many as cores")
    parser.add_argument("--out", type=Path, default=Path("runs/seconds"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    asked, file = ways(arguments), arguments.out.with_suffix(".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(file, yaml.safe_dump(comparison(arguments), sort_keys=False, width=120))
    words = [str(file), "--out", str(arguments.out), "--no_figures", "--threads", "1"]
    words += ["--workers", str(arguments.workers)] if arguments.workers is not None else []
    try:
        compare.main([*words, *(["--data", arguments.data] if "=" in arguments.data else [])])
    finally:  # also of what one that failed left
        keep(arguments.out, arguments.results, asked)


if __name__ == "__main__":
    cli.entry(main)
