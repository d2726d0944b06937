import pytest
import torch

from matching_dd.losses import mean_discrepancy


def test_mean_discrepancy__zero_for_equal_batches(generator):
    features = torch.randn(3, 5, 7, generator=generator)
    assert torch.equal(mean_discrepancy(features, features.clone()), torch.zeros(3))


def test_mean_discrepancy__closed_form():
    real = torch.tensor([[[0.0, 2.0], [4.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]]])
    syn = torch.tensor([[[1.0, 5.0]], [[1.0, 3.0]]])
    assert mean_discrepancy(real, syn).tolist() == [1.0 + 9.0, 4.0]


def test_mean_discrepancy__equals_loop_over_classes(generator):
    real = torch.randn(4, 9, 6, generator=generator, dtype=torch.float64)
    syn = torch.randn(4, 2, 6, generator=generator, dtype=torch.float64)
    loop = [sum((real[k, :, d].mean() - syn[k, :, d].mean()) ** 2 for d in range(6)) for k in range(4)]
    torch.testing.assert_close(mean_discrepancy(real, syn), torch.stack(loop))


def test_mean_discrepancy__sees_means_only(generator):
    real = torch.randn(1, 8, 3, generator=generator, dtype=torch.float64)
    mean = real.mean(1, keepdim=True)
    torch.testing.assert_close(mean_discrepancy(real, mean), torch.zeros(1, dtype=torch.float64))


def test_mean_discrepancy__gradient(generator):
    real = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    syn = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    mean_discrepancy(real, syn).sum().backward()
    expected = 2 / 5 * (syn.detach().mean(1) - real.mean(1))[:, None].expand(-1, 5, -1)
    torch.testing.assert_close(syn.grad, expected)


@pytest.mark.parametrize(
    ("real", "syn"),
    [((2, 3, 4), (2, 3, 5)), ((2, 3, 4), (1, 3, 4)), ((2, 3, 4), (2, 0, 4)), ((3, 4), (3, 4))],
    ids=["width", "classes", "no_sample", "two_axes"],
)
def test_mean_discrepancy__rejects(real, syn):
    with pytest.raises(ValueError, match="features must"):
        mean_discrepancy(torch.zeros(real), torch.zeros(syn))
