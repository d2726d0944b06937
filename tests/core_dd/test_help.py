from dataclasses import dataclass
from typing import ClassVar

import pytest

from core_dd.config import load_config
from core_dd.options import Options, option


@dataclass(kw_only=True)
class Base(Options):
    """What comes first."""

    GROUP: ClassVar[str] = "data"

    place: str = ""
    """Where."""
    kind: str = option("a", choices={"a": "the first letter", "b": "the second"})
    """Which letter."""
    keep: int = option(3, group="run")
    """How many."""


@dataclass(kw_only=True)
class Config(Base):
    """Do something.

    And say so.
    """

    GROUP: ClassVar[str] = "method"

    kind: str = "b"
    keep: int = 4
    """How many of the newest."""
    rate: float | None = None
    """Learning rate; default: as published."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Two numbers."""
    sizes: tuple[int, ...] = ()
    """Some numbers."""
    steps: int | str = 50
    """A number, or auto."""
    stream: bool | None = None
    """On or off."""
    fast: bool = option(True, group="speed")
    """Hurry."""


SHOWN = """\
data:
  --place STR  (required)
      Where.
  --kind NAME  (default: b)
      Which letter.
        a  the first letter
        b  the second

method:
  --rate FLOAT
      Learning rate; default: as published.
  --betas FLOAT FLOAT  (default: 0.9 0.99)
      Two numbers.
  --sizes [INT ...]
      Some numbers.
  --steps INT|STR  (default: 50)
      A number, or auto.
  --stream {True,False}
      On or off.

speed:
  --fast, --no_fast  (default: True)
      Hurry.

run:
  --keep INT  (default: 4)
      How many of the newest.
"""


def test_help__by_group_with_meaning_choices_and_default(capsys):
    with pytest.raises(SystemExit) as stop:
        load_config(Config, ["--help"], prog="gendd something")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert shown.startswith(
        "usage: gendd something [--option value ...]\n\nDo something.\n\nAnd say so.\n\n--config FILE.yaml"
    )
    assert "gendd.yaml" in shown and shown.endswith("\n\n" + SHOWN)


def test_help__shows_the_defaults_that_files_set(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("betas: [0.1, 0.2]\n")
    with pytest.raises(SystemExit):
        load_config(Config, ["--config=a.yaml", "-h"])
    assert "--betas FLOAT FLOAT  (default: 0.1 0.2)" in capsys.readouterr().out


def test_help__fits_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        load_config(Config, ["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60
