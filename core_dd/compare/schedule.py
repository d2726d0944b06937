"""Carrying a plan out: whatever is ready is given to the executor, in order; a failure stops only what needs it."""

import heapq
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, Future, wait

from core_dd.compare.executors import Executor
from core_dd.compare.grid import Plan
from core_dd.compare.jobs import Order, Outcome
from core_dd.compare.view import View

PATIENCE_S = 0.5
"""How often the view is kept up where nothing ends."""


def carry_out(plan: Plan, executor: Executor, view: View) -> None:
    """Do what of a plan is not done; what goes wrong stands in the view."""
    orders = plan.undone
    place = {order.key: number for number, order in enumerate(orders)}
    missing = {order.key: {key for key in order.needs if key in place} for order in orders}
    users = defaultdict(list)
    for key, needs in missing.items():
        for need in needs:
            users[need].append(key)
    ready = [place[key] for key, needs in missing.items() if not needs]  # in order, so a heap
    futures: dict[Future[Outcome], Order] = {}
    while ready or futures:
        # Whatever has all it needs is given out, the first of the plan first.
        while ready and len(futures) < executor.capacity:
            order = orders[heapq.heappop(ready)]
            view.given(order)
            futures[executor.submit(order)] = order

        # Whatever has ended makes room, and others ready; or never to be.
        for future in wait(futures, timeout=PATIENCE_S, return_when=FIRST_COMPLETED).done:
            order, error = futures.pop(future), future.result().error
            view.ended(order, error)
            for key in users[order.key] if error is None else ():
                missing[key].remove(order.key)
                if not missing[key]:
                    heapq.heappush(ready, place[key])
            for key in () if error is None else _all_users(order.key, users):
                view.cannot(plan.orders[key], order.key)
        view.tick(order.key for future, order in futures.items() if not (future.running() or future.done()))


def _all_users(key: str, users: dict[str, list[str]]) -> list[str]:
    """What needs a job, and what needs that, each once."""
    found = dict.fromkeys(users[key])
    for own in found.copy():
        found |= dict.fromkeys(_all_users(own, users))
    return list(found)


def failures(plan: Plan, view: View) -> list[str]:
    """What is not done and why, as lines."""
    lines = []
    for key, why in view.failed.items():
        order = plan.orders[key]
        lines.append(f"{order.title}: {why} (log: {order.log})")
        others = [plan.orders[own].title for own, cause in view.blocked.items() if cause == key]
        lines += [f"  and so not: {', '.join(others)}"] * bool(others)
    return lines
