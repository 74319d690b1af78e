"""What nodes of two releases say to each other over one bus: frames recorded with release 0.1.0, both ways."""

import asyncio
import base64
from collections.abc import Callable
from typing import Final

import pytest

from server.bus import channel
from server.bus.channel import Channel
from server.model.event import NOBODY, Hint, Kind

HOST: Final = b"oldhost1"
NUMBER: Final = 1_790_000_000_000_000_000
BOX: Final = "0192f0c4-7b1e-7abc-8def-0123456789ab"
EVERY_KIND: Final = [Hint(kind, BOX if kind < 6 else NOBODY, 41 if kind == 1 else 0) for kind in Kind if kind]

# Worker 3 of host "oldhost1", release 0.1.0: a hint of each kind over Redis, then one of mail as NOTIFY carries it.
OVER_REDIS: Final = bytes.fromhex(
    "6f6c64686f737431000318d75b8423f30001010192f0c47b1e7abc8def0123456789ab0000000000000029020192f0c47b1e7abc8def01"
    "23456789ab0000000000000000030192f0c47b1e7abc8def0123456789ab0000000000000000040192f0c47b1e7abc8def0123456789ab"
    "0000000000000000050192f0c47b1e7abc8def0123456789ab000000000000000006000000000000000000000000000000000000000000"
    "00000007000000000000000000000000000000000000000000000000080000000000000000000000000000000000000000000000000900"
    "00000000000000000000000000000000000000000000000a000000000000000000000000000000000000000000000000"
)
OVER_NOTIFY: Final = "b2xkaG9zdDEAAxjXW4Qj8wACAQGS8MR7Hnq8je8BI0VniasAAAAAAAAAKg=="


class End(Channel):
    """An end without a bus."""

    def __init__(self, host: bytes, worker: int) -> None:
        self.heard: list[tuple[list[Hint], bool]] = []
        super().__init__(host, worker, lambda hints, other: self.heard.append((hints, other)))

    async def _send(self, hints: list[Hint]) -> None:
        raise AssertionError

    async def _listen(self) -> None:
        raise AssertionError


@pytest.fixture
def end() -> Callable[[bytes, int], End]:
    async def make(host: bytes, worker: int) -> End:
        return End(host, worker)

    return lambda host, worker: asyncio.run(make(host, worker))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The log's lines of the bus."""
    lines: list[str] = []
    monkeypatch.setattr(channel, "event", lambda _level, message, **_: lines.append(message))
    return lines


def unknown(what: str) -> float:
    return float(channel.UNKNOWN.values.get((what,), 0))


def test_frames_of_the_release_before_are_understood(end: Callable[[bytes, int], End]) -> None:
    here = end(b"newhost1", 0)
    here._decode(OVER_REDIS)
    here._decode(base64.b64decode(OVER_NOTIFY))
    told = [hint for hint in EVERY_KIND if hint.kind not in (Kind.PULSE, Kind.LEAVE)]
    assert here.heard == [(told, True), ([Hint(Kind.MAIL, BOX, 42)], True)]


def test_frames_are_those_that_the_release_before_made(end: Callable[[bytes, int], End]) -> None:
    there = end(HOST, 3)
    there._number = NUMBER
    assert there._encode(EVERY_KIND) == OVER_REDIS
    assert base64.b64encode(there._encode([Hint(Kind.MAIL, BOX, 42)])).decode() == OVER_NOTIFY


def test_kinds_of_the_next_release_are_counted_said_once_and_cost_no_other_hint(
    end: Callable[[bytes, int], End], said: list[str]
) -> None:
    here, there = end(b"newhost1", 0), end(HOST, 3)
    before = unknown("hint")
    for number in range(50):
        frame = bytearray(there._encode([Hint(Kind.UPDATE, BOX), Hint(Kind.MAIL, BOX, number)]))
        frame[18] = 200
        here._decode(bytes(frame))
    assert [hints for hints, _ in here.heard] == [[Hint(Kind.UNKNOWN, BOX), Hint(Kind.MAIL, BOX, n)] for n in range(50)]
    assert unknown("hint") == before + 50
    assert len(said) == 1


def test_payloads_of_another_format_are_counted_and_said_once(
    end: Callable[[bytes, int], End], said: list[str]
) -> None:
    here = end(b"newhost1", 0)
    before = unknown("payload")
    for size in (0, 5, 17, 20, 42, 44, 69) * 7:
        here._decode(b"x" * size)
    assert here.heard == []
    assert unknown("payload") == before + 49
    assert len(said) == 1
