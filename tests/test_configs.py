"""Every file in configs/ is accepted by its command, and the number in its opening comment is a published one."""

import re
from pathlib import Path

import pytest
from commands import accepted, config_class

from core_dd import published
from core_dd.config import load_config

CONFIGS = Path(__file__).parents[1] / "configs"
COMMANDS = {
    "data": ["coreset"],
    "eval": ["evaluate", "--out=x"],
    "experts": ["experts"],
    "gen": ["train"],
    "matching": ["distill"],
}
FILES = [path for folder in COMMANDS for path in sorted((CONFIGS / folder).glob("*.yaml"))]


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_config__is_accepted(path):
    accepted([*COMMANDS[path.parent.name], "--config", str(path)])


@pytest.mark.parametrize("path", sorted((CONFIGS / "matching").glob("*.yaml")), ids=name)
def test_matching_config__names_what_it_is_and_what_was_published(path):
    argv = ["--config", str(path)]
    config, head = load_config(config_class("distill", argv), argv), path.read_text().splitlines()[0]
    assert path.stem.startswith(config.method) and path.stem.endswith(f"_ipc{config.ipc}")
    assert f"_{config.data}_" in path.stem and f"ipc {config.ipc}" in head
    if number := re.search(r": .*?([\d.]+) \+- ([\d.]+)$", head):
        rows = published.rows(config.data, config.ipc)
        assert tuple(map(float, number.groups())) in {(row.percent, row.std) for row in rows}
