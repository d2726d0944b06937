"""Pixels <-> training space: fitted once on real training data, applied once, right before augmentation and network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from core_dd.data.cache import kept_tensors
from core_dd.data.images import KNOWN, ImageData
from core_dd.errors import pick, require
from core_dd.notes import note


@dataclass(frozen=True)
class Preprocess:
    """The invertible map from pixels (0..1) to the space classifiers train in; its kinds are in `PREPROCESSES`.

    `tensors` holds what it fitted; a distilled set carries them, so that a judge needs nothing else.
    """

    tensors: Mapping[str, Tensor]
    kind: ClassVar[str]
    fitted: ClassVar[Mapping[str, str]]
    """The names of the tensors with their dimensions: C channels, D = C H W."""

    @staticmethod
    def fit(data: ImageData, kind: str = "mean_std") -> "Preprocess":
        """Fit a map of `kind` on the training images of `data`.

        Raises:
            InputError: for an unknown kind.
        """
        return pick(PREPROCESSES, kind, "preprocess").fitted_on(data)

    @staticmethod
    def from_meta(meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Preprocess":
        """The map a distilled set carries: `meta["kind"]`, and its tensors.

        Raises:
            InputError: for an unknown kind or missing tensors.
        """
        cls = pick(PREPROCESSES, meta["kind"], "preprocess")
        missing = [name for name in cls.fitted if name not in tensors]
        require(not missing, f"the set says it is preprocessed by {cls.kind} but lacks its {', '.join(missing)}.")
        return cls(dict(tensors))

    def check(self, shape: tuple[int, int, int], where: str) -> None:
        """Raise `InputError` unless the tensors are finite float32 that fit images of a shape (C, H, W)."""
        sizes = {"C": shape[0], "D": math.prod(shape)}
        for name, dimensions in self.fitted.items():
            tensor, expected = self.tensors[name], tuple(sizes[letter] for letter in dimensions)
            require(
                tensor.shape == expected
                and tensor.dtype == torch.float32
                and tensor.layout == torch.strided
                and bool(torch.isfinite(tensor).all()),
                f"{where} carries {name} of its preprocessing {self.kind} as {tensor.dtype} of shape "
                f"{tuple(tensor.shape)}, expected finite float32 of shape {expected} for images of shape {shape}.",
            )
            require(name != "std" or bool((tensor > 0).all()), f"{where} carries a std that is not positive.")

    def to_meta(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What `from_meta` reads back: a JSON-ready dict and the fitted tensors (on the CPU)."""
        return {"kind": self.kind}, {name: tensor.cpu() for name, tensor in self.tensors.items()}

    def to(self, device: torch.device | str) -> "Preprocess":
        """This map with its tensors on `device`."""
        return type(self)({name: tensor.to(device) for name, tensor in self.tensors.items()})

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (..., C, H, W), float on the 0..1 scale or uint8 on 0..255, to training space: float, same shape."""
        raise NotImplementedError

    def inverse(self, x: Tensor) -> Tensor:
        """Training space (..., C, H, W) back to pixels on the 0..1 scale, not clamped."""
        raise NotImplementedError


class MeanStd(Preprocess):
    """Subtract each channel's mean and divide by its standard deviation; `mean` and `std` are (C,)."""

    kind, fitted = "mean_std", MappingProxyType({"mean": "C", "std": "C"})

    @classmethod
    def fitted_on(cls, data: ImageData) -> "MeanStd":
        """The map with the constants of `data`."""
        return cls({"mean": data.mean, "std": data.std})

    def forward(self, pixels: Tensor) -> Tensor:
        return (fractions(pixels) - self._channels("mean")) / self._channels("std")

    def inverse(self, x: Tensor) -> Tensor:
        return x * self._channels("std") + self._channels("mean")

    def _channels(self, name: str) -> Tensor:
        return self.tensors[name][:, None, None]


class CIFAR10MeanStd(MeanStd):
    """Subtract CIFAR-10's channel means and divide by its deviations, whatever the data: so do the codes of MTT and IDC
    on CIFAR-100."""

    kind = "cifar10_mean_std"

    @classmethod
    def fitted_on(cls, data: ImageData) -> "CIFAR10MeanStd":
        """The map with CIFAR-10's constants.

        Raises:
            InputError: if the images of `data` have other than 3 channels.
        """
        channels = data.shape[0]
        require(
            channels == 3,
            f"preprocess {cls.kind} is for images of 3 channels, and those of {data.name} have {channels}. Use "
            "mean_std, which takes the data's own constants.",
        )
        cifar10 = KNOWN["cifar10"]
        return cls({"mean": torch.tensor(cifar10.mean), "std": torch.tensor(cifar10.std)})


class PixelMeanStd(MeanStd):
    """Subtract the mean of each channel over all training pixels and divide by their standard deviation: so does KIP's
    code. `MeanStd` has what the literature gives known sets, which is less for CIFAR and SVHN: 0.2023 where CIFAR-10's
    red pixels deviate by 0.2470.
    """

    kind = "pixel_mean_std"

    @classmethod
    def fitted_on(cls, data: ImageData) -> "PixelMeanStd":
        """The map of the training pixels of `data`, counted by value."""
        counts = [data.train_images[:, c].flatten().bincount(minlength=256) for c in range(data.shape[0])]
        shares = torch.stack(counts).double() / counts[0].sum()
        values = torch.arange(256).double() / 255
        mean = shares @ values
        return cls({"mean": mean.float(), "std": (shares @ values**2 - mean**2).clamp_min(1e-12).sqrt().float()})


class ZCA(Preprocess):
    """Whitening x -> (x - mean) U (S + 0.1)^(-1/2) U^T of flattened images, as MTT and DataDAM use it.

    `mean` is (D,), `transform` and `inverse` are (D, D), D = C H W; eps 0.1 is added to the covariance's eigenvalues,
    so the output's variance is below one.
    """

    kind, fitted = "zca", MappingProxyType({"mean": "D", "transform": "DD", "inverse": "DD"})

    @classmethod
    def fitted_on(cls, data: ImageData) -> "ZCA":
        """The map of the raw 0..1 training pixels of `data`; the fit (an SVD of D x D) is cached by their hash."""

        def fit() -> dict[str, Tensor]:
            from kornia.enhance import ZCAWhitening

            note(f"fitting ZCA whitening on {len(data.train_images)} images; once, then cached.")
            zca = ZCAWhitening(eps=0.1, compute_inv=True).fit(fractions(data.train_images))
            return {
                "mean": zca.mean_vector.flatten(),
                "transform": zca.transform_matrix,
                "inverse": zca.transform_inv,
            }

        return cls(kept_tensors(f"zca {data.training_digest}", cls.fitted, fit))

    def forward(self, pixels: Tensor) -> Tensor:
        flat = fractions(pixels).flatten(-3) - self.tensors["mean"]
        return (flat @ self.tensors["transform"]).view(pixels.shape)

    def inverse(self, x: Tensor) -> Tensor:
        return (x.flatten(-3) @ self.tensors["inverse"] + self.tensors["mean"]).view(x.shape)


PREPROCESSES: MappingProxyType[str, type[Preprocess]] = MappingProxyType(
    {"mean_std": MeanStd, "cifar10_mean_std": CIFAR10MeanStd, "pixel_mean_std": PixelMeanStd, "zca": ZCA}
)
"""Maps by name."""


def fractions(pixels: Tensor) -> Tensor:
    """Pixels as floats on the 0..1 scale: uint8 divided by 255, floats as they are, those of 16 bits in 32.

    Examples:
        >>> import torch
        >>> fractions(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    if pixels.dtype == torch.uint8:
        return pixels.float().div(255)
    return pixels.to(torch.promote_types(pixels.dtype, torch.float32))


def as_bytes(pixels: Tensor) -> Tensor:
    """Pixels as uint8, as files of images hold them; floats outside of 0..1 are clamped.

    Examples:
        >>> import torch
        >>> as_bytes(torch.tensor([-1.0, 0.5, 2.0]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return pixels if pixels.dtype == torch.uint8 else pixels.float().clamp(0, 1).mul(255).round().to(torch.uint8)
