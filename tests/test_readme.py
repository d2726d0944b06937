"""README and manual promise only what is there: commands parse, Python runs, files and targets exist."""

import pkgutil
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml
from commands import ROOT, accepted

from core_dd import cli
from core_dd.judge import membership, protocols
from gen_dd.uvit import UViT
from gen_dd.weights import save_model

README = (ROOT / "README.md").read_text(encoding="utf-8")
PLACES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FILES = {name: (ROOT / name).read_text(encoding="utf-8") for name in PLACES}
TEXT = "\n".join(FILES.values())
BLOCKS = re.findall(r"^( *)```(\w*)\n(.*?)^\1```", TEXT, flags=re.MULTILINE | re.DOTALL)
COMMANDS = dict.fromkeys(
    line.strip()
    for _, language, block in BLOCKS
    if language == ""
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"\s*(gendd|torchrun|accelerate|make) ", line)
)
PYTHON = dict.fromkeys(text for _, language, text in BLOCKS if language == "python" and "import" in text)
SCRIPTS = {"scripts/train_uvit.py": "train", "scripts/sample_timed.py": "sample"}


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("make")])
def test_command__is_accepted_with_every_flag(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line, comments=True)
    if words[0] in ("torchrun", "accelerate"):
        script = next(word for word in words if word.endswith(".py"))
        assert all((ROOT / word).is_file() for word in words if word.endswith((".py", ".yaml")))
        words = [words[0], SCRIPTS[script], *words[words.index(script) + 1 :]]
    accepted(words[1:])


def test_command__each_one_is_explained():
    for command in cli.COMMANDS:
        assert f"`gendd {command}`" in README
        assert f"`gendd {command}`" in (ROOT / "docs" / "get-started.md").read_text()


def test_make__targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(
        re.findall(r"\bmake (demo|test|lint|bench|help|\w+)\b(?= |`|$)", "\n".join(re.findall(r"`([^`]+)`", README)))
    )
    assert named and named <= targets


@pytest.mark.parametrize(
    "block",
    [pytest.param(text, marks=[pytest.mark.slow] * ("k_center" in text or "ddranking" in text)) for text in PYTHON],
)
def test_python__runs(block, monkeypatch, tmp_path):
    """With few steps and few pairs: that it runs is what is asked, not how good that is which comes out."""
    monkeypatch.chdir(tmp_path)
    short = {"quick": replace(protocols.QUICK, steps=20)}
    monkeypatch.setattr(protocols, "PROTOCOLS", MappingProxyType(protocols.PROTOCOLS | short))
    monkeypatch.setattr(membership, "PAIRS", 2)
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    save_model(UViT.from_preset("tiny", num_classes=10), tmp_path / "runs" / "digits" / "train" / "model", {})
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("name", FILES)
def test_paths__exist(name):
    quoted = re.findall(r"`((?:core_dd|gen_dd|matching_dd|configs|scripts|tests|benchmarks)/[\w/.]+)`", FILES[name])
    linked = [(Path(name).parent / link).as_posix() for link in re.findall(r"\]\(([\w/.]+)\)", FILES[name])]
    invented = {"mine", "NAME"}
    missing = [p for p in (*quoted, *linked) if not invented & set(re.split(r"[/_.]", p)) and not (ROOT / p).exists()]
    assert missing == []


def test_reference__every_name_is_there():
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    names = [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)]
    assert len(names) > 40
    for name in names:
        pkgutil.resolve_name(name)


def test_measured__every_place_holds_numbers():
    places = dict(re.findall(r"<!-- measured: (\w+) -->\n(.*?)<!-- end -->", TEXT, flags=re.DOTALL))
    assert len(places) == TEXT.count("<!-- measured: ") and {"demo", "test", "bench"} <= places.keys()
    assert [name for name, text in places.items() if not re.search(r"\d", text)] == []


def test_citation__names_the_paper_of_every_method():
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    cited = " ".join(reference["notes"] for reference in references)
    for file in (ROOT / "matching_dd" / "methods").glob("[a-z]*.py"):
        assert f"matching_dd.methods.{file.stem}" in cited, file
    for reference in references:
        assert reference["title"] and reference["authors"], reference
