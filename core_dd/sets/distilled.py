"""The file where the two tracks meet: a small labelled image set in pixel units, with everything a judge must know.

One safetensors file, or a folder of safetensors shards with an `index.json`; the metadata is JSON in the header.
"""

import base64
import hashlib
import html
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NotRequired, Required, TypedDict

import torch
from msgspec import Meta
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from core_dd import files, records
from core_dd.data import readers
from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess, fractions
from core_dd.errors import InputError, needed, require
from core_dd.rng import stream
from core_dd.sets.factor import check_factor, decode, sources
from core_dd.sets.labels import are_probabilities, hardened
from core_dd.sets.learnt import Learnt
from core_dd.sets.shards import INDEX, read_index

SCHEMA = 1
"""Version of the file format."""

NESTED = "distilled.safetensors"
"""The set in a run folder."""

_IMAGE_DTYPES = (torch.uint8, torch.float32, torch.float64)
_LABEL_DTYPES = {1: (torch.int64, torch.int32), 2: (torch.float32, torch.float64)}
"""By the number of dimensions: hard and soft labels."""

_SHOWN = 10
"""Classes, and images of each, that a notebook shows."""

_MOST_CLASSES = 10**6
"""Labels of a set that does not name its classes are below this: so many are counted."""


class _PreprocessMeta(TypedDict, total=False):
    """How a set names its map."""

    kind: Required[str]


class Cost(TypedDict):
    """What making a set took."""

    iterations: NotRequired[Annotated[int, Meta(ge=0)]]
    seconds: Annotated[float, Meta(ge=0)]
    """All of them; where a validation chose the set, until the run ended, of which `iterations` led to the set."""
    stepping: NotRequired[Annotated[float, Meta(ge=0)]]
    """The part of the seconds that a time limit counts."""
    validating: NotRequired[Annotated[float, Meta(ge=0)]]
    """The part of the seconds that validation took."""


class Spent(TypedDict):
    """Of the metadata of a set, what a run that goes on needs."""

    cost: Cost


class _SetMeta(TypedDict, total=False):
    """The metadata of a set; any of it may be missing, and more may stand there."""

    schema: Annotated[int, Meta(ge=0)]
    data: str | None
    fingerprint: str | None
    class_names: list[str] | None
    ipc: Annotated[int, Meta(ge=1)] | None
    preprocess: _PreprocessMeta | None
    factor: Annotated[int, Meta(ge=1)]
    decode: str
    lr: float | None
    method: str | None
    config: dict[str, Any] | None
    seed: int | None
    cost: dict[str, float] | None
    learnt: Learnt | None
    versions: dict[str, str] | None


@dataclass(repr=False)
class DistilledSet(Dataset[tuple[Tensor, Tensor]]):
    """A distilled (or sampled, or selected) image set.

    As a `torch.utils.data.Dataset` it has the stored images, N of them, each float32 (C, H, W) on the 0..1 scale, with
    its label: int64 of no dimension, or float (K,). What classifiers train on, tiles cut and enlarged, come from
    `loader` and `decoded`. Tensors in bf16 or fp16 become float32, and gradients are left behind, as soon as the set is
    made.

    Attributes:
        images: (N, C, H, W), uint8, or float in pixel units on the 0..1 scale, not clamped.
        labels: int64 (N,), or float (N, K) for soft labels.
        meta: schema, data, fingerprint, class_names, ipc, preprocess, factor, decode, lr, method, config, seed, cost,
            learnt, versions.
        tensors: fitted tensors of the preprocessing, by name.

    Examples:
        >>> from core_dd import load_data
        >>> data = load_data("digits")
        >>> meta = new_meta(data, method="mine", ipc=None, seed=0)
        >>> dset = DistilledSet(data.train_images[:20], data.train_labels[:20], meta)
        >>> len(dset), dset.images.dtype, dset.meta["data"]
        (20, torch.uint8, 'digits')
        >>> place = dset.save("ten.safetensors")
        >>> DistilledSet.load(place).images.equal(dset.images)
        True
    """

    images: Tensor
    labels: Tensor
    meta: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.images, self.labels = _plain(self.images), _plain(self.labels)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        label = self.labels[index]
        return fractions(self.images[index]).float(), label.float() if label.is_floating_point() else label.long()

    def loader(
        self, batch_size: int = 256, *, shuffle: bool = True, seed: int = 0, normalised: bool = False, **options: Any
    ) -> DataLoader:
        """Batches of what classifiers train on: decoded images, float32 (B, C, H, W), and labels, (B,) or (B, K).

        Args:
            batch_size, options: for `torch.utils.data.DataLoader`.
            shuffle: a new order each pass, which `seed` decides.
            normalised: images in the space the set was distilled in instead of pixels on the 0..1 scale.

        Raises:
            InputError: if they shall be normalised and the set brings no map.
        """
        images, labels = self.decoded()
        if normalised:
            own = needed(
                self.preprocess,
                "the set brings no map: images in pixels suit any. Normalise by Preprocess.fit(data).forward(images).",
            )
            images = own.forward(images)
        content = TensorDataset(images, labels)
        return DataLoader(content, batch_size, shuffle=shuffle, generator=stream(seed, "loader"), **options)

    def to_folder(self, path: str | Path) -> Path:
        """Write the decoded images as PNG files, `PATH/CLASS/00000.png`, rounded to 8 bits.

        Raises:
            InputError: if the path is taken or cannot be written.
        """
        from core_dd.sets.export import export

        return export(self, path, "image_folder")

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, api: Any = None
    ) -> str:
        """Make or renew a dataset repository on the Hugging Face Hub: parquet, card, picture, and our own file.

        Args:
            repo_id: NAMESPACE/NAME.
            private: of a repository that is made; None: as the account has it.
            token: of the account; None: the one that `hf auth login` left.
            api: a `huggingface_hub.HfApi` to use instead of a new one.

        Returns:
            The repository's address.

        Raises:
            InputError: if the Hub refuses, or cannot be reached.
        """
        from core_dd.sets.export import upload

        return upload(self, repo_id, private=private, token=token, api=api)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        kind = f"soft labels over {self.labels.shape[1]}" if self.labels.ndim == 2 else "hard labels"
        facts = [f"{len(self)} images {shape} {str(self.images.dtype).removeprefix('torch.')}", kind]
        facts += [f"{name} {self.meta[name]}" for name in ("method", "data", "ipc", "lr") if self.meta.get(name)]
        facts += [f"distilled in {self.meta['preprocess']['kind']}"] if self.meta.get("preprocess") else []
        facts += [f"factor {self.factor}"] if self.factor > 1 else []
        return f"DistilledSet({', '.join(facts)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the first images of the first classes, if they make a picture, and a line of facts."""
        from core_dd.sets import pictures

        if self.images.shape[1] not in (1, 3):
            return html.escape(repr(self))
        classes = self.hard_labels.unique().tolist()[:_SHOWN]
        image = pictures.png(pictures.grid(self.images, self.labels, _SHOWN, classes=classes))
        source = f"data:image/png;base64,{base64.b64encode(image).decode()}"
        return f'<figure><img src="{source}"><figcaption>{html.escape(repr(self))}</figcaption></figure>'

    @property
    def hard_labels(self) -> Tensor:
        """int64 (N,): the labels, or the arg max of soft ones."""
        return hardened(self.labels)

    @property
    def class_names(self) -> list[str]:
        """Of its classes: as it names them, else their numbers."""
        classes = self.labels.shape[1] if self.labels.ndim == 2 else int(self.labels.max()) + 1
        return self.meta.get("class_names") or [str(k) for k in range(classes)]

    @property
    def factor(self) -> int:
        """Every image holds factor x factor smaller ones."""
        return self.meta.get("factor", 1)

    @property
    def trained_as(self) -> dict[str, Any]:
        """What, beside images and labels, decides what classifiers make of it: tiles, learning rate and map."""
        kind = None if self.preprocess is None else self.preprocess.kind
        return {"factor": self.factor, "decode": self.decode_kind, "lr": self.meta.get("lr"), "preprocess": kind}

    @property
    def decode_kind(self) -> str:
        """Which tiles classifiers train on, see `core_dd.sets.factor`: single or multi."""
        return self.meta.get("decode", "single")

    @property
    def preprocess(self) -> Preprocess | None:
        """The map the set was distilled in, or None when any will do (sampled and real images)."""
        meta = self.meta.get("preprocess")
        return None if meta is None else Preprocess.from_meta(meta, self.tensors)

    def save(self, path: str | Path) -> Path:
        """Check the set and write it atomically as one safetensors file.

        Raises:
            InputError: if the set is not sound, `path` exists or is called as other files are, or the disk is full.
        """
        require_place(Path(path))
        return self.write(Path(path))

    def write(self, path: Path) -> Path:
        """As `save`, whatever is called so or stands there.

        Raises:
            InputError: if the set is not sound, or the disk is full.
        """
        self.check(where=str(path))
        named = {"images": self.images, "labels": self.labels}
        named |= {f"preprocess.{name}": tensor for name, tensor in self.tensors.items()}
        write_tensors(path, named, self.meta)
        return path

    @classmethod
    def load(cls, path: str | Path, data: ImageData | None = None, **told: Any) -> "DistilledSet":
        """Read a set from a safetensors file, a folder of shards, or a file of other authors' code.

        Args:
            path: the file or folder; for others' layouts see `core_dd.sets.formats`.
            data: the real data, whose constants bring others' images back to pixels.
            told: what others' layouts leave open, or to override it: layout, normalised_by, factor, decode,
                learned_lr, soft_labels, class_order; see `core_dd.sets.foreign.read`.

        Raises:
            InputError: if the path is missing, truncated, corrupt, a pickle that would run code, or not sound; if
                another code's layout leaves open what is not given.
        """
        from core_dd.sets import foreign  # which makes sets, and so reads this module first

        path = Path(path)
        with readers.reading(path):
            there = _exists(path)
        require(
            there,
            f"nothing at {path}. Expected a set: a file such as NAME.safetensors, a run folder or a folder of shards, "
            "or what another code wrote (see gendd convert --help).",
        )
        with readers.reading(path):
            found = None if is_ours(path) else foreign.read(path, data, **told)
        require(
            found is not None or not told,
            f"{path} says itself how its images are stored. Leave out {flags(told)}.",
        )
        if found is not None:
            dset = found
        elif path.is_dir():
            dset = cls._load_folder(path)
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
        dset.check_scale(str(path))
        names = dset.meta.get("class_names")
        if data is not None and names and dset.meta.get("fingerprint") is None:  # else its labels are those of the data
            dset.labels = foreign.in_order(dset.labels, names, data, path)
            dset.meta["class_names"] = list(data.class_names)
        return dset

    def check_scale(self, where: str) -> None:
        """Refuse floats on the 0..255 scale: pixels stay near 0..1, and what strays from there does so both ways."""
        if self.images.dtype == torch.uint8:
            return
        low, high, mean = (float(f(self.images)) for f in (torch.min, torch.max, torch.mean))
        require(
            high <= 2 or (low < 0 and mean < 4),
            f"{where} has floating-point pixels from {low:.3g} to {high:.3g}, expected the 0..1 scale. Divide by 255.",
        )

    @classmethod
    def _load_folder(cls, folder: Path) -> "DistilledSet":
        if not (folder / INDEX).is_file():
            nested = folder / NESTED
            require(nested.is_file(), f"{folder} holds no distilled set: neither {INDEX} nor {NESTED}.")
            return cls.load(nested)
        listing = read_index(folder)
        require(bool(listing["shards"]), f"{folder} holds no finished shard. Sample into it first.")
        parts = [_read_shard(folder / shard["file"], shard["images"]) for shard in listing["shards"]]
        for part, shard in zip(parts, listing["shards"], strict=True):
            for name in ("images", "labels"):
                own, first = ((each.dtype, tuple(each.shape[1:])) for each in (part[name], parts[0][name]))
                require(
                    own == first,
                    f"{folder / shard['file']} has {name} of type and shape {own}, the first shard {first}.",
                )
        images, labels = (torch.cat([part[name] for part in parts]) for name in ("images", "labels"))
        accepted = torch.cat([part["accepted"] for part in parts])
        if not accepted.all():
            order = accepted.argsort(descending=True, stable=True)
            images, labels = images[order], labels[order]
        return cls(images, labels, listing["meta"])

    def check(self, data: ImageData | None = None, where: str = "the distilled set") -> None:
        """Raise `InputError` unless the set is sound, and made from `data` where that is given."""
        meta = records.checked(self.meta, _SetMeta, f"the metadata of {where}", "Mend it, or make the set again.")
        rate = meta.get("lr")
        require(rate is None or math.isfinite(rate), f"{where} has a learned rate, lr, of {rate}. Leave it out.")
        require(
            meta.get("schema", 0) <= SCHEMA, f"{where} was written by a newer version: schema {meta.get('schema')}."
        )
        self.check_tensors(where)
        check_factor(self.factor, self.images.shape[-2], self.images.shape[-1], self.decode_kind)
        if self.preprocess is not None:
            self.preprocess.check(tuple(self.images.shape[1:]), where)
        if data is not None:
            self.check_against(data, where)
            self.check_scale(where)
        self._check_labels(meta.get("class_names") if data is None else data.class_names, where)

    def check_tensors(self, where: str) -> None:
        """Refuse images and labels that are no plain tensors of the right type and shape, or not finite."""
        images, labels = self.images, self.labels
        for name, tensor in (("images", images), ("labels", labels)):
            require(isinstance(tensor, Tensor), f"{where} has {name} that are a {type(tensor).__name__}, not a tensor.")
            require(
                tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_meta or tensor.requires_grad),
                f"{where} has {name} of layout {tensor.layout} on {tensor.device} (requires_grad "
                f"{tensor.requires_grad}), expected a dense tensor with values and without gradient. "
                "Call .to_dense() or .detach() on it.",
            )
        require(
            images.ndim == 4 and images.dtype in _IMAGE_DTYPES,
            f"{where} has images {images.dtype} of shape {tuple(images.shape)}, expected uint8 or float32 "
            "(N, C, H, W).",
        )
        require(images.numel() > 0, f"{where} has no images: their shape is {tuple(images.shape)}.")
        require(
            labels.dtype in _LABEL_DTYPES.get(labels.ndim, ()) and len(labels) == len(images),
            f"{where} has labels {labels.dtype} of shape {tuple(labels.shape)} for {len(images)} images, "
            "expected int64 (N,) or float32 (N, K).",
        )
        require(
            bool(torch.isfinite(images).all()) and bool(torch.isfinite(labels).all()),
            f"{where} holds NaN or infinite values. Its run diverged; lower the learning rate and distil again.",
        )

    def _check_labels(self, names: Sequence[str] | None, where: str) -> None:
        """Refuse labels of other classes than those of these names."""
        if self.labels.ndim == 2:
            require(
                not names or self.labels.shape[1] == len(names),
                f"{where} has soft labels over {self.labels.shape[1]} classes, expected {len(names or ())}.",
            )
            require(
                are_probabilities(self.labels),
                f"{where} has soft labels that are no probabilities: negative, or of another sum than 1. Of logits, "
                "give labels.softmax(1).",
            )
            return
        low, high, classes = int(self.labels.min()), int(self.labels.max()), len(names or ()) or _MOST_CLASSES
        require(
            low >= 0 and high < classes,
            f"{where} has labels from {low} to {high}, expected 0 to {classes - 1} ({classes} classes).",
        )

    def check_against(self, data: ImageData, where: str) -> None:
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

    def as_trained(self) -> tuple[Tensor, Tensor]:
        """As `decoded`, but bytes stay bytes where no tiles are cut, so that they become floats a batch at a time."""
        if self.images.dtype == torch.uint8 and self.factor == 1:
            return self.images, self.labels
        return self.decoded()

    def decoded(self) -> tuple[Tensor, Tensor]:
        """The images a classifier trains on: float (M, C, H, W) on the 0..1 scale, and their labels; M is N for factor
        1, see `core_dd.sets.factor`."""
        images = fractions(self.images).float()
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


def _exists(path: Path) -> bool:
    """Whether there is anything, be it a broken link.

    Raises:
        OSError: if the system does not say.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return True


def flags(told: Iterable[str]) -> str:
    """What is told of another code's file, see `DistilledSet.load`, by the names of the options that tell it."""
    return " and ".join("--from" if name == "layout" else f"--{name}" for name in told)


def require_place(path: Path) -> None:
    """Refuse a file for a set that is there already, or that would not be read again.

    Raises:
        InputError: for one.
    """
    from core_dd.sets.formats.base import TAKEN  # which makes sets, and so reads this module first

    require(
        path.suffix.lower() not in TAKEN,
        f"a set is written as safetensors, and {path} is called as other files are. Choose NAME.safetensors.",
    )
    files.require_new(path)


def is_ours(path: Path) -> bool:
    """Whether a place is of our own format: a safetensors file by its name, or a folder with one or with an index."""
    return path.suffix == ".safetensors" or (path / INDEX).is_file() or (path / NESTED).is_file()


def _read_shard(path: Path, count: int) -> dict[str, Tensor]:
    """The images and labels of one shard, as many as its index says, and which of them a filter accepted: all, where it
    does not say."""
    tensors = read_tensors(path)[0]
    found: dict[str, Tensor] = {name: tensors[name] for name in ("images", "labels", "accepted") if name in tensors}
    require(
        {"images", "labels"} <= found.keys() and all(tensor.ndim > 0 for tensor in found.values()),
        f"{path} is no shard of a set: no images and labels in it.",
    )
    for name, tensor in found.items():
        require(len(tensor) == count, f"{path} has {len(tensor)} {name}, its index says {count}.")
    accepted = found.get("accepted", torch.ones(count, dtype=torch.bool))
    require(
        accepted.dtype == torch.bool and accepted.ndim == 1,
        f"{path} has 'accepted' of type {accepted.dtype} and shape {tuple(accepted.shape)}, expected bool ({count},).",
    )
    return found | {"accepted": accepted}


def _plain(tensor: Any) -> Any:
    """A tensor without gradient, bf16 and fp16 as float32; what is no dense tensor is left for `check` to refuse."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        return tensor
    tensor = tensor.detach().resolve_neg()
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


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
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """Looked up once: each takes milliseconds."""
    packages = {}
    for name in ("gendd", "torch", "torchvision", "diffusers", "accelerate"):
        try:
            packages[name] = version(name)
        except ModuleNotFoundError:
            packages[name] = "not installed"
    return {"python": platform.python_version(), **packages}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata atomically as one safetensors file.

    Raises:
        InputError: metadata that JSON does not have; nothing is written.
    """
    header = records.encoded(meta, f"the metadata of {path}")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.atomic(path) as temporary:
        save_file(plain, temporary, metadata={"gendd": header})


def read_tensors(path: Path, kind: Any = dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (memory-mapped) and the metadata of a safetensors file.

    Args:
        path: the file.
        kind: the type that its metadata must have, see `core_dd.records`.

    Raises:
        InputError: if the file is missing, truncated or not safetensors, or its metadata are of another kind.
    """
    require(path.is_file(), f"no file at {path}. Expected a safetensors file.")
    try:
        with safe_open(path, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a mapping)
            header = content.metadata() or {}
    except (SafetensorError, OSError, ValueError, LookupError, AttributeError) as error:
        raise InputError(
            f"cannot read {path}: {error}. It is truncated or no safetensors file; make it again."
        ) from None
    return tensors, records.parse(header.get("gendd", "{}"), kind, f"the metadata of {path}", "Make the file again.")
