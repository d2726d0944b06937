"""Where speed comes from on each device, bf16 and `torch.compile`, and how it degrades: neither, said once."""

import contextlib
import ctypes
import math
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import torch
import torch._functorch.config
from torch import Tensor, nn
from torch.func import functional_call

from core_dd.errors import InputError
from core_dd.notes import note

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Numbers of mallopt's parameters, from malloc.h."""


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device to run on: the one named, else CUDA when there is one, else the CPU.

    Raises:
        InputError: if the named device does not exist here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device '{name}' is not usable here ({str(error).splitlines()[0]}). Try cpu.") from None
    return device


def prepare_device(name: str | torch.device | None = None) -> torch.device:
    """The device of `pick_device`, and this process made ready for long work on it; see `keep_freed_memory`.

    Raises:
        InputError: if the named device does not exist here.
    """
    device = pick_device(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


@cache
def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next use, as PyTorch does on GPUs.

    By default it hands every large block back to the system, and the page faults of getting it anew are 5 to 10 % of a
    U-ViT's training step on a CPU. Other C libraries are left alone.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def bf16_pays(device_type: str) -> bool:
    """Whether to compute in bf16: where `has_bf16_units`, unless `GENDD_BF16=0` declares them absent."""
    return os.environ.get("GENDD_BF16") != "0" and has_bf16_units(device_type)


@cache
def has_bf16_units(device_type: str) -> bool:
    """Whether bf16 matrix units exist: CUDA compute capability >= 8, or a CPU with AVX512-BF16 or AMX."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def autocast(device: torch.device | str, enabled: bool = True) -> contextlib.AbstractContextManager:
    """bf16 autocast on `device` where it pays, else a context that does nothing (fp32)."""
    kind = torch.device(device).type
    if enabled and bf16_pays(kind):
        return torch.autocast(kind, dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def tf32(device: torch.device | str, enabled: bool = True) -> Iterator[None]:
    """While the block lasts, fp32 matrix products on CUDA are TF32's, which are faster: factors are rounded to 11 bits,
    as PyTorch does by itself in convolutions alone. Nothing changes on other devices."""
    if not enabled or torch.device(device).type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def can_compile(device_type: str) -> bool:
    """Whether `torch.compile` can work here; says once on stderr why not. `GENDD_COMPILE=0` switches it off."""
    if os.environ.get("GENDD_COMPILE") == "0":
        reason = "GENDD_COMPILE=0"
    elif device_type == "cpu" and not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        reason = "there is no C++ compiler (install g++)"
    elif device_type == "cuda" and not any(shutil.which(name) for name in (os.environ.get("CC", ""), "gcc", "clang")):
        reason = "there is no C compiler for Triton (install gcc)"
    elif device_type == "cuda" and torch.cuda.get_device_capability() < (7, 0):
        reason = "this GPU is older than Triton supports"
    else:
        return True
    note(f"note: torch.compile is off because {reason}; the same results, slower.")
    return False


@dataclass(frozen=True)
class Compiling:
    """What compiling a kind of network takes and brings, by the type of device.

    These are constants, not measured on the spot: a run, its repeat and its resumption must decide alike.

    Attributes:
        takes: seconds.
        saves: the part of the uncompiled time that is saved from then on, in [0, 1).
        rate: operations per second, in matrix products, of the uncompiled network.
    """

    takes: Mapping[str, float]
    saves: Mapping[str, float]
    rate: Mapping[str, float]

    def seconds(self, flops: float, calls: float, device: torch.device | str) -> float:
        """About how long so many uncompiled calls take, of so many operations each."""
        return calls * max(flops / self.rate.get(torch.device(device).type, math.inf), _LEAST_S)

    def pays(self, seconds: float, device: torch.device | str) -> bool:
        """Whether compiling earns back what it takes, where so many seconds of uncompiled work are to come.

        With `GENDD_COMPILE=1` it need not.
        """
        kind = torch.device(device).type
        worth = kind in self.takes and self.saves[kind] * seconds > self.takes[kind]
        return (worth or os.environ.get("GENDD_COMPILE") == "1") and can_compile(kind)


_LEAST_S = 0.01
"""What the smallest call takes."""


def _on(cpu: float, cuda: float) -> Mapping[str, float]:
    """A value for each type of device."""
    return MappingProxyType({"cpu": cpu, "cuda": cuda})


UVIT_TRAINING = Compiling(takes=_on(68, 60), saves=_on(0.06, 0.3), rate=_on(3e10, 1e14))
UVIT_SAMPLING = Compiling(takes=_on(33, 60), saves=_on(0.05, 0.3), rate=_on(4e10, 1e14))
CLASSIFIERS = Compiling(takes=_on(34, 30), saves=_on(0.15, 0.3), rate=_on(4e10, 2e13))
MATCHING = Compiling(takes=_on(27, 30), saves=_on(0.3, 0.5), rate=_on(1e10, 2e13))
"""By what is compiled: on a CPU as measured with AVX2, without bf16 units; on CUDA estimated."""


def forward_flops(network: nn.Module, *inputs: Tensor) -> float:
    """Operations in the matrix products and convolutions of a forward pass, per image; none is computed.

    Args:
        network: takes the inputs.
        inputs: the first of them (N, ...), N images.
    """
    from torch.utils.flop_counter import FlopCounterMode  # takes a while, which a short sampling budget need not pay

    state = {
        name: tensor.detach().to("meta") for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        functional_call(network, state, tuple(own.to("meta") for own in inputs))
    return counter.get_total_flops() / len(inputs[0])


def graph_bytes(net: nn.Module, shape: tuple[int, int, int], measure: Callable[[nn.Module, Tensor], Tensor]) -> int:
    """Bytes that autograd keeps for the backward of `measure`, of one image (C, H, W), in fp32 and uncompiled."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(2, *shape, device=next(net.parameters()).device, requires_grad=True)  # batch norm wants two
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        measured = measure(net, images)
    return (sum(kept.values()) + measured.nbytes) // 2


def compiled(fn: Callable, device: torch.device | str, **options) -> Callable:
    """`torch.compile(fn, **options)` where it can work on `device`, else `fn` itself.

    Compilation is lazy, so a failure of the first call falls back to `fn` too, said once; the gradient is compiled with
    it, for the same reason.
    """
    if not can_compile(torch.device(device).type):
        return fn
    torch._functorch.config.force_non_lazy_backward_lowering = True
    torch._dynamo.config.recompile_limit = 64  # one process may judge many networks and batch sizes
    fast, usable = torch.compile(fn, **options), True

    def call(*args, **kwargs):
        nonlocal usable
        if usable:
            try:
                return fast(*args, **kwargs)
            except torch._dynamo.exc.TorchDynamoException as error:
                usable = False
                note(f"note: torch.compile failed ({type(error).__name__}); running uncompiled.")
        return fn(*args, **kwargs)

    return call


def compile_in_place(module: nn.Module, device: torch.device | str, **options) -> None:
    """`Module.compile`, which leaves a module what it is for DDP and FSDP, with the fallback of `compiled`."""
    if can_compile(torch.device(device).type):
        module._compiled_call_impl = compiled(module._call_impl, device, **options)


def restart_peak(device: torch.device | str) -> None:
    """Count `peak_mib` from here on, where the system can."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_mib(device: torch.device | str) -> float:
    """Peak memory of this process so far in MiB: allocated on a GPU, else the resident set's."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would carry over the parent's peak
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
