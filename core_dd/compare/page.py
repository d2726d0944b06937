"""The figures that a comparison writes, and what of them and of its tables its report shows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core_dd.compare import figures, gallery
from core_dd.compare.grid import Plan, slug
from core_dd.compare.tables import Pivot
from core_dd.errors import InputError
from core_dd.notes import note

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """A figure that may be drawn.

    Attributes:
        place: its path in the folder of figures, without an ending.
        title: what it shows.
        draw: gives it, or None where there is nothing to show.
        shown: whether the report shows it; sheets are looked at one by one.
    """

    place: str
    title: str
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
            title, place = f"Accuracy against {abscissa.label}", f"accuracy-by-{name}-{judge}"
            yield Sketch(place=place, title=title, draw=partial(figures.against, pivot, name))
        for ipc in pivot.ipcs:
            title, place = "Accuracy along the distillation", f"along-{judge}-ipc{ipc}"
            yield Sketch(place=place, title=title, draw=partial(figures.along, pivot, ipc))
            for name, methods in ablations.items():
                place = f"ablation-{slug(name)}-{judge}-ipc{ipc}"
                yield Sketch(place=place, title=name, draw=partial(figures.bars, pivot, ipc, methods))
    for data, protocol in dict.fromkeys((pivot.data, pivot.protocol) for pivot in pivots):
        own = [pivot for pivot in pivots if (pivot.data, pivot.protocol) == (data, protocol)]
        for ipc in sorted({ipc for pivot in own for ipc in pivot.ipcs}):
            place = f"networks-{slug(data)}-{slug(protocol)}-ipc{ipc}"
            yield Sketch(place=place, title="Across networks", draw=partial(figures.across_networks, own, ipc))


def _of_sets(plan: Plan, pivots: Sequence[Pivot], device: str | None) -> Iterator[Sketch]:
    """Figures of images; in the plane, of the largest sets."""
    for data in dict.fromkeys(pivot.data for pivot in pivots):
        ipcs = sorted({ipc for pivot in pivots if pivot.data == data for _, ipc in pivot.entries})
        place, title = f"embedding-{slug(data)}-ipc{ipcs[-1]}", "Real and synthetic images"
        yield Sketch(place=place, title=title, draw=partial(gallery.embedding, plan, data, ipcs[-1], device))
        for ipc in ipcs:
            for name, sheet in gallery.sheets(plan, data, ipc):
                place = f"sheets-{slug(data)}-ipc{ipc}/{slug(name)}"
                yield Sketch(place=place, title=name, draw=sheet, shown=False)
