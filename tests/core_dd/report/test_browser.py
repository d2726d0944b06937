"""The report in a real browser: tables sort, nothing is lost on a narrow screen or on paper."""

import io
from pathlib import Path

import pytest
from browser import browser, column, printed, show  # noqa: F401, a fixture
from test_report import MOMENTS, SAID, score

from core_dd.report.report import main

pytestmark = pytest.mark.slow
MEANS = {"a": 0.095, "b": 0.101, "c": 1.0, "d": 0.6, "e": 0.995, "Ä": 0.42}
"""Accuracies that sort otherwise as words."""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A report of sets of two sizes, with many columns, smoke scores, the real images and chance."""
    folder = tmp_path_factory.mktemp("scores")
    told = {"tested": {"test_images": 355}, "fidelity": MOMENTS | {"classifier_frechet": 1.0}, "chance": 0.1}
    for ipc in (1, 10):
        for number, (name, mean) in enumerate(MEANS.items()):
            cost = {"images_seen": 10 ** (number + 2), "training_flops": 1e9, "peak_mib": 1.0}
            more = {"training_cost": cost, "protocol": "a_protocol_of_a_long_name", **told}
            score(folder / f"{name}-{ipc}", [mean, mean], method=name, ipc=ipc, smoke=name == "d", **more)
    more = {"protocol": "a_protocol_of_a_long_name", **told, **SAID}
    score(folder / "real", [0.5, 0.5], method="real", ipc=None, **more)
    out = tmp_path_factory.mktemp("report") / "out"
    main([str(folder), "--out", str(out)])
    return out / "report.html"


def ranking(browser, number: int = 0):  # noqa: F811
    return browser.find_elements("css selector", "table[aria-label^=Ranking]")[number]


def click(table, name: str) -> int:
    """Click a heading; its number."""
    heads = table.find_elements("css selector", "thead th")
    [number] = [i for i, head in enumerate(heads) if head.text.startswith(name)]
    heads[number].find_element("tag name", "button").click()
    return number


def test_table__sorts_numbers_as_numbers_and_leaves_the_references_below(browser, page):  # noqa: F811
    show(browser, page)
    table, other = ranking(browser), ranking(browser, 1)
    before, names = column(browser, table, 1, "tfoot"), column(browser, other, 1)
    assert before == ["real", "chance"]
    number = click(table, "accuracy %")
    falling = [float(text.split()[0]) for text in column(browser, table, number)]
    assert falling == [100.0, 99.5, 60.0, 42.0, 10.1, 9.5]
    click(table, "accuracy %")
    assert [float(text.split()[0].rstrip("†")) for text in column(browser, table, number)] == falling[::-1]
    seen = click(table, "images seen")
    assert column(browser, table, seen) == [f"{10**power}" for power in (7, 6, 5, 4, 3, 2)]
    assert column(browser, table, 1, "tfoot") == before and column(browser, other, 1) == names


def test_table__sorts_words_by_the_alphabet_and_says_so(browser, page):  # noqa: F811
    show(browser, page)
    table = ranking(browser)
    number = click(table, "set")
    assert [text[0] for text in column(browser, table, number)] == ["a", "Ä", "b", "c", "d", "e"]
    assert table.find_elements("css selector", "thead th")[number].get_attribute("aria-sort") == "ascending"
    click(table, "set")
    assert column(browser, table, number)[0][0] == "e"
    click(table, "#")  # ranks, then what has none
    assert column(browser, table, 0)[-1] == "smoke"


def test_page__is_whole_without_its_script(browser, page):  # noqa: F811
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page)
        assert ranking(browser).text.startswith("# set ipc") and not ranking(browser).find_elements(
            "tag name", "button"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def overflowing(browser) -> list[str]:  # noqa: F811
    """What reaches beyond the page, but for what scrolls in a frame of its own."""
    free = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre'))"
    beyond = "e => e.getBoundingClientRect().right > innerWidth + 1"
    return browser.execute_script(f"return {free}.filter({beyond}).map(e => e.tagName + ' ' + e.className)")


def test_page__at_400_pixels_is_no_wider_and_every_column_can_be_reached(browser, page):  # noqa: F811
    show(browser, page, 400)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    assert overflowing(browser) == []
    table = ranking(browser)
    frame = table.find_element("xpath", "..")
    reached = (
        "const [frame, head] = arguments; frame.scrollLeft = head.offsetLeft; const box = head.getBoundingClientRect();"
    )
    reached += "return box.width > 0 && box.left >= 0 && box.right <= innerWidth + 1"
    heads = table.find_elements("css selector", "thead th")
    assert len(heads) > 10 and all(browser.execute_script(reached, frame, head) for head in heads)
    names = table.find_elements("css selector", "tbody th")
    assert all(0 <= name.rect["x"] < 200 for name in names), "what a row is about stays in sight"


def test_page__printed_holds_every_row_and_column(browser, page):  # noqa: F811
    pypdf = pytest.importorskip("pypdf")
    show(browser, page, 718)  # what is between the margins of A4
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert overflowing(browser) == []
        wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        assert browser.execute_script(f"return {wide}.map(e => e.innerText)") == [], "nothing is cut off on paper"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    document = pypdf.PdfReader(io.BytesIO(printed(browser)))
    text = " ".join(" ".join(sheet.extract_text() for sheet in document.pages).split())
    assert len(document.pages) > 1 and "chance" in text and "Provenance" in text
    assert all(f"{name} ipc {ipc}" in text for name in MEANS for ipc in (1, 10))
