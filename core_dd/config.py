"""One config per command: a typed dataclass, filled by its defaults, then YAML files, then command-line flags.

The only file that knows tyro (flags) and OmegaConf (YAML with types checked). These and YAML are imported where there
are any flags or files, so that --help need not wait for them.
"""

import contextlib
import dataclasses
import math
import os
import re
import sys
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from core_dd import processes
from core_dd.errors import InputError, about, brief, likely, require
from core_dd.notes import note
from core_dd.options import hidden, mark
from core_dd.settings import ConfigFile, find, packaged

C = TypeVar("C")

PROJECT = "gendd.yaml"
"""The file of a project's defaults, in the working folder: any option of any command."""

HELP = ("-h", "--help")


def load_config(cls: type[C], argv: Sequence[str] | None = None, prog: str | None = None, home: str | None = None) -> C:
    """Build `cls` from its defaults, then gendd.yaml, then each `--config NAME_OR_FILE` in order, then flags.

    Of a file with `settings` (see `ConfigFile`) the one applies that fits the `data` and `ipc` of the flags, else of
    the other files; `--config NAME:DATA` names the data whose setting is taken. Old names of options, `cls.RENAMED`,
    are understood, with a note.

    Args:
        cls: a `@dataclass(kw_only=True)`, every field with a default and a docstring below it.
        argv: the arguments after the command's name; None reads `sys.argv`.
        prog: the name shown by `--help`; default: that of the script.
        home: the folder of configs/ in which `--config NAME` is looked up first; default: `cls.HOME`.

    Returns:
        An instance of `cls`; its `__post_init__` has checked it.

    Raises:
        InputError: an unknown config, no setting for the data and ipc, unknown or duplicate YAML keys (file, key and
            likely spelling), wrong types, infinite numbers, an output whose name is not UTF-8, failed checks.
        SystemExit: status 0 after `--help`, and by tyro 2 for flags it cannot take, with its own message.
    """
    home = getattr(cls, "HOME", "") if home is None else home
    prog, (layers, rest) = prog or Path(sys.argv[0]).name, read_configs(argv, home)
    for layer in layers:
        _check_file(cls, layer.file)
    values = _merged(cls, layers)
    if not set(HELP).isdisjoint(rest):
        if processes.is_first():
            from core_dd.help import helptext

            print(helptext(cls, values, prog, _about_configs(home)))
        raise SystemExit(0)
    values = _flags(cls, _renamed_flags(cls, rest), values, prog)
    values = {name: at_home(value) for name, value in values.items()}
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{name} must be a finite number, got {value}.")
        if name == "out" and re.search("[\ud800-\udfff]", str(value)):  # which safetensors cannot read
            raise InputError(f"out must be a name in UTF-8, got {value!r}.")
    return cls(**values)


def _about_configs(home: str) -> str:
    """What help says of configs."""
    names = f"NAME (of gendd's own: {', '.join(packaged(home))}; NAME:DATA for the settings of other data) or --config "
    return (
        f"--config {names if home else ''}FILE.yaml, repeatable, is read before the flags. What {PROJECT} in the "
        "working folder says, of the options of any command, is read first."
    )


def at_home(value: Any) -> Any:
    """A path that begins with ~/, which shells leave alone after =, from the user's home, also in a list; anything else
    as it is."""
    if isinstance(value, list | tuple):
        return type(value)(map(at_home, value))
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


class Layer(NamedTuple):
    """A file of values, and those of them that apply."""

    file: ConfigFile
    values: Mapping[str, Any]


def with_first(argv: Sequence[str], name: str) -> list[str]:
    """Arguments whose first, where it is no flag, is the value of the flag `name`."""
    return [f"--{name}", *argv] if argv and not argv[0].startswith("-") else list(argv)


def read_configs(argv: Sequence[str] | None, home: str) -> tuple[list[Layer], list[str]]:
    """gendd.yaml, if there is one, the files that `--config` names, and the arguments that are left.

    Raises:
        InputError: an unknown config, or no setting for the data and ipc (unless only help is asked for).
    """
    named, rest = _split_arguments(sys.argv[1:] if argv is None else argv)
    files: list[tuple[ConfigFile, str | None]] = []
    if os.path.lexists(PROJECT):
        from core_dd.yaml_files import read_yaml

        files.append((ConfigFile(Path(PROJECT), read_yaml(PROJECT)), None))
    for name in named:
        name, _, data = (name, "", "") if os.path.isfile(name) or ":" not in name else name.rpartition(":")
        file = read_config(find(name, home))
        require(bool(file.settings or not data), f"{file.path} has no settings to choose from: leave out ':{data}'.")
        files.append((file, data or None))
    commons = [file.common for file, _ in files]
    data, ipc = _asked(rest, commons, "data"), _asked(rest, commons, "ipc")
    helping = not set(HELP).isdisjoint(rest)
    return [Layer(file, _applying(file, own or data, ipc, helping)) for file, own in files], rest


def _applying(file: ConfigFile, data: Any, ipc: Any, helping: bool) -> dict[str, Any]:
    """What of a file applies; for help, which needs no data, what does in any case."""
    try:
        return file.chosen(data, ipc)
    except InputError:
        if helping:
            return dict(file.common)
        raise


def peek(argv: Sequence[str] | None, key: str, home: str = "") -> str | None:
    """The value one option will get from flags or YAML files, before the config class is known.

    Returns None where neither gives it.
    """
    layers, rest = read_configs(argv, home)
    value = _asked(rest, [layer.values for layer in layers], key)
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
            named.append(at_home(argument.removeprefix("--config=")))
        else:
            rest.append(argument)
    return named, rest


def read_config(path: Path) -> ConfigFile:
    """Read one file of values and settings.

    Raises:
        InputError: as `read_yaml` and `ConfigFile.of` do.
    """
    from core_dd.yaml_files import read_yaml

    return ConfigFile.of(path, read_yaml(path))


def from_values(cls: type[C], values: Mapping[str, Any], where: str) -> C:
    """`cls` of its defaults and these values, as YAML gives them; `where` is what messages call them.

    Raises:
        InputError: an unknown key, with its likely spelling; a value of another type; failed checks.
    """
    import msgspec

    values, names = renamed(cls, values), [own.name for own in dataclasses.fields(cls)]
    _check_keys(values, names, f"{where}:", f"{cls.__name__} takes {', '.join(sorted(names))}.")
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        try:
            values[key] = msgspec.convert(value, hints[key])
        except msgspec.ValidationError as error:
            said = str(error).replace("`", "")
            raise InputError(f"{where}: '{key}' is {brief(repr(value))}: {said[:1].lower()}{said[1:]}.") from None
    with about(where):
        return cls(**values)


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
    """The YAML that `load_config` reads back into an equal config.

    Examples:
        >>> from core_dd.data.options import DataConfig
        >>> print(to_yaml(DataConfig(data="mnist")), end="")
        data: mnist
        image_size: null
        test_fraction: 0.0
        limit_per_class: null
    """
    from core_dd.yaml_files import yaml_text

    return yaml_text(to_dict(config))


def renames(cls: type) -> Mapping[str, str]:
    """The names that options of a config had before, with those they have now."""
    return getattr(cls, "RENAMED", {})


def renamed(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the names that their options have now."""
    return {renames(cls).get(key, key): value for key, value in values.items()}


def _renamed_flags(cls: type, argv: Sequence[str]) -> list[str]:
    """Flags by the names that they have now, each old one said on stderr."""
    words = []
    for word in argv:
        flag, equals, value = word.partition("=")
        old = flag.removeprefix("--").replace("-", "_")
        if flag.startswith("--") and old in renames(cls):
            new = renames(cls)[old]
            note(f"note: --{old} is now --{new}; the old name goes with version 0.3.")
            flag = f"--{new}"
        words.append(f"{flag}{equals}{value}")
    return words


def _merged(cls: type, layers: Sequence[Layer]) -> dict[str, Any]:
    """The defaults of `cls` overlaid with the values of every file, types checked; says what gendd.yaml gave."""
    values = {own.name: own.default for own in dataclasses.fields(cls)}
    for file, applying in layers:
        project = str(file.path) == PROJECT
        now = _without_others(cls, applying) if project else applying
        own = {key: value for key, value in renamed(cls, now).items() if key in values}
        if project:
            own = {key: value for key, value in own.items() if key not in hidden(cls)}
            own = _of_its_types(cls, own, file.path)
            if own:
                note(f"defaults from {PROJECT}: {', '.join(own)}")
        if own:
            values |= _typed(cls, own, file.path)
    return values


def _without_others(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of gendd.yaml but for those by an old name of `cls` that is an option of another command now: they are
    meant for that one."""
    old = set(renames(cls)).intersection(values)
    others = _named_now() if old else set()
    return {key: value for key, value in values.items() if key not in old or key not in others}


def _of_its_types(cls: type, values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Values of gendd.yaml but for those of the types of another command's option of the same name.

    Raises:
        InputError: for one that fits no command.
    """
    try:
        _typed(cls, values, file)
        return dict(values)
    except InputError:  # one by one takes long, and tells which it is
        return {key: value for key, value in values.items() if not _is_for_another(cls, key, value, file)}


def _is_for_another(cls: type, key: str, value: Any, file: Path) -> bool:
    """Whether an option of another command takes a value that the one of `cls` does not."""
    try:
        _typed(cls, {key: value}, file)
        return False
    except InputError:
        from core_dd.commands import COMMANDS, imported

        for other in (imported(command.options) for command in COMMANDS.values()):
            if key in {own.name for own in dataclasses.fields(other)}:
                with contextlib.suppress(InputError):
                    _typed(other, {key: value}, file)
                    return True
        raise


def _typed(cls: type, values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Values from YAML as the types of their fields.

    Raises:
        InputError: for one that is of another.
    """
    from omegaconf import OmegaConf, errors

    structured, wrong = OmegaConf.structured(cls), (errors.OmegaConfBaseException, ValueError, TypeError)
    try:
        merged = OmegaConf.merge(structured, dict(values))
    except wrong:
        for key, value in values.items():  # one by one takes long, and tells which it is
            try:
                OmegaConf.merge(structured, {key: value})
            except wrong as error:
                hint = typing.get_type_hints(cls)[key]
                raise InputError(
                    f"{file}: '{key}' is {brief(repr(value))}, expected {getattr(hint, '__name__', hint)} "
                    f"({brief(str(error).splitlines()[0])})."
                ) from None
        raise
    found: Any = OmegaConf.to_container(merged)
    return {key: tuple(found[key]) if isinstance(found[key], list) else found[key] for key in values}


def _check_file(cls: type, file: ConfigFile) -> None:
    """Refuse keys that `cls` does not have, those of settings that do not apply included; in gendd.yaml, keys that no
    command has. Says which old names there are."""
    names = {own.name for own in dataclasses.fields(cls)}
    if str(file.path) == PROJECT:
        others = [key for key in file.common if key not in names and key not in renames(cls)]
        known = _all_options(others) if others else names
        return _check_keys(others, known, f"{PROJECT}:", "It takes the options of every command: gendd COMMAND --help.")
    takes = f"{cls.__name__} takes {', '.join(sorted(names))}."
    _check_keys(renamed(cls, file.common), names, f"{file.path}:", takes)
    for (data, ipc), values in file.settings.items():
        _check_keys(renamed(cls, values), names, f"{file.path}:", takes, f"settings[{data}, ipc {ipc}].")
    for old, new in renames(cls).items():
        if old in file.common or any(old in values for values in file.settings.values()):
            note(f"note: '{old}' in {file.path} is now '{new}'; the old name goes with version 0.3.")


def _check_keys(keys: Iterable[str], known: Collection[str], where: str, takes: str, prefix: str = "") -> None:
    """Refuse keys that are not known, naming the file, the key and the likely spelling."""
    for key in keys:
        if key not in known:
            raise InputError(f"{where} unknown key '{prefix}{key}'{likely(key, known)} {takes}")


def _all_options(wanted: Collection[str]) -> set[str]:
    """The options of all commands; those of single methods only where some that are wanted are not among the others."""
    from core_dd.commands import COMMANDS, imported

    found = _named_now().union(*(renames(imported(command.options)) for command in COMMANDS.values()))
    for command in COMMANDS.values():
        if command.variants and not found.issuperset(wanted):
            variants = imported(command.variants).values()
            found |= {own.name for variant in variants for own in dataclasses.fields(variant.Config)}
    return found


def _named_now() -> set[str]:
    """The options of all commands, but for those of single methods, by the names that they have now."""
    from core_dd.commands import COMMANDS, imported

    classes = [imported(command.options) for command in COMMANDS.values()]
    return {own.name for cls in classes for own in dataclasses.fields(cls)}


def _flags(cls: type, argv: Sequence[str], defaults: Mapping[str, Any], prog: str) -> dict[str, Any]:
    """Values by flags, which may mend what the checks of `cls` would refuse: it is not built before all are known."""
    if not argv:
        return dict(defaults)
    import tyro

    hints = typing.get_type_hints(cls)

    def called(name: str, hint: Any) -> Any:
        flag = mark(cls, name, "flag")
        return typing.Annotated[hint, tyro.conf.arg(name=flag)] if flag else hint

    options = [
        (name, called(name, hints[name]), dataclasses.field(default=default)) for name, default in defaults.items()
    ]
    parsed: object = tyro.cli(
        dataclasses.make_dataclass("Flags", options, kw_only=True),
        args=argv,
        prog=prog,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.HelptextFromCommentsOff),
        use_underscores=True,
        console_outputs=processes.is_first(),
    )
    return vars(parsed)
