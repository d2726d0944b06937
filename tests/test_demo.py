"""The demo's plan: its commands parse, every result is made once and used, and what is finished is skipped."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from commands import ROOT, accepted, load_script, run

from core_dd import files
from core_dd.errors import InputError


@pytest.fixture(scope="module")
def demo():
    """scripts/demo.py as a module."""
    return load_script("scripts/demo.py")


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


def test_main__each_demo_has_a_folder_of_its_own(demo, monkeypatch):
    """One that starts while another plays gets the next number; one that resumes it is told who has it."""
    played = []

    def play(out):
        played.append(out)
        if len(played) == 1:
            assert demo.main([]) == 0
        else:
            with pytest.raises(InputError, match="in use by process"):
                demo.main(["--resume"])
        (out / "stages.json").write_text("{}")
        return 0

    monkeypatch.setattr(demo, "play", play)
    monkeypatch.setattr(demo.os, "chdir", lambda place: None)
    assert demo.main([]) == 0
    assert [out.name for out in played] == ["00000", "00001"]


@pytest.mark.slow
def test_script__a_mistake_is_one_sentence():
    done = run(ROOT / "scripts" / "demo.py", "--nonsense")
    assert done.returncode == 2 and "unrecognized arguments: --nonsense" in done.stderr


def test_run__a_finished_step_is_skipped(demo, tmp_path, capsys):
    (tmp_path / "there").touch()
    assert demo.run(demo.Step("no-such-command", tmp_path / "there")) == 0
    assert "done before" in capsys.readouterr().out


def test_run__a_started_step_is_resumed_where_that_exists(demo, tmp_path, capsys):
    (tmp_path / "left.txt").touch()
    for resumable in (True, False):
        words = "sample --model nowhere --num_per_class 1 --out out"
        assert demo.run(demo.Step(words, tmp_path / "missing", resumable=resumable)) == 2
        assert ("--resume" in capsys.readouterr().out) is resumable


def test_run__a_separate_step_is_its_own_process(demo, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys, "executable", os.environ["FORKED"])
    assert demo.run(demo.Step("info digits", tmp_path / "missing", separate=True)) == 0
    assert "fingerprint" in capfd.readouterr().out


def finished(folder: Path, accuracy: float, step: int) -> Path:
    """A demo's folder with a pool's score and the card of a generator trained for `step` of 1200 steps."""
    data = {"name": "digits", "fingerprint": "f", "test_images": 355}
    scored = {"method": "uvit", "ipc": None, "images": 100, "hash": "h"}
    numbers = {"accuracies": [accuracy], "mean": accuracy, "std": 0.0, "seconds": 1.0, "smoke": False}
    score = numbers | {"protocol": "quick", "network": "convnet3", "set": scored, "data": data}
    for place, content in (
        ("pool/scores.json", score),
        ("train/model/gendd.json", {"step": step, "train": {"iterations": 1200, "max_seconds": 200.0}}),
    ):
        (folder / place).parent.mkdir(parents=True)
        files.write_json(folder / place, content)
    return folder


@pytest.mark.parametrize(
    ("accuracy", "step", "status", "said"),
    [
        (0.97, 1200, 0, ""),
        (0.97, 900, 0, "900 of 1200 steps: the clock (max_seconds 200) ended it"),
        (0.79, 1200, 1, "reach 79.0 %, less than the 80 %"),
        (0.097, 160, 1, "160 of 1200 steps: the clock (max_seconds 200) ended it. On a slow or busy machine"),
    ],
)
def test_verdict__fails_a_pool_that_is_worth_nothing_and_says_when_the_clock_ended_the_training(
    demo, tmp_path, capsys, accuracy, step, status, said
):
    assert demo.verdict(finished(tmp_path / "demo", accuracy, step)) == status
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
    assert bool(shown.err) is (status == 1) and ("clock" in shown.out) is (step < 1200)
