"""Configs by name, and the setting of a file that fits the data and the ipc."""

import re
from dataclasses import dataclass

import pytest

from core_dd.config import load_config, peek
from core_dd.errors import InputError
from core_dd.settings import CONFIGS, find

SEVERAL = """\
method: dm
rate: 1.0
settings:
- {data: digits, ipc: 1, published: 48.9 +- 0.6}
- {data: digits, ipc: 10, published: 60, rate: 2e-1}
- {data: "folder:there", ipc: 5, published: null, rate: 3.0, method: m3d}
"""


@dataclass(kw_only=True)
class Config:
    """A config for the tests."""

    data: str = "mnist"
    """Which data."""
    ipc: int = 10
    """Images per class."""
    method: str = "dc"
    """How."""
    rate: float = 9.0
    """A number."""


@pytest.fixture
def several(tmp_path):
    """The file of settings, several.yaml in the working folder."""
    (tmp_path / "several.yaml").write_text(SEVERAL)
    (tmp_path / "ten.yaml").write_text("ipc: 10\ndata: digits\n")


def load(*words: str) -> tuple:
    config = load_config(Config, [*words])
    return config.data, config.ipc, config.method, config.rate


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--config=several.yaml", "--data=digits", "--ipc=1"], ("digits", 1, "dm", 1.0)),
        (["--ipc", "10", "--config", "several.yaml", "--data", "digits"], ("digits", 10, "dm", 0.2)),
        (["--config=several.yaml", "--data=folder:elsewhere"], ("folder:elsewhere", 5, "m3d", 3.0)),
        (["--config=several.yaml", "--ipc=5"], ("folder:there", 5, "m3d", 3.0)),
        (["--config=several.yaml:folder"], ("folder:there", 5, "m3d", 3.0)),
        (["--config=several.yaml:digits", "--ipc=1", "--data=pt:x"], ("pt:x", 1, "dm", 1.0)),
        (["--config=several.yaml", "--config=ten.yaml"], ("digits", 10, "dm", 0.2)),
        (["--config=ten.yaml", "--config=several.yaml", "--ipc=1", "--rate=7"], ("digits", 1, "dm", 7.0)),
    ],
)
def test_settings__the_one_applies_that_fits(several, words, found):
    assert load(*words) == found


def test_peek__sees_the_setting_that_applies(several):
    assert peek(["--config=several.yaml", "--ipc=5"], "method") == "m3d"
    assert peek(["--config=several.yaml:digits", "--ipc=1"], "method") == "dm"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [],
            "several.yaml has several settings for any data: choose --data and --ipc among digits (ipc 1, 10), folder",
        ),
        (["--data=digits"], "has several settings for --data digits: choose --data and --ipc among digits (ipc 1, 10)"),
        (["--data=digits", "--ipc=5"], "has no settings for --data digits --ipc 5: choose"),
        (["--data=pt:x", "--ipc=1"], "in --config several:digits --data parquet:FOLDER"),
        (["--ipc=ten"], "has no settings for --ipc ten: choose"),
    ],
)
def test_settings__another_pair_says_which_there_are(several, words, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load("--config=several.yaml", *words)


def test_settings__help_needs_no_choice(several, capsys):
    with pytest.raises(SystemExit) as stop:
        load("--config=several.yaml", "--help")
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and "(default: 1.0)" in shown and "--config FILE.yaml" in shown
    with pytest.raises(SystemExit):
        load("--config=several.yaml", "--ipc=5", "--help")
    assert "(default: 3.0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings: 3", "a.yaml: 'settings' must be a list"),
        ("settings:", "'settings' must be a list"),
        ("settings: []", "'settings' must be a list"),
        ("settings: [3]", "a.yaml: setting 1 must hold 'key: value' pairs"),
        ("settings: [{data: digits, ipcs: 3}]", "setting 1 has no 'ipc'; did you mean 'ipcs'?"),
        ("settings: [{data: digits, ipc: ten}]", "setting 1: 'ipc' is of type str, expected int"),
        ("settings: [{data: digits, ipc: true}]", "'ipc' is of type bool, expected int"),
        ("settings: [{data: [a], ipc: 1}]", "'data' is of type list, expected str"),
        ("settings: [{data: digits, ipc: 1, published: [1]}]", "'published' must be a number, text such as"),
        ("settings: [{data: a, ipc: 1}, {data: 'a:b', ipc: 1}]", "two settings for data a, ipc 1"),
        ("settings: [{data: a, ipc: 1}, {data: b, ipc: 1, rats: 3}]", "unknown key 'settings[b, ipc 1].rats'; did you"),
        ("settings: [{data: a, ipc: 1, rate: x}]", "a.yaml: 'rate' is 'x', expected float"),
        ("settings: [{data: a, ipc: 1, settings: []}]", "unknown key 'settings[a, ipc 1].settings'"),
        ("published: 3\nsettings: [{data: a, ipc: 1}]", "unknown key 'published'"),
    ],
)
def test_settings__bad_file(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        load("--config=a.yaml:a" if "data: b" in text else "--config=a.yaml")


def test_settings__a_file_without_any_takes_no_name_of_data(tmp_path):
    (tmp_path / "a.yaml").write_text("ipc: 3\n")
    with pytest.raises(InputError, match="a.yaml has no settings to choose from: leave out ':digits'"):
        load("--config=a.yaml:digits")


def test_find__a_file_then_a_name_of_the_home_then_one_with_its_folder(tmp_path):
    assert find("digits", "gen") == CONFIGS / "gen" / "digits.yaml"
    assert find("smoke/dm", "matching") == CONFIGS / "smoke" / "dm.yaml"
    (tmp_path / "digits").write_text("ipc: 3\n")
    assert load_config(Config, ["--config", "digits"], home="gen").ipc == 3
    (tmp_path / "a:b.yaml").write_text("ipc: 4\n")
    assert load("--config", "a:b.yaml")[1] == 4


@pytest.mark.parametrize("name", ["dmm", "matching/dmm", "", ":digits", "../dm", "accelerate/cpu", "x" * 5000])
def test_find__unknown_name_says_which_there_are(name):
    with pytest.raises(InputError, match="no config is called '.*Those of gendd are .*cafe_dsa.*, dm, .*FILE.yaml"):
        load_config(Config, ["--config", name], home="matching")


def test_find__unknown_name_says_the_likely_one():
    with pytest.raises(InputError, match="'datadm_paper'; did you mean 'datadam_paper'?"):
        find("datadm_paper", "matching")
