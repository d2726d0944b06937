"""Our scores beside the numbers that papers print of the same: how far apart they are, and what was found where that
is far."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from core_dd import records
from core_dd.errors import likely, require
from core_dd.judge.options import REAL
from core_dd.judge.protocols import alike
from core_dd.judge.scores import Score, read_score
from core_dd.report import published
from core_dd.report.published import PublishedRow
from core_dd.report.ranking import plain_name
from core_dd.report.trained import regime, regime_of
from core_dd.yaml_files import read_yaml

FAR = 2.0
"""Published standard deviations beyond which a difference wants a finding."""
SMALLEST_STD = 0.05
"""What a deviation that is printed as 0.0 is at most."""
CLASSIFIERS = 5
"""By how many a set of a row of published length is judged, at least."""
FINDINGS = "findings.yaml"
"""Beside scores: what people found of rows that are far off, a sentence by the name of the row."""
UNEXPLAINED = "not looked into yet"
"""Where a row that is far off has no finding."""


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """The sets of one producer for one data set and ipc, judged alike.

    Attributes:
        producer: as a comparison names it.
        data, ipc, network, protocol: its place; ipc is None for the whole training set.
        smoke: whether anything was shortened.
        scores: of its sets.
        folder: where the first of them is kept.
        published: the paper's number, None where there is none of this data, ipc, method, network and label regime.
        planned: how many sets there are to be.
        finding: what was found of the difference; empty where nobody said.
    """

    producer: str
    data: str
    ipc: int | None
    network: str
    protocol: str
    smoke: bool
    scores: Sequence[Score]
    folder: Path
    published: PublishedRow | None
    planned: int
    finding: str = ""

    @property
    def name(self) -> str:
        """By which a finding is of it, see `row_name`."""
        return row_name(self.producer, self.data, self.ipc, self.network, self.protocol)

    @property
    def mean(self) -> float:
        """Accuracy in %, each set counting alike."""
        return 100 * statistics.fmean(score["mean"] for score in self.scores)

    @property
    def std(self) -> float | None:
        """Standard deviation in % over all classifiers of all sets, as papers have it; None for a single classifier."""
        own = [100 * value for score in self.scores for value in score["accuracies"]]
        return statistics.stdev(own) if len(own) > 1 else None

    @property
    def classifiers(self) -> list[int]:
        """How many judged each set."""
        return [len(score["accuracies"]) for score in self.scores]

    @property
    def short(self) -> bool:
        """Whether, of what was not shortened, sets or classifiers are fewer than they should be."""
        return not self.smoke and (len(self.scores) < self.planned or min(self.classifiers) < CLASSIFIERS)

    @property
    def difference(self) -> float | None:
        """See `beyond`."""
        return beyond(self.mean, self.published, [self.protocol])

    @property
    def far(self) -> bool:
        """Whether the difference wants a finding: more than `FAR` published deviations, of what was not shortened."""
        return not self.smoke and self.difference is not None and abs(self.difference) > FAR

    @property
    def said(self) -> str:
        """The finding; of a row that is far off and has none, that it has none."""
        return self.finding or (UNEXPLAINED if self.far else "")

    @property
    def iterations(self) -> float | None:
        """Of the distillations; None for sets that are not distilled, or differ."""
        found = {(score["set"].get("cost") or {}).get("iterations") for score in self.scores}
        return found.pop() if len(found) == 1 else None

    @property
    def making(self) -> float | None:
        """Seconds that making a set took on the average, without what several share; None where that is not known."""
        found = [(s["set"].get("cost") or {}).get("seconds", s.get("making_seconds")) for s in self.scores]
        known = [seconds for seconds in found if seconds is not None]
        return statistics.fmean(known) if len(known) == len(found) else None

    @property
    def judging(self) -> float:
        """Seconds that judging a set took, on the average."""
        return statistics.fmean(score["seconds"] for score in self.scores)

    @property
    def machine(self) -> str:
        """Where the sets were judged, as far as the scores say."""
        return " and ".join(dict.fromkeys(s.get("machine") or s.get("device", "") for s in self.scores))


def reproduced(folders: Sequence[Path], planned: Mapping[str, int] = MappingProxyType({})) -> list[Reproduced]:
    """The rows of the scores kept in some folders, however many of them are there yet: those of `planned` in its order,
    then the others.

    Rows of several folders that were not shortened and are of the same method, data, ipc, network, protocol and label
    regime become one: where it has fewer sets than planned, or sets judged by fewer than `CLASSIFIERS`, a later folder
    adds those of its sets that are not there yet.

    Args:
        folders: where they are.
        planned: how many sets of every row there are to be, by its name; rows get the names that they have there.

    Raises:
        InputError: a file that is no score; findings of rows that are not there.
    """
    names = {_alike(name): name for name in planned}
    found: dict[tuple[object, ...], Reproduced] = {}
    for folder in folders:
        for key, scores in _kept(folder).items():
            name = names.get(str(key[0]), row_name(*place_of(scores[0])))
            before = found.get(key)
            if before is None:
                found[key] = _row(name, scores, folder, planned.get(name, 0))
            elif before.short:
                there = {score["set"]["hash"] for score in before.scores}
                more = [score for score in scores if score["set"]["hash"] not in there]
                found[key] = _row(name, [*before.scores, *more], before.folder, planned.get(name, 0))
    findings = {}
    known = [row.name for row in found.values() if not row.smoke]
    for folder in folders:
        for name, said in _findings(folder).items():
            require(name in known, f"{folder / FINDINGS} is about {name}, which is no row there{likely(name, known)}")
            findings[name] = said
    rows = [replace(row, finding="" if row.smoke else findings.get(row.name, "")) for row in found.values()]
    order = list(planned)
    return sorted(rows, key=lambda row: order.index(row.name) if row.name in planned else len(order))


def _kept(folder: Path) -> dict[tuple[object, ...], list[Score]]:
    """The scores in a folder by what those of one row share; shortened ones share nothing with another folder's."""
    found: dict[tuple[object, ...], list[Score]] = {}
    for path in sorted(folder.rglob("scores.json")):
        score = read_score(path)
        name, data = _alike(row_name(*place_of(score))), score["data"]["fingerprint"]
        key = name, data, regime_of(score), folder if score["smoke"] else None
        found.setdefault(key, []).append(score)
    return found


def _row(name: str, scores: Sequence[Score], folder: Path, planned: int) -> Reproduced:
    """The row of some scores, without a finding."""
    _, data, ipc, network, protocol = place_of(scores[0])
    producer = name.partition("/")[0]
    return Reproduced(
        producer=producer,
        data=data,
        ipc=ipc,
        network=network,
        protocol=protocol,
        smoke=scores[0]["smoke"],
        scores=scores,
        folder=folder,
        published=published_row(data, ipc, producer, network, regime_of(scores[0]), protocol),
        planned=max(planned, len(scores)),
    )


def missing(folders: Sequence[Path], planned: Mapping[str, int]) -> dict[str, int]:
    """How many sets of the rows of `planned`, see `reproduced`, have no score in these folders, by the row's name."""
    there = {row.name: len(row.scores) for row in reproduced(folders, planned) if not row.smoke}
    return {name: count - there.get(name, 0) for name, count in planned.items() if count > there.get(name, 0)}


def published_row(
    data: str, ipc: int | None, method: str, network: str, labels: str = "hard", protocol: str = ""
) -> PublishedRow | None:
    """The accuracy that a paper prints of a method, by its `plain_name`, of no other label regime; one of the same
    protocol before others, then one with a deviation before one without."""
    rows = [
        row
        for row in published.rows(data, ipc)
        if row.percent is not None and plain_name(row.method) == plain_name(method) and row.network in (network, "")
        and (ipc is not None or plain_name(row.method) == plain_name(REAL)) and regime(row.labels) in (labels, "")
    ]  # fmt: skip

    def nearness(row: PublishedRow) -> tuple[bool, ...]:
        return row.network == network, alike(row.protocol, protocol), row.std is not None

    return max(rows, key=nearness, default=None)


def beyond(mean: float, theirs: PublishedRow | None, protocols: Iterable[str]) -> float | None:
    """By how many published standard deviations a mean, in %, is above the published one.

    Args:
        mean: ours.
        theirs: the published number; a deviation that is printed as 0.0 is taken for `SMALLEST_STD`.
        protocols: by which our classifiers were trained.

    Returns:
        None where no number or no deviation is printed, or theirs are known to be trained otherwise.
    """
    if theirs is None or theirs.percent is None or theirs.std is None:
        return None
    if theirs.protocol and not all(alike(own, theirs.protocol) for own in protocols):
        return None
    return (mean - theirs.percent) / max(theirs.std, SMALLEST_STD)


def place_of(score: Score) -> tuple[str, str, int | None, str, str]:
    """Producer, data, ipc (None for the whole training set), network and protocol of a score.

    The sets of comparisons are called "DM ipc 1, seed 0", after their producer; "random real" are those that random
    chose of the real images. Of other sets the producer is the method.
    """
    dset = score["set"]
    method = str(dset["method"])
    named = re.fullmatch(r"(.+) ipc \d+, seed \d+", dset.get("name") or "")
    producer = named[1] if named and named[1] != f"{method} real" else method
    return producer, score["data"]["name"], dset["ipc"], score["network"], score["protocol"]


def row_name(producer: str, data: str, ipc: int | None, network: str, protocol: str) -> str:
    """What a row is called: DM/cifar10/ipc10/convnet3/dm."""
    return "/".join([producer, data, REAL if ipc is None else f"ipc{ipc}", network, protocol])


def _alike(name: str) -> str:
    """The name of a row, its producer by the `plain_name`."""
    producer, _, rest = name.partition("/")
    return f"{plain_name(producer)}/{rest}"


def _findings(folder: Path) -> dict[str, str]:
    """Sentences by the names of rows; empty where nobody wrote any."""
    if not (folder / FINDINGS).exists():
        return {}
    hint = "Write lines such as DM/cifar10/ipc10/convnet3/dm: what was found."
    return records.checked(read_yaml(folder / FINDINGS), dict[str, str], str(folder / FINDINGS), hint)
