"""Frechet and moment distances: closed forms, plain computations, and as measures of images."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.judge.fidelity import (
    MOMENTS,
    classifier_frechet,
    distances,
    features,
    frechet_distance,
    moment_distances,
    moments,
    real_classifier,
)
from core_dd.judge.protocols import QUICK
from core_dd.judge.training import train
from core_dd.sets.distilled import read_tensors, write_tensors


def random_covariance(d, generator, rank=None):
    factor = torch.randn(rank or 2 * d, d, generator=generator, dtype=torch.float64)
    return factor.T @ factor / len(factor)


def test_frechet_distance__of_one_dimension():
    one = torch.ones(1)
    assert frechet_distance(one, 4 * torch.eye(1), 3 * one, 9 * torch.eye(1)) == pytest.approx(2**2 + (2 - 3) ** 2)


def test_frechet_distance__of_diagonal_covariances(generator):
    a, b = torch.rand(5, generator=generator), torch.rand(5, generator=generator)
    mu = torch.randn(5, generator=generator)
    expected = mu.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(mu, a.diag(), 0 * mu, b.diag()) == pytest.approx(expected.item(), rel=1e-5)


def test_frechet_distance__equals_the_matrix_square_root(generator):
    c1, c2 = random_covariance(6, generator), random_covariance(6, generator)
    mu1, mu2 = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    root = scipy.linalg.sqrtm((c1 @ c2).numpy()).real
    expected = (mu1 - mu2).square().sum().item() + np.trace(c1.numpy() + c2.numpy() - 2 * root)
    assert frechet_distance(mu1, c1, mu2, c2) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(mu2, c2, mu1, c1) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance__zero_for_equal_ones_of_low_rank(generator):
    covariance, mu = random_covariance(20, generator, rank=3), torch.randn(20, generator=generator)
    distance = frechet_distance(mu, covariance, mu, covariance)
    assert distance == pytest.approx(0, abs=1e-5)  # eigenvalues 0 are off by 1e-16 or so, and their roots by 1e-8


def test_frechet_distance__of_low_rank_equals_the_nuclear_norm(generator):
    """tr (A'A B'B)^(1/2) is the sum of the singular values of A B'."""
    a, b = (torch.randn(n, 12, generator=generator, dtype=torch.float64) for n in (3, 5))
    zero = torch.zeros(12, dtype=torch.float64)
    expected = a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()
    assert frechet_distance(zero, a.T @ a, zero, b.T @ b) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_distance__refuses_other_shapes():
    with pytest.raises(InputError, match="expected two means"):
        frechet_distance(torch.zeros(2), torch.eye(2), torch.zeros(3), torch.eye(3))


def test_moments__refuse_a_single_row():
    with pytest.raises(InputError, match="needs at least 2 images, got 1"):
        moments(torch.zeros(1, 3))


def test_moments__equal_numpys(generator):
    x = torch.randn(50, 4, generator=generator)
    mean, covariance = moments(x)
    np.testing.assert_allclose(mean, x.double().mean(0))
    np.testing.assert_allclose(covariance, np.cov(x.double().numpy(), rowvar=False))


@pytest.fixture(scope="module")
def classifier(digits):
    return train(
        digits.train_images,
        digits.train_labels,
        digits,
        protocol=replace(QUICK, steps=40),
        network="convnet2_w32",
        runs=[0],
        seed=0,
        device=torch.device("cpu"),
    )


def test_classifier_frechet__tells_real_digits_from_noise(digits, classifier, generator):
    real = classifier_frechet(digits.test_images, digits, classifier)
    turned = classifier_frechet(digits.test_images.flip(2), digits, classifier)
    noise = classifier_frechet(torch.rand(355, 1, 8, 8, generator=generator), digits, classifier)
    assert classifier_frechet(digits.train_images, digits, classifier) == pytest.approx(0, abs=1e-3)
    assert 0 < 3 * real < min(turned, noise)


def test_features__are_those_of_the_last_block(digits, classifier):
    net, images = classifier.network(0), digits.test_images[:7]
    found = features(net, images, classifier.preprocess)
    assert found.shape == (7, net.classifier.in_features) and found.dtype == torch.float32
    with torch.no_grad():
        expected = net.features((images / 255 - digits.mean) / digits.std)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)  # bf16


def test_real_classifier__knows_the_digits(digits):
    classifier = real_classifier(digits, network="convnet2_w32")
    assert classifier.accuracies(digits.test_images, digits.test_labels)[0] > 0.95


@pytest.mark.parametrize("other", [{"limit_per_class": 20, "seed": 1}, {"limit_per_class": 10}, {}])
def test_real_classifier__of_other_training_images_is_not_taken_from_the_cache(tmp_path, other):
    options = {"network": "convnet1_w8", "protocol": replace(QUICK, steps=2), "cache": tmp_path / "judge.safetensors"}
    data = load_data("digits", limit_per_class=20)
    first, again = (real_classifier(data, **options) for _ in range(2))
    assert all(torch.equal(first.params[name], again.params[name]) for name in first.params)
    with pytest.raises(InputError, match="judge.safetensors holds a classifier trained on other training images of"):
        real_classifier(load_data("digits", **other), **options)


def test_real_classifier__of_a_cache_that_does_not_fit_is_not_taken(tmp_path):
    options = {"network": "convnet1_w8", "protocol": replace(QUICK, steps=2), "cache": tmp_path / "judge.safetensors"}
    data = load_data("digits", limit_per_class=20)
    real_classifier(data, **options)
    tensors, meta = read_tensors(options["cache"])
    name = next(iter(tensors))
    for other, message in (
        (tensors[name][:, :1], "does not hold the state of this run .*has shape"),
        (torch.full_like(tensors[name], torch.nan), "holds a classifier whose weights are not finite"),
    ):
        write_tensors(options["cache"], tensors | {name: other}, meta)
        with pytest.raises(InputError, match=message):
            real_classifier(data, **options)
    write_tensors(options["cache"], {key: tensors[key] for key in tensors if key != name}, meta)
    with pytest.raises(InputError, match="does not hold the state of this run"):
        real_classifier(data, **options)


def test_moment_distances__equal_a_plain_computation(generator):
    """Two classes of different sizes, one of them a single image in the set; scipy's central moments."""
    real, real_labels = torch.randn(30, 4, generator=generator), torch.arange(30) % 3 // 2
    ours, labels = torch.randn(6, 4, generator=generator), torch.tensor([0, 1, 0, 0, 0, 0])
    found = moment_distances(ours, labels, real, real_labels)
    for name, moment in zip(MOMENTS, (1, 2, 3), strict=True):
        norms = []
        for k in range(2):
            a, b = (x[own == k].double().numpy() for x, own in ((real, real_labels), (ours, labels)))
            a, b = (x.mean(0) if moment == 1 else scipy.stats.moment(x, moment) for x in (a, b))
            norms.append(np.sqrt(((a - b) ** 2).sum()))
        assert found[name] == pytest.approx(np.mean(norms), rel=1e-5)
    assert list(found) == list(MOMENTS)


def test_moment_distances__an_image_with_soft_labels_is_of_the_class_of_the_largest(generator):
    real, ours = torch.randn(20, 4, generator=generator), torch.randn(8, 4, generator=generator)
    labels = torch.arange(20) % 2
    soft = torch.tensor([[0.6, 0.4], [0.1, 0.9]]).repeat(4, 1)
    assert moment_distances(ours, soft, real, labels) == moment_distances(ours, labels[:8], real, labels)


def test_moment_distances__leave_out_a_class_without_an_image_and_say_so(generator, capsys):
    real, labels = torch.randn(20, 4, generator=generator), torch.arange(20) % 2
    ones = torch.ones(5, dtype=torch.int64)
    found = moment_distances(real[:5], ones, real, labels)
    assert "over 1 of 2 classes" in capsys.readouterr().err
    assert found == moment_distances(real[:5], ones, real[1::2], labels[1::2])
    with pytest.raises(InputError, match="the set has none"):
        moment_distances(real[:5], ones + 1, real, labels)


def test_distances__of_the_real_images_are_zero_and_grow_with_noise(digits, classifier, generator):
    real = distances(digits.train_images, digits.train_labels, digits, classifier)
    assert list(real) == ["classifier_frechet", *MOMENTS]
    assert [real[name] for name in MOMENTS] == [0, 0, 0]
    pixels, noise = digits.train_images / 255, torch.randn(digits.train_images.shape, generator=generator)
    near, far = (distances(pixels + scale * noise, digits.train_labels, digits, classifier) for scale in (0.1, 0.5))
    assert all(0 < near[name] < far[name] for name in near)
    mixed = distances(digits.train_images, digits.train_labels.roll(1), digits, classifier)
    assert mixed["moment1_distance"] > 10 * near["moment1_distance"]  # the classes' moments, not those of all images
    assert mixed["classifier_frechet"] == pytest.approx(real["classifier_frechet"])


def test_classifier_frechet__refuses_a_single_image(digits, classifier):
    with pytest.raises(InputError, match="at least 2 images, got 1"):
        classifier_frechet(digits.test_images[:1], digits, classifier)
