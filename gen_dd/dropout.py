"""Dropout whose masks depend on nothing but a key of each image: neither on how a batch is dealt out to processes and
passes nor on whether a block is computed again for the backward pass (gradient checkpointing)."""

from typing import NamedTuple

import torch
from torch import Tensor

KEYS = 2**31
"""Keys lie below."""


class Dropout(NamedTuple):
    """Sets values to 0 and scales the others up, so that the mean stays (Srivastava et al., JMLR 2014).

    U-ViT's blocks put the outputs of attention and MLP through it, before they are added to their input (residual
    dropout; Vaswani et al., NeurIPS 2017, section 5.4). Karras et al. (NeurIPS 2022) train CIFAR-10 with 0.13.
    """

    probability: float
    """Of a value to be dropped, in [0, 1)."""
    keys: Tensor
    """One of each image, int32 (B,), in [0, KEYS)."""

    def at(self, place: int) -> "Dropout":
        """The dropout of another place of the network, whose masks have nothing to do with this one's."""
        return self._replace(keys=_hashed(self.keys ^ (place + 1)))

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, ...), with values dropped."""
        places = torch.arange(x[0].numel(), device=x.device, dtype=torch.int32)
        draws = _hashed(_hashed(places) ^ self.keys[:, None]).view(x.shape)
        return x * (draws >= int(self.probability * KEYS)) / (1 - self.probability)


def _hashed(x: Tensor) -> Tensor:
    """Numbers in [0, KEYS) to others there, evenly spread whatever they were: two rounds of multiply and shift, of
    whose products the lower 31 bits are kept, int32."""
    for factor in (0x7FEB352D, 0x2C1B3C6D):
        x = ((x ^ (x >> 15)) * factor) & (KEYS - 1)
    return x ^ (x >> 16)
