"""Carrying a plan out: whatever is ready is given to the executor, in order; a failure stops only what needs it."""

from concurrent.futures import FIRST_COMPLETED, Future, wait

from core_dd.compare.executors import Executor
from core_dd.compare.grid import Plan
from core_dd.compare.jobs import Order, Outcome
from core_dd.compare.view import View

PATIENCE_S = 1.0
"""How often the view is kept up where nothing ends."""


def carry_out(plan: Plan, executor: Executor, view: View) -> None:
    """Do what of a plan is not done; what goes wrong stands in the view."""
    waiting = {order.key: order for order in plan.undone}
    futures: dict[Future[Outcome], Order] = {}
    while waiting or futures:
        # Whatever has all it needs is given out, the first of the plan first.
        for order in list(waiting.values()):
            if len(futures) >= executor.capacity:
                break
            cause = next((key for key in order.needs if key in view.failed or key in view.blocked), None)
            if cause is not None:
                view.cannot(order, view.blocked.get(cause, cause))
            elif any(key in waiting or plan.orders[key] in futures.values() for key in order.needs):
                continue
            else:
                view.started(order)
                futures[executor.submit(order)] = order
            del waiting[order.key]

        # Whatever has ended makes room, and others ready.
        for future in wait(futures, timeout=PATIENCE_S, return_when=FIRST_COMPLETED).done:
            view.ended(futures.pop(future), future.result().error)
        view.tick()


def failures(plan: Plan, view: View) -> list[str]:
    """What is not done and why, as lines."""
    lines = []
    for key, why in view.failed.items():
        order = plan.orders[key]
        lines.append(f"{order.title}: {why} (log: {order.log})")
        others = [plan.orders[own].title for own, cause in view.blocked.items() if cause == key]
        lines += [f"  and so not: {', '.join(others)}"] * bool(others)
    return lines
