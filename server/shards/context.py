"""What a worker process is born with: its sockets, the shared memory, and its two words to the supervisor.

Lives here so that the shards know it without knowing the supervisor. Must not know: what a worker does with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from server.bus.local_bus import SocketPairs
from server.cache.buckets import Buckets
from server.cache.generations import Generations
from server.cache.marks import Marks
from server.cache.semaphore import SharedSemaphore
from server.shards.condition import Condition
from server.shards.sockets import SlotSockets
from server.store.replicas.positions import Positions


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Handed to ``run_worker`` in the forked process, which ends when that returns (0) or raises (reason logged, 1).

    The worker owns ``column`` of ``generations`` and of ``condition`` as its single writer. It calls ``ready`` once,
    when it serves, and ``heartbeat`` every second from its own loop, until its end. SIGTERM has its default action,
    death, until the worker installs a handler; then it means: close the listening sockets, finish what was begun,
    return within the drain deadline. The worker must keep that deadline by itself too: SIGTERM also comes when the
    supervisor has died, and then nobody is left to enforce it. SIGINT and SIGHUP are ignored: a terminal sends them to
    the whole group, and they are the supervisor's to act on.
    """

    slot: int
    column: int
    sockets: SlotSockets
    generations: Generations
    buckets: Buckets
    places: SharedSemaphore
    marks: Marks
    standings: Positions
    lines: SocketPairs
    condition: Condition
    ready: Callable[[], None]
    heartbeat: Callable[[], None]
