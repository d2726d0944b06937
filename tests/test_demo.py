"""The demo's plan: its commands parse, every result is made once and used, and what is finished is skipped."""

import shlex
from pathlib import Path

import pytest
from commands import ROOT, accepted, load_script


@pytest.fixture(scope="module")
def demo():
    """scripts/demo.py as a module."""
    return load_script("demo")


def test_stages__every_command_is_accepted(demo, monkeypatch):
    monkeypatch.chdir(ROOT)
    for stage in demo.stages(Path("runs/demo/00007")):
        for step in stage.steps:
            words = shlex.split(step.words)
            accepted(words)
            if step.resumable:
                accepted([*words, "--resume"])


def test_stages__each_result_is_written_once_and_inside_the_folder(demo):
    out = Path("runs/demo/00007")
    places = [step.writes for stage in demo.stages(out) for step in stage.steps]
    assert len(set(places)) == len(places) >= 12
    assert all(out in place.parents for place in places)


def test_run__a_finished_step_is_skipped(demo, tmp_path, capsys):
    (tmp_path / "there").touch()
    assert demo.run(demo.Step("no-such-command", tmp_path / "there")) == 0
    assert "done before" in capsys.readouterr().out


def test_run__a_started_step_is_resumed_where_that_exists(demo, tmp_path, capsys):
    (tmp_path / "left.txt").touch()
    for resumable in (True, False):
        assert demo.run(demo.Step("info --nothing", tmp_path / "missing", resumable=resumable)) == 2
        assert ("--resume" in capsys.readouterr().out) is resumable


def test_run__a_separate_step_is_its_own_process(demo, tmp_path, capfd):
    assert demo.run(demo.Step("info digits", tmp_path / "missing", separate=True)) == 0
    assert "fingerprint" in capfd.readouterr().out
