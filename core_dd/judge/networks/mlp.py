"""A perceptron with two hidden layers (as in the code of DC, DSA and DM, Zhao et al. 2021)."""

import math

from torch import Tensor, nn

from core_dd.errors import require
from core_dd.judge.networks.layers import Network


class MLP(Network):
    """Linear layers of `width`, `width` and `num_classes` with ReLUs between, on the flattened image.

    It shows no layers: none has positions.

    Args:
        in_shape: (C, H, W) of the images, of any size.
        num_classes: width of the output.
        width: of both hidden layers.
    """

    def __init__(self, in_shape: tuple[int, int, int], num_classes: int, *, width: int = 128) -> None:
        super().__init__(in_shape)
        require(width >= 1, f"width must be >= 1, got {width}.")
        first = nn.Linear(math.prod(self.in_shape), width)
        self.hidden = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in training space to (N, width): the second hidden layer."""
        self.check(x)
        return self.hidden(x)
