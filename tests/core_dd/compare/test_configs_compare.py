"""Every packaged comparison resolves to its grid without loading data; that of the digits runs at a tiny size."""

from pathlib import Path

import msgspec
import pytest
import yaml
from commands import ROOT
from comparisons import TINY, compare, files

from core_dd.compare import jobs
from core_dd.compare.grid import cells_of
from core_dd.compare.reading import Comparison, read_comparison
from core_dd.data.images import DATASETS, FORMATS
from core_dd.report.reproduced import published_row
from core_dd.settings import packaged
from matching_dd.methods import METHODS

FILES = packaged("compare")


def read(name: str) -> Comparison:
    return read_comparison(FILES[name], {})


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch, request):
    if "digits_runs" not in request.node.name:
        monkeypatch.setattr("core_dd.data.images.load_data", lambda *_, **__: pytest.fail("data are loaded"))


def test_packaged__are_those_that_the_manual_lists():
    page = (ROOT / "docs" / "compare.md").read_text()
    assert FILES and all(f"`{name}`" in page for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_grid__of_a_packaged_comparison(name):
    comparison = read(name)
    cells = cells_of(comparison)
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.producer for cell in cells} >= comparison.producers.keys()
    assert {cell.protocol for cell in cells} == {choice.name for choice in comparison.protocol_choices}
    for choice in comparison.data_choices:
        assert choice.spec in DATASETS or choice.spec.partition(":")[0] in FORMATS
    origins = {choice.name: {"fingerprint": choice.name} for choice in comparison.data_choices}
    keys = {jobs.key_of(cell.score, origins, "x") for cell in cells}
    assert len(keys) == len(cells)


TABLES = {"m3d_table2": 1.0, "m3d_table4": 1.0, "dm_mnist": 0.6, "published": 0.9}
"""Which part of the grids of tables that have been published has its number there, at least."""


@pytest.mark.parametrize("name", TABLES)
def test_grid__its_numbers_are_found_among_the_published(name):
    cells = [cell for cell in cells_of(read(name))]
    found = [published_row(cell.data, cell.ipc, cell.producer, cell.network) is not None for cell in cells]
    assert sum(found) >= TABLES[name] * len(cells)


def test_published__rows_come_in_the_order_that_was_asked_for():
    cells = cells_of(read("published"))
    order = list(dict.fromkeys((cell.producer, cell.data) for cell in cells))
    assert order[:3] == [("real", name) for name in ("mnist", "fashion_mnist", "cifar10")]
    assert order.index(("K-Center", "cifar10")) < order.index(("DM", "mnist")) < order.index(("DM", "cifar10"))
    assert order.index(("M3D", "fashion_mnist")) < order.index(("DC", "mnist")) < order.index(("DM", "cifar100"))
    mtt, ead = (next(c.made.job for c in cells if c.producer == name).needs["experts"] for name in ("MTT", "EAD"))
    assert mtt == ead and mtt.options["experts"] == 10  # on the same ten experts
    coresets = [cell for cell in cells if cell.producer in ("Random", "Herding", "K-Center")]
    assert {cell.seed for cell in coresets} == set(range(5)) and len(coresets) == 3 * 3 * 3 * 5


def test_published__checkpoints_change_no_key():
    """So that what was made before they were more frequent still counts."""
    comparison = read("published")
    without = {
        name: {k: v for k, v in own.items() if k != "checkpoint_every"} for name, own in comparison.producers.items()
    }
    assert without != comparison.producers
    origins = {choice.name: {"fingerprint": choice.name} for choice in comparison.data_choices}
    keys = [
        [jobs.key_of(cell.score, origins, "x") for cell in cells_of(own)]
        for own in (comparison, msgspec.structs.replace(comparison, producers=without))
    ]
    assert keys[0] == keys[1]


def test_m3d_table2__has_every_row_and_method_of_the_table():
    comparison = read("m3d_table2")
    assert {options.get("method") for options in comparison.producers.values()} - {None} <= METHODS.keys()
    cells = {(cell.producer, cell.data, cell.ipc) for cell in cells_of(comparison)}
    assert ("M3D", "svhn", 50) in cells and ("DC", "cifar100", 50) not in cells and len(cells) == 5 + 9 * 15 - 1 + 6


def test_challenge__distils_on_the_judges_network_by_the_published_settings():
    cells = [cell for cell in cells_of(read("challenge")) if cell.made is not None]
    made = {(cell.producer, cell.data): cell.made.job.options for cell in cells}
    methods = ("DM", "DataDAM", "IDM", "M3D")
    assert {made[name, data]["network"] for name in methods for data in ("cifar100", "tiny_imagenet")} == {"convnet3"}
    assert made["DataDAM", "tiny_imagenet"]["mmd_weight"] == 0.02
    assert made["DataDAM", "cifar100"]["preprocess"] == "zca"
    assert made["M3D", "cifar100"]["preprocess"] == "cifar10_mean_std"


def test_digits_runs__at_a_tiny_size():
    digits = yaml.safe_load(FILES["digits"].read_text())
    for options in digits["producers"].values():
        if "method" in options:
            options |= TINY
    digits |= {"protocols": [{"protocol": "quick", "iterations": 2}], "networks": "convnet1_w8", "seeds": 1}
    Path("digits.yaml").write_text(yaml.safe_dump(digits))
    assert compare("digits.yaml") == 0
    assert len(files("scores/*/scores.json")) == 4 * 2 + 1


def test_manual__its_file_is_accepted(monkeypatch):
    page = (ROOT / "docs" / "compare.md").read_text()
    Path("page.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    comparison = read_comparison(Path("page.yaml"), {})
    assert {"method", "coreset", "pool", "set", "function"} <= {
        key for own in comparison.producers.values() for key in own
    }
