"""One Python that has imported what the commands import, and forks for every command asked for.

A process of its own for a test, to be killed, or to print and exit as a user's does, then costs a tenth of a second
instead of the five that imports take. The server imports nothing until it is asked first, and ends with whoever started
it. A command is written as after `python`: a script's path, `-m MODULE`, `-c CODE`, or `-` for what stdin holds.

    python forkserver.py serve SOCKET       the server; SOCKET is a path that does not exist yet
    python forkserver.py SOCKET WORD ...    a command in a fork of it: this process's folder, environment, files, and
                                            its end, but by kill -9
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

PRELOADED = (
    "core_dd.cli", "core_dd.info", "core_dd.judge.evaluate", "core_dd.report.report", "gen_dd.train", "gen_dd.sample",
    "gen_dd.select", "matching_dd.distill", "matching_dd.coresets", "sklearn.datasets", "torch.distributed.fsdp",
    "torch.utils.flop_counter",
)  # fmt: skip
WIDTH = 8
"""Bytes of a number in a reply."""


class Command:
    """A command in a fork of the server, to be waited for or killed as a `subprocess.Popen` is.

    Args:
        place: the server's socket.
        words: what follows `python`.
        files: numbers of the files that become its stdin, stdout and stderr.
        environment: its environment.
    """

    def __init__(self, place: str, words: Sequence[str], files: Sequence[int], environment: Mapping[str, str]) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(place)
        socket.send_fds(self._server, [b" "], files)
        self._server.sendall(json.dumps([list(words), os.getcwd(), dict(environment)]).encode() + b"\n")
        self.pid, self.returncode = self._reply(), None

    def _reply(self) -> int:
        return int(self._server.recv(WIDTH, socket.MSG_WAITALL))

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, the negative number of the signal that ended it; TimeoutError after `timeout` seconds."""
        if self.returncode is None:
            self._server.settimeout(timeout)
            self.returncode = self._reply()
            self._server.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        if self.returncode is None and not select.select([self._server], [], [], 0)[0]:
            return None
        return self.wait()

    def kill(self) -> None:
        """As `kill -9` does."""
        os.kill(self.pid, signal.SIGKILL)


def serve(place: str) -> list[str]:
    """Fork for every request until stdin ends; only the forks return, each with the words of its command."""
    sys.path[0] = os.path.dirname(sys.path[0])  # the repository, where what is imported may lie
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(64)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [], 1.0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if sys.stdin in ready:
            sys.exit()
        if listener in ready:
            connection, _ = listener.accept()
            for name in PRELOADED:
                importlib.import_module(name)
            gc.freeze()  # collecting in a fork then copies nothing of what is shared
            if os.fork() == 0:
                listener.close()
                return adopt(connection)
            connection.close()


def adopt(connection: socket.socket) -> list[str]:
    """Fork once more: the child becomes the command that is asked for, the parent reports its number and its status."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    words, folder, environment = json.loads(connection.makefile().readline())
    if child := os.fork():
        for file in (0, 1, 2, *files):
            os.close(file)
        connection.sendall(f"{child:{WIDTH}}".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(f"{status:{WIDTH}}".encode())
        os._exit(0)
    connection.close()
    for number, (name, mode, file) in enumerate(zip(("stdin", "stdout", "stderr"), "rww", files, strict=True)):
        os.dup2(file, number)
        os.close(file)
        # The server's own streams remember what kind of file they had.
        stream = open(number, mode, closefd=False)  # noqa: SIM115
        if name == "stderr":
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return words


def become(words: list[str]) -> None:
    """Run the command, in this process."""
    words = words[words[0] == "-u" :]  # which torchrun puts first
    kind, sys.argv = words[0], words
    if kind == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = words[1:]
        sys.modules.pop(sys.argv[0], None)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif kind in ("-", "-c"):
        sys.path.insert(0, "")
        sys.argv = [kind, *words[1 + (kind == "-c") :]]
        exec(words[1] if kind == "-c" else sys.stdin.read(), {"__name__": "__main__"})
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(kind)))
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        become(serve(sys.argv[2]))
    else:
        command = Command(sys.argv[1], sys.argv[2:], [0, 1, 2], os.environ)
        signal.signal(signal.SIGTERM, lambda number, frame: os.kill(command.pid, number))
        status = command.wait()
        sys.exit(status if status >= 0 else 128 - status)
