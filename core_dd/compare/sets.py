"""Producers that need no track: sets that are there, and functions of the user's own; and how any set is judged."""

import contextlib
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from core_dd import files
from core_dd.commands import imported
from core_dd.compare.jobs import Forecast, Job
from core_dd.compare.producers import Made, Request
from core_dd.data.images import ImageData
from core_dd.errors import Diverged, InputError, likely, require
from core_dd.judge import evaluate as judging
from core_dd.judge import fidelity, habits
from core_dd.judge import incremental as continual
from core_dd.judge.protocols import PROTOCOLS, Protocol, resolved
from core_dd.judge.unfinished import beside
from core_dd.sets.distilled import DistilledSet
from core_dd.speed import pick_device

SET, CLASSIFIER = "distilled.safetensors", "classifier.safetensors"
"""What jobs write into their folders, beside scores."""

TOLD = ("layout", "normalised_by", "factor", "decode", "learned_lr", "soft_labels", "class_order")
"""What other codes' layouts may leave open, see `core_dd.sets.foreign.read`."""


def existing(request: Request) -> Made:
    """A set that is there, ours or in another code's layout: {set: PATH, and what the layout leaves open}.

    `{data}`, `{ipc}` and `{seed}` in the path stand for the cell's.
    """
    options = dict(request.options)
    del options["set"]
    place = request.path("set", data=request.data.name, ipc=request.ipc, seed=request.seed)
    allowed(options, TOLD, request)
    require(place.exists(), f"{request.title}: no set at {place}.")
    job = Job(
        kind="set",
        title=request.title,
        function="core_dd.compare.sets:take",
        options={"ipc": request.ipc, **options},
        data=request.data,
        shown={"place": str(place)},
        identity={"content": content(place)},
    )

    def check(data: ImageData, protocol: Protocol) -> None:
        dset = read(data, **job.options, **job.shown)
        dset.check(data, where=str(place))
        protocol.fitted_to(dset.meta.get("lr"))

    return Made(job=job, brings_lr=None, seeded=request.varies("set", "seed"), check=check)


def read(data: ImageData, place: str, ipc: int, **told: Any) -> DistilledSet:
    """A set that is there; `told` is what its layout leaves open, see `DistilledSet.load`.

    Raises:
        InputError: if it cannot be read, or has not `ipc` images of every class.
    """
    dset = DistilledSet.load(place, data, **told)
    hint = (
        "Leave out the others by a line in 'skip', such as {producer: NAME, ipc: OTHER}, or write {ipc} into the path."
    )
    _check_ipc(dset, data, ipc, place, hint)
    return replace(dset, meta=dset.meta | {"ipc": ipc})


def _check_ipc(dset: DistilledSet, data: ImageData, ipc: int, who: object, hint: str) -> None:
    """Refuse a set that has not so many images of every class."""
    counts = dset.hard_labels.bincount(minlength=data.num_classes).tolist()
    require(set(counts) == {ipc}, f"{who} has {min(counts)} to {max(counts)} images per class, expected {ipc}. {hint}")


def take(data: ImageData, out: Path, device: str | None, **options: Any) -> None:
    """Copy a set that is there into `out`, as our format holds it."""
    keep(read(data, **options), out)


def function(request: Request) -> Made:
    """A function of the user's own: {function: MODULE:NAME, and its options}.

    It is called as `NAME(data, ipc=..., seed=..., out=..., **options)`, with `ImageData` and a folder that it may use,
    in which it finds what it left there before a kill, and returns a `DistilledSet`. Its source file is part of what
    the result is known by.

    Raises:
        InputError: if there is no such function, or it does not take these.
    """
    options = dict(request.options)
    target = str(options.pop("function"))
    called = own_function(target, request)
    arguments = {"ipc": request.ipc, "seed": request.seed, "out": None, **options}
    try:
        inspect.signature(called).bind(None, **arguments)
    except TypeError as error:
        raise InputError(
            f"{request.title}: {target} cannot be called as it would be, with data, {', '.join(arguments)}: {error}."
        ) from None
    except ValueError:  # built in: nothing is known of its arguments
        pass
    job = Job(
        kind="set",
        title=request.title,
        function="core_dd.compare.sets:call",
        options={"target": target, "ipc": request.ipc, "seed": request.seed, "options": options},
        data=request.data,
        identity={"source": _source(called)},
    )
    return Made(job=job, brings_lr=None)


def call(
    data: ImageData, out: Path, device: str | None, target: str, ipc: int, seed: int, options: Mapping[str, Any]
) -> None:
    """Call a user's function, and keep what it returns."""
    if not (out / SET).exists():
        dset = imported(target)(data, ipc=ipc, seed=seed, out=out, **options)
        require(isinstance(dset, DistilledSet), f"{target} returned a {type(dset).__name__}, expected a DistilledSet.")
        dset.check(data, where=f"what {target} returned")
        _check_ipc(dset, data, ipc, f"what {target} returned", "Return as many of each class as it is asked for.")
        keep(dset, out)


def keep(dset: DistilledSet, out: Path) -> None:
    """Write a set into the folder of its job, unless it is there."""
    if not (out / SET).exists():
        dset.save(out / SET)


def own_function(target: str, request: Request) -> Any:
    """What `MODULE:NAME` names.

    Raises:
        InputError: if there is no such function.
    """
    module, colon, name = target.partition(":")
    require(bool(module and colon and name), f"{request.title}: function '{target}' is not written as MODULE:NAME.")
    try:
        found = imported(target)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{request.title}: no function {target}: {error}. A module is found where it is installed, beside the "
            "comparison's file, and in the working folder."
        ) from None
    require(callable(found), f"{request.title}: {target} is a {type(found).__name__}, expected a function.")
    return found


def classifier_job(request: Request, network: str, protocol: str) -> Job:
    """A classifier trained on all real training images, for whatever chooses by its features."""
    return Job(
        kind="classifier",
        title=f"classifier {request.data.name} {network} {protocol} seed{request.seed}",
        function="core_dd.compare.sets:train_classifier",
        options={"network": network, "protocol": protocol, "seed": request.seed},
        data=request.data,
    )


def train_classifier(data: ImageData, out: Path, device: str | None, network: str, protocol: str, seed: int) -> None:
    """Train one on real images, and keep it."""
    where = {"device": pick_device(device), "cache": out / CLASSIFIER}
    fidelity.real_classifier(data, network, seed, protocol=PROTOCOLS[protocol], **where)


def judge(
    data: ImageData,
    out: Path,
    device: str | None,
    name: str,
    place: Mapping[str, Any],
    network: str,
    protocol: str,
    seed: int,
    made: str | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    augment: str | None = None,
    classifiers: int | None = None,
    fidelity: bool = False,
    smoke: bool = False,
    incremental: int | None = None,
    along: bool = False,
) -> None:
    """Train classifiers on the set in the folder `made`, or on all real images, and write scores.json; with `along`
    also on what a distillation kept on its way there, which is recorded beside it."""
    dset = judging.real_set(data, seed) if made is None else DistilledSet.load(Path(made) / SET)
    how = {"protocol": protocol, "network": network, "runs": classifiers, "seed": seed, "device": device}
    how |= {"epochs": epochs, "augment": augment}

    def judged(own: DistilledSet, **more: Any) -> judging.Scores:
        if incremental is None:
            return judging.evaluate(own, data, steps=iterations, **how, **more)
        return continual.incremental(own, data, incremental, iterations=iterations, **how, **more)

    training = beside(out / judging.SCORES)
    scores = judged(dset, with_fidelity=fidelity, **({} if incremental else {"unfinished": training}))
    if along and made is not None:
        snapshots = []
        for step, own in habits.kept(Path(made)).items():
            if not habits.trains(own):
                continue
            with contextlib.suppress(Diverged):  # of a set that is far from done
                found = scores if own.digest() == dset.digest() else judged(own)
                snapshots.append({"step": step, "accuracies": found.accuracies})
        scores = scores.with_record(along=snapshots)
    shortened = made is None and place.get("limit_per_class") is not None  # no whole training set
    scores = scores.with_record(
        set={"name": name, "path": made}, smoke=scores.record["smoke"] or smoke or shortened, config=dict(place)
    )
    files.write_json(out / judging.SCORES, scores.to_json())
    files.remove(training)


def measure_judge(
    data: ImageData,
    out: Path,
    device: str | None,
    network: str,
    protocol: str,
    seed: int,
    images_per_class: int | None,
    epochs: int | None = None,
    iterations: int | None = None,
    augment: str | None = None,
    classifiers: int | None = None,
    **_: Any,
) -> Forecast:
    """What judging a set of so many images takes, or of all real ones, from a step on real images."""
    count = len(data.train_images) if images_per_class is None else data.num_classes * images_per_class
    index = torch.arange(count) % len(data.train_images)
    dset = DistilledSet(data.train_images[index], data.train_labels[index], {})
    options = {"network": network, "runs": classifiers, "seed": seed, "device": device}
    found = judging.measured(dset, data, resolved(protocol, epochs, iterations, augment), **options)
    return Forecast(found.seconds, found.mib)


def allowed(options: Mapping[str, Any], known: tuple[str, ...], request: Request) -> None:
    """Refuse options that a kind of producer does not have.

    Raises:
        InputError: for one, with the likely spelling.
    """
    for key in options:
        require(
            key in known, f"{request.producer}: unknown option '{key}'{likely(key, known)} It takes {', '.join(known)}."
        )


@cache
def content(place: Path) -> str:
    """What is in a file, or in the files of a folder, as 16 hex digits."""
    total = hashlib.blake2b(digest_size=8)
    for path in [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file()):
        total.update(str(path.relative_to(place)).encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "blake2b").digest())
    return total.hexdigest()


def _source(called: Any) -> str:
    """The file a function is written in, as `content`; empty where there is none."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(called))
    except TypeError:
        return ""
    return content(Path(file)) if file else ""
