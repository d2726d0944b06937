import importlib

import pytest
import torch
from commands import run

from core_dd import cli
from core_dd.errors import InputError


def test_help__lists_every_command_in_one_screen(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.COMMANDS)
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command__has_help(command, capsys):
    module, function = cli.COMMANDS[command][0].split(":")
    try:
        getattr(importlib.import_module(module), function)(["--help"])
    except SystemExit as stop:
        assert stop.code == 0
    assert "usage:" in capsys.readouterr().out


def test_unknown_command__exits_2_with_the_likely_spelling(capsys):
    assert cli.main(["evalute"]) == 2
    assert "error: unknown command 'evalute'; did you mean 'evaluate'?" in capsys.readouterr().err


def test_guarded__input_error_is_one_line_without_traceback(capsys):
    def command(argv):
        raise InputError("ipc must be >= 1, got 0.")

    assert cli.guarded(command, []) == 2
    assert capsys.readouterr().err == "error: ipc must be >= 1, got 0.\n"


def test_guarded__a_full_gpu_is_one_line_too(capsys):
    def command(argv):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")

    assert cli.guarded(command, []) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: the GPU's memory is too small") and "20.00 GiB" in text and text.count("\n") == 1


def test_guarded__a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(lambda argv: 1 / 0, [])


def test_info__as_module():
    done = run("-m", "core_dd.info", "digits")
    assert done.returncode == 0 and "1442 images" in done.stdout and "a002f230981ce8ab" in done.stdout
    done = run("-m", "core_dd.info", "nothing")
    assert done.returncode == 2 and "Traceback" not in done.stderr
