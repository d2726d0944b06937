"""Evaluator: one training step of 5 ConvNet-3 on a CIFAR-10-shaped ipc 50 set, dm protocol

Both sides take the first batch of 256 of a pass, augment it with DSA and step SGD, for each of the 5 classifiers.
"""

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.data import plain_device, random_data
from core_dd.judge.augment import DSAugment
from core_dd.judge.protocols import DM
from core_dd.judge.training import Training
from core_dd.speed import prepare_device

CLASSIFIERS, BATCH = 5, 256


def target() -> float:
    """The ratio to reach."""
    return 3.0


def ours() -> Callable[[], None]:
    """The toolkit's training step of all classifiers."""
    data = random_data(per_class=50)
    training = Training(
        data.train_images,
        data.train_labels,
        data,
        protocol=DM,
        network="convnet3",
        runs=range(CLASSIFIERS),
        seed=0,
        device=prepare_device(),
    )
    training.step(0)  # makes the optimiser
    return lambda: training.step(2)


def reference() -> Callable[[], None]:
    """As the published loops do it: fp32, eager, one classifier after the other."""
    device, data = plain_device(), random_data(per_class=50)
    mean, std = (tensor[:, None, None].to(device) for tensor in (data.mean, data.std))
    images, labels = (data.train_images.to(device) / 255 - mean) / std, data.train_labels.to(device)
    augment, nets = DSAugment(), []
    for _ in range(CLASSIFIERS):
        blocks = []
        for channels in (3, 128, 128):
            blocks += [nn.Conv2d(channels, 128, 3, padding=1), nn.GroupNorm(128, 128), nn.ReLU(), nn.AvgPool2d(2)]
        nets.append(nn.Sequential(*blocks, nn.Flatten(), nn.Linear(2048, 10)).to(device))
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4) for net in nets]
    generator = torch.Generator().manual_seed(0)

    def unit() -> None:
        for net, optimizer in zip(nets, optimizers, strict=True):
            index = torch.randperm(len(images), generator=generator)[:BATCH].to(device)
            x = augment.per_image(images[index][None], [generator])[0]
            loss = nn.functional.cross_entropy(net(x), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return unit
