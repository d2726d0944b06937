"""What stands in the report: rankings, charts, published values, pictures, curves, notes and origins as a document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from core_dd.judge.options import REAL
from core_dd.report import charts
from core_dd.report.beyond import NOTE, beyond, confusions
from core_dd.report.charts import Bar
from core_dd.report.charts import Line as Curve
from core_dd.report.document import (
    Block,
    Cell,
    Document,
    Figure,
    Figures,
    Heading,
    Line,
    Notes,
    Paragraph,
    Picture,
    Pictures,
    Record,
    Records,
    Section,
    Table,
    Words,
    line,
)
from core_dd.report.ranking import (
    Beside,
    Entry,
    Group,
    accuracy,
    across_networks,
    beside_accuracy,
    beside_published,
    cells,
    fid_beside_published,
    moments_beside_published,
    notes,
    published_text,
)
from core_dd.report.trained import UNKNOWN

_SMOKE = Words(text="smoke", badge=True)

_SUMMARISED = 6
"""Rankings whose best set is named at the top, at most."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart of training curves."""

    title: str
    subtitle: str
    lines: tuple[Curve, ...]
    x_label: str = "step"


def colours_of(entries: Sequence[Entry]) -> dict[str, int]:
    """A number for each set, by its hash, in the order of the scores; charts colour by it."""
    return {digest: i for i, digest in enumerate(dict.fromkeys(entry.digest for entry in entries))}


def report_of(
    title: str,
    groups: Sequence[Group],
    pictures: Sequence[Picture],
    panels: Sequence[Panel],
    before: Sequence[Section] = (),
    lede: Line | None = None,
) -> Document:
    """The whole report.

    Args:
        title: the heading.
        groups: the ranked scores; none: the report is of curves alone.
        pictures: one per set.
        panels: the training curves.
        before: what stands before all of that.
        lede: the report in two sentences; None: `summary`.
    """
    entries = [entry for group in groups for entry in group.entries]
    colours = colours_of(entries)
    parts = {"across": ("Across networks", _across(groups))}
    parts |= {f"group-{i}": (_name(group, groups), _group(group, colours)) for i, group in enumerate(groups)}
    parts |= {"sets": ("The sets", [Pictures(pictures=tuple(pictures))] if pictures else [])}
    parts |= {"curves": ("Training curves", [_curves(panels)] if panels else [])}
    parts |= {"notes": ("Comparability", [Notes(points=(*notes(groups), *_columns(groups)))] if groups else [])}
    parts |= {"provenance": ("Provenance", [_provenance(entries, colours)] if groups else [])}
    sections = (
        Section(place=place, heading=heading, blocks=tuple(blocks))
        for place, (heading, blocks) in parts.items()
        if blocks
    )
    lede = lede or (summary(groups) if groups else _of_curves(panels))
    return Document(title=title, lede=lede, sections=(*before, *sections))


def summary(groups: Sequence[Group]) -> Line:
    """The report in two sentences, the best set of each ranking set off."""
    entries = [entry for group in groups for entry in group.entries]
    sets = _count(len({entry.digest for entry in entries}), "set")
    said: list[str | Words] = [
        f"{sets} scored with {_count(sum(len(entry.accuracies) for entry in entries), 'classifier')}."
    ]
    rankings = [(ranking, size) for group in groups for size, ranking in group.by_size().items()]
    if len(rankings) > _SUMMARISED:
        return line(*said, f" {len(rankings)} rankings follow.")
    for ranking, size in rankings:
        ranked = [entry for entry in ranking.entries if entry.rank is not None]
        if ranked:
            found = Words(text=f"{ranked[0].label}, {accuracy(ranked[0])} %", strong=True)
            said += [f" Best of {len(ranked)} on {ranking.title}, {size}: ", found, "."]
        elif any(not entry.is_reference for entry in ranking.entries):
            said.append(f" On {ranking.title}, {size}, only smoke scores: nothing is ranked.")
    return line(*said)


def _of_curves(panels: Sequence[Panel]) -> Line:
    folders = _count(len({panel.title for panel in panels}), "folder")
    return line(f"The curves of {folders}; no score is given, so nothing is ranked.")


def _across(groups: Sequence[Group]) -> list[Block]:
    """Every set that several networks judged: its accuracies, percent, side by side."""
    blocks: list[Block] = []
    references = {entry.label for group in groups for entry in group.entries if entry.is_reference}
    for title, rows in across_networks(groups).items():
        foot = sum(row[0] in references for row in rows)
        blocks += [Heading(text=title), _table(f"Accuracy % by network, {title}", rows, {0}, foot)]
    return blocks


def _columns(groups: Sequence[Group]) -> list[str]:
    """What headings of tables mean, where those are there."""
    return [NOTE] if any(beyond(group) for group in groups) else []


def _name(group: Group, groups: Sequence[Group]) -> str:
    """The data's name, and what else tells the group from the others."""
    told = {
        group.protocol: {other.protocol for other in groups},
        group.network: {other.network for other in groups},
        f"{group.labels} labels": {other.labels for other in groups},
        f"fingerprint {group.fingerprint}": {other.fingerprint for other in groups if other.data == group.data},
    }
    return ", ".join([group.data, *(name for name, values in told.items() if len(values) > 1)])


def _group(group: Group, colours: Mapping[str, int]) -> list[Block]:
    """Rankings, charts and published rows of one group."""
    trained = {entry.optimiser for entry in group.entries} - {None}
    about = f"Protocol {group.protocol}, network {group.network}, {group.labels} labels"
    about += f", {trained.pop()}" if len(trained) == 1 else ""
    about += f", data fingerprint {group.fingerprint}."
    blocks: list[Block] = [Paragraph(text=about)]
    rankings = group.by_size()
    for size, ranking in rankings.items():
        blocks += [Heading(text=size)] if len(rankings) > 1 else []
        blocks += [_ranking(ranking, size, colours), _charts(ranking, colours)]
    return [*blocks, *_beyond(group), *_published(group, colours), *_fids(group), *_moments(group)]


def _ranking(group: Group, size: str, colours: Mapping[str, int]) -> Table:
    heads, *texts = cells(group)
    rows = []
    for entry, (place, name, *rest) in zip(group.entries, texts, strict=False):
        mark = place if entry.rank else Words(text=place, badge=True)
        rows.append((_cell(mark), (line(_named(entry, name, colours)),), *map(_cell, rest)))
    rows += [tuple(map(_cell, row)) for row in texts[len(group.entries) :]]
    return Table(
        caption=f"Ranking on {group.title}, {size}",
        heads=tuple(heads),
        rows=tuple(rows),
        left=frozenset({0, 1}),
        named=1,
        strong=heads.index("accuracy %"),
        foot=len(group.references),
    )


def _charts(group: Group, colours: Mapping[str, int]) -> Figures:
    """The accuracies of one ranking, and those of every classifier."""
    sets = [entry for entry in group.entries if not entry.is_reference] or group.entries
    drawn = [_bar(entry, colours) for entry in sets]
    runs = [(entry.label, ", ".join(f"{value:.2f}" for value in entry.accuracies)) for entry in group.entries]
    lines = [f"{charts.look_of(name)} line: {name} {value:.1f} %" for name, value in group.references.items()]
    figures = (
        Figure(
            title="Test accuracy",
            subtitle="; ".join(["mean, with its 95 % interval", *lines]),
            drawing=charts.bars(drawn, "Test accuracy", references=group.references),
        ),
        Figure(
            title="Every classifier",
            subtitle="dots; line: mean; shade: its 95 % interval; cut axis",
            drawing=charts.strips(drawn, "Accuracy of every classifier"),
        ),
    )
    every = _table("Every classifier", [("set", "accuracy % of each classifier"), *runs], left={0, 1})
    return Figures(figures=figures, table=every, wide=True)


def _published(group: Group, colours: Mapping[str, int]) -> list[Block]:
    """The papers' values beside ours."""
    heading, beside = Heading(text="Beside the published values"), beside_published(group)
    if not beside:
        return [heading, Paragraph(text=f"No paper reports {group.data} at these sizes.")]
    about = (
        "Ours stands on a paper's line when method, network, label regime and ipc are the same. Within an ipc, lines "
        "of one label regime and protocol stand together, best first; where a source does not say one of them (?), its "
        "lines come last and are not ranked."
    )
    heads = ("method", "ipc", "published %", "ours %", "labels", "factor", "protocol", "images seen", "optimiser")
    table = Table(
        caption=f"Published values for {group.data}",
        heads=(*heads, "network", "source"),
        rows=tuple(_published_row(one, colours) for one in beside),
        left=frozenset({0, 4, 6, 8, 9, 10}),
        strong=3,
        wrapped=10,
        marked=frozenset(i for i, one in enumerate(beside) if one.ours),
    )
    return [heading, Paragraph(text=about), table]


def _published_row(beside: Beside, colours: Mapping[str, int]) -> tuple[Cell, ...]:
    ours = [
        line(_named(entry, beside_accuracy(entry), colours), *([_SMOKE] if entry.smoke else []))
        for entry in beside.ours
    ]
    sources = [line(row.source + (f" ({row.note})" if row.note else "")) for row in beside.published]
    trained = (beside.protocols, beside.images_seen, beside.optimiser)
    return (
        _cell(beside.method),
        _cell(_size(beside)),
        tuple(line(published_text(row)) for row in beside.published) or _cell("-"),
        tuple(ours) or _cell("-"),
        _cell(beside.labels or UNKNOWN),
        *(tuple(map(line, texts)) for texts in (beside.factors, *trained)),
        _cell(beside.network),
        tuple(sources) or _cell("this report"),
    )


def _size(beside: Beside) -> str:
    """The ipc of a line: all for the training set, any for pools of whatever number."""
    if beside.ipc is not None:
        return str(beside.ipc)
    return "all" if beside.method == "Whole" or any(entry.method == REAL for entry in beside.ours) else "any"


def _fids(group: Group) -> list[Block]:
    """FID beside the papers', or nothing unless there are both."""
    rows = fid_beside_published(group)
    if not rows:
        return []
    return [Heading(text="FID beside the published"), _table(f"FID on {group.data}", rows, left={0, 1, 3})]


def _moments(group: Group) -> list[Block]:
    """Moment distances beside the papers', or nothing unless there are both."""
    rows = moments_beside_published(group)
    if not rows:
        return []
    heading = Heading(text="Moment distances beside M3D's")
    return [heading, _table(f"Moment distances on {group.data}", rows, left={0, 2, len(rows[0]) - 1})]


def _beyond(group: Group) -> list[Block]:
    """What stands beside the accuracy, or nothing where no score says anything of it."""
    rows, mistakes = beyond(group), confusions(group.entries)
    if not rows:
        return []
    blocks: list[Block] = [
        Heading(text="Beside the accuracy"),
        _table(f"By class, calibration and cost on {group.data}", rows, {0}),
    ]
    if mistakes:
        blocks += [Heading(text="What is taken for what"), _table("The most frequent mistakes", mistakes, {0, 1})]
    return blocks


def _curves(panels: Sequence[Panel]) -> Figures:
    """Every panel, and in words where each curve begins and ends."""
    rows = [("chart", "curve", "of", "steps", "first", "last")]
    figures = []
    for panel in panels:
        several = len(panel.lines) > 1
        legend = [Words(text=each.label, colour=each.colour) for each in panel.lines] if several else []
        drawing = charts.lines(panel.lines, panel.title, panel.x_label)
        figures.append(Figure(title=panel.title, subtitle=panel.subtitle, drawing=drawing, legend=tuple(legend)))
        for each in panel.lines:
            ends = [charts.number(value) for value in (each.x[-1], each.y[0], each.y[-1])]
            rows.append((panel.title, panel.subtitle, each.label if several else "-", *ends))
    return Figures(figures=tuple(figures), table=_table("Where each curve begins and ends", rows, left={0, 1, 2}))


def _provenance(entries: Sequence[Entry], colours: Mapping[str, int]) -> Records:
    """Where each number comes from: hashes, versions and the resolved config."""
    rows = [("set", "set hash", "data fingerprint", "seed", "scores")]
    records = []
    for entry in entries:
        record, seed = entry.record, str(entry.record.get("seed"))
        rows.append((entry.label, entry.digest, entry.fingerprint, seed, str(entry.file)))
        facts = {
            "scores": str(entry.file),
            "set": f"{record['set'].get('path')} (hash {entry.digest})",
            "data": f"{entry.data} (fingerprint {entry.fingerprint})",
            "protocol": f"{entry.protocol}{' (smoke)' if entry.smoke else ''}",
            "network": entry.network,
            "seed": seed,
            "accuracies": ", ".join(f"{value:.2f} %" for value in entry.accuracies),
            "versions": ", ".join(f"{name} {number}" for name, number in (record.get("versions") or {}).items()),
        }
        config = record.get("config")
        title = f"{entry.label}, {entry.data}, {entry.protocol}, {entry.network}"
        records.append(
            Record(
                title=line(_named(entry, title, colours)),
                facts=facts,
                config=yaml.safe_dump(config, sort_keys=False) if config else "no config in this score",
            )
        )
    return Records(records=tuple(records), table=_table("Where each score comes from", rows, left=set(range(5))))


def _table(caption: str, rows: Sequence[Sequence[str]], left: set[int], foot: int = 0) -> Table:
    """A table of plain text, its first row the headings, its last `foot` ones what bounds the others."""
    heads, *texts = rows
    return Table(
        caption=caption,
        heads=tuple(heads),
        rows=tuple(tuple(_cell(text) for text in row) for row in texts),
        left=frozenset(left),
        foot=foot,
    )


def _cell(text: str | Words) -> Cell:
    return (line(text),)


def _named(entry: Entry, text: str, colours: Mapping[str, int]) -> Words:
    """Words beside the coloured square of an entry's set, hollow for smoke."""
    return Words(text=text, colour=colours[entry.digest], hollow=entry.smoke)


def _bar(entry: Entry, colours: Mapping[str, int]) -> Bar:
    low, high = entry.interval or (entry.mean, entry.mean)
    return Bar(
        label=entry.label,
        mean=entry.mean,
        low=low,
        high=high,
        runs=entry.accuracies,
        colour=colours[entry.digest],
        hollow=entry.smoke,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
