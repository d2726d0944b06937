"""What is costly to make and can be made again, kept in one folder: `$GENDD_CACHE`, else `~/.cache/gendd`.

A damaged entry is made again and said once; a folder that cannot be written costs time, not the command.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from core_dd import files
from core_dd.data.folders import check_regular
from core_dd.errors import InputError
from core_dd.notes import note

_T = TypeVar("_T")


def cache_folder() -> Path:
    """Where decoded sets and downloads are kept: `$GENDD_CACHE`, else `~/.cache/gendd`.

    Raises:
        InputError: if neither is there.
    """
    try:
        return Path(os.environ.get("GENDD_CACHE") or Path.home() / ".cache" / "gendd")
    except RuntimeError:
        raise InputError("this user has no home folder to keep files in. Set GENDD_CACHE to a folder.") from None


def kept(name: str, make: Callable[[], _T], read: Callable[[Path], _T], write: Callable[[Path, _T], None]) -> _T:
    """What `read` finds in the cache's file `name`; the first time, what `make` makes and `write` writes there.

    Of several processes that ask at once, one makes it and the others wait.

    Args:
        name: of the file; says all that decides what is made.
        make: makes it.
        read: reads it, and raises any exception if the file is not what `write` writes.
        write: writes it to a path where nothing is.
    """
    place = cache_folder() / name
    with one_at_a_time(place):
        if os.path.lexists(place):
            try:
                check_regular(place)
                return read(place)
            except Exception as error:  # readers raise many kinds for a damaged file; each means the same here
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                note(f"note: {place}, kept from an earlier run, is damaged ({reason}); it is made again")
        made = make()
        try:
            files.remove(place)
            with files.atomic(place) as temporary:
                write(temporary, made)
        except (InputError, OSError) as error:
            note(f"note: what was made is not kept for the next run ({error})")
        return made


def kept_tensors(what: str, names: Sequence[str], make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors called `names`, kept under a hash of `what` they are; memory-mapped from the second time on.

    Sums over their bytes tell damage that their lengths do not show.
    """

    def read(place: Path) -> dict[str, Tensor]:
        with safe_open(place, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in names}
            sums = json.loads((content.metadata() or {})["crc32"])
        if sums != {name: _crc32(tensor) for name, tensor in tensors.items()}:
            raise ValueError("its checksums differ")
        return tensors

    def write(place: Path, tensors: Mapping[str, Tensor]) -> None:
        sums = {name: _crc32(tensor) for name, tensor in tensors.items()}
        save_file(dict(tensors), place, metadata={"crc32": json.dumps(sums)})

    name = f"{hashlib.blake2b(what.encode(), digest_size=16).hexdigest()}.safetensors"
    return kept(name, lambda: {name: tensor.contiguous() for name, tensor in make().items()}, read, write)


def _crc32(tensor: Tensor) -> int:
    return zlib.crc32(tensor.numpy())


@contextlib.contextmanager
def one_at_a_time(place: Path) -> Iterator[None]:
    """Keep other processes from the same work; without a lock where none can be had."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(place.with_name(f"{place.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
