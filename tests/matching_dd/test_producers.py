"""The matching track in comparisons: jobs, and what they take."""

from pathlib import Path

import pytest

from core_dd import records
from core_dd.compare.jobs import Job, key_of
from core_dd.compare.producers import Request
from core_dd.compare.reading import DataChoice
from core_dd.errors import InputError
from core_dd.sets.distilled import DistilledSet
from matching_dd.producers import distilled, measure_distilled, measure_experts, method, record_experts

SMALL = {"network": "convnet1_w8", "compile": False}
STUDENT = {"syn_steps": 1, "max_start_epoch": 1, "expert_epochs": 1, "iterations": 1}
EXPERTS = {"experts": 1, "epochs": 1, "batch_size": 1024}


def job(seed: int = 0, experts=EXPERTS, **options) -> Job:
    request = {"data": DataChoice("digits", name="digits"), "ipc": 1, "seed": seed, "producer": "MTT"}
    return method(Request(options={"method": "mtt", "experts": experts, **SMALL, **STUDENT, **options}, **request)).job


def test_method__experts_are_shared_by_seeds_unless_each_has_a_split_of_its_own():
    assert job(0).needs == job(1).needs
    split = [job(seed, val_fraction=0.2).needs["experts"] for seed in (0, 1)]
    assert [(own.options["val_fraction"], own.options["seed"]) for own in split] == [(0.2, 0), (0.2, 1)]
    with pytest.raises(InputError, match=r"their val_fraction would be 0.1, the method's is 0.2"):
        job(experts=EXPERTS | {"val_fraction": 0.1}, val_fraction=0.2)


def test_method__is_keyed_by_the_experts_that_are_there():
    def key():
        return key_of(job(experts="recorded"), {"digits": {}}, "1")

    nothing = key()
    Path("recorded").mkdir()
    Path("recorded/index.json").write_text("{}")
    some = key()
    Path("recorded/expert-00000.safetensors").write_bytes(b"weights")
    assert len({nothing, some, key()}) == 3 and key() == key()


def test_method__is_keyed_by_its_checkpoints_where_they_are_validated():
    def keys(**options):
        return {key_of(job(checkpoint_every=every, **options), {"digits": {}}, "1") for every in (5, 20)}

    assert len(keys()) == 1 and len(keys(val_fraction=0.2)) == 2
    assert job(checkpoint_every=5).shown["checkpoint_every"] == 5


def test_method__experts_do_not_see_the_validation_images(digits):
    """From the recording to the best set, of a seed that is not the first."""
    own = job(3, val_fraction=0.2, val_classifiers=1)
    followed = own.needs["experts"]
    given = {name: dict(each.options) | dict(each.shown) for name, each in (("set", own), ("experts", followed))}
    assert measure_experts(digits, Path(), "cpu", **given["experts"]).seconds > 0
    record_experts(digits, Path("experts"), "cpu", **given["experts"])
    index = records.read(Path("experts/index.json"))
    assert index["config"]["val_fraction"] == 0.2 and index["training_digest"] != digits.training_digest
    distilled(digits, Path("set"), "cpu", **given["set"] | {"experts": "experts"})
    assert "validation" in DistilledSet.load("set").meta


def test_measure_distilled__ends_where_max_seconds_does(digits):
    options = {"ipc": 1, "batch_real": 4, "iterations": 10**9, "max_seconds": 1.0, **SMALL}
    assert 1 < measure_distilled(digits, Path(), "cpu", "dm", {}, **options).seconds < 1000
