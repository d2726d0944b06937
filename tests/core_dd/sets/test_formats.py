"""Files of other authors' code are judged as what they are, or one sentence asks for what they leave open."""

import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from makers import png

from core_dd import cli
from core_dd.data.preprocess import Preprocess
from core_dd.errors import InputError
from core_dd.sets.distilled import DistilledSet, new_meta
from core_dd.sets.export import export
from core_dd.sets.formats import FORMATS, base, find, pickles


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
        if form == "{}":
            with pytest.raises(InputError, match="called by their names: those say the order. Leave out --class_order"):
                DistilledSet.load("set", digits, class_order=[str(k) for k in reversed(range(10))])
        assert torch.equal(dset.images, (images * 255).byte()) and torch.equal(dset.labels, labels)
    else:
        with pytest.raises(InputError, match="has folders that are no classes of the data: digit 0, digit 1"):
            DistilledSet.load("set", digits)


@pytest.mark.parametrize("form", ["dict", "npz", "huggingface"])
@pytest.mark.parametrize("classes", [10, 5])
def test_set_without_names__is_the_same_after_a_detour(digits, some, tmp_path, form, classes):
    """Its numbers are no names: neither refused where the data's classes are called otherwise, nor missing some."""
    index = some[1] < classes
    images, labels = some[0][index], some[1][index]
    place = tmp_path / f"set{WRITTEN.get(form, '.pt')}"
    export(DistilledSet(images, labels, {}), place, form)
    if form == "huggingface":
        (place / "distilled.safetensors").unlink()
    others = tuple(f"digit {k}" for k in range(10))
    for names in (digits.class_names, others)[: 1 if form == "huggingface" else 2]:  # parquet has names of its own
        found = DistilledSet.load(place, replace(digits, class_names=names))
        assert torch.equal(found.labels, labels)


def test_image_folder__of_data_is_no_set(some, tmp_path):
    for split in ("train", "test"):
        for label in (0, 1):
            place = tmp_path / "data" / split / f"c{label}"
            place.mkdir(parents=True)
            (place / "0.png").write_bytes(png((some[0][0][0] * 255).byte().numpy()))
    with pytest.raises(
        InputError, match=r"test and train: it is data, not a set. Write folder:\S+ for data or \S+test"
    ):
        DistilledSet.load(tmp_path / "data")
    assert len(DistilledSet.load(tmp_path / "data" / "train")) == 2
    (tmp_path / "data" / "other").mkdir()  # nor with anything beside
    with pytest.raises(InputError, match="it is data, not a set"):
        DistilledSet.load(tmp_path / "data")


NAMED = {"images": torch.zeros(2, 1, 8, 8), "labels": torch.arange(2)}


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
        (NAMED | {"class_names": 5}, "'class_names' that are 5, expected a list"),
        (NAMED | {"class_names": [["a"], "b"]}, "expected a list of the classes' names"),
        (NAMED | {"factor": float("inf")}, "a 'factor' that is a float, expected one value"),
        (NAMED | {"factor": 2.9}, "a 'factor' of 2.9, expected a whole number"),
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


def test_datm__logits_become_probabilities_and_the_learning_rate_comes_along(digits, some, tmp_path):
    images, labels = some
    learnt = torch.randn(20, 10, generator=torch.Generator().manual_seed(0)) + 5 * torch.eye(10)[labels]
    (tmp_path / "Normal").mkdir()
    torch.save(normalised(images, digits, "zca"), "Normal/images_best.pt")
    torch.save(learnt.clone().requires_grad_(), "Normal/labels_best.pt")
    torch.save(torch.tensor(0.025), "Normal/lr_best.pt")
    dset = DistilledSet.load("Normal", digits, normalised_by="zca")
    assert torch.equal(dset.labels, learnt.softmax(1)) and dset.meta["lr"] == pytest.approx(0.025)
    assert torch.allclose(dset.images, images, atol=1e-4) and dset.preprocess.kind == "zca"
    assert torch.equal(DistilledSet.load("Normal", digits, normalised_by="zca", soft_labels="classes").labels, labels)
    torch.save({"lr": 1}, "Normal/lr_best.pt")
    with pytest.raises(InputError, match="lr_best.pt holds no learning rate but a dict"):
        DistilledSet.load("Normal", digits, normalised_by="zca")


def test_mtt__what_lies_beside_says_that_it_is_whitened(digits, some, tmp_path, capsys):
    images, labels = some
    (tmp_path / "run").mkdir()
    torch.save(normalised(images, digits, "zca"), "run/images_5000.pt")
    torch.save(images, "run/images_zca_5000.pt")
    torch.save(torch.eye(10)[labels] * 0.9 + 0.01, "run/labels_5000.pt")  # as TESLA's: probabilities
    dset = DistilledSet.load("run", digits)
    assert dset.preprocess.kind == "zca" and torch.allclose(dset.images, images, atol=1e-4)
    assert torch.equal(dset.labels, torch.eye(10)[labels] * 0.9 + 0.01)
    assert "brings no learned learning rate" in capsys.readouterr().err
    assert DistilledSet.load("run", digits, learned_lr=0.03).meta["lr"] == 0.03
    with pytest.raises(InputError, match="pictures of whitened images, for the eye. Give run/images_5000.pt"):
        DistilledSet.load("run/images_zca_5000.pt", digits)
    torch.save(normalised(images, digits), "run/images_6000.pt")
    with pytest.raises(InputError, match="sets of 2 iterations: images_5000.pt, images_6000.pt. Give one"):
        DistilledSet.load("run", digits)


def test_datadam__may_be_whitened(digits, some):
    torch.save({"data": [[normalised(some[0], digits, "zca"), some[1]]]}, "res_DataDAM_digits_ConvNet_2ipc_.pt")
    with pytest.raises(InputError, match="DataDAM's code,? .*by what its images are normalised"):
        DistilledSet.load("res_DataDAM_digits_ConvNet_2ipc_.pt", digits)
    assert close(DistilledSet.load("res_DataDAM_digits_ConvNet_2ipc_.pt", digits, normalised_by="zca"), some)


def test_datadam__a_published_pair_is_asked_for_its_map(digits, some):
    torch.save({"data": [normalised(some[0], digits, "zca"), some[1]]}, "syn_data_digits_ipc_2.pt")
    with pytest.raises(InputError, match="a result of DataDAM's code, .*by what its images are normalised"):
        DistilledSet.load("syn_data_digits_ipc_2.pt", digits)
    assert close(DistilledSet.load("syn_data_digits_ipc_2.pt", digits, normalised_by="zca"), some)


def test_idm__cifar100_has_constants_of_its_own(digits, some):
    coloured = {name: getattr(digits, name).expand(-1, 3, -1, -1) for name in ("train_images", "test_images")}
    facts = {"mean": torch.tensor([0.5, 0.4, 0.3]), "std": torch.tensor([0.2, 0.3, 0.4])}
    data, images = replace(digits, name="cifar100", **facts, **coloured), some[0].expand(-1, 3, -1, -1)
    (Path("acc_0.5.pkl")).write_bytes(pickle.dumps((normalised(images, data), some[1])))
    assert close(DistilledSet.load("acc_0.5.pkl", data, factor=1), (images, some[1]))


def test_beard__reads_the_first_set(digits, some):
    sets = [[normalised(some[0], digits), some[1]], [torch.zeros(20, 1, 8, 8), some[1]]]
    torch.save({"data": sets, "accs_all_exps": {}}, "pool.pt")
    assert close(DistilledSet.load("pool.pt", digits, layout="beard"), some)
    assert not close(DistilledSet.load("pool.pt", digits), some)


def of_a_gpu(monkeypatch):
    """As on the machines of IDM's authors: storages that are pickled say that they were on one."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")


def test_idm__a_pickle_of_tensors_on_a_gpu(digits, some, tmp_path, monkeypatch):
    images, labels = some
    with monkeypatch.context() as patch:
        of_a_gpu(patch)
        content = pickle.dumps((normalised(images, digits).requires_grad_().detach(), labels))
    assert b"cuda:0" in content
    (tmp_path / "acc_0.58.pkl").write_bytes(content)
    with pytest.raises(InputError, match="a pickle of IDM's code, which does not say how many tiles"):
        DistilledSet.load("acc_0.58.pkl", digits)
    assert close(DistilledSet.load("acc_0.58.pkl", digits, factor=1), some)
    assert len(DistilledSet.load("acc_0.58.pkl", digits, factor=2).decoded()[0]) == 80


def test_pickles__arrays_and_numbers_of_any_protocol(some, tmp_path):
    images, labels = some
    content = {"images": images.numpy(), "labels": [labels.numpy(), np.float64(3)], "lr": 0.1, "order": ("a", 1)}
    for protocol in (2, 3, 4, 5):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
        again = pickles.load(tmp_path / "a.pkl")
        assert torch.equal(again["images"], images) and torch.equal(again["labels"][0], labels)
        assert again["labels"][1] == 3 and again["order"] == ("a", 1)


def test_pickles__what_one_sets_on_a_function_is_lost(tmp_path):
    """The BUILD opcode sets attributes on whatever is on the stack: here, a default of torch's own function."""
    name = b"ctorch._utils\n_rebuild_tensor_v2\n"
    state = pickle.dumps({"__defaults__": (1, 2, 3), "marked": 1}, 2)[2:-1]
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + name + b"N" + state + b"\x86b.")
    before = torch._utils._rebuild_tensor_v2.__defaults__
    pickles.load(tmp_path / "a.pkl")
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before
    assert not hasattr(torch._utils._rebuild_tensor_v2, "marked")


def test_challenge__labels_by_the_order(digits, some):
    torch.save(normalised(some[0], digits), "mine.pt")
    assert close(DistilledSet.load("mine.pt", digits, layout="challenge"), some)
    torch.save(normalised(some[0], digits)[:-1], "cifar100.pt")
    with pytest.raises(InputError, match="cifar100.pt holds 19 images, expected as many of each of 10 classes"):
        DistilledSet.load("cifar100.pt", digits)
    with pytest.raises(InputError, match="mine.pt holds one tensor without labels: of how many classes"):
        DistilledSet.load("mine.pt", layout="challenge")


def test_kip__channels_last_and_targets_of_a_regression(digits, some, capsys):
    images, labels = some
    np.savez("kip.npz", images=normalised(images, digits).permute(0, 2, 3, 1).numpy(), labels=np.eye(10)[labels] - 0.1)
    with pytest.raises(InputError, match="KIP's .npz, which does not say by what"):
        DistilledSet.load("kip.npz", digits)
    assert close(DistilledSet.load("kip.npz", digits, normalised_by="mean_std"), some)
    assert "labels are taken as classes" in capsys.readouterr().err


def test_kip__standardised_by_the_pixels_own_deviation_as_the_name_says(digits, some):
    """As nn_training.ipynb does it, whatever constants the data have."""
    images, labels = some
    data = replace(digits, mean=torch.tensor([0.5]), std=torch.tensor([0.25]))
    train = data.train_images.numpy()[:, 0, ..., None].astype(np.float64)  # 0..255, channels last
    stored = (images.permute(0, 2, 3, 1).numpy() * 255 - train.mean((0, 1, 2))) / train.std((0, 1, 2))
    name = "ConvNet_ssize20_nozca_nol_noaug_ckpt1000.npz"
    np.savez(name, images=stored, labels=np.eye(10)[labels] - 0.1)
    dset = DistilledSet.load(name, data)
    assert close(dset, some) and dset.preprocess.kind == "pixel_mean_std"
    assert torch.allclose(dset.preprocess.forward(dset.images), torch.from_numpy(stored).permute(0, 3, 1, 2).float())


@pytest.mark.parametrize(
    ("name", "told"), [("ConvNet_ssize20_zca_nol_noaug_ckpt1000.npz", {}), ("x.npz", {"normalised_by": "zca"})]
)
def test_kip__whitened_by_a_zca_that_has_no_way_back(digits, some, name, told):
    np.savez(name, images=some[0].permute(0, 2, 3, 1).numpy(), labels=np.eye(10)[some[1]] - 0.1)
    with pytest.raises(InputError, match="whitened as KIP does it: .* no way back to pixels. Take a file .* nozca"):
        DistilledSet.load(name, digits, **told)


def test_npz__all_that_is_known_travels(digits, some, tmp_path):
    images, labels = some
    soft = torch.eye(10)[labels] * 0.5 + 0.05
    described, tensors = Preprocess.fit(digits, "zca").to_meta()
    meta = new_meta(digits, method="x", ipc=2, seed=0, preprocess=described) | {
        "lr": 0.02,
        "factor": 2,
        "decode": "multi",
    }
    dset = DistilledSet(images, soft, meta, tensors)
    for to, name in (("npz", "a.npz"), ("dict", "a.pt")):
        again = DistilledSet.load(export(dset, tmp_path / name, to), digits)
        assert torch.equal(again.images, images) and torch.equal(again.labels, soft)
        assert {key: again.meta[key] for key in ("lr", "factor", "decode")} == {
            "lr": 0.02,
            "factor": 2,
            "decode": "multi",
        }
        assert torch.equal(again.preprocess.tensors["transform"], tensors["transform"])
        with pytest.raises(InputError, match="trained in zca: only with the real data"):
            DistilledSet.load(tmp_path / name)


def test_npz__of_objects_or_truncated(tmp_path, some):
    np.savez("a.npz", images=np.array([open], dtype=object), labels=np.zeros(1))
    with pytest.raises(InputError, match="cannot read a.npz"):
        DistilledSet.load("a.npz")
    np.savez("b.npz", images=some[0].numpy(), labels=some[1].numpy())
    content = (tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot read b.npz: .* truncated"):
        DistilledSet.load("b.npz")


def test_labels__that_are_no_probabilities_are_asked_for(digits, some):
    torch.save({"images": some[0], "labels": torch.randn(20, 10)}, "a.pt")
    with pytest.raises(
        InputError, match="that are no probabilities. Add --soft_labels probabilities or logits or classes"
    ):
        DistilledSet.load("a.pt", digits)
    with pytest.raises(InputError, match="negative, or of another sum than 1"):
        DistilledSet.load("a.pt", digits, soft_labels="probabilities")
    assert DistilledSet.load("a.pt", digits, soft_labels="logits").labels.sum() == pytest.approx(20)


def test_class_names__decide_the_order(digits, some, capsys):
    images, labels = some
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]  # the file's class 0 is the data's 3
    own = torch.tensor(order).argsort()[labels]
    torch.save({"images": images, "labels": own, "class_names": [str(k) for k in order]}, "a.pt")
    dset = DistilledSet.load("a.pt", digits)
    assert close(dset, some) and dset.meta["class_names"] == list(digits.class_names)
    assert "another order than digits; they are renumbered by their names" in capsys.readouterr().err
    torch.save({"images": images, "labels": torch.eye(10)[own]}, "b.pt")
    assert torch.equal(
        DistilledSet.load("b.pt", digits, class_order=[str(k) for k in order]).labels, torch.eye(10)[labels]
    )
    with pytest.raises(InputError, match="no class of the data is called ten; 7 is missing. Give the data"):
        DistilledSet.load("a.pt", digits, class_order=[*map(str, order[:-1]), "ten"])


def test_renamed__moves_columns_as_it_moves_numbers():
    own, names, labels = ("b", "c", "a"), ("a", "b", "c"), torch.tensor([0, 1, 2])
    hard = base.renamed(labels, own, names, "x")
    assert hard.tolist() == [1, 2, 0]
    assert torch.equal(base.renamed(torch.eye(3)[labels], own, names, "x").argmax(1), hard)


def test_find__another_layout_than_was_said(digits, some):
    torch.save(list(some), "data.pt")
    with pytest.raises(
        InputError, match="does not look like a result of DC's code.* It looks like IDC's .* --from idc"
    ):
        DistilledSet.load("data.pt", digits, layout="dc")
    with pytest.raises(InputError, match="unknown layout 'dcc'; did you mean 'dc'"):
        find("data.pt", digits, "dcc")
    torch.save({"net": 1}, "x.pt")
    with pytest.raises(
        InputError, match="x.pt does not look like a pair of MTT's code: images_best.pt and labels_best.pt.$"
    ):
        DistilledSet.load("x.pt", digits, layout="mtt")


# Files that no other code wrote: pickles that would run code, and halves.

WRITTEN = {"mtt": "", "datm": "", "ddranking": "", "image_folder": "", "huggingface": "", "npz": ".npz", "idm": ".pkl"}
"""The suffix of what each layout is written to, but for .pt."""


def written(name, digits, some, tmp_path):
    """A set in a layout; the files that a reader opens."""
    images, labels = some
    meta = new_meta(digits, method="x", ipc=2, seed=0) | {"lr": 0.02}
    dset = DistilledSet(images, torch.eye(10)[labels] * 0.5 + 0.05 if name == "datm" else labels, meta)
    place = export(dset, tmp_path / f"{name}_set{WRITTEN.get(name, '.pt')}", name, digits)
    if name == "huggingface":
        (place / "distilled.safetensors").unlink()  # as where somebody else made it
    return place, sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]


TOLD = {"factor": 1, "normalised_by": "mean_std"}


def told(name):
    """What a layout must be told."""
    pixels = FORMATS[name].normalised is None
    return {"layout": name} | ({"factor": 1} if pixels else TOLD)


@pytest.mark.parametrize("name", [name for name, own in FORMATS.items() if own.write is not None])
def test_layout__reads_what_it_writes(digits, some, tmp_path, name):
    place, _ = written(name, digits, some, tmp_path)
    dset = DistilledSet.load(place, digits, **told(name))
    assert torch.allclose(dset.images.float() / (255 if dset.images.dtype == torch.uint8 else 1), some[0], atol=3e-3)
    assert torch.equal(dset.hard_labels, some[1])


class Hostile:
    def __reduce__(self):
        return (exec, ("open('pwned', 'w')",))


@pytest.mark.parametrize("name", [name for name, own in FORMATS.items() if own.write is not None])
def test_layout__a_hostile_pickle_is_not_run(digits, some, tmp_path, name):
    """In place of each file of a layout, one by one: a pickle, and a file of torch.save."""
    place, files = written(name, digits, some, tmp_path)
    saved = io.BytesIO()
    torch.save({"data": [[Hostile(), Hostile()]]}, saved)
    for file in files:
        whole = file.read_bytes()
        for content in (pickle.dumps((Hostile(), Hostile())), saved.getvalue()):
            file.write_bytes(content)
            if file.suffix not in (".md", ".png") or name == "image_folder":
                with pytest.raises(InputError):
                    DistilledSet.load(place, digits, **told(name))
            assert not (tmp_path / "pwned").exists()
        file.write_bytes(whole)


@pytest.mark.parametrize("name", [name for name, own in FORMATS.items() if own.write is not None])
def test_layout__truncated(digits, some, tmp_path, name):
    place, files = written(name, digits, some, tmp_path)
    for file in files:
        if file.suffix != ".md" and file.name != "grid.png":
            whole = file.read_bytes()
            file.write_bytes(whole[: len(whole) // 2])
            with pytest.raises(InputError, match="truncated|damaged|corrupt"):
                DistilledSet.load(place, digits, **told(name))
            file.write_bytes(whole)


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


def test_manual__lists_every_layout():
    from commands import ROOT

    text = (ROOT / "docs/file-format.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `") and line.count("|") == 6]
    listed = {row[1].strip(" `"): (row[4].strip(), row[5].strip()) for row in rows}
    assert listed == {name: ("yes", "yes" if own.write else "-") for name, own in FORMATS.items()}
    assert all(own.source.removesuffix("/tree/master/kip") in text for own in FORMATS.values() if "://" in own.source)
