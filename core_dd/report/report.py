"""Command: many scores -> a ranking on the terminal, report.md, and report.html with pictures and curves."""

import itertools
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from core_dd import cli, files
from core_dd.config import load_config, to_yaml
from core_dd.data.options import DataConfig
from core_dd.data.preprocess import fractions
from core_dd.errors import InputError, require
from core_dd.judge import across
from core_dd.judge.evaluate import REAL, real_set
from core_dd.notes import printable
from core_dd.report.charts import Line
from core_dd.report.content import Panel, colours_of, report_of
from core_dd.report.document import Document, Picture, html, markdown
from core_dd.report.options import ReportConfig
from core_dd.report.ranking import (
    CHANCE,
    Entry,
    Group,
    across_networks,
    find_scores,
    grouped,
    matches,
    printed,
    read_entry,
)
from core_dd.report.tables import text_table
from core_dd.run import STATS, claimed, read_stats, require_unoccupied
from core_dd.sets import pictures
from core_dd.sets.distilled import DistilledSet, is_ours
from core_dd.sets.labels import hardened
from core_dd.sets.options import ForeignConfig

_ROWS = 20
"""Classes a picture shows at most, evenly spread over all."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read, rank, draw, write."""
    config = load_config(ReportConfig, _with_flag(sys.argv[1:] if argv is None else argv), prog="gendd report")
    if config.out is not None:
        require_unoccupied(Path(config.out), resumable=False)

    # Everything is read and checked before anything is written.
    groups, panels = read(config.scores, config.curves)
    folder = None
    if not config.dry_run:
        drawn = pictures_of(groups, config.per_class)
        folder = _write(config.out, report_of(printable(config.title), groups, drawn, panels), drawn)

    # Printed last: a reader that has gone away keeps nothing from being written.
    if groups:
        print("\n" + printed(groups))
    for title, rows in across_networks(groups).items():
        print(f"\n{title}, accuracy % across networks\n{text_table(rows)}")
    if groups:
        print("\n≈: the 95 % interval overlaps that of the set above. What compares with what is said in the report.")
    if any(entry.at_chance for group in groups for entry in group.entries):
        print(CHANCE)
    print("\n" + to_yaml(config) if folder is None else f"\n{folder / 'report.md'}\n{folder / 'report.html'}")


def read(scores: Sequence[str], curves: Sequence[str] = ()) -> tuple[list[Group], list[Panel]]:
    """What a report shows of scores and of run folders' curves, as the options of the command name them.

    Raises:
        InputError: if something is not there, or damaged.
    """
    scores = [place for given in scores for place in (matches(given) or [given])]
    bare = [place for place in scores if _has_only_curves(Path(place))]
    groups = grouped([read_entry(path) for path in find_scores([place for place in scores if place not in bare])])
    colours = colours_of([entry for group in groups for entry in group.entries])
    runs = [path.parent for place in bare for path in sorted(Path(place).rglob(STATS))]
    panels = [panel for place in (*runs, *map(Path, curves)) for panel in _run_panels(place)]
    return groups, [*panels, *(panel for group in groups for panel in _score_panel(group, colours))]


def pictures_of(groups: Sequence[Group], per_class: int, only: Collection[str] | None = None) -> list[Picture]:
    """A picture of every set, and of its copies of training images where a score has looked for them.

    Args:
        groups: the scores.
        per_class: images of each class, at most.
        only: hashes of the sets to show; None: all.
    """
    entries = [entry for group in groups for entry in group.entries]
    colours, firsts = colours_of(entries), {entry.digest: entry for entry in reversed(entries)}
    shown = [digest for digest in colours if only is None or digest in only]
    drawn = [_picture(firsts[digest], per_class, colours[digest]) for digest in shown]
    looked = {entry.digest: entry for entry in entries if "copies" in entry.record}
    return drawn + [
        _nearest(looked[digest], colours[digest], way)
        for digest in shown
        if digest in looked
        for way in ("pixels", "lpips")
        if way in looked[digest].record["copies"]
    ]


def _write(out: str | None, document: Document, drawn: Sequence[Picture]) -> Path:
    """The report's folder, which appears whole or not at all."""
    with claimed(out, "report") as folder, files.atomic(folder, replace=True) as temporary:
        fill(temporary, document, drawn)
    return folder


def fill(folder: Path, document: Document, drawn: Sequence[Picture]) -> None:
    """Write a report's files into a new folder."""
    (folder / "pictures").mkdir(parents=True)
    for picture in drawn:
        if picture.png is not None:
            (folder / picture.file).write_bytes(picture.png)
    for name, text in (("report.md", markdown(document)), ("report.html", html(document))):
        (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")


def _has_only_curves(place: Path) -> bool:
    """Whether it is a folder without a score, but with what a run has measured."""
    return place.is_dir() and not across.files_in(place) and any(place.rglob(STATS))


def _with_flag(argv: Sequence[str]) -> list[str]:
    """Arguments that come before the first flag are scores."""
    places = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    return ["--scores", *argv] if places else list(argv)


def _picture(entry: Entry, per_class: int, number: int) -> Picture:
    """The grid of an entry's set, if its file is still there and still the one that was scored."""
    file = f"pictures/{number:02d}.png"
    try:
        dset = _load_set(entry)
        require(dset.digest() == entry.digest, "the set has changed since it was scored.")
    except InputError as error:
        return Picture(label=entry.label, png=None, file=file, caption=printable(f"No picture: {error}"))
    images, labels = dset.as_trained()
    counts = hardened(labels).bincount()
    classes = sorted({round(i * (len(counts) - 1) / max(min(len(counts), _ROWS) - 1, 1)) for i in range(_ROWS)})
    classes = [k for k in classes if k < len(counts)]
    most = int(counts.max())
    shown = f", the first {per_class} of each class" if most > per_class else ""
    some = "" if len(classes) == len(counts) else f", {len(classes)} of {len(counts)} classes"
    empty = len(dset.class_names) - int((counts > 0).sum())
    some += f"; {empty} of {len(dset.class_names)} classes have no image" * bool(empty)
    size = f"{len(images)} images of {images.shape[-1]} x {images.shape[-2]} pixels"
    return Picture(
        label=entry.label,
        png=pictures.png(pictures.grid(images, labels, per_class, classes=classes)),
        file=file,
        caption=f"{size}{shown}{some}",
        rows=tuple(printable(dset.class_names[k]) for k in classes),
    )


def _nearest(entry: Entry, number: int, way: str) -> Picture:
    """The images of an entry's set that are nearest to training images, in pixels or by LPIPS, and these below, if all
    are still there."""
    by, end = ("in pixels", "") if way == "pixels" else ("by LPIPS", "-lpips")
    file, label = f"pictures/{number:02d}-nearest{end}.png", f"{entry.label}, nearest training images {by}"
    found, config = entry.record["copies"], entry.record.get("config") or {}
    try:
        dset, data = _load_set(entry), DataConfig(**_known(DataConfig, config)).load_data(_seed(entry))
        require(dset.digest() == entry.digest, "the set has changed since it was scored.")
        images, pairs = dset.as_trained()[0], found["pairs" if way == "pixels" else "lpips_pairs"]
        ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
        same = data.training_digest == found["training_digest"]
        require(same and max(ours) < len(images) and max(theirs) < len(data.train_labels), "the data are others now.")
    except InputError as error:
        return Picture(label=label, png=None, file=file, caption=printable(f"No picture: {error}"))
    drawn = torch.cat([fractions(images[ours]), fractions(data.train_images[torch.tensor(theirs)])])
    rows = torch.arange(2).repeat_interleave(len(pairs))
    return Picture(
        label=label,
        png=pictures.png(pictures.grid(drawn, rows, len(pairs))),
        file=file,
        caption=f"the {len(pairs)} nearest {by}, at {pairs[0][2]:.3g} to {pairs[-1][2]:.3g}; nearer than a test "
        f"image in {100 * found[way]['share']:.1f} % of cases (50: alike)",
        rows=("the set", "training"),
    )


def _load_set(entry: Entry) -> DistilledSet:
    """The set an entry scored: its file, found from here or from beside the score, or the real training images.

    Raises:
        InputError: if it is not there any more.
    """
    record, config = entry.record, entry.record.get("config") or {}
    data = DataConfig(**_known(DataConfig, config))
    if record["set"].get("path") is None:
        require(entry.method == REAL and "data" in config, "the score names no file.")
        return real_set(data.load_data(_seed(entry)), _seed(entry))
    path = Path(record["set"]["path"])
    beside = entry.file.parent  # a run folder has the score in it
    places = (path, beside / path.name, beside.parent.parent / "sets" / path.name)  # the last of a comparison
    path = next((place for place in places if place.exists()), beside if is_ours(beside) else path)
    if is_ours(path) or "data" not in config:
        return DistilledSet.load(path)
    told = ForeignConfig(**_known(ForeignConfig, config)).told()
    return DistilledSet.load(path, data.load_data(_seed(entry)), **told)


def _seed(entry: Entry) -> int:
    """The seed of a score, which may not say one."""
    return entry.record.get("seed") or 0


def _known(cls: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a recorded config, what a config class that it derived from has."""
    return {own.name: config[own.name] for own in fields(cls) if config.get(own.name) is not None}


def _score_panel(group: Group, colours: Mapping[str, int]) -> list[Panel]:
    """The classifiers' training loss, one line per set: the mean over its classifiers."""
    lines = []
    for entry in group.entries:
        steps, runs = entry.record.get("curve_steps"), (entry.record.get("curves") or {}).get("loss")
        if steps and runs:
            means = tuple(sum(values) / len(values) for values in zip(*runs, strict=True))
            lines.append(Line(label=entry.label, x=tuple(steps), y=means, colour=colours[entry.digest]))
    about = {"title": f"Classifiers on {group.title}", "subtitle": "training loss, mean over the classifiers"}
    return [Panel(**about, lines=tuple(lines))] if lines else []


def _run_panels(folder: Path) -> list[Panel]:
    """The curves in a run folder's stats.jsonl, one chart per measured quantity (the learning rate is none).

    Raises:
        InputError: if there are none.
    """
    stats = read_stats(folder / STATS)
    require(bool(stats), f"{folder} has no curve: {STATS} is missing or empty. Give a run folder.")
    names = list(dict.fromkeys(name for line in stats for name in line if name not in ("step", "lr")))
    panels = []
    for name in names:
        pairs = [(line["step"], line[name]) for line in stats if name in line]
        xs, ys = zip(*pairs, strict=True)
        curve = Line(label=printable(name), x=xs, y=ys)
        panels.append(Panel(title=str(folder), subtitle=curve.label, lines=(curve,)))
    return panels


if __name__ == "__main__":
    cli.entry(main)
