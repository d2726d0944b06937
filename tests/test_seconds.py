"""scripts/seconds.py end to end: pools of digits in seconds, by a model of a few steps and what it was tuned into."""

import csv
from pathlib import Path

import pytest
from commands import load_script

from core_dd.compare.reading import read_comparison
from core_dd.errors import InputError
from gen_dd.options import TrainConfig, TuneConfig
from gen_dd.train import train

SHORT = {
    "data": "digits", "batch_size": 8, "iterations": 2, "grid_every": 0, "check_images": 0, "tracker": "none",
    "device": "cpu", "compile": False,
}  # fmt: skip


@pytest.fixture
def asked(tmp_path):
    """Options of the script."""
    train(TrainConfig(**SHORT, out=str(tmp_path / "model")))
    train(TuneConfig(**SHORT, init_from=str(tmp_path / "model"), out=str(tmp_path / "tuned")))
    options = {
        "model": tmp_path / "model", "tuned": tmp_path / "tuned", "data": "digits", "steps": 2, "few": 1, "pools": 2,
        "network": "convnet1_w8", "iterations": 2, "dm": 1, "workers": 2, "out": tmp_path / "run",
        "results": tmp_path / "kept",
    }  # fmt: skip
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


@pytest.mark.slow
def test_seconds__every_way_at_every_budget(asked, tmp_path):
    script = load_script("scripts/seconds.py")
    script.main([*asked, "--seconds", "4"])
    first = (tmp_path / "kept" / "scores.csv").read_text()
    script.main([*asked, "--seconds", "4", "6"])  # goes on
    with (tmp_path / "kept" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(first.splitlines()) <= set((tmp_path / "kept" / "scores.csv").read_text().splitlines())
    drawn = [(row["way"], row["seconds"], row["seed"]) for row in rows if row["seconds"]]
    assert drawn == [(way, s, seed) for way in ("2 steps", "1 tuned step") for s in ("4.0", "6.0") for seed in "01"]
    beside = {row["way"] for row in rows if not row["seconds"]}
    assert beside == {"whole training set", *(f"Random, ipc {n}" for n in (1, 10, 50)), "DM, ipc 10"}
    assert all(int(row["images"]) > 0 and 0 <= float(row["accuracy"]) <= 1 for row in rows)
    table = (tmp_path / "kept" / "table.md").read_text()
    assert "| drawn in | 4 s | 6 s |" in table and "| whole training set |" in table
    assert "1 tuned step" in (tmp_path / "kept" / "seconds.svg").read_text()
    with pytest.raises(InputError, match="--filtered '3 steps': no such way to draw; there are 2 steps, 1 tuned step"):
        script.main([*asked, "--filtered", "3 steps"])


def test_seconds__what_is_filtered_and_how_it_is_judged(tmp_path, monkeypatch):
    script, asked = load_script("scripts/seconds.py"), []
    monkeypatch.setattr(script.compare, "main", asked.append)
    options = ["--model", "model", "--tuned", "tuned", "--out", str(tmp_path / "run"), "--protocol", "quick"]
    script.main([*options, "--data", "digits=npz:digits.npz", "--seconds", "5", "--filtered", "10 steps"])
    [words] = asked
    found = read_comparison(Path(words[0]), {"digits": "npz:digits.npz"})
    assert words[-2:] == ["--data", "digits=npz:digits.npz"]
    assert [own.protocol for own in found.protocol_choices] == ["quick"] and not (tmp_path / "kept").exists()
    sample = {"steps": 10, "budget": "5s"}
    plain = {"generator": "model", "sample": sample, "selector": "all"}
    assert found.producers["10 steps, 5 s"] == plain
    filtered = plain | {"sample": sample | {"filter": 0.0, "guide_data": "npz:digits.npz"}}
    assert found.producers["10 steps, filtered, 5 s"] == filtered
    assert found.producers["2 tuned steps, 5 s"]["generator"] == "tuned"
