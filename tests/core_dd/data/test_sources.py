"""Data that are objects or a table, and data without a test split: the same images, whichever way they come."""

import csv

import numpy as np
import pytest
import torch
from makers import png, write_image_folder
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from core_dd import cli
from core_dd.data import sources
from core_dd.data.images import load_data
from core_dd.errors import InputError


@pytest.fixture(scope="module")
def few(digits):
    """Six digits of each class to train on, three to test on: uint8 (N, 1, 8, 8) and labels, twice."""
    train = torch.cat([members[:6] for members in digits.class_indices()])
    test = torch.cat([torch.nonzero(digits.test_labels == k).flatten()[:3] for k in range(10)])
    return digits.train_images[train], digits.train_labels[train], digits.test_images[test], digits.test_labels[test]


@pytest.fixture
def expected(few):
    return load_data(few_as_dict(few))


def few_as_dict(few):
    return dict(zip(sources.KEYS, few, strict=True))


def same(data, expected):
    return data.fingerprint == expected.fingerprint and data.num_classes == expected.num_classes


class Pictures(Dataset):
    """What torchvision's datasets are: PIL images and numbers, with names of classes."""

    def __init__(self, images, labels):
        self.images, self.labels, self.classes = images, labels, [f"digit {k}" for k in range(10)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index, 0].numpy()), int(self.labels[index])


def test_tensors__of_any_shape_and_scale(few, expected):
    a, b, c, d = few
    for images, tests in (
        (a, c),
        (a[:, 0], c[:, 0]),
        (a.permute(0, 2, 3, 1), c.permute(0, 2, 3, 1)),
        (a.float() / 255, c.double() / 255),
        (a.numpy(), c.numpy()),
    ):
        assert same(load_data(((images, b), (tests, d))), expected)
        assert same(load_data({"train": (images, b), "test": (tests, d.tolist())}), expected)
    named = load_data(few_as_dict(few) | {"class_names": [f"n{k}" for k in range(10)]}, name="mine", image_size=4)
    assert (named.name, named.class_names[3], named.shape) == ("mine", "n3", (1, 4, 4))
    assert load_data(few_as_dict(few), name="cifar10").name == "own:cifar10"  # whose constants these are not
    assert load_data(few_as_dict(few), limit_per_class=2, val_fraction=0.2).val_images.shape[0] == 10


def test_datasets__of_torch(few, expected):
    a, b, c, d = few
    assert same(load_data((Pictures(a, b), Pictures(c, d))), expected)
    assert load_data((Pictures(a, b), Pictures(c, d))).class_names[2] == "digit 2"
    assert same(load_data((TensorDataset(a.float() / 255, b), TensorDataset(c.float() / 255, d))), expected)
    assert load_data((Pictures(a, b), Pictures(c, d)), image_size=5).shape == (1, 5, 5)
    alone = load_data(Pictures(a, b), test_fraction=0.5)
    assert len(alone.train_labels) == len(alone.test_labels) == 30


def test_datasets__of_hugging_face(few, expected):
    from datasets import ClassLabel, DatasetDict, Features
    from datasets import Dataset as Table
    from datasets import Image as ImageColumn

    a, b, c, d = few
    features = Features({"picture": ImageColumn(), "kind": ClassLabel(names=[f"n{k}" for k in range(10)])})
    tables = {
        split: Table.from_dict(
            {"picture": [{"bytes": png(image[0].numpy()), "path": None} for image in images], "kind": labels.tolist()},
            features=features,
        )
        for split, images, labels in (("train", a, b), ("test", c, d))
    }
    data = load_data(DatasetDict(tables))
    assert same(data, expected) and data.class_names[9] == "n9"
    assert len(load_data(tables["train"], test_fraction=1 / 3).test_labels) == 20
    with pytest.raises(InputError, match="expected one column of type ClassLabel, got none"):
        load_data(tables["train"].remove_columns("kind"), test_fraction=0.5)


def test_npz__under_either_names(few, expected, tmp_path):
    for names in (sources.KEYS, ("x_train", "y_train", "x_test", "y_test")):
        np.savez(tmp_path / "a.npz", **{name: t.numpy() for name, t in zip(names, few, strict=True)})
        assert same(load_data("npz:a.npz"), expected)
    np.savez(tmp_path / "b.npz", images=few[0].numpy(), labels=few[1].numpy(), class_names=np.array(list("abcdefghij")))
    data = load_data("npz:b.npz", test_fraction=0.5)
    assert data.class_names == tuple("abcdefghij") and len(data.test_labels) == 30
    for given in (np.array([b"%d" % k for k in range(10)]), np.arange(10)):
        np.savez(tmp_path / "c.npz", images=few[0].numpy(), labels=few[1].numpy(), class_names=given)
        assert load_data("npz:c.npz", test_fraction=0.5).class_names == tuple("0123456789")
    few_of_any = {"images": few[0].numpy(), "labels": few[1].numpy()}
    for kind in (np.uint16, np.uint32, np.uint64):
        np.savez(tmp_path / "d.npz", **few_of_any | {"labels": few[1].numpy().astype(kind)})
        assert same(load_data("npz:d.npz", test_fraction=0.5), data)
    assert load_data(few_as_dict(few) | {"class_names": list(np.arange(10))}).class_names[3] == "3"
    for changed, message in (
        ({"labels": few[1].numpy().astype(np.longdouble)}, "labels float128 of shape"),
        ({"labels": np.full(len(few[1]), 2**64 - 1, np.uint64)}, "have a label 18446744073709551615"),
        ({"images": few[0].numpy().astype(np.longdouble)}, "are float128, expected uint8"),
        ({"images": np.zeros(few[0].shape, "S3")}, "expected uint8"),
        ({"images": np.zeros(few[0].shape, [("a", "u1")])}, "expected uint8"),
        ({"class_names": np.array(3)}, "class_names is a int, expected a list of names"),
        ({"class_names": np.array("abcdefghij")}, "class_names is a str, expected a list of names"),
    ):
        np.savez(tmp_path / "e.npz", **few_of_any | changed)
        with pytest.raises(InputError, match=message):
            load_data("npz:e.npz", test_fraction=0.5)
    with pytest.raises(InputError, match="b.npz has no test split. Say which part .* --test_fraction"):
        load_data("npz:b.npz")
    with pytest.raises(InputError, match="a.npz has its own test split. Leave out test_fraction"):
        load_data("npz:a.npz", test_fraction=0.5)


def write_table(folder, few, name="annotations.csv", headings=("Image Name", "Majority Vote Label", "Partition")):
    """A table as MHIST's, and its images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for split, images, labels in (("train", *few[:2]), ("test", *few[2:])):
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            (folder / "images" / f"{split}{number}.png").write_bytes(png(image[0].numpy()))
            lines.append((f"{split}{number}.png", f"class{label}", split))
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([headings, *(line[: len(headings)] for line in lines)])


def test_mhist__as_it_is_unpacked(few, expected, tmp_path):
    write_table(tmp_path / "mhist", few)
    data = load_data("mhist:mhist")
    assert same(data, expected) and data.class_names[1] == "class1"
    (tmp_path / "mhist" / "annotations.csv").unlink()
    with pytest.raises(InputError, match="mhist is not MHIST as it is unpacked.* Ask for it at https://"):
        load_data("mhist:mhist")


def test_table__of_files_and_labels(few, expected, tmp_path):
    write_table(tmp_path, few, "all.csv", ("file", "label", "split"))
    assert same(load_data("csv:all.csv"), expected)
    write_table(tmp_path, few, "train.csv", ("path", "class"))
    assert len(load_data("csv:train.csv", test_fraction=1 / 3).test_labels) == 30
    with pytest.raises(InputError, match="train.csv has no test split"):
        load_data("csv:train.csv")


def test_pictures__mean_what_files_of_them_mean():
    """PIL images in a torch dataset: 16 bits become 8, what is transparent is white, floats are refused."""

    def load(*images):
        own = [(image, k % 2) for k, image in enumerate([*images, *images, *images])]  # three or more: no pair
        return load_data((own, own)).train_images[: len(images)]

    sixteen = Image.fromarray(np.full((4, 4), 131 * 257, dtype=np.uint16))
    assert load(sixteen, sixteen).unique().tolist() == [131] and load(sixteen).shape[1] == 1
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert load(clear).shape[1] == 3 and load(clear).unique().tolist() == [255]
    assert load(Image.new("CMYK", (4, 4), (0, 0, 0, 255))).unique().tolist() == [0]
    with pytest.raises(InputError, match="pixels from 70000 to 70000. Give 8 or 16 unsigned bits"):
        load(Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)))
    with pytest.raises(InputError, match="pixels are floating-point numbers of no stated range"):
        load(Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)))


def test_arrays__as_many_labels_as_images_before_a_split_is_cut(few):
    for labels in (few[1][:-1], torch.cat([few[1], few[1][:2]])):
        with pytest.raises(InputError, match=f"{len(few[0])} images but {len(labels)} labels"):
            load_data((few[0], labels), test_fraction=0.25)


def test_table__tests_on_the_test_split_alone(few, expected, tmp_path, capsys):
    write_table(tmp_path, few, "all.csv", ("file", "label", "split"))
    lines = (tmp_path / "all.csv").read_text().splitlines()
    others = [line.replace(",test", ",val") for line in lines if line.endswith(",test")]
    (tmp_path / "three.csv").write_text("\n".join([*lines, *others[:5]]))
    assert same(load_data("csv:three.csv"), expected)
    assert "three.csv: the test images are those of split test; val are left out" in capsys.readouterr().err
    (tmp_path / "two.csv").write_text("\n".join([*(line for line in lines if not line.endswith(",test")), *others]))
    assert same(load_data("csv:two.csv"), expected) and not capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no lines below its headings"),
        ("file,label\n", "has no lines below its headings"),
        ("a,b\nx,y\n", "has columns a, b; expected one called file or filename"),
        ("file,label\n,y\n", "line 2 of t.csv has no file or no class"),
        ("file,label\nnowhere.png,y\n", "line 2 of t.csv: no file at nowhere.png or images/nowhere.png"),
        ("file,label,split\nt.csv,y,dev\n", "split 'dev', expected train or test"),
        ("file,label,split\nt.csv,a,train\nt.csv,a,test\n", "cannot decode t.csv"),
    ],
)
def test_table__says_what_is_wrong(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load_data("csv:t.csv")


def test_folder__that_is_not_split(few, tmp_path, capsys):
    write_image_folder(tmp_path / "birds", few[0][:, 0].numpy(), few[1].tolist())
    with pytest.raises(InputError, match="has no train and test folders.*--test_fraction 0.2"):
        load_data("folder:birds")
    data = load_data("folder:birds", test_fraction=1 / 3, seed=0)
    assert data.test_labels.bincount().tolist() == [2] * 10 and data.train_labels.bincount().tolist() == [4] * 10
    for seed in (1, 2):  # the seed of a run does not change what is tested on
        assert torch.equal(load_data("folder:birds", test_fraction=1 / 3, seed=seed).test_images, data.test_images)
    assert cli.main(["info", "folder:birds", "--test_fraction", "0.5"]) == 0
    assert "30 images" in capsys.readouterr().out
    with pytest.raises(InputError, match="test_fraction 0.99 leaves class 0"):
        load_data("folder:birds", test_fraction=0.99)
    write_image_folder(tmp_path / "half" / "train", few[0][:, 0].numpy(), few[1].tolist())
    with pytest.raises(InputError, match="has no train and test folders.*--test_fraction 0.2"):
        load_data("folder:half")
    half = load_data("folder:half", test_fraction=1 / 3)
    assert half.class_names == data.class_names and torch.equal(half.test_images, data.test_images)
    for split in ("train", "test"):
        write_image_folder(tmp_path / "split" / split, few[0][:, 0].numpy(), few[1].tolist())
    with pytest.raises(InputError, match="split has its own test split. Leave out test_fraction"):
        load_data("folder:split", test_fraction=0.5)
    with pytest.raises(InputError, match="unknown data format without a test split 'idx'"):
        load_data("idx:x", test_fraction=0.5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "got a int, expected .images, labels., a torch Dataset"),
        ({"a": 1}, "own has a; expected train_images, train_labels"),
        ((torch.zeros(4, 1, 2, 2), torch.zeros(4).long()), "own has no test split"),
        (((torch.randn(4, 1, 2, 2), torch.arange(4)),) * 2, "values from .*Leave out what normalises them"),
        (((torch.zeros(4, 5, 2, 2).byte(), torch.arange(4)),) * 2, r"of shape \(4, 5, 2, 2\), expected"),
        (((torch.zeros(4, 1, 2, 2).byte(), torch.rand(4)),) * 2, "labels float32 of shape"),
        (((torch.zeros(4, 1, 2, 2).byte(), ["a"] * 4),) * 2, "labels that are no numbers"),
        (((torch.zeros(4, 1, 2, 2).int(), torch.arange(4)),) * 2, "are torch.int32, expected uint8"),
        (([1, 2, 3], [1, 2, 3]), "item 0 is a int, expected .image, label."),
    ],
)
def test_in_memory__says_what_is_wrong(source, message):
    with pytest.raises(InputError, match=message):
        load_data(source)
