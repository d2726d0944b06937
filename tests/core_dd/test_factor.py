"""Factor-and-upsample against a loop over tiles, and as a distilled set decodes it."""

import pytest
import torch
from plain import plain_decode

from core_dd.distilled import DistilledSet, new_meta
from core_dd.errors import InputError
from core_dd.factor import decode


@pytest.mark.parametrize(("shape", "factor"), [((8, 8), 2), ((7, 8), 3), ((8, 5), 2), ((9, 9), 3), ((6, 6), 1)])
def test_decode__equals_loop_over_tiles(generator, shape, factor):
    images = torch.randn(3, 2, *shape, generator=generator)
    torch.testing.assert_close(decode(images, factor), plain_decode(images, factor))


def test_decode__known_values():
    """Bilinear doubling of [[0, 1], [2, 3]] as the upper left tile (facts H)."""
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, :2, :2] = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    first = decode(image, 2)[0, 0]
    assert first[0].tolist() == [0, 0.25, 0.75, 1] and first[1].tolist() == [0.5, 0.75, 1.25, 1.5]


def test_decode__of_classes_is_that_of_each(generator):
    images = torch.randn(4, 3, 1, 8, 8, generator=generator)
    together = decode(images, 2)
    assert together.shape == (4, 12, 1, 8, 8)
    for k in range(4):
        assert torch.equal(together[k], decode(images[k], 2))


def test_decode__is_differentiable(generator):
    images = torch.rand(2, 1, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: decode(x, 2), images)


@pytest.mark.parametrize("factor", [0, 5, 9])
def test_decode__rejects_factor_that_does_not_fit(factor):
    with pytest.raises(InputError, match="factor"):
        decode(torch.zeros(1, 1, 8, 8), factor)


def test_decoded__repeats_labels_tile_by_tile(digits, generator):
    images, soft = torch.rand(20, 1, 8, 8, generator=generator), torch.rand(20, 10, generator=generator)
    meta = new_meta(digits, method="x", ipc=2, seed=0) | {"factor": 2}
    for labels in (torch.arange(10).repeat_interleave(2), soft):
        decoded, repeated = DistilledSet(images, labels, meta).decoded()
        torch.testing.assert_close(decoded, plain_decode(images, 2))
        assert torch.equal(repeated, torch.cat([labels] * 4))


def test_check__rejects_factor_that_does_not_fit(digits):
    meta = new_meta(digits, method="x", ipc=2, seed=0) | {"factor": 9}
    with pytest.raises(InputError, match="factor 9 does not fit images of 8x8"):
        DistilledSet(torch.zeros(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64), meta).check()
