"""What a classifier of the real data rejects is drawn again."""

import dataclasses
import math

import pytest
import torch
from commands import ROOT
from commands import run as run_command

from core_dd import records
from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.sets.distilled import DistilledSet, read_tensors
from gen_dd.budget import BatchPace, Clock, Ranks, TimeUp, rounds
from gen_dd.options import SampleConfig
from gen_dd.sample import run
from gen_dd.sampler import Sampler
from gen_dd.shards import finished
from gen_dd.sieve import TRIES, Replacing, Sieve, Tally
from gen_dd.uvit import UViT
from gen_dd.weights import save_model

FIT = {"network": "convnet1_w8", "protocol": "quick", "seed": 0, "device": torch.device("cpu")}
OPTIONS = {"steps": 2, "device": "cpu", "filter": 0.0, "filter_network": "convnet1_w8", "bf16": False}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return UViT.from_preset("tiny", num_classes=10).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(model, folder / "model", {"data": "digits", "class_names": list("0123456789"), "train": {}})
    return folder


@pytest.fixture(scope="module")
def data():
    return load_data("digits", val_fraction=0.1)


@pytest.fixture(scope="module")
def sieve(data):
    return Sieve.fit(data, 0.0, **FIT)


@pytest.fixture
def sampler(model):
    """Of an untrained model: a classifier of digits recognises some of its images by luck."""
    return Sampler(model, steps=2, bf16=False)


def test_fit__takes_the_threshold_from_the_validation_images_it_gets_right(data):
    sieve = Sieve.fit(data, 0.1, **FIT)
    pixels = sieve.classifier.preprocess.forward(data.val_images)
    with torch.no_grad():
        shares = sieve.classifier.network(0)(pixels).softmax(1)
    own = shares[torch.arange(len(shares)), data.val_labels]
    right = shares.argmax(1) == data.val_labels
    assert 0.5 < sieve.recognised == pytest.approx(float(right.float().mean()))
    below = float((own[right] < sieve.threshold).float().mean())
    assert 0 < sieve.threshold < 1 and below == pytest.approx(0.1, abs=0.02)
    assert torch.equal(sieve(data.val_images, data.val_labels)[1], right & (own >= sieve.threshold))


def test_fit__without_a_share_has_no_threshold_and_never_looks_at_the_test_images(data):
    blind = dataclasses.replace(data, test_images=data.test_images[:0], test_labels=data.test_labels[:0])
    assert Sieve.fit(blind, 0.0, **FIT).threshold == 0.0


def test_fit__looks_at_the_validation_images_once(sieve, data, monkeypatch):
    calls = []
    monkeypatch.setattr("core_dd.judge.fidelity.probabilities", lambda *_: calls.append(_) or torch.eye(10)[:1])
    again = Sieve.fit(data, 0.0, **FIT)
    assert (again.threshold, again.recognised) == (sieve.threshold, sieve.recognised) and not calls
    one = dataclasses.replace(data, val_images=data.val_images[:1], val_labels=torch.zeros(1, dtype=torch.int64))
    assert Sieve.fit(one, 0.0, **FIT).recognised == 1.0 and len(calls) == 1  # another split


def test_fit__refuses_what_cannot_filter(sieve, data):
    with pytest.raises(InputError, match="protocol rded takes a teacher"):
        Sieve.fit(data, 0.1, **FIT | {"protocol": "rded"})
    others = dataclasses.replace(data, val_labels=(data.val_labels + 1) % 10, val_images=data.val_images)
    right = sieve(data.val_images, data.val_labels)[1]
    others = dataclasses.replace(others, val_images=data.val_images[right], val_labels=others.val_labels[right])
    with pytest.raises(InputError, match=f"recognises none of {int(right.sum())} validation images"):
        Sieve.fit(others, 0.1, **FIT)


def test_draw__takes_the_first_accepted_attempt_else_the_likeliest(sampler, sieve):
    numbers = range(40)
    drawn, labels = Replacing(sampler, sieve).draw(numbers), sampler.labels(numbers)
    attempts = [sampler.draw(numbers, attempt=attempt) for attempt in range(TRIES)]
    sure, good = (torch.stack(part) for part in zip(*(sieve(images, labels) for images in attempts), strict=True))
    first = torch.where(good.any(0), good.int().argmax(0), sure.argmax(0))
    assert torch.equal(drawn["accepted"], good.any(0)) and 0 < int(good.any(0).sum()) < 40
    assert torch.equal(drawn["tries"], torch.where(good.any(0), first + 1, TRIES).byte())
    expected = torch.stack([attempts[k][i] for i, k in enumerate(first.tolist())])
    assert (drawn["images"].int() - expected.int()).abs().max() <= 1  # one level: float rounding in other batches


def test_draw__batches_change_nothing(sampler, sieve):
    replacing = Replacing(sampler, sieve)
    whole, parts = replacing.draw(range(30)), [replacing.draw(range(i, i + 10)) for i in (0, 10, 20)]
    for name, tensor in whole.items():
        assert (tensor.int() - torch.cat([part[name] for part in parts]).int()).abs().max() <= 1


class Hurried(Sampler):
    """Has no time for anything but first attempts."""

    def draw(self, numbers, seconds=math.inf, attempt=0):
        if attempt:
            raise TimeUp(1.0)
        return super().draw(numbers, attempt=0)


def test_draw__without_time_rejected_images_stay(model, sieve):
    hurried = Hurried(model, steps=2, bf16=False)
    drawn = Replacing(hurried, sieve).draw(range(20), 1e6)
    assert torch.equal(drawn["images"], hurried.draw(range(20))) and drawn["tries"].eq(1).all()
    assert not drawn["accepted"].all()


@pytest.mark.parametrize(("total", "replaced"), [(20, True), (10**9, False)])
def test_draw__a_number_asked_for_is_not_given_up_for_replacements(sampler, sieve, total, replaced):
    drawn = Replacing(sampler, sieve, total).draw(range(20), 1000.0)
    assert bool(drawn["tries"].max() > 1) == replaced


class Pretended:
    """Draws grey images in made-up time, a classifier that accepts some of them included."""

    group, shape, batch = 1, (1, 8, 8), 64

    def __init__(self, accepts):
        self.time, self.accepts, self.generator = 0.0, accepts, torch.Generator().manual_seed(0)

    def now(self):
        return self.time

    def labels(self, numbers):
        return torch.tensor([i % 10 for i in numbers])

    def draw(self, numbers, seconds=math.inf, attempt=0):
        wanted = 0.02 + 0.01 * len(numbers)
        self.time += wanted if wanted <= seconds else 0.3 * wanted
        if wanted > seconds:
            raise TimeUp(wanted)
        return torch.zeros(len(numbers), *self.shape, dtype=torch.uint8)

    def sieve(self, images, labels):
        self.time += 0.0005 * len(labels)
        sure, luck = torch.rand(2, len(labels), generator=self.generator)
        return sure, luck < self.accepts


@pytest.mark.parametrize("accepts", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("times", [1.4, 2.1, 2.4, 3.1])
def test_rounds__what_was_asked_for_is_whole_however_much_is_rejected(monkeypatch, accepts, times):
    """In a budget of so many times what drawing each once takes."""
    for total in (100, 200):
        pretended = Pretended(accepts)
        monkeypatch.setattr("gen_dd.sieve.now", pretended.now)
        clock = Clock(times * (0.0105 * total + 0.02 * math.ceil(total / 64)) + 0.4, 0.0, pretended.now)
        pace, replacing = BatchPace(0.03, 0.66, 64), Replacing(pretended, pretended.sieve, total)
        pace.add(replacing.look())
        replacing.follow(pace)
        drawn = [len(numbers) for numbers, _ in rounds(replacing.draw, pace, clock, [(0, total)], Ranks())]
        assert sum(drawn) == total and clock.left() >= 0


def test_look__shows_the_classifier_a_few_images_whatever_the_batch(model):
    shown = []
    large = Sampler(model, steps=2, batch=1000, bf16=False)
    replacing = Replacing(large, lambda images, labels: shown.append(len(images)))
    assert replacing.look() == replacing.judging > 0 and set(shown) == {32}


def test_calibrate__leaves_time_for_the_classifier(model):
    """What a look takes is added to every image, also before steps are chosen; without a budget, too."""
    options = {"steps": "auto", "batch": 10, "bf16": False}
    plain, looking = Sampler(model, **options), Sampler(model, **options)
    assert plain.calibrate(Clock(1e4), 100).seconds(1) < 100
    assert (plain.steps, looking.calibrate(Clock(1e4), 100, besides=100.0).seconds(1) > 100) == (50, True)
    assert looking.steps == 10
    pace = Sampler(model, steps=2, batch=10).calibrate(Clock(None), besides=0.5)
    assert (pace.seconds(1), pace.seconds(10)) == (pytest.approx(0.5), pytest.approx(5.0))


def test_tally__counts_class_by_class():
    tally = Tally(3)
    tally.add({
        "labels": torch.tensor([0, 1, 2, 0]),
        "tries": torch.tensor([1, 4, 2, 1], dtype=torch.uint8),
        "accepted": torch.tensor([True, False, True, True]),
    })  # fmt: skip
    facts = tally.facts()
    assert (facts["drawn"], facts["accepted"], facts["rejected"]) == (8, 3, 0.625)
    assert facts["rejected_by_class"] == [0.0, 1.0, 0.5]
    said = tally.said("abc", 4)
    assert "62.5 % of 8 images drawn were rejected, 3 of 4 in the pool are accepted" in said
    assert said.endswith("rejected by class: b 100.0 %, c 50.0 %, a 0.0 %")


def test_run__filters_goes_on_and_puts_the_accepted_first(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gen_dd.shards._BETWEEN", 0)
    options = {"model": str(folder), **OPTIONS}
    run(SampleConfig(**options, out="whole", num_per_class=6))
    run(SampleConfig(**options, out="parts", num_per_class=2, batch=7))
    run(SampleConfig(**options, out="parts", num_per_class=6, batch=13, resume=True))
    whole, parts = DistilledSet.load("whole"), DistilledSet.load("parts")
    assert torch.equal(whole.labels, parts.labels) and (whole.images.int() - parts.images.int()).abs().max() <= 1
    assert torch.bincount(whole.labels).tolist() == [6] * 10

    shards = [read_tensors(path)[0] for path in sorted(tmp_path.glob("parts/images-*"))]
    assert len(shards) > 3 and len(finished(tmp_path / "parts", resume=True)) == len(shards)
    accepted = torch.cat([shard["accepted"] for shard in shards])
    images = torch.cat([shard["images"] for shard in shards])
    assert torch.equal(parts.images, torch.cat([images[accepted], images[~accepted]]))

    found = [records.read(tmp_path / name / "index.json")["meta"]["filter"] for name in ("whole", "parts")]
    assert found[0] == found[1] and found[0]["accepted"] == int(accepted.sum())
    assert found[0]["drawn"] == int(torch.cat([shard["tries"] for shard in shards]).sum())
    assert len(found[0]["rejected_by_class"]) == 10 and found[0]["threshold"] == 0
    said = (tmp_path / "parts" / "summary.txt").read_text()
    assert f"of {found[0]['drawn']} images drawn were rejected" in said and said in capsys.readouterr().out
    with pytest.raises(InputError, match=r"was drawn with filter 0\.0, now it is None"):
        run(SampleConfig(model=str(folder), out="parts", steps=2, num_per_class=9, device="cpu", resume=True))


def test_run__filters_for_a_model_that_does_not_name_its_classes(model, tmp_path):
    save_model(model, tmp_path / "bare", {"data": "digits", "train": {}})
    run(SampleConfig(model="bare", guide_data="digits", out="pool", num_per_class=1, **OPTIONS))
    assert "rejected by class: " in (tmp_path / "pool" / "summary.txt").read_text()


def test_run__shows_names_of_a_strangers_classes_as_codes(model, tmp_path, capsys):
    names = [f"\x1b[3{k}m" for k in range(10)]
    save_model(model, tmp_path / "bare", {"data": "digits", "class_names": names, "train": {}})
    run(SampleConfig(model="bare", guide_data="digits", out="pool", num_per_class=1, **OPTIONS))
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\\x1b[3" in said


@pytest.mark.slow
def test_command__two_processes_filter_the_same_images(folder, tmp_path):
    run(SampleConfig(model=str(folder), out="one", num_per_class=6, **OPTIONS))
    flags = {"model": folder, "out": "two", "num_per_class": 6, "batch": 11, **OPTIONS}
    words = [f"--{name}={value}" for name, value in flags.items() if name != "bf16"] + ["--no_bf16"]
    launch = ("-m", "accelerate.commands.launch", "--config_file", ROOT / "configs" / "accelerate" / "two_cpus.yaml")
    done = run_command(*launch, ROOT / "scripts" / "sample_timed.py", *words)
    assert done.returncode == 0, done.stderr
    one, two = DistilledSet.load("one"), DistilledSet.load("two")
    assert torch.equal(one.labels, two.labels) and (one.images.int() - two.images.int()).abs().max() <= 2
    found = [records.read(tmp_path / name / "index.json")["meta"]["filter"] for name in ("one", "two")]
    assert found[0] == found[1]


def test_run__a_budget_is_filtered_and_balanced(folder):
    run(SampleConfig(model=str(folder), out="pool", batch=20, budget="4s", **OPTIONS))
    counts = torch.bincount(DistilledSet.load("pool").labels, minlength=10)
    assert counts.max() - counts.min() <= 1 <= counts.max()


def test_expansion__scales_the_noise_that_images_start_from(model, folder):
    wide, plain = Sampler(model, steps=2, expansion=1.5), Sampler(model, steps=2)
    starts = [own.begin(range(3), own.model)[1] for own in (wide, plain)]
    assert torch.allclose(starts[0], 1.5 * starts[1]) and not torch.equal(wide.draw(range(3)), plain.draw(range(3)))
    run(SampleConfig(model=str(folder), out="wide", num_per_class=1, steps=2, expansion=1.5, device="cpu"))
    assert (DistilledSet.load("wide").images[:3].int() - wide.draw(range(3)).int()).abs().max() <= 1
