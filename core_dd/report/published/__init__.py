"""The papers' tables, to stand beside ours: one CSV per published table, one row per printed number."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from core_dd.errors import InputError, require

COLUMNS = (
    "table", "dataset", "ipc", "method", "network", "metric", "mean", "std", "labels", "factor", "protocol", "source",
    "note",
)  # fmt: skip
CHALLENGE = "eccv2024_challenge"
"""The table of the ECCV 2024 challenge."""
LABELS = ("", "hard", "soft", "learnt")

COMPARABILITY = (
    ("IDC, IDM, M3D, DREAM, DANCE, NCFM and TGDD store ipc images per class but train on the factor x factor tiles "
     "decoded from each.",
     ("IDC", "IDM", "M3D", "DREAM", "DANCE", "NCFM", "TGDD")),
    ("Rows of MTT, FTD, TESLA and DATM, and DATM's random images, are in ZCA space.",
     ("MTT", "FTD", "TESLA", "DATM", "Random, DATM's run")),
    ("Inf-Match, TGDD and AT-BPTT are known from a digest, second-hand.", ("Inf-Match", "TGDD", "AT-BPTT")),
    ("MTT, IDC and DataDAM's code report the checkpoint that is best on the test set; here a score is of the last.",
     ("MTT", "IDC", "DataDAM")),
    ("EAD's values come from the text of an anonymous draft and name no evaluation protocol; treat them as claims.",
     ("EAD", "RTP")),
)  # fmt: skip
"""What a reader must know before comparing: (sentence, the published methods it is about)."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One number as a paper prints it."""

    table: str
    """The CSV file it stands in, without the ending."""
    dataset: str
    """A `load_data` name where one exists, e.g. fashion_mnist."""
    ipc: int | None
    """Images per class; None where the number is not about a fixed ipc (full training set, any number, not stated)."""
    method: str
    network: str
    """A `build_network` name where one exists; empty where the source does not say."""
    metric: str
    """accuracy is in percent, accuracy_fraction in 0..1; the others are named with their unit."""
    mean: float
    std: float | None
    labels: str
    """What classifiers learnt from: hard labels; soft ones, learnt or a teacher's; learnt ones, where the source says
    so. Empty where it does not."""
    factor: int | None
    """Every stored image holds factor x factor smaller ones; None where the source does not say."""
    protocol: str
    """A key of `core_dd.judge.protocols.PROTOCOLS`, where the source trains as that says; else empty."""
    source: str
    note: str
    """Doubts about the printed value or its place in the table; empty when there are none."""

    @property
    def percent(self) -> float | None:
        """The accuracy in percent; None for rows that are no accuracy."""
        return {"accuracy": self.mean, "accuracy_fraction": round(self.mean * 100, 6)}.get(self.metric)


def rows(dataset: str | None = None, ipc: int | None = None, method: str | None = None) -> list[PublishedRow]:
    """Published numbers, in the order of the tables.

    Args:
        dataset, ipc, method: keep the rows with exactly these values; None keeps all. Methods match in any case.

    Examples:
        >>> [(row.table, row.percent) for row in rows("cifar10", 10, "DM")][:1]
        [('m3d_table1', None)]
    """
    return [
        row
        for row in _all_rows()
        if dataset in (None, row.dataset)
        and ipc in (None, row.ipc)
        and (method is None or method.lower() == row.method.lower())
    ]


@cache
def _all_rows() -> tuple[PublishedRow, ...]:
    tables = sorted((file for file in files(__name__).iterdir() if file.name.endswith(".csv")), key=lambda f: f.name)
    return tuple(row for table in tables for row in _read(table))


def _read(table) -> list[PublishedRow]:
    """The rows of one CSV file.

    Raises:
        InputError: a missing column, a number that is none or an unknown label regime, naming the file and the line.
    """
    with table.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise InputError(f"{table.name} has the columns {reader.fieldnames}, expected {', '.join(COLUMNS)}.")
        found = []
        for record in reader:
            where = f"{table.name}, line {reader.line_num}"
            try:
                numbers = {
                    "ipc": int(record["ipc"]) if record["ipc"] else None,
                    "mean": float(record["mean"]),
                    "std": float(record["std"]) if record["std"] else None,
                    "factor": int(record["factor"]) if record["factor"] else None,
                }
            except ValueError as error:
                raise InputError(f"{where}: {error}.") from None
            require(record["labels"] in LABELS, f"{where}: labels '{record['labels']}' are none of {LABELS}.")
            found.append(PublishedRow(**{**record, **numbers}))
    return found
