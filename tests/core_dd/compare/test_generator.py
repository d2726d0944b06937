"""Generators as producers: trained and drawn from once, for all that want the same; what is refused beforehand."""

from pathlib import Path

import pytest
from comparisons import SMALL, compare, files, write

from core_dd.compare.jobs import key_of
from core_dd.compare.producers import Request
from core_dd.compare.reading import DataChoice
from core_dd.compare.sets import content
from core_dd.errors import InputError
from core_dd.sets.distilled import DistilledSet
from gen_dd.producers import generator

TRAIN = {"iterations": 2, "batch_size": 8, "compile": False, "check_images": 0, "grid_every": 0, "checkpoint_every": 1}
SAMPLE = {"steps": 2, "compile": False}


@pytest.mark.slow
def test_generator__is_trained_once_and_drawn_from_once_for_all_choices():
    own = {"generator": TRAIN, "sample": {"num_per_class": 4, **SAMPLE}}
    producers = {
        "Some": {**own, "selector": "random"},
        "Others": {"like": "Some", "selector": "herding", "network": "convnet1_w8"},
        "All": {"like": "Some", "selector": "all"},
        "As many": {"generator": TRAIN, "sample": SAMPLE},
    }
    assert compare(write(producers=producers, ipc=2, seeds=1)) == 0
    assert len(files("generators/*/model/gendd.json")) == 1 == len(files("classifiers/*"))
    assert len(files("pools/*/index.json")) == 2
    images = {path.name.rpartition("-")[0]: DistilledSet.load(path) for path in Path("out/sets").iterdir()}
    counts = {name: dset.hard_labels.bincount().tolist() for name, dset in images.items()}
    assert counts["Some-digits-ipc2-seed0"] == counts["Others-digits-ipc2-seed0"] == [2] * 10
    assert counts["All-digits-ipc2-seed0"] == [4] * 10 and counts["As-many-digits-ipc2-seed0"] == [2] * 10
    assert len({dset.digest() for dset in images.values()}) == 4 == len(files("scores/*"))

    # The same from a folder, as a generator that was trained before.
    [model] = Path("out/generators").iterdir()
    again = {"There": {"generator": str(model), "sample": SAMPLE}}
    assert compare(write("again.yaml", producers=again, ipc=2, seeds=1), "--out=other") == 0
    [place] = Path("other/sets").iterdir()
    assert DistilledSet.load(place).digest() == images["As-many-digits-ipc2-seed0"].digest()


def test_generator__of_each_seed():
    producers = {"Own": {"generator": TRAIN, "sample": SAMPLE, "each_seed": True}}
    assert compare(write(producers=producers, ipc=1)) == 0
    assert len(files("generators/*")) == len(files("pools/*")) == 2
    first, second = (DistilledSet.load(path).digest() for path in Path("out/sets").iterdir())
    assert first != second


@pytest.mark.slow
def test_generator__is_tuned_after_it_was_trained_here_or_elsewhere(capsys):
    few = {"steps": 2, "solver": "consistency", "compile": False}
    producers = {
        "Tuned": {"generator": TRAIN, "tune": TRAIN, "sample": few},
        "As it was": {"generator": TRAIN, "sample": SAMPLE},
    }
    assert compare(write(producers=producers, ipc=1, seeds=1)) == 0
    [plain, tuned] = sorted(Path("out/generators").iterdir(), key=lambda path: path.name.startswith("tuned"))
    assert f"init_from: {plain}" in (tuned / "config.yaml").read_text()
    again = write("again.yaml", producers={"There": {"generator": str(plain), "tune": TRAIN, "sample": few}}, ipc=1)
    capsys.readouterr()
    assert compare(again, "--out=other", "--dry_run") == 0
    assert any("generator" in line and "measured" in line for line in capsys.readouterr().out.splitlines())
    assert compare(again, "--out=other", "--only=seed0") == 0
    [first] = Path("out/sets").glob("Tuned*")
    [second] = Path("other/sets").iterdir()
    assert DistilledSet.load(first).digest() == DistilledSet.load(second).digest()


def test_generator__what_it_starts_from_and_plans_decide_by_their_content(tmp_path):
    """A file that is another one by the same name makes another job."""

    def key():
        options = {"generator": TRAIN | {"init_from": str(tmp_path / "base.pth")}}
        options |= {"sample": {"plan": str(tmp_path / "plan.json"), "num_per_class": 1}, "selector": "all"}
        data = DataChoice("digits", name="digits")
        content.cache_clear()  # as another call of the command
        pool = generator(Request(options=options, data=data, ipc=1, seed=0, producer="Own")).job.needs["pool"]
        return tuple(key_of(job, {"digits": {}}, "1") for job in (pool, pool.needs["generator"]))

    keys = []
    for text in ("one", "other", "other"):
        (tmp_path / "base.pth").write_text(text)
        keys.append(key())
    (tmp_path / "plan.json").write_text("{}")
    keys.append(key())
    assert keys[1] == keys[2] and keys[0][1] != keys[1][1] == keys[3][1]
    assert len({pool for pool, _ in keys}) == 3


def test_generator__is_forecast(capsys):
    assert compare(write(producers={"Own": {"generator": TRAIN, "sample": SAMPLE}}, ipc=1, seeds=1), "--dry_run") == 0
    assert any("generator" in line and "measured" in line for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "nowhere"}, "no generator at nowhere"),
        ({"generator": {"iteration": 2}}, "did you mean 'iterations'"),
        ({"generator": {"config": "digit"}}, "no config is called 'digit'; did you mean 'digits'"),
        ({"generator": {"seed": 2}}, "G: 'seed' is the comparison's to say"),
        ({"generator": TRAIN | {"chunk_seconds": 3}}, "G: chunk_seconds leaves a training unfinished"),
        ({"generator": TRAIN, "tune": {"stage": 2}}, "did you mean 'stages'"),
        ({"generator": TRAIN, "tune": {"init_from": "x"}}, "G: 'init_from' is the comparison's to say"),
        ({"generator": TRAIN, "tune": 2}, "G: 'tune' must hold options as 'key: value' pairs"),
        ({"generator": [1]}, "G: 'generator' must hold options as 'key: value' pairs"),
        ({"generator": TRAIN, "sample": {"step": 2}}, "did you mean 'steps'"),
        ({"generator": TRAIN, "sample": {"model": "m"}}, "G: 'model' is the comparison's to say"),
        (
            {"generator": TRAIN, "selector": "random"},
            "leaves no choice. Give num_per_class or budget",
        ),
        ({"generator": TRAIN, "sample": {"budget": "2s"}, "selector": "randon"}, "selector 'randon'; did you mean 'ra"),
        ({"generator": TRAIN, "tune": TRAIN, "sample": SAMPLE}, "solver dpmpp_2m cannot draw with this generator"),
        ({"generator": TRAIN, "sample": {**SAMPLE, "solver": "consistency"}}, "solver consistency cannot draw with"),
        ({"generator": TRAIN, "samples": {}}, "G: unknown option 'samples'"),
    ],
)
def test_generator__refuses(options, message):
    with pytest.raises(InputError) as error:
        compare(write(producers={"G": options}))
    assert message in str(error.value)


def test_pool__whole(digits):
    from matching_dd import coreset

    pool = coreset("random", digits, 3)
    pool.save(Path("pool.safetensors"))
    assert compare(write(producers={"Whole": {"pool": "pool.safetensors", "selector": "all"}}, ipc=[1, 5])) == 0
    [folder] = Path("out/sets").iterdir()  # another seed or ipc gives no other
    assert DistilledSet.load(folder).digest() == pool.digest()
    assert SMALL["seeds"] == 2 and len(files("scores/*")) == 1
