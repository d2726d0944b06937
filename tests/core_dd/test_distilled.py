import json

import pytest
import torch
from safetensors.torch import save_file

from core_dd import files
from core_dd.distilled import DistilledSet, new_meta, write_tensors
from core_dd.errors import InputError
from core_dd.preprocess import Preprocess


@pytest.fixture
def dset(digits):
    index = torch.cat([members[:2] for members in digits.class_indices()])
    meta = new_meta(digits, method="random", ipc=2, seed=0)
    return DistilledSet(digits.train_images[index], digits.train_labels[index], meta)


def test_save_load__round_trip(dset, digits, tmp_path):
    preprocess, dset.tensors = Preprocess.fit(digits).to_meta()
    dset.meta["preprocess"] = preprocess
    dset.images = dset.images.float() / 255 - 0.5
    again = DistilledSet.load(dset.save(tmp_path / "set.safetensors"))
    assert torch.equal(again.images, dset.images) and torch.equal(again.labels, dset.labels)
    assert again.meta == dset.meta and again.digest() == dset.digest()
    assert torch.equal(again.preprocess.tensors["mean"], digits.mean)


def test_save_load__soft_labels(dset, digits, tmp_path):
    dset.labels = torch.softmax(torch.randn(20, 10), 1)
    again = DistilledSet.load(dset.save(tmp_path / "set.safetensors"))
    assert torch.equal(again.hard_labels, dset.labels.argmax(1))
    again.check(digits)


def test_load__folder_of_shards(dset, tmp_path):
    for i, part in enumerate((slice(0, 15), slice(15, 20))):
        write_tensors(tmp_path / f"{i}.safetensors", {"images": dset.images[part], "labels": dset.labels[part]}, {})
    shards = [{"file": "0.safetensors", "images": 15}, {"file": "1.safetensors", "images": 5}]
    files.write_json(tmp_path / "index.json", {"meta": dset.meta, "shards": shards})
    again = DistilledSet.load(tmp_path)
    assert torch.equal(again.images, dset.images) and again.digest() == dset.digest()


def test_load__folder_whose_index_disagrees(dset, tmp_path):
    write_tensors(tmp_path / "0.safetensors", {"images": dset.images, "labels": dset.labels}, {})
    files.write_json(tmp_path / "index.json", {"meta": dset.meta, "shards": [{"file": "0.safetensors", "images": 19}]})
    with pytest.raises(InputError, match="has 20 images, its index says 19"):
        DistilledSet.load(tmp_path)


def test_load__index_of_something_else(tmp_path):
    (tmp_path / "index.json").write_text('{"experts": 3}')
    with pytest.raises(InputError, match=r"holds no distilled set: its index\.json lists no shards"):
        DistilledSet.load(tmp_path)


def test_load__pt_of_lists(tmp_path):
    torch.save({"images": [1, 2], "labels": torch.arange(2)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="expected a dict with tensors"):
        DistilledSet.load(tmp_path / "a.pt")


def test_load__tensors_without_metadata(dset, tmp_path):
    save_file({"images": dset.images, "labels": dset.labels}, tmp_path / "bare.safetensors")
    assert DistilledSet.load(tmp_path / "bare.safetensors").meta == {}


def test_load__pt_of_plain_tensors(dset, tmp_path):
    torch.save({"images": dset.images, "labels": dset.labels}, tmp_path / "a.pt")
    assert torch.equal(DistilledSet.load(tmp_path / "a.pt").images, dset.images)


def test_save__does_not_overwrite(dset, tmp_path):
    dset.save(tmp_path / "set.safetensors")
    with pytest.raises(InputError, match="exists"):
        dset.save(tmp_path / "set.safetensors")


def test_decoded__uint8_and_float_agree(dset):
    images, labels = dset.decoded()
    assert images.dtype == torch.float32 and images.max() == 1 and images.min() == 0
    assert labels is dset.labels


def test_meta__is_json(dset):
    assert json.loads(json.dumps(dset.meta)) == dset.meta


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(0, 1, 8, 8)}, "has no images"),
        ({"images": torch.zeros(20, 8, 8)}, r"images torch.float32 of shape \(20, 8, 8\)"),
        ({"images": torch.zeros(20, 1, 8, 8, dtype=torch.int32)}, "expected uint8 or float"),
        ({"images": torch.full((20, 1, 8, 8), torch.nan)}, "NaN or infinite"),
        ({"labels": torch.arange(19)}, r"labels torch.int64 of shape \(19,\) for 20 images"),
        ({"labels": torch.full((20,), 10)}, "labels from 10 to 10, expected 0 to 9"),
        ({"labels": torch.full((20,), -1)}, "labels from -1 to -1"),
        ({"labels": torch.zeros(20, 9)}, "soft labels over 9 classes, expected 10"),
        ({"meta": {"schema": 99}}, "newer version: schema 99"),
    ],
)
def test_check__refuses(dset, change, message):
    for name, value in change.items():
        setattr(dset, name, value)
    with pytest.raises(InputError, match=message):
        dset.check()


def test_check__another_dataset(dset, digits):
    dset.meta |= {"fingerprint": "0123", "data": "mnist"}
    with pytest.raises(InputError, match="was made from mnist .*, but the test data are digits"):
        dset.check(digits)


def test_check__another_shape(dset, digits):
    dset.images = dset.images.repeat(1, 3, 1, 1)
    with pytest.raises(InputError, match=r"images of shape \(3, 8, 8\), but digits has \(1, 8, 8\)"):
        dset.check(digits)
