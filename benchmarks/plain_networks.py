"""The classifiers of the condensation literature as its code writes them, for images of 32x32 and ten classes."""

import torch.nn.functional as F
from torch import Tensor, nn


def convnet3() -> nn.Module:
    """ConvNet-3: 320,010 parameters."""
    blocks: list[nn.Module] = []
    for channels in (3, 128, 128):
        blocks += [nn.Conv2d(channels, 128, 3, padding=1), nn.GroupNorm(128, 128), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(2048, 10))


def alexnet() -> nn.Module:
    """AlexNet, without norms: 1,872,202 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(3, 128, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(128, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(192, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 192, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(192, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(192 * 4 * 4, 10)),
    )


class Block(nn.Module):
    """Two 3x3 convolutions with instance norm, around which the input goes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.GroupNorm(after, after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.GroupNorm(after, after)
        self.around = nn.Sequential()
        if before != after:
            self.around = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.GroupNorm(after, after))

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) to (N, after, H / stride, W / stride)."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.around(x))


def resnet18() -> nn.Module:
    """ResNet-18 with instance norm: 11,173,962 parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.GroupNorm(64, 64), nn.ReLU()]
    before = 64
    for after in (64, 128, 256, 512):
        layers += [Block(before, after, 1 if after == 64 else 2), Block(after, after, 1)]
        before = after
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, 10))


PLAIN = {"convnet3": convnet3, "alexnet": alexnet, "resnet18": resnet18}
"""By their names in `core_dd.judge.networks.NETWORKS`."""
