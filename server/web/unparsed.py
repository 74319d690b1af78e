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


class Connection(web.RequestHandler):
    """aiohttp's, but for what it says of bytes it cannot read."""

    __slots__ = ()

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
