"""What the rest of a comparison takes: from finished work of the same kind, else measured where that is cheap."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from core_dd.commands import imported
from core_dd.compare.grid import Plan
from core_dd.compare.jobs import Forecast, Order, load
from core_dd.compare.pace import Pace, duration
from core_dd.errors import InputError
from core_dd.report.tables import text_table

PATIENCE_S = 60.0
"""After so many seconds no more is measured."""


def forecast(plan: Plan) -> str:
    """What is to be done, by what it has in common, and what each takes, as text."""
    pace, began = Pace(order for order in plan.orders.values() if order.done), time.monotonic()
    groups: dict[str, list[Order]] = {}
    for order in plan.undone:
        groups.setdefault(order.like, []).append(order)
    lines, total, unknown = [["to do", "number", "each", "memory, GiB", "by"]], 0.0, 0
    for like, orders in groups.items():
        found, by = _expected(pace, orders, began)
        if found is None:
            unknown += len(orders)
            lines.append([like, str(len(orders)), "?", "?", by])
        else:
            total += found.seconds * len(orders)
            lines.append([like, str(len(orders)), duration(found.seconds), f"{found.mib / 1024:.2f}", by])
    said = f"in all {duration(total)} of one worker"
    said += f", and {unknown} of unknown length" * bool(unknown)
    return f"{text_table(lines, frozenset({0, 4}))}\n{said}"


def _expected(pace: Pace, orders: Sequence[Order], began: float) -> tuple[Forecast | None, str]:
    """What one of several alike takes, and how that is known."""
    alike = pace.alike(orders[0])
    if alike is not None:
        count, seconds, mib = alike
        return Forecast(seconds, mib), f"{count} finished like it"
    if orders[0].measure is None:
        return None, "not to be told before"
    if time.monotonic() - began > PATIENCE_S:
        return None, f"not measured after {PATIENCE_S:.0f} s"
    try:
        with tempfile.TemporaryDirectory() as out:
            found = imported(orders[0].measure)(
                load(orders[0].data), Path(out), orders[0].device, **orders[0].measured_with
            )
    except InputError as error:
        return None, str(error)
    return found, "measured on a few steps"
