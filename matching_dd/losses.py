"""Matching losses: pure functions of features, attention maps and gradients, reduced per class.

Half-precision inputs of all but `mean_discrepancy` are reduced in float32; float64 stays. Nothing is detached: give the
real side without gradient.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from core_dd.errors import pick, require
from core_dd.judge.moments import central_moment


def mean_discrepancy(real: Tensor, syn: Tensor) -> Tensor:
    """Squared distance of class means ([Zhao & Bilen, WACV 2023](https://arxiv.org/abs/2110.04181), eq. 4; the linear
    MMD of DataDAM).

    Args:
        real: features of real images, (K, B, D).
        syn: features of synthetic images, (K, M, D); M may differ from B.

    Returns:
        (K,), summed over D, dtype of the inputs.

    Raises:
        ValueError: if either is not (K, N, D) with N >= 1, or if K or D differ.

    Examples:
        >>> import torch
        >>> real, syn = torch.zeros(2, 8, 4), torch.ones(2, 3, 4)
        >>> mean_discrepancy(real, syn)
        tensor([4., 4.])
    """
    _check_pair(real, syn)
    difference = reduce(real, "k b d -> k d", "mean") - reduce(syn, "k m d -> k d", "mean")
    return reduce(difference.square(), "k d -> k", "sum")


def moment_discrepancy(real: Tensor, syn: Tensor, order: int) -> Tensor:
    """Squared distance of the `order`-th moments of each class: the regularisers of [Zhang et al., M3D, AAAI
    2024](https://arxiv.org/abs/2312.15927), table 1, "DM + 2nd & 3rd reg", to be weighted and added to
    `mean_discrepancy`.

    The paper gives neither their formula nor their weights; these are central moments, not standardised. Of a single
    synthetic image per class the moments above the first are 0, without gradient.

    Args:
        real: features of real images, (K, B, D).
        syn: features of synthetic images, (K, M, D); M may differ from B.
        order: 1 mean, 2 variance, 3 third central moment, and so on.

    Returns:
        (K,), summed over D.

    Raises:
        ValueError: as `mean_discrepancy`, or if order < 1.

    Examples:
        >>> import torch
        >>> real = torch.tensor([[[0.0], [2.0]]])
        >>> moment_discrepancy(real, real + 5, 1), moment_discrepancy(real, real + 5, 2)
        (tensor([25.]), tensor([0.]))
    """
    _check_pair(real, syn)
    difference = central_moment(real, order) - central_moment(syn, order)
    return reduce(difference.square(), "k d -> k", "sum")


def kernel_mmd(real: Tensor, syn: Tensor, kernel: str = "gaussian") -> Tensor:
    """Squared maximum mean discrepancy of each class, the biased V-statistic with the diagonal ([Zhang et al., M3D,
    AAAI 2024](https://arxiv.org/abs/2312.15927)): mean k(r, r') + mean k(s, s') - 2 mean k(r, s).

    Memory beyond the features: a centred copy of them, and K (B^2 + BM + M^2) numbers a few times.

    Args:
        real: features of real images, (K, B, D).
        syn: features of synthetic images, (K, M, D); M may differ from B.
        kernel: a key of `KERNELS`.

    Returns:
        (K,), >= 0 up to rounding.

    Raises:
        ValueError: as `mean_discrepancy`, or for an unknown kernel.

    Examples:
        >>> import torch
        >>> x = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(0))
        >>> bool((kernel_mmd(x, x).abs() < 1e-6).all()), bool((kernel_mmd(x, x + 1) > 0).all())
        (True, True)
    """
    _check_pair(real, syn)
    matrices = pick(KERNELS, kernel, "kernel")
    with torch.autocast(real.device.type, enabled=False):
        real_real, real_syn, syn_syn = matrices(_wide(real), _wide(syn))
        return real_real.mean((1, 2)) + syn_syn.mean((1, 2)) - 2 * real_syn.mean((1, 2))


Blocks = tuple[Tensor, Tensor, Tensor]
"""A kernel's values by class, real with real (K, B, B), real with synthetic (K, B, M), synthetic with synthetic."""


def gaussian_kernel(real: Tensor, syn: Tensor) -> Blocks:
    """Sum of 5 Gaussians exp(-d2 / (b 2^i)), i = -2..2, as wide as the data: b is the mean squared distance between two
    different rows of a class, real and synthetic pooled, and carries no gradient.

    M3D states no bandwidth; this is the one its re-uses share. (Of unit width, 2048 features give a gradient of 0.)
    """
    real_real, real_syn, syn_syn = blocks = _squared_distances(real, syn)
    with torch.no_grad():
        total = real_real.sum((1, 2)) + 2 * real_syn.sum((1, 2)) + syn_syn.sum((1, 2))
        rows = real.shape[1] + syn.shape[1]
        width = (total / (rows**2 - rows)).clamp_min(1e-12)[:, None, None]  # all rows may be equal
    return _each(blocks, lambda block: summed(torch.exp(-block / (width * 2.0**i)) for i in range(-2, 3)))


def standardised(real: Tensor, syn: Tensor) -> tuple[Tensor, Tensor]:
    """Features of each class around their real mean, in units of their spread: the root of `gaussian_kernel`'s b.

    A kernel without a width of its own then sees what the Gaussians do, whatever origin and unit features have: its
    gradient is of their size, so that one learning rate serves all. Mean and spread carry no gradient.

    Args:
        real: features of real images, (K, B, D).
        syn: features of synthetic images, (K, M, D); M may differ from B.

    Raises:
        ValueError: as `mean_discrepancy`.
    """
    _check_pair(real, syn)
    real, syn = _centred(_wide(real), _wide(syn))
    with torch.no_grad():
        variance = torch.cat([real, syn], 1).var(1).sum(1)
        spread = (2 * variance).clamp_min(1e-12).sqrt()[:, None, None]  # all rows may be equal
    return real / spread, syn / spread


def linear_kernel(real: Tensor, syn: Tensor) -> Blocks:
    """x.y, which makes the MMD equal `mean_discrepancy`; taken around the real mean, which changes only rounding."""
    return _inner_products(*_centred(real, syn))


def polynomial_kernel(real: Tensor, syn: Tensor) -> Blocks:
    """(x.y + 1)^2."""
    return _each(_inner_products(real, syn), lambda block: (block + 1).square())


def laplace_kernel(real: Tensor, syn: Tensor) -> Blocks:
    """Sum of exp(-g d2), g = 0.1, 1, 5: Gaussians, though M3D's re-uses name it after Laplace.

    Its width is fixed: where squared distances are in the hundreds, as in 2048 features, its gradient vanishes unless
    they are `standardised`.
    """
    blocks = _squared_distances(real, syn)
    return _each(blocks, lambda block: summed(torch.exp(-gamma * block) for gamma in (0.1, 1.0, 5.0)))


KERNELS: Mapping[str, Callable[[Tensor, Tensor], Blocks]] = MappingProxyType(
    {
        "gaussian": gaussian_kernel,
        "linear": linear_kernel,
        "polynomial": polynomial_kernel,
        "laplace": laplace_kernel,
    }
)
"""Kernels of `kernel_mmd` by name."""


MAP_NORMS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "l2": lambda maps: F.normalize(maps, p=2.0),
        "l1": lambda maps: F.normalize(maps, p=1.0),
        "none": lambda maps: maps,
    }
)
"""How `attention_map` normalises the map of each sample."""

MAP_DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "mse": lambda real, syn: (real - syn).square().sum(1),
        "mae": lambda real, syn: (real - syn).abs().sum(1),
        "cosine": lambda real, syn: 1 - F.cosine_similarity(real, syn),
    }
)
"""How `attention_loss` compares mean maps (K, P): despite their names, mse and mae are sums over positions."""


def attention_map(features: Tensor, p: float = 4.0, norm: str = "l2") -> Tensor:
    """Spatial attention of each sample: the sum over channels of |F|^p, normalised ([Sajedi et al., DataDAM, ICCV
    2023](https://arxiv.org/abs/2310.00093)).

    The paper's power is 4; the authors' code runs with 1.

    Args:
        features: output of a layer, (N, C, H, W).
        p: power, >= 1.
        norm: a key of `MAP_NORMS`; a map of zeros stays zero.

    Returns:
        (N, H * W), >= 0.

    Raises:
        ValueError: if features are not 4-d, p < 1, or the norm is unknown.

    Examples:
        >>> import torch
        >>> attention_map(torch.ones(2, 16, 4, 4)).shape
        torch.Size([2, 16])
    """
    require(features.ndim == 4, f"features must be (N, C, H, W), got shape {tuple(features.shape)}.")
    require(p >= 1, f"attention power p must be >= 1, got {p}.")
    maps = reduce(_wide(features).abs().pow(p), "n c h w -> n (h w)", "sum")
    return pick(MAP_NORMS, norm, "attention norm")(maps)


def in_lengths(real: Tensor, syn: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of each class in units of their length: the root of the mean square of the real ones' and the synthetic
    ones' L2 norms, both sets weighing alike, which carries no gradient.

    Of norm l2 they have length 1 already. Those of norm none keep what sets images apart, but no longer the size that
    power, width and depth of a network give them, nor one that grows with the images; those of l1 become as large.

    Args:
        real: maps of real images, (K, B, P).
        syn: maps of synthetic images, (K, M, P); M may differ from B.

    Raises:
        ValueError: as `mean_discrepancy`.
    """
    _check_pair(real, syn, "attention maps")
    with torch.no_grad():
        squares = summed(_wide(maps).square().sum(2).mean(1) for maps in (real, syn)) / 2
        length = squares.clamp_min(1e-12).sqrt()[:, None, None]  # a layer may be dead
    return real / length, syn / length


def attention_loss(real: Tensor, syn: Tensor, kind: str = "mse") -> Tensor:
    """Distance of each class's mean attention maps in one layer ([Sajedi et al., DataDAM, ICCV
    2023](https://arxiv.org/abs/2310.00093), L_SAM before its sums over layers and classes).

    "cosine" is one minus the cosine; the authors' code takes its arc cosine, whose gradient is infinite at equality.

    Args:
        real: maps of real images, (K, B, P).
        syn: maps of synthetic images, (K, M, P); M may differ from B.
        kind: a key of `MAP_DISTANCES`.

    Returns:
        (K,), summed over positions.

    Raises:
        ValueError: as `mean_discrepancy`, or for an unknown kind.
    """
    _check_pair(real, syn, "attention maps")
    return pick(MAP_DISTANCES, kind, "attention loss")(_wide(real).mean(1), _wide(syn).mean(1))


def gradient_distance(real: Sequence[Tensor], syn: Sequence[Tensor], kind: str = "dc") -> Tensor:
    """Distance of the real and the synthetic gradient of each class, summed over the network's parameters.

    Args:
        real: gradients by parameter, each (K, *shape of the parameter).
        syn: the same of the synthetic images.
        kind: a key of `GRADIENT_DISTANCES`.

    Returns:
        (K,).

    Raises:
        ValueError: if the two differ in number or shapes, nothing is left to compare, or the kind is unknown.
    """
    shapes, others = [tuple(g.shape) for g in real], [tuple(g.shape) for g in syn]
    require(shapes == others, f"real and syn gradients must agree in number and shapes, got {shapes} and {others}.")
    require(len(shapes) > 0, "there are no gradients to compare. Use a network that has such parameters.")
    return pick(GRADIENT_DISTANCES, kind, "gradient distance")([_wide(g) for g in real], [_wide(g) for g in syn])


def conv_gradients(gradients: Sequence[Tensor]) -> list[Tensor]:
    """The gradients that IDC compares ([Kim et al., ICML 2022](https://arxiv.org/abs/2205.14959)), each (K, *shape of
    the parameter): those of convolutions, not of linear layers, biases, norms and tokens."""
    return [g for g in gradients if g.ndim == 5]


def row_cosine_distance(real: Sequence[Tensor], syn: Sequence[Tensor]) -> Tensor:
    """Sum over output units of one minus the cosine of their weights' gradients ([Zhao et al., DC, ICLR
    2021](https://arxiv.org/abs/2006.05929)).

    Parameters are seen as (rows, the rest); those of one dimension (biases, affine norms) contribute 0. The 1e-6 that
    guards the division is the authors': a row of zeros counts 1, and equal gradients g count 1e-6 / (|g|^2 + 1e-6).
    """
    rows = [(r.flatten(2), s.flatten(2)) for r, s in zip(real, syn, strict=True) if r.ndim > 2]
    require(len(rows) > 0, "the dc distance needs a parameter of two or more dimensions.")
    return summed((1 - _cosine((r * s).sum(2), r.norm(dim=2), s.norm(dim=2))).sum(1) for r, s in rows)


def cosine_distance(real: Sequence[Tensor], syn: Sequence[Tensor]) -> Tensor:
    """One minus the cosine of all gradients as one vector (an ablation of DC).

    Examples:
        >>> import torch
        >>> cosine_distance([torch.ones(2, 3)], [torch.ones(2, 3) * 7])
        tensor([0., 0.])
    """
    product = summed((r * s).flatten(1).sum(1) for r, s in zip(real, syn, strict=True))
    norms = [torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0) for gradients in (real, syn)]
    return 1 - _cosine(product, *norms)


def squared_distance(real: Sequence[Tensor], syn: Sequence[Tensor]) -> Tensor:
    """Sum of squared differences over all parameters (an ablation of DC; IDC's mse, on `conv_gradients`)."""
    return summed((r - s).square().flatten(1).sum(1) for r, s in zip(real, syn, strict=True))


def absolute_distance(real: Sequence[Tensor], syn: Sequence[Tensor]) -> Tensor:
    """Sum of absolute differences over all parameters (IDC's l1, on `conv_gradients`)."""
    return summed((r - s).abs().flatten(1).sum(1) for r, s in zip(real, syn, strict=True))


GRADIENT_DISTANCES: Mapping[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = MappingProxyType(
    {"dc": row_cosine_distance, "cos": cosine_distance, "mse": squared_distance, "l1": absolute_distance}
)
"""Distances of gradients by name; despite its name, mse is a sum."""


def trajectory_loss(student: Sequence[Tensor], start: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Squared distance of the student's end to the expert's, over the expert's own way ([Cazenavette et al., MTT, CVPR
    2022](https://arxiv.org/abs/2203.11932)).

    Args:
        student: parameters after N steps on synthetic data, from `start`.
        start: the expert's parameters at epoch t.
        target: the expert's parameters at epoch t + M.

    Returns:
        Scalar, 1 for a student that stayed at the start; not finite where start equals target.

    Raises:
        ValueError: if the three differ in number or shapes, or are empty.

    Examples:
        >>> import torch
        >>> start, target = [torch.zeros(3)], [torch.ones(3)]
        >>> float(trajectory_loss(target, start, target)), float(trajectory_loss(start, start, target))
        (0.0, 1.0)
    """
    shapes = [[tuple(p.shape) for p in parameters] for parameters in (student, start, target)]
    require(
        shapes[0] == shapes[1] == shapes[2] and len(shapes[0]) > 0,
        f"student, start and target must agree in number and shapes of parameters, got {', '.join(map(str, shapes))}.",
    )
    left = summed((_wide(p) - _wide(q)).square().sum() for p, q in zip(student, target, strict=True))
    way = summed((_wide(p) - _wide(q)).square().sum() for p, q in zip(start, target, strict=True))
    return left / way


def effect_alignment(real: Tensor, syn: Tensor, coefficient: float = 1.0) -> Tensor:
    """|c sum_t <gP_t, gD_t> - sum_t <gP_t, gS_t>|: how far replacing the real data by the synthetic would change the
    loss on a probe batch P (EAD, eq. 7). One absolute value around the sum over checkpoints, as printed: a scalar
    constraint, in which checkpoints may cancel.

    Args:
        real: inner products of the gradients on P and on a real batch, one per checkpoint, (T,).
        syn: those of the gradients on P and on a synthetic batch, (T,).
        coefficient: c, see `effect_coefficient`.

    Returns:
        Scalar.

    Raises:
        ValueError: if either is not (T,) with T >= 1, or T differs.

    Examples:
        >>> import torch
        >>> products = torch.tensor([0.5, 0.25])
        >>> float(effect_alignment(products, products)), float(effect_alignment(products, products * 0))
        (0.0, 0.75)
    """
    require(
        real.ndim == 1 and real.shape == syn.shape and len(real) >= 1,
        f"real and syn must be inner products (T,) with T >= 1, got {tuple(real.shape)} and {tuple(syn.shape)}.",
    )
    return (coefficient * _wide(real).sum() - _wide(syn).sum()).abs()


def effect_coefficient(mode: str, sizes: tuple[int, int], batches: tuple[int, int]) -> float:
    """The factor 1 - alpha of EAD's loss, with alpha = (|D| - |S|) / |S| (eq. 4 for G = D, A = S), in three readings.

    Args:
        mode: a key of `EFFECT_COEFFICIENTS`: "one", consistent with gradients of mean losses, which is what unrolling
            SGD gives; "minibatch", alpha of the two batches' sizes (1 where they are equal); "literal", alpha of the
            sets' sizes as printed (-4998 for CIFAR-10 and 10 images).
        sizes: images of the real and of the synthetic set, each >= 1.
        batches: images of their mini-batches, each >= 1.

    Raises:
        ValueError: for an unknown mode, or a size < 1.
    """
    require(min(*sizes, *batches) >= 1, f"sizes and batches must be >= 1, got {sizes} and {batches}.")
    return pick(EFFECT_COEFFICIENTS, mode, "effect coefficient")(sizes, batches)


EFFECT_COEFFICIENTS: Mapping[str, Callable[[tuple[int, int], tuple[int, int]], float]] = MappingProxyType(
    {
        "one": lambda sizes, batches: 1.0,
        "minibatch": lambda sizes, batches: 1 - (batches[0] - batches[1]) / batches[1],
        "literal": lambda sizes, batches: 1 - (sizes[0] - sizes[1]) / sizes[1],
    }
)
"""Readings of EAD's coefficient by name."""


def layer_discrepancy(real: Sequence[Tensor], syn: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted squared distances of class means in several layers ([Wang et al., CAFE, CVPR
    2022](https://arxiv.org/abs/2203.01531), feature alignment).

    Args:
        real: outputs of each layer for real images, (K, B, ...).
        syn: the same for synthetic images, (K, M, ...).
        weights: one per layer.

    Returns:
        (K,), summed over layers, channels and positions.

    Raises:
        ValueError: if there are no layers, their numbers differ, or as `mean_discrepancy`.
    """
    require(
        len(real) == len(syn) == len(weights) >= 1,
        f"real, syn and weights must have one entry per layer, got {len(real)}, {len(syn)} and {len(weights)}.",
    )
    layers = zip(real, syn, weights, strict=True)
    return summed(weight * mean_discrepancy(_wide(r).flatten(2), _wide(s).flatten(2)) for r, s, weight in layers)


def discrimination_loss(real: Tensor, syn: Tensor) -> Tensor:
    """Cross-entropy of real images classified by the synthetic class means ([Wang et al., CAFE, CVPR
    2022](https://arxiv.org/abs/2203.01531)): logits are the inner products of a real image's features with each mean.

    Args:
        real: features of real images, (K, B, D).
        syn: features of synthetic images, (K, M, D), of the same classes, all of them.

    Returns:
        (K,), summed over the real images of each class.

    Raises:
        ValueError: as `mean_discrepancy`.
    """
    _check_pair(real, syn)
    with torch.autocast(real.device.type, enabled=False):
        logits = _wide(real).flatten(0, 1) @ _wide(syn).mean(1).T
    labels = torch.arange(len(real), device=real.device).repeat_interleave(real.shape[1])
    return F.cross_entropy(logits, labels, reduction="none").view(real.shape[:2]).sum(1)


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_pair(real: Tensor, syn: Tensor, kind: str = "features") -> None:
    for name, features in (("real", real), ("syn", syn)):
        require(
            features.ndim == 3 and features.shape[1] >= 1,
            f"{name} {kind} must be (K, N, D) with N >= 1, got shape {tuple(features.shape)}.",
        )
    require(
        real.shape[0] == syn.shape[0] and real.shape[2] == syn.shape[2],
        f"real and syn {kind} must agree in classes and width, got {tuple(real.shape)} and {tuple(syn.shape)}.",
    )


def _centred(real: Tensor, syn: Tensor) -> tuple[Tensor, Tensor]:
    """Both around the real mean of each class: differences stay the same, and lose fewer digits."""
    mean = real.detach().mean(1, keepdim=True)
    return real - mean, syn - mean


def summed(terms: Iterable[Tensor]) -> Tensor:
    """The sum of tensors, at least one."""
    return functools.reduce(torch.add, terms)


def _each(blocks: Blocks, kernel: Callable[[Tensor], Tensor]) -> Blocks:
    real_real, real_syn, syn_syn = blocks
    return kernel(real_real), kernel(real_syn), kernel(syn_syn)


def _inner_products(real: Tensor, syn: Tensor) -> Blocks:
    return real @ real.mT, real @ syn.mT, syn @ syn.mT


def _squared_distances(real: Tensor, syn: Tensor) -> Blocks:
    real_real, real_syn, syn_syn = _inner_products(*_centred(real, syn))
    r, s = (block.diagonal(dim1=1, dim2=2) for block in (real_real, syn_syn))

    def expanded(x: Tensor, y: Tensor, xy: Tensor) -> Tensor:
        return (x[:, :, None] + y[:, None] - 2 * xy).clamp_min(0)

    return expanded(r, r, real_real), expanded(r, s, real_syn), expanded(s, s, syn_syn)


def _cosine(product: Tensor, norm: Tensor, other: Tensor) -> Tensor:
    return product / (norm * other + 1e-6)
