"""The supervisor: forks one worker per slot, replaces those that die or hang, rolls them on HUP, drains them on TERM.

Lives here: signals, fork, reap, backoff, deadlines, reload. Signals only queue; one loop looks at what is and brings it
towards what should be, so that no order of events needs a case of its own.
Must not know: what a worker does. Nothing asynchronous, no thread and no connection is ever made in this process.

Signals: TERM and INT drain, a second INT (or one during a TERM's drain) kills at once; HUP replaces the workers one at
a time by fresh forks of this process: settings and code stay those of the start, files that a worker opens
(certificates, secrets) are read anew. If the supervisor dies the kernel sends each worker SIGTERM: they drain by
themselves.
"""

import ctypes
import gc
import mmap
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, NoReturn, Protocol

from server import log, outages, systemd
from server.bus.local_bus import SocketPairs
from server.cache.buckets import Buckets
from server.cache.generations import Generations
from server.cache.marks import Marks
from server.cache.semaphore import SharedSemaphore
from server.config.settings import Config, ConfigError
from server.shards.condition import Condition
from server.shards.context import WorkerContext
from server.shards.sockets import SlotSockets, bind_slots
from server.store.replicas.positions import Positions
from server.systemd import Notifier

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
SPARE_COLUMNS: Final = 2  # a roll has one worker more than there are slots; one more in case that one's end is awaited
BOOT_ATTEMPTS: Final = 3
_READY: Final = b"\0"
_REASON_MAX: Final = 3000  # bytes of a dying worker's words: they must fit the pipe, nobody may be reading yet
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Timing:
    """The supervisor's patience, in seconds."""

    heartbeat: float = 30.0  # silence of a ready worker's loop after which it is killed
    silence: float = 5.0  # after which the worker's slot counts as not served
    boot: float = 60.0  # from fork to ready
    backoff_least: float = 0.1  # before a dead worker is replaced; doubles with each death in a row
    backoff_most: float = 5.0
    steady: float = 60.0  # a life this long ends the row of deaths
    tick: float = 1.0  # longest sleep of the loop: heartbeats and companions are looked at this often


TIMING: Final = Timing()


class Companion(Protocol):
    """A process that the workers need and the supervisor keeps alive, such as the embedded PostgreSQL.

    The supervisor reaps all its children: a companion that asks Popen about its child after that sees returncode 0.
    """

    def revive(self) -> bool:
        """Start it again if it has died; True if that was needed. Called every tick; whatever it raises is logged."""
        ...


@dataclass(slots=True)
class _Slot:
    sockets: SlotSockets
    deaths: int = 0  # in a row, without a steady life between
    unbooted: int = 0  # deaths before ready, in a row
    retry_at: float = 0.0


@dataclass(slots=True)
class _Worker:
    pid: int
    slot: int
    column: int
    roll: int  # the roll it was forked in or after; an older one is to be replaced
    pipe: int
    started: float
    kill_at: float
    said: bytearray = field(default_factory=bytearray)
    ready: bool = False
    stopping: bool = False
    killed_for: str = ""


class Supervisor:
    """Runs ``run_worker`` in ``config.workers`` forked processes. Binds at once: ConfigError when an address is taken.

    ``on_ready`` is called once, with the first slot's sockets, when all workers serve; ``on_reap`` with the pid of each
    worker that has ended.
    """

    def __init__(
        self,
        config: Config,
        run_worker: Callable[[WorkerContext], None],
        *,
        companions: Sequence[Companion] = (),
        on_ready: Callable[[SlotSockets], None] = lambda sockets: None,
        on_reap: Callable[[int], None] = lambda pid: None,
        timing: Timing = TIMING,
    ) -> None:
        self._run_worker = run_worker
        self._companions = companions
        self._on_ready = on_ready
        self._on_reap = on_reap
        self._timing = timing
        self._drain_deadline = config.drain_deadline
        self._notifier = Notifier()
        self._slots = [_Slot(sockets) for sockets in self._bind(config)]
        columns = config.workers + SPARE_COLUMNS
        self._generations = Generations(columns)
        self._buckets = Buckets()
        self._places = SharedSemaphore()
        self._marks = Marks()
        self._standings = Positions(len(config.replicas()))
        self._lines = SocketPairs(columns)
        self._condition = Condition(config.workers, columns)
        self._beats = memoryview(mmap.mmap(-1, columns * 8)).cast("d")
        # last in, first out: a replacement takes a dead worker's column over and heals what that left unfinished
        self._free_columns = list(reversed(range(columns)))
        self._pid = os.getpid()
        self._workers: dict[int, _Worker] = {}
        self._signals, self._signal_writer = socket.socketpair()
        self._announced = False
        self._stopping = False
        self._status = 0
        self._roll = 0
        self._rolling = False
        self._roll_again = False
        self._awake_since = self._stepped = time.monotonic()

    def run(self) -> int:
        """Serve until told to stop. Exit status: 0 drained, 1 workers cannot boot, 130 killed by a second INT."""
        before = self._catch_signals()
        gc.collect()
        gc.freeze()  # what the children share must not be touched, and so copied, by their collectors
        try:
            while self._workers or not self._stopping:
                self._step()
        finally:
            self._kill_all("the supervisor ends")
            for pid in tuple(self._workers):
                os.waitpid(pid, 0)
            self._release(before)
        return self._status

    # -- the loop --

    def _step(self) -> None:
        now = time.monotonic()
        if now - self._stepped > 5 * self._timing.tick:
            self._awake_since = now  # the machine was paused: nobody could beat
        self._stepped = now
        self._enforce_deadlines(now)
        if not self._stopping:
            self._fill_slots(now)
            self._advance_roll(now)
        self._look_at_slots(now)
        if not self._stopping:
            self._announce()  # after the look: its reader may ask /health/ready at once
        self._keep_companions()
        self._notifier.alive()
        self._wait(now)
        self._reap()

    def _wait(self, now: float) -> None:
        """Sleep until a signal, a worker's word or the next deadline."""
        poller = select.poll()
        poller.register(self._signals, select.POLLIN)
        speakers = {worker.pipe: worker for worker in self._workers.values()}
        for pipe in speakers:
            poller.register(pipe, select.POLLIN)
        deadlines = [worker.kill_at for worker in self._workers.values()]
        deadlines += [slot.retry_at for slot in self._slots if slot.retry_at > now]
        if self._notifier.watchdog is not None:
            deadlines.append(now + self._notifier.watchdog / 4)
        timeout = max(0.0, min(self._timing.tick, min(deadlines, default=inf) - now))
        for descriptor, _ in poller.poll(timeout * 1000 + 1):
            if descriptor in speakers:
                self._hear(speakers[descriptor])
            else:
                self._obey(self._signals.recv(4096))

    def _hear(self, worker: _Worker) -> None:
        worker.said += os.read(worker.pipe, 1 << 16)
        if worker.said.startswith(_READY) and not worker.ready:
            worker.ready = True
            if not worker.stopping:
                worker.kill_at = inf
            self._slots[worker.slot].unbooted = 0
            log.event("info", "worker ready", worker=worker.pid, slot=worker.slot)

    def _obey(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGINT and self._stopping:
                self._status = 130
                self._kill_all("second INT")
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._stop(signal.Signals(number).name)
            elif number == signal.SIGHUP and not self._stopping:
                self._start_roll()

    def _keep_companions(self) -> None:
        for companion in self._companions:
            try:
                if companion.revive():
                    log.event("warning", "companion started again", companion=type(companion).__name__)
            except Exception as error:  # foreign code; the workers must not lose their supervisor to it
                log.event("error", "companion not started", companion=type(companion).__name__, error=error)

    def _announce(self) -> None:
        if self._announced or not all(self._serving(slot) for slot in range(len(self._slots))):
            return
        self._announced = True
        self._notifier.ready(self._summary())
        self._on_ready(self._slots[0].sockets)

    def _look_at_slots(self, now: float) -> None:
        """Tell the workers which slots are served, for a worker cannot see the others."""
        for number in range(len(self._slots)):
            serving = [worker for worker in self._workers.values() if worker.slot == number and worker.ready]
            beats = [max(self._beats[worker.column], self._awake_since) for worker in serving]
            self._condition.serve(number, any(now - beat < self._timing.silence for beat in beats), now)

    def _bind(self, config: Config) -> list[SlotSockets]:
        """Every slot's sockets, those among them that the service manager kept; from now on it keeps all of them."""
        kept = systemd.kept()
        slots = bind_slots(config, config.workers, kept)
        taken = {name: sock for slot, sockets in enumerate(slots) for name, sock in sockets.named(slot).items()}
        for name, old in kept.items():
            if taken.get(name) is not old:
                self._notifier.forget(name)
                old.close()
        for name, sock in taken.items():
            if kept.get(name) is not sock:
                self._notifier.store(name, sock)
        return slots

    def _serving(self, slot: int) -> bool:
        return any(worker.slot == slot and worker.ready for worker in self._workers.values())

    def _summary(self) -> str:
        return f"{len(self._slots)} workers"

    # -- workers: birth --

    def _fill_slots(self, now: float) -> None:
        manned = {worker.slot for worker in self._workers.values() if not worker.stopping}
        for number, slot in enumerate(self._slots):
            if number not in manned and now >= slot.retry_at:
                self._fork(number, now)

    def _fork(self, number: int, now: float) -> None:
        if not self._free_columns:  # too many still draining; the loop asks again
            return
        column = self._free_columns.pop()
        self._beats[column] = now
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # a signal that came between fork and reset would run our handler in the child and reach us as a second one
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_worker(number, column, writer)
        except OSError as error:
            os.close(reader)
            self._free_columns.append(column)
            self._slots[number].retry_at = now + self._timing.backoff_most
            log.event("error", "cannot fork", slot=number, error=error)
        else:
            deadline = now + self._timing.boot
            self._workers[pid] = _Worker(pid, number, column, self._roll, reader, now, deadline)
            log.event("info", "worker started", worker=pid, slot=number)
        finally:
            os.close(writer)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _be_worker(self, number: int, column: int, pipe: int) -> NoReturn:
        """The child's whole life. Nothing may escape into the frames above: they are the supervisor's."""
        status = 1
        try:
            self._leave_parent(number)
            self._run_worker(self._context(number, column, pipe))
            status = 0
        except BaseException as error:
            os.write(pipe, _last_words(error))
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def _leave_parent(self, number: int) -> None:
        """In the child: default signals, death with the parent, and none of the others' descriptors."""
        signal.set_wakeup_fd(-1)
        for caught in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(caught, signal.SIG_DFL)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), *[ctypes.c_ulong(0)] * 3):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != self._pid:
            raise RuntimeError("the supervisor died during the fork")
        self._signals.close()
        self._signal_writer.close()
        for worker in self._workers.values():
            os.close(worker.pipe)
        for other, slot in enumerate(self._slots):
            if other != number:
                slot.sockets.close()

    def _context(self, number: int, column: int, pipe: int) -> WorkerContext:
        def heartbeat() -> None:
            self._beats[column] = time.monotonic()

        def ready() -> None:
            heartbeat()
            os.write(pipe, _READY)

        sockets = self._slots[number].sockets
        shared = (
            self._generations,
            self._buckets,
            self._places,
            self._marks,
            self._standings,
            self._lines,
            self._condition,
        )
        return WorkerContext(number, column, sockets, *shared, ready, heartbeat)

    # -- workers: death --

    def _enforce_deadlines(self, now: float) -> None:
        for worker in self._workers.values():
            if worker.killed_for:
                continue
            beat = max(self._beats[worker.column], self._awake_since)
            if worker.ready and not worker.stopping and now - beat > self._timing.heartbeat:
                self._kill(worker, f"its loop was blocked for {self._timing.heartbeat:g} s")
            elif now >= worker.kill_at:
                what = "drained within" if worker.stopping else "ready within"
                limit = self._drain_deadline if worker.stopping else self._timing.boot
                self._kill(worker, f"not {what} {limit:g} s")

    def _kill(self, worker: _Worker, reason: str) -> None:
        worker.killed_for = reason
        worker.kill_at = inf
        os.kill(worker.pid, signal.SIGKILL)

    def _kill_all(self, reason: str) -> None:
        for worker in self._workers.values():
            self._kill(worker, reason)

    def _terminate(self, worker: _Worker, now: float) -> None:
        if not worker.stopping and not worker.killed_for:
            worker.stopping = True
            worker.kill_at = now + self._drain_deadline
            os.kill(worker.pid, signal.SIGTERM)

    def _reap(self) -> None:
        """Reap every ended child, also those that are no workers: as process 1 of a container we inherit strangers."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # there is no child at all
                return
            if pid == 0:
                return
            if pid in self._workers:
                self._bury(self._workers.pop(pid), os.waitstatus_to_exitcode(status))

    def _bury(self, worker: _Worker, code: int) -> None:
        self._hear_out(worker)
        self._free_columns.append(worker.column)
        outages.forget(worker.column)
        self._on_reap(worker.pid)
        if worker.stopping or self._stopping:
            level = "warning" if worker.killed_for else "info"
            log.event(level, "worker ended", worker=worker.pid, slot=worker.slot, killed_for=worker.killed_for or None)
            return
        reason, trace = _cause(worker, code)
        if self._abandon_roll(worker, reason, trace):
            return
        log.event("error", "worker died", worker=worker.pid, slot=worker.slot, reason=reason, trace=trace or None)
        self._plan_replacement(worker, reason)

    def _hear_out(self, worker: _Worker) -> None:
        # a process that the worker started may still hold the pipe: read what is there, do not wait for its end
        os.set_blocking(worker.pipe, False)
        try:
            self._hear(worker)
        except BlockingIOError:
            log.event("debug", "worker left no word", worker=worker.pid)
        os.close(worker.pipe)

    def _plan_replacement(self, worker: _Worker, reason: str) -> None:
        slot, now = self._slots[worker.slot], time.monotonic()
        if worker.ready and now - worker.started >= self._timing.steady:
            slot.deaths = 0
        slot.retry_at = now + min(self._timing.backoff_most, self._timing.backoff_least * 2**slot.deaths)
        slot.deaths = min(slot.deaths + 1, 32)
        slot.unbooted = 0 if worker.ready else slot.unbooted + 1
        if slot.unbooted >= BOOT_ATTEMPTS:
            log.event("error", f"a worker could not start {BOOT_ATTEMPTS} times in a row: {reason}", slot=worker.slot)
            self._status = 1
            self._stop("boot failure")

    # -- reload and stop --

    def _start_roll(self) -> None:
        if self._rolling:
            self._roll_again = True
            return
        log.event("info", "replacing workers one at a time")
        self._notifier.reloading("replacing workers")
        self._rolling = True
        self._roll += 1

    def _advance_roll(self, now: float) -> None:
        """Bring the first slot that still has a worker of before the roll one step on; end the roll when none has."""
        if not self._rolling:
            return
        for number in range(len(self._slots)):
            team = [worker for worker in self._workers.values() if worker.slot == number]
            new = [worker for worker in team if worker.roll == self._roll]
            old = [worker for worker in team if worker.roll < self._roll]
            if not new and old and now >= self._slots[number].retry_at:
                self._fork(number, now)
            elif new and new[-1].ready:
                for worker in old:
                    self._terminate(worker, now)
            if old or not self._serving(number):
                return
        log.event("info", "workers replaced")
        self._end_roll()

    def _end_roll(self) -> None:
        self._rolling = False
        self._notifier.ready(self._summary())
        if self._roll_again:
            self._roll_again = False
            self._start_roll()

    def _abandon_roll(self, successor: _Worker, reason: str, trace: str) -> bool:
        """A successor that could not boot leaves its predecessor, and all that were still to go, in place."""
        old = [worker for worker in self._workers.values() if worker.roll < self._roll]
        beside = any(worker.slot == successor.slot and not worker.stopping for worker in old)
        if not self._rolling or successor.ready or not beside:
            return False
        said = "replacing workers abandoned; the old ones stay"
        log.event("error", said, slot=successor.slot, reason=reason, trace=trace or None)
        for worker in old:
            worker.roll = self._roll
        self._roll_again = False
        self._end_roll()
        return True

    def _stop(self, why: str) -> None:
        if self._stopping:
            return
        log.event("info", "stopping", why=why, deadline=self._drain_deadline)
        self._stopping = True
        self._notifier.stopping("draining")
        for slot in self._slots:
            # with the workers' copies gone callers are refused, unless a service manager keeps the sockets
            slot.sockets.withdraw(kept=self._notifier.manages)
        now = time.monotonic()
        for worker in self._workers.values():
            self._terminate(worker, now)

    # -- signals --

    def _catch_signals(self) -> dict[signal.Signals, Any]:
        self._signals.setblocking(False)
        self._signal_writer.setblocking(False)
        signal.set_wakeup_fd(self._signal_writer.fileno(), warn_on_full_buffer=False)
        return {number: signal.signal(number, _queue_only) for number in SIGNALS}

    def _release(self, before: dict[signal.Signals, Any]) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        self._signals.close()
        self._signal_writer.close()
        for slot in self._slots:
            slot.sockets.withdraw(kept=self._notifier.manages)


def _queue_only(number: int, frame: object) -> None:
    """A handler must exist for the number to be written to the wakeup descriptor; the loop does the rest."""


def _last_words(error: BaseException) -> bytes:
    plain = isinstance(error, ConfigError)  # what an operator can mend is a sentence, and where we noticed is no matter
    trace = "" if plain else "".join(traceback.format_exception(error))
    text = (str(error) if plain else f"{type(error).__name__}: {error}").replace("\n", " ")
    return f"{text[:_REASON_MAX]}\n{trace[-_REASON_MAX:]}".encode("utf-8", "replace")


def _cause(worker: _Worker, code: int) -> tuple[str, str]:
    """Why a worker ended, in a line, and the traceback it left."""
    words = bytes(worker.said).removeprefix(_READY).decode("utf-8", "replace")
    reason, _, trace = words.partition("\n")
    if worker.killed_for:
        return worker.killed_for, trace
    if code < 0:
        return f"killed by {signal.Signals(-code).name}", trace
    return reason or f"exit status {code}", trace
