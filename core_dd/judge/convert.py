"""Command: a set in the file of other people's code -> our file, its labels looked at by a classifier of real data."""

import sys
from collections.abc import Sequence
from pathlib import Path

from core_dd import cli
from core_dd.config import load_config, with_first
from core_dd.data.images import ImageData
from core_dd.errors import InputError
from core_dd.judge import permuted
from core_dd.locks import own_file
from core_dd.notes import note
from core_dd.sets.distilled import DistilledSet, require_place
from core_dd.sets.options import ConvertConfig
from core_dd.speed import prepare_device

LOOKER = "convnet2_w32"
"""The classifier that looks at labels: a small one, trained on real images in seconds."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read, look at the labels, write."""
    config = load_config(ConvertConfig, with_first(sys.argv[1:] if argv is None else argv, "src"), prog="gendd convert")
    out, src = Path(config.out), Path(config.src)
    require_place(out)
    data = config.load_data(seed=0) if config.data else None
    dset = DistilledSet.load(src, data, **config.told())
    dset.check(data, where=config.src)
    if data is not None and config.check_labels:
        _warn_of_labels(dset, data, config)
    with own_file(out):
        print(f"{dset!r}\n{dset.save(out)}")


def _warn_of_labels(dset: DistilledSet, data: ImageData, config: ConvertConfig) -> None:
    """Say loudly where the labels look permuted, or that nobody could tell."""
    try:
        found = permuted.look(dset, data, LOOKER, seed=0, device=prepare_device(config.device))
    except InputError as error:
        note(f"note: whether the labels of {config.src} are permuted was not looked at: {error}")
        return
    if found is not None:
        note(found.warning(config.src, data.class_names))


if __name__ == "__main__":
    cli.entry(main)
