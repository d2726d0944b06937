"""Command: one file of methods, data and judges -> every set made, every score, and the tables people publish."""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from core_dd import cli, files
from core_dd.compare import local
from core_dd.compare.executors import Means, executor_class
from core_dd.compare.forecast import forecast
from core_dd.compare.grid import Plan, cells_of, check_data, plan_of
from core_dd.compare.jobs import load, read_done, sources
from core_dd.compare.options import CompareConfig
from core_dd.compare.pace import Pace
from core_dd.compare.reading import Comparison, read_comparison
from core_dd.compare.schedule import carry_out, failures
from core_dd.compare.screen import show
from core_dd.compare.view import View, status
from core_dd.config import load_config, with_first
from core_dd.errors import require
from core_dd.locks import own_folder
from core_dd.notes import note
from core_dd.settings import find
from core_dd.yaml_files import read_yaml, yaml_text

if TYPE_CHECKING:
    from core_dd.compare.page import Sketch
    from core_dd.compare.tables import Pivot

HOME = "compare"
"""The folder of the packaged comparisons in configs/."""
GIB_PER_WORKER = 2.0
"""What a worker is expected to take where nothing is finished."""
HEADROOM = 1.25
"""By which that is more than finished work took at most: Slurm ends what takes more than it asked for."""
Conclude = Callable[[Plan, Comparison, str, Any, Path], None]
"""What is made of the scores of a plan: (plan, comparison, title, config, out)."""
FILE = "compare.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    """Read, check, do what is missing, write the tables."""
    carried_out(
        load_config(CompareConfig, with_first(sys.argv[1:] if argv is None else argv, "file"), prog="gendd compare")
    )


def carried_out(config: CompareConfig, conclude: "Conclude | None" = None) -> None:
    """Read, check and do what is missing of the comparison that `config` names, or what else it asks for.

    Args:
        config: what to do.
        conclude: what is made of it in the end; None: the tables, figures and report.
    """
    path = find(config.file, HOME)
    out = Path(config.out or Path("runs", "compare", path.stem))
    if config.status:
        show(status(out))
        return

    # Whatever can be wrong is found before any work.
    make_executor = executor_class(config.executor)
    if config.executor == "local" and config.workers != 0 and not config.dry_run:
        local.start_server()  # whose imports take as long as ours
    comparison = read_comparison(path, dict(place.split("=", 1) for place in config.data))
    paths = import_paths(path)
    plan = planned(comparison, config, out)
    check_folder(out, path.stem)
    others = made_otherwise(plan)
    if others:
        note(
            f"{others} finished jobs were made by other sources of gendd {version('gendd')} than the present ones, and "
            "stay as they are. --code sources makes them anew."
        )
    if config.dry_run:
        print(f"{listing(plan)}\n\n{forecast(plan)}")
        return

    with own_folder(out):
        check_folder(out, path.stem)
        with make_executor(means_of(config, plan, out, paths)) as executor:
            settings = {"name": path.stem, **msgspec.json.decode(msgspec.json.encode(comparison))}
            files.write_text(out / FILE, yaml_text(settings))
            note(f"{out}: {len(plan.undone)} of {len(plan.orders)} jobs to do, {executor.said}")
            with View(plan, out, executor) as view:
                carry_out(plan, executor, view)
        (conclude or write)(plan, comparison, comparison.title or path.stem, config, out)
    failed = failures(plan, view)
    if failed:
        note("\n".join([f"{len(view.failed)} failed, {len(view.blocked)} could not be done for that:", *failed]))
        sys.exit(1)


def planned(comparison: Comparison, config: CompareConfig, out: Path) -> Plan:
    """What is to be done, once the data of the cells that are picked have been looked at.

    Raises:
        InputError: no cell is picked; data that cannot be loaded; a cell that cannot be.
    """
    cells = cells_of(comparison)
    picked = [cell for cell in cells if cell.picked(config.only)]
    require(
        bool(picked), f"--only {' '.join(config.only)} picks none of {len(cells)} cells. One is called {cells[0].name}."
    )
    origins = {}
    for choice in comparison.data_choices:
        if any(cell.data == choice.name for cell in picked):
            data = load(choice)
            check_data([cell for cell in picked if cell.data == choice.name], data)
            origins[choice.name] = data.origin
    known = [cell for cell in cells if cell.data in origins]
    return plan_of(known, {cell.name for cell in picked}, out, origins, config.code, config.device)


def means_of(config: CompareConfig, plan: Plan, out: Path, paths: tuple[str, ...]) -> Means:
    """What the executor may use; `paths` are where a user's functions are found."""
    return Means(
        out=out,
        workers=config.workers,
        threads=config.threads,
        memory_gib=config.memory_gib or expected_gib(plan),
        device=config.device,
        paths=paths,
        address=config.address,
        copy=config.copy,
        slurm=config.slurm_options,
    )


def check_folder(out: Path, name: str) -> None:
    """Refuse a folder that holds something else, or another comparison.

    Raises:
        InputError: if it does.
    """
    if not (out / FILE).exists():
        require(not files.occupied(out), f"{out} exists and is no comparison's folder. Choose another --out.")
        return
    before = read_yaml(out / FILE).get("name")
    require(
        before == name, f"{out} holds the comparison '{before}', this one is '{name}'. Choose another --out for it."
    )


def import_paths(path: Path) -> tuple[str, ...]:
    """Where a user's own functions are found beside what is installed: with the comparison's file, and here."""
    paths = tuple(dict.fromkeys([str(path.resolve().parent), str(Path.cwd())]))
    sys.path[:0] = [own for own in paths if own not in sys.path]
    return paths


def expected_gib(plan: Plan) -> float:
    """What a worker is expected to take: the most that finished work did, with `HEADROOM`, and as long as there is
    something to do whose like was never finished, no less than `GIB_PER_WORKER`."""
    pace = Pace(order for order in plan.orders.values() if order.done)
    known = pace.peak_mib is not None and all(pace.alike(order) for order in plan.undone)
    return max(HEADROOM * (pace.peak_mib or 0.0) / 1024, 0.25 if known else GIB_PER_WORKER)


def made_otherwise(plan: Plan) -> int:
    """How many finished jobs were made by other sources than these."""
    return sum(order.done and read_done(order.folder)["sources"] != sources() for order in plan.orders.values())


def listing(plan: Plan) -> str:
    """The cells, and which are done, as text."""
    undone = {order.key for order in plan.undone}
    lines = []
    for cell, key in plan.cells:
        state = "done" if plan.orders[key].done else "to do" if key in undone else "not picked"
        lines.append(f"{state:<10}  {cell.name}")
    kinds = dict.fromkeys(order.kind for order in plan.orders.values())
    for kind in kinds:
        own = [order for order in plan.orders.values() if order.kind == kind]
        lines.append(f"{kind}: {sum(order.done for order in own)} of {len(own)} done")
    return "\n".join(lines)


def write(plan: Plan, comparison: Comparison, title: str, config: CompareConfig, out: Path) -> None:
    """Write the tables, the figures and the report of what is judged, and print the tables."""
    from core_dd.compare import page  # with torch: not for --status
    from core_dd.compare.tables import latex, markdown, pivots_of, table_csv, text

    found = pivots_of(plan)
    if not found:
        return
    for name, content in (
        ("table.md", markdown(title, found)),
        ("table.tex", latex(title, found)),
        ("table.csv", table_csv(found)),
    ):
        files.write_text(out / name, content)
    drawn: list[page.Sketch] = []
    if config.figures:
        drawn = draw_figures(plan, found, comparison, config, out / page.FIGURES)
    page.write(plan, found, drawn, title, out)
    print(f"{text(found)}\n\n{out / page.REPORT / 'report.html'}\n{out / 'table.md'}, table.tex, table.csv")


def draw_figures(
    plan: Plan, pivots: "Sequence[Pivot]", comparison: Comparison, config: CompareConfig, place: Path
) -> "list[Sketch]":
    """The figures, in place of earlier ones; where they cannot be drawn, that is said."""
    from core_dd.compare import figures, page

    why = figures.missing()
    if why is not None:
        note(why)
        return []
    with files.atomic(place, replace=True) as temporary:
        temporary.mkdir()
        return page.draw(plan, pivots, comparison.ablations, config.device, temporary)


if __name__ == "__main__":
    cli.entry(main)
