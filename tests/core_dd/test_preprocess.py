import pytest
import torch

from core_dd.errors import InputError
from core_dd.preprocess import Preprocess


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


def test_zca__equals_its_formula(digits):
    """x_w = (x - mu) U (S + 0.1)^(-1/2) U^T with the covariance over N - 1, in float64."""
    x = digits.train_images.flatten(1).double() / 255
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / (len(x) - 1))
    expected = (x - mean) @ vectors @ torch.diag((values + 0.1) ** -0.5) @ vectors.T
    whitened = Preprocess.fit(digits, "zca").forward(digits.train_images)
    assert torch.allclose(whitened.flatten(1), expected.float(), atol=1e-4)


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
