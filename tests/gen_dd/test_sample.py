import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from core_dd.distilled import DistilledSet
from core_dd.errors import InputError
from gen_dd.budget import Clock, Pace, Ranks, TimeUp, rounds, within
from gen_dd.sample import SampleConfig, Sampler, finished, gaps, run, sample
from gen_dd.uvit import UViT
from gen_dd.weights import save_model

ROOT = Path(__file__).parent.parent.parent
STEPS = 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return UViT.from_preset("tiny", num_classes=10).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    card = {"data": "digits", "fingerprint": "a002f230981ce8ab", "class_names": list("0123456789")}
    save_model(model, folder / "model", card)
    return folder


def start(*launcher, **options):
    flags = [
        word
        for name, value in ({"steps": STEPS, "device": "cpu"} | options).items()
        for word in (f"--{name}", str(value))
    ]
    flags = [word for word in flags if word != "True"]
    command = [sys.executable, *launcher, str(ROOT / "scripts" / "sample_timed.py"), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def counts(dset):
    return torch.bincount(dset.labels, minlength=10)


@pytest.fixture(scope="module")
def reference(model):
    return sample(model, num_per_class=12, steps=STEPS, batch=50)


def test_sample__goes_round_the_classes(reference):
    assert reference.labels.tolist() == [number % 10 for number in range(120)]
    assert reference.images.dtype == torch.uint8 and reference.images.shape == (120, 1, 8, 8)
    reference.check()


def test_sample__batch_size_changes_nothing(model, reference):
    for batch in (1, 7, 120):
        images = sample(model, num_per_class=12, steps=STEPS, batch=batch, bf16=False).images
        fp32 = sample(model, num_per_class=12, steps=STEPS, batch=50, bf16=False).images
        assert (images.int() - fp32.int()).abs().max() <= 1  # one 8-bit level: float rounding at a boundary
    assert sample(model, num_per_class=5, steps=STEPS, batch=50).labels.equal(reference.labels[:50])


def test_sample__noise_is_keyed_by_seed_class_and_index(model):
    sampler = Sampler(model, seed=3)
    noise = sampler.noise(range(30))
    assert torch.equal(sampler.noise([23]), noise[23:24])
    assert len({tuple(row.flatten().tolist()) for row in noise}) == 30
    assert not torch.equal(Sampler(model, seed=4).noise([23]), noise[23:24])


@pytest.mark.parametrize("budget", [2.0, 4.0])
def test_sample__budget_in_memory_is_used_and_never_overrun(model, budget):
    began = time.perf_counter()
    dset = sample(model, budget_s=budget, steps=STEPS, batch=40)
    assert time.perf_counter() - began <= budget
    low, high = counts(dset).min(), counts(dset).max()
    assert high - low <= 1 and high >= 1


@pytest.fixture(scope="module")
def minimum(folder):
    """The shortest budget here, in seconds, as the command itself says."""
    process = start(model=folder, out=folder / "never", budget="1s", batch=100)
    _, errors = process.communicate()
    assert process.returncode == 2 and "a budget of 1 s is too short" in errors and "Traceback" not in errors
    assert not (folder / "never").exists()
    return int(re.search(r"The minimum here is about (\d+) s", errors)[1])


@pytest.mark.parametrize("launcher", [[], ["-m", "torch.distributed.run", "--nproc_per_node", "1"]])
def test_command_start__is_when_the_first_process_was_started(tmp_path, launcher):
    """psutil alone is off by the fraction of a second in which the machine was booted."""
    script = tmp_path / "script.py"
    script.write_text("from gen_dd.sample import command_start; print(f'{command_start():.3f}')")
    began = time.time()
    command = [sys.executable, *launcher, str(script)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert began - 0.03 <= float(output.split()[-1]) <= began + 0.5


@pytest.mark.parametrize("extra", [3, 6])
def test_command__budget_covers_start_to_last_byte(folder, tmp_path, minimum, extra):
    seconds, began = minimum + extra, time.time()
    process = start(model=folder, out=tmp_path / "out", budget=f"{seconds}s", batch=100)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    written = max(path.stat().st_mtime for path in (tmp_path / "out").iterdir())
    assert written - began <= seconds
    assert written - began >= 0.85 * seconds
    dset = DistilledSet.load(tmp_path / "out")
    assert counts(dset).max() - counts(dset).min() <= 1
    assert (tmp_path / "out" / "grid.png").exists() and f"of {seconds} s" in output and "finish" in output


def test_command__two_processes_draw_the_same_images(folder, tmp_path, reference):
    options = {"model": folder, "out": tmp_path / "out", "num_per_class": 12, "batch": 25}
    process = start("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", **options)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    dset = DistilledSet.load(tmp_path / "out")
    assert torch.equal(dset.labels, reference.labels)
    assert (dset.images.int() - reference.images.int()).abs().max() <= 2
    assert len(finished(tmp_path / "out", resume=True)) == 6  # 25 + 25, 25 + 25, 10 + 10


def test_command__kill_and_resume_loses_and_doubles_nothing(folder, tmp_path, reference):
    out = tmp_path / "out"
    options = {"model": folder, "out": out, "num_per_class": 12, "batch": 4}
    process = start(**options)
    while process.poll() is None and len(list(out.glob("images-*"))) < 5:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = finished(out, resume=True)
    assert 5 <= len(before) < 30, "the run ended before it could be killed"
    (out / "images-00000004-00000008.safetensors").unlink()  # a hole, as another process's kill leaves
    process = start(**options, resume=True)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert [shard[0] for shard in finished(out, resume=True)][1:] == [shard[1] for shard in finished(out, resume=True)][
        :-1
    ]
    dset = DistilledSet.load(out)
    assert torch.equal(dset.labels, reference.labels)
    assert (dset.images.int() - reference.images.int()).abs().max() <= 2


def test_resume__refuses_other_settings(folder, tmp_path):
    options = {"model": str(folder), "out": str(tmp_path / "out"), "steps": STEPS, "device": "cpu"}
    run(SampleConfig(**options, num_per_class=2))
    with pytest.raises(InputError, match="was drawn with seed 0, now it is 1"):
        run(SampleConfig(**options, num_per_class=3, resume=True, seed=1))
    with pytest.raises(InputError, match="exists. Choose another --out"):
        run(SampleConfig(**options, num_per_class=3))
    run(SampleConfig(**options, num_per_class=3, resume=True))
    assert counts(DistilledSet.load(tmp_path / "out")).tolist() == [3] * 10


def test_resume__refuses_another_model(folder, tmp_path):
    run(SampleConfig(model=str(folder), out=str(tmp_path / "out"), steps=STEPS, num_per_class=1, device="cpu"))
    save_model(UViT.from_preset("tiny", num_classes=10), tmp_path / "other" / "model", {})
    with pytest.raises(InputError, match="was drawn with weights"):
        run(
            SampleConfig(
                model=str(tmp_path / "other"), out=str(tmp_path / "out"), steps=STEPS, num_per_class=2, resume=True
            )
        )


def test_full_disk__keeps_the_shards_written(folder, tmp_path, monkeypatch):
    module = importlib.import_module("gen_dd.sample")
    real, written = module.write_tensors, []

    def failing(path, *rest):
        if len(written) == 2:
            raise InputError(f"cannot write {path}: No space left on device.")
        written.append(path)
        real(path, *rest)

    monkeypatch.setattr(module, "write_tensors", failing)
    options = {"model": str(folder), "out": str(tmp_path / "out"), "steps": STEPS, "device": "cpu", "batch": 10}
    with pytest.raises(InputError, match="No space left"):
        run(SampleConfig(**options, num_per_class=5))
    assert len(DistilledSet.load(tmp_path / "out")) == 20


def test_gaps__holes_then_the_rest():
    assert gaps([], None) == [(0, None)]
    assert gaps([(0, 4), (8, 10)], 12) == [(4, 8), (10, 12)]
    assert gaps([(2, 4)], 4) == [(0, 2)]


@pytest.mark.parametrize(("text", "seconds"), [("20s", 20), ("10m", 600), ("1h", 3600), ("90", 90), ("1.5m", 90)])
def test_config__budget_units(text, seconds):
    assert SampleConfig(model="m", out="o", budget=text).seconds == seconds


def test_rounds__last_batches_shrink_into_the_time_left():
    def draw(numbers, seconds):
        time.sleep(0.01 * len(numbers))
        return torch.zeros(len(numbers))

    clock, began = Clock(1.85, time.time()), time.time()
    drawn = [len(numbers) for numbers, _ in rounds(draw, Pace(0.01, 0.3, 30), clock, [(0, None)], Ranks())]
    assert time.time() - began <= 1.85 - 0.35 and clock.left() < 0.15
    assert drawn[0] == 30 and drawn[-1] < 10 and sum(drawn) > 110


def test_rounds__a_batch_that_turns_out_too_slow_is_given_up_and_redrawn_smaller():
    """The machine is ten times slower than measured: the budget still holds, and no number is skipped."""

    def draw(numbers, seconds):
        step = within(seconds, 10, lambda x, t: time.sleep(0.01 * len(numbers)))
        for _ in range(10):
            step(None, None)
        return torch.zeros(len(numbers))

    clock, numbers = Clock(2.35, time.time()), []
    for part, _ in rounds(draw, Pace(0.01, 0.3, 30), clock, [(0, None)], Ranks()):
        numbers += part
    assert clock.elapsed() <= 2.35 - 0.35 + 0.05
    assert numbers == list(range(len(numbers))) and len(numbers) >= 5


def test_within__raises_as_soon_as_it_shows():
    calls = []
    step = within(0.5, 100, lambda x, t: (time.sleep(0.02), calls.append(1)))
    with pytest.raises(TimeUp):
        for _ in range(100):
            step(None, None)
    assert len(calls) <= 3  # 100 x 0.02 s: known after two


def test_index__is_json_with_every_shard(folder, tmp_path):
    run(SampleConfig(model=str(folder), out=str(tmp_path / "out"), steps=STEPS, num_per_class=2, batch=7, device="cpu"))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert sum(shard["images"] for shard in index["shards"]) == 20
    assert index["meta"]["data"] == "digits" and index["meta"]["method"] == "uvit"
    assert os.path.getsize(tmp_path / "out" / "grid.png") > 0
