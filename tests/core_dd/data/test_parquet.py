"""Which column of a parquet file is what, and labels that are none."""

import json
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from makers import png, write_parquet

from core_dd.data.images import load_data
from core_dd.data.streaming import load_stream
from core_dd.errors import InputError

PICTURES = np.arange(6 * 9, dtype=np.uint8).reshape(6, 3, 3)
IMAGES = pyarrow.array([{"bytes": png(picture), "path": None} for picture in PICTURES])
BINARY = pyarrow.array([png(picture) for picture in PICTURES])
OTHERS = pyarrow.array([png(255 - picture) for picture in PICTURES])
HASHES = pyarrow.array([bytes([i] * 16) for i in range(6)])
LABELS = pyarrow.array([0, 1] * 3)
COARSE = pyarrow.array([0] * 6)
LOADS = [load_data, lambda spec: load_stream(spec, workers=0)]


def write(folder, columns, features=None, test=None):
    """set/: the same columns to train on and to test on, and what the metadata say of them."""
    folder.mkdir(exist_ok=True)
    for split, named in (("train", columns), ("test", test or columns)):
        table = pyarrow.table(named)
        if features is not None:
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture(params=LOADS, ids=["memory", "streamed"])
def read(request, tmp_path):
    """Writes columns and reads them."""

    def read(columns, features=None, test=None):
        write(tmp_path / "set", columns, features, test)
        return request.param("parquet:set")

    return read


@pytest.fixture
def fingerprint(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path / "right", PICTURES, LABELS.to_pylist(), split)
    return load_data("parquet:right").fingerprint


IMAGE, CLASS = {"_type": "Image"}, {"_type": "ClassLabel", "names": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("columns", "features"),
    [
        ({"hash": HASHES, "img": IMAGES, "label": LABELS}, None),
        ({"hash": HASHES, "picture": BINARY, "y": LABELS}, None),
        ({"mask": OTHERS, "picture": IMAGES, "y": LABELS}, {"picture": IMAGE, "y": CLASS}),
        ({"mask": OTHERS, "image": BINARY, "label": LABELS, "id": COARSE}, None),
        ({"id": COARSE, "kind": LABELS, "img": IMAGES}, {"kind": CLASS}),
        ({"coarse_label": COARSE, "fine_label": LABELS, "img": IMAGES}, {"fine_label": CLASS, "coarse_label": CLASS}),
        ({"img": IMAGES, "label": LABELS.cast(pyarrow.uint8())}, {"img": [1], "label": None, "x": {"names": 3}}),
        ({"img": BINARY.cast(pyarrow.large_binary()), "label": LABELS}, None),
    ],
)
def test_columns__are_found(read, fingerprint, columns, features):
    assert read(columns, features).fingerprint == fingerprint


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": BINARY, "b": OTHERS, "label": LABELS}, "columns a, b, label; expected one of encoded images, 2 could"),
        ({"hash": HASHES, "key": HASHES, "label": LABELS}, "encoded images, none is that. Write one, called image"),
        ({"img": IMAGES, "x": LABELS, "y": COARSE}, "integer labels, 2 could be that: x, y. Write one, called label"),
        ({"img": IMAGES, "label": pyarrow.array(["a", "b"] * 3)}, "integer labels, none is that"),
        ({"img": HASHES, "label": LABELS}, "cannot decode row 0 of .*: it is truncated or corrupt"),
        ({"img": pyarrow.array([[0.0, 255.0]] * 6), "label": LABELS}, "encoded images, none is that"),
        ({"img": IMAGES, "label": pyarrow.array([0, None, 1, 0, 1, 0])}, "1 cells of column 'label' are empty"),
        ({"img": IMAGES, "label": pyarrow.array([2**64 - 1] * 6, pyarrow.uint64())}, "holds no labels"),
        ({"img": IMAGES, "label": pyarrow.array([0, 1, 0, 1, 0, 10**9])}, "labels from 0 to 1000000000"),
        ({"img": IMAGES, "label": pyarrow.array([-1, 1, 0, 1, 0, 1])}, "labels from -1 to 1"),
        ({"img": IMAGES.slice(0, 0), "label": LABELS.slice(0, 0)}, "train-.* has no rows"),
        ({"img": pyarrow.array([None, *IMAGES.to_pylist()[1:]]), "label": LABELS}, "row 0 of .* holds no image bytes"),
    ],
)
def test_columns__that_cannot_be_used(read, columns, message):
    with pytest.raises(InputError, match=message):
        read(columns)


@pytest.mark.parametrize("features", [[1], {"label": {"names": 3}}, {"label": [1]}])
def test_metadata__that_are_damaged(read, features):
    with pytest.raises(InputError, match="Write the file anew, with its metadata or without"):
        read({"img": IMAGES, "label": LABELS}, features)


def test_splits__of_other_columns_or_classes(tmp_path, read):
    with pytest.raises(InputError, match="has columns image, label, and the first file's 'img' is not among them"):
        read({"img": IMAGES, "label": LABELS}, test={"image": IMAGES, "label": LABELS})
    read({"img": IMAGES, "label": LABELS}, {"label": CLASS})
    info = {"huggingface": json.dumps({"info": {"features": {"label": CLASS | {"names": ["dog", "cat"]}}}})}
    write_parquet(tmp_path / "set", PICTURES, LABELS.to_pylist(), "test", metadata=info)
    for load in LOADS:
        with pytest.raises(InputError, match="names its classes dog, cat, ... and the files before it cat, dog"):
            load("parquet:set")


def test_shards__that_say_how_many_they_are_must_be_all(tmp_path):
    write(tmp_path / "set", {"img": IMAGES, "label": LABELS})
    only = tmp_path / "set" / "train-00000-of-00001.parquet"
    shutil.copy(only, tmp_path / "set" / "train-00001-of-00002.parquet")
    for load in LOADS:
        with pytest.raises(InputError, match="holds train in 1 and in 2 shards. Remove the older ones"):
            load("parquet:set")
    shutil.copy(only, tmp_path / "set" / "train-00001-of-00002.parquet")
    shutil.move(only, tmp_path / "set" / "train-00001-of-00002-abc.parquet")
    for load in LOADS:
        with pytest.raises(InputError, match="holds shards of train twice"):
            load("parquet:set")
    (tmp_path / "set" / "train-00001-of-00002-abc.parquet").unlink()
    for load in LOADS:
        with pytest.raises(InputError, match="lacks 1 of the 2 shards of train, such as number 0, counted from 0"):
            load("parquet:set")


def test_shards__of_several_datasets_are_one_choice(tmp_path):
    (tmp_path / "all").mkdir()
    for name in "ab":
        write(tmp_path / "all" / name, {"img": IMAGES, "label": LABELS})
    place = tmp_path / "all" / "a"
    (place / "train-00000-of-00001.parquet").rename(place / "train-00000-of-00002.parquet")
    for load in LOADS:
        with pytest.raises(InputError, match="all holds several datasets, in a, b. Name one: parquet:all/b"):
            load("parquet:all")


def test_labels__of_a_later_file_that_are_lists(tmp_path):
    write(tmp_path / "set", {"img": IMAGES, "label": LABELS}, test={"img": IMAGES, "label": [[0]] * 6})
    for load in LOADS:
        with pytest.raises(InputError, match="test-.*: column 'label' holds no labels"):
            load("parquet:set")


def test_change__a_shard_moves_from_training_to_test(tmp_path):
    for split in ("train-0", "train-1", "test-1"):
        write_parquet(tmp_path / "set", PICTURES, LABELS.to_pylist(), split)
    for load, count in zip(LOADS, (12, 12), strict=True):
        assert len(load("parquet:set").train_labels) == count
    [moved] = (tmp_path / "set").glob("train-1*")
    moved.rename(tmp_path / "set" / "test-0.parquet")
    for load in LOADS:
        assert len(load("parquet:set").train_labels) == 6
    assert len(load_data("parquet:set").test_images) == 12


def test_damaged_copy__is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("GENDD_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "set", {"img": IMAGES, "label": LABELS})
    first = load_stream("parquet:set", workers=0)
    for file in (tmp_path / "cache").rglob("*.arrow"):
        file.write_bytes(file.read_bytes()[:100])
    assert load_stream("parquet:set", workers=0).fingerprint == first.fingerprint
