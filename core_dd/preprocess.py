"""Pixels <-> training space: fitted once on real training data, applied once, right before augmentation and network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core_dd.data import ImageData
from core_dd.errors import pick, require


@dataclass(frozen=True)
class Preprocess:
    """The invertible map from pixels (0..1) to the space classifiers train in.

    `kind` names the map and `tensors` holds what it fitted: for "mean_std", `mean` and `std` of shape (C,).
    """

    kind: str
    tensors: Mapping[str, Tensor]

    @classmethod
    def fit(cls, data: ImageData, kind: str = "mean_std") -> "Preprocess":
        """Fit a map of `kind` on the training images of `data`.

        Raises:
            InputError: for an unknown kind.
        """
        return cls(kind, pick(FITS, kind, "preprocess")(data))

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Preprocess":
        """The map a distilled set carries: `meta["kind"]`, and its tensors."""
        pick(FITS, meta["kind"], "preprocess")
        require("mean" in tensors and "std" in tensors, "the set says it is preprocessed but holds no mean and std.")
        return cls(meta["kind"], dict(tensors))

    def to_meta(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What `from_meta` reads back: a JSON-ready dict and the fitted tensors (on the CPU)."""
        return {"kind": self.kind}, {name: tensor.cpu() for name, tensor in self.tensors.items()}

    def to(self, device: torch.device | str) -> "Preprocess":
        """The same map with its tensors on `device`."""
        return Preprocess(self.kind, {name: tensor.to(device) for name, tensor in self.tensors.items()})

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels to training space.

        Args:
            pixels: (..., C, H, W), float on the 0..1 scale or uint8 on 0..255.

        Returns:
            float, same shape.
        """
        pixels = pixels.float().div(255) if pixels.dtype == torch.uint8 else pixels
        return (pixels - self._channels("mean")) / self._channels("std")

    def inverse(self, x: Tensor) -> Tensor:
        """Training space (..., C, H, W) back to pixels on the 0..1 scale, not clamped."""
        return x * self._channels("std") + self._channels("mean")

    def _channels(self, name: str) -> Tensor:
        return self.tensors[name][:, None, None]


FITS = {"mean_std": lambda data: {"mean": data.mean, "std": data.std}}
"""What each kind fits: ImageData -> its tensors."""
