"""The drawings: valid XML, lengths in proportion, words for those who cannot see them."""

from xml.etree import ElementTree

import pytest

from core_dd.report.charts import (
    POINTS,
    POINTS_BESIDE_OTHERS,
    Bar,
    Line,
    bars,
    lines,
    log_ticks,
    number,
    strips,
    tag,
    ticks,
)


def shapes(drawn: str, name: str, cls: str) -> list[dict[str, str]]:
    """The attributes of every element of a name and class, from the parsed drawing."""
    root = ElementTree.fromstring(drawn)
    return [e.attrib for e in root.iter(name) if cls in e.attrib.get("class", "").split()]


def bar(mean: float, **more) -> Bar:
    return Bar(**{"label": "a & b", "mean": mean, "low": mean - 2, "high": mean + 2, "runs": (mean,), **more})


def test_bars__lengths_are_in_proportion_from_zero():
    short, long = shapes(bars([bar(20), bar(80)], "t"), "rect", "bar")
    assert short["x"] == long["x"]
    assert float(long["width"]) == pytest.approx(4 * float(short["width"]), abs=0.3)


def test_bars__whiskers_stay_inside_0_to_100():
    drawn = bars([bar(99.5), bar(1.0)], "t")
    assert len(shapes(drawn, "path", "whisker")) == 2
    assert "95 % interval 97.5 to 101.5" in ElementTree.fromstring(drawn).attrib["aria-label"]
    right = float(shapes(bars([bar(100.0)], "t"), "rect", "bar")[0]["width"])
    ends = [part.split("M")[1].split(" ")[0] for part in shapes(drawn, "path", "whisker")[0]["d"].split("H")[1:]]
    start = float(shapes(drawn, "rect", "bar")[0]["x"])
    assert float(ends[0]) <= start + right + 0.1


def test_bars__references_are_lines_where_their_values_are():
    drawn = bars([bar(20), bar(80)], "t", references={"all of <it>": 80.0, "chance": 20.0})
    ends = [float(rect["x"]) + float(rect["width"]) for rect in shapes(drawn, "rect", "bar")]
    places = [float(path["d"][1:].split()[0]) for path in shapes(drawn, "path", "reference")]
    assert places == pytest.approx([ends[1], ends[0]], abs=0.2)
    assert [path["class"].split()[1] for path in shapes(drawn, "path", "reference")] == ["dashed", "dotted"]


def test_bars__chance_is_dotted_however_many_references_there_are():
    drawn = bars([bar(20)], "t", references={"real (seed 0)": 80.0, "real (seed 1)": 81.0, "chance": 10.0})
    looks = [path["class"].split()[1] for path in shapes(drawn, "path", "reference")]
    assert looks == ["dashed", "dashed", "dotted"]


def test_lines__the_ninth_curve_has_the_first_ones_colour_and_other_dashes():
    curve = {"x": (0, 1), "y": (0.0, 1.0)}
    drawn = lines([Line(label="x", colour=number, **curve) for number in (0, 8)], "t")
    assert [path["class"] for path in shapes(drawn, "path", "line")] == ["line shape-0", "line shape-1"]


def test_strips__one_dot_per_run_in_order_of_value():
    dots = shapes(strips([bar(50, runs=(48.0, 50.0, 53.0))], "t"), "circle", "dot")
    places = [float(dot["cx"]) for dot in dots]
    assert len(places) == 3 and places == sorted(places)
    assert (places[2] - places[1]) / (places[1] - places[0]) == pytest.approx(1.5, rel=0.02)


def test_strips__one_run_is_drawn_too():
    assert len(shapes(strips([bar(50, low=50, high=50)], "t"), "circle", "dot")) == 1


def test_charts__smoke_is_hollow_and_said():
    drawn = bars([bar(50, hollow=True)], "t")
    assert shapes(drawn, "rect", "hollow")
    assert "smoke" in ElementTree.fromstring(drawn).attrib["aria-label"]


def test_lines__short_curves_pass_through_every_point():
    drawn = lines([Line(label="x", x=(0, 1, 2), y=(0.0, 1.0, 0.5))], "t")
    (path,) = shapes(drawn, "path", "line")
    points = [tuple(map(float, p.split())) for p in path["d"][1:].split("L")]
    assert len(points) == 3
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.2)
    assert points[1][1] < points[2][1] < points[0][1]
    assert not shapes(drawn, "path", "band")


def test_lines__long_curves_are_means_over_a_band():
    count = 3 * POINTS
    drawn = lines([Line(label="x", x=tuple(range(count)), y=tuple(float(i % 2) for i in range(count)))], "t")
    (path,) = shapes(drawn, "path", "line")
    assert path["d"].count("L") == POINTS - 1
    assert len(shapes(drawn, "path", "band")) == 1


def test_lines__several_curves_are_thinner_and_have_no_band():
    curve = Line(label="x", x=tuple(range(400)), y=tuple(float(i % 2) for i in range(400)))
    drawn = lines([curve, curve], "t")
    assert [path["d"].count("L") for path in shapes(drawn, "path", "line")] == [POINTS_BESIDE_OTHERS - 1] * 2
    assert not shapes(drawn, "path", "band")


def test_lines__wide_positive_ranges_are_logarithmic():
    drawn = lines([Line(label="x", x=(0, 1, 2), y=(100.0, 10.0, 1.0))], "t")
    (path,) = shapes(drawn, "path", "line")
    y = [float(p.split()[1]) for p in path["d"][1:].split("L")]
    assert y[1] - y[0] == pytest.approx(y[2] - y[1], abs=0.2)


@pytest.mark.parametrize("line", [Line(label="x", x=(3,), y=(0.5,)), Line(label="x", x=(0, 1), y=(-1.0, -1.0))])
def test_lines__single_points_and_flat_curves_are_drawn(line):
    ElementTree.fromstring(lines([line], "t"))


def test_lines__refuse_steps_without_values():
    with pytest.raises(ValueError, match="2 steps and 1 values"):
        lines([Line(label="x", x=(0, 1), y=(1.0,))], "t")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0.9, 1.0, [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]),
        (-3, 3, [-3, -2, -1, 0, 1, 2, 3]),
    ],
)
def test_ticks__are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_ticks__refuse_no_range(low, high):
    with pytest.raises(ValueError, match="no axis"):
        ticks(low, high)


def test_log_ticks__with_and_without_steps_between():
    assert log_ticks(0.4, 30) == pytest.approx([0.5, 1, 2, 5, 10, 20])
    assert log_ticks(0.001, 1000) == pytest.approx([10.0**p for p in range(-3, 4)])


@pytest.mark.parametrize(
    ("value", "text"), [(0.001, "0.001"), (12.5, "12.5"), (2500, "2500"), (20000, "20k"), (1.5e6, "1.5M"), (0, "0")]
)
def test_number__is_short(value, text):
    assert number(value) == text


def test_tag__escapes_attributes_and_leaves_out_empty_ones():
    assert tag("a", "x", cls="", href='"<', stroke_width=1.26) == '<a href="&quot;&lt;" stroke-width="1.3">x</a>'
