"""The configs that come with gendd: found by name, and the one of a file's settings that fits the data and the ipc."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core_dd.errors import InputError, brief, likely, require

CONFIGS = Path(__file__).parent / "configs"
"""configs/ of the repository, which the wheel holds as core_dd/configs."""

SETTINGS, PUBLISHED = "settings", "published"


@dataclass(frozen=True)
class ConfigFile:
    """A YAML file of values for a config dataclass.

    A file about several experiments holds `settings`: a list of mappings, each with the `data` and `ipc` that choose
    it, the accuracy in percent that is `published` for it (null where none is), and what it changes of the values
    above the list.
    """

    path: Path
    common: Mapping[str, Any]
    """What the file says outside its settings."""
    settings: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)
    """By the name of the data and ipc: what applies on top, `data` and `ipc` included, `published` not."""
    published: Mapping[tuple[str, int], str | None] = field(default_factory=dict)
    """The published accuracies, as written: "48.9 +- 0.6"."""

    @classmethod
    def of(cls, path: Path, values: Mapping[str, Any]) -> "ConfigFile":
        """What the values read from `path` say.

        Raises:
            InputError: `settings` that are no list of mappings, each with another data and ipc.
        """
        if SETTINGS not in values:
            return cls(path, values)
        several = values[SETTINGS]
        require(
            isinstance(several, list) and bool(several), f"{path}: 'settings' must be a list of '- data: ...' items."
        )
        settings, published = {}, {}
        for number, setting in enumerate(several, 1):
            pair = _pair(setting, f"{path}: setting {number}")
            require(pair not in settings, f"{path}: two settings for data {pair[0]}, ipc {pair[1]}. Drop one.")
            settings[pair] = {key: value for key, value in setting.items() if key != PUBLISHED}
            published[pair] = None if setting.get(PUBLISHED) is None else str(setting[PUBLISHED])
        return cls(path, {key: value for key, value in values.items() if key != SETTINGS}, settings, published)

    def chosen(self, data: Any, ipc: Any) -> dict[str, Any]:
        """The common values and those of the setting for this data and ipc; None fits any, if only one is left.

        Args:
            data: the name of the data, or a spec that begins with it.
            ipc: images per class, as a number or as the text of a flag.

        Raises:
            InputError: no setting or several; the message lists which there are.
        """
        if not self.settings:
            return dict(self.common)
        fitting = [
            setting
            for (name, number), setting in self.settings.items()
            if (data is None or name_of(str(data)) == name) and (ipc is None or str(ipc) == str(number))
        ]
        if len(fitting) == 1:
            return {**self.common, **fitting[0]}
        asked = [f"--data {data}"] * (data is not None) + [f"--ipc {ipc}"] * (ipc is not None)
        first = next(iter(self.settings))[0]
        raise InputError(
            f"{self.path} has {'several' if fitting else 'no'} settings for {brief(' '.join(asked)) or 'any data'}: "
            f"choose --data and --ipc among {self.listed()}. Data that lie elsewhere take those of a set by its name "
            f"behind the config's, as in --config {self.path.stem}:{first} --data parquet:FOLDER."
        )

    def listed(self) -> str:
        """Its settings in a line: "mnist (ipc 1, 10), digits (ipc 10)"."""
        ipcs: dict[str, list[str]] = {}
        for name, ipc in self.settings:
            ipcs.setdefault(name, []).append(str(ipc))
        return ", ".join(f"{name} (ipc {', '.join(numbers)})" for name, numbers in ipcs.items())


def name_of(spec: str) -> str:
    """The name by which settings are chosen: the spec's own, or what is before its path.

    Examples:
        >>> name_of("cifar10"), name_of("folder:birds")
        ('cifar10', 'folder')
    """
    return spec.partition(":")[0]


def find(name: str, home: str = "") -> Path:
    """The file that `--config NAME` means: that file, else the packaged config of this name.

    Args:
        name: a path; or the name of a packaged config, `dm`, or with its folder, `smoke/dm`.
        home: the folder of the packaged configs in which names without a folder are looked up.

    Raises:
        InputError: no such config.
    """
    if os.path.isfile(name) or name.endswith((".yaml", ".yml")):
        return Path(name)
    own, others = packaged(home), packaged()
    if name in own or name in others:
        return own.get(name) or others[name]
    close = likely(brief(name), {**own, **others})
    raise InputError(
        f"no config is called '{brief(name)}'{close} Those of gendd are {', '.join(own or others)}; a file of your own "
        "is given by its path, FILE.yaml."
    )


def packaged(home: str = "") -> dict[str, Path]:
    """The configs of one folder by their names, or of all by FOLDER/NAME."""
    files = sorted(file for file in CONFIGS.glob("*/*.yaml") if file.parent.name != ACCELERATE)
    if home:
        return {file.stem: file for file in files if file.parent.name == home}
    return {f"{file.parent.name}/{file.stem}": file for file in files}


ACCELERATE = "accelerate"
"""The folder of files that accelerate reads, not we."""


def _pair(setting: Any, where: str) -> tuple[str, int]:
    """The name of the data, and the ipc, that choose a setting."""
    require(isinstance(setting, dict), f"{where} must hold 'key: value' pairs.")
    for key, kind in (("data", str), ("ipc", int)):
        require(
            key in setting, f"{where} has no '{key}'{likely(key, setting)} Every setting names its data and its ipc."
        )
        value = setting[key]
        require(type(value) is kind, f"{where}: '{key}' is of type {type(value).__name__}, expected {kind.__name__}.")
    number = setting.get(PUBLISHED)
    require(
        number is None or type(number) in (str, float, int),
        f"{where}: 'published' must be a number, text such as '48.9 +- 0.6', or null.",
    )
    return name_of(setting["data"]), setting["ipc"]
