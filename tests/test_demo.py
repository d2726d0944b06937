"""The demo: a comparison of six sets, which at a toy size runs, goes on and is kept; and it says when it is bad."""

import json
import shlex
from pathlib import Path

import pytest
import yaml
from commands import ROOT, accepted, load_script, run

from core_dd import files
from core_dd.compare.reading import read_comparison
from core_dd.errors import InputError
from core_dd.locks import own_folder

FILE = ROOT / "configs" / "compare" / "demo.yaml"
pages = load_script("scripts/pages.py")


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """scripts/demo.py as a module, in a working folder of its own."""
    module = load_script("scripts/demo.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.os, "chdir", lambda place: None)
    return module


def test_comparison__judges_as_the_config_of_the_digits(demo):
    found, judge = read_comparison(FILE, {}), yaml.safe_load((ROOT / "configs/eval/digits.yaml").read_text())
    assert found.real and len(found.producers) == 5 and demo.POOL in found.producers
    assert (found.network_names, found.protocols) == ([judge["network"]], judge["protocol"])
    assert found.judge.fidelity is judge["fidelity"] and found.judge.classifiers == 5


def test_commands__are_accepted(demo):
    for words in (f"{demo.COMPARISON} --out runs/demo/00007", *demo.BY_HAND):
        accepted(shlex.split(words))


def test_main__each_demo_has_a_folder_of_its_own(demo, monkeypatch):
    """One that starts while another plays gets the next number; one that resumes it is told who has it."""
    played = []

    def play(out):
        played.append(out)
        if len(played) == 1:
            assert demo.main([]) == 0
        else:
            with own_folder(out), pytest.raises(InputError, match="in use by process"):
                demo.main(["--resume"])
        return 0

    with pytest.raises(InputError, match="nothing to resume"):
        demo.main(["--resume"])
    monkeypatch.setattr(demo, "play", play)
    assert demo.main([]) == 0
    assert demo.main(["--resume"]) == 0
    assert [out.name for out in played] == ["00000", "00001", "00001"]


@pytest.mark.slow
def test_script__a_mistake_is_one_sentence():
    done = run(ROOT / "scripts" / "demo.py", "--nonsense")
    assert done.returncode == 2 and "unrecognized arguments: --nonsense" in done.stderr


def toy() -> None:
    """Write the demo's comparison at a tiny size."""
    tiny = {"iterations": 2, "compile": False}
    own = yaml.safe_load(FILE.read_text())
    for name, options in own["producers"].items():
        if "network" in options:
            options["network"] = "mlp"
        if "method" in options:
            own["producers"][name] = {"method": "dm", "network": "convnet1_w8", "batch_real": 16, **tiny}
        if "generator" in options:
            options["generator"] = {"batch_size": 8, "check_images": 0, "grid_every": 0, "log_every": 1, **tiny}
            options["sample"] = {"num_per_class": 3, "steps": 2, "compile": False}
    own |= {"ipc": 2, "networks": "convnet1_w8", "judge": {"classifiers": 1}}
    own["protocols"] = [{"protocol": "quick", "iterations": 2}]
    Path("toy.yaml").write_text(yaml.safe_dump(own, sort_keys=False))


def test_play__ends_with_ranking_times_and_a_verdict_and_is_kept(demo, monkeypatch, capsys):
    toy()
    monkeypatch.setattr(demo, "COMPARISON", "compare toy.yaml --workers 0 --no_figures --device cpu")
    assert demo.main([]) == 1  # two steps teach nothing
    said, why = capsys.readouterr()
    assert "$ gendd compare toy.yaml" in said and "The demo failed: classifiers trained on the generated pool" in why
    assert "Open runs/demo/00000/report/report.html" in said
    out = Path("runs/demo/00000")
    times = json.loads((out / "stages.json").read_text())
    assert list(times) == [*demo.STAGES.values(), demo.REST] and all(value > 0 for value in times.values())
    ranked = said.split("accuracy %", 1)[1]
    assert all(name in ranked for name in ("generated pool", "generated herding ipc 2", "whole training set", "DM ipc"))
    assert "Training curves" in (out / "report" / "report.html").read_text()

    before = {path: path.stat().st_mtime_ns for path in out.rglob("done.json")}
    assert demo.main(["--resume"]) == 1 and len(before) == 14
    assert {path: path.stat().st_mtime_ns for path in out.rglob("done.json")} == before
    again = json.loads((out / "stages.json").read_text())
    assert [again[name] for name in demo.STAGES.values()] == [times[name] for name in demo.STAGES.values()]

    pages.keep_comparison(out, Path("kept"), more=pages.KEPT)
    kept = {path.relative_to("kept").as_posix() for path in Path("kept").rglob("*") if path.is_file()}
    assert kept >= {*pages.KEPT.values(), "generated-pool-ipc2/0/scores.json", "real-real/0/scores.json", "table.md"}


def test_play__says_how_to_go_on_where_a_job_failed(demo, monkeypatch, capsys):
    Path("bad.py").write_text("def make(data, ipc, seed, out):\n    raise ValueError('no way')\n")
    Path("toy.yaml").write_text("{data: digits, ipc: 1, real: false, producers: {mine: {function: 'bad:make'}}}")
    monkeypatch.syspath_prepend(".")
    monkeypatch.setattr(demo, "COMPARISON", "compare toy.yaml --workers 0")
    assert demo.main([]) == 1
    why = capsys.readouterr().err
    assert "ValueError: no way" in why and "Go on with: make demo ARGS=--resume" in why


def finished(folder: Path, accuracy: float, step: int) -> Path:
    """A demo's folder with a pool's score and the card of a generator trained for `step` of 1200 steps."""
    data = {"name": "digits", "fingerprint": "f", "test_images": 355}
    scored = {"method": "uvit", "ipc": None, "images": 100, "hash": "h"}
    numbers = {"accuracies": [accuracy], "mean": accuracy, "std": 0.0, "seconds": 1.0, "smoke": False}
    score = numbers | {"protocol": "quick", "network": "convnet3", "set": scored, "data": data}
    card = {"step": step, "train": {"iterations": 1200, "max_seconds": 200.0}}
    names = {"score": ["generated pool/digits/ipc10/seed0/convnet3/quick"], "generator": []}
    common = {"title": "", "log": "log"}
    plan = {kind: {"kind": kind, "folder": kind, "cells": cells, **common} for kind, cells in names.items()}
    contents = {"plan.json": plan, "score/scores.json": score, "generator/model/gendd.json": card}
    for place, content in (contents | {"score/done.json": {}, "generator/done.json": {}}).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
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
