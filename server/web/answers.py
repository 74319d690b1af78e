"""Answers on their way to a client: written at once, or in pieces that wait until it has taken the ones before.

Lives here: the kinds of response that the dispatcher and handlers give to aiohttp. Must not know: what they say.

None of them waits inside aiohttp. A client that goes in the middle of an answer must leave nothing behind: a future
that ends with an exception keeps the frames which wait for it, and those keep the answer.
"""

from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from server.web.fastpath import FastPathProtocol

PIECE: Final = 1 << 16  # bytes of a body that are handed to the transport at once


class UpgradedResponse(web.StreamResponse):
    """The answer to a request whose connection was handed over: nothing more is written for it."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class RawResponse(web.StreamResponse):
    """An answer that is bytes from its status line to its end, on a connection that stays open: one write, where
    aiohttp would put a head together. Made for requests of HTTP/1.1 that a ``front`` brought.
    """

    def __init__(self, front: FastPathProtocol, status: int, wire: bytes) -> None:
        super().__init__(status=status)
        self._front, self._wire = front, wire

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        self._front.write(self._wire)
        self._front.finished()


class Answer(web.Response):
    """A response to ``request`` with a body of any size, on the connection of ``front``, which is told when it is
    written. Without a ``front`` the client has gone already. A body beyond ``PIECE`` counts as bytes in flight of
    ``client`` until it is written.
    """

    def __init__(
        self,
        front: FastPathProtocol | None,
        request: web.BaseRequest,
        client: str,
        status: int,
        body: bytes,
        headers: CIMultiDict[str],
    ) -> None:
        super().__init__(body=body or None, status=status, headers=headers)
        self._front, self._to, self._client = front, request.writer, client
        self._written = 0
        self._large = memoryview(body) if len(body) > PIECE and request.method != "HEAD" else None

    async def write_eof(self, data: bytes = b"") -> None:
        """ConnectionError when the client has gone."""
        front = self._front
        if front is None:
            raise ConnectionResetError
        if self._large is None:
            await front.drained()
            await super().write_eof(data)
        else:
            await self._write_large(front, self._large)
            await web.StreamResponse.write_eof(self)
        front.finished(stays=bool(self.keep_alive))

    async def _write_large(self, front: FastPathProtocol, body: memoryview) -> None:
        transfer = front.carry(self._client, self._moved)
        try:
            transfer.hold(len(body))
            for start in range(0, len(body), PIECE):
                await front.drained()
                await front.turn()
                piece = body[start : start + PIECE]
                await self._to.write(piece)
                self._written += len(piece)
            await front.drained()
        finally:
            front.carried = False
            transfer.done()

    def _moved(self) -> int:
        return self._written - self._front.unsent() if self._front is not None else 0


class Open(web.StreamResponse):
    """An answer that stays open: its handler writes it, piece by piece."""

    def __init__(self, front: FastPathProtocol | None, headers: CIMultiDict[str]) -> None:
        super().__init__(headers=headers)
        self._front = front

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write a piece and wait until the client takes more. ConnectionError when it has gone."""
        await super().write(data)
        if self._front is None:
            raise ConnectionResetError
        await self._front.drained()
