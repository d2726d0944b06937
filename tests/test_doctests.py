"""The examples in docstrings run, and print what they say."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import core_dd
import gen_dd
import matching_dd
from core_dd.compare.executors import NEEDS

PACKAGES = (core_dd, gen_dd, matching_dd)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    """Every module of the packages, by its dotted name."""
    return [
        found.name
        for package in PACKAGES
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not found.name.endswith("__main__")
    ]


def loaded(name: str) -> ModuleType:
    """A module; skips where it is of an extra that is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in NEEDS:
            raise
        pytest.skip(f"not here: {error.name}")


def examples(module: ModuleType) -> list[doctest.DocTest]:
    """The docstrings of a module that hold examples."""
    return [test for test in doctest.DocTestFinder().find(module, module.__name__) if test.examples]


def test_most_used_functions__carry_an_example():
    documented = [test.name for name in modules() for test in examples(loaded(name))]
    assert len(documented) >= 40, documented


@pytest.mark.parametrize("name", modules())
def test_examples__print_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    said: list[str] = []
    for test in examples(loaded(name)):
        runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
