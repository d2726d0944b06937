"""The wheel, built and unpacked alone, distils in an empty folder by a config that it holds."""

import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from commands import ROOT, run

from core_dd.sets.distilled import DistilledSet
from core_dd.settings import CONFIGS
from core_dd.yaml_files import read_yaml

SOURCES = ("core_dd", "gen_dd", "matching_dd", "configs", "gendd.py", "pyproject.toml", "README.md", "LICENSE")
"""What a wheel is built of."""
BUILD = "import os, setuptools.build_meta as backend; os.chdir('sources'); backend.build_wheel('..')"
GENDD = """\
import sys
import core_dd, gendd
assert all(module.__file__.startswith(sys.argv[1]) for module in (core_dd, gendd)), sys.path
sys.exit(gendd.main(sys.argv[2:]))
"""


@pytest.fixture
def installed(tmp_path) -> Path:
    """A folder of what pip installs of the project, from sources elsewhere: a build leaves files beside them."""
    for name in SOURCES:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, tmp_path / "sources" / name)
        else:
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tmp_path / "sources" / name, symlinks=True, ignore=ignore)
    built = run("-c", BUILD)
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    shutil.rmtree(tmp_path / "sources")
    return tmp_path / "site"


@pytest.mark.slow
def test_wheel__distils_by_a_config_that_it_holds_in_an_empty_folder(installed, tmp_path, monkeypatch):
    ours = {file.relative_to(CONFIGS) for file in CONFIGS.glob("*/*.yaml")}
    assert {file.relative_to(installed / "core_dd" / "configs") for file in installed.rglob("*.yaml")} == ours
    report, data = Path("core_dd", "report"), [Path("core_dd", "data", "imagenet.csv")]
    data += [file.relative_to(ROOT) for kind in ("*.jinja", "*.css", "*.csv") for file in (ROOT / report).rglob(kind)]
    assert len(data) > 10 and [file for file in data if not (installed / file).is_file()] == []
    [entries] = installed.glob("gendd-*.dist-info/entry_points.txt")
    assert "gendd = core_dd.cli:main" in entries.read_text()

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    words = shlex.split("distill --config dm --data digits --ipc 10 --iterations 2 --tracker none --out out")
    environment = os.environ | {"PYTHONPATH": str(installed), "GENDD_COMPILE": "0"}
    command = [sys.executable, "-c", GENDD, str(installed), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert DistilledSet.load(Path("out")).images.shape == (100, 1, 8, 8)
    assert read_yaml("out/config.yaml")["network"] == "convnet2_w32"
