"""What a command says to people on stderr beside its log: once, however many processes a launcher started."""

import sys
import unicodedata
from typing import Any

from core_dd import processes


def printable(value: Any) -> Any:
    """Words from a file without what steers a terminal or a page or is unseen, which is shown as its code: "\\x1b".

    Args:
        value: a string, or dicts and lists that hold strings.
    """
    if isinstance(value, str):
        return value if value.isprintable() else "".join(map(_seen, value))
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, list) else value


def _seen(character: str) -> str:
    """A character, or its code where it has no shape and is no space."""
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")


def note(text: str) -> None:
    """Lines on stderr, each `printable`."""
    if processes.is_first():
        print("\n".join(map(printable, text.split("\n"))), file=sys.stderr)
