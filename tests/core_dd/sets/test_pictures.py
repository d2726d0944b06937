"""Grids: where each image goes, enlargement, gaps, and files that are whole or absent."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from core_dd.errors import InputError
from core_dd.sets.pictures import grid, png, save_grid


def test_grid__puts_class_k_in_row_k_in_order():
    images = torch.tensor([10, 20, 30, 40], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    picture = np.asarray(grid(images, torch.tensor([1, 0, 1, 0]), scale=1, gap=1))
    assert picture.shape == (5, 5, 4)
    assert picture[0, 0, 0] == 20 and picture[0, 3, 0] == 40
    assert picture[3, 0, 0] == 10 and picture[3, 3, 0] == 30
    assert (picture[2, :, 3] == 0).all() and (picture[:, 2, 3] == 0).all()


def test_grid__enlarges_without_smoothing_and_keeps_the_aspect():
    image = torch.rand(1, 3, 2, 3)
    picture = np.asarray(grid(image, torch.tensor([0]), scale=4))
    assert picture.shape == (8, 12, 4)
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert (picture[::4, ::4, :3] == pixels).all() and (picture[3::4, 3::4, :3] == pixels).all()


def test_grid__digits_become_about_32_pixels_and_larger_images_stay():
    assert grid(torch.zeros(1, 1, 8, 8), torch.tensor([0])).size == (32, 32)
    assert grid(torch.zeros(1, 3, 64, 48), torch.tensor([0])).size == (48, 64)


def test_grid__clamps_floats_for_display():
    picture = np.asarray(grid(torch.tensor([-0.5, 0.5, 1.7]).view(3, 1, 1, 1), torch.tensor([0, 0, 0]), scale=1, gap=0))
    assert picture[0, :, 0].tolist() == [0, 128, 255]


def test_grid__takes_soft_labels_chosen_classes_and_a_limit():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    soft = torch.eye(3)[[0, 1, 2, 2, 2, 1]] * 0.6 + 0.1
    picture = np.asarray(grid(images, soft, per_class=2, scale=1, gap=0, classes=[2, 0]))
    assert picture[..., 0].tolist() == [[2, 3], [0, 255]]
    assert picture[1, 1, 3] == 0


def test_grid__an_absent_class_is_an_empty_row():
    picture = np.asarray(grid(torch.zeros(2, 1, 1, 1), torch.tensor([0, 2]), scale=1, gap=0))
    assert picture[:, 0, 3].tolist() == [255, 0, 255]


@pytest.mark.parametrize(
    ("images", "labels", "options", "said"),
    [
        (torch.zeros(3, 8, 8), torch.zeros(3), {}, "shape"),
        (torch.zeros(3, 2, 8, 8), torch.zeros(3), {}, "1 or 3 channels, got 2"),
        (torch.zeros(3, 1, 8, 8), torch.zeros(2), {}, "2 labels for 3 images"),
        (torch.zeros(0, 1, 8, 8), torch.zeros(0), {}, "at least one image"),
        (torch.zeros(1, 1, 8, 8), torch.zeros(1), {"per_class": 0}, "per_class must be >= 1"),
        (torch.zeros(1, 1, 8, 8), torch.zeros(1), {"scale": 0}, "scale must be >= 1"),
    ],
)
def test_grid__refuses(images, labels, options, said):
    with pytest.raises(InputError, match=said):
        grid(images, labels, **options)


def test_save_grid__writes_what_grid_draws(tmp_path):
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    save_grid(tmp_path / "sub" / "grid.png", images, labels)
    with Image.open(tmp_path / "sub" / "grid.png") as read:
        assert (np.asarray(read.convert("RGBA")) == np.asarray(grid(images, labels))).all()
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["grid.png"]


def test_save_grid__a_refused_set_leaves_the_old_file(tmp_path):
    place = tmp_path / "grid.png"
    place.write_bytes(b"old")
    with pytest.raises(InputError):
        save_grid(place, torch.zeros(1, 2, 8, 8), torch.zeros(1))
    assert place.read_bytes() == b"old"


def test_png__is_a_png():
    assert png(grid(torch.zeros(1, 1, 8, 8), torch.tensor([0]))).startswith(b"\x89PNG")


@pytest.mark.parametrize(("channels", "mode"), [(1, "LA"), (3, "RGBA")])
def test_png__greys_are_stored_as_greys_to_the_same_pixels(channels, mode):
    picture = grid(torch.rand(3, channels, 4, 4), torch.tensor([0, 1, 1]), scale=2)
    with Image.open(io.BytesIO(png(picture))) as read:
        assert read.mode == mode
        assert np.array_equal(np.asarray(read.convert("RGBA")), np.asarray(picture))
