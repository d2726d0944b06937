"""scripts/on_gpu.sh at the size of a toy: every stage writes what it has, and one that fails spoils no other."""

import os
import shlex
import subprocess
import tarfile

import pytest
from commands import ROOT, accepted

SMALL_MIB = 6
"""What results/ may hold: with data and wheels, 64 MiB reach a lent machine at a time."""


@pytest.fixture
def on_gpu(tmp_path):
    """A call of the script; returns the finished process."""

    def call(*stages: str, **settings: object) -> subprocess.CompletedProcess:
        settings = {
            "TOY": 1, "PYTHON": os.environ["FORKED"], "GENDD_COMPILE": 0, "COMPARISON": "digits",
            "ROWS": "Random/digits/ipc1/seed0", "WORKERS": 1, "GENERATORS": "tiny-4-8-0.003",
        } | settings  # fmt: skip
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
    with tarfile.open(tmp_path / "out" / "digits.tar.gz") as kept:
        names = kept.getnames()
    assert "./table.md" in names and sum(name.endswith("/scores.json") for name in names) == 1


@pytest.mark.slow
def test_stages__generators_are_trained_and_tuned(on_gpu, tmp_path):
    done = on_gpu("curve")
    assert done.returncode == 0, done.stdout
    for name in ("tiny-4-8-0.003", "tiny-4-8-0.003-tuned"):
        with tarfile.open(tmp_path / "out" / f"{name}.tar.gz") as kept:
            assert "./model/config.json" in kept.getnames()


def test_stages__the_headline_trains_in_one_chunk_and_samples(on_gpu, tmp_path, monkeypatch):
    """By a Python that only says what it was asked; the script itself is tested end to end elsewhere."""
    (tmp_path / "echo").write_text('#!/bin/sh\necho "asked $*"\n')
    (tmp_path / "echo").chmod(0o755)
    done = on_gpu("headline", PYTHON=tmp_path / "echo", BUDGET="30s")
    asked = [shlex.split(line)[3:] for line in done.stdout.splitlines() if line.startswith("asked -m core_dd.cli")]
    monkeypatch.chdir(ROOT)
    for words in asked[:4]:
        accepted(words)
    assert [words[0] for words in asked[:4]] == ["train", "tune", "sample", "sample"]
    assert all("--budget" in words for words in asked[2:4])


def test_stages__a_benchmark_that_dies_is_no_success(on_gpu, tmp_path):
    (tmp_path / "some").write_text('#!/bin/sh\necho "asked $*"\ncase "$*" in *bad*) exit 3 ;; esac\n')
    (tmp_path / "some").chmod(0o755)
    done = on_gpu("bench", PYTHON=tmp_path / "some", BENCHMARKS="bad evaluator")
    assert done.returncode == 1 and "FAILED with status 3" in done.stdout
    assert "asked -m benchmarks evaluator" in (tmp_path / "out" / "bench.log").read_text()
    assert on_gpu("bench", PYTHON=tmp_path / "some", BENCHMARKS="good evaluator").returncode == 0


def test_pack__fails_where_the_download_does(on_gpu, tmp_path):
    (tmp_path / "some").write_text('#!/bin/sh\ncase "$*" in *download*) exit 1 ;; esac\n')
    (tmp_path / "some").chmod(0o755)
    assert on_gpu("pack", PYTHON=tmp_path / "some").returncode == 1


def test_stages__an_unknown_one_is_said(on_gpu):
    done = on_gpu("benchmarks")
    assert done.returncode == 2 and "unknown stage 'benchmarks'" in done.stderr and "published" in done.stderr


def test_results__leave_room_for_the_data():
    size = sum(path.stat().st_size for path in (ROOT / "results").rglob("*") if path.is_file())
    assert 0 < size < SMALL_MIB * 2**20
