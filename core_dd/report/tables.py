"""Tables as text: for a terminal, and for Markdown."""

import re
from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], left: frozenset[int] = frozenset({0, 1})) -> str:
    """Plain text with aligned columns; the columns in `left` are flush left, the others flush right.

    Args:
        rows: the headings, then the lines, all of the same length.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = ["-" * width for width in widths]
    aligned = (
        [row[i].ljust(width) if i in left else row[i].rjust(width) for i, width in enumerate(widths)]
        for row in (rows[0], rule, *rows[1:])
    )
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def markdown_table(rows: Sequence[Sequence[str]], left: frozenset[int] = frozenset({0, 1})) -> str:
    """A GitHub table; what would be markup in a cell is escaped. Rows and columns as in `text_table`."""
    rule = ["---" if i in left else "---:" for i in range(len(rows[0]))]
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join("| " + " | ".join(markdown_text(cell) for cell in line) + " |" for line in lines)


def markdown_text(text: str) -> str:
    """Words as they are in Markdown: what would be markup, HTML or a column there is escaped."""
    return re.sub(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
