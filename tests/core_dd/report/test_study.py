"""Studies: what is kept of them, means over sets, and gains between sets of the same seed."""

import json
import re

import pytest

from core_dd.errors import InputError
from core_dd.report.study import accuracy, gain, means, read_study


def score(mean: float, **more) -> dict:
    """A score of one classifier."""
    place = {"name": None, "method": "uvit", "ipc": 10, "images": 100, "hash": "h", "cost": {"seconds": 2.0}}
    record = {"accuracies": [mean], "mean": mean, "std": 0.0, "protocol": "quick", "network": "convnet3"}
    record |= {"smoke": False, "seconds": 1.0, "data": {"name": "digits", "fingerprint": "f"}}
    return record | {"set": place} | more


@pytest.fixture
def kept(tmp_path):
    """Two settings of three and two sets."""
    for setting, accuracies, word in (("herding", (0.9, 0.8, 0.7), "set"), ("a, b", (0.6, 0.7), "seed")):
        for seed, mean in enumerate(accuracies):
            record = score(mean)
            record["set"]["name"] = f"{setting}, {word} {seed + 1}"
            path = tmp_path / setting.replace(", ", "-") / str(seed) / "scores.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(record))
    return tmp_path


def test_read_study__settings_in_order_of_their_seeds(kept):
    study = read_study(kept, "herding")
    assert {name: [each["mean"] for each in scores] for name, scores in study.items()} == {
        "herding": [0.9, 0.8, 0.7], "a, b": [0.6, 0.7],
    }  # fmt: skip
    assert list(study) == ["herding", "a, b"] and list(read_study(kept)) == ["a, b", "herding"]


def test_read_study__passes_over_folders_that_are_no_seeds(kept):
    other = kept / "herding" / "notes" / "scores.json"
    other.parent.mkdir()
    other.write_text("{}")
    assert len(read_study(kept, "herding")["herding"]) == 3


def test_read_study__refuses_what_is_none(kept):
    with pytest.raises(InputError, match=f"{re.escape(str(kept / 'herding'))} is no study"):
        read_study(kept / "herding")
    with pytest.raises(InputError, match="no setting 'hering', but a, b, herding"):
        read_study(kept, "hering")


def test_accuracy__spreads_over_sets():
    assert accuracy([score(0.5)]) == "50.0" and accuracy([score(0.4), score(0.6)]) == "50.0 ± 14.1"


def test_means__seconds_where_the_study_drew():
    drawn = [score(0.5, fidelity={"classifier_frechet": value}) for value in (1.0, 2.0)]
    for each, seconds in zip(drawn, (2.0, 4.0), strict=True):
        each["set"] = each["set"] | {"cost": {"seconds": seconds, "prepare_seconds": 1.0}}
    assert means(drawn) == {
        "accuracy": 50.0, "images": 100, "seconds": 3.0, "images_per_s": 37.5, "prepare_seconds": 1.0,
        "classifier_frechet": 1.5,
    }  # fmt: skip
    assert means([score(0.5)]) == {"accuracy": 50.0, "images": 100}


def test_gain__is_paired_by_seed():
    def of(*accuracies):
        return [score(mean, seed=seed) for seed, mean in enumerate(accuracies)]

    first, other = of(0.5, 0.7, 0.6), of(0.6, 0.8, 0.7)
    assert gain(first, first) == "-" and gain(other, first) == "+10.0 ± 0.0"
    # differences 10, 20, 0: mean 10, sample deviation 10, t of 2 degrees 4.303
    assert gain(of(0.6, 0.9, 0.6), first) == f"+10.0 ± {4.303 * 10 / 3**0.5:.1f}"
    # sets that one of the two lacks are left out, wherever they stand
    assert gain(of(0.6, 0.9, 0.6)[1:], first[:2]) == "+20.0" and gain(other[2:], first[:2]) == "-"
