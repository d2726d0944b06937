"""The papers' tables against spot values, each other, and the cross-checks known to hold."""

from collections import Counter

import pytest

from core_dd.errors import InputError
from core_dd.judge.protocols import PROTOCOLS
from core_dd.report import published
from core_dd.report.trained import published_images_seen, published_optimiser

SIZES = {
    "datadam_table3": 21, "datadam_table4": 29, "datadam_table5": 17, "ead_text": 8, "eccv2024_challenge": 42,
    "m3d_table1": 19, "m3d_table2": 145, "m3d_table3": 40, "m3d_table4": 18, "readmes": 42, "uvit_generation": 18,
    "ncfm_table1": 71, "ncfm_table5": 7, "datm": 34, "dance": 26, "digests": 16,
}  # fmt: skip


def value(table, metric="accuracy", **where):
    """The one number of a table at a place."""
    found = [
        row
        for row in published.rows()
        if (row.table, row.metric) == (table, metric) and all(getattr(row, key) == v for key, v in where.items())
    ]
    assert len(found) == 1, found
    return found[0]


def test_rows__every_table_is_complete():
    assert Counter(row.table for row in published.rows()) == SIZES


def test_rows__filter_by_dataset_ipc_and_method_in_any_case():
    (row,) = published.rows("fashion_mnist", 10, "dm")
    assert (row.mean, row.std, row.network, row.note) == (83.5, 0.3, "convnet3", "reproduced by M3D's authors")
    assert {row.dataset for row in published.rows("svhn")} == {"svhn"}
    assert published.rows("digits") == []


@pytest.mark.parametrize(
    ("table", "where", "mean", "std"),
    [
        ("m3d_table2", {"dataset": "mnist", "ipc": 1, "method": "Random"}, 64.9, 3.5),
        ("m3d_table2", {"dataset": "cifar10", "ipc": 10, "method": "DM"}, 48.9, 0.6),
        ("m3d_table2", {"dataset": "cifar100", "ipc": 50, "method": "M3D"}, 50.9, 0.7),
        ("m3d_table2", {"dataset": "svhn", "ipc": None, "method": "Whole"}, 95.4, 0.1),
        ("m3d_table3", {"dataset": "imagenet100", "ipc": 20, "method": "Random"}, 29.7, None),
        ("datadam_table3", {"ipc": 50, "method": "DataDAM"}, 67.0, 0.4),
        ("readmes", {"dataset": "cifar10", "ipc": 1250, "method": "DM"}, 80.8, 0.3),
        ("readmes", {"dataset": "fashion_mnist", "ipc": 50, "method": "IDC"}, 86.2, None),
        ("ead_text", {"dataset": "cifar10", "method": "EAD"}, 46.3, None),
        ("ncfm_table1", {"dataset": "tiny_imagenet", "ipc": None, "method": "Whole"}, 37.6, None),
        ("ncfm_table1", {"dataset": "cifar100", "ipc": 10, "method": "DSDM"}, 46.2, None),
        ("ncfm_table1", {"dataset": "tiny_imagenet", "ipc": 10, "method": "FTD"}, 24.5, None),
        ("ncfm_table5", {"dataset": "cifar100", "ipc": 50, "method": "NCFM without curation"}, 54.4, None),
        ("datm", {"dataset": "cifar10", "ipc": 50, "method": "Random, DATM's run"}, 50.6, None),
        ("dance", {"dataset": "tiny_imagenet", "ipc": 50, "method": "DANCE"}, 28.9, None),
        ("digests", {"dataset": "cifar10", "ipc": 10, "method": "AT-BPTT"}, 72.4, None),
    ],
)
def test_rows__spot_values(table, where, mean, std):
    row = value(table, **where)
    assert (row.mean, row.std) == (mean, std)


def test_percent__of_fractions_and_of_no_accuracy():
    winner = value("eccv2024_challenge", "accuracy_fraction", dataset="cifar100", method="zheli (U-ViT)")
    assert winner.percent == 37.56
    assert value("uvit_generation", "fid", dataset="cifar100").percent is None


def test_m3d_table2__equals_table4_on_convnet3():
    for ipc in (10, 50):
        for method in ("DSA", "DM", "M3D"):
            where = {"ipc": ipc, "method": method, "network": "convnet3", "dataset": "cifar10"}
            assert value("m3d_table2", **where).mean == value("m3d_table4", **where).mean


def test_m3d_table1__gains_are_over_dm():
    dm = value("m3d_table1", method="DM").mean
    assert dm == value("m3d_table2", dataset="cifar10", ipc=10, method="DM").mean
    for method in ("DM + 2nd reg", "DM + 2nd & 3rd reg", "M3D"):
        gain = value("m3d_table1", "accuracy_gain", method=method).mean
        assert value("m3d_table1", method=method).mean == pytest.approx(dm + gain)


@pytest.mark.parametrize(("dataset", "ipc"), [(d, i) for d in ("imagenet10", "imagenet100") for i in (10, 20)])
def test_idc_readme__equals_m3d_table3(dataset, ipc):
    where = {"dataset": dataset, "ipc": ipc, "method": "IDC"}
    assert value("readmes", **where).mean == value("m3d_table3", **where).mean


def test_random__agrees_between_datadam_and_m3d():
    for ipc in (1, 10, 50):
        where = {"dataset": "cifar10", "ipc": ipc, "method": "Random"}
        ours, theirs = value("datadam_table3", **where), value("m3d_table2", **where)
        assert (ours.mean, ours.std) == (theirs.mean, theirs.std)


@pytest.mark.parametrize("method", ["Random", "DC", "DSA", "CAFE", "CAFE+DSA", "DM", "IDM", "M3D"])
def test_m3d_table2__grows_with_ipc(method):
    for dataset in ("mnist", "fashion_mnist", "svhn", "cifar10", "cifar100"):
        found = [row.mean for row in published.rows(dataset, method=method) if row.table == "m3d_table2"]
        assert found == sorted(found)


def test_challenge__averages_follow_from_the_datasets():
    by_team = {}
    for row in published.rows():
        if row.table == "eccv2024_challenge":
            by_team.setdefault((row.source, row.method), []).append(row.mean)
    assert len(by_team) == 14
    for cifar100, tiny, average in by_team.values():
        assert average == pytest.approx((cifar100 + tiny) / 2, abs=1.01e-4)


def test_tables__agree_where_they_print_the_same_method():
    """NCFM's table repeats M3D's rows and the DC line's random ones, DANCE's those of DataDAM's supplement."""
    for dataset in ("cifar10", "cifar100"):
        for method in ("Random", "IDM", "M3D"):
            for ipc in (1, 10, 50):
                where = {"dataset": dataset, "ipc": ipc, "method": method, "labels": "hard"}
                assert value("ncfm_table1", **where).mean == value("m3d_table2", **where).mean
    for ipc in (1, 10, 50):
        where = {"dataset": "cifar10", "ipc": ipc, "method": "DataDAM"}
        assert value("dance", **where).mean == value("datadam_table3", **where).mean


def test_rows__say_how_classifiers_were_trained_or_that_it_is_unknown():
    assert {row.protocol for row in published.rows()} - {""} <= PROTOCOLS.keys()
    known = {(row.method, row.labels, row.factor) for row in published.rows("cifar10", 10) if row.percent is not None}
    assert known >= {
        ("DM", "hard", 1), ("M3D", "hard", 2), ("IDM", "hard", 2), ("IDC-I", "hard", 1), ("IDC", "hard", 2),
        ("DATM", "learnt", 1), ("NCFM", "soft", 2), ("NCFM without curation", "hard", 2), ("Inf-Match", "soft", None),
        ("AT-BPTT", "", None), ("BigGAN", "", None),
    }  # fmt: skip
    assert all("second-hand" in row.note for row in published.rows() if row.table == "digests")


def test_images_seen__of_published_values():
    m3d = value("m3d_table2", dataset="cifar100", ipc=10, method="M3D")
    assert published_images_seen(m3d) is None and published_optimiser(m3d) is None, "its paper does not say"
    idc = value("readmes", dataset="cifar100", ipc=10, method="IDC")
    assert published_images_seen(idc) == 1000 * 4 * 1000 and published_optimiser(idc) == "SGD 0.01, batch 64"
    plain, augmented = (value("m3d_table2", dataset=data, ipc=1, method="DC") for data in ("cifar10", "mnist"))
    assert (published_images_seen(plain), published_images_seen(augmented)) == (301 * 10, 1001 * 10)
    assert published_optimiser(value("ncfm_table1", dataset="cifar10", ipc=1, method="MTT")) == "SGD learnt, batch 256"
    unknown = value("datm", dataset="cifar10", ipc=1, method="DATM")
    assert published_images_seen(unknown) is None and published_optimiser(unknown) is None


def test_uncertain_values__say_so():
    assert "reconstructed" in value("m3d_table2", dataset="cifar100", ipc=10, method="IDM").note
    assert all("unverified" in row.note for row in published.rows() if row.table == "ead_text")


def test_read__names_the_file_and_line_of_a_bad_number(tmp_path):
    table = tmp_path / "some_table.csv"
    table.write_text(",".join(published.COLUMNS) + "\nx,mnist,ten,DM,convnet3,accuracy,1.0,,hard,1,dm,s,\n")
    with pytest.raises(InputError, match=r"some_table\.csv, line 2"):
        published._read(table)
    table.write_text(",".join(published.COLUMNS) + "\nx,mnist,1,DM,convnet3,accuracy,1.0,,firm,1,dm,s,\n")
    with pytest.raises(InputError, match=r"line 2: labels 'firm' are none of"):
        published._read(table)
    table.write_text("dataset,mean\nmnist,1\n")
    with pytest.raises(InputError, match="expected table, dataset"):
        published._read(table)
