"""scripts/choices_generator.py: equal compute for every option, and what is there is left alone."""

import json

import pytest
from commands import load_script

from core_dd.files import write_json, write_text

COSTS = {"plain": 1.0, "augment": 1.0, "dropout": 1.1, "growth": 1.5, "supervise": 1.0, "align": 5.0}


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script, its results in a folder of the test; what trains and draws is written down instead."""
    script = load_script("scripts/choices_generator.py")
    script.asked = []

    def train(config):
        script.asked.append(config)
        scores = {"step": config.iterations, "loss": 0.5, "classifier_frechet": 0.25, "val_accuracy": 0.75}
        (tmp_path / config.out / "model").mkdir(parents=True, exist_ok=True)
        write_text(tmp_path / config.out / "stats.jsonl", json.dumps(scores) + "\n")

    monkeypatch.setattr(script, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(script, "train", train)
    monkeypatch.setattr(script, "sample", lambda config: script.asked.append(config))
    return script


@pytest.mark.parametrize("data", ["digits", "fashion_mnist"])
def test_recipe__is_judged_once_at_its_end_by_a_validation_split(script, data):
    config = script.recipe(data, "out", **script.OPTIONS["augment"], iterations=70, seed=3)
    assert (config.iterations, config.eval_every, config.max_seconds) == (70, 70, None)
    assert config.augment == 0.12 and config.seed == 3 and config.val_fraction > 0


def test_trained__by_steps_of_equal_cost(script, tmp_path):
    write_json(script.kept("digits") / "costs.json", COSTS)
    for option in ("growth", "align"):
        script.trained("digits", tmp_path / "runs", option, 1, 300)
    assert [config.iterations for config in script.asked] == [200, 60]
    kept = json.loads((script.kept("digits") / "align-seed1" / "stats.jsonl").read_text())
    assert kept == {"step": 60, "classifier_frechet": 0.25, "val_accuracy": 0.75}
    script.trained("digits", tmp_path / "runs", "align", 1, 300)
    assert len(script.asked) == 2, "what is there is left alone"


def test_trained__neon_steps_on_from_the_plain_model(script, tmp_path):
    write_json(script.kept("digits") / "costs.json", COSTS)
    script.trained("digits", tmp_path / "runs", "plain", 0, 300)
    plain, pool, *neon = script.asked
    assert (plain.iterations, pool.num_per_class, pool.seed) == (300, script.POOL, 100)
    assert [config.neon_weight for config in neon] == list(script.NEON_WEIGHTS)
    assert {(config.init_from, config.neon) for config in neon} == {(plain.out, pool.out)}
    names = {folder.name for folder in script.kept("digits").iterdir()}
    assert names == {"costs.json", "plain-seed0", *(f"neon_{weight:g}-seed0" for weight in script.NEON_WEIGHTS)}


def test_trained__neon_of_a_model_whose_score_alone_is_kept(script, tmp_path):
    """As in a fresh checkout: the model is made again, its score is not; and all that is kept makes nothing."""
    write_json(script.kept("digits") / "costs.json", COSTS)
    write_text(script.kept("digits") / "plain-seed0" / "stats.jsonl", "{}\n")
    script.trained("digits", tmp_path / "runs", "plain", 0, 300)
    assert [getattr(config, "neon_weight", None) for config in script.asked] == [1.0, None, *script.NEON_WEIGHTS]
    script.trained("digits", tmp_path / "runs", "plain", 0, 300)
    assert len(script.asked) == 4 and (script.kept("digits") / "plain-seed0" / "stats.jsonl").read_text() == "{}\n"


def test_trained__longer_is_the_plain_recipe_with_the_steps_that_neon_costs(script, tmp_path):
    write_json(script.kept("digits") / "costs.json", COSTS)
    script.trained("digits", tmp_path / "runs", "longer", 1, 300)
    assert script.asked == [script.recipe("digits", tmp_path / "runs" / "longer-seed1", iterations=380, seed=1)]


def test_trained__goes_on_with_what_a_kill_left(script, tmp_path):
    write_json(script.kept("digits") / "costs.json", COSTS)
    (tmp_path / "runs" / "growth-seed1").mkdir(parents=True)
    for option in ("growth", "align"):
        script.trained("digits", tmp_path / "runs", option, 1, 300)
    assert [config.resume for config in script.asked] == [True, False]
