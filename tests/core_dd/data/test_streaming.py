"""A streamed set is what the same set is in memory, from every format, whatever the number of workers."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from commands import ROOT
from makers import png, write_image_folder, write_parquet

from core_dd.data import encoded, streaming
from core_dd.data.images import load_data
from core_dd.data.streaming import load_stream, too_large
from core_dd.errors import InputError

FACTS = ("name", "fingerprint", "class_names", "hflip", "shape", "num_classes")
CPU = torch.device("cpu")


@pytest.fixture
def mixed(tmp_path, generator):
    """24 images of 9x7 or 8x8, 3 classes, every fourth grey, as a folder and as parquet files."""
    images = []
    for i in range(24):
        shape = (9, 7) if i % 2 else (8, 8)
        images.append(torch.randint(0, 256, shape if i % 4 == 0 else (*shape, 3), generator=generator).byte().numpy())
    labels = [i // 8 for i in range(24)]  # in the order of a folder's classes
    info = b'{"info": {"features": {"label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}}}}'
    for split, cut in (("train", slice(None)), ("test", slice(0, None, 2))):
        write_image_folder(tmp_path / "folder" / split, images[cut], labels[cut])
        write_parquet(tmp_path / "parquet", images[cut], labels[cut], split, "label", {b"huggingface": info})


@pytest.mark.parametrize(("spec", "workers"), [("folder:folder", 2), ("parquet:parquet", 0), ("hf:parquet", 2)])
def test_stream__is_the_set_in_memory(mixed, spec, workers):
    options = {"image_size": 6, "val_fraction": 0.25, "limit_per_class": 5, "seed": 3}
    whole, streamed = load_data(spec, **options), load_stream(spec, workers=workers, **options)
    assert [getattr(streamed, name) for name in FACTS] == [getattr(whole, name) for name in FACTS]
    assert torch.allclose(streamed.mean, whole.mean, atol=1e-6) and torch.allclose(streamed.std, whole.std, atol=1e-5)
    assert torch.equal(streamed.train_labels, whole.train_labels)
    order = torch.tensor([7, 0, 0, 14, 3])
    parts = streamed.decode(streamed.train_index[order].split(2))
    assert torch.equal(torch.cat(list(parts)), whole.train_images[order])
    sample = streamed.sample(seed=0)  # of a small set, everything
    for field in dataclasses.fields(sample):
        if field.name in ("train_images", "train_labels", "val_images", "val_labels"):
            assert torch.equal(getattr(sample, field.name), getattr(whole, field.name)), field.name
    assert sample.training_digest == whole.training_digest


def test_stream__grey_images_stay_grey(tmp_path, generator):
    images = torch.randint(0, 256, (6, 5, 5), generator=generator).byte().numpy()
    for split in ("train", "test"):
        write_image_folder(tmp_path / "set" / split, images, [0, 1] * 3)
    whole, streamed = load_data("folder:set"), load_stream("folder:set", workers=0)
    assert streamed.shape == (1, 5, 5) and streamed.fingerprint == whole.fingerprint
    assert torch.allclose(streamed.std, whole.std, atol=1e-5)


def test_stream__looks_at_every_image_only_once(mixed, monkeypatch):
    first = load_stream("folder:folder", image_size=6, workers=0)
    monkeypatch.setattr(streaming, "look", None)  # a second look would fail
    assert load_stream("folder:folder", image_size=6, workers=0).fingerprint == first.fingerprint


def test_sample__is_bounded(mixed):
    data = load_stream("folder:folder", image_size=6, workers=0)
    a, b, c = (data.sample(seed, most=7).train_images for seed in (0, 0, 1))
    assert len(a) == 7 and torch.equal(a, b) and not torch.equal(a, c)


def test_stream__an_image_that_changed(mixed, tmp_path):
    data = load_stream("folder:folder", image_size=6, workers=0)
    data.images.image_size = None  # what the files hold is then of other sizes
    with pytest.raises(InputError, match="has changed: its shape is"):
        list(data.decode([torch.arange(4)]))


def test_interface__nobody_else_asks_which_it_is():
    """Only core_dd/data knows how images are held."""
    for track in ("core_dd", "gen_dd", "matching_dd"):
        for path in (ROOT / track).rglob("*.py"):
            if "data" not in path.relative_to(ROOT).parts:
                assert "StreamedData" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("spec", ["folder:folder", "parquet:parquet"])
def test_too_large__by_the_size_of_the_decoded_images(mixed, monkeypatch, spec):
    kind, path = spec.split(":")
    assert streaming.decoded_bytes(kind, Path(path), 6) == 24 * 3 * 6 * 6
    assert streaming.decoded_bytes(kind, Path(path), None) == 24 * 3 * 8 * 8
    assert not too_large(spec, 6, CPU)
    monkeypatch.setattr(streaming, "SHARE", 10**15)  # a memory of nothing
    assert too_large(spec, 6, CPU) and not too_large("digits", 6, CPU) and not too_large("folder:nowhere", 6, CPU)


def test_stream__mixed_sizes_are_refused(mixed):
    with pytest.raises(InputError, match="images differ in size: .* is 8x8, .* is 7x9"):
        load_stream("folder:folder", workers=0)


def test_stream__a_broken_image_is_named_before_any_work(mixed, tmp_path):
    (tmp_path / "folder" / "train" / "class1" / "009.png").write_bytes(png(np.zeros((8, 8), np.uint8))[:40])
    with pytest.raises(InputError, match=r"^cannot decode .*class1/009.png: it is truncated or corrupt, .*\.$"):
        load_stream("folder:folder", image_size=6, workers=2)


def test_stream__a_broken_row_is_named(mixed, tmp_path):
    [path] = (tmp_path / "parquet").glob("train-*")
    table = pyarrow.parquet.read_table(path)
    cells = table["img"].to_pylist()
    cells[3]["bytes"] = cells[3]["bytes"][:40]
    pyarrow.parquet.write_table(pyarrow.table({"img": cells, "label": table["label"]}), path)
    for load in (load_data, lambda spec, **options: load_stream(spec, workers=0, **options)):
        with pytest.raises(InputError, match="^cannot decode row 3 of parquet/train-00000-of-00001.parquet: "):
            load("parquet:parquet", image_size=6)


def test_rows__of_several_files_are_named_by_the_file_and_its_row(tmp_path):
    images = np.arange(9 * 16, dtype=np.uint8).reshape(9, 4, 4)
    for split, cut in (("train-0", slice(0, 4)), ("train-1", slice(4, 9)), ("test-0", slice(0, 9))):
        write_parquet(tmp_path / "set", images[cut], [i % 2 for i in range(len(images[cut]))], split)
    rows = encoded.parquet(tmp_path / "set").cells["train"]
    in_order, by_number = list(rows), rows.by_number()
    assert [by_number[i] for i in range(9)] == in_order and len(rows) == len(by_number) == 9
    assert [place.split("set/")[1] for place, _ in in_order][3:6] == [
        "train-0-00000-of-00001.parquet", "train-1-00000-of-00001.parquet", "train-1-00000-of-00001.parquet",
    ]  # fmt: skip
    assert [place.split()[1] for place, _ in in_order] == list("012301234")


def test_interface__both_are_real_data(mixed):
    """What wants real data asks both in the same way."""
    whole, streamed = load_data("folder:folder", image_size=6), load_stream("folder:folder", image_size=6, workers=0)
    assert whole.how == "in memory" and streamed.how == "streamed by 0 worker(s)"
    assert whole.sample(seed=0, most=7) is whole and len(streamed.sample(seed=0, most=7).train_labels) == 7
    steps = [torch.tensor([3, 1]), torch.tensor([5, 23]), torch.tensor([0, 0])]
    ours, theirs = (data.pixels(lambda step: steps[step % 3], CPU) for data in (whole, streamed))
    assert ours.home == theirs.home == CPU
    for step in (0, 1, 2, 1):
        assert torch.equal(ours(step), theirs(step)) and torch.equal(ours(step), whole.train_images[steps[step]])
