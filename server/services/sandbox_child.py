"""What a killable child process does: it answers calls from its standard input, its memory capped, tied to its parent.

Run as a program by ``services/sandbox.py``. Imports nothing of ours but what a call names, so that it stays small.
"""

import ctypes
import importlib
import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO, Final, cast

LENGTH: Final = struct.Struct("!Q")
READY: Final = b"ready"
_PR_SET_PDEATHSIG = 1


def frame(payload: bytes) -> bytes:
    """``payload`` behind its length."""
    return LENGTH.pack(len(payload)) + payload


def _confine(parent: int, memory: int) -> None:
    """Ties the child's life to its parent's and caps what it may take."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # The parent was gone before it could be watched.
        sys.exit(1)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Sent to the whole process group; the parent decides when its children end.
        signal.signal(number, signal.SIG_IGN)


def _answer(payload: bytes) -> bytes:
    """The framed (succeeded, value) of one framed call; any exception of the function is an answer."""
    try:
        module, name, args = pickle.loads(payload)
        target: object = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
        value = cast("Callable[..., object]", target)(*args)
        return frame(pickle.dumps((True, value), pickle.HIGHEST_PROTOCOL))
    except Exception as error:
        return frame(pickle.dumps((False, type(error).__name__)))


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    answers.write(READY)
    answers.flush()
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        answers.write(_answer(requests.read(length)))
        answers.flush()


def main() -> None:
    """The child: answers calls from standard input until it ends."""
    parent, memory = int(sys.argv[1]), int(sys.argv[2])
    _confine(parent, memory)
    answers = os.fdopen(os.dup(1), "wb")
    # What a function prints must not end up among the answers.
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
