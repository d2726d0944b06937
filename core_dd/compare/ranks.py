"""Command: rank networks by training them on small sets, and say how far that ranking agrees with the one by training
on real images: architecture search on a proxy ([Zhao et al., DC, ICLR 2021](https://arxiv.org/abs/2006.05929))."""

import csv
import io
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import rankdata, spearmanr

from core_dd import cli, files
from core_dd.compare import figures
from core_dd.compare.compare import carried_out
from core_dd.compare.grid import Cell, Plan
from core_dd.compare.options import RankConfig
from core_dd.compare.reading import Comparison
from core_dd.compare.view import SCORES
from core_dd.config import load_config, with_first
from core_dd.errors import require
from core_dd.judge.options import REAL
from core_dd.judge.scores import read_score
from core_dd.notes import note
from core_dd.report.tables import markdown_table, markdown_text, text_table

FEWEST = 4
"""Networks that a rank correlation is said of, at least."""
SHOWN = 30
"""Networks that ranks.md lists; ranks.csv has all."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What a method's sets say of networks, beside what the real training images say.

    Attributes:
        data, method, ipc, protocol: whose sets, and how networks were trained on them.
        real_protocol: how they were trained on the real images.
        accuracies: by network, the mean over sets and classifiers, a fraction; and likewise
        real: trained on the real images, for the same networks in the same order.
        seconds: what training all of them on one set took, on average over the sets; and
        real_seconds: on the real images.
    """

    data: str
    method: str
    ipc: int
    protocol: str
    real_protocol: str
    accuracies: Mapping[str, float]
    real: Mapping[str, float]
    seconds: float
    real_seconds: float

    @property
    def spearman(self) -> float | None:
        """Spearman's rank correlation of the two, None of fewer than `FEWEST` networks or where all are alike."""
        return correlation(list(self.accuracies.values()), list(self.real.values()))

    def spearman_of_best(self, share: float) -> float | None:
        """The same among the share of networks that are best on real images."""
        best = sorted(self.real, key=self.real.__getitem__, reverse=True)[: round(share * len(self.real))]
        return correlation([self.accuracies[name] for name in best], [self.real[name] for name in best])

    @property
    def chosen(self) -> str:
        """The network that the sets find best."""
        return max(self.accuracies, key=self.accuracies.__getitem__)


def correlation(own: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None of fewer than `FEWEST` pairs, or where one side is
    constant.

    Examples:
        >>> correlation([1, 2, 3, 4], [10, 20, 30, 40]), correlation([1, 2, 3, 4], [4, 3, 2, 1])
        (1.0, -1.0)
        >>> correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
        True
    """
    if len(own) < FEWEST or len(set(own)) == 1 or len(set(other)) == 1:
        return None
    return float(spearmanr(own, other).statistic)


def interval(value: float, number: int) -> tuple[float, float]:
    """The 95 % interval of a rank correlation over `number` pairs, by Fisher's transform with the variance of [Bonett &
    Wright, Psychometrika 2000](https://doi.org/10.1007/BF02294183).

    Examples:
        >>> low, high = interval(0.5, 24)
        >>> round(low, 2), round(high, 2)
        (0.1, 0.76)
    """
    if abs(value) > 1 - 1e-12:
        return value, value
    half = 1.96 * math.sqrt((1 + value**2 / 2) / (number - 3))
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)


def rankings_of(plan: Plan) -> list[Ranking]:
    """How the methods of a comparison rank the networks that they and the real training images have judged.

    Where real images were judged by the same protocol as the sets, these are compared; else by what protocol they were.
    """
    judged: dict[tuple[str, str, int | None, str], dict[str, list[Any]]] = {}
    for cell, key in plan.cells:
        if plan.orders[key].done:
            score = read_score(Path(plan.orders[key].folder) / SCORES)
            judged.setdefault(_place(cell), {}).setdefault(cell.network, []).append(score)
    found = []
    for (data, method, ipc, protocol), scores in judged.items():
        reals = [own for name, producer, _, own in judged if name == data and producer == REAL]
        reals = [own for own in reals if judged[data, REAL, None, own].keys() & scores.keys()]
        if method == REAL or ipc is None or not reals:
            continue
        real_protocol = protocol if protocol in reals else reals[0]
        real = judged[data, REAL, None, real_protocol]
        common = [network for network in scores if network in real]
        found.append(
            Ranking(
                data=data,
                method=method,
                ipc=ipc,
                protocol=protocol,
                real_protocol=real_protocol,
                accuracies={network: _mean(scores[network], "mean") for network in common},
                real={network: _mean(real[network], "mean") for network in common},
                seconds=sum(_mean(scores[network], "seconds") for network in common),
                real_seconds=sum(_mean(real[network], "seconds") for network in common),
            )
        )
    return found


def _place(cell: Cell) -> tuple[str, str, int | None, str]:
    return cell.data, cell.producer, cell.ipc, cell.protocol


def _mean(scores: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.fmean(score[key] for score in scores)


def _named(rankings: Sequence[Ranking]) -> dict[str, Ranking]:
    """Rankings by method and ipc, and by data and protocol where there are several of these."""
    several = {axis for axis in ("data", "protocol") if len({getattr(own, axis) for own in rankings}) > 1}
    found = {}
    for own in rankings:
        parts = [own.data] * ("data" in several) + [f"{own.method} ipc {own.ipc}"]
        found[", ".join(parts + [own.protocol] * ("protocol" in several))] = own
    return found


def summary(rankings: Sequence[Ranking], top: float) -> list[list[str]]:
    """Headings, then a line per method and one for the real images, as text."""
    heads = ["ranked by", "ipc", "networks", "Spearman", "95 % interval", f"of the best {top:.0%}", "its best, on real"]
    lines = [[*heads, "minutes"]]
    several = len({own.data for own in rankings}) > 1
    for own in rankings:
        value, best = own.spearman, own.spearman_of_best(top)
        ends = "-" if value is None else "{:.2f} to {:.2f}".format(*interval(value, len(own.real)))
        shown = ["-" if each is None else f"{each:.2f}" for each in (value, best)]
        chosen = f"{100 * own.real[own.chosen]:.1f} %"
        count, minutes = str(len(own.real)), f"{own.seconds / 60:.1f}"
        name = f"{own.method}{f' {own.data}' * several}, {own.protocol}"
        lines.append([name, str(own.ipc), count, shown[0], ends, shown[1], chosen, minutes])
    references = {(own.data, own.real_protocol): own for own in rankings}
    for own in references.values():
        highest = f"{100 * max(own.real.values()):.1f} %"
        count, minutes = str(len(own.real)), f"{own.real_seconds / 60:.1f}"
        lines.append([f"real {own.data}, {own.real_protocol}", "", count, "1.00", "", "1.00", highest, minutes])
    return lines


def by_network(rankings: Sequence[Ranking], most: int | None = None) -> list[list[str]]:
    """Headings, then a line per network of one data set, best on real images first: its accuracy in % there and by each
    method, and in brackets its rank.

    Args:
        rankings: of one data set.
        most: leave out those after so many; None: none.
    """
    reals: dict[str, dict[str, float]] = {}
    for own in rankings:
        reals.setdefault(own.real_protocol, {}).update(own.real)
    names = [f"real, {protocol}" for protocol in reals] if len(reals) > 1 else ["real"]
    tables: dict[str, Mapping[str, float]] = dict(zip(names, reals.values(), strict=True))
    tables |= {name: own.accuracies for name, own in _named(rankings).items()}
    real = {network: value for own in reversed(reals.values()) for network, value in own.items()}
    ranks = {name: _ranks(own) for name, own in tables.items()}
    lines = [["network", *tables]]
    for network in sorted(real, key=real.__getitem__, reverse=True)[:most]:
        cells = [
            f"{100 * own[network]:.1f} ({ranks[name][network]:g})" if network in own else "-"
            for name, own in tables.items()
        ]
        lines.append([network, *cells])
    return lines


def _ranks(accuracies: Mapping[str, float]) -> dict[str, float]:
    """From 1, the best; those alike share their mean rank."""
    return dict(zip(accuracies, rankdata([-value for value in accuracies.values()]), strict=True))


LEGEND = (
    "Spearman's correlation of the ranking of networks by their accuracies after training on a set (the mean over sets "
    "and classifiers) with that by training on the real images, its 95 % interval over networks (Bonett & Wright "
    "2000), and the same among the networks that are best on real images. Its best, on real: the accuracy, trained on "
    "real images, of the network that the set finds best; below, of the best there is. Minutes: of training all "
    "networks once."
)


def ranks_csv(rankings: Sequence[Ranking]) -> str:
    """Every network by every method: accuracies in % and ranks, 1 is best."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            "data",
            "method",
            "ipc",
            "protocol",
            "network",
            "accuracy",
            "rank",
            "real_protocol",
            "real_accuracy",
            "real_rank",
        ]
    )
    for own in rankings:
        ranks, reals = _ranks(own.accuracies), _ranks(own.real)
        for network, accuracy in own.accuracies.items():
            ours = [network, round(100 * accuracy, 3), f"{ranks[network]:g}"]
            theirs = [own.real_protocol, round(100 * own.real[network], 3), f"{reals[network]:g}"]
            writer.writerow([own.data, own.method, own.ipc, own.protocol, *ours, *theirs])
    return file.getvalue()


def write(plan: Plan, comparison: Comparison, title: str, config: RankConfig, out: Path) -> None:
    """Write ranks.csv, ranks.md and a figure of what is judged, and print how far the rankings agree."""
    rankings = rankings_of(plan)
    require(
        bool(rankings),
        f"{out} has no network yet that both a set and the real training images have judged. Give real: true, and more "
        "of the cells.",
    )
    lines = summary(rankings, config.top)
    parts = [f"# {markdown_text(title)}", markdown_table(lines, frozenset({0})), markdown_text(LEGEND)]
    for data in dict.fromkeys(own.data for own in rankings):
        table = by_network([own for own in rankings if own.data == data], SHOWN)
        parts += [f"## {markdown_text(data)}: accuracy in %, and rank", markdown_table(table, frozenset({0}))]
    files.write_text(out / "ranks.md", "\n\n".join(parts) + "\n")
    files.write_text(out / "ranks.csv", ranks_csv(rankings))
    why = figures.missing() if config.figures else None
    drawn = config.figures and why is None
    if drawn:
        panels = {name: (own.accuracies.values(), own.real.values()) for name, own in _named(rankings).items()}
        labels = "accuracy after training on the set, %", "on the real images, %"
        figures.save(figures.scatter(title, panels, *labels), out / "ranks")
    elif why is not None:
        note(why)
    print(f"{text_table(lines, frozenset({0}))}\n\n{out / 'ranks.md'}, ranks.csv{', ranks.svg' * drawn}")


def main(argv: Sequence[str] | None = None) -> None:
    """Train the networks of a comparison that are missing, and rank them."""
    argv = with_first(sys.argv[1:] if argv is None else argv, "file")
    carried_out(load_config(RankConfig, argv, prog="gendd rank-networks"), write)


if __name__ == "__main__":
    cli.entry(main)
