"""One writer at a time: locks on folders, and on files to come, that end with the process that holds them.

They are advisory and the operating system's (flock), so a kill releases them; the file beside says who holds one.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import socket
import stat
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from core_dd import files
from core_dd.errors import InputError, require

_TRIES, _PAUSE_S = 10, 0.02
"""How often a lock is tried for, and the pause between: another process may just be looking whether it is held."""


class Lock:
    """A place that this process has to itself, until `release` or its end: `Lock.take` gets it.

    Args:
        path: the lock's file.
        file: the same, open and locked.
    """

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path, self._file = path, file

    @classmethod
    def take(cls, place: Path) -> "Lock":
        """Have `place` to oneself.

        Args:
            place: a folder that is there, or a file to be written into one that is.

        Raises:
            InputError: if another process has it, naming both; or the folder cannot be written.
        """
        path = _file_of(place)
        with files.explained(place):
            file = _acquire(path, place)
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        lock = cls(path, file)
        _held.add(lock)
        return lock

    def release(self) -> None:
        """Let others have it."""
        if not self._file.closed:
            files.remove(self.path)
            self._file.close()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def forget(self) -> None:
        """In a fork of the holder, which must not keep the lock alive."""
        self._file.close()


def require_free(place: Path) -> None:
    """Refuse what another process has, without writing anything.

    Raises:
        InputError: if one has it.
    """
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError),
        _open(_file_of(place), "r") as file,
    ):
        require(_try(file, fcntl.LOCK_SH), _in_use(place, file))


class Taken(InputError):
    """A folder that was to be new is there."""


@contextlib.contextmanager
def own_folder(path: Path, *, new: bool = False) -> Iterator[None]:
    """Have a folder to oneself during the block: it is made if need be, and removed again where nothing came into it.

    Raises:
        Taken: if it is there and `new`.
        InputError: if another process has it, or it cannot be written.
    """
    with _made(path, new), Lock.take(path):
        yield


@contextlib.contextmanager
def own_file(path: Path) -> Iterator[None]:
    """Have the name of a file that is to be written to oneself during the block, and its folder made.

    Raises:
        InputError: if it is there, another process is writing it, or the folder cannot be written.
    """
    files.require_new(path)
    with _made(path.parent):
        files.sweep(path.parent)
        with files.writing_into(path.parent), Lock.take(path):
            files.require_new(path)
            yield


@contextlib.contextmanager
def _made(path: Path, new: bool = False) -> Iterator[None]:
    """A folder that is made if need be; those that were made here and stayed empty are removed after the block."""
    made: list[Path] = []
    try:
        with files.explained(path):
            for folder in [*reversed(path.parents), path]:
                try:
                    if not folder.is_dir() or (new and folder == path):
                        folder.mkdir()
                        made.append(folder)
                except FileExistsError:
                    if not folder.is_dir():
                        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
                    if new and folder == path:
                        raise Taken(f"{path} exists.") from None
        yield
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _file_of(place: Path) -> Path:
    """The lock's file: in a folder, beside a file."""
    if place.is_dir():
        return place / files.LOCK
    tail = hashlib.blake2b(os.fsencode(place.name), digest_size=4).hexdigest()  # of names that begin alike
    return place.with_name(f".{place.name[:50]}-{tail}.lock.tmp")


def _acquire(path: Path, place: Path) -> IO[str]:
    """The lock's file, open and locked."""
    message = f"{place} is in use by several processes at once. Try again."
    for _ in range(_TRIES):
        file = _open(path, "a+")
        if _try(file, fcntl.LOCK_EX):
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            file.close()  # its holder removed it in between
            continue
        message = _in_use(place, file)
        file.close()
        time.sleep(_PAUSE_S)
    raise InputError(message)


def _open(path: Path, mode: str) -> IO[str]:
    """The lock's file, which is no link: what is written there would be written over another file."""
    with contextlib.suppress(OSError):
        require(stat.S_ISREG(path.lstat().st_mode), f"{path} is no plain file, as locks are. Remove it.")
    return path.open(mode, encoding="utf-8")


def _try(file: IO[str], kind: int) -> bool:
    """Whether the lock is got, or the file system has none."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _in_use(place: Path, file: IO[str]) -> str:
    """Who has it, as they wrote it down."""
    file.seek(0)
    return f"{place} is in use by {file.read() or 'another process'}. Wait for that to end, or choose another --out."


_held: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _forget_all() -> None:
    for lock in _held:
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)
