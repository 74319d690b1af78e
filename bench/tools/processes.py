"""CPU time and memory of a server's process tree, read from /proc (proc(5)).

Must not know: which server it is, beyond telling PostgreSQL's processes from the others by their name.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU seconds, user and system, spent by a tree so far: PostgreSQL's processes apart from all others."""

    server: float
    postgres: float

    def since(self, before: "CpuTime") -> "CpuTime":
        """What was spent between the two readings."""
        return CpuTime(self.server - before.server, self.postgres - before.postgres)


@dataclass(frozen=True, slots=True)
class _Stat:
    pid: int
    parent: int
    name: str
    ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended between the listing and the reading
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    # utime, stime and the same of children already waited for: what ended during a run is still counted, once.
    return _Stat(pid, int(fields[1]), name, sum(int(field) for field in fields[11:15]))


def tree(root: int) -> list[_Stat]:
    """The process ``root`` and all its living descendants."""
    found = [_stat(int(entry)) for entry in os.listdir(_PROC) if entry.isdigit()]
    children: dict[int, list[_Stat]] = {}
    known: list[_Stat] = []
    for stat in found:
        if stat is None:
            continue
        children.setdefault(stat.parent, []).append(stat)
        if stat.pid == root:
            known.append(stat)
    for stat in known:
        known.extend(children.get(stat.pid, ()))
    return known


def cpu_time(root: int) -> CpuTime:
    """CPU seconds of the tree under ``root``; the kernel counts in ticks of 1/100 s."""
    server = postgres = 0
    for stat in tree(root):
        if stat.name.startswith("postgres"):
            postgres += stat.ticks
        else:
            server += stat.ticks
    return CpuTime(server / _TICKS, postgres / _TICKS)


def run_time(root: int) -> float:
    """CPU seconds that the first threads of the tree under ``root``, but PostgreSQL's, have run so far.

    To the nanosecond, where ``cpu_time`` counts in ticks; of a process that ends in between nothing is left.
    """
    spent = 0
    for stat in tree(root):
        if not stat.name.startswith("postgres"):
            with suppress(FileNotFoundError, ProcessLookupError):
                spent += int((_PROC / str(stat.pid) / "schedstat").read_text().split()[0])
    return spent / 1e9


def _busy_seconds() -> float:
    """CPU seconds the whole machine has worked, all cores: everything but idle, iowait and guests (counted in user)."""
    fields = [int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, interrupts, soft_interrupts, steal = fields[:8]
    return (user + nice + system + interrupts + soft_interrupts + steal) / _TICKS


class Neighbours:
    """How much of a core was used by processes that are no part of the measurement, since this was made.

    Everything the bench starts is its descendant. A high share says that absolute figures are not to be trusted.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._foreign = self._reading()

    @staticmethod
    def _reading() -> float:
        own = cpu_time(os.getpid())
        return _busy_seconds() - own.server - own.postgres

    def cores(self) -> float:
        """Cores kept busy by others, on average."""
        return max(self._reading() - self._foreign, 0.0) / (time.monotonic() - self._started)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a tree without PostgreSQL. ``shared``: a page in several processes counts once, by shares (Pss);
    ``own``: pages of one process alone (Uss)."""

    shared: int
    own: int


def memory(root: int) -> Memory:
    """What the tree under ``root`` holds now."""
    proportional = private = 0
    for stat in tree(root):
        if stat.name.startswith("postgres"):
            continue
        try:
            text = (_PROC / str(stat.pid) / "smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the listing and the reading
        sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in text.splitlines()[1:]}
        proportional += sizes["Pss:"]
        private += sizes["Private_Clean:"] + sizes["Private_Dirty:"]
    return Memory(proportional, private)


class Peak:
    """The most memory that the processes of a tree have held in all, but for PostgreSQL's, since this was made: their
    resident pages, by ``look``. Cheaper than ``memory``, and shared pages count once for each process: only differences
    say something.
    """

    def __init__(self, root: int) -> None:
        self._files = [_PROC / str(stat.pid) / "statm" for stat in tree(root) if not stat.name.startswith("postgres")]
        self.first = self.most = self.last = 0
        self.look()
        self.first = self.last

    def look(self) -> None:
        pages = 0
        for file in self._files:
            with suppress(FileNotFoundError, ProcessLookupError):
                pages += int(file.read_text().split()[1])
        self.last = pages * os.sysconf("SC_PAGE_SIZE")
        self.most = max(self.most, self.last)


def kernel_bytes() -> int:
    """What the kernel of this machine holds for everybody: slabs, and pages that wait in sockets."""
    slab = next(line for line in (_PROC / "meminfo").read_text().splitlines() if line.startswith("Slab:"))
    tcp = next(line for line in (_PROC / "net" / "sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(slab.split()[1]) * 1024 + int(tcp.split()[-1]) * os.sysconf("SC_PAGE_SIZE")
