"""Carrying out: order, room, needs, failures; on an executor that ends orders when it is told to."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from core_dd.compare.grid import Plan
from core_dd.compare.jobs import Order, Outcome
from core_dd.compare.pace import Pace
from core_dd.compare.reading import DataChoice
from core_dd.compare.schedule import carry_out, failures
from core_dd.compare.view import View
from core_dd.files import write_json


def order(key: str, *needs: str) -> Order:
    return Order(
        key=key,
        kind="set",
        title=f"set {key}",
        function="x:y",
        options={},
        data=DataChoice("digits", name="digits"),
        folder=f"out/{key}",
        log=f"out/{key}.log",
        needs=needs,
        like=key[0],
    )


class Lazy(Plan):
    """A plan that wants all of its orders, and has no cells."""

    @property
    def undone(self):
        return [own for own in self.orders.values() if not own.done]


class Engine:
    """Ends an order as soon as another is wanted and there is no room."""

    said = "by hand"

    def __init__(self, capacity: int, outcome: Callable[[str], str | None] = lambda key: None) -> None:
        self.capacity, self.outcome = capacity, outcome
        self.began: list[str] = []
        self.most = self.now = 0

    def submit(self, own: Order) -> Future[Outcome]:
        self.began.append(own.key)
        error = self.outcome(own.key)
        if error is None:
            numbers = {"seconds": 1.0, "peak_mib": 1.0}
            done = {"key": own.key, "kind": own.kind, "title": own.title, "like": own.like, "sources": "", **numbers}
            write_json(Path(own.folder) / "done.json", done)
        future: Future[Outcome] = Future()
        future.set_result(Outcome(own.key, error))
        return future


@pytest.fixture
def carried(tmp_path):
    """What a view and an engine have seen after all was done."""

    def carry(orders: list[Order], engine: Engine) -> tuple[Plan, View]:
        plan = Lazy(orders={own.key: own for own in orders}, cells=[], picked=())
        with View(plan, Path("out"), engine) as view:
            carry_out(plan, engine, view)
        return plan, view

    return carry


def test_carry_out__in_order_and_needs_before_what_needs_them(carried):
    engine = Engine(1)
    carried([order("a"), order("c", "b"), order("b", "a"), order("d")], engine)
    assert engine.began == ["a", "b", "c", "d"] or engine.began == ["a", "b", "d", "c"]
    assert engine.began.index("a") < engine.began.index("b") < engine.began.index("c")


def test_carry_out__what_is_done_is_not_done_again(carried):
    carried([order("a"), order("b", "a")], Engine(2))
    again = Engine(2)
    carried([order("a"), order("b", "a"), order("c", "b")], again)
    assert again.began == ["c"]


def test_carry_out__a_failure_stops_only_what_needs_it(carried):
    engine = Engine(2, lambda key: "no" if key == "a" else None)
    plan, view = carried([order("a"), order("b", "a"), order("c", "b"), order("d")], engine)
    assert engine.began == ["a", "d"] and view.failed == {"a": "no"} and view.blocked == {"b": "a", "c": "a"}
    assert failures(plan, view) == ["set a: no (log: out/a.log)", "  and so not: set b, set c"]


def test_view__expects_of_the_rest_what_was_alike(carried):
    plan, _ = carried([order("a1"), order("a2")], Engine(1))
    more = Lazy(orders={**plan.orders, "a3": order("a3"), "z": order("z")}, cells=[], picked=())
    assert Pace(plan.orders.values()).seconds({"a": 3, "z": 2}) == (pytest.approx(3.0), 2)  # of a second each
    assert View(more, Path("out"), Engine(2)).standing().unknown == 1  # another of the same kind
