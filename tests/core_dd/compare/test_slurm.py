"""The executor on Slurm: by submitit's own engines, and what Slurm's commands are told, by scripts of their names."""

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from comparisons import SMALL, accuracies, compare, tables, write

from core_dd.errors import InputError

pytest.importorskip("submitit", reason="not here: submitit (pip install 'gendd[slurm]')")

from core_dd.compare import slurm

FLAGS = ["--executor=slurm", "--workers=8", "--threads=1"]
MINE = f"""\
import os, time
from pathlib import Path
from matching_dd import coreset
def make(data, ipc, seed, out):
    with (out / "begun").open("a") as file:
        file.write(f"{{os.getpid()}}\\n")
    while len((out / "begun").read_text().split()) == 1:
        time.sleep(0.05)
    return coreset("random", data, ipc, seed)
def gone(data, ipc, seed, out):
    os.kill(os.getpid(), {signal.SIGKILL:d})
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Looks after its jobs more often than a cluster would like."""
    monkeypatch.setattr(slurm, "LOOKED_EVERY_S", 0.02)
    monkeypatch.setattr(slurm, "ASKED_EVERY_S", 0.0)
    monkeypatch.setattr(slurm, "UNSEEN_FOR_S", 0.2)


def test_slurm__by_the_debug_engine_equals_the_local_one():
    assert compare(write(ipc=1), "--out=local") == 0
    assert compare("small.yaml", *FLAGS, "--slurm", "cluster=debug", "time=5") == 0
    assert tables("out") == tables("local")
    assert not Path("out/slurm").exists()
    assert all("seed" in log.read_text() for log in Path("out/logs").iterdir())


@pytest.mark.slow
def test_slurm__a_job_that_is_preempted_goes_on_and_one_that_is_lost_fails_alone(monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    Path("mine.py").write_text(MINE)
    producers = {"Mine": {"function": "mine:make"}, "Gone": {"function": "mine:gone"}}
    file = write(producers=producers, ipc=1, seeds=1)

    def preempt():
        begun, deadline = [], time.monotonic() + 300
        while not begun and time.monotonic() < deadline:
            begun = [path for path in Path("out").glob("sets/Mine*/begun") if path.read_text().strip()]
            time.sleep(0.05)
        os.kill(int(begun[0].read_text()), signal.SIGUSR2)  # as submitit has Slurm warn its jobs

    threading.Thread(target=preempt, daemon=True).start()
    assert compare(file, *FLAGS, "--slurm", "cluster=local") == 1
    [begun] = Path("out").glob("sets/Mine*/begun")
    assert len(begun.read_text().split()) == 2 and len(accuracies()) == 1
    assert "Gone digits ipc1 seed0: its job" in (said := capsys.readouterr().err) and "ended abruptly" in said
    assert Path("out/slurm").exists()  # what submitit knows of the lost one


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A function that puts scripts into the place of Slurm's commands, each of which keeps what it was called with."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    def put(**scripts: str) -> Path:
        for name, script in scripts.items():
            path = tmp_path / "bin" / name
            path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / name}.called\n{script}\n')
            path.chmod(0o755)
        return tmp_path

    return put


def test_slurm__what_is_ready_is_one_array_and_jobs_that_leave_the_queue_without_a_word_are_lost(commands, capsys):
    log = "printf 'cut \\377 word\\n' > out/slurm/7_1_0_log.err"  # no UTF-8
    odd = "echo; echo slurm_load_jobs said something"
    place = commands(srun="", squeue=odd, scancel="", sbatch=f'cp "$1" batch.sh; {log}; echo Submitted batch job 7')
    file = write(producers={"Random": SMALL["producers"]["Random"]}, ipc=1)
    assert compare(file, *FLAGS, "--memory_gib=3", "--slurm", "partition=gpu", "account=me", "gpus_per_node=1") == 1
    said, batch = capsys.readouterr().err, Path("batch.sh").read_text()
    for line in (
        "array=0-1%",
        "partition=gpu",
        "account=me",
        "gpus-per-node=1",
        "mem=3GB",
        "time=60",
        "cpus-per-task=1",
    ):
        assert f"#SBATCH --{line}" in batch
    assert (
        "Random digits ipc1 seed0: its job 7_0 ended abruptly" in said
        and "its job 7_1 ended abruptly: cut \ufffd word" in said
    )
    name = next(word for word in batch.split() if word.startswith("--job-name")).partition("=")[2]
    assert f"--name={name}" in (place / "scancel.called").read_text()  # what a killed comparison left
    assert f"--name={name}" in (place / "squeue.called").read_text()


def test_slurm__a_job_whose_result_is_not_seen_is_done_where_its_folder_says_so(commands, monkeypatch):
    made = write(producers={"Random": SMALL["producers"]["Random"]}, ipc=1, seeds=1)
    assert compare(made, "--out=before") == 0
    commands(srun="", squeue="", scancel="", sbatch="echo Submitted batch job 7")
    perform = slurm.SlurmExecutor._hand_in

    def as_by_a_node(self, new):
        perform(self, new)
        for order, _ in new:
            shutil.copytree(Path("before", *Path(order.folder).parts[-2:]), order.folder)

    monkeypatch.setattr(slurm.SlurmExecutor, "_hand_in", as_by_a_node)
    assert compare(made, *FLAGS, "--out=out") == 0
    assert tables("out") == tables("before")


def test_slurm__a_log_that_cannot_be_read_at_one_look_is_read_at_the_next(commands, monkeypatch, capsys):
    looks, last_words = [], slurm._last_words

    def stutter(job):
        looks.append(job)
        if len(looks) == 1:
            raise OSError("Stale file handle")
        return last_words(job)

    monkeypatch.setattr(slurm, "_last_words", stutter)
    commands(srun="", squeue="", scancel="", sbatch="echo Submitted batch job 7")
    assert compare(write(producers={"Random": SMALL["producers"]["Random"]}, ipc=1, seeds=1), *FLAGS) == 1
    assert len(looks) == 2 and "ended abruptly" in capsys.readouterr().err


def test_slurm__what_sbatch_refuses_fails_in_its_words(commands, capsys):
    commands(srun="", squeue="", scancel="", sbatch="echo 'invalid partition specified: gpuu' >&2; exit 1")
    assert compare(write(ipc=1, seeds=1), *FLAGS, "--slurm", "partition=gpuu") == 1
    assert "it was not taken: " in (said := capsys.readouterr().err) and "invalid partition specified: gpuu" in said


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("partion=gpu", "--slurm partion: sbatch is told no such thing by submitit; did you mean 'partition'?"),
        ("time=long", "--slurm time=long is no whole number of minutes"),
        ("cluster=lokal", "--slurm cluster=lokal: it can be slurm, local, debug"),
        ("partition=gpu", "no Slurm here: srun is not found"),
    ],
)
def test_slurm__what_cannot_be_is_said_before_any_work(told, message, commands):
    commands()
    os.environ["PATH"] = ""
    with pytest.raises(InputError) as error:
        compare(write(), *FLAGS, "--slurm", told)
    assert message in str(error.value) and not Path("out").exists()
