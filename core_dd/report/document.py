"""What a report consists of, whatever it is written as. Templates write it as one HTML page or as Markdown."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from core_dd.report.charts import COLOURS, shape
from core_dd.report.tables import markdown_table, markdown_text


@dataclass(frozen=True, kw_only=True)
class Words:
    """A piece of a line, as it stands: nothing in it is markup."""

    text: str
    strong: bool = False
    badge: bool = False
    """A short mark beside or instead of a number, such as "smoke"."""
    colour: int | None = None
    """The number of the series whose mark is before it, which stands for a set in every chart; None: there is none."""
    hollow: bool = False
    """The mark is an outline."""

    @property
    def mark(self) -> str:
        """The classes of its mark."""
        return f"chip {shape(self.colour or 0)}{' hollow' if self.hollow else ''}"

    @property
    def hue(self) -> int:
        """The number of its colour in the page."""
        return (self.colour or 0) % COLOURS


Line = tuple[Words, ...]
Cell = tuple[Line, ...]
"""Of a table: one line or several."""


def line(*pieces: str | Words) -> Line:
    """Pieces side by side."""
    return tuple(Words(text=piece) if isinstance(piece, str) else piece for piece in pieces)


def plain(cell: Cell) -> str:
    """A cell as text: lines are joined by semicolons, a badge after a number stands in brackets."""
    lines = []
    for pieces in cell:
        text = ""
        for piece in pieces:
            text += f" ({piece.text})" if piece.badge and text else piece.text
        lines.append(text)
    return "; ".join(lines)


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Words below a heading."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True, kw_only=True)
class Heading:
    """The heading of a part of a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under headings."""

    kind: ClassVar[str] = "table"
    caption: str
    """For those who cannot see where it stands."""
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: frozenset[int] = frozenset({0})
    """Columns of words; the others are numbers, flush right."""
    named: int = 0
    """The column that says what its row is."""
    strong: int | None = None
    """The column that is set off."""
    wrapped: int | None = None
    """The column whose words may take several lines."""
    marked: frozenset[int] = frozenset()
    """Rows that are set off."""
    foot: int = 0
    """How many of the last rows bound the others, and stay below them however these are sorted."""

    def plain(self) -> list[list[str]]:
        """Headings and rows as text."""
        return [list(self.heads), *([plain(cell) for cell in row] for row in self.rows)]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing."""

    title: str
    subtitle: str
    drawing: str
    """SVG, as `core_dd.report.charts` draws it."""
    legend: Line = ()


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Drawings side by side."""

    kind: ClassVar[str] = "figures"
    figures: tuple[Figure, ...]
    table: Table
    """What stands for them where nothing is drawn."""
    wide: bool = False
    """Two of them fill the page's width."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The image grid of one set."""

    label: str
    caption: str
    """What is shown, or why nothing is."""
    png: bytes | None
    """None when the set's file is gone or has changed."""
    file: str
    """Where the picture stands beside a report that cannot hold it: a path relative to the report's folder."""
    rows: tuple[str, ...] = ()
    """The class name of each row."""

    @property
    def url(self) -> str:
        """The picture as an address that holds it."""
        return "data:image/png;base64," + base64.b64encode(self.png or b"").decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The sets."""

    kind: ClassVar[str] = "pictures"
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Plate:
    """A figure that lies beside the report as a file."""

    title: str
    subtitle: str
    svg: bytes
    file: str
    """Its path relative to the report's folder."""

    @property
    def url(self) -> str:
        """The figure as an address that holds it."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Plates:
    """Figures side by side."""

    kind: ClassVar[str] = "plates"
    plates: tuple[Plate, ...]


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What a reader must know, point by point."""

    kind: ClassVar[str] = "notes"
    points: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Where one score comes from."""

    title: Line
    facts: Mapping[str, str]
    config: str
    """The resolved config, as YAML."""


@dataclass(frozen=True, kw_only=True)
class Records:
    """Where every score comes from; a page shows one when asked to."""

    kind: ClassVar[str] = "records"
    records: tuple[Record, ...]
    table: Table
    """The shortest of it."""


Block = Paragraph | Heading | Table | Figures | Plates | Pictures | Notes | Records


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report with a heading of its own."""

    place: str
    """What links to it are called, once in a document."""
    heading: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A report."""

    title: str
    lede: Line
    """The report in two sentences."""
    sections: tuple[Section, ...]


def html(document: Document) -> str:
    """One page that needs nothing else: style, charts and pictures are inside it, and a script that sorts tables by the
    heading that is clicked; without it they stay as they are."""
    return _templates().get_template("report.html.jinja").render(document=document)


def markdown(document: Document) -> str:
    """Markdown as GitHub reads it, with the pictures beside it as files (`Picture.file`)."""
    return _templates().get_template("report.md.jinja").render(document=document)


@cache
def _templates() -> Environment:
    """The folder `templates`. HTML escapes what is not a template's own markup; in Markdown the filter `md` does."""
    templates = Environment(
        loader=PackageLoader("core_dd.report"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"md": markdown_text, "md_table": lambda table: markdown_table(table.plain(), table.left)}
    return templates
