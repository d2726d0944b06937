"""The console script `gendd`: a table of commands, each imported only when it is called."""

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType

from core_dd.errors import InputError, pick
from core_dd.notes import is_first_process

COMMANDS = MappingProxyType(
    {
        "train": ("gen_dd.train:main", "train a class-conditional U-ViT on real images"),
        "sample": ("gen_dd.sample:main", "draw labelled, class-balanced images from it inside a time budget"),
        "select": ("gen_dd.select:main", "choose ipc images per class from a generated pool"),
        "submit": ("gen_dd.submit:main", "hand in a set to the ECCV 2024 challenge, checked and scored"),
        "distill": ("matching_dd.distill:main", "learn ipc images per class by matching real data"),
        "experts": ("matching_dd.experts:main", "record training trajectories on real data, for mtt and ead"),
        "coreset": ("matching_dd.coresets:main", "choose ipc real images per class"),
        "evaluate": ("core_dd.evaluate:main", "train classifiers on a set and score them on the real test set"),
        "report": ("core_dd.report:main", "turn many scores into report.md and report.html"),
        "info": ("core_dd.info:main", "say what a distilled set, a run folder or a dataset is"),
    }
)

OUT_OF_MEMORY = (
    "the GPU's memory is too small for this. Take less at once: --memory_gib (distill), --batch (sample), "
    "--accumulate or --checkpointing (train), --runs (evaluate)."
)
PATIENCE_S = 60
"""How long a process waits for its launcher to end it before it prints what only it has found."""


def usage() -> str:
    """The one-screen help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {meaning}" for name, (_, meaning) in COMMANDS.items()]
    return "\n".join(
        [
            "gendd: dataset distillation, from real data to a score.",
            "",
            "usage: gendd COMMAND [--option value ...]      gendd COMMAND --help explains every option",
            "",
            *lines,
            "",
            "Every command but info takes --config FILE.yaml (repeatable), and flags override it. See configs/.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    try:
        target, _ = pick(COMMANDS, argv[0], "command")
    except InputError as error:
        return fail(error)
    module, function = target.split(":")
    return guarded(getattr(importlib.import_module(module), function), argv[1:])


def entry(command: Callable[[Sequence[str] | None], None]) -> None:
    """What `python -m PACKAGE.module` calls: the command on the process's arguments, then exit with its status."""
    sys.exit(guarded(command, sys.argv[1:]))


def guarded(command: Callable[[Sequence[str] | None], None], argv: Sequence[str]) -> int:
    """Call a command; a user's mistake becomes one line on stderr and status 2, Ctrl-C status 130."""
    try:
        command(argv)
    except InputError as error:
        return fail(error)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's own, which not every command imports
            raise
        return fail(InputError(f"{OUT_OF_MEMORY} ({str(error).splitlines()[0]})"))
    except KeyboardInterrupt:
        print("\ninterrupted; finished checkpoints and shards are kept.", file=sys.stderr)
        return 130
    return 0


def fail(error: Exception) -> int:
    """Print a user's mistake.

    Of several processes that find the same one the first prints it; the launcher then ends the others, which wait.
    """
    if not is_first_process():
        time.sleep(PATIENCE_S)
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
