"""U-ViT as a textbook writes it: fp32, eager, the attention matrix in memory. What the benchmarks compare with."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRESET = "cifar10-small"


class PlainAttention(nn.Module):
    """Explicit softmax attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(width // self.heads), dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, length, width))


class PlainMLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PlainBlock(nn.Module):
    """A transformer block, with a skip connection in the second half."""

    def __init__(self, width: int, heads: int, skip: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = PlainAttention(width, heads), PlainMLP(width)
        if skip:
            self.skip_linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            x = self.skip_linear(torch.cat([x, skip], dim=-1))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainUViT(nn.Module):
    """The network of `gen_dd.UViT`, labels and final convolution included, under the same key names."""

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        in_channels: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.patch, self.side, self.width = patch_size, image_size // patch_size, hidden_size
        self.pos_embed = nn.Parameter(torch.randn(1, 2 + self.side**2, hidden_size) * 0.02)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(in_channels, hidden_size, patch_size, stride=patch_size)
        self.label_emb = nn.Embedding(num_classes + 1, hidden_size)
        self.in_blocks = nn.ModuleList(PlainBlock(hidden_size, num_heads, False) for _ in range(depth // 2))
        self.mid_block = PlainBlock(hidden_size, num_heads, False)
        self.out_blocks = nn.ModuleList(PlainBlock(hidden_size, num_heads, True) for _ in range(depth // 2))
        self.norm = nn.LayerNorm(hidden_size)
        self.decoder_pred = nn.Linear(hidden_size, patch_size**2 * in_channels)
        self.final_layer = nn.Conv2d(in_channels, in_channels, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        half = self.width // 2
        angles = timestep.reshape(-1, 1) * torch.exp(-math.log(10000) / half * torch.arange(half, device=x.device))
        time = torch.cat([angles.cos(), angles.sin()], dim=1).expand(batch, -1)
        patches = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.label_emb(labels)[:, None], time[:, None], patches], dim=1) + self.pos_embed
        skips = []
        for block in self.in_blocks:
            x = block(x)
            skips.append(x)
        x = self.mid_block(x)
        for block in self.out_blocks:
            x = block(x, skips.pop())
        x = self.decoder_pred(self.norm(x))[:, 2:]
        x = x.reshape(batch, self.side, self.side, self.patch, self.patch, channels)
        x = x.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, self.side * self.patch, self.side * self.patch)
        return self.final_layer(x)
