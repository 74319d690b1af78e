"""A small pool of child processes for work that hostile input can make slow or hungry, and that must be killable.

Runs a picklable top-level function (`server.model.sanitise.sanitise`, `server.model.mime.parse`) away from the event
loop. A child that overruns its deadline gets SIGKILL and is replaced; its address space is capped; it inherits no
setting and no descriptor but its pipes, and it dies with its parent. It bounds CPU and memory: it is no wall against
code execution, for its answers are unpickled.

A deadline is time of the child's processor, so a busy machine condemns no input. Clients share a pool in turn, and one
client never runs in more than half of its children (``services/fair_queue.py``).

Knows nothing of mail, stores or the web, nor what a child does (``services/sandbox_child.py``).
"""

import asyncio
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar, cast

from server.metrics import LATENCY, Counter, Gauge, Histogram
from server.services import sandbox_child
from server.services.fair_queue import Clients, FairQueue, QueueFull, ShareUsed
from server.services.sandbox_child import LENGTH, READY, frame

T = TypeVar("T")

DEFAULT_CHILDREN = 2
DEFAULT_QUEUE = 64
DEFAULT_MEMORY = 1_073_741_824
IDLE: Final = 60.0  # s after which a child without work ends, for each holds some 30 MB
SHARE: Final = 8  # a client may have one in so many of a pool's callers
STARVED: Final = 4  # times the deadline that a child may take of the clock, where the processor is busy elsewhere
_BOOT_SECONDS = 20.0
_REAP_SECONDS = 5.0
_MAX_FRAME = 268_435_456
_TICKS = os.sysconf("SC_CLK_TCK")
_ROOT = Path(__file__).resolve().parents[2]

RUNS = Counter(
    "tempmail_child_runs_total",
    "Calls of killable child processes: done, failed, timeout, died; share (the client has its share of the pool), "
    "busy (no child came free).",
    ("pool", "result"),
)
RUNNING = Gauge("tempmail_children_running", "Child processes at work.", ("pool",))
WAITED = Histogram("tempmail_child_wait_seconds", "From a call to its child.", LATENCY, ("pool",))


class SandboxError(Exception):
    """The function raised, or its child died of itself; the text names the exception and never repeats its input."""


class SandboxTimeout(SandboxError):
    """The function overran its deadline; its child was killed."""


class SandboxDied(SandboxError):
    """The function's child died, and so did a second one: the first may have been killed by another hand."""


class SandboxBusy(SandboxError):
    """Want of room, which says nothing of the input: the queue is full, no child came free or started, the machine
    gave the child no time, or the sandbox is closed.
    """


class SandboxShare(SandboxBusy):
    """The client itself has as much of the pool as one client may have."""


class Sandbox:
    """At most `children` processes, started when first needed, and at most `queue` callers waiting for one.

    `name` labels its metrics; `memory` caps a child's address space, in bytes. Belongs to one event loop, starts no
    thread.
    """

    def __init__(
        self,
        name: str = "other",
        *,
        children: int = DEFAULT_CHILDREN,
        queue: int = DEFAULT_QUEUE,
        memory: int = DEFAULT_MEMORY,
        idle: float = IDLE,
    ) -> None:
        self._name = name
        most = children + queue
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(
            most=most, share=max(2, most // SHARE), at_once=max(1, children // 2)
        )
        self._free = children
        self._memory, self._idle_life = memory, idle
        self._idle: list[tuple[asyncio.subprocess.Process, float]] = []
        self._look: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._all: set[asyncio.subprocess.Process] = set()
        self._closed = False

    async def run(
        self,
        function: Callable[..., T],
        *args: object,
        timeout: float = 2.0,
        wait: float | None = None,
        clients: Clients = (),
    ) -> T:
        """`function(*args)` computed in a child.

        `timeout` in seconds bounds the child's work, `wait` (by default as long) the wait for a child; starting one
        has 20 s of its own. `clients` are the keys whose shares the call counts for, none where no limit applies.
        Raises SandboxShare, SandboxBusy, SandboxTimeout, SandboxDied or SandboxError.
        """
        result = "failed"
        try:
            value = await self._run(function, args, timeout, timeout if wait is None else wait, clients)
            result = "done"
        except SandboxError as error:
            result = _RESULTS.get(type(error), "failed")
            raise
        finally:
            RUNS.add((self._name, result))
        return cast("T", value)

    async def _run(
        self, function: Callable[..., object], args: tuple[object, ...], timeout: float, wait: float, clients: Clients
    ) -> object:
        if self._closed:
            raise SandboxBusy("closed")
        began = asyncio.get_running_loop().time()
        await self._wait_for_child(wait, clients)
        WAITED.observe(asyncio.get_running_loop().time() - began, (self._name,))
        RUNNING.add((self._name,))
        try:  # packed here, so that who waits holds no second copy
            packed = pickle.dumps((function.__module__, function.__qualname__, args), pickle.HIGHEST_PROTOCOL)
            try:
                return await self._work(frame(packed), timeout)
            except SandboxDied:
                return await self._work(frame(packed), timeout)
        finally:
            RUNNING.add((self._name,), -1)
            self._release(clients)

    async def close(self) -> None:
        """Kills all children and waits for them; callers still waiting get SandboxBusy or SandboxError."""
        self._closed = True
        self._idle.clear()
        if self._look is not None:
            self._look.cancel()
        for child in list(self._all):
            await self._kill(child)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _wait_for_child(self, wait: float, clients: Clients) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put(clients, turn)
        except ShareUsed:
            raise SandboxShare("the client's share is used") from None
        except QueueFull:
            raise SandboxBusy("queue full") from None
        self._dispatch()
        try:
            async with asyncio.timeout(wait):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # its turn came in the moment in which it gave up
                self._release(clients)
            else:
                self._queue.remove(clients, turn)
            if not isinstance(error, TimeoutError):
                raise
            if self._queue.at_limit(clients):
                raise SandboxShare("the client's share is used") from None
            raise SandboxBusy("no child came free") from None

    def _dispatch(self) -> None:
        """Let those run whose turn it is."""
        while self._free:
            taken = self._queue.take()
            if taken is None:
                return
            if taken[1].done():  # cancelled just now
                self._queue.done(taken[0])
                continue
            self._free -= 1
            taken[1].set_result(None)

    def _release(self, clients: Clients) -> None:
        self._queue.done(clients)
        self._free += 1
        self._dispatch()

    async def _work(self, request: bytes, timeout: float) -> object:
        child = await self._child()
        try:
            succeeded, value = await _within(child, request, timeout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            await self._kill(child)
            if self._closed:
                raise SandboxBusy("closed") from None
            raise SandboxDied(f"child died: {type(error).__name__}") from error
        except BaseException:
            await self._kill(child)
            raise
        if self._closed or value == "MemoryError":
            await self._kill(child)
        else:
            self._rest(child)
        if not succeeded:
            raise SandboxError(str(value))
        return value

    def _rest(self, child: asyncio.subprocess.Process) -> None:
        """The child waits for work, and ends when none comes. The one that rested last is used first."""
        loop = asyncio.get_running_loop()
        self._idle.append((child, loop.time()))
        if self._look is None:
            self._look = loop.call_later(self._idle_life, self._end_idle)

    def _end_idle(self) -> None:
        loop, self._look = asyncio.get_running_loop(), None
        while self._idle and loop.time() - self._idle[0][1] >= self._idle_life:
            task = loop.create_task(self._kill(self._idle.pop(0)[0]))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        if self._idle:
            self._look = loop.call_at(self._idle[0][1] + self._idle_life, self._end_idle)

    async def _child(self) -> asyncio.subprocess.Process:
        """An idle child that is still alive, or a new one."""
        if self._closed:
            raise SandboxBusy("closed")
        while self._idle:
            child, _ = self._idle.pop()
            if child.returncode is None:
                return child
            self._all.discard(child)
        try:
            return await self._start()
        except OSError as error:  # no process or memory left
            raise SandboxBusy(f"no child: {type(error).__name__}") from error

    async def _start(self) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            sandbox_child.__name__,
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
                await _pipes(child)[1].readexactly(len(READY))
        except (TimeoutError, EOFError) as error:
            await self._kill(child)
            raise SandboxBusy("child did not start") from error
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


_RESULTS: Final = {SandboxShare: "share", SandboxBusy: "busy", SandboxTimeout: "timeout", SandboxDied: "died"}


def _search_path() -> str:
    return os.pathsep.join([str(_ROOT), *(entry for entry in sys.path if entry and entry != str(_ROOT))])


def _pipes(child: asyncio.subprocess.Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    if child.stdin is None or child.stdout is None:
        raise SandboxError("child without pipes")
    return child.stdin, child.stdout


async def _within(child: asyncio.subprocess.Process, request: bytes, timeout: float) -> tuple[bool, object]:
    """The child's answer. SandboxTimeout once it has worked for ``timeout`` s, SandboxBusy where the machine lets it
    work for less within STARVED times as long.
    """
    loop = asyncio.get_running_loop()
    before, until, spare = _processor_seconds(child.pid), loop.time() + STARVED * timeout, timeout
    exchange = asyncio.ensure_future(_exchange(child, request))
    try:
        while True:
            await asyncio.wait((exchange,), timeout=spare)
            if exchange.done():
                return exchange.result()
            used, left = _processor_seconds(child.pid) - before, until - loop.time()
            if used + 2 / _TICKS >= timeout:
                raise SandboxTimeout(f"over {timeout:g} s")
            if left <= 0:
                raise SandboxBusy("the machine is too busy")
            spare = min(max(timeout - used, 0.02), left)
    finally:
        exchange.cancel()


def _processor_seconds(pid: int) -> float:
    """What a process has used of the processor, in s; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime, proc_pid_stat(5)


async def _exchange(child: asyncio.subprocess.Process, request: bytes) -> tuple[bool, object]:
    writer, reader = _pipes(child)
    writer.write(request)
    await writer.drain()
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > _MAX_FRAME:
        raise EOFError("answer over the frame limit")
    succeeded, value = pickle.loads(await reader.readexactly(length))
    return bool(succeeded), value
