"""U-ViT training step: cifar10-small (44M), 3x32x32, AdamW and weight average included; images:

On CPUs the size matters: from 64 on, each of the reference's activations exceeds the 32 MiB above which glibc returns
memory to the system at once, and getting it back (32 GB of page faults a step) takes a quarter of the reference's
processor time. Ours keeps freed memory (`core_dd.speed`); at 48 images, below that limit, the ratio is what the matrix
products alone give.
"""

import copy

import torch

from benchmarks.data import CLASSES, plain_device, random_data
from benchmarks.plain_uvit import PRESET, PlainUViT
from core_dd.speed import bf16_pays
from gen_dd.options import TrainConfig
from gen_dd.trainer import Trainer
from gen_dd.uvit import PRESETS


def target(_batch: int) -> float:
    """The ratio to reach: on a GPU, on a CPU with bf16 units, on one without."""
    return 4.0 if torch.cuda.is_available() else 3.5 if bf16_pays("cpu") else 1.5


def ours(batch: int):
    """One step of `gendd train` at its default settings."""
    trainer = Trainer.start(TrainConfig(preset=PRESET, batch_size=batch), random_data(per_class=100))
    trainer.compile()
    steps = iter(range(10**9))
    return lambda: trainer.step(next(steps)).item()


def reference(batch: int):
    """One step of the published loop: fp32, eager, explicit attention, the average updated tensor by tensor."""
    device, data = plain_device(), random_data(per_class=100)
    model = PlainUViT(**PRESETS[PRESET], num_classes=CLASSES).to(device)
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, betas=(0.99, 0.999), weight_decay=0.03)

    def step() -> float:
        index = torch.randint(len(data.train_labels), (batch,))
        x0 = (data.train_images[index].float() / 127.5 - 1).to(device)
        labels = data.train_labels[index].to(device)
        labels = torch.where(torch.rand(batch, device=device) < 0.1, CLASSES, labels)
        t, noise = torch.rand(batch, device=device), torch.randn_like(x0)
        alpha = torch.exp(-19.9 * t**2 / 4 - 0.1 * t / 2).reshape(-1, 1, 1, 1)
        loss = (model(alpha * x0 + (1 - alpha**2).sqrt() * noise, 999 * t, labels) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                mean.mul_(0.9999).add_(parameter, alpha=1 - 0.9999)
        return loss.item()

    return step
