"""Scenario ``sessions``: thousands of SMTP sessions that hardly speak, some dripping a mail, beside ordinary mail.

Memory of a session, what the ordinary senders notice, and whether descriptors and memory come back. The clients live in
this process, the server's sessions in its workers: each process holds at most as many as its limit of open files. Must
not know: how servers are started (``launch``) or how results are written (``report``).
"""

import asyncio
import os
import socket
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import uvloop
from rich.console import Console
from rich.progress import Progress

from bench.clients.api import Api, Mailbox
from bench.clients.smtp import SmtpConnection, sample_message
from bench.report.results import latency_cells, progress, table
from bench.tools.launch import Plan, own_server
from bench.tools.processes import memory, tree
from bench.tools.stats import Schedule, summarise
from bench.tools.target import Endpoint, Target

_AT_ONCE = 200  # connections being opened
_PER_SOURCE = 4000  # of the 28,000 ports that each source address has
_SETTLE_SECONDS = 15.0
_GIVE_BACK_SECONDS = 3.0  # until a worker has noticed that many have gone, and given their memory back
_SENDERS = 8
_OPEN = b"EHLO src.test\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<%b>\r\nDATA\r\n"


class Leak(Exception):
    """Sessions were refused or lost, or the server keeps what it should have given back."""


@dataclass(frozen=True, slots=True)
class Options:
    """``drip`` is the share of sessions that send a byte of a body a second; ``rate`` in mails per second."""

    server: Plan
    sessions: int
    drip: float
    seconds: float
    rate: float


class _Idler(asyncio.Protocol):
    """A client that greets, may begin a mail, and then waits."""

    def __init__(self, words: bytes, lost: list[int]) -> None:
        self._words, self._lost = words, lost
        self.greeted = asyncio.get_running_loop().create_future()
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self.greeted.done():
            self.greeted.set_result(data.startswith(b"220"))
            self.transport.write(self._words)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.greeted.done():
            self.greeted.set_result(False)
        if not self.closing:
            self._lost.append(1)


def _socket(number: int, smtp: Endpoint) -> socket.socket:
    """A socket with a source address of its own for each few thousand, where the target is loopback."""
    sock = socket.socket(socket.AF_INET6 if ":" in smtp.host else socket.AF_INET)
    sock.setblocking(False)
    if smtp.host.startswith("127."):
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen at connect
        sock.bind((f"127.0.1.{1 + number // _PER_SOURCE}", 0))
    return sock


async def _open_all(smtp: Endpoint, address: str, options: Options, lost: list[int], bar: Progress) -> list[_Idler]:
    loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE)
    task = bar.add_task("sessions", total=options.sessions)
    drips = int(options.sessions * options.drip)

    async def one(number: int) -> _Idler:
        words = _OPEN % address.encode() if number < drips else b"EHLO src.test\r\n"
        async with gate, asyncio.timeout(60):
            sock = _socket(number, smtp)
            await loop.sock_connect(sock, (smtp.host, smtp.port))
            _, client = await loop.create_connection(lambda: _Idler(words, lost), sock=sock)
            if not await client.greeted:
                raise Leak(f"session {number} was refused")
        bar.advance(task)
        return client

    async with asyncio.TaskGroup() as group:
        opening = [group.create_task(one(number)) for number in range(options.sessions)]
    return [each.result() for each in opening]


async def _drip(clients: list[_Idler], until: float) -> None:
    while time.perf_counter() < until:
        for client in clients:
            client.transport.write(b"x")
        await asyncio.sleep(1)


async def _others(target: Target, box: Mailbox, options: Options) -> list[float]:
    """Ordinary mail on a schedule; seconds from the final dot to 250, lateness of ours included."""
    schedule = Schedule(time.perf_counter() + 0.2, options.rate, options.seconds)
    numbers, took = iter(range(schedule.total)), list[float]()
    wire = sample_message("bench", 4096)

    async def sender() -> None:
        async with await SmtpConnection.open(target.smtp) as connection:
            for number in numbers:
                due = schedule.time_of(number)
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                sent = await connection.send((box.address,), wire)
                took.append(sent.answered - min(due, sent.sent))

    async with asyncio.timeout(options.seconds + 60), asyncio.TaskGroup() as group:
        for _ in range(_SENDERS):
            group.create_task(sender())
    return took


def descriptors(root: int) -> int:
    """Open files of the tree without PostgreSQL."""
    own = [stat.pid for stat in tree(root) if not stat.name.startswith("postgres")]
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in own)


@dataclass(frozen=True, slots=True)
class _Reading:
    memory: int
    descriptors: int


def _read(target: Target) -> _Reading | None:
    return None if target.pid is None else _Reading(memory(target.pid).own, descriptors(target.pid))


async def _settled(target: Target, before: _Reading | None) -> _Reading | None:
    """A little after the descriptors are back. Leak when that takes too long."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while before is not None and (after := _read(target)) is not None:
        if after.descriptors <= before.descriptors + 8:  # a pool may have grown by a connection or two
            await asyncio.sleep(_GIVE_BACK_SECONDS)
            return _read(target)
        if time.monotonic() > deadline:
            raise Leak(f"{after.descriptors} descriptors are open, {before.descriptors} were before")
        await asyncio.sleep(0.2)
    return None


async def _scenario(target: Target, options: Options, bar: Progress) -> dict[str, Any]:
    async with Api(target.http) as api:
        [box] = await api.create_mailboxes(1)
    alone = await _others(target, box, replace(options, seconds=min(options.seconds, 5.0)))
    before, lost = _read(target), list[int]()
    started = time.perf_counter()
    clients = await _open_all(target.smtp, box.address, options, lost, bar)
    opened = options.sessions / (time.perf_counter() - started)
    await asyncio.sleep(1)
    during = _read(target)
    bar.add_task(f"{options.rate:,.0f} mails/s beside them for {options.seconds:.0f} s", total=None)
    drips = clients[: int(options.sessions * options.drip)]
    dripping = asyncio.create_task(_drip(drips, time.perf_counter() + options.seconds))
    beside = await _others(target, box, options)
    await dripping
    if lost:
        raise Leak(f"{len(lost)} sessions were closed by the server")
    for client in clients:
        client.closing = True
        client.transport.abort()
    after = await _settled(target, before)
    each = (during.memory - before.memory) / options.sessions if before and during else None
    return {
        "opened_per_second": opened,
        "memory_per_session": each,
        "before": before and asdict(before),
        "during": during and asdict(during),
        "after": after and asdict(after),
        "alone": asdict(summarise(alone)),
        "beside": asdict(summarise(beside)),
        "cells": [latency_cells(summarise(alone)), latency_cells(summarise(beside))],
    }


def run(console: Console, options: Options, work: Path, target: Target | None) -> dict[str, Any]:
    """Measure and show; memory in bytes, times in seconds. Leak when sessions or descriptors are lost."""
    roomy = {
        "SMTP_MAX_CONNECTIONS": str(options.sessions * 2 + 1000),
        "SMTP_READ_TIMEOUT": "15m",
        "SMTP_SESSION_TIMEOUT": "30m",
        "SMTP_MIN_RATE": "0",
    }
    plan = replace(options.server, settings=roomy | dict(options.server.settings))
    with ExitStack() as stack:
        aim = target or stack.enter_context(own_server(work, plan))
        bar = stack.enter_context(progress(console))
        found = uvloop.run(_scenario(aim, options, bar))
    alone, beside = found.pop("cells")
    rows = [["no other session", *alone], [f"beside {options.sessions:,}", *beside]]
    console.print(table("due to 250, ordinary mail", ["", "p50", "p95", "p99", "max"], rows))
    if found["memory_per_session"] is not None:
        console.print(
            f"memory per session: {found['memory_per_session']:,.0f} B; descriptors "
            f"{found['before']['descriptors']} -> {found['during']['descriptors']} -> {found['after']['descriptors']}; "
            f"memory {found['before']['memory'] >> 20} -> {found['during']['memory'] >> 20} -> "
            f"{found['after']['memory'] >> 20} MiB"
        )
    return found
