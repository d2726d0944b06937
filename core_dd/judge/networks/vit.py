"""A vision transformer for small images (Dosovitskiy et al. 2021; as in the code of DataDAM, Sajedi et al. 2023)."""

import torch
from torch import Tensor, nn

from core_dd.errors import require
from core_dd.judge.networks.layers import Network, normal


class Tokens(nn.Module):
    """Patches to tokens: a linear map of each, a class token before them, learnt positions, dropout.

    Args:
        in_shape: (C, H, W) of the images, H and W divisible by `patch`.
        patch: side of a patch.
        width: of a token.
        dropout: probability.
    """

    def __init__(self, in_shape: tuple[int, int, int], patch: int, width: int, dropout: float) -> None:
        super().__init__()
        channels, height, side = in_shape
        self.patch, self.embed = patch, nn.Linear(channels * patch**2, width)
        self.positions = nn.Parameter(torch.empty(1, height // patch * (side // patch) + 1, width))
        self.first = nn.Parameter(torch.empty(1, 1, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 1 + patches, width), the class token first, then the patches row by row."""
        patches = x.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))  # (N, C, rows, p, columns, p)
        tokens = self.embed(patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))
        return self.dropout(torch.cat([self.first.expand(len(x), -1, -1), tokens], 1) + self.positions)

    def draw(self, generator: torch.Generator | None) -> None:
        """New positions and class token, in place, from N(0, 1)."""
        for parameter in (self.positions, self.first):
            normal(parameter, 1.0, generator)


class _Attention(nn.Module):
    """Multi-head self-attention, written out: its gradient can be differentiated once more, as DC and MTT do."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.qkv = heads, nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) to the same."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (N, heads, tokens, d)
        weights = (q @ k.mT * q.shape[3] ** -0.5).softmax(3)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """Attention, then a perceptron, each on layer-normed tokens and added to them."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), _Attention(width, heads, dropout)
        grow, shrink = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(grow, nn.GELU(), nn.Dropout(dropout), shrink, nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(Network):
    """Patches of 4x4, six encoders of width 512, hidden width 512 and 8 heads, dropout 0.1; the class token decides.

    It shows the tokens of the patches after each encoder, as maps.

    Args:
        in_shape: (C, H, W) of the images, H and W divisible by `patch`.
        num_classes: width of the output.
        width: of the tokens, divisible by `heads`.
        patch, depth, heads, hidden, dropout: as above.

    Raises:
        InputError: a size that patches do not divide, or a width that heads do not.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        *,
        width: int = 512,
        patch: int = 4,
        depth: int = 6,
        heads: int = 8,
        hidden: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(in_shape)
        _, height, side = self.in_shape
        require(
            height % patch == 0 and side % patch == 0,
            f"vit_tiny cuts images into patches of {patch}x{patch}, which {height}x{side} is no multiple of. Choose "
            "another image_size.",
        )
        require(width >= 1 and width % heads == 0, f"width must be a multiple of {heads} heads, got {width}.")
        self.rows = height // patch
        self.tokens = Tokens(self.in_shape, patch, width, dropout)
        self.encoders = nn.Sequential(*(Encoder(width, heads, hidden, dropout) for _ in range(depth)))
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in training space to (N, width): the class token, after the last norm."""
        self.check(x)
        return self.norm(self.encoders(self.tokens(x))[:, 0])

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The patches' tokens after each encoder, (N, width, H / patch, W / patch); and `features(x)`."""
        self.check(x)
        x, outputs = self.tokens(x), []
        for encoder in self.encoders:
            x = encoder(x)
            outputs.append(x[:, 1:].mT.unflatten(2, (self.rows, -1)))
        return outputs, self.norm(x[:, 0])
