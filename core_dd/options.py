"""Options: fields of a command's dataclass that say more of themselves than type, default and meaning. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, ClassVar

from core_dd.errors import at_least, pick


def option(
    default: Any,
    *,
    group: str | None = None,
    choices: Mapping[str, str] | None = None,
    others: bool | None = None,
    free_on_resume: bool | None = None,
    saved: bool | None = None,
    flag: str | None = None,
) -> Any:
    """A field of a config with marks, which a field that overrides it keeps unless it has its own.

    Args:
        default: its default.
        group: the heading under which help shows it; default: the `GROUP` of the class that has it first.
        choices: what it may be, by name, with a line that explains it; help lists them.
        others: whether it may be something else, too; else `Options` refuses it.
        free_on_resume: whether a resumed run may change it without becoming another run.
        saved: False where it says how the command was called, not what is computed, and so does not stand in a run's
            config.yaml.
        flag: what its flag is called, where Python keeps that name for itself: from.
    """
    marks = {"group": group, "choices": choices, "others": others, "free_on_resume": free_on_resume, "saved": saved}
    marks["flag"] = flag
    return field(default=default, metadata={key: value for key, value in marks.items() if value is not None})


def mark(cls: type, name: str, key: str, default: Any = None) -> Any:
    """What a field, or the nearest one it overrides that is marked, says of itself; see `option`."""
    for base in cls.__mro__:
        own = vars(base).get("__dataclass_fields__", {}).get(name)
        if own is not None and key in own.metadata:
            return own.metadata[key]
    return default


def hidden(cls: type) -> frozenset[str]:
    """The fields of a config that its command has no use for; see `Options.HIDDEN`."""
    return getattr(cls, "HIDDEN", frozenset())


@dataclass(kw_only=True)
class Options:
    """What the options of every command derive from.

    Raises:
        InputError: for a name that is none of its option's choices.
    """

    GROUP: ClassVar[str] = "options"
    """The heading under which help shows what a class adds."""
    RENAMED: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The names that options had before, and are still understood by, with those they have now."""
    HOME: ClassVar[str] = ""
    """The folder of configs/ whose files are the command's."""
    HIDDEN: ClassVar[frozenset[str]] = frozenset()
    """Inherited options that the command has no use for: neither help shows them nor gendd.yaml gives them."""

    def __post_init__(self) -> None:
        for own in fields(self):
            value, choices = getattr(self, own.name), mark(type(self), own.name, "choices")
            if choices is not None and value is not None and not mark(type(self), own.name, "others"):
                pick(choices, value, own.name)


TRACKER_CHOICES = MappingProxyType(
    {
        "tensorboard": "curves in a browser: tensorboard --logdir runs",
        "wandb": "Weights & Biases; this and others must be installed",
        "none": "none",
    }
)
"""Experiment trackers, of which accelerate knows more."""


@dataclass(kw_only=True)
class RunConfig(Options):
    """How a run goes, whatever it computes; the configs of commands with run folders derive from it."""

    GROUP: ClassVar[str] = "run"

    seed: int = 0
    """Seed of every draw of the run."""
    device: str | None = option(None, free_on_resume=True)
    """cpu, cuda, cuda:1; default: cuda where there is one."""
    out: str | None = option(None, saved=False)
    """The run folder; default: the next number under the name of what is run, in runs/."""
    resume: bool = option(False, saved=False)
    """Go on from the last checkpoint of the run folder."""
    dry_run: bool = option(False, saved=False)
    """Check everything, print the resolved config, the memory and the time to expect, stop."""
    log_every: int = option(20, free_on_resume=True)
    """Iterations between lines of stats.jsonl."""
    checkpoint_every: int = option(1000, free_on_resume=True)
    """Iterations between checkpoints."""
    keep: int = option(3, free_on_resume=True)
    """How many checkpoints to keep."""
    tracker: str = option("tensorboard", choices=TRACKER_CHOICES, others=True, free_on_resume=True)
    """What draws the numbers of stats.jsonl, too: an experiment tracker that accelerate knows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "log_every", "checkpoint_every", "keep")

    def kept_on_resume(self, name: str) -> str | None:
        """Why a resumed run must keep an option, as the end of a clause, empty where that needs no word; None: it may
        change."""
        return None if mark(type(self), name, "free_on_resume") else ""
