"""Charts as inline SVG, written by hand: no library, no script; colours are CSS variables of the page (page.css)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

from core_dd.errors import require

COLOURS, SHAPES = 8, 4
"""How many series colours the page defines, `--series-0` to `--series-7`, and shapes of their squares and dashes of
their lines, `shape-0` to `shape-3`; series after all their combinations start over."""

CHANCE_NAME = "chance"
"""What the bound that guessing sets is called."""

POINTS = 120
"""A longer curve is drawn as the means of this many equal pieces, over the band of their extremes."""

POINTS_BESIDE_OTHERS = 40
"""The same for several curves in one chart, which have no bands."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One measured quantity with its repetitions; all values in the unit of the axis."""

    label: str
    mean: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    runs: tuple[float, ...]
    colour: int = 0
    hollow: bool = False
    """Drawn as an outline: a shortened (smoke) measurement."""

    def said(self, unit: str) -> str:
        """The bar in words."""
        smoke = ", smoke" if self.hollow else ""
        return f"{self.label}: {self.mean:.1f} {unit}, 95 % interval {self.low:.1f} to {self.high:.1f}{smoke}"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: int = 0


def look_of(reference: str) -> str:
    """How the line of a bound looks, by its name: dotted for chance, else dashed."""
    return "dotted" if reference == CHANCE_NAME else "dashed"


def bars(
    rows: Sequence[Bar], title: str, unit: str = "%", references: Mapping[str, float] = MappingProxyType({})
) -> str:
    """Horizontal bars from zero with their 95 % intervals; values in 0..100.

    Args:
        rows: the bars.
        title, unit: of what they show.
        references: values to draw a line at, by their names; see `look_of`.
    """
    frame = _Rows(rows, low=0.0, high=100.0, unit=unit)
    for name, value in references.items():
        path = tag("path", cls=f"reference {look_of(name)}", d=f"M{frame.x(value):.1f} {frame.TOP}V{frame.bottom}")
        frame.parts.append(tag("g", tag("title", escape(f"{name}: {value:.1f} {unit}")) + path))
    for bar, y, group in frame.drawn():
        start, end, low, high = frame.x(0), frame.x(bar.mean), frame.x(max(bar.low, 0)), frame.x(min(bar.high, 100))
        group.append(tag("rect", cls=_kind("bar", bar), x=start, y=y - 8, width=max(end - start, 1), height=16, rx=3))
        caps = f"M{low:.1f} {y - 5:.1f}v10M{low:.1f} {y:.1f}H{high:.1f}M{high:.1f} {y - 5:.1f}v10"
        group.append(tag("path", cls="whisker", d=caps))
        frame.note(y, tag("tspan", f"{bar.mean:.1f}", cls="strong") + f" {unit}")
    return frame.svg(title)


def strips(rows: Sequence[Bar], title: str, unit: str = "%") -> str:
    """Every repetition as a dot on an axis as narrow as the data allow, with the mean and its 95 % interval."""
    values = [value for bar in rows for value in (bar.low, bar.mean, bar.high, *bar.runs)]
    low, high = max(min(values), 0.0), min(max(values), 100.0)
    air = max((high - low) * 0.05, 0.2)
    frame = _Rows(rows, low=max(low - air, 0.0), high=min(high + air, 100.0), unit=unit)
    for bar, y, group in frame.drawn():
        start, end = frame.x(max(bar.low, frame.low)), frame.x(min(bar.high, frame.high))
        group.append(tag("rect", cls="interval", x=start, y=y - 9, width=max(end - start, 1), height=18, rx=4))
        group.append(tag("path", cls="mean", d=f"M{frame.x(bar.mean):.1f} {y - 9:.1f}v18"))
        group += [tag("circle", cls=_kind("dot", bar), cx=frame.x(value), cy=y, r=4) for value in bar.runs]
        frame.note(y, f"n = {len(bar.runs)}")
    return frame.svg(title)


def lines(series: Sequence[Line], title: str, x_label: str = "step") -> str:
    """Curves over steps. The y axis is logarithmic where the values are positive and span more than a factor of 20."""
    width, height, left, right, top, bottom = 460, 250, 48, 12, 10, 40
    alone = len(series) == 1
    pieces = [_pieces(line, POINTS if alone else POINTS_BESIDE_OTHERS) for line in series]
    if not alone:
        pieces = [(xs, mean, mean, mean) for xs, _, mean, _ in pieces]
    lowest, highest = min(min(low) for _, low, _, _ in pieces), max(max(high) for _, _, _, high in pieces)
    log = lowest > 0 and highest / lowest > 20
    scale: Callable[[float], float] = math.log10 if log else float
    y_low, y_high = _widened(scale(lowest), scale(highest), share=0.04)
    x_low, x_high = _widened(min(min(x) for x, *_ in pieces), max(max(x) for x, *_ in pieces), share=0.0)

    def across(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (width - left - right)

    def down(y: float) -> float:
        return top + (y_high - scale(y)) / (y_high - y_low) * (height - top - bottom)

    def path(xs: Sequence[float], ys: Sequence[float]) -> str:
        return "L".join(f"{across(x):.1f} {down(y):.1f}" for x, y in zip(xs, ys, strict=True))

    parts = []
    for value in log_ticks(10**y_low, 10**y_high) if log else ticks(y_low, y_high, 4):
        parts.append(tag("path", cls="rule", d=f"M{left} {down(value):.1f}H{width - right}"))
        parts.append(tag("text", number(value), cls="tick end", x=left - 8, y=down(value), dy=".32em"))
    for value in ticks(x_low, x_high, 5):
        parts.append(tag("text", number(value), cls="tick mid", x=across(value), y=height - bottom + 17))
    parts.append(tag("text", escape(x_label), cls="tick mid", x=(left + width - right) / 2, y=height - 4))
    for line, (xs, low, mean, high) in zip(series, pieces, strict=True):
        shapes = [tag("title", escape(line.label))]
        if low != high:
            shapes.append(tag("path", cls="band", d=f"M{path(xs, high)}L{path(xs[::-1], low[::-1])}Z"))
        if len(xs) > 1:
            shapes.append(tag("path", cls=f"line {shape(line.colour)}", d=f"M{path(xs, mean)}"))
        else:
            shapes.append(tag("circle", cls="dot", cx=across(xs[0]), cy=down(mean[0]), r=3))
        parts.append(_coloured(shapes, line.colour))
    said = "; ".join(f"{line.label}: from {number(line.y[0])} to {number(line.y[-1])}" for line in series)
    return _drawing(parts, width, height, f"{title}. {said}")


def shape(series: int) -> str:
    """The class of a series' shape: it changes when the colours start over."""
    return f"shape-{series // COLOURS % SHAPES}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) inside [low, high].

    Raises:
        ValueError: if high <= low or either is not finite.
    """
    require(math.isfinite(low) and math.isfinite(high) and high > low, f"there is no axis from {low} to {high}.")
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.6 * raw)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in [low, high], with 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 2, 5)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]


def number(value: float) -> str:
    """A tick's number in few characters: 0.001, 12.5, 400, 20k, 1.5M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.0f}" if abs(value) >= 1e3 else f"{value:.3g}"


def tag(name: str, inside: str = "", **attributes: str | float) -> str:
    """One XML element around `inside`, which is markup already.

    `cls` is the class, underscores in names are hyphens, numbers are rounded to a tenth, empty values are left out.
    """
    parts = [name]
    for key, value in attributes.items():
        text = escape(value) if isinstance(value, str) else format(round(value, 1), "g")
        if text:
            parts.append(f'{key.replace("cls", "class").replace("_", "-")}="{text}"')
    return f"<{' '.join(parts)}>{inside}</{name}>"


def _drawing(parts: Sequence[str], width: float, height: float, description: str) -> str:
    """A scalable SVG with a description for those who cannot see it."""
    return tag("svg", "".join(parts), viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=description)


class _Rows:
    """The frame of a chart with one labelled row per bar: axis and labels, and where the values go."""

    HEIGHT, TOP, BOTTOM, WIDTH, NOTES = 32, 4, 28, 560, 64

    def __init__(self, rows: Sequence[Bar], low: float, high: float, unit: str) -> None:
        require(bool(rows), "a chart needs at least one row.")
        self.rows, self.low, self.high, self.unit = rows, low, high, unit
        self.left = min(max(7.0 * max(len(bar.label) for bar in rows) + 14, 80), 226)
        self.bottom = self.TOP + self.HEIGHT * len(rows)
        self.parts: list[str] = []
        for value in ticks(low, high):
            self.parts.append(tag("path", cls="rule", d=f"M{self.x(value):.1f} {self.TOP}V{self.bottom}"))
            text = f"{number(value)} {unit}".strip()
            self.parts.append(tag("text", text, cls="tick mid", x=self.x(value), y=self.bottom + 18))

    def x(self, value: float) -> float:
        """Where a value stands."""
        return self.left + (value - self.low) / (self.high - self.low) * (self.WIDTH - self.NOTES - self.left)

    def drawn(self):
        """For each row (bar, its middle, a list that takes its shapes), drawn in the bar's colour with its label."""
        for i, bar in enumerate(self.rows):
            y, shapes = self.TOP + self.HEIGHT * (i + 0.5), [tag("title", escape(bar.said(self.unit)))]
            label = bar.label if len(bar.label) <= 31 else bar.label[:30] + "…"
            self.parts.append(tag("text", escape(label), cls="name end", x=self.left - 10, y=y, dy=".35em"))
            yield bar, y, shapes
            self.parts.append(_coloured(shapes, bar.colour))

    def note(self, y: float, text: str) -> None:
        """What stands at the end of a row."""
        self.parts.append(tag("text", text, cls="note", x=self.WIDTH - self.NOTES + 14, y=y, dy=".35em"))

    def svg(self, title: str) -> str:
        """The finished drawing."""
        said = "; ".join(bar.said(self.unit) for bar in self.rows)
        return _drawing(self.parts, self.WIDTH, self.bottom + self.BOTTOM, f"{title}. {said}")


def _kind(name: str, bar: Bar) -> str:
    return f"{name} hollow" if bar.hollow else name


def _coloured(shapes: Sequence[str], colour: int) -> str:
    return tag("g", "".join(shapes), style=f"--c:var(--series-{colour % COLOURS})")


def _pieces(line: Line, points: int) -> tuple[list[float], list[float], list[float], list[float]]:
    """(x, low, mean, high) of at most `points` equal pieces of a curve."""
    require(len(line.x) == len(line.y) > 0, f"curve '{line.label}' has {len(line.x)} steps and {len(line.y)} values.")
    size = math.ceil(len(line.x) / points)
    starts = range(0, len(line.x), size)
    xs, ys = ([values[i : i + size] for i in starts] for values in (line.x, line.y))
    return [sum(x) / len(x) for x in xs], [min(y) for y in ys], [sum(y) / len(y) for y in ys], [max(y) for y in ys]


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    """A range with some air, never empty."""
    if high == low:
        return low - 0.5, high + 0.5
    return low - share * (high - low), high + share * (high - low)
