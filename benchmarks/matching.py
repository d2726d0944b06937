"""One step of the images, ipc 10, 3x32x32, ConvNet-3; method, classes:"""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.data import plain_device, random_data
from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.judge.augment import DSAugment, IDCAugment
from core_dd.rng import stream
from core_dd.speed import prepare_device
from matching_dd import experts
from matching_dd.methods import METHODS

TARGETS = MappingProxyType({"dm": 4.0, "m3d": 4.0, "datadam": 4.0})
"""By method; the others, which differentiate gradients or train networks, are to reach `TARGET`."""
TARGET = 1.5

IPC, PER_CLASS = 10, {10: 5000, 100: 500}
STUDENT_STEPS, STUDENT_BATCH, CHECKPOINTS = 5, 100, 2
"""Of MTT and EAD: a part of their published length, the same for both sides."""


def target(method: str, classes: int) -> float:
    """The ratio to reach."""
    return TARGETS.get(method, TARGET)


def ours(method: str, classes: int, **options: Any) -> Callable[[], float]:
    """One step of the images by `gendd distill`, at its default settings but for `options`, without the training
    between two steps."""
    data = random_data(PER_CLASS[classes], classes)
    if method == "mtt":
        options |= {"syn_steps": STUDENT_STEPS, "batch_syn": STUDENT_BATCH, "expert_epochs": 1, "max_start_epoch": 1}
    if method == "ead":
        options |= {"checkpoints": CHECKPOINTS}
    if method in ("mtt", "ead"):
        options["experts"] = str(untrained_experts(data))
    matching = METHODS[method](METHODS[method].Config(method=method, ipc=IPC, **options), data)
    steps = iter(range(10**9))
    if method in ("mtt", "ead"):
        return lambda: matching.step(next(steps)).item()

    def unit() -> float:
        step = next(steps)
        return matching.match(matching.draw_network(step), step).item()

    return unit


def untrained_experts(data: ImageData) -> Path:
    """A folder with one expert whose weights drift by themselves: what is matched makes no difference to the time."""
    config = experts.ExpertsConfig(experts=1, epochs=2, at_once=1)
    training = experts.begin(config, data, Preprocess.fit(data), range(1), prepare_device())
    start = experts.snapshot(training)
    trajectory = [{name: tensor + 0.01 * epoch for name, tensor in start.items()} for epoch in range(3)]
    folder = Path(tempfile.mkdtemp(prefix="experts-"))
    experts.write_group(folder, range(1), trajectory, config, data)
    return folder


class PlainConvNet(nn.Module):
    """ConvNet-3 with everything that any method looks at: the ReLUs' outputs, the features, the logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, 128, 3, padding=1) for channels in (3, 128, 128))
        self.norms = nn.ModuleList(nn.GroupNorm(128, 128) for _ in range(3))
        self.classifier = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        outputs = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            outputs.append(norm(conv(x)).relu())
            x = F.avg_pool2d(outputs[-1], 2)
        return outputs, x.flatten(1), self.classifier(x.flatten(1))


def mean_gap(real: Tensor, syn: Tensor) -> Tensor:
    return (real.mean(0) - syn.mean(0)).square().sum()


def dm(net: PlainConvNet, real: Tensor, syn: Tensor, label: int) -> Tensor:
    """Class means of the features."""
    return mean_gap(net(real)[1].detach(), net(syn)[1])


def m3d(net: PlainConvNet, real: Tensor, syn: Tensor, label: int) -> Tensor:
    """MMD of five Gaussians as wide as the data."""
    rows = torch.cat([net(syn)[1], net(real)[1].detach()])
    squares = (rows[:, None] - rows[None]).square().sum(2)
    width = squares.detach().sum() / (len(rows) ** 2 - len(rows))
    kernel, n = sum(torch.exp(-squares / (width * 2**k)) for k in range(-2, 3)), len(syn)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def datadam(net: PlainConvNet, real: Tensor, syn: Tensor, label: int) -> Tensor:
    """Attention maps of all layers but the last, and class means."""
    (real_maps, real_features, _), (syn_maps, syn_features, _) = net(real), net(syn)
    total = 0.01 * mean_gap(real_features.detach(), syn_features)
    for own, other in list(zip(real_maps, syn_maps, strict=True))[:-1]:
        attention = [F.normalize(maps.abs().pow(4).sum(1).flatten(1), dim=1) for maps in (own.detach(), other)]
        total = total + mean_gap(*attention)
    return 100 * total


def idm(net: PlainConvNet, real: Tensor, syn: Tensor, label: int) -> Tensor:
    """Class means, and the cross-entropy of the synthetic images."""
    _, features, logits = net(syn)
    return mean_gap(net(real)[1].detach(), features) + F.cross_entropy(
        logits, torch.full((len(syn),), label).to(syn.device)
    )


def gradients(net: PlainConvNet, images: Tensor, label: int, graph: bool) -> tuple[Tensor, ...]:
    loss = F.cross_entropy(net(images)[2], torch.full((len(images),), label, device=images.device))
    return torch.autograd.grad(loss, list(net.parameters()), create_graph=graph)


def dc(net: PlainConvNet, real: Tensor, syn: Tensor, label: int) -> Tensor:
    """One minus the cosine of every output unit's gradients."""
    total = torch.zeros((), device=syn.device)
    for own, other in zip(gradients(net, real, label, False), gradients(net, syn, label, True), strict=True):
        if own.ndim > 1:
            a, b = own.flatten(1), other.flatten(1)
            total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return total


def idc(net: PlainConvNet, real: Tensor, syn: Tensor, label: int) -> Tensor:
    """Squared differences of the convolutions' gradients."""
    pairs = zip(gradients(net, real, label, False), gradients(net, syn, label, True), strict=True)
    return sum((own - other).square().sum() for own, other in pairs if own.ndim == 4)


LOSSES = MappingProxyType({"dm": dm, "m3d": m3d, "datadam": datadam, "idm": idm, "dc": dc, "dsa": dc, "idc": idc})
"""A class's loss by method: (net, real (B, C, H, W), syn (M, C, H, W), label)."""
TILED = ("m3d", "idm", "idc")
"""Methods whose images hold 2 x 2 smaller ones."""
BATCHES = MappingProxyType({"m3d": 128, "idc": 64, "ead": 25})
"""Real images per class where they are not 256."""


def decoded(images: Tensor) -> Tensor:
    """The four tiles of each image, enlarged."""
    tiles = [images[..., i : i + 16, j : j + 16] for i in (0, 16) for j in (0, 16)]
    return F.interpolate(torch.cat(tiles), size=(32, 32), mode="bilinear")


def reference_draws() -> Iterator[torch.Generator]:
    """A generator for each augmentation of the reference."""
    return map(partial(stream, 0, "reference"), itertools.count())


def reference(method: str, classes: int) -> Callable[[], float]:
    """One step as the published loops take it: fp32, eager, class by class, all training images held as floats."""
    data, device = random_data(PER_CLASS[classes], classes), plain_device()
    normalise = [data.mean[:, None, None], data.std[:, None, None]]
    images = torch.cat([(part / 255 - normalise[0]) / normalise[1] for part in data.train_images.split(1000)])
    images, members = images.to(device), data.class_indices()
    syn = torch.stack([images[own[:IPC]] for own in members]).requires_grad_()
    optimizer = torch.optim.SGD([syn], lr=1e-3, momentum=0.5)
    draws = reference_draws()
    if method in WHOLE:
        return WHOLE[method](images, members, syn, optimizer)
    augment = {"m3d": IDCAugment("color_crop_cutout"), "idc": IDCAugment("color_crop_cutout"), "dc": None}.get(
        method, DSAugment()
    )

    def class_loss(net: PlainConvNet, k: int) -> Tensor:
        real = images[members[k][torch.randperm(len(members[k]))[: BATCHES.get(method, 256)]]]
        own = decoded(syn[k]) if method in TILED else syn[k]
        if augment is not None:
            real, own = augment.siamese(real[None], own[None], [next(draws)])
            real, own = real[0], own[0]
        return LOSSES[method](net, real, own, k)

    def unit() -> float:
        net = PlainConvNet(classes).to(device).requires_grad_(LOSSES[method] in (dc, idc))
        if method in TILED:  # a step for every class
            for k in range(classes):
                loss = class_loss(net, k)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return loss.item()
        loss = sum(class_loss(net, k) for k in range(classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return unit


def cafe(images: Tensor, members: list[Tensor], syn: Tensor, optimizer: torch.optim.Optimizer) -> Callable[[], float]:
    """Class means in every layer, and the real images classified by the synthetic means."""

    def unit() -> float:
        net = PlainConvNet(len(members)).to(syn.device).requires_grad_(False)
        total, real_features, means = 0.0, [], []
        for k, own in enumerate(members):
            with torch.no_grad():
                real_layers, real, _ = net(images[own[torch.randperm(len(own))[:256]]])
            layers, features, _ = net(syn[k])
            for weight, a, b in zip((0.1, 0.1, 1.0), real_layers, layers, strict=True):
                total = total + weight * mean_gap(a, b)
            total = total + 2 * mean_gap(real, features)
            real_features.append(real)
            means.append(features.mean(0))
        labels = torch.arange(len(members), device=syn.device).repeat_interleave(len(real_features[0]))
        logits = torch.cat(real_features) @ torch.stack(means).T
        total = total + 0.01 * F.cross_entropy(logits, labels, reduction="sum")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return total.item()

    return unit


def mtt(images: Tensor, members: list[Tensor], syn: Tensor, optimizer: torch.optim.Optimizer) -> Callable[[], float]:
    """The whole way of the student in one graph."""
    labels = torch.arange(len(members), device=syn.device).repeat_interleave(IPC)
    lr, augment = torch.tensor(1e-3, device=syn.device, requires_grad=True), DSAugment()
    draws = reference_draws()

    def unit() -> float:
        net = PlainConvNet(len(members)).to(syn.device)
        start = {name: tensor.detach() for name, tensor in net.named_parameters()}
        goal = {name: tensor + 0.01 for name, tensor in start.items()}
        student = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
        for _ in range(STUDENT_STEPS):
            index = torch.randperm(len(labels))[:STUDENT_BATCH].to(syn.device)
            batch = syn.flatten(0, 1)[index]
            batch = augment.per_image(batch[None], [next(draws)])[0]
            loss = F.cross_entropy(functional_call(net, student, (batch,))[2], labels[index])
            slopes = torch.autograd.grad(loss, list(student.values()), create_graph=True)
            student = {name: own - lr * slope for (name, own), slope in zip(student.items(), slopes, strict=True)}
        far = sum((student[name] - goal[name]).square().sum() for name in start)
        whole = far / sum((start[name] - goal[name]).square().sum() for name in start)
        optimizer.zero_grad()
        whole.backward()
        optimizer.step()
        return whole.item()

    return unit


def ead(images: Tensor, members: list[Tensor], syn: Tensor, optimizer: torch.optim.Optimizer) -> Callable[[], float]:
    """The products of gradients at several checkpoints, in one graph."""
    every = torch.arange(len(members), device=syn.device)
    logits = torch.zeros(len(members) * IPC, len(members), device=syn.device, requires_grad=True)

    def slopes(net: PlainConvNet, batch: Tensor, target: Tensor, graph: bool) -> tuple[Tensor, ...]:
        return torch.autograd.grad(F.cross_entropy(net(batch)[2], target), list(net.parameters()), create_graph=graph)

    def unit() -> float:
        total = torch.zeros((), device=syn.device)
        batches = [torch.cat([images[own[torch.randperm(len(own))[:n]]] for own in members]) for n in (25, 1)]
        for _ in range(CHECKPOINTS):
            net = PlainConvNet(len(members)).to(syn.device)
            real, probe = (
                slopes(net, batch, every.repeat_interleave(len(batch) // len(every)), False) for batch in batches
            )
            own = slopes(net, syn.flatten(0, 1), logits.softmax(1), True)
            total = total + sum((p * (a - b)).sum() for p, a, b in zip(probe, real, own, strict=True))
        optimizer.zero_grad()
        total.abs().backward()
        optimizer.step()
        return total.item()

    return unit


WHOLE = MappingProxyType({"cafe": cafe, "mtt": mtt, "ead": ead})
"""Methods that do not go class by class."""
