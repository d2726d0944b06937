"""What a command says to people on stderr beside its log: once, however many processes a launcher started."""

import os
import re
import sys
from typing import Any

UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, ends of lines, what turns the direction of writing, and halves of characters."""


def printable(value: Any) -> Any:
    """Words from a file without what steers a terminal or a page, which is shown as its code: "\\x1b".

    Args:
        value: a string, or dicts and lists that hold strings.
    """
    if isinstance(value, str):
        return UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), value)
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, list) else value


def is_first_process() -> bool:
    """Whether this process prints: under a launcher only rank 0 does."""
    return os.environ.get("RANK", "0") == "0"


def note(text: str) -> None:
    """Lines on stderr, each `printable`."""
    if is_first_process():
        print("\n".join(map(printable, text.split("\n"))), file=sys.stderr)
