import io

import pytest

from core_dd import progress
from core_dd.progress import Progress, steps


@pytest.fixture
def now(monkeypatch):
    """A clock that stands at now[0]."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress__piped_says_a_line_now_and_then(now, capsys):
    shown = Progress("distil", 2000)
    for done in range(1, 2001):
        now[0] += 1.0
        shown.note = f"loss {1 / done:.2f}"
        shown.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "distil: step 5 of 2000, 1 step/s, 33:15 left, loss 0.20"
    assert 50 < len(lines) < 250, "a line every five seconds at first, and no flood at the end"


def test_progress__a_short_command_says_nothing(capsys):
    assert list(steps("classifier", 30, leave=False)) == list(range(30))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("total", "ends_in", "expected", "left"),
    [
        (20000, None, 20000, "5:31:40"),
        (20000, 140.0, 240, "02:20"),
        (None, 140.0, 240, "02:20"),
        (130, 140.0, 130, "00:30"),
    ],
)
def test_progress__counts_to_the_end_that_comes_first(now, total, ends_in, expected, left):
    shown = Progress("train", total)
    now[0] = 100.0
    shown.update(100, ends_in=ends_in)
    assert shown.expected() == expected and f"of {expected}, 1 step/s, {left} left" in str(shown)


def test_progress__a_resumed_run_is_as_fast_as_it_is_now(now):
    shown = Progress("train", 1000, 900)
    assert str(shown) == "train: step 900 of 1000, 0 step/s"
    now[0] = 40.0
    shown.update(20)
    assert str(shown) == "train: step 920 of 1000, 2 s/step, 02:40 left"


def test_progress__a_bar_on_a_terminal_ends_where_it_is_expected(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress("train", 20000) as shown:
        shown.note = "loss 0.5"
        shown.update(100, ends_in=0.0)
    last = terminal.getvalue().split("\r")[-1]
    assert "100/100" in last and "loss 0.5" in last and "20000" not in last


def test_progress__only_the_first_process_shows_any(now, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    shown = Progress("train", 10)
    now[0] = 100.0
    shown.update()
    assert capsys.readouterr().err == ""
