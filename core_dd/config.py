"""One config per command: a typed dataclass, filled by its defaults, then YAML files, then command-line flags.

The only file that knows tyro (flags and `--help`) and OmegaConf (YAML with types checked).
"""

import contextlib
import dataclasses
import math
import os
import re
import sys
import types
import typing
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from core_dd.errors import InputError, brief, likely, require
from core_dd.notes import is_first_process
from core_dd.settings import ConfigFile, find

C = TypeVar("C")


def load_config(cls: type[C], argv: Sequence[str] | None = None, prog: str | None = None, home: str = "") -> C:
    """Build `cls` from its defaults, then each `--config NAME_OR_FILE` in order, then dotted flags.

    Of a file with `settings` (see `ConfigFile`) the one applies that fits the `data` and `ipc` of the flags, else of
    the other files; `--config NAME:DATA` names the data whose setting is taken.

    Args:
        cls: a `@dataclass(kw_only=True)`, every field with a default and a docstring below it.
        argv: the arguments after the command's name; None reads `sys.argv`.
        prog: the name shown by `--help`.
        home: the folder of configs/ in which `--config NAME` is looked up first.

    Returns:
        An instance of `cls`; its `__post_init__` has checked it.

    Raises:
        InputError: an unknown config, no setting for the data and ipc, unknown or duplicate YAML keys (file, key and
            likely spelling), wrong types, infinite numbers, an output whose name is not UTF-8, failed checks.
        SystemExit: by tyro, status 0 after `--help` and 2 for flags it cannot take, with its own message.
    """
    import tyro

    files, rest = read_configs(argv, home)
    for file, _ in files:
        _check_file(cls, file)
    default = _unchecked(cls, _merge_files(cls, [(file.path, values) for file, values in files]))
    with _checks_deferred(cls):
        config = tyro.cli(
            cls,
            args=rest,
            default=default,
            prog=prog,
            config=(tyro.conf.AvoidSubcommands,),
            use_underscores=True,
            description=f"{(cls.__doc__ or '').strip()}\n\n{CONFIG_HELP}",
            console_outputs=is_first_process(),
        )
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{field.name} must be a finite number, got {value}.")
        if field.name == "out" and re.search("[\ud800-\udfff]", str(value)):  # which safetensors cannot read
            raise InputError(f"out must be a name in UTF-8, got {value!r}.")
    if hasattr(config, "__post_init__"):
        config.__post_init__()
    return config


CONFIG_HELP = (
    "--config NAME (of those that come with gendd, NAME:DATA for the settings of other data) or --config FILE.yaml, "
    "repeatable, is read before the flags."
)


def read_configs(argv: Sequence[str] | None, home: str) -> tuple[list[tuple[ConfigFile, dict[str, Any]]], list[str]]:
    """The files that `--config` names, each with the values that apply, and the other arguments.

    Raises:
        InputError: an unknown config, or no setting for the data and ipc (unless only help is asked for).
    """
    named, rest = _split_arguments(sys.argv[1:] if argv is None else argv)
    files: list[tuple[ConfigFile, str | None]] = []
    for name in named:
        name, _, data = (name, "", "") if os.path.isfile(name) or ":" not in name else name.rpartition(":")
        file = read_config(find(name, home))
        require(bool(file.settings or not data), f"{file.path} has no settings to choose from: leave out ':{data}'.")
        files.append((file, data or None))
    commons = [file.common for file, _ in files]
    data, ipc = _asked(rest, commons, "data"), _asked(rest, commons, "ipc")
    helping = not {"-h", "--help"}.isdisjoint(rest)
    return [(file, _applying(file, own or data, ipc, helping)) for file, own in files], rest


def _applying(file: ConfigFile, data: Any, ipc: Any, helping: bool) -> dict[str, Any]:
    """What of a file applies; for help, which needs no data, what does in any case."""
    try:
        return file.chosen(data, ipc)
    except InputError:
        if helping:
            return dict(file.common)
        raise


def peek(argv: Sequence[str] | None, key: str, home: str = "") -> str | None:
    """The value one top-level key will get from flags or YAML files, before the config class is known.

    Returns None where neither gives it.
    """
    files, rest = read_configs(argv, home)
    value = _asked(rest, [values for _, values in files], key)
    return None if value is None else str(value)


def _asked(rest: Sequence[str], files: Sequence[Mapping[str, Any]], key: str) -> Any:
    """The value of a key by the last flag, else by the last file that has it; None where none does."""
    for i in range(len(rest) - 1, -1, -1):
        flag, _, value = rest[i].partition("=")
        if flag.replace("-", "_") == f"__{key}":
            return value if value else (rest[i + 1] if i + 1 < len(rest) else None)
    return next((values[key] for values in reversed(files) if key in values), None)


def _split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate what every `--config X` / `--config=X` names from the other arguments."""
    named, rest, arguments = [], [], iter(argv)
    for argument in arguments:
        if argument == "--config":
            value = next(arguments, None)
            if value is None:
                raise InputError(
                    "--config needs a name or a file after it, e.g. --config digits or --config mine.yaml."
                )
            named.append(value)
        elif argument.startswith("--config="):
            named.append(argument.removeprefix("--config="))
        else:
            rest.append(argument)
    return named, rest


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        InputError: missing file, invalid YAML, a duplicate key, or a top level that is no mapping.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"no config file at {path}. Those of gendd go by their names, such as --config digits.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:  # whatever its parts raise
        raise InputError(f"{path} is not valid YAML: {brief(' '.join(str(error).split()))}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}, expected 'key: value' lines.")
    return values


def read_config(path: Path) -> ConfigFile:
    """Read one file of values and settings.

    Raises:
        InputError: as `read_yaml` and `ConfigFile.of` do.
    """
    return ConfigFile.of(path, read_yaml(path))


def to_dict(config: Any) -> dict[str, Any]:
    """A plain dict of a config, ready for YAML or JSON (paths as strings, tuples as lists)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def to_yaml(config: Any) -> str:
    """The YAML that `load_config` reads back into an equal config."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


DEEPEST = 20
"""How deep the values of a YAML file may be nested."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 2e-4 as a number (YAML 1.1 wants 2.0e-4), and refuses what no settings need: duplicate
    keys, aliases (a short file of them stands for gigabytes), deep nesting, OmegaConf's placeholders, and the null
    character."""

    depth = 0

    def compose_node(self, parent, index):
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias (*name); write the value out", mark)
        if self.depth == DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {DEEPEST}", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_scalar(self, node):
        value = super().construct_scalar(node)
        if "${" in value or value == "???" or "\0" in value:
            raise yaml.constructor.ConstructorError(
                None, None, f"'{value}' is no value; write out what it stands for", node.start_mark
            )
        return value

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no name", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}'", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _merge_files(cls: type, files: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """The defaults of `cls` overlaid with the values of every file, types checked."""
    from omegaconf import OmegaConf, errors

    merged = OmegaConf.structured(cls)
    for file, values in files:
        for key, value in values.items():
            try:
                merged = OmegaConf.merge(merged, {key: value})
            except (errors.OmegaConfBaseException, ValueError, TypeError) as error:
                hint = typing.get_type_hints(cls)[key]
                raise InputError(
                    f"{file}: '{key}' is {brief(repr(value))}, expected {getattr(hint, '__name__', hint)} "
                    f"({brief(str(error).splitlines()[0])})."
                ) from None
    return OmegaConf.to_container(merged)


def _check_file(cls: type, file: ConfigFile) -> None:
    """Refuse keys that `cls` does not have, those of settings that do not apply included."""
    _check_keys(cls, file.common, file.path, prefix="")
    for (name, ipc), values in file.settings.items():
        _check_keys(cls, values, file.path, prefix=f"settings[{name}, ipc {ipc}].")


def _check_keys(cls: type, values: Mapping[str, Any], file: Path, prefix: str) -> None:
    """Refuse keys that `cls` does not have, naming the file, the key and the likely spelling."""
    fields = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in fields:
            raise InputError(
                f"{file}: unknown key '{prefix}{key}'{likely(key, fields)} "
                f"{cls.__name__} takes {', '.join(sorted(fields))}."
            )
        inner = _dataclass_in(fields[key])
        if inner is not None and isinstance(value, dict):
            _check_keys(inner, value, file, prefix=f"{prefix}{key}.")


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass a type hint holds (itself, or inside Optional), if any."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)


def _unchecked(cls: type[C], values: dict[str, Any]) -> C:
    """An instance without `__post_init__`: flags may still mend what its checks would refuse."""
    instance, hints = object.__new__(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        value, inner = values[field.name], _dataclass_in(hints[field.name])
        if inner is not None and isinstance(value, dict):
            value = _unchecked(inner, value)
        elif typing.get_origin(hints[field.name]) is tuple and isinstance(value, list):
            value = tuple(value)
        object.__setattr__(instance, field.name, value)
    return instance


@contextlib.contextmanager
def _checks_deferred(cls: type) -> Iterator[None]:
    """Hold back `__post_init__` while tyro builds the config: it would print a failed check as a parse error."""
    check = cls.__dict__.get("__post_init__")
    cls.__post_init__ = lambda self: None
    try:
        yield
    finally:
        if check is None:
            del cls.__post_init__
        else:
            cls.__post_init__ = check
