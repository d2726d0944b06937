"""Evaluator: one training step of 5 classifiers on a CIFAR-10-shaped ipc 50 set, dm protocol; network:

Both sides take the first batch of a pass, augment it with DSA and step SGD, for each of the 5 classifiers. A batch has
the protocol's 256 images, of the dearer networks on a CPU fewer, so that a unit takes some seconds.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from benchmarks.data import plain_device, random_data
from benchmarks.plain_networks import PLAIN
from core_dd.judge.augment import DSAugment
from core_dd.judge.protocols import DM
from core_dd.judge.training import Training
from core_dd.speed import prepare_device

CLASSIFIERS = 5
BATCH = {"alexnet": 64, "resnet18": 32}
"""Images of a batch on a CPU, where fewer than the protocol's."""


def target(network: str) -> float:
    """The ratio to reach."""
    return 3.0 if network == "convnet3" else 2.0


def batch(network: str) -> int:
    """Images of a batch."""
    return DM.batch_size if plain_device() == "cuda" else BATCH.get(network, DM.batch_size)


def ours(network: str) -> Callable[[], None]:
    """The toolkit's training step of all classifiers."""
    data = random_data(per_class=50)
    training = Training(
        data.train_images,
        data.train_labels,
        data,
        protocol=replace(DM, batch_size=batch(network)),
        network=network,
        runs=range(CLASSIFIERS),
        seed=0,
        device=prepare_device(),
    )
    training.step(0)  # makes the optimiser
    return lambda: training.step(training.plan.per_pass)


def reference(network: str) -> Callable[[], None]:
    """As the published loops do it: fp32, eager, one classifier after the other."""
    device, data = plain_device(), random_data(per_class=50)
    mean, std = (tensor[:, None, None].to(device) for tensor in (data.mean, data.std))
    images, labels = (data.train_images.to(device) / 255 - mean) / std, data.train_labels.to(device)
    augment, size = DSAugment(), batch(network)
    nets = [PLAIN[network]().to(device) for _ in range(CLASSIFIERS)]
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4) for net in nets]
    generator = torch.Generator().manual_seed(0)

    def unit() -> None:
        for net, optimizer in zip(nets, optimizers, strict=True):
            index = torch.randperm(len(images), generator=generator)[:size].to(device)
            x = augment.per_image(images[index][None], [generator])[0]
            loss = nn.functional.cross_entropy(net(x), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return unit
