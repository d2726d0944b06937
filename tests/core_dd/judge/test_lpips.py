"""LPIPS: the network by the numbers of its authors' code, and what is said where its weights are missing."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from sklearn.datasets import load_sample_images

from core_dd.errors import InputError
from core_dd.judge import lpips
from core_dd.judge.lpips import LPIPS, blurred, distances, load_lpips
from core_dd.judge.measures import Measuring, Meter

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net():
    if find_spec("stlpips_pytorch") is None:
        pytest.skip("without the package stlpips-pytorch, of the extra gendd[lpips]")
    return load_lpips(CPU)


def test_blurred__by_hand():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    mirrored = [2, 1, 0, 1, 2, 3, 2, 1]
    wide = x[0, 0][mirrored][:, mirrored]
    line = torch.tensor([1.0, 2, 1]) / 4
    expected = [[float(line @ wide[i : i + 3, j : j + 3] @ line) for j in (0, 2, 4)] for i in (0, 2, 4)]
    assert torch.allclose(blurred(x)[0, 0], torch.tensor(expected))


def test_apart__is_the_weighted_mean_over_positions(generator):
    net = LPIPS()
    a, b = ([torch.randn(2, len(w), 3, 2, generator=generator) for w in net.weights] for _ in range(2))
    with torch.no_grad():
        for w in net.weights:
            w.uniform_(generator=generator)
        expected = sum(
            ((x - y) ** 2 * w[:, None, None]).sum(1).mean((1, 2)) for w, x, y in zip(net.weights, a, b, strict=True)
        )
        assert torch.allclose(net.apart(a, b), expected)


def test_lpips__equals_the_authors_code(net):
    """Measured once by stlpips-pytorch 0.0.2 itself, LPIPS(net="alex", variant="shift_tolerant"), normalize=True."""
    temple, flower = (torch.tensor(image).permute(2, 0, 1)[None] / 255 for image in load_sample_images().images)
    with torch.no_grad():
        assert float(net(temple[..., :64, :64], flower[..., :64, :64])) == pytest.approx(0.4940565, rel=1e-4)
        moved = temple[..., 100:164, 200:264], temple[..., 102:166, 202:266]
        assert float(net(*moved)) == pytest.approx(0.0410849, rel=1e-4)


def test_distances__of_small_grey_images_grow_with_noise(net, digits, generator):
    images = digits.test_images[:3]
    noise = torch.randn(3, 1, 8, 8, generator=generator)
    others = torch.stack([(images / 255 + size * noise).clamp(0, 1) for size in (0, 0.1, 0.4)], 1)
    found = distances(net, images, others)
    assert found.shape == (3, 3) and bool((found[:, 0] < 1e-6).all()) and bool((found.diff(dim=1) > 1e-3).all())


def test_measure__copies_are_seen(net, digits):
    images, labels = digits.train_images[:60], digits.train_labels[:60]
    few = replace(
        digits,
        train_images=images,
        train_labels=labels,
        test_images=digits.test_images[:4],
        test_labels=digits.test_labels[:4],
    )
    own = Meter(Measuring(("copies_lpips",)), few, network="mlp", seed=0, device=CPU)
    found = own.measure(images[:4], labels[:4])
    assert list(found["fidelity"]) == ["copies_pixels", "copies_features", "copies_lpips"]
    assert found["fidelity"]["copies_lpips"] == 1
    assert all(i == j and distance < 1e-6 for i, j, distance in found["copies"]["lpips_pairs"])


def test_load_lpips__a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(lpips, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"LPIPS are not installed. Install them: pip install 'gendd\[lpips\]'"):
        load_lpips(CPU)


def test_load_lpips__refuses_another_file(monkeypatch, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").touch()
    torch.save({"a": torch.zeros(1)}, tmp_path / "other" / "w.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lpips, "PACKAGE", "other")
    monkeypatch.setattr(lpips, "FILE", "w.pth")
    with pytest.raises(InputError, match="w.pth does not hold LPIPS"):
        load_lpips(CPU)
