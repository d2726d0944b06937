"""Command: draw labelled, class-balanced images from a trained U-ViT inside a wall-clock budget.

Image number n of a run belongs to class n mod K and is that class's image n // K; its noise depends on (seed, class,
index) alone. Batches are runs of numbers, each written as one shard as soon as it is drawn, so that a stop at any
moment leaves whole, balanced data, and neither batch size nor process count changes an image beyond rounding. Under a
guide whose images act on each other, the numbers go round the classes a group at a time, and groups are never parted.
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
from core_dd.data import ImageData, load_data
from core_dd.distilled import SCHEMA, DistilledSet, read_tensors, versions, write_tensors
from core_dd.errors import pick, require
from core_dd.rng import stream
from core_dd.speed import autocast, compiled, pick_device
from gen_dd.budget import Clock, Pace, Ranks, rounds, within
from gen_dd.guidance import Guide, make_guide
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
    cfg_interval: tuple[float, float] | None = None
    """The times, low high in [0, 1] with 1 the pure noise, between which cfg_scale applies; default: always. Steps
    outside cost one evaluation."""
    guide: str | None = None
    """A training-free guide: mgd3 (towards real medoids, one per slot), coda (the same with CoDA's weight), repulsion
    (the images of a group push each other apart), classifier (of the real data). Default: none."""
    guide_scale: float | None = None
    """The guide's weight; default: 0.1 (mgd3, repulsion), 0.05 (coda), 1 (classifier)."""
    guide_until: float | None = None
    """The guide acts while t > guide_until, from 1 (noise) to 0 (image); default: 0.5, 0.1 (coda), 0 (classifier)."""
    guide_slots: int | None = None
    """Medoids per class, or images in a group; default: 10."""
    guide_data: str | None = None
    """The real data that a guide looks at; default: what the model's card says it was trained on."""
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
        low, high = self.cfg_interval or (0, 1)
        require(0 <= low < high <= 1, f"cfg_interval must be 0 <= low < high <= 1, got {low} {high}.")
        require(
            self.guide is not None
            or all(getattr(self, f"guide_{name}") is None for name in ("scale", "until", "slots")),
            "guide_scale, guide_until and guide_slots belong to a guide. Pass --guide mgd3, or leave them out.",
        )
        self.make_guide()
        pick(SOLVERS, self.solver, "solver")
        self.seconds  # noqa: B018 (checks the budget)

    def make_guide(self) -> Guide | None:
        """The guide asked for, unprepared."""
        return make_guide(self.guide, scale=self.guide_scale, until=self.guide_until, slots=self.guide_slots)

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
        steps, solver, cfg_scale, cfg_interval: see `SampleConfig`.
        guide: a prepared guide.
        seed: of the noise.
        device, bf16, compile: where and how to compute. A compiled network serves batches of size `batch` alone.
        batch: the largest batch.

    Raises:
        InputError: if the model takes no labels, or a batch does not hold one group of the guide's.
    """

    def __init__(
        self,
        model: UViT,
        *,
        steps: int = 50,
        solver: str = "dpmpp_2m",
        cfg_scale: float = 0.0,
        cfg_interval: tuple[float, float] | None = None,
        guide: Guide | None = None,
        seed: int = 0,
        batch: int = 250,
        device: torch.device | str = "cpu",
        bf16: bool = True,
        compile: bool = False,
    ) -> None:
        require(model.null_class is not None, "the model takes no labels; train one with classes.")
        self.model = model.to(device).eval()
        self.fast = compiled(self.model, device, dynamic=False) if compile else self.model
        self.solve, self.steps, self.cfg_scale = pick(SOLVERS, solver, "solver"), steps, cfg_scale
        self.cfg_interval, self.guide = cfg_interval, guide
        self.group = guide.slots if guide is not None and guide.joint else 1
        require(batch >= self.group, f"batch {batch} is smaller than a group of {self.group}. Pass a larger --batch.")
        self.seed, self.device, self.bf16 = seed, torch.device(device), bf16
        self.batch = batch // self.group * self.group
        self.classes = model.config.num_classes
        self.shape = (model.config.in_channels, model.config.image_size, model.config.image_size)

    def places(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Labels and indices within the class of the images of these numbers, round the classes: int64 (N,) each."""
        numbers, block = torch.tensor(numbers), self.group * self.classes
        return numbers % block // self.group, numbers // block * self.group + numbers % self.group

    def labels(self, numbers: Sequence[int]) -> Tensor:
        """Their labels alone."""
        return self.places(numbers)[0]

    def noise(self, numbers: Sequence[int]) -> Tensor:
        """Their noise, (N, C, H, W), each keyed by (seed, class, index within the class)."""
        keys = zip(*(part.tolist() for part in self.places(numbers)), strict=True)
        return torch.stack([torch.randn(self.shape, generator=stream(self.seed, "noise", *key)) for key in keys])

    @torch.inference_mode()
    def draw(self, numbers: Sequence[int], seconds: float = math.inf, steps: int | None = None) -> Tensor:
        """The images of these numbers, whole groups of them: uint8 (N, C, H, W).

        With `steps`, for measuring, classifier-free guidance applies at all of them.

        Raises:
            TimeUp: as soon as it shows that they will not be done within `seconds`.
        """
        network = self.fast if len(numbers) == self.batch else self.model
        (labels, index), x = (
            (part.to(self.device) for part in self.places(numbers)),
            self.noise(numbers).to(self.device),
        )
        interval = self.cfg_interval if steps is None else None
        noise_of = guided(
            network, labels, self.cfg_scale, self.model.null_class, interval=interval, guide=self.guide, index=index
        )
        with autocast(self.device, self.bf16):
            x = self.solve(within(seconds, self.steps, noise_of), x, steps or self.steps)
        return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()

    def total(self, num_per_class: int | None) -> int | None:
        """How many images make `num_per_class` of every class; None, without end, for None.

        Raises:
            InputError: if that is no whole number of groups.
        """
        if num_per_class is None:
            return None
        require(
            num_per_class % self.group == 0,
            f"num_per_class {num_per_class} is not a multiple of the groups of {self.group} that this guide draws.",
        )
        return num_per_class * self.classes

    def pace(self, clock: Clock) -> Pace:
        """What a batch will take, measured where there is a budget: two steps for the least and the largest batch."""
        if clock.budget is None:
            return Pace(0.0, 0.0, self.batch)

        def timed(images: int) -> float:
            self.draw(range(images), steps=1)
            started = time.perf_counter()
            self.draw(range(images), steps=2)
            return (time.perf_counter() - started) / 2 * self.steps

        return Pace(timed(self.group), timed(self.batch), self.batch)


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
        InputError: both or neither of number and budget, a budget too short for one image, a model without labels, a
            number that is no multiple of the guide's groups.
    """
    clock = Clock(budget_s, time.time())
    require((num_per_class is None) != (budget_s is None), "give either num_per_class or budget_s.")
    require(num_per_class is None or num_per_class >= 1, f"num_per_class must be >= 1, got {num_per_class}.")
    require(steps >= 1, f"steps must be >= 1, got {steps}.")
    model, card = (model, {}) if isinstance(model, UViT) else load_model(model)
    sampler = Sampler(model, steps=steps, cfg_scale=cfg_scale, seed=seed, **options)
    total, pace = sampler.total(num_per_class), sampler.pace(clock)
    images = torch.cat([part for _, part in rounds(sampler.draw, pace, clock, [(0, total)], Ranks(), sampler.group)])
    config = {"steps": steps, "cfg_scale": cfg_scale, "guide": repr(sampler.guide)}
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
    check_null_class(card, config.cfg_scale)
    identity = {name: to_dict(config)[name] for name in IDENTITY} | {"weights": card["weights"]}
    used = check_resumed(out, identity) if config.resume else 0.0
    clock.start -= used
    large = sum(p.numel() for p in model.parameters()) > LARGE
    worth = (config.seconds or 3600) >= 120 and (device.type == "cuda" or large)
    guide = config.make_guide()
    if guide is not None:
        guide.prepare(guide_data(config, card), model.to(device), stream(config.seed, "guide"))
        clock.book("guide")
    sampler = Sampler(
        model,
        steps=config.steps,
        solver=config.solver,
        cfg_scale=config.cfg_scale,
        cfg_interval=config.cfg_interval,
        guide=guide,
        seed=config.seed,
        batch=config.batch,
        device=device,
        bf16=config.bf16,
        compile=worth if config.compile is None else config.compile,
    )
    clock.book("load")
    total = sampler.total(config.num_per_class)

    # Draw round by round: each batch is on the disk before the next begins.
    drawn = sum(stop - start for start, stop in done)
    bar = tqdm(desc="sample", unit="img", total=total, initial=drawn, disable=not ranks.first)
    pace = sampler.pace(clock)
    clock.book("measure")
    for numbers, images in rounds(sampler.draw, pace, clock, gaps(done, total), ranks, sampler.group):
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
        finish(out, config, card, identity, clock, sampler)
    ranks.close()
    return out


def finish(out: Path, config: SampleConfig, card: dict, identity: dict, clock: Clock, sampler: Sampler) -> None:
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
    parts = [read_tensors(out / shard_name(*shard))[0] for shard in shards[: 1 + 10 * sampler.classes // config.batch]]
    images, labels = (torch.cat([part[name] for part in parts]) for name in ("images", "labels"))
    pictures.save_grid(out / "grid.png", images, labels)
    clock.book("finish")
    spent = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in clock.parts.items())
    limit = f" of {clock.budget:g} s ({clock.elapsed() / clock.budget:.1%})" if clock.budget else ""
    counts = torch.bincount(sampler.labels(range(count)), minlength=sampler.classes)
    low, high = int(counts.min()), int(counts.max())
    each = f"{low}" if low == high else f"{low} or {high}"
    rate = count / max(clock.parts.get("draw", 0.0), 1e-9)
    print(f"{out}: {count} images, {each} per class, {rate:.0f} images/s; {clock.elapsed():.1f} s{limit}: {spent}")


LARGE = 5_000_000
"""Parameters from which compiling pays on a CPU."""

GUIDANCE = ("cfg_scale", "cfg_interval", "guide", "guide_scale", "guide_until", "guide_slots", "guide_data")

IDENTITY = ("steps", "solver", "seed", *GUIDANCE)
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
    """Under a launcher on a machine with GPUs, this process's own one; see `own_gpu`."""
    return own_gpu(os.environ.get("LOCAL_RANK"), torch.cuda.device_count())


def own_gpu(rank: str | None, gpus: int) -> str | None:
    """The GPU of a launched process; None where no launcher or no GPU is.

    Raises:
        InputError: more processes than GPUs.
    """
    if rank is None or gpus == 0:
        return None
    require(int(rank) < gpus, f"process {rank} has no GPU: there are {gpus}. Start as many processes as GPUs.")
    return f"cuda:{rank}"


def check_null_class(card: dict[str, Any], cfg_scale: float) -> None:
    """Refuse classifier-free guidance of a model that never learnt without labels."""
    dropout = card.get("train", {}).get("label_dropout")
    require(
        cfg_scale == 0 or dropout != 0,
        "cfg_scale needs a model that learnt without labels too, and this one was trained with label_dropout 0. Leave "
        "out --cfg_scale, or train with --label_dropout 0.1.",
    )


def guide_data(config: SampleConfig, card: dict[str, Any]) -> ImageData | None:
    """The training images a guide looks at: those that the model was trained on.

    Raises:
        InputError: if it is not known which, or they are other data.
    """
    if config.make_guide().joint:
        return None
    trained = card.get("train", {})
    spec = config.guide_data or trained.get("data") or card.get("data")
    require(spec is not None, "the model's card does not name its data. Pass --guide_data, e.g. digits.")
    options = {
        name: trained[name] for name in ("image_size", "limit_per_class", "val_fraction", "seed") if name in trained
    }
    data = load_data(spec, **options)
    require(
        card.get("fingerprint") in (None, data.fingerprint),
        f"the model was trained on {card.get('data')}, and {spec} is other data. Pass the same as --guide_data.",
    )
    return data


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
