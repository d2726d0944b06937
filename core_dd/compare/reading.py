"""A comparison's YAML file: what it says, typed, and every name in it known. No torch."""

import itertools
import random
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from core_dd.errors import InputError, likely, require
from core_dd.judge.options import REAL
from core_dd.yaml_files import read_yaml

AXES = ("producer", "data", "ipc", "seed", "network", "protocol")
"""What a cell of the grid is named by, in this order."""

MADE_BY = AXES[:4]
"""The axes that a set depends on; the others say how it is judged."""

LIKE = "like"
"""The key of a producer that names another one, whose options are its own but for those that it gives itself."""

S = TypeVar("S", bound=Struct)
Count = Annotated[int, Meta(ge=1)]
Value = str | int


class DataChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """Data of the grid: how it is called there and where it lies."""

    spec: str
    """As `load_data` takes it."""
    name: str = ""
    """In tables, in filters, and among the settings of published configs."""
    image_size: Count | None = None
    limit_per_class: Count | None = None

    @property
    def place(self) -> dict[str, Any]:
        """As the options of commands name it."""
        return {"data": self.spec, "image_size": self.image_size, "limit_per_class": self.limit_per_class}


class ProtocolChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """How classifiers are trained: a protocol, whole or shortened, with its own augmentation or another."""

    protocol: str
    epochs: Count | None = None
    iterations: Count | None = None
    augment: str | None = None
    """A key of `core_dd.judge.options.AUGMENT_CHOICES`."""
    incremental: Count | None = None
    """Learn the classes in so many steps, with the set as memory, see `core_dd.judge.incremental`."""

    @property
    def name(self) -> str:
        """As scores call it, see `core_dd.judge.protocols.resolved`."""
        shortened = [f"_{self.epochs}_epochs"] * (self.epochs is not None)
        shortened += [f"_{self.iterations}_steps"] * (self.iterations is not None)
        shortened += [f", augment {self.augment}"] * (self.augment is not None)
        shortened += [f"_incremental_{self.incremental}"] * (self.incremental is not None)
        return self.protocol + "".join(shortened)

    @property
    def options(self) -> dict[str, Any]:
        """What the job of a score is told of it, and known by; augment and incremental where there are such."""
        said = msgspec.to_builtins(self)
        return {name: own for name, own in said.items() if own is not None or name in ("epochs", "iterations")}


class Override(Struct, frozen=True, forbid_unknown_fields=True):
    """What changes for some cells: options of their producer, or how they are judged."""

    match: dict[str, Value | list[Value]]
    options: dict[str, Any] = {}
    """Of the producer; then only the axes of `MADE_BY` may choose."""
    judge: dict[str, Any] = {}
    """Fields of `Judge`."""


class Judge(Struct, frozen=True, forbid_unknown_fields=True):
    """How much each set is judged."""

    classifiers: Count | None = None
    """Classifiers per set; None: as many as the protocol says."""
    fidelity: bool = False
    """Whether the distance to the real images is measured, too."""
    smoke: bool = False
    """Whether the scores are marked smoke, because the sets are from shortened runs."""
    along: bool = False
    """Whether the sets that a distillation kept on its way are judged, too: as many as its `checkpoint_every` and
    `keep` say, each as long as the set itself."""


class NetworkGrid(Struct, frozen=True, forbid_unknown_fields=True):
    """ConvNets by depth, width, and suffixes of their names (`core_dd.judge.networks.VARIANTS`). The defaults are the
    720 of DC's and DataDAM's architecture search ([Zhao et al., ICLR 2021](https://arxiv.org/abs/2006.05929))."""

    depth: tuple[Count, ...] = (1, 2, 3, 4)
    width: tuple[Count, ...] = (32, 64, 128, 256)
    act: tuple[str, ...] = ("sigmoid", "relu", "leakyrelu")
    norm: tuple[str, ...] = ("nonorm", "bn", "ln", "in", "gn")
    pool: tuple[str, ...] = ("nopool", "maxpool", "avgpool")
    draw: Count | None = None
    """Only so many of them, drawn at random."""
    seed: Annotated[int, Meta(ge=0)] = 0
    """Of the draw."""

    @property
    def names(self) -> list[str]:
        """The networks, in the order of the grid."""
        own = itertools.product(self.depth, self.width, self.norm, self.act, self.pool)
        names = ["convnet{}_w{}_{}_{}_{}".format(*each) for each in own]
        if self.draw is None or self.draw >= len(names):
            return names
        drawn = set(random.Random(self.seed).sample(range(len(names)), self.draw))
        return [name for number, name in enumerate(names) if number in drawn]


class Comparison(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says; lists may be single values."""

    producers: dict[str, dict[str, Any]]
    data: str | list[str] | dict[str, str | DataChoice]
    ipc: Count | list[Count]
    title: str = ""
    seeds: Annotated[int, Meta(ge=1, le=10000)] | Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)] = 1
    """How many seeds, from 0, or which."""
    networks: str | list[str] | NetworkGrid = "convnet3"
    protocols: str | ProtocolChoice | list[str | ProtocolChoice] = "dm"
    judge: Judge = Judge()
    real: bool = True
    """Whether the whole real training set is judged, too, as a reference."""
    only: list[dict[str, Value | list[Value]]] = []
    skip: list[dict[str, Value | list[Value]]] = []
    overrides: list[Override] = []
    ablations: dict[str, Annotated[list[str], Meta(min_length=2)]] = {}
    """Figures to draw: by what is varied, the producers that vary it; the first is what the others are measured by."""

    @property
    def data_choices(self) -> list[DataChoice]:
        """The data, each with its name."""
        if isinstance(self.data, dict):
            choices = {name: DataChoice(own) if isinstance(own, str) else own for name, own in self.data.items()}
            return [msgspec.structs.replace(own, name=name) for name, own in choices.items()]
        return [DataChoice(spec, name=spec) for spec in listed(self.data)]

    @property
    def seed_numbers(self) -> list[int]:
        """The seeds of the sets."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def protocol_choices(self) -> list[ProtocolChoice]:
        """The protocols."""
        return [ProtocolChoice(own) if isinstance(own, str) else own for own in listed(self.protocols)]

    @property
    def network_names(self) -> list[str]:
        """The networks."""
        return self.networks.names if isinstance(self.networks, NetworkGrid) else listed(self.networks)

    def judge_of(self, cell: Mapping[str, Value | None]) -> Judge:
        """How a cell is judged: as all, but for what its overrides say."""
        return msgspec.convert({**msgspec.to_builtins(self.judge), **_overridden(self.overrides, "judge", cell)}, Judge)

    def options_of(self, cell: Mapping[str, Value | None]) -> dict[str, Any]:
        """The options of a cell's producer: its own, but for what its overrides say."""
        return {**self.producers[str(cell["producer"])], **_overridden(self.overrides, "options", cell)}

    def rank(self, cell: Mapping[str, Value | None], among: Collection[tuple[Value | None, ...]] = ()) -> int | None:
        """When a cell is wanted, lower first: at the first line of `only` that is about it; None: not at all.

        The real training set is wanted first, and wherever something else is judged, unless `only` says where.

        Args:
            cell: its place.
            among: (data, network, protocol) of what else is judged.
        """
        if any(matches(own, cell) for own in self.skip):
            return None
        real = cell["producer"] == REAL
        if real and not any(REAL in listed(own.get("producer")) for own in self.only):
            wanted = self.real and (cell["data"], cell["network"], cell["protocol"]) in among
            return -1 if wanted else None
        return next((i for i, own in enumerate(self.only or [{}]) if matches(own, cell)), None)


def read_comparison(path: Path, places: Mapping[str, str]) -> Comparison:
    """The comparison in a file.

    Args:
        path: the file.
        places: specs that replace those of data in the file, by name.

    Raises:
        InputError: no such file, no YAML, a key, axis or axis value that is unknown (with its likely spelling), a
            value of a wrong type, an axis that is empty or names something twice.
    """
    values = read_yaml(path)
    _known(values, Comparison.__struct_fields__, f"{path}: unknown key")
    overrides = values.get("overrides")
    for number, own in enumerate(overrides if isinstance(overrides, list) else [], 1):
        if isinstance(own, dict):
            _known(own, Override.__struct_fields__, f"{path}: unknown key of override {number}")
    comparison = _typed(values, Comparison, str(path))
    producers = {name: _whole(name, comparison.producers, path) for name in comparison.producers}
    return _placed(_checked(msgspec.structs.replace(comparison, producers=producers), path), places)


def _typed(values: Mapping[str, Any], kind: type[S], where: str) -> S:
    """Values from YAML as the struct they are to be."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).replace("`", "").partition(" - at $")
        raise InputError(f"{where}{' at ' + place.removeprefix('.') if place else ''}: {said}.") from None


def _whole(name: str, producers: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, Any]:
    """The options of a producer, those of the one it is `like` below them."""
    chain = [name]
    while LIKE in producers[chain[-1]]:
        other = str(producers[chain[-1]][LIKE])
        where = f"{path}: producer {chain[-1]} is like '{other}'"
        require(other in producers, f"{where}, but there is no such producer{likely(other, producers)}")
        require(other not in chain, f"{where}, which is like it. Write out one of them.")
        chain.append(other)
    options: dict[str, Any] = {}
    for own in reversed(chain):
        options |= producers[own]
    options.pop(LIKE, None)
    return options


def _placed(comparison: Comparison, places: Mapping[str, str]) -> Comparison:
    """The comparison with data from other places."""
    choices = {choice.name: choice for choice in comparison.data_choices}
    for name, spec in places.items():
        require(name in choices, f"--data {name}={spec}: the comparison has no data '{name}'{likely(name, choices)}")
        choices[name] = msgspec.structs.replace(choices[name], spec=spec)
    return msgspec.structs.replace(comparison, data=choices)


def _checked(comparison: Comparison, path: Path) -> Comparison:
    """The comparison as it is, once every axis has values and every filter names some of them."""
    values = axis_values(comparison)
    for axis, own in values.items():
        require(bool(own), f"{path}: the grid is empty, because it names no {axis}.")
        twice = [value for value, count in Counter(own).items() if count > 1]
        require(not twice, f"{path} names {axis} {twice[0] if twice else ''} twice.")
    for name in [*comparison.producers, *(comparison.data if isinstance(comparison.data, dict) else ())]:
        require(
            re.fullmatch(r"[^/*?\[\]]{1,80}", name) is not None and name.isprintable(),
            f"{path}: {name!r} cannot be a name: at most 80 letters, without / * ? [ ], which --only understands.",
        )
    require(REAL not in comparison.producers, f"{path}: the producer 'real' is always there; give 'real: true'.")
    for name, varied in comparison.ablations.items():
        for producer in varied:
            unknown = f"{path}: ablation '{name}': there is no producer '{producer}'"
            require(producer in comparison.producers, f"{unknown}{likely(producer, comparison.producers)}")
    for kind, filters in (("only", comparison.only), ("skip", comparison.skip)):
        for chosen in filters:
            _check_filter(chosen, values, f"{path}: '{kind}'")
    for number, override in enumerate(comparison.overrides, 1):
        where = f"{path}: override {number}"
        require(bool(override.options or override.judge), f"{where} changes nothing. Give 'options' or 'judge'.")
        _check_filter(override.match, values, where, MADE_BY if override.options else AXES)
        _known(override.judge, Judge.__struct_fields__, f"{where}: unknown key of 'judge'")
        _typed(override.judge, Judge, f"{where}, 'judge'")
    return comparison


def _check_filter(
    own: Mapping[str, Any], values: Mapping[str, Sequence[Value]], where: str, axes: Sequence[str] = AXES
) -> None:
    """Refuse a filter on what is no axis, or not one of `axes`, or for a value that the axis does not have."""
    require(bool(own), f"{where} names no axis, and so would be about everything.")
    _known(own, AXES, f"{where}: unknown axis")
    for axis, wanted in own.items():
        require(
            axis in axes,
            f"{where} changes options by {axis}, but a set is made once for all of them. Choose by {', '.join(axes)}.",
        )
        for value in listed(wanted):
            known = [*values[axis], REAL] if axis == "producer" else values[axis]
            require(value in known, f"{where}: the comparison has no {axis} '{value}'{likely(value, known)}")


def axis_values(comparison: Comparison) -> dict[str, list[Value]]:
    """What the axes hold, as the file says; protocols by their names in scores."""
    return {
        "producer": list(comparison.producers),
        "data": [choice.name for choice in comparison.data_choices],
        "ipc": listed(comparison.ipc),
        "seed": comparison.seed_numbers,
        "network": comparison.network_names,
        "protocol": [choice.name for choice in comparison.protocol_choices],
    }


def matches(own: Mapping[str, Value | list[Value]], cell: Mapping[str, Value | None]) -> bool:
    """Whether a filter is about a cell: every axis it names has one of its values."""
    return all(cell.get(axis) in listed(wanted) for axis, wanted in own.items())


def listed(value: Any) -> list[Any]:
    """A list, or the one value as a list."""
    return value if isinstance(value, list) else [value]


def _overridden(overrides: Sequence[Override], part: str, cell: Mapping[str, Value | None]) -> dict[str, Any]:
    """What the overrides that match a cell say, the last one last."""
    changes: dict[str, Any] = {}
    for own in overrides:
        if matches(own.match, cell):
            changes |= getattr(own, part)
    return changes


def _known(keys: Mapping[Any, Any], known: Sequence[str], what: str) -> None:
    """Refuse keys that are not known, with the likely spelling."""
    for key in keys:
        if key not in known:
            raise InputError(f"{what} '{key}'{likely(key, known)} It takes {', '.join(sorted(known))}.")
