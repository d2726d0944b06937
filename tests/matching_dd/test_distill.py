"""The command end to end on 8x8 digits: what it writes, resume after kill -9, dry run."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from core_dd.distilled import DistilledSet
from core_dd.errors import InputError
from core_dd.run import Diverged, checkpoints, read_stats
from matching_dd import coreset, distill
from matching_dd.distill import main
from matching_dd.experts import ExpertsConfig, record

SMALL = {"network": "convnet1_w8", "batch_real": 32, "compile": False, "tracker": "none"}
FLAGS = ["--network=convnet1_w8", "--batch_real=32", "--no_compile", "--tracker=none"]


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """One thread, here and in the commands started: these networks are tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


def test_command__writes_a_run_folder(digits):
    main([*FLAGS, "--ipc=2", "--iterations=6", "--checkpoint_every=4", "--log_every=2", "--out=run"])
    folder = Path("run")
    dset = DistilledSet.load(folder)
    dset.check(digits)
    assert dset.images.shape == (20, 1, 8, 8) and dset.images.dtype == torch.float32
    assert dset.labels.tolist() == [k for k in range(10) for _ in range(2)]
    assert dset.meta["method"] == "dm" and dset.meta["ipc"] == 2 and dset.meta["preprocess"] == {"kind": "mean_std"}
    assert dset.meta["cost"]["iterations"] == 6
    assert [line["step"] for line in read_stats(folder / "stats.jsonl")] == [2, 4, 6]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["last", "step-000004", "step-000006"]
    assert (folder / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((folder / "config.yaml").read_text())["network"] == "convnet1_w8"
    assert DistilledSet.load(folder / "checkpoints/step-000004").digest() != dset.digest()


def test_distill__lowers_its_loss(digits):
    distill("dm", digits, 2, iterations=60, log_every=1, out="run", **SMALL)
    losses = [line["loss"] for line in read_stats(Path("run/stats.jsonl"))]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_distill__starts_from_the_real_images_that_random_selection_takes(digits):
    dset = distill("dm", digits, 2, iterations=1, lr_img=1e-6, seed=3, **SMALL)
    torch.testing.assert_close(dset.images, coreset("random", digits, 2, seed=3).decoded()[0], atol=1e-4, rtol=0)


def test_distill__same_seed_same_set(digits):
    options = {"iterations": 3, **SMALL}
    sets = [distill("dm", digits, 1, seed=seed, **options).digest() for seed in (0, 0, 1)]
    assert sets[0] == sets[1] != sets[2]
    assert sorted(path.name for path in Path("runs/digits-dm-ipc1").iterdir()) == ["00000", "00001", "00002"]


def test_noise__starts_from_standard_normal_noise_in_training_space(digits):
    dset = distill("dm", "digits", 10, iterations=1, lr_img=1e-6, init="noise", **SMALL)
    x = dset.preprocess.forward(dset.images)
    assert abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05


def test_small_classes__are_sampled_with_replacement_and_said_once(capsys):
    distill("dm", "digits", 1, iterations=2, limit_per_class=5, out="run", **SMALL)
    said = "10 of 10 classes have fewer than batch_real 32 images: they are sampled with replacement."
    assert capsys.readouterr().err.count(said) == 1
    assert Path("run/log.txt").read_text().count(said) == 1


def start(folder: str, *more: str) -> subprocess.Popen:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "matching_dd.distill", *FLAGS, "--ipc=1", "--log_every=1", "--checkpoint_every=10"]
    return subprocess.Popen([*command, f"--out={folder}", *more])


@pytest.mark.parametrize(
    "method",
    [
        ["--method=dm"],
        ["--method=m3d"],  # tiles, learnt as pixels, a step per class
        ["--method=idm", "--push_every=4", "--train_steps=2", "--batch_train=32"],  # networks in training
        ["--method=dsa", "--outer=2", "--inner=2"],  # a network's life per iteration
        ["--method=mtt", "--experts=experts", "--syn_steps=3", "--max_start_epoch=2"],  # a learned learning rate
        ["--method=ead", "--experts=experts", "--checkpoints=2"],  # soft labels
    ],
    ids=lambda flags: flags[0].removeprefix("--method="),
)
def test_resume__after_kill_equals_uninterrupted_bit_for_bit(method):
    if "--experts=experts" in method:
        config = ExpertsConfig(network="convnet1_w8", experts=2, epochs=3, out="experts", tracker="none", device="cpu")
        record(config)
    process = start("killed", *method, "--iterations=1000000")
    deadline = time.monotonic() + 120
    while not Path("killed/checkpoints/last").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()

    saved = checkpoints(Path("killed"))[-1][0]
    end = f"--iterations={saved + 15}"
    assert start("killed", *method, end, "--resume").wait(120) == 0
    assert start("whole", *method, end).wait(120) == 0
    assert f"resumed at iteration {saved}" in Path("killed/log.txt").read_text()
    assert Path("killed/stats.jsonl").read_bytes() == Path("whole/stats.jsonl").read_bytes()
    whole, killed = DistilledSet.load("whole"), DistilledSet.load("killed")
    assert torch.equal(whole.images, killed.images) and torch.equal(whole.labels, killed.labels)


def test_resume__of_a_finished_run_goes_on_or_does_nothing(digits):
    distill("dm", digits, 1, iterations=4, out="run", **SMALL)
    first = DistilledSet.load("run").digest()
    assert distill("dm", digits, 1, iterations=4, out="run", resume=True, **SMALL).digest() == first
    longer = distill("dm", digits, 1, iterations=6, out="run", resume=True, **SMALL).digest()
    assert longer == distill("dm", digits, 1, iterations=6, out="other", **SMALL).digest() != first
    with pytest.raises(InputError, match=r"step-000006 is past iteration 5\. Raise --iterations"):
        distill("dm", digits, 1, iterations=5, out="run", resume=True, **SMALL)


def test_dry_run__prints_what_to_expect_and_writes_nothing(capsys):
    main([*FLAGS, "--iterations=5000", "--ipc=3", "--dry_run"])
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["ipc"] == 3
    assert re.search(r"# memory: \d+\.\d\d GiB", printed)
    assert re.search(r"# time: .* s to start, then .* s per iteration: \d+:\d\d:\d\d for 5000", printed)
    assert not list(Path().iterdir())


def test_diverging__stops_naming_the_step_and_the_last_checkpoint(digits):
    options = {"iterations": 9, "log_every": 1, "checkpoint_every": 1, "out": "run", **SMALL}
    with pytest.raises(Diverged, match=r"loss is (nan|inf) at step \d+\. The last good checkpoint is run/checkpoints/"):
        distill("dm", digits, 1, lr_img=1e37, **options)
    assert not Path("run/distilled.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "d"}, "unknown method 'd'; did you mean 'dm'"),
        ({"ipc": 0}, r"ipc must be >= 1, got 0\."),
        ({"ipc": 500}, r"class 0 \('0'\) of digits has \d+ training images, ipc is 500"),
        ({"iterations": 0}, "iterations must be >= 1, got 0"),
        ({"lr_img": 0.0}, "lr_img must be > 0, got 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
        ({"batch_real": 0}, "batch_real must be >= 1"),
        ({"init": "reel"}, "unknown init 'reel'; did you mean 'real'"),
        ({"augment": "colour_crop"}, "unknown DSA operation 'colour'; did you mean 'color'"),
        ({"network": "convnt3"}, "unknown network 'convnt3'; did you mean 'convnet3'"),
        ({"network": "convnet5"}, "too small for 5 poolings"),
        ({"memory_gib": 1e-6}, r"memory_gib 1e-06 is too small: one class needs \d"),
        ({"memory_gib": 1e-4, "network": "convnet1_bn_w8"}, "too small: all classes together need"),
        ({"memory_gib": -1.0}, "memory_gib must be > 0"),
        ({"lr_image": 1.0}, "unknown option of dm 'lr_image'; did you mean 'lr_img'"),
        ({"resume": True, "out": "nowhere"}, "nothing to resume at nowhere"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not usable"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_distill__refuses(digits, options, message):
    with pytest.raises(InputError, match=message):
        distill(**({"method": "dm", "data": digits, "ipc": 1, "iterations": 1} | SMALL | options))
    assert not list(Path().rglob("*.safetensors"))


def test_distill__never_overwrites(digits):
    distill("dm", digits, 1, iterations=1, out="run", **SMALL)
    with pytest.raises(InputError, match="run exists. Choose another --out, or continue it with --resume"):
        distill("dm", digits, 1, iterations=1, out="run", **SMALL)
