"""Training-free guidance: plug-ins that move the sampler's estimate x0 of the clean image, by class and by slot.

A guide is prepared once from real data and then corrects x0 at every step of any solver. Classifier-free guidance is
no guide, because it needs a second evaluation of the network: `gen_dd.solvers.guided` does it, and combines with all.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from core_dd.data.images import ImageData
from core_dd.errors import needed, pick, require
from core_dd.sets import subset
from gen_dd.diffusion import alpha_sigma
from gen_dd.uvit import UViT

_CANDIDATES = 1000
"""At most so many random real images per class are clustered."""


@dataclass(kw_only=True)
class Guide:
    """What every guide has: how strongly it acts and until when.

    Index i of a class is its slot i mod `slots`, in its group i // `slots`.

    Attributes:
        scale: its weight, >= 0; 0 changes nothing.
        until: it acts while t > until, t falling from 1 (noise) to 0 (image).
        slots: how many images of a class belong together, >= 1.
    """

    scale: float
    until: float
    slots: int = 10

    inside_cfg: ClassVar[bool] = False
    """Whether it corrects the labelled prediction before classifier-free guidance enlarges it, or the guided one."""
    joint: ClassVar[bool] = False
    """Whether the images of a group act on each other, and so have to be drawn in one batch."""

    def __post_init__(self) -> None:
        require(self.scale >= 0, f"guide_scale must be >= 0, got {self.scale}.")
        require(0 <= self.until <= 1, f"guide_until must be in [0, 1], got {self.until}.")
        require(self.slots >= 1, f"guide_slots must be >= 1, got {self.slots}.")

    def prepare(self, real: ImageData | None, model: UViT, generator: torch.Generator) -> None:
        """Take from the real training images what the corrections need.

        Args:
            real: the data the model was trained on; its test images are not looked at.
            model: the network to be guided; says the device.
            generator: of whatever is drawn.

        Raises:
            InputError: if the data cannot serve.
        """

    def correct_x0(self, x0: Tensor, t: float, labels: Tensor, index: Tensor) -> Tensor:
        """The corrected estimate of the clean images; the very same tensor once the guide has stopped.

        Args:
            x0: the estimate, (B, C, H, W), clean images lying in [-1, 1]; not clamped.
            t: the time, in [0, 1].
            labels: int64 (B,) in 0..K-1.
            index: int64 (B,), numbers within the class.
        """
        return x0 if t <= self.until else x0 + self.shift(x0, t, labels, index)

    def shift(self, x0: Tensor, t: float, labels: Tensor, index: Tensor) -> Tensor:
        """By how much to move x0 while the guide acts; like `x0`."""
        raise NotImplementedError


@dataclass(kw_only=True)
class MGD3(Guide):
    """Mode guidance (Chan-Santiago et al., ICML 2025): x0 += scale (m - x0), stopped half way.

    The modes m are real images: the medoids of k-means on the pixels of each class, one per slot (the paper's are
    centres in a latent space, which would be blurred in pixels). An image does not depend on its batch.
    """

    scale: float = 0.1
    until: float = 0.5

    def prepare(self, real: ImageData | None, model: UViT, generator: torch.Generator) -> None:
        real = needed(real, "this guide wants the real data. Pass --guide_data, e.g. digits.")
        modes = []
        for k, members in enumerate(real.class_indices()):
            require(
                self.slots <= len(members),
                f"guide_slots is {self.slots}, but class {k} ('{real.class_names[k]}') has {len(members)} images.",
            )
            some = members[torch.randperm(len(members), generator=generator)[: max(_CANDIDATES, self.slots)]]
            pixels = real.train_images[some].float() / 127.5 - 1
            modes.append(pixels[subset.medoids(pixels.flatten(1), self.slots, seed=generator.initial_seed())])
        self.modes = torch.stack(modes).to(model.device)

    def shift(self, x0: Tensor, t: float, labels: Tensor, index: Tensor) -> Tensor:
        return self.scale * (self.modes[labels, index % self.slots] - x0)


@dataclass(kw_only=True)
class CoDA(MGD3):
    """CoDA's alignment (ICLR 2026): x0 += scale (sigma / alpha) (r - x0) inside classifier-free guidance, for 90 %.

    The representatives r are MGD3's medoids; the paper finds them by density clustering. Its weight is at most 1 here:
    our time starts at sigma / alpha = 152 (the paper's at 15), where x0 would be thrown far past r.
    """

    scale: float = 0.05
    until: float = 0.1

    inside_cfg: ClassVar[bool] = True

    def shift(self, x0: Tensor, t: float, labels: Tensor, index: Tensor) -> Tensor:
        alpha, sigma = alpha_sigma(torch.tensor(t, dtype=torch.float64))
        return min(1.0, self.scale * float(sigma / alpha)) * (self.modes[labels, index % self.slots] - x0)


@dataclass(kw_only=True)
class Repulsion(Guide):
    """The images of a group push each other apart (after particle guidance, Corso et al., ICLR 2024).

    x0_i += scale (x0_i - sum_j w_ij x0_j), w_ij = softmax over the others j of -|x0_i - x0_j|^2 / h_i, with h_i the
    mean squared distance from i to the others: up the gradient of -h_i / 2 log sum_j exp(-|x0_i - x0_j|^2 / h_i).

    Joint: the sampler draws whole groups, so the batch size changes nothing beyond rounding, but class counts of a
    timed run may differ by one group.
    """

    scale: float = 0.1
    until: float = 0.5

    joint: ClassVar[bool] = True

    def shift(self, x0: Tensor, t: float, labels: Tensor, index: Tensor) -> Tensor:
        group = torch.stack([labels, index // self.slots], 1)
        others = (group[:, None] == group[None]).all(-1).fill_diagonal_(False)
        flat = x0.flatten(1).float()
        square = torch.cdist(flat, flat).square()
        count = others.sum(1, keepdim=True)
        width = (square * others).sum(1, keepdim=True) / count.clamp_min(1)
        weight = (-square / width.clamp_min(1e-12)).masked_fill(~others, -torch.inf).softmax(1)
        away = torch.where(count > 0, flat - weight.nan_to_num() @ flat, 0.0)
        return self.scale * away.view_as(x0)


@dataclass(kw_only=True)
class ClassifierGuide(Guide):
    """Classifier guidance (Dhariwal & Nichol 2021) on x0, with the denoiser's gradient cut.

    x0 += scale sigma^2 grad_x0 log p(label | x0), with x0 taken as a leaf, clamped to [-1, 1], by a ConvNet trained on
    the real training images; sigma^2 is the variance of x0 given x_t for data of unit variance (Song et al., "PiGDM",
    ICLR 2023). An image does not depend on its batch.
    """

    scale: float = 1.0
    until: float = 0.0
    network: str = "convnet3"

    def prepare(self, real: ImageData | None, model: UViT, generator: torch.Generator) -> None:
        real = needed(real, "this guide wants the real data. Pass --guide_data, e.g. digits.")
        from core_dd.judge import fidelity

        seed = generator.initial_seed() % 2**31
        classifiers = fidelity.real_classifier(real, self.network, seed, model.device)
        self.classifier, self.preprocess = classifiers.network(0), classifiers.preprocess

    def shift(self, x0: Tensor, t: float, labels: Tensor, index: Tensor) -> Tensor:
        _, sigma = alpha_sigma(torch.tensor(t, dtype=torch.float64))
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(x0.device.type, enabled=False):
            leaf = x0.float().clamp(-1, 1).clone().requires_grad_()
            logits = self.classifier(self.preprocess.forward((leaf + 1) / 2))
            loss = F.cross_entropy(logits, labels.clone(), reduction="sum")
            gradient = torch.autograd.grad(loss, leaf)[0]
        return -self.scale * float(sigma) ** 2 * gradient.to(x0.dtype)


GUIDES: MappingProxyType[str, type[Guide]] = MappingProxyType(
    {"mgd3": MGD3, "coda": CoDA, "repulsion": Repulsion, "classifier": ClassifierGuide}
)
"""Guides by name."""


def make_guide(name: str | None, **options: float | int | None) -> Guide | None:
    """The guide of this name, unprepared; options that are None keep its defaults. No name, no guide.

    Raises:
        InputError: an unknown name, or an option out of range.

    Examples:
        >>> make_guide(None) is None
        True
        >>> make_guide("repulsion", slots=5).slots
        5
    """
    if name is None:
        return None
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    return pick(GUIDES, name, "guide")(**given)
