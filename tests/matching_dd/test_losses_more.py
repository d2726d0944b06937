"""Each loss equals a plain second implementation, one class, layer or pair at a time, in values and gradients."""

import math

import pytest
import torch
from torch import Tensor

from core_dd.errors import InputError
from matching_dd import losses

K, B, M, D = 3, 5, 4, 6


@pytest.fixture
def real(generator) -> Tensor:
    return torch.randn(K, B, D, generator=generator, dtype=torch.float64)


@pytest.fixture
def syn(generator) -> Tensor:
    torch.randn(100, generator=generator)  # other numbers than those of `real`
    return (0.5 + torch.randn(K, M, D, generator=generator, dtype=torch.float64)).requires_grad_()


def assert_same(value: Tensor, plain: Tensor, inputs: list[Tensor] | Tensor) -> None:
    """Equal values, and equal gradients of a weighted sum over classes."""
    torch.testing.assert_close(value, plain)
    weights = torch.arange(1.0, value.numel() + 1, dtype=value.dtype).view_as(value)
    ours, theirs = (torch.autograd.grad((weights * x).sum(), inputs, retain_graph=True) for x in (value, plain))
    torch.testing.assert_close(ours, theirs)
    assert any(gradient.abs().sum() > 0 for gradient in ours)


# Kernels


def plain_kernel(name: str, rows: Tensor):
    """k(x, y) of M3D's kernels for the pooled rows (N, D) of one class."""
    total = sum(float((x - y).square().sum().detach()) for x in rows for y in rows)
    b = total / (len(rows) ** 2 - len(rows))
    return {
        "gaussian": lambda x, y: sum(torch.exp(-(x - y).square().sum() / (b * 2**k)) for k in (-2, -1, 0, 1, 2)),
        "linear": lambda x, y: (x * y).sum(),
        "polynomial": lambda x, y: ((x * y).sum() + 1) ** 2,
        "laplace": lambda x, y: sum(torch.exp(-g * (x - y).square().sum()) for g in (0.1, 1, 5)),
    }[name]


def plain_mmd(real: Tensor, syn: Tensor, name: str) -> Tensor:
    def mean(kernel, left, right):
        return sum(kernel(x, y) for x in left for y in right) / (len(left) * len(right))

    values = []
    for r, s in zip(real, syn, strict=True):
        kernel = plain_kernel(name, torch.cat([r, s]))
        values.append(mean(kernel, r, r) + mean(kernel, s, s) - 2 * mean(kernel, r, s))
    return torch.stack(values)


@pytest.mark.parametrize("kernel", losses.KERNELS)
def test_kernel_mmd__equals_loop_over_pairs(real, syn, kernel):
    assert_same(losses.kernel_mmd(real, syn, kernel), plain_mmd(real, syn, kernel), [syn])


def test_kernel_mmd__gaussian_value_worked_by_hand():
    real, syn = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    assert losses.kernel_mmd(real, syn).item() == pytest.approx(4.93415, abs=1e-5)
    blocks = losses.gaussian_kernel(real, syn)
    torch.testing.assert_close(blocks[0].diagonal(dim1=1, dim2=2), torch.full((1, 2), 5.0))
    # The pooled squared distances are 1, 1 and 2: b = 4/3.
    at_one = sum(math.exp(-1 / (4 / 3 * 2**k)) for k in range(-2, 3))
    assert blocks[0][0, 0, 1].item() == pytest.approx(at_one, rel=1e-6)


@pytest.mark.parametrize("kernel", losses.KERNELS)
def test_kernel_mmd__zero_for_equal_batches(real, kernel):
    shuffled = real.flip(1).clone().requires_grad_()
    value = losses.kernel_mmd(real, shuffled, kernel)
    torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-11, rtol=0)
    (gradient,) = torch.autograd.grad(value.sum(), shuffled)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-11, rtol=0)


def test_kernel_mmd__linear_is_mean_discrepancy(real, syn):
    assert_same(losses.kernel_mmd(real, syn, "linear"), losses.mean_discrepancy(real, syn), [syn])


@pytest.mark.parametrize("kernel", ["gaussian", "linear", "laplace"])
def test_kernel_mmd__ignores_a_common_shift(real, syn, kernel):
    shift = torch.linspace(-3, 3, D, dtype=real.dtype)
    assert_same(losses.kernel_mmd(real, syn, kernel), losses.kernel_mmd(real + shift, syn + shift, kernel), [syn])


def test_kernel_mmd__gaussian_ignores_scale(real, syn):
    torch.testing.assert_close(losses.kernel_mmd(real, syn), losses.kernel_mmd(100 * real, 100 * syn))


def test_kernel_mmd__gaussian_sees_what_a_mean_does_not(generator):
    real = torch.randn(1, 400, 2, generator=generator)
    wide = 3 * torch.randn(1, 400, 2, generator=generator)
    real, wide = real - real.mean(1, keepdim=True), wide - wide.mean(1, keepdim=True)
    assert losses.mean_discrepancy(real, wide).item() < 1e-9
    assert losses.kernel_mmd(real, wide).item() > 0.1


def test_kernel_mmd__gaussian_of_equal_rows_is_finite():
    point = torch.full((2, 1, 4), 0.3)
    syn = point.clone().requires_grad_()
    value = losses.kernel_mmd(point, syn)
    (gradient,) = torch.autograd.grad(value.sum(), syn)
    assert value.tolist() == [0, 0] and gradient.abs().sum() == 0


def test_kernel_mmd__gaussian_has_a_gradient_in_wide_features_where_fixed_widths_have_none(generator):
    real = 0.36 * torch.randn(2, 16, 2048, generator=generator)  # squared distances near 530, as ConvNet-3's
    syn = (0.36 * torch.randn(2, 8, 2048, generator=generator)).requires_grad_()
    norms = {
        kernel: torch.autograd.grad(losses.kernel_mmd(real, syn, kernel).sum(), syn)[0].norm().item()
        for kernel in ("gaussian", "laplace")
    }
    assert norms["gaussian"] > 1e-3 and norms["laplace"] < 1e-15


@pytest.mark.parametrize("kernel", losses.KERNELS)
def test_kernel_mmd__gradcheck(real, syn, kernel):
    # The Gaussian's width carries no gradient, which finite differences would see: it is held at that of `syn`.
    if kernel == "gaussian":
        blocks = losses._squared_distances(real, syn.detach())
        total = sum(w * block.sum((1, 2)) for w, block in zip((1, 2, 1), blocks, strict=True))
        b = (total / ((B + M) * (B + M - 1)))[:, None, None]

        def value(x):
            means = [
                sum(torch.exp(-d2 / (b * 2.0**k)) for k in range(-2, 3)).mean((1, 2))
                for d2 in losses._squared_distances(real, x)
            ]
            return means[0] + means[2] - 2 * means[1]

        assert_same(losses.kernel_mmd(real, syn), value(syn), [syn])
    else:

        def value(x):
            return losses.kernel_mmd(real, x, kernel)

    assert torch.autograd.gradcheck(value, (syn,))


def test_kernel_mmd__fp32_is_accurate_far_from_the_origin(generator):
    real = 20 + 0.36 * torch.randn(2, 32, 2048, generator=generator)
    syn = 20 + 0.36 * torch.randn(2, 10, 2048, generator=generator) + 0.01
    exact = losses.kernel_mmd(real.double(), syn.double())
    torch.testing.assert_close(losses.kernel_mmd(real, syn).double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel", losses.KERNELS)
def test_kernel_mmd__reduces_bf16_in_fp32_under_autocast_too(generator, kernel):
    real, syn = (torch.randn(2, n, 64, generator=generator).bfloat16() for n in (16, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = losses.kernel_mmd(real, syn, kernel)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, losses.kernel_mmd(real.float(), syn.float(), kernel))


def test_kernel_mmd__keeps_little_for_backward(generator):
    """At K 100, B 128, M 40 it may keep a few matrices of pairs, never (pairs, D): counted at a quarter of D."""
    classes, batch, decoded, width = 100, 128, 40, 512
    real = torch.randn(classes, batch, width, generator=generator)
    syn = torch.randn(classes, decoded, width, generator=generator).requires_grad_()
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses.kernel_mmd(real, syn)
    pairs = classes * (batch * decoded + decoded * decoded) * 4
    assert sum(kept.values()) < real.nbytes + 2 * syn.nbytes + 12 * pairs


def test_standardised__real_mean_is_zero_and_the_gaussian_width_one(real, syn):
    r, s = losses.standardised(real, syn)
    torch.testing.assert_close(r.mean(1), torch.zeros(K, D, dtype=torch.float64))
    for own in torch.cat([r, s], 1):
        pairs = [(x - y).square().sum() for i, x in enumerate(own) for j, y in enumerate(own) if i != j]
        assert sum(pairs).item() / len(pairs) == pytest.approx(1)
    spread = ((real - real.mean(1, keepdim=True))[:, 0] / r[:, 0]).mean(1)  # a constant, as the gradient shows
    (gradient,) = torch.autograd.grad(s.sum(), syn)
    torch.testing.assert_close(gradient, (1 / spread)[:, None, None].expand_as(syn))


@pytest.mark.parametrize("kernel", losses.KERNELS)
def test_standardised__kernels_ignore_shift_and_scale(real, syn, kernel):
    values = [
        losses.kernel_mmd(*losses.standardised(*pair), kernel) for pair in ((real, syn), (50 * real - 7, 50 * syn - 7))
    ]
    assert_same(*values, [syn])


def test_standardised__equal_rows_are_finite():
    point = torch.ones(1, 3, 4)
    r, s = losses.standardised(point, point.clone().requires_grad_())
    assert r.abs().sum() == s.abs().sum() == 0 and torch.autograd.grad(s.sum(), s)[0].isfinite().all()


# Moments


@pytest.mark.parametrize("order", [1, 2, 3])
def test_moment_discrepancy__equals_loop(real, syn, order):
    values = []
    for r, s in zip(real, syn, strict=True):
        value = 0
        for d in range(D):
            means = [sum(x[:, d]) / len(x) for x in (r, s)]
            if order > 1:
                means = [sum((v - m) ** order for v in x[:, d]) / len(x) for x, m in zip((r, s), means, strict=True)]
            value = value + (means[0] - means[1]) ** 2
        values.append(value)
    assert_same(losses.moment_discrepancy(real, syn, order), torch.stack(values), [syn])
    assert torch.autograd.gradcheck(lambda x: losses.moment_discrepancy(real, x, order), (syn,))


def test_moment_discrepancy__first_is_mean_discrepancy(real, syn):
    torch.testing.assert_close(losses.moment_discrepancy(real, syn, 1), losses.mean_discrepancy(real, syn))


@pytest.mark.parametrize("order", [2, 3])
def test_moment_discrepancy__higher_orders_ignore_each_shift_alone(real, syn, order):
    assert_same(losses.moment_discrepancy(real, syn, order), losses.moment_discrepancy(real + 7, syn - 5, order), [syn])


def test_moment_discrepancy__one_image_has_no_higher_moment(real):
    one = real[:, :1].clone().requires_grad_()
    value = losses.moment_discrepancy(real, one, 2)
    torch.testing.assert_close(value, real.var(1, correction=0).square().sum(1))
    assert torch.autograd.grad(value.sum(), one)[0].abs().sum() == 0


# Attention


def plain_map(features: Tensor, p: float, norm: str) -> Tensor:
    """The map of one sample (C, H, W), position by position."""
    channels, height, width = features.shape
    flat = torch.stack(
        [sum(features[c, y, x].abs() ** p for c in range(channels)) for y in range(height) for x in range(width)]
    )
    return {"l2": flat / (flat * flat).sum().sqrt(), "l1": flat / flat.sum(), "none": flat}[norm]


@pytest.mark.parametrize("norm", losses.MAP_NORMS)
@pytest.mark.parametrize("p", [1, 2, 4])
def test_attention_map__equals_loop(generator, p, norm):
    features = torch.randn(4, 3, 2, 5, generator=generator, dtype=torch.float64).requires_grad_()
    plain = torch.stack([plain_map(sample, p, norm) for sample in features])
    assert_same(losses.attention_map(features, p, norm), plain, [features])
    assert torch.autograd.gradcheck(lambda x: losses.attention_map(x, p, norm), (features,))


@pytest.mark.parametrize(("p", "expected"), [(1, [0.89443, 0.44721]), (4, [0.98149, 0.19151])])
def test_attention_map__values_worked_by_hand(p, expected):
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    torch.testing.assert_close(losses.attention_map(features, p), torch.tensor([expected]), atol=1e-5, rtol=0)


def test_attention_map__a_dead_layer_stays_zero_with_a_finite_gradient():
    features = torch.zeros(2, 3, 4, 4, requires_grad=True)
    maps = losses.attention_map(features.relu(), 1)
    (gradient,) = torch.autograd.grad(maps.sum(), features)
    assert maps.abs().sum() == 0 and gradient.isfinite().all()


def test_attention_map__l2_ignores_scale_per_sample(generator):
    features = torch.rand(3, 4, 5, 5, generator=generator)
    scaled = features * torch.tensor([0.5, 2.0, 10.0])[:, None, None, None]
    torch.testing.assert_close(losses.attention_map(features), losses.attention_map(scaled))


def test_attention_map__bf16_features_give_fp32_maps(generator):
    features = torch.rand(3, 128, 4, 4, generator=generator).bfloat16()
    maps = losses.attention_map(features)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, losses.attention_map(features.float()))


def test_in_lengths__both_sets_weigh_alike_in_the_unit(real, syn):
    r, s = losses.in_lengths(real.abs(), syn.abs())
    squares = sum(maps.square().sum(2).mean(1) for maps in (r, s)) / 2
    torch.testing.assert_close(squares, torch.ones(K, dtype=torch.float64))
    for k in range(K):
        ratios = torch.cat([(real[k].abs() / r[k]).flatten(), (syn[k].abs() / s[k]).flatten()])
        torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


def test_in_lengths__leaves_maps_of_length_one_and_of_a_dead_layer(generator):
    maps = losses.attention_map(torch.rand(4, 3, 5, 5, generator=generator))[None]
    torch.testing.assert_close(losses.in_lengths(maps, maps), (maps, maps))
    assert losses.in_lengths(0 * maps, 0 * maps)[1].abs().sum() == 0


@pytest.mark.parametrize("kind", losses.MAP_DISTANCES)
def test_attention_loss__equals_loop(real, syn, kind):
    values = []
    for r, s in zip(real, syn, strict=True):
        r, s = sum(r) / len(r), sum(s) / len(s)
        values.append(
            {
                "mse": sum((a - b) ** 2 for a, b in zip(r, s, strict=True)),
                "mae": sum(abs(a - b) for a, b in zip(r, s, strict=True)),
                "cosine": 1 - sum(r * s) / (sum(r * r).sqrt() * sum(s * s).sqrt()),
            }[kind]
        )
    assert_same(losses.attention_loss(real, syn, kind), torch.stack(values), [syn])
    assert torch.autograd.gradcheck(lambda x: losses.attention_loss(real, x, kind), (syn,))


@pytest.mark.parametrize("kind", losses.MAP_DISTANCES)
def test_attention_loss__zero_and_finite_for_equal_batches(real, kind):
    maps = real.abs()
    same = maps.clone().requires_grad_()
    value = losses.attention_loss(maps, same, kind)
    (gradient,) = torch.autograd.grad(value.sum(), same)
    torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-12, rtol=0)
    assert gradient.isfinite().all()


def test_attention_loss__whole_datadam_objective_equals_loop(generator):
    """L_SAM + lambda L_MMD over two layers, from raw feature maps, samples and classes one at a time
    (Sajedi et al. 2023)."""

    def layers(count):
        shapes = [(K, count, 4, 6, 6), (K, count, 5, 3, 3)]
        return [torch.randn(*shape, generator=generator, dtype=torch.float64).relu() for shape in shapes]

    real, syn = layers(B), [layer.requires_grad_() for layer in layers(M)]
    sam, mmd = 0, 0
    for r, s in zip(real, syn, strict=True):
        for k in range(K):
            means = [sum(plain_map(sample, 4, "l2") for sample in x[k]) / len(x[k]) for x in (r, s)]
            sam = sam + (means[0] - means[1]).square().sum()
    for k in range(K):
        mmd = mmd + (real[1][k].flatten(1).mean(0) - syn[1][k].flatten(1).mean(0)).square().sum()

    def maps(layer):
        return losses.attention_map(layer.flatten(0, 1)).unflatten(0, layer.shape[:2])

    total = sum(losses.attention_loss(maps(r), maps(s)).sum() for r, s in zip(real, syn, strict=True))
    total = total + 0.01 * losses.mean_discrepancy(real[1].flatten(2), syn[1].flatten(2)).sum()
    assert_same(total, sam + 0.01 * mmd, syn)


# Gradients

SHAPES = [(4, 3, 3, 3), (4,), (4, 5, 5), (2, 8), (2,)]
"""A convolution, its bias, a layer norm, a linear layer, its bias."""


def gradients(generator, requires_grad=False) -> list[Tensor]:
    drawn = [torch.randn(K, *shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    return [g.requires_grad_(requires_grad) for g in drawn]


def plain_gradient_distance(real: list[Tensor], syn: list[Tensor], kind: str) -> Tensor:
    values = []
    for k in range(K):
        r, s = [g[k] for g in real], [g[k] for g in syn]
        if kind == "dc":
            value = 0
            for a, b in zip(r, s, strict=True):
                if a.ndim == 4:
                    a, b = (x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]) for x in (a, b))
                elif a.ndim == 3:
                    a, b = (x.reshape(x.shape[0], x.shape[1] * x.shape[2]) for x in (a, b))
                elif a.ndim == 1:
                    continue
                for x, y in zip(a, b, strict=True):
                    value = value + 1 - sum(x * y) / (sum(x * x).sqrt() * sum(y * y).sqrt() + 1e-6)
        else:
            a, b = (torch.cat([x.reshape(-1) for x in side]) for side in (r, s))
            value = {
                "cos": 1 - (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt() + 1e-6),
                "mse": ((a - b) ** 2).sum(),
                "l1": (a - b).abs().sum(),
            }[kind]
        values.append(value)
    return torch.stack(values)


@pytest.mark.parametrize("kind", losses.GRADIENT_DISTANCES)
def test_gradient_distance__equals_loop(generator, kind):
    real, syn = gradients(generator), gradients(generator, requires_grad=True)
    value, plain = losses.gradient_distance(real, syn, kind), plain_gradient_distance(real, syn, kind)
    torch.testing.assert_close(value, plain)
    ours, theirs = (
        torch.autograd.grad(x.sum(), syn, allow_unused=True, materialize_grads=True) for x in (value, plain)
    )
    torch.testing.assert_close(ours, theirs)
    assert ours[0].abs().sum() > 0


def test_gradient_distance__dc_value_worked_by_hand():
    real, syn = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[1.0, 1.0], [0.0, 2.0]]])
    assert losses.gradient_distance([real], [syn]).item() == pytest.approx(0.29289, abs=1e-5)


def test_gradient_distance__dc_ignores_row_scale_and_biases_which_mse_counts(generator):
    real, syn = gradients(generator), gradients(generator)
    scaled = [3 * g if g.ndim > 2 else g for g in syn]
    shifted = [g if g.ndim > 2 else g + 100 for g in syn]
    value = losses.gradient_distance(real, syn)
    torch.testing.assert_close(losses.gradient_distance(real, scaled), value, atol=1e-5, rtol=0)
    torch.testing.assert_close(losses.gradient_distance(real, shifted), value)
    assert (losses.gradient_distance(real, shifted, "mse") > losses.gradient_distance(real, syn, "mse") + 1e4).all()


@pytest.mark.parametrize("kind", losses.GRADIENT_DISTANCES)
def test_gradient_distance__zero_for_equal_gradients(generator, kind):
    real = gradients(generator)
    value = losses.gradient_distance(real, [g.clone() for g in real], kind)
    torch.testing.assert_close(value, torch.zeros_like(value), atol=2e-5, rtol=0)  # dc, cos: the guard of 1e-6


@pytest.mark.parametrize("kind", losses.GRADIENT_DISTANCES)
def test_gradient_distance__finite_where_a_gradient_is_zero(generator, kind):
    real = gradients(generator)
    zero = [torch.zeros_like(g).requires_grad_() for g in real]
    value = losses.gradient_distance(real, zero, kind)
    found = torch.autograd.grad(value.sum(), zero, allow_unused=True, materialize_grads=True)
    assert value.isfinite().all() and all(g.isfinite().all() for g in found)
    if kind == "dc":  # every row counts 1
        torch.testing.assert_close(value, torch.full_like(value, 4 + 4 + 2))


def test_gradient_distance__trains_images_through_a_double_backward(generator):
    """DC's use of it on a small network: the gradient with respect to the images equals finite differences."""
    weight = torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    head = torch.randn(2, 4, generator=generator, dtype=torch.float64).requires_grad_()

    def gradient(images: Tensor) -> list[Tensor]:
        features = torch.nn.functional.conv2d(images, weight).tanh().mean((2, 3))
        loss = torch.nn.functional.cross_entropy(features @ head.T, torch.tensor([0, 1]))
        return [g[None] for g in torch.autograd.grad(loss, (weight, head), create_graph=True)]

    real = [g.detach() for g in gradient(torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64))]
    images = torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64).requires_grad_()
    for kind in ("dc", "cos", "mse"):
        assert torch.autograd.gradcheck(lambda x, kind=kind: losses.gradient_distance(real, gradient(x), kind), images)


def test_conv_gradients__are_what_idc_compares(generator):
    real, syn = gradients(generator), gradients(generator)
    assert {g.ndim for g in real} > {5, 4}  # those of a layer norm over (C, H, W), too
    value = losses.gradient_distance(losses.conv_gradients(real), losses.conv_gradients(syn), "mse")
    torch.testing.assert_close(value, (real[0] - syn[0]).square().sum((1, 2, 3, 4)))


# Trajectories and effects


def test_trajectory_loss__equals_loop(generator):
    student, start, target = (
        [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES] for _ in range(3)
    )
    student = [p.requires_grad_() for p in student]
    flat = [torch.cat([p.reshape(-1) for p in parameters]) for parameters in (student, start, target)]
    plain = sum((flat[0] - flat[2]) ** 2) / sum((flat[1] - flat[2]) ** 2)
    assert_same(losses.trajectory_loss(student, start, target), plain, student)
    assert losses.trajectory_loss(target, start, target).item() == 0
    assert losses.trajectory_loss(start, start, target).item() == 1
    assert losses.trajectory_loss([flat[0]], [flat[1]], [flat[2]]).item() == pytest.approx(plain.item())


def test_effect_alignment__equals_loop_and_takes_one_absolute_value(generator):
    real = torch.randn(6, generator=generator, dtype=torch.float64)
    syn = torch.randn(6, generator=generator, dtype=torch.float64).requires_grad_()
    for coefficient in (1.0, -4998.0):
        plain = abs(sum(coefficient * r - s for r, s in zip(real, syn, strict=True)))
        assert_same(losses.effect_alignment(real, syn, coefficient), plain, [syn])
    cancelling = torch.tensor([1.0, -1.0])
    assert losses.effect_alignment(torch.zeros(2), cancelling).item() == 0


@pytest.mark.parametrize("mode", losses.EFFECT_COEFFICIENTS)
def test_effect_alignment__zero_for_equal_batches_only_with_coefficient_one(generator, mode):
    """Mean gradients of two identical batches: the effect of replacing one by the other is nothing."""
    products = 1 + torch.rand(5, generator=generator)
    coefficient = losses.effect_coefficient(mode, sizes=(50000, 10), batches=(256, 64))
    assert (losses.effect_alignment(products, products, coefficient).item() == 0) == (coefficient == 1)
    assert (coefficient == 1) == (mode == "one")


def test_effect_coefficient__values_worked_by_hand():
    assert losses.effect_coefficient("one", (50000, 10), (256, 10)) == 1
    assert losses.effect_coefficient("literal", (50000, 10), (256, 10)) == -4998
    assert losses.effect_coefficient("minibatch", (50000, 10), (64, 64)) == 1
    assert losses.effect_coefficient("minibatch", (50000, 10), (256, 64)) == -2


# CAFE


def test_layer_discrepancy__equals_loop(generator):
    def layers(count):
        shapes = [(K, count, 4, 6, 6), (K, count, 5, 3, 3), (K, count, D)]
        return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]

    real, syn, weights = layers(B), [layer.requires_grad_() for layer in layers(M)], (0.1, 1.0, 0.5)
    plain = torch.stack(
        [
            sum(w * ((sum(r[k]) / B - sum(s[k]) / M) ** 2).sum() for r, s, w in zip(real, syn, weights, strict=True))
            for k in range(K)
        ]
    )
    assert_same(losses.layer_discrepancy(real, syn, weights), plain, syn)
    assert losses.layer_discrepancy(real, real, weights).abs().sum() == 0


def test_discrimination_loss__equals_loop(real, syn):
    means = [sum(s) / M for s in syn]
    values = []
    for k in range(K):
        value = 0
        for x in real[k]:
            logits = [sum(x * mean) for mean in means]
            value = value - logits[k] + torch.log(sum(torch.exp(logit) for logit in logits))
        values.append(value)
    assert_same(losses.discrimination_loss(real, syn), torch.stack(values), [syn])
    assert torch.autograd.gradcheck(lambda x: losses.discrimination_loss(real, x), (syn,))


def test_discrimination_loss__matching_means_classify_best():
    real = 5 * torch.eye(3)[:, None].expand(3, 4, 3)
    assert losses.discrimination_loss(real, real).sum() < 1e-3
    assert losses.discrimination_loss(real, real.roll(1, 0)).sum() > 100


# Mistakes

FEATURES = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.kernel_mmd(FEATURES, torch.zeros(2, 3, 5)), "agree in classes and width"),
        (lambda: losses.kernel_mmd(FEATURES, torch.zeros(1, 3, 4)), "agree in classes and width"),
        (lambda: losses.kernel_mmd(FEATURES, FEATURES[0]), "must be (K, N, D)"),
        (lambda: losses.kernel_mmd(FEATURES, FEATURES[:, :0]), "with N >= 1"),
        (lambda: losses.kernel_mmd(FEATURES, FEATURES, "gausian"), "did you mean 'gaussian'"),
        (lambda: losses.moment_discrepancy(FEATURES, FEATURES, 0), "order must be >= 1, got 0"),
        (lambda: losses.moment_discrepancy(FEATURES, FEATURES[:1], 2), "agree in classes and width"),
        (lambda: losses.attention_map(FEATURES), "features must be (N, C, H, W)"),
        (lambda: losses.attention_map(FEATURES[None], 0.5), "p must be >= 1, got 0.5"),
        (lambda: losses.attention_map(FEATURES[None], 1, "l3"), "unknown attention norm 'l3'"),
        (lambda: losses.attention_loss(FEATURES, FEATURES[:1]), "attention maps must agree"),
        (lambda: losses.attention_loss(FEATURES, FEATURES, "msee"), "did you mean 'mse'"),
        (lambda: losses.gradient_distance([FEATURES], []), "agree in number and shapes"),
        (lambda: losses.gradient_distance([FEATURES], [FEATURES[:1]]), "agree in number and shapes"),
        (lambda: losses.gradient_distance([], []), "no gradients to compare"),
        (lambda: losses.gradient_distance([FEATURES[0]], [FEATURES[0]]), "two or more dimensions"),
        (lambda: losses.gradient_distance([FEATURES], [FEATURES], "dcc"), "did you mean 'dc'"),
        (lambda: losses.trajectory_loss([FEATURES], [FEATURES], [FEATURES[0]]), "agree in number and shapes"),
        (lambda: losses.trajectory_loss([], [], []), "agree in number and shapes"),
        (lambda: losses.effect_alignment(torch.zeros(2), torch.zeros(3)), "(T,) with T >= 1"),
        (lambda: losses.effect_alignment(torch.zeros(0), torch.zeros(0)), "(T,) with T >= 1"),
        (lambda: losses.effect_coefficient("once", (2, 1), (2, 1)), "unknown effect coefficient 'once'"),
        (lambda: losses.effect_coefficient("literal", (2, 0), (2, 1)), "must be >= 1"),
        (lambda: losses.layer_discrepancy([FEATURES], [FEATURES], [1.0, 1.0]), "one entry per layer"),
        (lambda: losses.layer_discrepancy([], [], []), "one entry per layer"),
        (lambda: losses.discrimination_loss(FEATURES, FEATURES[:, :, :2]), "agree in classes and width"),
    ],
)
def test_losses__say_what_was_wrong(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value)
