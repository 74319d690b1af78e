"""One SMTP or LMTP listening socket: accepts sessions, sweeps them for time, and lets them go when we go down.

Must not know: what a session says.
"""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from typing import Final

from server.config.settings import Config
from server.model.client import parse
from server.services.admin.guard import Guard
from server.services.contracts import MailSink
from server.services.mail_in.decisions import Decisions
from server.smtp import certificate
from server.smtp.aiosmtpd_shim import configured
from server.smtp.connection import Member
from server.smtp.listener_state import Shared
from server.smtp.lmtp import LmtpSession
from server.smtp.proxy import Proxied
from server.smtp.session import Session

_BACKLOG: Final = 1024
_SWEEP: Final = 1.0  # seconds between looks at every session's times


class Listener:
    """Serve SMTP, or LMTP, on ``sock`` (bound; owned by the listener from here on) and give what comes to ``delivery``;
    what is decided about it goes to ``decisions``, and ``guard`` says whose mail is refused.

    Construct inside the worker, after the fork. Raises ConfigError when the TLS certificate cannot be used.
    """

    def __init__(
        self,
        config: Config,
        delivery: MailSink,
        sock: socket.socket,
        *,
        lmtp: bool = False,
        decisions: Decisions | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._lmtp, self._decisions, self._guard = lmtp, decisions, guard
        self._config, self._delivery, self._sock = config, delivery, sock
        self._tls = certificate.context(config)
        self._sessions: set[Member] = set()
        self._shared: Shared | None = None
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def apply_settings(self, config: Config) -> None:
        """Settings have changed."""
        self._config = config
        if self._shared is not None:
            self._shared.apply_settings(config)

    async def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._shared = Shared(
            self._config, self._delivery, loop, self._tls, lmtp=self._lmtp, decisions=self._decisions, guard=self._guard
        )
        protocol = self._protocol(self._shared, loop)
        if self._sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(protocol, sock=self._sock, backlog=_BACKLOG)
        else:
            self._server = await loop.create_server(protocol, sock=self._sock, backlog=_BACKLOG)
        self._sweeper = loop.call_later(_SWEEP, self._sweep, loop)

    def _protocol(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> Callable[[], asyncio.BaseProtocol]:
        """What makes the protocol of each connection."""
        sessions = self._sessions
        cls = configured(LmtpSession if self._lmtp else Session, loop, shared.name, shared.size, self._tls)
        if self._lmtp or not self._config.smtp_proxy_protocol:
            return lambda: cls(shared, sessions)
        trusts = functools.lru_cache(maxsize=4096)(self._trusts)
        return lambda: Proxied(shared, sessions, trusts, lambda: cls(shared, sessions))

    def _trusts(self, peer: str) -> bool:
        """Whether ``peer`` is a proxy of ours; a unix socket's, which has no address, is one by its nature."""
        return not peer or any(parse(peer) in network for network in self._config.trusted_proxies)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all: setting and moving a timer a session costs more than looking at each once a second."""
        self._sweeper = loop.call_later(_SWEEP, self._sweep, loop)
        self.sweep(loop.time())

    def sweep(self, now: float) -> None:
        """End every session one of whose times is over at ``now`` (the loop's clock). Called each second."""
        for session in tuple(self._sessions):
            session.check(now)

    async def drain(self, deadline: float) -> None:
        """Accept no more, tell idle sessions 421, let transactions finish; abort what is left after ``deadline``
        seconds.
        """
        self._stop_accepting()
        if self._shared is not None:
            self._shared.draining = True
        for session in tuple(self._sessions):
            session.end_if_idle()
        await self._emptied(deadline)
        self.close()

    async def _emptied(self, deadline: float) -> None:
        """Return once no session is left, or after ``deadline`` seconds."""
        if self._shared is None or not self._sessions:
            return
        self._shared.empty.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self._shared.empty.wait()

    def close(self) -> None:
        """Stop at once: the socket, the timer, and every session without a word."""
        self._stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for session in tuple(self._sessions):
            session.abort()

    def _stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
