"""Command: draw labelled, class-balanced images from a trained U-ViT inside a wall-clock budget.

Image number n of a run belongs to class n mod K and is that class's image n // K; its noise depends on (seed, class,
index) alone. Batches are runs of numbers, each written as one shard as soon as it is drawn, so that a stop at any
moment leaves whole, balanced data, and neither batch size nor process count changes an image beyond rounding. Under a
guide whose images act on each other, the numbers go round the classes a group at a time, and groups are never parted.

A budget begins with a look at the speed: single network evaluations of ever larger batches choose the batch size, and
the steps where they are left open. (All images of a run have the same steps, so the first one already needs them.)
"""

import contextlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from core_dd import cli
from core_dd.clock import command_start
from core_dd.config import load_config, to_dict
from core_dd.data.images import ImageData, load_data
from core_dd.errors import about, pick, require
from core_dd.judge.chance import warn_of
from core_dd.locks import own_folder, require_free
from core_dd.progress import Progress
from core_dd.rng import stream
from core_dd.sets.distilled import DistilledSet
from core_dd.speed import pick_device
from gen_dd.budget import AUTO_STEPS, Clock, Pace, Ranks, rounds
from gen_dd.guidance import Guide, make_guide
from gen_dd.pool import Pool, describe, finished, gaps, resumed
from gen_dd.sampler import Sampler, pays_to_compile
from gen_dd.solvers import SOLVERS
from gen_dd.uvit import UViT
from gen_dd.weights import load_model


@dataclass(kw_only=True)
class SampleConfig:
    """Draw labelled, class-balanced images from a trained U-ViT, as many as a time budget allows or a fixed number.

    With several processes (torchrun --nproc_per_node N scripts/sample_timed.py ..., or accelerate launch) each writes
    its own shards into the same folder; the index merges them.
    """

    model: str = ""
    """The trained model: a run folder of `gendd train`, the model folder inside it, or a saved `UViTPipeline`."""
    out: str = ""
    """The folder for the shards, index.json, grid.png and, once all is drawn, summary.txt."""
    budget: str | None = None
    """Wall-clock time for the whole command, imports and loading included: 20s, 10m, 1h or seconds. Never overrun but
    by a guide's preparation, which counts and is not stopped."""
    num_per_class: int | None = None
    """Images per class; beside a budget, at most so many."""
    steps: int | str = 50
    """Network evaluations per image; or auto: the most, from 10 to 50, with which num_per_class images of every class
    fit into the budget. Without num_per_class, room is made for 500 per class, and the whole budget is drawn."""
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
    batch: int | None = None
    """Images per batch and process. Default: with a budget, the fastest size that the memory at hand allows, measured
    in the first moments; without one, 250."""
    bf16: bool = True
    """Compute in bf16 where the hardware does it faster."""
    compile: bool | None = None
    """Compile the network, on CUDA into graphs; under a budget only when two minutes of it are left after loading, on a
    CPU five. Default: where that earns back what it takes, in the images asked for and in the budget that is left."""
    seed: int = 0
    """Seed of the noise."""
    device: str | None = None
    """cpu, cuda, cuda:1; default: cuda where there is one."""
    resume: bool = False
    """Go on in a folder that holds shards of the same model and settings; the time they took counts, and auto steps
    stay those chosen then."""

    def __post_init__(self) -> None:
        require(bool(self.model), "which model? Pass --model FOLDER, a run folder of gendd train.")
        require(bool(self.out), "where to? Pass --out FOLDER.")
        check_amount(self.num_per_class, self.budget, self.steps)
        require(self.batch is None or self.batch >= 1, f"batch must be >= 1, got {self.batch}.")
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


def check_amount(num_per_class: int | None, budget: str | float | None, steps: int | str) -> None:
    """Raise `InputError` unless number, budget and steps say how much to draw."""
    require(
        budget is not None or num_per_class is not None,
        "how many images? Give a budget (--budget 20s), a number (--num_per_class 10), or both.",
    )
    require(num_per_class is None or num_per_class >= 1, f"num_per_class must be >= 1, got {num_per_class}.")
    if isinstance(steps, str):
        require(steps == "auto", f"steps must be a number or auto, got '{steps}'.")
        require(budget is not None, "steps auto fits the steps into a budget. Add --budget 10m, or pass a number.")
    else:
        require(steps >= 1, f"steps must be >= 1, got {steps}.")


def sample(
    model: UViT | str | Path,
    *,
    num_per_class: int | None = None,
    budget_s: float | None = None,
    steps: int | Literal["auto"] = 50,
    cfg_scale: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> DistilledSet:
    """Draw labelled, class-balanced images in memory.

    Args:
        model: a class-conditional `UViT`, or the folder of one.
        num_per_class: images per class, beside a budget at most so many; or
        budget_s: seconds from this call, which is not overrun; class counts then differ by at most one.
        steps, cfg_scale, seed: see `SampleConfig`; more options are those of `Sampler`.

    Returns:
        uint8 images and int64 labels, round the classes.

    Raises:
        InputError: neither number nor budget, a budget too short for one image, a model without labels, guidance of
            a model that never learnt without them, a number that is no multiple of the guide's groups.
    """
    clock = Clock(budget_s)
    check_amount(num_per_class, budget_s, steps)
    model, card = (model, {}) if isinstance(model, UViT) else load_model(model)
    warn_of(card, "model")
    sampler = Sampler(model, steps=steps, cfg_scale=cfg_scale, seed=seed, **options)
    total = sampler.total(num_per_class)
    pace = sampler.calibrate(clock, total)
    images = torch.cat([part for _, part in rounds(sampler.draw, pace, clock, [(0, total)], Ranks(), sampler.group)])
    config = {"steps": sampler.steps, "cfg_scale": cfg_scale, "guide": repr(sampler.guide)}
    meta = describe(card, seed, config, clock.elapsed(), ipc=num_per_class if len(images) == total else None)
    return DistilledSet(images, sampler.labels(range(len(images))), meta)


def run(config: SampleConfig, start: float | None = None) -> Path:
    """Draw into a folder as `config` says; see `SampleConfig`. Returns the folder.

    Args:
        config: what to draw.
        start: when the budget began, on the clock of `core_dd.clock.now`; None: now. The command counts from the start
            of its process.

    Raises:
        InputError: whatever does not fit, before any image is drawn.
    """
    clock, out = Clock(config.seconds, start), Path(config.out)
    device = pick_device(local_device(config.device))
    ranks = Ranks(device)

    # Whatever can be wrong is found before any work.
    done = finished(out, config.resume)
    require_free(out)
    ranks.least()  # nobody writes before everybody has looked
    model, card = load_model(config.model)
    warn_of(card, config.model)
    model.check_guidance(config.cfg_scale)
    identity = {name: to_dict(config)[name] for name in IDENTITY} | {"weights": card["weights"]}
    identity = resumed(out, done, identity, clock)
    sampler = make_sampler(config, identity["steps"], model, card, device, clock)
    total = sampler.total(config.num_per_class)

    # From here on the folder is this run's alone.
    with own_folder(out) if ranks.first else contextlib.nullcontext():
        require(
            not ranks.first or done == finished(out, config.resume),
            f"{out} was drawn into while this command was starting. Start it again.",
        )
        # A look at the speed settles what is open.
        pace = sampler.calibrate(clock, total, ranks)
        identity["steps"] = sampler.steps
        meta = describe(card, config.seed, to_dict(config) | {"steps": sampler.steps, "batch": sampler.batch}, 0.0)
        pool = Pool(out, sampler, clock, ranks, identity, meta)
        draw(pool, pace, done, config.num_per_class)
        ranks.close()
    return out


def draw(pool: Pool, pace: Pace, done: Sequence[tuple[int, int]], number: int | None) -> None:
    """Draw into a pool what is not there yet, and finish it.

    Args:
        pool: the folder.
        pace: what a batch takes.
        done: the number ranges that are there.
        number: images per class; None: as many as the budget allows.
    """
    sampler, clock, ranks = pool.sampler, pool.clock, pool.ranks
    before = drawn = sum(stop - start for start, stop in done)
    total = sampler.total(number)

    # Draw round by round: each batch is on the disk before the next begins.
    progress = Progress(f"sample, {sampler.steps} steps", total, drawn, unit="img")
    for numbers, images in rounds(sampler.draw, pace, clock, gaps(done, total), ranks, sampler.group):
        clock.book("sample")
        pool.write(numbers, images)
        if drawn >= pool.enough or clock.late():  # drawn in earlier rounds: every process has written those
            pool.picture()
        drawn += len(numbers) * ranks.count
        progress.note = f"{drawn // sampler.classes} per class"
        progress.update(len(numbers) * ranks.count, ends_in=max(clock.left(), 0.0) if clock.budget else None)
    clock.book("sample")
    progress.close()

    # Merge what every process wrote.
    ranks.least()
    if ranks.first:
        print(pool.finish(before, number))


def make_sampler(
    config: SampleConfig, steps: int | str, model: UViT, card: dict, device: torch.device, clock: Clock
) -> Sampler:
    """The sampler as `config` says, its guide prepared."""
    clock.book("load")
    guide = config.make_guide()
    if guide is not None:
        guide.prepare(guide_data(config, card), model.to(device), stream(config.seed, "guide"))
        clock.book("guide")
    images = math.inf if config.num_per_class is None else config.num_per_class * model.config.num_classes
    evaluations = (AUTO_STEPS[1] if steps == "auto" else steps) * (2 if config.cfg_scale else 1)
    worth = config.compile is None and pays_to_compile(model, images, evaluations, device, clock.left())
    sampler = Sampler(
        model,
        steps=steps,
        solver=config.solver,
        cfg_scale=config.cfg_scale,
        cfg_interval=config.cfg_interval,
        guide=guide,
        seed=config.seed,
        batch=config.batch,
        device=device,
        bf16=config.bf16,
        compile=worth or bool(config.compile),
    )
    clock.book("load")
    return sampler


GUIDANCE = ("cfg_scale", "cfg_interval", "guide", "guide_scale", "guide_until", "guide_slots", "guide_data")

IDENTITY = ("steps", "solver", "seed", *GUIDANCE)
"""Options that decide what the images are; a resumed run must keep them."""


def local_device(asked: str | None = None) -> str | None:
    """The device that was asked for, or under a launcher on a machine with GPUs this process's own; see `own_gpu`."""
    return own_gpu(os.environ.get("LOCAL_RANK"), torch.cuda.device_count(), asked)


def own_gpu(rank: str | None, gpus: int, asked: str | None = None) -> str | None:
    """A launched process's own GPU where none or "cuda" was asked for; else, or without launcher or GPU, what was.

    Raises:
        InputError: more processes than GPUs.
    """
    if rank is None or gpus == 0 or asked not in (None, "cuda"):
        return asked
    require(int(rank) < gpus, f"process {rank} has no GPU: there are {gpus}. Start as many processes as GPUs.")
    return f"cuda:{rank}"


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
    with about(f"--guide_data {spec}"):
        data = load_data(spec, **options)
    require(
        card.get("fingerprint") in (None, data.fingerprint),
        f"the model was trained on {card.get('data')}, and {spec} is other data. Pass the same as --guide_data.",
    )
    return data


def main(argv: Sequence[str] | None = None) -> None:
    """Draw one set."""
    run(load_config(SampleConfig, argv, prog="gendd sample"), command_start())


if __name__ == "__main__":
    cli.entry(main)
