"""Files of other authors' code are judged as what they are, or one sentence asks for what they leave open."""

import numpy as np
import pytest
import torch
from makers import png

from core_dd import cli
from core_dd.data.preprocess import Preprocess
from core_dd.errors import InputError
from core_dd.sets.distilled import DistilledSet, new_meta


@pytest.fixture
def some(digits):
    """Two digits of each class as (images on the 0..1 scale, labels)."""
    index = torch.cat([members[:2] for members in digits.class_indices()])
    return digits.train_images[index].float() / 255, digits.train_labels[index]


def normalised(images, data, kind="mean_std"):
    return Preprocess.fit(data, kind).forward(images)


def close(dset, some):
    images, labels = some
    return torch.allclose(dset.images, images, atol=1e-4) and torch.equal(dset.labels, labels)


def test_dc__the_last_set_normalised_by_the_data(digits, some, capsys):
    images, labels = some
    accuracies = {"ConvNet": [np.float64(0.5), np.float32(0.25)]}  # as the authors' code leaves them
    sets = [[torch.zeros(20, 1, 8, 8), labels], [normalised(images, digits), labels]]
    torch.save({"data": sets, "accs_all_exps": accuracies}, "res_DM_digits_ConvNet_2ipc.pt")
    dset = DistilledSet.load("res_DM_digits_ConvNet_2ipc.pt", digits)
    assert close(dset, some) and dset.preprocess.kind == "mean_std"
    said = capsys.readouterr().err
    assert "the last of its 2 sets" in said and "normalised by mean_std of digits" in said
    assert dset.meta["method"] == "res_DM_digits_ConvNet_2ipc"
    with pytest.raises(InputError, match="only with the real data can it be brought to pixels"):
        DistilledSet.load("res_DM_digits_ConvNet_2ipc.pt")
    torch.save({"data": sets}, "res_IDM_digits.pt")
    with pytest.raises(InputError, match="does not say how many tiles an image holds. Add --factor"):
        DistilledSet.load("res_IDM_digits.pt", digits)


def test_mtt__a_pair_whose_map_is_asked_for(digits, some, tmp_path):
    images, labels = some
    (tmp_path / "run").mkdir()
    torch.save(normalised(images, digits, "zca"), "run/images_best.pt")
    torch.save(labels, "run/labels_best.pt")
    for place in ("run", "run/images_best.pt"):
        with pytest.raises(InputError, match="by what its images are normalised. Add --normalised_by mean_std"):
            DistilledSet.load(place, digits)
        dset = DistilledSet.load(place, digits, normalised_by="zca")
        assert close(dset, some) and dset.preprocess.kind == "zca"
    (tmp_path / "run" / "labels_best.pt").unlink()
    with pytest.raises(InputError, match="holds images without labels. Put those beside"):
        DistilledSet.load("run", digits, normalised_by="zca")


def test_idc__pixels_whose_factor_is_asked_for(digits, some):
    torch.save(list(some), "data.pt")
    with pytest.raises(InputError, match="data.pt looks like IDC's data.pt, which does not say how many tiles"):
        DistilledSet.load("data.pt", digits)
    assert close(DistilledSet.load("data.pt", digits, factor=1), some)
    assert len(DistilledSet.load("data.pt", digits, factor=2).decoded()[0]) == 80


@pytest.mark.parametrize("name", ["res.pt", "res.PT", "res"])
def test_arrays_and_labels_of_any_type(digits, some, name):
    images, labels = some
    for own in (labels.numpy(), labels.float(), labels.byte(), labels.numpy().astype(">f8")):
        torch.save({"images": images.numpy(), "labels": own, "accs": {"x": [np.zeros((2, 3))]}}, name)
        assert close(DistilledSet.load(name, digits), some)
    torch.save({"images": np.array([open]), "labels": labels}, name)
    with pytest.raises(InputError, match="wants to run code"):
        DistilledSet.load(name, digits)


@pytest.mark.parametrize("form", ["{}", "{:05d}", "digit {}"])
def test_image_folder__by_the_names_or_numbers_of_classes(digits, some, tmp_path, form):
    images, labels = some
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = tmp_path / "set" / form.format(label)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(png((image[0] * 255).byte().numpy()))
    if form != "digit {}":
        dset = DistilledSet.load("set", digits)
        assert torch.equal(dset.images, (images * 255).byte()) and torch.equal(dset.labels, labels)
    else:
        with pytest.raises(InputError, match="has folders that are no classes of the data: digit 0, digit 1"):
            DistilledSet.load("set", digits)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"images": torch.ones(2, 1, 8, 8) * 255, "labels": torch.arange(2)},
            "values from 255 to 255 .* Divide by 255",
        ),
        ({"images": torch.randn(9, 1, 8, 8), "labels": torch.arange(9)}, "or say by what they are normalised"),
        ({"net": 1}, "holds no distilled set: a dict with net. Expected"),
        ({"data": [[1, 2]]}, "its last set is no pair of tensors"),
        (torch.zeros(2, 1, 8, 8), "holds images without labels"),
        (3, "holds no distilled set: no images"),
    ],
)
def test_what_is_none_of_these(digits, content, message):
    torch.save(content, "a.pt")
    with pytest.raises(InputError, match=message):
        DistilledSet.load("a.pt", digits)


def test_ours__on_the_scale_of_bytes_is_refused(digits, some):
    DistilledSet(some[0] * 255, some[1], new_meta(digits, method="x", ipc=2, seed=0)).save("a.safetensors")
    with pytest.raises(InputError, match="floating-point pixels from 0 to 255, expected the 0..1 scale"):
        DistilledSet.load("a.safetensors")


def test_ours__says_itself_how_it_is_stored(digits, some):
    DistilledSet(*some, new_meta(digits, method="x", ipc=2, seed=0)).save("a.safetensors")
    with pytest.raises(InputError, match="says itself how its images are stored"):
        DistilledSet.load("a.safetensors", digits, factor=2)


def test_pickle__only_numbers_of_numpy_are_let_in(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (exec, ("open('pwned', 'w')",))

    for content in ({"data": Hostile()}, [np.float64(1), Hostile()], {"f": np.load}):
        torch.save(content, "a.pt")
        with pytest.raises(InputError, match="wants to run code .* not loaded .it asks for") as error:
            DistilledSet.load("a.pt")
        assert "\x1b" not in str(error.value) and not (tmp_path / "pwned").exists()


def test_evaluate__of_a_pair_of_mtt(digits, some, capsys):
    torch.save(normalised(some[0], digits), "images_best.pt")
    torch.save(some[1], "labels_best.pt")
    command = "evaluate --data digits --protocol quick --network convnet1 --classifiers 1 --iterations 3 --device cpu"
    command = [*command.split(), "--out", "a.json", "--set", "images_best.pt"]
    assert cli.main(command) == 2 and "Add --normalised_by" in capsys.readouterr().err
    assert cli.main([*command, "--normalised_by", "mean_st"]) == 2
    assert "did you mean 'mean_std'" in capsys.readouterr().err
    assert cli.main([*command, "--normalised_by", "mean_std"]) == 0
