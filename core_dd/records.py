"""Records that come back from files: checked against the type they must have, or one sentence says where they differ.

A kind is any type msgspec knows; for what has keys a `TypedDict`, which allows keys beyond its own.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from core_dd import files
from core_dd.errors import Diverged, InputError, require

Number = Annotated[float, msgspec.Meta(ge=-1e100, le=1e100)]
"""A number whose sums and differences stay finite."""

AGAIN = "Write it again, or restore it."
"""What can be done about a damaged file where nothing better is known."""


def read(path: str | Path, kind: Any = Any, hint: str = AGAIN) -> Any:
    """Read a JSON file whose content is of a kind.

    Args:
        path: the file.
        kind: the type, e.g. `dict[str, float]`.
        hint: a sentence on the way out, which ends the message.

    Returns:
        What the file holds: dicts, lists, strings, finite numbers, booleans, None.

    Raises:
        InputError: no such file, no JSON (cut, not UTF-8, NaN, nested too deeply), or another kind; the message names
            the file, the place in it, and what was expected there.
    """
    try:
        require(Path(path).is_file() or not Path(path).exists(), f"cannot read {path}: it is no regular file. {hint}")
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Expected a JSON file there. {hint}") from None
    return parse(content, kind, str(path), hint)


def parse(content: bytes | str, kind: Any, where: str, hint: str = AGAIN) -> Any:
    """JSON text of a kind, as `read`; `where` is what messages call it."""
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InputError(
            f"{where} is not valid JSON ({error}): it is cut, or holds NaN or other foreign text. {hint}"
        ) from None
    return checked(value, kind, where, hint)


def encoded(value: Any, where: str) -> str:
    """A value as the JSON text that `parse` reads; `where` is what messages call it.

    Raises:
        InputError: for what JSON does not have: a number that is not finite, an object that is no plain one.
    """
    try:
        return files.json_text(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be written as JSON: {error}. Give plain, finite values.") from None


def checked(value: Any, kind: Any, where: str, hint: str = AGAIN) -> Any:
    """The value as it is, once it is shown to be of a kind; `where` is what messages call it.

    Raises:
        InputError: if it is not.
    """
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        said, _, place = str(error).replace("`", "").partition(" - at $")
        inside = f" at {place.removeprefix('.')}" if place else ""
        raise InputError(f"{where}{inside}: {said[:1].lower()}{said[1:]}. {hint}") from None
    return value


def same_shape(found: Any, own: Any, name: str) -> Any:
    """A tensor that was read back, once it has the shape of the own one that it replaces.

    Raises:
        ValueError: if it has another; copied, it would be repeated silently.
    """
    if found.shape != own.shape:
        raise ValueError(f"{name} has shape {tuple(found.shape)}, expected {tuple(own.shape)}")
    return found


def finite(tensors: Iterable[Any]) -> None:
    """Refuse tensors that were read back with numbers that are none.

    Raises:
        ValueError: if there are any.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise ValueError("numbers that are not finite")


def fitting(optimizer: Any) -> None:
    """Refuse an optimiser whose restored memory has other shapes than its parameters.

    Raises:
        ValueError: if one has.
    """
    for parameter, remembered in optimizer.state.items():
        for name, value in remembered.items():
            if getattr(value, "ndim", 0) > 0:
                same_shape(value, parameter, name)


@contextlib.contextmanager
def restoring(where: str, hint: str = AGAIN) -> Iterator[None]:
    """Take over a state that was read back: whatever does not fit in the block is the file's fault.

    Raises:
        InputError: instead of what the block raised.
    """
    try:
        yield
    except (InputError, Diverged):
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's own, a RuntimeError
            raise
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"{where} does not hold the state of this run ({why}). {hint}") from None
