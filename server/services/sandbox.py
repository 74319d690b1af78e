"""A small pool of child processes for work that hostile input can make slow or hungry, and that must be killable.

Runs a picklable top-level function (`server.model.sanitise.sanitise`, `server.model.mime.parse`) away from the event
loop. A child that overruns its deadline gets SIGKILL and is replaced; its address space is capped; it inherits no
setting and no descriptor but its pipes, and it dies with its parent. It bounds CPU and memory: it is no wall against
code execution, for its answers are unpickled.

Knows nothing of mail, stores or the web. The children run this file as a program.
"""

import asyncio
import ctypes
import importlib
import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

T = TypeVar("T")

DEFAULT_CHILDREN = 2
DEFAULT_QUEUE = 64
DEFAULT_MEMORY = 1_073_741_824
_BOOT_SECONDS = 20.0
_REAP_SECONDS = 5.0
_MAX_FRAME = 268_435_456
_LENGTH = struct.Struct("!Q")
_READY = b"ready"
_PR_SET_PDEATHSIG = 1
_ROOT = Path(__file__).resolve().parents[2]


class SandboxError(Exception):
    """The function raised, or its child died of itself; the text names the exception and never repeats its input."""


class SandboxTimeout(SandboxError):
    """The function overran its deadline; its child was killed."""


class SandboxBusy(SandboxError):
    """The queue is full, no child came free within the deadline, or the sandbox is closed."""


class Sandbox:
    """At most `children` processes, started when first needed, and at most `queue` callers waiting for one.

    `memory` caps a child's address space, in bytes. Belongs to one event loop, starts no thread.
    """

    def __init__(
        self, *, children: int = DEFAULT_CHILDREN, queue: int = DEFAULT_QUEUE, memory: int = DEFAULT_MEMORY
    ) -> None:
        self._slots = asyncio.Semaphore(children)
        self._limit = children + queue
        self._memory = memory
        self._callers = 0
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()
        self._closed = False

    async def run(self, function: Callable[..., T], *args: object, timeout: float = 2.0) -> T:
        """`function(*args)` computed in a child.

        `timeout` in seconds bounds the wait for a child and, anew, the work; starting a child has 20 s of its own.
        Raises SandboxBusy, SandboxTimeout or SandboxError.
        """
        if self._closed or self._callers >= self._limit:
            raise SandboxBusy("closed" if self._closed else "queue full")
        request = _frame(pickle.dumps((function.__module__, function.__qualname__, args), pickle.HIGHEST_PROTOCOL))
        self._callers += 1
        try:
            await self._wait_for_slot(timeout)
            try:
                return cast("T", await self._work(request, timeout))
            finally:
                self._slots.release()
        finally:
            self._callers -= 1

    async def close(self) -> None:
        """Kills all children and waits for them; callers still waiting get SandboxBusy or SandboxError."""
        self._closed = True
        self._idle.clear()
        for child in list(self._all):
            await self._kill(child)

    async def _wait_for_slot(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise SandboxBusy("no child came free") from None

    async def _work(self, request: bytes, timeout: float) -> object:
        child = await self._child()
        try:
            async with asyncio.timeout(timeout):
                succeeded, value = await _exchange(child, request)
        except TimeoutError:
            await self._kill(child)
            raise SandboxTimeout(f"over {timeout:g} s") from None
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            await self._kill(child)
            raise SandboxError(f"child died: {type(error).__name__}") from error
        except BaseException:
            await self._kill(child)
            raise
        if self._closed or value == "MemoryError":
            await self._kill(child)
        else:
            self._idle.append(child)
        if not succeeded:
            raise SandboxError(str(value))
        return value

    async def _child(self) -> asyncio.subprocess.Process:
        """An idle child that is still alive, or a new one."""
        if self._closed:
            raise SandboxBusy("closed")
        while self._idle:
            child = self._idle.pop()
            if child.returncode is None:
                return child
            self._all.discard(child)
        return await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            __name__,
            str(os.getpid()),
            str(self._memory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONPATH": _search_path(), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._all.add(child)
        try:
            async with asyncio.timeout(_BOOT_SECONDS):
                await _pipes(child)[1].readexactly(len(_READY))
        except (TimeoutError, EOFError) as error:
            await self._kill(child)
            raise SandboxError("child did not start") from error
        except BaseException:
            await self._kill(child)
            raise
        return child

    async def _kill(self, child: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            child.kill()
        _pipes(child)[0].close()
        self._all.discard(child)
        # A cancelled caller must not leave a zombie behind.
        await asyncio.shield(asyncio.wait_for(child.wait(), _REAP_SECONDS))


def _search_path() -> str:
    return os.pathsep.join([str(_ROOT), *(entry for entry in sys.path if entry and entry != str(_ROOT))])


def _frame(payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + payload


def _pipes(child: asyncio.subprocess.Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    if child.stdin is None or child.stdout is None:
        raise SandboxError("child without pipes")
    return child.stdin, child.stdout


async def _exchange(child: asyncio.subprocess.Process, request: bytes) -> tuple[bool, object]:
    writer, reader = _pipes(child)
    writer.write(request)
    await writer.drain()
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > _MAX_FRAME:
        raise EOFError("answer over the frame limit")
    succeeded, value = pickle.loads(await reader.readexactly(length))
    return bool(succeeded), value


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
        return _frame(pickle.dumps((True, value), pickle.HIGHEST_PROTOCOL))
    except Exception as error:
        return _frame(pickle.dumps((False, type(error).__name__)))


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    answers.write(_READY)
    answers.flush()
    while len(head := requests.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
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
