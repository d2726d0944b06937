"""Grid: what a comparison of 200 trivial cells takes beside the cells' own time; python -m benchmarks.grid

Every cell is a set that is made at once and judged by a classifier trained for one step. The cells' own time is what
their jobs say they took, divided by the workers; the rest is overhead: reading, planning, starting the workers with
their imports, handing out, tables and report.
"""

import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

import yaml

from core_dd import cli
from core_dd.compare.compare import main as compare
from core_dd.compare.jobs import DONE, read_done
from core_dd.sets.distilled import DistilledSet

CELLS, TARGET_S, WORKERS = 200, 5.0, 2


def make(data, ipc, seed, out, first) -> DistilledSet:
    """Images of every class from a number on."""
    index = [k for members in data.class_indices() for k in members[first : first + ipc].tolist()]
    return DistilledSet(data.train_images[index], data.train_labels[index], {"method": "first", "ipc": ipc})


def main(argv=None) -> None:
    """Run the grid in an empty folder and print where its time went."""
    grid = {
        "producers": {f"From {i}": {"function": "benchmarks.grid:make", "first": i} for i in range(4)},
        "data": "digits",
        "ipc": 1,
        "seeds": CELLS // 4,
        "networks": "convnet1_w8",
        "protocols": [{"protocol": "quick", "iterations": 1}],
        "judge": {"classifiers": 1},
        "real": False,
    }
    root = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("grid.yaml").write_text(yaml.safe_dump(grid))
        began = time.time()
        with contextlib.redirect_stdout(io.StringIO()):
            compare(["grid.yaml", "--out=out", f"--workers={WORKERS}", "--threads=1", "--device=cpu", "--no_figures"])
        wall = time.time() - began
        done = list(Path("out").glob(f"*/*/{DONE}"))
        own = sum(read_done(path.parent)["seconds"] for path in done) / WORKERS
        start = min(path.stat().st_mtime - read_done(path.parent)["seconds"] for path in done) - began
        os.chdir(root)
    rest = wall - own - start
    print(
        f"{CELLS} cells by {WORKERS} workers: {wall:.2f} s, of which the cells' own {own:.2f} s, and {start:.2f} s "
        f"until the first began, imports included; overhead from then on {rest:.2f} s (target {TARGET_S:.0f} s)"
    )


if __name__ == "__main__":
    cli.entry(main)
