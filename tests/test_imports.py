"""Imports go one way: gen_dd -> core_dd <- matching_dd; nobody imports scripts, tests or benchmarks."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "core_dd": {"core_dd"},
    "gen_dd": {"core_dd", "gen_dd"},
    "matching_dd": {"core_dd", "matching_dd"},
    "scripts": {"core_dd", "gen_dd", "matching_dd"},
    "benchmarks": {"core_dd", "gen_dd", "matching_dd", "benchmarks"},
}
OURS = {*MAY_IMPORT, "tests"}


def imported(source: str) -> set[str]:
    """The top-level packages a module imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            names.add("relative import")
    return names


def test_imported__finds_every_form():
    source = "import core_dd.rng\ndef f():\n    from gen_dd import uvit\n    from . import x\n"
    assert imported(source) == {"core_dd", "gen_dd", "relative import"}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_package__imports_only_what_it_may(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    forbidden = (OURS | {"relative import"}) - MAY_IMPORT[package]
    wrong = {str(file.relative_to(ROOT)): found for file in files if (found := imported(file.read_text()) & forbidden)}
    assert wrong == {}


ROOMS = ("data", "sets", "judge", "report", "compare")
"""Of `core_dd`, each of which may import those before it."""


def rooms(source: str) -> set[str]:
    """The rooms a module imports from, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("core_dd.") and name.split(".")[1] in ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_room__imports_only_those_before_it(room):
    later = set(ROOMS[ROOMS.index(room) + 1 :])
    files = sorted((ROOT / "core_dd" / room).rglob("*.py"))
    assert files
    assert {str(file.relative_to(ROOT)): up for file in files if (up := rooms(file.read_text()) & later)} == {}


def test_classes__have_a_name_each():
    """One word, one thing: no public class of the packages has the name of another's."""
    found = {}
    for package in ("core_dd", "gen_dd", "matching_dd"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


@pytest.mark.parametrize(("library", "only"), [("tyro", {"core_dd/config.py"}), ("omegaconf", {"core_dd/config.py"})])
def test_library__known_to_one_file(library, only):
    packages = ("core_dd", "gen_dd", "matching_dd", "scripts")
    files = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    assert {str(file.relative_to(ROOT)) for file in files if library in imported(file.read_text())} == only
