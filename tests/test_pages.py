"""The pages of numbers are what scripts/pages.py makes of results/, and each folder of results/ becomes a report."""

import json
import re
import shlex
import shutil

import pytest
from commands import ROOT, load_script

from core_dd.compare.grid import cells_of
from core_dd.compare.reading import read_comparison
from core_dd.errors import InputError
from core_dd.records import read as read_json
from core_dd.report import report
from core_dd.report.study import accuracy, read_study
from core_dd.run import read_stats
from core_dd.settings import packaged

pages = load_script("scripts/pages.py")
OTHERS = {"benchmarks", "seconds", "tuning_precision", "tuning_stages"}
"""Folders of results/ that hold neither scores nor the course of a training."""
FOLDERS = sorted(path.name for path in (ROOT / "results").iterdir() if path.name not in OTHERS)


@pytest.mark.parametrize("name", [*pages.PAGES, *pages.BLOCKS])
def test_page__is_what_the_script_makes_of_the_results(name):
    assert pages.made(name) == (ROOT / name).read_text(encoding="utf-8"), "run scripts/pages.py"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of results/ that the pages are made from, without the weights and sets."""
    ignore = shutil.ignore_patterns("*.safetensors", "model")
    monkeypatch.setattr(pages, "RESULTS", shutil.copytree(ROOT / "results", tmp_path / "results", ignore=ignore))
    return tmp_path / "results"


def rescore(path, value: float) -> None:
    """Let every classifier of a score have reached that accuracy."""
    record = read_json(path)
    accuracies = [value] * len(record["accuracies"])
    path.write_text(json.dumps(record | {"accuracies": accuracies, "mean": value, "std": 0.0}))


def test_results__follow_the_scores(copied):
    rescore(copied / "cifar100" / "dm-ipc1" / "scores.json", 0.0123)
    rescore(copied / "digits_guides" / "none" / "0" / "scores.json", 0.5)
    before, after = (
        text.splitlines() for text in ((ROOT / "docs/results.md").read_text(), pages.made("docs/results.md"))
    )
    [changed] = [line for line in after if "DM, 10 of 20000" in line]
    assert "| 1.2 ± 0.0 | 3 | *smoke* | 11.4 ± 0.3 |" in changed and changed not in before
    other = [line.split(" | ")[0] for old, line in zip(before, after, strict=True) if old != line]
    guides = {name: accuracy(scores) for name, scores in read_study(copied / "digits_guides", "none").items()}
    assert len(other) == 1 + len(guides) and f"| none | {guides['none']} | - |" in "\n".join(after)


def test_benchmarks__of_every_machine(copied):
    side = {"seconds": 2.0, "peak_mib": 100.0}
    title = "U-ViT training step: 64 images of 3x32x32 (on CUDA 256)"
    result = {"title": title, "ratio": 1.5, "target": 2.5, "reference": side | {"seconds": 3.0}, "ours": side}
    machine = {"description": "an abacus", "device": "cpu", "threads": 1, "bf16": False, "torch": "2"}
    new = {"machine": machine, "results": {"uvit_train": result | {"tflops": 0.5, "machine_tflops": {"fp32": 1.0}}}}
    for name, title in {
        "uvit_train_32": "U-ViT training step: cifar10-small (44M); images: 32",
        "dm_k100": "dm 100",
    }.items():
        new["results"][name] = new["results"]["uvit_train"] | {"title": title}
    new["profiles"] = {
        name: {"parts": {"optimiser": 0.015}, "operators": {"pooling": 0.5}, "waiting": waiting}
        for name, waiting in {"dm": {"total": 0.25}, "m3d": {}}.items()
    }
    (copied / "benchmarks" / "abacus.json").write_text(json.dumps(new))
    part = pages.made("docs/benchmarks.md").split("## An abacus\n")[1].split("\n## ")[0]
    assert "| ratio | target | of machine | peak memory" in part
    row = "| U-ViT small, training step of 64 images | 3.00 s | 2.00 s | **1.50x** | 2.5x | 50% | 100 -> 100 |"
    assert row in part and row.replace("64", "32") in part
    assert "CIFAR-100's shape" in part and "| `dm` | 3.00 s" in part.split("CIFAR-100's shape")[1]
    assert "| optimiser | 1.5 | 1.5 |\n| pooling | 50.0 | 50.0 |\n| *waiting* | 25.0 | - |\n" in part


def test_study__a_setting_the_page_does_not_know_is_said(copied):
    shutil.copytree(copied / "digits_steps" / "10-steps", copied / "digits_steps" / "9-steps")
    for path in (copied / "digits_steps" / "9-steps").rglob("scores.json"):
        path.write_text(path.read_text().replace("10 steps, set", "9 steps, set"))
    with pytest.raises(InputError, match="digits_steps holds .*9 steps; the page has"):
        pages.made("docs/results.md")


def test_demo__is_kept_once_it_is_finished(copied, tmp_path):
    with pytest.raises(InputError, match="no finished demo"):
        pages.main(["--demo", str(tmp_path)])
    assert {path for path in pages.KEPT.values() if not (copied / "digits_demo" / path).exists()} == set()
    assert read_stats(copied / "digits_demo" / "generator" / "stats.jsonl")


def test_demo__its_ranking_follows_the_scores(copied):
    assert pages.demo_ranking().count("herding") == 1
    shutil.rmtree(copied / "digits_demo" / "generated-herding-ipc10")
    assert "herding" not in pages.demo_ranking()


FEW = {"digits_demo", "cifar10_m3d", "cross_architecture_smoke", "choices_dm"}
"""Folders of few scores, or of each kind: the others take seconds each."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FEW)) for n in FOLDERS])
def test_results__each_folder_becomes_a_report(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    report.main([f"results/{name}", "--out", str(tmp_path / "report")])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "</html>" in page and ("Provenance" in page or "Training curves" in page)


def test_comparison__is_kept_without_what_is_long(tmp_path, monkeypatch):
    """Its tables, its first figure, and every score that is done; the page then tells gains over the first row."""
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    source, plan = ROOT / "results" / "digits_guides" / "none", {}
    for number, (producer, seed) in enumerate([("DM", 0), ("DM", 1), ("two words", 0), ("two words", 1), ("late", 0)]):
        folder = f"scores/{number}"
        plan[str(number)] = {"kind": "score", "title": "", "folder": folder, "log": "log"}
        plan[str(number)]["cells"] = [f"{producer}/digits/ipc2/seed{seed}/convnet3/quick"]
        if producer != "late":
            record = read_json(source / str(seed) / "scores.json") | {"curves": {"loss": [[1.0]]}, "curve_steps": [0]}
            record["set"] |= {"name": f"{producer} ipc 2, seed {seed}", "path": "/somewhere"}
            (tmp_path / "runs" / folder).mkdir(parents=True)
            (tmp_path / "runs" / folder / "scores.json").write_text(json.dumps(record))
    rescore(tmp_path / "runs" / "scores" / "0" / "scores.json", 0.5)
    rescore(tmp_path / "runs" / "scores" / "2" / "scores.json", 0.75)
    (tmp_path / "runs" / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "runs" / "table.csv").write_text("method,ipc\nDM,2\ntwo words,2\nreal,\n")
    (tmp_path / "runs" / "figures").mkdir()
    for name in ("ablation-b", "ablation-a", "other"):
        (tmp_path / "runs" / "figures" / f"{name}.svg").write_text(name)

    pages.keep_comparison(tmp_path / "runs", tmp_path / "kept")
    kept = {str(path.relative_to(tmp_path / "kept")) for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert kept == {
        "table.csv",
        "ablation.svg",
        *(f"{n}-ipc2/{s}/scores.json" for n in ("DM", "two-words") for s in "01"),
    }
    assert (tmp_path / "kept" / "ablation.svg").read_text() == "ablation-a"
    score = read_json(tmp_path / "kept" / "two-words-ipc2" / "0" / "scores.json")
    assert score["mean"] == 0.75 and score["set"]["path"] is None and not {"curves", "answers"} & score.keys()
    first, second = pages.choices("kept", "DM")
    assert first == {"said": "DM", "cells": [first["cells"][0], "-"]} and second["said"] == "two words"
    assert second["cells"][1].startswith("+12.5 ± ")  # 25 points for one seed, none for the other
    report.main([str(tmp_path / "kept"), "--out", str(tmp_path / "report")])
    assert "two words ipc 2, seed 1" in (tmp_path / "report" / "report.md").read_text()


def test_comparison__of_several_data_and_networks_names_them(tmp_path):
    plan = {}
    for number, cell in enumerate(["DM/digits/ipc2/seed0/mlp/quick", "DM/other/ipc2/seed0/lenet/quick"]):
        plan[str(number)] = {"kind": "score", "title": "", "folder": f"{number}", "log": "log", "cells": [cell]}
        (tmp_path / "runs" / str(number)).mkdir(parents=True)
        shutil.copy(ROOT / "results" / "digits_guides" / "none" / "0" / "scores.json", tmp_path / "runs" / str(number))
    (tmp_path / "runs" / "plan.json").write_text(json.dumps(plan))
    pages.keep_comparison(tmp_path / "runs", tmp_path / "kept")
    folders = {path.name for path in (tmp_path / "kept").iterdir() if path.is_dir()}
    assert folders == {"DM-ipc2-digits-mlp", "DM-ipc2-other-lenet"}


def test_comparison__of_published_length_stands_on_the_page_and_in_the_readme(copied, tmp_path):
    """Partly done, and kept again: what people found stays, and the machine of what was there already."""
    runs, plan = tmp_path / "runs" / "published", {}
    for seed in range(3):
        cell = f"Random/fashion_mnist/ipc1/seed{seed}/convnet3/dc"
        plan[f"{seed}"] = {"kind": "score", "title": "", "folder": f"{seed}", "log": "log", "cells": [cell]}
    runs.mkdir(parents=True)
    (runs / "plan.json").write_text(json.dumps(plan))

    def judged(seed: int, accuracy: float) -> None:
        record = read_json(ROOT / "results" / "fashion_mnist_random" / "random-ipc1-seed1-dc" / "scores.json")
        name = f"Random ipc 1, seed {seed}"
        record["set"] |= {"name": name, "path": f"elsewhere/sets/made{seed}", "hash": f"{seed}"}
        for folder in (runs / f"{seed}", runs / "sets" / f"made{seed}"):
            folder.mkdir(parents=True)
        (runs / f"{seed}" / "scores.json").write_text(json.dumps(record))
        rescore(runs / f"{seed}" / "scores.json", accuracy)
        done = {"key": "", "kind": "set", "title": "", "like": "", "seconds": 3.0, "peak_mib": 1.0, "sources": ""}
        (runs / "sets" / f"made{seed}" / "done.json").write_text(json.dumps(done))

    judged(0, 0.80)
    for other in ("fashion_mnist_random", "published/Random-ipc1-fashion_mnist-dc"):  # which hold other sets of the row
        shutil.rmtree(copied / other)
    pages.keep_comparison(runs, copied / "published", "an abacus")
    page = pages.made("docs/reproduced.md")
    row = "| Random | Fashion-MNIST | 1 | `dc` | 80.0 | 1 of 5 x 1 | 51.4 ± 3.8 | **+7.5** | 3.00 s | 25.6 s |"
    command = "gendd compare published --only '/Random/fashion_mnist/ipc1/seed*/convnet3/dc/'"
    assert f"{row} an abacus | `{command}` |" in page.split("## Rows that differ")[0].split("By fewer classifiers")[1]
    assert "the paper has 51.4 ± 3.8 (+7.5). **Not looked into yet.**" in page
    assert "| Random | Fashion-MNIST | 1 | `dc` | 4 |" in page

    (copied / "published" / "findings.yaml").write_text("Random/fashion_mnist/ipc1/convnet3/dc: made up\n")
    judged(1, 0.60)
    [beside] = (copied / "published").glob("Random-ipc1-fashion_mnist*/0")
    (beside / "stats.jsonl").write_text("{}")
    pages.keep_comparison(runs, copied / "published", "a slide rule")
    assert (beside / "stats.jsonl").read_text() == "{}"
    (beside / "stats.jsonl").unlink()
    page = pages.made("docs/reproduced.md")
    assert "| 70.0 ± 14.1 | 2 of 5 x 1 |" in page and "| an abacus and a slide rule |" in page
    assert "(+4.9). made up" in page and "Not looked into yet" not in page
    row = "| Fashion-MNIST | Random, ipc 1, 2 sets, one classifier | `dc` | 70.0 ± 14.1 | 51.4 ± 3.8 |"
    assert row in pages.made("README.md")


def test_comparison__keeps_what_other_machines_and_calls_have_made(tmp_path):
    """A call for other data, and one that has nothing yet of these, delete nothing; a cell that is gone does go."""

    def call(name: str, cells: dict[str, float | None], machine: str) -> None:
        plan = {}
        for number, (cell, mean) in enumerate(cells.items()):
            plan[f"{number}"] = {"kind": "score", "title": "", "folder": f"{number}", "log": "log", "cells": [cell]}
            producer, data, ipc, seed, network, protocol = cell.split("/")
            if mean is not None:
                record = read_json(ROOT / "results" / "digits_guides" / "none" / "0" / "scores.json")
                record["set"] |= {"name": f"{producer} ipc {ipc[3:]}, {seed}"}
                record["data"] |= {"name": data}
                place = tmp_path / name / f"{number}" / "scores.json"
                place.parent.mkdir(parents=True)
                place.write_text(json.dumps(record | {"network": network, "protocol": protocol}))
                rescore(place, mean)
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "plan.json").write_text(json.dumps(plan))
        pages.keep_comparison(tmp_path / name, tmp_path / "kept", machine)

    def kept() -> dict[str, tuple[float, str]]:
        found = {path: read_json(path) for path in sorted((tmp_path / "kept").glob("*/*/scores.json"))}
        return {"/".join(path.parts[-3:-1]): (own["mean"], own["machine"]) for path, own in found.items()}

    first = {f"two words/digits/ipc2/seed{seed}/mlp/quick": 0.5 for seed in (0, 1)}
    call("first", first | {"gone/digits/ipc2/seed0/mlp/quick": 0.5}, "an abacus")
    assert kept().keys() == {"two-words-ipc2/0", "two-words-ipc2/1", "gone-ipc2/0"}
    call("second", {"two words/other/ipc2/seed0/mlp/quick": 0.25}, "a slide rule")
    assert len(kept()) == 4 and kept()["two-words-ipc2-other/0"] == (0.25, "a slide rule")
    call("third", dict.fromkeys([*first, "DM/digits/ipc2/seed0/mlp/quick"]), "a clock")
    call("fourth", dict(zip(first, (None, 0.75), strict=True)), "a clock")
    assert kept() == {
        "two-words-ipc2-digits/0": (0.5, "an abacus"),
        "two-words-ipc2-digits/1": (0.75, "a clock"),
        "two-words-ipc2-other/0": (0.25, "a slide rule"),
    }


def test_beside_papers__commands_pick_the_row_and_no_other():
    rows = {}
    for own in pages.beside_papers():
        _, _, name, _, pattern = shlex.split(own["command"])
        rows.setdefault(name, []).append((pattern, own["row"].name))
    for name, own in rows.items():
        cells = cells_of(read_comparison(packaged("compare")[name], {}))
        for pattern, row in own:
            picked = {re.sub("/seed[0-9]+/", "/", cell.name) for cell in cells if cell.picked([pattern])}
            assert picked == {row}


def test_beside_papers__sets_of_several_folders_and_methods_that_no_paper_has():
    found = {(own["row"].name, own["smoke"]): own for own in pages.beside_papers()}
    pooled = found["Random/fashion_mnist/ipc10/convnet3/dm", False]
    assert len({score["set"]["hash"] for score in pooled["row"].scores}) == len(pooled["row"].scores) == 5
    assert pooled["over"] == "5 x 1 to 5" and pooled["row"].short
    mtt = found["MTT/fashion_mnist/ipc1/convnet3/dm_60_epochs", True]
    assert (mtt["theirs"], mtt["difference"]) == ("-", "-") and not mtt["row"].short


def test_missing__is_what_the_comparison_wants_and_results_has_not(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    wanted = 0
    for own in pages.missing("published"):
        wanted += len(own["data"].split(", ")) * len(own["ipc"].split(", ")) * int(own["sets"])
    assert wanted == len(cells_of(read_comparison(packaged("compare")["published"], {})))
    for seed in (0, 3, 4):
        kept = f"published/Random-ipc10-mnist-dc/{seed}"
        shutil.copytree(ROOT / "results" / kept, tmp_path / kept)
    rows = [tuple(own.values()) for own in pages.missing("published")]
    assert rows[0] == ("full training set", "MNIST, Fashion-MNIST, CIFAR-10", "-", "dc", "1")
    assert ("Random", "MNIST", "10", "dc", "2") in rows and ("Random", "MNIST", "1, 50", "dc", "5") in rows
    assert ("DM", "CIFAR-10, CIFAR-100", "1, 10, 50", "dm", "1") in rows


def test_courses__by_the_validation_split_as_far_as_they_are_done(copied):
    """A producer without a split, and one of fewer sets than the first, are left out."""
    source = copied / "digits_guides" / "none" / "0" / "scores.json"
    told = {
        "DM": [(0.5, 0.6), (0.5, 0.6)],
        "cosine": [(0.6, 0.7), (0.7, 0.7)],
        "late": [(0.9, 0.9)],
        "Random": [(None, 0.9)] * 2,
    }
    for producer, sets in told.items():
        for seed, (split, test) in enumerate(sets):
            place = copied / "kept" / f"{producer}-ipc1" / f"{seed}" / "scores.json"
            place.parent.mkdir(parents=True)
            record = read_json(source)
            record["set"] |= {"name": f"{producer} ipc 1, seed {seed}"}
            if split is not None:
                record["set"]["validation"] = {"accuracy": split, "protocol": "quick"}
            place.write_text(json.dumps(record))
            rescore(place, test)
    first, cosine = pages.courses("kept", "DM", 1)
    assert first == {"said": "DM", "split": "50.0 ± 0.0", "split_gain": "-", "test": "60.0 ± 0.0", "test_gain": "-"}
    assert (cosine["said"], cosine["split"]) == ("cosine", "65.0 ± 7.1")
    assert cosine["split_gain"].startswith("+15.0 ± ") and cosine["test_gain"] == "+10.0 ± 0.0"
