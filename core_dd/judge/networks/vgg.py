"""VGG-11 for small images (Simonyan & Zisserman 2015; as in the code of DC, DSA and DM, Zhao et al. 2021)."""

from torch import nn

from core_dd.errors import pick
from core_dd.judge.networks.layers import NORMS, BlockNetwork, Shrink

LAYERS = ((64, True), (128, True), (256, False), (256, True), (512, False), (512, True), (512, False), (512, True))
"""Of each 3x3 convolution its channels, and whether 2x2 max pooling follows."""


class VGG11(BlockNetwork):
    """Eight blocks of [3x3 convolution, norm, ReLU], five of them max-pooled, then a linear classifier on 512 features.

    It shows the output of each ReLU. Images larger than 32x32, for which there is no published version, are averaged
    over the positions that are left.

    Args:
        in_shape: (C, H, W) of the images. With one channel the first convolution pads by 3: 28x28 becomes 32x32.
        num_classes: width of the output.
        norm: a key of `layers.NORMS`.

    Raises:
        InputError: an unknown norm, or images too small to be pooled five times.
    """

    def __init__(self, in_shape: tuple[int, int, int], num_classes: int, *, norm: str = "instance") -> None:
        super().__init__(in_shape)
        make_norm, before = pick(NORMS, norm, "norm"), self.in_shape[0]
        blocks: list[nn.Sequential] = []
        for width, pooled in LAYERS:
            conv = nn.Conv2d(before, width, 3, padding=3 if not blocks and before == 1 else 1)
            pool = nn.MaxPool2d(2) if pooled else nn.Identity()
            blocks.append(nn.Sequential(conv, make_norm(width), nn.ReLU(), pool))
            before = width
        self.blocks, self.neck = nn.Sequential(*blocks), nn.Sequential(Shrink(1), nn.Flatten())
        self.classifier = self.linear_on_map(before, 1, num_classes)
