"""The figures that a comparison writes, and what of them and of its tables its report shows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core_dd import files
from core_dd.compare import figures, gallery
from core_dd.compare.grid import Plan, slug
from core_dd.compare.tables import MARK, TRAINED, TRAINED_WORDS, Pivot, legend, references, rows, trained
from core_dd.compare.view import SCORES
from core_dd.errors import InputError
from core_dd.notes import note, printable
from core_dd.report import report as reports
from core_dd.report.content import report_of
from core_dd.report.document import Heading, Line, Paragraph, Plate, Plates, Section, Table, Words, line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FIGURES, REPORT = "figures", "report"
"""Of a comparison's folder."""
MOST_NAMED = 6
"""Surely best methods that the first sentences name, at most."""


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """A figure that may be drawn.

    Attributes:
        place: its path in the folder of figures, without an ending.
        title: what it shows.
        about: of what.
        draw: gives it, or None where there is nothing to show.
        shown: whether the report shows it; sheets are looked at one by one.
    """

    place: str
    title: str
    about: str
    draw: "Callable[[], Figure | None]"
    shown: bool = True


def draw(
    plan: Plan, pivots: Sequence[Pivot], ablations: Mapping[str, Sequence[str]], device: str | None, out: Path
) -> list[Sketch]:
    """Write every figure that the comparison has numbers or sets for, as SVG and PDF, into the folder `out`.

    Args:
        plan: the comparison.
        pivots: its tables.
        ablations: by the name of what is varied, producers; the first is what the others vary.
        device: where t-SNE's features are computed.
        out: the folder.

    Returns:
        Those that are written. What cannot be drawn is said.
    """
    written = []
    for sketch in (*_of_numbers(pivots, ablations), *_of_sets(plan, pivots, device)):
        try:
            figure = sketch.draw()
        except InputError as error:
            note(f"Not drawn: {sketch.place}: {error}")
            continue
        if figure is not None:
            figures.save(figure, out / sketch.place)
            written.append(sketch)
    return written


def _of_numbers(pivots: Sequence[Pivot], ablations: Mapping[str, Sequence[str]]) -> Iterator[Sketch]:
    """Figures of the tables."""
    for pivot in pivots:
        judge = "-".join(map(slug, (pivot.data, pivot.network, pivot.protocol)))
        for name, abscissa in figures.ABSCISSAS.items():
            title, draw = f"Accuracy against {abscissa.label}", partial(figures.against, pivot, name)
            yield Sketch(place=f"accuracy-by-{name}-{judge}", title=title, about=pivot.title, draw=draw)
        for ipc in pivot.ipcs:
            title, about = "Accuracy along the distillation", f"{pivot.title}, ipc {ipc}"
            draw = partial(figures.along, pivot, ipc)
            yield Sketch(place=f"along-{judge}-ipc{ipc}", title=title, about=about, draw=draw)
            for name, methods in ablations.items():
                place, draw = f"ablation-{slug(name)}-{judge}-ipc{ipc}", partial(figures.bars, pivot, ipc, methods)
                yield Sketch(place=place, title=f"Ablation: {name}", about=about, draw=draw)
    for data, protocol in dict.fromkeys((pivot.data, pivot.protocol) for pivot in pivots):
        own = [pivot for pivot in pivots if (pivot.data, pivot.protocol) == (data, protocol)]
        for ipc in sorted({ipc for pivot in own for ipc in pivot.ipcs}):
            place, about = f"networks-{slug(data)}-{slug(protocol)}-ipc{ipc}", f"{data}, protocol {protocol}, ipc {ipc}"
            draw = partial(figures.across_networks, own, ipc)
            yield Sketch(place=place, title="Across networks", about=about, draw=draw)


def _of_sets(plan: Plan, pivots: Sequence[Pivot], device: str | None) -> Iterator[Sketch]:
    """Figures of images; in the plane, of the largest sets."""
    for data in dict.fromkeys(pivot.data for pivot in pivots):
        ipcs = sorted({ipc for pivot in pivots if pivot.data == data for _, ipc in pivot.entries})
        about, draw = f"{data}, ipc {ipcs[-1]}", partial(gallery.embedding, plan, data, ipcs[-1], device)
        place = f"embedding-{slug(data)}-ipc{ipcs[-1]}"
        yield Sketch(place=place, title="Real and synthetic images", about=about, draw=draw)
        for ipc in ipcs:
            for name, sheet in gallery.sheets(plan, data, ipc):
                place = f"sheets-{slug(data)}-ipc{ipc}/{slug(name)}"
                yield Sketch(place=place, title=name, about=f"{data}, ipc {ipc}", draw=sheet, shown=False)


def write(plan: Plan, pivots: Sequence[Pivot], drawn: Sequence[Sketch], title: str, out: Path) -> None:
    """Write the report: the tables and figures of the methods, every set alone, and how generators learnt; in place of
    an earlier one.

    Args:
        plan: the comparison.
        pivots: its tables.
        drawn: the figures in its folder.
        title: the heading.
        out: the comparison's folder.
    """
    keys = dict.fromkeys(key for _, key in plan.cells if plan.orders[key].done)
    curves = [order.folder for order in plan.orders.values() if order.kind == "generator" and order.done]
    groups, panels = reports.read([str(Path(plan.orders[key].folder) / SCORES) for key in keys], curves)
    firsts = [next(iter(entry.scores.values())) for pivot in pivots for entry in pivot.entries.values()]
    pictures = reports.pictures_of(groups, gallery.PER_CLASS, only={score["set"]["hash"] for score in firsts})
    shown = [sketch for sketch in drawn if sketch.shown]
    sections = [
        Section(place="methods", heading="The methods", blocks=(*_tables(pivots), Paragraph(text=legend(pivots))))
    ]
    if shown:
        plates = tuple(_plate(sketch, out) for sketch in shown)
        sections.append(Section(place="figures", heading="Figures", blocks=(Plates(plates=plates),)))
    document = report_of(printable(title), groups, pictures, panels, before=sections, lede=lede(pivots))
    with files.atomic(out / REPORT, replace=True) as temporary:
        reports.fill(temporary, document, pictures)


def lede(pivots: Sequence[Pivot]) -> Line:
    """The comparison in two sentences."""
    sets = {score["set"]["hash"] for pivot in pivots for own in pivot.entries.values() for score in own.scores.values()}
    data, networks = (", ".join(sorted({getattr(pivot, axis) for pivot in pivots})) for axis in ("data", "network"))
    best = [(pivot, method, ipc) for pivot in pivots for (method, ipc), entry in pivot.entries.items() if entry.best]
    count = len({method for pivot in pivots for method, _ in pivot.entries})
    said: list[str | Words] = [f"{count} methods on {data}: {len(sets)} sets, judged by {networks}."]
    said.append(" Better than every other method of its column beyond doubt:" if best else "")
    for number, (pivot, method, ipc) in enumerate(best[:MOST_NAMED]):
        name = Words(text=f"{method}, {100 * pivot.entries[method, ipc].level.mean:.1f} %", strong=True)
        said += [";" if number else "", " ", name, f" ({pivot.title}, ipc {ipc})"]
    if len(best) > MOST_NAMED:
        said.append(f"; and {len(best) - MOST_NAMED} more")
    return line(*said, "." if best else "")


def _tables(pivots: Sequence[Pivot]) -> Iterator[Heading | Table | Paragraph]:
    """A heading and a table for each, and how its classifiers were trained."""
    for pivot in pivots:
        heads, *texts = rows(pivot, strong=(MARK + "{}").format)
        cells = [
            tuple((line(Words(text=t.removeprefix(MARK), strong=t.startswith(MARK))),) for t in row) for row in texts
        ]
        yield Heading(text=printable(pivot.title))
        yield Table(caption=pivot.title, heads=tuple(heads), rows=tuple(cells), foot=references(pivot))
        heads, *texts = trained(pivot)
        yield Paragraph(text=f"{TRAINED}:")
        yield Table(
            caption=f"{pivot.title}: {TRAINED}",
            heads=tuple(heads),
            rows=tuple(tuple((line(text),) for text in row) for row in texts),
            left=TRAINED_WORDS,
        )


def _plate(sketch: Sketch, out: Path) -> Plate:
    """A figure as the report holds it."""
    place = f"{FIGURES}/{sketch.place}.svg"
    about = f"{sketch.about}; {Path(sketch.place).name}.pdf"
    return Plate(title=sketch.title, subtitle=about, svg=(out / place).read_bytes(), file=f"../{place}")
