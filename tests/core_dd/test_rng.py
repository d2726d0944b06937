import numpy as np
import pytest
import torch

from core_dd.errors import InputError
from core_dd.rng import drawn_by, stream


def draw(*names):
    return torch.randn(8, generator=stream(*names))


def test_stream__same_names_same_draws():
    assert torch.equal(draw(0, "noise", 3, 7), draw(0, "noise", 3, 7))


def test_stream__every_part_of_the_key_counts():
    keys = [
        (0, "noise", 3, 7),
        (1, "noise", 3, 7),
        (0, "augment", 3, 7),
        (0, "noise", 7, 3),
        (0, "noise", 37),
        (0, "noise", "3", 7),
    ]
    draws = {tuple(draw(*key).tolist()) for key in keys}
    assert len(draws) == len(keys)


def test_stream__seeds_are_whole_numbers():
    """1.5 is not taken for 1."""
    for seed in (1.5, "1", None):
        with pytest.raises(InputError, match="seed must be a whole number, got"):
            stream(seed, "noise")
    assert torch.equal(draw(np.int64(5), "noise"), draw(5, "noise"))


def test_stream__neighbouring_streams_are_uncorrelated():
    rows = torch.stack([torch.randn(1000, generator=stream(0, "noise", i)) for i in range(50)])
    off = torch.corrcoef(rows) - torch.eye(50)
    assert off.abs().max() < 0.2  # 1225 pairs of 1000 normals: largest expected about 0.11
    assert abs(rows.mean()) < 0.02 and abs(rows.std() - 1) < 0.02


def test_stream__leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw(0, "x")
    assert torch.equal(before, torch.get_rng_state())


def test_drawn_by__governs_what_takes_no_generator_and_puts_it_back():
    before = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        with drawn_by(torch.Generator().manual_seed(seed)):
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)
    with drawn_by(None):
        torch.rand(3)
    assert not torch.equal(torch.get_rng_state(), before), "without a generator, torch's own goes on"
