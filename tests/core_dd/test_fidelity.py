import pytest
import torch

from core_dd.errors import InputError
from core_dd.fidelity import classifier_frechet, frechet_distance, moments, real_classifier


def covariance(d, generator):
    a = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return a @ a.T / d


def test_frechet__zero_for_equal_gaussians(generator):
    mu, cov = torch.randn(5, generator=generator), covariance(5, generator)
    assert frechet_distance(mu, cov, mu, cov) == pytest.approx(0, abs=1e-9)


def test_frechet__closed_forms():
    """Diagonal covariances: |mu1 - mu2|^2 + sum (s1 - s2)^2."""
    mu1, mu2 = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.0])
    s1, s2 = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([2.0, 2.0, 1.5])
    expected = 1 + 4 + 1 + 0 + 1
    assert frechet_distance(mu1, s1.square().diag(), mu2, s2.square().diag()) == pytest.approx(expected, abs=1e-9)


def test_frechet__equals_the_matrix_square_root(generator):
    from scipy.linalg import sqrtm

    mu, (a, b) = torch.zeros(6), (covariance(6, generator), covariance(6, generator))
    expected = (a.trace() + b.trace()).item() - 2 * sqrtm((a @ b).numpy()).real.trace()
    assert frechet_distance(mu, a, mu, b) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(mu, b, mu, a) == pytest.approx(expected, rel=1e-7)


def test_frechet__singular_covariances_are_welcome():
    mu, cov = moments(torch.eye(4)[:2])
    assert frechet_distance(mu, cov, mu, torch.zeros(4, 4)) == pytest.approx(cov.trace().item())


def test_frechet__refuses_other_shapes():
    with pytest.raises(InputError, match="expected two means"):
        frechet_distance(torch.zeros(2), torch.eye(2), torch.zeros(3), torch.eye(3))
    with pytest.raises(InputError, match="needs at least 2 images, got 1"):
        moments(torch.zeros(1, 3))


def test_classifier_frechet__real_images_are_nearer_than_noise(digits):
    classifier = real_classifier(digits, "convnet2_w32", device=torch.device("cpu"))
    noise = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    near = classifier_frechet(digits.test_images[:200], digits, classifier)
    far = classifier_frechet(noise, digits, classifier)
    assert 0 <= near < 0.2 * far
    assert classifier_frechet(digits.train_images, digits, classifier) == pytest.approx(0, abs=1e-6)
