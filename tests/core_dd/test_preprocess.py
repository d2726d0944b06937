import torch

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
