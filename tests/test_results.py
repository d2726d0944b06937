"""scripts/results.sh end to end: a coreset and a method that matches experts, on digits."""

import os
import subprocess

import pytest
from commands import FORKED_IN_BASH, ROOT

from core_dd.records import read as read_json
from core_dd.yaml_files import read_yaml


@pytest.fixture
def results(tmp_path):
    """A call of the script with some settings changed; returns the finished process."""
    settings = {
        "SETS": "random ead", "IPCS": 1, "SMOKE": 1, "EPOCHS": 1, "RUNS": 1, "ITERATIONS": 2,
        "WORK": tmp_path / "work", "OUT": tmp_path / "out", 
    }  # fmt: skip

    def call(**changed: object) -> subprocess.CompletedProcess:
        environment = os.environ | FORKED_IN_BASH | {name: str(value) for name, value in (settings | changed).items()}
        script = ["bash", str(ROOT / "scripts" / "results.sh"), "digits", "digits"]
        return subprocess.run(script, env=environment, capture_output=True, text=True)

    return call


@pytest.mark.slow
def test_results__makes_judges_and_reports_every_set_once(results, tmp_path):
    done = results()
    assert done.returncode == 0, done.stderr
    scores = {name: read_json(tmp_path / "out" / f"{name}-ipc1" / "scores.json") for name in ("random", "ead")}
    assert all(score["smoke"] and len(score["accuracies"]) == 1 for score in scores.values())
    assert [scores[name]["set"]["cost"].get("iterations") for name in ("random", "ead")] == [None, 2]
    report = (tmp_path / "work" / "report" / "report.html").read_text()
    assert all(name in report for name in ("random real ipc 1", "ead ipc 1, 2 iterations"))

    again = results()
    assert again.returncode == 0, again.stderr
    assert "$ gendd" not in again.stdout  # nothing is made or judged twice


def test_results__a_folder_begun_otherwise_is_refused(results, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "settings").write_text("DATA=digits PROTOCOL=dm EPOCHS=7\n")
    done = results()
    assert done.returncode == 2 and "EPOCHS=7" in done.stderr and "another WORK" in done.stderr


def test_results__methods_that_need_experts_say_so(results):
    done = results(SETS="mtt", SMOKE="", EXPERTS="")
    assert done.returncode == 2 and "gendd experts" in done.stderr


def test_results__takes_the_published_settings_where_there_are_any(results, tmp_path):
    done = results(SETS="m3d", IPCS=10)
    assert done.returncode == 0, done.stderr
    config = read_yaml(tmp_path / "work" / "m3d-ipc10" / "config.yaml")
    assert (config["network"], config["factor"], config["ipc"], config["iterations"]) == ("convnet2_w32", 1, 10, 2)
