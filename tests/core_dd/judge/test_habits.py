"""The published habit of choosing by the test set: its number is right, and our score does not change by it."""

import json
import statistics
from dataclasses import replace

import pytest
import torch

from core_dd import DistilledSet, evaluate
from core_dd.errors import Diverged, InputError
from core_dd.judge import habits
from core_dd.judge.evaluate import main
from core_dd.judge.protocols import PROTOCOLS
from core_dd.judge.training import Training
from core_dd.sets.distilled import new_meta

NETWORK = "convnet1_w8"


@pytest.fixture(scope="module")
def sets(digits) -> list[DistilledSet]:
    """The first, second and third real image of each digit, as three checkpoints of a run."""
    members, meta = digits.class_indices(), new_meta(digits, method="idm", ipc=1, seed=0)
    chosen = [torch.stack([own[i] for own in members]) for i in range(3)]
    return [DistilledSet(digits.train_images[index], digits.train_labels[index], meta) for index in chosen]


def test_habits__are_of_known_protocols():
    assert habits.HABITS.keys() < PROTOCOLS.keys()
    assert habits.habit("idc").tests == (0.25, 0.5, 0.75) and habits.habit("mtt").sets


def test_chosen__takes_each_classifiers_best_test_and_the_set_of_the_best_mean():
    tests, others = [[0.3, 0.1], [0.2, 0.6]], [[0.4, 0.4], [0.9, 0.0]]
    assert habits.chosen([0.1, 0.2], tests, []) == {
        "accuracies": [0.3, 0.6], "mean": pytest.approx(0.45), "std": pytest.approx(0.3 / 2**0.5),
        "tests_per_classifier": 3, "sets": 1,
    }  # fmt: skip
    assert habits.chosen([0.1, 0.2], [], others)["accuracies"] == [0.9, 0.0]
    assert habits.chosen([0.7, 0.3], [], others) | {"std": 0} == {
        "accuracies": [0.7, 0.3], "mean": 0.5, "std": 0, "tests_per_classifier": 1, "sets": 3,
    }  # fmt: skip
    assert habits.chosen([0.1], [], [])["std"] == 0


def test_evaluate__tests_along_the_training_and_leaves_the_score_alone(sets, digits):
    """Against a plain loop over the steps, tested after each quarter."""
    options = {"runs": 2, "seed": 3, "steps": 10}
    plain = evaluate(sets[0], digits, "idc", NETWORK, **options)
    ours = evaluate(sets[0], digits, "idc", NETWORK, **options, with_best_of_test=True)
    assert ours.accuracies == pytest.approx(plain.accuracies) and "best_of_test" not in plain.record
    protocol = PROTOCOLS["idc"].shortened(steps=10)
    about = {"protocol": protocol, "network": NETWORK, "runs": range(2), "seed": 3, "device": torch.device("cpu")}
    training, seen = Training(sets[0].images, sets[0].labels, digits, **about), []
    for step in range(10):
        training.step(step)
        if step + 1 in (2, 5, 8, 10):
            seen.append(training.classifiers().accuracies(digits.test_images, digits.test_labels))
    assert seen[-1] == ours.accuracies
    record = ours.record["best_of_test"]
    assert record["accuracies"] == [max(own) for own in zip(*seen, strict=True)]
    assert record["mean"] == statistics.fmean(record["accuracies"]) >= ours.mean
    assert (record["tests_per_classifier"], record["sets"]) == (4, 1)


def test_command__tests_every_checkpoint_of_the_run_folder(sets, digits, tmp_path):
    for i, dset in enumerate(sets):
        dset.save(tmp_path / f"run/checkpoints/step-00000{i}/distilled.safetensors")
    sets[2].save(tmp_path / "run/distilled.safetensors")
    short = ["--protocol", "idm", "--network", NETWORK, "--iterations", "20", "--classifiers", "2"]
    main(["--set", str(tmp_path / "run"), *short, "--best_of_test"])
    record = json.loads((tmp_path / "run/scores.json").read_text())
    each = [evaluate(dset, digits, "idm", NETWORK, runs=2, steps=20) for dset in sets]
    assert record["accuracies"] == pytest.approx(each[2].accuracies, abs=0.01)
    best = max(each, key=lambda scores: scores.mean)
    assert record["best_of_test"]["accuracies"] == pytest.approx(best.accuracies, abs=0.01)
    assert (record["best_of_test"]["tests_per_classifier"], record["best_of_test"]["sets"]) == (1, 3)


def test_evaluate__passes_over_sets_that_nothing_can_train_on(sets, digits, tmp_path):
    """MTT's learned learning rate may be too large along the way, or negative."""
    rates = [0.01, 1e30, -0.01]
    learnt = [replace(dset, meta={**dset.meta, "lr": rate}) for dset, rate in zip(sets, rates, strict=True)]
    for i, dset in enumerate(learnt):
        dset.save(tmp_path / f"checkpoints/step-00000{i}/distilled.safetensors")
    earlier = habits.earlier_sets(tmp_path, learnt[0])
    assert [dset.meta["lr"] for dset in earlier] == [1e30]
    with pytest.raises(Diverged, match="its loss is not finite at step"):
        evaluate(earlier[0], digits, "mtt", NETWORK, runs=1, steps=5)
    ours = evaluate(learnt[0], digits, "mtt", NETWORK, runs=1, steps=5, with_best_of_test=True, earlier=earlier)
    assert ours.record["best_of_test"]["accuracies"] == ours.accuracies and ours.record["best_of_test"]["sets"] == 1


def test_evaluate__refuses_where_the_authors_report_their_last_test(sets, digits):
    with pytest.raises(InputError, match="of protocol dm are not the best .* which is for idc, "):
        evaluate(sets[0], digits, "dm", NETWORK, runs=1, steps=1, with_best_of_test=True)


def test_earlier_sets__refuses_a_set_without_checkpoints(sets, tmp_path):
    sets[0].save(tmp_path / "checkpoints/step-000001/distilled.safetensors")
    with pytest.raises(InputError, match="has none but the set itself. Give a folder that gendd distill wrote"):
        habits.earlier_sets(tmp_path, sets[0])
    assert len(habits.earlier_sets(tmp_path, replace(sets[1]))) == 1
