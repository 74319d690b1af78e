"""What stays open, at an offered rate: each due time opens a connection, waits for the first word on it, and hangs up.

Must not know: which family of routes it stands for, or how servers are started.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from bench.clients.api import Mailbox
from bench.clients.http import Load, Outcome
from bench.clients.ws import WebSocketError, subscribe
from bench.tools.stats import Schedule
from bench.tools.target import Endpoint

_LEAD_SECONDS = 0.1
_TIMEOUT = 10.0  # s for one connection

Attempt = Callable[[Endpoint, Mailbox], Awaitable[None]]


async def event_stream(http: Endpoint, box: Mailbox) -> None:
    """Come back to a stream of server-sent events from the beginning: the mailbox's first message has been missed."""
    reader, writer = await asyncio.open_connection(http.host, http.port)
    try:
        writer.write(
            f"GET /v1/mailboxes/{box.id}/events HTTP/1.1\r\nHost: {http}\r\nAccept: text/event-stream\r\n"
            f"Authorization: Bearer {box.token}\r\nLast-Event-ID: 0\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise WebSocketError(f"the stream was refused: {head[:200]!r}")
        await reader.readuntil(b"new_mail")
    finally:
        writer.transport.abort()


async def subscription(http: Endpoint, box: Mailbox) -> None:
    """Open a WebSocket and subscribe."""
    (await subscribe(http, box, lambda *_: None, timeout=_TIMEOUT)).close()


async def opened(attempt: Attempt, http: Endpoint, boxes: Sequence[Mailbox], load: Load) -> Outcome:
    """Open ``load.rate`` a second whatever happens; a latency counts from the moment its opening was due."""
    outcome = Outcome()
    start = time.perf_counter() + _LEAD_SECONDS
    schedule = Schedule(start, load.rate, load.seconds)

    async def one(number: int) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await attempt(http, boxes[number % len(boxes)])
        except (OSError, EOFError, TimeoutError, WebSocketError) as error:
            outcome.errors[f"{type(error).__name__}: {error}"] += 1
        else:
            outcome.latencies.append(time.perf_counter() - schedule.time_of(number))

    async with asyncio.TaskGroup() as group:
        for number in range(schedule.total):
            await asyncio.sleep(max(schedule.time_of(number) - time.perf_counter(), 0))
            group.create_task(one(number))
    outcome.seconds = time.perf_counter() - start
    return outcome
