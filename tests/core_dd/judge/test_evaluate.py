"""The judge: scores, their statistics, scores.json, and what it refuses."""

import contextlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

import core_dd
from core_dd import DistilledSet, Scores, evaluate
from core_dd.errors import Diverged, InputError
from core_dd.judge import fidelity, permuted, protocols
from core_dd.judge import teacher as teaching
from core_dd.judge.evaluate import _warning, main, real_set
from core_dd.judge.networks import build_network
from core_dd.judge.protocols import PROTOCOLS, QUICK
from core_dd.judge.scores import read_score
from core_dd.judge.training import train
from core_dd.report.ranking import grouped, read_entry
from core_dd.sets.distilled import new_meta

TINY = ["--network", "convnet1_w16", "--protocol", "quick", "--iterations", "5", "--classifiers", "2"]


@pytest.fixture(scope="module")
def small(digits):
    """Three real images of each digit as a set."""
    index = torch.cat([members[:3] for members in digits.class_indices()])
    meta = new_meta(digits, method="random", ipc=3, seed=0)
    return DistilledSet(digits.train_images[index], digits.train_labels[index], meta)


@pytest.fixture
def small_file(small, tmp_path):
    return small.save(tmp_path / "set" / "distilled.safetensors")


def test_scores__mean_std_and_bounded_interval():
    scores = Scores([0.5, 0.6, 0.7])
    assert scores.mean == pytest.approx(0.6)
    assert scores.std == pytest.approx(0.1)
    half = 4.302653 * 0.1 / math.sqrt(3) / 0.24  # t's 97.5 % quantile, 2 degrees of freedom; the logit's slope
    middle = math.log(0.6 / 0.4)
    assert scores.ci95 == pytest.approx([1 / (1 + math.exp(-(middle + sign * half))) for sign in (-1, 1)], abs=1e-6)
    assert str(scores) == "60.00 +- 10.00 % over 3, 95 % interval 34.76 to 80.85"


def test_scores__of_one_run_have_no_interval():
    scores = Scores([0.5])
    assert (scores.mean, scores.std, scores.ci95) == (0.5, 0.0, None)
    assert scores.to_json()["ci95"] is None


def test_scores__with_record_leaves_the_first_as_it_was():
    scores = Scores([0.5], {"smoke": False, "set": {"name": None, "hash": "h"}})
    named = scores.with_record(set={"name": "x"}, smoke=True, config={"data": "digits"})
    assert named.record == {"smoke": True, "set": {"name": "x", "hash": "h"}, "config": {"data": "digits"}}
    assert scores.record == {"smoke": False, "set": {"name": None, "hash": "h"}} and named.accuracies == [0.5]


def test_evaluate__quick_learns_digits_from_ten_of_each(digits, generator):
    draws = [members[torch.randperm(len(members), generator=generator)[:10]] for members in digits.class_indices()]
    index, meta = torch.cat(draws), new_meta(digits, method="random", ipc=10, seed=0)
    dset = DistilledSet(digits.train_images[index] / 255, digits.train_labels[index], meta)
    scores = evaluate(dset, digits, "quick", "convnet3_w16", runs=2)
    assert scores.mean > 0.9
    assert not scores.record["smoke"]
    loss = scores.record["curves"]["loss"]
    assert len(loss) == 2 and all(run[-1] < 0.3 * run[0] for run in loss)


def test_evaluate__flags_a_set_whose_labels_are_wrong(small, digits, tmp_path, capsys):
    """The same images teach nothing under labels shifted by image, and are not flagged under their own."""
    how = [*TINY[:4], "--iterations", "60", "--classifiers", "2"]
    wrong = DistilledSet(small.images, torch.arange(len(small)) % 10, small.meta)
    main(["--set", str(wrong.save(tmp_path / "wrong" / "distilled.safetensors")), *how])
    shown, record = capsys.readouterr(), json.loads((tmp_path / "wrong" / "scores.json").read_text())
    counts = digits.test_labels.bincount()
    assert record["chance"] == pytest.approx(float(counts.max() / counts.sum()))
    assert record["at_chance"] and "[not told from chance]" in shown.out and "WARNING" in shown.err
    assert "permuted" not in record and "PERMUTED" not in shown.err  # no renaming of classes would mend them
    main(["--set", str(small.save(tmp_path / "right" / "distilled.safetensors")), *how])
    shown, record = capsys.readouterr(), json.loads((tmp_path / "right" / "scores.json").read_text())
    assert record["at_chance"] is False and "chance" not in shown.out + shown.err


def test_evaluate__keeps_the_score_where_labels_cannot_be_looked_at(small, tmp_path, monkeypatch, capsys):
    """Nor a kill meanwhile loses it."""
    wrong = DistilledSet(small.images, torch.arange(len(small)) % 10, small.meta).save(tmp_path / "wrong.safetensors")
    argv, out = ["--set", str(wrong), *TINY[:4], "--classifiers=1"], tmp_path / "scores.json"
    for error in (Diverged("a classifier diverged"), KeyboardInterrupt()):

        def look(*args, error=error):
            raise error

        monkeypatch.setattr(permuted, "look", look)
        with contextlib.suppress(KeyboardInterrupt):
            main([*argv, f"--out={out}"])
        assert json.loads(out.read_text())["at_chance"]
        out.unlink()
    assert "are permuted was not looked at: a classifier diverged" in capsys.readouterr().err


def test_evaluate__of_unequal_classes_is_not_below_chance(small, digits):
    """Nine of ten test images are of one class, which a set teaches with all others as well."""
    scores = Scores([0.8, 0.82, 0.81], {"chance": 0.9, "data": {"test_images": 200}})
    assert "cannot be told from chance, 90.0 %" in _warning("x", scores, 2)
    assert "is below chance, 50.0 %" in _warning("x", replace(scores, accuracies=[0.2, 0.21, 0.19]), 2)


def test_evaluate__a_part_of_the_real_images_is_no_full_training_set(tmp_path):
    main(["--set=real", *TINY[:4], "--classifiers=1", "--limit_per_class=2", f"--out={tmp_path / 'few.json'}"])
    assert json.loads((tmp_path / "few.json").read_text())["smoke"]


def test_evaluate__record_says_what_was_done(small, digits):
    scores = evaluate(small, digits, "dm", "convnet1_w16", runs=2, seed=7, epochs=3)
    record = json.loads(json.dumps(scores.to_json()))
    assert record["accuracies"] == scores.accuracies and len(scores.accuracies) == 2
    assert record["set"] | {"cost": None} == {
        "name": None, "path": None, "method": "random", "ipc": 3, "images": 30, "hash": small.digest(), "cost": None,
        "labels": "hard", "factor": 1, "decode": "single", "lr": None, "preprocess": None, "bytes": 30 * 64 + 30 * 8,
    }  # fmt: skip
    assert record["data"]["fingerprint"] == digits.fingerprint
    assert record["data"]["test_images"] == len(digits.test_labels)
    judged = record["protocol"], record["network"], record["runs"], record["seed"]
    assert judged == ("dm_3_epochs", "convnet1_w16", 2, 7)
    assert record["smoke"] and record["resolved_protocol"]["epochs"] == 3
    assert record["curve_steps"] == [0, 1, 2, 3] and [len(run) for run in record["curves"]["loss"]] == [4, 4]
    assert record["seconds"] > 0 and record["versions"]["torch"] in torch.__version__


def test_evaluate__record_says_what_classifiers_answered_and_what_they_took(small, digits, tmp_path):
    scores = evaluate(small, digits, "quick", "convnet1_w16", runs=2, steps=30)
    answers, cost = scores.record["answers"], scores.record["training_cost"]
    matrix = torch.tensor(answers["confusion"])
    assert matrix.sum(1).tolist() == (2 * digits.test_labels.bincount()).tolist()
    assert matrix.trace() / matrix.sum() == pytest.approx(scores.mean)
    assert 0 < answers["ece"] < 1 and 0.3 < answers["balanced_accuracy"] < 1
    assert cost["images_seen"] == 30 * 30  # the set is one batch
    net = build_network("convnet1_w16", digits.shape, 10)  # grey images are padded to 12 pixels
    flops = 2 * 16 * 9 * 12**2 + 2 * net.classifier.weight.numel()
    assert cost["training_flops"] == pytest.approx(3 * flops * 900) and cost["peak_mib"] > 1
    assert read_score(write(tmp_path / "s.json", scores.to_json()))["answers"] == answers


def test_evaluate__soft_labels_and_tiles_are_said(small, digits):
    soft = torch.nn.functional.one_hot(small.labels, 10).float()
    dset = replace(small, labels=soft, meta=small.meta | {"factor": 2})
    record = evaluate(dset, digits, "quick", "convnet1_w8", runs=1, steps=1).record
    assert (record["set"]["labels"], record["set"]["factor"]) == ("soft", 2)


def test_evaluate__another_augmentation_is_another_protocol(small_file, tmp_path, capsys):
    """Its score has its own name, trains otherwise, and never ranks with the unchanged one."""
    files = [tmp_path / f"{name}.json" for name in ("own", "rand", "none")]
    for file, more in zip(files, ([], ["--augment", "randaugment"], ["--augment", "none"]), strict=True):
        main(["--set", str(small_file), *TINY, "--out", str(file), *more])
    records = [json.loads(file.read_text()) for file in files]
    names = ["quick_5_steps", "quick_5_steps, augment randaugment", "quick_5_steps, augment none"]
    assert [record["protocol"] for record in records] == names and names[1] in capsys.readouterr().out
    assert records[1]["resolved_protocol"]["augment"] == "randaugment"
    assert len({tuple(record["curves"]["loss"][0]) for record in records}) == 3
    assert [len(group.entries) for group in grouped([read_entry(file) for file in files])] == [1, 1, 1]
    with pytest.raises(InputError, match="holds a score of other settings"):
        main(["--set", str(small_file), *TINY, "--network", "convnet1_w16,convnet1_w8", "--out", "all.json"])
        main(["--set", str(small_file), *TINY, "--network", "convnet1_w16,convnet1_w8", "--out", "all.json", *more])


def test_evaluate__by_a_teacher_is_a_regime_of_its_own(small, digits, tmp_path, monkeypatch):
    """The teacher is trained once, and kept; its scores stand apart from those of hard labels."""
    how = {"protocol": "rd3", "network": "convnet1_w8", "runs": 1, "steps": 2}
    small_teacher = MappingProxyType(PROTOCOLS | {"rd3": replace(PROTOCOLS["rd3"], teacher="convnet1_w8_bn")})
    monkeypatch.setattr(protocols, "PROTOCOLS", small_teacher)
    first, again = (evaluate(small, digits, **how) for _ in range(2))
    assert first.accuracies == again.accuracies
    own = first.record["teacher"]
    assert first.record["label_regime"] == "teacher" and first.record["set"]["labels"] == "hard"
    assert own["network"] == "convnet1_w8_bn" and own["file"] is None and 0 <= own["accuracy"] <= 1
    hard = evaluate(small, digits, "quick", "convnet1_w8", runs=1, steps=2)
    places = [write(tmp_path / f"{i}.json", scores.to_json()) for i, scores in enumerate((first, hard))]
    relabelled, plain = (read_entry(place) for place in places)
    assert (relabelled.labels, relabelled.optimiser) == ("teacher", "AdamW 0.001, batch 50") and plain.labels == "hard"
    groups = grouped([relabelled, replace(plain, protocol=relabelled.protocol)])
    assert len(groups) == 2 and groups[0].title.endswith("labels of a teacher")

    # Its weights may come from a file of anybody's; what is no such file is refused.
    net = teaching.teacher_of(protocols.resolved("rd3", steps=2), digits, 0, torch.device("cpu")).network(0)
    torch.save({f"module.{name}": tensor for name, tensor in net.state_dict().items()}, "teacher.pt")
    from_file = evaluate(small, digits, **how, teacher="teacher.pt")
    assert from_file.accuracies == first.accuracies and from_file.record["teacher"]["file"] == "teacher.pt"
    torch.save(build_network("convnet2_w8_bn", digits.shape, 10).state_dict(), "other.pt")
    with pytest.raises(InputError, match="Expected a state dict of convnet1_w8_bn for digits"):
        evaluate(small, digits, **how, teacher="other.pt")
    with pytest.raises(InputError, match="no teacher at nothing.pt"):
        evaluate(small, digits, **how, teacher="nothing.pt")


def test_command__what_is_said_of_a_file_changes_nothing_of_real_images(capsys):
    main(["--set", "real", *TINY, "--dry_run", "--factor", "2", "--from", "dc"])
    said = capsys.readouterr()
    assert "what --from and --factor says is of another code's file, and real is none" in said.err
    assert "classifiers, 5 steps" in said.out


def test_teacher_of__in_fp32_is_another(digits, monkeypatch):
    monkeypatch.setenv("GENDD_CACHE", "cache")
    rule = replace(protocols.resolved("rd3", steps=2), teacher="convnet1_w8_bn")
    for bf16 in (True, False, True):
        assert teaching.teacher_of(rule, digits, 0, torch.device("cpu"), bf16=bf16).bf16 == bf16
    assert sorted("-fp32-" in place.name for place in Path("cache").glob("*.safetensors")) == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"balanced_accuracy": 0.9}, "balanced_accuracy 0.9000, which is not the mean of its per_class"),
        ({"confusion": [[1, 1], [0, 2]]}, "but its confusion matrix has 75.0000 % right"),
        ({"confusion": [[1, 1]]}, "a confusion matrix that is not 2 x 2 counts"),
        ({"confusion": [[1, -1], [0, 2]]}, r"at answers.confusion\[0\]\[1\]: expected int >= 0"),
        ({"ece": 2}, "at answers.ece: expected float <= 1"),
        ({"per_class": []}, "at answers.per_class: expected array of length >= 1"),
    ],
)
def test_read_score__refuses_answers_that_do_not_add_up(tmp_path, change, message):
    right = {"per_class": [0.5, 0.5], "balanced_accuracy": 0.5, "ece": 0.1, "confusion": [[1, 1], [1, 1]]}
    known = {"accuracies": [0.5], "mean": 0.5, "std": 0.0, "protocol": "dm", "network": "convnet3", "smoke": False}
    known |= {"seconds": 1.0, "set": {"method": "dm", "ipc": 1, "images": 2, "hash": "h"}}
    known |= {"data": {"name": "digits", "fingerprint": "f"}}
    assert read_score(write(tmp_path / "right.json", known | {"answers": right}))["answers"] == right
    with pytest.raises(InputError, match=message):
        read_score(write(tmp_path / "wrong.json", known | {"answers": right | change}))


def write(path, record):
    path.write_text(json.dumps(record))
    return path


def test_evaluate__runs_default_to_the_protocols(small, digits):
    assert len(evaluate(small, digits, "challenge", "convnet1_w8", runs=None, steps=1).accuracies) == 3
    assert len(evaluate(small, digits, "dm", "convnet1_w8", steps=1).accuracies) == 5


def test_evaluate__soft_labels(small, digits):
    soft = torch.nn.functional.one_hot(small.labels, 10).float() * 0.9 + 0.01
    right, wrong = (
        evaluate(replace(small, labels=labels), digits, "quick", "convnet1_w16", runs=1, steps=60).mean
        for labels in (soft, soft.roll(1, 1))
    )
    assert right > 0.5 and wrong < 0.2


def test_evaluate__preprocesses_as_the_set_says(small, digits):
    """A set that carries its own mean and std is trained and tested in that space."""
    own = {"mean": torch.tensor([0.9]), "std": torch.tensor([3.0])}
    other = replace(small, meta=small.meta | {"preprocess": {"kind": "mean_std"}}, tensors=own)
    losses = [
        evaluate(dset, digits, "quick", "convnet1_w8_nonorm", runs=1, steps=1).record["curves"]["loss"]
        for dset in (small, other)
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"images": torch.full((30, 1, 8, 8), torch.nan)}, {}, "NaN"),
        ({"images": torch.zeros(30, 3, 8, 8)}, {}, r"\(3, 8, 8\), but digits has \(1, 8, 8\)"),
        ({"labels": torch.full((30,), 10)}, {}, "labels from 10 to 10, expected 0 to 9"),
        ({}, {"protocol": "dmm"}, "did you mean 'dm'"),
        ({}, {"augment": "rand"}, "unknown augment 'rand'; did you mean 'randaugment'"),
        ({}, {"teacher": "none.pt"}, "protocol dm_1_steps has no teacher. Leave out --teacher"),
        ({}, {"network": "convent3"}, "did you mean 'convnet3'"),
        ({}, {"network": "convnet6"}, "too small"),
        ({}, {"runs": 0}, "runs must be >= 1"),
        ({}, {"runs": 1.5}, "runs must be a whole number >= 1, got 1.5"),
        ({}, {"runs": "2"}, "runs must be a whole number >= 1, got '2'"),
        ({}, {"seed": 0.5}, "seed must be a whole number, got 0.5"),
        ({}, {"steps": 2.5}, "steps must be a whole number >= 1, got 2.5"),
        ({}, {"device": "cuda:99"}, "not usable"),
    ],
)
def test_evaluate__refuses(small, digits, change, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(replace(small, **change), digits, **{"runs": 1, "steps": 1, **options})


def test_evaluate__refuses_a_set_of_other_data(small, digits):
    foreign = replace(small, meta=small.meta | {"data": "mnist", "fingerprint": "0"})
    with pytest.raises(InputError, match="was made from mnist"):
        evaluate(foreign, digits, runs=1, steps=1)


def test_command__writes_scores_beside_the_set_once(small_file, capsys):
    argv = ["--set", str(small_file), "--name", "three", *TINY]
    main(argv)
    place = small_file.with_name("scores.json")
    record = json.loads(place.read_text())
    assert record["set"]["name"] == "three" and record["set"]["path"] == str(small_file)
    assert record["config"]["iterations"] == 5 and record["smoke"]
    assert record["mean"] == pytest.approx(sum(record["accuracies"]) / 2)
    assert "smoke" in capsys.readouterr().out
    with pytest.raises(InputError, match="scores.json exists"):
        main(argv)
    assert json.loads(place.read_text()) == record


def test_command__repeats_itself(small_file, tmp_path):
    for name in ("a.json", "b.json"):
        main(["--set", str(small_file), "--out", str(tmp_path / name), *TINY])
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert first["accuracies"] == second["accuracies"] and first["curves"] == second["curves"]


def test_command__scores_all_real_images_with_fidelity(tmp_path, digits):
    main(["--set", "real", "--out", str(tmp_path / "r.json"), "--limit_per_class", "20", "--fidelity", *TINY])
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["set"]["method"] == "real" and record["set"]["ipc"] is None and record["set"]["path"] is None
    assert record["set"]["images"] == record["data"]["train_images"] == 200
    measured = record["fidelity"]  # the real images against themselves
    assert measured.pop("classifier_frechet") == pytest.approx(0, abs=1e-3)
    assert measured == {"moment1_distance": 0, "moment2_distance": 0, "moment3_distance": 0}


def test_evaluate__measures_the_images_that_classifiers_train_on(small, digits):
    """Of a set with tiles and soft labels, those decoded; each of its class."""
    pixels, soft = small.images / 255, torch.nn.functional.one_hot(small.labels, 10).float()
    images = torch.cat([torch.cat([pixels, pixels], 3)] * 2, 2)[..., ::2, ::2]
    dset = replace(small, images=images, labels=soft, meta=small.meta | {"factor": 2})
    options = {"runs": 1, "steps": 1, "with_fidelity": True}
    found = evaluate(dset, digits, "quick", "convnet1_w8", **options).record["fidelity"]
    decoded, labels = dset.decoded()
    assert len(decoded) == 120
    judge = fidelity.real_classifier(digits, "convnet1_w8")
    assert found == pytest.approx(fidelity.distances(decoded, labels.argmax(1), digits, judge), rel=1e-3)
    assert all(value > 0 for value in found.values()) and len(found) == 4


def test_command__the_real_images_have_a_run_folder_of_their_own(digits):
    """Numbered, as there is no file that their score could stand beside."""
    for number in ("00000", "00001"):
        main(["--set", "real", "--limit_per_class", "3", *TINY])
        assert [path.name for path in Path("runs/digits-real", number).iterdir()] == ["scores.json"]


def test_command__dry_run_writes_nothing_whatever_is_there(small_file, capsys):
    main(["--set", str(small_file), "--dry_run"])
    assert "5 classifiers, 1001 steps of 30 images" in capsys.readouterr().out
    assert not small_file.with_name("scores.json").exists()
    small_file.with_name("scores.json").write_text("{}")
    main([str(small_file), "--dry_run"])  # the set may come first, without its flag
    assert "5 classifiers, 1001 steps of 30 images" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"scores.json exists"):
        main([str(small_file)])


def test_scores__of_one_classifier_have_no_spread():
    assert str(Scores([0.5], {})) == "50.00 % over 1"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--set", "nowhere.safetensors"], "nothing at nowhere.safetensors"),
        (["--set", "real", "--out", "s.json", "--epochs", "2", "--iterations", "2"], "not both"),
        (["--set", "real", "--out", "s.json", "--network", "convnet3_bm"], "unknown network variant"),
    ],
)
def test_command__refuses(argv, message):
    with pytest.raises(InputError, match=message):
        main(argv)


def test_real_set__holds_the_training_images(digits):
    dset = real_set(digits, 0)
    dset.check(digits)
    assert torch.equal(dset.images, digits.train_images) and dset.meta["method"] == "real"


def test_core_dd__exports_its_names_and_imports_quickly():
    assert set(core_dd.__all__) == {
        "DistilledSet", "ImageData", "Scores", "build_network", "evaluate", "load_data",
    }  # fmt: skip
    assert all(getattr(core_dd, name) is not None for name in core_dd.__all__)
    assert callable(core_dd.evaluate)  # the function, although a submodule has its name
    with pytest.deprecated_call(match=r"core_dd.distilled is now core_dd\.sets\.distilled"):
        from core_dd.distilled import DistilledSet
    assert DistilledSet is core_dd.DistilledSet and DistilledSet.__module__ == "core_dd.sets.distilled"
    assert sys.modules["core_dd.sets.distilled"].__spec__.name == "core_dd.sets.distilled"
    check = "import sys, core_dd; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


ACROSS = ["--network", "convnet1_w8,mlp", *TINY[2:]]


def test_command__several_networks_give_a_file_each_and_a_table(small_file, capsys):
    main(["--set", str(small_file), "--name", "three", *ACROSS])
    shown, folder = capsys.readouterr().out, small_file.parent
    scores = {name: json.loads((folder / f"scores-{name}.json").read_text()) for name in ("convnet1_w8", "mlp")}
    assert not (folder / "scores.json").exists()
    for name, record in scores.items():
        assert record["network"] == record["config"]["network"] == name and len(record["accuracies"]) == 2
    assert scores["mlp"]["parameters"] == 64 * 128 + 128 + 128 * 128 + 128 + 1290
    title, head, *rows = shown[shown.index("\n\nthree on digits") + 2 :].splitlines()
    assert title == "three on digits, quick_5_steps" and head.split()[:2] == ["network", "parameters"]
    assert [row.split()[:3] for row in rows] == [
        [name, f"{record['parameters']:,}", f"{100 * record['mean']:.2f}"] for name, record in scores.items()
    ]
    alone = evaluate(DistilledSet.load(small_file), core_dd.load_data("digits"), "quick", "mlp", runs=2, steps=5)
    assert alone.accuracies == scores["mlp"]["accuracies"], "each as if it were the only one"


def test_command__several_networks_resume(small_file, capsys):
    argv = ["--set", str(small_file), *ACROSS]
    main(argv)
    done, missing = (small_file.with_name(f"scores-{name}.json") for name in ("convnet1_w8", "mlp"))
    kept, again = done.read_bytes(), json.loads(missing.read_text())["accuracies"]
    missing.unlink()
    capsys.readouterr()
    main(argv)
    assert done.read_bytes() == kept and json.loads(missing.read_text())["accuracies"] == again
    assert f"{done} is there already" in capsys.readouterr().out

    # Also a score of before there was an option that has its default now.
    record = json.loads(kept)
    del record["config"]["membership"], record["config"]["bf16"]
    done.write_text(json.dumps(record))
    main(argv)
    assert f"{done} is there already" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"scores-convnet1_w8.json holds a score of other settings \(seed 0\)"):
        main([*argv, "--seed", "1"])
    other = DistilledSet.load(small_file)
    small_file.unlink()
    replace(other, meta=other.meta | {"factor": 2}).save(small_file)
    with pytest.raises(InputError, match="holds a score of other settings .the set's factor 1"):
        main(argv)
    other = replace(other, images=255 - other.images)
    small_file.unlink()
    other.save(small_file)
    with pytest.raises(InputError, match="another set"):
        main(argv)


def test_command__several_networks_on_the_real_data_share_a_folder(capsys):
    main(["--set", "real", *ACROSS[:-3], "2", "--classifiers", "1", "--limit_per_class", "3"])
    assert sorted(path.name for path in Path("runs/digits-real/00000").iterdir()) == [
        "scores-convnet1_w8.json",
        "scores-mlp.json",
    ]


def test_command__several_networks_are_all_checked_before_any_is_trained(small_file):
    for network, message in (("mlp,convnt1", "did you mean 'convnet1'"), ("mlp,,", "empty name"), ("mlp,mlp", "twice")):
        with pytest.raises(InputError, match=message):
            main(["--set", str(small_file), "--network", network])
    assert sorted(path.name for path in small_file.parent.iterdir()) == [small_file.name]


def test_command__dry_run_of_several_networks_says_how_long_each_is(small_file, capsys):
    main(["--set", str(small_file), *ACROSS, "--dry_run"])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")]
    assert len(said) == 2 and said[1].endswith("scores-mlp.json")


LEARNERS = [
    ("resnet10_w16", 8, 12), ("resnet18_w8", 16, 12), ("resnet18_ap_w8", 16, 12), ("resnetap10_w16", 16, 12),
    ("vit_tiny_w64", 8, 12), ("lenet", 16, 60), ("mlp", 8, 12),
]  # fmt: skip
"""Networks that are quick enough, a size that they take, and steps after which they have learnt something."""


def some(data, per_class):
    """So many real images of each digit as a set."""
    index = torch.cat([members[:per_class] for members in data.class_indices()])
    meta = new_meta(data, method="random", ipc=per_class, seed=0)
    return DistilledSet(data.train_images[index], data.train_labels[index], meta)


@pytest.mark.parametrize(("network", "size", "steps"), LEARNERS, ids=[row[0] for row in LEARNERS])
def test_evaluate__every_network_learns_digits(network, size, steps):
    data = core_dd.load_data("digits", image_size=size)
    scores = evaluate(some(data, 4), data, "quick", network, runs=1, steps=steps)
    assert not scores.record["at_chance"] and scores.mean > 0.2


@pytest.mark.parametrize(("network", "size"), [("alexnet", 8), ("vgg11", 32), ("densenet121", 8)])
def test_train__a_large_network_fits_its_batch_better_with_every_step(network, size):
    """A digit of each class, the whole set in every batch, small steps: the loss can but fall."""
    data = core_dd.load_data("digits", image_size=size)
    dset, protocol = some(data, 1), replace(QUICK, steps=4, lr=0.002, augment="none")
    options = {"network": network, "runs": [0], "seed": 0, "device": torch.device("cpu")}
    (losses,) = train(dset.images, dset.labels, data, protocol=protocol, **options).curve_loss
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 1e-4
