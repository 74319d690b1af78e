"""What all sessions of one listener share: settings in the form sessions use them, counts, bounds, and the metrics.

Must not know: the protocol's state, or how a listener accepts.
"""

import asyncio
import functools
import ssl
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from server import log
from server.config.parsing import Network
from server.config.settings import Config
from server.metrics import Counter, Gauge, Tally
from server.model.client import Holdings, parse
from server.model.errors import Unavailable
from server.outages import explained
from server.services.admin.guard import Guard
from server.services.contracts import MailSink
from server.services.mail_in.decisions import Decisions
from server.smtp import replies
from server.smtp.trace import Clock

ACTIVE: Final = Gauge("smtp_connections_active", "SMTP sessions now open")
CONNECTIONS: Final = Counter(
    "tempmail_smtp_connections_total",
    "SMTP connections: accepted, refused (no room), banned (banned networks have their share).",
    ("result",),
)
RECIPIENTS: Final = Counter("tempmail_smtp_recipients_total", "RCPT commands by first reply digit", ("result",))
MESSAGES: Final = Counter("tempmail_smtp_messages_total", "Ends of DATA by outcome", ("result",))
BYTES: Final = Counter("tempmail_smtp_bytes_total", "Bytes of messages handed to delivery")
DROPPED: Final = Counter("tempmail_smtp_dropped_total", "Sessions ended by us before QUIT", ("reason",))
TLS: Final = Counter("tempmail_smtp_tls_total", "STARTTLS handshakes", ("result",))
TROUBLES: Final = Counter("tempmail_smtp_troubles_total", "Replies 451 4.3.0", ("stage",))

RCPT_TAKEN: Final = Tally(lambda n: RECIPIENTS.add(("2",), n))
BYTES_TAKEN: Final = Tally(lambda n: BYTES.add(n=n))
ACCEPTED: Final = Tally(lambda n: MESSAGES.add(("accepted",), n))

IN_FLIGHT_MAX: Final = 256 * 1024 * 1024
"""Bytes of unfinished mail that one worker holds; what would grow past it is answered 452 4.3.1."""

CLIENT_SHARE: Final = 8
"""A client may hold one in so many of those bytes, or two messages; over it that client is answered 451 4.7.0."""

BANNED_SHARE: Final = 16
"""Clients of banned networks together may hold one in so many of a worker's connections; more are turned away."""

LINE_MAX: Final = 1024
"""A command line's octets: 512 (RFC 5321 section 4.5.3.1.4) and what SIZE, BODY, SMTPUTF8 and UTF-8 paths add."""

LINE_END_MAX: Final = 4 * LINE_MAX
"""Where a line that is too long must have ended for the session to go on."""

INPUT_MAX: Final = 64 * 1024
"""Pipelined input kept while a session waits for us or for the client to read; beyond it we stop reading."""

RATE_WINDOW: Final = 30.0
"""Seconds over which the rate of an unfinished mail is judged, again and again."""

RATE_STEP: Final = 5.0
"""Seconds between two notes of how much has come."""

LINGER: Final = 10.0
"""Seconds a closed session's last reply has to leave before the connection is aborted."""


_UNLIMITED: Final = 1 << 60  # the budget of a mail server of this host: commands cost it nothing, ten errors still do


class Shared:
    """One per listener. ``draining`` once set lets each session finish its transaction and begin no other."""

    def __init__(
        self,
        config: Config,
        delivery: MailSink,
        loop: asyncio.AbstractEventLoop,
        tls: ssl.SSLContext | None,
        *,
        lmtp: bool = False,
        decisions: Decisions | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.guard = guard
        self.decisions = decisions or Decisions(on=False)
        self.delivery, self.loop, self.tls = delivery, loop, tls
        self.now = loop.time
        self.name = config.smtp_domain
        self.recipients_max = config.smtp_max_recipients
        self.session_timeout = config.smtp_session_timeout
        self.min_rate = config.smtp_min_rate
        self.normalise = config.smtp_bare_newlines == "normalise"
        self.default_domain = config.domains[0]
        self.greeting = replies.greeting(self.name, "LMTP" if lmtp else "ESMTP")
        self.hello = replies.hello(self.name)
        self.no_recipients = replies.NO_RECIPIENTS_LMTP if lmtp else replies.NO_RECIPIENTS
        self.apply_settings(config)
        self.clock = Clock()
        self.seats = Seats(
            -(-config.smtp_max_connections // config.workers), config.smtp_max_connections_per_ip, config.rate_exempt
        )
        self.banned = 0  # sessions of banned networks now open
        self.banned_max = max(2, -(-config.smtp_max_connections // config.workers) // BANNED_SHARE)
        self.budget = _UNLIMITED if lmtp else max(1000, 100 + 10 * self.recipients_max)
        self.draining = False
        self.empty = asyncio.Event()  # set whenever the last session has gone
        self.in_flight = 0
        self.held = Holdings(max(IN_FLIGHT_MAX // CLIENT_SHARE, 2 * config.smtp_max_message_bytes), IN_FLIGHT_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: dict[str, float] = {}

    def apply_settings(self, config: Config) -> None:
        """Settings have changed: those that may while sessions run."""
        self.size = config.smtp_max_message_bytes
        self.read_timeout, self.write_timeout = config.smtp_read_timeout, config.smtp_write_timeout
        self.ehlo = replies.extended_hello(self.name, self.size, starttls=self.tls is not None)
        self.ehlo_secure = replies.extended_hello(self.name, self.size, starttls=False)

    def trouble(self, stage: str, error: BaseException) -> None:
        """Count trouble of ours and log it, a line a second for each stage: an outage must not fill the disk too."""
        TROUBLES.add((stage,))
        now = self.loop.time()
        if now - self._told.get(stage, -1.0) >= 1.0:
            self._told[stage] = now
            # not its text, which may quote an address or a mail
            told = isinstance(error, Unavailable) and explained()
            log.event("debug" if told else "error", "smtp trouble", stage=stage, error=type(error).__name__)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` and keep it alive until it is done (the loop itself only remembers tasks weakly)."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Seats:
    """Connection caps: of the worker, and of a client and its networks (see model/client). Exempt networks have no cap
    of their own and count in the worker's."""

    def __init__(self, total: int, per_address: int, exempt: Sequence[Network]) -> None:
        self._total, self._exempt = total, exempt
        self._taken = 0
        self._held = Holdings(per_address, total)
        self.counted = functools.lru_cache(maxsize=4096)(self._classify)

    def take(self, peer: str) -> str | None:
        """The key to give back, or None when there is no seat. ``peer``: an IP address, empty for a unix socket."""
        key = self.counted(peer)
        if self._taken >= self._total or not self._held.fits(key):
            return None
        self._held.take(key)
        self._taken += 1
        ACTIVE.add()
        return key

    def give_back(self, key: str) -> None:
        self._taken -= 1
        ACTIVE.add(n=-1)
        self._held.give_back(key)

    def _classify(self, peer: str) -> str:
        """The client that ``peer`` is counted as; empty when it is exempt."""
        return "" if not peer or any(parse(peer) in exempt for exempt in self._exempt) else peer
