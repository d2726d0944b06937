"""experiments/ablate.py: every study end to end on digits, shortened, and what its table says."""

import pytest
import torch
from commands import load_script
from safetensors.torch import load_file

from core_dd import load_data
from core_dd.errors import InputError
from core_dd.judge import fidelity
from core_dd.records import read as read_json
from core_dd.report.study import accuracy, gain, read_study
from core_dd.run import read_stats
from gen_dd.sample import sample
from gen_dd.uvit import UViT
from gen_dd.weights import save_model

SHORT = ["--draws=2", "--classifiers=1", "--steps=2", "--classifier_iterations=2", "--network=convnet1_w8"]


@pytest.fixture(scope="module")
def ablate():
    """The script as a module."""
    return load_script("experiments/ablate.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model of the digits, always the same."""
    torch.manual_seed(0)
    folder, data = tmp_path_factory.mktemp("model"), load_data("digits")
    save_model(
        UViT.from_preset("tiny", num_classes=10), folder / "m", {"data": "digits", "fingerprint": data.fingerprint}
    )
    return folder / "m"


def rows(printed: str) -> dict[str, str]:
    """The rows of the table, which is printed last, by their first cell."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")][2:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


@pytest.mark.slow
def test_selectors__all_on_one_pool(ablate, model, tmp_path, capsys):
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
    printed, kept = rows(capsys.readouterr().out), read_study(tmp_path / "out", "random")
    assert list(printed) == [*ablate.CHOOSERS, "the whole pool", "random real"]
    assert kept.keys() == printed.keys() and next(iter(kept)) == "random"
    for name, scores in kept.items():
        assert f"| {accuracy(scores)} | {gain(scores, kept['random'])} |" in printed[name]
    assert (tmp_path / "work" / "report" / "report.html").is_file()
    chosen = load_file(tmp_path / "work" / "herding" / "0" / "distilled.safetensors")
    assert chosen["labels"].tolist() == [k for k in range(10) for _ in range(2)]


@pytest.mark.slow
def test_steps__are_drawn_as_curves(ablate, model, tmp_path):
    argv = ["--study=steps", f"--model={model}", "--ipc=2", f"--work={tmp_path / 'work'}", "--fidelity", *SHORT]
    ablate.main([*argv, f"--out={tmp_path / 'out'}"])
    lines = read_stats(tmp_path / "work" / "stats.jsonl")
    assert [line["step"] for line in lines] == [10, 15, 20, 25, 50]
    assert all(line["images_per_s"] > 0 and line["classifier_frechet"] > 0 for line in lines)
    before = (tmp_path / "work" / "10-steps" / "0" / "distilled.safetensors").stat().st_mtime_ns
    (tmp_path / "out" / "stale").mkdir()
    with pytest.raises(InputError, match="was begun with ipc 2, now 3"):
        ablate.main([*argv, "--ipc=3", f"--out={tmp_path / 'out'}"])
    ablate.main([*argv, f"--out={tmp_path / 'out'}"])  # nothing is made again, the results are replaced
    assert not (tmp_path / "out" / "stale").exists()
    assert (tmp_path / "work" / "10-steps" / "0" / "distilled.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_budget__draws_what_fits_and_says_so(ablate, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate, "STEPS_TRIED", (10,))
    argv = ["--study=steps", f"--model={model}", "--budget_s=5", f"--work={tmp_path / 'work'}", *SHORT, "--draws=1"]
    ablate.main([*argv, f"--out={tmp_path / 'out'}"])
    assert "steps at 5 s of sampling" in capsys.readouterr().out
    records = [read_json(path) for path in (tmp_path / "out").glob("*-steps/0/scores.json")]
    assert len(records) == len(ablate.STEPS_TRIED)
    assert all(record["set"]["cost"]["seconds"] <= 10 and record["set"]["images"] >= 1 for record in records)


@pytest.mark.slow
def test_guides__each_changes_the_images(ablate, model, tmp_path, monkeypatch):
    train = fidelity.real_classifier
    monkeypatch.setattr(fidelity, "real_classifier", lambda data, network, *rest: train(data, "convnet1_w8", *rest))
    config = ablate.AblateConfig(study="guides", model=str(model), out=str(tmp_path / "out"), steps=2)
    made = {name: make(0) for name, make in ablate.guides(config, load_data("digits")).items()}
    assert all(len(dset) == 100 for dset in made.values())
    assert len({dset.digest() for dset in made.values()}) == len(made) == len(ablate.GUIDES_TRIED)


@pytest.mark.parametrize(("study", "method"), [("kernels", "m3d"), ("attention", "datadam")])
def test_learnt__every_setting_beside_what_the_paper_finds(ablate, tmp_path, capsys, study, method):
    options = ["--ipc=1", "--iterations=2", *SHORT, "--draws=1", "--network=convnet2_w8"]
    ablate.main([f"--study={study}", *options, f"--work={tmp_path / 'work'}", f"--out={tmp_path / 'out'}"])
    printed = capsys.readouterr().out
    table = rows(printed)
    assert list(table) == [*ablate.LEARNT[study][1], "random real"] and f"{method}, 2 iterations" in printed
    assert all(row.endswith(f"{ablate.PAPERS.get(name, '-')} |") for name, row in table.items())
    sets = list((tmp_path / "work").glob("*/0/distilled.safetensors"))
    assert len({load_file(path)["images"].numpy().tobytes() for path in sets}) == len(table)


def test_out__other_folders_are_left_alone(ablate, model, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="not one of these results"):
        ablate.main(["--study=steps", f"--model={model}", f"--out={tmp_path}", *SHORT])
    assert (tmp_path / "mine.txt").exists()
