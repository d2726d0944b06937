"""Augmentations: each operation against its definition written out, siamese sharing, independence of batch size."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F

from core_dd.errors import InputError
from core_dd.judge import augment
from core_dd.judge.augment import (
    DSA_OPS,
    STRATEGY,
    CropAugment,
    DCAugment,
    DSAugment,
    IDCAugment,
    PolicyAugment,
    cutmix,
    spline_rotate,
    strategy_for,
)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def uniforms(count, columns, generator):
    return torch.rand(count, columns, generator=generator)


def test_color__equals_its_formula_per_image(generator):
    x, u = torch.randn(4, 3, 6, 6, generator=generator), uniforms(4, 3, generator)
    for image, (b, s, c), out in zip(x, u, augment.color(x, u), strict=True):
        image = image + (b - 0.5)
        grey = image.mean(0)
        image = (image - grey) * 2 * s + grey
        torch.testing.assert_close(out, (image - image.mean()) * (c + 0.5) + image.mean())


def test_color__saturation_leaves_one_channel_alone(generator):
    x = torch.randn(3, 1, 5, 5, generator=generator)
    low, high = torch.tensor([[0.5, 0.0, 0.5]]).expand(3, 3), torch.tensor([[0.5, 0.9, 0.5]]).expand(3, 3)
    torch.testing.assert_close(augment.color(x, low), x)
    torch.testing.assert_close(augment.color(x, high), x)


@pytest.mark.parametrize(("size", "reach"), [(32, 4), (28, 4), (64, 8), (8, 1)])
def test_crop__shifts_by_up_to_an_eighth_with_zeros_outside(size, reach, generator):
    x, u = torch.rand(300, 2, size, size, generator=generator) + 1, uniforms(300, 2, generator)
    out, seen = augment.crop(x, u), set()
    padded = F.pad(x, (reach,) * 4)
    for n in range(len(x)):
        ty, tx = (int(v * (2 * reach + 1)) for v in u[n])
        assert torch.equal(out[n], padded[n, :, ty : ty + size, tx : tx + size])
        seen |= {ty - reach, tx - reach}
    assert seen == set(range(-reach, reach + 1))


@pytest.mark.parametrize(("size", "smallest", "largest"), [(32, 8, 16), (28, 7, 14)])
def test_cutout__square_of_half_the_side_clipped_to_the_image(size, smallest, largest, generator):
    out = augment.cutout(torch.ones(2000, 1, size, size), uniforms(2000, 2, generator))[:, 0]
    rows, cols = (out == 0).any(2).sum(1), (out == 0).any(1).sum(1)
    assert rows.min() == cols.min() == smallest and rows.max() == cols.max() == largest
    assert torch.equal((out == 0).sum((1, 2)), rows * cols)
    if size == 32:
        assert (rows * cols).float().mean() == pytest.approx(190, abs=4)


def test_cutout__odd_square():
    out = augment.cutout(torch.ones(1, 1, 5, 5), torch.tensor([[0.5, 0.0]]))[0, 0]  # side 3, centre row 2, col 0
    assert torch.equal((out == 0).nonzero(), torch.tensor([[i, j] for i in (1, 2, 3) for j in (0, 1)]))


def test_flip__mirrors_half(generator):
    x, u = torch.randn(100, 2, 4, 4, generator=generator), uniforms(100, 1, generator)
    out = augment.flip(x, u)
    assert torch.equal(out[u[:, 0] < 0.5], x[u[:, 0] < 0.5].flip(3))
    assert torch.equal(out[u[:, 0] >= 0.5], x[u[:, 0] >= 0.5])


def bilinear(image, y, x):
    """Sample (C, H, W) at pixel coordinates, zeros outside."""
    total = torch.zeros(image.shape[0])
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < image.shape[1] and 0 <= j < image.shape[2]:
                total += image[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


@pytest.mark.parametrize("name", ["scale", "rotate"])
def test_affine__samples_bilinearly_at_the_matrix_times_normalised_coordinates(name, generator):
    operation, columns = DSA_OPS[name]
    x, u = torch.randn(3, 2, 6, 6, generator=generator), uniforms(3, columns.stop - columns.start, generator)
    out = operation(x, u)
    for n in range(3):
        if name == "scale":
            sx, sy = (1 / 1.2 + float(v) * (1.2 - 1 / 1.2) for v in u[n])
            matrix = [[sx, 0], [0, sy]]
        else:
            angle = math.radians(-15 + 30 * float(u[n, 0]))
            matrix = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        for i in range(6):
            for j in range(6):
                nx, ny = (2 * j + 1) / 6 - 1, (2 * i + 1) / 6 - 1
                sx, sy = (row[0] * nx + row[1] * ny for row in matrix)
                expected = bilinear(x[n], ((sy + 1) * 6 - 1) / 2, ((sx + 1) * 6 - 1) / 2)
                torch.testing.assert_close(out[n, :, i, j], expected, atol=1e-5, rtol=1e-4)


def test_siamese__same_transform_for_any_batch_size(generator):
    image = torch.randn(2, 1, 3, 32, 32, generator=generator)
    for seed in range(20):
        few, many = DSAugment().siamese(
            image.expand(-1, 5, -1, -1, -1), image.expand(-1, 300, -1, -1, -1), generators(seed, 99)
        )
        assert torch.equal(few[:, :1].expand_as(few), few)
        assert torch.equal(few[:, :1].expand_as(many), many)


def test_siamese__each_class_its_own_transform_whatever_the_others(generator):
    x = torch.randn(1, 2, 3, 16, 16, generator=generator).expand(12, -1, -1, -1, -1)
    together, _ = DSAugment().siamese(x, x, generators(*range(12)))
    for k in range(12):
        alone, _ = DSAugment().siamese(x[:1], x[:1], generators(k))
        torch.testing.assert_close(together[k], alone[0])
    assert len({row.sum().item() for row in together}) > 6


def test_siamese__reaches_the_synthetic_images_gradient(generator):
    real, syn = torch.randn(6, 4, 1, 8, 8, generator=generator), torch.randn(6, 2, 1, 8, 8, generator=generator)
    syn = syn.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: DSAugment(mode="M").siamese(real.double(), s, generators(*range(6)))[1], syn, fast_mode=True
    )


def test_per_image__one_operation_per_group_parameters_per_image(generator):
    x = torch.randn(1, 1, 3, 16, 16, generator=generator).expand(1, 50, -1, -1, -1)
    kinds = set()
    for seed in range(40):
        out = DSAugment().per_image(x, generators(seed))[0]
        operations, u = DSAugment()._draw(50, generators(seed))
        operation, columns = DSA_OPS[operations[0][0]]
        assert torch.equal(out, operation(x[0], u[0][:, columns]))
        assert not torch.equal(out[:1].expand_as(out), out)
        kinds.add(operations[0][0])
    assert kinds == set(STRATEGY.split("_"))


def test_per_image__mode_m_applies_all_in_order(generator):
    x = torch.randn(2, 5, 3, 16, 16, generator=generator)
    out = DSAugment("flip_cutout_color", mode="M").per_image(x, generators(1, 2))
    for g in range(2):
        own = generators(g + 1)[0]
        u, expected = torch.rand(5, augment.DSA_DRAWS, generator=own), x[g]
        for name in ("flip", "cutout", "color"):
            operation, columns = DSA_OPS[name]
            expected = operation(expected, u[:, columns])
        torch.testing.assert_close(out[g], expected)


def test_strategy_for__no_flip_where_a_mirror_image_changes_the_label(digits):
    assert strategy_for(digits) == "color_crop_cutout_scale_rotate"


@pytest.mark.parametrize(
    ("options", "message"), [(("colour",), "unknown DSA operation 'colour'"), (("crop", "L"), "mode")]
)
def test_dsa__refuses(options, message):
    with pytest.raises(InputError, match=message):
        DSAugment(*options)


def test_dsa__refuses_too_few_generators(generator):
    with pytest.raises(InputError, match="2 groups, 1 generators"):
        DSAugment().per_image(torch.zeros(2, 1, 1, 8, 8), [generator])


@pytest.mark.parametrize("size", [8, 9, 28])
def test_spline_rotate__equals_scipy(size, generator):
    x, degrees = torch.randn(90, 2, size, size, generator=generator), torch.arange(-45, 45)
    out = spline_rotate(x, degrees, torch.tensor(0.3))
    for image, angle, ours in zip(x.numpy(), degrees.tolist(), out.numpy(), strict=True):
        turned = scipy.ndimage.rotate(image, angle=angle, axes=(-2, -1), cval=0.3)
        top, left = (int((side - size) / 2) for side in turned.shape[-2:])
        np.testing.assert_allclose(ours, turned[:, top : top + size, left : left + size], atol=1e-5)


@pytest.mark.parametrize("u", [(0.0, 0.999), (0.5, 0.5), (0.999, 0.2)])
def test_dc_scale__equals_resizing_onto_a_canvas(u, generator):
    x = torch.randn(1, 2, 28, 28, generator=generator)
    out = augment.dc_scale(x, torch.tensor([u]), x.mean(), generator)
    h, w = (int(28 * (0.8 + 0.4 * v)) for v in u)
    side = max(h, w, 28)
    canvas = torch.zeros(2, side, side)
    top, left, cut = (side - h) // 2, (side - w) // 2, (side - 28) // 2
    canvas[:, top : top + h, left : left + w] = F.interpolate(x, (h, w))[0]
    assert torch.equal(out[0], canvas[:, cut : cut + 28, cut : cut + 28])


def test_dc_crop__offsets_0_to_7_of_a_bordered_image(generator):
    x, u = torch.randn(200, 1, 8, 8, generator=generator), uniforms(200, 2, generator)
    out, seen = augment.dc_crop(x, u, torch.full((1, 1, 1, 1), 7.0), generator), set()
    padded = F.pad(x, (4,) * 4, value=7.0)
    for n in range(len(x)):
        r, c = (int(v * 8) for v in u[n])
        assert torch.equal(out[n], padded[n, :, r : r + 8, c : c + 8])
        seen |= {r, c}
    assert seen == set(range(8))


def test_dc_augment__one_operation_per_image_filled_with_the_groups_mean(generator):
    x = torch.randn(2, 600, 1, 8, 8, generator=generator) + torch.tensor([0.0, 50.0]).reshape(2, 1, 1, 1, 1)
    out = DCAugment("crop_noise").per_image(x, generators(1, 2))
    assert torch.equal(out[1], DCAugment("crop_noise").per_image(x[1:], generators(2))[0])
    noisy = (out - x).abs().amax((2, 3, 4)) < 0.01
    assert (out - x)[noisy].std().item() == pytest.approx(0.001, rel=0.05)
    assert noisy.float().mean().item() == pytest.approx(0.5, abs=0.06)
    shifted = out[1][~noisy[1]]
    assert (shifted - x[1].mean()).abs().min() < 1e-4  # the border
    assert shifted.min() > 40  # and no zeros


def test_dc_augment__refuses_unknown_operations():
    with pytest.raises(InputError, match="unknown DC augmentation 'crops'; did you mean 'crop'"):
        DCAugment("crops")


def test_idc__flip_and_color_always_then_one_of_the_rest_then_cutout(generator):
    chosen = [IDCAugment("color_crop_cutout_flip_scale_rotate")._chosen(generator) for _ in range(60)]
    assert {tuple(names) for names in chosen} == {
        ("flip", "color", one, "cutout") for one in ("crop", "scale", "rotate")
    }
    assert IDCAugment("color")._chosen(generator) == ["color"]


def test_cutmix__mixes_labels_by_the_area_it_pastes(generator):
    """Images that are constant in the colour of their label: a pixel says where it came from."""
    y = torch.eye(8)[None]
    x = torch.arange(8.0).reshape(1, 8, 1, 1, 1).expand(1, 8, 1, 10, 12)
    areas = []
    for seed in range(40):
        mixed, labels = cutmix(x, y, 1.0, generators(seed))
        for i in range(8):
            shares = torch.bincount(mixed[0, i].long().flatten(), minlength=8) / 120
            torch.testing.assert_close(labels[0, i], shares)
        areas.append(1 - labels[0].diagonal().min().item())
    assert min(areas) < 0.2 and max(areas) > 0.6
    assert torch.equal(x[0, 3], torch.full((1, 10, 12), 3.0))  # the images given are left alone


def test_cutmix__happens_with_its_probability_and_per_group(generator):
    x, y = torch.randn(2, 6, 1, 8, 8, generator=generator), torch.eye(6).expand(2, 6, 6)
    mixed = [not torch.equal(cutmix(x[:1], y[:1], 0.5, generators(seed))[1], y[:1]) for seed in range(200)]
    assert 0.3 < sum(mixed) / 200 < 0.6  # a box may also be empty, or the partner the image itself
    both, alone = cutmix(x, y, 1.0, generators(1, 2)), cutmix(x[1:], y[1:], 1.0, generators(2))
    assert torch.equal(both[0][1], alone[0][0]) and torch.equal(both[1][1], alone[1][0])


def test_crop_augment__is_the_resized_window(generator):
    """Against a crop by whole pixels, interpolated: area 1/4 of a square, in the middle."""
    x = torch.rand(2, 3, 1, 8, 8, generator=generator)
    whole = CropAugment(flips=False, least=1.0, stretch=1.0).per_image(x, generators(0, 1))
    torch.testing.assert_close(whole, x)
    mirrored = CropAugment(least=1.0, stretch=1.0).per_image(x.expand(2, 3, 1, 8, 8), generators(0, 5)).flatten(0, 1)
    assert {torch.allclose(own, old) for own, old in zip(mirrored, x.flatten(0, 1), strict=True)} == {True, False}

    ramp = torch.arange(64.0).expand(1, 200, 1, 64, 64)  # what is at a place says where the window lies
    cut = CropAugment(flips=False, least=0.25).per_image(ramp, generators(3))[0, :, 0]
    torch.testing.assert_close(cut, cut[:, :1].expand_as(cut))  # no turning
    left, right = cut[:, 0, 0], cut[:, 0, -1]
    assert left.min() >= 0 and right.max() <= 63 and (left < right).all()
    widths = (right - left) / 63
    assert 0.43 < widths.min() < 0.5 and 0.95 < widths.max() <= 1 + 1e-6  # (1/4 * 3/4)^(1/2) to 1
    assert left.std() > 5 and right.std() > 5


def test_crop_augment__depends_on_its_own_generator_only(generator):
    x = torch.rand(1, 4, 3, 8, 8, generator=generator).expand(3, -1, -1, -1, -1)
    together = CropAugment().per_image(x, generators(1, 2, 1))
    assert together[0].equal(together[2]) and not together[0].equal(together[1])
    torch.testing.assert_close(CropAugment().per_image(x[:1], generators(2))[0], together[1])


@pytest.mark.parametrize("policy", ["randaugment", "cifar10", "svhn", "imagenet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_policy_augment__is_torchvisions_on_bytes(policy, channels, generator):
    from torchvision.transforms import AutoAugmentPolicy, v2

    plain = v2.RandAugment() if policy == "randaugment" else v2.AutoAugment(AutoAugmentPolicy(policy))
    x = torch.rand(6, 4, channels, 8, 8, generator=generator) * 1.2 - 0.1
    before = torch.get_rng_state()
    found = PolicyAugment(policy).per_image(x, generators(*range(6)))
    assert torch.get_rng_state().equal(before) and found.dtype == torch.uint8 and found.shape == x.shape
    images = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    for own, images_of_group, generator_of_group in zip(found, images, generators(*range(6)), strict=True):
        with augment.drawn_by(generator_of_group):
            assert own.equal(plain(images_of_group))
    assert any(not own.equal(old) for own, old in zip(found, images, strict=True))
    assert found.equal(PolicyAugment(policy).per_image(images, generators(*range(6))))
