"""What `gendd COMMAND --help` prints: options by group, what each means, may be, and is if not given."""

import ast
import inspect
import itertools
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from core_dd.options import hidden, mark

ORDER = ("data", "", "speed", "run")
"""In which order groups are shown; "" stands for all others."""

INDENT = " " * 6


def helptext(cls: type, defaults: Mapping[str, Any], prog: str, notes: str = "") -> str:
    """The help of a command.

    Args:
        cls: its config class; every field has its meaning as a string below it.
        defaults: what each option is if not given.
        prog: how the command is called.
        notes: what is said below the description of the class.
    """
    width = min(max(shutil.get_terminal_size().columns, 60), 110)
    meanings, hints = field_meanings(cls), typing.get_type_hints(cls)
    groups: dict[str, list[str]] = {}
    for own in (own for own in fields(cls) if own.name not in hidden(cls)):
        lines = _option(cls, own.name, hints[own.name], defaults[own.name], meanings.get(own.name, ""), width)
        groups.setdefault(group_of(cls, own.name), []).append("\n".join(lines))
    parts = [f"usage: {prog} [--option value ...]"]
    parts += ["\n".join(_wrapped(text, width)) for text in _paragraphs(cls.__doc__ or "", notes)]
    for name in sorted(groups, key=lambda name: ORDER.index(name if name in ORDER else "")):
        parts.append("\n".join([f"{name}:", *groups[name]]))
    return "\n\n".join(parts)


def group_of(cls: type, name: str) -> str:
    """The heading of a field: its own, else that of the class that has it first."""
    first = next(base for base in reversed(cls.__mro__) if name in inspect.get_annotations(base))
    return mark(cls, name, "group") or getattr(first, "GROUP", "options")


def field_meanings(cls: type) -> dict[str, str]:
    """The strings below the fields of a dataclass and of those it derives from, by name."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if is_dataclass(base):
            found |= dict(_meanings_in(_body(base)))
    return found


def _body(cls: type) -> list[ast.stmt]:
    """The statements of a class, from the source of its module."""
    module = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
    return next(node.body for node in ast.walk(module) if isinstance(node, ast.ClassDef) and node.name == cls.__name__)


def _meanings_in(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for stated, below in itertools.pairwise(body):
        match stated, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, text


def _paragraphs(*texts: str) -> list[str]:
    return [paragraph for text in texts for paragraph in text.split("\n\n") if paragraph.strip()]


def _option(cls: type, name: str, hint: Any, default: Any, meaning: str, width: int) -> list[str]:
    """The lines of one option."""
    choices = mark(cls, name, "choices") or {}
    flag = mark(cls, name, "flag", name)
    flag = f"--{flag}, --no_{flag}" if hint is bool else f"--{flag} {'NAME' if choices else metavar(hint)}"
    if default == "":
        flag += "  (required)"
    elif default is not None and default != ():
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        flag += f"  (default: {shown})"
    lines = [f"  {flag}"]
    lines += _wrapped(meaning, width, INDENT, INDENT)
    longest = max(map(len, choices), default=0)
    for choice, line in choices.items():
        head, rest = f"{INDENT}  {choice:<{longest}}  ", INDENT + " " * (longest + 4)
        lines += _wrapped(line, width, head, rest)
    return lines


def _wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def metavar(hint: Any) -> str:
    """What stands for a value of a type: INT, FLOAT FLOAT, {True,False}, [STR ...]."""
    of = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return "|".join(metavar(one) for one in of if one is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        return f"[{metavar(of[0])} ...]" if of[-1] is Ellipsis else " ".join(map(metavar, of))
    return "{True,False}" if hint is bool else hint.__name__.upper()
