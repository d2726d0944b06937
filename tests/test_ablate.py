"""scripts/ablate.py: every study end to end on digits, shortened, and what its table says."""

import pytest
import torch
from commands import load_script
from safetensors.torch import load_file

from core_dd import load_data
from core_dd.errors import InputError
from core_dd.judge import fidelity
from core_dd.records import read as read_json
from gen_dd.sample import sample
from gen_dd.uvit import UViT
from gen_dd.weights import save_model

SHORT = ["--draws=2", "--runs=1", "--steps=2", "--protocol_steps=2", "--network=convnet1_w8"]


@pytest.fixture(scope="module")
def ablate():
    """The script as a module."""
    return load_script("ablate")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model of the digits, always the same."""
    torch.manual_seed(0)
    folder, data = tmp_path_factory.mktemp("model"), load_data("digits")
    save_model(
        UViT.from_preset("tiny", num_classes=10), folder / "m", {"data": "digits", "fingerprint": data.fingerprint}
    )
    return folder / "m"


def names(table: str) -> list[str]:
    """The first cell of each row of table.md."""
    return list(rows(table))


def rows(table: str) -> dict[str, str]:
    """The rows of table.md by their first cell."""
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


@pytest.mark.slow
def test_selectors__all_on_one_pool(ablate, model, tmp_path):
    pool = sample(str(model), num_per_class=4, steps=2)
    pool.save(tmp_path / "pool.safetensors")
    argv = [
        "--study=selectors",
        f"--pool={tmp_path / 'pool.safetensors'}",
        "--ipc=2",
        f"--work={tmp_path / 'work'}",
        *SHORT,
        "--draws=1",
    ]
    ablate.main([*argv, f"--out={tmp_path / 'out'}"])
    rows = names((tmp_path / "out" / "table.md").read_text())
    assert rows == [*ablate.SELECTORS, "the whole pool", "random real"]
    assert len(list((tmp_path / "out").glob("*.json"))) == len(rows)
    assert (tmp_path / "work" / "report" / "report.html").is_file()
    chosen = load_file(tmp_path / "work" / "herding" / "0" / "distilled.safetensors")
    assert chosen["labels"].tolist() == [k for k in range(10) for _ in range(2)]


@pytest.mark.slow
def test_steps__are_drawn_as_curves(ablate, model, tmp_path):
    argv = ["--study=steps", f"--model={model}", "--ipc=2", f"--work={tmp_path / 'work'}", "--fidelity", *SHORT]
    ablate.main([*argv, f"--out={tmp_path / 'out'}"])
    lines = ablate.report.read_stats(tmp_path / "out" / "stats.jsonl")
    assert [line["step"] for line in lines] == [10, 15, 20, 25, 50]
    assert all(line["images_per_s"] > 0 and line["classifier_frechet"] > 0 for line in lines)
    before = (tmp_path / "work" / "10-steps" / "0" / "distilled.safetensors").stat().st_mtime_ns
    (tmp_path / "out" / "stale.json").touch()
    with pytest.raises(InputError, match="was begun with ipc 2, now 3"):
        ablate.main([*argv, "--ipc=3", f"--out={tmp_path / 'out'}"])
    ablate.main([*argv, f"--out={tmp_path / 'out'}"])  # nothing is made again, the results are replaced
    assert not (tmp_path / "out" / "stale.json").exists()
    assert (tmp_path / "work" / "10-steps" / "0" / "distilled.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_budget__draws_what_fits_and_says_so(ablate, model, tmp_path, monkeypatch):
    monkeypatch.setattr(ablate, "STEPS_TRIED", (10,))
    argv = ["--study=steps", f"--model={model}", "--budget_s=5", f"--work={tmp_path / 'work'}", *SHORT, "--draws=1"]
    ablate.main([*argv, f"--out={tmp_path / 'out'}"])
    assert "steps at 5 s of sampling" in (tmp_path / "out" / "table.md").read_text()
    records = [read_json(path) for path in (tmp_path / "out").glob("*-steps-0.json")]
    assert len(records) == len(ablate.STEPS_TRIED)
    assert all(record["set"]["cost"]["seconds"] <= 10 and record["set"]["images"] >= 1 for record in records)


def test_guides__each_changes_the_images(ablate, model, tmp_path, monkeypatch):
    train = fidelity.real_classifier
    monkeypatch.setattr(fidelity, "real_classifier", lambda data, network, *rest: train(data, "convnet1_w8", *rest))
    config = ablate.AblateConfig(study="guides", model=str(model), out=str(tmp_path / "out"), steps=2)
    made = {name: make(0) for name, make in ablate.guides(config, load_data("digits")).items()}
    assert all(len(dset) == 100 for dset in made.values())
    assert len({dset.digest() for dset in made.values()}) == len(made) == len(ablate.GUIDES_TRIED)


@pytest.mark.parametrize(("study", "method"), [("kernels", "m3d"), ("attention", "datadam")])
def test_learnt__every_setting_beside_what_the_paper_finds(ablate, tmp_path, study, method):
    options = ["--ipc=1", "--iterations=2", *SHORT, "--draws=1", "--network=convnet2_w8"]
    ablate.main([f"--study={study}", *options, f"--work={tmp_path / 'work'}", f"--out={tmp_path / 'out'}"])
    table = (tmp_path / "out" / "table.md").read_text()
    assert names(table) == [*ablate.LEARNT[study][1], "random real"] and f"{method}, 2 iterations" in table
    assert all(row.endswith(f"{ablate.PAPERS.get(name, '-')} |") for name, row in rows(table).items())
    sets = list((tmp_path / "work").glob("*/0/distilled.safetensors"))
    assert len({load_file(path)["images"].numpy().tobytes() for path in sets}) == len(names(table))


def test_gain__is_paired_by_seed(ablate):
    first, other = ([{"mean": value} for value in values] for values in ((0.5, 0.7, 0.6), (0.6, 0.8, 0.7)))
    assert ablate.gain(first, first) == "-" and ablate.gain(other, first) == "+10.0 ± 0.0"
    # differences 10, 20, 0: mean 10, sample deviation 10, t of 2 degrees 4.303
    assert ablate.gain([{"mean": 0.6}, {"mean": 0.9}, {"mean": 0.6}], first) == f"+10.0 ± {4.303 * 10 / 3**0.5:.1f}"


def test_out__other_folders_are_left_alone(ablate, model, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="not one of these results"):
        ablate.main(["--study=steps", f"--model={model}", f"--out={tmp_path}", *SHORT])
    assert (tmp_path / "mine.txt").exists()
