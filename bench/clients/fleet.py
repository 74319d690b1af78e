"""Very many WebSocket subscribers: a few processes, each with an epoll(7) loop over bare sockets.

Lives here: opening them, counting the frames of mail they get with the moment each came, and some that do not read.
Must not know: who sends the mail, or what the figures are for. A subscriber costs a socket and a handful of small
values, so that what is measured is the server.
"""

import errno
import resource
import select
import socket
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection

import orjson

from bench.clients.ws import PONG, WebSocketError, accepts, frame_of, handshake, masked
from bench.tools.target import Endpoint

PER_PROCESS = 17_000  # descriptors are often limited to 20,000 a process
_PER_SOURCE = 6_000  # client ports of one source address; loopback has many addresses
_BIND_ADDRESS_NO_PORT = 24  # ip(7): the port is chosen at connect(2), so that sources share ports
_OPENING = 64  # connections a process opens at a time
_PATIENCE = 200.0  # s for all to be subscribed
_NARROW = 4096  # receive buffer of those that do not read
_AWAKE_AFTER = 24.0  # s after which every second of them reads on: we give such a client 20 s, and 5 more to hear of it
_READ_OUT = 5.0  # s for the others, at the end, to read what was left to them
_MAIL = b'"type":"new_mail"'
_SUBJECT = b'"subject":"bench '


@dataclass(frozen=True, slots=True)
class Interest:
    """What one subscriber asks for. A ``lazy`` one asks for all there is and then reads nothing: every second one for
    24 s, the others to the end; how their connections ended is then told among the errors.
    """

    mailbox_id: str
    token: str
    lazy: bool = False


@dataclass(slots=True)
class Seen:
    """Frames of mail: the number in each subject, which subscriber got it, and when (``time.perf_counter``)."""

    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    subscribers: "array[int]" = field(default_factory=lambda: array("q"))
    arrivals: "array[float]" = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)


class _Client:
    """One subscriber's socket and what it waits for."""

    __slots__ = ("index", "interest", "ready", "rest", "sock", "upgraded")

    def __init__(self, index: int, interest: Interest, sock: socket.socket) -> None:
        self.index, self.interest, self.sock = index, interest, sock
        self.rest = b""
        self.upgraded = self.ready = False


class _Holder:
    """The loop of one process: ``open`` all subscribers, then ``listen`` until told to stop."""

    def __init__(self, number: int, http: Endpoint, first: int, interests: Sequence[Interest]) -> None:
        self._number, self._http, self._first, self._interests = number, http, first, interests
        self._poll = select.epoll()
        self._clients: dict[int, _Client] = {}
        self._ready = 0
        self._sleepers: deque[tuple[float, _Client]] = deque()
        self.seen = Seen()

    def open(self, tell: Callable[[int], None]) -> None:
        """Subscribe all, telling how many there are now and then; WebSocketError when it takes too long."""
        give_up = time.monotonic() + _PATIENCE
        told = opened = 0
        while self._ready < len(self._interests):
            while opened < len(self._interests) and opened - self._ready < _OPENING:
                self._connect(opened)
                opened += 1
            self._turn(0.2)
            if self._ready - told >= 500:
                tell(self._ready - told)
                told = self._ready
            if time.monotonic() > give_up or self.seen.errors:
                raise WebSocketError(f"{self._ready} of {len(self._interests)} subscribed; {dict(self.seen.errors)}")
        if self._ready > told:  # whoever counts has stopped listening once all are there
            tell(self._ready - told)

    def listen(self, control: "Connection[None, object]") -> None:
        """Read until something is said on ``control``."""
        self._poll.register(control.fileno(), select.EPOLLIN)
        while self._turn(1.0):
            while self._sleepers and self._sleepers[0][0] <= time.monotonic():
                self._wake(self._sleepers.popleft()[1])
        if sleepers := [client for client in self._clients.values() if client.interest.lazy]:
            self._poll.unregister(control.fileno())
            until = time.monotonic() + _READ_OUT
            for client in sleepers:
                self._wake(client)
            while self._clients and time.monotonic() < until:
                self._turn(0.1)
            self.seen.errors["still open"] += len(self._clients)

    def _wake(self, client: _Client) -> None:
        with suppress(FileExistsError):
            self._poll.register(client.sock.fileno(), select.EPOLLIN)

    def _connect(self, number: int) -> None:
        interest = self._interests[number]
        sock = socket.socket()
        sock.setblocking(False)
        if interest.lazy:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW)
        if self._http.host.startswith("127."):
            sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            sock.bind((f"127.0.{1 + self._number}.{2 + number // _PER_SOURCE}", 0))
        failure = sock.connect_ex((self._http.host, self._http.port))
        if failure not in (0, errno.EINPROGRESS):
            raise OSError(failure, "connect")
        self._clients[sock.fileno()] = _Client(self._first + number, interest, sock)
        self._poll.register(sock.fileno(), select.EPOLLOUT)

    def _turn(self, timeout: float) -> bool:
        """Whatever has happened; False when that was a word on the control channel."""
        for descriptor, event in self._poll.poll(timeout, 512):
            client = self._clients.get(descriptor)
            if client is None:
                return False
            if event & select.EPOLLOUT:
                self._begin(client)
            else:
                self._receive(client)
        return True

    def _begin(self, client: _Client) -> None:
        self._poll.modify(client.sock.fileno(), select.EPOLLIN)
        try:
            client.sock.send(handshake(self._http))
        except OSError as error:
            self._lose(client, type(error).__name__)

    def _receive(self, client: _Client) -> None:
        try:
            data = client.sock.recv(65536)
        except OSError as error:
            self._lose(client, type(error).__name__)
            return
        arrived = time.perf_counter()
        if not data:
            self._lose(client, "the server hung up")
            return
        data = client.rest + data
        try:
            client.rest = self._read(client, data, arrived)
        except WebSocketError as error:
            self._lose(client, str(error))

    def _read(self, client: _Client, data: bytes, arrived: float) -> bytes:
        if not client.upgraded:
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                return data
            accepts(head)
            client.upgraded, data = True, rest
            asked = {"type": "subscribe", "mailboxId": client.interest.mailbox_id, "token": client.interest.token}
            client.sock.send(masked(orjson.dumps(asked | ({"after": 0} if client.interest.lazy else {}))))
        at = 0
        while (frame := frame_of(data, at)) is not None:
            payload, at = frame
            self._take(client, payload, arrived)
        return data[at:]

    def _take(self, client: _Client, payload: bytes, arrived: float) -> None:
        if _MAIL in payload:
            if client.interest.lazy:
                return
            start = payload.index(_SUBJECT) + len(_SUBJECT)
            self.seen.numbers.append(int(payload[start : payload.index(b'"', start)]))
            self.seen.subscribers.append(client.index)
            self.seen.arrivals.append(arrived)
        elif b'"type":"ping"' in payload:
            client.sock.send(PONG)
        elif b'"type":"subscribed"' in payload and not client.ready:
            client.ready = True
            self._ready += 1
            if client.interest.lazy:
                self._poll.unregister(client.sock.fileno())
                if client.index % 2:
                    self._sleepers.append((time.monotonic() + _AWAKE_AFTER, client))
        elif b'"type":"error"' in payload:
            raise WebSocketError("an error event")

    def _lose(self, client: _Client, why: str) -> None:
        self.seen.errors[why] += 1
        with suppress(FileNotFoundError):
            self._poll.unregister(client.sock.fileno())
        del self._clients[client.sock.fileno()]
        client.sock.close()


def _hold(
    control: "Connection[object, object]", number: int, http: Endpoint, first: int, interests: Sequence[Interest]
) -> None:
    """A process: says how many more are subscribed, then waits for a word and says what was seen, or why it failed."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    holder = _Holder(number, http, first, interests)
    try:
        holder.open(control.send)
        holder.listen(control)
    except (OSError, WebSocketError) as error:
        control.send(str(error) or type(error).__name__)
    else:
        control.send(holder.seen)


class Fleet:
    """Subscribers of ``interests`` in as many processes as they need; a context manager. Numbered in their order."""

    def __init__(self, http: Endpoint, interests: Sequence[Interest], number: int = 0) -> None:
        """``number`` tells fleets apart that are there at the same time: each has source addresses of its own."""
        context = get_context("spawn")
        self._controls: list[Connection[object, object]] = []
        self._processes = []
        count = max(1, -(-len(interests) // PER_PROCESS))
        size = -(-len(interests) // count)
        for first in range(0, len(interests), size):
            ours, theirs = context.Pipe()
            share = interests[first : first + size]
            source = number * 16 + len(self._controls)
            process = context.Process(target=_hold, args=(theirs, source, http, first, share), daemon=True)
            process.start()
            theirs.close()
            self._controls.append(ours)
            self._processes.append(process)
        self._total = len(interests)

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    def wait(self, advance: Callable[[int], None]) -> None:
        """Until all are subscribed; WebSocketError when one is not."""
        left, pending = self._total, list(self._controls)
        while left > 0:
            for control in pending:
                if control.poll(0.05):
                    said = control.recv()
                    if not isinstance(said, int):
                        raise WebSocketError(str(said))
                    left -= said
                    advance(said)

    def seen(self) -> Seen:
        """What all of them saw; they read nothing more."""
        merged = Seen()
        for control in self._controls:
            control.send(None)
        for control in self._controls:
            part = control.recv()
            if not isinstance(part, Seen):
                raise WebSocketError(str(part))
            merged.numbers.extend(part.numbers)
            merged.subscribers.extend(part.subscribers)
            merged.arrivals.extend(part.arrivals)
            merged.errors.update(part.errors)
        return merged
