"""How near short courses of distillation come to the papers' numbers, by the seconds they take, as a picture.

    python scripts/short_courses.py                  # of results/short_courses, as short_courses.svg there

Every row of `gendd compare short_courses` that is kept is a mark: full for settings of our own, hollow for the
published ones, stopped early. Its height is how many points its accuracy is above the one that the paper prints after
all its iterations.
"""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from core_dd import cli
from core_dd.compare.figures import look, panel, save
from core_dd.errors import require
from core_dd.report import reproduced

RESULTS = Path(__file__).resolve().parents[1] / "results" / "short_courses"
SHORT = {"fashion_mnist": ("Fashion-MNIST", "right"), "cifar10": ("CIFAR-10", "left")}
"""What is written beside the marks of some data, and which end of it is nearest them."""


def main(argv: Sequence[str] | None = None) -> None:
    """Draw what a folder of results holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of kept scores")
    results = parser.parse_args(argv).results
    places: dict[str, int] = {}
    with panel("Short courses, beside the papers' numbers", (6.4, 4.0), "points above the paper's") as (figure, axes):
        axes.axhline(0, color="#777777", linewidth=0.8, linestyle=":")
        rows = reproduced.reproduced([results])
        judged = Counter((row.producer, row.data, row.ipc) for row in rows)
        for row in rows:
            method, own = re.split(",| fast", row.producer)[0], " fast" in row.producer
            paper = reproduced.published_row(row.data, row.ipc, method, row.network, protocol=row.protocol)
            if paper is None or paper.percent is None or row.making is None:
                continue
            style = look(places.setdefault(method, len(places))) | {"linestyle": ""}
            style |= {} if own else {"markerfacecolor": "white"}
            (mark,) = axes.plot(row.making, row.mean - paper.percent, markersize=6, **style)
            name, place = SHORT.get(row.data, (row.data, "left"))
            beside = {"xytext": (6 if place == "left" else -6, 0), "textcoords": "offset points", "ha": place}
            several = judged[row.producer, row.data, row.ipc] > 1
            said = f"{name}, ipc {row.ipc}" + (f", by {row.protocol}" if several else "")
            point = (row.making, row.mean - paper.percent)
            axes.annotate(said, point, fontsize=6, va="center", **beside)
            known = axes.get_legend_handles_labels()[1]
            meant = f"{method}, {'our settings' if own else 'published settings, stopped early'}"
            mark.set_label(meant if meant not in known else f"_{meant}")
        require(bool(places), f"{results} holds no row of a method and data that a paper has.")
        axes.set_xscale("log")
        ticks = [120, 300, 600, 1200, 2400]
        axes.set_xticks(ticks, [f"{seconds // 60} min" for seconds in ticks])
        axes.minorticks_off()
        axes.set_xlim(100, 4000)
        axes.set_xlabel("time of making a set, one AVX2 core")
    for path in save(figure, results / "short_courses"):
        print(path)


if __name__ == "__main__":
    cli.entry(main)
