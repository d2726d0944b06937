"""scripts/on_gpu.sh at the size of a toy: every stage writes what it has, and one that fails spoils no other."""

import os
import shlex
import subprocess

import pytest
from commands import ROOT, accepted

from core_dd.records import read as read_json

SMALL_MIB = 5
"""What results/ may hold: with data and wheels, 64 MiB reach a lent machine at a time."""


@pytest.fixture
def on_gpu(tmp_path):
    """A call of the script; returns the finished process."""

    def call(*stages: str, **settings: object) -> subprocess.CompletedProcess:
        settings = {"TOY": 1, "PYTHON": os.environ["FORKED"], "GENDD_COMPILE": 0, "ROWS": "dm-ipc10"} | settings
        settings |= {name: tmp_path / name.lower() for name in ("OUT", "WORK", "HELD", "DATA", "SITE", "WHEELS")}
        environment = os.environ | {name: str(value) for name, value in settings.items()}
        script = ["bash", str(ROOT / "scripts" / "on_gpu.sh"), *stages]
        return subprocess.run(script, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    return call


@pytest.mark.slow
def test_stages__one_that_fails_spoils_no_other(on_gpu, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part").write_text("kept")
    done = on_gpu("gather", "bench", "published", BENCHMARKS="nonsense")
    summary = done.stdout.split("== summary\n")[1].splitlines()
    verdicts = {line.split()[0]: line.split("s  ")[1] for line in summary}
    assert verdicts == {"gather": "passed", "bench": "FAILED with status 2", "published": "passed"}, done.stdout
    assert done.returncode == 1
    assert (tmp_path / "held" / "part").read_text() == "kept"
    assert "nonsense" in (tmp_path / "out" / "bench.log").read_text()
    row = tmp_path / "out" / "published" / "dm-ipc10"
    assert read_json(row / "scores.json")["smoke"] and (row / "grid.png").exists() and (row / "stats.jsonl").exists()


def test_stages__the_headline_trains_in_one_chunk_and_samples(on_gpu, tmp_path, monkeypatch):
    """By a Python that only says what it was asked; the script itself is tested end to end elsewhere."""
    (tmp_path / "echo").write_text('#!/bin/sh\necho "asked $*"\n')
    (tmp_path / "echo").chmod(0o755)
    done = on_gpu("headline", PYTHON=tmp_path / "echo", BUDGET="30s")
    asked = [shlex.split(line)[3:] for line in done.stdout.splitlines() if line.startswith("asked -m core_dd.cli")]
    monkeypatch.chdir(ROOT)
    for words in asked[:2]:
        accepted(words)
    assert [words[0] for words in asked[:2]] == ["train", "sample"] and "--budget" in asked[1]


def test_stages__an_unknown_one_is_said(on_gpu):
    done = on_gpu("benchmarks")
    assert done.returncode == 2 and "unknown stage 'benchmarks'" in done.stderr and "published" in done.stderr


def test_results__leave_room_for_the_data():
    size = sum(path.stat().st_size for path in (ROOT / "results").rglob("*") if path.is_file())
    assert 0 < size < SMALL_MIB * 2**20
