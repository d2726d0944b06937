from dataclasses import replace

import numpy as np
import pytest
import torch

from core_dd.data.images import ImageData, load_data
from core_dd.data.preprocess import Preprocess
from core_dd.errors import InputError


@pytest.fixture
def colour(digits) -> ImageData:
    """The digits as images of three channels, with constants of their own."""
    train, test = (images.repeat(1, 3, 1, 1) for images in (digits.train_images, digits.test_images))
    return replace(digits, train_images=train, test_images=test, mean=torch.full((3,), 0.3), std=torch.full((3,), 0.4))


def test_forward__training_pixels_become_standard(digits):
    x = Preprocess.fit(digits).forward(digits.train_images)
    assert abs(x.mean()) < 2e-3 and abs(x.std() - 1) < 2e-3


def test_inverse__undoes_forward(digits):
    preprocess, pixels = Preprocess.fit(digits), digits.train_images[:50] / 255
    assert torch.allclose(preprocess.inverse(preprocess.forward(pixels)), pixels, atol=1e-6)


def test_forward__uint8_is_the_same_as_its_fraction(digits):
    preprocess, images = Preprocess.fit(digits), digits.train_images[:50]
    assert torch.equal(preprocess.forward(images), preprocess.forward(images.float() / 255))


def test_meta__round_trip(digits):
    preprocess = Preprocess.fit(digits)
    again = Preprocess.from_meta(*preprocess.to_meta())
    assert again.kind == "mean_std"
    assert torch.equal(again.tensors["mean"], digits.mean) and torch.equal(again.tensors["std"], digits.std)


def test_forward__broadcasts_over_leading_dimensions(digits):
    preprocess, images = Preprocess.fit(digits), digits.train_images[:6]
    assert torch.equal(preprocess.forward(images.view(2, 3, 1, 8, 8)).view(6, 1, 8, 8), preprocess.forward(images))


def test_cifar10_mean_std__has_cifar10s_constants_for_any_colour_images(colour):
    """Facts D6, CIFAR-100 (b)."""
    preprocess, pixels = Preprocess.fit(colour, "cifar10_mean_std"), colour.train_images[:5] / 255
    x = preprocess.forward(pixels)
    for channel, (mean, std) in enumerate([(0.4914, 0.2023), (0.4822, 0.1994), (0.4465, 0.2010)]):
        assert torch.allclose(x[:, channel], (pixels[:, channel] - mean) / std)
    assert torch.allclose(preprocess.inverse(x), pixels, atol=1e-6)


def test_pixel_mean_std__is_that_of_the_pixels_whatever_the_datas_constants(colour):
    data = replace(colour, train_images=torch.stack([colour.train_images[:, 0] // k for k in (1, 2, 3)], 1))
    fitted = Preprocess.fit(data, "pixel_mean_std")
    pixels = data.train_images.numpy() / 255
    assert np.allclose(fitted.tensors["mean"], pixels.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(fitted.tensors["std"], pixels.std((0, 2, 3)), atol=1e-6)
    assert torch.allclose(fitted.inverse(fitted.forward(data.test_images)) * 255, data.test_images.float(), atol=1e-3)


def test_cifar10_mean_std__round_trip(colour):
    fitted = Preprocess.fit(colour, "cifar10_mean_std")
    again = Preprocess.from_meta(*fitted.to_meta())
    assert again.to("cpu").kind == "cifar10_mean_std"
    assert torch.equal(again.forward(colour.test_images), fitted.forward(colour.test_images))


def test_cifar10_mean_std__refuses_grey_images(digits):
    with pytest.raises(InputError, match="is for images of 3 channels, and those of digits have 1. Use mean_std"):
        Preprocess.fit(digits, "cifar10_mean_std")


def test_zca__equals_its_formula(digits):
    """x_w = (x - mu) U (S + 0.1)^(-1/2) U^T with the covariance over N - 1, in float64."""
    x = digits.train_images.flatten(1).double() / 255
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / (len(x) - 1))
    expected = (x - mean) @ vectors @ torch.diag((values + 0.1) ** -0.5) @ vectors.T
    whitened = Preprocess.fit(digits, "zca").forward(digits.train_images)
    assert torch.allclose(whitened.flatten(1), expected.float(), atol=1e-4)


def test_zca__is_fitted_on_the_training_images_in_use(digits):
    """Two choices of as many images have one fingerprint, and a map each; the second fit of a choice is the first."""
    a, b, again = (load_data("digits", limit_per_class=20, seed=seed) for seed in (0, 1, 0))
    assert a.fingerprint == b.fingerprint and len(a.train_labels) == len(b.train_labels)
    fits = [Preprocess.fit(data, "zca").tensors for data in (a, b, again)]
    for data, tensors in zip((a, b), fits, strict=False):
        torch.testing.assert_close(tensors["mean"], (data.train_images / 255).flatten(1).mean(0))
    assert torch.equal(fits[0]["transform"], fits[2]["transform"])


def test_zca__inverse_and_meta(digits):
    zca = Preprocess.fit(digits, "zca")
    again, pixels = Preprocess.from_meta(*zca.to_meta()), digits.test_images / 255
    assert torch.allclose(again.inverse(again.forward(pixels)), pixels, atol=1e-5)


def test_zca__broadcasts_over_leading_dimensions(digits):
    zca, images = Preprocess.fit(digits, "zca"), digits.train_images[:6]
    assert torch.allclose(zca.forward(images.view(2, 3, 1, 8, 8)).view(6, 1, 8, 8), zca.forward(images), atol=1e-6)


def test_fit__unknown_kind(digits):
    with pytest.raises(InputError, match="unknown preprocess 'zac'; did you mean 'zca'"):
        Preprocess.fit(digits, "zac")


def test_from_meta__missing_tensors(digits):
    with pytest.raises(InputError, match="preprocessed by zca but lacks its transform, inverse"):
        Preprocess.from_meta({"kind": "zca"}, {"mean": digits.mean})
