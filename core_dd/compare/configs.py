"""The options of a producer as the config of a command, and back as what a job is keyed by."""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from core_dd.compare.producers import Request
from core_dd.config import from_values, read_config
from core_dd.errors import about, require
from core_dd.options import RunConfig
from core_dd.run import CONFIG, saved
from core_dd.settings import ConfigFile, find

C = TypeVar("C")
R = TypeVar("R", bound=RunConfig)

OF_THE_CELL = ("data", "image_size", "limit_per_class", "ipc", "seed", "out", "resume", "dry_run", "device", "tracker")
"""Options that the comparison sets."""
ASIDE = ("log_every", "checkpoint_every", "grid_every", "keep", "at_once")
"""Options that do not change what comes out."""


def published(request: Request, home: str) -> dict[str, Any]:
    """The options of a request above those of the published configs that it names under `config`.

    Args:
        request: whose options they are.
        home: the folder of configs/ in which names are looked up.
    """
    values = dict(request.options)
    layers: dict[str, Any] = {}
    named = values.pop("config", [])
    with about(request.title):
        for name in named if isinstance(named, list) else [named]:
            path = find(str(name), home)
            changed = path.stat().st_mtime_ns if path.exists() else 0
            layers |= _read(path, changed).chosen(request.data.name, request.ipc)
    return {**layers, **values}


@lru_cache
def _read(path: Path, changed: int) -> ConfigFile:
    """A config file as it is since it was `changed`; a grid asks for the same one hundreds of times."""
    return read_config(path)


def config_of(cls: type[C], request: Request, values: Mapping[str, Any]) -> C:
    """A command's config of these options and of what the cell says.

    Raises:
        InputError: an unknown option (with its likely spelling), one that the comparison sets, a wrong value.
    """
    for key in OF_THE_CELL:
        require(key not in request.options, f"{request.producer}: '{key}' is the comparison's to say. Leave it out.")
    size, own = values.get("image_size"), request.data.image_size
    require(
        size in (None, own),
        f"{request.title}: the config's images are of {size} pixels, those of the comparison "
        f"{'as they are stored' if own is None else f'of {own}'}. Give the data image_size: {size}, or write out the "
        "options in place of the config.",
    )
    known = {own.name for own in fields(cls)}
    cell = {**request.data.place, "ipc": request.ipc, "seed": request.seed}
    values = {key: value for key, value in values.items() if key not in OF_THE_CELL}
    return from_values(cls, {**values, **{key: cell[key] for key in cell if key in known}}, request.title)


def told(config: RunConfig, decisive: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """A run's config as a job's `options`, which decide what comes out, what is `usual` of them, and what else it is
    `shown`.

    Args:
        config: of the run.
        decisive: those of `ASIDE` that do change what comes out of this run.
    """
    own = {key: value for key, value in saved(config).items() if key not in OF_THE_CELL or key in ("ipc", "seed")}
    aside = {key: own.pop(key) for key in ASIDE if key in own and key not in decisive}
    place = {"data": config.data, "image_size": config.image_size, "limit_per_class": config.limit_per_class}
    usual = {
        each.name: each.default
        for each in fields(config)
        if each.name in own and each.name != "method" and each.default is not MISSING  # the method says whose they are
    }
    return {"options": own, "usual": usual, "shown": {"place": place, **aside}}


def run_config(cls: type[R], out: Path, device: str | None, **options: Any) -> R:
    """The config of a run in a folder, which goes on where there is one."""
    return cls(**options, device=device, out=str(out), resume=(out / CONFIG).exists(), tracker="none")
