"""scripts/recipes.py: two trainings of digits end to end, shortened, gone on with, and what its table says."""

import importlib.util
import sys
from pathlib import Path

import pytest

from core_dd.errors import InputError
from core_dd.files import read_json

ROOT = Path(__file__).parents[1]
SHORT = ["--seeds", "0", "--checkpoint_every", "1", "--num_per_class", "2", "--runs", "1", "--out", "out"]


@pytest.fixture
def recipes(monkeypatch):
    """The script as a module, with trainings of two steps."""
    monkeypatch.setenv("GENDD_COMPILE", "0")
    spec = importlib.util.spec_from_file_location("recipes", ROOT / "scripts" / "recipes.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "recipes", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    module.RECIPES = {"paper": ((2, 3), module.PAPER), "fast2": ((2,), module.FAST)}
    return module


def test_recipes__trains_judges_and_tabulates(recipes):
    recipes.main([*SHORT, "--only", "paper", "--max_steps", "2"])
    first = Path("runs/digits_recipes/paper-seed0/2.json").read_text()
    recipes.main(SHORT)
    assert Path("runs/digits_recipes/paper-seed0/2.json").read_text() == first, "it was judged again"
    lines = read_json(Path("out/table.json"))
    assert [(line["recipe"], line["steps"]) for line in lines] == [("fast", 2), ("paper", 2), ("paper", 3)]
    for line in lines:
        [found] = line["seeds"].values()
        assert found["classifier_frechet"] > 0 and len(found["accuracies"]) == 1 and found["seconds_per_step"] > 0
        cells = [line["recipe"], str(line["steps"]), f"{line['steps'] * found['seconds_per_step']:.0f}"]
        cells += [f"{found['classifier_frechet']:.3f}", f"{100 * found['accuracies'][0]:.1f}"]
        assert f"| {' | '.join(cells)} |" in Path("out/table.md").read_text()


def test_recipes__unknown_name(recipes):
    with pytest.raises(InputError, match="no recipe's name begins with 'fats'. Choose from paper, fast2"):
        recipes.RecipesConfig(only="fats")
