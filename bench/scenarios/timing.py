"""Scenario ``timing``: does the time of a refusal tell an unknown mailbox from a wrong token, or from someone else's?

Every pair of requests is asked in turns and in random order over one connection, so that whatever drifts hits both.
Must not know: how servers are started (``launch``), or the statistics (``stats``).
"""

import asyncio
import random
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.clients.api import Account, Api, Mailbox
from bench.clients.http import get_request
from bench.report.results import progress, table
from bench.tools.launch import Plan, own_server
from bench.tools.stats import mann_whitney, summarise
from bench.tools.target import Endpoint, Target

_TIMEOUT = 10.0
_WARM_UP = 200
_EFFECT = 0.05  # below this nobody learns a bit from a thousand questions
_LETTERS = "0123456789abcdef"


class TimingError(Exception):
    """An answer was not the refusal that is timed."""


@dataclass(frozen=True, slots=True)
class Options:
    """``samples`` of each side of each pair, spread over ``mailboxes``."""

    server: Plan
    samples: int
    mailboxes: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two requests that must look alike: what is named and the bytes to send, by turn."""

    name: str
    first: Sequence[bytes]
    second: Sequence[bytes]


class Asker:
    """One keep-alive connection on which an answer is waited for before the next question."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._socket = socket.create_connection((endpoint.host, endpoint.port), timeout=_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, wire: bytes) -> float:
        """Seconds until the answer began; TimingError unless it is a 404."""
        began = time.perf_counter()
        self._socket.sendall(wire)
        head = self._socket.recv(65536)
        taken = time.perf_counter() - began
        if not head.startswith(b"HTTP/1.1 404 ") or b"\r\n\r\n" not in head:
            raise TimingError(f"not the refusal that is timed: {head[:120]!r}")
        return taken

    def close(self) -> None:
        self._socket.close()


def unknown_like(mailbox_id: str) -> str:
    """An id nobody has, made at the same moment as ``mailbox_id``: the tail is random, the rest is the same."""
    return mailbox_id[:-12] + "".join(secrets.choice(_LETTERS) for _ in range(12))


def _paths(boxes: Sequence[Mailbox], unknown: bool) -> list[str]:
    return [f"/v1/mailboxes/{unknown_like(box.id) if unknown else box.id}/messages" for box in boxes]


def _pairs(endpoint: Endpoint, boxes: Sequence[Mailbox], stranger: Account) -> list[Pair]:
    wrong = secrets.token_urlsafe(32)
    known, unknown = _paths(boxes, False), _paths(boxes, True)

    def requests(paths: Sequence[str], token: str) -> list[bytes]:
        return [get_request(endpoint, path, token) for path in paths]

    return [
        Pair("wrong token / unknown mailbox", requests(known, wrong), requests(unknown, wrong)),
        Pair("another account's / unknown", requests(known, stranger.token), requests(unknown, stranger.token)),
        Pair("control: unknown / unknown", requests(unknown, wrong), requests(_paths(boxes, True), wrong)),
    ]


def _measure(
    endpoint: Endpoint, pair: Pair, samples: int, advance: Callable[[], None]
) -> tuple[list[float], list[float]]:
    asker, dice = Asker(endpoint), random.Random(pair.name)
    sides: tuple[list[float], list[float]] = ([], [])
    try:
        for number in range(_WARM_UP + samples):
            wires = (pair.first[number % len(pair.first)], pair.second[number % len(pair.second)])
            for side in dice.sample((0, 1), 2):
                taken = asker.ask(wires[side])
                if number >= _WARM_UP:
                    sides[side].append(taken)
            advance()
    finally:
        asker.close()
    return sides


async def _prepare(target: Target, count: int) -> tuple[list[Mailbox], Account]:
    async with Api(target.http) as api:
        return await api.create_mailboxes(count), await api.register()


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Measure and show; each pair's medians, effect and p. ``told`` names the pairs that can be told apart."""
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, options.server))
        bar = stack.enter_context(progress(console))
        boxes, stranger = asyncio.run(_prepare(aim, options.mailboxes))
        for pair in _pairs(aim.http, boxes, stranger):
            task = bar.add_task(pair.name, total=_WARM_UP + options.samples)
            first, second = _measure(aim.http, pair, options.samples, lambda task=task: bar.advance(task))  # type: ignore[misc]
            found = mann_whitney(first, second)
            results[pair.name] = {
                "first": asdict(summarise(first)),
                "second": asdict(summarise(second)),
                "effect": found.effect,
                "p": found.p,
            }
    _show(console, options, results)
    return {"pairs": results, "told": [name for name, one in results.items() if abs(one["effect"]) >= _EFFECT]}


def _show(console: Console, options: Options, results: dict[str, Any]) -> None:
    rows = [
        [
            name,
            f"{one['first']['p50'] * 1e6:.1f} us",
            f"{one['second']['p50'] * 1e6:.1f} us",
            f"{one['effect']:+.4f}",
            f"{one['p']:.3g}",
            "can be told apart" if abs(one["effect"]) >= _EFFECT else "alike",
        ]
        for name, one in results.items()
    ]
    title = f"time of a refusal, {options.samples:,} samples a side, Mann-Whitney; alike: effect under {_EFFECT}"
    console.print(table(title, ["pair", "median", "median", "effect", "p", ""], rows))
