"""Files that are either whole or absent: written under a temporary name in the same folder, synced, then renamed."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core_dd.errors import InputError


@contextlib.contextmanager
def atomic(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds, remove it when it fails.

    The block may write a file or make a folder there. A kill inside the block leaves `path` as it was. A folder that is
    there already is an error, or with `replace` makes way by a rename at the end; a kill between these two renames
    leaves both, hidden, and the next call mends it.

    Raises:
        InputError: if the disk is full or the place cannot be written; what stood at `path` is untouched.
    """
    path = Path(path)
    temporary = Path(tempfile.mktemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for part in [*temporary.rglob("*"), temporary]:
            sync(part)
        old = path.with_name(f".{path.name}.old")
        if replace and path.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
        os.replace(temporary, path)
        sync(path.parent)
        if replace:
            shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        reason = _write_failure(error, path.parent)
        if reason is None:
            raise
        raise InputError(
            f"cannot write {path}: {reason.strerror}. Free some space or choose another folder; "
            "what was there before is untouched."
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _write_failure(error: Exception, folder: Path) -> OSError | None:
    """The failed write behind an error: the error itself, or what writing 1 MiB beside it gives.

    Writers in C++ (torch.save, safetensors) report a full disk as their own kinds of error.
    """
    if isinstance(error, InputError):
        return None
    if isinstance(error, OSError):
        return error if error.errno in WRITE_ERRNOS else None
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 2**20)
            probe.flush()
    except OSError as reason:
        return reason
    return None


WRITE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}
    | {errno.EEXIST, errno.ENOTEMPTY}
)


def sync(path: Path) -> None:
    """Flush one file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no such file: {path}. Expected a JSON file there.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}). It may be truncated; write it again.") from None
