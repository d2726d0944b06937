"""The tables of a comparison: method x ipc for each data set, network and protocol; text, Markdown, LaTeX and CSV."""

import csv
import io
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from core_dd.compare.grid import REAL_NAME, Cell, Plan
from core_dd.compare.jobs import Order, read_done
from core_dd.compare.levels import FEWEST_PAIRS, Level, surely_best, two_levels
from core_dd.compare.reading import DataChoice
from core_dd.compare.view import SCORES
from core_dd.judge.options import REAL
from core_dd.judge.scores import Score, read_score
from core_dd.report.charts import CHANCE_NAME
from core_dd.report.published import PublishedRow
from core_dd.report.ranking import published_text
from core_dd.report.reproduced import beyond, published_row
from core_dd.report.tables import markdown_table, markdown_text, text_table
from core_dd.report.trained import optimiser_of, published_images_seen, published_optimiser, regime_of, told

_T = TypeVar("_T")

TAKEN = "core_dd.compare.sets:take"
"""The job of a set that was there before: how long it took says nothing of making it."""


@dataclass(frozen=True, kw_only=True)
class CellEntry:
    """The sets of one method at one ipc, as far as they are judged.

    Attributes:
        scores: by the seeds of the sets.
        level: what they are worth together.
        best: whether the method is better than all others of its column beyond doubt.
        published: the paper's number, where there is one of this data, ipc, method, network and label regime.
        whole: whether all sets of the grid are there.
        of_ipc: whether they have ipc images of every class.
        seconds: what making a set took, on the average, without experts and classifiers that several share; None where
            that is not known.
    """

    scores: Mapping[int, Score]
    level: Level
    whole: bool
    of_ipc: bool = True
    published: PublishedRow | None = None
    best: bool = False
    seconds: float | None = None

    @property
    def smoke(self) -> bool:
        """Whether anything was shortened."""
        return any(score["smoke"] for score in self.scores.values())

    @property
    def images_seen(self) -> float | None:
        """By a classifier in its training, each as often as it was; None where a score does not say."""
        seen = [score["training_cost"]["images_seen"] for score in self.scores.values() if "training_cost" in score]
        return statistics.fmean(seen) if len(seen) == len(self.scores) else None

    @property
    def labels(self) -> str:
        """The label regime of the scores, which is that of the sets unless a teacher relabels them."""
        return " and ".join(dict.fromkeys(regime_of(score) for score in self.scores.values()))

    @property
    def factor(self) -> int | None:
        """Of the sets; None where a score does not say, or they differ."""
        return _common(score["set"].get("factor") for score in self.scores.values())

    @property
    def optimiser(self) -> str | None:
        """By what classifiers were trained, in words; None where a score does not say, or sets bring own rates."""
        return _common(optimiser_of(score.get("resolved_protocol") or {}) for score in self.scores.values())

    @property
    def beyond_published(self) -> float | None:
        """See `core_dd.report.reproduced.beyond`."""
        return beyond(100 * self.level.mean, self.published, {score["protocol"] for score in self.scores.values()})


def _common(values: Iterable[_T]) -> _T | None:
    """The one value; None where there are several."""
    found = {*values}
    return found.pop() if len(found) == 1 else None


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

    @property
    def chance(self) -> float | None:
        """What not looking at the images would score, a fraction; None where no score says."""
        entries = [*self.entries.values(), *([] if self.real is None else [self.real])]
        known = [score["chance"] for entry in entries for score in entry.scores.values() if score.get("chance")]
        return known[0] if known else None

    def in_column(self, ipc: int) -> list[CellEntry]:
        """The entries of one ipc, and the whole training set."""
        own = [entry for (_, other), entry in self.entries.items() if other == ipc]
        return own if self.real is None else [*own, self.real]


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
        if entries or real is not None:
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
    one = next(iter(scores.values()))
    place = one["data"]["name"], first.ipc, first.producer, first.network
    of_papers = _of_papers(first.score.data, one["data"]["name"])
    theirs = published_row(*place, labels=regime_of(one), protocol=one["protocol"]) if of_papers else None
    spent = [_seconds(plan, plan.orders[key], scores[cell.seed]) for cell, key in cells if cell.seed in scores]
    known = [own for own in spent if own is not None]
    seconds = statistics.fmean(known) if len(known) == len(scores) else None
    return CellEntry(
        scores=scores,
        level=level,
        whole=len(scores) == len(cells),
        of_ipc=first.made is None or first.made.of_ipc,
        published=theirs,
        seconds=seconds,
    )


OF_PAPERS = 224
"""The pixels of ImageNet's subsets in the only table of them here, M3D's third."""


def _of_papers(choice: DataChoice, name: str) -> bool:
    """Whether data of this name are whole, and of the size that papers print numbers of: their own, or of ImageNet's
    subsets that of `OF_PAPERS`."""
    from core_dd.data.images import KNOWN

    own_size = name in KNOWN and KNOWN[name].sizes[0] > 0
    return choice.limit_per_class is None and choice.image_size in (None, *(() if own_size else (OF_PAPERS,)))


def _seconds(plan: Plan, order: Order, score: Score) -> float | None:
    """What making the set of a score took: as its file says, else as its job did; None where neither is known."""
    cost = (score["set"].get("cost") or {}).get("seconds")
    made = [plan.orders[key] for key in order.needs if plan.orders[key].function != TAKEN]
    return read_done(made[0].folder)["seconds"] if cost is None and made else cost


def _with_best(entries: Mapping[tuple[str, int], CellEntry]) -> dict[tuple[str, int], CellEntry]:
    """The entries, of every column and label regime the surely best one marked; what was shortened,
    or is of a size of its own, is neither marked nor compared."""
    found = dict(entries)
    for ipc, labels in dict.fromkeys((ipc, entry.labels) for (_, ipc), entry in entries.items()):
        column = {
            method: own
            for (method, other), own in entries.items()
            if (other, own.labels) == (ipc, labels) and own.of_ipc and not own.smoke
        }
        best = surely_best(
            {method: {seed: s["mean"] for seed, s in own.scores.items()} for method, own in column.items()}
        )
        if best is not None:
            found[best, ipc] = replace(found[best, ipc], best=True)
    return found


LEGEND = (
    "Accuracy in %: mean ± standard deviation over sets ± over classifiers trained on the same set (random-effects "
    "model; - where there is only one). Bold (* in text): better than every other method of its column and label "
    f"regime, by a two-sided paired t-test over the seeds that both have ({FEWEST_PAIRS} or more) at 5 %. Marked °: "
    "shortened (smoke), never bold. Marked †: a set of its own size, whatever the ipc, never bold. Marked …: some sets "
    "are still to come."
)
PUBLISHED, DIFFERENCE = "published", "Δ/std"
BESIDE = (
    f" {PUBLISHED}: what papers print of the same data, ipc, method, network and label regime; {DIFFERENCE}: how many "
    "published standard deviations ours is above that (0.0 is taken for 0.05), - where none is printed or classifiers "
    "were trained otherwise."
)


def legend(pivots: Sequence[Pivot]) -> str:
    """What the tables' marks and columns mean."""
    return LEGEND + BESIDE * any(_beside(pivot, ipc) for pivot in pivots for ipc in pivot.ipcs)


def _beside(pivot: Pivot, ipc: int) -> bool:
    """Whether anything is published of a column."""
    return any(entry.published is not None for entry in pivot.in_column(ipc))


def number(entry: CellEntry | None, plus: str = "±") -> str:
    """An entry as text: 97.6 ± 0.4 ± 0.3."""
    if entry is None:
        return "-"
    level = entry.level
    spreads = ["-" if own is None else f"{100 * own:.1f}" for own in (level.std_sets, level.std_classifiers)]
    marks = "°" * entry.smoke + "†" * (not entry.of_ipc) + "…" * (not entry.whole)
    return f" {plus} ".join([f"{100 * level.mean:.1f}", *spreads]) + marks


def rows(
    pivot: Pivot, write: Callable[[str], str] = str, strong: Callable[[str], str] = "* {}".format
) -> list[list[str]]:
    """The table as cells, headings first: a column for each ipc, beside it the published values where there are some.

    Args:
        pivot: the table.
        write: how text is written.
        strong: how what is written is set off.
    """
    heads = ["method"]
    for ipc in pivot.ipcs:
        heads += [f"ipc {ipc}", *((PUBLISHED, DIFFERENCE) if _beside(pivot, ipc) else ())]
    lines = [[write(head) for head in heads]]
    for method in pivot.methods:
        lines.append(_row(pivot, method, [pivot.entries.get((method, ipc)) for ipc in pivot.ipcs], write, strong))
    if pivot.real is not None:
        lines.append(_row(pivot, REAL_NAME, [pivot.real] * len(pivot.ipcs), write, strong))
    if pivot.chance is not None:
        lines.append([write(cell) for cell in chance_row(pivot)])
    return lines


def _row(
    pivot: Pivot,
    name: str,
    entries: Sequence[CellEntry | None],
    write: Callable[[str], str],
    strong: Callable[[str], str],
) -> list[str]:
    """A line of the table: of each ipc its entry."""
    cells = [write(name)]
    for ipc, entry in zip(pivot.ipcs, entries, strict=True):
        said = write(number(entry))
        cells.append(strong(said) if entry is not None and entry.best else said)
        if _beside(pivot, ipc):
            cells += [write(cell) for cell in beside(entry)]
    return cells


def beside(entry: CellEntry | None) -> tuple[str, str]:
    """The published value, and the difference from it in its standard deviations; - where there is none."""
    theirs, far = (None, None) if entry is None else (entry.published, entry.beyond_published)
    return "-" if theirs is None else published_text(theirs), "-" if far is None else f"{far:+.1f}"


def chance_row(pivot: Pivot) -> list[str]:
    """The line of what not looking scores."""
    cells = [CHANCE_NAME]
    for ipc in pivot.ipcs:
        cells += [f"{100 * (pivot.chance or 0):.1f}", *(("-", "-") if _beside(pivot, ipc) else ())]
    return cells


def references(pivot: Pivot) -> int:
    """How many of the last lines are no methods."""
    return (pivot.real is not None) + (pivot.chance is not None)


TRAINED = "How classifiers were trained, ours and behind the published values (?: not said)"
TRAINED_WORDS = frozenset({0, 2, 5, 7, 9, 11})
"""The columns of that table that are words."""


def trained(pivot: Pivot) -> list[list[str]]:
    """How the classifiers of each entry were trained, and those behind the published value: headings, then lines."""
    ours = ("labels", "factor", "images seen", "optimiser")
    entries: dict[tuple[str, int | None], CellEntry] = {key: own for key, own in pivot.entries.items()}
    entries |= {} if pivot.real is None else {(REAL_NAME, None): pivot.real}
    several = any(entry.published is not None for entry in entries.values())
    theirs = (PUBLISHED, "labels", "factor", "protocol", "images seen", "optimiser") if several else ()
    lines = [["method", "ipc", *ours, *theirs]]
    for (method, ipc), entry in entries.items():
        said: list[Any] = [entry.labels, entry.factor, entry.images_seen, entry.optimiser]
        row = entry.published
        if several and row is not None:
            seen, by = published_images_seen(row), published_optimiser(row)
            said += [published_text(row), row.labels or None, row.factor, row.protocol or None, seen, by]
        cells = [method, "all" if ipc is None else str(ipc), *map(told, said)]
        lines.append([*cells, *["-"] * (len(lines[0]) - len(cells))])
    return lines


def text(pivots: Sequence[Pivot]) -> str:
    """All tables for a terminal."""
    tables = [f"{pivot.title}\n{text_table(rows(pivot), frozenset({0}))}" for pivot in pivots]
    return "\n\n".join([*tables, textwrap.fill(legend(pivots), 100)])


MARK = "\N{REPLACEMENT CHARACTER}"
"""Stands for ** until the cell around it is escaped."""


def markdown(title: str, pivots: Sequence[Pivot]) -> str:
    """All tables in Markdown."""
    parts = [f"# {markdown_text(title)}"]
    for pivot in pivots:
        table = markdown_table(rows(pivot, strong=(MARK + "{}" + MARK).format), frozenset({0}))
        parts += [f"## {markdown_text(pivot.title)}", table.replace(MARK, "**")]
        parts += [f"{markdown_text(TRAINED)}:", markdown_table(trained(pivot), TRAINED_WORDS)]
    return "\n\n".join([*parts, markdown_text(legend(pivots))]) + "\n"


TEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {"°": r"$^\circ$", "†": r"$^\dagger$", "…": r"\ldots{}", "Δ": r"$\Delta$"}
    | {character: f"\\{character}" for character in "&%$#_{}"}
)
"""What stands for characters that LaTeX takes for something else, or lacks."""


def latex(title: str, pivots: Sequence[Pivot]) -> str:
    """All tables in LaTeX, for a document that uses the package booktabs."""

    def write(words: str) -> str:
        return words.translate(TEX)

    parts = [f"% {title}\n% Wants \\usepackage{{booktabs}}."]
    for pivot in pivots:
        found, few = rows(pivot, write, r"\textbf{{{}}}".format), references(pivot)
        parts.append(_tabular(found, write(f"{pivot.title}. {legend([pivot])}"), "r", few))
        how = [[write(cell) for cell in line] for line in trained(pivot)]
        parts.append(_tabular(how, write(f"{pivot.title}. {TRAINED}."), "l"))
    return "\n\n".join(parts) + "\n"


def _tabular(rows: Sequence[Sequence[str]], caption: str, columns: str, references: int = 0) -> str:
    """A table of LaTeX, all columns but the first set alike, its last lines, `references` many, below a rule."""
    head, *lines = [" & ".join(row) + r" \\" for row in rows]
    last = len(lines) - references
    table = [r"\toprule", head, r"\midrule", *lines[:last], *[r"\midrule"] * bool(references), *lines[last:]]
    begin = rf"\begin{{tabular}}{{l{columns * (len(rows[0]) - 1)}}}"
    caption = rf"\caption{{{caption}}}"
    table = [r"\begin{table}", r"\centering", caption, begin, *table, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(table)


COLUMNS = (
    "data", "network", "protocol", "method", "ipc", "mean", "std_sets", "std_classifiers", "low95", "high95", "sets",
    "classifiers", "labels", "factor", "optimiser", "seconds", "images_seen", "chance", "surely_best", "smoke",
    "complete", "published", "published_std", "difference_in_published_std", "published_labels", "published_factor",
    "published_protocol", "published_optimiser", "published_images_seen", "published_source",
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
        chance = None if pivot.chance is None else round(100 * pivot.chance, 4)
        for (method, ipc), entry in [*pivot.entries.items(), *entries]:
            writer.writerow({**place, "method": method, "ipc": ipc, "chance": chance, **_record(entry)})
    return file.getvalue()


def _record(entry: CellEntry) -> dict[str, object]:
    """What table.csv says of an entry."""
    level, theirs = entry.level, entry.published
    low, high = level.interval or (None, None)
    percent = {"mean": level.mean, "std_sets": level.std_sets, "std_classifiers": level.std_classifiers}
    percent |= {"low95": low, "high95": high}
    record: dict[str, object] = {name: None if own is None else round(100 * own, 4) for name, own in percent.items()}
    record |= {"sets": level.sets, "classifiers": level.classifiers}
    record |= {"labels": entry.labels, "factor": entry.factor, "optimiser": entry.optimiser}
    record |= {"seconds": None if entry.seconds is None else round(entry.seconds, 3), "images_seen": entry.images_seen}
    record |= {"surely_best": entry.best, "smoke": entry.smoke, "complete": entry.whole}
    if theirs is not None:
        record |= {"published": theirs.percent, "published_std": theirs.std, "published_source": theirs.source}
        record |= {"published_labels": theirs.labels, "published_factor": theirs.factor}
        record |= {"published_protocol": theirs.protocol, "published_optimiser": published_optimiser(theirs)}
        record["published_images_seen"] = published_images_seen(theirs)
        far = entry.beyond_published
        record["difference_in_published_std"] = None if far is None else round(far, 2)
    return record
