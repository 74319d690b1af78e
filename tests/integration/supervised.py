"""A supervisor over tiny workers, run as a program by test_supervisor: each answers HTTP with its pid, or misbehaves.

Settings come as arguments NAME=value, the workers' faults in the environment: FAULT and FAULT_IF (a file that, while it
exists, makes new workers unable to boot).
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from server import log
from server.config import settings as config
from server.shards.context import WorkerContext
from server.shards.sockets import BACKLOG, SlotSockets
from server.supervisor import Supervisor, Timing

FAULT = os.environ.get("FAULT", "")
FAULT_IF = os.environ.get("FAULT_IF", "")


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
    if path == b"/block":
        time.sleep(3600)  # noqa: ASYNC251 - the fault under test
    if path == b"/slow":
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")  # tells the client that its request has begun
        await asyncio.sleep(0.5)
        writer.write(b"%d" % os.getpid())
    else:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n%d" % os.getpid())
    await writer.drain()
    writer.close()


async def serve(context: WorkerContext) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if FAULT == "stubborn" else stop.set)
    open_connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = loop.create_task(answer(reader, writer))
        open_connections.add(task)
        task.add_done_callback(open_connections.discard)

    server = await asyncio.start_server(accept, sock=context.sockets.http, backlog=BACKLOG)
    context.ready()
    while not stop.is_set():
        context.heartbeat()
        await asyncio.wait([asyncio.ensure_future(stop.wait())], timeout=0.1)
    server.close()
    for _ in range(3):  # what was accepted in this turn of the loop gets its task in the next ones
        await asyncio.sleep(0)
    while open_connections:
        await asyncio.wait(open_connections)


def run_worker(context: WorkerContext) -> None:
    if FAULT == "boot" or (FAULT_IF and Path(FAULT_IF).exists()):
        raise RuntimeError("no such database: nowhere")
    if FAULT == "asleep":
        time.sleep(3600)
    uvloop.run(serve(context))


class Sleeper:
    """A companion: one child process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "3600"])

    def revive(self) -> bool:
        if self.process.poll() is None:
            return False
        self.process = subprocess.Popen(["sleep", "3600"])
        return True


def tell(sockets: SlotSockets) -> None:
    places = {"http": sockets.http.getsockname(), "smtp": sockets.smtp.getsockname()}
    print(json.dumps(places), flush=True)


def main() -> int:
    settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
    usual = {"heartbeat": 30.0, "boot": 60.0, "steady": 1.0, "backoff_least": 0.1, "backoff_most": 10.0}
    timing = Timing(tick=0.1, **{name: float(settings.pop(name, value)) for name, value in usual.items()})
    log.configure("debug")
    try:
        loaded = config.load({}, settings)
        supervisor = Supervisor(
            loaded,
            run_worker,
            companions=[Sleeper()] if FAULT == "companion" else [],
            on_ready=tell,
            on_reap=lambda pid: log.event("info", "reaped", worker=pid),
            timing=timing,
        )
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
