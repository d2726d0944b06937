"""AlexNet as the condensation literature cuts it down to small images (Krizhevsky et al. 2012; Zhao et al. 2021)."""

from torch import nn

from core_dd.errors import pick
from core_dd.judge.networks.layers import NORMS, BlockNetwork, Shrink

LAYERS = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))
"""Of each convolution its channels, its kernel, and whether 2x2 max pooling follows."""


class AlexNet(BlockNetwork):
    """Five blocks of [convolution, norm, ReLU], three of them max-pooled, then a linear classifier on 4x4 positions.

    Without dropout and without the two wide hidden layers, as in the code of DC, DSA and DM, where it has no norm;
    `alexnet_bn` is DataDAM's AlexNetBN. It shows the output of each ReLU. Images larger than 32x32, for which there is
    no published version, are pooled to 4x4 positions at the end.

    Args:
        in_shape: (C, H, W) of the images. With one channel the first convolution pads by 4: 28x28 becomes 32x32.
        num_classes: width of the output.
        norm: a key of `layers.NORMS`.

    Raises:
        InputError: an unknown norm, or images too small.
    """

    def __init__(self, in_shape: tuple[int, int, int], num_classes: int, *, norm: str = "none") -> None:
        super().__init__(in_shape)
        make_norm, before = pick(NORMS, norm, "norm"), self.in_shape[0]
        blocks: list[nn.Sequential] = []
        for width, kernel, pooled in LAYERS:
            padding = 4 if not blocks and before == 1 else kernel // 2
            conv = nn.Conv2d(before, width, kernel, padding=padding)
            pool = nn.MaxPool2d(2) if pooled else nn.Identity()
            blocks.append(nn.Sequential(conv, make_norm(width), nn.ReLU(), pool))
            before = width
        self.blocks, self.neck = nn.Sequential(*blocks), nn.Sequential(Shrink(4), nn.Flatten())
        self.classifier = self.linear_on_map(before, 4, num_classes)
