"""Seconds on a clock that nobody sets: one for what is timed, and when a process or a command began on it."""

import contextlib
import os
import time
from pathlib import Path

import psutil


def now() -> float:
    """Seconds since some moment before this process, for differences; setting the machine's clock changes nothing."""
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux: since boot, sleep included
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def began(process: psutil.Process) -> float:
    """When a process was started, on the clock of `now`, to a hundredth of a second."""
    with contextlib.suppress(OSError, ValueError, IndexError):  # Linux says it since boot, too
        after_name = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        return int(after_name.split()[STARTTIME]) / os.sysconf("SC_CLK_TCK")
    return now() - (time.time() - process.create_time())  # both by the machine's clock, which only now must be right


STARTTIME = 19
"""The place of a process's start among the fields of /proc/PID/stat after its name."""


LAUNCHERS = frozenset({"torchrun", "accelerate", "torch.distributed.run", "accelerate.commands.launch"})
"""What a process that starts others has on its command line."""


def command_start() -> float:
    """When this command began, on the clock of `now`: its process, or the launcher's that started it."""
    process = psutil.Process()
    with contextlib.suppress(psutil.Error):
        parent = process.parent()
        if parent is not None and LAUNCHERS & {Path(word).name for word in parent.cmdline()}:
            process = parent
    return began(process)
