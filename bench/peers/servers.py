"""Peers written in Python, each run as its own process: ``python -m bench.peers.servers aiosmtpd|aiohttp ...``.

All get what they do best with: uvloop, no access log, ready bytes. Must not know: our server.
"""

import asyncio
import socket
import sys
from pathlib import Path

import uvloop
from aiohttp import web
from aiosmtpd.handlers import Mailbox, Sink
from aiosmtpd.smtp import SMTP

_BACKLOG = 4096
READY = "ready"  # printed once the socket listens: a sibling on the same port could answer a probe in its place


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


async def _aiosmtpd(port: int, handler: Mailbox | Sink) -> None:
    """One of the library's own handlers: Mailbox is a Maildir, each file synced before 250; Sink discards."""
    loop = asyncio.get_running_loop()
    # hostname: without it every connection asks the resolver, blocking the loop
    server = await loop.create_server(
        lambda: SMTP(handler, hostname="mx.bench.test", data_size_limit=1 << 25, loop=loop), sock=_listen(port)
    )
    print(READY, flush=True)
    await server.serve_forever()


async def _aiohttp(port: int, path: str, body: bytes) -> None:
    """One bare route that answers ready bytes."""
    head = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "private, no-store"}

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, headers=head)

    application = web.Application()
    application.router.add_get(path, answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, _listen(port)).start()
    print(READY, flush=True)
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    """``aiosmtpd PORT DIRECTORY``, ``aiosmtpd-sink PORT`` or ``aiohttp PORT PATH BODYFILE``; runs until a signal."""
    match arguments:
        case ["aiosmtpd", port, directory]:
            uvloop.run(_aiosmtpd(int(port), Mailbox(Path(directory))))
        case ["aiosmtpd-sink", port]:
            uvloop.run(_aiosmtpd(int(port), Sink()))
        case ["aiohttp", port, path, body]:
            uvloop.run(_aiohttp(int(port), path, Path(body).read_bytes()))
        case _:
            raise SystemExit(main.__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
