"""What a command prints, kept from ending it: closed streams, readers that went away, disks that are full, ASCII."""

import codecs
import errno
import io
import os
import sys

PLAIN = str.maketrans(dict(zip("─│╭╮╰╯≈±…“”", '-|++++~~.""', strict=True)))
"""What stands for the frames and signs of our output where there is only ASCII."""


def plainly(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks, in ASCII."""
    lacking = error.object[error.start : error.end].translate(PLAIN)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error("plainly", plainly)


class Stream(io.TextIOWrapper):
    """A text stream that goes on into nothing once it cannot be written to.

    Attributes:
        failed: why it could not, or None.
        original: the stream that it replaces.
    """

    failed: OSError | None = None
    original: io.TextIOBase | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Send this and everything to come to the null device, whoever writes it."""
        self.failed = self.failed or error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def protect() -> None:
    """Make stdout and stderr of this process such streams; what their encoding lacks is spelt in ASCII.

    A stream that was closed when the process began leads to the null device: else the next file opened, such as a
    checkpoint, would take its number and receive what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        own = getattr(sys, name) or open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        options = {"line_buffering": own.line_buffering, "write_through": own.write_through}
        stream = Stream(own.buffer, encoding=own.encoding, errors="plainly", **options)
        stream.original = own  # which would close the buffer they share
        setattr(sys, name, stream)


def settled(status: int) -> int:
    """The exit status of a process whose streams are protected, once all is printed.

    Nobody reading on is 141, as where SIGPIPE ends a command; another failure is said, and 2.
    """
    sys.stderr.flush()
    sys.stdout.flush()
    failed = getattr(sys.stdout, "failed", None)
    if status or failed is None:
        return status
    if failed.errno == errno.EPIPE:
        return 141
    print(f"error: cannot print: {failed.strerror}. Whatever the command writes is written.", file=sys.stderr)
    return 2
