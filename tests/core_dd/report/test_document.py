"""One document, written as HTML and as Markdown: the same words, none of which is markup."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from core_dd.report.document import (
    Document,
    Figure,
    Figures,
    Heading,
    Notes,
    Paragraph,
    Picture,
    Pictures,
    Plate,
    Plates,
    Record,
    Records,
    Section,
    Table,
    Words,
    html,
    line,
    markdown,
    plain,
)

ODD = "<b> & \"x\" 'y' *z* [a](b) `c` | {{ 7 * 7 }}"
SMOKE = Words(text="smoke", badge=True)
TABLE = Table(
    caption="A table",
    heads=("#", "set", "n"),
    rows=(
        ((line(SMOKE),), (line(Words(text=ODD, colour=1, hollow=True)),), (line("3"),)),
        ((line("1"),), (line("b"),), (line(Words(text="41", colour=2)), line(Words(text="42", colour=3), SMOKE))),
    ),
    left=frozenset({0, 1}),
    named=1,
    strong=2,
    marked=frozenset({1}),
)
BLOCKS = {
    "paragraph": Paragraph(text=ODD),
    "heading": Heading(text=ODD),
    "table": TABLE,
    "figures": Figures(
        figures=(Figure(title=ODD, subtitle=ODD, drawing="<svg></svg>", legend=(Words(text=ODD, colour=2),)),),
        table=TABLE,
    ),
    "pictures": Pictures(
        pictures=(
            Picture(label=ODD, caption=ODD, png=b"png", file="pictures/00.png", rows=("0", ODD)),
            Picture(label="gone", caption="No picture", png=None, file="pictures/01.png"),
        )
    ),
    "plates": Plates(plates=(Plate(title=ODD, subtitle=ODD, svg=b"<svg/>", file="../figures/a.svg"),)),
    "notes": Notes(points=(ODD, "two")),
    "records": Records(records=(Record(title=line(ODD), facts={ODD: ODD}, config=f"a: {ODD}\n"),), table=TABLE),
}


class Elements(HTMLParser):
    """The names, attributes and words of a page; every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found, self.open, self.words = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.found if tag == name]


def document(*blocks) -> Document:
    section = Section(place="part", heading="Part", blocks=blocks)
    return Document(title=ODD, lede=line("Best: ", Words(text=ODD, strong=True), "."), sections=(section,))


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks__words_are_words_in_both(kind):
    written = document(BLOCKS[kind])
    page, text = Elements(html(written)), markdown(written)
    assert ODD in page.words and not page.all("b") and not page.all("a")[1:]
    unescaped = re.sub(r"\\.", "", text)
    assert not re.search(r"<b>|`|\*z\*|\]\(b\)", unescaped), "what would be markup is escaped"
    assert r"\<b\> \& " in text and "49" not in page.words + text


def test_html__a_table_says_what_its_columns_and_rows_are():
    page = Elements(html(document(TABLE)))
    assert [row.get("class") for row in page.all("tr")] == [None, None, "ours"]
    assert [head["scope"] for head in page.all("th")] == ["col"] * 3 + ["row"] * 2
    marks = [(each["class"], each.get("style", "")[-2:-1]) for each in page.all("span")]
    assert marks == [
        ("badge", ""), ("chip shape-0 hollow", "1"), ("chip shape-0", "2"), ("chip shape-0", "3"), ("badge", "")
    ]  # fmt: skip


def test_html__what_bounds_the_rows_stands_in_the_foot():
    page = html(document(replace(TABLE, foot=1)))
    body, foot = page.split("<tbody>")[1].split("</tbody>")[0], page.split("<tfoot>")[1].split("</tfoot>")[0]
    assert body.count("<tr") == foot.count("<tr") == 1 and "smoke" in body and "41" in foot
    assert "<tfoot>" not in html(document(TABLE))


def test_words__thirty_sets_have_marks_that_differ():
    marks = {(Words(text="", colour=number).mark, Words(text="", colour=number).hue) for number in range(32)}
    assert len(marks) == 32


def test_markdown__a_cell_of_several_lines_is_one():
    assert markdown(document(TABLE)).splitlines()[-1] == "| 1 | b | 41; 42 (smoke) |"
    assert plain((line(SMOKE),)) == "smoke"


def test_pictures__inside_the_page_and_beside_the_markdown():
    written = document(BLOCKS["pictures"])
    assert [each["src"] for each in Elements(html(written)).all("img")] == ["data:image/png;base64,cG5n"]
    assert re.findall(r"\]\((pictures/[^)]+)\)", markdown(written)) == ["pictures/00.png"]


def test_plates__inside_the_page_and_beside_the_markdown():
    written = document(BLOCKS["plates"])
    assert [each["src"] for each in Elements(html(written)).all("img")] == ["data:image/svg+xml;base64,PHN2Zy8+"]
    assert re.findall(r"\]\((\.\.[^)]+)\)", markdown(written)) == ["../figures/a.svg"]


def test_figures__are_drawn_or_told():
    written = document(BLOCKS["figures"])
    page, text = Elements(html(written)), markdown(written)
    assert len(page.all("svg")) == 1 and not page.all("table")
    assert "svg" not in text and "A table:\n\n| # | set | n |" in text


def test_document__begins_and_ends_as_it_should():
    page, text = html(document()), markdown(document(BLOCKS["notes"]))
    assert page.startswith("<!doctype html>\n") and page.endswith("</html>\n")
    assert text.startswith("# ") and text.endswith("\n- two\n") and "\n\n\n" not in text
