"""Second, plain implementations that several tests compare with: one image, one class, one layer at a time."""

import torch
import torch.nn.functional as F
from torch import Tensor


def plain_layers(net: torch.nn.Module, image: Tensor) -> tuple[list[Tensor], Tensor]:
    """ConvNet of one image (C, H, W), from its state's tensors alone: conv, instance norm, ReLU, average pooling.

    Returns:
        The ReLUs' outputs, each (width, H', W'), and the features (D,).
    """
    weights, x, outputs = list(net.state_dict().values()), image[None], []
    for i in range(0, len(weights) - 2, 4):
        kernel, bias, gain, shift = weights[i : i + 4]
        x = F.conv2d(x, kernel, bias, padding=3 if i == 0 and len(image) == 1 else 1)
        mean = x.mean((2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean((2, 3), keepdim=True)
        x = (x - mean) / (variance + 1e-5).sqrt() * gain[:, None, None] + shift[:, None, None]
        x = x.clamp(min=0)
        outputs.append(x[0])
        x = x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
        x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return outputs, x.flatten()


def plain_features(net: torch.nn.Module, image: Tensor) -> Tensor:
    """The features (D,) of `plain_layers`."""
    return plain_layers(net, image)[1]


def plain_logits(net: torch.nn.Module, image: Tensor) -> Tensor:
    """Those of the linear classifier on the features, (classes,)."""
    weight, bias = list(net.state_dict().values())[-2:]
    return weight @ plain_features(net, image) + bias


def plain_decode(images: Tensor, factor: int) -> Tensor:
    """Factor-and-upsample of images (N, C, H, W): pad with grey, cut, enlarge, one tile at a time (Kim et al. 2022)."""
    height, width = images.shape[2:]
    tile_height, tile_width = -(-height // factor), -(-width // factor)
    canvas = torch.full((*images.shape[:2], tile_height * factor, tile_width * factor), 0.5)
    canvas[:, :, :height, :width] = images
    decoded = []
    for i in range(factor):
        for j in range(factor):
            rows, cols = slice(i * tile_height, (i + 1) * tile_height), slice(j * tile_width, (j + 1) * tile_width)
            tile = canvas[:, :, rows, cols]
            decoded.append(F.interpolate(tile, size=(height, width), mode="bilinear", align_corners=False))
    return torch.cat(decoded)


def plain_tiles(images: Tensor, factor: int, kind: str = "single", most: int | None = None) -> Tensor:
    """What IDC matches of images (N, C, H, W): tiles of one factor, of several, or as many as there is room for."""
    if kind == "single":
        return plain_decode(images, factor)
    if kind == "multi":
        return torch.cat([plain_decode(images, own) for own in range(1, factor + 1)])
    left, decoded = list(images), []
    for own in range(factor, 1, -1):
        room, cut = most - sum(map(len, decoded)) - len(left), []
        while left and (len(cut) + 1) * own**2 <= room:
            cut.append(left.pop(0))
        if cut:
            decoded.append(plain_decode(torch.stack(cut), own))
    return torch.cat([*decoded, *(image[None] for image in left)])
