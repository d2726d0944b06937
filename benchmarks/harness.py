"""Measure each benchmark's two sides in turn and print the ratios reference / ours.

A benchmark is a module with a docstring whose first line is its title, and three functions: `target()`, the ratio to
reach, `reference()` and `ours()`. These two do their setting up and return a callable that does one unit of work.
Where it has `flops()`, the operations of a unit's matrix products, ours is also put beside what the device can do.

Each side runs in a process of its own, so that its peak memory is its own. The two are timed by turns, one unit each,
so that whatever else the machine does falls on both; the median of the units after the warm-up counts.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from core_dd import files
from core_dd.errors import pick, require
from core_dd.speed import bf16_pays, peak_mib, pick_device

MATCHING = MappingProxyType(
    {
        f"{method}_k{classes}": ("benchmarks.matching", method, classes)
        for classes in (10, 100)
        for method in ("dm", "m3d", "datadam", "idm", "cafe", "dc", "dsa", "idc", "mtt", "ead")
    }
)
MAIN = MappingProxyType(
    {
        "evaluator": ("benchmarks.evaluator",),
        "dm": ("benchmarks.matching", "dm", 10),
        "uvit_train": ("benchmarks.uvit_train",),
        "uvit_sample": ("benchmarks.uvit_sample",),
    }
)
BENCHMARKS = MappingProxyType({**MAIN, **MATCHING})
"""Benchmarks by name: the module, and what its functions are called with."""
GROUPS = MappingProxyType({"matching": tuple(MATCHING)})
"""Names that stand for several."""

SIDES = ("reference", "ours")
PEAK_TFLOPS = MappingProxyType({"H100": 989, "H200": 989, "A100": 312})
"""Dense bf16 matrix products of GPUs, by a part of the name, from the makers' data sheets (SXM)."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmarks named on the command line, print a table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    known = ", ".join([*GROUPS, *BENCHMARKS])
    parser.add_argument("names", nargs="*", help=f"which ones: {known}; default: {', '.join(MAIN)}")
    parser.add_argument("--repeats", type=int, default=5, help="timed units of each side (default 5)")
    parser.add_argument("--warmup", type=int, default=2, help="untimed units before them (default 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks.json"), help="where the JSON goes")
    args = parser.parse_args(argv)
    require(args.repeats >= 1 and args.warmup >= 0, "repeats must be >= 1 and warmup >= 0.")
    names = [own for name in args.names or MAIN for own in GROUPS.get(name, (name,))]
    for name in names:
        pick(BENCHMARKS, name, "benchmark")

    results = {name: compare(name, args.repeats, args.warmup) for name in names}
    files.write_json(args.out, {"machine": machine(), "results": results})
    print(table(results, args.repeats))
    print(f"written to {args.out}")


def compare(name: str, repeats: int, warmup: int) -> dict[str, Any]:
    """Time one benchmark's sides by turns; seconds are medians, memory is each process's peak."""
    place, *arguments = BENCHMARKS[name]
    module = importlib.import_module(place)
    workers = {side: _start(name, side) for side in SIDES}
    seconds = {side: [] for side in SIDES}
    for _ in range(warmup + repeats):
        for side in SIDES:
            seconds[side].append(_ask(workers[side], name, side, "unit")["seconds"])
    memory = {side: _ask(workers[side], name, side, "memory") for side in SIDES}
    for worker in workers.values():
        worker.communicate()
    median = {side: statistics.median(seconds[side][warmup:]) for side in SIDES}
    return {
        "title": " ".join([module.__doc__.splitlines()[0], *map(str, arguments)]),
        "ratio": median["reference"] / median["ours"],
        "target": module.target(*arguments),
        **({"tflops": module.flops() / median["ours"] / 1e12} if hasattr(module, "flops") else {}),
        "memory_ratio": memory["reference"]["peak_mib"] / memory["ours"]["peak_mib"],
        **{side: {"seconds": median[side], "all": seconds[side][warmup:], **memory[side]} for side in SIDES},
    }


def _start(name: str, side: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.harness", name, side]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(worker: subprocess.Popen, name: str, side: str, question: str) -> dict[str, float]:
    """One question to a worker, one line of JSON back."""
    worker.stdin.write(question + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError(f"the {side} side of benchmark {name} died with status {worker.wait()}")
    return json.loads(answer)


def work(name: str, side: str) -> None:
    """The worker process: set up, then answer questions from stdin until it closes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints goes to stderr
    place, *arguments = BENCHMARKS[name]
    unit = getattr(importlib.import_module(place), side)(*arguments)
    for question in sys.stdin:
        answer = {"peak_mib": peak_mib(pick_device())} if question.strip() == "memory" else {"seconds": timed(unit)}
        answers.write(json.dumps(answer) + "\n")


def timed(unit) -> float:
    """Wall-clock seconds of one call, the device's queue included."""
    start = time.perf_counter()
    unit()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return {"device": device, "threads": torch.get_num_threads(), "bf16": bf16_pays(kind), "torch": torch.__version__}


def table(results: dict[str, dict[str, Any]], repeats: int) -> str:
    """The results as aligned text."""
    lines = [f"{'benchmark':<12} {'reference':>10} {'ours':>10} {'ratio':>7} {'target':>7} {'memory MiB':>15}  what"]
    for name, result in results.items():
        reference, ours = result["reference"], result["ours"]
        lines.append(
            f"{name:<12} {reference['seconds']:>8.3f} s {ours['seconds']:>8.3f} s {result['ratio']:>6.2f}x "
            f"{result['target']:>6.1f}x {reference['peak_mib']:>7.0f} {ours['peak_mib']:>7.0f}  {result['title']}"
        )
    lines += [speed(name, result["tflops"]) for name, result in results.items() if "tflops" in result]
    lines.append(f"medians of {repeats} units, timed by turns after a warm-up; memory: peak, reference and ours")
    return "\n".join(lines)


def speed(name: str, tflops: float) -> str:
    """How fast our matrix products are and, on a known GPU, which part of its peak that is (MFU)."""
    device = machine()["device"]
    peak = next((peak for part, peak in PEAK_TFLOPS.items() if part in device), None)
    used = "" if peak is None else f", {tflops / peak:.0%} of the {peak} TFLOP/s that it can do (MFU)"
    return f"{name}: ours does {tflops:.3g} TFLOP/s in matrix products{used}"


if __name__ == "__main__":
    work(*sys.argv[1:])
