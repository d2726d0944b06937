"""How classifiers fare on test images that were attacked or corrupted."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.judge.training import TEST_CHUNK, Classifiers
from core_dd.rng import stream

IMAGES = 1000
"""Of the test images, as many are attacked and corrupted, at most."""

RADIUS, STEP, STEPS = 8 / 255, 2 / 255, 10
"""Of the attacks: the largest change of a pixel on the 0..1 scale, PGD's step, and how many it takes."""

CORRUPTIONS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = MappingProxyType(
    {
        "noise": lambda x, generator: x + 0.08 * torch.randn(x.shape, generator=generator),
        "impulse": lambda x, generator: torch.where(torch.rand(x.shape, generator=generator) < 0.06, _extremes(x), x),
        "blur": lambda x, generator: _blurred(x),
        "contrast": lambda x, generator: _grey(x) + 0.4 * (x - _grey(x)),
        "brightness": lambda x, generator: x + 0.2,
        "pixelate": lambda x, generator: _pixelate(x),
    }
)
"""Images (N, C, H, W) on the 0..1 scale, and a generator -> corrupted ones, clamped afterwards: kinds of Hendrycks &
Dietterich (ICLR 2019) at one severity of ours, so the numbers compare with each other and not with CIFAR-10-C's."""


def _extremes(x: Tensor) -> Tensor:
    """Black for bright pixels, white for dark ones."""
    return (x < 0.5).to(x.dtype)


def _blurred(x: Tensor) -> Tensor:
    """With a Gaussian of deviation 1, cut at 5 pixels."""
    from torchvision.transforms.functional import gaussian_blur  # torchvision takes as long to import as torch

    return gaussian_blur(x, [5, 5], [1.0, 1.0])


def _grey(x: Tensor) -> Tensor:
    """The mean of each image and channel."""
    return x.mean((2, 3), keepdim=True)


def _pixelate(x: Tensor) -> Tensor:
    """At half the size, enlarged again."""
    half = [max(1, side // 2) for side in x.shape[-2:]]
    return F.interpolate(F.interpolate(x, half, mode="area"), x.shape[-2:], mode="nearest")


def attacked(
    net: nn.Module, preprocess: Preprocess, x: Tensor, labels: Tensor, radius: float, step: float, steps: int
) -> Tensor:
    """Images changed by the sign of the loss' gradient, within a radius: PGD (Madry et al., ICLR 2018), started from
    the images themselves; one step of the radius is FGSM (Goodfellow et al., ICLR 2015).

    Args:
        net: a classifier in evaluation mode.
        preprocess: from pixels to what it takes.
        x: pixels on the 0..1 scale, (N, C, H, W), on its device.
        labels: int64 (N,), which it is driven away from.
        radius: the largest change of a pixel.
        step, steps: the change at each of so many steps.

    Returns:
        As x, within 0..1 and the radius.
    """
    changed = x.clone()
    for _ in range(steps):
        changed.requires_grad_()
        loss = F.cross_entropy(net(preprocess.forward(changed)), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, changed)
        moved = changed.detach() + step * gradient.sign()
        changed = moved.clamp(x - radius, x + radius).clamp(0, 1)
    return changed


def robustness(classifiers: Classifiers, data: ImageData) -> dict[str, float]:
    """The mean accuracy of classifiers on the same random test images: as they are, attacked, and corrupted.

    Args:
        classifiers: trained ones, which are attacked one by one, each with its own gradients, in fp32.
        data: whose test images, `IMAGES` at most.

    Returns:
        Fractions by name: `clean`, `fgsm`, `pgd`, and those of `CORRUPTIONS`.
    """
    index = torch.randperm(len(data.test_labels), generator=stream(0, "robustness"))[:IMAGES]
    x, labels = data.test_images[index].float() / 255, data.test_labels[index]
    kinds: dict[str, Tensor] = {"clean": x}
    for name, corrupt in CORRUPTIONS.items():
        kinds[name] = corrupt(x, stream(0, "robustness", name)).clamp(0, 1)
    found = {name: _mean(classifiers.accuracies(images, labels)) for name, images in kinds.items()}
    attacks = {"fgsm": (RADIUS, RADIUS, 1), "pgd": (RADIUS, STEP, STEPS)}
    return found | {name: _mean(_under(classifiers, x, labels, *how)) for name, how in attacks.items()}


def _under(classifiers: Classifiers, x: Tensor, labels: Tensor, radius: float, step: float, steps: int) -> list[float]:
    """The accuracy of each classifier on images attacked with its own gradients."""
    found, device = [], next(iter(classifiers.params.values())).device
    for r in range(len(classifiers)):
        net, right = classifiers.network(r), 0
        for part, target in zip(x.split(TEST_CHUNK), labels.split(TEST_CHUNK), strict=True):
            part, target = part.to(device), target.to(device)
            changed = attacked(net, classifiers.preprocess, part, target, radius, step, steps)
            with torch.no_grad():
                right += int((net(classifiers.preprocess.forward(changed)).argmax(1) == target).sum())
        found.append(right / len(x))
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
