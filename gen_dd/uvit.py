"""U-ViT in pixel space (Bao et al., CVPR 2023, "All are Worth Words"), the official network with its key names."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from core_dd.errors import pick, require
from gen_dd.dropout import Dropout

CONSISTENCY = "consistency"
"""The solver of consistency models, by its name."""

PRESETS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "tiny": {"image_size": 8, "patch_size": 2, "in_channels": 1, "hidden_size": 96, "depth": 4, "num_heads": 4},
        "mini": {"image_size": 28, "patch_size": 4, "in_channels": 1, "hidden_size": 192, "depth": 6, "num_heads": 4},
        "cifar10-small": {
            "image_size": 32, "patch_size": 2, "in_channels": 3, "hidden_size": 512, "depth": 12, "num_heads": 8,
        },
        "imagenet64-mid": {
            "image_size": 64, "patch_size": 4, "in_channels": 3, "hidden_size": 768, "depth": 16, "num_heads": 12,
        },
        "imagenet64-large": {
            "image_size": 64, "patch_size": 4, "in_channels": 3, "hidden_size": 1024, "depth": 20, "num_heads": 16,
        },
    }
)  # fmt: skip
"""Named sizes: the official ones, and `tiny` (0.6M, 8x8 digits) and `mini` (3.4M, 28x28) for CPUs."""

_LIMITS: MappingProxyType[str, tuple[int, int]] = MappingProxyType(
    {
        "image_size": (1, 4096),
        "patch_size": (1, 4096),
        "in_channels": (1, 1024),
        "hidden_size": (2, 2**16),
        "depth": (0, 1000),
        "num_heads": (1, 2**16),
        "num_classes": (1, 10**6),
    }
)
"""The least and the most of each size: beyond them a network would take memory and time without end."""


class UViT(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' bases differ in config_name
    """A transformer over [label, time, patch] tokens with long skips, predicting the noise in an image.

    Args:
        image_size: H = W of the images, a multiple of `patch_size`.
        patch_size: side of a square patch.
        in_channels: C of the images.
        hidden_size: width D of a token, a multiple of `num_heads`.
        depth: blocks outside the middle one, even: depth / 2 in-blocks, a middle block, depth / 2 out-blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over D.
        num_classes: K; label K is the null class of classifier-free guidance. None: no labels.
        qkv_bias: whether the query, key and value projection has a bias.
        mlp_time_embed: whether the sinusoid of the time passes through an MLP.
        final_conv: whether a 3x3 convolution follows the patches' decoder.
        null_trained: whether the null class was learnt, which guidance needs; see `check_guidance`.
        consistency: whether it was tuned into a consistency model (`gen_dd.consistency`); see `check_solver`.

    Raises:
        InputError: if the sizes do not fit each other.

    Examples:
        >>> import torch
        >>> sizes = {"hidden_size": 32, "depth": 2, "num_heads": 2}
        >>> model = UViT(image_size=8, patch_size=2, in_channels=1, num_classes=10, **sizes)
        >>> model(torch.rand(4, 1, 8, 8), torch.rand(4) * 1000, torch.tensor([0, 1, 2, 3])).shape
        torch.Size([4, 1, 8, 8])
    """

    _supports_gradient_checkpointing = True

    if TYPE_CHECKING:  # what diffusers' decorators hide: a config's entries, the class that `to` gives
        config: Any
        to: Any

    @register_to_config
    def __init__(
        self,
        image_size: int,
        patch_size: int,
        in_channels: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4,
        num_classes: int | None = None,
        qkv_bias: bool = False,
        mlp_time_embed: bool = False,
        final_conv: bool = True,
        null_trained: bool = True,
        consistency: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"image_size": image_size, "patch_size": patch_size, "in_channels": in_channels, "depth": depth}
        sizes |= {"hidden_size": hidden_size, "num_heads": num_heads}
        sizes |= {} if num_classes is None else {"num_classes": num_classes}
        for name, value in sizes.items():
            low, high = _LIMITS[name]
            require(type(value) is int, f"{name} must be a whole number, got {value!r}.")
            require(low <= value <= high, f"{name} must be from {low} to {high}, got {value}.")
        require(1 / hidden_size <= mlp_ratio <= 64, f"mlp_ratio must be > 0 and at most 64, got {mlp_ratio}.")
        require(
            image_size % patch_size == 0,
            f"image_size {image_size} is not a multiple of patch_size {patch_size}. Choose another patch_size.",
        )
        require(hidden_size % num_heads == 0, f"hidden_size {hidden_size} is not a multiple of num_heads {num_heads}.")
        require(depth % 2 == 0, f"depth must be even (in-blocks and out-blocks come in pairs), got {depth}.")
        block: dict[str, Any] = {"width": hidden_size, "heads": num_heads, "mlp_ratio": mlp_ratio, "qkv_bias": qkv_bias}
        self.extra_tokens = 1 if num_classes is None else 2
        tokens = self.extra_tokens + (image_size // patch_size) ** 2
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, hidden_size))
        self.patch_embed = _PatchEmbed(patch_size, in_channels, hidden_size)
        self.time_embed = (
            nn.Sequential(nn.Linear(hidden_size, 4 * hidden_size), nn.SiLU(), nn.Linear(4 * hidden_size, hidden_size))
            if mlp_time_embed
            else nn.Identity()
        )
        self.label_emb = None if num_classes is None else nn.Embedding(num_classes + 1, hidden_size)
        self.in_blocks = nn.ModuleList(Block(**block) for _ in range(depth // 2))
        self.mid_block = Block(**block)
        self.out_blocks = nn.ModuleList(Block(**block, skip=True) for _ in range(depth // 2))
        self.norm = nn.LayerNorm(hidden_size)
        self.decoder_pred = nn.Linear(hidden_size, patch_size**2 * in_channels)
        self.final_layer = nn.Conv2d(in_channels, in_channels, 3, padding=1) if final_conv else nn.Identity()
        self.gradient_checkpointing = False
        self._initialise()

    @classmethod
    def from_preset(
        cls, name: str, num_classes: int | None, image_size: int | None = None, in_channels: int | None = None
    ) -> "UViT":
        """A fresh network of a size named in `PRESETS`, for other images where given.

        Raises:
            InputError: for an unknown name, or an image size that the preset's patches do not tile.
        """
        sizes = dict(pick(PRESETS, name, "preset"))
        sizes |= {"image_size": image_size or sizes["image_size"], "in_channels": in_channels or sizes["in_channels"]}
        return cls(**sizes, num_classes=num_classes)

    @property
    def null_class(self) -> int | None:
        """The label that stands for "no label", or None in an unconditional network."""
        return self.config.num_classes

    def check_guidance(self, cfg_scale: float) -> None:
        """Refuse classifier-free guidance, s in cond + s (cond - null), of a network that never learnt without labels.

        Raises:
            InputError: if s is not 0 and the null class was not learnt.
        """
        require(
            cfg_scale == 0 or self.config.null_trained,
            "classifier-free guidance needs a model that learnt without labels too, and this one was trained with "
            "label_dropout 0, or its null class was made anew. Leave out cfg_scale (of a pipeline: guidance_scale), or "
            "train with --label_dropout 0.1.",
        )

    def check_solver(self, solver: str) -> None:
        """Refuse a solver of the other kind of model.

        Raises:
            InputError: a consistency model is to be drawn by a solver of diffusion models, or the reverse.
        """
        if self.config.consistency:
            require(
                solver == CONSISTENCY,
                f"this model was tuned into a consistency model, which the solver {solver} cannot draw with. Pass "
                f"--solver {CONSISTENCY} --steps 2, or the model it was tuned from.",
            )
        else:
            require(
                solver != CONSISTENCY,
                "this model was not tuned into a consistency model. Tune it by gendd tune --init_from RUN, or draw "
                "with another solver, such as --solver dpmpp_2m.",
            )

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Predict the noise.

        Args:
            sample: noisy images x_t, (B, C, H, W); clean ones lie in [-1, 1].
            timestep: 999 t with t in [0, 1], float, (B,) or a scalar.
            class_labels: int64 (B,) in 0..K, K meaning no label; None only for an unconditional network.

        Returns:
            (B, C, H, W), the dtype of `sample`.

        Raises:
            ValueError: if labels are missing, or given to an unconditional network.
        """
        return self.traced(sample, timestep, class_labels)[0]

    def traced(
        self,
        sample: Tensor,
        timestep: Tensor,
        class_labels: Tensor | None = None,
        told: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`forward`, with what training alone wants (`gen_dd.scaffold`).

        Args:
            sample, timestep, class_labels: see `forward`.
            told: what is added to the time's token, (B, D).
            dropout: what the blocks put the outputs of attention and MLP through.

        Returns:
            The noise, and all tokens as the middle block leaves them, (B, L, D).
        """
        if (class_labels is None) != (self.label_emb is None):
            raise ValueError(
                "class_labels must be given to a network with num_classes and to no other, "
                f"num_classes is {self.config.num_classes}."
            )
        patches = self.patch_embed(sample)
        time = self.time_embed(sinusoid(timestep.expand(len(sample)), self.config.hidden_size))
        time = time if told is None else time + told
        extra = [time] if self.label_emb is None else [self.label_emb(class_labels), time]
        x = torch.cat([torch.stack(extra, dim=1).to(patches.dtype), patches], dim=1) + self.pos_embed

        drops = iter([dropout and dropout.at(2 * number) for number in range(self.config.depth + 1)])
        skips = []
        for block in self.in_blocks:
            x = self._run(block, x, None, next(drops))
            skips.append(x)
        x = middle = self._run(self.mid_block, x, None, next(drops))
        for block in self.out_blocks:
            x = self._run(block, x, skips.pop(), next(drops))

        x = self.decoder_pred(self.norm(x)[:, self.extra_tokens :])
        return self.final_layer(unpatchify(x, self.config.patch_size)).to(sample.dtype), middle

    def _run(self, block: nn.Module, *inputs: Tensor | Dropout | None) -> Tensor:
        """One block, remembering only its inputs where gradient checkpointing is on."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)

    def _initialise(self) -> None:
        """The official initialisation; convolutions and label embedding keep torch's own."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def blank(**sizes: Any) -> UViT:
    """A network without weights, which `fill` gives it: random ones, as `UViT` draws, would take seconds of a large
    network, and of the sizes in a stranger's file all the memory there is.

    Args:
        sizes: the constructor's arguments.

    Raises:
        InputError: sizes that no `UViT` has.
    """
    with torch.device("meta"):
        return UViT(**sizes)


def fill(model: UViT, state: Mapping[str, Tensor], strict: bool = True) -> Any:
    """Give a network that is `blank` its weights: copies, in fp32. Returns and raises what `load_state_dict` does."""
    own = {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}
    return model.load_state_dict(own, strict=strict, assign=True)


class _PatchEmbed(nn.Module):
    """Images (B, C, H, W) to patch tokens (B, L, D), row by row."""

    def __init__(self, patch: int, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm transformer block; with `skip` it first folds a skipped stream into its input."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, qkv_bias: bool, skip: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _MLP(width, int(mlp_ratio * width))
        self.skip_linear = nn.Linear(2 * width, width) if skip else None

    def forward(self, x: Tensor, skipped: Tensor | None = None, dropout: Dropout | None = None) -> Tensor:
        if self.skip_linear is not None:
            assert skipped is not None
            x = self.skip_linear(torch.cat([x, skipped], dim=-1))
        branch = self.attn(self.norm1(x))
        x = x + (branch if dropout is None else dropout(branch))
        branch = self.mlp(self.norm2(x))
        return x + (branch if dropout is None else dropout.at(0)(branch))


class Attention(nn.Module):
    """Multi-head self-attention; the rows of `qkv` are queries, keys, values, each with heads contiguous."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(attention(q, k, v).transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    """Two layers with the exact (erf) GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of (B, heads, L, d) each.

    Written out for bf16 on the CPU: at 18 to 258 tokens torch's fused kernel takes 1.4 to 2 times as long.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


def image_flops(model: UViT) -> float:
    """Operations in the matrix products of one image's forward pass."""

    def weights(*modules: nn.Module) -> int:
        return sum(own.numel() for module in modules for own in module.parameters() if own.ndim > 1)

    side = model.config.image_size
    patches = (side // model.config.patch_size) ** 2
    tokens, blocks = model.extra_tokens + patches, (*model.in_blocks, model.mid_block, *model.out_blocks)
    products = tokens * weights(*blocks) + patches * weights(model.patch_embed, model.decoder_pred)
    products += side**2 * weights(model.final_layer) + weights(model.time_embed)
    attended = 2 * len(blocks) * tokens**2 * model.config.hidden_size  # scores, and averages by them
    return 2.0 * (products + attended)


def sinusoid(timestep: Tensor, width: int) -> Tensor:
    """Time as (B, width) float32: cosines then sines of `width // 2` frequencies from 1 down to 1/10000, exclusive.

    Examples:
        >>> import torch
        >>> sinusoid(torch.tensor([0.0]), 4)
        tensor([[1., 1., 0., 0.]])
    """
    half = width // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half)
    angles = timestep.float()[:, None] * rates
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, width % 2))


def unpatchify(tokens: Tensor, patch: int) -> Tensor:
    """Tokens (B, L, patch * patch * C), channel fastest, to square images (B, C, H, W).

    Examples:
        >>> import torch
        >>> unpatchify(torch.rand(2, 16, 2 * 2 * 3), 2).shape
        torch.Size([2, 3, 8, 8])
    """
    side = math.isqrt(tokens.shape[1])
    x = tokens.unflatten(1, (side, side)).unflatten(-1, (patch, patch, -1))
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
