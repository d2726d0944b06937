"""scripts/short_courses.py: a mark for every row that a paper has."""

import shutil

import pytest
from commands import ROOT, load_script

from core_dd.errors import InputError

KEPT = ROOT / "results" / "short_courses"


def test_short_courses__are_drawn_beside_the_papers(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    rows = [path for path in KEPT.iterdir() if path.is_dir()]
    for path in rows:
        shutil.copytree(path, tmp_path / path.name)
    load_script("scripts/short_courses.py").main(["--results", str(tmp_path)])
    assert capsys.readouterr().out.split() == [str(tmp_path / f"short_courses.{kind}") for kind in ("svg", "pdf")]
    drawn = (tmp_path / "short_courses.svg").read_text()
    assert drawn.count("ipc 1") == len(rows)  # as a text or a comment, beside its mark


def test_short_courses__want_rows(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="holds no row"):
        load_script("scripts/short_courses.py").main(["--results", str(tmp_path)])
