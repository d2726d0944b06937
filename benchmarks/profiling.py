"""Where the time of a matching method's step goes: its parts, by timers around them, and its operators, by
torch.profiler."""

import contextlib
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks import matching
from core_dd.judge.augment import DSAugment, IDCAugment
from core_dd.report.tables import text_table
from core_dd.speed import prepare_device
from matching_dd.base import Features, Method, RandomNetworks
from matching_dd.gradients import Gradients
from matching_dd.real import RealImages
from matching_dd.synthetic import Synthetic

PARTS = MappingProxyType(
    {
        "real images": ((RealImages, "draw"),),
        "augmentation": ((DSAugment, "siamese"), (IDCAugment, "siamese"), (DSAugment, "per_image")),
        "network of a real batch": ((Features, "_constant"), (Gradients, "in_parts")),
        "synthetic forward": ((Features, "__call__"), (Gradients, "at"), (Synthetic, "decoded")),
        "synthetic backward": ((Tensor, "backward"),),
        "optimiser": ((torch.optim.Optimizer, "zero_grad"), (torch.optim.SGD, "step")),
        "new network": ((RandomNetworks, "draw_network"), (Method, "draw_network")),
    }
)
"""By part, the functions that do it. What one of them calls is its own."""
OTHER = "loss and all else"

KINDS = MappingProxyType(
    {
        "calls of compiled code": r"CompiledFxGraph|Torch-Compiled|Dynamo|AOTDispatcher|Pregraph|Guard",
        "normalisation, with what is fused to it": r"(?i)(batch|group|layer|instance)_?norm",
        "convolutions": r"^(?!.*fused).*conv|cudnn|xmma|wgrad|dgrad",
        "matrix products": r"mm\b|mm_|gemm|linear",
        "pooling": r"pool",
        "resampling": r"grid_sampl|affine_grid|interpolate|upsample|flip|rot",
        "random numbers": r"uniform|normal_|rand|bernoulli",
        "copies": r"copy|clone|contiguous|\bcat\b|stack|index|gather|empty|resize|Memcpy|fill_|zero_|slice|strided",
    }
)
"""Patterns of the names of operators and kernels by kind: the first that is found counts, else it is `ELEMENTWISE`."""
ELEMENTWISE = "elementwise, and sums"


def profile(method: str, repeats: int = 5, classes: int = 10, **options: Any) -> dict[str, dict[str, float]]:
    """The shares of a step of the images as `benchmarks.matching` measures it, after a first one that compiles.

    Args:
        method: a key of `matching_dd.METHODS`.
        repeats: steps whose parts are timed; the medians count.
        classes: of the data.
        options: of the method, beside its defaults.

    Returns:
        parts: of the step's seconds, by `PARTS` and `OTHER`; they add up to 1. operators: of the time in operators, by
        kind, which add up to 1. waiting: one number, total: the part of the step in which a GPU had nothing to do or,
        without one, the cores that it may use were idle or taken by others.
    """
    from torch._inductor import config as inductor

    with inductor.patch({"cpp.enable_kernel_profile": True}):  # what is compiled is told kernel by kernel
        prepare_device()
        unit = matching.ours(method, classes, **options)
        unit()
        steps = [_parts(unit) for _ in range(repeats)]
        parts = {name: statistics.median(step[name] for step in steps) for name in steps[0]}
        waiting, operators = _operators(unit)
    whole = sum(parts.values())
    return {
        "parts": {name: share / whole for name, share in parts.items()},
        "operators": operators,
        "waiting": {"total": waiting},
    }


def _parts(unit: Callable[[], Any]) -> dict[str, float]:
    """The share of each part in one step."""
    taken: Counter[str] = Counter()
    running: list[str] = []

    @contextlib.contextmanager
    def timed(part: str) -> Iterator[None]:
        if running:  # what another part calls
            yield
            return
        running.append(part)
        began = _now()
        yield
        taken[part] += _now() - began
        running.pop()

    def around(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with timed(part):
                return function(*args, **kwargs)

        return call

    with contextlib.ExitStack() as patches:
        for part, places in PARTS.items():
            for cls, name in places:
                patches.enter_context(mock.patch.object(cls, name, around(getattr(cls, name), part)))
        began = _now()
        unit()
        whole = _now() - began
    found = {part: taken[part] / whole for part in PARTS}
    return found | {OTHER: 1 - sum(found.values())}


def _now() -> float:
    """Seconds, with nothing left in the device's queue."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _operators(unit: Callable[[], Any]) -> tuple[float, dict[str, float]]:
    """The part of one step that waits, and the shares of kinds of operators, the largest first."""
    cuda = torch.cuda.is_available()
    activities = [torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU]
    busy, began = time.process_time(), _now()
    unit()
    seconds, busy = _now() - began, time.process_time() - busy
    with torch.profiler.profile(activities=activities) as profiler:
        unit()
    by_kind: defaultdict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        by_kind[kind(event.key)] += event.self_device_time_total if cuda else event.self_cpu_time_total
    total = sum(by_kind.values())
    working = total / 1e6 if cuda else busy / torch.get_num_threads()
    shares = {name: own / total for name, own in sorted(by_kind.items(), key=lambda pair: -pair[1])}
    return max(0.0, 1 - working / seconds), shares


def kind(operator: str) -> str:
    """What an operator or kernel does, by its name.

    Examples:
        >>> kind("aten::mkldnn_convolution"), kind("graph_0_cpp_fused_convolution_mean_native_group_norm_relu_view_1")
        ('convolutions', 'normalisation, with what is fused to it')
    """
    return next((name for name, pattern in KINDS.items() if re.search(pattern, operator)), ELEMENTWISE)


def table(method: str, found: dict[str, dict[str, float]]) -> str:
    """Both tables as aligned text."""
    tables = [
        text_table([[head, "share"], *([name, f"{share:.1%}"] for name, share in found[key].items())], frozenset({0}))
        for head, key in ((f"a step of {method}", "parts"), ("operators", "operators"))
    ]
    idle = (
        "when the GPU had nothing to do" if torch.cuda.is_available() else "on cores that were idle or taken by others"
    )
    waiting = f"waiting: {found['waiting']['total']:.0%} of the step, {idle}"
    return "\n\n".join([*tables, waiting])
