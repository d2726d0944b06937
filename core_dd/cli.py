"""The console script `gendd`: a table of commands, each imported only when it is called."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType

from core_dd import processes, streams
from core_dd.commands import COMMANDS, imported
from core_dd.errors import InputError, Terminated, pick
from core_dd.notes import note, printable

OUT_OF_MEMORY = (
    "the memory is too small for this. Take less at once: --memory_gib (distill), --batch (sample), "
    "--accumulate or --checkpointing (train), --at_once (experts), --classifiers (evaluate)."
)
PATIENCE_S = 60
"""How long a process waits for its launcher to end it before it prints what only it has found."""


def usage() -> str:
    """The one-screen help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.meaning}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "gendd: dataset distillation, from real data to a score.",
            "",
            "usage: gendd COMMAND [--option value ...]      gendd COMMAND --help explains every option;",
            "       gendd --version                        gendd --completion prints a script for the shell.",
            "",
            *lines,
            "",
            "Every command takes --config NAME (one that comes with it) or --config FILE.yaml, and flags override it;",
            "gendd.yaml in the working folder holds a project's defaults for all of them.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. None: on the process's own arguments, its streams protected."""
    if argv is None:
        return console(lambda: main(sys.argv[1:]))
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"gendd {version('gendd')}")
        return 0
    if argv[0] == "--completion":
        from core_dd.completion import script

        print(script(), end="")
        return 0
    try:
        command = pick(COMMANDS, argv[0], "command")
    except InputError as error:
        return fail(error)
    with _signals({signal.SIGINT: _interrupted}):  # an import turns Ctrl-C into errors of its own
        if argv[1:] and set(argv[1:]) <= {"-h", "--help"}:
            from core_dd.config import load_config

            function = partial(load_config, imported(command.options), prog=f"gendd {argv[0]}")
        else:
            function = imported(command.function)
    return guarded(function, argv[1:])


def console(work: Callable[[], int]) -> int:
    """Do what gives an exit status as this process's only work, its streams protected; returns the status."""
    streams.protect()
    try:
        status = work()
    except SystemExit as stop:  # the parser's own way out
        status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return streams.settled(status)


def entry(command: Callable[[Sequence[str] | None], None]) -> None:
    """What `python -m PACKAGE.module` calls: the command on the process's arguments, then exit with its status."""
    sys.exit(console(lambda: guarded(command, sys.argv[1:])))


def script(name: str) -> None:
    """What a script for launchers calls: a command of the table on the process's arguments, likewise."""
    sys.exit(console(lambda: main([name, *sys.argv[1:]])))


def guarded(command: Callable[[Sequence[str] | None], None], argv: Sequence[str]) -> int:
    """Call a command; a user's mistake becomes one line on stderr and status 2, Ctrl-C status 130.

    A process that is asked to end (SIGTERM, SIGHUP) first removes what it was writing.
    """
    try:
        with _signals(dict.fromkeys((signal.SIGTERM, signal.SIGHUP), _terminated)):
            command(argv)
    except InputError as error:
        return fail(error)
    except RuntimeError as error:
        of_gpu = type(error).__name__ == "OutOfMemoryError"  # torch's own, which not every command imports
        if not of_gpu and "can't allocate memory" not in str(error):
            raise
        return fail(InputError(f"{OUT_OF_MEMORY} ({str(error).splitlines()[0]})"))
    except OSError as error:  # a place that no better sentence was thought of for: too long a name, no permission
        if error.filename is None:
            raise
        return fail(InputError(f"cannot use {error.filename}: {error.strerror}. Give another, or mend it."))
    except KeyboardInterrupt:
        note(INTERRUPTED)
        return 130
    return 0


INTERRUPTED = "\ninterrupted; what was finished is kept."


@contextlib.contextmanager
def _signals(handlers: dict[int, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """Handle signals so during the block; those that the caller ignores or handles itself stay as they are."""
    before = {number: signal.getsignal(number) for number in handlers}
    own = [number for number in handlers if before[number] in (signal.SIG_DFL, signal.default_int_handler)]
    if threading.current_thread() is not threading.main_thread():
        own = []
    for number in own:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in own:
            signal.signal(number, before[number])


def _interrupted(number: int, frame: FrameType | None) -> None:
    note(INTERRUPTED)
    os._exit(128 + number)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated(128 + number)


def fail(error: Exception) -> int:
    """Print a user's mistake.

    Of several processes that find the same one the first prints it; the launcher then ends the others, which wait.
    """
    if not processes.is_first():
        time.sleep(PATIENCE_S)
    print(f"error: {printable(str(error))}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
