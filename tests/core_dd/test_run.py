import dataclasses
import json
import signal

import pytest
import yaml
from commands import run as run_command

from core_dd.errors import Diverged, InputError
from core_dd.run import Run, checkpoints, find_folder, read_stats


@dataclasses.dataclass(kw_only=True)
class Config:
    seed: int = 0
    iterations: int = 10
    resume: bool = False


def start(tmp_path, **options):
    return Run.open(tmp_path / "run", "test", Config(), tracker="none", **options)


def fill(run, first, last, every=2):
    for step in range(first, last + 1):
        run.log(step, loss=1 / step)
        if step % every == 0:
            with run.checkpoint(step) as folder:
                (folder / "state").write_text(str(step))


def test_open__numbers_runs(tmp_path):
    folders = [Run.open(None, "digits-dm", Config(), tracker="none").folder for _ in range(2)]
    assert [str(folder) for folder in folders] == ["runs/digits-dm/00000", "runs/digits-dm/00001"]
    assert yaml.safe_load((folders[0] / "config.yaml").read_text()) == {"seed": 0, "iterations": 10}


def test_open__other_folders_beside_the_numbered_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a" / "00003-old").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "00001").mkdir()
    assert find_folder(None, "a", resume=False).name == "00002"


def test_open__refuses_an_existing_folder(tmp_path):
    start(tmp_path).close()
    with pytest.raises(InputError, match=r"run exists\. Choose another --out, or continue it with --resume"):
        start(tmp_path)


def test_open__resume_wants_a_run_with_the_same_config(tmp_path):
    with pytest.raises(InputError, match="nothing to resume"):
        start(tmp_path, resume=True)
    start(tmp_path).close()
    Run.open(tmp_path / "run", "test", Config(iterations=20), tracker="none", resume=True).close()
    with pytest.raises(InputError, match="was started with seed 0, now it is 1"):
        Run.open(tmp_path / "run", "test", Config(seed=1), tracker="none", resume=True)


def test_checkpoint__keeps_the_newest_and_points_to_the_last(tmp_path):
    with start(tmp_path, keep=2) as run:
        fill(run, 1, 8)
    assert [step for step, _ in checkpoints(run.folder)] == [6, 8]
    assert (run.folder / "checkpoints" / "last" / "state").read_text() == "8"


def test_checkpoint__failure_keeps_the_previous(tmp_path):
    with start(tmp_path) as run:
        fill(run, 1, 2)
        with pytest.raises(ZeroDivisionError), run.checkpoint(4) as folder:
            (folder / "state").write_text("half")
            1 / 0  # noqa: B018
        assert run.last()[0] == 2
        assert not list((run.folder / "checkpoints").glob(".*tmp"))


def test_resume__drops_lines_after_the_checkpoint(tmp_path):
    with start(tmp_path) as run:
        fill(run, 1, 5)
    with (run.folder / "stats.jsonl").open("a") as stats:
        stats.write('{"step": 6, "lo')
    with start(tmp_path, resume=True) as run:
        assert run.last()[0] == 4
        fill(run, 5, 8)
    assert [line["step"] for line in read_stats(run.folder / "stats.jsonl")] == list(range(1, 9))


def test_log__non_finite_names_step_and_checkpoint(tmp_path):
    with start(tmp_path) as run:
        fill(run, 1, 2)
        with pytest.raises(Diverged, match=r"loss is nan at step 3\. The last good checkpoint is .*step-000002"):
            run.log(3, loss=float("nan"))
    assert [line["step"] for line in read_stats(run.folder / "stats.jsonl")] == [1, 2]


def test_log__lines_are_json(tmp_path):
    with start(tmp_path) as run:
        run.log(1, loss=0.5, accuracy=1)
    assert json.loads((run.folder / "stats.jsonl").read_text()) == {"step": 1, "loss": 0.5, "accuracy": 1.0}


def test_tracker__tensorboard_writes_events(tmp_path):
    with Run.open(tmp_path / "run", "test", Config()) as run:
        run.log(1, loss=0.5)
    assert list(run.folder.rglob("events.out.tfevents*"))


def test_tracker__unknown(tmp_path):
    with pytest.raises(InputError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        Run.open(tmp_path / "run", "test", Config(), tracker="tensorbord")
    assert not (tmp_path / "run").exists()


def test_tracker__not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(InputError, match="tracker 'wandb' is not installed. pip install it, or pass --tracker none"):
        Run.open(tmp_path / "run", "test", Config(), tracker="wandb")
    assert not (tmp_path / "run").exists()


def test_checkpoint__kill_inside_it_keeps_the_previous(tmp_path):
    code = (
        "import os, signal, dataclasses; from core_dd.run import Run\n"
        "@dataclasses.dataclass\nclass Config:\n    seed: int = 0\n    iterations: int = 10\n"
        "run = Run.open('run', 'test', Config(), tracker='none')\n"
        "with run.checkpoint(2) as folder: (folder / 'state').write_text('2')\n"
        "with run.checkpoint(4) as folder:\n"
        "    (folder / 'state').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = run_command("-c", code)
    assert done.returncode == -signal.SIGKILL
    with start(tmp_path, resume=True) as run:
        assert run.last()[0] == 2
        assert not list((run.folder / "checkpoints").glob(".*tmp"))
