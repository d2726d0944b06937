"""Every file in configs/ is accepted by its command, and the number in its opening comment is a published one."""

import re
from pathlib import Path
from typing import Any

import pytest
from commands import accepted, config_class

from core_dd import best_of_test, published
from core_dd.config import load_config
from core_dd.data import DataConfig

CONFIGS = Path(__file__).parents[1] / "configs"
COMMANDS = {
    "data": ["coreset"],
    "eval": ["evaluate", "--out=x"],
    "experts": ["experts"],
    "gen": ["train"],
    "matching": ["distill"],
}
MATCHING = sorted((CONFIGS / "matching").glob("*.yaml"))
FILES = [path for folder in COMMANDS for path in sorted((CONFIGS / folder).glob("*.yaml"))]


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def load(path: Path, command: str = "distill") -> Any:
    argv = ["--config", str(path)]
    return load_config(config_class(command, argv), argv)


def data_name(config: DataConfig) -> str:
    """What is before the path, where there is one."""
    return config.data.partition(":")[0]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_config__is_accepted(path):
    accepted([*COMMANDS[path.parent.name], "--config", str(path)])


@pytest.mark.parametrize("path", MATCHING, ids=name)
def test_matching_config__names_what_it_is_and_what_was_published(path):
    config, head = load(path), path.read_text().splitlines()[0]
    assert path.stem.startswith(config.method) and path.stem.endswith(f"_ipc{config.ipc}")
    data = data_name(config)
    assert f"_{data}_" in path.stem and f"ipc {config.ipc}" in head
    if number := re.search(r": .*?([\d.]+) \+- ([\d.]+)$", head):
        rows = published.rows(data, config.ipc)
        assert tuple(map(float, number.groups())) in {(row.percent, row.std) for row in rows}


@pytest.mark.parametrize("path", [path for path in MATCHING if "_cifar100_" in path.stem], ids=name)
def test_cifar100_config__is_normalised_as_its_authors_do(path):
    """Facts D6: the codes of IDC (and so M3D) and of MTT have CIFAR-10's constants there, the others its own."""
    config = load(path)
    expected = "cifar10_mean_std" if config.method in ("idc", "m3d", "mtt") else "mean_std"
    assert config.preprocess in (expected, "zca")


@pytest.mark.parametrize("path", sorted((CONFIGS / "smoke").glob("*.yaml")), ids=name)
def test_smoke_config__is_accepted_alone_and_after_the_published_one(path):
    if path.stem == "experts":
        return accepted(["experts", "--config", str(path)])
    published_ones = [other for other in MATCHING if other.stem.startswith(f"{path.stem}_")]
    assert published_ones
    for first in (None, *published_ones):
        accepted(
            ["distill", "--method", path.stem, *(["--config", str(first)] if first else []), "--config", str(path)]
        )


TESTED = {"mtt": lambda config: 100, "datadam_code": lambda config: 2000, "idm": lambda config: config.accuracy_every}
"""Iterations between the tests of which the authors report the best, by protocol."""


@pytest.mark.parametrize("protocol", [name for name, habit in best_of_test.HABITS.items() if habit.sets])
def test_configs__keep_every_set_that_their_authors_test(protocol):
    paths = [path for path in MATCHING if path.stem.startswith(protocol) and "_digits_" not in path.stem]
    assert paths
    for path in paths:
        config = load(path)
        assert config.checkpoint_every == TESTED[protocol](config), path
        assert config.keep * config.checkpoint_every == config.iterations, path
        assert f"# Keeps {config.keep} checkpoints" in path.read_text()


@pytest.mark.parametrize("path", [path for path in MATCHING if path.stem.startswith("mtt")], ids=name)
def test_mtt_config__fits_the_experts_it_names(path):
    config, [named] = load(path), re.findall(r": gendd experts --config (\S+)", path.read_text())
    experts = load(CONFIGS.parent / named, "experts")
    for field in ("data", "network", "preprocess"):
        assert getattr(experts, field) == getattr(config, field)
    assert config.max_start_epoch - 1 + config.expert_epochs <= experts.epochs
