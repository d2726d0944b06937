import signal

import pytest
import torch
from commands import run
from conftest import small_disk
from safetensors.torch import save_file

from core_dd import files
from core_dd.errors import InputError


def test_atomic__replaces_on_success(tmp_path):
    files.write_text(tmp_path / "a" / "b.txt", "one")
    files.write_text(tmp_path / "a" / "b.txt", "two")
    assert (tmp_path / "a" / "b.txt").read_text() == "two"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_atomic__keeps_the_old_file_on_failure(tmp_path):
    files.write_text(tmp_path / "b.txt", "one")
    with pytest.raises(ZeroDivisionError), files.atomic(tmp_path / "b.txt") as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert (tmp_path / "b.txt").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("writer", ["python", "torch", "safetensors"])
def test_atomic__full_disk_is_one_message_and_nothing_lost(tmp_path, writer):
    files.write_text(tmp_path / "b", "one")
    big = torch.zeros(2**16)
    with (
        small_disk(),
        pytest.raises(InputError, match=r"cannot write .*b: File too large\. Free some space"),
        files.atomic(tmp_path / "b") as temporary,
    ):
        if writer == "python":
            temporary.write_bytes(bytes(2**18))
        elif writer == "torch":
            torch.save(big, temporary)
        else:
            save_file({"x": big}, temporary)
    assert (tmp_path / "b").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_atomic__kill_leaves_the_old_file(tmp_path):
    files.write_text(tmp_path / "b.txt", "one")
    code = (
        "import os, signal, sys; from core_dd import files\n"
        "with files.atomic(sys.argv[1]) as t:\n    t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = run("-c", code, tmp_path / "b.txt")
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "b.txt").read_text() == "one"


def test_atomic__replaces_a_folder_when_asked_to(tmp_path):
    place = tmp_path / "folder"
    (place / "old").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot write"), files.atomic(place) as temporary:
        temporary.mkdir()
    assert (place / "old").exists()
    with pytest.raises(RuntimeError), files.atomic(place, replace=True) as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert (place / "old").exists() and list(tmp_path.iterdir()) == [place]
    with files.atomic(place, replace=True) as temporary:
        (temporary / "new").mkdir(parents=True)
    assert (place / "new").exists() and not (place / "old").exists() and list(tmp_path.iterdir()) == [place]
