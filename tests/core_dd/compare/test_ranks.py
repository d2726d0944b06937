"""Networks ranked by sets: the grid, the correlations against their definition, and the command end to end."""

import csv
import itertools
import statistics
from pathlib import Path

import pytest
from comparisons import SMALL, write
from test_reading import LEAST, read

from core_dd.compare.ranks import Ranking, by_network, correlation, main, summary
from core_dd.errors import InputError
from core_dd.judge.networks import build_network


def ranks_of(values):
    """Mean ranks of a list, from 1, by counting."""
    return [sum(o < v for o in values) + (1 + sum(o == v for o in values)) / 2 for v in values]


@pytest.mark.parametrize("own", [[0.1, 0.5, 0.3, 0.9, 0.2], [0.1, 0.5, 0.5, 0.9, 0.5]])
def test_correlation__is_pearsons_of_mean_ranks(own):
    real = [0.4, 0.2, 0.8, 0.7, 0.1]
    assert correlation(own, real) == pytest.approx(statistics.correlation(ranks_of(own), ranks_of(real)))


def test_grid__is_that_of_the_papers_and_can_be_built():
    own = read(LEAST + "networks: {}\n").network_names
    assert len(set(own)) == 720 and "convnet3_w128_in_relu_avgpool" in own
    few = read(LEAST + "networks: {draw: 24}\n").network_names
    assert len(few) == 24 and set(few) < set(own) and few == read(LEAST + "networks: {draw: 24}\n").network_names
    assert few != read(LEAST + "networks: {draw: 24, seed: 1}\n").network_names
    for name in [name for name in own if "_w32_" in name and "relu" in name]:
        build_network(name, (1, 16, 16), 10)
    with pytest.raises(InputError, match="at networks"):
        read(LEAST + "networks: {depths: [1]}\n")


def test_summary__of_all_and_of_the_best():
    names = [f"n{i}" for i in range(10)]
    real = {name: 0.9 - i / 20 for i, name in enumerate(names)}
    own = dict(real) | {"n0": real["n3"], "n3": real["n0"]}  # the two ends of the best four are exchanged
    ranking = Ranking(
        data="d", method="DM", ipc=10, protocol="q", real_protocol="dm", accuracies=own, real=real, seconds=60.0,
        real_seconds=600.0,
    )  # fmt: skip
    assert ranking.spearman == pytest.approx(1 - 6 * 18 / (10 * 99))
    assert ranking.spearman_of_best(0.4) == pytest.approx(1 - 6 * 18 / (4 * 15))
    assert ranking.spearman_of_best(0.3) is None and ranking.chosen == "n3"
    ours, theirs = summary([ranking], 0.4)[1:]
    assert ours == ["DM, q", "10", "10", "0.89", "0.50 to 0.98", "-0.80", "75.0 %", "1.0"]
    assert theirs == ["real d, dm", "", "10", "1.00", "", "1.00", "90.0 %", "10.0"]
    assert by_network([ranking], 2) == [["network", "real", "DM ipc 10"], ["n0", "90.0 (1)", "75.0 (4)"],
                                        ["n1", "85.0 (2)", "85.0 (2)"]]  # fmt: skip


def test_tables__rankings_of_several_data_and_protocols_stand_apart():
    names = [f"n{i}" for i in range(5)]

    def ranking(data, protocol, real):
        own = dict(zip(names, [0.5, 0.4, 0.3, 0.2, 0.1], strict=True))
        place = {"data": data, "method": "DM", "ipc": 1, "protocol": protocol, "real_protocol": real}
        return Ranking(**place, accuracies=own, real=own, seconds=1.0, real_seconds=1.0)

    two = [ranking("d", "quick", "quick"), ranking("d", "dm", "dm")]
    assert by_network(two)[0] == ["network", "real, quick", "real, dm", "DM ipc 1, quick", "DM ipc 1, dm"]
    lines = summary([ranking("d", "dm", "dm"), ranking("e", "dm", "dm")], 0.5)
    assert [line[0] for line in lines[1:]] == ["DM d, dm", "DM e, dm", "real d, dm", "real e, dm"]


def rank(file, *flags):
    main([str(file), "--device=cpu", "--out=out", "--workers=0", *flags])


def test_rank_networks__end_to_end_and_goes_on(capsys):
    grid = {"depth": [1], "width": [4], "norm": ["in"], "act": ["relu", "sigmoid"], "pool": ["avgpool", "maxpool"]}
    file = write(networks=grid, ipc=1, seeds=1, real=True, judge={"classifiers": 1})
    rank(file, "--only", "relu", "--no_figures")
    assert Path("out/ranks.md").exists() and not Path("out/ranks.svg").exists()
    first = {path: path.stat().st_mtime_ns for path in Path("out/scores").glob("*/scores.json")}
    assert len(first) == 2 * (1 + 2)
    rank(file)
    assert {path: when for path, when in first.items() if path.stat().st_mtime_ns == when} == first
    printed = capsys.readouterr().out
    assert "DM, quick_3_steps" in printed and "real digits, quick_3_steps" in printed
    rows = list(csv.DictReader(Path("out/ranks.csv").read_text().splitlines()))
    assert len(rows) == 2 * 4 and {row["network"] for row in rows} == {
        f"convnet{d}_w4_in_{a}_{p}" for d, a, p in itertools.product(*(grid[key] for key in ("depth", "act", "pool")))
    }
    for method in SMALL["producers"]:
        own = [float(row["accuracy"]) for row in rows if row["method"] == method]
        ranks = [float(row["rank"]) for row in rows if row["method"] == method]
        assert ranks == ranks_of([-value for value in own])
    assert "| convnet1_w4" in Path("out/ranks.md").read_text() and Path("out/ranks.svg").exists()
    assert not Path("out/report").exists()


def test_rank_networks__without_real_images():
    with pytest.raises(InputError, match="no network yet that both a set and the real training images have judged"):
        rank(write(ipc=1, seeds=1, producers={"Random": {"coreset": "random"}}))
    with pytest.raises(InputError, match="top must be in"):
        rank("small.yaml", "--top=0")


def test_rank_networks__of_sets_and_real_images_judged_by_other_networks():
    """No ranking yet, and that is said."""
    file = write(networks=["convnet1_w4", "convnet1_w8"], ipc=1, seeds=1, real=True, judge={"classifiers": 1})
    with pytest.raises(InputError, match="has no network yet that both"):
        rank(file, "--only", "/real/*/convnet1_w4/", "--no_figures")
    with pytest.raises(InputError, match="has no network yet that both"):
        rank(file, "--only", "/Random/*/convnet1_w8/", "--no_figures")
