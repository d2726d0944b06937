"""Which files an image folder holds, in which order, and when it has changed."""

import os
import socket

import numpy as np
import pytest
from makers import png, write_idx

from core_dd.data.folders import in_order
from core_dd.data.images import load_data
from core_dd.data.streaming import load_stream
from core_dd.errors import InputError

PICTURES = np.arange(22 * 4, dtype=np.uint8).reshape(22, 2, 2)


@pytest.fixture
def tree(tmp_path):
    """set/: two classes a and b, two images each, the same ones to train on and to test on."""
    for split in ("train", "test"):
        for name, first in (("a", 0), ("b", 2)):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(first, first + 2):
                (tmp_path / "set" / split / name / f"{i}.png").write_bytes(png(PICTURES[i]))
    return tmp_path / "set"


def load(spec="folder:set"):
    return load_data(spec)


@pytest.mark.parametrize("form", ["{}", "class{}", "c-{:02d}"])
def test_numbered_classes__are_in_the_order_of_their_numbers(tmp_path, form):
    labels = np.arange(22, dtype=np.uint8) % 11
    write_idx(tmp_path / "idx", (PICTURES, labels), (PICTURES, labels))
    for split in ("train", "test"):
        for i, label in enumerate(labels):
            place = tmp_path / "set" / split / form.format(label)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i}.png").write_bytes(png(PICTURES[i]))
    data = load()
    assert data.fingerprint == load("idx:idx").fingerprint
    assert data.class_names == tuple(form.format(k) for k in range(11))


def test_in_order__other_names():
    assert in_order(["b", "a", "10", "9"]) == ("10", "9", "a", "b")
    assert in_order(["n02", "n01", "m1"]) == ("m1", "n01", "n02")
    assert in_order(["2", "02", "1"]) == ("1", "02", "2")


@pytest.fixture
def links(tree, tmp_path):
    """linked/: the same, of links to the files of set/, whose content and times do not change with the links."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "linked" / split / name).mkdir(parents=True)
            for file in sorted((tree / split / name).iterdir()):
                (tmp_path / "linked" / split / name / file.name).symlink_to(file)
    load("folder:linked")  # fills the cache
    return tmp_path / "linked" / "train"


def same_everywhere(spec="folder:linked"):
    """What is read in memory and streamed is one, whatever is in the cache."""
    data, streamed = load(spec), load_stream(spec, workers=0)
    assert (data.fingerprint, data.class_names) == (streamed.fingerprint, streamed.class_names)
    return data


def test_change__a_link_moves_to_another_class(links):
    same_everywhere()
    (links / "a" / "1.png").rename(links / "b" / "1.png")
    assert same_everywhere().train_labels.tolist() == [0, 1, 1, 1]


def test_change__a_class_folder_is_renamed(links):
    same_everywhere()
    (links / "b").rename(links / "c")
    (links.parent / "test" / "b").rename(links.parent / "test" / "c")
    assert same_everywhere().class_names == ("a", "c")


def test_change__an_empty_class_is_added(links):
    (links / "aa").mkdir()
    for read in (load, load_stream):
        with pytest.raises(InputError, match="class 1 .'aa'. of folder:linked has no training image"):
            read("folder:linked")


def test_change__a_target_of_a_link_is_swapped_for_one_of_same_size_and_time(links, tree):
    before = same_everywhere()
    first, second = tree / "train" / "a" / "0.png", tree / "train" / "b" / "2.png"
    time = first.stat().st_mtime_ns
    one, other = first.read_bytes(), second.read_bytes()
    assert len(one) == len(other)
    for file, content in ((first, other), (second, one)):
        file.write_bytes(content)
        os.utime(file, ns=(time, time))
    after = same_everywhere()
    assert after.fingerprint != before.fingerprint and after.train_images[0].tolist() == before.train_images[2].tolist()


def test_change__annotations_are_corrected(tree):
    for name in ("a", "b"):
        (tree / "test" / name).rename(tree / f"gone-{name}")
    (tree / "val" / "images").mkdir(parents=True)
    for i in range(4):
        (tree / "val" / "images" / f"{i}.png").write_bytes(png(PICTURES[i]))
    lines = [f"{i}.png\t{name}" for i, name in enumerate("aaba")]
    (tree / "val" / "val_annotations.txt").write_text("\n".join(lines))
    assert same_everywhere("folder:set").test_labels.tolist() == [0, 0, 1, 0]
    (tree / "val" / "val_annotations.txt").write_text("\n".join([*lines[:3], "3.png\tb"]))
    assert same_everywhere("folder:set").test_labels.tolist() == [0, 0, 1, 1]


def test_links__to_folders_are_followed_and_loops_end(tree, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "9.png").write_bytes(png(PICTURES[9]))
    (tree / "train" / "a" / "more").symlink_to(tmp_path / "more")
    (tree / "train" / "a" / "again").symlink_to(tree / "train" / "a")
    assert same_everywhere("folder:set").train_labels.tolist() == [0, 0, 0, 1, 1]


def test_names__a_folder_like_an_image_hidden_ones_and_bytes_that_are_no_text(tree):
    (tree / "train" / "a" / "x.png").mkdir()
    (tree / "train" / "a" / "x.png" / "5.PNG").write_bytes(png(PICTURES[5]))
    (tree / "train" / "a" / "._0.png").write_bytes(b"not an image")
    (tree / "train" / ".checkpoints").mkdir()
    for split in ("train", "test"):
        os.rename(os.fsencode(tree / split / "b"), os.fsencode(tree / split) + b"/b\xff\x1b[31m")
    os.rename(os.fsencode(tree / "train" / "a" / "0.png"), os.fsencode(tree / "train" / "a") + b"/\xfe.png")
    data = same_everywhere("folder:set")
    assert data.class_names == ("a", r"b\udcff\x1b[31m") and data.train_labels.tolist() == [0, 0, 0, 1, 1]


def fifo(path):
    os.mkfifo(path)


def listening(path):
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (fifo, "x.png is no regular file"),
        (listening, "x.png is no regular file"),
        (lambda path: path.symlink_to("nowhere"), "cannot read .*x.png: No such file.* Mend or remove it"),
        (lambda path: path.symlink_to("x.png"), "cannot read .*x.png: Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "x.png is no regular file"),
    ],
)
def test_what_is_no_file_is_refused(tree, put, message):
    put(tree / "train" / "a" / "x.png")
    for read in (load_data, load_stream):
        with pytest.raises(InputError, match=message):
            read(f"folder:{tree}")


def test_permission__is_named(tree, monkeypatch):
    """By a disk that refuses: to the root user permissions mean nothing."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(InputError, match="cannot read set/train/a/0.png: Permission denied"):
        load_data("folder:set", image_size=3)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("~nobody-of-this-name/x", "begins with ~ and no user is called so"),
        ("x" * 300, "cannot read .*: File name too long"),
        ("x\0y", "no folder at x|no such folder: x|no file at x"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "idx", "parquet", "pt", "tiny_imagenet"])
def test_places__that_cannot_be(kind, place, message):
    with pytest.raises(InputError, match=message):
        load_data(f"{kind}:{place}")
