"""A queue that many clients share: bounded as a whole, with a share for each client, served in turn.

Lives here: who may wait and who is next. Must not know: what waits, or how a client is named.

An item counts for the networks of its client (``model/client.py``) and may count for more, such as the owner of a
mailbox. One that counts for none belongs to a client without limits: it has no share, and takes its turn like others.
"""

from collections import Counter, OrderedDict, deque
from typing import Generic, TypeVar

from server.model.client import ClientNetwork

T = TypeVar("T")
Clients = tuple[ClientNetwork, ...]


class QueueFull(Exception):
    """All clients together fill the queue."""


class ShareUsed(Exception):
    """This client has as much in the queue as one client may have."""


class FairQueue(Generic[T]):
    """Holds items of ``most`` weight in all, ``share`` of one client; ``at_once`` items of one client run together.

    A network of several clients may hold their shares together, but never over half of all, nor run more items than a
    client. Weight counts from ``put`` to ``done``. The queue itself starts nothing.
    """

    def __init__(self, *, most: int, share: int, at_once: int) -> None:
        self._most, self._share, self._at_once = most, share, at_once
        self._half = max(share, most // 2)
        self._waiting: OrderedDict[Clients, deque[tuple[T, int]]] = OrderedDict()
        self._held: Counter[bytes] = Counter()
        self._running: Counter[bytes] = Counter()
        self._weight = 0
        self._length = 0

    def __len__(self) -> int:
        """Items that wait."""
        return self._length

    def put(self, clients: Clients, item: T, weight: int = 1) -> None:
        """Raises ShareUsed or QueueFull. A client that holds nothing may exceed its share with one item."""
        held = self._held
        if any(held[key] and held[key] + weight > min(self._share * times, self._half) for key, times in clients):
            raise ShareUsed
        if self._weight and self._weight + weight > self._most:
            raise QueueFull
        self._waiting.setdefault(clients, deque()).append((item, weight))
        self._length += 1
        self._weight += weight
        for key, _ in clients:
            held[key] += weight

    def take(self) -> tuple[Clients, T, int] | None:
        """The next item that may run, with its clients and weight; give both back with ``done``.

        Clients take turns. Those with ``at_once`` items running are passed over.
        """
        for clients, items in self._waiting.items():
            if not self.at_limit(clients):
                item, weight = items.popleft()
                self._rest(clients)
                for key, _ in clients:
                    self._running[key] += 1
                return clients, item, weight
        return None

    def at_limit(self, clients: Clients) -> bool:
        """Whether one of the clients has as many items running as one may have."""
        return any(self._running[key] >= self._at_once for key, _ in clients)

    def remove(self, clients: Clients, item: T, weight: int = 1) -> None:
        """Take out an item, if it still waits."""
        if (item, weight) not in self._waiting.get(clients, ()):
            return
        self._waiting[clients].remove((item, weight))
        self._rest(clients, turn=False)
        self._give_back(clients, weight)

    def done(self, clients: Clients, weight: int = 1) -> None:
        """An item that was taken has run."""
        _subtract(self._running, clients, 1)
        self._give_back(clients, weight)

    def clear(self) -> None:
        """Forget what waits."""
        for clients, items in self._waiting.items():
            for _, weight in items:
                self._give_back(clients, weight)
        self._waiting.clear()
        self._length = 0

    def _rest(self, clients: Clients, *, turn: bool = True) -> None:
        """One item fewer waits; after a turn the clients' others go to the end."""
        self._length -= 1
        if not self._waiting[clients]:
            del self._waiting[clients]
        elif turn:
            self._waiting.move_to_end(clients)

    def _give_back(self, clients: Clients, weight: int) -> None:
        self._weight -= weight
        _subtract(self._held, clients, weight)


def _subtract(counts: Counter[bytes], clients: Clients, n: int) -> None:
    for key, _ in clients:
        counts[key] -= n
        if counts[key] <= 0:
            del counts[key]
