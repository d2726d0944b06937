"""Every mistake of a user gets one clear message and exit status 2, before work starts and with nothing written."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from makers import png, write_idx, write_image_folder, write_parquet
from safetensors.torch import save_file

from core_dd import cli
from core_dd.data import load_data
from core_dd.distilled import DistilledSet, new_meta
from core_dd.run import Run
from gen_dd.train import TrainConfig
from gen_dd.uvit import UViT
from gen_dd.weights import WEIGHTS, save_model

IMAGES = np.arange(20 * 36, dtype=np.uint8).reshape(20, 6, 6)
LABELS = np.arange(20, dtype=np.uint8) % 4


@dataclass(frozen=True)
class Case:
    """A command line, what must stand in its message, and what it finds on the disk."""

    argv: str
    message: str
    prepare: Callable[[Path], None] = lambda folder: None


def idx(change: Callable[[Path], None] = lambda folder: None, labels=LABELS) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        write_idx(folder / "set", (IMAGES, labels), (IMAGES, LABELS))
        change(folder / "set")

    return prepare


def cut(name: str, keep: int = 60) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = next(folder.rglob(name))
        path.write_bytes(path.read_bytes()[:keep])

    return change


def parquet(change: Callable[[Path], None] = lambda folder: None) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for split in ("train", "test"):
            write_parquet(folder / "set", IMAGES, LABELS, split)
        change(folder / "set")

    return prepare


def broken_cell(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    cells = [{"bytes": png(IMAGES[0])[:40], "path": None}]
    pyarrow.parquet.write_table(pyarrow.table({"img": cells, "label": [0]}), folder / "train-00000-of-00001.parquet")


def image_folder(images, labels, change: Callable[[Path], None] = lambda folder: None) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for split in ("train", "test"):
            write_image_folder(folder / "set" / split, images, labels)
        change(folder / "set")

    return prepare


def corrupt_gzip(folder: Path) -> None:
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"not an idx file"))


def distilled(change: Callable[[DistilledSet], None] = lambda dset: None) -> Callable[[Path], None]:
    """set.safetensors: two digits of each class, changed after the checks of `save`."""

    def prepare(folder: Path) -> None:
        data = load_data("digits")
        index = torch.cat([members[:2] for members in data.class_indices()])
        meta = new_meta(data, method="random", ipc=2, seed=0)
        dset = DistilledSet(data.train_images[index], data.train_labels[index], meta)
        change(dset)
        dset.check = lambda **_: None
        dset.save(folder / "set.safetensors")

    return prepare


def model(change: Callable[[Path], None] = lambda folder: None) -> Callable[[Path], None]:
    """run/model: an untrained tiny U-ViT."""

    def prepare(folder: Path) -> None:
        card = {"data": "digits", "fingerprint": load_data("digits").fingerprint, "class_names": list("0123456789")}
        save_model(UViT.from_preset("tiny", num_classes=10), folder / "run" / "model", card)
        change(folder / "run" / "model")

    return prepare


def other_weights(folder: Path) -> None:
    """The weights of a wider network in place of the model's own."""
    save_model(UViT.from_preset("tiny", num_classes=10, image_size=16), folder / "wide", {})
    (folder / "wide" / WEIGHTS).replace(folder / WEIGHTS)


def started(preset: str) -> Callable[[Path], None]:
    """A training that was begun with another network."""
    return lambda folder: Run.open(folder / "out", "x", TrainConfig(preset=preset), tracker="none").close()


def yaml(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "a.yaml").write_text(text)


def hostile(folder: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return (open, (str(folder / "pwned"), "w"))

    torch.save({"images": Hostile(), "images_train": Hostile()}, folder / "x.pt")


def change(**values) -> Callable[[DistilledSet], None]:
    def apply(dset: DistilledSet) -> None:
        for name, value in values.items():
            setattr(dset, name, value)

    return apply


def foreign(dset: DistilledSet) -> None:
    dset.meta |= {"data": "mnist", "fingerprint": "ea358c2091367acc"}


CORESET = "coreset --ipc 1 --out out.safetensors --data "
DISTILL = "distill --method dm --iterations 2 --out out --tracker none "
EVALUATE = "evaluate --data digits --protocol quick --out out.json --set "

TRAIN = "train --data digits --device cpu --steps 2 --tracker none --out out "
SAMPLE = "sample --device cpu --model run --out out "
SELECT = "select --data digits --pool set.safetensors --out out.safetensors "

CASES = {
    "missing idx folder": Case(CORESET + "idx:nowhere", "no folder at nowhere"),
    "missing idx file": Case(
        CORESET + "idx:set", "no t10k-labels-idx1-ubyte", idx(lambda f: (f / "t10k-labels-idx1-ubyte.gz").unlink())
    ),
    "truncated idx": Case(CORESET + "idx:set", "truncated or corrupt", idx(cut("train-images*"))),
    "corrupt idx": Case(CORESET + "idx:set", "is no IDX file", idx(corrupt_gzip)),
    "empty class": Case(
        CORESET + "idx:set", "class 1 ('1') of idx:set has no training image", idx(labels=LABELS // 3 * 3)
    ),
    "labels out of range": Case(
        CORESET + "idx:set", "test labels from 0 to 3, expected 0 to 1", idx(labels=LABELS % 2)
    ),
    "missing parquet folder": Case(CORESET + "parquet:nowhere", "no such folder: nowhere"),
    "folder without parquet": Case(
        CORESET + "parquet:set", "but not both train-*.parquet and test-*.parquet", lambda f: (f / "set").mkdir()
    ),
    "truncated parquet": Case(CORESET + "parquet:set", "truncated or no parquet file", parquet(cut("train-*"))),
    "corrupt image": Case(CORESET + "parquet:set", "cannot decode row 0 of set/train", parquet(broken_cell)),
    "missing image folder": Case(CORESET + "folder:nowhere", "no folder at nowhere"),
    "image folder without test": Case(
        CORESET + "folder:set", "has no train and test folders", lambda f: (f / "set" / "train").mkdir(parents=True)
    ),
    "truncated image": Case(
        CORESET + "folder:set", "cannot decode set/", image_folder(IMAGES, LABELS, cut("*.png", 50))
    ),
    "mixed image sizes": Case(
        CORESET + "folder:set", "images differ in size", image_folder([IMAGES[0], np.zeros((8, 8), np.uint8)], [0, 1])
    ),
    "hostile pickle as data": Case(CORESET + "pt:x.pt", "pickle that wants to run code", hostile),
    "unknown dataset": Case(CORESET + "digts", "unknown dataset 'digts'; did you mean 'digits'?"),
    "unknown data format": Case(CORESET + "ids:set", "unknown data format 'ids'; did you mean 'idx'?"),
    "ipc above the smallest class": Case(
        "coreset --data digits --ipc 141 --out out.safetensors", "has 140 training images, ipc is 141"
    ),
    "ipc zero": Case("coreset --ipc 0 --out out.safetensors", "ipc must be >= 1, got 0"),
    "coreset exists": Case(CORESET + "digits", "out.safetensors exists", lambda f: (f / "out.safetensors").touch()),
    "unknown coreset": Case(CORESET + "digits --name randm", "did you mean 'random'?"),
    "unknown method": Case("distill --method d", "unknown method 'd'; did you mean 'dm'?"),
    "distil ipc zero": Case(DISTILL + "--ipc 0", "ipc must be >= 1, got 0"),
    "distil ipc above the smallest class": Case(DISTILL + "--ipc 141", "ipc is 141"),
    "distil iterations zero": Case(DISTILL + "--iterations 0", "iterations must be >= 1, got 0"),
    "distil unknown network": Case(DISTILL + "--network convent3", "did you mean 'convnet3'?"),
    "distil image too small": Case(DISTILL + "--network convnet6", "too small for 6 poolings"),
    "distil folder exists": Case(
        DISTILL, "out exists. Choose another --out", lambda f: (f / "out" / "x").mkdir(parents=True)
    ),
    "distil nothing to resume": Case(DISTILL + "--resume", "nothing to resume"),
    "distil unknown init": Case(DISTILL + "--init reel", "did you mean 'real'?"),
    "distil unknown augmentation": Case(DISTILL + "--augment colour", "unknown DSA operation 'colour'"),
    "unknown yaml key": Case(
        "distill --config a.yaml", "a.yaml: unknown key 'ipcs'; did you mean 'ipc'?", yaml("ipcs: 3\n")
    ),
    "duplicate yaml key": Case("distill --config a.yaml", "duplicate key 'ipc'", yaml("ipc: 1\nipc: 2\n")),
    "wrong yaml type": Case("distill --config a.yaml", "'ipc' is 'ten', expected int", yaml("ipc: ten\n")),
    "missing yaml": Case("distill --config b.yaml", "no config file at b.yaml"),
    "wrong flag type": Case("distill --ipc ten", "ten"),
    "unknown flag": Case("distill --ipcs 3", "--ipcs"),
    "unknown command": Case("distil", "unknown command 'distil'; did you mean 'distill'?"),
    "missing set": Case(EVALUATE + "nowhere.safetensors", "no file at nowhere.safetensors"),
    "truncated set": Case(
        EVALUATE + "set.safetensors",
        "truncated or no safetensors file",
        lambda f: (distilled()(f), cut("set.safetensors", 500)(f)),
    ),
    "garbage set": Case(
        EVALUATE + "set.safetensors",
        "truncated or no safetensors",
        lambda f: (f / "set.safetensors").write_bytes(b"x" * 99),
    ),
    "tensors that are no set": Case(
        EVALUATE + "a.safetensors",
        "no images and labels in it",
        lambda f: save_file({"x": torch.ones(1)}, f / "a.safetensors"),
    ),
    "hostile pickle as set": Case(EVALUATE + "x.pt", "pickle that wants to run code", hostile),
    "nan in images": Case(
        EVALUATE + "set.safetensors", "NaN or infinite", distilled(change(images=torch.full((20, 1, 8, 8), torch.nan)))
    ),
    "inf in images": Case(
        EVALUATE + "set.safetensors", "NaN or infinite", distilled(change(images=torch.full((20, 1, 8, 8), torch.inf)))
    ),
    "set labels out of range": Case(
        EVALUATE + "set.safetensors",
        "labels from 10 to 10, expected 0 to 9",
        distilled(change(labels=torch.full((20,), 10))),
    ),
    "wrong channels": Case(
        EVALUATE + "set.safetensors",
        "(3, 8, 8), but digits has (1, 8, 8)",
        distilled(change(images=torch.zeros(20, 3, 8, 8))),
    ),
    "set of another dataset": Case(EVALUATE + "set.safetensors", "was made from mnist", distilled(foreign)),
    "unknown protocol": Case(EVALUATE + "set.safetensors --protocol md", "did you mean 'dm'?", distilled()),
    "scores exist": Case(
        EVALUATE + "set.safetensors", "out.json exists", lambda f: (distilled()(f), (f / "out.json").touch())
    ),
    "runs zero": Case(EVALUATE + "set.safetensors --runs 0", "runs must be >= 1, got 0", distilled()),
    "report without scores": Case("report nowhere/scores.json --out out", "nowhere/scores.json"),
    "train steps zero": Case(TRAIN + "--steps 0", "steps must be >= 1, got 0"),
    "train batch zero": Case(TRAIN + "--batch_size 0", "batch_size must be >= 1, got 0"),
    "train unknown preset": Case(TRAIN + "--preset tny", "unknown preset 'tny'; did you mean 'tiny'?"),
    "train patch that does not tile": Case(TRAIN + "--patch_size 3", "image_size 8 is not a multiple of patch_size 3"),
    "train label dropout above one": Case(TRAIN + "--label_dropout 1.5", "label_dropout must be in [0, 1), got 1.5"),
    "train folder exists": Case(
        TRAIN, "out exists. Choose another --out", lambda f: (f / "out" / "x").mkdir(parents=True)
    ),
    "train nothing to resume": Case(TRAIN + "--resume", "nothing to resume at out"),
    "checkpoint of another architecture": Case(
        TRAIN + "--resume", "was started with preset mini, now it is tiny", started("mini")
    ),
    "missing model": Case(SAMPLE + "--num_per_class 1", "no model at run"),
    "model of another architecture": Case(SAMPLE + "--num_per_class 1", "another network's", model(other_weights)),
    "truncated model": Case(SAMPLE + "--num_per_class 1", "It is damaged", model(cut(WEIGHTS, 5000))),
    "sample budget zero": Case(SAMPLE + "--budget 0s", "budget must be > 0, got 0s"),
    "sample budget negative": Case(SAMPLE + "--budget=-5", "budget '-5' is not a time"),
    "sample budget in words": Case(SAMPLE + "--budget soon", "budget 'soon' is not a time. Write 20s, 10m, 1h"),
    "sample budget too short": Case(SAMPLE + "--budget 0.5s", "The minimum here is about", model()),
    "sample neither budget nor number": Case(SAMPLE, "give either a budget (--budget 20s) or a number"),
    "sample number zero": Case(SAMPLE + "--num_per_class 0", "num_per_class must be >= 1, got 0"),
    "sample steps zero": Case(SAMPLE + "--num_per_class 1 --steps 0", "steps must be >= 1, got 0"),
    "sample unknown solver": Case(SAMPLE + "--num_per_class 1 --solver dpmp_2m", "did you mean 'dpmpp_2m'?"),
    "sample folder exists": Case(
        SAMPLE + "--num_per_class 1",
        "out exists. Choose another --out",
        lambda f: (f / "out" / "x").mkdir(parents=True),
    ),
    "select missing pool": Case("select --pool nowhere --out out.safetensors", "no file at nowhere"),
    "select ipc above the pool": Case(
        SELECT + "--ipc 3", "the pool has 2 images of class 0 ('0'), ipc is 3", distilled()
    ),
    "select unknown selector": Case(SELECT + "--selector herdin", "did you mean 'herding'?", distilled()),
    "select pool of another dataset": Case(SELECT + "--ipc 1", "was made from mnist", distilled(foreign)),
    "missing device": Case(
        EVALUATE + "set.safetensors --device cuda:99", "device 'cuda:99' is not usable", distilled()
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_bad_input(case, tmp_path, capsys):
    case.prepare(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    try:
        status = cli.main(case.argv.split())
    except SystemExit as stop:  # the parser's own way out
        status = stop.code
    text = capsys.readouterr()
    assert status == 2, text
    assert case.message in text.err
    assert "Traceback" not in text.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "something was written"


def test_full_disk__the_previous_checkpoint_survives(tmp_path, capsys, small_disk_later):
    command = (
        "train --data digits --device cpu --tracker none --batch_size 8 --grid_every 0 --checkpoint_every 1 --out out"
    )
    assert cli.main([*command.split(), "--steps", "1"]) == 0
    before = {
        path.name: path.read_bytes()
        for path in (tmp_path / "out" / "checkpoints" / "last").rglob("*")
        if path.is_file()
    }
    small_disk_later()
    assert cli.main([*command.split(), "--steps", "2", "--resume"]) == 2
    text = capsys.readouterr().err
    assert "error: cannot write out/checkpoints/step-000002" in text and "Traceback" not in text
    after = {
        path.name: path.read_bytes()
        for path in (tmp_path / "out" / "checkpoints" / "last").rglob("*")
        if path.is_file()
    }
    assert after == before and not list((tmp_path / "out" / "checkpoints").glob(".*"))
