"""Where sets come from: kinds of producers by the key that names them in a comparison's file. No torch."""

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from core_dd.compare.jobs import Job
from core_dd.compare.reading import DataChoice
from core_dd.errors import InputError, brief

if TYPE_CHECKING:
    from core_dd.data.images import ImageData
    from core_dd.judge.protocols import Protocol

KINDS: MappingProxyType[str, str] = MappingProxyType(
    {
        "method": "matching_dd.producers:method",
        "coreset": "matching_dd.producers:coreset",
        "generator": "gen_dd.producers:generator",
        "pool": "gen_dd.producers:pool",
        "set": "core_dd.compare.sets:existing",
        "function": "core_dd.compare.sets:function",
    }
)
"""Functions (Request) -> `Made`, by kind: a distillation, a choice of real images, what a generator draws, a choice
from a generated pool, a set that is there, a function of the user's own."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A set that is wanted.

    Attributes:
        producer: its name in the comparison.
        options: what the comparison says of it, the kind's own key included.
        data: what it stands for.
        ipc: images per class.
        seed: of all its draws.
        along: whether what is kept on the way to it is judged, too.
    """

    producer: str
    options: Mapping[str, Any]
    data: DataChoice
    ipc: int
    seed: int
    along: bool = False

    @property
    def title(self) -> str:
        """What people read."""
        return f"{self.producer} {self.data.name} ipc{self.ipc} seed{self.seed}"

    def path(self, key: str, **axes: Any) -> Path:
        """The path that an option is, in which `{seed}` and the like stand for the cell's.

        Args:
            key: of the option.
            axes: what may stand in braces, and for what.

        Raises:
            InputError: braces with anything else.
        """
        said = str(self.options[key])
        try:
            return Path(said.format(**axes))
        except (AttributeError, LookupError, ValueError):
            known = ", ".join(f"{{{name}}}" for name in axes)
            raise InputError(
                f"{self.title}: the {key} {brief(said)} has braces around what is none of {known}. Write one of these, "
                "or other braces twice."
            ) from None

    def varies(self, key: str, axis: str) -> bool:
        """Whether the path that an option is has a place for an axis, as `{seed}` or `{seed:05d}`."""
        return any(field == axis for _, field, _, _ in string.Formatter().parse(str(self.options[key])))


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a set is made, and what is known of it before.

    Attributes:
        job: fills a folder with `distilled.safetensors`.
        factor, decode: every image holds factor x factor smaller ones, see `core_dd.sets.factor`.
        takes: real training images of every class that it takes without replacement.
        brings_lr: whether it carries a learning rate; None: not known.
        seeded: whether another seed gives another set; else it is judged once.
        of_ipc: whether it has the ipc images of every class that are wanted; else it has as many as there are, and is
            compared with no other.
        check: raises InputError where the set cannot be made from the data it is given, or judged by the protocol.
    """

    job: Job
    factor: int = 1
    decode: str = "single"
    takes: int = 0
    brings_lr: bool | None = False
    seeded: bool = True
    of_ipc: bool = True
    check: "Callable[[ImageData, Protocol], None] | None" = None
