"""The transforms against matrices of their definitions, and images whose transforms are known."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from gen_dd.augment import backward_maps, draw_conditions, transform

SCALE, COS, SIN, EVEN, ODD, RIGHT, DOWN = range(2, 9)


def condition(**parts):
    found = torch.zeros(1, 9)
    for name, value in parts.items():
        found[0, {"mirrored": 0, "upside_down": 1}.get(name) if name.islower() else globals()[name]] = value
    return found


def forward_map(c):
    """3x3, the steps one after the other: flips, scale, rotation, stretch by 2^(0.2 w) along r, translation."""
    flips = np.diag([1 - 2 * c[0], 1 - 2 * c[1], 1])
    scale = np.diag([2 ** (0.2 * c[SCALE])] * 2 + [1])
    turn = np.eye(3)
    turn[:2, :2] = [[c[COS] + 1, -c[SIN]], [c[SIN], c[COS] + 1]]
    stretch = np.eye(3)
    stretch[:2, :2] = expm(0.2 * math.log(2) * np.array([[c[EVEN], c[ODD]], [c[ODD], -c[EVEN]]]))
    shift = np.eye(3)
    shift[:2, 2] = c[RIGHT] / 4, c[DOWN] / 4
    return shift @ stretch @ turn @ scale @ flips


def test_backward_maps__undo_the_transforms_of_their_definitions(generator):
    conditions = draw_conditions(200, 0.7, generator)
    for found, own in zip(backward_maps(conditions).double().numpy(), conditions.double().numpy(), strict=True):
        np.testing.assert_allclose(found, np.linalg.inv(forward_map(own))[:2], atol=2e-5)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"mirrored": 1}, lambda x: x.flip(3)),
        ({"upside_down": 1}, lambda x: x.flip(2)),
        ({"COS": -1, "SIN": 1}, lambda x: x.rot90(-1, (2, 3))),
        ({"RIGHT": 1}, lambda x: torch.cat([x[..., :1], x[..., :-1]], 3)),
        ({"DOWN": -2}, lambda x: torch.cat([x[:, :, 2:], x[:, :, -2:].flip(2)], 2)),
    ],
    ids=["mirrored", "upside down", "quarter turn", "a pixel right", "two pixels up"],
)
def test_transform__of_known_images(generator, told, expected):
    images = torch.randn(1, 2, 8, 8, generator=generator)
    torch.testing.assert_close(transform(images, condition(**told)), expected(images), atol=1e-5, rtol=0)


def test_transform__a_stretch_widens_along_its_direction():
    """Twice as wide and half as high: an image that is linear stays linear, with other slopes."""
    x = (torch.arange(8) + 0.5) / 4 - 1
    image = (x + 3 * x[:, None])[None, None]
    found = transform(image, condition(EVEN=5))[0, 0, 3:5, :]
    torch.testing.assert_close(found, (x / 2 + 6 * x[3:5, None]), atol=1e-5, rtol=0)


def test_transform__leaves_the_others_alone_bit_for_bit(generator):
    images, conditions = torch.randn(50, 1, 8, 8, generator=generator), draw_conditions(50, 0.12, generator)
    found, untouched = transform(images, conditions), (conditions == 0).all(1)
    assert 0 < untouched.sum() < 50
    assert torch.equal(found[untouched], images[untouched])
    assert (found[~untouched] != images[~untouched]).flatten(1).any(1).all()


def test_draw_conditions__each_transform_as_often_as_asked(generator):
    count = 4000
    found = (draw_conditions(count, 0.3, generator) != 0).float().mean(0)
    expected = torch.tensor([0.15, 0.15, 0.3, 0.3, 0.3, 0.3, 0.15, 0.3, 0.3])
    assert ((found - expected).abs() < 5 * (0.25 / count) ** 0.5).all()
    assert not draw_conditions(count, 0.0, generator).any()
