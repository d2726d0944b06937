"""The tables from scores that are there: what stands in them, what is bold, and that LaTeX takes them."""

import csv
import io

import pytest

from core_dd.compare.levels import two_levels
from core_dd.compare.reading import DataChoice
from core_dd.compare.tables import (
    COLUMNS,
    CellEntry,
    Pivot,
    latex,
    markdown,
    number,
    rows,
    table_csv,
    text,
    trained,
)
from core_dd.compare.tables import _of_papers as of_papers
from core_dd.compare.tables import _with_best as with_best
from core_dd.report.reproduced import published_row


def entry(*sets: list[float], smoke: bool = False, whole: bool = True, score: dict | None = None, **more) -> CellEntry:
    known = {"smoke": smoke, "protocol": "dm", "set": {"factor": 1}, **(score or {})}
    scores = {seed: {"accuracies": own, "mean": sum(own) / len(own), **known} for seed, own in enumerate(sets)}
    return CellEntry(scores=scores, level=two_levels(sets), whole=whole, **more)


GOOD = ([0.80, 0.82], [0.82, 0.84], [0.85, 0.87])
BAD = ([0.70, 0.72], [0.705, 0.735], [0.72, 0.74])
WORSE = ([0.50, 0.52], [0.51, 0.52], [0.52, 0.54])


def pivot(**changed) -> Pivot:
    entries = with_best({("A_1", 1): entry(*GOOD), ("B & C", 1): entry(*BAD), ("B & C", 10): entry([0.9])})
    settings = {"data": "digits", "network": "convnet3", "protocol": "dm", "ipcs": [1, 10]}
    settings |= {"methods": ["A_1", "B & C"], "entries": entries, "real": entry([0.97, 0.99])}
    return Pivot(**(settings | changed))


def test_number__tells_the_two_spreads_apart():
    assert number(entry([0.5, 0.52], [0.60, 0.64], [0.70, 0.70])) == "61.0 ± 9.5 ± 1.8"
    assert number(entry([0.5, 0.7])) == "60.0 ± - ± 14.1"
    assert number(entry([0.5], [0.7], smoke=True, whole=False)) == "60.0 ± 14.1 ± -°…"
    assert number(None) == "-"


def test_rows__methods_by_ipc_the_reference_last_and_never_best():
    assert rows(pivot()) == [
        ["method", "ipc 1", "ipc 10"],
        ["A_1", "* 83.3 ± 2.3 ± 1.4", "-"],
        ["B & C", "72.0 ± 0.0 ± 1.7", "90.0 ± - ± -"],
        ["whole training set", "98.0 ± - ± 1.4", "98.0 ± - ± 1.4"],
    ]


def test_best__never_among_shortened_scores():
    entries = {("A", 1): entry(*GOOD, smoke=True), ("B", 1): entry(*BAD, smoke=True)}
    assert not any(own.best for own in with_best(entries).values())


def test_best__never_a_set_of_its_own_size():
    entries = {("pool", 1): entry(*GOOD, of_ipc=False), ("B", 1): entry(*BAD), ("C", 1): entry(*WORSE)}
    assert [name for (name, _), own in with_best(entries).items() if own.best] == ["B"]
    assert number(entries["pool", 1]) == "83.3 ± 2.3 ± 1.4†"


def test_best__is_told_among_scores_of_one_label_regime():
    """A soft-label method that beats all others is not compared with those of hard labels."""
    taught = {"label_regime": "teacher"}
    entries = {("A", 1): entry(*GOOD, score=taught), ("B", 1): entry(*BAD), ("C", 1): entry(*WORSE)}
    assert [name for (name, _), own in with_best(entries).items() if own.best] == ["B"]
    entries = {("A", 1): entry(*GOOD, score=taught), ("B", 1): entry(*BAD)}
    assert not any(own.best for own in with_best(entries).values())


@pytest.mark.parametrize(
    ("name", "options", "stands"),
    [
        ("cifar10", {}, True),
        ("cifar10", {"image_size": 16}, False),
        ("cifar10", {"limit_per_class": 5}, False),
        ("imagenet10", {"image_size": 224}, True),  # has no size of its own: that of the only table of it
        ("imagenet10", {"image_size": 64}, False),
    ],
)
def test_published__stand_beside_whole_data_of_their_own_size_alone(name, options, stands):
    assert of_papers(DataChoice("x", name="x", **options), name) == stands


def test_trained__how_ours_and_the_published_were():
    theirs, other, dm = (published_row("cifar10", 10, name, "convnet3") for name in ("m3d", "k-center", "dm"))
    ours = {"set": {"factor": 2}, "resolved_protocol": {"lr": 0.01, "batch_size": 256}}
    ours |= {"training_cost": {"images_seen": 4000}}
    entries = {("M3D", 10): entry([0.6], published=theirs, score=ours), ("K-Center", 10): entry([0.2], published=other)}
    entries["DM", 10] = entry([0.5], published=dm)
    own = pivot(entries=entries, methods=["M3D", "K-Center", "DM"], real=None)
    heads, m3d, k_center, of_dm = trained(own)
    assert heads[2:6] == ["labels", "factor", "images seen", "optimiser"]
    assert heads[6:] == ["published", *heads[2:4], "protocol", *heads[4:6]]
    assert m3d[2:6] == ["hard", "2", "4,000", "SGD 0.01, batch 256"]
    assert m3d[6:] == ["63.5 ± 0.2", "hard", "2", "m3d", "?", "?"]  # M3D's paper does not say
    assert of_dm[-3:] == ["dm", "100,100", "SGD 0.01, batch 256"]
    assert k_center[2:] == ["hard", "1", "?", "?", "14.7 ± 0.9", "hard", "1", "?", "?", "?"]
    assert own.entries["M3D", 10].beyond_published is None  # by dm, theirs by IDC's
    assert own.entries["K-Center", 10].beyond_published == pytest.approx((20 - 14.7) / 0.9)  # not known
    assert "| M3D | 10 | hard | 2 | 4,000 |" in markdown("t", [own]) and "& hard & 2 & 4,000 &" in latex("t", [own])
    row, _, dm_row = csv.DictReader(io.StringIO(table_csv([own])))
    names = "labels", "factor", "published_labels", "published_factor", "published_protocol", "published_images_seen"
    assert [row[name] for name in names] == ["hard", "2", "hard", "2", "m3d", ""]
    assert (row["optimiser"], row["published_optimiser"]) == ("SGD 0.01, batch 256", "")
    assert (dm_row["published_images_seen"], dm_row["published_optimiser"]) == ("100100", "SGD 0.01, batch 256")


def test_markdown__bold_and_escaped():
    table = markdown("A_title*", [pivot()])
    assert "| A_1 | **83.3 ± 2.3 ± 1.4** | - |" in table and "# A_title\\*" in table and "B \\& C" in table


def test_latex__is_a_booktabs_table():
    table = latex("title", [pivot()])
    assert r"A\_1 & \textbf{83.3 $\pm$ 2.3 $\pm$ 1.4} & - \\" in table and r"B \& C & 72.0" in table
    order = [r"\begin{tabular}{lrr}", r"\toprule", r"\midrule", r"\midrule", "whole training set", r"\bottomrule"]
    places = [table.index(r"\begin{table}")]
    for word in order:
        places.append(table.index(word, places[-1] + 1))
    assert (
        table.count("{") == table.count("}")
        and "±" not in table
        and "%" not in table.replace(r"\%", "").split("\n", 2)[2]
    )


def test_text__has_the_legend():
    said = " ".join(text([pivot()]).split())
    assert "random-effects" in said and "paired t-test" in said


def test_csv__all_numbers_beside_the_papers():
    theirs = published_row("mnist", 10, "dm", "convnet3")
    assert (theirs.percent, theirs.std) == (97.5, 0.1)
    own = pivot(entries={("DM", 10): entry([0.973], [0.974], published=theirs)}, methods=["DM"], real=None)
    [line] = csv.DictReader(io.StringIO(table_csv([own])))
    assert tuple(line) == COLUMNS and line["published"] == "97.5"
    assert float(line["mean"]) == pytest.approx(97.35) and float(line["difference_in_published_std"]) == pytest.approx(
        -1.5
    )


def test_rows__published_values_beside_ours_where_there_are_some():
    theirs = published_row("mnist", 10, "dm", "convnet3")
    bare = published_row("mnist", 10, "idc i", "convnet3")
    assert bare.std is None
    entries = {("DM", 10): entry([0.972], [0.974], published=theirs), ("IDC-I", 10): entry([0.9], published=bare)}
    own = pivot(entries=entries | {("DM", 1): entry([0.5])}, methods=["DM", "IDC-I"], real=None)
    assert rows(own) == [
        ["method", "ipc 1", "ipc 10", "published", "Δ/std"],
        ["DM", "50.0 ± - ± -", "97.3 ± 0.1 ± -", "97.5 ± 0.1", "-2.0"],
        ["IDC-I", "-", "90.0 ± - ± -", f"{bare.percent:.1f}", "-"],
    ]
    assert "\\begin{tabular}{lrrrr}" in latex("t", [own]) and "$\\Delta$/std" in latex("t", [own])
    assert "published" in text([own]) and "published" not in text([pivot()])


def test_rows__end_with_chance_where_scores_say_it():
    own = entry([0.5])
    own.scores[0]["chance"] = 0.125
    assert rows(pivot(entries={("A_1", 10): own}, methods=["A_1"]))[-1] == ["chance", "12.5", "12.5"]
    assert r"\midrule" + "\nwhole training set" in latex("t", [pivot(entries={("A_1", 10): own}, methods=["A_1"])])
