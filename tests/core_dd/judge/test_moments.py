import pytest
import torch

from core_dd.errors import InputError
from core_dd.judge.moments import central_moment, moment_distance


def test_central_moment__equals_closed_forms(generator):
    x = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(central_moment(x, 1), x.mean(1))
    torch.testing.assert_close(central_moment(x, 2), x.var(1, correction=0))
    torch.testing.assert_close(
        central_moment(x, 3), (x**3).mean(1) - 3 * x.mean(1) * (x**2).mean(1) + 2 * x.mean(1) ** 3
    )


def test_central_moment__worked_by_hand():
    x = torch.tensor([[0.0], [0.0], [3.0]])
    assert [central_moment(x, order).item() for order in (1, 2, 3)] == pytest.approx([1, 2, 2])


def test_moment_distance__equals_loop(generator):
    real = torch.randn(3, 7, 4, generator=generator, dtype=torch.float64)
    syn = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    for order in (1, 2, 3):
        expected = []
        for r, s in zip(real, syn, strict=True):
            total = 0.0
            for d in range(4):
                pair = []
                for x in (r[:, d].tolist(), s[:, d].tolist()):
                    mean = sum(x) / len(x)
                    pair.append(mean if order == 1 else sum((v - mean) ** order for v in x) / len(x))
                total += (pair[0] - pair[1]) ** 2
            expected.append(total**0.5)
        assert moment_distance(real, syn, order).tolist() == pytest.approx(expected)


def test_moment_distance__tells_moments_apart(generator):
    x = torch.randn(1, 1000, 4, generator=generator)
    x = x - x.mean(1, keepdim=True)
    symmetric = torch.cat([x, -x], 1)
    assert moment_distance(symmetric, symmetric, 2).item() == 0
    assert moment_distance(symmetric, 2 * symmetric, 1).item() < 1e-5 < moment_distance(symmetric, 2 * symmetric, 2)
    assert moment_distance(symmetric, 2 * symmetric, 3).item() < 1e-4
    skewed = symmetric.exp() - symmetric.exp().mean(1, keepdim=True)
    assert moment_distance(symmetric, skewed, 3).item() > 1


def test_moment_distance__reduces_bf16_in_fp32(generator):
    real, syn = (torch.randn(2, 300, 8, generator=generator).bfloat16() for _ in range(2))
    value = moment_distance(real, syn, 2)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, moment_distance(real.float(), syn.float(), 2))


@pytest.mark.parametrize(
    ("shapes", "order", "message"),
    [
        (((2, 3, 4), (2, 3, 5)), 1, "equal in K and D"),
        (((2, 3, 4), (1, 3, 4)), 2, "equal in K and D"),
        (((3, 4), (3, 4)), 2, "equal in K and D"),
        (((2, 0, 4), (2, 3, 4)), 2, "with N >= 1"),
        (((2, 3, 4), (2, 3, 4)), 0, "order must be >= 1, got 0"),
    ],
)
def test_moment_distance__says_what_was_wrong(shapes, order, message):
    with pytest.raises(InputError) as error:
        moment_distance(*(torch.zeros(shape) for shape in shapes), order)
    assert message in str(error.value)
