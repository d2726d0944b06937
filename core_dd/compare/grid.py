"""The grid of a comparison: its cells, and the jobs that fill them, each once, before any data are loaded."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from core_dd.commands import imported
from core_dd.compare.jobs import DONE, Job, Order, code_version, key_of, read_done
from core_dd.compare.producers import KINDS, Made, Request
from core_dd.compare.reading import AXES, Comparison, DataChoice, ProtocolChoice, listed
from core_dd.errors import InputError, about, brief, likely, require
from core_dd.judge.options import REAL

if TYPE_CHECKING:
    from core_dd.data.images import ImageData

ROOMS = {
    "experts": "experts",
    "generator": "generators",
    "pool": "pools",
    "classifier": "classifiers",
    "set": "sets",
    "score": "scores",
}
"""Folders of a comparison, by the kind of their jobs."""
REAL_NAME = "whole training set"
"""How people read of it."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of the tables to be.

    Attributes:
        producer, data, ipc, seed, network, protocol: its place; for the whole real training set the producer is "real"
            and ipc None.
        made: how its set comes about; None for the real training set.
        score: the job that judges it.
    """

    producer: str
    data: str
    ipc: int | None
    seed: int
    network: str
    protocol: str
    made: Made | None
    score: Job

    @property
    def place(self) -> dict[str, Any]:
        """By its axes."""
        return {axis: getattr(self, axis) for axis in AXES}

    @property
    def name(self) -> str:
        """DM/digits/ipc10/seed0/convnet3/dm."""
        ipc = REAL if self.ipc is None else f"ipc{self.ipc}"
        return "/".join([self.producer, self.data, ipc, f"seed{self.seed}", self.network, self.protocol])

    def picked(self, patterns: Sequence[str]) -> bool:
        """Whether its name, between slashes, holds one of the patterns, or there are none."""
        return not patterns or any(fnmatchcase(f"/{self.name}/", f"*{pattern}*") for pattern in patterns)


def cells_of(comparison: Comparison) -> list[Cell]:
    """The cells of a comparison in the order in which they are wanted, and how each is filled.

    First the whole training set, wherever something else is judged; then producer by producer. Where the file says
    which cells it wants, those of the first line of `only` come first, and so on.

    Raises:
        InputError: an unknown kind of producer, an option, config, network or protocol that there is not, a grid that
            filters leave empty; a cell that cannot be, naming it.
    """
    protocols = {choice.name: choice for choice in comparison.protocol_choices}
    for choice in protocols.values():
        _resolved(choice)
    data = {choice.name: choice for choice in comparison.data_choices}
    first, cells = comparison.seed_numbers[0], []
    for producer, name, ipc, seed in itertools.product(
        comparison.producers, data, listed(comparison.ipc), comparison.seed_numbers
    ):
        place = {"producer": producer, "data": name, "ipc": ipc, "seed": seed}
        places = [own for own in _judged(comparison, place) if comparison.rank(own) is not None]
        if not places:
            continue
        options = comparison.options_of(place)
        along = any(comparison.judge_of(own).along for own in places)
        made = _made(Request(producer=producer, options=options, data=data[name], ipc=ipc, seed=seed, along=along))
        if made.seeded or seed == first:
            cells += [_cell(comparison, own, made, data[name], protocols[own["protocol"]]) for own in places]
    judged = {(cell.data, cell.network, cell.protocol) for cell in cells}
    reference = [
        _cell(comparison, own, None, data[own["data"]], protocols[own["protocol"]])
        for name in data
        for own in _judged(comparison, {"producer": REAL, "data": name, "ipc": None, "seed": first})
        if comparison.rank(own, among=judged) is not None and not _resolved(protocols[own["protocol"]]).learned_lr
    ]
    require(bool(cells or reference), "the grid is empty: 'only' and 'skip' leave nothing of it.")

    def wanted(cell: Cell) -> int:
        rank = comparison.rank(cell.place, among=judged)
        assert rank is not None
        return rank

    return sorted(reference + cells, key=wanted)


def _judged(comparison: Comparison, place: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A place by every network and protocol."""
    networks, protocols = comparison.network_names, [choice.name for choice in comparison.protocol_choices]
    return [
        {**place, "network": network, "protocol": protocol}
        for network, protocol in itertools.product(networks, protocols)
    ]


def _cell(
    comparison: Comparison, place: Mapping[str, Any], made: Made | None, data: DataChoice, protocol: ProtocolChoice
) -> Cell:
    """A cell, once its set can be judged so."""
    with about("/".join(str(place[axis]) for axis in AXES)):
        resolved, judge = _resolved(protocol), comparison.judge_of(place)
        require(
            made is None or not resolved.learned_lr or made.brings_lr is not False,
            f"protocol {protocol.protocol} trains at a learning rate learnt with the set, and {place['producer']} "
            "learns none. Skip it, or give it another protocol.",
        )
    ipc = "" if made is None else f" ipc {place['ipc']}, seed {place['seed']}"
    size = ipc if made is None or made.of_ipc else f", seed {place['seed']}"
    name = REAL_NAME if made is None else f"{place['producer']}{size}"
    options = {**msgspec.to_builtins(judge), **protocol.options}
    if not judge.along:  # older scores are known by what was asked of them
        del options["along"]
    # Of several trainings, or on a set of a size of its own, nothing is told by a step on ipc images.
    of_more = judge.along or options.get("incremental") is not None or (made is not None and not made.of_ipc)
    score = Job(
        kind="score",
        title=f"{data.name} {place['producer']}{ipc}, by {place['network']}, {protocol.name}",
        function="core_dd.compare.sets:judge",
        options={"network": place["network"], "seed": place["seed"], **options},
        data=data,
        needs={} if made is None else {"made": made.job},
        shown={"name": name, "place": data.place},
        measure=None if of_more else "core_dd.compare.sets:measure_judge",
    )
    return Cell(**place, made=made, score=score)


def _resolved(choice: ProtocolChoice) -> Any:
    """The protocol of a choice, shortened and augmented as it says."""
    from core_dd.judge.protocols import resolved

    return resolved(choice.protocol, choice.epochs, choice.iterations, choice.augment)


def _made(request: Request) -> Made:
    """How a producer makes a set.

    Raises:
        InputError: if it names no kind, or several; or what its kind says.
    """
    kinds = [key for key in request.options if key in KINDS]
    known = ", ".join(KINDS)
    if not kinds:
        spelt = next((likely(key, KINDS) for key in request.options if likely(key, KINDS) != "."), ".")
        said = brief(", ".join(map(str, request.options))) or "nothing"
        raise InputError(f"producer {request.producer} says {said}, but not what it is{spelt} Give one of {known}.")
    require(len(kinds) == 1, f"producer {request.producer} is {' and '.join(kinds)} at once. Give one of {known}.")
    return imported(KINDS[kinds[0]])(request)


def check_data(cells: Sequence[Cell], data: "ImageData") -> None:
    """Refuse cells that cannot be on their data.

    Args:
        cells: those of these data.
        data: the data.

    Raises:
        InputError: naming the first such cell, and why.
    """
    from core_dd.judge.incremental import class_groups
    from core_dd.judge.networks import build_network
    from core_dd.judge.protocols import PROTOCOLS
    from core_dd.sets.factor import check_factor

    smallest = int(data.train_labels.bincount(minlength=data.num_classes).min())
    for network in dict.fromkeys(cell.network for cell in cells):
        with about(f"network {network} on {data.name}"):
            build_network(network, data.shape, data.num_classes)
    for cell in cells:
        if cell.made is None:
            continue
        with about(cell.name):
            check_factor(cell.made.factor, *data.shape[1:], cell.made.decode)
            require(
                cell.made.takes <= smallest,
                f"it takes {cell.made.takes} real training images of every class, and the smallest has {smallest}.",
            )
            if cell.made.check is not None:
                cell.made.check(data, PROTOCOLS[cell.score.options["protocol"]])
            if "incremental" in cell.score.options:
                class_groups(data.num_classes, cell.score.options["incremental"], cell.seed)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done, in the order in which it is wanted: a job comes after those it needs.

    Attributes:
        orders: by their keys.
        cells: with the key of each one's score.
        picked: names of the cells that are asked for; the others are shown where they are done.
    """

    orders: Mapping[str, Order]
    cells: Sequence[tuple[Cell, str]]
    picked: Collection[str]

    @cached_property
    def wanted(self) -> dict[str, Order]:
        """By their keys, the orders behind the cells that are asked for, whether done or not."""
        return self._behind(lambda order: True)

    @cached_property
    def undone(self) -> list[Order]:
        """What is not there yet, as far as a cell that is asked for still wants it."""
        return list(self._behind(lambda order: not order.done).values())

    def _behind(self, choose: Callable[[Order], bool]) -> dict[str, Order]:
        """The orders that are chosen behind the cells that are asked for: their own, and those that a chosen one
        needs, before it."""
        found: dict[str, Order] = {}

        def want(order: Order) -> None:
            if order.key not in found and choose(order):
                for key in order.needs:
                    want(self.orders[key])
                found[order.key] = order

        for cell, key in self.cells:
            if cell.name in self.picked:
                want(self.orders[key])
        return found


def plan_of(
    cells: Sequence[Cell],
    picked: Collection[str],
    out: Path,
    origins: Mapping[str, Mapping[str, str]],
    code: str,
    device: str | None,
) -> Plan:
    """The orders that fill cells.

    Args:
        cells: the cells.
        picked: names of those that are asked for.
        out: the comparison's folder.
        origins: what each of the data is, by name: `ImageData.origin`.
        code: a key of `core_dd.compare.options.CODE_CHOICES`.
        device: where to work.
    """
    orders: dict[str, Order] = {}
    code = code_version(code)
    there = {kind: _by_key(out / room) for kind, room in ROOMS.items()}

    def ordered(job: Job, like: str, measured_with: Mapping[str, Any]) -> str:
        needs = {name: ordered(need, "", {}) for name, need in job.needs.items()}
        key = key_of(job, origins, code)
        if key not in orders:
            name = there[job.kind].get(key) or _older(out / ROOMS[job.kind], there[job.kind], key)
            name = name or f"{slug(job.title)}-{key}"
            orders[key] = Order(
                key=key,
                kind=job.kind,
                title=job.title,
                function=job.function,
                options={**job.options, **job.shown},
                data=job.data,
                folder=str(out / ROOMS[job.kind] / name),
                log=str(out / "logs" / f"{job.kind}-{name}.log"),
                needs=tuple(needs.values()),
                folders={own: orders[need].folder for own, need in needs.items()},
                device=device,
                like=like or f"{job.kind} {job.title}",
                measure=job.measure,
                measured_with={**job.options, **job.shown, **measured_with},
            )
        return key

    found = []
    for cell in cells:
        place = f"{cell.producer} {cell.data} {cell.ipc}"
        if cell.made is not None:
            ordered(cell.made.job, f"set {place}", {})
        images = {"images_per_class": cell.ipc * cell.made.factor**2 if cell.made else None}
        found.append((cell, ordered(cell.score, f"score {place} {cell.network} {cell.protocol}", images)))
    return Plan(orders=orders, cells=found, picked=picked)


def _by_key(room: Path) -> dict[str, str]:
    """A room's folders, as far as they are there, by the key that ends their names: whoever came first has named them.
    Of several of one key, one that is done."""
    names = [path.name for path in room.iterdir()] if room.is_dir() else []
    return {name.rpartition("-")[2]: name for name in sorted(names, key=lambda own: (room / own / DONE).is_file())}


def _older(room: Path, there: Mapping[str, str], key: str) -> str | None:
    """The folder of a job where it is called as folders were once, by half of its key; no other's that begins alike."""
    name = there.get(key[:8])
    if name is None or ((room / name / DONE).is_file() and read_done(room / name)["key"] != key):
        return None
    return name


def slug(title: str) -> str:
    """A title as part of a file's name."""
    return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in title).split())[:100]
