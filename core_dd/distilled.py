"""The file where the two tracks meet: a small labelled image set in pixel units, with everything a judge must know.

One safetensors file, or a folder of safetensors shards with an `index.json`; the metadata is JSON in the header.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from core_dd import files, readers
from core_dd.data import ImageData
from core_dd.errors import InputError, require
from core_dd.factor import check_factor, decode, sources
from core_dd.preprocess import Preprocess

SCHEMA = 1
"""Version of the file format."""


@dataclass
class DistilledSet:
    """A distilled (or sampled, or selected) image set.

    Attributes:
        images: (N, C, H, W), uint8, or float in pixel units on the 0..1 scale, not clamped.
        labels: int64 (N,), or float (N, K) for soft labels.
        meta: schema, data, fingerprint, class_names, ipc, preprocess, factor, decode, lr, method, config, seed, cost,
            versions.
        tensors: fitted tensors of the preprocessing, by name.
    """

    images: Tensor
    labels: Tensor
    meta: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def hard_labels(self) -> Tensor:
        """int64 (N,): the labels, or the arg max of soft ones."""
        return hardened(self.labels)

    @property
    def factor(self) -> int:
        """Every image holds factor x factor smaller ones."""
        return self.meta.get("factor", 1)

    @property
    def decode_kind(self) -> str:
        """Which tiles classifiers train on, see `core_dd.factor`: single or multi."""
        return self.meta.get("decode", "single")

    @property
    def preprocess(self) -> Preprocess | None:
        """The map the set was distilled in, or None when any will do (sampled and real images)."""
        meta = self.meta.get("preprocess")
        return None if meta is None else Preprocess.from_meta(meta, self.tensors)

    def save(self, path: str | Path) -> Path:
        """Check the set and write it atomically as one safetensors file.

        Raises:
            InputError: if the set is not sound, `path` exists, or the disk is full.
        """
        path = Path(path)
        self.check(where=str(path))
        require(not path.exists(), f"{path} exists. Choose another name or remove it first.")
        named = {"images": self.images, "labels": self.labels}
        named |= {f"preprocess.{name}": tensor for name, tensor in self.tensors.items()}
        write_tensors(path, named, self.meta)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "DistilledSet":
        """Read a set from a safetensors file, a folder of shards, or a `.pt` dict of images and labels.

        Raises:
            InputError: if the path is missing, truncated, corrupt, a pickle that would run code, or not sound.
        """
        path = Path(path)
        if path.is_dir():
            dset = cls._load_folder(path)
        elif path.suffix in (".pt", ".pth", ".pkl", ".pickle"):
            content = readers.load_tensors(path)
            require(
                isinstance(content, dict) and all(isinstance(content.get(key), Tensor) for key in ("images", "labels")),
                f"{path} holds no distilled set: expected a dict with tensors 'images' (0..1) and 'labels'.",
            )
            dset = cls(content["images"], content["labels"], {"schema": SCHEMA, "method": path.stem})
        else:
            tensors, meta = read_tensors(path)
            require(
                {"images", "labels"} <= tensors.keys(), f"{path} holds no distilled set: no images and labels in it."
            )
            fitted = {
                name.removeprefix("preprocess."): t for name, t in tensors.items() if name.startswith("preprocess.")
            }
            dset = cls(tensors["images"], tensors["labels"], meta, fitted)
        dset.check(where=str(path))
        return dset

    @classmethod
    def _load_folder(cls, folder: Path) -> "DistilledSet":
        index = folder / "index.json"
        if not index.is_file():
            nested = folder / "distilled.safetensors"
            require(nested.is_file(), f"{folder} holds no distilled set: neither index.json nor distilled.safetensors.")
            return cls.load(nested)
        listing = files.read_json(index)
        require(
            isinstance(listing, dict) and {"shards", "meta"} <= listing.keys(),
            f"{folder} holds no distilled set: its index.json lists no shards of images.",
        )
        require(bool(listing["shards"]), f"{folder} holds no finished shard. Sample into it first.")
        parts = [read_tensors(folder / shard["file"])[0] for shard in listing["shards"]]
        for part, shard in zip(parts, listing["shards"], strict=True):
            require(
                len(part["images"]) == shard["images"],
                f"{folder / shard['file']} has {len(part['images'])} images, its index says {shard['images']}.",
            )
        images, labels = (torch.cat([part[name] for part in parts]) for name in ("images", "labels"))
        return cls(images, labels, listing["meta"])

    def check(self, data: ImageData | None = None, where: str = "the distilled set") -> None:
        """Raise `InputError` unless the set is sound, and made from `data` where that is given."""
        images, labels, names = self.images, self.labels, self.meta.get("class_names")
        require(
            self.meta.get("schema", 0) <= SCHEMA,
            f"{where} was written by a newer version: schema {self.meta.get('schema')}.",
        )
        require(
            images.ndim == 4 and (images.dtype == torch.uint8 or images.is_floating_point()),
            f"{where} has images {images.dtype} of shape {tuple(images.shape)}, expected uint8 or float (N, C, H, W).",
        )
        require(len(images) > 0, f"{where} has no images.")
        check_factor(self.factor, *images.shape[-2:], self.decode_kind)
        hard = labels.ndim == 1 and labels.dtype in (torch.int64, torch.int32)
        soft = labels.ndim == 2 and labels.is_floating_point()
        require(
            (hard or soft) and len(labels) == len(images),
            f"{where} has labels {labels.dtype} of shape {tuple(labels.shape)} for {len(images)} images, "
            "expected int64 (N,) or float (N, K).",
        )
        require(
            bool(torch.isfinite(images).all()) and bool(torch.isfinite(labels).all()),
            f"{where} holds NaN or infinite values. Its run diverged; lower the learning rate and distil again.",
        )
        if data is not None:
            self._check_against(data, where)
            names = data.class_names
        if hard and names:
            low, high = int(labels.min()), int(labels.max())
            require(
                low >= 0 and high < len(names),
                f"{where} has labels from {low} to {high}, expected 0 to {len(names) - 1} ({len(names)} classes).",
            )
        elif soft and names:
            require(
                labels.shape[1] == len(names),
                f"{where} has soft labels over {labels.shape[1]} classes, expected {len(names)}.",
            )

    def _check_against(self, data: ImageData, where: str) -> None:
        made_from = self.meta.get("fingerprint")
        require(
            made_from in (None, data.fingerprint),
            f"{where} was made from {self.meta.get('data')} (fingerprint {made_from}), but the test data are "
            f"{data.name} (fingerprint {data.fingerprint}). Give the data the set was made from.",
        )
        require(
            tuple(self.images.shape[1:]) == data.shape,
            f"{where} has images of shape {tuple(self.images.shape[1:])}, but {data.name} has {data.shape}.",
        )

    def decoded(self) -> tuple[Tensor, Tensor]:
        """The images a classifier trains on: float (M, C, H, W) on the 0..1 scale, and their labels; M is N for factor
        1, see `core_dd.factor`."""
        images = self.images.float().div(255) if self.images.dtype == torch.uint8 else self.images.float()
        if self.factor == 1:
            return images, self.labels
        kind = self.factor, self.decode_kind
        return decode(images, *kind), self.labels[sources(len(images), *kind).to(self.labels.device)]

    def digest(self) -> str:
        """16 hex digits of the images and labels: the set's identity in scores."""
        total = hashlib.blake2b(digest_size=8)
        for tensor in (self.images, self.labels):
            total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.contiguous().cpu().numpy().tobytes())
        return total.hexdigest()


def hardened(labels: Tensor) -> Tensor:
    """int64 (N,): labels that are hard, or the arg max of soft ones (N, K)."""
    return labels if labels.ndim == 1 else labels.argmax(1)


def new_meta(
    data: ImageData,
    *,
    method: str,
    ipc: int | None,
    seed: int,
    config: Mapping[str, Any] | None = None,
    cost: Mapping[str, float] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The metadata of a set made from `data`; `ipc` is None where classes may differ in size, `more` is added as is."""
    return {
        "schema": SCHEMA,
        "data": data.name,
        "fingerprint": data.fingerprint,
        "class_names": list(data.class_names),
        "ipc": ipc,
        "preprocess": None if preprocess is None else dict(preprocess),
        "factor": 1,
        "decode": "single",
        "lr": None,
        "method": method,
        "config": dict(config or {}),
        "seed": seed,
        "cost": dict(cost or {}),
        "versions": versions(),
        **more,
    }


def versions() -> dict[str, str]:
    """The versions that decide a result."""
    packages = {}
    for name in ("gendd", "torch", "torchvision", "diffusers", "accelerate"):
        try:
            packages[name] = version(name)
        except ModuleNotFoundError:
            packages[name] = "not installed"
    return {"python": platform.python_version(), **packages}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata atomically as one safetensors file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.atomic(path) as temporary:
        save_file(plain, temporary, metadata={"gendd": json.dumps(meta)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (memory-mapped) and the metadata of a safetensors file.

    Raises:
        InputError: if the file is missing, truncated or not safetensors.
    """
    require(path.is_file(), f"no file at {path}. Expected a safetensors file.")
    try:
        with safe_open(path, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a mapping)
            header = content.metadata() or {}
        return tensors, json.loads(header.get("gendd", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"cannot read {path}: {error}. It is truncated or no safetensors file; make it again."
        ) from None
