"""Factor-and-upsample against a loop over tiles, and as a distilled set decodes it."""

import pytest
import torch
from plain import plain_decode, plain_tiles

from core_dd.errors import InputError
from core_dd.sets.distilled import DistilledSet, new_meta
from core_dd.sets.factor import decode, sources


@pytest.mark.parametrize(("shape", "factor"), [((8, 8), 2), ((7, 8), 3), ((8, 5), 2), ((9, 9), 3), ((6, 6), 1)])
def test_decode__equals_loop_over_tiles(generator, shape, factor):
    images = torch.randn(3, 2, *shape, generator=generator)
    torch.testing.assert_close(decode(images, factor), plain_decode(images, factor))


@pytest.mark.parametrize(("kind", "most"), [("multi", None), *(("bound", most) for most in (5, 12, 22, 30, 45, 99))])
def test_decode__of_several_factors_equals_loop_over_tiles(generator, kind, most):
    images = torch.randn(5, 2, 9, 9, generator=generator)
    decoded = decode(images, 3, kind, most)
    torch.testing.assert_close(decoded, plain_tiles(images, 3, kind, most))
    if kind == "bound":
        assert 5 <= len(decoded) <= min(most, 45)


def test_decode__bound_cuts_as_many_as_there_is_room_for():
    """30 tiles of 5 images: 25 beside one for each, so two by 3; then 12 - 3 = 9, so two by 2; the last stays whole."""
    assert sources(5, 3, "bound", 30).bincount().tolist() == [9, 9, 4, 4, 1]


@pytest.mark.parametrize(("kind", "most"), [("single", None), ("multi", None), ("bound", 20)])
def test_sources__say_which_image_each_tile_shows(kind, most):
    images = torch.arange(5.0)[:, None, None, None].expand(5, 1, 6, 6)
    values = decode(images, 3, kind, most).mean((1, 2, 3))
    torch.testing.assert_close(values, sources(5, 3, kind, most).float())


def test_decode__known_values():
    """Bilinear doubling of [[0, 1], [2, 3]] as the upper left tile."""
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
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_decode__rejects_factor_that_does_not_fit(factor, kind):
    with pytest.raises(InputError, match="factor"):
        decode(torch.zeros(1, 1, 8, 8), factor, kind)


def test_decode__rejects_unknown_kind_and_bound_without_a_bound():
    with pytest.raises(InputError, match="unknown decode 'mulit'; did you mean 'multi'"):
        decode(torch.zeros(1, 1, 8, 8), 2, "mulit")
    with pytest.raises(InputError, match="set max_syn"):
        decode(torch.zeros(1, 1, 8, 8), 2, "bound")


@pytest.mark.parametrize(("kind", "times"), [("single", 4), ("multi", 5)])
def test_decoded__repeats_labels_tile_by_tile(digits, generator, kind, times):
    images, soft = torch.rand(20, 1, 8, 8, generator=generator), torch.rand(20, 10, generator=generator)
    meta = new_meta(digits, method="x", ipc=2, seed=0) | {"factor": 2, "decode": kind}
    for labels in (torch.arange(10).repeat_interleave(2), soft):
        decoded, repeated = DistilledSet(images, labels, meta).decoded()
        torch.testing.assert_close(decoded, plain_tiles(images, 2, kind))
        assert torch.equal(repeated, torch.cat([labels] * times))


def test_check__rejects_factor_that_does_not_fit(digits):
    meta = new_meta(digits, method="x", ipc=2, seed=0) | {"factor": 9}
    with pytest.raises(InputError, match="factor 9 does not fit images of 8x8"):
        DistilledSet(torch.zeros(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64), meta).check()
