"""A worker process from its fork to its end: one loop, one shard, a heartbeat."""

import asyncio
import gc
import resource
import signal
from typing import Final

import uvloop

from server import metrics, outages
from server.config.settings import Config
from server.log import event
from server.metrics import Board
from server.shards.compose import Shard
from server.shards.context import WorkerContext

_GC_THRESHOLD: Final = (50_000, 20, 100)
"""Nearly everything here is freed by its count; with the default of 700 the collector ran a thousand times a second."""


def run(config: Config, board: Board, host: bytes, context: WorkerContext) -> None:
    """Serve until SIGTERM. What it raises before ``ready`` is the reason that the supervisor shows."""
    metrics.restore(board.read(context.column))
    outages.begin(context.column)
    gc.set_threshold(*_GC_THRESHOLD)
    _allow_descriptors()
    uvloop.run(_serve(config, board, host, context))


def _allow_descriptors() -> None:
    """Each connection is a descriptor, and the low soft limit that processes are born with is for select(2) alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(config: Config, board: Board, host: bytes, context: WorkerContext) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unhandled)
    stop = asyncio.Event()
    shard = Shard(config, context, board, host)
    try:
        await shard.start()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        context.ready()
        beating = asyncio.create_task(_beat(context, shard))
        await stop.wait()
        event("info", "worker drains", slot=context.slot)
        try:
            # Less than the whole deadline: after it the supervisor kills, and closing takes its time too.
            await asyncio.wait_for(shard.drain(config.drain_deadline * 0.7), config.drain_deadline * 0.8)
        except TimeoutError:
            event("warning", "drain deadline passed", slot=context.slot)
        beating.cancel()
        shard.tick()
    finally:
        await shard.close()


async def _beat(context: WorkerContext, shard: Shard) -> None:
    """From the worker's own loop, so that a blocked loop falls silent and is replaced."""
    while True:
        context.heartbeat()
        shard.tick()
        await asyncio.sleep(1)


def _log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    error = context.get("exception")
    expected = isinstance(error, (OSError, EOFError, asyncio.CancelledError))  # of a connection whose user was told
    reason = repr(error or context.get("message"))
    event("debug" if expected else "error", "unhandled in the loop", reason=reason)
