import contextlib
import importlib
import json
import math
import os
import re
import statistics
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from commands import ROOT, Process
from commands import run as run_command

from core_dd.clock import began as process_began
from core_dd.errors import InputError
from core_dd.sets.distilled import DistilledSet
from core_dd.sets.shards import shard_name
from gen_dd.budget import MARGIN, BatchPace, Clock, Ranks, TimeUp, fastest, most_steps, rounds, within
from gen_dd.guidance import make_guide
from gen_dd.options import SampleConfig
from gen_dd.sample import run, sample
from gen_dd.sampler import Sampler, pays_to_compile
from gen_dd.shards import ShardFolder, finished, gaps, leading
from gen_dd.uvit import UViT
from gen_dd.weights import load_model, save_model

TWO = ROOT / "configs" / "accelerate" / "two_cpus.yaml"
STEPS = 3


@pytest.fixture(scope="module")
def model(small_uvit):
    return small_uvit


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    card = {"data": "digits", "fingerprint": "a002f230981ce8ab", "class_names": list("0123456789")}
    save_model(model, folder / "model", card)
    return folder


def words(**options):
    """The command line of the script."""
    flags = [
        word
        for name, value in ({"steps": STEPS, "device": "cpu"} | options).items()
        for word in (f"--{name}", str(value))
    ]
    return [ROOT / "scripts" / "sample_timed.py", *(word for word in flags if word != "True")]


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
    fp32 = sample(model, num_per_class=12, steps=STEPS, batch=50, bf16=False).images
    for batch in (1, 7, 120):
        images = sample(model, num_per_class=12, steps=STEPS, batch=batch, bf16=False).images
        assert (images.int() - fp32.int()).abs().max() <= 1  # one 8-bit level: float rounding at a boundary
    assert sample(model, num_per_class=5, steps=STEPS, batch=50).labels.equal(reference.labels[:50])


def test_sample__noise_is_keyed_by_seed_class_and_index(model):
    sampler = Sampler(model, seed=3)
    noise = sampler.noise(range(30))
    assert torch.equal(sampler.noise([23]), noise[23:24])
    assert len({tuple(row.flatten().tolist()) for row in noise}) == 30
    assert not torch.equal(Sampler(model, seed=4).noise([23]), noise[23:24])


@pytest.fixture(scope="module")
def minimum(folder):
    """The shortest budget here, in seconds, as the command itself says."""
    done = run_command(*words(model=folder, out=folder / "never", budget="0.01s", batch=100))
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (folder / "never").exists()
    assert "a budget of 0.01 s is too short" in done.stderr
    return int(re.search(r"The minimum here is about (\d+) s", done.stderr)[1])


def test_clock__does_not_follow_the_machine_s_when_that_is_set(monkeypatch):
    """Set back or forward by an hour during a budget of 12 s, neither the budget nor the account notices."""
    budgeted = Clock(12.0, process_began(psutil.Process()))
    monkeypatch.setattr(time, "time", lambda real=time.time: real() - 3600)
    budgeted.book("load")
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + 7200)
    budgeted.book("rest")
    since = budgeted.elapsed()
    assert 0 <= since < 3000 and abs(sum(budgeted.parts.values()) - since) < 60


def assert_used(began, ended, seconds):
    """A budget that began then is used, and not exceeded, as closely as a busy machine lets one say; see
    `test_rounds__twenty_budgets_are_used_and_never_exceeded`."""
    assert seconds / 2 <= ended - began <= 1.5 * seconds + 2


def account(text):
    """The total of a summary, and its parts, in seconds."""
    total = float(re.search(r"([\d.]+) s(?: of [\d.]+ s \([\d.]+%\))?: ", text)[1])
    return total, {name: float(value) for name, value in re.findall(r"[:,] ([a-z ]+) ([\d.]+) s", text)}


def test_sample__budget_in_memory(model, minimum):
    began = time.time()
    dset = sample(model, budget_s=2.0 * minimum, steps=STEPS, batch=40)
    assert_used(began, time.time(), 2 * minimum)
    assert counts(dset).max() - counts(dset).min() <= 1 <= counts(dset).max()


def test_command__budget_covers_start_to_last_byte(folder, tmp_path, minimum):
    seconds = 2 * minimum
    done = Process(*words(model=folder, out=tmp_path / "out", budget=f"{seconds}s", num_per_class=10**6))
    began = time.time()
    assert done.wait() == 0, done.stderr
    assert_used(began, max(path.stat().st_mtime for path in (tmp_path / "out").iterdir()), seconds)
    dset = DistilledSet.load(tmp_path / "out")
    assert counts(dset).max() - counts(dset).min() <= 1
    assert (tmp_path / "out" / "grid.png").exists() and f"of {seconds} s" in done.stdout
    total, parts = account(done.stdout)
    assert {"load", "measure", "sample", "write", "rest"} <= parts.keys()
    assert abs(sum(parts.values()) - total) <= 0.005 * (len(parts) + 1)
    assert json.loads((tmp_path / "out" / "index.json").read_text())["meta"]["ipc"] is None
    assert "per class of 1000000 asked for" in done.stdout


def test_command__two_processes_draw_the_same_images(folder, tmp_path, reference):
    options = {"model": folder, "out": tmp_path / "out", "num_per_class": 12, "batch": 25}
    done = run_command("-m", "accelerate.commands.launch", "--config_file", TWO, *words(**options))
    assert done.returncode == 0, done.stderr
    dset = DistilledSet.load(tmp_path / "out")
    assert torch.equal(dset.labels, reference.labels)
    assert (dset.images.int() - reference.images.int()).abs().max() <= 2
    assert len(finished(tmp_path / "out", resume=True)) == 6  # 25 + 25, 25 + 25, 10 + 10


def test_command__kill_and_resume_loses_and_doubles_nothing(folder, tmp_path, reference):
    out = tmp_path / "out"
    options = {"model": folder, "out": out, "num_per_class": 120, "batch": 4}
    Process(*words(**options)).kill_once(lambda: len(list(out.glob("images-*"))) >= 3)
    before = finished(out, resume=True)
    assert len(before) >= 3 and not (out / "summary.txt").exists(), "the run ended before it could be killed"
    (out / shard_name(*before[1])).unlink()  # a hole, as another process's kill leaves
    done = run_command(*words(**options, resume=True))
    assert done.returncode == 0, done.stderr
    assert [shard[0] for shard in finished(out, resume=True)][1:] == [shard[1] for shard in finished(out, resume=True)][
        :-1
    ]
    dset = DistilledSet.load(out)
    assert len(dset) == 1200 and torch.equal(dset.labels[:120], reference.labels)
    assert (dset.images[:120].int() - reference.images.int()).abs().max() <= 2


def test_shards__are_written_when_that_takes_a_twentieth_of_the_time(folder, tmp_path, monkeypatch):
    """Of a clock by which a batch takes 3 s and a shard 1 s: after the first one every seventh batch, then the rest."""
    now, sizes = [0.0], []

    class Slow(ShardFolder):
        def add(self, numbers, drawn):
            now[0] += 3
            self.clock.book("sample")
            super().add(numbers, drawn)

    def slowly(path, tensors, header):
        now[0] += 1
        sizes.append(len(tensors["labels"]))

    monkeypatch.setattr("gen_dd.shards.write_tensors", slowly)
    sampler, clock = Sampler(load_model(folder)[0], steps=STEPS), Clock(None, now=lambda: now[0])
    shards = Slow(tmp_path, sampler, clock, Ranks(), {}, {"class_names": []})
    for start in range(0, 36, 2):
        shards.add(range(start, start + 2), {"images": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)})
    shards.write()
    assert sizes == [2, 14, 14, 6]


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
    module = importlib.import_module("gen_dd.shards")
    real, written = module.write_tensors, []

    def failing(path, *rest):
        if len(written) == 2:
            raise InputError(f"cannot write {path}: No space left on device.")
        written.append(path)
        real(path, *rest)

    monkeypatch.setattr(module, "write_tensors", failing)
    monkeypatch.setattr(module, "_BETWEEN", 0)
    options = {"model": str(folder), "out": str(tmp_path / "out"), "steps": STEPS, "device": "cpu", "batch": 10}
    with pytest.raises(InputError, match="No space left"):
        run(SampleConfig(**options, num_per_class=5))
    assert len(DistilledSet.load(tmp_path / "out")) == 20


def test_gaps__holes_then_the_rest():
    assert gaps([], None) == [(0, None)]
    assert gaps([(0, 4), (8, 10)], 12) == [(4, 8), (10, 12)]
    assert gaps([(2, 4)], 4) == [(0, 2)]
    assert gaps([(0, 4), (6, 10)], 5) == [(4, 5)] and gaps([(0, 10)], 5) == []


def test_leading__is_what_lies_before_the_first_hole():
    assert leading([]) == leading([(2, 4)]) == []
    assert leading([(0, 4), (4, 6), (8, 10), (10, 12)]) == [(0, 4), (4, 6)]


def test_resume__a_hole_that_there_is_no_time_to_fill_ends_the_set(folder, tmp_path, capsys, monkeypatch):
    """As a kill of one of several processes leaves it, and a budget that was spent."""
    monkeypatch.setattr("gen_dd.shards._BETWEEN", 0)  # a shard for each batch
    out = tmp_path / "out"
    options = {"model": str(folder), "out": str(out), "steps": STEPS, "device": "cpu", "batch": 14}
    run(SampleConfig(**options, num_per_class=5, budget="1h"))
    assert finished(out, resume=True) == [(0, 14), (14, 28), (28, 42), (42, 50)]
    (out / shard_name(14, 28)).unlink()
    index = json.loads((out / "index.json").read_text())
    index["meta"]["cost"]["seconds"] = 3599.9
    (out / "index.json").write_text(json.dumps(index))
    capsys.readouterr()
    run(SampleConfig(**options, num_per_class=5, budget="1h", resume=True))
    said, dset = capsys.readouterr().out, DistilledSet.load(out)
    assert torch.equal(dset.labels, torch.arange(14) % 10) and ": 14 images, 1 or 2 per class of 5" in said
    assert "note: 22 more images lie behind a hole, which a kill left at number 14" in said
    run(SampleConfig(**options, num_per_class=5, budget="2h", resume=True))
    assert counts(DistilledSet.load(out)).tolist() == [5] * 10


def test_picture__waits_for_ten_of_each_class_where_the_guide_draws_groups(model, tmp_path):
    guide = make_guide("repulsion", slots=50)
    sampler = Sampler(model, steps=STEPS, guide=guide, batch=50)
    shards = ShardFolder(tmp_path, sampler, Clock(None), Ranks(), {}, {"class_names": []})
    assert set(range(10)) == set(sampler.labels(range(shards.enough)).tolist())


@pytest.mark.parametrize(("text", "seconds"), [("20s", 20), ("10m", 600), ("1h", 3600), ("90", 90), ("1.5m", 90)])
def test_config__budget_units(text, seconds):
    assert SampleConfig(model="m", out="o", budget=text).seconds == seconds


class Simulated:
    """A clock that only waiting moves; a machine on it draws an image in `each` seconds, plus or minus a tenth."""

    def __init__(self, each=0.01, seed=0):
        self.time, self.each, self.generator = 0.0, each, torch.Generator().manual_seed(seed)

    def __call__(self):
        return self.time

    def wait(self, seconds):
        self.time += seconds

    def draw(self, numbers, seconds):
        """Ten evaluations, given up as soon as it shows that they take too long."""
        x = torch.zeros(1)
        step = within(seconds, [0.1] * 10, lambda x, t: self.wait(self.each * len(numbers) / 10 * self.noise()), self)
        for _ in range(10):
            step(x, x)
        return torch.zeros(len(numbers))

    def noise(self):
        return 0.9 + 0.2 * torch.rand((), generator=self.generator).item()


def test_rounds__twenty_budgets_are_used_and_never_exceeded():
    """Never exceeded; 97 % and more at the median, and a run that misses this has no room for two more images."""
    used = []
    for i in range(20):
        machine, budget = Simulated(seed=i), 2.6 + 0.025 * i
        clock = Clock(budget, now=machine)
        clock.reserve = 0.03
        machine.wait(0.4)
        for _ in rounds(machine.draw, BatchPace(0.01, 0.3, 30), clock, [(0, None)], Ranks()):
            machine.wait(0.02 * machine.noise())  # the write
        used.append(clock.elapsed() / budget)
        assert used[-1] <= 1
        guard = max(0.01 * budget, 0.03)
        assert used[-1] >= 0.97 or budget - clock.elapsed() - guard - clock.reserve <= 2 * 0.01
    assert statistics.median(used) >= 0.97, " ".join(f"{part:.1%}" for part in used)


def test_rounds__last_batches_shrink_into_the_time_left():
    machine = Simulated()
    clock = Clock(1.85, now=machine)
    drawn = [len(numbers) for numbers, _ in rounds(machine.draw, BatchPace(0.01, 0.3, 30), clock, [(0, None)], Ranks())]
    assert clock.elapsed() <= 1.85 - clock.reserve and clock.left() < 0.05
    assert drawn[0] == 30 and drawn[-1] < 10 and sum(drawn) > 150


def test_rounds__a_batch_that_turns_out_too_slow_is_given_up_and_redrawn_smaller():
    """The machine is ten times slower than measured: the budget still holds, and no number is skipped."""
    machine = Simulated(each=0.1)
    clock, numbers = Clock(2.35, now=machine), []
    for part, _ in rounds(machine.draw, BatchPace(0.01, 0.3, 30), clock, [(0, None)], Ranks()):
        numbers += part
    assert clock.elapsed() <= 2.35 - clock.reserve
    assert numbers == list(range(len(numbers))) and len(numbers) >= 5


def test_rounds__learn_at_once_how_slow_it_is():
    """A batch that turns out forty times as slow as expected is given up once, and the next has the right size."""
    tried, machine = [], Simulated(each=0.4)

    def draw(numbers, seconds):
        tried.append(len(numbers))
        if len(numbers) * 0.4 > seconds:
            raise TimeUp(len(numbers) * 0.4)
        machine.wait(0.001)
        return torch.zeros(len(numbers))

    drawing = rounds(draw, BatchPace(0.01, 1.0, 100), Clock(10.0, now=machine), [(0, 1000)], Ranks())
    next(drawing)
    assert tried[0] == 100 and len(tried) == 2 and 15 <= tried[1] <= 25


def test_sample__a_budget_that_ends_before_the_first_batch(model, folder, tmp_path, monkeypatch):
    """The machine gets slower than measured: the same words in memory as by the command, which writes nothing."""

    def too_slow(self, numbers, seconds):
        raise TimeUp(1e6)

    monkeypatch.setattr(Sampler, "draw", too_slow)
    message = "the budget of 9 s ended before the first batch did: .* Nothing was drawn; sample again"
    with pytest.raises(InputError, match=message):
        sample(model, budget_s=9.0, steps=STEPS, batch=20)
    with pytest.raises(InputError, match=message):
        run(SampleConfig(model=str(folder), out=str(tmp_path / "out"), budget="9s", steps=STEPS, device="cpu"))
    assert not (tmp_path / "out").exists()


def test_rounds__a_resumed_folder_may_find_its_budget_spent():
    def draw(numbers, seconds):
        raise TimeUp(1e6)

    assert list(rounds(draw, BatchPace(0.01, 0.3, 30), Clock(5.0), [(4, None)], Ranks())) == []


def test_sample__no_guidance_where_the_null_class_was_not_learnt(model, tmp_path):
    """As the card of a folder says that was written before config.json did."""
    save_model(model, tmp_path / "model", {"train": {"label_dropout": 0.0}})
    assert len(sample(tmp_path / "model", num_per_class=1, steps=1)) == 10
    with pytest.raises(InputError, match="trained with label_dropout 0"):
        sample(tmp_path / "model", num_per_class=1, steps=1, cfg_scale=0.5)


def test_within__raises_as_soon_as_it_shows():
    calls, x, machine = [], torch.zeros(1), Simulated()
    step = within(0.5, [0.01] * 100, lambda x, t: (machine.wait(0.02), calls.append(1)), machine)
    with pytest.raises(TimeUp) as given_up:
        for _ in range(100):
            step(x, x)
    assert len(calls) <= 3 and given_up.value.expected >= 1.9  # 100 x 0.02 s: known after two


@pytest.mark.parametrize(("calls", "given_up"), [(1, False), (2, True)])
def test_within__of_two_calls_the_first_tells(calls, given_up):
    x, machine, made = torch.zeros(1), Simulated(), []
    step = within(0.5, [1 / calls] * calls, lambda x, t: (machine.wait(0.4), made.append(1)), machine)
    with pytest.raises(TimeUp) if given_up else contextlib.nullcontext():
        for _ in range(calls):
            step(x, x)
    assert len(made) == 1


def test_within__knows_that_later_calls_are_cheaper():
    """The first three calls take nearly all of the time, as those under a guide that stops do."""
    lengths, x, machine = [0.1] * 3 + [0.001] * 47, torch.zeros(1), Simulated()
    calls, shares = iter(lengths), [length / sum(lengths) for length in lengths]
    step = within(0.4, shares, lambda x, t: machine.wait(next(calls)), machine)
    for _ in lengths:
        step(x, x)
    assert next(calls, None) is None


def test_pace__fitting_is_the_largest_batch_that_fits():
    pace = BatchPace(1.0, 10.0, 100, whole=4.0)  # one image 1 s, 99 images 9.9 s, the compiled hundred 4 s
    for seconds in (0.5, 1.1, 2.0, 4.3, 4.41, 30.0):
        fits = [n for n in range(1, 101) if MARGIN * pace.seconds(n) <= seconds]
        assert pace.fitting(seconds) == (100 if 100 in fits else max(fits, default=0))
    groups = BatchPace(1.0, 1.0, 10, least=10)
    assert groups.fitting(1.2) == 10 and groups.fitting(1.0) == 0


@pytest.mark.parametrize(("saturated", "size"), [(1, 1), (4, 4), (60, 64), (100_000, 1024)])
def test_fastest__is_the_smallest_batch_that_saturates(saturated, size):
    """A batch takes as long as `saturated` images, or its own time where it is larger."""
    pace = fastest(lambda images: max(images, saturated) * 0.001, 1, 1024, math.inf, lambda at_most: True)
    assert pace.batch == size and pace.seconds(size) == pytest.approx(max(size, saturated) * 0.001)
    assert pace.seconds(1) == pytest.approx(saturated * 0.001)


def test_fastest__stops_where_larger_is_slower():
    times = {1: 1.0, 4: 4.0, 16: 14.0, 64: 64.0}  # no entry for 256: it is not asked for
    assert fastest(times.__getitem__, 1, 1024, math.inf, lambda at_most: True).batch == 16


def test_fastest__sizes_are_whole_groups_that_can_be_afforded():
    assert fastest(lambda images: 1.0, 5, 1024, math.inf, lambda at_most: True).batch == 1020
    assert fastest(lambda images: 1.0, 5, 1024, math.inf, lambda at_most: False).batch == 5
    assert fastest(lambda images: 0.1 * images**0.5, 1, 1024, math.inf, lambda at_most: at_most <= 1).batch == 16
    assert fastest(lambda images: 0.1 * images**0.5, 1, 1024, 0.5, lambda at_most: True).batch == 16


@pytest.mark.parametrize(("each", "steps"), [(10.0, 10), (100 / 23.5 / MARGIN, 23), (0.01, 50)])
def test_most_steps__as_many_as_fit(each, steps):
    assert most_steps(each, 100.0) == steps


def test_calibrate__chooses_the_batch_and_foresees_its_time(model):
    sampler, clock = Sampler(model, steps=20), Clock(60.0)
    pace = sampler.calibrate(clock)
    assert sampler.batch == pace.batch and sampler.batch in (1, 4, 16, 64, 256, 1024)  # 1 where the machine is busy
    began = time.perf_counter()
    sampler.draw(range(sampler.batch))
    assert 0.05 <= (time.perf_counter() - began) / pace.seconds(sampler.batch) <= 20  # a busy machine varies
    assert clock.parts.keys() == {"measure"}
    assert Sampler(model, batch=30).calibrate(Clock(60.0)).batch == 30


def test_calibrate__does_not_count_what_the_first_look_loads(model, monkeypatch):
    """Which on a GPU takes half a second: of a few seconds that are left, no larger batch would be tried."""
    sampler, looks = Sampler(model, steps=2), []

    def seconds(images, network=None):
        looks.append(images)
        return 1.0 if len(looks) == 1 else 1e-4 + 1e-6 * images

    monkeypatch.setattr(sampler, "seconds", seconds)
    assert sampler.calibrate(Clock(5.0)).batch > 16


def test_pays_to_compile__in_many_images_and_much_time(model, monkeypatch):
    monkeypatch.setattr("core_dd.speed.can_compile", lambda kind: True)
    device = torch.device("cpu")
    assert pays_to_compile(model, 10**7, 50, device) and pays_to_compile(model, math.inf, 50, device, left=1e5)
    assert not pays_to_compile(model, 10, 5, device) and not pays_to_compile(model, math.inf, 50, device, left=20.0)


def test_compile__is_left_out_where_the_budget_has_no_time_for_it(model, compiling, capsys):
    """Compiling cannot be stopped, so a budget too short for it would be overrun."""
    sampler, clock = Sampler(model, steps=STEPS, batch=20, compile=True), Clock(10.0)
    assert sampler.fast is not model
    sampler.calibrate(clock)
    assert sampler.fast is model and clock.parts.keys() == {"measure"}
    assert capsys.readouterr().err.count("not compiled: 10 s of the budget are left") == 1


def test_costs__guided_evaluations_are_told_apart(monkeypatch):
    """Of a network that takes a second for every image, on a clock of its own."""
    passed = 0

    def network(x, timestep, labels):
        nonlocal passed
        passed += len(x)
        return torch.zeros_like(x)

    monkeypatch.setattr("gen_dd.sampler.time", SimpleNamespace(perf_counter=lambda: passed))
    sampler = Sampler(UViT.from_preset("tiny", num_classes=10), steps=10, cfg_scale=0.5, cfg_interval=(0.2, 0.5))
    rest, each = sampler.costs(6, network)
    guided = [0.2 <= 1 - 0.999 * k / 10 <= 0.5 for k in range(10)]
    assert rest == 0 and each == [12 if both else 6 for both in guided]


def test_auto_steps__the_most_that_leave_room_for_the_number(model):
    pace = Sampler(model, steps=50).calibrate(Clock(20.0))
    total = math.ceil(20 / (pace.whole / pace.batch / 50 * 25))  # twenty-five steps would take all of 20 s
    sampler, clock = Sampler(model, steps="auto"), Clock(20.0)
    pace = sampler.calibrate(clock, total)
    expected = MARGIN * pace.whole * total / sampler.batch
    assert expected <= clock.budget or sampler.steps == 10
    assert expected * (sampler.steps + 1) / sampler.steps > clock.left() or sampler.steps == 50


def test_auto_steps__are_printed_recorded_and_kept_on_resume(folder, tmp_path, capsys):
    options = {"model": str(folder), "out": str(tmp_path / "out"), "device": "cpu", "steps": "auto"}
    run(SampleConfig(**options, budget="60s", num_per_class=2))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    steps = index["identity"]["steps"]
    assert 10 <= steps <= 50 and index["meta"]["config"]["steps"] == steps
    assert f"{steps} steps" in capsys.readouterr().out

    run(SampleConfig(**options, budget="90s", num_per_class=3, resume=True))
    assert f"{steps} steps" in capsys.readouterr().out
    assert counts(DistilledSet.load(tmp_path / "out")).tolist() == [3] * 10
    with pytest.raises(InputError, match=f"was drawn with steps {steps}, now it is 9"):
        run(SampleConfig(**options | {"steps": 9}, budget="90s", resume=True))


def test_auto_steps__in_memory(model):
    dset = sample(model, budget_s=600.0, num_per_class=1, steps="auto")
    assert len(dset) == 10 and dset.meta["config"]["steps"] == 50 and dset.meta["ipc"] == 1


def test_number_and_budget__the_number_may_end_first(folder, tmp_path, capsys):
    """The other end is that of `test_command__budget_covers_start_to_last_byte`."""
    run(SampleConfig(model=str(folder), out=str(tmp_path / "few"), num_per_class=1, budget="60s", steps=STEPS))
    assert counts(DistilledSet.load(tmp_path / "few")).tolist() == [1] * 10
    assert json.loads((tmp_path / "few" / "index.json").read_text())["meta"]["ipc"] == 1
    assert "asked for" not in capsys.readouterr().out


def test_resume__knows_a_folder_by_its_shards_where_no_index_is(folder, tmp_path, capsys):
    """As a kill between the first shard and its index leaves it."""
    options = {"model": str(folder), "out": str(tmp_path / "out"), "device": "cpu"}
    run(SampleConfig(**options, steps=STEPS, num_per_class=1))
    (tmp_path / "out" / "index.json").unlink()
    with pytest.raises(InputError, match="was drawn with seed 0, now it is 1"):
        run(SampleConfig(**options, steps=STEPS, num_per_class=2, seed=1, resume=True))
    capsys.readouterr()
    run(SampleConfig(**options, steps="auto", num_per_class=2, budget="60s", resume=True))
    output = capsys.readouterr().out
    assert f"20 images, 2 per class, {STEPS} steps" in output
    total, parts = account(output)
    assert parts["earlier runs"] > 0 and abs(sum(parts.values()) - total) <= 0.005 * (len(parts) + 1)


def test_index__is_json_with_every_shard(folder, tmp_path):
    run(SampleConfig(model=str(folder), out=str(tmp_path / "out"), steps=STEPS, num_per_class=2, batch=7, device="cpu"))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert sum(shard["images"] for shard in index["shards"]) == 20
    assert index["meta"]["data"] == "digits" and index["meta"]["method"] == "uvit"
    assert os.path.getsize(tmp_path / "out" / "grid.png") > 0
    assert (tmp_path / "out" / "summary.txt").read_text().startswith(f"{tmp_path / 'out'}: 20 images, 2 per class")
