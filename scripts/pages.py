"""Write the pages of numbers, docs/results.md, docs/reproduced.md and docs/benchmarks.md, and the README's, from what
results/ holds.

    python scripts/pages.py                          # write them
    python scripts/pages.py --demo runs/demo/00000   # first keep the scores, curves and pictures of a finished demo
    python scripts/pages.py --comparison runs/compare/choices_dm    # first keep the scores and table of a comparison
    python scripts/pages.py --comparison runs/compare/published --machine "2 CPU cores with AVX2"    # and where it ran

Words and the order of rows stand in the templates of docs/made/; every number is read from a file.
"""

import argparse
import csv
import functools
import itertools
import operator
import re
import shutil
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import matching_dd
from core_dd import cli, files, records
from core_dd.compare.grid import ROOMS, cells_of
from core_dd.compare.jobs import DONE, read_done
from core_dd.compare.reading import read_comparison
from core_dd.compare.view import PLAN, Planned
from core_dd.errors import require
from core_dd.judge.options import CHOOSER_CHOICES, REAL
from core_dd.judge.scores import Score, read_score
from core_dd.report import ranking, reproduced, study
from core_dd.report.ranking import Entry, beside_published, grouped, published_text, read_entry
from core_dd.run import read_stats
from core_dd.settings import packaged
from gen_dd.plan import PoolPlan, Setting

ROOT = Path(__file__).resolve().parents[1]
RESULTS, MADE = ROOT / "results", ROOT / "docs" / "made"
PAGES = {f"docs/{name}.md": f"{name}.md.jinja" for name in ("results", "reproduced", "benchmarks")}
"""Whole pages, and their templates."""
BLOCKS = {"README.md": {"demo": "demo.md.jinja", "rows": "rows.md.jinja"}}
"""Parts of a page, from <!-- measured: NAME --> to <!-- end -->, and their templates."""
METHODS = ["dm", "m3d", "datadam", "idm", "cafe", "dc", "dsa", "idc", "mtt", "ead"]
"""In the order of the tables."""
FIDELITY = {
    "digits": {
        "digits-pool": "generated pool",
        "digits-test": "test images, all",
        "digits-generated-ipc10": "generated, random, ipc 10",
        "digits-dm": "DM, ipc 10",
        "digits-random-real": "random training images, ipc 10",
        "digits-test-ipc10": "test images, 10 per class",
    },
    "Fashion-MNIST": {
        "fashion_mnist-pool": "generated pool",
        "fashion_mnist-test": "test images, 20 per class",
        "fashion_mnist-DM": "DM, 60 iterations, ipc 10",
        "fashion_mnist-test-ipc10": "test images, 10 per class",
    },
}
"""Rows of the table of distances: folders in results/fidelity_pools, by data."""
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
"""What pages call data."""
BESIDE_PAPERS = {
    "published": "published",
    "cifar10_m3d": "published",
    "fashion_mnist_random": "cpu_rows",
    "fashion_mnist": "cpu_rows",
    "cifar100": "cpu_rows",
    "fashion_mnist_methods": "cpu_methods",
    "cifar10_methods": "cpu_methods",
}
"""Folders of results/ whose scores stand beside the papers', and the comparisons that make them; sets of one row in
several folders are put together, see `core_dd.report.reproduced.reproduced`."""
KEPT = {
    "generators/*/stats.jsonl": "generator/stats.jsonl",
    "pools/*/grid.png": "pool.png",
    "sets/DM-*/stats.jsonl": "DM-ipc10/stats.jsonl",
    "sets/DM-*/grid.png": "DM-ipc10/grid.png",
    "stages.json": "stages.json",
}
"""What is kept of a demo beside what is of any comparison: each of a pattern's one file, and under what name."""
TABLES = ("table.csv", "table.md", "ranks.csv", "ranks.md", "ranks.svg")
"""What is kept of a comparison, as far as it has them, beside its scores and the first of its ablations' figures."""
LEFT_OUT = ("curves", "curve_steps", "config", "answers", "resolved_protocol", "versions")
"""Of a comparison's scores, what is not kept."""


def main(argv: Sequence[str] | None = None) -> None:
    """Write what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="the folder of a finished demo, which results/digits_demo becomes")
    parser.add_argument("--comparison", type=Path, help="the folder of one, which results/ then holds by its name")
    parser.add_argument("--machine", help="on which its new scores were made, e.g. '2 CPU cores with AVX2'")
    parser.add_argument(
        "--figures",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of it that are kept, too, e.g. accuracy-by-seconds-...",
    )
    arguments = parser.parse_args(argv)
    if arguments.comparison is not None:
        drawn = {f"figures/{name}.svg": f"{name}.svg" for name in arguments.figures}
        keep_comparison(arguments.comparison, RESULTS / arguments.comparison.name, arguments.machine, drawn)
    if arguments.demo is not None:
        require((arguments.demo / "stages.json").exists(), f"{arguments.demo} is no finished demo. Run make demo.")
        keep_comparison(arguments.demo, RESULTS / "digits_demo", arguments.machine, KEPT)
    for name in (*PAGES, *BLOCKS):
        text = made(name)
        if text != (ROOT / name).read_text(encoding="utf-8"):
            files.write_text(ROOT / name, text)
            print(name)


class Place(NamedTuple):
    """Where a comparison's score stands: PRODUCER-ipcN, the seed, data, network and protocol."""

    setting: str
    seed: str
    data: str
    network: str
    protocol: str

    @classmethod
    def of_cell(cls, name: str) -> "Place":
        """That of a cell, by its name."""
        producer, data, ipc, seed, network, protocol = name.split("/")
        return cls(f"{producer}-{ipc}".replace(" ", "-"), seed.removeprefix("seed"), data, network, protocol)

    @classmethod
    def of_kept(cls, path: Path, score: Score) -> "Place":
        """That of a score which results/ holds."""
        setting = re.match(r".*-(ipc\d+|real)(?=-|$)", path.parts[-3])
        require(setting is not None, f"{path}: its folder is none of a comparison's, such as DM-ipc10/0.")
        return cls(setting[0], path.parts[-2], score["data"]["name"], score["network"], score["protocol"])


def keep_comparison(
    comparison: Path, out: Path, machine: str | None = None, more: Mapping[str, str] | None = None
) -> None:
    """Let `out` hold what results/ does of a comparison, as far as it is done: see `TABLES`, of its last call; scores
    as PRODUCER-ipcN/SEED/scores.json, with data, network and protocol in the name where there are several; and `more`
    files, as `KEPT` says.

    What `out` has already and the folder lacks stays, such as what another machine or a call for other data has made,
    but for scores of cells that the comparison no longer has. So do files beside the scores, such as what people found
    of its rows, and the machine of scores that are kept already.
    """
    plan = records.read(comparison / PLAN, dict[str, Planned], "It is no comparison's folder.")
    cells = {Place.of_cell(own["cells"][0]): own["folder"] for own in plan.values() if own["cells"]}
    before = {Place.of_kept(path, read_score(path)): path for path in out.glob("*/*/scores.json")}
    earlier = {place: records.read(path, dict[str, Any]) for place, path in before.items()}
    planned = {place.data for place in cells}
    found = {place: score for place, score in earlier.items() if place in cells or place.data not in planned}
    for place, folder in cells.items():
        if (comparison / folder / "scores.json").exists():
            found[place] = _kept(comparison, folder, earlier.get(place, {}), machine)
    several = [axis for axis in Place._fields[2:] if len({getattr(place, axis) for place in [*cells, *found]}) > 1]
    with files.atomic(out, replace=True) as temporary:
        temporary.mkdir()
        for path in [*out.glob("*"), *(comparison / name for name in TABLES)]:
            if path.is_file():
                shutil.copyfile(path, temporary / path.name)
        for path in sorted(comparison.glob("figures/ablation-*.svg"))[:1]:
            shutil.copyfile(path, temporary / "ablation.svg")
        for place, score in found.items():
            name = "-".join([place.setting, *(getattr(place, axis) for axis in several)])
            files.write_text(temporary / name / place.seed / "scores.json", files.json_text(score) + "\n")
            for path in before[place].parent.iterdir() if place in before else ():
                if path.is_file() and path.name != "scores.json":
                    shutil.copyfile(path, temporary / name / place.seed / path.name)
        for pattern, name in (more or {}).items():
            for path in comparison.glob(pattern):
                (temporary / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, temporary / name)


def _kept(comparison: Path, folder: str, earlier: Mapping[str, Any], machine: str | None) -> dict[str, Any]:
    """What is kept of a score: without what is long, but with the machine, and with the seconds of choosing a coreset,
    which the set itself does not say."""
    score = records.read(comparison / folder / "scores.json", dict[str, Any])
    made = comparison / ROOMS["set"] / Path(score["set"]["path"] or "").name
    if score["set"]["method"] in CHOOSER_CHOICES and (made / DONE).exists():
        score["making_seconds"] = read_done(made)["seconds"]
    if all(earlier.get(key) == score[key] for key in ("accuracies", "seconds")):
        machine = earlier.get("machine", machine)
    if machine is not None:
        score["machine"] = machine
    score["set"]["path"] = None
    return {key: value for key, value in score.items() if key not in LEFT_OUT}


def made(name: str) -> str:
    """A page as it should be."""
    templates = Environment(
        loader=FileSystemLoader(MADE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.globals |= FUNCTIONS
    if name in PAGES:
        return templates.get_template(PAGES[name]).render()
    text = (ROOT / name).read_text(encoding="utf-8")
    for block, template in BLOCKS[name].items():
        begin, end = f"<!-- measured: {block} -->\n", "<!-- end -->"
        before, found, rest = text.partition(begin)
        require(bool(found), f"{name} has no place for the numbers of '{block}': {begin.strip()}")
        text = before + begin + templates.get_template(template).render() + end + rest.partition(end)[2]
    return text


def entry(place: str) -> Entry:
    """The score of a folder under results/."""
    return read_entry(RESULTS / place / "scores.json")


def scores(*patterns: str) -> list[Score]:
    """The scores of the folders under results/ that match, at least one each."""
    found = []
    for pattern in patterns:
        matches = sorted(RESULTS.glob(f"{pattern}/scores.json"))
        require(bool(matches), f"results/ holds no score at {pattern}.")
        found += [read_score(path) for path in matches]
    return found


def theirs(own: Entry) -> str:
    """What the papers report of the same method, data, ipc and network; empty where they do not."""
    [group] = grouped([own])
    values = [line.published[0] for line in beside_published(group) if line.ours and line.published]
    return published_text(values[0]) if values else ""


def judged(place: str) -> str:
    """The accuracy of a folder under results/, marked where it cannot be told from chance; - where there is none."""
    if not (RESULTS / place / "scores.json").exists():
        return "-"
    return ranking.accuracy(entry(place))


def beside_papers() -> list[dict[str, Any]]:
    """Every row of `BESIDE_PAPERS`, as cells of a table."""
    folders = [RESULTS / name for name in BESIDE_PAPERS]
    planned = functools.reduce(operator.or_, map(planned_rows, dict.fromkeys(BESIDE_PAPERS.values())))
    return [_beside_paper(row) for row in reproduced.reproduced(folders, planned)]


@functools.cache
def planned_rows(comparison: str) -> Counter[str]:
    """How many sets of every row a packaged comparison wants, in the order of the work."""
    cells = cells_of(read_comparison(packaged("compare")[comparison], {}))
    return Counter(reproduced.row_name(own.producer, own.data, own.ipc, own.network, own.protocol) for own in cells)


def _beside_paper(row: reproduced.Reproduced) -> dict[str, Any]:
    """One of them."""
    whole, theirs = row.ipc is None, row.published
    method = f"{row.iterations:.0f} iterations" if row.smoke and row.iterations else ""
    sets = f"{len(row.scores)} of {row.planned}" if len(row.scores) < row.planned else f"{len(row.scores)}"
    spread = f" ± {row.std:.1f}" if row.std is not None else ""
    producer, data, ipc, network, protocol = row.name.split("/")
    return {
        "row": row,
        "method": "full training set" if whole else row.producer + f", {method}" * bool(method),
        "data": TITLES.get(row.data, row.data),
        "ipc": "-" if whole else row.ipc,
        "protocol": row.protocol,
        "ours": f"{row.mean:.1f}{spread}",
        "over": f"{sets} x {span(row.classifiers)}",
        "theirs": published_text(theirs) if theirs else "-",
        "difference": "-" if row.difference is None else f"{row.difference:+.1f}",
        "making": "-" if whole or row.making is None else _seconds(row.making),
        "judging": _seconds(row.judging),
        "machine": row.machine,
        "command": f"gendd compare {BESIDE_PAPERS[row.folder.name]} "
        f"--only '/{producer}/{data}/{ipc}/seed*/{network}/{protocol}/'",
        "smoke": row.smoke,
    }


def shown(rows: Sequence[dict[str, Any]], method: str, data: str, ipc: int) -> dict[str, Any]:
    """Of the rows beside papers' numbers the one of a method, data and ipc, and of these rather one that is whole."""
    mine = [own for own in rows if (own["row"].producer, own["row"].data, own["ipc"]) == (method, data, ipc)]
    require(bool(mine), f"results/ holds no score of {method} on {data} at ipc {ipc}.")
    return min(mine, key=lambda own: (own["smoke"], own["row"].short))


def missing(comparison: str) -> Iterator[dict[str, str]]:
    """What a comparison of `BESIDE_PAPERS` wants yet, in the order of the work, as cells of a table:
    places of which as many sets of the same method are wanted are one row."""
    wanted: dict[tuple[str, str, int], dict[str, list[str]]] = {}
    folders = [RESULTS / folder for folder, own in BESIDE_PAPERS.items() if own == comparison]
    for name, count in reproduced.missing(folders, planned_rows(comparison)).items():
        producer, data, ipc, _, protocol = name.split("/")
        wanted.setdefault((producer, protocol, count), {}).setdefault(data, []).append(ipc.removeprefix("ipc"))
    for (producer, protocol, count), places in wanted.items():
        for ipcs in dict.fromkeys(map(tuple, places.values())):
            whole = producer == REAL
            yield {
                "method": "full training set" if whole else producer,
                "data": ", ".join(TITLES.get(data, data) for data, own in places.items() if tuple(own) == ipcs),
                "ipc": "-" if whole else ", ".join(ipcs),
                "protocol": protocol,
                "sets": str(count),
            }


def looks(place: str, *names: str) -> str:
    """Distances of a folder under results/, as cells of a table."""
    found = entry(place).distances
    return " | ".join(f"{found[name]:.3g}" for name in names)


def beside(place: str) -> str:
    """Our accuracy, and in brackets theirs where there is one."""
    own = entry(place)
    return ranking.accuracy(own) + (f" ({theirs(own)})" if theirs(own) else "")


def span(values: Sequence[float], form: str = ".0f") -> str:
    """From the least to the greatest."""
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def cost(patterns: Sequence[str], key: str) -> str:
    """What making the sets took, as they say; - where they say nothing."""
    values = [score["set"]["cost"][key] for score in scores(*patterns) if key in (score["set"].get("cost") or {})]
    return span(values) if values else "-"


def settings(folder: str, first: str, rows: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The rows of a study's table, in the order of `rows`: what the page calls each setting, its accuracy, its gain
    over the first, and its numbers."""
    found = study.read_study(RESULTS / folder, first)
    require(found.keys() == rows.keys(), f"results/{folder} holds {', '.join(found)}; the page has {', '.join(rows)}.")
    for name, said in rows.items():
        numbers = study.means(found[name])
        numbers["prepare"] = f"{numbers['prepare_seconds']:.2f}" if numbers.get("prepare_seconds", 0) >= 0.005 else "-"
        gain = study.gain(found[name], found[first])
        yield {"said": said, "mean": study.accuracy(found[name]), "gain": gain, **numbers}


def choices(folder: str, first: str) -> Iterator[dict[str, Any]]:
    """The rows of a comparison's table, in its order: each producer, and by ipc its accuracy, and its gain over the
    first producer on the sets of the same seeds."""
    found, lines = study.read_study(RESULTS / folder), rows_of(f"{folder}/table.csv")
    ipcs = sorted({int(line["ipc"]) for line in lines if line["ipc"]})
    for method in dict.fromkeys(line["method"] for line in lines if line["ipc"]):
        cells = []
        for ipc in ipcs:
            own, base = (found.get(f"{name} ipc {ipc}") for name in (method, first))
            cells += [study.accuracy(own), study.gain(own, base)] if own and base else ["-", "-"]
        yield {"said": method, "cells": cells}


def courses(folder: str, first: str, ipc: int) -> Iterator[dict[str, str]]:
    """The producers of a comparison whose sets were tested on a validation split, too, at one ipc: the accuracy on the
    split and on the test images, and both gains over the first producer, by seeds; those that have all their sets."""
    found = study.read_study(RESULTS / folder)
    base = found[f"{first} ipc {ipc}"]
    for method in dict.fromkeys(name.rpartition(" ipc ")[0] for name in [f"{first} ipc {ipc}", *found]):
        own = found.get(f"{method} ipc {ipc}", [])
        if len(own) == len(base) and all("validation" in score["set"] for score in own):
            on_split, other = (
                [s | {"mean": s["set"]["validation"]["accuracy"]} for s in scores] for scores in (own, base)
            )
            yield {
                "said": method,
                "split": study.accuracy(on_split),
                "split_gain": "-" if own is base else study.gain(on_split, other),
                "test": study.accuracy(own),
                "test_gain": study.gain(own, base),
            }


def short_courses(folder: str) -> Iterator[dict[str, Any]]:
    """The rows of distillations that are called "METHOD fast" or "METHOD, N iterations", beside METHOD's own number: by
    data and ipc, each as cells of a table."""
    rows = reproduced.reproduced([RESULTS / folder])
    for row in sorted(rows, key=lambda row: (list(TITLES).index(row.data), row.ipc, row.producer)):
        method = re.split(",| fast", row.producer)[0]
        paper = reproduced.published_row(row.data, row.ipc, method, row.network, protocol=row.protocol)
        far = reproduced.beyond(row.mean, paper, [row.protocol])
        yield {
            "said": row.producer,
            "data": TITLES[row.data],
            "ipc": row.ipc,
            "protocol": row.protocol,
            "command": f"gendd compare {folder} --only '/{row.producer}/{row.data}/ipc{row.ipc}/'",
            "iterations": f"{row.iterations:.0f}" if row.iterations else "-",
            "published_iterations": matching_dd.METHODS[method.lower()].Config.iterations,
            "seconds": "-" if row.making is None else f"{row.making:.0f}",
            "ours": study.accuracy(row.scores),
            "sets": len(row.scores),
            "theirs": published_text(paper) if paper else "-",
            "difference": "-" if far is None else f"{far:+.1f}",
        }


def rows_of(place: str) -> list[dict[str, str]]:
    """The rows of a CSV file under results/."""
    with (RESULTS / place).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pools(rows: Iterable[Mapping[str, str]], way: str) -> str:
    """The accuracy in % of one way of drawing pools, over them: mean and standard deviation."""
    found = [float(row["accuracy"]) for row in rows if row["way"] == way]
    deviation = f" ± {100 * statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{100 * statistics.fmean(found):.1f}{deviation}"


def first_table(place: str) -> str:
    """The first table of a Markdown file under results/."""
    lines = (RESULTS / place).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    return "\n".join(itertools.takewhile(lambda line: line.startswith("|"), lines[start:])) + "\n"


def steps(folder: str, count: int) -> Iterator[list[str]]:
    """The rows of a table of class-incremental learning in so many steps: the method and, in % and as the mean over its
    sets, the accuracy on the classes known after each step and its mean over the steps."""
    found: dict[str, list[list[float]]] = {}
    classes: list[int] = []
    for path in sorted((RESULTS / folder).glob("*/*/scores.json")):
        own = records.read(path, dict[str, Any])
        if len(own["incremental"]["classes"]) == count:
            classes = own["incremental"]["classes"]
            after = [100 * statistics.fmean(accuracies) for accuracies in own["incremental"]["accuracies"]]
            found.setdefault(own["set"]["name"].partition(" ipc ")[0], []).append([*after, statistics.fmean(after)])
    require(bool(found), f"results/{folder} holds no learning in {count} steps.")
    yield ["known classes", *map(str, classes), "mean"]
    for method, several in found.items():
        yield [method, *(f"{statistics.fmean(column):.1f}" for column in zip(*several, strict=True))]


def recipes(*names: str) -> Iterator[dict[str, Any]]:
    """The rows of the trainer's recipes: per number of steps, the seconds (the least of the seeds') and each seed's
    distance and accuracy."""
    for name in names:
        folders = sorted((RESULTS / "digits_recipes").glob(f"{name}-seed*"))
        lines = [line for folder in folders for line in read_stats(folder / "stats.jsonl")]
        for steps in sorted({line["step"] for line in lines}):
            own = [line for line in lines if line["step"] == steps]
            yield {
                "steps": steps,
                "seconds": min(line["seconds"] for line in own),
                "distances": ", ".join(f"{line['classifier_frechet']:.3f}" for line in own),
                "accuracies": ", ".join(f"{100 * line['accuracy']:.1f}" for line in own),
            }


def generator_choices(folder: str) -> Iterator[dict[str, Any]]:
    """The rows of the trainer's options: the cost of a step, the steps, and each seed's distance and accuracy."""
    place = RESULTS / folder
    costs = records.read(place / "costs.json", dict[str, float]) if (place / "costs.json").exists() else {}
    names = [path.name.removesuffix("-seed0") for path in place.glob("*-seed0")]
    for name in sorted(names, key=["plain", *costs, *sorted(names)].index):
        own = [read_stats(folder / "stats.jsonl")[-1] for folder in sorted(place.glob(f"{name}-seed*"))]
        distances = [line["classifier_frechet"] for line in own]
        accuracies = [100 * line["val_accuracy"] for line in own]
        digits = 3 if max(distances) < 1 else 1
        yield {
            "name": name.replace("_", ", weight "),
            "cost": f"{costs[name]:.2f}" if name in costs else "",
            "steps": own[0]["step"],
            "distances": ", ".join(f"{distance:.{digits}f}" for distance in distances),
            "distance": f"{statistics.mean(distances):.{digits}f}",
            "accuracies": ", ".join(f"{accuracy:.1f}" for accuracy in accuracies),
            "accuracy": f"{statistics.mean(accuracies):.1f}",
        }


def trials(place: str) -> Iterator[dict[str, str]]:
    """What a plan of `gendd sample` tried, best first, with each round's accuracy in % (and images per class)."""
    found: dict[Setting, list[str]] = {}
    for own in records.read(RESULTS / place, PoolPlan)["trials"]:
        setting = Setting(steps=own["steps"], cfg_scale=own["cfg_scale"], filter=own["filter"])
        found.setdefault(setting, []).append(f"{100 * own['accuracy']:.1f} ({own['per_class']})")
    for setting, rounds in found.items():
        yield {"setting": str(setting), "first": rounds[0], "again": rounds[1] if len(rounds) > 1 else ""}


def machines() -> dict[str, dict[str, Any]]:
    """What `python -m benchmarks` wrote, by the name of the file."""
    return {path.stem: records.read(path, dict[str, Any]) for path in sorted((RESULTS / "benchmarks").glob("*.json"))}


def benchmark(name: str, result: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, str]:
    """A row of the benchmarks: what is measured, and the numbers as they are printed."""
    reference, ours = result["reference"], result["ours"]
    images = re.findall(r"images: (\d+)|(\d+) images|on CUDA (\d+)", result["title"])  # a second one is a GPU's
    images = ["".join(each) for each in images][0 if machine["device"] == "cpu" else -1 :][:1]
    tflops, peak = result.get("tflops"), machine.get("peak_tflops")
    ratio = f"{result['ratio']:.2f}x"
    return {
        "name": NAMES.get(re.sub(r"_\d+$", "", name), "`{0}`").format(_bare(name), *images, ""),
        "reference": _seconds(reference["seconds"]),
        "ours": _seconds(ours["seconds"]),
        "ratio": ratio if result["ratio"] >= result["target"] else f"**{ratio}**",
        "target": f"{result['target']:.2g}x",
        "part": f"{_part(result):.0%}" if "machine_tflops" in result else "",
        "mfu": f"{tflops / peak:.0%}" if tflops and peak else "",
        "memory": f"{reference['peak_mib']:.0f} -> {ours['peak_mib']:.0f}",
    }


NAMES = {
    "evaluator": "evaluator, 5 ConvNet-3, ipc 50",
    "evaluator_resnet18": "evaluator, 5 ResNet-18, ipc 50",
    "evaluator_alexnet": "evaluator, 5 AlexNet, ipc 50",
    "fidelity": "fidelity of {1} images of 32x32",
    "dm": "DM iteration, CIFAR-10 shape, ipc 10",
    "uvit_train": "U-ViT small, training step of {1} images",
    "uvit_sample": "U-ViT small, sampling {1} images in 3 steps",
}
"""What the page calls a benchmark; the others are a method at a number of classes."""


def _bare(name: str) -> str:
    """A benchmark's name without the number of classes, or of images."""
    return re.sub(r"_k?\d+$", "", name)


def _seconds(seconds: float) -> str:
    """Three digits."""
    return f"{seconds:#.3g} s" if seconds < 100 else f"{seconds:.0f} s"


def part(results: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The benchmarks whose names end so; of an empty end, those that are not of the matching methods' group."""
    names = [name for name in results if (re.search(r"_k\d+$", name) or [""])[0] == group]
    order = [*NAMES, *METHODS]
    return {name: results[name] for name in sorted(names, key=lambda name: order.index(_bare(name)))}


def parts(results: Mapping[str, Any]) -> str:
    """From the least to the greatest part of the machine's rate, in %."""
    return span([100 * _part(result) for result in results.values()])


def _part(result: Mapping[str, Any]) -> float:
    own = result["machine_tflops"]
    return result["tflops"] / own.get("bf16", own["fp32"])


def used(rows: Sequence[Mapping[str, str]]) -> set[str]:
    """The columns that some row fills."""
    return {key for row in rows for key, text in row.items() if text}


def demo_ranking() -> str:
    """The table that the demo ends with."""
    return ranking.printed(grouped([read_entry(path) for path in ranking.find_scores([RESULTS / "digits_demo"])]))


def demo_seconds() -> dict[str, float]:
    """What each stage of the demo took."""
    seconds = records.read(RESULTS / "digits_demo" / "stages.json", dict[str, float])
    return seconds | {"total": sum(seconds.values())}


FUNCTIONS = {
    "table": lambda folder: (RESULTS / folder / "table.md").read_text(encoding="utf-8"),
    "entry": entry,
    "accuracy": ranking.accuracy,
    "theirs": theirs,
    "judged": judged,
    "beside_papers": beside_papers,
    "shown": shown,
    "UNEXPLAINED": reproduced.UNEXPLAINED,
    "CLASSIFIERS": reproduced.CLASSIFIERS,
    "missing": missing,
    "looks": looks,
    "beside": beside,
    "spread": lambda *patterns: study.accuracy(scores(*patterns)),
    "cost": cost,
    "settings": settings,
    "choices": choices,
    "courses": courses,
    "short_courses": short_courses,
    "pools": pools,
    "rows_of": rows_of,
    "first_table": first_table,
    "steps": steps,
    "recipes": recipes,
    "generator_choices": generator_choices,
    "trials": trials,
    "machines": machines,
    "benchmark": benchmark,
    "part": part,
    "parts": parts,
    "METHODS": METHODS,
    "FIDELITY": FIDELITY,
    "used": used,
    "zip": zip,
    "demo_ranking": demo_ranking,
    "demo_seconds": demo_seconds,
}
"""What the templates call."""


if __name__ == "__main__":
    cli.entry(main)
