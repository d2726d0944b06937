"""The figures: each is drawn from tables or images, has a mark for everything it is about, and is SVG and PDF."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from comparisons import SMALL, compare, write
from test_tables import BAD, GOOD, entry, pivot

from core_dd.compare import figures, gallery
from core_dd.compare.gallery import plane
from core_dd.compare.tables import CellEntry
from core_dd.compare.tables import _with_best as with_best
from core_dd.judge.scores import read_score
from core_dd.sets.distilled import DistilledSet

pytest.importorskip("matplotlib")
SVG = "{http://www.w3.org/2000/svg}"


def drawn(figure) -> ElementTree.Element:
    """The SVG of a figure, once its PDF was looked at."""
    svg, pdf = figures.save(figure, Path("figure"))
    document = pdf.read_bytes()
    assert b"Date" not in document and b"<dc:date>" not in svg.read_bytes(), "the same figure is the same file"
    assert document.startswith(b"%PDF-") and document.rstrip().endswith(b"%%EOF") and len(document) > 2000
    assert b"/Type /Page\n" in document or b"/Type /Page " in document
    return ElementTree.fromstring(svg.read_text())


def group(root: ElementTree.Element, gid: str) -> ElementTree.Element:
    [found] = [element for element in root.iter(f"{SVG}g") if element.get("id") == gid]
    return found


def marks(root: ElementTree.Element, gid: str) -> int:
    """How many marks a line or a cloud of points has."""
    return len(list(group(root, gid).iter(f"{SVG}use")))


def names(root: ElementTree.Element, pattern: str) -> list[str]:
    return sorted(own for element in root.iter() if re.fullmatch(pattern, own := element.get("id", "")))


def judged(*sets: list[float], seconds: float | None = None, images: int = 0, **more) -> CellEntry:
    """An entry whose scores say what they took, what chance is, and how the sets came to be."""
    own = entry(*sets, seconds=seconds, **more)
    for score in own.scores.values():
        score |= {"chance": 0.1, "training_cost": {"images_seen": images, "training_flops": None, "peak_mib": 1.0}}
    return own


def table(**changed):
    entries = {("A", 1): judged(*GOOD, seconds=2.0, images=100), ("A", 10): judged(*GOOD, seconds=20.0, images=1000)}
    entries |= {("B", 1): judged(*BAD, seconds=None, images=100)}
    return pivot(**({"methods": ["A", "B", "C"], "entries": with_best(entries)} | changed))


@pytest.mark.parametrize(("name", "shown"), [("ipc", {0: 2, 1: 1}), ("seconds", {0: 2}), ("images-seen", {0: 2, 1: 1})])
def test_against__a_line_per_method_with_a_mark_per_ipc(name, shown):
    root = drawn(figures.against(table(), name))
    assert names(root, r"series-\d+") == [f"series-{number}" for number in shown]
    assert {number: marks(root, f"series-{number}") for number in shown} == shown
    assert names(root, "reference-.*") == ["reference-chance", "reference-real"]


def test_against__nothing_known_is_no_figure():
    assert figures.against(table(entries={("B", 1): judged(*BAD)}), "seconds") is None


def test_along__a_mark_for_every_iteration_that_all_sets_kept():
    own = judged(*GOOD)
    for seed, score in own.scores.items():
        steps = (0, 10, 20, 30) if seed else (10, 20, 30)
        score["along"] = [{"step": step, "accuracies": [0.1 + 0.02 * step, 0.2]} for step in steps]
    root = drawn(figures.along(table(entries={("A", 1): own}), 1))
    assert marks(root, "series-0") == 3
    assert figures.along(table(), 1) is None


def test_across_networks__a_cell_for_every_method_and_network_and_the_reference_apart():
    figure = figures.across_networks([table(), table(network="vgg11"), table(network="vit", entries={})], 1)
    assert len(list(group(drawn(figure), "cells").iter(f"{SVG}path"))) == 3 * 3  # two methods and the reference
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == ["83.3", "83.3", "-", "72.0", "72.0", "-", "98.0", "98.0", "98.0"]
    assert [text.get_weight() for text in figure.axes[0].texts][:3] == ["bold", "bold", "normal"]
    assert figures.across_networks([table()], 1) is None


def test_bars__one_per_variant_beside_the_first():
    figure = figures.bars(table(), 1, ["B", "A", "C"])
    root = drawn(figure)
    assert names(root, r"bar-\d+") == ["bar-0", "bar-1"] and names(root, "reference") == ["reference"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["72.0", "83.3 (+11.3)"]
    assert [patch.get_width() for patch in figure.axes[0].patches] == pytest.approx([72.0, 250 / 3], abs=0.05)
    assert figures.bars(table(), 10, ["B", "A"]) is None  # the first is not judged there


def test_embedding__every_image_of_every_class_in_the_panel_of_its_set(generator):
    real, labels = torch.randn(40, 8, generator=generator), [0, 1] * 20
    places = plane(torch.cat([real, torch.randn(6, 8, generator=generator)])).numpy()
    assert places.shape == (46, 2)
    figure = figures.embedding(
        "title", (places[:40], labels), {"A": (places[40:44], [0, 1, 0, 0]), "B": (places[44:], [1, 1])}, ["x", "y"]
    )
    root = drawn(figure)
    found = {name: marks(root, name) for name in names(root, "[AB]-.*")}
    assert found == {"A-real-0": 20, "A-real-1": 20, "A-set-0": 3, "A-set-1": 1,
                     "B-real-0": 20, "B-real-1": 20, "B-set-0": 0, "B-set-1": 2}  # fmt: skip


def test_sheet__a_row_for_each_name(generator):
    rows = {"zero": torch.rand(2, 3, 8, 8, generator=generator), "one": torch.rand(12, 3, 8, 8, generator=generator)}
    figure = figures.sheet("title", rows, 10)
    [image] = figure.axes[0].images
    assert image.get_array().shape[:2] == (2 * 34 - 2, 10 * 34 - 2)  # ten of 8 pixels, four times as large
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["zero", "one"]
    assert len(list(drawn(figure).iter(f"{SVG}image"))) == 1


@pytest.mark.parametrize(("classes", "pages"), [(20, ["DM", "Random"]), (21, [f"{k} class {k}" for k in range(21)])])
def test_sheets__a_page_per_method_or_of_many_classes_per_class(classes, pages, monkeypatch):
    images, labels = torch.rand(2 * classes, 1, 8, 8), torch.arange(classes).repeat(2)
    dset = DistilledSet(images, labels, {"class_names": [f"class {k}" for k in range(classes)]})
    monkeypatch.setattr(gallery, "sets_of", lambda plan, data, ipc: {"DM": dset, "Random": dset})
    drawn = dict(gallery.sheets(None, "digits", 2))
    assert list(drawn) == pages
    figure = drawn[pages[0]]()
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == (["DM", "Random"] if classes > 20 else [f"class {k}" for k in range(20)])
    assert figure.axes[0].images[0].get_array().shape[1] == 2 * 34 - 2  # two images of each class


def test_sheets__number_the_classes_of_sets_that_do_not_name_them(monkeypatch):
    bare = DistilledSet(torch.rand(2, 1, 8, 8), torch.arange(2), {})
    named = DistilledSet(bare.images, bare.labels, {"class_names": ["cat", "dog"]})
    for sets, rows in (({"A": bare}, ["0", "1"]), ({"A": bare, "B": named}, ["cat", "dog"])):
        monkeypatch.setattr(gallery, "sets_of", lambda plan, data, ipc, sets=sets: sets)
        figure = dict(gallery.sheets(None, "digits", 1))["A"]()
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == rows


def test_look__thirty_methods_differ():
    looks = [tuple(figures.look(number).values()) for number in range(63)]
    assert len({(colour, mark) for colour, mark, _ in looks}) == 63


@pytest.mark.parametrize(
    "networks", [["convnet1_w8"], pytest.param(["convnet1_w8", "convnet1_w4"], marks=pytest.mark.slow)]
)
def test_compare__draws_what_it_has_and_names_what_is_missing(networks, monkeypatch, capsys):
    """Two networks make a heat map; a classifier, which Herding asks for, places images in the plane."""
    changed = {"networks": networks, "seeds": 1, "ipc": 1, "judge": {"classifiers": 2, "along": True}}
    herding = {"Herding": {"coreset": "herding", "network": "convnet1_w8"}} if len(networks) > 1 else {}
    changed["producers"] = SMALL["producers"] | herding
    file = write(**changed, ablations={"matching": ["DM", "Random"]})
    with monkeypatch.context() as without:
        without.setattr(figures, "find_spec", lambda name: None)
        assert compare(file, "--figures") == 0
    assert "pip install 'gendd[figures]'" in capsys.readouterr().err and not Path("out/figures").exists()
    assert compare(file, "--figures") == 0
    found = {str(path.relative_to("out/figures").with_suffix("")) for path in Path("out/figures").rglob("*.*")}
    judges = [f"digits-{network}-quick_3_steps" for network in networks]
    expected = {f"accuracy-by-{name}-{judge}" for name in ("ipc", "seconds", "images-seen") for judge in judges}
    expected |= {f"along-{judge}-ipc1" for judge in judges}
    expected |= {f"ablation-matching-{judge}-ipc1" for judge in judges}
    expected |= {"networks-digits-quick_3_steps-ipc1", "embedding-digits-ipc1"} if len(networks) > 1 else set()
    assert found == expected | {f"sheets-digits-ipc1/{method}" for method in changed["producers"]}
    assert all(ElementTree.parse(path) for path in Path("out/figures").rglob("*.svg"))
    kept = {path.parent.name.split("-ipc")[0]: read_score(path) for path in Path("out").glob("scores/*/scores.json")}
    for name, score in kept.items():
        assert [own["step"] for own in score["along"]] == ([2, 4] if "DM" in name else [])
        assert not score["along"] or score["along"][-1]["accuracies"] == score["accuracies"]
    page, text = Path("out/report/report.html").read_text(), Path("out/report/report.md").read_text()
    assert page.count("data:image/svg+xml") == len(expected) == len(re.findall(r"\]\(\.\./figures/[^)]+\.svg\)", text))
    assert all((Path("out/report") / place).is_file() for place in re.findall(r"\]\(([^)]+\.svg)\)", text))
