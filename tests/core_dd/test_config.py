from dataclasses import dataclass, field

import pytest

from core_dd.config import load_config, peek, to_yaml
from core_dd.errors import InputError, require


@dataclass(kw_only=True)
class Inner:
    """Nested fields."""

    width: int = 4
    """Channels."""


@dataclass(kw_only=True)
class Config:
    """A config for the tests."""

    ipc: int = 10
    """Images per class."""
    lr: float = 1.0
    """Learning rate of the images."""
    name: str | None = None
    """A name."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Two numbers."""
    sizes: list[int] = field(default_factory=list)
    """Some numbers."""
    resume: bool = False
    """Continue."""
    inner: Inner = field(default_factory=Inner)
    """Nested."""

    def __post_init__(self) -> None:
        require(self.ipc >= 1, f"ipc must be >= 1, got {self.ipc}. Set 'ipc: 10' in the YAML or pass --ipc 10.")


def write(tmp_path, text, name="a.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_load_config__defaults_then_files_in_order_then_flags(tmp_path):
    first = write(tmp_path, "ipc: 1\nlr: 2e-4\ninner: {width: 8}\n")
    second = write(tmp_path, "ipc: 2\nbetas: [0.5, 0.6]\n", "b.yaml")
    config = load_config(Config, ["--config", first, f"--config={second}", "--ipc", "3", "--resume"])
    assert (config.ipc, config.lr, config.betas, config.resume) == (3, 2e-4, (0.5, 0.6), True)
    assert config.inner == Inner(width=8)


def test_load_config__nested_flag_is_dotted():
    assert load_config(Config, ["--inner.width", "16"]).inner.width == 16


def test_load_config__flags_mend_what_a_file_got_wrong(tmp_path):
    assert load_config(Config, ["--config", write(tmp_path, "ipc: 0\n"), "--ipc", "5"]).ipc == 5


def test_to_yaml__reads_back_equal(tmp_path):
    config = Config(ipc=3, name="x", sizes=[1, 2], lr=1e-7)
    assert load_config(Config, ["--config", write(tmp_path, to_yaml(config))]) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ipcs: 3\n", "a.yaml: unknown key 'ipcs'; did you mean 'ipc'?"),
        ("inner: {widht: 3}\n", "unknown key 'inner.widht'; did you mean 'width'?"),
        ("ipc: 3\nipc: 4\n", "duplicate key 'ipc'"),
        ("ipc: ten\n", "'ipc' is 'ten', expected int"),
        ("betas: [0.9]\n", "'betas' is \\[0.9\\]"),
        ("- 1\n", "holds a list"),
        ("ipc: [1\n", "not valid YAML"),
        ("ipc: 0\n", "ipc must be >= 1, got 0. Set 'ipc: 10' in the YAML or pass --ipc 10."),
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


def test_load_config__help_shows_every_meaning(capsys):
    with pytest.raises(SystemExit) as stop:
        load_config(Config, ["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for words in ("Images per class.", "Learning rate of the images.", "--inner.width", "Channels."):
        assert words in text


def test_load_config__failed_check_leaves_the_class_as_it_was(tmp_path):
    with pytest.raises(InputError):
        load_config(Config, ["--ipc", "0"])
    with pytest.raises(InputError):
        Config(ipc=0)


def test_peek__flag_wins_over_last_file(tmp_path):
    first, second = write(tmp_path, "name: a\n"), write(tmp_path, "name: b\n", "b.yaml")
    assert peek(["--config", first, "--config", second], "name") == "b"
    assert peek(["--config", first, "--name", "c"], "name") == "c"
    assert peek(["--name=d"], "name") == "d"
    assert peek([], "name") is None
