"""DM iteration at CIFAR-10 shape: 10 classes, 256 real images each, ipc 10, ConvNet-3."""

import torch
from torch import nn

from benchmarks.data import CLASSES, plain_device, random_data
from core_dd.augment import DSA
from matching_dd.distill import Matching
from matching_dd.methods.dm import DMConfig

TARGET = 4.0
IPC, BATCH_REAL, PER_CLASS = 10, 256, 5000


def ours():
    """One iteration of `gendd distill --method dm`."""
    matching = Matching(DMConfig(ipc=IPC, batch_real=BATCH_REAL), random_data(PER_CLASS))
    steps = iter(range(10**9))
    return lambda: matching.step(next(steps)).item()


def reference():
    """One iteration of the published loop: fp32, eager, class by class, all training images held as floats."""
    data, device, augment = random_data(PER_CLASS), plain_device(), DSA()
    normalise = [data.mean[:, None, None], data.std[:, None, None]]
    images = torch.cat([(part / 255 - normalise[0]) / normalise[1] for part in data.train_images.split(1000)]).to(
        device
    )
    members = data.class_indices()
    syn = torch.stack([images[own[:IPC]] for own in members]).requires_grad_()
    optimizer = torch.optim.SGD([syn], lr=1.0, momentum=0.5)

    def iterate() -> float:
        blocks = []
        for channels in (3, 128, 128):
            blocks += [nn.Conv2d(channels, 128, 3, padding=1), nn.GroupNorm(128, 128), nn.ReLU(), nn.AvgPool2d(2)]
        embed = nn.Sequential(*blocks, nn.Flatten()).to(device).requires_grad_(False)
        loss = torch.zeros((), device=device)
        for k in range(CLASSES):
            real = images[members[k][torch.randperm(PER_CLASS)[:BATCH_REAL]]]
            real, own = augment.siamese(real[None], syn[k][None], [torch.Generator().manual_seed(torch.seed())])
            loss = loss + (embed(real[0]).detach().mean(0) - embed(own[0]).mean(0)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return iterate
