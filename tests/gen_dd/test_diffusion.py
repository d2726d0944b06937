import math

import pytest
import torch

from gen_dd.diffusion import add_noise, alpha_sigma, drop_labels, half_log_snr, log_alpha, min_snr, noise_loss, time_of


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_alpha_sigma__published_constants():
    alpha, sigma = alpha_sigma(double(1.0))
    assert alpha.item() == pytest.approx(0.0065716, abs=5e-8) and sigma.item() == pytest.approx(0.9999784, abs=5e-8)


def test_half_log_snr__published_constants():
    expected = double(-5.02498, 4.55771, 5.75151)
    assert torch.allclose(half_log_snr(double(1.0, 1e-3, 1e-4)), expected, atol=5e-6)


def test_log_alpha__is_the_integral_of_beta():
    """log alpha = -1/2 integral of beta(s) = 0.1 + 19.9 s, by the trapezoid rule."""
    s = torch.linspace(0, 0.7, 100001, dtype=torch.float64)
    assert log_alpha(double(0.7)).item() == pytest.approx(-0.5 * torch.trapezoid(0.1 + 19.9 * s, s).item(), rel=1e-9)


def test_alpha_sigma__variance_is_preserved_and_small_times_keep_their_digits():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha, sigma = alpha_sigma(t)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(t), atol=1e-14)
    single = alpha_sigma(torch.tensor([1e-4]))[1].item()
    assert single == pytest.approx(alpha_sigma(double(1e-4))[1].item(), rel=1e-6)


def test_time_of__inverts_half_log_snr():
    t = torch.logspace(-4, 0, 200, dtype=torch.float64)
    assert torch.allclose(time_of(half_log_snr(t)), t, rtol=1e-9)


def test_add_noise__moments(generator):
    x0 = torch.full((20000, 1, 1, 1), 0.5)
    xt = add_noise(x0, torch.randn(x0.shape, generator=generator), torch.full((20000,), 0.3))
    alpha, sigma = alpha_sigma(double(0.3))
    assert xt.mean().item() == pytest.approx(0.5 * alpha.item(), abs=4 * sigma.item() / math.sqrt(20000))
    assert xt.std().item() == pytest.approx(sigma.item(), rel=0.03)


def test_drop_labels__rate_and_target(generator):
    labels, u = torch.arange(10000) % 10, torch.rand(10000, generator=generator)
    dropped = drop_labels(labels, 10, u, 0.15)
    assert (dropped == 10).float().mean().item() == pytest.approx(0.15, abs=0.015)
    kept = dropped != 10
    assert torch.equal(dropped[kept], labels[kept])
    assert torch.equal(drop_labels(labels, 10, u, 0.0), labels)


def test_noise_loss__closed_form():
    assert noise_loss(
        torch.zeros(2, 1, 2, 2), torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    ).tolist() == [1, 4]


def test_min_snr__equals_the_plain_ratio():
    t = torch.linspace(0.01, 1, 100, dtype=torch.float64)
    alpha, sigma = alpha_sigma(t)
    expected = [min(snr, 5) / snr for snr in (alpha**2 / sigma**2).tolist()]
    assert min_snr(t).tolist() == pytest.approx(expected, rel=1e-9)
    assert min_snr(torch.tensor([0.0, 0.12, 0.14])).tolist() == [0, pytest.approx(0.84, abs=0.01), 1]
