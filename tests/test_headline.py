"""scripts/headline_cifar100.sh end to end: digits, a network trained for some steps, judged by classifiers of a few."""

import os
import subprocess

import pytest
import torch
from commands import FORKED_IN_BASH, ROOT
from PIL import Image

from core_dd.records import read as read_json
from core_dd.run import read_stats
from core_dd.sets.distilled import DistilledSet
from core_dd.yaml_files import read_yaml
from gen_dd.options import SampleConfig
from gen_dd.sample import run
from gen_dd.uvit import UViT

RECIPE = """\
preset: tiny
iterations: 20
batch_size: 16
compile: false
checkpoint_every: 10
log_every: 5
eval_every: 10
eval_ipc: 2
eval_network: convnet1_w16
check_images: 20
val_fraction: 0.02
tracker: none
"""
STEPS = 3


@pytest.fixture
def headline(tmp_path):
    """A call of the script, for one chunk of training or what follows it; returns what it printed."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "tuning.yaml").write_text("\n".join(line for line in RECIPE.splitlines() if "preset" not in line))
    settings = {
        "NAME": "digits", "DATA": "digits", "CONFIG": tmp_path / "recipe.yaml", "CHUNK": 60, "CHUNKS": 1,
        "BUDGET": "10s", "EVALUATIONS": STEPS, "SELECTORS": "random", "IPC_STEPS": 2, "POOL_STEPS": 4, "RUNS": 1,
        "TUNE": "--config " + str(tmp_path / "tuning.yaml"),
        "WORK": tmp_path / "work", "OUT": tmp_path / "out",
    }  # fmt: skip
    environment = os.environ | FORKED_IN_BASH | {name: str(value) for name, value in settings.items()}

    def call() -> str:
        script = ["bash", str(ROOT / "scripts" / "headline_cifar100.sh")]
        done = subprocess.run(script, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.mark.slow
def test_headline__trains_samples_judges_and_keeps(headline, tmp_path):
    """One call trains; a pool whose sampling was stopped, though its picture is there, is gone on with by the next."""
    work, out = tmp_path / "work", tmp_path / "out"
    headline()
    assert (work / "chunk-1").exists() and not (work / "pool").exists() and not out.exists()
    config = read_yaml(work / "train" / "config.yaml")
    assert config["val_fraction"] == config["eval_every"] == config["eval_ipc"] == 0 and config["iterations"] == 20

    run(SampleConfig(model=str(work / "train"), out=str(work / "pool"), num_per_class=10, steps=STEPS))
    assert (work / "pool" / "grid.png").exists() and (work / "pool" / "index.json").exists()
    (work / "pool" / "summary.txt").unlink()  # as a kill leaves it
    said = headline()
    assert "--resume" in next(line for line in said.splitlines() if line.startswith("$ gendd sample"))
    assert "earlier runs" in said and (work / "pool" / "summary.txt").exists()

    scores = {path.parent.name: read_json(path) for path in out.glob("*/scores.json")}
    assert scores.keys() == {"real", "random", "pool", "few_random", "few_pool"}
    assert (scores["random"]["protocol"], scores["random"]["set"]["images"]) == ("challenge_2_steps", 100)
    assert scores["pool"]["protocol"] == "challenge_4_steps"
    assert scores["pool"]["set"]["images"] == len(DistilledSet.load(work / "pool"))
    assert scores["few_pool"]["set"]["images"] == len(DistilledSet.load(work / "few_pool"))
    assert "2 steps" in (out / "few_pool" / "summary.txt").read_text()
    assert [line["step"] for line in read_stats(out / "tuned" / "stats.jsonl") if "loss" in line][-1] == 20
    assert all(score["smoke"] and len(score["accuracies"]) == 1 for score in scores.values())
    with Image.open(out / "pool" / "grid.jpg") as picture, Image.open(work / "pool" / "grid.png") as drawn:
        assert picture.size == drawn.size
    assert not any({"answers", "curves"} & score.keys() for score in scores.values())
    assert [line["step"] for line in read_stats(out / "train" / "stats.jsonl") if "loss" in line][-1] == 20
    assert read_json(out / "train" / "learnt.json")["step"] == 20
    report = (work / "report" / "report.html").read_text()
    assert "challenge_4_steps" in report and "Training curves" in report
    kept, trained = (UViT.from_pretrained(folder / "model") for folder in (out, work / "train"))
    for half, whole in zip(kept.parameters(), trained.parameters(), strict=True):
        assert torch.equal(half.half(), whole.half())
    assert all(path.stat().st_size < 2**24 for path in out.rglob("*"))
