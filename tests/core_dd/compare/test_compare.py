"""The command end to end on 8x8 digits: what it makes, what it does not make again, kills, failures, dry runs."""

import csv
import json
import re
import signal
import sys
from pathlib import Path

import pytest
from commands import Process
from comparisons import SMALL, TINY, accuracies, compare, files, write

from core_dd import cli
from core_dd.compare.sets import call
from core_dd.compare.view import status
from core_dd.errors import InputError
from core_dd.judge.scores import read_score
from core_dd.records import read as read_json
from core_dd.sets.distilled import DistilledSet

MINE = """\
from matching_dd import coreset
def make(data, ipc, seed, out, lift=0):
    (out / "note").write_text("mine")
    dset = coreset("random", data, ipc, seed)
    dset.images += lift
    return dset
def wrong(data, ipc, seed, out):
    return ipc
def ends(data, ipc, seed, out):
    raise SystemExit(0)
def terminated(data, ipc, seed, out):
    import os, signal
    os.kill(os.getpid(), signal.SIGTERM)
    return coreset("random", data, ipc, seed)
def bad(data, ipc, seed, out):
    raise ZeroDivisionError("no way")
"""


@pytest.fixture
def own_module(monkeypatch):
    """mine.py beside the comparison's file."""
    Path("mine.py").write_text(MINE)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield
    sys.modules.pop("mine", None)


def test_compare__makes_judges_and_tabulates_every_cell_once(capsys):
    assert compare(write(real=True)) == 0
    out = capsys.readouterr().out
    assert "digits, convnet1_w8, protocol quick_3_steps" in out and "whole training set" in out
    assert len(files("sets/*/distilled.safetensors")) == 8 and len(files("scores/*/scores.json")) == 9
    rows = list(csv.DictReader(Path("out/table.csv").read_text().splitlines()))
    assert [(row["method"], row["ipc"], row["sets"], row["classifiers"]) for row in rows] == [
        ("Random", "1", "2", "4"), ("Random", "2", "2", "4"), ("DM", "1", "2", "4"), ("DM", "2", "2", "4"),
        ("real", "", "1", "2"),
    ]  # fmt: skip
    assert all(row["smoke"] == "True" and row["surely_best"] == "False" for row in rows)
    assert "\\toprule" in Path("out/table.tex").read_text() and "| DM |" in Path("out/table.md").read_text()
    page = Path("out/report/report.html").read_text()
    assert "Random ipc 1, seed 0" in page and "2 methods on digits: 8 sets, judged by convnet1_w8." in page
    methods = page.split('id="methods"')[1].split("</section>")[0]
    assert [name in methods for name in ("ipc 1", "ipc 2", "Random", "<tfoot>", "random-effects")] == [True] * 5
    assert "How classifiers were trained" in methods and re.search(r">hard</td>.*>SGD [^<]+</td>", methods)
    assert page.count("data:image/png") == 4  # of each method and ipc the first set

    before = files("s*/*/*")
    assert compare("small.yaml") == 0
    assert files("s*/*/*") == before  # nothing is made or judged twice


def test_compare__augmentations_are_protocols_of_their_own(capsys):
    """A score of each, by its name; the unchanged one is the job it was before there were others."""
    short = {"protocol": "quick", "iterations": 3}
    own = {"producers": {"Random": {"coreset": "random"}}, "ipc": 1, "seeds": 1}
    assert compare(write(**own)) == 0
    before = files("scores/*/scores.json")
    assert compare(write(**own, protocols=[short, {**short, "augment": "randaugment"}])) == 0
    assert before.items() < files("scores/*/scores.json").items() and len(files("scores/*/scores.json")) == 2
    out = capsys.readouterr().out
    assert "protocol quick_3_steps\n" in out and "protocol quick_3_steps, augment randaugment\n" in out
    first, second = accuracies().values()
    assert first != second


def test_compare__a_set_is_made_once_for_all_its_judges():
    assert compare(write(networks=["convnet1_w8", "convnet1_w4"], ipc=1, seeds=1)) == 0
    assert len(files("sets/*")) == 2 and len(files("scores/*")) == 4


def test_compare__sets_as_the_memory_of_classes_that_come_in_steps(capsys):
    protocols = [{"protocol": "quick", "iterations": 3, "incremental": steps} for steps in (2, 5)]
    assert compare(write(protocols=protocols, ipc=1, seeds=1)) == 0
    assert "protocol quick_3_steps_incremental_5" in capsys.readouterr().out and len(files("sets/*")) == 2
    scores = [read_json(path) for path in Path("out").glob("scores/*DM*/scores.json")]
    assert sorted(len(score["incremental"]["accuracies"]) for score in scores) == [2, 5]
    protocols[0]["incremental"] = 6
    with pytest.raises(InputError, match="Random/digits/ipc1/.*10 classes cannot come in 6 steps"):
        compare(write("other.yaml", protocols=protocols), "--out=other")


def test_compare__the_set_and_its_score_are_those_of_the_commands(digits):
    from core_dd.judge.evaluate import evaluate
    from matching_dd import distill

    assert compare(write(ipc=2, seeds=[1], producers={"DM": SMALL["producers"]["DM"]})) == 0
    [folder] = Path("out/sets").iterdir()
    dset = distill("dm", digits, 2, seed=1, tracker="none", out="mine", **TINY)
    assert DistilledSet.load(folder).digest() == dset.digest()
    scores = evaluate(dset, digits, "quick", "convnet1_w8", runs=2, seed=1, steps=3)
    [place] = Path("out/scores").iterdir()
    assert read_score(place / "scores.json")["accuracies"] == scores.accuracies


def test_compare__goes_on_with_what_is_added_to_the_file():
    assert compare(write(seeds=1)) == 0
    before = files("s*/*/*")
    assert compare(write(seeds=2)) == 0
    after = files("s*/*/*")
    assert {path: when for path, when in after.items() if path in before} == before and len(after) > len(before)


def test_compare__what_is_done_stays_so_under_another_name():
    assert compare(write(seeds=1)) == 0
    before = files("s*/*/*")
    renamed = {"matched": SMALL["producers"]["DM"], "Random": SMALL["producers"]["Random"]}
    assert compare(write(seeds=1, producers=renamed)) == 0
    assert files("s*/*/*") == before
    assert {row["method"] for row in csv.DictReader(Path("out/table.csv").read_text().splitlines())} == set(renamed)


def test_compare__other_snapshots_to_judge_are_another_distillation():
    own = {"producers": {"DM": {**TINY, "method": "dm", "checkpoint_every": 1}}, "ipc": 1, "seeds": 1}
    assert compare(write(**own, judge={"classifiers": 1, "along": True})) == 0
    own["producers"]["DM"]["keep"] = 2
    assert compare(write(**own, judge={"classifiers": 1, "along": True})) == 0
    found = [read_json(path)["along"] for path in Path("out").glob("scores/*/scores.json")]
    assert sorted([step["step"] for step in along] for along in found) == [[2, 3, 4], [3, 4]]


def test_compare__the_whole_training_set_alone(capsys):
    """As it is: of limited data it is no whole training set, and is marked as shortened."""
    limited = {"digits": {"spec": "digits", "limit_per_class": 5}}
    assert compare(write(protocols="quick", only=[{"producer": "real"}], real=True, data=limited)) == 0
    assert "whole training set" in capsys.readouterr().out
    [row] = csv.DictReader(Path("out/table.csv").read_text().splitlines())
    assert (row["method"], row["smoke"], row["published"]) == ("real", "True", "")


def test_compare__only_what_is_picked_and_the_table_shows_what_is_there(capsys):
    assert compare(write(), "--only", "DM/*/ipc1") == 0
    assert sorted(accuracies()) == ["digits-DM-ipc-1-seed-0-by-convnet1_w8-quick_3_steps",
                                    "digits-DM-ipc-1-seed-1-by-convnet1_w8-quick_3_steps"]  # fmt: skip
    assert compare("small.yaml", "--only", "Random/*/ipc1/seed0") == 0
    out = capsys.readouterr().out
    assert re.search(r"^Random .*\d°…", out, re.M) and re.search(r"^DM .*\d°(?!…)", out, re.M)
    with pytest.raises(InputError, match="--only DMM picks none of 8 cells. One is called Random/digits/ipc1/seed0/"):
        compare("small.yaml", "--only", "DMM")


def test_compare__dry_run_prints_the_cells_and_what_they_take_and_writes_nothing(capsys):
    file = write(seeds=1)
    assert compare(file, "--dry_run") == 0
    first = capsys.readouterr().out
    assert "to do       DM/digits/ipc2/seed0/convnet1_w8/quick_3_steps" in first and not Path("out").exists()
    assert "measured on a few steps" in first and "in all" in first
    assert compare(file, "--only", "ipc1") == 0
    capsys.readouterr()
    assert compare(write(seeds=2), "--dry_run") == 0
    later = capsys.readouterr().out
    assert "done        DM/digits/ipc1/seed0" in later and "1 finished like it" in later
    assert "set: 2 of 8 done" in later


def test_compare__a_failed_cell_keeps_its_log_and_stops_no_other(own_module, capsys):
    producers = {name.title(): {"function": f"mine:{name}"} for name in ("bad", "wrong", "ends")}
    assert compare(write(producers={**producers, "Random": {"coreset": "random"}}, ipc=1, seeds=1)) == 1
    said = capsys.readouterr().err
    assert "3 failed, 3 could not be done for that" in said and "ZeroDivisionError: no way" in said
    assert "SystemExit: 0" in said
    assert "mine:wrong returned a int, expected a DistilledSet" in said
    [log] = Path("out/logs").glob("set-Bad*")
    assert str(log) in said and "Traceback" in log.read_text()
    assert list(accuracies()) == ["digits-Random-ipc-1-seed-0-by-convnet1_w8-quick_3_steps"]
    assert ("Bad digits ipc1 seed0", "ZeroDivisionError: no way", str(log)) in status(Path("out")).failed


def test_compare__ends_when_it_is_asked_to(own_module):
    file = write(producers={"Asked": {"function": "mine:terminated"}}, ipc=1, seeds=1)
    with pytest.raises(SystemExit, match="143"):
        cli.main(["compare", str(file), "--device=cpu", "--out=out", "--workers=0", "--no_figures"])
    assert not files("sets/*/done.json")


def test_compare__a_users_function_is_known_by_its_source(own_module, digits):
    file = write(producers={"Mine": {"function": "mine:make", "lift": 3}}, ipc=1, seeds=1)
    assert compare(file) == 0
    [folder] = Path("out/sets").iterdir()
    assert (folder / "note").read_text() == "mine" and DistilledSet.load(folder).meta["ipc"] == 1
    assert compare(file) == 0
    assert len(files("sets/*")) == 1


def test_compare__a_changed_source_of_a_users_function_is_another_set(own_module):
    file = write(producers={"Mine": {"function": "mine:make"}}, ipc=1, seeds=1)
    assert compare(file) == 0
    from core_dd.compare import sets

    Path("mine.py").write_text(MINE + "# changed\n")
    sys.modules.pop("mine")
    sets.content.cache_clear()
    assert compare(file) == 0
    assert len(files("sets/*")) == 2 and len(files("scores/*")) == 2


def test_compare__existing_sets_stand_for_their_cells(digits):
    from matching_dd import coreset

    for ipc in (1, 2):
        coreset("random", digits, ipc).save(Path(f"there/{ipc}.safetensors"))
    file = write(producers={"Theirs": {"set": "there/{ipc}.safetensors"}})
    assert compare(file) == 0
    assert len(files("scores/*")) == 2  # one seed: another gives no other set
    before = files("s*/*/*")
    here = str(Path("there").resolve())
    assert compare(write(producers={"Theirs": {"set": here + "/{ipc}.safetensors"}})) == 0
    assert files("s*/*/*") == before  # known by what is in it
    for seed in (0, 1):
        coreset("random", digits, 1, seed=seed).save(Path(f"there/00{seed}.safetensors"))
    assert (
        compare(write("each.yaml", producers={"Each": {"set": "there/{seed:03d}.safetensors"}}, ipc=1), "--out=each")
        == 0
    )
    assert len(list(Path("each/scores").iterdir())) == 2
    wrong = write("wrong.yaml", producers={"Theirs": {"set": "there/1.safetensors"}})
    with pytest.raises(InputError, match="Theirs/digits/ipc2/seed0/.*has 1 to 1 images per class"):
        compare(wrong, "--out=other")


def test_compare__chooses_from_a_pool_that_has_enough(digits):
    from gen_dd import select
    from matching_dd import coreset

    pool = coreset("random", digits, 3)
    pool.save(Path("pool.safetensors"))
    options = {"pool": "pool.safetensors", "selector": "random"}
    file = write(producers={"Chosen": options}, ipc=2, seeds=[1])
    assert compare(file) == 0
    [folder] = Path("out/sets").iterdir()
    assert DistilledSet.load(folder).digest() == select(pool, digits, 2, "random", seed=1).digest()
    with pytest.raises(InputError, match="Chosen/digits/ipc4/seed0/.*pool.safetensors has only 3 images of a class"):
        compare(write("more.yaml", producers={"Chosen": options}, ipc=4), "--out=other")


def test_compare__experts_and_classifiers_are_made_once():
    follow = {"experts": {"experts": 1, "epochs": 3, "batch_size": 256}, "network": "convnet1_w8", "iterations": 1}
    mtt = {"method": "mtt", "syn_steps": 2, "max_start_epoch": 1, "expert_epochs": 2, **follow}
    ead = {"method": "ead", "checkpoints": 1, **follow}
    chosen = {"network": "convnet1_w8"}
    producers = {"MTT": mtt, "EAD": ead, "Herding": {"coreset": "herding", **chosen}}
    producers["K-Center"] = {"coreset": "k_center", **chosen}
    assert compare(write(producers=producers, ipc=1)) == 0
    assert len(files("experts/*")) == 1 and len(files("classifiers/*")) == 2  # of two seeds
    assert len(files("sets/*/distilled.safetensors")) == 8 == len(files("scores/*"))


def killed_once(ready, *flags: str) -> None:
    words = ["-m", "core_dd.compare.compare", "small.yaml", "--out=out", "--device=cpu", "--threads=1", *flags]
    Process(*words).kill_once(ready)


LONG = {"DM": {**SMALL["producers"]["DM"], "iterations": 40, "checkpoint_every": 2}}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_compare__killed_and_gone_on_with_it_equals_the_uninterrupted_one(workers, tmp_path, monkeypatch):
    whole, seeds = tmp_path / "whole", workers or 1
    whole.mkdir()
    with monkeypatch.context() as there:
        there.chdir(whole)
        assert compare(write(producers=LONG, ipc=1, seeds=seeds)) == 0
        expected = accuracies()
    write(producers=LONG, ipc=1, seeds=seeds)
    killed_once(lambda: list(Path("out").glob("sets/*/checkpoints/step-*")), f"--workers={workers}")
    begun = [path.parent.parent.name for path in Path("out").glob("sets/*/checkpoints/step-*")]
    assert begun and not files("scores/*/done.json")
    assert compare("small.yaml") == 0
    assert accuracies() == expected
    resumed = [(Path("out/sets") / name / "log.txt").read_text() for name in set(begun)]
    assert any("resumed at iteration" in log for log in resumed)


@pytest.mark.slow
def test_compare__a_worker_that_is_lost_fails_its_cell_alone(own_module):
    Path("mine.py").write_text(
        MINE + f"import os\ndef gone(data, ipc, seed, out):\n    os.kill(os.getpid(), {signal.SIGKILL:d})\n"
    )
    producers = {"Gone": {"function": "mine:gone"}, "Random": {"coreset": "random"}}
    process = Process("-m", "core_dd.compare.compare", write(producers=producers, ipc=1, seeds=1), "--out=out",
                      "--device=cpu", "--workers=1")  # fmt: skip
    assert process.wait() == 1
    assert "its process ended abruptly" in process.stderr and len(accuracies()) == 1


def test_compare__in_a_folder_of_another_comparison_or_of_something_else():
    write("other.yaml")
    assert compare(write(ipc=1, seeds=1)) == 0
    with pytest.raises(InputError, match="out holds the comparison 'small', this one is 'other'"):
        compare("other.yaml")
    Path("else").mkdir()
    Path("else/x").touch()
    with pytest.raises(InputError, match="else exists and is no comparison's folder"):
        compare("small.yaml", "--out=else")


def test_status__of_a_folder_alone(capsys):
    with pytest.raises(InputError, match="no comparison has begun in out"):
        compare(write(), "--status")
    assert compare("small.yaml", "--only", "ipc1") == 0
    capsys.readouterr()
    assert compare("small.yaml", "--status") == 0
    said = capsys.readouterr().out
    assert "out, not running" in said and said.count("4 of 4 done") == 2 and "best so far" in said
    assert "digits, convnet1_w8, protocol quick_3_steps" in said


CANNOT = {
    "no kind": ({"producers": {"DM": {"methd": "dm"}}}, "but not what it is; did you mean 'method'?"),
    "two kinds": ({"producers": {"DM": {"method": "dm", "coreset": "random"}}}, "method and coreset at once"),
    "method": ({"producers": {"DM": {"method": "dmm"}}}, "DM: unknown method 'dmm'; did you mean 'dm'?"),
    "option": ({"producers": {"DM": {"method": "dm", "itertions": 3}}}, "did you mean 'iterations'?"),
    "value": ({"producers": {"DM": {"method": "dm", "iterations": 0}}}, "iterations must be >= 1, got 0"),
    "cell's own": ({"producers": {"DM": {"method": "dm", "ipc": 3}}}, "'ipc' is the comparison's to say"),
    "config": ({"producers": {"DM": {"method": "dm", "config": "dn"}}}, "did you mean 'dm'?"),
    "setting": ({"producers": {"DM": {"method": "dm", "config": "dm"}}}, "has no settings for --data digits --ipc 1"),
    "coreset": ({"producers": {"R": {"coreset": "randm"}}}, "did you mean 'random'?"),
    "coreset's option": ({"producers": {"R": {"coreset": "random", "nework": 1}}}, "did you mean 'network'?"),
    "set": ({"producers": {"S": {"set": "nowhere"}}}, "S digits ipc1 seed0: no set at nowhere"),
    "pool": ({"producers": {"S": {"pool": "nowhere"}}}, "S digits ipc1 seed0: no pool at nowhere"),
    "selector": ({"producers": {"S": {"pool": ".", "selector": "hearding"}}}, "did you mean 'herding'?"),
    "function": ({"producers": {"F": {"function": "nowhere:f"}}}, "no function nowhere:f"),
    "function's form": ({"producers": {"F": {"function": "nowhere"}}}, "not written as MODULE:NAME"),
    "function's options": (
        {"producers": {"F": {"function": "mine:make", "lft": 3}}}, "mine:make cannot be called as it would be"
    ),
    "augment": ({"protocols": [{"protocol": "dm", "augment": "randaug"}]}, "unknown augment 'randaug'; did you mean"),
    "protocol": ({"protocols": "qick"}, "unknown protocol 'qick'; did you mean 'quick'?"),
    "network": ({"networks": "convent1"}, "network convent1 on digits: "),
    "nothing left": ({"skip": [{"data": "digits"}]}, "the grid is empty"),
    "ipc": ({"ipc": 2000}, "Random/digits/ipc2000/seed0/convnet1_w8/quick_3_steps: it takes 2000 real training images"),
    "factor": (
        {"producers": {"M": {"method": "m3d", "factor": 5, "init": "noise"}}}, "factor 5 does not fit images of 8x8"
    ),
    "learned lr": (
        {"protocols": "mtt"}, "Random/digits/1/0/convnet1_w8/mtt: protocol mtt trains at a learning rate learnt"
    ),
    "experts' epochs": (
        {"producers": {"M": {"method": "mtt", "max_start_epoch": 9, "experts": {"epochs": 9}}}},
        "follows 10 epochs of them, and 9 would be recorded",
    ),
    "experts' network": (
        {"producers": {"M": {"method": "ead", "experts": {"network": "convnet2"}}}},
        "their network would be convnet2, the method's is convnet3",
    ),
    "data": ({"data": "digts"}, "data digts: unknown dataset 'digts'; did you mean 'digits'?"),
}  # fmt: skip


@pytest.mark.parametrize("name", CANNOT)
def test_compare__what_cannot_be_is_said_before_any_work(name, own_module):
    changed, message = CANNOT[name]
    with pytest.raises(InputError) as error:
        compare(write(**changed))
    assert message in str(error.value)
    assert not Path("out").exists()


def test_compare__an_unknown_executor_names_those_that_there_are():
    with pytest.raises(InputError, match="unknown executor 'slurmm'.*local"):
        compare(write(), "--executor=slurmm")


def test_key__versions_by_sources_change_with_any_source(monkeypatch, tmp_path):
    from core_dd.compare import jobs

    assert jobs.code_version("version").startswith("gendd ") and len(jobs.code_version("version").split()) == 2
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "some_package").mkdir()
    monkeypatch.setattr(jobs, "PACKAGES", ("some_package",))
    found = []
    for name, text in (("__init__.py", ""), ("a.py", "x = 1\n"), ("a.py", "x = 2\n")):
        (tmp_path / "some_package" / name).write_text(text)
        jobs.sources.cache_clear()
        found.append(jobs.code_version("sources"))
    jobs.sources.cache_clear()
    assert len(set(found)) == 3


def test_status__knows_the_real_training_set():
    assert compare(write(ipc=1, seeds=1, real=True)) == 0
    assert compare("small.yaml", "--status") == 0


def test_done__in_a_folder_named_by_half_of_its_key_is_found():
    assert compare(write(ipc=1, seeds=1)) == 0
    before = files("*/*/done.json")
    for folder in [path.parent for path in Path("out").glob("*/*/done.json")]:
        folder.rename(folder.with_name(folder.name[:-8]))
    assert compare("small.yaml") == 0
    after = files("*/*/done.json")
    assert len(after) == len(before) and sorted(after.values()) == sorted(before.values())
    [score] = Path("out/scores").glob("*Random*")
    done = json.loads((score / "done.json").read_text())
    (score / "done.json").write_text(json.dumps(done | {"key": done["key"][:8] + "0" * 8}))
    assert compare("small.yaml") == 0  # beside that of a job whose key begins alike
    assert len(files("scores/*Random*/done.json")) == 2


def test_done__by_another_job_whose_key_begins_alike_does_not_count():
    assert compare(write(ipc=1, seeds=1)) == 0
    [score] = Path("out/scores").glob("*Random*")
    done = json.loads((score / "done.json").read_text())
    assert score.name.endswith(f"-{done['key']}")
    other = done["key"][:8] + "0" * 8
    (score / "done.json").write_text(json.dumps(done | {"key": other}))
    plan = json.loads(Path("out/plan.json").read_text())
    assert other not in plan and done["key"] in plan
    before = files("scores/*Random*/scores.json")
    (score / "scores.json").unlink()
    assert compare("small.yaml") == 0 and files("scores/*Random*/scores.json").keys() == before.keys()
    assert json.loads((score / "done.json").read_text())["key"] == done["key"]


def test_function__that_returns_another_number_is_refused(digits, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "one_of_each.py").write_text(
        "from matching_dd import coreset\ndef make(data, ipc, seed, out):\n  return coreset('random', data, 1, seed)\n"
    )
    with pytest.raises(InputError, match="what one_of_each:make returned has 1 to 1 images per class, expected 2"):
        call(digits, tmp_path, "cpu", "one_of_each:make", ipc=2, seed=0, options={})
