"""The figures of a comparison: each a function from its tables to a matplotlib figure; `save` writes SVG and PDF.

matplotlib comes with the extra `gendd[figures]` and takes a second to import: it is, when the first figure is drawn.
"""

import contextlib
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import Tensor

from core_dd import files
from core_dd.compare.levels import Level, two_levels
from core_dd.compare.tables import REAL_NAME, CellEntry, Pivot
from core_dd.report.charts import CHANCE_NAME, log_ticks
from core_dd.report.charts import number as short
from core_dd.sets import pictures

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's (2008), which most colour-blind people tell apart, without the yellow, which white paper swallows."""
MARKERS = "osD^vP*Xp"
DASHES = ("-", "--", "-.", ":")
SUFFIXES = (".svg", ".pdf")
_SETTINGS = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e4e1",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",  # words stay words, to be searched, and in half the bytes
    "svg.hashsalt": "gendd",
}


def missing() -> str | None:
    """Why no figure can be drawn, a sentence; None where they can."""
    if find_spec("matplotlib") is not None:
        return None
    return "No figures: matplotlib is not installed. pip install 'gendd[figures]' adds it; the same command then draws."


def look(number: int) -> dict[str, str]:
    """Colour, mark and dashes of a method by its number; the first 63 differ, and neighbours in all but the dashes."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
    }


def _look(number: int, smoke: bool) -> dict[str, str]:
    """The same, hollow for what was shortened."""
    return look(number) | ({"markerfacecolor": "white"} if smoke else {})


def save(figure: "Figure", place: Path) -> list[Path]:
    """Write a figure beside each other as PLACE.svg and PLACE.pdf; the same figure gives the same bytes."""
    import matplotlib

    written = []
    with matplotlib.rc_context(_SETTINGS):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what stands where is found once for both
    for suffix in SUFFIXES:
        path, undated = place.with_name(place.name + suffix), "Date" if suffix == ".svg" else "CreationDate"
        with files.atomic(path) as temporary, matplotlib.rc_context(_SETTINGS):
            figure.savefig(temporary, format=suffix[1:], metadata={undated: None})
        written.append(path)
    return written


@dataclass(frozen=True)
class Abscissa:
    """What accuracies are drawn against.

    Attributes:
        label: what stands below the axis.
        of: where an entry of some ipc stands; None where that is not known.
    """

    label: str
    of: Callable[[int, CellEntry], float | None]


ABSCISSAS = MappingProxyType(
    {
        "ipc": Abscissa("images per class", lambda ipc, entry: ipc if entry.of_ipc else None),
        "seconds": Abscissa("seconds of making a set", lambda ipc, entry: entry.seconds),
        "images-seen": Abscissa("images a classifier saw in training", lambda ipc, entry: entry.images_seen),
    }
)


def against(pivot: Pivot, name: str) -> "Figure | None":
    """Accuracies with their 95 % intervals against a key of `ABSCISSAS`, a line per method through its ipc; None where
    nothing is known of it."""
    abscissa, drawn = ABSCISSAS[name], []
    for number, method in enumerate(pivot.methods):
        entries = [(ipc, pivot.entries[method, ipc]) for ipc in pivot.ipcs if (method, ipc) in pivot.entries]
        points = [(x, entry) for ipc, entry in entries if (x := abscissa.of(ipc, entry)) is not None]
        if points:
            drawn.append((number, method, points))
    if not drawn:
        return None
    with panel(pivot.title) as (figure, axes):
        for number, method, points in drawn:
            xs, levels = [x for x, _ in points], [entry.level for _, entry in points]
            own = _look(number, any(entry.smoke for _, entry in points))
            axes.plot(xs, [100 * level.mean for level in levels], gid=f"series-{number}", label=method, **own)
            errors = list(zip(*map(_reach, levels), strict=True))
            axes.errorbar(
                xs, [100 * level.mean for level in levels], yerr=errors, fmt="none", ecolor=own["color"], capsize=2
            )
        _logarithmic(axes, [x for _, _, points in drawn for x, _ in points], pivot.ipcs if name == "ipc" else None)
        axes.set_xlabel(abscissa.label)
        _references(axes, pivot)
    return figure


def along(pivot: Pivot, ipc: int) -> "Figure | None":
    """Accuracies of the sets that distillations kept on their way, against the iteration, in the shade of their 95 %
    intervals; None where no score has any (`judge: {along: true}`)."""
    drawn = []
    for number, method in enumerate(pivot.methods):
        entry = pivot.entries.get((method, ipc))
        steps = {} if entry is None else steps_of(entry)
        if steps:
            drawn.append((number, method, steps))
    if not drawn:
        return None
    with panel(f"{pivot.title}, ipc {ipc}") as (figure, axes):
        for number, method, steps in drawn:
            xs, levels, own = list(steps), list(steps.values()), _look(number, pivot.entries[method, ipc].smoke)
            means = [100 * level.mean for level in levels]
            axes.plot(xs, means, gid=f"series-{number}", label=method, **own)
            below, above = zip(*map(_reach, levels), strict=True)
            low, high = ([m + s * r for m, r in zip(means, part, strict=True)] for s, part in ((-1, below), (1, above)))
            axes.fill_between(xs, low, high, color=own["color"], alpha=0.15, linewidth=0)
        axes.set_xlabel("iteration of the distillation")
        _references(axes, pivot)
    return figure


def steps_of(entry: CellEntry) -> dict[int, Level]:
    """What a method's sets were worth along their distillation, by the iterations that all of them kept, rising."""
    kept = [{own["step"]: own["accuracies"] for own in score.get("along") or []} for score in entry.scores.values()]
    common = set.intersection(*map(set, kept)) if kept else set()
    return {step: two_levels([own[step] for own in kept]) for step in sorted(common)}


def across_networks(pivots: Sequence[Pivot], ipc: int) -> "Figure | None":
    """A heat map, methods by networks, of one data set, protocol and ipc: mean accuracies in %, bold where surely best,
    the whole training set below a line; None unless several networks judged.

    Args:
        pivots: of each network one.
        ipc: which column of each.
    """
    methods = [name for name in pivots[0].methods if any((name, ipc) in pivot.entries for pivot in pivots)]
    if len(pivots) < 2 or not methods:
        return None
    rows: dict[str, list[CellEntry | None]] = {m: [pivot.entries.get((m, ipc)) for pivot in pivots] for m in methods}
    if any(pivot.real is not None for pivot in pivots):
        rows[REAL_NAME] = [pivot.real for pivot in pivots]
    values = [[float("nan") if own is None else 100 * own.level.mean for own in row] for row in rows.values()]
    title = f"{pivots[0].data}, protocol {pivots[0].protocol}, ipc {ipc}"
    size = (1.8 + 0.9 * len(pivots), 0.9 + 0.28 * len(rows))
    with panel(title, size, y_label="") as (figure, axes):
        axes.grid(False)
        mesh = axes.pcolormesh(values, cmap="cividis", edgecolors="white", linewidth=0.5, gid="cells")
        axes.invert_yaxis()
        axes.set_xticks(
            [i + 0.5 for i in range(len(pivots))], [pivot.network for pivot in pivots], rotation=30, ha="right"
        )
        axes.set_yticks([i + 0.5 for i in range(len(rows))], list(rows))
        axes.tick_params(length=0)
        shown = [value for row in values[: len(methods)] for value in row if value == value]
        low, high = min(shown), max(shown)  # the whole training set would leave the methods one colour
        mesh.set_clim(low, high)
        for y, row in enumerate(rows.values()):
            for x, entry in enumerate(row):
                bright = entry is not None and 100 * entry.level.mean > (low + high) / 2
                axes.text(
                    x + 0.5, y + 0.5, "-" if entry is None else f"{100 * entry.level.mean:.1f}" + "°" * entry.smoke,
                    ha="center", va="center", color="white" if entry is not None and not bright else "black",
                    weight="bold" if entry is not None and entry.best else "normal",
                )  # fmt: skip
        if REAL_NAME in rows:
            axes.axhline(len(methods), color="white", linewidth=4)
    return figure


def bars(pivot: Pivot, ipc: int, methods: Sequence[str]) -> "Figure | None":
    """What one choice is worth: a bar from zero for each variant with its 95 % interval, its mean and by how much it
    beats the first, which the others vary, and at which there is a line; None unless that and another are judged.

    Args:
        pivot: the table.
        ipc: which of its columns.
        methods: the variants, in their order.
    """
    entries = {name: pivot.entries[name, ipc] for name in methods if (name, ipc) in pivot.entries}
    if len(entries) < 2 or methods[0] not in entries:
        return None
    with panel(f"{pivot.title}, ipc {ipc}", (5.0, 0.9 + 0.28 * len(entries)), y_label="") as (figure, axes):
        axes.grid(False, axis="y")
        first = 100 * entries[methods[0]].level.mean
        for y, (name, entry) in enumerate(entries.items()):
            mean, (below, above) = 100 * entry.level.mean, _reach(entry.level)
            own = {"facecolor": "white", "edgecolor": COLOURS[0], "linestyle": "--"} if entry.smoke else {}
            colour = COLOURS[0] if name == methods[0] else COLOURS[5]
            axes.barh(y, mean, height=0.65, **({"color": colour} | own), gid=f"bar-{y}")
            axes.errorbar(mean, y, xerr=[[below], [above]], fmt="none", ecolor="black", capsize=2)
            gain = f" ({round(mean - first, 1) + 0:+.1f})" if y else ""  # never -0.0
            axes.annotate(
                f"{mean:.1f}{gain}",
                (mean + above, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
            )
        axes.set_yticks(range(len(entries)), list(entries))
        axes.invert_yaxis()
        axes.axvline(
            100 * entries[methods[0]].level.mean, color="black", linewidth=0.8, linestyle="--", gid="reference"
        )
        axes.set_xlim(0, None)
        axes.set_xlabel("test accuracy %")
    return figure


def scatter(
    title: str, panels: Mapping[str, tuple[Iterable[float], Iterable[float]]], x_label: str, y_label: str
) -> "Figure":
    """Fractions against fractions, in %, a panel for each pair of lists."""
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    with _panels(title, (2.4 * columns + 0.4, 2.4 * lines + 0.6), lines, columns) as (figure, drawn):
        for number, (panel, (name, (xs, ys))) in enumerate(zip(drawn, panels.items(), strict=False)):
            own = look(0) | {"linestyle": "none", "markersize": 4, "alpha": 0.7}
            panel.plot([100 * x for x in xs], [100 * y for y in ys], gid=f"series-{number}", **own)
            panel.set_title(name, fontsize=8)
        for panel in drawn[len(panels) :]:
            panel.set_visible(False)
        figure.supxlabel(x_label, fontsize=8)
        figure.supylabel(y_label, fontsize=8)
    return figure


Points = tuple["np.ndarray", Sequence[int]]
"""Places in the plane (N, 2), and the class of each."""


def embedding(title: str, real: Points, sets: Mapping[str, Points], names: Sequence[str]) -> "Figure":
    """Real and synthetic images in the plane, a panel per set: the real ones small and pale, the same in all panels,
    classes by colour and mark.

    Args:
        title: the heading.
        real: real images.
        sets: those of the sets, by their names.
        names: of the classes.
    """
    from matplotlib.lines import Line2D

    columns = min(len(sets), 3)
    lines = -(-len(sets) // columns)
    shown = sorted(set(real[1]))
    with _panels(title, (2.4 * columns, 2.4 * lines + 0.4), lines, columns) as (figure, panels):
        for panel, (name, points) in zip(panels, sets.items(), strict=False):
            panel.set(title=name, xticks=[], yticks=[])
            panel.spines[:].set_visible(True)
            for number, k in enumerate(shown):
                own = look(number)
                for (places, labels), synthetic in ((real, False), (points, True)):
                    chosen = places[[i for i, label in enumerate(labels) if label == k]]
                    size = {"s": 26, "edgecolors": "black", "linewidths": 0.5, "zorder": 3} if synthetic else {}
                    size = size or {"s": 5, "alpha": 0.35, "linewidths": 0, "zorder": 2}
                    gid = f"{name}-{'set' if synthetic else 'real'}-{k}"
                    panel.scatter(*chosen.T, color=own["color"], marker=own["marker"], gid=gid, **size)
        for panel in panels[len(sets) :]:
            panel.set_visible(False)
        marks = [Line2D([], [], **(look(number) | {"linestyle": "none"})) for number in range(len(shown))]
        _legend(figure, marks, [names[k] for k in shown])
    return figure


def sheet(title: str, rows: Mapping[str, Tensor], per_row: int = 10) -> "Figure":
    """Images in rows, pixels enlarged without smoothing.

    Args:
        title: the heading.
        rows: by what stands before the row, images (N, C, H, W) as `core_dd.sets.pictures.grid` takes them, all of one
            shape.
        per_row: how many of each are shown.
    """
    import torch

    images = [own[:per_row] for own in rows.values()]
    labels = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(own) for own in images]))
    height, gap = images[0].shape[-2], 2
    scale = max(1, round(32 / height))
    drawn = pictures.grid(torch.cat([_unit(own) for own in images]), labels, per_row, scale=scale, gap=gap)
    step = height * scale + gap
    size = (drawn.width / 72 + 1.2, drawn.height / 72 + 0.4)
    with panel(title, size, y_label="") as (figure, axes):
        axes.imshow(drawn, interpolation="nearest", gid="images")
        axes.set(xticks=[], frame_on=False)
        axes.set_yticks([i * step + height * scale / 2 for i in range(len(rows))], list(rows))
        axes.tick_params(length=0)
        axes.grid(False)
    return figure


def _unit(images: Tensor) -> Tensor:
    """Pixels on the 0..1 scale."""
    return images if images.is_floating_point() else images / 255


@contextlib.contextmanager
def _panels(title: str, size: tuple[float, float], rows: int, columns: int) -> Iterator[tuple["Figure", list["Axes"]]]:
    """An empty figure with its heading, `size` inches wide and high, and its panels, in the look of all."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(textwrap.fill(title, int(14 * size[0])), fontsize=8, fontweight="bold")
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)


@contextlib.contextmanager
def panel(
    title: str, size: tuple[float, float] = (5.0, 3.2), y_label: str = "test accuracy %"
) -> Iterator[tuple["Figure", "Axes"]]:
    """The same with one panel, and a legend below it of what has a label."""
    with _panels(title, size, 1, 1) as (figure, [axes]):
        axes.set_ylabel(y_label)
        yield figure, axes
        _legend(figure, *axes.get_legend_handles_labels())


def _legend(figure: "Figure", marks: Sequence["Artist"], names: Sequence[str]) -> None:
    """What the marks mean, below the figure, which grows by that."""
    if names:
        columns = max(1, min(len(names), int(18 * figure.get_figwidth() / (max(map(len, names)) + 8))))
        figure.set_figheight(figure.get_figheight() + 0.16 * -(-len(names) // columns))
        figure.legend(marks, names, loc="outside lower center", ncols=columns, fontsize=7)


def _references(axes: "Axes", pivot: Pivot) -> None:
    """Lines at the whole training set and at chance, where they are known; the axis does not go down to a chance that
    is far below everything else, which the legend says instead."""
    low, high = axes.get_ylim()
    if pivot.real is not None:
        _reference(axes, "real", 100 * pivot.real.level.mean, "--", REAL_NAME)
    if pivot.chance is not None:
        chance = 100 * pivot.chance
        near = chance > low - 0.5 * (high - low)
        label = CHANCE_NAME if near else f"{CHANCE_NAME} {chance:.1f}, below"
        _reference(axes, "chance", chance, ":", label)
        axes.set_ylim(None if near else low, min(axes.get_ylim()[1], 102))


def _reference(axes: "Axes", name: str, value: float, dashes: str, label: str) -> None:
    """A line across."""
    axes.axhline(value, color="#5b6470", linewidth=1, linestyle=dashes, label=label, gid=f"reference-{name}")


def _reach(level: Level) -> tuple[float, float]:
    """How far the 95 % interval reaches below and above the mean, in %; 0 where there is none."""
    low, high = level.interval or (level.mean, level.mean)
    return max(0.0, 100 * (level.mean - low)), max(0.0, 100 * (high - level.mean))


def _logarithmic(axes: "Axes", xs: Sequence[float], ticks: Sequence[float] | None) -> None:
    """A logarithmic axis where values are positive and span a factor of 5; with ticks at these alone, if any."""
    if min(xs) > 0 and max(xs) >= 5 * min(xs):
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        ticks = log_ticks(low, high) if ticks is None else ticks
    if ticks is not None:
        axes.set_xticks(list(ticks), [short(tick) for tick in ticks])
        axes.minorticks_off()
