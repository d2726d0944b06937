"""Measure one choice at a time: what it does to classifiers' accuracy, and what it costs.

    python experiments/ablate.py --study selectors --pool POOL --out results/digits_selectors
    python experiments/ablate.py --study guides --model RUN --out results/digits_guides
    python experiments/ablate.py --study guides --model RUN --budget_s 2 --out results/digits_guides_2s
    python experiments/ablate.py --study steps --model RUN --ipc 100 --fidelity --out results/digits_steps
    python experiments/ablate.py --study kernels --iterations 300 --network convnet2_w32 --out results/kernels
    python experiments/ablate.py --study attention --iterations 300 --network convnet2_w32 --out results/attention

RUN is a folder of `gendd train`, POOL one of `gendd sample`. Every setting makes `draws` sets, each from its own seed,
and each set is judged by `classifiers` classifiers of that seed, the same for all settings. Finished sets are not made
again. OUT gets every score, as SETTING/SEED/scores.json; the report on the first set of each setting, with pictures and
curves, is in WORK.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core_dd import DistilledSet, ImageData, cli, files
from core_dd.config import load_config, to_dict
from core_dd.data.options import DataConfig
from core_dd.errors import above, at_least, pick, require
from core_dd.judge.choose import CHOOSERS
from core_dd.judge.evaluate import Scores, evaluate
from core_dd.judge.fidelity import classifier_frechet, real_classifier
from core_dd.judge.protocols import PROTOCOLS
from core_dd.judge.scores import read_score
from core_dd.judge.training import Classifiers
from core_dd.records import read
from core_dd.report import report, study
from core_dd.report.tables import markdown_table
from core_dd.rng import stream
from core_dd.sets.distilled import new_meta
from core_dd.speed import prepare_device
from gen_dd.guidance import make_guide
from gen_dd.sample import sample
from gen_dd.select import select
from gen_dd.weights import load_model
from matching_dd import METHODS, coreset
from matching_dd.distill import run as distil
from matching_dd.losses import KERNELS

Make = Callable[[int], DistilledSet]
"""Seed -> a set of one setting; its meta's cost says the seconds of sampling."""

GUIDES_TRIED: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "none": {},
        "CFG 0.5": {"cfg_scale": 0.5},
        "CFG 1.5": {"cfg_scale": 1.5},
        "CFG 1.5, t in 0.2..0.8": {"cfg_scale": 1.5, "cfg_interval": (0.2, 0.8)},
        "mgd3 0.1": {"guide": "mgd3", "guide_scale": 0.1},
        "mgd3 0.3": {"guide": "mgd3", "guide_scale": 0.3},
        "coda 0.05": {"guide": "coda", "guide_scale": 0.05},
        "coda 0.05, CFG 0.5": {"guide": "coda", "guide_scale": 0.05, "cfg_scale": 0.5},
        "repulsion 0.1": {"guide": "repulsion", "guide_scale": 0.1},
        "classifier 1": {"guide": "classifier", "guide_scale": 1.0},
    }
)
"""Settings of the study of guides: options as `gendd sample` names them."""

STEPS_TRIED = (50, 25, 20, 15, 10)
"""Network evaluations per image in the study of steps."""

LEARNT: MappingProxyType[str, tuple[str, dict[str, dict[str, Any]]]] = MappingProxyType(
    {
        "kernels": ("m3d", {kernel: {"kernel": kernel} for kernel in KERNELS}),
        "attention": (
            "datadam",
            {
                "l2 maps, mse": {},
                "l1 maps": {"norm": "l1"},
                "maps as they are": {"norm": "none"},
                "mae": {"attention": "mae"},
                "cosine": {"attention": "cosine"},
            },
        ),
    }
)
"""Studies of the matching track: the method, and settings as `gendd distill` names them, the published one first."""

PAPERS: MappingProxyType[str, str] = MappingProxyType(
    {
        "gaussian": "the default",
        "linear": "nearly the same",
        "polynomial": "nearly the same",
        "l2 maps, mse": "the best",
        "l1 maps": "about as good",
        "maps as they are": "much worse",
        "mae": "within 2 points",
        "cosine": "below mse",
    }
)
"""What the papers find by setting: M3D's figure 6b and DataDAM's supplement draw it, without numbers."""


@dataclass(kw_only=True)
class AblateConfig(DataConfig):
    """Measure one choice: accuracy of classifiers, and seconds of sampling."""

    study: str = "selectors"
    """What varies: selectors (from one pool), guides (of the sampler), steps (network evaluations per image), kernels
    (of M3D) or attention (DataDAM's norms and losses)."""
    model: str = ""
    """The trained model, for guides and steps."""
    pool: str = ""
    """The pool to select from, for selectors."""
    settings: str = ""
    """For kernels and attention: a --config of `gendd distill`, with what else differs from the method's defaults."""
    iterations: int | None = None
    """For kernels and attention: so many instead of the published ones."""
    out: str = ""
    """The folder of results; an earlier one there is replaced."""
    work: str | None = None
    """Where sets and scores are kept while at work; default: the name of --out under runs/."""
    ipc: int = 10
    """Images per class."""
    budget_s: float | None = None
    """Instead of ipc images: all that are sampled in so many seconds, without loading and the guide's preparation."""
    draws: int = 3
    """Sets per setting."""
    steps: int = 20
    """Network evaluations per image, where they do not vary."""
    batch: int = 250
    """Images per batch."""
    protocol: str = "quick"
    """How classifiers are trained."""
    classifier_iterations: int | None = None
    """Shorten the protocol to this many steps; the scores are marked smoke."""
    network: str = "convnet3"
    """The classifier, also of the selectors that use one; for kernels and attention also what is matched."""
    classifiers: int = 3
    """Classifiers per set."""
    fidelity: bool = False
    """Also measure each set's distance from the real images (classifier_frechet), by one classifier for all."""
    device: str | None = None
    """cpu, cuda, cuda:1; default: cuda where there is one."""

    def __post_init__(self) -> None:
        pick(STUDIES, self.study, "study")
        pick(PROTOCOLS, self.protocol, "protocol").shortened(steps=self.classifier_iterations)
        require(bool(self.out), "where to? Pass --out results/NAME.")
        wanted = {"selectors": "pool", "guides": "model", "steps": "model"}.get(self.study)
        require(wanted is None or bool(getattr(self, wanted)), f"the study of {self.study} wants --{wanted} FOLDER.")
        at_least(self, 1, "ipc", "iterations", "draws", "steps", "batch", "classifiers")
        above(self, 0, "budget_s")

    @property
    def work_folder(self) -> Path:
        """Where sets and scores are kept while at work."""
        return Path(self.work or Path("runs") / Path(self.out).name)

    @property
    def title(self) -> str:
        """The heading of table and report."""
        what = f"ipc {self.ipc}" if self.budget_s is None else f"{self.budget_s:g} s of sampling"
        return f"{Path(self.out).name}: {self.study} at {what}"


def selectors(config: AblateConfig, data: ImageData) -> dict[str, Make]:
    """Every selector on one pool, then the whole pool and random real images."""
    pool = DistilledSet.load(config.pool)

    def choose(seed: int, selector: str) -> DistilledSet:
        cache = config.work_folder / f"classifier-{seed}.safetensors"
        return select(pool, data, config.ipc, selector, seed, config.network, config.device, cache)

    return {name: partial(choose, selector=name) for name in CHOOSERS} | {
        "the whole pool": lambda seed: pool,
        "random real": lambda seed: coreset("random", data, config.ipc, seed),
    }


def guides(config: AblateConfig, data: ImageData) -> dict[str, Make]:
    """The settings of `GUIDES_TRIED`."""
    return {name: drawer(config, data, steps=config.steps, **options) for name, options in GUIDES_TRIED.items()}


def steps(config: AblateConfig, data: ImageData) -> dict[str, Make]:
    """The numbers of steps in `STEPS_TRIED`."""
    return {f"{count} steps": drawer(config, data, steps=count) for count in STEPS_TRIED}


def learnt(config: AblateConfig, data: ImageData) -> dict[str, Make]:
    """The settings of a study of `LEARNT`, then random real images."""
    method, settings = LEARNT[config.study]
    argv = ["--method", method, "--data", config.data, "--ipc", str(config.ipc)]
    argv += ["--config", config.settings] if config.settings else []
    base = load_config(METHODS[method].Config, argv, prog="ablate.py", home="matching")
    own = {"data": config.data, "ipc": config.ipc, "network": config.network, "device": config.device}
    own |= {"tracker": "none"}
    base = replace(base, iterations=config.iterations or base.iterations, **own)

    def make(seed: int, name: str) -> DistilledSet:
        folder = config.work_folder / slug(name) / str(seed) / "run"
        resume = (folder / "config.yaml").exists()
        return distil(replace(base, seed=seed, out=str(folder), resume=resume, **settings[name]), data)

    return {name: partial(make, name=name) for name in settings} | {
        "random real": lambda seed: coreset("random", data, config.ipc, seed)
    }


STUDIES: MappingProxyType[str, Callable[[AblateConfig, ImageData], dict[str, Make]]] = MappingProxyType(
    {"selectors": selectors, "guides": guides, "steps": steps, "kernels": learnt, "attention": learnt}
)
"""Studies by name; the first setting of each is what the others are compared with."""


def drawer(
    config: AblateConfig, data: ImageData, *, guide: str | None = None, guide_scale: float | None = None, **options: Any
) -> Make:
    """What samples sets with these options. The guide is prepared before the clock runs, in a time of its own."""
    model, card = load_model(config.model)
    require(card.get("fingerprint") == data.fingerprint, f"{config.model} was not trained on {config.data}.")
    device, ipc = prepare_device(config.device), config.ipc if config.budget_s is None else None
    recipe = {"weights": card["weights"], "guide": guide, "guide_scale": guide_scale, **options}

    def make(seed: int) -> DistilledSet:
        began, plugin = time.perf_counter(), make_guide(guide, scale=guide_scale)
        if plugin is not None:
            plugin.prepare(data, model.to(device), stream(seed, "guide"))
        prepared = time.perf_counter() - began
        dset = sample(
            model,
            num_per_class=ipc,
            budget_s=config.budget_s,
            seed=seed,
            guide=plugin,
            batch=config.batch,
            device=device,
            **options,
        )
        cost = {"seconds": dset.meta["cost"]["seconds"], "prepare_seconds": round(prepared, 3)}
        return DistilledSet(
            dset.images, dset.labels, new_meta(data, method="uvit", ipc=ipc, seed=seed, config=recipe, cost=cost)
        )

    return make


def run(config: AblateConfig) -> None:
    """Make and judge what is not there yet, seed after seed, so that a slow hour of the machine hits all alike."""
    out, work = Path(config.out), config.work_folder
    kept = not out.exists() or any(out.glob("*/*/scores.json"))
    require(kept, f"{out} is not one of these results. Choose another --out.")
    check_same(config, work)
    data = config.load_data(0)
    settings = STUDIES[config.study](config, data)
    places = {name: [work / slug(name) / str(seed) for seed in range(config.draws)] for name in settings}
    todo = [
        (seed, name)
        for seed in range(config.draws)
        for name in settings
        if not (places[name][seed] / "scores.json").exists()
    ]
    judge = (
        real_classifier(data, config.network, device=prepare_device(config.device))
        if config.fidelity and todo
        else None
    )
    if todo and config.study in ("guides", "steps"):
        next(iter(settings.values()))(0)  # the first images of a process take longer
    for seed, name in todo:
        label = study.set_name(name, seed)
        scores = measure(partial(settings[name], seed), label, places[name][seed], seed, config, data, judge)
        print(f"{label} of {config.draws}: {scores}", flush=True)
    write(config, places, work, out)


def check_same(config: AblateConfig, work: Path) -> None:
    """Refuse to go on in a work folder of other settings; more draws, another place or device change no score."""
    own = {key: value for key, value in to_dict(config).items() if key not in ("out", "work", "draws", "device")}
    place = work / "settings.json"
    before = read(place, dict[str, Any]) if place.exists() else own
    changed = [f"{key} {before.get(key)}, now {value}" for key, value in own.items() if before.get(key) != value]
    require(not changed, f"{work} was begun with {'; '.join(changed)}. Choose another --out or --work, or remove it.")
    files.write_json(place, own)


def measure(
    make: Callable[[], DistilledSet],
    name: str,
    folder: Path,
    seed: int,
    config: AblateConfig,
    data: ImageData,
    judge: Classifiers | None,
) -> Scores:
    """Make one set, unless its file is there, and score it; both are kept in `folder`."""
    file = folder / "distilled.safetensors"
    if not file.exists():
        make().save(file)
    dset = DistilledSet.load(file)
    options = {key: getattr(config, key) for key in ("protocol", "network", "device")}
    options |= {"runs": config.classifiers, "steps": config.classifier_iterations}
    scores = evaluate(dset, data, seed=seed, **options)
    scores = scores.with_record(set={"name": name, "path": str(folder)}, config=to_dict(config))
    if judge is not None:
        scores = scores.with_record(fidelity={"classifier_frechet": classifier_frechet(dset.images, data, judge)})
    files.write_json(folder / "scores.json", scores.to_json())
    return scores


def write(config: AblateConfig, places: Mapping[str, Sequence[Path]], work: Path, out: Path) -> None:
    """Replace `out` by the scores, once all of them are there, and print their table; the report is in `work`."""
    records = {name: [read_score(folder / "scores.json") for folder in places[name]] for name in places}
    firsts, heading = [str(several[0]) for several in places.values()], f"{config.title}, the first set of each setting"
    curves = []
    if config.study == "steps":
        numbers = {count: study.means(records[f"{count} steps"]) for count in sorted(STEPS_TRIED)}
        drawn = [key for key in ("accuracy", "images_per_s", "classifier_frechet") if key in numbers[STEPS_TRIED[0]]]
        lines = [{"step": count} | {key: found[key] for key in drawn} for count, found in numbers.items()]
        files.write_text(work / "stats.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        curves = ["--curves", str(work)]
    shutil.rmtree(work / "report", ignore_errors=True)
    report.main(["--scores", *firsts, *curves, "--title", heading, "--out", str(work / "report")])
    with files.atomic(out, replace=True) as temporary:
        for name, several in records.items():
            for seed, record in enumerate(several):
                files.write_json(temporary / slug(name) / str(seed) / "scores.json", record)
    print(f"\n# {config.title}\n\n{caption(config, records)}\n\n{markdown_table(table(records), left=frozenset({0}))}")


def table(records: study.Study) -> list[list[str]]:
    """The study's table, beside what the papers find where they say."""
    rows = study.table(records)
    if any(name in PAPERS for name in records):
        rows = [[*row, PAPERS.get(row[0], "-")] for row in rows]
        rows[0][-1] = "the paper finds it"
    return rows


def caption(config: AblateConfig, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What the numbers of the table are."""
    cut = f" cut to {config.classifier_iterations} steps (smoke)" if config.classifier_iterations else ""
    data, judges = next(iter(records.values()))[0]["data"]["name"], f"{config.classifiers} classifier(s)"
    several = (
        f"mean of {config.draws} sets per setting, {judges} each, ± the standard deviation over the sets' means. Gain: "
        "over the first row, seed by seed, with its 95 % interval (Student's t)."
    )
    once = f"one set per setting, {judges} each. Gain: over the first row."
    judged = f"{data}, protocol `{config.protocol}`{cut}, network `{config.network}`"
    said = f"{judged}: {several if config.draws > 1 else once}"
    if config.study in LEARNT:
        made = next(iter(records.values()))[0]["set"]["cost"]["iterations"]
        return f"{said} {LEARNT[config.study][0]}, {made} iterations."
    return said if config.study == "selectors" else f"{said} Seconds: of sampling one set, the median."


def slug(name: str) -> str:
    """A setting's name as a file name."""
    return "-".join("".join(c if c.isalnum() or c == "." else " " for c in name.lower()).split())


def main(argv: Sequence[str] | None = None) -> None:
    """One study."""
    run(load_config(AblateConfig, argv, prog="ablate.py"))


if __name__ == "__main__":
    cli.entry(main)
