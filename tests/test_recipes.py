"""experiments/recipes.py: two trainings of digits end to end, shortened, gone on with, and the curves it keeps."""

import functools
from pathlib import Path

import pytest
from commands import ROOT, load_script

from core_dd.errors import InputError
from core_dd.records import read as read_json
from core_dd.report import report
from core_dd.run import read_stats
from core_dd.yaml_files import read_yaml

SHORT = ["--seeds", "0", "--checkpoint_every", "1", "--num_per_class", "2", "--classifiers", "1", "--out", "out"]


@pytest.fixture
def recipes():
    """The script as a module, with trainings of two steps and small classifiers."""
    module, small = load_script("experiments/recipes.py"), "convnet1_w8"
    module.real_classifier = functools.partial(module.real_classifier, network=small)
    module.evaluate = functools.partial(module.evaluate, network=small)
    module.TrainConfig = functools.partial(module.TrainConfig, check_images=0)
    module.RECIPES = {"paper": ((2, 3), module.PAPER), "fast2": ((2,), module.FAST)}
    return module


@pytest.mark.slow
def test_recipes__trains_judges_and_keeps_the_curves(recipes):
    recipes.main([*SHORT, "--only", "paper", "--max_steps", "2"])
    first = Path("runs/digits_recipes/paper-seed0/2.json").read_text()
    recipes.main(SHORT)
    assert Path("runs/digits_recipes/paper-seed0/2.json").read_text() == first, "it was judged again"
    curves = {path.parent.name: read_stats(path) for path in Path("out").glob("*/stats.jsonl")}
    assert {name: [line["step"] for line in lines] for name, lines in curves.items()} == {
        "fast2-seed0": [2], "paper-seed0": [2, 3],
    }  # fmt: skip
    for name, lines in curves.items():
        for line in lines:
            found = read_json(Path("runs/digits_recipes") / name / f"{line['step']}.json")
            assert line["classifier_frechet"] == found["classifier_frechet"] > 0
            assert line["accuracy"] == found["accuracies"][0] and len(found["accuracies"]) == 1
            assert line["seconds"] == pytest.approx(line["step"] * found["seconds_per_step"]) and line["seconds"] > 0
    report.main(["out", "--out", "report"])
    assert "paper-seed0" in Path("report/report.html").read_text()


def test_recipes__unknown_name(recipes):
    with pytest.raises(InputError, match="no recipe's name begins with 'fats'. Choose from paper, fast2"):
        recipes.RecipesConfig(only="fats")


def test_fast__is_the_recipe_of_the_digits(recipes):
    config = read_yaml(ROOT / "configs" / "gen" / "digits.yaml")
    assert {name: config[name] for name in recipes.FAST} == {**recipes.FAST, "betas": list(recipes.FAST["betas"])}
