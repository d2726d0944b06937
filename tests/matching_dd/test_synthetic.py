"""The learnable set: where it starts, how it is decoded, clamped and written."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from core_dd.data.preprocess import Preprocess
from core_dd.errors import InputError
from core_dd.judge.choose import choose
from core_dd.sets.factor import decode
from core_dd.sets.subset import k_center, medoids
from matching_dd.optim import PerClassSGD
from matching_dd.synthetic import INITS, SPACES, Synthetic, initial_images


@pytest.fixture
def preprocess(digits):
    return Preprocess.fit(digits)


def start(digits, preprocess, init="real", ipc=2, factor=1) -> Tensor:
    return initial_images(init, digits, ipc, preprocess, 3, factor)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("factor", "decode"), [(1, "single"), (2, "single"), (3, "single"), (3, "multi")])
def test_decoded__is_what_the_written_set_decodes_to(digits, preprocess, space, factor, decode):
    shown = {"factor": factor, "decode": decode}
    synthetic = Synthetic(start(digits, preprocess, factor=factor), preprocess, **shown, space=space)
    dset = synthetic.to_distilled({"method": "x"})
    images, labels = dset.decoded()
    assert dset.images.shape == (20, 1, 8, 8) and {name: dset.meta[name] for name in shown} == shown
    for k in range(10):
        ours = synthetic.decoded(range(k, k + 1))[0]
        torch.testing.assert_close(ours, preprocess.forward(images[labels == k]), atol=1e-5, rtol=1e-5)


def test_bound__is_for_the_matching_and_the_judge_sees_every_tile(digits, preprocess):
    synthetic = Synthetic(start(digits, preprocess, factor=2), preprocess, factor=2, decode="bound", most=6)
    assert synthetic.decoded(range(3)).shape == (3, 5, 1, 8, 8)
    assert synthetic.sources.tolist() == [0, 0, 0, 0, 1]
    dset = synthetic.to_distilled({})
    assert dset.meta["decode"] == "single" and len(dset.decoded()[0]) == 80


@pytest.mark.parametrize("kind", ["mean_std", "zca"])
def test_decoded__happens_in_pixels_whatever_the_training_space(digits, kind, generator):
    """A judge decodes pixels and then preprocesses; whitening and enlarging do not commute."""
    preprocess = Preprocess.fit(digits, kind)
    pixels = torch.rand(10, 1, *digits.shape, generator=generator)
    synthetic = Synthetic(preprocess.forward(pixels), preprocess, factor=3)
    expected = preprocess.forward(decode(pixels, 3))
    torch.testing.assert_close(synthetic.decoded(range(10)), expected, atol=1e-3, rtol=1e-3)
    synthetic.decoded(range(10)).sum().backward()
    assert synthetic.images.grad.abs().max() > 0


def test_state__carries_soft_labels_and_learning_rate(digits, preprocess):
    first, second = (Synthetic(start(digits, preprocess), preprocess) for _ in range(2))
    first.labels, first.lr = torch.rand(20, 10, requires_grad=True), torch.tensor(0.03, requires_grad=True)
    second.labels, second.lr = torch.zeros(20, 10, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    second.load_state(first.state())
    dset = second.to_distilled({})
    assert torch.equal(dset.labels, first.labels.detach()) and dset.meta["lr"] == pytest.approx(0.03)
    assert Synthetic(start(digits, preprocess), preprocess).to_distilled({}).meta["lr"] is None
    with pytest.raises(ValueError, match=r"images has shape \(1, "):  # not one class's images for all
        second.load_state(first.state() | {"images": first.images.detach()[:1]})


@pytest.mark.parametrize("space", SPACES)
def test_clamp__brings_pixels_to_their_range(digits, preprocess, space):
    synthetic = Synthetic(start(digits, preprocess, "noise"), preprocess, space=space)
    before = synthetic.pixels().detach().clone()
    synthetic.clamp_()
    torch.testing.assert_close(synthetic.pixels(), before.clamp(0, 1), atol=1e-6, rtol=0)
    assert before.min() < 0 < 1 < before.max()


@pytest.mark.parametrize("init", INITS)
def test_initial_images__shape_and_repeatability(digits, preprocess, init):
    first, again = (start(digits, preprocess, init, factor=2) for _ in range(2))
    assert first.shape == (10, 2, 1, 8, 8) and torch.equal(first, again)


def test_noise_pixels__is_grey_and_in_range(digits, preprocess):
    pixels = preprocess.inverse(start(digits, preprocess, "noise_pixels", ipc=50))
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6
    assert abs(pixels.mean() - 0.5) < 0.01 and 0.22 < pixels.std() < 0.25


def test_mix__tiles_are_real_images_shrunk(digits, preprocess):
    """Nearest neighbour by 2 keeps every other pixel; every tile comes from a real image of its class, none twice."""
    pixels = preprocess.inverse(start(digits, preprocess, "mix", ipc=3, factor=2)).mul(255).round()
    chosen = digits.train_images[choose("random", digits, 12, 3)].float()[..., ::2, ::2]
    for k in range(10):
        tiles = [pixels[k, :, :, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)]
        found = sorted(torch.cat(tiles).flatten(1).tolist())
        assert found == sorted(chosen[k].flatten(1).tolist())


@pytest.mark.parametrize(("init", "choose"), [("medoids", lambda own, n: medoids(own, n, 3)), ("k_center", k_center)])
def test_chosen_images__fill_the_tiles(digits, preprocess, init, choose):
    """Four of them whole in an image, none a quarter of one."""
    pixels = preprocess.inverse(start(digits, preprocess, init, ipc=2, factor=2)).mul(255).round()
    for k, members in enumerate(digits.class_indices()):
        own = digits.train_images[members]
        expected = own[choose(preprocess.forward(own).flatten(1), 8)].float()[..., ::2, ::2]
        tiles = torch.cat([pixels[k, :, :, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)])
        assert sorted(tiles.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())


def test_centroids__of_one_image_per_class_are_the_mean_images(digits, preprocess):
    pixels = preprocess.inverse(start(digits, preprocess, "centroids", ipc=1))
    for k, members in enumerate(digits.class_indices()):
        expected = digits.train_images[members].float().mean(0, keepdim=True) / 255
        torch.testing.assert_close(pixels[k], expected, atol=1e-5, rtol=0)


def test_centroids__fill_the_tiles_with_means_of_clusters(digits, preprocess):
    whole, tiled = (start(digits, preprocess, "centroids", ipc, factor) for ipc, factor in ((4, 1), (1, 2)))
    for k in range(10):
        tiles = torch.cat([tiled[k, :, :, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)])
        torch.testing.assert_close(tiles, whole[k, ..., ::2, ::2], atol=1e-5, rtol=0)
    spread = [images.float().var((1, 2, 3, 4)).mean() for images in (whole, start(digits, preprocess, "medoids", 4))]
    assert spread[0] < spread[1]  # means of many are smoother than any of them


@pytest.mark.parametrize("factor", [1, 2])
def test_mix_first__is_the_first_images_of_each_class(digits, preprocess, factor):
    pixels = preprocess.inverse(start(digits, preprocess, "mix_first", ipc=3, factor=factor)).mul(255).round()
    for k, members in enumerate(digits.class_indices()):
        expected = digits.train_images[members[: 3 * factor**2]].float()[..., ::factor, ::factor]
        corners = [(i, j) for i in range(0, 8, 8 // factor) for j in range(0, 8, 8 // factor)]
        tiles = torch.cat([pixels[k, :, :, i : i + 8 // factor, j : j + 8 // factor] for i, j in corners])
        assert sorted(tiles.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())


def test_mix_bilinear__tiles_are_block_means(digits, preprocess):
    pixels = preprocess.inverse(start(digits, preprocess, "mix_bilinear", ipc=1, factor=2))
    chosen = digits.train_images[choose("random", digits, 4, 3)].float() / 255
    means = (chosen[..., ::2, ::2] + chosen[..., 1::2, ::2] + chosen[..., ::2, 1::2] + chosen[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(pixels[:, 0, :, :4, :4], means[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels[:, 0, :, :4, 4:], means[:, 1], atol=1e-5, rtol=0)


def test_mix__without_factor_is_real(digits, preprocess):
    torch.testing.assert_close(start(digits, preprocess, "mix"), start(digits, preprocess, "real"))


def test_k_center__starts_at_the_middle_and_spreads(digits, preprocess):
    chosen = start(digits, preprocess, "k_center", ipc=5)
    for k, members in enumerate(digits.class_indices()):
        own = preprocess.forward(digits.train_images[members]).flatten(1)
        nearest = own[(own - own.mean(0)).square().sum(1).argmin()]
        assert torch.equal(chosen[k, 0].flatten(), nearest)
        radii = [torch.cdist(own, chosen[k, :n].flatten(1)).amin(1).max() for n in range(1, 6)]
        assert all(smaller <= larger for larger, smaller in pairwise(radii)) and radii[-1] < radii[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "k_center", "ipc": 141}, "digits has 140 training images of class 8"),
        ({"init": "mix", "ipc": 36, "factor": 2}, r"takes ipc x factor\^2 = 144 real images .* has 140"),
        ({"factor": 5}, "factor 5 does not fit images of 8x8"),
        ({"init": "mixed"}, "unknown init 'mixed'; did you mean 'mix'"),
    ],
)
def test_initial_images__rejects(digits, preprocess, options, message):
    with pytest.raises(InputError, match=message):
        start(digits, preprocess, **options)


def test_per_class_sgd__known_displacement():
    """Unit gradients, 3 classes, lr 1, momentum 0.5: displacement after one sweep 1.75, 1.5, 1 (Kim et al. 2022)."""
    images = torch.zeros(3, 2, requires_grad=True)
    optimizer = PerClassSGD(images, lr=1.0, momentum=0.5)
    optimizer.approach()
    images.grad = torch.ones(3, 2)
    optimizer.step()
    assert images.detach()[:, 0].tolist() == [-1.75, -1.5, -1.0]


def test_per_class_sgd__equals_a_step_per_class(generator):
    """Against torch's SGD stepped on one class at a time, on a loss whose gradient moves with the images."""
    weight = torch.rand(4, 3, generator=generator)
    begin = torch.randn(4, 3, generator=generator)
    ours, plain = (begin.clone().requires_grad_() for _ in range(2))
    sweep, single = PerClassSGD(ours, 0.3, 0.5), torch.optim.SGD([plain], lr=0.3, momentum=0.5)
    for _ in range(5):
        sweep.approach()
        sweep.zero_grad()
        (weight * ours.square()).sum().backward()
        sweep.step()
        for k in range(4):
            single.zero_grad()
            (weight[k] * plain[k].square()).sum().backward()
            single.step()
        torch.testing.assert_close(ours, plain)
