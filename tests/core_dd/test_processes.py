"""Who is who under a launcher, and that one module knows."""

import ast
import subprocess
import sys

import pytest
import torch
from commands import ROOT

from core_dd import processes
from core_dd.errors import InputError
from core_dd.notes import note


def test_processes__without_a_launcher_there_is_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "ACCELERATE_USE_FSDP"):
        monkeypatch.delenv(name, raising=False)
    assert processes.is_first() and processes.count() == processes.local_count() == 1
    assert processes.local_index() is None and not processes.fsdp_asked()


def test_processes__as_a_launcher_says(monkeypatch, capsys):
    """The second process of the second machine: it says nothing."""
    said = {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2, "ACCELERATE_USE_FSDP": "True"}
    for name, value in (said | {"FSDP_VERSION": 2, "FSDP_OFFLOAD_PARAMS": "True"}).items():
        monkeypatch.setenv(name, str(value))
    assert not processes.is_first() and processes.count() == 4
    assert (processes.local_index(), processes.local_count()) == (1, 2)
    assert processes.fsdp_asked() and processes.fsdp_option("version", "1") == "2"
    assert processes.fsdp_option("offload_params", "false") == "true"
    assert processes.fsdp_option("activation_checkpointing", "false") == "false"
    note("once")
    assert capsys.readouterr().err == ""


def test_own_gpu__one_for_each_process():
    assert processes.own_gpu(1, 2) == "cuda:1" and processes.own_gpu(None, 2) is None
    assert processes.own_gpu(1, 0) is None
    with pytest.raises(InputError, match="process 2 has no GPU: there are 2"):
        processes.own_gpu(2, 2)


def test_own_gpu__also_where_cuda_was_asked_for():
    assert processes.own_gpu(1, 2, "cuda") == "cuda:1" and processes.own_gpu(1, 2, "cuda:0") == "cuda:0"
    assert processes.own_gpu(1, 2, "cpu") == "cpu" and processes.own_gpu(3, 0, "cuda") == "cuda"
    assert processes.own_gpu(None, 2, "cuda") == "cuda"
    with pytest.raises(InputError, match="process 2 has no GPU: there are 2"):
        processes.own_gpu(2, 2, "cuda")


def test_local_device__what_was_asked_for_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert processes.local_device("cpu") == "cpu" and processes.local_device() is None


def test_local_device__the_cpu_that_accelerate_was_told(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes.local_device() == "cuda:0"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert processes.local_device() == "cpu" and processes.local_device("cuda") == "cuda:0"


def test_import__needs_neither_torch_nor_accelerate():
    code = (
        "import sys, core_dd.notes, core_dd.processes; sys.exit(any(n in sys.modules for n in ('torch', 'accelerate')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def variables(source: str) -> set[str]:
    """The launchers' variables that some code names."""
    words = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    return {word for word in words if word in LAUNCHERS or str(word).startswith(("ACCELERATE_", "FSDP_"))}


def test_launchers__are_known_to_one_file():
    files = [file for name in ("core_dd", "gen_dd", "matching_dd", "scripts") for file in (ROOT / name).rglob("*.py")]
    assert [str(file.relative_to(ROOT)) for file in files if variables(file.read_text())] == ["core_dd/processes.py"]
