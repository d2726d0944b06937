"""The report as one HTML page that needs nothing else: style, charts and pictures are inside it, and no script."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import yaml

from core_dd.report import charts
from core_dd.report.charts import Bar, Line, tag
from core_dd.report.ranking import (
    Beside,
    Entry,
    Group,
    beside_accuracy,
    beside_published,
    cells,
    moments_beside_published,
    notes,
    published_text,
    summary,
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The image grid of one set."""

    label: str
    png: bytes | None
    """None when the set's file is gone or has changed."""
    caption: str
    """What is shown, or why nothing is."""
    rows: tuple[str, ...] = ()
    """The class name of each row."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart of training curves."""

    title: str
    subtitle: str
    lines: tuple[Line, ...]
    x_label: str = "step"


def page(
    title: str, groups: Sequence[Group], pictures: Sequence[Picture], panels: Sequence[Panel], colours: dict[str, int]
) -> str:
    """The whole page.

    Args:
        title: the heading.
        groups: the ranked scores.
        pictures: one per set.
        panels: the training curves.
        colours: the series colour of each set, by its hash.
    """
    entries = [entry for group in groups for entry in group.entries]
    sections = [
        *(_group(group, _name(group, groups), f"group-{i}", colours) for i, group in enumerate(groups)),
        _section("sets", "The sets", "".join(_picture(picture) for picture in pictures), "sets"),
        _section("curves", "Training curves", "".join(_panel(panel) for panel in panels), "panels"),
        _notes(groups),
        _provenance(entries, colours),
    ]
    links = {f"group-{i}": _name(group, groups) for i, group in enumerate(groups)}
    links |= {"sets": "The sets"} if pictures else {}
    links |= {"curves": "Training curves"} if panels else {}
    links |= {"notes": "Comparability", "provenance": "Provenance"}
    style = (files(__package__) / "page.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}</style></head>",
            "<body>",
            f'<header><h1>{escape(title)}</h1><p class="lede">{summary(groups, escape, tag("strong", "{}"))}</p>',
            tag("nav", "".join(tag("a", escape(text), href=f"#{place}") for place, text in links.items())),
            "</header>",
            "<main>",
            *(section for section in sections if section),
            "</main>",
            "<footer>Written by gendd report. Every number comes from the scores.json files named above.</footer>",
            "</body></html>\n",
        ]
    )


def _section(place: str, heading: str, inside: str, cls: str) -> str:
    """A titled section, or nothing where there is nothing to show."""
    return tag("section", tag("h2", heading) + tag("div", inside, cls=cls), id=place) if inside else ""


def _name(group: Group, groups: Sequence[Group]) -> str:
    """The data's name; with protocol and network where several groups share the data."""
    return group.data if sum(other.data == group.data for other in groups) == 1 else group.title


def _group(group: Group, name: str, place: str, colours: dict[str, int]) -> str:
    """Ranking, charts and published rows of one group."""
    drawn = [_bar(entry, colours) for entry in group.entries]
    about = f"Protocol {group.protocol}, network {group.network}, data fingerprint {group.fingerprint}."
    figures = [
        _figure("Test accuracy", "mean, with its 95 % interval", charts.bars(drawn, "Test accuracy")),
        _figure(
            "Every classifier",
            "dots; line: mean; shade: its 95 % interval; cut axis",
            charts.strips(drawn, "Accuracy of every classifier"),
        ),
    ]
    inside = [
        tag("h2", escape(name)),
        tag("p", escape(about), cls="sub"),
        _ranking(group, colours),
        tag("div", "".join(figures), cls="charts"),
        _published(group, colours),
        _moments(group),
    ]
    return tag("section", "".join(inside), id=place)


def _ranking(group: Group, colours: dict[str, int]) -> str:
    heads, *rows = cells(group)
    body = []
    for row, entry in zip(rows, group.entries, strict=True):
        place = row[0] if entry.rank else tag("span", "smoke", cls="badge")
        rest = "".join(
            tag("td", escape(cell), **({"cls": "strong"} if i == 2 else {})) for i, cell in enumerate(row[2:])
        )
        name = tag("th", _chip(entry, colours) + escape(entry.label), scope="row")
        body.append(tag("tr", tag("td", place, cls="rank") + name + rest))
    head = "".join(
        tag("th", escape(text), scope="col", **({"cls": "left"} if i < 2 else {})) for i, text in enumerate(heads)
    )
    return _table(f"Ranking on {group.title}", head, body)


def _published(group: Group, colours: dict[str, int]) -> str:
    """The papers' values beside ours."""
    lines = beside_published(group)
    heading = tag("h3", "Beside the published values")
    if not lines:
        return heading + tag("p", f"No paper reports {escape(group.data)} at these sizes.", cls="sub")
    head = _heads(("method", "ipc", "published %", "ours %", "network", "source"), left={0, 4, 5})
    body = [_published_row(line, group, colours) for line in lines]
    about = "Ours stands on a paper's line when method, network and ipc are the same. Best first within an ipc."
    return heading + tag("p", about, cls="sub") + _table(f"Published values for {group.data}", head, body)


def _moments(group: Group) -> str:
    """Moment distances beside the papers', or nothing unless there are both."""
    lines, left = moments_beside_published(group), {0, 2, 6}
    if not lines:
        return ""
    body = [
        tag("tr", "".join(tag("td", escape(cell), cls="left" if i in left else "") for i, cell in enumerate(line)))
        for line in lines[1:]
    ]
    heading = tag("h3", "Moment distances beside M3D's")
    return heading + _table(f"Moment distances on {group.data}", _heads(lines[0], left), body)


def _published_row(line: Beside, group: Group, colours: dict[str, int]) -> str:
    ours = "<br>".join(
        _chip(entry, colours)
        + escape(beside_accuracy(entry))
        + (" " + tag("span", "smoke", cls="badge") if entry.smoke else "")
        for entry in line.ours
    )
    theirs = "<br>".join(escape(published_text(row)) for row in line.published)
    sources = "<br>".join(escape(row.source + (f" ({row.note})" if row.note else "")) for row in line.published)
    return tag(
        "tr",
        tag("th", escape(line.method), scope="row")
        + tag("td", "all" if line.ipc is None else str(line.ipc))
        + tag("td", theirs or "-")
        + tag("td", ours or "-", cls="strong" if ours else "soft")
        + tag("td", escape(line.network), cls="left")
        + tag("td", sources or "this report", cls="left wrap"),
        cls="ours" if ours else "",
    )


def _picture(picture: Picture) -> str:
    caption = tag("figcaption", escape(picture.label) + tag("small", escape(picture.caption)))
    if picture.png is None:
        return tag("figure", caption, cls="card")
    source = "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")
    image = f'<img src="{source}" alt="{escape(picture.label)}: {escape(picture.caption)}">'
    names = tag("ol", "".join(tag("li", escape(name), title=name) for name in picture.rows))
    return tag("figure", caption + tag("div", names + image, cls="grid"), cls="card")


def _panel(panel: Panel) -> str:
    legend = "".join(tag("li", _square(line.colour) + escape(line.label)) for line in panel.lines)
    drawn = charts.lines(panel.lines, panel.title, panel.x_label)
    key = tag("ul", legend, cls="legend") if len(panel.lines) > 1 else ""
    return tag("figure", _caption(panel.title, panel.subtitle) + drawn + key, cls="card")


def _notes(groups: Sequence[Group]) -> str:
    items = "".join(tag("li", escape(text)) for text in notes(groups))
    return tag("section", tag("h2", "Comparability") + tag("ul", items, cls="notes"), id="notes")


def _provenance(entries: Sequence[Entry], colours: dict[str, int]) -> str:
    """Where each number comes from: hashes, versions and the resolved config, folded."""
    folded = []
    for entry in entries:
        record = entry.record
        facts = {
            "scores": str(entry.file),
            "set": f"{record['set'].get('path')} (hash {record['set'].get('hash')})",
            "data": f"{entry.data} (fingerprint {entry.fingerprint})",
            "protocol": f"{entry.protocol}{' (smoke)' if entry.smoke else ''}",
            "network": entry.network,
            "seed": str(record.get("seed")),
            "accuracies": ", ".join(f"{value:.2f} %" for value in entry.accuracies),
            "versions": ", ".join(f"{name} {number}" for name, number in (record.get("versions") or {}).items()),
        }
        table = tag("dl", "".join(tag("dt", name) + tag("dd", escape(text)) for name, text in facts.items()))
        config = tag("pre", escape(_yaml(record.get("config"))), tabindex="0")
        name = f"{entry.label}, {entry.data}, {entry.protocol}, {entry.network}"
        folded.append(tag("details", tag("summary", _chip(entry, colours) + escape(name)) + table + config))
    about = tag("p", "Open a line for the hashes, versions, every accuracy and the resolved config.", cls="sub")
    return tag("section", tag("h2", "Provenance") + about + tag("div", "".join(folded), cls="card"), id="provenance")


def _heads(texts: Sequence[str], left: set[int]) -> str:
    """Column headings."""
    return "".join(
        tag("th", escape(text), scope="col", cls="left" if i in left else "") for i, text in enumerate(texts)
    )


def _table(caption: str, head: str, body: Sequence[str]) -> str:
    inside = tag("thead", tag("tr", head)) + tag("tbody", "".join(body))
    table = tag("table", inside, aria_label=caption)
    return tag("div", table, cls="card scroll", tabindex="0")


def _figure(title: str, subtitle: str, drawn: str) -> str:
    return tag("figure", _caption(title, subtitle) + tag("div", drawn, cls="scroll"), cls="card")


def _caption(title: str, subtitle: str) -> str:
    return tag("figcaption", escape(title) + tag("small", escape(subtitle)))


def _chip(entry: Entry, colours: dict[str, int]) -> str:
    """The coloured square beside a set's name, hollow for smoke."""
    return _square(colours[entry.record["set"]["hash"]], hollow=entry.smoke)


def _square(colour: int, hollow: bool = False) -> str:
    return tag("span", cls="chip hollow" if hollow else "chip", style=f"--c:var(--series-{colour % charts.COLOURS})")


def _bar(entry: Entry, colours: dict[str, int]) -> Bar:
    low, high = entry.interval or (entry.mean, entry.mean)
    return Bar(
        label=entry.label,
        mean=entry.mean,
        low=low,
        high=high,
        runs=entry.accuracies,
        colour=colours[entry.record["set"]["hash"]],
        hollow=entry.smoke,
    )


def _yaml(config: Any) -> str:
    return yaml.safe_dump(config, sort_keys=False) if config else "no config in this score"
