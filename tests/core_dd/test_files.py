import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from commands import run
from conftest import small_disk
from safetensors.torch import save_file

from core_dd import files, locks
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


def test_atomic__files_get_what_the_umask_leaves(tmp_path):
    """safetensors makes its own with 0600."""
    before = os.umask(0o027)
    try:
        with files.atomic(tmp_path / "folder") as temporary:
            temporary.mkdir()
            save_file({"x": torch.zeros(1)}, temporary / "a.safetensors")
        with files.atomic(tmp_path / "b.safetensors") as temporary:
            save_file({"x": torch.zeros(1)}, temporary)
    finally:
        os.umask(before)
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")}
    assert found == {"folder": "0o750", "a.safetensors": "0o640", "b.safetensors": "0o640"}


@pytest.mark.parametrize("name", ["file/x", "file/x/y", "x" * 300, "folder"])
def test_atomic__the_message_that_matters_survives_the_cleaning_up(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*: (Not a|Is a|File) .*\. Choose another folder"):
        files.write_text(tmp_path / name, "text")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_atomic__a_full_disk_that_cannot_be_cleaned_is_still_the_full_disk(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError("no")

    with pytest.raises(InputError, match="No space left"), files.atomic(tmp_path / "x") as temporary:
        monkeypatch.setattr(type(temporary), "unlink", refused)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_sweep__takes_what_a_killed_writer_left_and_nothing_else(tmp_path):
    """What another process is still writing stays."""
    litter = [".index.json.0a1b2c3d.tmp", ".cifar100.pt.9f3e0071.tmp", ".scores.json.lock.tmp"]
    others = ["index.json", ".notes.tmp", ".lock", "a.12345678.tmp", ".other.report.markdown.tmp"]
    for name in (*litter, *others):
        (tmp_path / name).touch()
    (tmp_path / ".model.0a1b2c3d.tmp" / "inner").mkdir(parents=True)
    with files.writing_into(tmp_path):
        files.sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == 9
    files.write_text(tmp_path / "b", "text")  # the first that this process writes here
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "b"])


def test_own_file__one_writer_at_a_time_and_nothing_left(tmp_path):
    place = tmp_path / "new" / "scores.json"
    with locks.own_file(place):
        with pytest.raises(InputError, match=r"scores\.json is in use by process \d+ on .*Wait"), locks.own_file(place):
            pass
        files.write_text(place, "{}")
    assert [path.name for path in place.parent.iterdir()] == ["scores.json"]
    with pytest.raises(InputError, match=r"scores\.json exists\. Choose another"), locks.own_file(place):
        pass
    with pytest.raises(ZeroDivisionError), locks.own_file(tmp_path / "other" / "scores.json"):
        1 / 0  # noqa: B018
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", [os.mkdir, os.mkfifo, lambda path: os.symlink("../precious", path)])
def test_lock__refuses_what_is_no_plain_file_and_writes_over_nothing(tmp_path, kind):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run").mkdir()
    kind(tmp_path / "run" / ".lock")
    for having in (locks.Lock.take, locks.require_free):
        with pytest.raises(InputError, match=r"run/\.lock is no plain file, as locks are\. Remove it"):
            having(tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "kept"


def test_require_free__asks_without_writing(tmp_path):
    locks.require_free(tmp_path / "nowhere")
    locks.require_free(tmp_path)
    with locks.Lock.take(tmp_path):
        before = tmp_path.stat().st_mtime_ns
        with pytest.raises(InputError, match="is in use by process"):
            locks.require_free(tmp_path)
        assert tmp_path.stat().st_mtime_ns == before
    locks.require_free(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_link__replaces_a_link_and_the_folder_that_a_copy_made_of_one(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        files.link(tmp_path / "last", Path(name))
        assert (tmp_path / "last").resolve() == (tmp_path / name).resolve()
    (tmp_path / "last").unlink()
    shutil.copytree(tmp_path / "a", tmp_path / "last")
    files.link(tmp_path / "last", Path("b"))
    assert (tmp_path / "last").is_symlink() and sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "last"]
