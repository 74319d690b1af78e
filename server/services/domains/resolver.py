"""Names asked of DNS: addresses for outgoing requests, TXT and MX for the proof that a domain is somebody's.

Lives here: the questions, their deadline and the one kind of failure. Must not know: what an answer is good for.

The servers are asked themselves: no hosts file and no search list, so a name means the same on every host. Answers of
``addresses`` may be kept for their TTL. ``txt`` and ``mx`` are always asked anew, because whoever has just changed a
record wants to see it; "no such record" is an answer and not a failure.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, Literal, TypeVar

import aiodns
import pycares

from server.log import event
from server.metrics import LATENCY, Histogram
from server.model.errors import Unavailable
from server.outages import DNS

DEADLINE: Final = 5.0  # s for one question, all attempts and servers together
_ATTEMPT: Final = 1.5  # s until a server is asked again
_TRIES: Final = 2
KEPT_MAX: Final = 32 << 20
"""Bytes of kept answers, about; then all are forgotten, for the library bounds only their time."""
_ANSWER: Final = 1_024  # bytes that any of them takes

_NOTHING: Final = frozenset({aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA, aiodns.error.ARES_EBADNAME})
_AWAY: Final = frozenset({aiodns.error.ARES_ETIMEOUT, aiodns.error.ARES_ECONNREFUSED})
_ROW: Final = 3  # questions without an answer until DNS is doubted; one may be the fault of the servers of the name
_PROBE_EVERY: Final = 5.0  # s between looks whether DNS is back
_ROOT: Final = (".", "NS")  # a question that any server answers at once, from what it has or with a refusal

SECONDS: Final = Histogram("tempmail_dns_seconds", "Time to an answer from DNS.", LATENCY, ("type",))

Data = TypeVar("Data")
Kind = Literal["A", "AAAA", "MX", "PTR", "TXT"]


class _Unanswered(Unavailable):
    """No server answered at all."""

    def __init__(self, kind: str, reason: str, asked: float) -> None:
        super().__init__(f"DNS: {kind} of a name: {reason}")
        self.reason, self.asked = reason, asked


class Resolver:
    """``servers``: each host or host:port; none means those of the system. To be made inside a running loop."""

    def __init__(self, servers: Sequence[str] = ()) -> None:
        self._servers = tuple(servers)
        self._kept = self._channel()
        self._size = 0  # of what it keeps
        self._probing = False
        self._unanswered = 0  # questions since DNS last answered for sure
        self._leaving: set[asyncio.Task[None]] = set()

    def _channel(self) -> aiodns.DNSResolver:
        return aiodns.DNSResolver(self._servers or None, timeout=_ATTEMPT, tries=_TRIES, lookups="b")

    async def addresses(self, host: str) -> list[str]:
        """Every IPv4 and IPv6 address of ``host`` (ASCII), IPv4 first; [] where it has none. Unavailable."""
        four, six = await asyncio.gather(
            self._known(host, "A", pycares.ARecordData),
            self._known(host, "AAAA", pycares.AAAARecordData),
            return_exceptions=True,
        )
        if isinstance(four, BaseException) and (isinstance(six, BaseException) or not six):
            raise four
        # a server that fails on AAAA alone is common, and no reason not to reach the host
        return [record.addr for found in (four, six) if not isinstance(found, BaseException) for record in found]

    async def txt(self, name: str) -> list[str]:
        """The TXT records of ``name``, the strings of each joined; U+FFFD for bytes beyond ASCII. Unavailable."""
        records = await self._anew(name, "TXT", pycares.TXTRecordData)
        return [record.data.decode("ascii", "replace") for record in records]

    async def mx(self, name: str) -> list[tuple[int, str]]:
        """(preference, host in lower case without the final dot) of ``name``, the preferred first. Unavailable."""
        records = await self._anew(name, "MX", pycares.MXRecordData)
        return sorted((record.priority, record.exchange.lower().rstrip(".")) for record in records)

    async def records(self, name: str, kind: Kind) -> list[str]:
        """The records of ``name`` as texts, kept for their TTL as ``addresses`` are; MX hosts by preference.
        Unavailable.
        """
        if kind == "TXT":
            texts = await self._known(name, kind, pycares.TXTRecordData)
            return [record.data.decode("ascii", "replace") for record in texts]
        if kind == "MX":
            hosts = await self._known(name, kind, pycares.MXRecordData)
            return [host.exchange for host in sorted(hosts, key=lambda host: host.priority)]
        if kind == "PTR":
            return [record.dname for record in await self._known(name, kind, pycares.PTRRecordData)]
        if kind == "A":
            return [record.addr for record in await self._known(name, kind, pycares.ARecordData)]
        return [record.addr for record in await self._known(name, kind, pycares.AAAARecordData)]

    async def _known(self, name: str, kind: str, shape: type[Data]) -> list[Data]:
        """Ask through the channel that remembers answers. Who sends mail chooses which names are asked and how long
        their answers live, so what is remembered is counted."""
        try:
            found = await _ask(self._kept, name, kind, shape)
        except _Unanswered as error:
            self._doubt(error)
            raise
        if DNS.said:  # the answer may have been kept from before: ask where nothing is
            self._look()
        self._size += _ANSWER + sum(len(getattr(data, "data", b"")) + 64 for data in found)
        if self._size > KEPT_MAX:
            self._forget()
        return found

    def _forget(self) -> None:
        """Go on with a channel that knows nothing; the old one goes when its questions are answered."""
        old, self._kept, self._size = self._kept, self._channel(), 0
        self._apart(_leave(old))

    def _apart(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _doubt(self, error: "_Unanswered") -> None:
        """One question was not answered. Kept answers say nothing of now, and the servers of one name may be away: so
        the root is asked before DNS is told to be lost."""
        self._unanswered += 1
        if DNS.said:
            DNS.lost(error.reason, asked=error.asked)
        if DNS.said or self._unanswered >= _ROW:
            self._look()

    def _look(self) -> None:
        """Find out whether DNS answers; once at a time."""
        if not self._probing:
            self._probing = True
            self._apart(self._probe())

    async def _probe(self) -> None:
        """Ask until there is an answer: it is told to be back though no mail comes that would ask."""
        try:
            while not await self._answers():
                await asyncio.sleep(_PROBE_EVERY)
        finally:
            self._probing = False

    async def _answers(self) -> bool:
        channel, asked = self._channel(), time.monotonic()
        try:
            await _ask(channel, *_ROOT, pycares.NSRecordData)
        except _Unanswered as error:
            DNS.lost(error.reason, asked=asked)
            return False
        except Unavailable as error:
            event("debug", "DNS answers with an error", reason=str(error))
        finally:
            await channel.close()
        self._answered()
        return True

    def _answered(self) -> None:
        self._unanswered = 0
        DNS.back()

    async def _anew(self, name: str, kind: str, shape: type[Data]) -> list[Data]:
        """Ask through a channel that remembers nothing, not even that there was nothing."""
        channel = self._channel()
        try:
            found = await _ask(channel, name, kind, shape)
        except _Unanswered as error:
            self._doubt(error)
            raise
        else:
            self._answered()
            return found
        finally:
            await channel.close()

    async def close(self) -> None:
        for task in tuple(self._leaving):
            task.cancel()
        await asyncio.gather(*self._leaving, self._kept.close(), return_exceptions=True)


async def _leave(channel: aiodns.DNSResolver) -> None:
    try:
        await asyncio.sleep(2 * DEADLINE)
    finally:
        await channel.close()


async def _ask(channel: aiodns.DNSResolver, name: str, kind: str, shape: type[Data]) -> list[Data]:
    began = time.monotonic()
    try:
        answer = await asyncio.wait_for(channel.query_dns(name, kind), DEADLINE)
    except aiodns.error.DNSError as error:
        if error.args[0] in _NOTHING:
            return []
        if error.args[0] in _AWAY:
            raise _Unanswered(kind, str(error.args[-1]), began) from error
        raise Unavailable(f"DNS: {kind} of a name: {error.args[-1]}") from error
    except TimeoutError as error:
        raise _Unanswered(kind, "no answer", began) from error
    finally:
        SECONDS.observe(time.monotonic() - began, (kind,))
    return [record.data for record in answer.answer if isinstance(record.data, shape)]
