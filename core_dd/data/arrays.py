"""Files of numpy's arrays, from anywhere: nothing is unpickled, and nothing is read that memory cannot hold."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from core_dd.errors import InputError, require


@contextlib.contextmanager
def opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """An .npz, whose arrays are read when they are asked for.

    Raises:
        InputError: if the file is missing, damaged, larger than the memory, or holds objects of Python; also where that
            shows only in the block.
    """
    require(Path(path).is_file(), f"no file at {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            check_memory(sum(member.file_size for member in archive.infolist()), f"reading {path}")
        with np.load(path, allow_pickle=False) as content:
            yield content
    except InputError:
        raise
    except Exception as error:  # numpy and zip raise many kinds for a damaged file; each means the same to the user
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot read {path}: {reason}. It is truncated, no .npz, or holds objects, which would be unpickled."
        ) from None


def check_memory(count: int, what: str) -> None:
    """Refuse to make more bytes than the machine has.

    Raises:
        InputError: the sentence begins with `what` takes them.
    """
    total = psutil.virtual_memory().total
    require(
        count <= total,
        f"{what} takes {count / 2**30:.4g} GiB, and this machine has {total / 2**30:.4g}. "
        "Take fewer or smaller images (--image_size), or train with --stream True.",
    )
