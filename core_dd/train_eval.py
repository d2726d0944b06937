"""Train R classifiers at once on one set; the test images are read once, at the end.

The classifiers' weights are stacked, (R, ...). On CUDA one vmapped step trains all of them; on the CPU, where that
measured slower, one step per classifier does, in bf16 and channels last. Batches and augmentation of run r come from
streams keyed by (seed, r, step), so a classifier is the same whether trained alone or among others.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from tqdm import tqdm

from core_dd.data import ImageData
from core_dd.errors import require
from core_dd.networks import build_network
from core_dd.preprocess import Preprocess
from core_dd.protocols import Plan, Protocol
from core_dd.rng import stream
from core_dd.speed import autocast, compiled

State = dict[str, Tensor]
"""Parameters or buffers by name; stacked, every tensor is (R, ...)."""

TEST_CHUNK = 500
"""Test images per forward: bounds the memory."""

COMPILE_FROM = 3e7
"""Pixels (steps x classifiers x batch x H x W) from which compiling, about 10 s, was measured to pay."""

CURVE_POINTS = 100
"""About how many points of the loss curve are kept."""


@dataclass
class Classifiers:
    """R trained classifiers of one architecture.

    Attributes:
        net: a network of the architecture; its own weights mean nothing.
        params, buffers: stacked state, (R, ...) each.
        preprocess: the map from pixels to the space they were trained in.
        curve_steps, curve_loss: the steps logged, and each run's training loss there, (R, steps).
    """

    net: nn.Module
    params: State
    buffers: State
    preprocess: Preprocess
    curve_steps: list[int]
    curve_loss: list[list[float]]

    def __len__(self) -> int:
        return len(next(iter(self.params.values())))

    def network(self, r: int) -> nn.Module:
        """Classifier `r` as a module of its own, in evaluation mode."""
        net = copy.deepcopy(self.net).eval()
        net.load_state_dict(one(self.params, r) | one(self.buffers, r))
        return net

    @torch.inference_mode()
    def accuracies(self, images: Tensor, labels: Tensor) -> list[float]:
        """The fraction of images each classifier gets right.

        Args:
            images: pixels, uint8 or float on the 0..1 scale, (N, C, H, W), on any device.
            labels: int64 (N,).
        """
        device = next(iter(self.params.values())).device
        nets, right = [self.network(r) for r in range(len(self))], torch.zeros(len(self), device=device)
        for chunk, target in zip(images.split(TEST_CHUNK), labels.split(TEST_CHUNK), strict=True):
            x, target = self.preprocess.forward(chunk.to(device)), target.to(device)
            with autocast(device):
                right += torch.stack([(net(x).argmax(1) == target).sum() for net in nets])
        return (right / len(labels)).tolist()


def train(
    images: Tensor,
    labels: Tensor,
    data: ImageData,
    *,
    protocol: Protocol,
    network: str,
    runs: Sequence[int],
    seed: int,
    device: torch.device,
    preprocess: Preprocess | None = None,
    stacked: bool | None = None,
    bf16: bool = True,
) -> Classifiers:
    """Train one classifier per element of `runs`.

    Args:
        images: pixels, uint8 or float on the 0..1 scale, (N, C, H, W).
        labels: int64 (N,), or float (N, K) soft.
        data: the real data: shape, classes, whether flips are allowed, and what the preprocessing is fitted on.
        protocol, network: how to train what.
        runs: the runs' numbers; they key the random streams.
        seed: of every stream.
        preprocess: the map to training space; None fits mean and std on `data`.
        stacked: one vmapped step for all classifiers; None: on CUDA.
        bf16: autocast to bf16 where it pays; master weights stay fp32.

    Raises:
        InputError: a network that cannot take the images, or a loss that is not finite.
    """
    net, params, buffers = initialise(network, data, runs, seed, device)
    preprocess = (preprocess or Preprocess.fit(data)).to(device)
    images, labels = images.to(device), labels.to(device)
    augmentation = protocol.augmentation(data, network)
    plan = protocol.plan(len(images), augmented=augmentation is not None)
    stacked = device.type == "cuda" if stacked is None else stacked
    step_of_all = make_step(net, device, stacked=stacked, bf16=bf16, fast=pays_to_compile(plan, len(runs), data))
    curve_steps, losses = [], []
    every = max(1, plan.steps // CURVE_POINTS)

    for step in tqdm(range(plan.steps), desc=f"{len(runs)} x {network}", unit="step", disable=None, leave=False):
        # A new optimiser at the start, and where the protocol drops the learning rate.
        if step in (0, plan.drop):
            optimizer = torch.optim.SGD(
                params.values(), lr=plan.lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay
            )
        optimizer.param_groups[0]["lr"] = plan.lr_at(step)

        # Every run's own batch (R, B, ...) and augmentation.
        index = draw_batches(plan, len(images), runs, seed, step).to(device)
        x = preprocess.forward(images[index])
        if augmentation is not None:
            x = augmentation.per_image(x, [stream(seed, "augment", r, step) for r in runs])

        # One step of all.
        grads, loss = step_of_all(params, buffers, channels_last(x), labels[index])
        for name, parameter in params.items():
            parameter.grad = grads[name]
        optimizer.step()

        # The loss curve.
        if step % every == 0 or step == plan.steps - 1:
            require(
                bool(loss.isfinite().all()),
                f"training a classifier diverged: its loss is not finite at step {step}. Are the images on the 0..1 "
                "scale, and is the learning rate of the protocol meant for them?",
            )
            curve_steps.append(step)
            losses.append(loss)
    return Classifiers(net, params, buffers, preprocess, curve_steps, torch.stack(losses, 1).tolist())


def initialise(
    network: str, data: ImageData, runs: Sequence[int], seed: int, device: torch.device
) -> tuple[nn.Module, State, State]:
    """A network to call with others' weights, and the runs' stacked parameters and buffers."""
    nets = [build_network(network, data.shape, data.num_classes, stream(seed, "network", r)).to(device) for r in runs]
    params, buffers = stack_module_state(nets)
    return nets[0], {name: tensor.detach() for name, tensor in params.items()}, buffers


def make_step(
    net: nn.Module, device: torch.device, *, stacked: bool, bf16: bool = True, fast: bool = True
) -> Callable[[State, State, Tensor, Tensor], tuple[State, Tensor]]:
    """A function of (params, buffers, x (R, B, C, H, W), y (R, B)) that gives every run's (gradients, loss (R,)).

    Args:
        net: the architecture.
        stacked: vmap over the runs, or one after the other.
        bf16: autocast where it pays.
        fast: compile.
    """

    def loss(params: State, buffers: State, x: Tensor, y: Tensor) -> Tensor:
        with autocast(device, bf16):
            logits = functional_call(net, (params, buffers), (x,))
        return F.cross_entropy(logits.float(), y)

    one_run = grad_and_value(loss)
    function = vmap(one_run, randomness="error") if stacked else one_run
    function = compiled(function, device, dynamic=False) if fast else function
    if stacked:
        return function

    def one_by_one(params: State, buffers: State, x: Tensor, y: Tensor) -> tuple[State, Tensor]:
        results = [function(one(params, r), one(buffers, r), x[r], y[r]) for r in range(len(x))]
        grads = {name: torch.stack([grad[name] for grad, _ in results]) for name in params}
        return grads, torch.stack([loss for _, loss in results])

    return one_by_one


def one(state: State, r: int) -> State:
    """Run `r`'s part of a stacked state, as views."""
    return {name: tensor[r] for name, tensor in state.items()}


def draw_batches(plan: Plan, images: int, runs: Sequence[int], seed: int, step: int) -> Tensor:
    """Indices (R, B) of a step: slices of each run's permutation of the pass; the last of a pass may be shorter."""
    number, position = divmod(step, plan.per_pass)
    orders = [torch.randperm(images, generator=stream(seed, "order", r, number)) for r in runs]
    return torch.stack(orders)[:, position * plan.batch : (position + 1) * plan.batch]


def channels_last(x: Tensor) -> Tensor:
    """(R, B, C, H, W), the same values, with the channels innermost in memory."""
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


def pays_to_compile(plan: Plan, runs: int, data: ImageData) -> bool:
    """Whether the training is long enough to earn back the compilation."""
    return plan.steps * runs * plan.batch * data.shape[1] * data.shape[2] >= COMPILE_FROM
