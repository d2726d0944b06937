"""What every test shares: an own cache folder, one seed for nothing global, and real data where it is at hand."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from makers import write_image_folder

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Decoded images of the tests go to a folder of their own."""
    os.environ["GENDD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def work_folder(tmp_path, monkeypatch):
    """Each test runs in an empty folder, so that a forgotten relative path shows."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def digits():
    """The bundled 8x8 digits."""
    from core_dd.data import load_data

    return load_data("digits")


@pytest.fixture
def digit_files(digits, tmp_path):
    """A folder of PNG files: six digits of each class, the same ones to train on and to test on."""
    index = torch.cat([members[:6] for members in digits.class_indices()])
    for split in ("train", "test"):
        images, labels = digits.train_images[index, 0].numpy(), digits.train_labels[index].tolist()
        write_image_folder(tmp_path / "digit_files" / split, images, labels)
    return tmp_path / "digit_files"


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def small_disk_later():
    """A function; once called, no file may grow past 64 KiB, which is what a full disk does to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def small_disk(small_disk_later):
    """No file may grow past 64 KiB."""
    small_disk_later()


def shared_data(name: str) -> Path:
    """A folder of real data, or skip by name."""
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"real data not here: {name}")
    return path


def fashion_folder() -> Path:
    """Debian's Fashion-MNIST files, or skip by name."""
    if not FASHION.is_dir():
        pytest.skip("real data not here: fashion-mnist (apt-get install dataset-fashion-mnist)")
    return FASHION
