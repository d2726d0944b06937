"""The report: what is ranked with what, what stands beside the papers, and a page that needs nothing else."""

import io
import json
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core_dd import cli
from core_dd.errors import InputError
from core_dd.judge.evaluate import main as evaluate
from core_dd.report.beyond import beyond, confusions
from core_dd.report.content import summary
from core_dd.report.document import plain
from core_dd.report.ranking import (
    CHANCE,
    accuracy,
    across_networks,
    beside_accuracy,
    beside_published,
    cells,
    fid_beside_published,
    find_scores,
    grouped,
    moments_beside_published,
    notes,
    published_text,
    read_entry,
)
from core_dd.report.report import main
from core_dd.report.tables import markdown_table, text_table
from core_dd.sets.distilled import DistilledSet, new_meta


def score(
    folder: Path, accuracies, *, method="dm", ipc=10, data="digits", fingerprint="f", tested=None, **changes
) -> Path:
    """A scores.json as `gendd evaluate` writes it."""
    n, mean = len(accuracies), statistics.fmean(accuracies)
    half = 2.776 * statistics.stdev(accuracies) / n**0.5 if n > 1 else None
    record = {
        "accuracies": accuracies,
        "mean": mean,
        "std": statistics.stdev(accuracies) if n > 1 else 0.0,
        "ci95": None if half is None else [mean - half, mean + half],
        "protocol": "quick",
        "network": "convnet2",
        "runs": n,
        "seed": 0,
        "smoke": False,
        "seconds": 1.5,
        "set": {"path": "none.safetensors", "method": method, "ipc": ipc, "images": 100, "hash": folder.name},
        "data": {"name": data, "fingerprint": fingerprint} | (tested or {}),
        "config": {"protocol": "quick", "nested": {"lr": 0.01}},
        "versions": {"torch": "2"},
        "curves": {},
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(record))
    return folder / "scores.json"


def entries(*paths: Path):
    return [read_entry(path) for path in paths]


def test_grouped__ranks_best_first_and_marks_overlap(tmp_path):
    low = score(tmp_path / "low", [0.80, 0.81, 0.82])
    high = score(tmp_path / "high", [0.95, 0.96, 0.97], method="a")
    near = score(tmp_path / "near", [0.94, 0.96, 0.97], method="b")
    (group,) = grouped(entries(low, high, near))
    assert [(e.file, e.rank, e.close) for e in group.entries] == [(high, 1, False), (near, 2, True), (low, 3, False)]


def test_cells__show_best_of_test_in_a_column_of_its_own_and_never_rank_by_it(tmp_path):
    chosen = {"accuracies": [0.99, 0.97], "mean": 0.98, "std": 0.0141, "tests_per_classifier": 4, "sets": 1}
    low = score(tmp_path / "low", [0.80, 0.82], best_of_test=chosen)
    high = score(tmp_path / "high", [0.95, 0.96], method="a")
    (group,) = groups = grouped(entries(low, high))
    assert [entry.file for entry in group.entries] == [high, low]
    heads, *rows = cells(group)
    column = heads.index("best_of_test")
    assert [row[column] for row in rows] == ["-", "98.0 ± 1.4"]
    assert beside_accuracy(group.entries[1]) == "81.0 ± 1.4 (best_of_test 98.0 ± 1.4)"
    assert any("nothing is ranked by it" in note for note in notes(groups))
    (without,) = grouped(entries(high))
    assert "best_of_test" not in cells(without)[0] and not any("ranked by it" in note for note in notes([without]))


def test_across_networks__puts_a_sets_networks_side_by_side(tmp_path, capsys):
    places = []
    for name, method, accuracies in (("a", "dm", (0.5, 0.7)), ("b", "m3d", (0.6, None))):
        for network, value in zip(("convnet3", "timm:resnet18"), accuracies, strict=True):
            if value is not None:
                options = {"network": network, "smoke": network != "convnet3"}
                path = score(tmp_path / network / name, [value], method=method, **options)
                places.append(path.rename(path.with_name(f"scores-{network.replace(':', '-')}.json")))
    groups = grouped(entries(*places))
    heads, *rows = across_networks(groups)["digits, protocol quick"]
    assert heads == ["set", "ipc", "convnet3", "timm:resnet18"]
    assert rows == [["m3d ipc 10", "10", "60.0", "-"], ["dm ipc 10", "10", "50.0", "70.0 (smoke)"]]
    assert across_networks(grouped(entries(places[0], places[2]))) == {}
    assert find_scores([tmp_path]) == sorted(places), "files of several networks are found, too"
    main([str(tmp_path), "--out", "out"])
    assert "digits, protocol quick, accuracy % across networks" in capsys.readouterr().out
    page, text = Path("out/report.html").read_text(), Path("out/report.md").read_text()
    assert "Across networks" in page and "| dm ipc 10 | 10 | 50.0 | 70.0 (smoke) |" in text


def test_across_networks__two_methods_that_made_the_same_set_have_a_line_each(tmp_path):
    paths = [
        score(tmp_path / f"{method}-{network}", [0.5], method=method, network=network,
              set={"path": None, "method": method, "ipc": 1, "images": 10, "hash": "same"})
        for method in ("herding", "k_center") for network in ("convnet3", "vgg11")
    ]  # fmt: skip
    [(_, *rows)] = across_networks(grouped(entries(*paths))).values()
    assert [row[0] for row in rows] == ["herding ipc 1", "k_center ipc 1"]


MOMENTS = {"moment1_distance": 1.5, "moment2_distance": 2.25, "moment3_distance": 0.5}


def test_moments_beside_published__theirs_then_ours_at_the_same_ipc(tmp_path):
    """M3D's table 1 has CIFAR-10 at 10 images per class."""
    options = {"data": "cifar10", "network": "convnet3", "fidelity": MOMENTS | {"classifier_frechet": 3.0}}
    measured = score(tmp_path / "ours", [0.4, 0.5], method="dm", **options)
    plain = score(tmp_path / "plain", [0.4, 0.5], method="m3d", data="cifar10", network="convnet3")
    (group,) = groups = grouped(entries(measured, plain))
    heads, *rows = moments_beside_published(group)
    assert heads == ["method", "ipc", "network", *MOMENTS, "source"]
    paper = "M3D (Zhang et al., AAAI 2024), Table 1"
    assert rows[0] == ["DM", "10", "convnet3", "4.91", "7.37", "6.76", paper] and len(rows) == 5
    assert rows[3] == ["M3D", "10", "convnet3", "0.82", "1.23", "1.64", paper]
    assert rows[4] == ["dm ipc 10", "10", "convnet3", "1.5", "2.25", "0.5", "this report"]
    assert any("order and ratio" in note for note in notes(groups))
    assert moments_beside_published(grouped(entries(plain))[0]) == []
    other = score(tmp_path / "other", [0.4], ipc=50, **options)
    assert moments_beside_published(grouped(entries(other))[0]) == []


def test_main__shows_pairs_of_images_and_their_nearest_training_images(tmp_path, digits, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dset = DistilledSet(digits.train_images[:20], digits.train_labels[:20], new_meta(digits, method="r", ipc=2, seed=0))
    dset.save(tmp_path / "in" / "distilled.safetensors")
    argv = ["--set", "in", "--protocol", "quick", "--iterations", "2", "--classifiers", "1", "--network", "convnet1_w8"]
    evaluate([*argv, "--fidelity", "copies"])
    record = json.loads((tmp_path / "in" / "scores.json").read_text())
    assert record["fidelity"] == {"copies_pixels": 1.0, "copies_features": 1.0}
    main(["in", "--out", "out"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "nearest training images" in text and "the 10 nearest in pixels, at 0 to 0" in text
    with Image.open(tmp_path / "out" / "pictures" / "00-nearest.png") as picture:
        rows = torch.tensor(np.array(picture.convert("L")))
    assert torch.equal(rows[: 32 * 1], rows[-32:])  # copies: both rows show the same
    record["copies"]["training_digest"] = "other"
    (tmp_path / "in" / "scores.json").write_text(json.dumps(record))
    main(["in", "--out", "other"])
    assert "No picture: the data are others now" in (tmp_path / "other" / "report.md").read_text()
    for name, value in (("pairs", []), ("lpips", record["copies"]["pixels"])):  # what no command writes
        broken = record | {"copies": record["copies"] | {name: value}}
        (tmp_path / "in" / "scores.json").write_text(json.dumps(broken))
        with pytest.raises(InputError, match="scores.json"):
            main(["in", "--out", name])


def test_notes__say_which_distance_is_fid(tmp_path):
    lite = score(tmp_path / "lite", [0.4], fidelity={"fd_efficientnet_lite0": 3.0})
    assert any("It is not FID and stands beside no" in note for note in notes(grouped(entries(lite))))
    fid = score(tmp_path / "fid", [0.4], fidelity={"fid": 3.0})
    said = notes(grouped(entries(fid)))
    assert any("Fréchet inception distance" in note for note in said) and not any("_lite0" in note for note in said)


def test_main__shows_moments_in_the_report_and_spares_the_terminal(tmp_path, capsys):
    options = {"data": "cifar10", "network": "convnet3", "fidelity": MOMENTS | {"classifier_frechet": 3.0}}
    path = score(tmp_path / "ours", [0.4, 0.5], **options)
    main([str(path), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "classifier_frechet" in printed and not any(name in printed for name in MOMENTS)
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert all(text.count(moment) >= 3 for moment in MOMENTS)  # ranking, beside the paper's, note
        assert "2.25" in text and "7.37" in text
    Page((tmp_path / "out" / "report.html").read_text())  # every tag is closed


SAID = {
    "answers": {"per_class": [1.0, 0.0], "balanced_accuracy": 0.5, "ece": 0.125, "confusion": [[2, 0], [2, 0]]},
    "training_cost": {"images_seen": 4000, "training_flops": 2.5e12, "peak_mib": 1234.5},
}


def placed(folder, **more):
    """What was scored, with what newer scores say of it."""
    known = {"path": "none.safetensors", "method": "dm", "ipc": 10, "images": 100, "hash": folder.name}
    return {"set": known | {"labels": "hard", "factor": 1, "bytes": 2048} | more}


def test_grouped__label_regimes_never_rank_together(tmp_path):
    """A score that does not say was of hard labels."""
    soft, hard, old = tmp_path / "soft", tmp_path / "hard", tmp_path / "old"
    groups = grouped(
        entries(
            score(soft, [0.9], **placed(soft, labels="soft")),
            score(hard, [0.5], **placed(hard)),
            score(old, [0.4]),
        )
    )
    assert [[entry.file.parent for entry in group.entries] for group in groups] == [[soft], [hard, old]]
    assert [group.title.endswith("soft labels") for group in groups] == [True, False]
    assert any("label regimes" in note for note in notes(groups))


def test_cells__show_factor_optimiser_and_images_seen_where_they_differ(tmp_path):
    one, two, old = tmp_path / "one", tmp_path / "two", tmp_path / "old"
    rates = [{"resolved_protocol": {"lr": lr, "batch_size": 256}} for lr in (0.01, 0.02)]
    first = score(one, [0.9], **placed(one), **SAID_SEEN, **rates[0])
    second = score(two, [0.8], **placed(two, factor=2), **SAID_SEEN, **rates[1])
    (group,) = grouped(entries(first, second, score(old, [0.7])))
    heads, *rows = cells(group)
    assert "images seen" not in heads
    columns = heads.index("factor"), heads.index("optimiser")
    assert [[row[i] for i in columns] for row in rows] == [
        ["1", "SGD 0.01, batch 256"], ["2", "SGD 0.02, batch 256"], ["-", "-"],
    ]  # fmt: skip
    (alike,) = grouped(entries(first, score(tmp_path / "older", [0.7])))
    assert not {"factor", "optimiser", "images seen"} & set(cells(alike)[0])


SAID_SEEN = {"training_cost": SAID["training_cost"]}


def test_beyond__stands_beside_the_accuracy(tmp_path, capsys):
    new, old = tmp_path / "in" / "new", tmp_path / "in" / "old"
    score(new, [0.5], **placed(new), **SAID)
    score(old, [0.4])
    (group,) = grouped(entries(*find_scores([tmp_path / "in"])))
    heads, row = beyond(group)
    assert dict(zip(heads, row, strict=True)) == {
        "set": "dm ipc 10 (seed 0) (new)", "balanced %": "50.0", "worst class %": "0.0 (class 1)", "ECE %": "12.5",
        "images seen": "4,000", "training FLOPs": "2.5e+12", "peak MiB": "1,234", "set KiB": "2",
        "labels": "hard", "factor": "1",
    }  # fmt: skip
    assert confusions(group.entries)[1:] == [["dm ipc 10 (seed 0) (new)", "1 as 0: 100.0 %"]]
    assert beyond(grouped(entries(old / "scores.json"))[0]) == []
    main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "2.5e+12" in text and "1 as 0: 100.0 %" in text and "expected calibration error" in text
    Page((tmp_path / "out" / "report.html").read_text())


def test_beyond__says_of_every_score_how_its_classifiers_were_trained(tmp_path):
    trained = {"resolved_protocol": {"lr": 1e-3, "batch_size": 50, "optimiser": "adamw"}, "label_regime": "teacher"}
    path = score(tmp_path / "a", [0.9], **trained, **SAID_SEEN)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"set": record["set"] | {"labels": "hard", "factor": 2}}))
    heads, row = beyond(grouped(entries(path))[0])
    shown = dict(zip(heads, row, strict=True))
    assert [shown[name] for name in ("labels", "factor", "optimiser", "images seen")] == [
        "teacher", "2", "AdamW 0.001, batch 50", "4,000",
    ]  # fmt: skip


def test_beyond__shows_what_was_asked_for(tmp_path):
    """Membership inference beside random images, and robustness."""
    ratio = {"auc": 0.54, "tpr_at_1_fpr": 0.02, "shadows": 8}
    random = {"auc": 0.9, "tpr_at_1_fpr": 0.4, "likelihood_ratio": ratio | {"auc": 0.95}}
    found = {"auc": 0.52, "tpr_at_1_fpr": 0.015, "likelihood_ratio": ratio, "random": random}
    changed = {"clean": 0.9, "fgsm": 0.5, "pgd": 0.25, "noise": 0.8, "blur": 0.6}
    heads, row = beyond(grouped(entries(score(tmp_path / "a", [0.9], membership=found, robustness=changed)))[0])
    assert dict(zip(heads[1:], row[1:], strict=True)) == {
        "members found, AUC % (random)": "52.0 (90.0)", "at 1 % FPR, %": "1.5 (40.0)",
        "by likelihood ratio, AUC %": "54.0 (95.0)", "by it at 1 % FPR, %": "2.0 (2.0)", "FGSM %": "50.0",
        "PGD %": "25.0", "corrupted %": "70.0",
    }  # fmt: skip


def test_grouped__smoke_is_shown_last_and_never_ranked(tmp_path):
    real = score(tmp_path / "real", [0.5, 0.6])
    smoke = score(tmp_path / "smoke", [0.9, 0.91], smoke=True)
    (group,) = grouped(entries(smoke, real))
    assert [(e.file, e.rank) for e in group.entries] == [(real, 1), (smoke, None)]
    assert cells(group)[2][0] == "smoke"
    assert "nothing is ranked" in plain([summary(grouped(entries(smoke)))])


def test_grouped__ranks_by_size_and_never_the_real_images(tmp_path):
    paths = {
        name: score(tmp_path / name, [value], method=method, ipc=ipc, chance=0.102, tested={"test_images": 355})
        for name, method, ipc, value in (
            ("a", "dm", 1, 0.6), ("b", "dm", 10, 0.9), ("c", "m3d", 10, 0.8), ("d", "m3d", 1, 0.7),
            ("e", "real", None, 0.99),
        )
    }  # fmt: skip
    (group,) = groups = grouped(entries(*paths.values()))
    assert [(e.file.parent.name, e.rank) for e in group.entries] == [
        ("d", 1), ("a", 2), ("b", 1), ("c", 2), ("e", None),
    ]  # fmt: skip
    small, large = group.by_size().values()
    assert [entry.file.parent.name for entry in large.entries] == ["b", "c", "e"]
    assert [row[:2] for row in cells(small)[1:]] == [["1", "m3d ipc 1"], ["2", "dm ipc 1"], ["real", "real"],
                                                     ["-", "chance"]]  # fmt: skip
    assert large.references == pytest.approx({"real": 99.0, "chance": 10.2})
    said = plain([summary(groups)])
    assert "Best of 2" in said and "ipc 10: dm ipc 10, 90.0 %" in said and "99.0" not in said
    main([str(tmp_path), "--out", "out"])
    page = Path("out/report.html").read_text()
    assert page.count("<tfoot>") == 2 and page.count('class="reference dashed"') == 2


def test_summary__of_many_rankings_counts_them(tmp_path):
    groups = grouped(entries(*(score(tmp_path / f"s{ipc}", [0.5], ipc=ipc) for ipc in range(1, 9))))
    assert plain([summary(groups)]) == "8 sets scored with 8 classifiers. 8 rankings follow."


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "dm"},
        {"network": "convnet3"},
        {"data": "mnist"},
        {"fingerprint": "e"},
    ],
)
def test_grouped__other_protocol_network_or_data_is_another_ranking(tmp_path, other):
    groups = grouped(entries(score(tmp_path / "a", [0.5]), score(tmp_path / "b", [0.6], **other)))
    assert [[entry.rank for entry in group.entries] for group in groups] == [[1], [1]]
    assert any("do not compare" in note for note in notes(groups))


def test_grouped__sets_called_the_same_are_told_apart(tmp_path):
    a, b, c = (score(tmp_path / name, [0.5, 0.6], seed=seed) for name, seed in (("a", 0), ("b", 1), ("c", 1)))
    (group,) = grouped(entries(a, b, c))
    assert {e.label for e in group.entries} == {
        "dm ipc 10 (seed 0)",
        "dm ipc 10 (seed 1) (b)",
        "dm ipc 10 (seed 1) (c)",
    }


def test_accuracy__a_single_run_has_no_spread(tmp_path):
    one, two = entries(score(tmp_path / "a", [0.5]), score(tmp_path / "b", [0.4, 0.6]))
    assert (accuracy(one), accuracy(two)) == ("50.0", "50.0 ± 14.1")
    assert one.interval is None


def test_report__marks_a_score_at_chance_and_says_what_that_means(tmp_path, capsys):
    """Two classifiers at 10.2 and 9.2 % on ten classes; another set's at 40 % and 42 %."""
    options = {"chance": 0.102, "data": "digits"}
    lost = score(tmp_path / "lost", [0.102, 0.092], method="uvit", **options)
    fine = score(tmp_path / "fine", [0.40, 0.42], **options)
    for path in (lost, fine):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"data": record["data"] | {"test_images": 355}}))
    (group,) = groups = grouped(entries(lost, fine))
    assert [row[4] for row in cells(group)[1:]] == ["41.0 ± 1.4", "9.7 ± 0.7†", "10.2"]
    assert CHANCE in notes(groups) and CHANCE not in notes(grouped(entries(fine)))
    for places, marked in ((tmp_path, True), (tmp_path / "fine", False)):
        main([str(places), "--out", str(tmp_path / f"report-{marked}")])
        shown = [capsys.readouterr().out]
        shown += [(tmp_path / f"report-{marked}" / f"report.{kind}").read_text() for kind in ("md", "html")]
        assert all(("†" in text and "cannot be told from chance" in text) is marked for text in shown)


def test_read_entry__the_interval_is_the_bounded_one_whatever_the_file_says(tmp_path):
    """Two classifiers far apart: the t interval of older files reached from -39.9 to 157.7 %."""
    path = score(tmp_path / "a", [0.511, 0.667], ci95=[-0.399, 1.577])
    low, high = read_entry(path).interval
    assert 0 < low < 51.1 and 66.7 < high < 100


def test_beside_published__joins_method_network_and_ipc(tmp_path):
    paths = [
        score(tmp_path / "dm", [0.83, 0.84], data="fashion_mnist", network="convnet3"),
        score(tmp_path / "mine", [0.70, 0.72], data="fashion_mnist", network="convnet3", method="mine"),
        score(tmp_path / "all", [0.93, 0.94], data="fashion_mnist", network="convnet3", method="real", ipc=None),
    ]
    (group,) = grouped(entries(*paths))
    lines = {(line.method, line.ipc): line for line in beside_published(group)}
    assert [published_text(row) for row in lines["DM", 10].published] == ["83.5 ± 0.3"]
    assert [entry.file for entry in lines["DM", 10].ours] == [paths[0]]
    assert lines["mine ipc 10", 10].published == () and lines["mine ipc 10", 10].ours[0].file == paths[1]
    assert [entry.file for entry in lines["Whole", None].ours] == [paths[2]]
    assert any("factor x factor" in note for note in notes([group]))


def test_beside_published__the_same_value_from_two_tables_is_one(tmp_path):
    path = score(tmp_path / "dm", [0.4], data="cifar10", network="convnet3")
    (group,) = grouped(entries(path))
    (line,) = [line for line in beside_published(group) if line.method == "DM"]
    assert [published_text(row) for row in line.published] == ["48.9 ± 0.6"]
    assert line.published[0].source.count("Table") == 3


def test_beside_published__ranks_only_what_is_trained_alike(tmp_path):
    """A set judged by challenge ranks with rows of dm, which trains alike; not with other protocols, label regimes or
    rows that do not say."""
    place = {"data": "cifar10", "network": "convnet3", "protocol": "challenge"}
    soft = {"set": {"path": None, "method": "DM", "ipc": 10, "images": 100, "hash": "h", "labels": "soft"}}
    hard = score(tmp_path / "mine", [0.51], method="mine", **place)
    (group,) = grouped(entries(hard))
    lines = [line for line in beside_published(group) if line.ipc == 10]
    blocks = list(dict.fromkeys(line.ranked_with for line in lines))
    assert len(blocks) == len({*blocks}) and blocks[0] == ("hard", "dm") and blocks[-1] is None
    assert ("hard", "idc") in blocks  # M3D's and IDC's, of which the former has more classifiers
    first = [line.method for line in lines if line.ranked_with == ("hard", "dm")]
    assert first == ["IDM", "DSA", "mine ipc 10", "DM"]
    methods = {line.method for line in lines if line.ranked_with is None}
    assert methods >= {"Random", "Random, DATM's run", "NCFM", "DATM"}

    (group,) = grouped(entries(score(tmp_path / "soft", [0.6], **place, **soft)))
    lines = [line for line in beside_published(group) if line.ours]
    assert [(line.method, line.ranked_with, line.published) for line in lines] == [("DM ipc 10", ("soft", "dm"), ())]


def test_beside_published__says_how_both_were_trained(tmp_path):
    changes = {"resolved_protocol": {"lr": 0.05, "batch_size": 64}, "training_cost": {"images_seen": 12800}}
    changes["training_cost"] |= {"training_flops": None, "peak_mib": 1.0}
    path = score(tmp_path / "dm", [0.4], data="cifar10", network="convnet3", **changes)
    (group,) = grouped(entries(path))
    (line,) = [line for line in beside_published(group) if line.ours]
    assert (line.labels, line.factors, line.protocols) == ("hard", ("1", "?"), ("dm", "quick"))
    assert (line.images_seen, line.optimiser) == (("100,100", "12,800"), ("SGD 0.01, batch 256", "SGD 0.05, batch 64"))
    main([str(path), "--out", str(tmp_path / "report")])
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| labels | factor | protocol | images seen | optimiser |" in page.replace("---", "")
    assert "100,100" in page and "SGD 0.05, batch 64" in page


@pytest.mark.parametrize(
    ("data", "network", "best"), [("cifar100", "convnet3", 37.56), ("tiny_imagenet", "convnet4", 23.53)]
)
@pytest.mark.parametrize("ipc", [None, 30])
def test_beside_published__a_pool_stands_beside_the_challenges(tmp_path, data, network, best, ipc):
    place = {"data": data, "network": network, "protocol": "challenge"}
    paths = [
        score(tmp_path / "pool", [0.2], method="uvit", ipc=ipc, **place),
        score(tmp_path / "dm", [0.2], method="dm", ipc=10, **place),
    ]
    (group,) = grouped(entries(*paths))
    lines = beside_published(group)
    drawn = [line for line in lines if line.published and "track 2" in line.published[0].source]
    assert len(drawn) == 5 and drawn[0].published[0].percent == best
    assert [line.method for line in lines if any(entry.is_pool for entry in line.ours)] == [group.entries[-1].label]
    main([*map(str, paths), "--out", str(tmp_path / "report")])
    assert "| zheli (U-ViT) | any | " in (tmp_path / "report" / "report.md").read_text()
    (group,) = grouped(entries(paths[1]))
    assert all("track 2" not in row.source for line in beside_published(group) for row in line.published)


def test_fid_beside_published__only_what_is_fid(tmp_path, capsys):
    """The challenge winner's 39.85 stands beside a FID, and beside no other distance."""
    other = {"fidelity": {"fd_efficientnet_lite0": 30.0, "classifier_frechet": 3.0}}
    for data, theirs in (("cifar100", "39.85"), ("tiny_imagenet", "41.51")):
        lite = score(tmp_path / f"{data}-lite", [0.2], data=data, method="uvit", ipc=None, **other)
        fid = score(tmp_path / f"{data}-fid", [0.2], data=data, method="uvit", ipc=None, fidelity={"fid": 50.125})
        for path, shown in ((lite, False), (fid, True)):
            rows = fid_beside_published(grouped(entries(path))[0])
            assert [row[2] for row in rows] == (["fid", theirs, "50.1"] if shown else [])
            main([str(path), "--out", str(path.parent / "report")])
            assert (theirs in (path.parent / "report" / "report.md").read_text()) is shown
    capsys.readouterr()


def test_beside_published__nothing_for_digits(tmp_path):
    (group,) = grouped(entries(score(tmp_path / "a", [0.5])))
    assert beside_published(group) == []


def test_find_scores__files_folders_and_patterns_each_once(tmp_path):
    a, b = score(tmp_path / "x" / "a", [0.5]), score(tmp_path / "x" / "b", [0.6])
    assert find_scores([a, tmp_path / "x", str(tmp_path / "*" / "b")]) == [a, b]


def test_text_table__columns_are_aligned():
    text = text_table([["#", "set", "n"], ["1", "long name", "5"], ["12", "x", "10"]])
    assert text.splitlines() == ["#   set         n", "--  ---------  --", "1   long name   5", "12  x          10"]


@pytest.mark.parametrize("content", ["[]", "null", '"a"', "3", "", "{", "[" * 10**5])
def test_read_entry__refuses_another_file(tmp_path, content):
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "scores.json"))):
        read_entry(tmp_path / "scores.json")


HOSTILE = "<script>alert(1)</script> [x](javascript:y) *b* `c` **d** \x1b[31m\u202e|\n# e"


def test_main__names_are_words_and_nothing_else(tmp_path, capsys):
    """Neither in the terminal nor in Markdown or HTML do a score's strings act."""
    place = {"path": None, "name": HOSTILE, "method": HOSTILE, "ipc": 3, "images": 30, "hash": HOSTILE}
    options = {"data": HOSTILE, "fingerprint": HOSTILE, "protocol": HOSTILE, "network": HOSTILE, "set": place}
    path = score(tmp_path / "a", [0.5, 0.6], **options, versions={HOSTILE: HOSTILE}, config={HOSTILE: HOSTILE})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stats.jsonl").write_text(json.dumps({"step": 1, HOSTILE: 0.5}) + "\n")
    main([str(path), "--curves", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    html, text = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    printed = capsys.readouterr().out
    assert all("\x1b" not in words and "\u202e" not in words for words in (html, text, printed))
    assert "\\x1b[31m\\u202e|\\n# e" in printed
    page = Page(html)
    assert page.open == [] and page.names.count("script") == 1  # ours
    assert not any("javascript" in each for each in page.addresses)
    assert "<script>alert(1)</script>" in page.text and "**d**" in page.text
    assert r"\<script\>alert(1)\</script\> \[x\](javascript:y) \*b\* \`c\` \*\*d\*\*" in text
    assert "<script>" not in re.sub(r"\\<", "", text) and not re.search(r"(?<!\\)\[x", text)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"step": 1, "loss": NaN}\n{"step": 2}\n', "line 1 of"),
        ('{"step": 1}\n{"step": 2, "loss"\n{"step": 3}\n', "line 2 of"),
        ('{"loss": 1}\n', "missing required field step"),
        ('{"step": 1, "loss": "low"}\n', "expected float, got str"),
        ('{"step": 1.5}\n', "expected int, got float"),
        ("[]\n", "expected object, got array"),
        ("\n", "has no curve"),
        ("", "has no curve"),
        ('{"step": 1, "lo', "has no curve"),
    ],
)
def test_main__names_the_curve_that_is_damaged(tmp_path, lines, said):
    path = score(tmp_path / "a", [0.5, 0.6])
    (tmp_path / "stats.jsonl").write_text(lines)
    with pytest.raises(InputError, match=said) as refused:
        main([str(path), "--curves", str(tmp_path), "--out", str(tmp_path / "out")])
    assert str(tmp_path) in str(refused.value) and not (tmp_path / "out").exists()


def test_main__is_written_although_nobody_reads_on(tmp_path, monkeypatch):
    """gendd report ... | true"""

    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Gone())
    with pytest.raises(BrokenPipeError):
        main([str(score(tmp_path / "a", [0.5, 0.6])), "--out", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"pictures", "report.html", "report.md"}


def test_markdown_table__escapes_pipes():
    assert markdown_table([["#", "set", "n"], ["1", "a|b", "2"]]).splitlines()[1:] == [
        "| --- | --- | ---: |",
        "| 1 | a\\|b | 2 |",
    ]


IPC_IN_WORDS = {"method": "dm", "ipc": "ten", "images": 100, "hash": "h"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": 0.9}, "says mean 90.0000 %"),
        ({"accuracies": []}, "at accuracies: expected array of length >= 1"),
        ({"accuracies": ["x"]}, "at accuracies[0]: expected float, got str. It is no score"),
        ({"accuracies": [90.5], "mean": 90.5}, "at accuracies[0]: expected float <= 1.0"),
        ({"accuracies": [-0.1], "mean": -0.1}, "at accuracies[0]: expected float >= 0.0"),
        ({"accuracies": [float("nan")]}, "is not valid JSON"),
        ({"accuracies": None}, "at accuracies: expected array, got null"),
        ({"mean": float("inf")}, "is not valid JSON"),
        ({"mean": 50.0}, "at mean: expected float <= 1.0"),
        ({"std": 0.3}, "says std 30.0000 %"),
        ({"std": -0.1}, "at std: expected float >= 0.0"),
        ({"runs": 5}, "says 5 runs, its accuracies are 1"),
        ({"set": {"name": "x"}}, "at set: object missing required field"),
        ({"set": []}, "at set: expected object, got array"),
        ({"set": IPC_IN_WORDS}, "at set.ipc: expected int | null, got str"),
        ({"set": IPC_IN_WORDS | {"ipc": 0}}, "at set.ipc: expected int >= 1"),
        ({"set": IPC_IN_WORDS | {"ipc": 1, "hash": 3}}, "at set.hash: expected str"),
        ({"set": IPC_IN_WORDS | {"ipc": 1, "cost": "1 s"}}, "at set.cost: expected object"),
        ({"data": None}, "at data: expected object, got null"),
        ({"chance": 0.1}, "test_images"),
        ({"smoke": "no"}, "at smoke: expected bool"),
        ({"seconds": -1}, "at seconds: expected float >= 0.0"),
        ({"fidelity": {"classifier_frechet": "near"}}, "expected float, got str"),
        ({"best_of_test": {"mean": 55.0, "std": 0}}, "at best_of_test.mean: expected float <= 1.0"),
        ({"best_of_test": [0.5]}, "at best_of_test: expected object"),
        ({"curve_steps": [0, 1], "curves": {"loss": [[1.0]]}}, "has curves of loss"),
        ({"curve_steps": [0, 1], "curves": {"loss": [[1.0, float("nan")]]}}, "is not valid JSON"),
        ({"curves": []}, "at curves: expected object"),
        ({"curve_steps": [0, 1], "curves": {"loss": [[1.0, 2.0]] * 2}}, "has curves of loss that are not 1"),
        ({"curve_steps": [0, 1], "curves": {"loss": [[1.0, 1e308]]}}, "expected float <= 1e+100"),
        ({"curve_steps": [1, 0], "curves": {"loss": [[1.0, 2.0]]}}, "curve_steps that do not rise"),
        ({"set": IPC_IN_WORDS | {"ipc": 10**9}}, "says ipc 1000000000, but "),
        ({"set": IPC_IN_WORDS | {"ipc": 1, "images": 10**30}}, "at set.images: expected int <= "),
        ({"set": IPC_IN_WORDS | {"ipc": 1, "name": "x" * 10**6}}, "at set.name: expected str of length <= "),
        ({"set": IPC_IN_WORDS | {"ipc": 1, "cost": {"seconds": -5}}}, "expected float >= 0"),
        ({"best_of_test": {"mean": 0.1, "std": 0}}, "says best_of_test 10.00 %, less than the mean"),
        ({"chance": 0, "data": {"name": "x", "fingerprint": "f", "test_images": 9}}, "at chance: expected float > 0"),
        ({"config": {"data": 5}}, "at config.data: expected str"),
        ({"config": {"data": "digits", "image_size": "8"}}, "at config.image_size: expected int"),
    ],
)
def test_read_entry__refuses_what_is_no_score(tmp_path, change, said):
    path = score(tmp_path / "a", [0.5])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        read_entry(path)
    assert said in str(error.value)


class Page(HTMLParser):
    """What a page refers to, holds and leaves open."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses, self.names, self.open, self.places, self.text = [], [], [], set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        attrs = dict(attrs)
        self.addresses += [value for key, value in attrs.items() if key in ("src", "href", "xlink:href")]
        self.places |= {attrs["id"]} if "id" in attrs else set()
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def demo(tmp_path, digits):
    """Two scores whose sets are on disk, a smoke one whose set is gone, and a run with a curve."""
    index = torch.cat([part[:3] for part in digits.class_indices()])
    for name, images in (
        ("random", digits.train_images[index]),
        ("noisy <b>", digits.train_images[index].float().div(255).add(0.1)),
    ):
        dset = DistilledSet(images, digits.train_labels[index], new_meta(digits, method=name, ipc=3, seed=0))
        path = dset.save(tmp_path / "sets" / f"{len(name)}.safetensors")
        place = {"path": str(path), "method": name, "ipc": 3, "images": 30, "hash": dset.digest()}
        score(
            tmp_path / "scores" / f"s{len(name)}", [0.8, 0.82], set=place, fidelity={"classifier_frechet": 2.5},
            curve_steps=[0, 10, 20], curves={"loss": [[2.0, 1.0, 0.5], [2.2, 1.1, 0.4]]},
        )  # fmt: skip
    score(tmp_path / "scores" / "gone", [0.9, 0.95], smoke=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stats.jsonl").write_text("".join(f'{{"step": {i}, "loss": {1 / i}}}\n' for i in range(1, 50)))
    return tmp_path


def test_main__writes_a_page_that_needs_nothing_else(demo, capsys):
    main([str(demo / "scores"), "--curves", str(demo / "run"), "--out", str(demo / "out"), "--title", "A & B"])
    text = (demo / "out" / "report.html").read_text()
    page = Page(text)
    assert page.open == [] and page.names.count("script") == 1 and "link" not in page.names
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= page.places
    assert "url(" not in text and "@import" not in text
    assert page.names.count("img") == 2 and "A & B" in page.text and "noisy <b> ipc 3" in page.text
    assert "No picture: " in page.text and "classifier_frechet" in page.text and "step" in page.text
    out = capsys.readouterr().out
    assert "noisy <b> ipc 3" in out and str(demo / "out" / "report.html") in out


def test_main__markdown_has_the_same_ranking_and_its_pictures(demo):
    main([str(demo / "scores"), "--out", str(demo / "out")])
    text = (demo / "out" / "report.md").read_text()
    groups = grouped(entries(*find_scores([demo / "scores"])))
    assert [*groups[0].by_size()] == ["ipc 3", "ipc 10"]
    assert all(markdown_table(cells(ranking)) in text for ranking in groups[0].by_size().values())
    pictures = re.findall(r"\]\((pictures/[^)]+)\)", text)
    assert len(pictures) == 2 and all((demo / "out" / picture).is_file() for picture in pictures)


def test_main__a_folder_of_curves_alone(demo, capsys):
    main([str(demo / "run"), "--out", str(demo / "out"), "--title", "A & B"])
    page, text = Page((demo / "out" / "report.html").read_text()), (demo / "out" / "report.md").read_text()
    assert page.open == [] and page.names.count("figure") == 1 and "nothing is ranked" in page.text
    assert {"curves"} == page.places and "| loss | - | 49 | 1 | 0.0204 |" in text
    assert "interval" not in capsys.readouterr().out


def test_main__says_in_words_what_the_charts_draw(demo):
    main([str(demo / "scores"), "--curves", str(demo / "run"), "--out", str(demo / "out")])
    text = (demo / "out" / "report.md").read_text()
    assert "80.00, 82.00" in text and "## Training curves" in text
    curves = text.split("## Training curves")[1].split("##")[0]
    assert "| noisy \\<b\\> ipc 3 | 20 | 2.1 | 0.45 |" in curves and "| loss | - | 49 | 1 | 0.0204 |" in curves


def test_main__finds_a_run_folder_around_its_score_and_says_what_has_no_image(demo, digits, monkeypatch):
    """From another folder than that in which it was scored; the score says no seed, and the set nothing of itself."""
    run = demo / "first" / "own"
    dset = DistilledSet(digits.train_images[:5], torch.arange(5), {"class_names": list(digits.class_names)})
    place = {"path": "first/own", "method": None, "ipc": None, "images": 5, "hash": dset.digest()}
    file = score(run, [0.8, 0.82], set=place)
    dset.save(run / "distilled.safetensors")
    record = json.loads(file.read_text())
    record.pop("seed", None)
    file.write_text(json.dumps(record))
    (demo / "else").mkdir()
    monkeypatch.chdir(demo / "else")
    main([str(file), "--out", str(demo / "out")])
    text = (demo / "out" / "report.md").read_text()
    assert "No picture" not in text and "5 of 10 classes have no image" in text and "**a set**" in text


def test_main__finds_the_sets_of_a_comparison_from_elsewhere(demo, digits):
    dset = DistilledSet(digits.train_images[:5], torch.arange(5), {"class_names": list(digits.class_names)})
    dset.save(demo / "cmp" / "sets" / "own" / "distilled.safetensors")
    place = {"path": "gone/sets/own", "method": "x", "ipc": None, "images": 5, "hash": dset.digest()}
    main([str(score(demo / "cmp" / "scores" / "own", [0.8, 0.82], set=place)), "--out", str(demo / "out")])
    assert "No picture" not in (demo / "out" / "report.md").read_text()


def test_main__a_pattern_means_what_has_scores_or_curves(demo):
    (demo / "pool").mkdir()
    (demo / "note.txt").write_text("")
    main([str(demo / "*"), "--out", str(demo / "out")])
    text = (demo / "out" / "report.md").read_text()
    assert "noisy" in text and "| loss | - | 49 |" in text


def test_main__a_changed_set_is_not_drawn(demo, digits):
    record = json.loads((demo / "scores" / "s6" / "scores.json").read_text())
    Path(record["set"]["path"]).unlink()
    meta = new_meta(digits, method="random", ipc=1, seed=0)
    DistilledSet(digits.train_images[:10], digits.train_labels[:10], meta).save(record["set"]["path"])
    main([str(demo / "scores" / "s6"), "--out", str(demo / "out")])
    assert "has changed since it was scored" in (demo / "out" / "report.html").read_text()


def test_main__dry_run_prints_the_ranking_and_writes_nothing(demo, capsys):
    main(["--scores", str(demo / "scores"), "--out", str(demo / "out"), "--dry_run"])
    assert "smoke" in capsys.readouterr().out and not (demo / "out").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["{}/scores", "--out", "{}/scores"], "exists"),
        (["{}/nowhere"], "no scores at"),
        ([], "no scores given"),
        (["{}/scores", "--per_class", "0"], "per_class must be >= 1"),
        (["{}/scores", "--curves", "{}/scores"], "has no curve"),
        (["{}/run/stats.jsonl"], "is not valid JSON"),
    ],
)
def test_main__refuses_and_writes_nothing(demo, capsys, argv, said):
    assert cli.main(["report", *(word.format(demo) for word in argv)]) == 2
    assert said in capsys.readouterr().err
    assert not (demo / "out").exists() and not (demo / "runs").exists()
