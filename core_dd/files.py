"""Files that are either whole or absent: written under a temporary name in the same folder, synced, then renamed."""

import contextlib
import errno
import fcntl
import functools
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core_dd.errors import InputError, require

_UMASK = threading.Lock()
TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8}|lock)\.tmp")
"""The names of what is being written, and of `core_dd.locks` on a file that will be."""


@contextlib.contextmanager
def atomic(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds, remove it when it fails.

    The block may write a file or make a folder there. A kill inside the block leaves `path` as it was, and a temporary
    that the next process to write into the folder removes. A folder that is there already is an error, or with
    `replace` makes way by a rename at the end; a kill between these two renames leaves both, hidden, and the next call
    mends it. Files get the permissions that the umask leaves, whatever their writer gave them.

    Raises:
        InputError: if the disk is full or the place cannot be written; what stood at `path` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent.resolve())
        with writing_into(path.parent):
            try:
                yield temporary
                _finish(temporary)
                _rename(temporary, path, replace)
            finally:
                remove(temporary)


def _finish(temporary: Path) -> None:
    """Permissions by the umask, and everything on the disk."""
    for part in [*temporary.rglob("*"), temporary]:
        if part.is_file() and not part.is_symlink():
            part.chmod(0o666 & ~umask())
        sync(part)


def _rename(temporary: Path, path: Path, replace: bool) -> None:
    old = path.with_name(f".{path.name}.old")
    if replace and path.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(temporary, path)
    sync(path.parent)
    if replace:
        shutil.rmtree(old, ignore_errors=True)


def link(path: Path, target: Path) -> None:
    """Make `path` a link to `target`, relative to its folder, in one step; what a copy that followed the link left in
    its place, a folder, makes way.

    Raises:
        InputError: if the place cannot be written.
    """
    with explained(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        new = path.with_name(f".{path.name}")
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        os.replace(new, path)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there; a failure never stands in the way of the message that matters."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def umask() -> int:
    """The permissions that this process's new files do not get."""
    with _UMASK:  # it can only be read by setting it
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


@contextlib.contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Keep `sweep` from a folder while the block lasts, or the process lives."""
    with _locked(folder, fcntl.LOCK_SH):
        yield


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder, unless one that lives is writing there."""
    with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
        for name in os.listdir(folder) if alone else ():
            if TEMPORARY.fullmatch(name):
                remove(folder / name)


@functools.cache
def _sweep_once(folder: Path) -> None:
    """Sweep a folder when this process first writes there."""
    sweep(folder)


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[bool]:
    """Whether a lock on the folder itself was got, which is held during the block; no file system has to have them."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, kind)
            got = True
        except OSError:
            got = False
        yield got
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """A failure to write in the block becomes one sentence that names `path`.

    Raises:
        InputError: if the disk is full or the place cannot be written.
    """
    try:
        yield
    except Exception as error:
        reason = _write_failure(error, path.parent)
        if reason is None:
            raise
        way_out = "Free some space or choose" if reason.errno in FULL else "Choose"
        raise InputError(
            f"cannot write {path}: {reason.strerror}. {way_out} another folder; what was there before is untouched."
        ) from error


def require_new(path: Path) -> None:
    """Refuse to write over what is there.

    Raises:
        InputError: if anything is, or the name is too long.
    """
    with explained(path):
        there = path.exists() or path.is_symlink()
    require(not there, f"{path} exists. Choose another --out or remove it first.")


def occupied(folder: Path) -> bool:
    """Whether there is anything in a folder but a lock and what killed processes left; or a file in its place."""
    if not folder.is_dir():
        return folder.exists() or folder.is_symlink()
    return any(path.name != LOCK and not TEMPORARY.fullmatch(path.name) for path in folder.iterdir())


LOCK = ".lock"
"""The file in a folder by which a process has it to itself; see `core_dd.locks`."""


def _write_failure(error: Exception, folder: Path) -> OSError | None:
    """The failed write behind an error: the error itself, or what writing 1 MiB beside it gives.

    Writers in C++ (torch.save, safetensors) report a full disk as their own kinds of error.
    """
    if isinstance(error, InputError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error if error.errno in WRITE_ERRNOS else None
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 2**20)
            probe.flush()
    except OSError as reason:
        return reason
    return None


FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
WRITE_ERRNOS = FULL | frozenset(
    {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}
    | {errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
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
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, **options: Any) -> str:
    """JSON with every character as it is, but for halves of one, as names that are not UTF-8 have: readers refuse them.

    Args:
        value: what `json.dumps` takes.
        options: for `json.dumps`.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\\\u{ord(half[0]):04x}", text)
