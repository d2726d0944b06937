from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import yaml

from core_dd.compare.options import CompareConfig
from core_dd.config import at_home, load_config, peek, to_dict, to_yaml
from core_dd.errors import InputError, require
from core_dd.options import Options, option
from gen_dd.options import SampleConfig, TrainConfig


@dataclass(kw_only=True)
class Config(Options):
    """A config for the tests."""

    RENAMED: ClassVar[Mapping[str, str]] = {"rate": "lr"}

    ipc: int = 10
    """Images per class."""
    lr: float = 1.0
    """Learning rate of the images."""
    name: str | None = None
    """A name."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Two numbers."""
    sizes: tuple[int, ...] = ()
    """Some numbers."""
    resume: bool = False
    """Continue."""
    data: str = option("digits", choices={"digits": "8x8", "mnist": "28x28"})
    """Which data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.ipc >= 1, f"ipc must be >= 1, got {self.ipc}. Set 'ipc: 10' in the YAML or pass --ipc 10.")


def write(tmp_path, text, name="a.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_load_config__defaults_then_files_in_order_then_flags(tmp_path):
    first = write(tmp_path, "ipc: 1\nlr: 2e-4\n")
    second = write(tmp_path, "ipc: 2\nbetas: [0.5, 0.6]\n", "b.yaml")
    config = load_config(Config, ["--config", first, f"--config={second}", "--ipc", "3", "--resume"])
    assert (config.ipc, config.lr, config.betas, config.resume) == (3, 2e-4, (0.5, 0.6), True)
    assert load_config(Config, []) == Config()


def test_load_config__flags_mend_what_a_file_got_wrong(tmp_path):
    assert load_config(Config, ["--config", write(tmp_path, "ipc: 0\n"), "--ipc", "5"]).ipc == 5


def test_to_yaml__reads_back_equal(tmp_path):
    config = Config(ipc=3, name="x", sizes=(1, 2), lr=1e-7)
    assert load_config(Config, ["--config", write(tmp_path, to_yaml(config))]) == config
    assert yaml.safe_load(to_yaml(config)) == to_dict(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ipcs: 3\n", "a.yaml: unknown key 'ipcs'; did you mean 'ipc'?"),
        ("ipc: 3\nipc: 4\n", "duplicate key 'ipc'"),
        ("ipc: ten\n", "'ipc' is 'ten', expected int"),
        ("betas: [0.9]\n", "'betas' is \\[0.9\\]"),
        ("- 1\n", "holds a list"),
        ("ipc: [1\n", "not valid YAML"),
        ("ipc: 0\n", "ipc must be >= 1, got 0. Set 'ipc: 10' in the YAML or pass --ipc 10."),
        ("data: mnits\n", "unknown data 'mnits'; did you mean 'mnist'"),
    ],
)
def test_load_config__bad_yaml(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_config(Config, ["--config", write(tmp_path, text)])


def test_load_config__missing_file():
    with pytest.raises(InputError, match="no config file at nowhere.yaml"):
        load_config(Config, ["--config", "nowhere.yaml"])


@pytest.mark.parametrize("argv", [["--ipcs", "3"], ["--ipc", "ten"], ["--ipc"]])
def test_load_config__bad_flag_exits_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        load_config(Config, argv)
    assert stop.value.code == 2
    assert "ipc" in capsys.readouterr().err


def test_load_config__a_wrong_choice_names_the_likely_one():
    with pytest.raises(InputError, match="unknown data 'mnits'; did you mean 'mnist'.* Choose one of digits, mnist"):
        load_config(Config, ["--data", "mnits"])


def test_renamed__old_names_are_understood_in_flags_and_files_and_said(tmp_path, capsys):
    assert load_config(Config, ["--rate", "3"]).lr == load_config(Config, ["--rate=3"]).lr == 3
    said = capsys.readouterr().err.splitlines()
    assert said == ["note: --rate is now --lr; the old name goes with version 0.3."] * 2
    old = write(tmp_path, "rate: 4.0\n")
    assert load_config(Config, ["--config", old]).lr == 4
    assert capsys.readouterr().err == f"note: 'rate' in {old} is now 'lr'; the old name goes with version 0.3.\n"


def test_project__is_read_before_all_else(tmp_path, capsys):
    write(tmp_path, "ipc: 3\nrate: 0.5\nimage_size: 8\nkernel: linear\n", "gendd.yaml")
    config = load_config(Config, [])
    assert (config.ipc, config.lr) == (3, 0.5)
    assert capsys.readouterr().err == "defaults from gendd.yaml: ipc, lr\n"
    assert load_config(Config, ["--config", write(tmp_path, "ipc: 4\n")]).ipc == 4
    assert load_config(Config, ["--ipc", "5"]).ipc == 5
    assert peek([], "ipc") == "3"


def test_project__leaves_an_option_to_the_command_whose_it_is(tmp_path, capsys):
    """steps is of gendd sample; gendd train called its iterations so once, and understands that from elsewhere."""
    write(tmp_path, "steps: 20\niterations: 500\n", "gendd.yaml")
    assert (
        load_config(TrainConfig, []).iterations == 500
        and load_config(SampleConfig, ["--model=m", "--out=o", "--budget=9s"]).steps == 20
    )
    assert "is now" not in capsys.readouterr().err
    assert load_config(TrainConfig, ["--steps", "30"]).iterations == 30


def test_project__leaves_a_value_to_the_command_whose_type_it_is(tmp_path, capsys):
    """data are many for gendd compare, and one for the others."""
    write(tmp_path, "data: folder:mine\naugment: dsa\n", "gendd.yaml")
    assert load_config(CompareConfig, ["--file=digits"]).data == ()
    assert load_config(TrainConfig, []).data == "folder:mine" and load_config(TrainConfig, []).augment == 0
    write(tmp_path, "augment: [1]\n", "gendd.yaml")
    with pytest.raises(InputError, match="gendd.yaml: 'augment' is"):
        load_config(TrainConfig, [])


def test_load_config__expands_a_home_that_the_shell_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(TrainConfig, ["--out=~/run"]).out == str(tmp_path / "run")
    (tmp_path / "mine.yaml").write_text("iterations: 7\n")
    assert load_config(TrainConfig, ["--config=~/mine.yaml"]).iterations == 7
    assert at_home(("~/a", "b")) == (str(tmp_path / "a"), "b") and at_home([3]) == [3]


def test_project__gives_nothing_that_a_command_has_no_use_for(tmp_path, capsys):
    @dataclass(kw_only=True)
    class Other(Config):
        HIDDEN: ClassVar[frozenset[str]] = frozenset({"ipc"})

    write(tmp_path, "ipc: 3\nlr: 0.5\n", "gendd.yaml")
    config = load_config(Other, [])
    assert (config.ipc, config.lr) == (10, 0.5)
    assert capsys.readouterr().err == "defaults from gendd.yaml: lr\n"


def test_project__chooses_the_setting_of_a_config(tmp_path):
    write(tmp_path, "data: mnist\n", "gendd.yaml")
    several = write(tmp_path, "settings: [{data: digits, ipc: 1, lr: 1.0}, {data: mnist, ipc: 1, lr: 2.0}]\n")
    assert load_config(Config, ["--config", several]).lr == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imge_size: 8\n", "gendd.yaml: unknown key 'imge_size'; did you mean 'image_size'?"),
        ("ipc: ten\n", "gendd.yaml: 'ipc' is 'ten', expected int"),
        ("data: [\n", "gendd.yaml is not valid YAML"),
        ("digits\n", "gendd.yaml holds a str"),
        ("settings: []\n", "gendd.yaml: unknown key 'settings'"),
    ],
)
def test_project__a_broken_file_is_one_sentence(tmp_path, text, message):
    write(tmp_path, text, "gendd.yaml")
    with pytest.raises(InputError, match=message):
        load_config(Config, ["--ipc", "3"])


def test_project__a_folder_of_that_name_is_refused(tmp_path):
    (tmp_path / "gendd.yaml").mkdir()
    with pytest.raises(InputError, match="gendd.yaml"):
        load_config(Config, [])


def test_peek__flag_wins_over_last_file(tmp_path):
    first, second = write(tmp_path, "name: a\n"), write(tmp_path, "name: b\n", "b.yaml")
    assert peek(["--config", first, "--config", second], "name") == "b"
    assert peek(["--config", first, "--name", "c"], "name") == "c"
    assert peek(["--name=d"], "name") == "d"
    assert peek([], "name") is None
