"""The generative track in comparison runs: generators that are trained, pools they draw, and choices from a pool."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from core_dd.compare.configs import config_of, published, run_config, told
from core_dd.compare.jobs import Forecast, Job
from core_dd.compare.producers import Made, Request
from core_dd.compare.sets import CLASSIFIER, allowed, classifier_job, content, keep
from core_dd.config import from_values, to_dict
from core_dd.data.images import ImageData
from core_dd.errors import about, pick, require
from core_dd.judge.choose import CHOOSERS
from core_dd.judge.protocols import QUICK, Protocol
from core_dd.sets.distilled import DistilledSet
from core_dd.sets.formats.base import converted_first
from core_dd.speed import pick_device
from gen_dd.options import SampleConfig, TrainConfig, TuneConfig
from gen_dd.select import select

ALL = "all"
"""The selector that takes the whole pool, however many images of a class it has."""

AMOUNT = ("num_per_class", "budget")
"""Options of `gendd sample` that say how much is drawn."""

OF_THE_PLACE = ("model", "out", "seed", "device", "resume")
"""Options of `gendd sample` that the comparison sets."""


def pool(request: Request) -> Made:
    """A choice from a pool: {pool: FOLDER, selector: NAME, network: ...}, the last of the classifier whose features
    choose; the selector `all` takes the whole pool. `{data}` and `{seed}` in the folder stand for the cell's.

    Raises:
        InputError: no such pool, an unknown selector or option.
    """
    place = _place(request, "pool")
    allowed({key: value for key, value in request.options.items() if key != "pool"}, ("selector", "network"), request)

    def check(data: ImageData, protocol: Protocol) -> None:
        with converted_first():
            own = DistilledSet.load(place)
        own.check(data, where=str(place))
        smallest = int(own.hard_labels.bincount(minlength=data.num_classes).min())
        require(
            request.options.get("selector") == ALL or smallest >= request.ipc,
            f"{place} has only {smallest} images of a class.",
        )

    job = _chosen(request, {}, {"pool": str(place)}, {"content": content(place)})
    of_ipc = request.options.get("selector") != ALL
    return Made(job=job, check=check, seeded=_seeded(request, "pool"), of_ipc=of_ipc)


def generator(request: Request) -> Made:
    """What a generator draws: {generator: OPTIONS or FOLDER, tune: OPTIONS, sample: OPTIONS, selector: NAME,
    network: NAME}.

    The options are those of `gendd train`, `config` among them, and of `gendd sample`; the folder is of a trained one,
    `{data}` and `{seed}` in it stand for the cell's. With `tune`, options of `gendd tune`, it is tuned into a
    consistency model first. Where `sample` says neither `num_per_class` nor `budget`, the ipc
    images of every class that the cell wants are drawn, and are the set. Else they are the pool from which the selector
    chooses, by the features of a classifier `network`, or which is the set as it is (`selector: all`). A generator is
    trained once, for the sets of all seeds; with `each_seed: true` for each of them.

    Raises:
        InputError: an unknown option or selector, no model in the folder, a value that the commands refuse.
    """
    own = dict(request.options)
    trained, drawn, each = own.pop("generator") or {}, own.pop("sample", None) or {}, own.pop("each_seed", False)
    tuned = own.pop("tune", None)
    allowed(own, ("selector", "network"), request)
    given = {"generator": {} if isinstance(trained, str) else trained, "tune": tuned or {}, "sample": drawn}
    for name, value in given.items():
        require(isinstance(value, Mapping), f"{request.producer}: '{name}' must hold options as 'key: value' pairs.")
    own_seed = replace(request, seed=request.seed if each else 0)
    if isinstance(trained, str):
        place = _place(request, "generator")
        model = _Source(place=str(place), identity={"content": content(place)})
    else:
        model = _Source(job=_training(replace(own_seed, options=trained)))
    if tuned is not None:
        model = _Source(job=_tuning(replace(own_seed, options=tuned), model))
    exact = not any(drawn.get(name) is not None for name in AMOUNT)
    sampling = _sampling(request, {"num_per_class": request.ipc, **drawn} if exact else drawn)
    kind = tuned is not None or model.is_tuned()
    require(
        (sampling["solver"] == "consistency") == kind,
        f"{request.producer}: solver {sampling['solver']} cannot draw with this generator. A consistency model (with "
        "'tune', or in a folder of gendd tune) wants 'sample: {solver: consistency}', any other model another solver.",
    )
    require(
        not (exact and own),
        f"{request.producer}: 'sample' draws ipc images of every class, which leaves no choice. Give num_per_class or "
        f"budget, or leave out {' and '.join(own)}.",
    )
    job = Job(
        kind="pool",
        title=f"pool {request.title if exact else _short(request)}",
        function="gen_dd.producers:draw",
        options=sampling,
        data=request.data,
        shown=model.options("generator"),
        needs=model.needs("generator"),
        identity={**model.identity, **_contents({"plan": None if sampling["plan"] == "auto" else sampling["plan"]})},
    )
    asked = replace(request, options={"selector": ALL, **own} if exact else own)
    of_ipc = exact or own.get("selector") != ALL
    return Made(job=_chosen(asked, {"pool": job}, {}, {}), of_ipc=of_ipc)


@dataclass(frozen=True)
class _Source:
    """A trained model: of a job, or in a folder that is there, and what decides what that holds."""

    job: Job | None = None
    place: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)

    def needs(self, argument: str) -> dict[str, Job]:
        """Of a job whose function takes the model's folder as `argument`."""
        return {} if self.job is None else {argument: self.job}

    def is_tuned(self) -> bool:
        """Whether it lies in a folder, as a consistency model."""
        if self.place is None:
            return False
        from gen_dd.weights import is_tuned  # imported for folders alone: it takes seconds

        return is_tuned(self.place)

    def options(self, argument: str) -> dict[str, str]:
        """Of such a job."""
        return {} if self.place is None else {argument: self.place}


def train_generator(data: ImageData, out: Path, device: str | None, place: Mapping[str, Any], **options: Any) -> None:
    """Train a generator in the run folder `out`, or go on there."""
    _train(TrainConfig, out, device, **place, **options)


def tune_generator(data: ImageData, out: Path, device: str | None, place: Mapping[str, Any], **options: Any) -> None:
    """Tune the generator in the folder `init_from` into a consistency model in the run folder `out`, or go on there."""
    _train(TuneConfig, out, device, **place, **options)


def _train(cls: type[TrainConfig], out: Path, device: str | None, **options: Any) -> None:
    from gen_dd.train import train  # imported by the jobs alone: it takes seconds

    torch.compiler.reset()  # each compiles for itself, else the later ones of a process would run uncompiled
    train(run_config(cls, out, device, **options))


def measure_generator(
    data: ImageData, out: Path, device: str | None, place: Mapping[str, Any], **options: Any
) -> Forecast:
    """What `train_generator` takes, from a few steps that are then lost."""
    return _measured(TrainConfig, device, **place, **options)


def measure_tuning(
    data: ImageData, out: Path, device: str | None, place: Mapping[str, Any], **options: Any
) -> Forecast:
    """What `tune_generator` takes, likewise."""
    return _measured(TuneConfig, device, **place, **options)


def _measured(cls: type[TrainConfig], device: str | None, **options: Any) -> Forecast:
    from gen_dd.train import measured  # as above

    config = cls(**options, device=device, tracker="none")
    found = measured(config, config.training_data())
    seconds = found.first + found.each * config.iterations
    return Forecast(min(seconds, config.max_seconds or seconds), found.mib)


def draw(data: ImageData, out: Path, device: str | None, generator: str, **options: Any) -> None:
    """Draw from the generator in a folder into the folder `out`, or go on there."""
    from gen_dd.sample import run

    run(SampleConfig(model=generator, out=str(out), resume=True, device=device, **options))


def choose(
    data: ImageData,
    out: Path,
    device: str | None,
    pool: str,
    selector: str,
    ipc: int,
    seed: int,
    classifier: str | None = None,
    network: str = "convnet3",
) -> None:
    """Choose from the pool, by the features of the classifier in the folder `classifier`."""
    dset = DistilledSet.load(pool)
    if selector != ALL:
        cache = None if classifier is None else Path(classifier) / CLASSIFIER
        dset = select(dset, data, ipc, selector, seed, network, pick_device(device), cache)
    keep(dset, out)


def _place(request: Request, key: str) -> Path:
    """The folder that a request names, which must be there."""
    place = request.path(key, data=request.data.name, seed=request.seed)
    require(place.exists(), f"{request.title}: no {key} at {place}.")
    return place


def _contents(places: Mapping[str, str | None]) -> dict[str, str]:
    """What is in the files and folders that options name, by the options; those that name none, or nothing that is
    there, left out."""
    return {name: content(Path(place)) for name, place in places.items() if place and Path(place).exists()}


def _short(request: Request) -> str:
    """A request's title without its ipc, which a pool does not depend on."""
    return f"{request.producer} {request.data.name} seed{request.seed}"


def _seeded(request: Request, key: str) -> bool:
    """Whether the choice from a given folder depends on the seed."""
    return request.options.get("selector") != ALL or request.varies(key, "seed")


def _training(request: Request) -> Job:
    """The training of a generator."""
    config = config_of(TrainConfig, request, published(request, "gen"))
    _in_one_call(config, request)
    return Job(
        kind="generator",
        title=f"generator {_short(request)}",
        function="gen_dd.producers:train_generator",
        data=request.data,
        **told(config),
        identity=_contents({"init_from": config.init_from, "neon": config.neon}),
        measure="gen_dd.producers:measure_generator",
    )


def _tuning(request: Request, model: _Source) -> Job:
    """The tuning of a trained model."""
    require(
        "init_from" not in request.options, f"{request.producer}: 'init_from' is the comparison's to say. Leave it out."
    )
    config = config_of(TuneConfig, request, {**published(request, "tune"), "init_from": "-"})
    _in_one_call(config, request)
    own = told(config)
    del own["options"]["init_from"]
    return Job(
        kind="generator",
        title=f"tuned generator {_short(request)}",
        function="gen_dd.producers:tune_generator",
        data=request.data,
        options=own["options"] | model.options("init_from"),
        usual=own["usual"],
        shown=own["shown"],
        needs=model.needs("init_from"),
        identity=model.identity,
        measure="gen_dd.producers:measure_tuning" if model.job is None else None,
    )


def _in_one_call(config: TrainConfig, request: Request) -> None:
    """Refuse a training that each call leaves unfinished."""
    require(
        config.chunk_seconds is None,
        f"{request.producer}: chunk_seconds leaves a training unfinished, and a comparison trains in one call. Leave "
        "it out, or give max_seconds.",
    )


def _sampling(request: Request, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a drawing, checked."""
    for key in OF_THE_PLACE:
        require(key not in options, f"{request.producer}: '{key}' is the comparison's to say. Leave it out of sample.")
    config = from_values(SampleConfig, {**options, "model": "-", "out": "-", "seed": request.seed}, request.title)
    return {key: value for key, value in to_dict(config).items() if key not in OF_THE_PLACE or key == "seed"}


def _chosen(request: Request, needs: Mapping[str, Job], shown: Mapping[str, Any], identity: Mapping[str, Any]) -> Job:
    """The choice from a pool, which is one of `needs` or `shown`, as the request says."""
    selector, network = request.options.get("selector", "herding"), request.options.get("network", "convnet3")
    with about(request.producer):
        pick({**CHOOSERS, ALL: None}, selector, "selector")
    asks = {} if selector in ("random", ALL) else {"network": network}
    place = {"ipc": request.ipc, "seed": request.seed}  # which decide nothing where all are taken
    return Job(
        kind="set",
        title=request.title,
        function="gen_dd.producers:choose",
        options={"selector": selector, **({} if selector == ALL else place), **asks},
        data=request.data,
        shown={**shown, **(place if selector == ALL else {})},
        needs={**needs, **({"classifier": classifier_job(request, network, QUICK.name)} if asks else {})},
        identity=identity,
    )
