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
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from core_dd import cli, files, processes
from core_dd.clock import command_start
from core_dd.config import load_config, to_dict
from core_dd.data.images import ImageData, load_data
from core_dd.errors import about, needed, require
from core_dd.judge.protocols import QUICK
from core_dd.locks import own_folder, require_free
from core_dd.progress import Progress
from core_dd.rng import stream
from core_dd.sets.distilled import DistilledSet
from core_dd.sets.learnt import warn_of
from core_dd.sets.shards import INDEX
from core_dd.speed import prepare_device
from gen_dd.budget import AUTO_STEPS, BatchPace, Clock, Ranks, rounds
from gen_dd.options import FILTER_NETWORK, STEPS, SampleConfig, check_amount
from gen_dd.plan import PoolPlan, Trials, make_plan, read_plan, said, settings, table
from gen_dd.sampler import Sampler, pays_to_compile
from gen_dd.shards import PLAN, ShardFolder, describe, finished, gaps, resumed
from gen_dd.sieve import VAL_FRACTION, Replacing, Sieve, Tally
from gen_dd.uvit import UViT
from gen_dd.weights import check_data, load_model


def sample(
    model: UViT | str | Path,
    *,
    num_per_class: int | None = None,
    budget_s: float | None = None,
    steps: int | Literal["auto"] | None = None,
    cfg_scale: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> DistilledSet:
    """Draw labelled, class-balanced images in memory.

    Args:
        model: a class-conditional `UViT`, or the folder of one.
        num_per_class: images per class, beside a budget at most so many; or
        budget_s: seconds from this call, which is not overrun; class counts then differ by at most one.
        steps, cfg_scale, seed: see `SampleConfig`; more options are those of `Sampler`, but that `device` is, unless
            given, that of the model, or of one in a folder cuda where there is one. The model is left there, in
            evaluation mode.

    Returns:
        uint8 images and int64 labels, round the classes.

    Raises:
        InputError: neither number nor budget, a budget too short for one image, a model without labels, guidance of
            a model that never learnt without them, a number that is no multiple of the guide's groups.
    """
    clock = Clock(budget_s)
    check_amount(num_per_class, budget_s, STEPS if steps is None else steps)
    card: dict[str, Any] = {}
    if isinstance(model, str | Path):
        options["device"] = prepare_device(options.get("device"))
        model, card = load_model(model)
    options.setdefault("device", next(model.parameters()).device)
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
    device = prepare_device(processes.local_device(config.device))
    ranks = Ranks.start(device)

    # Whatever can be wrong is found before any work.
    done = finished(out, config.resume)
    require_free(out)
    ranks.least()  # nobody writes before everybody has looked
    model, card = load_model(config.model)
    warn_of(card, config.model)
    plan = _planned(config, model, card, device, clock, ranks, drawn=bool(done) or (out / INDEX).exists())
    if plan is not None:
        config = _following(config, plan)
    model.check_guidance(config.cfg_scale)
    identity = {name: to_dict(config)[name] for name in _IDENTITY}
    identity |= {"steps": config.wanted_steps, "weights": card["weights"]}
    identity = resumed(out, done, identity, clock, 0.0 if plan is None else plan["seconds"])
    ranks.least()  # nobody writes the plan before everybody has looked for an earlier run's
    sampler = _make_sampler(config, identity["steps"], model, card, device, clock)
    total = sampler.total(config.num_per_class)
    sieve = _make_sieve(config, model, card, device, clock)

    # From here on the folder is this run's alone.
    with own_folder(out) if ranks.first else contextlib.nullcontext():
        require(
            not ranks.first or done == finished(out, config.resume),
            f"{out} was drawn into while this command was starting. Start it again.",
        )
        if plan is not None and plan["seconds"] and ranks.first:  # a kill does not cost the trials
            files.write_json(out / PLAN, plan)
        # A look at the speed settles what is open.
        replacing = None if sieve is None else Replacing(sampler, sieve, total, ranks.count)
        pace = sampler.calibrate(clock, total, ranks, 0.0 if replacing is None else replacing.look())
        if replacing is not None:
            replacing.follow(pace)
        identity["steps"] = sampler.steps
        meta = describe(card, config.seed, to_dict(config) | {"steps": sampler.steps, "batch": sampler.batch}, 0.0)
        meta |= {} if plan is None else {"plan": said(plan)}
        meta |= {} if sieve is None else {"filter": sieve.facts}
        draw = _plainly(sampler) if replacing is None else replacing.draw
        tally = None if sieve is None else Tally(sampler.classes)
        _draw(ShardFolder(out, sampler, clock, ranks, identity, meta, tally), draw, pace, done, config.num_per_class)
        if plan is not None and ranks.first:
            files.write_json(out / PLAN, plan)
        ranks.close()
    return out


Draw = Callable[[Sequence[int], float], dict[str, Tensor]]
"""(numbers, seconds) -> what a shard of these images holds beside the labels."""


def _plainly(sampler: Sampler) -> Draw:
    """How images are drawn without a filter."""
    return lambda numbers, seconds: {"images": sampler.draw(numbers, seconds)}


def _draw(
    folder: ShardFolder, draw: Draw, pace: BatchPace, done: Sequence[tuple[int, int]], number: int | None
) -> None:
    """Draw into a folder what is not there yet, and finish it.

    Args:
        folder: the folder.
        draw: draws.
        pace: what a batch takes.
        done: the number ranges that are there.
        number: images per class; None: as many as the budget allows.
    """
    folder.open()
    sampler, clock, ranks = folder.sampler, folder.clock, folder.ranks
    before = drawn = sum(stop - start for start, stop in done)
    total = sampler.total(number)

    # Draw round by round.
    progress = Progress(f"sample, {sampler.steps} steps", total, drawn, unit="img")
    for numbers, tensors in rounds(draw, pace, clock, gaps(done, total), ranks, sampler.group):
        clock.book("sample")
        folder.add(numbers, tensors)
        if drawn >= folder.enough or clock.late():  # drawn in earlier rounds: every process has written those
            folder.picture()
        drawn += len(numbers) * ranks.count
        progress.note = f"{drawn // sampler.classes} per class"
        progress.update(len(numbers) * ranks.count, ends_in=max(clock.left(), 0.0) if clock.budget else None)
    clock.book("sample")
    folder.write()
    progress.close()

    # Merge what every process wrote.
    ranks.least()
    if folder.tally is not None:
        folder.tally.counts = ranks.total(folder.tally.counts)
    if ranks.first:
        print(folder.finish(before, number))


def _make_sampler(
    config: SampleConfig, steps: int | Literal["auto"], model: UViT, card: dict, device: torch.device, clock: Clock
) -> Sampler:
    """The sampler as `config` says, its guide prepared."""
    clock.book("load")
    guide = config.make_guide()
    if guide is not None:
        real = None if guide.joint else _real_data(config, model, card)
        guide.prepare(real, model.to(device), stream(config.seed, "guide"))
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
        expansion=config.expansion or 1.0,
        seed=config.seed,
        batch=config.batch,
        device=device,
        bf16=config.bf16,
        compile=worth or bool(config.compile),
    )
    clock.book("load")
    return sampler


def _make_sieve(
    config: SampleConfig, model: UViT, card: dict[str, Any], device: torch.device, clock: Clock
) -> Sieve | None:
    """What filters the images as `config` says, its classifier trained or read."""
    if config.filter is None:
        return None
    data = _real_data(config, model, card, VAL_FRACTION)
    sieve = Sieve.fit(
        data,
        config.filter,
        network=config.filter_network or FILTER_NETWORK,
        protocol=config.filter_protocol or QUICK.name,
        seed=card.get("train", {}).get("seed", 0),
        device=device,
    )
    clock.book("filter")
    return sieve


def _planned(
    config: SampleConfig,
    model: UViT,
    card: dict[str, Any],
    device: torch.device,
    clock: Clock,
    ranks: Ranks,
    drawn: bool,
) -> PoolPlan | None:
    """The plan that the config asks for: read, or made by the first process while the others wait.

    Args:
        drawn: whether there are images in the folder.
    """
    if config.plan is None:
        return None
    kept = Path(config.out) / PLAN
    own: dict[str, Any] = {"weights": card["weights"], "solver": config.solver, "expansion": config.expansion}
    if config.plan != "auto":  # its trials took nothing of this budget, unless they are this pool's
        place = Path(config.plan)
        return read_plan(place, own) | ({} if place.resolve() == kept.resolve() else {"seconds": 0.0})
    if kept.exists():
        return read_plan(kept, own | {"seed": config.seed})
    require(not drawn, f"{config.out} was drawn without a plan. Leave out --plan, or choose another --out.")
    plan = None
    if ranks.first:
        plan = make_plan(
            _trials(config, model, card, device, clock),
            clock,
            **own,
            seed=config.seed,
            budget=config.budget,
        )
        plan |= {"filter_network": config.filter_network, "filter_protocol": config.filter_protocol}
        print(table(plan))
    return ranks.told(plan)


def _trials(config: SampleConfig, model: UViT, card: dict[str, Any], device: torch.device, clock: Clock) -> Trials:
    """What tries settings as the config says."""
    clock.book("load")

    def make(steps: int, cfg_scale: float) -> Sampler:
        return Sampler(
            model,
            steps=steps,
            solver=config.solver,
            cfg_scale=cfg_scale,
            expansion=config.expansion or 1.0,
            seed=config.seed,
            batch=config.batch,
            device=device,
            bf16=config.bf16,
        )

    @cache
    def sieve(share: float) -> Sieve:
        clock.book("plan")
        return needed(_make_sieve(replace(config, plan=None, filter=share), model, card, device, clock), "no filter")

    return Trials(
        make,
        sieve,
        _real_data(config, model, card, VAL_FRACTION),
        config.plan_per_class,
        settings(config.solver, model.config.null_trained),
        network=config.plan_network,
        filter_network=config.filter_network or FILTER_NETWORK,
        seed=config.seed,
        device=device,
    )


def _following(config: SampleConfig, plan: PoolPlan) -> SampleConfig:
    """The config with what its plan chose, and the plan's filter unless it has one of its own."""
    network = protocol = None
    if plan["chosen"]["filter"] is not None:
        network = config.filter_network or plan.get("filter_network")
        protocol = config.filter_protocol or plan.get("filter_protocol")
    return replace(config, plan=None, **plan["chosen"], filter_network=network, filter_protocol=protocol)


_GUIDANCE = ("cfg_scale", "cfg_interval", "guide", "guide_scale", "guide_until", "guide_slots", "guide_data")

_IDENTITY = ("steps", "solver", "seed", *_GUIDANCE, "expansion", "filter", "filter_network", "filter_protocol")
"""Options that decide what the images are; a resumed run must keep them."""


def _real_data(config: SampleConfig, model: UViT, card: dict[str, Any], val_fraction: float = 0.0) -> ImageData:
    """The real data that a guide or a filter looks at: those that the model was trained on.

    Args:
        config: of the sampling.
        model, card: what `load_model` gives.
        val_fraction: of the validation split, where the model was trained without one.

    Raises:
        InputError: if it is not known which, or they are other data.
    """
    trained = card.get("train", {})
    spec = needed(
        config.guide_data or trained.get("data") or card.get("data"),
        "the model's card does not name its data. Pass --guide_data, e.g. digits.",
    )
    options = {
        name: trained[name]
        for name in ("image_size", "limit_per_class", "test_fraction", "val_fraction", "seed")
        if name in trained
    }
    options["val_fraction"] = options.get("val_fraction") or val_fraction
    with about(f"--guide_data {spec}"):
        data = load_data(spec, **options)
    check_data(model, card, data, spec, "guide_data")
    return data


def main(argv: Sequence[str] | None = None) -> None:
    """Draw one set."""
    run(load_config(SampleConfig, argv, prog="gendd sample"), command_start())


if __name__ == "__main__":
    cli.entry(main)
