"""LeNet with ReLUs and max pooling (LeCun et al. 1998; as in the code of DC, DSA and DM, Zhao et al. 2021)."""

from torch import nn

from core_dd.judge.networks.layers import BlockNetwork, Shrink


class LeNet(BlockNetwork):
    """Two blocks of [5x5 convolution, ReLU, max pooling], and layers of 120, 84 and `num_classes` on 5x5 positions.

    It shows the output of each block's ReLU. Images larger than 32x32, for which there is no published version, are
    pooled to 5x5 positions.

    Args:
        in_shape: (C, H, W) of the images, 16x16 or larger; 12x12 with one channel, where the first convolution pads by
            2: 28x28 gives the same positions as 32x32 in colour.
        num_classes: width of the output.

    Raises:
        InputError: images too small.
    """

    def __init__(self, in_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(in_shape)
        channels = self.in_shape[0]
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(channels, 6, 5, padding=2 if channels == 1 else 0), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        )
        hidden = self.linear_on_map(16, 5, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()
        self.neck = nn.Sequential(Shrink(5), nn.Flatten(), *hidden)
        self.classifier = nn.Linear(84, num_classes)
