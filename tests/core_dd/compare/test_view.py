"""What is seen of a comparison: a recorded terminal, lines where there is none, and the same from the folder alone."""

import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from core_dd.compare import view as views
from core_dd.compare.compare import GIB_PER_WORKER, expected_gib
from core_dd.compare.grid import Cell, Plan
from core_dd.compare.jobs import DONE, Job, Order
from core_dd.compare.reading import DataChoice
from core_dd.compare.screen import Best, screen
from core_dd.compare.view import SCORES, View, status
from core_dd.errors import InputError
from core_dd.files import write_json
from core_dd.locks import own_folder

DIGITS = DataChoice("digits", name="digits")


class Two:
    """An executor of which only this is asked."""

    capacity, said = 2, "two at once"


def cell(producer: str, ipc: int, seed: int, network: str = "net") -> tuple[Cell, str]:
    place = {"producer": producer, "data": "digits", "ipc": ipc, "seed": seed, "network": network, "protocol": "dm"}
    job = Job(kind="score", title="", function="x:y", options={}, data=DIGITS)
    return Cell(**place, made=None, score=job), f"{producer}{ipc}{seed}{network}"


CELLS = [cell("DM", 1, 0), cell("DM", 1, 1), cell("M3D", 1, 0), cell("DM", 10, 0), cell("M3D", 10, 0, "other")]


@pytest.fixture
def plan() -> Plan:
    orders = {
        key: Order(
            key=key, kind="score", title=f"score of {key}", function="x:y", options={}, data=DIGITS,
            folder=f"out/scores/{key}", log=f"out/logs/{key}.log", needs=(), like="all",
        )
        for _, key in CELLS
    }  # fmt: skip
    return Plan(orders=orders, cells=CELLS, picked=[own.name for own, _ in CELLS])


def finish(order: Order, mean: float) -> None:
    done = {"key": order.key, "kind": "score", "title": order.title, "like": "all", "seconds": 7200.0, "peak_mib": 1.0}
    write_json(Path(order.folder, SCORES), {"mean": mean})
    write_json(Path(order.folder, DONE), {**done, "sources": ""})


def shown(standing) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(screen(standing))
    return console.file.getvalue()


def advance(plan: Plan, view: View) -> None:
    """Two done, one failed, one begun 65 seconds ago, one waits."""
    orders = list(plan.orders.values())
    for order, mean in zip(orders, (0.5, 0.7), strict=False):
        view.given(order)
        finish(order, mean)
        view.ended(order)
    view.given(orders[2])
    view.ended(orders[2], "no way")
    view.given(orders[3])
    view.given(orders[4])
    view.tick([orders[4].key])
    view._running[orders[3].key] -= 65


def test_screen__says_what_is_done_runs_since_when_failed_and_is_best(plan):
    with View(plan, Path("out"), Two(), Console(file=io.StringIO())) as view:
        advance(plan, view)
        said = shown(view.standing())
    # Two of two hours each, by two; one of them began 65 seconds ago.
    assert re.search(r"out, two at once, 0:00:00 so far, about 1:59:2\d left", said)
    assert "2 of 5 done" in said and "━" in said
    words = " ".join(said.split())
    assert "running score of DM100net 0:01:05 score of M3D100other waits failed" in words
    assert "score of M3D10net: no way (log: out/logs/M3D10net.log)" in said
    assert "digits, net, protocol dm  DM 60.0" in said  # the mean of both sets


def test_view__draws_a_dashboard_on_a_terminal(plan):
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40, _environ={"TERM": "xterm"})
    with View(plan, Path("out"), Two(), console) as view:
        advance(plan, view)
    said = console.file.getvalue()
    assert "\x1b[" in said and "2 of 5 done" in said and "running" in said
    assert said.count("failed: score of M3D10net: no way") == 1  # kept above the dashboard
    assert "compare: " not in said


@pytest.mark.parametrize("terminal", [{}, {"force_terminal": True, "_environ": {"TERM": "dumb"}}])
def test_view__prints_plain_lines_elsewhere(plan, monkeypatch, terminal):
    monkeypatch.setattr(views, "SAID_EVERY_S", 0.0)
    console = Console(file=io.StringIO(), **terminal)
    with View(plan, Path("out"), Two(), console) as view:
        advance(plan, view)
        time.sleep(0.3)
        view.tick()
    lines = console.file.getvalue().splitlines()
    assert "\x1b" not in "".join(lines) and "failed: score of M3D10net: no way (log: out/logs/M3D10net.log)" in lines
    assert re.fullmatch(
        r"compare: 2 of 5 scores, 2 running, 1 failed, about 1:59:2\d left, best DM 60\.0 at ipc 1", lines[-1]
    )


def test_standing__the_last_job_is_done_by_one_however_many_there_are(plan):
    for order in list(plan.orders.values())[:4]:
        finish(order, 0.5)
    view = View(plan, Path("out"), Two(), Console(file=io.StringIO()))
    view.given(plan.orders["M3D100other"])
    view._running["M3D100other"] -= 6000
    assert view.standing().ends - time.time() == pytest.approx(1200, abs=60)
    view._running["M3D100other"] -= 6000
    assert view.standing().ends - time.time() == pytest.approx(0, abs=60)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("plan.json", "places", [{"producer": "DM"}]),
        ("plan.json", "places", [{**CELLS[0][0].place, "ipc": [1]}]),
        ("state.json", "began", 1e300),
        ("state.json", "running", {"DM10net": -1e300}),
    ],
)
def test_status__of_a_damaged_folder_is_one_sentence(plan, file, key, value):
    with View(plan, Path("out"), Two(), Console(file=io.StringIO())):
        pass
    content = json.loads(Path("out", file).read_text())
    (content["DM10net"] if file == "plan.json" else content)[key] = value
    Path("out", file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"out/{file} at .*Start the comparison again"):
        status(Path("out"))


def test_status__a_kind_is_text(plan):
    with View(plan, Path("out"), Two(), Console(file=io.StringIO())):
        pass
    content = json.loads(Path("out/plan.json").read_text())
    content["DM10net"]["kind"] = "[/x]\x1b[31m"
    Path("out/plan.json").write_text(json.dumps(content))
    assert "[/x]\\x1b[31m" in shown(status(Path("out")))


def test_view__a_full_disk_at_the_end_hides_no_error(plan, monkeypatch):
    def full(*_):
        raise InputError("disk full")

    for error in (ZeroDivisionError("the block's"), None):
        said = "disk full" if error is None else "the block's"
        with (
            monkeypatch.context() as patch,
            pytest.raises(type(error or InputError("")), match=said),
            View(plan, Path("out"), Two(), Console(file=io.StringIO())),
        ):
            patch.setattr(views.files, "write_json", full)
            if error is not None:
                raise error


def test_status__shows_the_same_from_the_folder_and_no_work_where_nobody_is(plan):
    with own_folder(Path("out")), View(plan, Path("out"), Two(), Console(file=io.StringIO())) as view:
        advance(plan, view)
        view._show(last=True)
        assert status(Path("out")) == view._standing
    left = status(Path("out"))
    assert left.by == "" and left.running == [] and left.ends is None and len(left.failed) == 1
    assert "out, not running" in shown(left)


def test_view__says_what_has_codes_for_terminals_as_text(plan):
    console = Console(file=io.StringIO())
    with View(plan, Path("out"), Two(), console) as view:
        order = replace(plan.orders["DM10net"], title="score [bold]of[/]")
        view.given(order)
        assert "score [bold]of[/]" in shown(replace(view.standing(), running=[(order.title, 0.0)]))
        view.ended(order, "bad \x1b[31m [bold]name[/]")
        assert "\x1b" not in shown(view.standing()) and "[bold]name[/]" in shown(view.standing())
    assert "failed: score [bold]of[/]: bad \\x1b[31m [bold]name[/]" in console.file.getvalue()


def test_expected_gib__is_a_quarter_more_than_finished_work_took(plan):
    assert expected_gib(plan) == GIB_PER_WORKER
    order = plan.orders["DM10net"]
    finish(order, 0.5)
    place = Path(order.folder, DONE)
    write_json(place, json.loads(place.read_text()) | {"peak_mib": 4096.0})
    assert expected_gib(plan) == pytest.approx(5.0)


def test_view__counts_what_was_done_before(plan):
    finish(plan.orders["DM10net"], 0.25)
    view = View(plan, Path("out"), Two(), Console(file=io.StringIO()))
    assert view.standing().kinds == {"score": (1, 5)}
    assert view.standing().best == {"digits, net, protocol dm": {1: "DM 25.0"}}
    assert json.loads(Path("out/plan.json").read_text())["DM10net"]["places"][0]["ipc"] == 1


def test_view__says_what_no_finished_job_tells_the_length_of(plan):
    """Jobs of the same kind tell nothing: a set may be chosen in a moment, or distilled for hours."""
    orders = {key: replace(order, like=order.title[:11]) for key, order in plan.orders.items()}  # three DM, two M3D
    few = replace(plan, orders=orders)
    with own_folder(Path("out")), View(few, Path("out"), Two(), Console(file=io.StringIO())) as view:
        assert "5 jobs of unknown length left" in shown(view.standing())
        first = orders["DM10net"]
        view.given(first)
        finish(first, 0.5)
        view.ended(first)
        assert "about 2:00:00 and 2 jobs of unknown length left" in shown(view.standing())  # two of DM, by two
        view.given(orders["M3D10net"])
        view.ended(orders["M3D10net"], "no way")
        view._show(last=True)
        assert "about 2:00:00 and 1 job of unknown length left" in shown(status(Path("out")))
        nothing = shown(replace(view.standing(), ends=time.time() + 0.2))
        assert "about" not in nothing and "1 job of unknown length left" in nothing


def test_best__is_never_the_real_training_set():
    best = Best()
    place = {"data": "d", "network": "n", "protocol": "p", "ipc": 1}
    best.learn({**place, "producer": "real", "ipc": None}, 0.99)
    assert best.found() == {}
    best.learn({**place, "producer": "A"}, 0.5)
    best.learn({**place, "producer": "B"}, 0.4)
    assert best.found() == {"d, n, protocol p": {1: "A 50.0"}}


def test_view__does_not_count_what_is_not_asked_for(plan):
    """Neither a score that was left out nor one that was left out and is done; which is best is told among all."""
    finish(plan.orders["DM100net"], 0.5)
    finish(plan.orders["DM10net"], 0.25)
    few = replace(plan, picked=[own.name for own, _ in CELLS[:2]])
    with own_folder(Path("out")), View(few, Path("out"), Two(), Console(file=io.StringIO())) as view:
        assert view.standing().kinds == {"score": (1, 2)} == status(Path("out")).kinds
        assert set(view.standing().best["digits, net, protocol dm"]) == {1, 10}
