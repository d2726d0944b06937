"""The matching track in comparison runs: distillations with the experts they follow, and choices of real images."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from core_dd.compare.configs import config_of, published, run_config, told
from core_dd.compare.jobs import Forecast, Job
from core_dd.compare.producers import Made, Request
from core_dd.compare.sets import CLASSIFIER, allowed, classifier_job, keep
from core_dd.data.images import ImageData
from core_dd.errors import about, pick, require
from core_dd.judge.protocols import PROTOCOLS
from core_dd.speed import pick_device
from matching_dd import experts
from matching_dd.coresets import coreset as chosen
from matching_dd.distill import measured, run
from matching_dd.methods import METHODS
from matching_dd.options import CoresetConfig, ExpertsConfig, MatchingConfig
from matching_dd.synthetic import taken


def method(request: Request) -> Made:
    """A distillation: {method: NAME, config: PUBLISHED, and any of its options}.

    `config` names a file of configs/matching (or several), whose settings for the data and ipc apply below the options.
    `experts`, for methods that follow some, is a folder of recorded ones, or options of `gendd experts`, with which
    they are recorded once for all that want the same; left out: by its defaults.

    Raises:
        InputError: an unknown method, option or config, values that the method refuses, too few epochs of experts.
    """
    values = published(request, "matching")
    recorded = values.pop("experts", None)
    with about(request.producer):
        cls = pick(METHODS, str(values["method"]), "method").Config
        follows = any(own.name == "experts" for own in fields(cls))
        require(recorded is None or follows, f"{request.title}: {values['method']} follows no experts. Leave them out.")
    folder = isinstance(recorded, str)
    config = config_of(cls, request, {**values, "experts": recorded} if folder else values)
    needs = {}
    if not folder and hasattr(config, "experts"):
        needs["experts"] = _experts_job(request, config, recorded or {})
    decisive = {"checkpoint_every"} if config.val_fraction else set()  # when sets are validated
    decisive |= {"checkpoint_every", "keep"} if request.along else set()  # which there are to be judged
    job = Job(
        kind="set",
        title=request.title,
        function="matching_dd.producers:distilled",
        data=request.data,
        needs=needs,
        identity={"experts": experts.content(recorded)} if folder else {},
        **told(config, decisive),
        measure=None if needs else "matching_dd.producers:measure_distilled",
    )
    takes, brings_lr = taken(config.init, config.ipc, config.factor), hasattr(config, "lr_lr")
    return Made(job=job, factor=config.factor, decode=config.decode, takes=takes, brings_lr=brings_lr)


def coreset(request: Request) -> Made:
    """A choice of real images: {coreset: NAME, network: ..., protocol: ...}, the last two of the classifier whose
    features choose.

    Raises:
        InputError: an unknown name or option.
    """
    options = dict(request.options)
    name = str(options.pop("coreset"))
    allowed(options, ("network", "protocol"), request)
    config = config_of(CoresetConfig, request, {"selector": name, **options})
    asks = {} if name == "random" else {"network": config.network, "protocol": config.protocol}
    job = Job(
        kind="set",
        title=request.title,
        function="matching_dd.producers:choose",
        options={"name": name, "ipc": request.ipc, "seed": request.seed, **asks},
        data=request.data,
        needs={"classifier": classifier_job(request, **asks)} if asks else {},
    )
    return Made(job=job, takes=request.ipc)


def distilled(
    data: ImageData, out: Path, device: str | None, method: str, place: Mapping[str, Any], **options: Any
) -> None:
    """Distil into the run folder `out`, or go on there."""
    config = run_config(METHODS[method].Config, out, device, method=method, **place, **options)
    run(config, _cut(config, data))


def record_experts(data: ImageData, out: Path, device: str | None, place: Mapping[str, Any], **options: Any) -> None:
    """Record experts into the folder `out`, or go on there."""
    config = run_config(ExpertsConfig, out, device, **place, **options)
    experts.record(config, _cut(config, data))


def choose(data: ImageData, out: Path, device: str | None, classifier: str | None = None, **options: Any) -> None:
    """Choose real images, by the features of the classifier in the folder `classifier`."""
    if classifier is not None:
        options["protocol"] = PROTOCOLS[options["protocol"]]
        options |= {"cache": Path(classifier) / CLASSIFIER, "device": pick_device(device)}
    keep(chosen(data=data, **options), out)


def measure_distilled(
    data: ImageData, out: Path, device: str | None, method: str, place: Mapping[str, Any], **options: Any
) -> Forecast:
    """What `distilled` takes, from a few iterations that are then lost."""
    config = METHODS[method].Config(method=method, **place, **options, device=device)
    found = measured(config, _cut(config, data))
    return Forecast(found.seconds(config), found.mib)


def measure_experts(
    data: ImageData, out: Path, device: str | None, place: Mapping[str, Any], **options: Any
) -> Forecast:
    """What `record_experts` takes, from a few steps that are then lost."""
    config = ExpertsConfig(**place, **options, device=device)
    found = experts.measured(config, _cut(config, data))
    return Forecast(found.first + found.each * found.steps, found.mib)


def _cut(config: MatchingConfig | ExpertsConfig, data: ImageData) -> ImageData:
    """The data, or these without the validation split of a config, which is cut from them as they lie."""
    return config.load_data(config.seed, config.val_fraction) if config.val_fraction else data


def _experts_job(request: Request, config: MatchingConfig, options: Mapping[str, Any]) -> Job:
    """The experts that a distillation follows: of its data, network and preprocessing, and enough epochs of them; the
    same for all seeds, unless each keeps a validation split of its own aside."""
    with about(f"{request.title}, experts"):
        require(isinstance(options, Mapping), "give the folder of some, or options of gendd experts.")
        values = published(replace(request, options=options), "experts")
        own = {name: getattr(config, name) for name in ("network", "preprocess", "val_fraction")}
        seed = request.seed if config.val_fraction else 0
        for key, value in own.items():
            require(
                values.get(key, value) == value, f"their {key} would be {values.get(key)}, the method's is {value}."
            )
        recorded = config_of(ExpertsConfig, replace(request, options={}, seed=seed), {**values, **own})
        require(
            config.epochs_followed <= recorded.epochs,
            f"the distillation follows {config.epochs_followed} epochs of them, and {recorded.epochs} would be "
            "recorded. Raise their epochs.",
        )
    return Job(
        kind="experts",
        title=f"experts {request.data.name} {recorded.network} {recorded.preprocess}",
        function="matching_dd.producers:record_experts",
        data=request.data,
        **told(recorded),
        measure="matching_dd.producers:measure_experts",
    )
