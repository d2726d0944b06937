"""The generative track in comparison runs: choices from a generated pool."""

from pathlib import Path

from core_dd.compare.jobs import Job
from core_dd.compare.producers import Made, Request
from core_dd.compare.sets import CLASSIFIER, allowed, classifier_job, content, keep
from core_dd.data.images import ImageData
from core_dd.errors import pick, require
from core_dd.judge.choose import CHOOSERS
from core_dd.judge.protocols import QUICK, Protocol
from core_dd.sets.distilled import DistilledSet
from core_dd.speed import pick_device
from gen_dd.select import select


def pool(request: Request) -> Made:
    """A choice from a pool: {pool: FOLDER, selector: NAME, network: ...}, the last of the classifier whose features
    choose. `{data}` and `{seed}` in the folder stand for the cell's.

    Raises:
        InputError: no such pool, an unknown selector or option.
    """
    options = dict(request.options)
    place = Path(str(options.pop("pool")).format(data=request.data.name, seed=request.seed))
    allowed(options, ("selector", "network"), request)
    selector, network = options.get("selector", "herding"), options.get("network", "convnet3")
    pick(CHOOSERS, selector, "selector")
    require(place.exists(), f"{request.title}: no pool at {place}.")
    asks = {} if selector == "random" else {"network": network}
    job = Job(
        kind="set",
        title=request.title,
        function="gen_dd.producers:choose",
        options={"pool": str(place), "selector": selector, "ipc": request.ipc, "seed": request.seed, **asks},
        data=request.data,
        needs={"classifier": classifier_job(request, network, QUICK.name)} if asks else {},
        identity={"content": content(place)},
    )

    def check(data: ImageData, protocol: Protocol) -> None:
        own = DistilledSet.load(place)
        own.check(data, where=str(place))
        smallest = int(own.hard_labels.bincount(minlength=data.num_classes).min())
        require(smallest >= request.ipc, f"{place} has only {smallest} images of a class.")

    return Made(job=job, check=check)


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
    cache = None if classifier is None else Path(classifier) / CLASSIFIER
    keep(select(DistilledSet.load(pool), data, ipc, selector, seed, network, pick_device(device), cache), out)
