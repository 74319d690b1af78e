"""Standard input, output and error as this process finds them: closed, full, or a pipe that nobody reads.

Lives here: that none of this raises, waits or ends the process. Must not know: what is written.
"""

import io
import os
import socket
import stat
import sys
from typing import Any, Final

ERROR: Final = 2

_error: int = ERROR  # where standard error is written: a pipe's own opening, which does not wait
_socket: socket.socket | None = None


def secure() -> None:
    """Before anything opens a file: a closed descriptor of the three would be given to the next one that is opened, and
    log lines would go there. From here on ``sys.stderr`` never raises."""
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (ERROR, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdout is None:
        quiet()
    adopt()
    sys.stderr = _text(_Voice(ERROR))


def quiet() -> None:
    """``sys.stdout`` never raises either: for what goes on without a reader."""
    sys.stdout = _text(_Voice(1))


def adopt() -> None:
    """Look again at what standard error is. A pipe or socket that is full must not make its writer wait."""
    global _error, _socket
    _error, _socket = ERROR, None
    try:
        mode = os.fstat(ERROR).st_mode
        if stat.S_ISFIFO(mode):  # opened once more: the flag belongs to the opening, which other processes share
            _error = os.open(f"/proc/self/fd/{ERROR}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        elif stat.S_ISSOCK(mode):
            _socket = socket.socket(fileno=os.dup(ERROR))
    except OSError:  # closed, without a reader, or another user's: written as it is
        _error, _socket = ERROR, None


def write(line: bytes) -> bool:
    """Write to standard error; whether all of it went."""
    try:
        if _socket is not None:
            return _socket.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(line)
        return os.write(_error, line) == len(line)
    except OSError:
        return False


class _Voice(io.RawIOBase):
    """A descriptor to which everything is written as far as that can be done."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: Any) -> int:
        said = bytes(data)
        if self._descriptor == ERROR:
            write(said)
        else:
            try:
                os.write(self._descriptor, said)
            except OSError:
                return len(said)
        return len(said)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


def _text(voice: _Voice) -> io.TextIOWrapper:
    return io.TextIOWrapper(voice, "utf-8", "backslashreplace", line_buffering=True, write_through=True)  # type: ignore[arg-type]
