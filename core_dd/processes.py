"""The processes that torchrun or `accelerate launch` started for one command, and which of them this one is.

A launcher says so in the environment, which is read here and nowhere else: who prints a mistake must be known before
torch is imported, so this module imports neither it nor accelerate until they are needed. Where the processes exchange
anything, accelerate's `PartialState` holds their group.
"""

import datetime
import os
from typing import TYPE_CHECKING

from core_dd.errors import require

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState


PATIENCE = datetime.timedelta(hours=2)
"""How long processes wait for each other: the first one measures the FID of 50000 samples alone, or tries what a plan
chooses from, which may well take longer than the 10 minutes that NCCL waits by default."""


def count() -> int:
    """How many processes there are, on all machines; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process prints and writes: under a launcher only the first one does."""
    return os.environ.get("RANK", "0") == "0"


def local_count() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_index() -> int | None:
    """This process's number among those on this machine, from 0; None without a launcher."""
    index = os.environ.get("LOCAL_RANK")
    return None if index is None else int(index)


def local_device(asked: str | None = None) -> str | None:
    """The device that was asked for; else the CPU where `accelerate launch` was told to take that, and under a launcher
    on a machine with GPUs this process's own; see `own_gpu`."""
    import torch

    if asked is None and os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "t", "yes", "y", "on"):
        return "cpu"
    return own_gpu(local_index(), torch.cuda.device_count(), asked)


def own_gpu(index: int | None, gpus: int, asked: str | None = None) -> str | None:
    """A launched process's own GPU where none or "cuda" was asked for; else, or without launcher or GPU, what was.

    Args:
        index: of the process on its machine; None without a launcher.
        gpus: how many GPUs that machine has.
        asked: the name of a device.

    Raises:
        InputError: more processes than GPUs.
    """
    if index is None or gpus == 0 or asked not in (None, "cuda"):
        return asked
    require(index < gpus, f"process {index} has no GPU: there are {gpus}. Start as many processes as GPUs.")
    return f"cuda:{index}"


def join(device: "torch.device") -> "PartialState":
    """The group of the launched processes, which is started unless it is there; every process must call this.

    Args:
        device: where this process computes: the group exchanges by NCCL on GPUs, by Gloo on CPUs.
    """
    from accelerate import PartialState

    return PartialState(cpu=device.type == "cpu", timeout=PATIENCE)


def fsdp_asked() -> bool:
    """Whether the config file of `accelerate launch` says FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def fsdp_option(name: str, default: str) -> str:
    """What that file says of an option of FSDP, in lower case.

    Args:
        name: without fsdp_, for example offload_params.
        default: what is meant where it says nothing.
    """
    return os.environ.get(f"FSDP_{name.upper()}", default).lower()
