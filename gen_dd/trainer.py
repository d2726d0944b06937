"""One training, ready to step: the network, its optimiser, the average of its weights, and what is drawn from it.

A step is defined by the run's seed and its number alone: the images of the global batch, their noise, times, flips and
dropped labels are drawn for the whole batch and then dealt out, so neither the number of processes nor gradient
accumulation changes what a step learns from, and a resumed run continues the very same sequence.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from msgspec import Meta
from torch import Tensor

from core_dd import processes, records
from core_dd.config import to_dict
from core_dd.data import readers
from core_dd.data.real import RealData
from core_dd.errors import require
from core_dd.notes import note
from core_dd.rng import stream
from core_dd.run import Run, checkpoints
from core_dd.sets.learnt import doubt_of, warn_of
from core_dd.speed import UVIT_TRAINING, bf16_pays, compile_in_place, graph_bytes, prepare_device, tf32
from gen_dd.augment import CONDITIONS
from gen_dd.batches import Batch, Batches
from gen_dd.budget import free_mib
from gen_dd.checkpoint import adapt, load_official
from gen_dd.learnt import Finding, SampleJudge, find, initial_share, numbers_for
from gen_dd.neon import Neon
from gen_dd.objectives import OBJECTIVES
from gen_dd.options import TrainConfig
from gen_dd.recipe import OPTIMIZERS, batches, rate
from gen_dd.sampler import Sampler, pays_to_compile
from gen_dd.scaffold import Scaffold, make_aids
from gen_dd.sharding import gathered, make_accelerator, split_like, split_optimizer, whole
from gen_dd.uvit import CONSISTENCY, PRESETS, UViT, image_flops
from gen_dd.validate import Validator, keep_best, save_samples
from gen_dd.weights import CARD, Card, load_model, save_model

STATE = "state.pt"

_BEFORE = "Remove this checkpoint to resume from the one before it, or start a new run."


class TrainerState(TypedDict):
    """What a checkpoint holds beside the averaged model."""

    model: dict[str, Tensor]
    aids: NotRequired[dict[str, Tensor]]  # of a training that has a scaffold
    optimizer: dict[str, Any]
    ema: dict[str, Any]
    processes: Annotated[int, Meta(ge=1)]
    seconds: Annotated[float, Meta(ge=0)]


class Trainer:
    """One training, ready to step: network in its scaffold, optimiser, average of the weights, batches.

    Args:
        config: what to train, and how.
        data: the real images.
        model: the fresh network.
        accelerator: of the processes that train together. `start` makes it and the model.

    Attributes:
        network: the model in its scaffold, as the processes share it.
        first: whether this process is the one that writes.
        scores: of the last evaluation.
        seconds: of training steps, over all calls of the run.
        shown: images that the steps of this call have learnt from.

    Raises:
        InputError: if the batch cannot be dealt out to processes and passes, or the encoder to align with cannot see
            the images; as `Neon`.
    """

    def __init__(self, config: TrainConfig, data: RealData, model: UViT, accelerator: Accelerator) -> None:
        self.config, self.data, self.accelerator = config, data, accelerator
        self.device, self.processes = accelerator.device, accelerator.num_processes
        self.rank, self.first = accelerator.process_index, accelerator.is_main_process
        parts = self.processes * config.accumulate
        require(
            config.batch_size % parts == 0,
            f"batch_size {config.batch_size} is not a multiple of {self.processes} processes x accumulate "
            f"{config.accumulate}. Choose a multiple of {parts}.",
        )
        require(
            config.align == 0 or data.shape[0] in (1, 3),
            f"align: EfficientNet-Lite0 sees images of 1 or 3 channels, {data.name} has {data.shape[0]}. Leave it out.",
        )
        self.model = model.to(self.device)
        if config.checkpointing:
            self.model.enable_gradient_checkpointing()
        options = {"lr": config.lr, "betas": config.betas, "weight_decay": config.weight_decay}
        options["bf16"] = accelerator.mixed_precision == "bf16"
        self.aids = make_aids(self.model, config, stream(config.seed, "aids")).to(self.device)
        optimizer = OPTIMIZERS[config.optimizer](self.model, self.aids, **options)
        self.share = config.batch_size // parts  # images of a process and pass
        self.objective = OBJECTIVES[config.OBJECTIVE](config)
        self._flops = self.objective.passes * config.accumulate * self.share * image_flops(model)
        self.scaffold = Scaffold(self.model, self.aids, config.dropout)
        self.network, self.optimizer = accelerator.prepare(self.scaffold, optimizer)
        self.neon = None if config.neon is None else Neon(config, data, self.model.parameters())
        self.ema = EMAModel(
            self.model.parameters(),
            decay=config.ema_decay,
            min_decay=0.0 if config.ema_warmup else config.ema_decay,
            update_after_step=-1,
            foreach=True,
        )
        self.scores: dict[str, float] = {}
        self.seconds, self.shown = 0.0, 0
        self.batches = functools.cache(self._batches)  # most trainings need the first sequence alone

    @classmethod
    def start(cls, config: TrainConfig, data: RealData) -> "Trainer":
        """Join the processes that a launcher started, and make the network: a training's first act.

        Raises:
            InputError: no such device, fewer GPUs than processes; as `make_model`, `make_accelerator`, `Trainer` and
                `require_memory`.
        """
        model, kind = make_model(config, data), prepare_device(processes.local_device(config.device)).type
        bf16 = config.bf16 and bf16_pays(kind)
        trainer = cls(config, data, model, make_accelerator(cpu=kind == "cpu", precision="bf16" if bf16 else "no"))
        trainer.require_memory()
        return trainer

    def _batches(self, part: int) -> Batches:
        """One sequence of batches: a step takes one of each of the first few sequences."""
        config, data = self.config, self.data
        assert self.model.null_class is not None  # `make_model` gives it the classes of the data
        return Batches(
            data if self.neon is None else self.neon.samples,
            config.batch_size,
            null_class=self.model.null_class,
            flip=data.hflip if config.hflip is None else config.hflip,
            dropout=config.label_dropout,
            seed=config.seed,
            device=self.device,
            rows=torch.arange(config.batch_size).view(config.accumulate, self.processes, -1)[:, self.rank].flatten(),
            augment=config.augment,
            part=part,
        )

    def summary(self) -> str:
        """What runs where, in one line."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return (
            f"U-ViT with {count / 1e6:.2f}M parameters on {self.processes} x {self.device.type}, "
            f"{self.accelerator.mixed_precision.replace('no', 'fp32')}, {self.share} images per process and pass"
            + (", weights split by FSDP" if self.accelerator.is_fsdp2 else "")
            + f", {len(self.data.train_labels)} images {self.data.how}"
        )

    def compile(self, done: int = 0) -> None:
        """Compile the network where that pays in what is left after `done` steps; on all processes.

        It is done by a pass whose result is dropped, so that no step's time contains it.
        """
        if not (self.config.compile and UVIT_TRAINING.pays(self._uncompiled(done), self.device)):
            return
        compile_in_place(self.scaffold, self.device, dynamic=False)
        images, times = torch.zeros(self.share, *self.data.shape), torch.zeros(self.share)
        told = torch.zeros(self.share, CONDITIONS if self.config.augment else 0)
        inputs = [own.to(self.device) for own in (images, times, times.long(), told, times.int())]
        with tf32(self.device, self.config.TF32):
            if self.objective.looks:
                with torch.no_grad(), self.accelerator.autocast():
                    self.network(*inputs)
            with self.accelerator.autocast():
                predicted = self.network(*inputs)
            self.accelerator.backward(sum(each.square().mean() for each in predicted if each is not None))
        self.optimizer.zero_grad(set_to_none=True)

    def require_memory(self) -> None:
        """On a CPU, where the system would end the process without a word, refuse a pass that does not fit.

        Counted is what autograd keeps of the pass, by far the largest part; not of a network that is split (FSDP).

        Raises:
            InputError: if it does not.
        """
        if self.device.type != "cpu" or self.accelerator.is_fsdp2:
            return

        def forward(net: torch.nn.Module, images: Tensor) -> Tensor:
            return net(images, torch.zeros(len(images)), torch.zeros(len(images), dtype=torch.long))

        wanted = processes.local_count() * self.share * graph_bytes(self.model, self.data.shape, forward) / 2**20
        wanted *= 0.5 if self.accelerator.mixed_precision == "bf16" else 1.0
        free = free_mib(self.device)
        require(
            wanted <= free,
            f"a pass of {self.share} images wants about {wanted / 1024:.1f} GiB, and {free / 1024:.1f} GiB are free. "
            "Pass a larger --accumulate (several passes for a step, to the same result), --checkpointing (less memory, "
            "more time) or a smaller --batch_size.",
        )

    def _uncompiled(self, done: int) -> float:
        """About how many seconds of uncompiled steps are to come; see `TrainConfig.compile`."""
        steps, limit = self.config.iterations, self.config.max_seconds
        if limit is None:
            return UVIT_TRAINING.seconds(self._flops, steps, self.device)
        return min(UVIT_TRAINING.seconds(self._flops, steps - done, self.device), limit - self.seconds)

    def step(self, step: int) -> Tensor:
        """One optimiser step; returns the loss of the global batch (of this process's part, when there are several)."""
        total = torch.zeros((), device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.batches_of(step) * self.config.accumulate
        for number, part in enumerate(self._parts(step), 1):
            own = contextlib.nullcontext() if number == parts else self.accelerator.no_sync(self.network)
            with own, tf32(self.device, self.config.TF32):
                with self.accelerator.autocast():
                    losses = self.objective(self.network, part, self.progress(step))
                loss = losses.mean() / parts
                self.accelerator.backward(loss)
                total += loss.detach()
        self.shown += self.config.batch_size * self.batches_of(step)
        if self.config.grad_clip is not None:
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(step)
        self.optimizer.step()
        self.ema.step(self.model.parameters())
        return total

    def lr(self, step: int) -> float:
        """The learning rate of a step, which may depend on the time used up: see `recipe.rate`; larger batches keep it
        up."""
        config = self.config
        own = rate(step, config.iterations, warmup=config.warmup, anneal=config.anneal, elapsed=self._elapsed())
        return config.lr * self.batches_of(step) * own

    def batches_of(self, step: int) -> int:
        """How many batches make up a step: see `recipe.batches`."""
        config = self.config
        return batches(rate(step, config.iterations, anneal=config.anneal, elapsed=self._elapsed()), config.growth)

    def progress(self, step: int) -> float:
        """The part of the training that is done before a step, in [0, 1): of its steps, or of its time if more."""
        return max(step / self.config.iterations, self._elapsed())

    def _elapsed(self) -> float:
        """The part of the time limit that is used up; 0 without one."""
        return self.seconds / self.config.max_seconds if self.config.max_seconds else 0.0

    def _parts(self, step: int) -> Iterator[Batch]:
        """The passes that this process's rows of a step's batches are dealt out to."""
        for number in range(self.batches_of(step)):
            batch = self.batches(number)(step)
            chunks = (getattr(batch, own.name).chunk(self.config.accumulate) for own in fields(Batch))
            yield from (Batch(*parts) for parts in zip(*chunks, strict=True))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[UViT]:
        """The network with the averaged weights, those of `Neon` where it is asked for, while the block lasts; on all
        processes together.

        It is the trained network itself with its weights changed, or a whole copy where that one is split.
        """
        weights = self.ema.shadow_params
        weights = weights if self.neon is None else self.neon.weights(weights)
        if self.accelerator.is_fsdp2:
            yield whole(self.model, weights, self.device)
            return
        self.ema.store(self.model.parameters())
        with torch.no_grad():
            for own, other in zip(self.model.parameters(), weights, strict=True):
                own.copy_(other)
        try:
            yield self.model
        finally:
            self.ema.restore(self.model.parameters())
            self.model.train()

    def save(self, run: Run, step: int, grid: Path | None, scores: Mapping[str, float]) -> None:
        """A checkpoint of everything the next step depends on, and the model to sample from, with a picture of its
        samples and what they scored; on all processes together, written by the first."""
        parts = {"model": self.model, "aids": self.aids, "optimizer": self.optimizer, "ema": self.ema}
        state = {name: gathered(part.state_dict(), keep=self.first) for name, part in parts.items()}
        run.check(step, weights=float(sum(tensor.sum() for tensor in state["model"].values())))
        state |= {"processes": self.processes, "seconds": self.seconds}
        with run.checkpoint(step) as folder:
            run.write(folder / STATE, lambda path: torch.save(state, path))
            with self.averaged() as model:
                run.write(
                    folder / "model", functools.partial(self.save_averaged, model, step=step, grid=grid, scores=scores)
                )

    def save_averaged(
        self, model: UViT, folder: Path, step: int, grid: Path | None, scores: Mapping[str, float]
    ) -> None:
        """The averaged weights, with what the model is, when they were made and what they scored then, if anything."""
        data = self.data
        card: dict[str, Any] = {"data": data.name, "fingerprint": data.fingerprint}
        card |= {
            "class_names": list(data.class_names),
            "step": step,
            "train": to_dict(self.config),
            "metrics": dict(scores),
        }
        save_model(model, folder, card, grid)

    def load(self, folder: Path) -> str:
        """Continue from what `save` wrote; returns what there is to say about it.

        Raises:
            InputError: a checkpoint of other data, or one that does not hold this training's state.
        """
        card = records.read(folder / "model" / CARD, Card, _BEFORE)
        require(
            card.get("fingerprint") == self.data.fingerprint,
            f"{folder} was trained on {card.get('data')} (fingerprint {card.get('fingerprint')}), but the data are now "
            f"{self.data.name} (fingerprint {self.data.fingerprint}). Resume with the data it was trained on, or start "
            f"a new run with --init_from {folder}.",
        )
        state = records.checked(readers.load_tensors(folder / STATE), TrainerState, str(folder / STATE), _BEFORE)
        hint = (
            f"Expected weights, optimiser and averages of the network that the run's config.yaml describes. {_BEFORE}"
        )
        with records.restoring(str(folder), hint):
            self._restore(state)
            before = state["processes"]
        if before == self.processes:
            return ""
        return f"; {before} process(es) before, {self.processes} now, the same global batch of {self.config.batch_size}"

    def _restore(self, state: dict[str, Any]) -> None:
        """Take over weights, optimiser, averages and time from what `save` put together, split as they are here."""
        for name, part in (("model", self.model), ("aids", self.aids)):
            saved = state.get(name, {})  # the first checkpoints know of no aids
            part.load_state_dict({key: split_like(saved[key], own) for key, own in part.state_dict().items()})
        self.optimizer.load_state_dict(split_optimizer(state["optimizer"], self.optimizer))
        records.fitting(self.optimizer)
        average = zip(state["ema"]["shadow_params"], self.model.parameters(), strict=True)
        self.ema.load_state_dict(state["ema"] | {"shadow_params": [split_like(*pair) for pair in average]})
        self.ema.to(self.device)
        self.seconds = state["seconds"]

    def draw(self, model: UViT, numbers: Sequence[int], **options: Any) -> tuple[Tensor, Tensor]:
        """Samples of a model by number, shared out to the processes: uint8 (N, C, H, W), int64 (N,).

        Options are those of `Sampler`.
        """
        share = math.ceil(len(numbers) / self.processes)
        mine = [numbers[min(i, len(numbers) - 1)] for i in range(self.rank * share, (self.rank + 1) * share)]
        options["compile"] = self.config.compile and pays_to_compile(model, share, options["steps"], self.device)
        sampler = Sampler(model, seed=self.config.seed, device=self.device, bf16=self.config.bf16, **options)
        parts = [sampler.draw(mine[i : i + sampler.batch]) for i in range(0, share, sampler.batch)]
        images = self.accelerator.gather(torch.cat(parts).to(self.device)).cpu()
        return images[: len(numbers)], sampler.labels(numbers)

    def picture(self, run: Run, step: int) -> Path:
        """Keep a grid of samples of the averaged weights, ten for each of the first ten classes."""
        classes = self.data.num_classes
        numbers = [i * classes + label for label in range(min(10, classes)) for i in range(10)]
        with self.averaged() as model:
            images, labels = self.draw(model, numbers, **self.objective.drawing)
        return save_samples(run, images, labels, step)

    def learnt(self, judge: SampleJudge | None, step: int) -> Finding | None:
        """What samples of the averaged weights show of the classes, on the process that has a judge; all draw."""
        numbers = numbers_for(self.config.check_images, self.data.num_classes)
        with self.averaged() as model:
            images, labels = self.draw(model, numbers, **self.objective.drawing)
        if judge is None:
            return None
        return find(judge, images, labels, step=step, initial_share=initial_share(self.ema))

    def validate(self, validator: Validator | None, run: Run, step: int) -> Path | None:
        """Score samples of the averaged weights, keep their picture, and the model if it is the best so far: on the
        process that has a validator; all of them draw."""
        config = self.config
        count = max(config.eval_images, config.eval_ipc * self.data.num_classes)
        with self.averaged() as model:
            images, labels = self.draw(model, range(count), steps=config.eval_steps, solver=config.eval_solver)
            if validator is None:
                return None
            self.scores, grid = validator.measure(images, labels), save_samples(run, images, labels, step)
            save = functools.partial(self.save_averaged, model, step=step, grid=grid, scores=self.scores)
            keep_best(run, self.scores, step, to_dict(config), save)
        return grid

    def mean(self, values: Sequence[Tensor]) -> list[float]:
        """The mean of each over all processes."""
        return self.accelerator.reduce(torch.stack(list(values)), "mean").tolist()

    def wait(self) -> None:
        """Until every process is here. (accelerate's own way asks for a GPU each, on a machine that has one, of
        processes that train on the CPU.)"""
        self.mean([torch.zeros((), device=self.device)])

    def clock(self, seconds: float) -> float:
        """The mean of every process's clock where a time limit is set: one time for all, so that they anneal and stop
        together. Without limit each keeps its own, and none waits for the others."""
        if self.processes == 1 or not (self.config.max_seconds or self.config.chunk_seconds):
            return seconds
        return float(self.accelerator.reduce(torch.tensor(seconds, device=self.device), "mean"))


def make_model(config: TrainConfig, data: RealData) -> UViT:
    """The fresh network a config asks for, its weights drawn from the run's seed; of a resumed run in a folder that it
    names, where `init_from` told the network, that of its last checkpoint, which nothing but Neon needs that file for.

    Raises:
        InputError: if the images are not square or their side is no multiple of the patch.
    """
    channels, height, width = data.shape
    require(height == width, f"U-ViT wants square images, {data.name} has {width}x{height}. Pass --image_size.")
    begun = checkpoints(Path(config.out))[-1:] if config.resume and config.out and config.neon is None else []
    if config.init_from is not None and begun:
        model = load_model(begun[-1][1] / "model")[0].train()
        own = (model.config.num_classes, model.config.in_channels, model.config.image_size)
        require(
            own == (data.num_classes, channels, height),
            f"{config.out} learns {own[0]} classes of {own[1]}x{own[2]}x{own[2]} pixels, and {data.name} has "
            f"{data.num_classes} of {channels}x{height}x{width}. Resume with the data it was begun with.",
        )
    elif config.init_from is not None:
        model = _initialised_from(Path(config.init_from), config, data)
    else:
        sizes = dict(PRESETS[config.preset]) | {"image_size": height, "in_channels": channels}
        sizes["patch_size"] = config.patch_size or sizes["patch_size"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream(config.seed, "weights").initial_seed())
            model = UViT(**sizes, num_classes=data.num_classes)
    tuned = config.OBJECTIVE == CONSISTENCY
    null_trained = config.label_dropout > 0
    if config.neon is not None or tuned:  # too short to learn what the model has not
        null_trained = null_trained and model.config.null_trained
    model.register_to_config(null_trained=null_trained, consistency=tuned)
    return model


def _initialised_from(place: Path, config: TrainConfig, data: RealData) -> UViT:
    """The network whose weights are at `place`, fitted to the labels and size of `data`; says on stderr what was kept,
    and where it may have learnt too little to be tuned.

    Raises:
        InputError: no or damaged weights, other heads than a model folder says, or images with another number of
            channels.
    """
    generator, num_heads = stream(config.seed, "weights"), config.num_heads
    card: dict[str, Any] = {}
    known = False
    options: dict[str, Any] = {"image_size": data.shape[1], "num_classes": data.num_classes}
    if place.name == STATE and (place.parent / "model").is_dir():
        place = place.parent  # the checkpoint, whose model folder has the averaged weights
    if place.is_dir():
        model, card = load_model(place)
        warn_of(card, place)
        known = card.get("fingerprint") == data.fingerprint
        heads, null_trained = model.config.num_heads, model.config.null_trained
        require(num_heads in (None, heads), f"{place} says num_heads {heads}, got {num_heads}. Leave it out.")
        model, report = adapt(
            model.state_dict(), drop_labels=not known, generator=generator, num_heads=heads, **options
        )
        model.register_to_config(null_trained=model.config.null_trained and null_trained)
        note(f"{place}:\n{report}")
    else:
        model = load_official(place, generator=generator, num_heads=num_heads, **options)
    require(
        model.config.in_channels == data.shape[0],
        f"{place} was trained on images of {model.config.in_channels} channels, {data.name} has {data.shape[0]}.",
    )
    doubt = doubt_of(card, known) if config.OBJECTIVE == CONSISTENCY else ""
    if doubt:
        note(f"note: what {place} is tuned into draws no better than it does, and {doubt}.")
    return model.train()
