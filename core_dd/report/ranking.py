"""Scores side by side: read scores.json files, put together what may be compared, and rank it."""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core_dd.errors import require
from core_dd.judge import across
from core_dd.judge.chance import at_chance, mean_interval
from core_dd.judge.evaluate import REAL
from core_dd.judge.fidelity import MOMENTS
from core_dd.judge.protocols import PROTOCOLS, alike
from core_dd.judge.scores import read_score
from core_dd.notes import printable
from core_dd.report import published
from core_dd.report.charts import CHANCE_NAME
from core_dd.report.published import PublishedRow
from core_dd.report.tables import text_table
from core_dd.report.trained import (
    UNKNOWN,
    optimiser_of,
    published_images_seen,
    published_optimiser,
    regime,
    regime_said,
    told,
)
from core_dd.run import STATS

UVIT = "uvit"
"""What a set that holds all that a generator drew says its method is."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One score; accuracies in percent."""

    file: Path
    label: str
    method: str
    ipc: int | None
    images: int
    data: str
    fingerprint: str
    protocol: str
    network: str
    accuracies: tuple[float, ...]
    mean: float
    std: float
    interval: tuple[float, float] | None
    """95 % interval of the mean (`core_dd.judge.chance.mean_interval`), within 0..100; None for a single run."""
    chance: float | None
    """What not looking at the images would have scored; None where the score does not say."""
    at_chance: bool
    """Whether the score cannot be told from that."""
    seconds: float
    """What the score took: training the classifiers and testing them."""
    made_in: float | None
    """Seconds that making the set took, as its file says."""
    smoke: bool
    labels: str
    """hard, soft where the set brings them, or teacher where one relabels it; hard where the score does not say."""
    factor: int | None
    """Every image holds factor x factor smaller ones; None where the score does not say."""
    optimiser: str | None
    """What the classifiers were trained by; None where the score does not say."""
    images_seen: int | None
    """By one classifier, each as often as it was; None where the score does not say."""
    distances: dict[str, float]
    """Fidelity of the set under the names in the score, e.g. classifier_frechet."""
    record: dict[str, Any]
    """The whole scores.json."""
    best_of_test: tuple[float, float] | None = None
    """Mean and standard deviation where several tests were chosen from, as the protocol's authors do; None where not
    asked for."""
    rank: int | None = None
    """Place within its group, 1 is best; None for smoke scores."""
    close: bool = False
    """Whether its interval overlaps that of the entry ranked just above."""

    @property
    def size(self) -> str:
        """By what sets are ranked apart: their images per class, or images where these are not said."""
        return f"{self.images:,} images" if self.ipc is None else f"ipc {self.ipc}"

    @property
    def is_reference(self) -> bool:
        """Whether it is of the real training images, with which no set is ranked."""
        return self.method == REAL

    @property
    def is_pool(self) -> bool:
        """Whether it is of all that a generator drew, however many."""
        return self.method == UVIT

    @property
    def digest(self) -> str:
        """The hash of the set, which tells sets apart whatever they are called."""
        return self.record["set"]["hash"]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Scores that compare: same data, protocol, network and label regime. Those of one size are ranked together."""

    data: str
    fingerprint: str
    protocol: str
    network: str
    labels: str
    entries: tuple[Entry, ...]
    """By size, the smallest first, and of each the ranked ones, best first, then smoke scores; last the real training
    images."""

    @property
    def title(self) -> str:
        """What the group measured."""
        return f"{self.data}, protocol {self.protocol}, network {self.network}{regime_said(self.labels)}"

    @property
    def chance(self) -> float | None:
        """What not looking at the images would score, in percent; None where no score says."""
        return next((entry.chance for entry in self.entries if entry.chance is not None), None)

    @property
    def references(self) -> dict[str, float]:
        """Accuracies in percent that bound the others, by name: of the real training images, and of chance."""
        found = {entry.label: entry.mean for entry in self.entries if entry.is_reference}
        return found if self.chance is None else {**found, CHANCE_NAME: self.chance}

    def by_size(self) -> "dict[str, Group]":
        """The rankings, each with the references; of the real training images alone, these."""
        sizes = dict.fromkeys(entry.size for entry in self.entries if not entry.is_reference)
        if not sizes:
            return {"the real training images": self}
        return {
            size: replace(self, entries=tuple(own for own in self.entries if own.is_reference or own.size == size))
            for size in sizes
        }

    @property
    def chosen_by_test(self) -> bool:
        """Whether any entry has a best_of_test."""
        return any(entry.best_of_test is not None for entry in self.entries)

    @property
    def distances(self) -> list[str]:
        """The names of the fidelity measures any entry has."""
        return sorted({name for entry in self.entries for name in entry.distances})


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A method's published values at one ipc, and ours where method, network and label regime are the same."""

    method: str
    ipc: int | None
    network: str
    """Empty where the source names none."""
    labels: str
    """The label regime; empty where the source does not say."""
    factor: int | None
    protocol: str
    """Of the published values, or of ours where there are none; empty where the source does not say."""
    published: tuple[PublishedRow, ...]
    ours: tuple[Entry, ...]

    @property
    def ranked_with(self) -> tuple[str, str] | None:
        """What lines that may be ranked together share: label regime and how classifiers are trained; None where one
        of them is not known."""
        if not (self.labels and self.protocol):
            return None
        return regime(self.labels), next((name for name in PROTOCOLS if alike(name, self.protocol)), self.protocol)

    @property
    def images_seen(self) -> tuple[str, ...]:
        """By a classifier: of the published values, then of ours where that differs."""
        theirs = [told(published_images_seen(row)) for row in self.published]
        return tuple(dict.fromkeys([*theirs, *(told(entry.images_seen) for entry in self.ours)]))

    @property
    def optimiser(self) -> tuple[str, ...]:
        """Likewise."""
        theirs = [told(published_optimiser(row)) for row in self.published]
        return tuple(dict.fromkeys([*theirs, *(told(entry.optimiser) for entry in self.ours)]))

    @property
    def protocols(self) -> tuple[str, ...]:
        """Likewise."""
        theirs = [row.protocol or UNKNOWN for row in self.published]
        return tuple(dict.fromkeys([*theirs, *(entry.protocol for entry in self.ours)]))

    @property
    def factors(self) -> tuple[str, ...]:
        """Likewise."""
        theirs = [told(row.factor) for row in self.published]
        return tuple(dict.fromkeys([*theirs, *(told(entry.factor) for entry in self.ours)]))


def matches(place: str | Path) -> list[str]:
    """What a glob pattern matches of folders with scores or curves of training, and of JSON files, in order; nothing of
    a place that is there."""
    if Path(place).exists():
        return []
    found = [Path(own) for own in sorted(glob.glob(str(place)))]
    folders = [own for own in found if own.is_dir() and (across.files_in(own) or any(own.rglob(STATS)))]
    return [str(own) for own in found if own in folders or (own.is_file() and own.suffix == ".json")]


def find_scores(places: Sequence[str | Path]) -> list[Path]:
    """The scores.json files (of several networks: scores-NETWORK.json) meant by files, folders (searched to the bottom)
    and glob patterns, in order, each once.

    Raises:
        InputError: if a place holds none.
    """
    found: dict[Path, Path] = {}
    for place in places:
        path = Path(place)
        if path.is_dir():
            hits = across.files_in(path)
        elif path.is_file():
            hits = [path]
        else:
            hits = [file for match in matches(place) for file in find_scores([match])]
        require(bool(hits), f"no scores at {place}: expected a scores.json, a folder that holds some, or a pattern.")
        found |= {hit.resolve(): hit for hit in hits if hit.resolve() not in found}
    return list(found.values())


def read_entry(path: Path) -> Entry:
    """One scores.json as an entry, checked.

    Raises:
        InputError: if the file is no score, or its numbers cannot be true together, see
            `core_dd.judge.scores.read_score`.
    """
    record = printable(read_score(path))
    accuracies, chance, dset, data = record["accuracies"], record.get("chance"), record["set"], record["data"]
    interval, chosen = mean_interval(accuracies), record.get("best_of_test")
    return Entry(
        file=path,
        label=_label(dset),
        method=str(dset["method"]),
        ipc=dset["ipc"],
        images=dset["images"],
        data=data["name"],
        fingerprint=data["fingerprint"],
        protocol=record["protocol"],
        network=record["network"],
        accuracies=tuple(100 * value for value in accuracies),
        mean=100 * record["mean"],
        std=100 * record["std"],
        interval=interval and (100 * interval[0], 100 * interval[1]),
        chance=None if chance is None else 100 * chance,
        at_chance=chance is not None and at_chance(accuracies, chance, data["test_images"]),
        seconds=record["seconds"],
        made_in=(dset.get("cost") or {}).get("seconds"),
        smoke=record["smoke"],
        labels=record.get("label_regime", dset.get("labels", "hard")),
        factor=dset.get("factor"),
        optimiser=optimiser_of(record.get("resolved_protocol") or {}),
        images_seen=record.get("training_cost", {}).get("images_seen"),
        distances=record.get("fidelity") or {},
        best_of_test=chosen and (100 * chosen["mean"], 100 * chosen["std"]),
        record=record,
    )


def grouped(entries: Sequence[Entry]) -> list[Group]:
    """Put together scores of the same data, protocol, network and label regime, and rank those of one size; smoke
    scores come after them, without a rank, and the real training images last."""
    groups = []
    for key in dict.fromkeys(map(_comparable, entries)):
        mine = _told_apart([entry for entry in entries if _comparable(entry) == key])
        sets = sorted(
            (entry for entry in mine if not entry.is_reference),
            key=lambda entry: (entry.ipc is None, entry.ipc or entry.images),
        )
        sizes = dict.fromkeys(entry.size for entry in sets)
        ordered = [own for size in sizes for own in _ranked([entry for entry in sets if entry.size == size])]
        data, fingerprint, protocol, network, labels = key
        groups.append(
            Group(
                data=data,
                fingerprint=fingerprint,
                protocol=protocol,
                network=network,
                labels=labels,
                entries=(*ordered, *(entry for entry in mine if entry.is_reference)),
            )
        )
    return groups


def _ranked(entries: Sequence[Entry]) -> list[Entry]:
    """Best first, with ranks; then the smoke scores, without."""
    best_first = sorted(entries, key=lambda entry: -entry.mean)
    ranked = [entry for entry in best_first if not entry.smoke]
    ranked = [
        replace(entry, rank=i + 1, close=i > 0 and _overlap(entry, ranked[i - 1])) for i, entry in enumerate(ranked)
    ]
    return ranked + [entry for entry in best_first if entry.smoke]


def across_networks(groups: Sequence[Group]) -> dict[str, list[list[str]]]:
    """Sets that several networks judged, side by side: by data, protocol and size, a row of headings, then one per set
    with a column per network; empty where each set has one network."""
    tables = {}
    for place in dict.fromkeys((group.data, group.fingerprint, group.protocol, group.labels) for group in groups):
        mine = [g for g in groups if (g.data, g.fingerprint, g.protocol, g.labels) == place]
        sizes = dict.fromkeys(size for group in mine for size in group.by_size())
        title = f"{place[0]}, protocol {place[2]}{regime_said(place[3])}"
        for size in sizes:
            rows = _side_by_side([group.by_size()[size] for group in mine if size in group.by_size()])
            if rows:
                tables[f"{title}, {size}" if len(sizes) > 1 else title] = rows
    return tables


def _side_by_side(groups: Sequence[Group]) -> list[list[str]]:
    """The table of some groups, a column each; empty where each set has one network."""
    by_set: dict[tuple[str, str, int | None], list[Entry]] = {}  # the same images may have come about in two ways
    for entry in sorted((entry for group in groups for entry in group.entries), key=lambda entry: entry.is_reference):
        own = entry.record["set"]
        by_set.setdefault((entry.digest, _label(own), own.get("factor")), []).append(entry)
    if all(len({entry.network for entry in own}) == 1 for own in by_set.values()):
        return []
    rows = [["set", "ipc", *(group.network for group in groups)]]
    for first, *others in by_set.values():
        said = ["; ".join(_marked(e) for e in (first, *others) if e.network == g.network) or "-" for g in groups]
        rows.append([first.label, "-" if first.ipc is None else str(first.ipc), *said])
    return rows


def _marked(entry: Entry) -> str:
    return accuracy(entry) + (" (smoke)" if entry.smoke else "")


def _comparable(entry: Entry) -> tuple[str, ...]:
    """What scores that are ranked together share."""
    return entry.data, entry.fingerprint, entry.protocol, entry.network, entry.labels


def beside_published(group: Group) -> list[Beside]:
    """Published accuracies for the group's data at each of its ipc, and for the full training set, beside ours.

    Values for other networks are left out where there are some for the group's. Empty where nothing is published.
    Within an ipc, lines of one label regime and protocol stand together, best value first, those of the group's first
    of all; lines of which one of the two is not known come last, in the order of the tables, and are not ranked. Beside
    generated pools, of any size, stand the pools of the challenge's generative track.
    """
    rows = [row for row in published.rows(group.data) if row.percent is not None]
    drawn = [row for row in rows if row.table == published.CHALLENGE and row.ipc is None]
    if any(row.network == group.network for row in rows):
        rows = [row for row in rows if row.network in (group.network, "")]
    lines = []
    for ipc in (*sorted({entry.ipc for entry in group.entries if entry.ipc is not None}), None):
        theirs = [row for row in rows if row.ipc == ipc and (ipc is not None or row.method == "Whole")]
        if theirs:
            ours = [entry for entry in group.entries if entry.ipc == ipc and not (entry.is_pool and drawn)]
            lines += _in_order(_joined(theirs, ours, ipc, group), group)
    pools = [entry for entry in group.entries if entry.is_pool]
    return lines + (_in_order(_joined(drawn, pools, None, group), group) if drawn and pools else [])


def _in_order(lines: Sequence[Beside], group: Group) -> list[Beside]:
    """Lines of one ipc, as `beside_published` says."""
    known = [line.ranked_with for line in lines if line.ranked_with is not None]
    blocks = sorted(dict.fromkeys(known), key=lambda block: (not alike(block[1], group.protocol), block))
    ordered = []
    for block in blocks:
        mine = [line for line in lines if line.ranked_with == block]
        ordered += sorted(mine, key=lambda line: -max(_values(line)))
    return ordered + [line for line in lines if line.ranked_with is None]


def _joined(theirs: Sequence[PublishedRow], ours: Sequence[Entry], ipc: int | None, group: Group) -> list[Beside]:
    """A line per published method, network, label regime, factor and protocol with our scores of the same method,
    network and label regime, then a line for each other score of ours."""

    def key(row: PublishedRow) -> tuple:
        return row.method, row.network, row.labels, row.factor, row.protocol

    lines = []
    for own in dict.fromkeys(map(key, theirs)):
        method, network, labels, factor, protocol = own
        values = _merged([row for row in theirs if key(row) == own])
        mine = tuple(
            entry
            for entry in ours
            if plain_name(entry.method) == plain_name(method)
            and network == group.network
            and regime(labels) in ("", entry.labels)
        )
        about = {"labels": labels, "factor": factor, "protocol": protocol}
        lines.append(Beside(method=method, ipc=ipc, network=network, **about, published=values, ours=mine))
    taken = {entry.file for line in lines for entry in line.ours}
    for entry in ours:
        if entry.file not in taken:
            about = {"ipc": entry.ipc, "labels": entry.labels, "factor": entry.factor, "protocol": entry.protocol}
            lines.append(Beside(method=entry.label, network=group.network, **about, published=(), ours=(entry,)))
    return lines


_MOMENT_HEADINGS = ("method", "ipc", "network", *MOMENTS, "source")


def moments_beside_published(group: Group) -> list[list[str]]:
    """Published moment distances for the group's data at each of its ipc, then ours: a row of headings, then one per
    method or set; empty unless there are both."""
    sizes = {entry.ipc for entry in group.entries if entry.ipc is not None}
    theirs: dict[tuple[str, ...], dict[str, str]] = {}
    for row in published.rows(group.data):
        if row.metric in MOMENTS and row.ipc in sizes:
            theirs.setdefault((row.method, str(row.ipc), row.network, row.source), {})[row.metric] = f"{row.mean:g}"
    ours = {
        (entry.label + (" (smoke)" if entry.smoke else ""), str(entry.ipc), group.network, "this report"): {
            name: _short(entry.distances[name]) for name in MOMENTS if name in entry.distances
        }
        for entry in group.entries
        if entry.ipc is not None
    }
    ours = {key: values for key, values in ours.items() if values}
    if not theirs or not ours:
        return []
    rows = [(*key[:3], *(values.get(name, "-") for name in MOMENTS), key[3]) for key, values in (theirs | ours).items()]
    return [list(row) for row in (_MOMENT_HEADINGS, *rows)]


_FID_HEADINGS = ("set", "images", "fid", "source")


def fid_beside_published(group: Group) -> list[list[str]]:
    """The published FID of generators of the group's data, then ours: a row of headings, then one per set; empty unless
    there are both. Only FID, in Inception, stands here: distances in other networks' features never do."""
    theirs = [row for row in published.rows(group.data) if row.metric == "fid"]
    ours = [entry for entry in group.entries if "fid" in entry.distances]
    if not theirs or not ours:
        return []
    rows = [(row.method, row.note, f"{row.mean:g}", row.source) for row in theirs]
    rows += [(entry.label, f"{entry.images:,}", _short(entry.distances["fid"]), "this report") for entry in ours]
    return [list(row) for row in (_FID_HEADINGS, *rows)]


CHANCE = (
    "† marks a score that cannot be told from chance, the share of the largest class of the test images: its 95 % "
    "interval reaches down to it, or a single classifier's that of its test images."
)
"""The legend of the mark in `accuracy`."""


def notes(groups: Sequence[Group]) -> list[str]:
    """What a reader must know before comparing the numbers of a report."""
    entries = [entry for group in groups for entry in group.entries]
    said = [
        "± is the standard deviation over the classifiers; the 95 % interval is of their mean (Student's t on the "
        "logit scale, so within 0 and 100; none for a single classifier). It covers the classifiers' randomness, not "
        "that of making the set: each set was made once."
    ]
    if any(entry.at_chance for entry in entries):
        said.append(CHANCE)
    if any(entry.close for entry in entries):
        said.append("≈ beside a rank: the 95 % interval overlaps that of the set ranked just above.")
    if any(entry.smoke for entry in entries):
        said.append("Smoke scores, whose protocol or set was cut short, are shown but never ranked.")
    if len(groups) > 1:
        said.append(
            "Scores on different data, protocols, networks or label regimes stand in separate tables and do not "
            "compare."
        )
    if any(len(group.by_size()) > 1 for group in groups):
        said.append("Sets are ranked among those of their own size; of others the ranking says nothing.")
    if any(entry.is_reference for entry in entries):
        said.append("The real training images are a line to look up to, in charts a dashed one, and are never ranked.")
    if len({len(entry.accuracies) for entry in entries}) > 1:
        said.append("Some scores rest on more classifiers than others; see column n.")
    if any(entry.made_in is not None for entry in entries):
        said.append(
            "made in s is the time the set's own file states: distilling, or sampling the pool (selections carry their "
            "pool's), without training the generator."
        )
    if any(group.chosen_by_test for group in groups):
        said.append(
            "best_of_test is what the protocol's authors report: the best of several tests (of a classifier along its "
            "training, or of the set along its distillation), and so chosen by the test set. It is too high by that, "
            "and shown to stand beside their numbers only; nothing is ranked by it."
        )
    if any("classifier_frechet" in entry.distances for entry in entries):
        said.append(
            "classifier_frechet is the Fréchet distance in the features of a classifier trained on the real data, "
            "lower is nearer. It is not FID, and it compares only within one dataset."
        )
    if any("copies_pixels" in entry.distances for entry in entries):
        said.append(
            "copies_pixels, copies_features and copies_lpips are the probability that an image of the set is nearer to "
            "its nearest training image than a test image is to its own, in pixels, in the features of a classifier of "
            "the real data and, among those nearest in pixels, by LPIPS (after Meehan et al., AISTATS 2020): 0.5 is as "
            "far as unseen images, 1 is a copy, which chosen real images are."
        )
    if any("fid" in entry.distances for entry in entries):
        said.append(
            "fid is the Fréchet inception distance in torch-fidelity's Inception. It falls with the number of images: "
            "compare sets of one size, and with published values only at theirs."
        )
    if any(name.endswith("_efficientnet_lite0") for entry in entries for name in entry.distances):
        said.append(
            "Names that end in _efficientnet_lite0 are distances in the features of EfficientNet-Lite0, learnt on "
            "ImageNet; fd_efficientnet_lite0 is the Fréchet distance there. It is not FID and stands beside no "
            "published value."
        )
    if any(set(MOMENTS) & entry.distances.keys() for entry in entries):
        said.append(
            "moment1_distance, moment2_distance and moment3_distance, after M3D's table 1, are how far mean, variance "
            "and third central moment of a class's features are from the real ones, averaged over classes; lower is "
            "nearer. The paper gives neither network nor formula; here the features are those of a classifier trained "
            "on the real data, so only order and ratio of the values compare with the paper's."
        )
    lines = [line for group in groups for line in beside_published(group)]
    if lines:
        said.append(
            "Published values: ± is over several sets and networks (mostly 5 x 20), ours is over the classifiers of "
            "one set. Protocols differ between papers."
        )
        methods = {plain_name(row.method) for line in lines for row in line.published}
        said += [text for text, about in published.COMPARABILITY if methods & {plain_name(name) for name in about}]
    return said


def accuracy(entry: Entry) -> str:
    """Mean ± standard deviation in percent; a single run has no ±; marked † at chance."""
    return _mean_std(entry.mean, entry.std, len(entry.accuracies)) + ("†" if entry.at_chance else "")


def beside_accuracy(entry: Entry) -> str:
    """The accuracy as it stands beside a published one: with its best_of_test, where there is one."""
    return accuracy(entry) + (f" (best_of_test {_best_of_test(entry)})" if entry.best_of_test else "")


def _best_of_test(entry: Entry) -> str:
    """As `accuracy`; - where there is none."""
    return _mean_std(*entry.best_of_test, len(entry.accuracies)) if entry.best_of_test else "-"


def published_text(row: PublishedRow) -> str:
    """A published accuracy in percent, with as many digits as printed but at least one decimal."""
    percent = f"{row.percent:.1f}" if round(row.percent, 1) == row.percent else f"{row.percent:g}"
    return percent if row.std is None else f"{percent} ± {row.std:.1f}"


_HEADINGS = ("#", "set", "ipc", "images", "accuracy %", "95 % interval", "n", "made in s", "scored in s")


def cells(group: Group, brief: bool = False) -> list[list[str]]:
    """The ranking table as text: a row of headings, then one row per entry; a brief one fits a terminal, without the
    moment distances. Last come what the others lie between, the real training images and chance."""
    names = [name for name in group.distances if not (brief and name in MOMENTS)]
    chosen = ["best_of_test"] if group.chosen_by_test else []
    apart = _apart(group.entries)
    rows = [[*_HEADINGS, *apart, *chosen, *names]]
    for i, entry in enumerate(group.entries):
        rows.append(
            [
                _rank(entry),
                entry.label,
                "-" if entry.ipc is None else str(entry.ipc),
                str(entry.images),
                accuracy(entry),
                "-" if entry.interval is None else f"{entry.interval[0]:.1f} to {entry.interval[1]:.1f}",
                str(len(entry.accuracies)),
                "-" if entry.made_in is None else f"{entry.made_in:.1f}",
                f"{entry.seconds:.1f}",
                *(column[i] for column in apart.values()),
                *([_best_of_test(entry)] if chosen else []),
                *(_short(entry.distances[name]) if name in entry.distances else "-" for name in names),
            ]
        )
    if group.chance is not None:
        row = dict.fromkeys(rows[0], "-") | {"set": CHANCE_NAME, "accuracy %": f"{group.chance:.1f}"}
        rows.append(list(row.values()))
    return rows


def tables(groups: Sequence[Group]) -> dict[str, list[list[str]]]:
    """Every ranking, brief, by its title."""
    found = {}
    for group in groups:
        rankings = group.by_size()
        for size, ranking in rankings.items():
            found[f"{group.title}, {size}" if len(rankings) > 1 else group.title] = cells(ranking, brief=True)
    return found


def printed(groups: Sequence[Group]) -> str:
    """Every ranking, brief, for a terminal."""
    return "\n\n".join(f"{title}\n{text_table(rows)}" for title, rows in tables(groups).items())


def _apart(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """By heading, what scores of one ranking differ in where it should be alike; what no two differ in is left out."""
    columns = {
        "factor": [_known(entry.factor) for entry in entries],
        "optimiser": [_known(entry.optimiser) for entry in entries],
        "images seen": [_known(entry.images_seen) for entry in entries],
    }
    return {heading: column for heading, column in columns.items() if len(set(column) - {"-"}) > 1}


def _known(value: int | str | None) -> str:
    return "-" if value is None else str(value)


def _rank(entry: Entry) -> str:
    """The first column: 1, 2≈ (overlaps 1), real, or smoke."""
    if entry.is_reference:
        return REAL
    return "smoke" if entry.rank is None else f"{entry.rank}{'≈' if entry.close else ''}"


def _label(dset: dict[str, Any]) -> str:
    """What a set is called: its name where it has one, else method and ipc."""
    if (dset.get("name") or "").strip():
        return str(dset["name"])
    method = dset["method"] or "a set"
    return str(method) if dset["ipc"] is None else f"{method} ipc {dset['ipc']}"


def _told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Entries whose labels differ: those called the same get their seed, then their folder, added."""
    for more in (lambda e: f"seed {e.record.get('seed')}", lambda e: printable(e.file.parent.name)):
        labels = [entry.label for entry in entries]
        entries = [
            replace(entry, label=f"{entry.label} ({more(entry)})") if labels.count(entry.label) > 1 else entry
            for entry in entries
        ]
    return list(entries)


def _mean_std(mean: float, std: float, count: int) -> str:
    return f"{mean:.1f}" + (f" ± {std:.1f}" if count > 1 else "")


def _overlap(a: Entry, b: Entry) -> bool:
    """Whether two 95 % intervals are there and overlap."""
    if a.interval is None or b.interval is None:
        return False
    return a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1]


def plain_name(name: str) -> str:
    """A method's name without case, hyphens and spaces; the full training set is "Whole" in papers."""
    plain = re.sub(r"[^a-z0-9+]", "", name.lower())
    return "whole" if plain == REAL else plain


def _merged(rows: Sequence[PublishedRow]) -> tuple[PublishedRow, ...]:
    """Rows that print the same value become one, with all their sources; a value with ± covers the same one without."""
    merged: list[PublishedRow] = []
    for row in sorted(rows, key=lambda row: row.std is None):
        twin = next((m for m in merged if m.percent == row.percent and row.std in (None, m.std)), None)
        if twin is None:
            merged.append(row)
        else:
            notes = "; ".join(dict.fromkeys(note for note in (twin.note, row.note) if note))
            merged[merged.index(twin)] = replace(twin, source=f"{twin.source}; {row.source}", note=notes)
    return tuple(merged)


def _short(distance: float) -> str:
    """Three digits; what rounding leaves of zero is zero."""
    return "0" if abs(distance) < 1e-6 else f"{distance:.3g}"


def _values(line: Beside) -> list[float]:
    """What a line is ranked by: the published values; ours where there are none, or trained alike, smoke only where
    there is nothing else."""
    known = [row.percent for row in line.published if row.percent is not None]
    ours = [entry for entry in line.ours if alike(entry.protocol, line.protocol)]
    whole = [entry.mean for entry in ours if not entry.smoke]
    return known + whole or [entry.mean for entry in ours]
