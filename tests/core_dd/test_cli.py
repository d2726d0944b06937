import dataclasses
import importlib
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
import torch
from commands import run

from core_dd import cli, files
from core_dd.commands import imported
from core_dd.errors import InputError
from core_dd.options import hidden, mark
from core_dd.sets.distilled import DistilledSet


def test_help__lists_every_command_in_one_screen(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.COMMANDS)
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command__has_help(command, capsys):
    module, function = cli.COMMANDS[command].function.split(":")
    shown = []
    for show in (
        lambda: cli.main([command, "--help"]),
        lambda: getattr(importlib.import_module(module), function)(["--help"]),
    ):
        with pytest.raises(SystemExit) as stop:
            show()
        assert stop.value.code == 0
        shown.append(capsys.readouterr().out)
    assert "usage:" in shown[0] and (command == "distill" or shown[0] == shown[1])


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_options__are_those_of_the_command(command):
    module, name = cli.COMMANDS[command].options.split(":")
    function = importlib.import_module(cli.COMMANDS[command].function.split(":")[0])
    assert getattr(importlib.import_module(module), name).__name__ in vars(function)


def test_help__imports_nothing_slow():
    """In a Python of its own, as those that `run` forks have imported everything."""
    code = (
        "import contextlib, sys; import gendd; from core_dd import cli\n"
        "for command in cli.COMMANDS:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        cli.main([command, '--help'])\n"
        "slow = {'torch', 'numpy', 'tyro', 'omegaconf', 'accelerate', 'diffusers', 'sklearn', 'datasets'}\n"
        "print(sorted(slow & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.count("usage: gendd ") == len(cli.COMMANDS) and done.stdout.endswith("\n[]\n"), done.stderr


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
    assert text.startswith("error: the memory is too small") and "20.00 GiB" in text and text.count("\n") == 1


def test_guarded__so_is_a_request_that_no_memory_holds(capsys):
    assert cli.guarded(lambda argv: torch.empty(2**50), []) == 2
    assert "memory is too small" in capsys.readouterr().err


def test_guarded__a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(lambda argv: 1 / 0, [])


def test_info__as_module():
    done = run("-m", "core_dd.info", "digits")
    assert done.returncode == 0 and "1442 images" in done.stdout and "a002f230981ce8ab" in done.stdout
    done = run("-m", "core_dd.info", "nothing")
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"gendd \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_completion__knows_commands_options_and_choices(tmp_path, capsys):
    assert cli.main(["--completion"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)

    def offered(*words):
        given = " ".join(map(shlex.quote, words))
        code = f"source ./script; COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; _gendd; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert offered("gendd", "di") == ["distill"]
    assert offered("gendd", "train", "--sol") == [] and "--eval_solver" in offered("gendd", "train", "--ev")
    assert offered("gendd", "sample", "--solver", "dpmpp") == ["dpmpp_2m", "dpmpp_3m"]
    assert "m3d" in offered("gendd", "distill", "--method", "")
    assert "dm" in offered("gendd", "distill", "--config", "d")
    assert offered("gendd", "train", "--config", "dm") == offered("gendd", "compare", "digits", "demo") == []
    assert offered("gendd", "compare", "dig") == ["digits"] and "--only" in offered("gendd", "compare", "--o")
    assert offered("gendd", "evaluate", "--set", "x") == []
    assert offered("gendd", "convert", "--fro") == ["--from"] and offered("gendd", "convert", "--lay") == []
    assert "dc" in offered("gendd", "convert", "--from", "")
    assert "--neon" in offered("gendd", "train", "--") and "--neon" not in offered("gendd", "tune", "--")


def test_help__of_a_method_shows_its_own_options(capsys):
    with pytest.raises(SystemExit):
        cli.main(["distill", "--method", "m3d", "--help"])
    text = capsys.readouterr().out
    assert "\nm3d:\n  --kernel NAME  (default: gaussian)" in text and "--method NAME  (default: m3d)" in text


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_help__is_grouped_and_tells_every_option(command, capsys):
    cls = imported(cli.COMMANDS[command].options)
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert "default: None" not in text and "gendd.yaml" in text
    for own in dataclasses.fields(cls):
        if own.name in hidden(cls):
            assert f"--{own.name} " not in text
            continue
        flag = mark(cls, own.name, "flag", own.name)
        found = re.search(rf"^  --{flag}\b.*\n      \S", text, flags=re.MULTILINE)
        assert found, f"{own.name} has no meaning"
        assert all(f"\n        {choice}" in text for choice in mark(cls, own.name, "choices") or ())


def test_module__is_the_console_script():
    done = run("-m", "gendd", "--help")
    assert done.returncode == 0 and done.stdout.startswith("gendd: ")


GENDD = f"{sys.executable} -m core_dd.cli"


@pytest.mark.parametrize(
    ("command", "status", "out", "err"),
    [
        (f"{GENDD} -h | true; exit ${{PIPESTATUS[0]}}", 141, "", ""),
        (f"{GENDD} -h | head -1", 0, "gendd: dataset distillation, from real data to a score.\n", ""),
        (f"{GENDD} -h > /dev/full", 2, "", "error: cannot print: No space left on device."),
        (f"{GENDD} -h >&-", 0, "", ""),
        (f"{GENDD} nothing 2>&-", 2, "", ""),
        (f"{GENDD} nothing 2>&1 >&- | true; exit ${{PIPESTATUS[0]}}", 2, "", ""),
    ],
)
def test_streams__closed_or_full_or_nobody_reading(command, status, out, err):
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == status and done.stdout == out
    assert done.stderr.startswith(err) and done.stderr.count("\n") == (1 if err else 0)


def test_streams__what_is_opened_next_is_not_taken_for_stderr(tmp_path):
    """Closed by the caller, its number would go to the first file opened, such as the statistics of a run."""
    code = (
        "import os; from core_dd import streams; streams.protect()\n"
        "with open('stats.jsonl', 'w') as file: os.write(2, b'a warning')"
    )
    subprocess.run(["bash", "-c", f'{sys.executable} -c "{code}" 2>&-'], check=True)
    assert (tmp_path / "stats.jsonl").read_text() == ""


def test_streams__ascii_alone():
    code = "from core_dd import streams; streams.protect(); print('≈ 3 ─ ü')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert done.stdout == b"~ 3 - \\xfc\n"


def test_main__ctrl_c_while_importing_is_one_line(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n"
        "    raise ImportError('as some packages do') from None\n"
    )
    code = (
        "import signal, sys; from core_dd import cli; from core_dd.commands import Command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.path.insert(0, {str(tmp_path)!r}); cli.COMMANDS = {{'x': Command('slow:main', '', '')}}\n"
        "sys.exit(cli.main(['x']))"
    )
    done = run("-c", code)
    assert done.returncode == 130 and done.stderr == "\ninterrupted; what was finished is kept.\n"


def test_guarded__asked_to_end_it_takes_its_temporaries_along(tmp_path):
    def command(argv):
        with files.atomic(tmp_path / "cifar100.pt") as temporary:
            temporary.write_text("half")
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as stop:
        cli.guarded(command, [])
    assert stop.value.code == 128 + signal.SIGTERM and list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_info__shows_a_strangers_words_as_codes(tmp_path, capsys):
    meta = {"method": "\x1b]0;title\x07"}
    DistilledSet(torch.zeros(2, 1, 8, 8), torch.arange(2), meta).save(tmp_path / "a.safetensors")
    assert cli.main(["info", "a.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\\x1b]0;title\\x07" in said


def test_info__of_data_that_a_folder_is_called_as(tmp_path, capsys):
    (tmp_path / "digits" / "train").mkdir(parents=True)
    assert cli.main(["info", "digits"]) == 0
    assert "1442" in capsys.readouterr().out


def test_info__reads_data_as_other_commands_do(digit_files, capsys):
    assert cli.main(["info", f"folder:{digit_files}", "--image_size", "4", "--limit_per_class", "2"]) == 0
    text = capsys.readouterr().out
    assert "(1, 4, 4)" in text and "20 images, 2 to 2 per class" in text
