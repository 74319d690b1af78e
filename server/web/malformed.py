"""What is answered to bytes that are no request: the envelope, as for every other failure.

Lives here: the methods of aiohttp's connection that are ours. Must not know: routes. Such a request has no path and
no language that could be believed, so the answer is the common one.

The parser's error is kept by a list in a frame of its own traceback. That cycle holds the connection and all that came
at once, so the traceback goes when the error is answered, or when the connection is lost before that.
"""

from typing import Any, Final

from aiohttp import web

from server.web.responses import JSON, failure

_LARGE: Final = frozenset({413, 414, 431})


def _too_large() -> bytes:
    reply = failure("en", "message_too_big")
    lines = ["HTTP/1.1 431 Request Header Fields Too Large", f"Content-Type: {JSON}", "Server: tempmail"]
    lines += [f"Content-Length: {len(reply.body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + reply.body


TOO_LARGE: Final = _too_large()
"""The answer to a head of too many bytes."""


class Connection(web.RequestHandler):
    """aiohttp's, but for what it says of bytes it cannot read."""

    __slots__ = ()

    def waiting(self) -> int:
        """How many requests have come, their heads at least, and have not begun."""
        return len(self._messages)

    def is_full(self) -> bool:
        """Whether the parser takes no more until one of the requests that wait has begun."""
        return self._buffer_paused

    def is_busy(self) -> bool:
        """Whether a request has begun and is not answered yet."""
        return self._current_request is not None

    def is_ahead(self) -> bool:
        """Whether what comes next belongs to the head of a request, and not to the body of one."""
        if self._messages:
            return self._messages[-1][1].is_eof()
        current = self._current_request
        if current is None:  # also for a moment after a request that came was taken up
            return not self._request_count or self._waiter is not None
        return current.content.is_eof()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        for message, _ in self._messages:
            _forget_frames(getattr(message, "exc", None))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Logged and closed as aiohttp does; ConnectionError where an answer was begun already."""
        super().handle_error(request, status, exc, message)
        _forget_frames(exc)
        word: Any = "internal_error" if status >= 500 else "message_too_big" if status in _LARGE else "body_invalid"
        reply = failure("en", word)
        answer = web.Response(
            status=reply.status, body=reply.body, headers={"Content-Type": JSON, "Server": "tempmail"}
        )
        answer.force_close()
        return answer


def _forget_frames(error: BaseException | None) -> None:
    if error is not None:
        error.__traceback__ = None
