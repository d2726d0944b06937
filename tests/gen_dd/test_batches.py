import dataclasses
from collections.abc import Sequence

import pytest
import torch

from core_dd.data.images import load_data
from core_dd.data.streaming import load_stream
from gen_dd.batches import Batches

OPTIONS = {"null_class": 10, "seed": 0, "device": torch.device("cpu")}


def test_batches__an_epoch_shows_every_image_once():
    data = load_data("digits", limit_per_class=8)
    batches = Batches(data, 16, flip=False, dropout=0.0, **OPTIONS)
    shown = torch.cat([batches.members(step) for step in range(5)])
    assert sorted(shown.tolist()) == list(range(80))
    assert not torch.equal(batches.members(0), batches.members(5))


def test_batches__images_are_in_range_and_flips_mirror(digits):
    plain, flipped = (Batches(digits, 64, flip=flip, dropout=0.5, **OPTIONS)(3) for flip in (False, True))
    assert plain.images.min() == -1 and plain.images.max() == 1
    mirrored = [
        not torch.equal(a, b) and torch.equal(a, b.flip(-1)) for a, b in zip(plain.images, flipped.images, strict=True)
    ]
    assert 16 < sum(mirrored) < 48
    assert 16 < (plain.labels == 10).sum() < 48
    assert torch.equal(plain.noise, flipped.noise)


@pytest.mark.parametrize("size", [16, 2000], ids=["permuted", "with replacement"])
def test_batches__rows_are_those_of_the_global_batch(digits, size):
    rows = torch.tensor([3, 1, 8])
    whole = Batches(digits, size, flip=True, dropout=0.5, **OPTIONS)
    part = Batches(digits, size, flip=True, dropout=0.5, rows=rows, **OPTIONS)
    for step in (0, 200):
        for field in dataclasses.fields(whole(step)):
            assert torch.equal(getattr(part(step), field.name), getattr(whole(step), field.name)[rows])


def same(a, b):
    return all(torch.equal(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [16, 100], ids=["permuted", "with replacement"])
def test_batches__streamed_are_those_in_memory(digit_files, workers, size):
    spec, options = f"folder:{digit_files}", {"flip": True, "dropout": 0.5, "rows": torch.tensor([1, 4, 5]), **OPTIONS}
    whole = Batches(load_data(spec), size, **options)
    streamed = Batches(load_stream(spec, workers=workers), size, **options)
    for step in (0, 1, 2, 3, 4, 40, 41, 2):  # three steps an epoch; then as after a resume
        assert same(streamed(step), whole(step)), step


class Counted(Sequence):
    """A sequence that remembers what was asked of it."""

    def __init__(self, cells):
        self.cells, self.asked = cells, []

    def __len__(self):
        return len(self.cells)

    def __getitem__(self, i):
        self.asked.append(i)
        return self.cells[i]


def test_batches__streaming_decodes_only_the_rows_asked_for(digit_files):
    data = load_stream(f"folder:{digit_files}", workers=0)
    data.images.cells = Counted(data.images.cells)
    batches = Batches(data, 16, flip=False, dropout=0.0, rows=torch.tensor([3, 9]), **OPTIONS)
    batches(0)
    assert data.images.cells.asked == batches.members(0).tolist() and len(data.images.cells.asked) == 2
