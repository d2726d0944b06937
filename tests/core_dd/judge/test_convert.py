"""The commands that take sets in and out: what comes in is worth what it was, and what is lost is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core_dd import cli
from core_dd.data.preprocess import Preprocess
from core_dd.errors import InputError
from core_dd.judge.evaluate import evaluate
from core_dd.sets.distilled import DistilledSet, new_meta
from core_dd.sets.export import export
from core_dd.sets.formats.base import LeftOpen
from matching_dd import coreset, distill


@pytest.fixture
def datm(digits, tmp_path):
    """A folder as DATM leaves it: whitened images, logits, and a learned learning rate."""
    index = torch.cat([members[:2] for members in digits.class_indices()])
    images, labels = digits.train_images[index].float() / 255, digits.train_labels[index]
    folder = tmp_path / "datm"
    folder.mkdir()
    torch.save(Preprocess.fit(digits, "zca").forward(images) * 1.1, folder / "images_best.pt")
    torch.save(4 * torch.eye(10)[labels] + torch.randn(20, 10, generator=torch.Generator().manual_seed(0)),
               folder / "labels_best.pt")  # fmt: skip
    torch.save(torch.tensor(0.03), folder / "lr_best.pt")
    return folder


def gendd(command):
    return cli.main(command.split())


def score(dset, data, steps=6):
    return evaluate(dset, data, protocol="mtt", network="convnet1_w8", runs=2, seed=3, device="cpu", steps=steps)


def test_round_trip__the_score_to_the_digit_with_zca_soft_labels_and_learned_lr(digits, datm, tmp_path, capsys):
    memory = DistilledSet.load(datm, digits, normalised_by="zca")
    expected = score(memory, digits)
    assert expected.record["resolved_protocol"]["lr"] == pytest.approx(0.03)
    command = f"convert {datm} --data digits --normalised_by zca --out ours.safetensors --no_check_labels"
    assert gendd(command) == 0
    ours = DistilledSet.load("ours.safetensors")  # by itself: the real data are not needed any more
    assert ours.preprocess.kind == "zca" and ours.meta["lr"] == memory.meta["lr"] and ours.digest() == memory.digest()
    again = score(ours, digits)
    assert again.accuracies == expected.accuracies  # the very same computation, from the very same numbers
    assert again.record["curves"] == expected.record["curves"]


def test_evaluate__a_foreign_folder_directly(digits, datm, tmp_path):
    options = "--protocol mtt --network convnet1_w8 --classifiers 2 --seed 3 --iterations 6 --device cpu"
    assert gendd(f"evaluate --data digits {options} --set {datm} --normalised_by zca --out a.json") == 0
    assert gendd("report a.json --out report") == 0
    assert "20 images of 8 x 8 pixels" in (tmp_path / "report/report.html").read_text()  # its picture, not an excuse
    expected = score(DistilledSet.load(datm, digits, normalised_by="zca"), digits)
    assert json.loads((tmp_path / "a.json").read_text())["accuracies"] == expected.accuracies


@pytest.mark.parametrize("to", ["datm", "mtt", "ddranking"])
def test_export__and_in_again(digits, datm, tmp_path, capsys, to):
    """Through another code's files, where the space of the images is told again, nothing changes beyond rounding."""
    ours = DistilledSet.load(datm, digits, normalised_by="zca")
    ours.save(tmp_path / "ours.safetensors")
    capsys.readouterr()
    assert cli.main(["export", "ours.safetensors", "--to", to, "--out", "theirs"]) == 0
    assert "normalised by zca" in capsys.readouterr().err
    again = DistilledSet.load("theirs", digits, normalised_by="zca")
    assert torch.allclose(again.images, ours.images, atol=1e-4)
    assert torch.allclose(again.labels, ours.labels, atol=1e-5) and again.meta["lr"] == pytest.approx(0.03)


def test_ddranking__leaves_open_by_what_its_images_are_normalised(digits, tmp_path, capsys):
    """Nothing in the folder tells, and nothing is guessed; nor does it lack a learning rate."""
    ours = distill("dm", digits, 1, iterations=1, network="convnet1_w8", batch_real=8, compile=False, out="run")
    assert cli.main(["export", "run", "--to", "ddranking", "--out", "theirs", "--data", "digits"]) == 0
    with pytest.raises(LeftOpen, match="does not say by what its images are normalised"):
        DistilledSet.load("theirs", digits)
    capsys.readouterr()
    assert cli.main(["convert", "theirs", "--data=digits", "--normalised_by=mean_std", "--out=a.safetensors"]) == 0
    assert "learning rate" not in capsys.readouterr().err
    assert torch.allclose(DistilledSet.load("a.safetensors").images, ours.images, atol=1e-4)


def test_export__arrays_are_known_whatever_the_file_is_called(digits):
    coreset("random", digits, 1, seed=0).save(Path("ours.safetensors"))
    assert cli.main(["export", "ours.safetensors", "--to", "npz", "--out", "theirs"]) == 0
    assert len(DistilledSet.load("theirs", digits)) == 10


def test_image_folder__of_runs_is_none(digits):
    distill("dm", digits, 1, iterations=1, network="convnet1_w8", batch_real=8, compile=False, out="runs/mine")
    for data in (None, digits):
        with pytest.raises(InputError, match="runs has no folders of classes but of sets and runs: mine. Give one"):
            DistilledSet.load("runs", data)


def test_export__says_what_a_layout_has_no_place_for(digits, datm, tmp_path, capsys):
    ours = DistilledSet.load(datm, digits, normalised_by="zca")
    ours.meta |= {"factor": 2}
    ours.save(tmp_path / "ours.safetensors")
    capsys.readouterr()
    assert gendd("export ours.safetensors --to dc --out res_X.pt") == 2
    assert "dc holds images normalised by mean_std, and the set brings no such map" in capsys.readouterr().err
    assert gendd("export ours.safetensors --to dc --out res_X.pt --data digits") == 0
    said = capsys.readouterr().err
    for lost in ("the tiles are cut", "the learned learning rate 0.03", "soft labels: the largest is the class"):
        assert f"dc has no place for {lost}" in said
    assert "that it was distilled in zca" in said and "normalised by mean_std" in said
    images, labels = torch.load("res_X.pt", weights_only=True)["data"][0]
    assert len(images) == 80 and labels.dtype == torch.int64
    assert gendd("export ours.safetensors --to image_folder --out pngs") == 0
    said = capsys.readouterr().err
    assert "that it was distilled in zca" in said and "pixels finer than 8 bits" in said
    assert len(list((tmp_path / "pngs").rglob("*.png"))) == 80


@pytest.mark.parametrize("to", ["dc", "beard", "idm", "challenge", "datadam", "mtt", "datm", "ddranking"])
@pytest.mark.parametrize("kind", ["zca", "mean_std"])
def test_export__is_in_the_map_that_the_layouts_code_takes(digits, tmp_path, to, kind):
    """A whitened set too, where that code cannot be told of it; CIFAR-100 in CIFAR-10's constants where it does so."""
    coloured = {name: getattr(digits, name).expand(-1, 3, -1, -1) for name in ("train_images", "test_images")}
    facts = {"mean": torch.tensor([0.5, 0.4, 0.3]), "std": torch.tensor([0.2, 0.3, 0.4])}
    data = replace(digits, name="cifar100", **facts, **coloured)
    index = torch.cat([members[:2] for members in digits.class_indices()])
    images, labels = data.train_images[index].float() / 255, data.train_labels[index]
    space = Preprocess.fit(data, kind)
    meta, tensors = space.to_meta()
    dset = DistilledSet(images, torch.eye(10)[labels] if to == "datm" else labels, {"preprocess": meta}, tensors)
    of_cifar10 = to in ("mtt", "datm", "ddranking")
    expected = "cifar10_mean_std" if of_cifar10 else "mean_std"
    if kind == "zca" and (of_cifar10 or to == "datadam"):
        expected = kind
    place = export(dset, tmp_path / f"set{'.pkl' if to == 'idm' else '.pt'}", to, data)
    again = DistilledSet.load(place, data, layout=to, factor=1, normalised_by=expected)
    assert torch.allclose(again.images, images, atol=1e-4) and torch.equal(again.hard_labels, labels)


def test_export__a_map_that_nobody_knows(digits, tmp_path, capsys):
    index = torch.cat([members[:2] for members in digits.class_indices()])
    meta = new_meta(digits, method="random", ipc=2, seed=0)
    DistilledSet(digits.train_images[index], digits.train_labels[index], meta).save(tmp_path / "a.safetensors")
    assert gendd("export a.safetensors --to dc --out a.pt") == 2
    said = capsys.readouterr().err
    assert "dc holds images normalised by mean_std, and the set brings no such map. Add --data NAME" in said
    assert not (tmp_path / "a.pt").exists()
    assert gendd("export a.safetensors --to dc --out a.pt --data digits") == 0
    images, _ = torch.load("a.pt", weights_only=True)["data"][0]
    assert torch.equal(images, Preprocess.fit(digits).forward(digits.train_images[index]))


def test_convert__an_idc_file_without_data(digits, tmp_path, capsys):
    torch.save([torch.rand(20, 1, 8, 8), torch.arange(10).repeat_interleave(2)], "data.pt")
    assert gendd("convert data.pt --out a.safetensors") == 2
    assert "Add --factor 2" in capsys.readouterr().err
    assert gendd("convert data.pt --from idc --factor 2 --decode multi --out a.safetensors") == 0
    assert "20 images 1x8x8" in capsys.readouterr().out
    dset = DistilledSet.load("a.safetensors")
    assert (dset.factor, dset.decode_kind, dset.meta["ipc"]) == (2, "multi", 2)
    assert dset.meta["converted"] == {"from": "IDC's data.pt", "file": "data.pt", "normalised_by": "pixels"}


def test_convert__labels_in_another_order_are_said_loudly_and_mended(digits, tmp_path, capsys):
    index = torch.cat([members[:10] for members in digits.class_indices()])
    images, labels = digits.train_images[index].float() / 255, digits.train_labels[index]
    torch.save({"images": images, "labels": (labels + 3) % 10}, "a.pt")
    assert gendd("convert a.pt --data digits --device cpu --out a.safetensors") == 0
    said = capsys.readouterr().err
    assert "look PERMUTED" in said and "0 shows 7" in said and "--class_order FILE" in said
    (tmp_path / "order.txt").write_text("".join(f"{(k - 3) % 10}\n" for k in range(10)))
    command = "convert a.pt --data digits --device cpu --class_order order.txt --out b.safetensors"
    assert gendd(command) == 0 and "PERMUTED" not in capsys.readouterr().err
    assert torch.equal(DistilledSet.load("b.safetensors").labels, labels)


def test_load__ours_of_data_that_count_their_classes_otherwise(digits, tmp_path):
    """A converted set names its classes; with real data of the same classes in another order it is renumbered."""
    torch.save({"images": torch.rand(10, 1, 8, 8), "labels": torch.arange(10)}, "a.pt")
    assert gendd("convert a.pt --data digits --no_check_labels --out a.safetensors") == 0
    turned = replace(digits, class_names=digits.class_names[::-1])
    dset = DistilledSet.load("a.safetensors", turned)
    assert dset.labels.tolist() == list(range(10))[::-1] and dset.meta["class_names"] == list(turned.class_names)
    with pytest.raises(InputError, match="no class of the data is called|are not those of the data"):
        DistilledSet.load("a.safetensors", replace(digits, class_names=tuple("abcdefghij")))


def test_evaluate__near_chance_because_its_labels_are_permuted(digits, tmp_path, capsys):
    index = torch.cat([members[:10] for members in digits.class_indices()])
    torch.save({"images": digits.train_images[index], "labels": (digits.train_labels[index] + 3) % 10}, "a.pt")
    options = "--protocol quick --network convnet1_w16 --classifiers 1 --device cpu"
    assert gendd(f"evaluate --data digits {options} --set a.pt --out a.json") == 0
    said = capsys.readouterr().err
    assert "is below chance" in said and "look PERMUTED" in said
    found = json.loads((tmp_path / "a.json").read_text())["permuted"]
    assert found["as_labelled"] < 0.1 and found["renamed"] > 0.8 and found["to"] == [(k - 3) % 10 for k in range(10)]
