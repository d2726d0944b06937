"""Subsets of ImageNet by name: their classes, read from folders by wnid and from the downsampled archive."""

import csv
import pickle

import numpy as np
import pytest
import torch
from commands import ROOT
from makers import png

from core_dd import cli
from core_dd.data import imagenet
from core_dd.data.images import KNOWN, load_data
from core_dd.data.streaming import load_stream
from core_dd.errors import InputError
from core_dd.sets.distilled import DistilledSet

TEN = {
    "imagenette": "01440764 02102040 02979186 03000684 03028079 03394916 03417042 03425413 03445777 03888257",
    "imagewoof": "02096294 02093754 02111889 02088364 02086240 02089973 02087394 02115641 02099601 02105641",
    "imagesquawk": "01806143 02007558 01818515 02051845 02056570 01614925 01843383 01518878 01860187 01819313",
    "imagenet10": "02869837 01749939 02488291 02107142 13037406 02091831 04517823 04589890 03062245 01773797",
}
"""The wnids of the lists of MTT's and IDC's authors, in their order, without their n."""


def wnids(name):
    return [one.wnid for one in imagenet.classes_of(name)]


@pytest.mark.parametrize("name", TEN)
def test_classes__are_those_of_the_authors_in_their_order(name):
    assert [wnid.removeprefix("n") for wnid in wnids(name)] == TEN[name].split()


def test_classes__indices_in_imagenet_are_those_of_mtt():
    """Facts D6: positions among all wnids, sorted."""
    order = wnids("imagenet1k")
    assert order == sorted(order) and len(set(order)) == 1000
    assert [order.index(wnid) for wnid in wnids("imagewoof")] == [193, 182, 258, 162, 155, 167, 159, 273, 207, 229]
    assert [order.index(wnid) for wnid in wnids("imagesquawk")] == [84, 130, 88, 144, 145, 22, 96, 9, 100, 89]


def test_classes__of_imagenet100_and_its_parts():
    whole = wnids("imagenet100")
    assert len(set(whole)) == 100 and whole[:10] == wnids("imagenet10") and whole[-1] == "n02090622"
    assert [wnid for part in range(5) for wnid in wnids(f"imagenet100_{part}")] == whole


def test_classes__have_names_and_numbers_of_their_own():
    classes = imagenet.classes_of("imagenet1k")
    assert len({one.name for one in classes}) == 1000
    assert sorted(one.downsampled for one in classes) == list(range(1, 1001))
    numbers = {one.wnid: one.downsampled for one in classes}  # of map_clsloc.txt, first, some and last
    assert [numbers[w] for w in ("n02119789", "n01440764", "n02165456", "n03255030")] == [1, 449, 622, 1000]
    assert [one.name for one in imagenet.classes_of("imagesquawk")][4:7] == ["king penguin", "bald eagle", "toucan"]


def picture(seed, size=(9, 12)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_tree(root, names, splits=("train", "val"), each=2):
    """ROOT/SPLIT/WNID/WNID_0.JPEG: as ImageNet and imagenette2-160 are unpacked, of lossless images."""
    for s, split in enumerate(splits):
        for wnid in names:
            (root / split / wnid).mkdir(parents=True)
            for i in range(each):
                (root / split / wnid / f"{wnid}_{i}.JPEG").write_bytes(png(picture((s, int(wnid[1:]), i))))
    return root


def write_batches(root, names, side=4, each=2, share=1):
    """Ten files of training images and one of test images, as Imagenet64_*_npz.zip are unpacked, over three folders.

    A training file has every `share`-th class, the next one those after them.
    """
    numbers = {one.wnid: one.downsampled for one in imagenet.classes_of("imagenet1k")}
    for stem in [f"train_data_batch_{i}" for i in range(1, 11)] + ["val_data"]:
        number = 0 if stem == "val_data" else int(stem.rpartition("_")[2])
        place = root / ("Imagenet64_val_npz" if not number else f"Imagenet64_train_part{1 + number // 6}_npz")
        place.mkdir(parents=True, exist_ok=True)
        own = names[number % share :: share] if number else names
        labels = [numbers[wnid] for wnid in own for _ in range(each)]
        data = np.stack([picture((len(stem), ord(stem[-1]), i), (side, side)) for i in range(len(labels))])
        planes = data.transpose(0, 3, 1, 2).reshape(len(data), -1)
        np.savez_compressed(place / f"{stem}.npz", data=planes, labels=np.array(labels), mean=planes.mean(0))
    return root


@pytest.fixture
def nette(tmp_path):
    """imagenette2-160/, with the table of noisy labels beside the splits that its archive has."""
    root = write_tree(tmp_path / "imagenette2-160", wnids("imagenette"))
    (root / "noisy_imagenette.csv").write_text("path,noisy_labels_0\n")
    return root


def test_tree__the_archive_of_imagenette(nette):
    data = load_data(f"imagenette:{nette}", image_size=8)
    assert (data.name, data.num_classes, data.shape) == ("imagenette", 10, (3, 8, 8))
    assert data.class_names[:3] == ("tench", "English springer", "cassette player")
    assert data.mean.tolist() == pytest.approx(KNOWN["tiny_imagenet"].mean) and data.hflip
    assert data.train_labels.bincount().tolist() == data.test_labels.bincount().tolist() == [2] * 10


def test_tree__a_subset_of_imagenet_counts_in_the_authors_order(tmp_path):
    """Of a folder with more classes, of which the subset's are taken, whose folders' order is another."""
    root = write_tree(tmp_path / "imagenet", sorted({*wnids("imagewoof"), *wnids("imagenette")}))
    data = load_data(f"imagewoof:{root}", image_size=8)
    by_folder = load_data(f"folder:{root}", image_size=8)
    for label, wnid in enumerate(wnids("imagewoof")):
        theirs = by_folder.train_labels == by_folder.class_names.index(wnid)
        assert torch.equal(data.train_images[data.train_labels == label], by_folder.train_images[theirs])


@pytest.mark.parametrize("size", [64, 128, 224])
def test_sizes__in_memory_and_streamed(tmp_path, size):
    root = write_tree(tmp_path / "imagenet", wnids("imagenet10"), each=1)
    data = load_data(f"imagenet10:{root}", image_size=size)
    streamed = load_stream(f"imagenet10:{root}", image_size=size, workers=0)
    assert data.shape == streamed.shape == (3, size, size) and data.fingerprint == streamed.fingerprint
    assert (data.name, data.class_names) == (streamed.name, streamed.class_names)


def test_tree__a_part_of_imagenet100(tmp_path):
    root = write_tree(tmp_path / "imagenet", wnids("imagenet100"), each=1)
    data = load_data(f"imagenet100_3:{root}", image_size=4)
    assert (data.name, data.num_classes, len(data.train_labels)) == ("imagenet100_3", 20, 20)
    assert load_data(f"imagenet100:{root}", image_size=4).class_names[60:80] == data.class_names


def test_batches__all_of_imagenet(tmp_path):
    root = write_batches(tmp_path / "Imagenet64", wnids("imagenet1k"), side=2, each=1, share=10)
    data = load_data(f"imagenet1k:{root}")
    assert (data.name, data.num_classes, len(data.train_labels)) == ("imagenet1k", 1000, 1000)
    assert data.test_labels.tolist() == list(range(1000))


def test_batches__pixels_and_labels_of_the_downsampled_archive(tmp_path):
    """Some classes of all, in the subset's order; streamed alike, and again from the copy that streaming keeps."""
    names = wnids("imagenette")[:1] + wnids("imagenet10")
    root = write_batches(tmp_path / "Imagenet64", names)
    data = load_data(f"imagenet10:{root}")
    assert (data.name, data.shape, len(data.train_labels), len(data.test_labels)) == ("imagenet10", (3, 4, 4), 200, 20)
    with np.load(root / "Imagenet64_train_part2_npz" / "train_data_batch_6.npz") as batch:
        planes = torch.from_numpy(batch["data"][2:]).view(-1, 3, 4, 4)  # but for the tench's
    assert torch.equal(data.train_images[100:120], planes)
    assert data.train_labels[100:120].tolist() == [k for k in range(10) for _ in range(2)]
    for _ in range(2):
        streamed = load_stream(f"imagenet10:{root}", workers=2)
        assert streamed.fingerprint == data.fingerprint
        order = torch.tensor([150, 3, 3, 199])
        assert torch.equal(torch.cat(list(streamed.decode([order]))), data.train_images[order])
    assert load_data(f"imagenet10:{root}", image_size=8).shape == (3, 8, 8)


def test_sets__of_folders_by_wnid_or_in_another_order(nette, tmp_path, capsys):
    """As RDED and Minimax write them; and DataDAM's files, whose code counts classes by wnid."""
    root = write_tree(tmp_path / "woof", wnids("imagewoof"), each=1)
    data = load_data(f"imagewoof:{root}", image_size=8)
    for wnid in wnids("imagewoof"):
        (tmp_path / "theirs" / wnid).mkdir(parents=True)
        label = wnids("imagewoof").index(wnid)
        image = data.train_images[label].permute(1, 2, 0).numpy()
        (tmp_path / "theirs" / wnid / "0.png").write_bytes(png(image))
    theirs = DistilledSet.load(tmp_path / "theirs", data)
    assert torch.equal(theirs.images[theirs.labels.argsort()], data.train_images)
    torch.save([data.train_images.float() / 255, torch.arange(10)], "data.pt")
    order = sorted(wnids("imagewoof"))
    again = DistilledSet.load("data.pt", data, layout="idc", factor=1, class_order=order)
    assert [wnids("imagewoof")[label] for label in again.labels.tolist()] == order


def refused(spec, **options):
    """What both doors say."""
    with pytest.raises(InputError) as caught:
        load_data(spec, **options)
    with pytest.raises(InputError) as again:
        load_stream(spec, workers=0, **options)
    assert str(again.value) == str(caught.value)
    return str(caught.value)


def test_missing__folder_split_and_classes(nette, tmp_path):
    nowhere = refused("imagenette:nowhere")
    assert "no folder at nowhere. imagenette:PATH wants nowhere/train/WNID/*.JPEG" in nowhere
    assert "https://github.com/fastai/imagenette (imagenette2-160.tgz)" in nowhere and "image-net.org" in nowhere
    for wnid in wnids("imagenette")[:7]:
        (nette / "val" / wnid).rename(tmp_path / wnid)
    lacks = refused(f"imagenette:{nette}", image_size=8)
    assert "val lacks 7 of the 10 classes of imagenette: n01440764 (tench), n02102040 (English springer)" in lacks
    assert "and 2 more. imagenette:PATH wants" in lacks and "train lacks" not in lacks
    both = refused(f"imagewoof:{nette}", image_size=8)
    assert "/train and " in both and "/val lack 10 of the 10 classes of imagewoof: n02096294 (Australian" in both
    (nette / "val").rename(tmp_path / "other")
    assert "lacks its train or its val folder" in refused(f"imagenette:{nette}", image_size=8)


def test_missing__sizes_differ(nette):
    place = nette / "train" / "n01440764" / "n01440764_1.JPEG"
    place.write_bytes(png(picture(0, (5, 5))))
    assert "Pass image_size to bring them to one size" in refused(f"imagenette:{nette}")


def test_missing__batches(tmp_path):
    root = write_batches(tmp_path / "Imagenet64", wnids("imagenet10"))
    inner = root / "Imagenet64_train_part1_npz"
    (inner / "train_data_batch_2.npz").rename(tmp_path / "train_data_batch_2.npz")
    assert "holds 10 files of the downsampled ImageNet and lacks train_data_batch_2.npz" in refused(
        f"imagenet10:{root}"
    )
    (inner / "train_data_batch_2").write_bytes(pickle.dumps({"data": [], "labels": []}))
    assert "train_data_batch_2 is a pickle, which is not opened" in refused(f"imagenet10:{root}")
    (inner / "train_data_batch_2").unlink()
    for name in ("train_data_batch_2.npz", "train_data_batch_1.npz"):
        (root / name).write_bytes((inner / "train_data_batch_1.npz").read_bytes())
    assert "holds train_data_batch_1 twice" in refused(f"imagenet10:{root}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"data": np.zeros((2, 12), np.uint8)}, "expected 'labels' from 1 to 1000"),
        ({"data": np.zeros((2, 12), np.uint8), "labels": np.array([0, 5])}, "expected 'labels' from 1 to 1000"),
        ({"data": np.zeros((1, 12), np.uint8), "labels": np.array([805, 805])}, "more labels than images"),
        ({"data": np.zeros((2, 13), np.uint8), "labels": np.array([805, 805])}, "expected uint8 (N, 3 S S)"),
        ({"data": np.zeros((2, 12)), "labels": np.array([805, 805])}, "expected uint8 (N, 3 S S)"),
        ({"data": np.array([pickle], object), "labels": np.array([805])}, None),
    ],
)
def test_damaged__batches(tmp_path, content, said):
    root = write_batches(tmp_path / "Imagenet64", wnids("imagenet10"), side=2)
    place = root / "Imagenet64_val_npz" / "val_data.npz"
    if said is None:  # what would be unpickled
        content, said = {**content, "data": np.array([{"a": 1}], object)}, "holds objects, which would be unpickled"
    np.savez(place, **content)
    with pytest.raises(InputError, match="val_data.npz") as caught:
        load_data(f"imagenet10:{root}")
    assert said in str(caught.value)


def test_info__describes_a_subset(nette, capsys):
    cli.main(["info", f"imagenette:{nette}", "--image_size", "8"])
    out = capsys.readouterr().out
    assert "10: tench, English springer" in out and "20 images, 2 to 2 per class" in out


def test_table__is_the_one_place_of_the_lists():
    with (ROOT / "core_dd" / "data" / "imagenet.csv").open(newline="") as table:
        columns = csv.DictReader(table).fieldnames
    assert {column for column, _ in imagenet.SUBSETS.values()} == set(columns) - {"wnid", "name", "downsampled"}
