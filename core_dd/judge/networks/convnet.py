"""ConvNet-D, the network of the dataset-distillation literature (Gidaris & Komodakis 2018; Zhao et al. 2021)."""

from torch import nn

from core_dd.errors import InputError, pick, require
from core_dd.judge.networks.layers import ACTIVATIONS, NORMS, POOLS, BlockNetwork


class ConvNet(BlockNetwork):
    """`depth` blocks of [3x3 convolution, norm, activation, 2x2 pooling], then a linear classifier.

    It shows the output of each activation.

    Args:
        in_shape: (C, H, W) of the images. With one channel the first convolution pads by 3, which adds 4 pixels to each
            side: 28x28 becomes 32x32, as published.
        num_classes: width of the output.
        depth, width: blocks, and channels of each.
        norm, act, pool: keys of `layers.NORMS`, or "layer" over (C, H, W); of `layers.ACTIVATIONS`; of `layers.POOLS`.

    Raises:
        InputError: an unknown key, or images too small to be pooled `depth` times.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        *,
        depth: int = 3,
        width: int = 128,
        norm: str = "instance",
        act: str = "relu",
        pool: str = "avg",
    ) -> None:
        super().__init__(in_shape)
        require(depth >= 1 and width >= 1, f"depth and width must be >= 1, got {depth} and {width}.")
        require(norm != "group" or width % 4 == 0, f"group norm needs a width divisible by 4, got {width}.")
        make_act, make_pool, halves = pick(ACTIVATIONS, act, "activation"), pick(POOLS, pool, "pooling"), pool != "none"
        channels, height, side = self.in_shape
        blocks = []
        for i in range(depth):
            padding = 3 if i == 0 and channels == 1 else 1
            height, side = height + 2 * padding - 2, side + 2 * padding - 2
            if min(height, side) < (2 if halves else 1):
                raise InputError(
                    f"images of {in_shape[1]}x{in_shape[2]} are too small for {depth} poolings. "
                    f"Use at most convnet{i}, or larger images (image_size)."
                )
            conv = nn.Conv2d(width if i else channels, width, 3, padding=padding)
            shape = (width, height, side)  # before pooling
            normed = nn.LayerNorm(shape) if norm == "layer" else pick(NORMS, norm, "norm")(width)
            blocks.append(nn.Sequential(conv, normed, make_act(), make_pool()))
            height, side = (height // 2, side // 2) if halves else (height, side)
        self.blocks, self.neck = nn.Sequential(*blocks), nn.Flatten()
        self.classifier = nn.Linear(width * height * side, num_classes)
