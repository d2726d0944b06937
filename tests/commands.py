"""Whether a command line would be accepted, without running it; scripts as modules."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from core_dd import cli
from core_dd.config import load_config, peek
from matching_dd.methods import METHODS

ROOT = Path(__file__).parents[1]


def load_script(name: str) -> ModuleType:
    """scripts/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def config_class(command: str, argv: list[str]) -> type:
    """The config dataclass of a command."""
    if command == "distill":
        return METHODS[peek(argv, "method") or "dm"].Config
    module = importlib.import_module(cli.COMMANDS[command][0].split(":")[0])
    return getattr(module, f"{command.title()}Config")


def accepted(words: list[str]) -> None:
    """Parse what follows `gendd`: every flag, every --config file, every check of the config; raises where it fails."""
    command, *argv = words
    if command == "--help":
        return
    if command == "info":
        assert len(argv) == 1
        return
    if command == "report" and not argv[0].startswith("-"):
        argv = ["--scores", *argv]
    load_config(config_class(command, argv), argv)
