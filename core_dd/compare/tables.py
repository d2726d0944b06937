"""The tables of a comparison: method x ipc for each data set, network and protocol; text, Markdown, LaTeX and CSV."""

import csv
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core_dd.compare.grid import Cell, Plan
from core_dd.compare.levels import FEWEST_PAIRS, Level, surely_best, two_levels
from core_dd.compare.view import SCORES
from core_dd.judge.options import REAL
from core_dd.judge.scores import Score, read_score
from core_dd.report import published
from core_dd.report.published import PublishedRow
from core_dd.report.ranking import plain_name
from core_dd.report.tables import markdown_table, markdown_text, text_table

REAL_NAME = "whole training set"


@dataclass(frozen=True, kw_only=True)
class CellEntry:
    """The sets of one method at one ipc, as far as they are judged.

    Attributes:
        scores: by the seeds of the sets.
        level: what they are worth together.
        best: whether the method is better than all others of its column beyond doubt.
        published: the paper's number, where there is one of this data, ipc, method and network.
        whole: whether all sets of the grid are there.
    """

    scores: Mapping[int, Score]
    level: Level
    whole: bool
    published: PublishedRow | None = None
    best: bool = False

    @property
    def smoke(self) -> bool:
        """Whether anything was shortened."""
        return any(score["smoke"] for score in self.scores.values())


@dataclass(frozen=True, kw_only=True)
class Pivot:
    """One table.

    Attributes:
        data, network, protocol: what it is about.
        ipcs: its columns.
        entries: by method and ipc, what is judged.
        methods: its rows.
        real: the whole training set, if it is judged.
    """

    data: str
    network: str
    protocol: str
    ipcs: Sequence[int]
    methods: Sequence[str]
    entries: Mapping[tuple[str, int], CellEntry]
    real: CellEntry | None

    @property
    def title(self) -> str:
        """What it is about, in words."""
        return f"{self.data}, {self.network}, protocol {self.protocol}"


def pivots_of(plan: Plan) -> list[Pivot]:
    """The tables of what is judged so far; without those that have no number yet."""
    found = []
    for key in dict.fromkeys((cell.data, cell.network, cell.protocol) for cell, _ in plan.cells):
        own = [(cell, order) for cell, order in plan.cells if (cell.data, cell.network, cell.protocol) == key]
        entries = {}
        for method, ipc in dict.fromkeys((cell.producer, cell.ipc) for cell, _ in own):
            entry = _entry(plan, [pair for pair in own if (pair[0].producer, pair[0].ipc) == (method, ipc)])
            if entry is not None:
                entries[method, ipc] = entry
        real = entries.pop((REAL, None), None)
        if entries:
            found.append(
                Pivot(
                    data=key[0],
                    network=key[1],
                    protocol=key[2],
                    ipcs=sorted({cell.ipc for cell, _ in own if cell.ipc is not None}),
                    methods=list(dict.fromkeys(cell.producer for cell, _ in own if cell.ipc is not None)),
                    entries=_with_best(entries),
                    real=real,
                )
            )
    return found


def _entry(plan: Plan, cells: Sequence[tuple[Cell, str]]) -> CellEntry | None:
    """The judged sets of one method at one ipc; None where there are none."""
    done = {cell.seed: Path(plan.orders[key].folder) for cell, key in cells if plan.orders[key].done}
    scores = {seed: read_score(folder / SCORES) for seed, folder in done.items()}
    if not scores:
        return None
    first = cells[0][0]
    level = two_levels([score["accuracies"] for score in scores.values()])
    theirs = published_row(next(iter(scores.values()))["data"]["name"], first.ipc, first.producer, first.network)
    return CellEntry(scores=scores, level=level, whole=len(scores) == len(cells), published=theirs)


def published_row(data: str, ipc: int | None, method: str, network: str) -> PublishedRow | None:
    """The accuracy that a paper prints of a method, by its `plain_name`; one with a deviation before one without."""
    rows = [
        row
        for row in published.rows(data, ipc)
        if row.percent is not None and plain_name(row.method) == plain_name(method) and row.network in (network, "")
        and (ipc is not None or plain_name(row.method) == plain_name(REAL))
    ]  # fmt: skip
    return max(rows, key=lambda row: (row.network == network, row.std is not None), default=None)


def _with_best(entries: Mapping[tuple[str, int], CellEntry]) -> dict[tuple[str, int], CellEntry]:
    """The entries, of every column the surely best one marked; what was shortened is neither marked nor compared."""
    found = dict(entries)
    for ipc in dict.fromkeys(ipc for _, ipc in entries):
        column = {method: own for (method, other), own in entries.items() if other == ipc and not own.smoke}
        best = surely_best(
            {method: {seed: s["mean"] for seed, s in own.scores.items()} for method, own in column.items()}
        )
        if best is not None:
            found[best, ipc] = replace(found[best, ipc], best=True)
    return found


LEGEND = (
    "Accuracy in %: mean ± standard deviation over sets ± over classifiers trained on the same set (random-effects "
    "model; - where there is only one). Bold (* in text): better than every other method of its column, by a two-sided "
    f"paired t-test over the seeds that both have ({FEWEST_PAIRS} or more) at 5 %. Marked °: shortened (smoke), never "
    "bold. Marked …: some sets are still to come."
)


def number(entry: CellEntry | None, plus: str = "±") -> str:
    """An entry as text: 97.6 ± 0.4 ± 0.3."""
    if entry is None:
        return "-"
    level = entry.level
    spreads = ["-" if own is None else f"{100 * own:.1f}" for own in (level.std_sets, level.std_classifiers)]
    marks = "°" * entry.smoke + "…" * (not entry.whole)
    return f" {plus} ".join([f"{100 * level.mean:.1f}", *spreads]) + marks


def rows(
    pivot: Pivot, write: Callable[[str], str] = str, strong: Callable[[str], str] = "* {}".format
) -> list[list[str]]:
    """The table as cells, headings first.

    Args:
        pivot: the table.
        write: how text is written.
        strong: how what is written is set off.
    """

    def cell(entry: CellEntry | None) -> str:
        said = write(number(entry))
        return strong(said) if entry is not None and entry.best else said

    lines = [[write(name) for name in ("method", *(f"ipc {ipc}" for ipc in pivot.ipcs))]]
    lines += [
        [write(method), *(cell(pivot.entries.get((method, ipc))) for ipc in pivot.ipcs)] for method in pivot.methods
    ]
    if pivot.real is not None:
        lines.append([write(REAL_NAME), *[cell(pivot.real)] * len(pivot.ipcs)])
    return lines


def text(pivots: Sequence[Pivot]) -> str:
    """All tables for a terminal."""
    tables = [f"{pivot.title}\n{text_table(rows(pivot), frozenset({0}))}" for pivot in pivots]
    return "\n\n".join([*tables, textwrap.fill(LEGEND, 100)])


MARK = "\N{REPLACEMENT CHARACTER}"
"""Stands for ** until the cell around it is escaped."""


def markdown(title: str, pivots: Sequence[Pivot]) -> str:
    """All tables in Markdown."""
    parts = [f"# {markdown_text(title)}"]
    for pivot in pivots:
        table = markdown_table(rows(pivot, strong=(MARK + "{}" + MARK).format), frozenset({0}))
        parts += [f"## {markdown_text(pivot.title)}", table.replace(MARK, "**")]
    return "\n\n".join([*parts, markdown_text(LEGEND)]) + "\n"


TEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {"°": r"$^\circ$", "…": r"\ldots{}"}
    | {character: f"\\{character}" for character in "&%$#_{}"}
)
"""What stands for characters that LaTeX takes for something else, or lacks."""


def latex(title: str, pivots: Sequence[Pivot]) -> str:
    """All tables in LaTeX, for a document that uses the package booktabs."""

    def write(words: str) -> str:
        return words.translate(TEX)

    parts = [f"% {title}\n% Wants \\usepackage{{booktabs}}."]
    for pivot in pivots:
        lines = [" & ".join(line) + r" \\" for line in rows(pivot, write, r"\textbf{{{}}}".format)]
        reference = [r"\midrule", lines.pop()] if pivot.real is not None else []
        head, *body = lines
        table = [r"\toprule", head, r"\midrule", *body, *reference, r"\bottomrule"]
        caption = rf"\caption{{{write(pivot.title)}. {write(LEGEND)}}}"
        begin = rf"\begin{{tabular}}{{l{'r' * len(pivot.ipcs)}}}"
        lines = [r"\begin{table}", r"\centering", caption, begin, *table, r"\end{tabular}", r"\end{table}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


COLUMNS = (
    "data", "network", "protocol", "method", "ipc", "mean", "std_sets", "std_classifiers", "low95", "high95", "sets",
    "classifiers", "surely_best", "smoke", "complete", "published", "published_std", "difference_in_published_std",
    "published_source",
)  # fmt: skip
"""Of table.csv; accuracies in %, cells empty where there is no such number."""


def table_csv(pivots: Sequence[Pivot]) -> str:
    """All numbers, a line for each method and ipc, beside the papers'."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for pivot in pivots:
        place = {"data": pivot.data, "network": pivot.network, "protocol": pivot.protocol}
        entries = [((REAL, None), pivot.real)] if pivot.real is not None else []
        for (method, ipc), entry in [*pivot.entries.items(), *entries]:
            writer.writerow({**place, "method": method, "ipc": ipc, **_record(entry)})
    return file.getvalue()


def _record(entry: CellEntry) -> dict[str, object]:
    """What table.csv says of an entry."""
    level, theirs = entry.level, entry.published
    low, high = level.interval or (None, None)
    percent = {"mean": level.mean, "std_sets": level.std_sets, "std_classifiers": level.std_classifiers}
    percent |= {"low95": low, "high95": high}
    record: dict[str, object] = {name: None if own is None else round(100 * own, 4) for name, own in percent.items()}
    record |= {"sets": level.sets, "classifiers": level.classifiers}
    record |= {"surely_best": entry.best, "smoke": entry.smoke, "complete": entry.whole}
    if theirs is not None:
        record |= {"published": theirs.percent, "published_std": theirs.std, "published_source": theirs.source}
        if theirs.std:
            record["difference_in_published_std"] = round((100 * level.mean - theirs.percent) / theirs.std, 2)
    return record
