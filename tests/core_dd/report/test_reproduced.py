"""Rows beside papers' numbers: which number, how far, and what is said of a comparison that is partly done."""

import json
import statistics

import pytest

from core_dd.errors import InputError
from core_dd.report.reproduced import UNEXPLAINED, beyond, missing, published_row, reproduced


@pytest.mark.parametrize(
    ("data", "ipc", "method", "percent"),
    [
        ("cifar10", 10, "K-Center", 14.7),
        ("cifar10", None, "real", 84.8),
        ("mnist", 1, "k center", 89.3),
        ("x", 1, "DM", None),
    ],
)
def test_published_row__by_the_methods_name(data, ipc, method, percent):
    found = published_row(data, ipc, method, "convnet3")
    assert (found and found.percent) == percent


def test_published_row__is_of_the_label_regime_and_rather_of_the_protocol():
    assert published_row("cifar10", 10, "DATM", "convnet3") is None
    assert published_row("cifar10", 10, "DATM", "convnet3", labels="soft").percent == 66.8
    assert published_row("cifar10", 10, "AT-BPTT", "convnet3").percent == 72.4  # which does not say
    assert published_row("cifar10", 10, "DM", "convnet3", labels="teacher") is None
    tables = [published_row("mnist", 1, "idc", "convnet3", protocol=name).table for name in ("idc_mnist", "dm")]
    assert tables == ["readmes", "readmes"]


def test_beyond__in_published_deviations_where_trained_alike():
    whole, dm = published_row("mnist", None, "real", "convnet3"), published_row("mnist", 10, "dm", "convnet3")
    assert (whole.percent, whole.std) == (99.6, 0.0)
    assert beyond(99.5, whole, ["dc"]) == pytest.approx(-2)  # what is printed as 0.0 is at most 0.05
    assert beyond(97.7, dm, ["dm"]) == pytest.approx(2) and beyond(97.7, dm, ["dm", "dc"]) is None
    assert beyond(97.7, None, ["dm"]) is None
    assert beyond(50.0, published_row("mnist", 10, "idc i", "convnet3"), ["idc"]) is None  # without a deviation


def score(folder, place: str, accuracies: list[float], *, method: str = "random", ipc: int | None = 1, **more) -> None:
    """Keep a score of MNIST, as pages.py does."""
    name = "full training set" if ipc is None else f"{more.pop('producer', 'Random')} ipc {ipc}, seed 0"
    dset = {"name": name, "method": method, "ipc": ipc, "images": 10, "cost": more.pop("cost", None)}
    dset["hash"] = more.pop("digest", "x")
    record = {"accuracies": accuracies, "mean": statistics.fmean(accuracies), "protocol": "dc", "network": "convnet3"}
    record |= {"std": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0, "smoke": False, "seconds": 20.0}
    record |= {"set": dset, "data": {"name": "mnist", "fingerprint": "x"}, "device": "cpu"} | more
    (folder / place).mkdir(parents=True)
    (folder / place / "scores.json").write_text(json.dumps(record))


PLANNED = {
    "real/mnist/real/convnet3/dc": 1,
    "Random/mnist/ipc1/convnet3/dc": 5,
    "K-Center/mnist/ipc1/convnet3/dc": 5,
}


@pytest.fixture
def partly(tmp_path):
    """Two of five random sets, the whole training set, and a distillation that was cut short."""
    score(tmp_path, "Random-ipc1-mnist/0", [0.60, 0.62], making_seconds=1.0)
    score(tmp_path, "Random-ipc1-mnist/1", [0.66, 0.68], making_seconds=2.0, machine="an abacus")
    score(tmp_path, "real-real-mnist/0", [0.9, 0.9], method="real", ipc=None)
    cut = {"method": "dm", "producer": "DM", "cost": {"seconds": 9.0, "iterations": 3}}
    score(tmp_path, "DM-ipc1-mnist/0", [0.1], smoke=True, **cut)
    return tmp_path


def test_reproduced__of_a_comparison_that_is_partly_done(partly):
    real, random, cut = reproduced([partly], PLANNED)  # in the order of the work, then the others
    assert random.name == "Random/mnist/ipc1/convnet3/dc" and (len(random.scores), random.planned) == (2, 5)
    assert random.mean == pytest.approx(64) and random.classifiers == [2, 2]
    assert random.std == pytest.approx(statistics.stdev([60, 62, 66, 68]))
    assert random.difference == pytest.approx((64 - 64.9) / 3.5) and not random.far and random.said == ""
    assert (random.making, random.judging, random.machine) == (1.5, 20.0, "cpu and an abacus")
    assert real.name == "real/mnist/real/convnet3/dc" and real.far and real.said == UNEXPLAINED
    assert cut.iterations == 3 and cut.making == 9 and cut.std is None and not cut.far and cut.said == ""
    assert missing([partly], PLANNED) == {"Random/mnist/ipc1/convnet3/dc": 3, "K-Center/mnist/ipc1/convnet3/dc": 5}


def test_reproduced__findings_are_of_rows_that_are_there(partly):
    (partly / "findings.yaml").write_text("real/mnist/real/convnet3/dc: too short\n")
    assert [row.said for row in reproduced([partly], PLANNED)] == ["too short", "", ""]
    (partly / "findings.yaml").write_text("Random/mnist/ipc2/convnet3/dc: too short\n")
    with pytest.raises(InputError, match="no row there; did you mean 'Random/mnist/ipc1/convnet3/dc'"):
        reproduced([partly])
    (partly / "findings.yaml").write_text("Random/mnist/ipc1/convnet3/dc: [1]\n")
    with pytest.raises(InputError, match="findings.yaml"):
        reproduced([partly])


def test_reproduced__of_an_empty_folder(tmp_path):
    assert reproduced([tmp_path]) == [] and missing([tmp_path], {}) == {}


def test_reproduced__of_several_folders_pools_equal_rows_and_no_set_twice(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    score(one, "0", [0.60] * 5, digest="a")
    score(two, "0", [0.10], producer="random real", digest="a")  # that set again
    score(two, "1", [0.70], producer="random real", digest="b")
    score(two, "2", [0.90], producer="random real", digest="c", protocol="dm")
    score(two, "3", [0.20], producer="random real", digest="d", smoke=True)
    score(one, "4", [0.30] * 5, producer="random, first", digest="e")
    name = "Random/mnist/ipc1/convnet3/dc"
    found = {(row.name, row.smoke): row for row in reproduced([one, two], {name: 3})}
    other = "random/mnist/ipc1/convnet3/dm"  # nobody plans it
    assert found.keys() == {
        (name, False),
        (name, True),
        (other, False),
        ("random, first/mnist/ipc1/convnet3/dc", False),
    }
    own = found[name, False]
    assert own.classifiers == [5, 1] and own.mean == pytest.approx(65) and own.folder == one and own.planned == 3
    assert own.published.percent == 64.9 and own.short and not found[name, True].short and found[other, False].short
    whole, *_ = reproduced([one, two], {name: 1})
    assert whole.classifiers == [5] and not whole.short  # it has what was asked for
