from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import fashion_folder, shared_data
from makers import png, write_idx, write_image_folder, write_parquet

from core_dd.data import readers
from core_dd.data.images import DATASETS, load_data, recognised
from core_dd.data.streaming import load_stream
from core_dd.errors import InputError


@pytest.fixture
def small(generator):
    """20 grey 6x6 images, 4 classes."""
    images = torch.randint(0, 256, (20, 6, 6), generator=generator, dtype=torch.uint8).numpy()
    return images, np.arange(20, dtype=np.uint8) % 4


def test_digits__fixed_stratified_split(digits):
    assert digits.shape == (1, 8, 8) and digits.num_classes == 10
    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    counts = digits.test_labels.bincount()
    assert counts.min() >= 34 and counts.max() <= 36
    assert not digits.hflip
    assert load_data("digits").fingerprint == digits.fingerprint == "a002f230981ce8ab"
    assert digits.train_images.max() == 255 and digits.train_images.min() == 0


@pytest.mark.parametrize("compress", [True, False])
def test_idx__round_trip(tmp_path, small, compress):
    write_idx(tmp_path / "set", small, (small[0][:8], small[1][:8]), compress)
    data = load_data(f"idx:{tmp_path / 'set'}")
    assert np.array_equal(data.train_images[:, 0].numpy(), small[0])
    assert data.test_labels.tolist() == small[1][:8].tolist() and data.name == "set"


def test_every_format_gives_the_same_data(tmp_path, small):
    """idx, parquet, hf (local), folder and pt hold the same images, so they have one fingerprint."""
    images, labels = small
    write_idx(tmp_path / "idx", small, small)
    for split in ("train", "test"):
        write_parquet(tmp_path / "parquet" / "data", images, labels, split)
        write_image_folder(tmp_path / "folder" / split, images, labels)
    tensor, long = torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()
    content = {"classes": list("abcd"), "images_train": tensor, "labels_train": long, "images_val": tensor}
    torch.save(content | {"labels_val": long}, tmp_path / "set.pt")
    specs = ("idx:idx", "parquet:parquet", "hf:parquet", "folder:folder", "pt:set.pt")
    prints = {spec: load_data(spec).fingerprint for spec in specs}
    assert len(set(prints.values())) == 1, prints


def test_fingerprint__sees_pixels_and_labels(tmp_path, small):
    images, labels = small
    write_idx(tmp_path / "a", small, small)
    write_idx(tmp_path / "b", (images, np.roll(labels, 1)), small)
    write_idx(tmp_path / "c", (images ^ 1, labels), small)
    write_idx(tmp_path / "d", (images[::-1].copy(), labels[::-1].copy()), small)
    a, b, c, d = (load_data(f"idx:{name}").fingerprint for name in "abcd")
    assert a == d and len({a, b, c}) == 3


def test_training_digest__says_which_images_are_trained_on(digits):
    """Not their order; the fingerprint is the whole dataset's all along."""
    options = {"limit_per_class": 20, "val_fraction": 0.1}
    a, b = (load_data("digits", **options, seed=seed) for seed in (0, 1))
    assert a.fingerprint == b.fingerprint == digits.fingerprint and len(a.train_labels) == len(b.train_labels)
    assert len({data.training_digest for data in (a, b, digits)}) == 3
    assert load_data("digits", **options).training_digest == a.training_digest
    reversed_ = replace(a, train_images=a.train_images.flip(0), train_labels=a.train_labels.flip(0))
    assert reversed_.training_digest == a.training_digest
    assert replace(a, train_labels=a.train_labels.flip(0)).training_digest != a.training_digest
    assert replace(a, test_images=a.test_images[:0], test_labels=a.test_labels[:0]).training_digest == a.training_digest


def test_check_origin__refuses_other_data_and_other_training_images(digits):
    part, how = load_data("digits", limit_per_class=20), "Do this."
    part.check_origin(part.origin | {"more": 1}, "it is", how)
    with pytest.raises(InputError, match="it is of mnist .fingerprint x., but the data are digits .* Do this."):
        part.check_origin(part.origin | {"data": "mnist", "fingerprint": "x"}, "it is", how)
    for origin in (digits.origin, {key: part.origin[key] for key in ("data", "fingerprint")}):
        with pytest.raises(InputError, match="it is trained on other training images of digits than these 200: .* Do"):
            part.check_origin(origin, "it is", how)


def test_parquet__colour_and_class_names(tmp_path, generator):
    images = torch.randint(0, 256, (6, 5, 5, 3), generator=generator, dtype=torch.uint8).numpy()
    info = b'{"info": {"features": {"fine_label": {"names": ["cat", "dog", "eel"]}}}}'
    for split in ("train", "test"):
        write_parquet(tmp_path / "set", images, [0, 1, 2] * 2, split, "fine_label", {b"huggingface": info})
    data = load_data("parquet:set")
    assert data.class_names == ("cat", "dog", "eel")
    assert np.array_equal(data.train_images.numpy(), images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("load", [load_data, load_stream])
def test_class_names__that_several_classes_bear_are_told_apart(tmp_path, generator, capsys, load):
    """ImageNet has two cranes."""
    images = torch.randint(0, 256, (4, 5, 5), generator=generator, dtype=torch.uint8).numpy()
    info = b'{"info": {"features": {"label": {"names": ["crane", "dog", "crane", "eel"]}}}}'
    for split in ("train", "test"):
        write_parquet(tmp_path / "set", images, [0, 1, 2, 3], split, "label", {b"huggingface": info})
    assert load("parquet:set").class_names == ("crane (0)", "dog", "crane (2)", "eel")
    said = capsys.readouterr().err
    assert "classes of parquet:set are called crane; they are told apart by their numbers, e.g. 'crane (0)'." in said


def test_parquet__second_load_comes_from_the_cache(tmp_path, small, monkeypatch):
    for split in ("train", "test"):
        write_parquet(tmp_path / "set", *small, split)
    first = load_data("parquet:set")
    monkeypatch.setattr(readers, "decode_images", None)  # a second decode would fail
    second = load_data("parquet:set")
    assert torch.equal(first.train_images, second.train_images) and first.fingerprint == second.fingerprint


def test_image_size__resizes_short_side_and_crops_centre(tmp_path):
    wide = np.zeros((4, 8), np.uint8)
    wide[:, 4:] = 200
    for split in ("train", "test"):
        write_image_folder(tmp_path / "set" / split, [wide, np.zeros((8, 8), np.uint8)], [0, 1])
    data = load_data("folder:set", image_size=4)
    assert data.shape == (1, 4, 4)
    picture = data.train_images[0, 0].float()
    assert picture[:, 0].max() < 20 and picture[:, 3].min() > 180


def test_image_size__of_digits():
    data = load_data("digits", image_size=16)
    assert data.shape == (1, 16, 16) and data.fingerprint != load_data("digits").fingerprint


def test_val_fraction__cuts_a_stratified_part_of_training(digits):
    data = load_data("digits", val_fraction=0.2, seed=3)
    assert len(data.val_labels) + len(data.train_labels) == len(digits.train_labels)
    assert torch.equal(data.val_labels.bincount(), (digits.train_labels.bincount() * 0.2).round().long())
    assert torch.equal(data.test_images, digits.test_images) and data.fingerprint == digits.fingerprint
    assert torch.equal(data.val_images, load_data("digits", val_fraction=0.2, seed=3).val_images)
    assert not torch.equal(data.val_images, load_data("digits", val_fraction=0.2, seed=4).val_images)


def test_limit_per_class__keeps_that_many():
    assert load_data("digits", limit_per_class=7).train_labels.bincount().tolist() == [7] * 10


def test_unknown_names():
    with pytest.raises(InputError, match="unknown dataset 'digts'; did you mean 'digits'"):
        load_data("digts")
    with pytest.raises(InputError, match="unknown data format 'parket'; did you mean 'parquet'"):
        load_data("parket:x")
    assert "svhn" in DATASETS


def test_pt__hostile_pickle_is_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    torch.save({"images_train": Hostile()}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="pickle that wants to run code"):
        load_data(f"pt:{tmp_path / 'x.pt'}")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "spec", "shape", "train"),
    [
        ("mnist", "idx:{}", (1, 28, 28), 60000),
        pytest.param("cifar10", "parquet:{}", (3, 32, 32), 50000, marks=pytest.mark.slow),
        pytest.param("cifar100", "parquet:{}", (3, 32, 32), 50000, marks=pytest.mark.slow),
    ],
)
def test_real_data__is_recognised(name, spec, shape, train):
    data = load_data(spec.format(shared_data(name)))
    assert (data.name, data.shape, len(data.train_labels)) == (name, shape, train)
    pixels = data.train_images[::7].transpose(0, 1).flatten(1).float() / 255
    assert torch.allclose(pixels.mean(1), data.mean, atol=3e-3)


def test_recognised__the_working_folder_by_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "birds").mkdir()
    monkeypatch.chdir(tmp_path / "birds")
    assert recognised("x", "folder:.", (2, 10, 10), None) == "birds"


def test_real_data__fashion_mnist_is_recognised():
    data = load_data(f"idx:{fashion_folder()}")
    assert data.name == "fashion_mnist" and data.hflip and data.class_names[9] == "Ankle boot"


WNIDS = tuple(f"n{number:08d}" for number in range(1443537, 1443737))


def tiny_imagenet(folder, images, names=WNIDS):
    """The layout Tiny-ImageNet is unpacked to, an image of each class; the unlabelled test images are white."""
    for place in (folder / "val" / "images", folder / "test" / "images"):
        place.mkdir(parents=True)
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        train = folder / "train" / name / "images"
        train.mkdir(parents=True)
        (train / f"{name}_0.JPEG").write_bytes(png(image))
        (folder / "val" / "images" / f"val_{i}.JPEG").write_bytes(png(255 - image))
    (folder / "test" / "images" / "test_0.JPEG").write_bytes(png(np.full_like(images[0], 255)))
    lines = [f"val_{i}.JPEG\t{name}\t0\t32\t44\t62" for i, name in reversed(list(enumerate(names)))]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (folder / "wnids.txt").write_text("\n".join(reversed(names)) + "\n")


@pytest.fixture
def pictures(generator):
    """200 colour images, 4x4."""
    return torch.randint(0, 256, (200, 4, 4, 3), generator=generator, dtype=torch.uint8).numpy()


def test_tiny_imagenet__as_it_is_unpacked(tmp_path, pictures):
    tiny_imagenet(tmp_path / "tiny-imagenet-200", pictures)
    data = load_data("tiny_imagenet:tiny-imagenet-200")
    assert data.name == "tiny_imagenet" and data.class_names == WNIDS and data.hflip
    assert data.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert data.train_labels.tolist() == list(range(200)) and data.test_labels.tolist() == list(reversed(range(200)))
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    assert torch.equal(data.train_images, pixels)
    assert torch.equal(data.test_images, 255 - pixels.flip(0))
    same = load_data("folder:tiny-imagenet-200")
    assert same.fingerprint == data.fingerprint and same.name == "tiny-imagenet-200"
    streamed = load_stream("tiny_imagenet:tiny-imagenet-200", workers=0)
    assert (streamed.name, streamed.fingerprint) == (data.name, data.fingerprint)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG\tn09", "line 1 of .*: no class 'n09'"),
        ("lost.JPEG\tn01443537", "line 1 of .*: no image .*lost"),
        ("../images/val_0.JPEG\tn01443537", "line 1 of .*: no image"),
        ("val_0.JPEG\tn01443537\nval_0.JPEG\tn01443537", "line 2 of .*: no image .*, or it has a line before"),
        ("val_0.JPEG\tn01443537", "has no line for 1 images of .*val_1.JPEG"),
    ],
)
def test_annotations__wrong(tmp_path, pictures, line, message):
    tiny_imagenet(tmp_path / "set", pictures[:2], WNIDS[:2])
    (tmp_path / "set" / "val" / "val_annotations.txt").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        load_data("folder:set")


@pytest.mark.parametrize("load", [load_data, load_stream])
def test_tiny_imagenet__another_tree_is_refused(tmp_path, pictures, load):
    tiny_imagenet(tmp_path / "few", pictures[:3], WNIDS[:3])
    tiny_imagenet(tmp_path / "other", pictures)
    (tmp_path / "other" / "wnids.txt").write_text("\n".join(("n09999999", *WNIDS[1:])))
    for name in ("few", "other"):
        with pytest.raises(InputError, match=f"{name} is not Tiny-ImageNet, .* Give other data as folder:{name}"):
            load(f"tiny_imagenet:{name}")


@pytest.mark.parametrize("load", [load_data, load_stream])
def test_name__of_a_known_set_is_not_taken_from_a_folder(tmp_path, small, load):
    """Else its constants, class names and published rows would be."""
    for split in ("train", "test"):
        write_image_folder(tmp_path / "fashion_mnist" / split, *small)
    data = load("folder:fashion_mnist")
    assert data.name == "folder:fashion_mnist" and data.class_names == ("class0", "class1", "class2", "class3")
    assert data.mean.tolist() != pytest.approx([0.2861])


def test_name__of_a_known_set_whose_images_are_resized_is_believed_by_its_numbers():
    sizes = (10, 60000, 10000)
    assert recognised("?", "idx:x/mnist", sizes, 32) == "mnist"
    assert recognised("?", "idx:x/mnist", sizes, None) == recognised("?", "idx:mnist", (10, 9, 9), 32) == "idx:mnist"
    assert recognised("?", "idx:x/fashion-mnist", sizes, 16) == "fashion_mnist"
    assert recognised("?", "hf:svhn", (10, 73257, 26032), None) == "svhn"
    assert recognised("ea358c2091367acc", "idx:x", (1, 1, 1), None) == "mnist"


def test_digits__are_those_that_scikit_learn_loads(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.cat([digits.train_images, digits.test_images])[:, 0].flatten(1).double() * (16 / 255)
    labels = torch.cat([digits.train_labels, digits.test_labels])
    ours = sorted((*own.round().int().tolist(), int(label)) for own, label in zip(images, labels, strict=True))
    assert ours == sorted((*map(int, own), int(label)) for own, label in zip(bunch.data, bunch.target, strict=True))
