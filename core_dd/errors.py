"""Errors that are the user's to fix: one sentence saying what was given, what was expected and how to fix it."""

import contextlib
import difflib
import math
import operator
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """What the user gave is wrong (a path, an option, a file); commands print the message and exit with status 2."""


class Terminated(SystemExit):
    """This process was asked to end."""


class Diverged(InputError):
    """A loss or a weight that must be finite is not; the message names the step."""


def require(condition: bool, message: str) -> None:
    """Raise `InputError(message)` unless the condition holds.

    Examples:
        >>> require(1 <= 2, "never said")
        >>> require(1 > 2, "ipc must be >= 2, got 1. Pass --ipc 10.")
        Traceback (most recent call last):
            ...
        core_dd.errors.InputError: ipc must be >= 2, got 1. Pass --ipc 10.
    """
    if not condition:
        raise InputError(message)


def needed(value: T | None, message: str) -> T:
    """The value; raises `InputError(message)` where there is none."""
    if value is None:
        raise InputError(message)
    return value


def at_least(config: object, bound: float, *names: str) -> None:
    """Raise `InputError` unless every named field of `config` is >= bound, or None."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= bound, f"{name} must be >= {bound}, got {value}.")


def whole(name: str, value: Any, bound: int | None = None) -> None:
    """Raise `InputError` unless a value, called `name` in the message, is a whole number, and >= bound if there is one.

    Whole are integers of any kind (Python's, numpy's), not floats that happen to be: 2.0 is none.
    """
    limit = "" if bound is None else f" >= {bound}"
    try:
        value = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number{limit}, got {value!r}.") from None
    require(bound is None or value >= bound, f"{name} must be{limit}, got {value}.")


def above(config: object, bound: float, *names: str) -> None:
    """Raise `InputError` unless every named field of `config` is > bound, and finite, or None."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value > bound, f"{name} must be > {bound}, got {value}.")
        require(value is None or value < math.inf, f"{name} must be finite, got {value}.")


@contextlib.contextmanager
def about(what: str) -> Iterator[None]:
    """Say first what it is that an `InputError` in the block is about, e.g. "--data digts"."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{what}: {error}") from error.__cause__


def pick(registry: Mapping[str, T], name: str, kind: str) -> T:
    """Look `name` up in a registry of `kind` (a noun for the message: "method", "dataset").

    Raises:
        InputError: if the name is unknown; the message carries the likely spelling and every choice.

    Examples:
        >>> pick({"dm": 1, "m3d": 2}, "m3d", "method")
        2
        >>> pick({"dm": 1, "m3d": 2}, "m3", "method")
        Traceback (most recent call last):
            ...
        core_dd.errors.InputError: unknown method 'm3'; did you mean 'm3d'? Choose one of dm, m3d.
    """
    if name in registry:
        return registry[name]
    raise InputError(f"unknown {kind} '{name}'{likely(name, registry)} Choose one of {', '.join(sorted(registry))}.")


def likely(name: str, choices) -> str:
    """The "; did you mean 'x'?" half of a message, or "." when nothing is close.

    Examples:
        >>> likely("convnet", ["convnet3", "resnet18"])
        "; did you mean 'convnet3'?"
    """
    close = difflib.get_close_matches(str(name), [str(choice) for choice in choices], n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else "."


def brief(text: str) -> str:
    """The beginning of a text that may be long, for a message."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


LONGEST = 200
