"""Command: draw labelled, class-balanced images from a trained U-ViT inside a wall-clock budget.

Image number n of a run belongs to class n mod K and is that class's image n // K; its noise depends on (seed, class,
index) alone. Batches are runs of numbers, each written as one shard as soon as it is drawn, so that a stop at any
moment leaves whole, balanced data, and neither batch size nor process count changes an image beyond rounding.
"""

import contextlib
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from core_dd import cli, files, pictures
from core_dd.config import load_config, to_dict
from core_dd.distilled import SCHEMA, DistilledSet, read_tensors, versions, write_tensors
from core_dd.errors import pick, require
from core_dd.rng import stream
from core_dd.speed import autocast, compiled, pick_device
from gen_dd.budget import Clock, Pace, Ranks, rounds, within
from gen_dd.solvers import SOLVERS, guided
from gen_dd.uvit import UViT
from gen_dd.weights import load_model


@dataclass(kw_only=True)
class SampleConfig:
    """Draw labelled, class-balanced images from a trained U-ViT, as many as a time budget allows or a fixed number.

    With several processes (torchrun --nproc_per_node N scripts/sample_timed.py ..., or accelerate launch) each writes
    its own shards into the same folder; the index merges them.
    """

    model: str = ""
    """The trained model: a run folder of `gendd train`, or the model folder inside it."""
    out: str = ""
    """The folder for the shards, index.json and grid.png."""
    budget: str | None = None
    """Wall-clock time for the whole command, imports and loading included: 20s, 10m, 1h or seconds. Never overrun."""
    num_per_class: int | None = None
    """Images per class, where no budget decides."""
    steps: int = 50
    """Network evaluations per image."""
    solver: str = "dpmpp_2m"
    """How noise becomes images: dpmpp_2m (DPM-Solver++ 2M), dpmpp_3m, unipc, ddim, dpm_fast (the official code's)."""
    cfg_scale: float = 0.0
    """Classifier-free guidance s in cond + s (cond - null); 0 is off. Above 0 every step costs two evaluations."""
    batch: int = 250
    """Images per batch and process."""
    bf16: bool = True
    """Compute in bf16 where the hardware does it faster."""
    compile: bool | None = None
    """Compile the network. Default: on CUDA when the budget is at least two minutes, or without a budget."""
    seed: int = 0
    """Seed of the noise."""
    device: str | None = None
    """cpu, cuda, cuda:1; default: cuda where there is one."""
    resume: bool = False
    """Go on in a folder that holds shards of the same model and settings; the time they took counts."""

    def __post_init__(self) -> None:
        require(bool(self.model), "which model? Pass --model FOLDER, a run folder of gendd train.")
        require(bool(self.out), "where to? Pass --out FOLDER.")
        require(
            (self.budget is None) != (self.num_per_class is None),
            "give either a budget (--budget 20s) or a number (--num_per_class 10), not both and not neither.",
        )
        for name in ("num_per_class", "steps", "batch"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be >= 1, got {value}.")
        require(self.cfg_scale >= 0, f"cfg_scale must be >= 0, got {self.cfg_scale}.")
        pick(SOLVERS, self.solver, "solver")
        self.seconds  # noqa: B018 (checks the budget)

    @property
    def seconds(self) -> float | None:
        """The budget in seconds."""
        if self.budget is None:
            return None
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", self.budget.strip())
        require(match is not None, f"budget '{self.budget}' is not a time. Write 20s, 10m, 1h or a number of seconds.")
        seconds = float(match[1]) * {"s": 1, None: 1, "m": 60, "h": 3600}[match[2]]
        require(seconds > 0, f"budget must be > 0, got {self.budget}.")
        return seconds


class Sampler:
    """Draws images by number, and says how long a batch will take.

    Args:
        model: a class-conditional `UViT`.
        steps, solver, cfg_scale: see `SampleConfig`.
        seed: of the noise.
        device, bf16, compile: where and how to compute. A compiled network serves batches of size `batch` alone.
        batch: the largest batch.

    Raises:
        InputError: if the model takes no labels.
    """

    def __init__(
        self,
        model: UViT,
        *,
        steps: int = 50,
        solver: str = "dpmpp_2m",
        cfg_scale: float = 0.0,
        seed: int = 0,
        batch: int = 250,
        device: torch.device | str = "cpu",
        bf16: bool = True,
        compile: bool = False,
    ) -> None:
        require(model.null_class is not None, "the model takes no labels; train one with classes.")
        self.model = model.to(device).eval()
        self.fast = compiled(self.model, device, frozen=True, dynamic=False) if compile else self.model
        self.solve, self.steps, self.cfg_scale = pick(SOLVERS, solver, "solver"), steps, cfg_scale
        self.seed, self.batch, self.device, self.bf16 = seed, batch, torch.device(device), bf16
        self.classes = model.config.num_classes
        self.shape = (model.config.in_channels, model.config.image_size, model.config.image_size)
        self._one, self._full = 0.0, 0.0

    def labels(self, numbers: Sequence[int]) -> Tensor:
        """Labels of the images of these numbers, round the classes: int64 (N,)."""
        return torch.tensor(numbers) % self.classes

    def noise(self, numbers: Sequence[int]) -> Tensor:
        """Their noise, (N, C, H, W), each keyed by (seed, class, index within the class)."""
        keys = (divmod(number, self.classes) for number in numbers)
        return torch.stack(
            [torch.randn(self.shape, generator=stream(self.seed, "noise", label, index)) for index, label in keys]
        )

    @torch.inference_mode()
    def draw(self, numbers: Sequence[int], seconds: float = math.inf, steps: int | None = None) -> Tensor:
        """The images of these numbers: uint8 (N, C, H, W).

        Raises:
            TimeUp: as soon as it shows that they will not be done within `seconds`.
        """
        network = self.fast if len(numbers) == self.batch else self.model
        labels, x = self.labels(numbers).to(self.device), self.noise(numbers).to(self.device)
        with autocast(self.device, self.bf16):
            noise_of = within(seconds, self.steps, guided(network, labels, self.cfg_scale, self.model.null_class))
            x = self.solve(noise_of, x, steps or self.steps)
        return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()

    def pace(self, clock: Clock) -> Pace:
        """What a batch will take, measured where there is a budget: two steps for one image and for a full batch."""
        if clock.budget is None:
            return Pace(0.0, 0.0, self.batch)

        def timed(images: int) -> float:
            self.draw(range(images), steps=1)
            started = time.perf_counter()
            self.draw(range(images), steps=2)
            return (time.perf_counter() - started) / 2 * self.steps

        return Pace(timed(1), timed(self.batch), self.batch)


def sample(
    model: UViT | str | Path,
    *,
    num_per_class: int | None = None,
    budget_s: float | None = None,
    steps: int = 50,
    cfg_scale: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> DistilledSet:
    """Draw labelled, class-balanced images in memory.

    Args:
        model: a class-conditional `UViT`, or the folder of one.
        num_per_class: images per class, or
        budget_s: seconds from this call, which is not overrun; class counts then differ by at most one.
        steps, cfg_scale, seed: see `SampleConfig`; more options are those of `Sampler`.

    Returns:
        uint8 images and int64 labels, round the classes.

    Raises:
        InputError: both or neither of number and budget, a budget too short for one image, a model without labels.
    """
    clock = Clock(budget_s, time.time())
    require((num_per_class is None) != (budget_s is None), "give either num_per_class or budget_s.")
    require(num_per_class is None or num_per_class >= 1, f"num_per_class must be >= 1, got {num_per_class}.")
    require(steps >= 1, f"steps must be >= 1, got {steps}.")
    model, card = (model, {}) if isinstance(model, UViT) else load_model(model)
    sampler = Sampler(model, steps=steps, cfg_scale=cfg_scale, seed=seed, **options)
    total = None if num_per_class is None else num_per_class * sampler.classes
    pace = sampler.pace(clock)
    images = torch.cat([part for _, part in rounds(sampler.draw, pace, clock, [(0, total)], Ranks())])
    config = {"steps": steps, "cfg_scale": cfg_scale}
    meta = describe(card, seed, config, clock.elapsed(), ipc=num_per_class)
    return DistilledSet(images, sampler.labels(range(len(images))), meta)


def run(config: SampleConfig) -> Path:
    """Draw into a folder as `config` says; see `SampleConfig`. Returns the folder.

    Raises:
        InputError: whatever does not fit, before any image is drawn.
    """
    clock, out = Clock(config.seconds, command_start()), Path(config.out)
    device = pick_device(config.device or local_device())
    ranks = Ranks(device)

    # Whatever can be wrong is found before any work.
    done = finished(out, config.resume)
    ranks.least()  # nobody writes before everybody has looked
    model, card = load_model(config.model)
    identity = {name: getattr(config, name) for name in IDENTITY} | {"weights": card["weights"]}
    used = check_resumed(out, identity) if config.resume else 0.0
    clock.start -= used
    large = sum(p.numel() for p in model.parameters()) > LARGE
    worth = (config.seconds or 3600) >= 120 and (device.type == "cuda" or large)
    sampler = Sampler(
        model,
        steps=config.steps,
        solver=config.solver,
        cfg_scale=config.cfg_scale,
        seed=config.seed,
        batch=config.batch,
        device=device,
        bf16=config.bf16,
        compile=worth if config.compile is None else config.compile,
    )
    clock.book("load")
    total = None if config.num_per_class is None else config.num_per_class * sampler.classes

    # Draw round by round: each batch is on the disk before the next begins.
    drawn = sum(stop - start for start, stop in done)
    bar = tqdm(desc="sample", unit="img", total=total, initial=drawn, disable=not ranks.first)
    pace = sampler.pace(clock)
    clock.book("measure")
    for numbers, images in rounds(sampler.draw, pace, clock, gaps(done, total), ranks):
        clock.book("draw")
        write_shard(out, numbers, images, sampler.labels(numbers))
        if ranks.first:
            write_index(out, describe(card, config.seed, to_dict(config), clock.elapsed()), identity)
        clock.book("write")
        drawn += len(numbers) * ranks.count
        left = f", {clock.left():.0f} s left" if clock.budget else ""
        bar.set_postfix_str(f"{drawn // sampler.classes} per class{left}", refresh=False)
        bar.update(len(numbers) * ranks.count)
    clock.book("draw")
    bar.close()

    # Merge what every process wrote.
    ranks.least()
    if ranks.first:
        finish(out, config, card, identity, clock, sampler.classes)
    ranks.close()
    return out


def finish(out: Path, config: SampleConfig, card: dict, identity: dict, clock: Clock, classes: int) -> None:
    """Write the last index and the picture; say what was drawn and where every second went."""
    shards = finished(out, resume=True)
    require(
        bool(shards),
        f"the budget of {clock.budget or 0:g} s ended before the first batch did: this machine got slower than "
        "measured. Nothing was written; sample again, or with a larger --budget.",
    )
    count = sum(stop - start for start, stop in shards)
    meta = describe(card, config.seed, to_dict(config), clock.elapsed(), ipc=config.num_per_class)
    write_index(out, meta, identity)
    parts = [read_tensors(out / shard_name(*shard))[0] for shard in shards[: 1 + 10 * classes // config.batch]]
    images, labels = (torch.cat([part[name] for part in parts]) for name in ("images", "labels"))
    pictures.save_grid(out / "grid.png", images, labels)
    clock.book("finish")
    spent = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in clock.parts.items())
    limit = f" of {clock.budget:g} s ({clock.elapsed() / clock.budget:.1%})" if clock.budget else ""
    low, extra = divmod(count, classes)
    each = f"{low} or {low + 1}" if extra else f"{low}"
    rate = count / max(clock.parts.get("draw", 0.0), 1e-9)
    print(f"{out}: {count} images, {each} per class, {rate:.0f} images/s; {clock.elapsed():.1f} s{limit}: {spent}")


LARGE = 5_000_000
"""Parameters from which compiling pays on a CPU."""

IDENTITY = ("steps", "solver", "cfg_scale", "seed")
"""Options that decide what the images are; a resumed run must keep them."""


LAUNCHERS = frozenset({"torchrun", "accelerate", "torch.distributed.run", "accelerate.commands.launch"})
"""What a process that starts others has on its command line."""


def command_start() -> float:
    """When this command began, as `time.time()`: its process, or the launcher's that started it."""
    process = psutil.Process()
    with contextlib.suppress(psutil.Error):
        parent = process.parent()
        if parent is not None and LAUNCHERS & {Path(word).name for word in parent.cmdline()}:
            process = parent
    start = process.create_time()
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux counts from boot, and psutil knows the boot to whole seconds only
        start = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + (start - psutil.boot_time())
    return start


def local_device() -> str | None:
    """Under a launcher on a machine with GPUs, this process's own one.

    Raises:
        InputError: more processes than GPUs.
    """
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or not torch.cuda.is_available():
        return None
    require(
        int(rank) < torch.cuda.device_count(),
        f"process {rank} has no GPU: there are {torch.cuda.device_count()}. Start as many processes as GPUs.",
    )
    return f"cuda:{rank}"


def shard_name(start: int, stop: int) -> str:
    """The file of the images number `start` to `stop` (exclusive)."""
    return f"images-{start:08d}-{stop:08d}.safetensors"


def write_shard(out: Path, numbers: range, images: Tensor, labels: Tensor) -> None:
    """Write one batch atomically."""
    write_tensors(out / shard_name(numbers.start, numbers.stop), {"images": images, "labels": labels}, {})


def finished(out: Path, resume: bool) -> list[tuple[int, int]]:
    """The number ranges whose shards are on the disk, in order.

    Raises:
        InputError: if the folder holds anything and `resume` is off.
    """
    require(
        resume or not out.exists() or (out.is_dir() and not any(out.iterdir())),
        f"{out} exists. Choose another --out, or continue it with --resume.",
    )
    names = (re.fullmatch(r"images-(\d+)-(\d+)\.safetensors", path.name) for path in out.glob("images-*"))
    return sorted((int(name[1]), int(name[2])) for name in names if name)


def gaps(done: Sequence[tuple[int, int]], total: int | None) -> list[tuple[int, int | None]]:
    """The number ranges not drawn yet: holes between shards, then everything after the last one."""
    free, low = [], 0
    for start, stop in done:
        if low < start:
            free.append((low, start))
        low = stop
    return [*free, (low, total)] if total is None or low < total else free


def write_index(out: Path, meta: dict[str, Any], identity: dict[str, Any]) -> None:
    """Write index.json: what `DistilledSet.load` reads, and what a resumed run must agree with."""
    shards = [{"file": shard_name(*shard), "images": shard[1] - shard[0]} for shard in finished(out, resume=True)]
    files.write_json(out / "index.json", {"meta": meta, "identity": identity, "shards": shards})


def check_resumed(out: Path, identity: dict[str, Any]) -> float:
    """Refuse a folder drawn by another model or other settings; return the seconds it took so far."""
    if not (out / "index.json").exists():
        return 0.0
    index = files.read_json(out / "index.json")
    for name, value in identity.items():
        there = index.get("identity", {}).get(name)
        require(
            there == value,
            f"{out} was drawn with {name} {there}, now it is {value}. Resume with the same, or choose another --out.",
        )
    return float(index["meta"]["cost"]["seconds"])


def describe(
    card: dict[str, Any], seed: int, config: dict[str, Any], seconds: float, ipc: int | None = None
) -> dict[str, Any]:
    """The metadata of a sampled set, from the model's card."""
    return {
        "schema": SCHEMA,
        "data": card.get("data"),
        "fingerprint": card.get("fingerprint"),
        "class_names": card.get("class_names"),
        "ipc": ipc,
        "preprocess": None,
        "factor": 1,
        "lr": None,
        "method": "uvit",
        "config": config,
        "seed": seed,
        "cost": {"seconds": round(seconds, 3)},
        "versions": versions(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Draw one set."""
    run(load_config(SampleConfig, argv, prog="gendd sample"))


if __name__ == "__main__":
    cli.entry(main)
