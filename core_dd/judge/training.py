"""Train R classifiers at once on one set; the test images are read once, at the end.

The classifiers' weights are stacked, (R, ...). On CUDA one vmapped step trains all of them; on the CPU, where that
measured half as fast, the same step trains one after the other, and so do networks with dropout, each of which draws on
its own, and those of other code that vmap cannot take. Both are compiled where it pays, in bf16 with fp32 master
weights where that does. Batches, augmentation and dropout of run r come from streams keyed by (seed, r, step), so a
classifier is the same whether trained alone or among others.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from core_dd import progress
from core_dd.config import to_dict
from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.errors import Diverged, brief, require
from core_dd.judge.answers import Answers
from core_dd.judge.augment import cutmix
from core_dd.judge.networks import ForeignNetwork, NetworkLike, build_network, interact, name_of
from core_dd.judge.protocols import Protocol, TrainingPlan
from core_dd.judge.unfinished import Unfinished, identity_of
from core_dd.notes import note
from core_dd.records import finite, fitting, same_shape
from core_dd.rng import drawn_by, stream
from core_dd.speed import CLASSIFIERS, autocast, bf16_pays, can_compile, compiled, forward_flops

State = dict[str, Tensor]
"""Parameters or buffers by name; stacked, every tensor is (R, ...)."""

TEST_CHUNK = 250
"""Test images per forward: bounds the memory, which is 130 MB for a layer of ConvNet-3 at 32 pixels. Twice as many took
a CPU a tenth longer: so large blocks were not found among those that had been freed."""

_CURVE_POINTS = 100
"""About how many points of the loss curve are kept."""


@dataclass
class Classifiers:
    """R trained classifiers of one architecture.

    Attributes:
        net: a network of the architecture; its own weights mean nothing.
        params, buffers: stacked state, (R, ...) each.
        preprocess: the map from pixels to the space they were trained in.
        curve_steps, curve_loss: the steps logged, and each run's training loss there, (R, steps).
        bf16: whether they judge in bf16 where it pays.
        images_seen: how many images each has trained on, counted as often as it did; 0 where that is not known.
        paused: what was made of them at each pause of the training, see `train`.
        earlier_seconds: that calls which were stopped have trained them.
    """

    net: nn.Module
    params: State
    buffers: State
    preprocess: Preprocess
    curve_steps: list[int]
    curve_loss: list[list[float]]
    bf16: bool = True
    images_seen: int = 0
    paused: list[list[float]] = field(default_factory=list)
    earlier_seconds: float = 0.0

    def __len__(self) -> int:
        return len(next(iter(self.params.values())))

    @property
    def parameters(self) -> int:
        """How many numbers a classifier learns."""
        return sum(tensor[0].numel() for tensor in self.params.values())

    def network(self, r: int) -> nn.Module:
        """Classifier `r` as a module of its own, in evaluation mode."""
        net = copy.deepcopy(self.net).eval()
        own = dict(net.named_parameters()) | dict(net.named_buffers())
        with torch.no_grad():
            for name, tensor in (one(self.params, r) | one(self.buffers, r)).items():
                own[name].copy_(tensor)
        return net

    def accuracies(self, images: Tensor, labels: Tensor) -> list[float]:
        """The fraction of images each classifier gets right; arguments as for `answers`."""
        return self.answers(images, labels).accuracies

    @torch.inference_mode()
    def answers(self, images: Tensor, labels: Tensor) -> Answers:
        """What each classifier answers.

        Args:
            images: pixels, uint8 or float on the 0..1 scale, (N, C, H, W), N >= 1, on any device.
            labels: int64 (N,).
        """
        parts = zip(self.logits(images), labels.split(TEST_CHUNK), strict=True)
        return Answers.of((logits, target.to(logits.device)) for logits, target in parts)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Iterator[Tensor]:
        """The classifiers' outputs, float32 (R, B, K), on B images at a time, on their device."""
        device = next(iter(self.params.values())).device
        nets = [self.network(r) for r in range(len(self))]
        for chunk in images.split(TEST_CHUNK):
            x = self.preprocess.forward(chunk.to(device))
            with autocast(device, self.bf16):
                logits = torch.stack([net(x) for net in nets]).float()
            yield logits


class Training:
    """R classifiers in training on one set.

    Args:
        images: pixels, uint8 or float on the 0..1 scale, (N, C, H, W).
        labels: int64 (N,), or float (N, K) soft.
        data: the real data: shape, classes, whether flips are allowed, and what the preprocessing is fitted on.
        protocol, network: how to train what; a network as `build_network` takes it.
        runs: the runs' numbers; they key the random streams.
        seed: of every stream.
        device: where the set, the classifiers and the work are.
        preprocess: the map to training space; None fits mean and std on `data`.
        stacked: one vmapped step for all classifiers, where the network allows it, or one after the other; None:
            stacked on CUDA.
        bf16: autocast to bf16 where it pays; master weights stay fp32.
        teacher: the classifier that labels the batches of a protocol that has one.

    Raises:
        InputError: a network that cannot take the images; a protocol that asks for a teacher, and none.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        data: ImageData,
        *,
        protocol: Protocol,
        network: NetworkLike,
        runs: Sequence[int],
        seed: int,
        device: torch.device,
        preprocess: Preprocess | None = None,
        stacked: bool | None = None,
        bf16: bool = True,
        teacher: Classifiers | None = None,
    ) -> None:
        require(
            (protocol.teacher is None) == (teacher is None),
            f"protocol {protocol.name} {'has no' if protocol.teacher is None else 'needs a'} teacher.",
        )
        labels = labels.float() if labels.is_floating_point() else labels.long()
        if protocol.cutmix and not labels.is_floating_point():
            labels = F.one_hot(labels, data.num_classes).float()
        self.images, self.labels, self.device = images.to(device), labels.to(device), device
        self.protocol, self.runs, self.seed, self.bf16 = protocol, list(runs), seed, bf16
        self.preprocess = (preprocess or Preprocess.fit(data)).to(device)
        self.augmentation = protocol.augmentation(data, name_of(network))
        self.plan = protocol.plan(len(images), augmented=self.augmentation is not None)
        self._teacher = None if teacher is None else teacher.network(0).to(device)
        self._seen_by = None if teacher is None else _other_map(teacher.preprocess.to(device), self.preprocess)
        self.net, self.params, self.buffers = initialise(network, data, self.runs, seed, device)
        self._draws = draws(self.net, data.shape)
        stacked = device.type == "cuda" if stacked is None else stacked
        self._gradients = gradients_of(
            self.net,
            device,
            stacked=stacked and not self._draws and stacks(self.net, self.params, self.buffers, data.shape),
            bf16=bf16,
            fast=pays_to_compile(self.net, self.plan, len(self.runs), data.shape, device),
            temperature=None if teacher is None else protocol.temperature,
        )

    def step(self, step: int) -> Tensor:
        """Step number `step` of every run, called in order from 0; returns the training losses (R,)."""
        # A new optimiser at the start, and where the protocol drops the learning rate.
        if self.plan.new_optimizer_at(step):
            self.optimizer = optimizer_of(self.protocol, self.params)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr_at(step)

        # Every run's own batch (R, B, ...), augmentation and, where a teacher gives them, labels.
        x, y = self._batch(step)
        if self.protocol.cutmix:
            generators = [stream(self.seed, "cutmix", r, step) for r in self.runs]
            x, y = cutmix(x, y, self.protocol.cutmix, generators)
        y = y if self._teacher is None else self._taught(x)

        # One step of all.
        dropout = [stream(self.seed, "dropout", r, step) for r in self.runs] if self._draws else None
        grads, loss = self._gradients(self.params, self.buffers, x, y, dropout)
        for name, parameter in self.params.items():
            parameter.grad = grads[name]
        self.optimizer.step()
        return loss

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Every run's images, augmented, in training space, and labels of the set."""
        index = draw_batches(self.plan, len(self.images), self.runs, self.seed, step).to(self.device)
        x, augmentation = self.images[index], self.augmentation
        generators = [stream(self.seed, "augment", r, step) for r in self.runs]
        if augmentation is not None and augmentation.in_pixels:
            x = augmentation.per_image(x, generators)
        x = self.preprocess.forward(x)
        if augmentation is not None and not augmentation.in_pixels:
            x = augmentation.per_image(x, generators)
        return x, self.labels[index]

    @torch.no_grad()
    def _taught(self, x: Tensor) -> Tensor:
        """What the teacher says of images (R, B, C, H, W) in training space: probabilities at the protocol's
        temperature, (R, B, K)."""
        assert self._teacher is not None
        if self._seen_by is not None:  # it was trained in another space than the set's
            x = self._seen_by.forward(self.preprocess.inverse(x))
        with autocast(self.device, self.bf16):
            logits = self._teacher(x.flatten(0, 1)).float()
        return (logits / self.protocol.temperature).softmax(1).unflatten(0, x.shape[:2])

    def classifiers(self, curve_steps: Sequence[int] = (), curve_loss: Sequence[list[float]] = ()) -> Classifiers:
        """The runs as classifiers, whose weights the next step changes; with the curves so far."""
        state = self.net, self.params, self.buffers, self.preprocess
        return Classifiers(*state, list(curve_steps), list(curve_loss), self.bf16)

    def identity(self, **more: Any) -> str:
        """Of a training that has not begun: what tells it, and plain values beside it, from every other one."""
        said = {"protocol": to_dict(self.protocol), "runs": self.runs, "seed": self.seed, "bf16": self.bf16, **more}
        kind, fitted = self.preprocess.to_meta()
        teacher = [] if self._teacher is None else self._teacher.state_dict().values()
        weights = [*self.params.values(), *self.buffers.values()]
        return identity_of([said, kind], [self.images, self.labels, *fitted.values(), *weights, *teacher])

    def state(self) -> dict[str, Any]:
        """What the next step depends on, once there was one."""
        return {"params": self.params, "buffers": self.buffers, "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises:
            ValueError: if it does not fit, or is not finite.
        """
        for kind, own in (("params", self.params), ("buffers", self.buffers)):
            finite(state[kind][name] for name in own)
            for name, tensor in own.items():
                tensor.copy_(same_shape(state[kind][name], tensor, name))
        self.optimizer = optimizer_of(self.protocol, self.params)
        self.optimizer.load_state_dict(state["optimizer"])
        fitting(self.optimizer)


def _other_map(own: Preprocess, other: Preprocess) -> Preprocess | None:
    """`own`, unless it is the same map as another."""
    (kind, fitted), (other_kind, others) = own.to_meta(), other.to_meta()
    alike = kind == other_kind and fitted.keys() == others.keys()
    return None if alike and all(torch.equal(fitted[name], others[name]) for name in fitted) else own


def train(
    images: Tensor,
    labels: Tensor,
    data: ImageData,
    *,
    pauses: Sequence[float] = (),
    at_pause: Callable[[Classifiers], list[float]] = lambda classifiers: [],
    unfinished: Path | None = None,
    **options,
) -> Classifiers:
    """Train one classifier per run to the end of its protocol; the other arguments are those of `Training`.

    Args:
        pauses: parts of the training, in (0, 1).
        at_pause: is shown the classifiers as they are after each of them, and its numbers are kept; to the training it
            makes no difference.
        unfinished: a file that keeps the state of a long training; one that holds this training is gone on from. It
            stays at the end, for whoever takes the classifiers to remove once that is done.

    Raises:
        InputError: a network that cannot take the images; a damaged `unfinished`.
        Diverged: a loss that is not finite.
    """
    training = Training(images, labels, data, **options)
    network, steps = name_of(options["network"]), training.plan.steps
    stops = {round(part * steps) for part in pauses}
    course, place = _Course(), None
    if unfinished is not None:
        place = Unfinished(unfinished, training.identity(network=network, stops=sorted(stops)))
        course.resume(training, place)
    for step in progress.steps(f"{len(training.runs)} x {network}", steps, course.done, leave=False):
        loss, last = training.step(step), step == steps - 1
        logged = last or step % max(1, steps // _CURVE_POINTS) == 0
        keeps = place is not None and (place.due or (last and place.kept))
        if (logged or keeps) and not loss.isfinite().all():
            raise Diverged(
                f"training a classifier diverged: its loss is not finite at step {step}. Are the images on the "
                "0..1 scale, and is the learning rate of the protocol meant for them?"
            )
        if logged:
            course.steps.append(step)
            course.losses.append(loss)
        if step + 1 in stops:
            course.paused.append(at_pause(training.classifiers()))
        if place is not None and keeps:
            place.write(step + 1, **training.state(), **course.state())
    classifiers = training.classifiers(course.steps, torch.stack(course.losses, 1).tolist())
    return replace(
        classifiers,
        images_seen=training.plan.images_seen(len(training.images)),
        paused=course.paused,
        earlier_seconds=0.0 if place is None else place.seconds,
    )


@dataclass
class _Course:
    """How a training that goes on at step `done` went so far: the losses (R,) of logged steps, what pauses gave."""

    done: int = 0
    steps: list[int] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    paused: list[list[float]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """What a file keeps of it."""
        return {"curve_steps": self.steps, "curve_losses": torch.stack(self.losses), "paused": self.paused}

    def resume(self, training: Training, place: Unfinished) -> None:
        """Go on from what a file keeps of a training, if anything."""
        state = place.read()
        if state is None:
            return
        with place.restoring():
            training.load_state(state)
            self.done, self.steps, self.paused = state["step"], state["curve_steps"], state["paused"]
            logged = torch.empty(len(self.steps), len(training.runs), device=training.device)
            finite([logged.copy_(same_shape(state["curve_losses"], logged, "curve_losses"))])
            self.losses = list(logged)
            if self.done > training.plan.steps:
                raise ValueError(f"it is at step {self.done} of {training.plan.steps}")
        note(f"the training goes on at step {self.done} of {training.plan.steps}, from {place.place}")


def optimizer_of(protocol: Protocol, params: State) -> torch.optim.Optimizer:
    """A protocol's optimiser of stacked parameters (R, ...): what is alike for each of them alone."""
    decay = protocol.weight_decay
    if protocol.optimiser == "sgd":
        return torch.optim.SGD(params.values(), momentum=protocol.momentum, weight_decay=decay)
    weights = [tensor for tensor in params.values() if tensor.dim() > 2]  # of one run: more than a vector
    others = [tensor for tensor in params.values() if tensor.dim() <= 2]
    groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]])


def initialise(
    network: NetworkLike, data: ImageData, runs: Sequence[int], seed: int, device: torch.device
) -> tuple[nn.Module, State, State]:
    """A network to call with others' weights, and the runs' stacked parameters and buffers; parameters that are frozen
    are among the buffers."""
    nets = [build_network(network, data.shape, data.num_classes, stream(seed, "network", r)).to(device) for r in runs]
    params, buffers = stack_module_state(nets)
    frozen = {name for name, parameter in nets[0].named_parameters() if not parameter.requires_grad}
    params = {name: tensor.detach() for name, tensor in params.items()}
    buffers = buffers | {name: params.pop(name) for name in frozen}
    require(bool(params), f"network {name_of(network)} has no weights to train.")
    return nets[0], params, buffers


@torch.no_grad()
def draws(net: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether a forward pass in training draws random numbers, as dropout does: tried on two images (C, H, W)."""
    device = next(net.parameters()).device
    buffers = {name: tensor.clone() for name, tensor in net.named_buffers()}  # which batch normalisation changes

    def states() -> Tensor:
        return torch.cat(
            [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
        )

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        before = states()
        functional_call(net, buffers, torch.zeros(2, *shape, device=device))
        return not torch.equal(states(), before)


def stacks(net: nn.Module, params: State, buffers: State, shape: tuple[int, int, int]) -> bool:
    """Whether vmap can take a network: the project's own, or other code that a trial shows to; else that is said."""
    if not isinstance(net, ForeignNetwork):
        return True
    runs, device = len(next(iter(params.values()))), next(iter(params.values())).device
    x, y = torch.zeros(runs, 2, *shape, device=device), torch.zeros(runs, 2, dtype=torch.long, device=device)
    copies = {name: tensor.clone() for name, tensor in buffers.items()}
    try:
        gradients_of(net, device, stacked=True, bf16=False, fast=False)(params, copies, x, y)
    except (RuntimeError, TypeError, ValueError) as error:  # what vmap and unbatched in-place changes raise
        note(f"note: classifiers train one after the other: vmap cannot take them ({brief(str(error))}).")
        return False
    return True


def gradients_of(
    net: nn.Module,
    device: torch.device,
    *,
    stacked: bool,
    bf16: bool = True,
    fast: bool = True,
    temperature: float | None = None,
) -> Callable[..., tuple[State, Tensor]]:
    """A function of (params, buffers, x (R, B, C, H, W), y (R, B)) that gives every run's (gradients, loss (R,)).

    One that is not stacked takes generators as well, one per run, that govern what its network draws (dropout).

    Args:
        net: the architecture.
        stacked: vmap over the runs, or one after the other.
        bf16: autocast where it pays.
        fast: compile.
        temperature: the loss is the Kullback-Leibler divergence from y, a teacher's probabilities (R, B, K), of outputs
            divided by this; None: cross-entropy.
    """
    # Under vmap, batch normalisation cannot mix bf16 images with fp32 statistics.
    kind, mixed = device.type, bf16 and bf16_pays(device.type) and not (stacked and interact(net))

    def loss(params: State, buffers: State, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=mixed):
            logits = functional_call(net, (params, buffers), (x,))
        if temperature is None:
            return F.cross_entropy(logits.float(), y)
        return F.kl_div((logits.float() / temperature).log_softmax(1), y, reduction="batchmean")

    if stacked:
        step = vmap(grad_and_value(loss), randomness="error")
        step = compiled(step, device, dynamic=False) if fast else step
        return lambda params, buffers, x, y, generators=None: step(params, buffers, x, y)
    fast = fast and can_compile(kind)
    loss_of_one = compiled(loss, device, dynamic=False) if fast else loss
    layout = torch.channels_last if fast else torch.contiguous_format  # each is the faster one there

    def one_by_one(
        params: State, buffers: State, x: Tensor, y: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> tuple[State, Tensor]:
        grads, losses = [], []
        for r in range(len(x)):
            own = {name: tensor.detach().requires_grad_() for name, tensor in one(params, r).items()}
            with drawn_by(generators[r] if generators else None, device):
                value = loss_of_one(own, one(buffers, r), x[r].contiguous(memory_format=layout), y[r])
            grads.append(torch.autograd.grad(value, list(own.values()), materialize_grads=True))
            losses.append(value.detach())
        return dict(zip(params, map(torch.stack, zip(*grads, strict=True)), strict=True)), torch.stack(losses)

    return one_by_one


def one(state: State, r: int) -> State:
    """Run `r`'s part of a stacked state, as views."""
    return {name: tensor[r] for name, tensor in state.items()}


def draw_batches(plan: TrainingPlan, images: int, runs: Sequence[int], seed: int, step: int) -> Tensor:
    """Indices (R, B) of a step: slices of each run's permutation of the pass; the last of a pass may be shorter, unless
    batches run over the ends of passes."""
    if plan.wraps:
        first, start = divmod(step * plan.batch, images)
        passes = range(first, first + -(-(start + plan.batch) // images))
    else:
        number, position = divmod(step, plan.per_pass)
        start, passes = position * plan.batch, range(number, number + 1)
    orders = ([order(images, seed, r, number) for number in passes] for r in runs)
    return torch.stack([torch.cat([own[0][start : start + plan.batch], *own[1:]])[: plan.batch] for own in orders])


@lru_cache(maxsize=32)  # of 60000 images 15 MB; a step of a small network is as short as permuting them is
def order(images: int, seed: int, run: int, number: int) -> Tensor:
    """A run's permutation of a set in its pass of that number."""
    return torch.randperm(images, generator=stream(seed, "order", run, number))


def pays_to_compile(
    net: nn.Module, plan: TrainingPlan, runs: int, shape: tuple[int, int, int], device: torch.device
) -> bool:
    """Whether so many trainings of a network on images (C, H, W) are long enough to earn back the compilation."""
    flops = 0.0
    with contextlib.suppress(RuntimeError) if isinstance(net, ForeignNetwork) else contextlib.nullcontext():
        flops = 3 * plan.batch * forward_flops(net, torch.zeros(2, *shape))  # on "meta", which other code may not know
    return CLASSIFIERS.pays(CLASSIFIERS.seconds(flops, plan.steps * runs, device), device)
