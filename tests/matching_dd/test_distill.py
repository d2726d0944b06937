"""The command end to end on 8x8 digits: what it writes, resume after kill -9, dry run."""

import math
import re
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from commands import Process
from commands import run as run_command

from core_dd.data.images import load_data
from core_dd.errors import Diverged, InputError
from core_dd.judge.evaluate import evaluate
from core_dd.rng import stream
from core_dd.run import checkpoints, read_stats
from core_dd.sets.distilled import DistilledSet
from matching_dd import coreset, distill
from matching_dd.base import Method
from matching_dd.distill import main
from matching_dd.methods import METHODS
from matching_dd.stopping import EarlyStopping
from matching_dd.watch import Watch

SMALL = {"network": "convnet1_w8", "batch_real": 32, "compile": False, "tracker": "none"}
FLAGS = ["--network=convnet1_w8", "--batch_real=32", "--no_compile", "--tracker=none"]


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


def test_distill__cifar10_mean_std_is_carried_to_the_judge(digits):
    """On colour images: the set read back has its constants, and classifiers are trained in that space."""
    train, test = (images.repeat(1, 3, 1, 1) for images in (digits.train_images, digits.test_images))
    constants = {"mean": torch.full((3,), 0.3), "std": torch.full((3,), 0.4)}
    data = replace(digits, train_images=train, test_images=test, **constants)
    distill("dm", data, 1, iterations=2, preprocess="cifar10_mean_std", out="run", **SMALL)
    dset = DistilledSet.load("run")
    assert dset.meta["preprocess"] == {"kind": "cifar10_mean_std"}
    assert torch.allclose(dset.tensors["mean"], torch.tensor([0.4914, 0.4822, 0.4465]))
    assert torch.allclose(dset.tensors["std"], torch.tensor([0.2023, 0.1994, 0.2010]))
    by_hand = replace(dset, meta=dset.meta | {"preprocess": {"kind": "mean_std"}})
    others = replace(by_hand, tensors=constants)
    options = {"network": "convnet1_w8_nonorm", "runs": 1, "steps": 3}
    carried, same, own = (
        evaluate(each, data, "quick", **options).record["curves"]["loss"] for each in (dset, by_hand, others)
    )
    assert carried[0] == pytest.approx(same[0], rel=1e-5) and own[0] != pytest.approx(same[0], rel=1e-3)


def test_keep__older_checkpoints_keep_their_sets_alone(digits):
    options = {"checkpoint_every": 1, "out": "run", **SMALL}
    first = distill("dm", digits, 1, iterations=5, keep=4, **options).digest()
    folders = [folder for _, folder in checkpoints(Path("run"))]
    assert [(folder / "state.pt").exists() for folder in folders] == [False, True, True, True]
    sets = [DistilledSet.load(folder).digest() for folder in folders]
    assert len(set(sets)) == 4 and sets[-1] == first
    distill("dm", digits, 1, iterations=6, keep=4, resume=True, **options)
    assert [step for step, _ in checkpoints(Path("run"))] == [3, 4, 5, 6]


def test_resume__refuses_other_images_under_the_same_path(digit_files):
    options = {"iterations": 2, "out": "run", **SMALL}
    distill("dm", f"folder:{digit_files}", 1, **options)
    first, second = sorted(digit_files.glob("train/*/*"))[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(
        InputError, match=r"run was begun with other data: their fingerprint was .*Resume with the data"
    ):
        distill("dm", f"folder:{digit_files}", 1, resume=True, **options | {"iterations": 4})
    assert [step for step, _ in checkpoints(Path("run"))] == [2]


def test_resume__refuses_other_experts_under_the_same_path(digits, experts):
    options = {"iterations": 1, "out": "run", "network": "convnet1_w8", "tracker": "none", "resume": False}
    options |= {"syn_steps": 2, "max_start_epoch": 1, "expert_epochs": 1, "experts": "mine"}
    shutil.copytree(experts, "mine")
    distill("mtt", digits, 1, **options)
    files = sorted(Path("mine").glob("expert-*"))
    shutil.copyfile(files[1], files[0])
    with pytest.raises(InputError, match="run was begun with other data: their first_expert was"):
        distill("mtt", digits, 1, **options | {"resume": True, "iterations": 2})


def test_distill__same_seed_same_set(digits):
    options = {"iterations": 3, **SMALL}
    sets = [distill("dm", digits, 1, seed=seed, **options).digest() for seed in (0, 0, 1)]
    assert sets[0] == sets[1] != sets[2]
    assert sorted(path.name for path in Path("runs/digits-dm-ipc1").iterdir()) == ["00000", "00001", "00002"]


def test_noise__starts_from_standard_normal_noise_in_training_space(digits):
    dset = distill("dm", "digits", 10, iterations=1, lr_img=1e-6, init="noise", **SMALL)
    x = dset.preprocess.forward(dset.images)
    assert abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05


@pytest.mark.parametrize(
    ("method", "options", "fields"),
    [
        ("dm", {}, {"batch_real": 32}),
        ("cafe", {"max_steps": 3, "max_epochs": 3}, {"batch_real": 32, "batch_watched": 128}),
    ],
)
def test_small_classes__are_sampled_with_replacement_and_said_once(hasty, capsys, method, options, fields):
    distill(method, "digits", 1, iterations=2, limit_per_class=5, out="run", **SMALL | options)
    printed, written = capsys.readouterr().err, Path("run/log.txt").read_text()
    for name, batch in fields.items():
        said = f"10 of 10 classes have fewer than {name} {batch} images: they are sampled with replacement."
        assert printed.count(said) == written.count(said) == 1


SHORT = {
    "cafe": "--max_steps=10 --max_epochs=10 --batch_watched=1",
    "datadam": "--layers=1",
    "dc": "--outer=2 --inner=2",  # a network's life per iteration
    "dsa": "--outer=2 --inner=2",
    "ead": "--checkpoints=2",  # soft labels
    "idc": "--outer=2 --real_net=64",  # tiles, learnt as pixels, a step per class; networks trained on real data
    "idm": "--push_every=4 --train_steps=2 --batch_train=32",  # a queue of networks in training
    "mtt": "--syn_steps=3 --max_start_epoch=2",  # a learned learning rate
}
"""Options that make iterations short; the others need none."""

KILLED = """
import os, signal, sys
from matching_dd.distill import main
from matching_dd.methods import METHODS

method, last = METHODS[sys.argv[1]], int(sys.argv[2])
whole = method.step

def step(self, number):
    loss = whole(self, number)
    if number == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss

method.step = step
main(sys.argv[3:])
"""
"""A distillation that is killed when a step has moved the images and nothing of it is written."""

SLOW = {"cafe", "dc", "dsa", "idc"}
"""Those of the others' kind that take a quarter of a minute each."""


@pytest.mark.parametrize("method", [pytest.param(m, marks=pytest.mark.slow) if m in SLOW else m for m in METHODS])
def test_resume__after_kill_equals_uninterrupted_bit_for_bit(method, experts):
    """Killed in a seeded step, DM anywhere between two of them; the last checkpoint may be a step old."""
    after = int(torch.randint(3, 6, (), generator=stream(0, "kill", method)))
    argv = [f"--method={method}", *FLAGS, "--batch_real=4", *SHORT.get(method, "").split(), "--ipc=1"]
    argv += ["--log_every=1", "--checkpoint_every=2", f"--iterations={30 if method == 'dm' else after + 3}"]
    if method in ("ead", "mtt"):
        argv.append(f"--experts={experts}")
    if method == "dm":
        process = Process("-m", "matching_dd.distill", *argv, "--out=killed")
        process.kill_once(lambda: len(read_stats(Path("killed/stats.jsonl"))) >= after)
    else:
        assert run_command("-c", KILLED, method, after, *argv, "--out=killed").wait() == -9

    saved = checkpoints(Path("killed"))[-1][0]
    main([*argv, "--out=killed", "--resume"])
    main([*argv, "--out=whole"])
    assert f"resumed at iteration {saved}" in Path("killed/log.txt").read_text()
    assert Path("killed/stats.jsonl").read_bytes() == Path("whole/stats.jsonl").read_bytes()
    whole, resumed = DistilledSet.load("whole"), DistilledSet.load("killed")
    assert torch.equal(whole.images, resumed.images) and torch.equal(whole.labels, resumed.labels)
    assert whole.digest() == resumed.digest() and resumed.meta["method"] == method
    assert (resumed.meta["lr"], resumed.factor) == (whole.meta["lr"], whole.factor)


def test_resume__of_a_finished_run_goes_on_or_does_nothing(digits):
    distill("dm", digits, 1, iterations=4, out="run", **SMALL)
    first = DistilledSet.load("run").digest()
    assert distill("dm", digits, 1, iterations=4, out="run", resume=True, **SMALL).digest() == first
    longer = distill("dm", digits, 1, iterations=6, out="run", resume=True, **SMALL).digest()
    assert longer == distill("dm", digits, 1, iterations=6, out="other", **SMALL).digest() != first
    with pytest.raises(InputError, match=r"step-000006 is past iteration 5\. Raise --iterations"):
        distill("dm", digits, 1, iterations=5, out="run", resume=True, **SMALL)
    assert yaml.safe_load(Path("run/config.yaml").read_text())["iterations"] == 6


def test_dry_run__prints_what_to_expect_and_writes_nothing(capsys):
    main([*FLAGS, "--iterations=5000", "--ipc=3", "--dry_run"])
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["ipc"] == 3
    assert re.search(r"# memory: \d+\.\d\d GiB", printed)
    assert re.search(r"# time: .* s to start, then .* s per iteration: \d+:\d\d:\d\d for 5000", printed)
    main([*FLAGS, "--iterations=5000", "--ipc=3", "--max_seconds=0.001", "--dry_run"])
    printed = capsys.readouterr().out
    assert re.search(r"per iteration: 0:\d\d:\d\d, in which max_seconds 0.001 leaves about 1 of 5000", printed)
    main([*FLAGS, "--iterations=5", "--val_fraction=0.1", "--checkpoint_every=2", "--dry_run"])
    said = "# beside it, after every 2 iterations, the training of 2\n# classifier(s) by protocol quick"
    assert said in capsys.readouterr().out
    with pytest.raises(
        InputError, match="val_protocol mtt trains at a learning rate learnt with the set, and dm learns"
    ):
        main([*FLAGS, "--iterations=5", "--val_fraction=0.1", "--val_protocol=mtt", "--dry_run"])
    assert not list(Path().iterdir())


def test_dry_run__of_a_run_counts_what_it_has_used(capsys):
    options = [*FLAGS, "--iterations=5000", "--ipc=1", "--out=run"]
    main([*options, "--max_seconds=0.01"])
    capsys.readouterr()
    main([*options, "--max_seconds=0.01", "--resume", "--dry_run"])
    assert "per iteration: none is left" in capsys.readouterr().out
    main([*options, "--resume", "--dry_run", "--memory_gib=0.5"])
    assert "for 49" in capsys.readouterr().out


def test_diverging__images_that_stay_finite_and_are_no_images(digits):
    options = {"iterations": 9, "checkpoint_every": 1, "init": "noise", "out": "run", **SMALL}
    with pytest.raises(Diverged, match=r"the images diverged: at iteration \d their pixels lie between"):
        distill("dm", digits, 1, lr_img=1e4, **options)
    assert not Path("run/distilled.safetensors").exists()


OWN = """\
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, in_shape, num_classes):
        super().__init__()
        self.last = nn.Linear(64, num_classes)
    def features(self, x):
        return x.flatten(1)
    def forward(self, x):
        return self.last(self.features(x))
class Counts(Net):
    def features(self, x):
        return x.flatten(1) * (1 if x.mean().item() > 1e9 else 2)
class Drops(Net):
    def features(self, x):
        return nn.functional.dropout(x.flatten(1), training=self.training)
class Attends(Net):
    def __init__(self, in_shape, num_classes):
        super().__init__(in_shape, num_classes)
        self.layer = nn.TransformerEncoderLayer(8, 1, 8, batch_first=True)
    def features(self, x):
        return self.layer(x[:, 0]).flatten(1)
"""


def test_networks_of_ones_own__what_asks_for_numbers_works_and_what_draws_is_refused(digits, tmp_path, monkeypatch):
    (tmp_path / "own_to_match.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    options = {"iterations": 2, "batch_real": 16, "tracker": "none"}

    def of(network: str) -> str:
        return distill("dm", digits, 1, network=f"own_to_match:{network}", **options).digest()

    assert of("Counts") == of("Counts") and of("Attends") == of("Attends")
    with pytest.raises(InputError, match="network own_to_match:Drops draws random numbers when it is trained"):
        of("Drops")


def test_diverging__stops_naming_the_step_and_the_last_checkpoint(digits, monkeypatch):
    iterate = Method.iterate
    monkeypatch.setattr(Method, "iterate", lambda *own: iterate(*own) * (math.nan if own[1] == 2 else 1))
    options = {"iterations": 9, "log_every": 1, "checkpoint_every": 1, "out": "run", **SMALL}
    with pytest.raises(Diverged, match=r"loss is nan at step 3\. The last good checkpoint is run/.*step-000002"):
        distill("dm", digits, 1, **options)
    assert not Path("run/distilled.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "d"}, "unknown method 'd'; did you mean 'dm'"),
        ({"ipc": 0}, r"ipc must be >= 1, got 0\."),
        ({"ipc": 500}, r"digits has 140 training images of class 8 \('8'\), ipc is 500"),
        ({"ipc": 1.5}, "ipc: expected int, got float. Give dm a value of that type"),
        ({"lr_img": "1"}, "lr_img: expected float, got str. Give dm a value of that type"),
        ({"iterations": 0}, "iterations must be >= 1, got 0"),
        ({"lr_img": 0.0}, "lr_img must be > 0, got 0"),
        ({"second_moment": 1.0}, "second_moment wants 2 synthetic images of a class, and each step shows 1"),
        ({"ipc": 2, "third_moment": 1.0}, "third_moment wants 3 synthetic images of a class, and each step shows 2"),
        ({"method": "cafe", "per_class": True}, "cafe steps all classes at once: leave out per_class"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
        ({"batch_real": 0}, "batch_real must be >= 1"),
        ({"init": "reel"}, "unknown init 'reel'; did you mean 'real'"),
        ({"augment": "colour_crop"}, "unknown DSA operation 'colour'; did you mean 'color'"),
        ({"network": "convnt3"}, "unknown network 'convnt3'; did you mean 'convnet3'"),
        ({"network": "convnet5"}, "too small for 5 poolings"),
        ({"memory_gib": 1e-6}, r"memory_gib 1e-06 is too small: one class needs \d"),
        ({"memory_gib": 1e-4, "network": "convnet1_bn_w8"}, "too small: all classes together need"),
        ({"memory_gib": -1.0}, "memory_gib must be > 0"),
        ({"memory_gib": math.inf}, "memory_gib must be finite, got inf"),
        ({"average_last": 0.5}, r"average_last 0\.5 of 1 iterations is less than one"),
        ({"method": "idc", "network": "mlp"}, "idc compares the gradients of convolutions, and mlp has none"),
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


@pytest.mark.parametrize(
    ("course", "said"),
    [
        ({"lr_course": "cosine"}, "which lr_course cosine goes by"),
        ({"average_last": 0.5}, r"of which average_last 0\.5 is the last part"),
    ],
)
def test_resume__keeps_the_length_that_a_course_goes_by(digits, course, said):
    """Else the rate would rise again, and the average be of images in the middle."""
    options = {"out": "run", "max_seconds": 600.0, **course, **SMALL}
    first = distill("dm", digits, 1, iterations=2, **options).digest()
    with pytest.raises(InputError, match=rf"started with iterations 2, now it is 8, {said}\. Resume with the same"):
        distill("dm", digits, 1, iterations=8, resume=True, **options)
    with pytest.raises(InputError, match=rf"with max_seconds 600.0, now it is None, {said}\. .* or start a new run"):
        distill("dm", digits, 1, iterations=2, resume=True, **options | {"max_seconds": None})
    assert distill("dm", digits, 1, iterations=2, resume=True, **options).digest() == first


def test_course__goes_by_max_seconds_where_that_ends_first(digits, monkeypatch):
    """Of ten iterations, of which time leaves two: the last is at the rate of the end, and in the average."""
    monkeypatch.setattr(Watch, "part", lambda self: 0.75)
    monkeypatch.setattr(Watch, "over", lambda self: self.stepping > 0)
    distill("dm", digits, 1, iterations=10, lr_course="cosine", average_last=0.3, max_seconds=9.0, out="run", **SMALL)
    state = torch.load("run/checkpoints/last/state.pt")
    assert state["optimizer"]["param_groups"][0]["lr"] == pytest.approx((1 + math.cos(0.75 * math.pi)) / 2)
    assert "average" in state


def test_average__that_time_did_not_leave_is_said(digits, monkeypatch, capsys):
    monkeypatch.setattr(Watch, "over", lambda self: self.stepping > 0)
    distill("dm", digits, 1, iterations=10, average_last=0.3, max_seconds=9e5, out="run", **SMALL)
    assert "the run ended before the part that average_last wants averaged" in capsys.readouterr().err


def test_distill__never_overwrites(digits):
    distill("dm", digits, 1, iterations=1, out="run", **SMALL)
    with pytest.raises(InputError, match="run exists. Choose another --out, or continue it with --resume"):
        distill("dm", digits, 1, iterations=1, out="run", **SMALL)


def test_max_seconds__ends_a_run_with_its_set(digits, capsys):
    options = {"iterations": 10**6, "checkpoint_every": 10**6, "max_seconds": 0.05, "out": "run", **SMALL}
    dset = distill("dm", digits, 1, **options)
    done = dset.meta["cost"]["iterations"]
    assert 1 <= done < 10**6 and dset.meta["cost"]["stepping"] >= 0.05
    assert f"ended at iteration {done} of 1000000 by max_seconds" in Path("run/log.txt").read_text()
    again = distill("dm", digits, 1, resume=True, **options)  # the time of all calls is used up
    assert again.meta["cost"]["iterations"] == done and again.digest() == dset.digest()


def test_forecast__says_once_what_is_to_come(digits):
    distill("dm", digits, 1, iterations=12, out="run", **SMALL)
    [line] = [line for line in Path("run/log.txt").read_text().splitlines() if "to go" in line]
    assert re.fullmatch(r"\S+ s an iteration: about \d+:\d\d:\d\d for the 7 to go", line)


@pytest.fixture
def split():
    return load_data("digits", val_fraction=0.2)


def test_early_stopping__the_best_set_is_the_result_whatever_came_after(split, monkeypatch):
    """Also where the run was stopped in between: by accuracies that are given."""
    marks = iter([0.3, 0.5, 0.4, 0.5, 0.9])
    monkeypatch.setattr(EarlyStopping, "measure", lambda self, dset: {"val_accuracy": next(marks)})
    options = {"checkpoint_every": 1, "val_fraction": 0.2, "patience": 2, "out": "run", **SMALL}
    distill("dm", split, 1, iterations=3, **options)
    best = distill("dm", split, 1, iterations=9, resume=True, **options)
    assert best.meta["cost"]["iterations"] == 2 and best.meta["validation"]["accuracy"] == 0.5
    assert best.digest() == DistilledSet.load("run/checkpoints/step-000002").digest()
    assert [line["val_accuracy"] for line in read_stats(Path("run/stats.jsonl"))] == [0.3, 0.5, 0.4, 0.5]
    assert "ended at iteration 4 of 9 by patience" in Path("run/log.txt").read_text()
    assert (Path("run") / "grid.png").is_file()


@pytest.fixture
def marked(monkeypatch):
    """Accuracies of the sets after so many iterations, whatever they are."""
    marks = {1: 0.3, 2: 0.5, 3: 0.4, 4: 0.9}

    def measure(self, dset):
        return {"val_accuracy": marks[dset.meta["cost"]["iterations"]]}

    monkeypatch.setattr(EarlyStopping, "measure", measure)
    return {"checkpoint_every": 1, "val_fraction": 0.2, "patience": 1, "out": "run", **SMALL}


def test_early_stopping__killed_before_a_best_set_has_its_checkpoint(split, marked, monkeypatch):
    """It comes by that set again, which is no miss."""

    def killed(run, done, *rest):
        if done == 2:
            raise KeyboardInterrupt
        checkpoint(run, done, *rest)

    distilling = import_module("matching_dd.distill")  # as an attribute of its package it is the function
    checkpoint = distilling._checkpoint
    monkeypatch.setattr(distilling, "_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        distill("dm", split, 1, iterations=9, **marked)
    assert [step for step, _ in checkpoints(Path("run"))] == [1]
    assert DistilledSet.load("run/best/distilled.safetensors").meta["cost"]["iterations"] == 2
    monkeypatch.setattr(distilling, "_checkpoint", checkpoint)
    best = distill("dm", split, 1, iterations=9, resume=True, **marked)
    assert best.meta["cost"]["iterations"] == 2
    assert [line["step"] for line in read_stats(Path("run/stats.jsonl"))] == [1, 2, 3]


def test_early_stopping__that_has_ended_a_run_ends_it_again(split, marked):
    """Until it is told to be more patient; the set says what the whole run took."""
    first = distill("dm", split, 1, iterations=9, **marked)
    last = DistilledSet.load("run/checkpoints/last/distilled.safetensors").meta["cost"]
    best = DistilledSet.load("run/best/distilled.safetensors").meta["cost"]
    assert first.meta["cost"] == last | {"iterations": 2} and last["iterations"] == 3
    assert best["seconds"] < last["seconds"] and best["validating"] <= last["validating"]
    again = distill("dm", split, 1, iterations=9, resume=True, **marked)
    assert again.meta == first.meta and again.digest() == first.digest()
    assert [step for step, _ in checkpoints(Path("run"))] == [1, 2, 3]
    more = distill("dm", split, 1, iterations=4, resume=True, **marked | {"patience": 2})
    assert more.meta["cost"]["iterations"] == 4


def test_early_stopping__tests_on_the_split_alone_and_changes_no_step(split):
    """Its split is that of the data; the images are those of a run without."""
    wrong = replace(split, test_labels=(split.test_labels + 1) % 10)
    found = distill("dm", wrong, 5, iterations=2, val_fraction=0.2, val_classifiers=1, out="run", **SMALL)
    assert found.meta["validation"]["accuracy"] > 0.4
    plain = distill("dm", split, 5, iterations=2, out="plain", **SMALL)
    assert plain.digest() == found.digest()


@pytest.mark.parametrize(("accuracy", "warned"), [(0.11, True), (0.0, True), (0.3, False)])
def test_early_stopping__says_when_the_best_set_teaches_nothing(split, monkeypatch, accuracy, warned):
    monkeypatch.setattr(EarlyStopping, "measure", lambda self, dset: {"val_accuracy": accuracy})
    distill("dm", split, 1, iterations=1, val_fraction=0.2, out="run", **SMALL)
    said = Path("run/log.txt").read_text()
    assert ("cannot be told from chance" in said) == warned


def test_early_stopping__a_set_that_no_classifier_learns_from_is_a_miss(split, monkeypatch, capsys):
    """And its run goes on, also after a stop."""
    stopping = import_module("matching_dd.stopping")
    judge, calls = stopping.evaluate, []

    def diverging(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise Diverged("a classifier diverged")
        return judge(*args, **options)

    monkeypatch.setattr(stopping, "evaluate", diverging)
    options = {"checkpoint_every": 1, "val_fraction": 0.2, "val_classifiers": 1, "out": "run", **SMALL}
    distill("dm", split, 1, iterations=2, **options)
    accuracies = [line["val_accuracy"] for line in read_stats(Path("run/stats.jsonl"))]
    assert accuracies[0] > 0 and accuracies[1] == 0
    assert "validation counts the set as 0 %: --val_protocol quick: a classifier diverged" in capsys.readouterr().err
    assert distill("dm", split, 1, iterations=3, resume=True, **options).meta["cost"]["iterations"] in (1, 3)


def test_early_stopping__a_learnt_rate_that_is_not_positive_is_a_miss(split, capsys):
    config = METHODS["mtt"].Config(data="digits", method="mtt", val_fraction=0.2, val_protocol="mtt")
    dset = DistilledSet(torch.rand(10, 1, 8, 8), torch.arange(10), {"lr": -0.05})
    assert EarlyStopping(config, split).measure(dset) == {"val_accuracy": 0.0}
    assert "the learning rate learnt with the set is -0.05, not above 0." in capsys.readouterr().err


def test_distill__refuses_to_load_data_that_are_loaded(digits):
    with pytest.raises(InputError, match=r"limit_per_class says how data are loaded, and these are"):
        distill("dm", digits, 1, iterations=1, limit_per_class=1, **SMALL)


def test_early_stopping__wants_a_split(digits):
    with pytest.raises(InputError, match="comes without a validation split"):
        distill("dm", digits, 1, iterations=1, val_fraction=0.2, out="run", **SMALL)


def test_resume__writes_down_the_settings_that_it_goes_on_with(digits):
    for iterations in (1, 2):
        distill("dm", digits, 1, iterations=iterations, out="run", resume=iterations > 1, **SMALL)
        assert yaml.safe_load(Path("run/config.yaml").read_text())["iterations"] == iterations
