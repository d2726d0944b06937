"""Every mistake of a user gets one clear message and exit status 2, before work starts and with nothing written."""

import gzip
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_disk
from makers import png, write_idx, write_image_folder, write_parquet
from PIL import Image
from safetensors.torch import load_file, save_file

from core_dd import cli
from core_dd.data.images import load_data
from core_dd.files import write_json
from core_dd.judge.networks import build_network
from core_dd.locks import own_file, own_folder
from core_dd.records import read as read_json
from core_dd.run import Run
from core_dd.sets.distilled import DistilledSet, new_meta
from gen_dd.options import TrainConfig
from gen_dd.uvit import UViT
from gen_dd.weights import CARD, WEIGHTS, save_model

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


def float_pixels(folder: Path) -> None:
    Image.fromarray(np.zeros((6, 6), np.float32)).save(folder / "train" / "class0" / "x.tif")


def promise(count: int, kind: int = 8) -> Callable[[Path], None]:
    """Another number of images in the header of the training images, of another type."""

    def change(folder: Path) -> None:
        path = folder / "train-images-idx3-ubyte.gz"
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(bytes([0, 0, kind, 3]) + count.to_bytes(4, "big") + content[8:]))

    return change


BYTES = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)


def tensors(images: torch.Tensor, labels: torch.Tensor) -> Callable[[Path], None]:
    """x.pt: a dataset of these, to train on and to test on."""
    content = {
        f"{kind}_{split}": t for split in ("train", "val") for kind, t in (("images", images), ("labels", labels))
    }
    return lambda folder: torch.save(content, folder / "x.pt")


def saved(content, name: str = "x.pt") -> Callable[[Path], None]:
    """A file of torch.save."""
    return lambda folder: torch.save(content, folder / name)


def arrays(folder: Path) -> None:
    """x.npz: one split."""
    np.savez(folder / "x.npz", images=IMAGES, labels=LABELS)


def corrupt_gzip(folder: Path) -> None:
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"not an idx file"))


def distilled(
    change: Callable[[DistilledSet], None] = lambda dset: None, spec: str = "digits"
) -> Callable[[Path], None]:
    """set.safetensors: two digits of each class, changed after the checks of `save`; or two of each of other data's."""

    def prepare(folder: Path) -> None:
        data = load_data(spec)
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


def bare(folder: Path) -> None:
    """A model without a card, of other classes."""
    UViT.from_preset("tiny", num_classes=20).save_pretrained(folder / "run")


def other_weights(folder: Path) -> None:
    """The weights of a wider network in place of the model's own."""
    save_model(UViT.from_preset("tiny", num_classes=10, image_size=16), folder / "wide", {})
    (folder / "wide" / WEIGHTS).replace(folder / WEIGHTS)


def no_dropout(folder: Path) -> None:
    """A model that never learnt without its labels."""
    card = read_json(folder / CARD)
    write_json(folder / CARD, card | {"train": {"data": "digits", "label_dropout": 0.0}})


def tuned(folder: Path) -> None:
    """A model that says that it is a consistency model."""
    write_json(folder / "config.json", read_json(folder / "config.json") | {"consistency": True})


def sampled(**identity) -> Callable[[Path], None]:
    """out: a folder that another sampling began."""

    def prepare(folder: Path) -> None:
        model()(folder)
        settings = {"steps": 10, "solver": "dpmpp_2m", "seed": 0, "cfg_scale": 0.0} | identity
        (folder / "out").mkdir()
        write_json(
            folder / "out" / "index.json", {"identity": settings, "meta": {"cost": {"seconds": 1}}, "shards": []}
        )

    return prepare


def overlapping(folder: Path) -> None:
    """A pool in which image 5 to 9 are twice."""
    sampled()(folder)
    for start in (0, 5):
        save_file({"x": torch.ones(1)}, folder / "out" / f"images-{start:08d}-{start + 10:08d}.safetensors")


def diverged(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file(state | {"norm.bias": torch.full((96,), torch.nan)}, folder / WEIGHTS)


def no_cost(folder: Path) -> None:
    """An index.json that another program might have written."""
    sampled()(folder)
    write_json(folder / "out" / "index.json", {"shards": []})


def started(preset: str) -> Callable[[Path], None]:
    """A training that was begun with another network."""
    return lambda folder: Run.open(TrainConfig(preset=preset, out=str(folder / "out"), tracker="none"), "x").close()


HELD = []
"""What tests hold as another process would."""


def in_use(prepare: Callable[[Path], None] = lambda folder: None, name: str = "out"):
    """A folder, or a file to be written, that another process has."""

    def held(place: Path) -> None:
        prepare(place)
        HELD.append(own_file(place / name) if Path(name).suffix else own_folder(place / name))
        HELD[-1].__enter__()

    return held


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


def experts(**changes) -> Callable[[Path], None]:
    """set/index.json and the file of one expert of the digits, but for what is changed."""
    index = {
        "data": "digits",
        "fingerprint": "a002f230981ce8ab",
        "training_digest": "cf852d39cc2aeb4c",
        "network": "convnet1",
        "preprocess": "mean_std",
        "epochs": 50,
        "files": ["expert-00000.safetensors"],
    } | changes

    def write(folder: Path) -> None:
        write_json(folder / "set" / "index.json", index)
        own = build_network("convnet1", (1, 8, 8), 10).state_dict()
        state = {name: torch.zeros(index["epochs"] + 1, *tensor.shape) for name, tensor in own.items()}
        save_file(state, folder / "set" / "expert-00000.safetensors")

    return write


def foreign(dset: DistilledSet) -> None:
    dset.meta |= {"data": "mnist", "fingerprint": "ea358c2091367acc"}


def foreign_factor(dset: DistilledSet) -> None:
    dset.meta["factor"] = 7


def foreign_decode(dset: DistilledSet) -> None:
    dset.meta |= {"factor": 2, "decode": "mulit"}


def bomb(key: str) -> str:
    """A billion values in ten lines."""
    names = "abcdefghij"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in itertools.pairwise(names)]
    return "\n".join([*lines, f"{key}: *j", ""])


CORESET = "coreset --ipc 1 --out out.safetensors --data "
DISTILL = "distill --method dm --iterations 2 --out out --tracker none "
M3D, DATADAM = (DISTILL.replace("dm", method) for method in ("m3d", "datadam"))
DC, IDC = (DISTILL.replace("dm", method) for method in ("dc", "idc --init real"))
MTT, EAD = (DISTILL.replace("dm", f"{method} --network convnet1") for method in ("mtt", "ead"))
EXPERTS = "experts --data digits --out out --tracker none --device cpu "
EVALUATE = "evaluate --data digits --protocol quick --out out.json --set "

TRAIN = "train --data digits --device cpu --iterations 2 --tracker none --out out "
SAMPLE = "sample --device cpu --model run --out out "
TRIED = {"steps": 2, "cfg_scale": 0.0, "filter": None}
PLAN = {
    "weights": "", "solver": "dpmpp_2m", "seed": 0, "budget": None, "seconds": 1.0, "chosen": TRIED,
    "trials": [TRIED | {"round": 1, "per_class": 1, "accuracy": 0.5}],
}  # fmt: skip
SUBMIT = "submit --data idx:set --set set.safetensors --out out "
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
    "several parquet datasets": Case(
        CORESET + "parquet:set",
        "set holds several datasets, in ., other. Name one: parquet:set/other",
        parquet(lambda folder: write_parquet(folder / "other", IMAGES, LABELS, "train")),
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
    "pixels that are floats": Case(
        CORESET + "folder:set", "floating-point numbers of no stated range", image_folder(IMAGES, LABELS, float_pixels)
    ),
    "image size that no memory holds": Case(CORESET + "digits --image_size 100000", "image_size must be <= 4096"),
    "images that no memory holds": Case(
        CORESET + "pt:x.pt --image_size 4096",
        "GiB, and this machine has",
        tensors(torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(10**7, 3, 1, 1), torch.zeros(10**7).long()),
    ),
    "labels that are no classes in a pt": Case(
        CORESET + "pt:x.pt", "labels from 0 to 1000000000", tensors(BYTES, torch.tensor([0, 10**9]))
    ),
    "labels that are floats in a pt": Case(CORESET + "pt:x.pt", "labels_train is", tensors(BYTES, torch.rand(2))),
    "images of five channels": Case(
        CORESET + "pt:x.pt",
        "expected uint8 (N, 1 or 3, H, W)",
        tensors(torch.zeros(2, 5, 8, 8).byte(), torch.arange(2)),
    ),
    "sparse images in a pt": Case(CORESET + "pt:x.pt", "images_train is", tensors(BYTES.to_sparse(), torch.arange(2))),
    "idx that promises more than it holds": Case(CORESET + "idx:set", "truncated or corrupt", idx(promise(100))),
    "idx that promises more than any memory": Case(
        CORESET + "idx:set", "what its header promises", idx(promise(2**31))
    ),
    "idx of floats": Case(CORESET + "idx:set", "3-d floats", idx(promise(20, kind=13))),
    "pipe as an image": Case(
        CORESET + "folder:set",
        "x.png is no regular file",
        image_folder(IMAGES, LABELS, lambda f: os.mkfifo(f / "train" / "class0" / "x.png")),
    ),
    "home of nobody": Case(CORESET + "folder:~nobody-of-this-name", "begins with ~ and no user is called so"),
    "name too long": Case(CORESET + "folder:" + "x" * 300, "File name too long"),
    "name of a set too long": Case(EVALUATE + "x" * 300, "File name too long"),
    "another tree as Tiny-ImageNet": Case(
        CORESET + "tiny_imagenet:set", "set is not Tiny-ImageNet", image_folder(IMAGES, LABELS)
    ),
    "hostile pickle as data": Case(CORESET + "pt:x.pt", "pickle that wants to run code", hostile),
    "unknown dataset": Case(CORESET + "digts", "unknown dataset 'digts'; did you mean 'digits'?"),
    "unknown data format": Case(CORESET + "ids:set", "unknown data format 'ids'; did you mean 'idx'?"),
    "ipc above the smallest class": Case(
        "coreset --data digits --ipc 141 --out out.safetensors",
        "digits has 140 training images of class 8 ('8'), ipc is 141",
    ),
    "ipc too large for k_center": Case(
        CORESET + "digits --selector k_center --ipc 141", "has 140 training images of class 8"
    ),
    "ipc too large for herding": Case(
        CORESET + "digits --selector herding --ipc 141", "has 140 training images of class 8"
    ),
    "ipc zero": Case("coreset --ipc 0 --out out.safetensors", "ipc must be >= 1, got 0"),
    "coreset exists": Case(CORESET + "digits", "out.safetensors exists", lambda f: (f / "out.safetensors").touch()),
    "unknown coreset": Case(CORESET + "digits --selector randm", "did you mean 'random'?"),
    "coreset by a protocol without a learning rate": Case(
        CORESET + "digits --selector herding --protocol mtt", "trains at a learning rate learnt with a distilled set"
    ),
    "coreset by a protocol that has a teacher": Case(
        CORESET + "digits --selector herding --protocol rd3", "trains by the labels of a teacher"
    ),
    "unknown method": Case("distill --method d", "unknown method 'd'; did you mean 'dm'?"),
    "distil ipc zero": Case(DISTILL + "--ipc 0", "ipc must be >= 1, got 0"),
    "distil ipc above the smallest class": Case(DISTILL + "--ipc 141", "ipc is 141"),
    "distil iterations zero": Case(DISTILL + "--iterations 0", "iterations must be >= 1, got 0"),
    "distil unknown network": Case(DISTILL + "--network convent3", "did you mean 'convnet3'?"),
    "distil image too small": Case(DISTILL + "--network convnet6", "too small for 6 poolings"),
    "distil folder exists": Case(
        DISTILL, "out exists. Choose another --out", lambda f: (f / "out" / "x").mkdir(parents=True)
    ),
    "distil unknown tracker": Case(DISTILL.replace("none", "tensorbord"), "did you mean 'tensorboard'?"),
    "distil infinite memory": Case(DISTILL + "--memory_gib inf", "memory_gib must be a finite number, got inf"),
    "distil infinite learning rate": Case(
        DISTILL + "--config a.yaml", "lr_img must be a finite number, got inf", yaml("lr_img: .inf\n")
    ),
    "compare nothing": Case("compare", "compare what? Give a file or a name, first: gendd compare demo"),
    "compare an unknown name": Case("compare dmo", "no config is called 'dmo'; did you mean 'demo'?"),
    "compare a missing file": Case("compare x.yaml", "no config file at x.yaml"),
    "compare data without a place": Case(
        "compare demo --data digits", "--data digits does not say where which data lie"
    ),
    "compare unknown data": Case("compare demo --data digit=mnist", "no data 'digit'; did you mean 'digits'?"),
    "compare unknown executor": Case("compare demo --executor slurmm", "unknown executor 'slurmm'"),
    "compare both at once": Case("compare demo --status --dry_run", "give --status or --dry_run, not both"),
    "compare no status": Case("compare demo --status", "no comparison has begun in runs/compare/demo"),
    "compare negative workers": Case("compare demo --workers -1", "workers must be >= 0, got -1"),
    "compare on another device": Case("compare demo --device tpu", "device must be cpu or cuda, got 'tpu'"),
    "compare an unknown key": Case(
        "compare a.yaml --workers 0",
        "a.yaml: unknown key 'producer'; did you mean 'producers'?",
        yaml("producer: {}\ndata: digits\nipc: 1\n"),
    ),
    "distil nothing to resume": Case(DISTILL + "--resume", "nothing to resume"),
    "distil unknown init": Case(DISTILL + "--init reel", "did you mean 'real'?"),
    "distil unknown augmentation": Case(DISTILL + "--augment colour", "unknown DSA operation 'colour'"),
    "distil unknown augment mode": Case(DISTILL + "--augment_mode X", "unknown augment_mode 'X'"),
    "distil unknown space": Case(DISTILL + "--space pixel", "did you mean 'pixels'?"),
    "distil factor zero": Case(DISTILL + "--factor 0", "factor must be >= 1, got 0"),
    "distil factor that does not fit": Case(DISTILL + "--factor 5", "factor 5 does not fit images of 8x8"),
    "distil unknown decode": Case(DISTILL + "--decode mulit", "unknown decode 'mulit'; did you mean 'multi'?"),
    "distil decode bound without a bound": Case(DISTILL + "--decode bound", "decode bound needs max_syn >= ipc 10"),
    "distil multi factor that does not fit": Case(
        DISTILL + "--decode multi --factor 8", "factor 5 does not fit images of 8x8"
    ),
    "distil max_syn zero": Case(DISTILL + "--max_syn 0", "max_syn must be >= 1, got 0"),
    "distil ipc too large for k_center": Case(DISTILL + "--init k_center --ipc 141", "ipc is 141"),
    "distil ipc too large for mix": Case(
        DISTILL + "--init mix --factor 2 --ipc 36", "takes ipc x factor^2 = 144 real images of every class"
    ),
    "dm negative moment": Case(DISTILL + "--third_moment -1", "third_moment must be >= 0, got -1.0"),
    "m3d unknown kernel": Case(M3D + "--kernel gausian", "unknown kernel 'gausian'; did you mean 'gaussian'?"),
    "m3d ipm zero": Case(M3D + "--ipm 0", "ipm must be >= 1, got 0"),
    "datadam unknown norm": Case(DATADAM + "--norm l3", "unknown norm 'l3'"),
    "datadam unknown loss": Case(DATADAM + "--attention mss", "unknown attention 'mss'; did you mean 'mse'?"),
    "datadam power below one": Case(DATADAM + "--p 0.5", "p must be >= 1, got 0.5"),
    "datadam negative weight": Case(DATADAM + "--mmd_weight -0.1", "mmd_weight must be >= 0, got -0.1"),
    "datadam scale zero": Case(DATADAM + "--scale 0", "scale must be > 0, got 0.0"),
    "datadam layer the network lacks": Case(DATADAM + "--layers 1_4", "layers '1_4' must be numbers from 1 to 3"),
    "datadam no layer": Case(DATADAM + "--network convnet1", "this network shows one"),
    "idm queue too short": Case(DISTILL + "--method idm --factor 1 --queue 3", "queue must be > 3, got 3"),
    "idm no steps": Case(DISTILL + "--method idm --factor 1 --train_steps 0", "train_steps must be >= 1, got 0"),
    "cafe too few steps": Case(DISTILL + "--method cafe --max_steps 9", "max_steps must be >= 10, got 9"),
    "dc unknown distance": Case(DC + "--distance cosine", "unknown distance 'cosine'; did you mean 'cos'?"),
    "dc no image step": Case(DC + "--outer 0", "outer must be >= 1, got 0"),
    "dc memory too small": Case(DC + "--memory_gib 0.0001", "memory_gib 0.0001 is too small"),
    "dsa learning rate zero": Case(DISTILL + "--method dsa --lr_net 0", "lr_net must be > 0, got 0.0"),
    "idc factor that does not fit": Case(IDC + "--factor 5", "factor 5 does not fit images of 8x8"),
    "idc cutmix above one": Case(IDC + "--cutmix 2", "cutmix must be in [0, 1], got 2.0"),
    "idc no real images": Case(IDC + "--real_net 0", "real_net must be >= 1, got 0"),
    "mtt no experts": Case(MTT, "give the folder of recorded experts: --experts FOLDER. Record some: gendd experts"),
    "mtt missing experts": Case(MTT + "--experts nowhere", "no experts at nowhere: there is no index.json"),
    "mtt experts of other data": Case(
        MTT + "--experts set", "set holds experts of mnist", experts(data="mnist", fingerprint="ea358c2091367acc")
    ),
    "mtt experts of other training images": Case(
        MTT + "--limit_per_class 12 --experts set", "set holds experts trained on other training images", experts()
    ),
    "mtt experts that do not say of which images": Case(
        MTT + "--experts set", "or by a version that did not note which. Record some", experts(training_digest=None)
    ),
    "mtt experts of another network": Case(
        MTT + "--experts set", "network convnet2, but the distillation has convnet1", experts(network="convnet2")
    ),
    "mtt experts of another space": Case(
        MTT + "--experts set", "preprocess zca, but the distillation has mean_std", experts(preprocess="zca")
    ),
    "mtt unfinished experts": Case(MTT + "--experts set", "set holds no finished expert yet", experts(files=[])),
    "mtt experts too short": Case(
        MTT + "--experts set", "need experts of 21 epochs; those in set have 3", experts(epochs=3)
    ),
    "mtt damaged index": Case(
        MTT + "--experts set", "index.json is not valid JSON", lambda f: (experts()(f), cut("index.json", 20)(f))
    ),
    "mtt foreign index": Case(
        MTT + "--experts set",
        "set/index.json: expected object, got array. It is not one of recorded experts",
        lambda f: write_json(f / "set/index.json", []),
    ),
    "mtt lost expert": Case(
        MTT + "--experts set",
        "cannot read set/expert-00001.safetensors",
        experts(files=["expert-00000.safetensors", "expert-00001.safetensors"]),
    ),
    "mtt damaged expert": Case(
        MTT + "--experts set",
        "cannot read set/expert-00000.safetensors",
        lambda f: (experts()(f), cut("expert-*", 100)(f)),
    ),
    "mtt expert of other epochs": Case(
        MTT + "--experts set",
        "expert-00000.safetensors is no trajectory of 50 epochs",
        lambda f: (experts()(f), save_file({"weight": torch.zeros(9, 2)}, f / "set" / "expert-00000.safetensors")),
    ),
    "mtt no steps": Case(MTT + "--syn_steps 0", "syn_steps must be >= 1, got 0"),
    "mtt batches by class": Case(MTT + "--max_syn 3", "set batch_syn, not max_syn"),
    "mtt bound by class": Case(MTT + "--decode bound", "leave out decode bound"),
    "ead no experts": Case(DISTILL + "--method ead", "give the folder of recorded experts"),
    "ead missing experts": Case(EAD + "--experts nowhere", "no experts at nowhere: there is no index.json"),
    "ead experts of other data": Case(
        EAD + "--experts set", "set holds experts of mnist", experts(data="mnist", fingerprint="ea358c2091367acc")
    ),
    "ead experts of another network": Case(
        EAD + "--experts set", "network convnet2, but the distillation has convnet1", experts(network="convnet2")
    ),
    "ead experts of another space": Case(
        EAD + "--experts set", "preprocess zca, but the distillation has mean_std", experts(preprocess="zca")
    ),
    "ead experts too short": Case(EAD + "--experts set", "at most the 3 epochs of the", experts(epochs=3)),
    "ead no epochs": Case(EAD + "--max_epoch 0", "max_epoch must be >= 1, got 0"),
    "ead unknown coefficient": Case(DISTILL + "--method ead --coefficient won", "did you mean 'one'?"),
    "ead probe above the batch": Case(DISTILL + "--method ead --batch_probe 99", "batch_probe must be from 1 to"),
    "experts none": Case(EXPERTS + "--experts 0", "experts must be >= 1, got 0"),
    "experts no epochs": Case(EXPERTS + "--epochs 0", "epochs must be >= 1, got 0"),
    "experts unknown network": Case(EXPERTS + "--network convent3", "did you mean 'convnet3'?"),
    "experts folder exists": Case(
        EXPERTS, "out exists. Choose another --out", lambda f: (f / "out" / "x").mkdir(parents=True)
    ),
    "experts nothing to resume": Case(EXPERTS + "--resume", "nothing to resume at out"),
    "set whose factor does not fit": Case(
        EVALUATE + "set.safetensors", "factor 7 does not fit images of 8x8", distilled(foreign_factor)
    ),
    "unknown yaml key": Case(
        "distill --config a.yaml", "a.yaml: unknown key 'ipcs'; did you mean 'ipc'?", yaml("ipcs: 3\n")
    ),
    "duplicate yaml key": Case("distill --config a.yaml", "duplicate key 'ipc'", yaml("ipc: 1\nipc: 2\n")),
    "wrong yaml type": Case("distill --config a.yaml", "'ipc' is 'ten', expected int", yaml("ipc: ten\n")),
    "yaml alias bomb": Case("distill --config a.yaml", "a.yaml is not valid YAML: an alias", yaml(bomb("ipc"))),
    "yaml alias bomb under an unknown key": Case("distill --config a.yaml", "an alias (*name)", yaml(bomb("x"))),
    "yaml unhashable key": Case("distill --config a.yaml", "a key that is no name", yaml("? [1, 2]\n: 3\n")),
    "yaml unhashable inner key": Case("distill --config a.yaml", "a key that is no name", yaml("ipc: {[1]: 2}\n")),
    "yaml date that is none": Case("distill --config a.yaml", "month must be in 1..12", yaml("ipc: 2020-99-99\n")),
    "yaml date": Case("distill --config a.yaml", "expected int", yaml("ipc: 2020-02-02\n")),
    "yaml endless number": Case("distill --config a.yaml", "not valid YAML", yaml("ipc: " + "9" * 5000)),
    "yaml endless text": Case("distill --config a.yaml", "xxx..., expected int", yaml("ipc: " + "x" * 5000)),
    "yaml nested deeply": Case("distill --config a.yaml", "nested deeper than 20", yaml("ipc: " + "[" * 2000)),
    "yaml wrong tag": Case("distill --config a.yaml", "not valid YAML", yaml("ipc: !!timestamp x\n")),
    "yaml placeholder": Case("distill --config a.yaml", "is no value; write out", yaml("ipc: ${oc.env:HOME}\n")),
    "yaml missing value": Case("distill --config a.yaml", "'???' is no value", yaml("ipc: ???\n")),
    "yaml of another encoding": Case(
        "distill --config a.yaml", "not valid YAML", lambda f: (f / "a.yaml").write_bytes(b"data: \xff\xfe\n")
    ),
    "missing yaml": Case("distill --config b.yaml", "no config file at b.yaml"),
    "unknown config": Case("distill --config dn", "no config is called 'dn'; did you mean 'dm'?"),
    "tuning judged by more steps than there are": Case(
        "tune --init_from run --eval_steps 10 --out out",
        "eval_steps: a consistency model draws in 1 to 8 steps, got 10",
    ),
    "tuning of nothing": Case("tune --data digits --out out", "tune what? Pass --init_from RUN"),
    "tuning at given times": Case(
        "tune --init_from run --time_sampling logit_normal --out out",
        "time_sampling and weighting belong to gendd train",
    ),
    "evaluating by the other kind of solver": Case(TRAIN + "--eval_solver consistency", "is the one of gendd tune"),
    "automatic steps of a consistency model": Case(
        "sample --model run --out pool --budget 20s --solver consistency --steps auto", "Pass --steps 2"
    ),
    "average of more than all": Case(
        DISTILL + "--method dm --average_last 2", "average_last must be in [0, 1], got 2.0"
    ),
    "steps per batch": Case(DISTILL + "--method m3d --steps_per_batch 0", "steps_per_batch must be >= 1, got 0"),
    "patience without validation": Case(DISTILL + "--method dm --patience 2", "Pass --val_fraction 0.1"),
    "validation at a learnt rate": Case(
        DISTILL + "--method dm --val_fraction 0.2 --val_protocol mtt", "dm learns none. Choose another, such as quick"
    ),
    "train negative weight decay": Case(TRAIN + "--weight_decay -0.1", "weight_decay must be >= 0, got -0.1"),
    "train betas of one": Case(TRAIN + "--betas 1 0.9", "betas must be in [0, 1), got (1.0, 0.9)"),
    "train betas of none": Case(TRAIN + "--betas nan 0.9", "betas must be in [0, 1), got (nan, 0.9)"),
    "train patches of nothing": Case(TRAIN + "--patch_size 0", "patch_size must be >= 1, got 0"),
    "config of another command": Case("train --config dm", "no config is called 'dm'"),
    "config for another pair": Case(
        "distill --config dm --data svhn --ipc 2", "dm.yaml has no settings for --data svhn"
    ),
    "config without a pair": Case("distill --config dm", "choose --data and --ipc among mnist (ipc 1, 10, 50), "),
    "config of a method for training": Case(
        "train --config matching/dm --data digits --ipc 10", "dm.yaml: unknown key 'method'"
    ),
    "settings that are none": Case(
        "distill --config a.yaml", "'settings' must be a list", yaml("settings: {ipc: 1}\n")
    ),
    "name of data of no settings": Case("train --config digits:mnist", "leave out ':mnist'"),
    "wrong flag type": Case("distill --ipc ten", "ten"),
    "unknown flag": Case("distill --ipcs 3", "--ipcs"),
    "unknown command": Case("distil", "unknown command 'distil'; did you mean 'distill'?"),
    "evaluate dry run without its Inception": Case(
        "evaluate --data digits --protocol quick --set real --dry_run --fidelity fid --inception_weights nowhere.pth",
        "no Inception weights at nowhere.pth",
    ),
    "missing set": Case(EVALUATE + "nowhere.safetensors", "nothing at nowhere.safetensors"),
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
    "unknown protocol": Case(EVALUATE + "set.safetensors --protocol dmm", "did you mean 'dm'?", distilled()),
    "scores exist": Case(
        EVALUATE + "set.safetensors", "out.json exists", lambda f: (distilled()(f), (f / "out.json").touch())
    ),
    "network too deep for its images": Case(
        EVALUATE + "set.safetensors --network mlp,vgg11", "images of 8x8 are too small for VGG11", distilled()
    ),
    "network of no package": Case(
        EVALUATE + "set.safetensors --network no_such_package:net",
        "cannot find network no_such_package:net",
        distilled(),
    ),
    "network unknown to timm": Case(
        EVALUATE + "set.safetensors --network timm:resnt18", "timm has no model 'resnt18'; did you mean", distilled()
    ),
    "networks with nothing between commas": Case(
        EVALUATE + "set.safetensors --network mlp,,lenet", "has an empty name between its commas", distilled()
    ),
    "network without layers": Case(
        "distill --method datadam --data digits --network mlp --ipc 1 --out out",
        "datadam needs a network that shows its activations: mlp has no activations",
    ),
    "runs zero": Case(EVALUATE + "set.safetensors --classifiers 0", "classifiers must be >= 1, got 0", distilled()),
    "best of test where the authors report their last": Case(
        EVALUATE.replace("quick", "dm --best_of_test") + "set.safetensors", "leave out best_of_test", distilled()
    ),
    "best of test of a set without checkpoints": Case(
        EVALUATE.replace("quick", "idm --best_of_test") + "set.safetensors", "has none but the set itself", distilled()
    ),
    "set of an unknown decode": Case(
        EVALUATE + "set.safetensors", "unknown decode 'mulit'; did you mean 'multi'?", distilled(foreign_decode)
    ),
    "report without scores": Case("report nowhere/scores.json --out out", "nowhere/scores.json"),
    "train steps zero": Case(TRAIN + "--iterations 0", "iterations must be >= 1, got 0"),
    "train batch zero": Case(TRAIN + "--batch_size 0", "batch_size must be >= 1, got 0"),
    "train unknown preset": Case(TRAIN + "--preset tny", "unknown preset 'tny'; did you mean 'tiny'?"),
    "train patch that does not tile": Case(TRAIN + "--patch_size 3", "image_size 8 is not a multiple of patch_size 3"),
    "train streaming of what is no folder": Case(
        TRAIN + "--stream True", "'digits' cannot be streamed. Only folder:PATH, "
    ),
    "train streaming of another format": Case(
        TRAIN + "--stream True --data idx:set", "unknown format that can be streamed 'idx'", idx()
    ),
    "train streaming of nothing": Case(TRAIN + "--stream True --data folder:nowhere", "no folder at nowhere"),
    "train streaming of a truncated image": Case(
        TRAIN + "--stream True --workers 1 --data folder:set",
        "cannot decode set/",
        image_folder(IMAGES, LABELS, cut("*.png", 50)),
    ),
    "train streaming of a truncated parquet file": Case(
        TRAIN + "--stream True --data parquet:set", "truncated or no parquet", parquet(cut("train-*"))
    ),
    "train negative workers": Case(TRAIN + "--workers -1", "workers must be >= 0, got -1"),
    "missing subset of ImageNet": Case(
        CORESET + "imagenette:nowhere", "imagenette:PATH wants nowhere/train/WNID/*.JPEG and nowhere/val"
    ),
    "subset of ImageNet that is another folder": Case(
        CORESET + "imagewoof:x",
        "x lacks its train or its val folder. imagewoof:PATH wants",
        lambda f: (f / "x").mkdir(),
    ),
    "missing Tiny-ImageNet": Case(CORESET + "tiny_imagenet:nowhere", "no folder at nowhere"),
    "train unknown optimizer": Case(TRAIN + "--optimizer moun", "unknown optimizer 'moun'; did you mean 'muon'?"),
    "train unknown time sampling": Case(TRAIN + "--time_sampling normal", "unknown time_sampling 'normal'"),
    "train unknown weighting": Case(TRAIN + "--weighting min_nsr", "did you mean 'min_snr'?"),
    "train anneal above one": Case(TRAIN + "--anneal 1.5", "anneal must be in [0, 1], got 1.5"),
    "train chunk of no time": Case(TRAIN + "--chunk_seconds 0", "chunk_seconds must be > 0, got 0.0"),
    "train label dropout above one": Case(TRAIN + "--label_dropout 1.5", "label_dropout must be in [0, 1), got 1.5"),
    "train dropout of everything": Case(TRAIN + "--dropout 1", "dropout must be in [0, 1), got 1.0"),
    "train augmentation above one": Case(TRAIN + "--augment 1.5", "augment must be in [0, 1], got 1.5"),
    "train negative supervision": Case(TRAIN + "--supervise -1", "supervise must be >= 0, got -1"),
    "train negative alignment": Case(TRAIN + "--align -1", "align must be >= 0, got -1"),
    "train growth without annealing": Case(TRAIN + "--growth 4", "Pass --anneal 0.5, too"),
    "train away from nothing": Case(TRAIN + "--neon pool", "Pass --init_from RUN, from which they were drawn"),
    "train away by no weight": Case(TRAIN + "--neon_weight 0", "neon_weight must be > 0, got 0"),
    "train folder exists": Case(
        TRAIN, "out exists. Choose another --out", lambda f: (f / "out" / "x").mkdir(parents=True)
    ),
    "train dry run into an existing folder": Case(
        TRAIN + "--dry_run", "out exists. Choose another --out", lambda f: (f / "out" / "x").mkdir(parents=True)
    ),
    "train dry run without its Inception": Case(
        TRAIN + "--dry_run --eval_every 5 --inception_weights nowhere.pth", "nowhere.pth"
    ),
    "train nothing to resume": Case(TRAIN + "--resume", "nothing to resume at out"),
    "checkpoint of another architecture": Case(
        TRAIN + "--resume", "was started with preset mini, now it is tiny", started("mini")
    ),
    "train no validation split for a ConvNet": Case(TRAIN + "--eval_ipc 5", "eval_ipc wants a validation split"),
    "train a ConvNet that nothing asks for": Case(
        TRAIN + "--eval_ipc 5 --val_fraction 0.1", "eval_ipc 5 is of evaluations, and there are none"
    ),
    "train dry run of a check that cannot see the images": Case(
        TRAIN + "--dry_run --check_images 5 --eval_network convnet6", "--eval_network convnet6, to check what is learnt"
    ),
    "train dry run that resumes another": Case(
        TRAIN + "--dry_run --resume", "was started with preset mini, now it is tiny", started("mini")
    ),
    "tune in too many stages": Case(
        TRAIN.replace("train", "tune") + "--init_from run --stages 17", "stages must be from 1 to 16, got 17"
    ),
    "train validation split of everything": Case(TRAIN + "--val_fraction 1", "val_fraction must be in [0, 1), got 1.0"),
    "train missing Inception weights": Case(
        TRAIN + "--eval_every 1 --inception_weights nowhere.pth", "no Inception weights at nowhere.pth"
    ),
    "train unknown evaluation network": Case(
        TRAIN + "--eval_every 1 --eval_network convent3", "did you mean 'convnet3'?"
    ),
    "train from missing weights": Case(TRAIN + "--init_from nowhere.pth", "no file at nowhere.pth"),
    "train from truncated weights": Case(
        TRAIN + "--init_from x.pt",
        "cannot read x.pt",
        lambda f: (torch.save({"x": torch.ones(99)}, f / "x.pt"), cut("x.pt", 500)(f)),
    ),
    "train with heads but no weights": Case(TRAIN + "--num_heads 4", "num_heads is of the network in init_from"),
    "train with heads of another model": Case(
        TRAIN + "--init_from run --num_heads 2", "run says num_heads 4, got 2", model()
    ),
    "train with no heads": Case(TRAIN + "--init_from x.pt --num_heads 0", "num_heads is of the network in init_from"),
    "train from what is no U-ViT": Case(
        TRAIN + "--init_from x.pt", "x.pt holds no U-ViT", lambda f: torch.save({"x": torch.ones(9)}, f / "x.pt")
    ),
    "train from a hostile pickle": Case(TRAIN + "--init_from x.pt", "pickle that wants to run code", hostile),
    "train from a folder without a model": Case(TRAIN + "--init_from .", "no model at ."),
    "train from a truncated model": Case(TRAIN + "--init_from run", "It is damaged", model(cut(WEIGHTS, 5000))),
    "missing model": Case(SAMPLE + "--num_per_class 1", "no model at run"),
    "model of another architecture": Case(SAMPLE + "--num_per_class 1", "another network's", model(other_weights)),
    "truncated model": Case(SAMPLE + "--num_per_class 1", "It is damaged", model(cut(WEIGHTS, 5000))),
    "sample budget zero": Case(SAMPLE + "--budget 0s", "budget must be > 0 and finite, got 0s"),
    "sample budget negative": Case(SAMPLE + "--budget=-5", "budget '-5' is not a time"),
    "sample budget in words": Case(SAMPLE + "--budget soon", "budget 'soon' is not a time. Write 20s, 10m, 1h"),
    "sample budget too short": Case(SAMPLE + "--budget 0.5s", "The minimum here is about", model()),
    "sample neither budget nor number": Case(SAMPLE, "Give a budget (--budget 20s), a number (--num_per_class 10)"),
    "sample number zero": Case(SAMPLE + "--num_per_class 0", "num_per_class must be >= 1, got 0"),
    "sample steps zero": Case(SAMPLE + "--num_per_class 1 --steps 0", "steps must be >= 1, got 0"),
    "sample steps in words": Case(SAMPLE + "--budget 9s --steps few", "steps must be a number or auto, got 'few'"),
    "sample auto steps without a budget": Case(
        SAMPLE + "--num_per_class 1 --steps auto", "steps auto fits the steps into a budget. Add --budget 10m"
    ),
    "sample batch zero": Case(SAMPLE + "--num_per_class 1 --batch 0", "batch must be >= 1, got 0"),
    "sample unknown solver": Case(SAMPLE + "--num_per_class 1 --solver dpmp_2m", "did you mean 'dpmpp_2m'?"),
    "sample guidance without a null class": Case(
        SAMPLE + "--num_per_class 1 --cfg_scale 0.4", "was trained with label_dropout 0", model(no_dropout)
    ),
    "sample negative guidance": Case(SAMPLE + "--num_per_class 1 --cfg_scale -1", "cfg_scale must be >= 0, got -1.0"),
    "sample guidance interval upside down": Case(
        SAMPLE + "--num_per_class 1 --cfg_interval 0.8 0.2", "cfg_interval must be 0 <= low < high <= 1, got 0.8 0.2"
    ),
    "sample guidance interval without guidance": Case(
        SAMPLE + "--num_per_class 1 --cfg_interval 0.2 0.8", "says when cfg_scale acts, and none is given. Pass --cfg"
    ),
    "sample guidance interval of a plan": Case(
        SAMPLE + "--budget 9s --plan auto --cfg_interval 0.2 0.8", "a plan chooses it for the whole course"
    ),
    "sample endless budget": Case(SAMPLE + f"--budget {'9' * 400}", "budget must be > 0 and finite, got 999"),
    "evaluate how to compare without comparing": Case(
        EVALUATE + "set.safetensors --fidelity_per_class", "nothing asks for that. Add --fidelity"
    ),
    "sample unknown guide": Case(
        SAMPLE + "--num_per_class 1 --guide mdg3", "unknown guide 'mdg3'; did you mean 'mgd3'?"
    ),
    "sample guide options without a guide": Case(SAMPLE + "--num_per_class 1 --guide_slots 5", "belong to a guide"),
    "sample guide of no slots": Case(
        SAMPLE + "--num_per_class 1 --guide coda --guide_slots 0", "guide_slots must be >= 1, got 0"
    ),
    "sample guide of negative weight": Case(
        SAMPLE + "--num_per_class 1 --guide coda --guide_scale -1", "guide_scale must be >= 0, got -1.0"
    ),
    "sample guide until after the end": Case(
        SAMPLE + "--num_per_class 1 --guide coda --guide_until 2", "guide_until must be in [0, 1], got 2.0"
    ),
    "sample guide with missing data": Case(
        SAMPLE + "--num_per_class 1 --guide mgd3 --guide_data idx:nowhere", "no folder at nowhere", model()
    ),
    "sample guide with other data": Case(
        SAMPLE + "--num_per_class 1 --guide mgd3 --guide_data idx:set",
        "the model was trained on digits, and idx:set is other data",
        lambda f: (model()(f), idx()(f)),
    ),
    "sample filter beyond one": Case(SAMPLE + "--num_per_class 1 --filter 1", "filter must be in [0, 1), got 1.0"),
    "sample filter's classifier without a filter": Case(
        SAMPLE + "--num_per_class 1 --filter_network convnet3", "belong to a filter. Pass --filter 0.05"
    ),
    "sample filter by a protocol with a teacher": Case(
        SAMPLE + "--num_per_class 1 --filter 0.1 --filter_protocol rded", "protocol rded takes a teacher", model()
    ),
    "sample filter of groups": Case(
        SAMPLE + "--num_per_class 10 --filter 0.1 --guide repulsion", "a filter replaces single images"
    ),
    "sample filter by an unknown network": Case(
        SAMPLE + "--num_per_class 1 --filter 0.1 --filter_network convent3", "did you mean 'convnet3'?", model()
    ),
    "compare a path with other braces": Case(
        "compare file.yaml --out out --dry_run",
        "the set runs/{method}/x.pt has braces around what is none of {data}, {ipc}, {seed}",
        lambda f: (f / "file.yaml").write_text("data: digits\nipc: 1\nproducers: {A: {set: 'runs/{method}/x.pt'}}\n"),
    ),
    "sample filter with other data": Case(
        SAMPLE + "--num_per_class 1 --filter 0.1 --guide_data idx:set",
        "the model was trained on digits, and idx:set is other data",
        lambda f: (model()(f), idx()(f)),
    ),
    "sample resumed without its filter": Case(
        SAMPLE + "--num_per_class 1 --resume", "was drawn with filter 0.1, now it is None", sampled(filter=0.1)
    ),
    "sample less variance": Case(SAMPLE + "--num_per_class 1 --expansion 0.5", "expansion must be >= 1"),
    "sample more variance of a consistency model": Case(
        SAMPLE + "--num_per_class 1 --steps 2 --solver consistency --expansion 1.1", "and solver consistency. Leave it"
    ),
    "sample more steps than a consistency model has": Case(
        SAMPLE + "--num_per_class 1 --steps 9 --solver consistency", "draws in 1 to 8 steps, got 9", model(tuned)
    ),
    "sample a consistency model by a diffusion solver": Case(
        SAMPLE + "--num_per_class 1", "which the solver dpmpp_2m cannot draw with", model(tuned)
    ),
    "sample a diffusion model as a consistency model": Case(
        SAMPLE + "--num_per_class 1 --steps 2 --solver consistency", "was not tuned into a consistency model", model()
    ),
    "sample a guide that would stay in the images": Case(
        SAMPLE + "--num_per_class 1 --steps 2 --solver consistency --guide coda",
        "the last of 2 steps of a consistency model, at time 0.53, gives the image itself, and this guide acts until",
    ),
    "sample plan by a filter of unknown length": Case(
        SAMPLE + "--budget 9s --plan auto --filter_protocol dm", "how long a filter's classifier takes by dm"
    ),
    "sample plan of no trials": Case(
        SAMPLE + "--num_per_class 1 --plan plan.json",
        "plan.json",
        lambda f: (model()(f), write_json(f / "plan.json", PLAN | {"trials": []})),
    ),
    "sample plan of no steps": Case(
        SAMPLE + "--num_per_class 1 --plan plan.json",
        "plan.json",
        lambda f: (model()(f), write_json(f / "plan.json", PLAN | {"chosen": TRIED | {"steps": 0}})),
    ),
    "sample plan without a budget": Case(SAMPLE + "--num_per_class 1 --plan auto", "plans for a budget. Add --budget"),
    "sample plan beside what it chooses": Case(SAMPLE + "--budget 9s --plan auto --cfg_scale 1", "and knows no guide"),
    "sample plan of no images": Case(SAMPLE + "--budget 9s --plan auto --plan_per_class 0", "plan_per_class must be"),
    "sample plan that is not there": Case(
        SAMPLE + "--num_per_class 1 --plan never.json", "cannot read never.json: No such file", model()
    ),
    "sample plan whose trials do not fit the budget": Case(
        SAMPLE + "--budget 30s --plan auto --plan_per_class 500 --plan_network convnet1_w8 --batch 20",
        "s or more, a smaller --plan_per_class or --plan_network, or steps, cfg_scale and filter by yourself",
        model(),
    ),
    "sample groups that do not divide the number": Case(
        SAMPLE + "--num_per_class 7 --guide repulsion", "num_per_class 7 is not a multiple of the groups of 10", model()
    ),
    "sample resumed from another seed": Case(
        SAMPLE + "--num_per_class 1 --resume", "was drawn with seed 7, now it is 0", sampled(seed=7)
    ),
    "sample resumed from other steps": Case(
        SAMPLE + "--num_per_class 1 --resume", "was drawn with steps 20, now it is 10", sampled(steps=20)
    ),
    "sample resumed from another solver": Case(
        SAMPLE + "--num_per_class 1 --resume", "was drawn with solver ddim, now it is dpmpp_2m", sampled(solver="ddim")
    ),
    "sample resumed from another guidance scale": Case(
        SAMPLE + "--num_per_class 1 --resume", "was drawn with cfg_scale 0.7, now it is 0.0", sampled(cfg_scale=0.7)
    ),
    "sample resumed from another guide": Case(
        SAMPLE + "--num_per_class 1 --resume", "was drawn with guide mgd3, now it is None", sampled(guide="mgd3")
    ),
    "sample resumed from another model": Case(
        SAMPLE + "--num_per_class 1 --resume", "was drawn with weights 0123", sampled(weights="0123")
    ),
    "sample resumed from an index that says nothing": Case(
        SAMPLE + "--num_per_class 1 --resume",
        "out/index.json: object missing required field identity. It does not say what was drawn",
        no_cost,
    ),
    "sample guided by data of other classes": Case(
        SAMPLE + "--num_per_class 1 --guide mgd3 --guide_data digits",
        "and digits is other data: 10 classes of 1x8x8 pixels, and the model draws 20 classes of 1x8x8 pixels",
        bare,
    ),
    "sample folder exists": Case(
        SAMPLE + "--num_per_class 1",
        "out exists. Choose another --out",
        lambda f: (f / "out" / "x").mkdir(parents=True),
    ),
    "sample resumed from a pool whose shards overlap": Case(
        SAMPLE + "--num_per_class 1 --resume", "holds images that another shard holds", overlapping
    ),
    "sample model of nan": Case(SAMPLE + "--num_per_class 1", "values that are not finite", model(diverged)),
    "challenge without models": Case("challenge run --out out", "which models? gendd challenge MODEL_CIFAR100"),
    "challenge without a place": Case("challenge run run", "where to? Pass --out FOLDER"),
    "challenge with a missing model": Case("challenge never run --out out", "no model at never", model()),
    "challenge with a model of other data": Case(
        "challenge run run --out out", "--cifar100 run: digits is no dataset of the challenge", model()
    ),
    "challenge with too few images": Case("challenge a b --out out --num_per_class 9", "num_per_class must be >= 10"),
    "challenge by one plan": Case("challenge a b --out out --plan plan.json", "the two models want plans of their own"),
    "challenge in no time": Case("challenge a b --out out --budget soon", "budget 'soon' is not a time"),
    "select into what is no set's file": Case(
        SELECT.replace("out.safetensors", "out.pt"), "and out.pt is called as other files are"
    ),
    "convert into what is no set's file": Case(
        "convert x.pt --out y.pt", "and y.pt is called as other files are", saved([BYTES, torch.arange(2)])
    ),
    "select missing pool": Case("select --pool nowhere --out out.safetensors", "nothing at nowhere"),
    "select ipc above the pool": Case(
        SELECT + "--ipc 3", "the pool has 2 images of class 0 ('0'), ipc is 3", distilled()
    ),
    "select unknown selector": Case(SELECT + "--selector herdin", "did you mean 'herding'?", distilled()),
    "select pool of another dataset": Case(SELECT + "--ipc 1", "was made from mnist", distilled(foreign)),
    "select pool of another code that leaves something open": Case(
        SELECT.replace("set.safetensors", "x.pt"),
        "how many tiles an image holds. Run gendd convert on it, with --factor 2 (1: none); then give what it writes",
        saved([BYTES, torch.arange(2)]),
    ),
    "info of another code's set that leaves something open": Case(
        "info x.pt",
        "Run gendd convert on it, with --data NAME, whose training images it was made from; then give",
        saved({"data": [[BYTES.float(), torch.arange(2)]]}),
    ),
    "export of another code's set that leaves something open": Case(
        "export x.pt --to dc --out o",
        "Run gendd convert on it, with --factor 2",
        saved([BYTES, torch.arange(2)]),
    ),
    "submit of data that is not the challenge's": Case(
        SUBMIT.replace("idx:set", "digits"), "digits is no dataset of the challenge", distilled()
    ),
    "submit of data that are only called so": Case(
        SUBMIT.replace("idx:set", "idx:cifar100"),
        "idx:cifar100 is no dataset of the challenge: by its content it is idx:cifar100, of 4 classes",
        lambda f: write_idx(f / "cifar100", (IMAGES, LABELS), (IMAGES, LABELS)),
    ),
    "submit to track 3": Case(SUBMIT + "--track 3", "track must be 1 or 2, got 3"),
    "submit scored by no steps": Case(SUBMIT + "--iterations 0", "iterations must be >= 1, got 0"),
    "coreset into a file": Case(
        CORESET.replace("out.safetensors", "file/x.safetensors") + "digits",
        "cannot write file: Not a directory. Choose another folder",
        lambda f: (f / "file").touch(),
    ),
    "distil into a file": Case(
        DISTILL.replace("--out out", "--out file/x"),
        "cannot write file/x: Not a directory",
        lambda f: (f / "file").touch(),
    ),
    "report of a pipe": Case("report pipe --out out", "no scores at pipe", lambda f: os.mkfifo(f / "pipe")),
    "report of a pipe in a folder": Case(
        "report . --out out", "scores.json: it is no regular file", lambda f: os.mkfifo(f / "scores.json")
    ),
    "report of a link to nothing": Case(
        "report link* --out out", "no scores at link", lambda f: (f / "link").symlink_to("nowhere")
    ),
    "report whose scores are no list": Case("report --config a.yaml", "'scores' is {'a': 1}", yaml("scores: {a: 1}")),
    "config with a character no path has": Case(
        "report x --config a.yaml", "is no value; write out", yaml(r'out: "a\0b"')
    ),
    "config of too long a name": Case("report x --config " + "x" * 300, "no config is called"),
    "report into too long a name": Case(
        "report scores --out " + "x" * 300, "cannot use " + "x" * 300 + ": File name too long"
    ),
    "report over a folder": Case(
        "report scores --out out",
        "out exists. Choose another --out or remove it first.",
        lambda f: (f / "out" / "x").mkdir(parents=True),
    ),
    "distil in use": Case(DISTILL + "--resume", "out is in use by process", in_use()),
    "experts in use": Case(EXPERTS + "--resume", "out is in use by process", in_use()),
    "train in use": Case(TRAIN + "--resume", "out is in use by process", in_use(started("tiny"))),
    "sample in use": Case(SAMPLE + "--num_per_class 1 --resume", "out is in use by process", in_use(model())),
    "coreset in use": Case(CORESET + "digits", "out.safetensors is in use by", in_use(name="out.safetensors")),
    "select in use": Case(
        SELECT + "--ipc 1 --selector random",
        "out.safetensors is in use by",
        in_use(distilled(), "out.safetensors"),
    ),
    "evaluate in use": Case(EVALUATE + "set.safetensors", "out.json is in use by", in_use(distilled(), "out.json")),
    "wrong data names the flag": Case(CORESET + "folder:nowhere", "--data folder:nowhere: no folder at nowhere"),
    "wrong data to train on names the flag": Case(TRAIN + "--data digts", "--data digts: unknown dataset 'digts'"),
    "wrong data of a guide names the flag": Case(
        SAMPLE + "--num_per_class 1 --guide mgd3 --guide_data digts", "--guide_data digts: unknown dataset", model()
    ),
    "output whose name is too long": Case(
        CORESET.replace("out.safetensors", "x" * 300) + "digits", "File name too long. Choose another folder"
    ),
    "output whose name is not UTF-8": Case(DISTILL.replace("out out", "out \udcff") + "--data digits", "in UTF-8"),
    "convert nothing": Case("convert", "convert what? Give a file or folder"),
    "convert to nowhere": Case("convert x.pt", "where to? Pass --out"),
    "convert from an unknown layout": Case("convert x.pt --from dcc --out o", "unknown layout 'dcc'; did you mean"),
    "convert from another layout": Case(
        "convert x.pt --from dc --out o", "It looks like IDC's data.pt", saved([BYTES, torch.arange(2)])
    ),
    "convert what is missing": Case("convert nowhere.pt --out o", "nothing at nowhere.pt"),
    "convert onto a file": Case(
        "convert x.pt --out o.safetensors", "o.safetensors exists", lambda f: (f / "o.safetensors").touch()
    ),
    "convert in use": Case(
        "convert x.pt --factor 1 --out o.safetensors",
        "o.safetensors is in use by",
        in_use(saved([BYTES, torch.arange(2)]), "o.safetensors"),
    ),
    "convert without the real data": Case(
        "convert x.pt --out o",
        "normalised by mean_std: only with the real data can it be brought to pixels. Add --data NAME",
        saved({"data": [[BYTES.float(), torch.arange(2)]]}),
    ),
    "convert of the wrong real data": Case(
        "convert x.pt --out o --data digits",
        "has images of shape (1, 6, 6), but digits has (1, 8, 8)",
        saved({"data": [[torch.zeros(2, 1, 6, 6), torch.arange(2)]]}),
    ),
    "convert in an order that is no file": Case(
        "convert x.pt --out o --class_order nowhere", "cannot read class_order nowhere", saved([BYTES, torch.arange(2)])
    ),
    "convert with a class named twice": Case(
        "convert x.pt --out o --class_order names",
        "names must name every class once",
        lambda f: (saved([BYTES, torch.arange(2)])(f), (f / "names").write_text("a\na\n")),
    ),
    "convert with classes of other data": Case(
        "convert x.pt --out o --factor 1 --data digits --class_order names",
        "no class of the data is called a, b; 0, 1, 2, 3, 4, ... is missing",
        lambda f: (saved([BYTES, torch.arange(2)])(f), (f / "names").write_text("a\nb\n")),
    ),
    "convert at no learning rate": Case("convert x.pt --out o --learned_lr 0", "learned_lr must be > 0, got 0.0"),
    "convert of unknown labels": Case("convert x.pt --out o --soft_labels logit", "did you mean 'logits'?"),
    "convert of ours, told what it says": Case(
        "convert set.safetensors --out o --factor 2", "says itself how its images are stored", distilled()
    ),
    "convert of a hostile pickle": Case("convert x.pt --out o", "pickle that wants to run code", hostile),
    "evaluate by a measure that is none": Case(
        EVALUATE + "set.safetensors --fidelity kid,fdi", "unknown measure 'fdi'; did you mean 'fid'?", distilled()
    ),
    "evaluate under an augmentation that is none": Case(
        EVALUATE + "set.safetensors --augment rand", "unknown augment 'rand'; did you mean 'randaugment'?", distilled()
    ),
    "evaluate by a teacher that a protocol has not": Case(
        EVALUATE + "set.safetensors --teacher x.pt",
        "protocol quick has no teacher. Leave out --teacher.",
        lambda f: (distilled()(f), saved(torch.zeros(1))(f)),
    ),
    "evaluate by a teacher that is not there": Case(
        EVALUATE.replace("quick", "rd3") + "set.safetensors --teacher x.pt",
        "no teacher at x.pt: expected a file of weights of a resnet18_bn",
        distilled(),
    ),
    "evaluate by a teacher that is a hostile pickle": Case(
        EVALUATE.replace("quick", "rd3") + "set.safetensors --iterations 1 --classifiers 1 --teacher x.pt",
        "pickle that wants to run code",
        lambda f: (distilled()(f), hostile(f)),
    ),
    "evaluate by ddranking with no score of the real images": Case(
        EVALUATE + "set.safetensors --ddranking_real none.json", "cannot read none.json", distilled()
    ),
    "evaluate by ddranking at a rate that random images have not": Case(
        EVALUATE.replace("quick", "mtt") + "set.safetensors --ddranking",
        "trains by the learning rate of the set. Choose another, such as dm",
        distilled(lambda dset: dset.meta.update(lr=0.01)),
    ),
    "evaluate by Inception without its weights": Case(
        EVALUATE + "set.safetensors --fidelity fid --inception_weights none",
        "fid, kid, is and prdc need the Inception network, but inception_weights is 'none'",
        distilled(),
    ),
    "evaluate a file that does not say its map": Case(
        EVALUATE + "images_best.pt",
        "Add --normalised_by mean_std or cifar10_mean_std or pixel_mean_std or zca or pixels",
        lambda f: (saved(BYTES.float(), "images_best.pt")(f), saved(torch.arange(2), "labels_best.pt")(f)),
    ),
    "evaluate at a learned rate that is missing": Case(
        EVALUATE.replace("quick", "mtt") + "images_best.pt --normalised_by mean_std",
        "this set has None. Give a set that MTT distilled (add --learned_lr if its file lacks it)",
        lambda f: (saved(torch.rand(10, 1, 8, 8), "images_best.pt")(f), saved(torch.arange(10), "labels_best.pt")(f)),
    ),
    "export nothing": Case("export", "export what? Give a set"),
    "export to no layout": Case("export set.safetensors --out o", "to which layout? Pass --to with one of beard, "),
    "export to nowhere": Case("export set.safetensors --to dc", "where to? Pass --out"),
    "export to a layout that nobody reads": Case(
        "export set.safetensors --to kip --out o", "unknown to 'kip'. Choose one of beard, challenge, "
    ),
    "export hard labels as logits": Case(
        "export set.safetensors --to datm --data digits --out o", "Export it --to mtt", distilled()
    ),
    "export in a map that pixels have not": Case(
        "export set.safetensors --to npz --normalised_by zca --out o.npz", "npz holds images in pixels", distilled()
    ),
    "data without a test split": Case(CORESET + "npz:x.npz", "x.npz has no test split. Say which part", arrays),
    "test fraction of data that are split": Case(CORESET + "idx:set --test_fraction 0.5", "without a test split 'idx'"),
    "test fraction of everything": Case(CORESET + "npz:x.npz --test_fraction 1", "test_fraction must be in [0, 1)"),
    "train streaming of what is not split": Case(
        TRAIN + "--stream True --data folder:set --test_fraction 0.5", "leave out test_fraction"
    ),
    "missing MHIST": Case(CORESET + "mhist:nowhere", "nowhere is not MHIST as it is unpacked"),
    "table without columns": Case(
        CORESET + "csv:t.csv", "expected one called file", lambda f: (f / "t.csv").write_text("a,b\n1,2\n")
    ),
    "info of nothing": Case("info", "info of what? Give a set, a run folder or data"),
    "missing device": Case(
        EVALUATE + "set.safetensors --device cuda:99", "device 'cuda:99' is not usable", distilled()
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_bad_input(case, tmp_path, capsys):
    case.prepare(tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    try:
        status = cli.main(case.argv.split())
    except SystemExit as stop:  # the parser's own way out
        status = stop.code
    text = capsys.readouterr()
    assert status == 2, text
    assert case.message in text.err
    assert "Traceback" not in text.err
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "something was written"


def test_full_disk__the_previous_checkpoint_survives(tmp_path, capsys):
    command = "train --data digits --device cpu --tracker none --batch_size 8 --checkpoint_every 1 --out out"
    command += " --grid_every 0 --check_images 0"
    assert cli.main([*command.split(), "--iterations", "1"]) == 0
    before = {
        path.name: path.read_bytes()
        for path in (tmp_path / "out" / "checkpoints" / "last").rglob("*")
        if path.is_file()
    }
    with small_disk():
        assert cli.main([*command.split(), "--iterations", "2", "--resume"]) == 2
    text = capsys.readouterr().err
    assert "error: cannot write out/checkpoints/step-000002" in text and "Traceback" not in text
    after = {
        path.name: path.read_bytes()
        for path in (tmp_path / "out" / "checkpoints" / "last").rglob("*")
        if path.is_file()
    }
    assert after == before and not list((tmp_path / "out" / "checkpoints").glob(".*"))
