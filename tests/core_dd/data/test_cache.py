"""The cache may lose anything at any time and be of any state; the result is the same."""

import os
import threading
import time

import pytest
import torch

from core_dd.data import cache
from core_dd.data.cache import cache_folder, kept, kept_tensors
from core_dd.errors import InputError
from core_dd.files import write_json
from core_dd.records import read as read_json


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GENDD_CACHE", str(tmp_path / "cache"))


class Maker:
    """Counts how often it makes two tensors."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return {"a": torch.arange(1000, dtype=torch.uint8).view(10, 100), "b": torch.ones(3)}


def entry():
    [path] = cache_folder().glob("*.safetensors")
    return path


def test_kept_tensors__are_made_once():
    make = Maker()
    first, second = (kept_tensors("x", ("a", "b"), make) for _ in range(2))
    assert make.times == 1 and all(torch.equal(first[name], second[name]) for name in ("a", "b"))
    kept_tensors("y", ("a", "b"), make)
    assert make.times == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(b"x" * 999)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)


def folder(path):
    path.unlink()
    (path / "inside").mkdir(parents=True)


def dangling(path):
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [cut, empty, garbage, flipped, folder, dangling, pipe])
def test_kept_tensors__damaged_are_made_again_and_said_once(damage, capsys):
    make = Maker()
    kept_tensors("x", ("a", "b"), make)
    damage(entry())
    again = kept_tensors("x", ("a", "b"), make)
    assert make.times == 2 and torch.equal(again["a"], make()["a"])
    assert capsys.readouterr().err.count("is damaged") == 1
    kept_tensors("x", ("a", "b"), make)
    assert make.times == 3 and capsys.readouterr().err == ""  # the third is the line above


def test_kept_tensors__a_pipe_in_place_of_the_lock_does_not_block():
    make = Maker()
    kept_tensors("x", ("a", "b"), make)
    lock = entry().with_name(f"{entry().name}.lock")
    pipe(lock)
    kept_tensors("x", ("a", "b"), make)
    assert make.times == 1


def test_kept_tensors__of_other_names_are_made_again():
    make = Maker()
    kept_tensors("x", ("a",), lambda: {"a": torch.ones(1)})
    assert set(kept_tensors("x", ("a", "b"), make)) == {"a", "b"} and make.times == 1


def test_kept__an_unusable_folder_is_a_note(tmp_path, capsys):
    (tmp_path / "cache").write_text("a file")
    make = Maker()
    assert torch.equal(kept_tensors("x", ("a", "b"), make)["b"], torch.ones(3)) and make.times == 1
    assert "not kept for the next run" in capsys.readouterr().err


def test_cache_folder__of_a_user_without_a_home(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GENDD_CACHE")
    monkeypatch.setattr(cache.Path, "home", homeless)
    with pytest.raises(InputError, match="Set GENDD_CACHE"):
        cache_folder()


def test_kept__two_at_once_make_one():
    made = []

    def make():
        made.append(os.getpid())
        time.sleep(0.3)
        return {"x": 1}

    threads = [threading.Thread(target=kept, args=("f.json", make, read_json, write_json)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and read_json(cache.cache_folder() / "f.json") == {"x": 1}
