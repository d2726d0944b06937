import json

import pytest
import torch
from safetensors.torch import save_file

from core_dd import files
from core_dd.data.preprocess import Preprocess
from core_dd.errors import InputError
from core_dd.sets.distilled import DistilledSet, new_meta, write_tensors


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_save_load__soft_labels_of_any_precision(dset, tmp_path, dtype):
    soft = torch.randn(20, 10, generator=torch.Generator().manual_seed(0)).softmax(1).to(dtype)
    place = DistilledSet(dset.images, soft, dset.meta).save(tmp_path / "a.safetensors")
    torch.testing.assert_close(DistilledSet.load(place).labels.double(), soft.double())


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


SHARDS = [{"file": f"images-{i:08d}-{i + 10:08d}.safetensors", "images": 10} for i in (0, 10)]


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        (SHARDS[::-1], "should follow"),
        ([*SHARDS, SHARDS[0]], "twice"),
        (SHARDS[1:], "neither overlap nor leave a gap"),
        ([SHARDS[0], {"file": "images-00000005-00000015.safetensors", "images": 10}], "neither overlap"),
        ([SHARDS[0] | {"file": "images-00000010-00000000.safetensors"}], "neither overlap"),
        ([SHARDS[0] | {"images": 9}], "with 9 images"),
        ([SHARDS[0] | {"file": "../set.safetensors"}], "no file beside it"),
        ([SHARDS[0] | {"file": "/tmp/set.safetensors"}], "no file beside it"),
        ([SHARDS[0] | {"file": ".."}], "no file beside it|no file at"),
        ([SHARDS[0] | {"file": "gone.safetensors"}], "no file at .*gone"),
        (
            [SHARDS[0] | {"file": 3}],
            r"shards\[\.\.\.\]\.file: expected str, got int|shards\[0\]\.file: expected str, got int",
        ),
        ([SHARDS[0] | {"images": -1}], "images: expected int >= 1"),
        ([None], "expected object, got null"),
        ({}, "expected array, got object"),
    ],
)
def test_load__index_that_is_not_to_be_believed(dset, tmp_path, shards, message):
    for i, shard in enumerate(SHARDS):
        part = slice(10 * i, 10 * i + 10)
        write_tensors(tmp_path / shard["file"], {"images": dset.images[part], "labels": dset.labels[part]}, {})
    files.write_json(tmp_path / "index.json", {"meta": dset.meta, "shards": SHARDS})
    assert len(DistilledSet.load(tmp_path)) == 20
    files.write_json(tmp_path / "index.json", {"meta": dset.meta, "shards": shards})
    with pytest.raises(InputError, match=message):
        DistilledSet.load(tmp_path)


@pytest.mark.parametrize(
    "second",
    [
        {"images": torch.zeros(10, 1, 8, 8)},  # the first are bytes
        {"images": torch.zeros(10, 1, 9, 9, dtype=torch.uint8)},
        {"labels": torch.arange(9)},
        {"labels": torch.tensor(3)},
        {"labels": torch.full((10, 10), 0.1)},
        {"images": None},
    ],
)
def test_load__shards_that_do_not_fit_each_other(dset, tmp_path, second):
    for i, shard in enumerate(SHARDS):
        part = slice(10 * i, 10 * i + 10)
        tensors = {"images": dset.images[part], "labels": dset.labels[part]} | (second if i else {})
        tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        write_tensors(tmp_path / shard["file"], tensors, {})
    files.write_json(tmp_path / "index.json", {"meta": dset.meta, "shards": SHARDS})
    with pytest.raises(InputError, match=SHARDS[1]["file"]):
        DistilledSet.load(tmp_path)


def test_load__index_of_something_else(tmp_path):
    (tmp_path / "index.json").write_text('{"experts": 3}')
    with pytest.raises(InputError, match=r"index\.json: object missing required field shards"):
        DistilledSet.load(tmp_path)


def test_load__pt_of_lists(tmp_path):
    torch.save({"images": [1, 2], "labels": torch.arange(2)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="Expected a dict with tensors"):
        DistilledSet.load(tmp_path / "a.pt")


def test_load__tensors_without_metadata(dset, tmp_path):
    save_file({"images": dset.images, "labels": dset.labels}, tmp_path / "bare.safetensors")
    assert DistilledSet.load(tmp_path / "bare.safetensors").meta == {}


def test_load__pt_of_plain_tensors(dset, tmp_path):
    torch.save({"images": dset.images, "labels": dset.labels}, tmp_path / "a.pt")
    assert torch.equal(DistilledSet.load(tmp_path / "a.pt").images, dset.images)


@pytest.mark.parametrize("name", ["set.pt", "set.npz", "set.PARQUET"])
def test_save__by_no_other_name_than_it_is_read_by(dset, tmp_path, name):
    with pytest.raises(InputError, match=r"and .*set.* is called as other files are"):
        dset.save(tmp_path / name)


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
        ({"labels": torch.eye(10).repeat(2, 1) * 5}, r"soft labels that are no probabilities: .* give labels.softmax"),
        ({"labels": torch.tensor([[1.5, -0.5] + 8 * [0.0]]).repeat(20, 1)}, "no probabilities: negative"),
        ({"meta": {"schema": 99}}, "newer version: schema 99"),
        ({"meta": {"lr": float("nan")}}, "a learned rate, lr, of nan"),
    ],
)
def test_check__refuses(dset, change, message):
    for name, value in change.items():
        setattr(dset, name, value)
    with pytest.raises(InputError, match=message):
        dset.check()


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(20, 1, 8, 8).bfloat16(),
        torch.rand(20, 1, 8, 8).half(),
        torch.rand(20, 1, 8, 8, requires_grad=True),
        torch.nn.Parameter(torch.rand(20, 1, 8, 8)).double(),
        torch.rand(20, 8, 8, 1).permute(0, 3, 1, 2)[:, :, :, ::2].repeat_interleave(2, 3).transpose(2, 3),
        torch.rand(1, 1, 8, 8).expand(20, 1, 8, 8),
        torch._neg_view(-torch.rand(20, 1, 8, 8)),
    ],
    ids=["bf16", "fp16", "grad", "fp64 of a parameter", "transposed", "expanded", "negated view"],
)
def test_plain__what_can_be_used_is(dset, images, tmp_path):
    made = DistilledSet(images, dset.labels, dset.meta)
    made.check()
    again = DistilledSet.load(made.save(tmp_path / "set.safetensors"))
    assert again.digest() == made.digest() and again.decoded()[0].dtype == torch.float32
    assert torch.equal(again.decoded()[0], images.detach().float())


UNUSABLE = {
    "bf16 set later": torch.zeros(20, 1, 8, 8).bfloat16(),
    "grad set later": torch.zeros(20, 1, 8, 8, requires_grad=True),
    "fp8": torch.zeros(20, 1, 8, 8).to(torch.float8_e4m3fn),
    "sparse": torch.zeros(20, 1, 8, 8).to_sparse(),
    "meta": torch.zeros(20, 1, 8, 8, device="meta"),
    "complex": torch.zeros(20, 1, 8, 8, dtype=torch.complex64),
    "bool": torch.zeros(20, 1, 8, 8, dtype=torch.bool),
    "no pixels": torch.zeros(20, 1, 0, 8),
    "list": [[0.0]],
    "none": None,
}


@pytest.mark.parametrize("images", UNUSABLE.values(), ids=list(UNUSABLE))
def test_check__refuses_what_is_no_plain_tensor(dset, images):
    dset.images = images
    with pytest.raises(InputError, match="the distilled set has (no )?images"):
        dset.check()


@pytest.mark.parametrize(
    ("config", "message"),
    [({"x": float("nan")}, "cannot be written as JSON"), ({"x": {1}}, "cannot be written as JSON")],
)
def test_save__refuses_what_could_not_be_read_again(dset, tmp_path, config, message):
    dset.meta["config"] = config
    with pytest.raises(InputError, match=message):
        dset.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_save__of_names_that_are_not_utf8_can_be_read(dset, tmp_path):
    dset.meta["config"] = {"data": "folder:\udcff\ud83d"}
    read = DistilledSet.load(dset.save(tmp_path / "a.safetensors"))
    assert read.meta["config"] == {"data": "folder:\\udcff\\ud83d"}


def test_check__against_data_refuses_floats_on_the_scale_of_bytes(dset, digits):
    dset.images = dset.images.float()
    with pytest.raises(InputError, match="floating-point pixels from 0 to 255"):
        dset.check(digits)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_check__refuses_quantised_images(dset):
    dset.images = torch.quantize_per_tensor(torch.zeros(20, 1, 8, 8), 0.1, 0, torch.quint8)
    with pytest.raises(InputError, match="images torch.quint8"):
        dset.check()


@pytest.mark.parametrize(
    "labels",
    [
        torch.zeros(20, device="meta", dtype=torch.int64),
        torch.zeros(20, 10).to_sparse(),
        torch.zeros(20, 10).to(torch.float8_e5m2),
        torch.zeros(20, dtype=torch.bool),
        torch.tensor(1),
        list(range(20)),
    ],
)
def test_check__refuses_labels_that_are_no_plain_tensor(dset, labels):
    dset.labels = labels
    with pytest.raises(InputError, match="the distilled set has labels"):
        dset.check()


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ([], "the metadata of x: expected object, got array"),
        (None, "got null"),
        ("ipc", "got str"),
        ({"schema": "1"}, "at schema: expected int"),
        ({"class_names": 10}, "at class_names: expected array"),
        ({"class_names": ["a", 1]}, r"at class_names\[1\]: expected str, got int"),
        ({"class_names": ["a"]}, "labels from 0 to 9, expected 0 to 0"),
        ({"ipc": "ten"}, "at ipc: expected int"),
        ({"ipc": 0}, "at ipc: expected int >= 1"),
        ({"factor": 2.5}, "at factor: expected int"),
        ({"factor": 0}, "at factor: expected int >= 1"),
        ({"decode": None}, "at decode: expected str"),
        ({"preprocess": "zca"}, "at preprocess: expected object"),
        ({"preprocess": {}}, "at preprocess: object missing required field kind"),
        ({"preprocess": {"kind": "zca"}}, "lacks its mean, transform, inverse"),
        ({"lr": "0.1"}, "at lr: expected float"),
        ({"cost": [1]}, "at cost: expected object"),
        ({"config": 3}, "at config: expected object"),
        ({"fingerprint": 3}, "at fingerprint: expected str"),
    ],
)
def test_check__refuses_metadata_of_another_shape(dset, meta, message):
    dset.meta = meta
    with pytest.raises(InputError, match=message):
        dset.check(where="x")


@pytest.mark.parametrize(
    "tensors",
    [
        {"mean": torch.zeros(3), "std": torch.ones(1)},
        {"mean": torch.zeros(1), "std": torch.zeros(1)},
        {"mean": torch.tensor([torch.nan]), "std": torch.ones(1)},
        {"mean": torch.zeros(1), "std": torch.ones(1).double()},
    ],
)
def test_check__refuses_a_preprocessing_that_does_not_fit(dset, tensors):
    dset.meta["preprocess"], dset.tensors = {"kind": "mean_std"}, tensors
    with pytest.raises(InputError, match="the distilled set carries"):
        dset.check()


def test_check__another_dataset(dset, digits):
    dset.meta |= {"fingerprint": "0123", "data": "mnist"}
    with pytest.raises(InputError, match="was made from mnist .*, but the test data are digits"):
        dset.check(digits)


def test_check__another_shape(dset, digits):
    dset.images = dset.images.repeat(1, 3, 1, 1)
    with pytest.raises(InputError, match=r"images of shape \(3, 8, 8\), but digits has \(1, 8, 8\)"):
        dset.check(digits)


def test_dataset__of_the_stored_images(dset):
    from torch.utils.data import DataLoader, Dataset

    assert isinstance(dset, Dataset) and len(list(dset)) == len(dset) == 20
    image, label = dset[3]
    assert image.dtype == torch.float32 and torch.equal(image, dset.images[3].float() / 255) and label == 1
    images, labels = next(iter(DataLoader(dset, 5)))
    assert images.shape == (5, 1, 8, 8) and labels.tolist() == [0, 0, 1, 1, 2]
    with pytest.raises(IndexError):
        dset[20]


def test_loader__of_what_classifiers_train_on(dset, digits):
    dset.meta["factor"] = 2
    batches = list(dset.loader(32, seed=1))
    assert [len(labels) for _, labels in batches] == [32, 32, 16]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    decoded, own = dset.decoded()
    assert labels.bincount().equal(own.bincount()) and images.sum() == pytest.approx(float(decoded.sum()), rel=1e-4)
    again = [labels for _, labels in dset.loader(32, seed=1)]
    assert all(torch.equal(a, b) for a, (_, b) in zip(again, batches, strict=True))
    assert not torch.equal(next(iter(dset.loader(32, seed=2)))[1], again[0])
    with pytest.raises(InputError, match="the set brings no map"):
        dset.loader(normalised=True)
    dset.meta["preprocess"], dset.tensors = Preprocess.fit(digits).to_meta()
    images, _ = next(iter(dset.loader(80, shuffle=False, normalised=True)))
    assert torch.allclose(images, Preprocess.fit(digits).forward(decoded))


def test_to_folder__a_picture_of_each_decoded_image(dset, digits, tmp_path):
    place = dset.to_folder(tmp_path / "out")
    assert sorted(folder.name for folder in place.iterdir()) == list("0123456789")
    again = DistilledSet.load(place, digits)
    assert torch.equal(again.images, dset.images) and torch.equal(again.labels, dset.labels)
    dset.meta["class_names"] = ["a/b", *"123456789"]  # which no file system takes: numbers
    assert (dset.to_folder(tmp_path / "named") / "0" / "00000.png").is_file()
    with pytest.raises(InputError, match="exists. Choose another"):
        dset.to_folder(tmp_path / "out")


def test_repr__a_line_and_a_picture(dset):
    assert repr(dset) == "DistilledSet(20 images 1x8x8 uint8, hard labels, method random, data digits, ipc 2)"
    dset.meta |= {"factor": 2, "lr": 0.02, "method": "<x>", "preprocess": {"kind": "zca"}}
    dset.labels = torch.eye(10)[dset.labels]
    assert "soft labels over 10" in repr(dset) and "lr 0.02, distilled in zca, factor 2" in repr(dset)
    shown = dset._repr_html_()
    assert 'src="data:image/png;base64,iVBOR' in shown and "method &lt;x&gt;" in shown
    dset.images = torch.zeros(20, 2, 8, 8)
    assert dset._repr_html_().startswith("DistilledSet(20 images 2x8x8")  # no colours, no picture
