"""Command: a distilled set -> scores.json, the record of classifiers trained on it and tested once on real images."""

import contextlib
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from core_dd import cli, files
from core_dd.config import load_config, to_dict, to_yaml, with_first
from core_dd.data.images import ImageData
from core_dd.errors import Diverged, InputError, whole
from core_dd.judge import across, costs, ddranking, habits, membership, permuted, protocols, robustness, training
from core_dd.judge import teacher as teaching
from core_dd.judge.chance import at_chance, below_chance, chance, mean_interval
from core_dd.judge.measures import Measuring, Meter
from core_dd.judge.networks import NetworkLike, build_network, name_of
from core_dd.judge.options import REAL, EvaluateConfig
from core_dd.judge.protocols import Protocol, TrainingPlan
from core_dd.judge.unfinished import beside
from core_dd.notes import note
from core_dd.run import claimed_file, find_folder
from core_dd.sets.distilled import DistilledSet, flags, new_meta, versions
from core_dd.sets.learnt import warn_of
from core_dd.speed import peak_mib, prepare_device

SCORES = "scores.json"


@dataclass(frozen=True)
class Scores:
    """What a set is worth.

    `accuracies` are fractions of the real test set, one per classifier; `record` is everything else in scores.json:
    protocol, network and its number of parameters, runs, seed, smoke; `chance`, the accuracy of who does not look, and
    `at_chance`, whether these cannot be told from it (`core_dd.judge.chance`); `set` (name, path, method, ipc, images,
    hash, labels: hard or soft, factor, bytes, cost), `label_regime` (labels of the set, or
    teacher), `data` (name, fingerprint, training and test images); `answers` by
    class (`core_dd.judge.answers`) and `training_cost` (`core_dd.judge.costs`); the protocol as it was resolved, the
    config, versions, device, seconds; `curves` (training loss of each run at `curve_steps`), `permuted` where the
    labels look so and, if asked for, `fidelity` and `best_of_test`.
    """

    accuracies: list[float]
    record: Mapping[str, Any] = field(default_factory=dict)

    def with_record(self, **more: Any) -> "Scores":
        """The same accuracies with more in the record; a dict is merged into the one that stands there."""
        record = dict(self.record)
        for key, value in more.items():
            own = record.get(key)
            record[key] = own | value if isinstance(own, dict) and isinstance(value, dict) else value
        return replace(self, record=record)

    @property
    def mean(self) -> float:
        """Mean accuracy, a fraction."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation over the classifiers (n - 1 below the sum); 0 for a single one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    @property
    def ci95(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean, within [0, 1]: `core_dd.judge.chance.mean_interval`; None for a single
        classifier."""
        return mean_interval(self.accuracies)

    def to_json(self) -> dict[str, Any]:
        """The content of scores.json."""
        summary = {"mean": self.mean, "std": self.std, "ci95": self.ci95 and list(self.ci95)}
        return {"accuracies": self.accuracies, **summary, **self.record}

    def __str__(self) -> str:
        interval = f", 95 % interval {100 * self.ci95[0]:.2f} to {100 * self.ci95[1]:.2f}" if self.ci95 else ""
        shortened = " [smoke]" if self.record.get("smoke") else ""
        lost = " [not told from chance]" if self.record.get("at_chance") else ""
        spread = f" +- {100 * self.std:.2f}" if len(self.accuracies) > 1 else ""
        return f"{100 * self.mean:.2f}{spread} % over {len(self.accuracies)}{interval}{shortened}{lost}"


def evaluate(
    dset: DistilledSet,
    data: ImageData,
    protocol: str = "dm",
    network: NetworkLike = "convnet3",
    runs: int | None = 5,
    seed: int = 0,
    device: str | torch.device | None = None,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    augment: str | None = None,
    teacher: str | None = None,
    bf16: bool = True,
    with_fidelity: bool | Measuring = False,
    with_membership: bool | membership.ShadowMaker = False,
    with_robustness: bool = False,
    with_ddranking: bool | str = False,
    with_best_of_test: bool = False,
    earlier: Sequence[DistilledSet] = (),
    unfinished: Path | None = None,
) -> Scores:
    """Train `runs` classifiers on a set and test each once on the real test images.

    Args:
        dset: the set; its own preprocessing is used where it has one, else mean and std of `data`.
        data: the real data it stands for.
        protocol: a key of `PROTOCOLS`.
        network: one, as `build_network` takes it: a name, a function of (in_shape, num_classes), or an `nn.Module`, of
            which copies are trained, from new weights.
        runs: classifiers; None: as many as the protocol says.
        seed: of the classifiers' initial weights, batches and augmentation.
        device: where; None: CUDA where there is one.
        epochs, steps: shorten the protocol; the score is marked smoke, and its protocol's name says to what.
        augment: in place of the protocol's augmentation, see `core_dd.judge.protocols.Protocol.augmented`; so named.
        teacher: for a protocol that has one, a file of its weights, see `core_dd.judge.teacher.teacher_of`.
        bf16: compute in bf16 where the hardware does it faster.
        with_fidelity: also measure the set's distance from the real images; True: in the ways of `Measuring()`.
        with_membership: also ask what the classifiers give away of their images, see `core_dd.judge.membership`; a
            function (data, seed) -> set that makes the set's like of half the training images makes its shadow sets.
        with_robustness: also attack and corrupt test images, see `core_dd.judge.robustness`.
        with_ddranking: also give LRS and ARS, see `core_dd.judge.ddranking.scores_of`; True, or its `real`.
        with_best_of_test: also record what the protocol's authors report, who choose by the test set, among `earlier`,
            the set at other times of its distillation, too; one whose classifiers diverge is not the best.
        unfinished: a file that keeps these classifiers while they train, every few minutes, so that the same call goes
            on from it after a kill; it stays, for whoever keeps the scores to remove once they are written.

    Raises:
        InputError: a set that is unsound or not made from `data`, an unknown name, a network that cannot take the
            images; a damaged `unfinished`.
    """
    start, device = time.perf_counter(), prepare_device(None if device is None else str(device))
    _check((dset, *earlier), data, seed, runs)
    resolved = protocols.resolved(protocol, epochs, steps, augment).fitted_to(dset.meta.get("lr"))
    numbers = range(resolved.runs if runs is None else runs)
    same = {"network": network, "seed": seed, "device": device, "bf16": bf16}
    changed = {"epochs": epochs, "steps": steps, "augment": augment, "teacher": teacher}
    again = partial(evaluate, data=data, protocol=protocol, runs=len(numbers), **same, **changed)
    pauses = habits.habit(protocol).tests if with_best_of_test else ()
    meter = _meter(with_fidelity, dset, data, **same)
    if with_membership:
        membership.check(data)
    ddranking.check(with_ddranking, resolved, dset, data, name_of(network))
    judge = teaching.teacher_of(resolved, data, seed, device, teacher, bf16)
    how = {"protocol": resolved, "runs": numbers, "teacher": judge, **same}
    classifiers = _trained(dset, data, pauses, unfinished, how)
    accuracies, judged = _judged(classifiers, data)
    record = _settings(resolved, network, numbers, seed, device) | judged | _identities(dset, data, resolved)
    seconds = classifiers.earlier_seconds + time.perf_counter() - start
    record |= {"seconds": seconds, **teaching.said_of(judge, resolved, data, teacher)}
    record |= {} if meter is None else meter.measure(*dset.as_trained())
    if with_membership:
        make = None if with_membership is True else with_membership
        record["membership"] = membership.inferred(classifiers, dset, data, make=make, **how)
    if with_robustness:
        record["robustness"] = robustness.robustness(classifiers, data)
    if with_ddranking:
        beside = ddranking.random_like(dset, data, **same), real_set(data, seed)
        own = Scores(accuracies, record).to_json()
        augmented = resolved.augmentation(data, name_of(network)) is not None or resolved.cutmix > 0
        record["ddranking"] = ddranking.scores_of(own, dset, *beside, again, with_ddranking, augmented=augmented)
    if with_best_of_test:
        record["best_of_test"] = habits.chosen(accuracies, classifiers.paused, _tested(earlier, again))
    return Scores(accuracies, record)


def _trained(
    dset: DistilledSet, data: ImageData, pauses: Sequence[float], unfinished: Path | None, how: Mapping[str, Any]
) -> training.Classifiers:
    """Classifiers trained on a set, with their accuracies after these parts of the training."""
    return training.train(
        *dset.as_trained(),
        data,
        preprocess=dset.preprocess,
        pauses=pauses,
        at_pause=lambda half: half.accuracies(data.test_images, data.test_labels),
        unfinished=unfinished,
        **how,
    )


def _meter(asked: bool | Measuring, dset: DistilledSet, data: ImageData, **options: Any) -> Meter | None:
    """What measures the distances of a set's images, as far as they are asked for and can be."""
    if not asked:
        return None
    meter = Meter(Measuring() if asked is True else asked, data, **options)
    meter.check(len(dset.as_trained()[0]))
    return meter


def _check(sets: Sequence[DistilledSet], data: ImageData, seed: int, runs: int | None) -> None:
    """Refuse sets that are unsound or not made from `data`, and numbers that are none."""
    whole("seed", seed)
    if runs is not None:
        whole("runs", runs, 1)
    for dset in sets:
        dset.check(data)


def _settings(
    protocol: Protocol, network: NetworkLike, numbers: range, seed: int, device: torch.device
) -> dict[str, Any]:
    """How the classifiers were trained, as the record begins."""
    return {
        "protocol": protocol.name,
        "network": name_of(network),
        "runs": len(numbers),
        "seed": seed,
        "smoke": protocol.smoke,
        "resolved_protocol": to_dict(protocol),
        "std_kind": "sample",
        "versions": versions(),
        "device": str(device),
    }


def _judged(classifiers: training.Classifiers, data: ImageData) -> tuple[list[float], dict[str, Any]]:
    """The accuracies of trained classifiers, tested once, and what else of them stands in the record."""
    answers = classifiers.answers(data.test_images, data.test_labels)
    luck = chance(data.test_labels)
    return answers.accuracies, {
        "parameters": classifiers.parameters,
        "chance": luck,
        "at_chance": at_chance(answers.accuracies, luck, len(data.test_labels)),
        "answers": answers.to_record(),
        "training_cost": costs.training_cost(classifiers, data),
        "curve_steps": classifiers.curve_steps,
        "curves": {"loss": classifiers.curve_loss},
    }


def _tested(sets: Sequence[DistilledSet], again: Callable[[DistilledSet], Scores]) -> list[list[float]]:
    """The accuracies of each set by `evaluate` likewise, but of those whose classifiers diverge."""
    found = []
    for dset in sets:
        with contextlib.suppress(Diverged):
            found.append(again(dset).accuracies)
    return found


def _identities(dset: DistilledSet, data: ImageData, protocol: Protocol) -> dict[str, Any]:
    """What was scored on what, and by whose labels, for the record."""
    own = "soft" if dset.labels.is_floating_point() else "hard"
    return {
        "label_regime": "teacher" if protocol.teacher else own,
        "set": {
            "name": None,
            "path": None,
            "method": dset.meta.get("method"),
            "ipc": dset.meta.get("ipc"),
            "images": len(dset),
            "hash": dset.digest(),
            "labels": own,
            **dset.trained_as,
            "bytes": costs.bytes_of(dset),
            "cost": dset.meta.get("cost"),
            **({"validation": dset.meta["validation"]} if "validation" in dset.meta else {}),
        },
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train_images": len(data.train_images),
            "test_images": len(data.test_images),
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Check, score, write."""
    argv = switched(with_first(sys.argv[1:] if argv is None else argv, "set"))
    config = load_config(EvaluateConfig, argv, prog="gendd evaluate")
    if config.set == REAL and config.told():
        note(
            f"note: what {flags(config.told())} says is of another code's file, and {REAL} is none: it changes nothing."
        )
    out, several = config.out or (None if config.set == REAL else _beside(Path(config.set))), len(config.networks) > 1
    data = config.load_data(config.seed)
    dset = real_set(data, config.seed) if config.set == REAL else DistilledSet.load(config.set, data, **config.told())
    dset.check(data, where=config.set)
    if out is not None and not several and not config.dry_run:
        files.require_new(Path(out))
    warn_of(dset.meta, config.set)
    choosing = config.best_of_test and habits.habit(config.protocol).sets
    earlier = habits.earlier_sets(Path(config.set), dset) if choosing else []
    if config.membership:
        membership.check(data)
    for network in config.networks:
        build_network(network, data.shape, data.num_classes)
        ddranking.check(config.compared, config.resolved, dset, data, network)
        if config.dry_run or several:  # one network alone is about to be asked
            options = {"network": network, "seed": config.seed, "device": prepare_device(config.device)}
            _meter(measuring_of(config), dset, data, **options, bf16=config.bf16)
    name = f"{data.name}-{REAL}"
    if config.dry_run:
        place = out or find_folder(None, name, resume=False) / SCORES
        for own, each in _each(config, Path(place)) if several else ():
            across.finished(each, own, dset, data)
        said = [f"# {_forecast(dset, data, own)}, to {place}" for own, place in _each(config, Path(place))]
        print(to_yaml(config) + "\n".join(said))
    elif several:
        with contextlib.nullcontext(out) if out else claimed_file(None, name, SCORES) as out:
            _score_all(config, dset, data, earlier, Path(out))
    else:
        _score(config, dset, data, earlier, out)


def switched(argv: Sequence[str]) -> list[str]:
    """Arguments with --fidelity and --no_fidelity, which may stand alone, as an option with a value."""
    words = []
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue="--"):
        flag = word.replace("-", "_")
        alone = flag == "__fidelity" and following.startswith("-")
        words.append("--fidelity=true" if alone else "--fidelity=false" if flag == "__no_fidelity" else word)
    return words


def measuring_of(config: EvaluateConfig) -> Measuring | bool:
    """What the command is asked to measure, or False."""
    if not config.measures:
        return False
    return Measuring(config.measures, config.inception_weights, config.fidelity_images, config.fidelity_per_class)


def _each(config: EvaluateConfig, out: Path) -> list[tuple[EvaluateConfig, Path]]:
    """The config of every network alone, and the file of its score."""
    if len(config.networks) == 1:
        return [(config, out)]
    return [(replace(config, network=network), across.place_of(out, network)) for network in config.networks]


def _score_all(
    config: EvaluateConfig, dset: DistilledSet, data: ImageData, earlier: Sequence[DistilledSet], out: Path
) -> None:
    """Score by every network whose score is not there yet, and print all of them as a table."""
    found = [(own, place, across.finished(place, own, dset, data)) for own, place in _each(config, out)]
    records = []
    for own, place, record in found:
        if record is not None:
            print(f"{place} is there already")
        records.append(record or _score(own, dset, data, earlier, place))
    print(f"\n{config.name or config.set} on {data.name}, {records[0]['protocol']}\n{across.table(records)}")


def _score(
    config: EvaluateConfig,
    dset: DistilledSet,
    data: ImageData,
    earlier: Sequence[DistilledSet],
    out: str | Path | None,
) -> dict[str, Any]:
    """Score by one network, write the record to `out` (None: into the next folder of the data) and return it."""
    with claimed_file(out, f"{data.name}-{REAL}", SCORES) as out:
        scores = evaluate(
            dset,
            data,
            protocol=config.protocol,
            network=config.network,
            runs=config.classifiers,
            seed=config.seed,
            device=config.device,
            epochs=config.epochs,
            steps=config.iterations,
            augment=config.augment,
            teacher=config.teacher,
            bf16=config.bf16,
            with_fidelity=measuring_of(config),
            with_membership=config.membership,
            with_robustness=config.robustness,
            with_ddranking=config.compared,
            with_best_of_test=config.best_of_test,
            earlier=earlier,
            unfinished=beside(out),
        )
        scores = scores.with_record(
            set={"name": config.name, "path": None if config.set == REAL else config.set},
            smoke=scores.record["smoke"] or config.smoke or (config.set == REAL and config.limit_per_class is not None),
            config=to_dict(config),
        )
        files.write_json(out, scores.to_json())  # the score stands, whatever the look at the labels comes to
        files.remove(beside(out))
        found = _look_for_permuted_labels(dset, data, scores, config)
        if found is not None:
            scores = scores.with_record(permuted=found.to_json())
            files.write_json(out, scores.to_json())
    judge = f"{scores.record['protocol']}, {config.network}"
    print(f"{config.name or config.set} on {data.name}, {judge}: {scores}\n{out}")
    if scores.record["at_chance"]:
        note(_warning(config.name or config.set, scores, data.num_classes))
    if found is not None:
        note(found.warning(config.set, data.class_names))
    return scores.to_json()


def _look_for_permuted_labels(
    dset: DistilledSet, data: ImageData, scores: Scores, config: EvaluateConfig
) -> permuted.Permuted | None:
    """Where classifiers learnt nothing from a set: whether its labels look permuted. Scores of too short a training do
    not ask, unless they are below chance."""
    below = _below(scores, data.num_classes)
    if config.set == REAL or not (below or (scores.record["at_chance"] and not scores.record["smoke"])):
        return None
    try:
        return permuted.look(dset, data, config.network, config.seed, prepare_device(config.device))
    except InputError as error:
        note(f"note: whether the labels of {config.set} are permuted was not looked at: {error}")
        return None


def _below(scores: Scores, classes: int) -> bool:
    """Whether classifiers are wrong more often than by guessing evenly: what balanced sets teach may well lie below the
    share of the largest class."""
    return below_chance(scores.accuracies, 1 / classes, scores.record["data"]["test_images"])


def _warning(name: str, scores: Scores, classes: int) -> str:
    """What to say of a score that cannot be told from chance, or lies below."""
    luck, low = scores.record["chance"], f"WARNING: {name}: {100 * scores.mean:.1f} %"
    if _below(scores, classes):
        return (
            f"{low} is below chance, {100 / classes:.1f} %: the set teaches its classes under the names of others. Are "
            "its labels numbered as those of the data?"
        )
    of_set = (
        "the set teaches nothing: look at its pictures, and where a generator drew it at learnt.json in its folder; or "
    )
    return (
        f"{low} by {len(scores.accuracies)} classifier(s) cannot be told from "
        f"chance, {100 * luck:.1f} % (the share of the largest class of the test images). Either "
        f"{'' if name == REAL else of_set}the training was cut too short, or there are too few of them (--classifiers)."
    )


def _forecast(dset: DistilledSet, data: ImageData, config: EvaluateConfig) -> str:
    """How long the training will be and what it will take, from a step of it."""
    protocol = config.resolved.fitted_to(dset.meta.get("lr"))
    options = {"network": config.network, "runs": config.classifiers, "seed": config.seed, "device": config.device}
    found = measured(dset, data, protocol, **options, bf16=config.bf16)
    said = (
        f"{found.classifiers} classifiers, {found.plan.steps} steps of {found.plan.batch} images each: "
        f"about {found.seconds / 60:.1f} minutes and {found.mib:.0f} MiB"
    )
    if config.compared is True:
        real = measured(real_set(data, config.seed), data, protocol, **options, bf16=config.bf16)
        said += f", those of all real images about {real.seconds / 60:.1f} minutes more"
    return said


class _Measured(NamedTuple):
    """What training the classifiers of a score takes."""

    classifiers: int
    plan: TrainingPlan
    seconds: float
    mib: float
    """Memory at its peak, in MiB."""


def measured(
    dset: DistilledSet,
    data: ImageData,
    protocol: Protocol,
    *,
    network: str,
    runs: int | None,
    seed: int,
    device: str | None,
    bf16: bool = True,
) -> _Measured:
    """What training classifiers takes, from a step of it, a teacher's own training left out; `protocol` is resolved,
    the others are those of `evaluate`."""
    place = prepare_device(device)
    trained = training.Training(
        *dset.as_trained(),
        data,
        protocol=protocol,
        network=network,
        runs=range(runs or protocol.runs),
        seed=seed,
        device=place,
        preprocess=dset.preprocess,
        bf16=bf16,
        teacher=teaching.untrained(protocol, data, place),
    )
    trained.step(0)  # compiles, where that pays
    start = time.perf_counter()
    trained.step(trained.plan.per_pass).tolist()
    seconds = trained.plan.steps * (time.perf_counter() - start)
    return _Measured(len(trained.runs), trained.plan, seconds, peak_mib(place))


def real_set(data: ImageData, seed: int) -> DistilledSet:
    """All real training images as a set."""
    return DistilledSet(data.train_images, data.train_labels, new_meta(data, method=REAL, ipc=None, seed=seed))


def _beside(place: Path) -> Path:
    """The scores.json of a set: in its folder."""
    return (place if place.is_dir() else place.parent) / SCORES


if __name__ == "__main__":
    cli.entry(main)
