"""What every test shares: one thread, a server of processes, an own cache folder, and real data where it is at hand."""

import contextlib
import dataclasses
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: two workers share the cores, and the networks are tiny
if os.environ.get("GENDD_TEST_CUDA") != "1":  # the suite means the CPU; what a GPU does is shown by test_cuda.py
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
FASHION = Path("/usr/share/datasets/fashion-mnist")
os.environ.setdefault("TESTS_COMPILE", os.environ.get("GENDD_COMPILE", "1"))  # what the workers are told, too
os.environ["GENDD_COMPILE"] = "0"  # it takes seconds per network: tests that are about compiling ask for `compiling`


def pytest_configure(config):
    """Start the server that `commands.Process` and `FORKED` ask, once, before any worker is."""
    if hasattr(config, "workerinput"):
        return
    folder = Path(tempfile.mkdtemp(prefix="forks"))
    place, forked = folder / "socket", folder / "python"
    program = Path(__file__).with_name("forkserver.py")
    forked.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {program} {place} "$@"\n')
    forked.chmod(0o755)
    os.environ |= {"FORKSERVER": str(place), "FORKED": str(forked)}
    server = subprocess.Popen([sys.executable, program, "serve", place], stdin=subprocess.PIPE, process_group=0)

    def end():
        server.stdin.close()
        server.wait()
        shutil.rmtree(folder)

    config.add_cleanup(end)


def pytest_collection_modifyitems(items):
    """Whole scripts first, then trainings and distillations: of two workers, neither should be left with a long file
    when the other is done."""
    folders = ("gen_dd", "matching_dd", "core_dd")

    def turn(item) -> int:
        first, *inside = item.path.relative_to(Path(__file__).parent).parts
        return folders.index(first) if inside else -1

    items.sort(key=turn)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Decoded images of the tests go to a folder of their own."""
    os.environ["GENDD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


NOT_OURS = ("PYTEST_", "KMP_", "TORCHINDUCTOR_", "_TORCHINDUCTOR_", "RAY_", "PYTHONBREAKPOINT")
"""How variables begin that pytest, and libraries when they are imported, set."""


@pytest.fixture(autouse=True)
def nothing_left():
    """A test that leaves a signal's handler or an environment variable behind fails itself, not one after it."""

    def state() -> dict[object, object]:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        return handlers | os.environ.copy()

    before = state()
    yield
    after = state()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    left = [name for name in changed if not str(name).startswith(NOT_OURS)]
    assert not left, f"other than before the test: {left}"


@pytest.fixture(autouse=True)
def work_folder(nothing_left, tmp_path, monkeypatch):
    """Each test runs in an empty folder, so that a forgotten relative path shows."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def digits():
    """The bundled 8x8 digits."""
    from core_dd.data.images import load_data

    return load_data("digits")


@pytest.fixture(scope="session")
def few_digits(digits):
    """Forty training and ten test digits of each of the first four classes, for what is done image by image."""
    parts = {}
    for split, most in (("train", 40), ("test", 10)):
        labels = getattr(digits, f"{split}_labels")
        index = sorted(i for k in range(4) for i in (labels == k).nonzero().flatten()[:most].tolist())
        parts |= {f"{split}_{part}": getattr(digits, f"{split}_{part}")[index] for part in ("images", "labels")}
    return dataclasses.replace(digits, class_names=digits.class_names[:4], **parts)


@pytest.fixture
def digit_files(digits, tmp_path):
    """A folder of PNG files: six digits of each class, the same ones to train on and to test on."""
    import torch
    from makers import write_image_folder

    index = torch.cat([members[:6] for members in digits.class_indices()])
    for split in ("train", "test"):
        images, labels = digits.train_images[index, 0].numpy(), digits.train_labels[index].tolist()
        write_image_folder(tmp_path / "digit_files" / split, images, labels)
    return tmp_path / "digit_files"


@pytest.fixture
def hasty(monkeypatch):
    """CAFE looks back at three accuracies, not at ten, so that an iteration may be of three steps and passes."""
    from matching_dd.methods import cafe

    monkeypatch.setattr(cafe, "WATCHED", 3)


@pytest.fixture
def compiling(monkeypatch):
    """A test that compiles whether it pays or not, here and in processes it starts, or is skipped where it cannot."""
    from core_dd.speed import can_compile

    monkeypatch.setenv("GENDD_COMPILE", os.environ["TESTS_COMPILE"])
    can_compile.cache_clear()
    if not can_compile("cpu"):
        pytest.skip("torch.compile does not work here: no C++ compiler, or GENDD_COMPILE=0")
    yield
    can_compile.cache_clear()


@pytest.fixture
def tracing(compiling, monkeypatch):
    """A test that compiles without the C++ compiler: graphs are traced and differentiated, and run as they are."""
    import torch

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


@pytest.fixture(scope="session")
def experts(digits, tmp_path_factory) -> str:
    """A folder of three experts of convnet1_w8, 6 epochs each."""
    from matching_dd.experts import ExpertsConfig, record

    out = str(tmp_path_factory.mktemp("experts") / "run")
    options = {"network": "convnet1_w8", "epochs": 6, "lr": 0.05, "batch_size": 64, "tracker": "none", "device": "cpu"}
    return str(record(ExpertsConfig(experts=3, out=out, **options), digits))


@pytest.fixture(scope="session")
def small_uvit():
    """A U-ViT for the digits of drawn weights, in a tenth of the time of the smallest preset."""
    import torch

    from gen_dd.uvit import UViT

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UViT(
            image_size=8, patch_size=4, in_channels=1, hidden_size=32, depth=2, num_heads=2, num_classes=10
        ).eval()


@pytest.fixture
def generator():
    import torch

    return torch.Generator().manual_seed(0)


@contextlib.contextmanager
def small_disk():
    """No file may grow past 64 KiB in this block, which is what a full disk does to a write.

    A block, not a fixture: pytest's own log is a file too, and may be longer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


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
