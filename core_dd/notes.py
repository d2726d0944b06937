"""What a command says to people on stderr beside its log: once, however many processes a launcher started."""

import os
import sys


def is_first_process() -> bool:
    """Whether this process prints: under a launcher only rank 0 does."""
    return os.environ.get("RANK", "0") == "0"


def note(text: str) -> None:
    """A line on stderr."""
    if is_first_process():
        print(text, file=sys.stderr)
