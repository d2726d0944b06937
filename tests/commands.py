"""Commands: in a process of their own, or only whether their words would be accepted; scripts as modules."""

import importlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import forkserver

from core_dd import cli
from core_dd.config import load_config, peek
from gen_dd.challenge import with_models
from matching_dd.methods import METHODS

ROOT = Path(__file__).parents[1]
FORKED_IN_BASH = {
    "BASH_FUNC_gendd%%": '() { "$FORKED" -m core_dd.cli "$@"; }',
    "BASH_FUNC_python%%": '() { "$FORKED" "$@"; }',
}
"""Environment of a bash whose `gendd` and `python` are forks, as those of `Process` are."""
PATIENCE_S = 300
"""How long a command may take on the busiest machine."""


class Process(forkserver.Command):
    """A command in a process of its own, which inherits its imports; so do those that it launches by torchrun.

    Args:
        words: what follows `python`: a script, `-m` and a module, or `-c` and code; then its arguments.
        environment: what is added to the environment.
    """

    def __init__(self, *words: object, **environment: object) -> None:
        # Appended to, so that reading moves no writer; gone with this object.
        self._printed = [tempfile.TemporaryFile("a+") for _ in range(2)]  # noqa: SIM115
        added = {"PYTHON_EXEC": os.environ["FORKED"]}  # which torchrun starts
        added |= {name: str(value) for name, value in environment.items()}
        with open(os.devnull) as nothing:
            files = [file.fileno() for file in (nothing, *self._printed)]
            super().__init__(os.environ["FORKSERVER"], [str(word) for word in words], files, os.environ | added)

    def wait(self, timeout: float = PATIENCE_S) -> int:
        return super().wait(timeout)

    def kill_once(self, ready: Callable[[], object]) -> None:
        """As kill -9 does, as soon as `ready()`; that must come before the command ends by itself."""
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            assert self.poll() is None, f"it ended before it could be killed: {self.stderr}"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        self.kill()
        assert self.wait() == -9, "it ended before it was killed"

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._read(0)

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._read(1)

    def _read(self, number: int) -> str:
        self._printed[number].seek(0)
        return self._printed[number].read()


def run(*words: object, **environment: object) -> Process:
    """A finished `Process`."""
    process = Process(*words, **environment)
    process.wait()
    return process


def load_script(path: str | Path) -> ModuleType:
    """A script, by its path in the repository, as a module."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def config_class(command: str, argv: list[str]) -> type:
    """The config dataclass of a command."""
    if command == "distill":
        return METHODS[peek(argv, "method", HOMES[command]) or "dm"].Config
    module, name = cli.COMMANDS[command].options.split(":")
    return getattr(importlib.import_module(module), name)


def load(command: str, argv: list[str]) -> Any:
    """The config that a command's words give."""
    return load_config(config_class(command, argv), argv, home=HOMES.get(command, ""))


HOMES = {"train": "gen", "tune": "tune", "distill": "matching", "experts": "experts", "evaluate": "eval"}
"""Where each command looks its configs up by name."""
FIRST = {
    "compare": "--file",
    "convert": "--src",
    "export": "--set",
    "info": "--what",
    "rank-networks": "--file",
    "report": "--scores",
}
"""Flags of what may be given first, without one."""


def accepted(words: list[str]) -> None:
    """Parse what follows `gendd`: every flag, every --config file, every check of the config; raises where it fails."""
    command, *argv = words
    if command in ("--help", "--completion"):
        return
    if command in FIRST and not argv[0].startswith("-"):
        argv = [FIRST[command], *argv]
    if command == "challenge":
        argv = with_models(argv)
    load(command, argv)
