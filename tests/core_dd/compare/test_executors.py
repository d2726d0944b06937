"""Executors that cannot be: not installed, asked for what is another's."""

import sys

import pytest
from comparisons import compare, write

from core_dd.compare.executors import shares
from core_dd.errors import InputError


@pytest.mark.parametrize(("executor", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_compare__an_executor_that_is_not_installed_says_the_extra(executor, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"core_dd.compare.{executor}", raising=False)
    file = write()
    with pytest.raises(InputError, match=rf"needs the package {package}.*pip install 'gendd\[{executor}\]'"):
        compare(file, f"--executor={executor}", "--workers=1")
    assert list(tmp_path.iterdir()) == [tmp_path / file]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--address=auto"], "--address is of --executor ray, and this is --executor local"),
        (["--executor=slurm", "--workers=1", "--copy"], "--copy is of --executor ray"),
        (["--slurm", "time=9"], "--slurm is of --executor slurm"),
        (["--executor=slurm", "--workers=1", "--slurm", "time"], "--slurm time is not written as KEY=VALUE"),
        (["--executor=ray", "--workers=0"], "--executor ray needs workers: 1 or more"),
    ],
)
def test_compare__options_of_another_executor_are_refused(flags, message):
    with pytest.raises(InputError, match=message):
        compare(write(), *flags)


@pytest.mark.parametrize(
    ("machine", "workers"),
    [((8, 64, 0), 8), ((8, 5, 0), 2), ((8, 1, 0), 0), ((8, 64, 4), 4), ((0.5, 64, 0), 0)],
)
def test_shares__a_worker_for_each_gpu_else_as_cores_and_memory_allow(machine, workers):
    assert shares(*machine, each_gib=2.0) == workers
