"""Measure each benchmark's two sides in turn and print the ratios reference / ours.

A benchmark is a module with a docstring whose first line is its title, and three functions: `target()`, the ratio to
reach, `reference()` and `ours()`. These two do their setting up and return a callable that does one unit of work.
Ours is also put beside what the machine can do: the operations per second of its matrix products and convolutions,
counted over one more, uncompiled unit, beside those of one large matrix product, timed by turns with the units.

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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NotRequired, TypedDict

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import profiling
from benchmarks.data import UVIT_BATCH, plain_device
from core_dd import files, records
from core_dd.errors import InputError, pick, require
from core_dd.speed import bf16_pays, peak_mib, prepare_device, restart_peak
from matching_dd.methods import METHODS

MATCHING = MappingProxyType(
    {
        f"{method}_k{classes}": ("benchmarks.matching", method, classes)
        for classes in (10, 100)
        for method in ("dm", "m3d", "datadam", "idm", "cafe", "dc", "dsa", "idc", "mtt", "ead")
    }
)
MAIN = MappingProxyType(
    {
        "evaluator": ("benchmarks.evaluator", "convnet3"),
        "dm": ("benchmarks.matching", "dm", 10),
        "uvit_train": ("benchmarks.uvit_train", UVIT_BATCH),
        "uvit_sample": ("benchmarks.uvit_sample", UVIT_BATCH),
    }
)
JUDGE = MappingProxyType(
    {
        "evaluator_resnet18": ("benchmarks.evaluator", "resnet18"),
        "evaluator_alexnet": ("benchmarks.evaluator", "alexnet"),
        "fidelity": ("benchmarks.fidelity",),
    }
)
UVIT = MappingProxyType(
    {
        f"uvit_{what}_{batch}": (f"benchmarks.uvit_{what}", batch)
        for what, batches in {"train": (32, 48), "sample": (32, 48, 128)}.items()
        for batch in batches
    }
)
BENCHMARKS = MappingProxyType({**MAIN, **JUDGE, **UVIT, **MATCHING})
"""Benchmarks by name: the module, and what its functions are called with."""
GROUPS = MappingProxyType({"judge": tuple(JUDGE), "uvit": tuple(UVIT), "matching": tuple(MATCHING)})
"""Names that stand for several."""

SIDES = ("reference", "ours")
PRODUCT = MappingProxyType({"cpu": 2048, "cuda": 8192})
"""Side of the square matrices that the machine's own rate is measured with."""
PEAK_TFLOPS = MappingProxyType({"H100": 989, "H200": 989, "A100": 312})
"""Dense bf16 matrix products of GPUs, by a part of the name, from the makers' data sheets (SXM)."""


class Measured(TypedDict):
    """What the JSON holds."""

    machine: dict[str, Any]
    results: dict[str, dict[str, Any]]
    profiles: NotRequired[dict[str, dict[str, dict[str, float]]]]
    """By method, see `benchmarks.profiling.profile`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmarks named on the command line, print a table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    known = ", ".join([*GROUPS, *BENCHMARKS])
    parser.add_argument("names", nargs="*", help=f"which ones: {known}; default: {', '.join(MAIN)}")
    parser.add_argument("--repeats", type=int, default=5, help="timed units of each side (default 5)")
    parser.add_argument("--warmup", type=int, default=2, help="untimed units before them (default 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks.json"), help="the JSON, added to where it is")
    parser.add_argument("--machine", help="what the machine is called, e.g. '2 CPU cores with AVX2'")
    parser.add_argument("--profile", metavar="METHOD", help="instead, where the time of a matching method's step goes")
    args = parser.parse_args(argv)
    require(args.repeats >= 1 and args.warmup >= 0, "repeats must be >= 1 and warmup >= 0.")
    require(not (args.names and args.profile), "--profile stands for itself: name no benchmarks beside it.")
    names = [own for name in args.names or MAIN for own in GROUPS.get(name, (name,))]
    for name in names:
        pick(BENCHMARKS, name, "benchmark")

    measured = kept(args.out, args.machine)
    if args.profile is not None:
        pick(METHODS, args.profile, "method")
        found = profiling.profile(args.profile, args.repeats)
        measured.setdefault("profiles", {})[args.profile] = found
        files.write_json(args.out, measured)
        said = profiling.table(args.profile, found)
    else:
        for name in names:  # each is written as soon as it is measured
            measured["results"][name] = compare(name, args.repeats, args.warmup)
            files.write_json(args.out, measured)
        said = table({name: measured["results"][name] for name in names}, args.repeats)
    print(said)
    print(f"written to {args.out}")


def kept(out: Path, description: str | None) -> Measured:
    """The machine, and what an earlier call has measured on it and left in the file, to which what is measured now is
    added.

    Raises:
        InputError: if that was another machine.
    """
    here = machine()
    before: Measured = records.read(out, Measured) if out.exists() else {"machine": {}, "results": {}}
    there = here | before["machine"]
    other = [f"{key} {there[key]}, now {value}" for key, value in here.items() if there[key] != value]
    require(not other, f"{out} is of another machine ({'; '.join(other)}). Name another --out.")
    description = description or there.get("description") or f"{here['device']}, {here['threads']} threads"
    return {**before, "machine": {"description": description, **here}}


def compare(name: str, repeats: int, warmup: int) -> dict[str, Any]:
    """Time one benchmark's sides by turns; seconds are medians, memory is each process's peak."""
    place, *arguments = BENCHMARKS[name]
    module = importlib.import_module(place)
    workers = {side: _start(name, side) for side in SIDES}
    seconds = {side: [] for side in SIDES}
    rates = []
    for _ in range(warmup + repeats):
        for side in SIDES:
            seconds[side].append(_ask(workers[side], name, side, "unit")["seconds"])
        rates.append(_ask(workers["ours"], name, "ours", "rate"))
    memory = {side: _ask(workers[side], name, side, "memory") for side in SIDES}
    flops = _ask(workers["ours"], name, "ours", "flops")["flops"]
    for worker in workers.values():
        worker.communicate()
    median = {side: statistics.median(seconds[side][warmup:]) for side in SIDES}
    return {
        "title": " ".join([module.__doc__.splitlines()[0], *map(str, arguments)]),
        "ratio": median["reference"] / median["ours"],
        "target": module.target(*arguments),
        "tflops": flops / median["ours"] / 1e12,
        "machine_tflops": {kind: statistics.median(rate[kind] for rate in rates[warmup:]) for kind in rates[0]},
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
        raise InputError(f"the {side} side of benchmark {name} died with status {worker.wait()}, see above.")
    return json.loads(answer)


def work(name: str, side: str) -> None:
    """The worker process: set up, then answer questions from stdin until it closes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints goes to stderr
    place, *arguments = BENCHMARKS[name]
    unit, peaks = getattr(importlib.import_module(place), side)(*arguments), []
    device = plain_device()  # nothing is set up that a reference does without

    def once() -> dict[str, float]:
        seconds = timed(unit)
        peaks.append(peak_mib(device))
        return {"seconds": seconds}

    def rate() -> dict[str, float]:
        found = product_tflops()
        restart_peak(device)  # whose matrices are not the benchmark's
        return found

    questions = {
        "unit": once,
        "rate": rate,
        "memory": lambda: {"peak_mib": max(peaks)},
        "flops": lambda: {"flops": counted(unit)},
    }
    for question in sys.stdin:
        answers.write(json.dumps(questions[question.strip()]()) + "\n")


def timed(unit: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call, the device's queue included."""
    start = time.perf_counter()
    unit()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def product_tflops() -> dict[str, float]:
    """TFLOP/s of a large matrix product, the fastest of three, in fp32 and, where there are units for it, in bf16."""
    device, found = prepare_device(), {}
    size = PRODUCT[device.type]
    for kind, dtype in {"fp32": torch.float32, **({"bf16": torch.bfloat16} if bf16_pays(device.type) else {})}.items():
        matrix = torch.ones(size, size, device=device, dtype=dtype)
        out = torch.empty_like(matrix)
        multiply = partial(torch.mm, matrix, matrix, out=out)
        multiply()
        found[kind] = 2 * size**3 / min(timed(multiply) for _ in range(3)) / 1e12
    return found


def counted(unit: Callable[[], Any]) -> int:
    """Operations in the matrix products and convolutions of a unit, forward and backward; it runs uncompiled."""
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        unit()
    return counter.get_total_flops()


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    found = {"device": device, "threads": torch.get_num_threads(), "bf16": bf16_pays(kind), "torch": torch.__version__}
    return found | ({"peak_tflops": peak_tflops(device)} if peak_tflops(device) else {})


def peak_tflops(device: str) -> float | None:
    """The TFLOP/s of a GPU's data sheet; None where there is no sheet here."""
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in device), None)


def table(results: dict[str, dict[str, Any]], repeats: int) -> str:
    """The results as aligned text."""
    head = ("benchmark", "reference", "ours", "ratio", "target", "of machine", "memory MiB")
    lines = ["{:<12} {:>10} {:>10} {:>7} {:>7} {:>10} {:>15}  what".format(*head)]
    for name, result in results.items():
        reference, ours = result["reference"], result["ours"]
        lines.append(
            f"{name:<12} {reference['seconds']:>8.3f} s {ours['seconds']:>8.3f} s {result['ratio']:>6.2f}x "
            f"{result['target']:>6.1f}x {part(result):>10.0%} {reference['peak_mib']:>7.0f} {ours['peak_mib']:>7.0f}  "
            f"{result['title']}"
        )
    lines += [speed(name, result) for name, result in results.items()]
    lines.append("of machine: the part of the machine's own rate, in one large matrix product, that ours reaches")
    lines.append(f"medians of {repeats} units, timed by turns after a warm-up; memory: peak, reference and ours")
    return "\n".join(lines)


def part(result: dict[str, Any]) -> float:
    """Which part ours reaches of the machine's own rate, in bf16 where there are units for it, else in fp32."""
    own = result["machine_tflops"]
    return result["tflops"] / own.get("bf16", own["fp32"])


def speed(name: str, result: dict[str, Any]) -> str:
    """How fast our matrix products are beside the machine's own and, on a known GPU, its peak (MFU)."""
    peak, tflops = peak_tflops(machine()["device"]), result["tflops"]
    used = "" if peak is None else f", {tflops / peak:.0%} of the {peak} TFLOP/s that it can do (MFU)"
    own = " and ".join(f"{rate:.3g} in {kind}" for kind, rate in result["machine_tflops"].items())
    return f"{name}: ours does {tflops:.3g} TFLOP/s in matrix products; one large product does {own}{used}"


if __name__ == "__main__":
    work(*sys.argv[1:])
