"""SPF, DKIM and DMARC of arriving mail, checked after it was committed and answered, and joined to its rows.

Lives here: the queue behind the commit, and one check. Must not know: SMTP, or how a batch is made.

No sender waits for DNS: a message is readable at once with "none" and gets its results moments later. What is still
waiting when the process ends, or finds the queue full, stays "none". Trouble is "temperror" and refuses nothing.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from server.log import event
from server.metrics import LATENCY, Counter, Gauge, Histogram
from server.model.client import parse
from server.model.domain import organisation, to_ascii
from server.model.errors import Unavailable
from server.model.mail_auth import Claims, Policy, Proof, Verdict, aligned, claims, policy, verify
from server.model.message import Envelope, Recipient, Stored
from server.model.spf import IP, Result, Subject
from server.outages import put_off
from server.services.coherence import Coherence, mail
from server.services.contracts import MailSink, Shares
from server.services.fair_queue import FairQueue, QueueFull, ShareUsed
from server.services.mail_in.spf import Ask, Spf
from server.services.sandbox import Sandbox, SandboxError
from server.store.messages import MessageStore

WAITING_BYTES_MAX: Final = 64 << 20  # of messages that wait for their check; more stay unchecked
LEAST_WEIGHT: Final = 32 << 10  # bytes that a message counts for at least, so that 2,000 wait at most
SHARE: Final = 4  # a client may have one in so many of what waits, and of what is checked
CHECKS_MAX: Final = 32  # at the same time
CHECKS_PER_SECOND: Final = 200  # begun; each takes 1 to 2 ms of the loop that SMTP lives in, and SMTP goes first
CHECK_TIMEOUT: Final = 15.0  # s for one message, all questions together
VERIFY_TIMEOUT: Final = 5.0  # s for its signatures, in a process that can be killed

CHECKS = Counter("tempmail_authentication_checks_total", "Messages checked, by the outcome of DMARC.", ("result",))
DROPPED = Counter("tempmail_authentication_dropped_total", "Messages left unchecked because too many were waiting.")
SECONDS = Histogram("tempmail_authentication_seconds", "From a message's commit to its results.", LATENCY)
QUEUE = Gauge("tempmail_authentication_queue", "Messages waiting for their check.")

_BEST: Final[tuple[Verdict, ...]] = ("pass", "temperror", "policy", "fail", "neutral", "permerror")


class Authentication:
    """Wraps a MailSink and checks its messages once they are stored. Implements contracts.MailSink."""

    def __init__(
        self,
        delivery: MailSink,
        ask: Ask,
        store: MessageStore,
        coherence: Coherence,
        shares: Callable[[str], Shares] = lambda _: (),
    ) -> None:
        """``shares``: under which keys a client's address is counted (``Limits.shares``)."""
        self._shares = shares
        self._delivery, self._ask, self._store, self._coherence = delivery, ask, store, coherence
        self._loop = asyncio.get_running_loop()
        self._sandbox = Sandbox("dkim", queue=CHECKS_MAX)
        self._waiting: FairQueue[tuple[float, Envelope, Sequence[Stored]]] = FairQueue(
            most=WAITING_BYTES_MAX, share=WAITING_BYTES_MAX // SHARE, at_once=CHECKS_MAX // SHARE
        )
        self._checks: set[asyncio.Task[None]] = set()
        self._next = 0.0  # when the next check may begin

    def route(self, address: str) -> Recipient | None:
        return self._delivery.route(address)

    async def resolve(self, address: str) -> Recipient:
        return await self._delivery.resolve(address)

    def submit(self, envelope: Envelope, *, is_read: bool = False) -> "asyncio.Future[Sequence[Stored]]":
        future = self._delivery.submit(envelope, is_read=is_read)
        future.add_done_callback(partial(self._settled, envelope))
        return future

    def _settled(self, envelope: Envelope, future: "asyncio.Future[Sequence[Stored]]") -> None:
        if future.cancelled() or future.exception() is not None or not future.result():
            return
        weight = max(len(envelope.raw), LEAST_WEIGHT)
        try:
            self._waiting.put(self._shares(envelope.client), (self._loop.time(), envelope, future.result()), weight)
        except (ShareUsed, QueueFull):
            DROPPED.add()
            return
        QUEUE.set(len(self._waiting))
        if len(self._checks) < CHECKS_MAX:
            task = self._loop.create_task(self._work())
            self._checks.add(task)
            task.add_done_callback(self._checks.discard)

    async def _work(self) -> None:
        """Check what waits until nothing does."""
        while self._waiting:
            now = self._loop.time()
            if self._next > now:
                self._next += 1 / CHECKS_PER_SECOND
                await asyncio.sleep(self._next - now)
                if not self._waiting:
                    return
            else:
                self._next = now + 1 / CHECKS_PER_SECOND
            taken = self._waiting.take()
            if taken is None:  # those that wait have their share of checks; the end of one takes the next
                return
            clients, (began, envelope, rows), weight = taken
            QUEUE.set(len(self._waiting))
            try:
                await self._finish(rows, await self.check(envelope))
            except Unavailable as error:
                put_off("authentication not stored", error)
            except Exception as error:  # one message's fault must not end the others' checks
                event("error", "authentication failed", reason=type(error).__name__)
            finally:
                self._waiting.done(clients, weight)
            SECONDS.observe(self._loop.time() - began)

    async def _finish(self, rows: Sequence[Stored], results: Mapping[str, str]) -> None:
        CHECKS.add((results["dmarc"],))
        known = {name: result for name, result in results.items() if result != "none"}
        if not known:
            return
        mailboxes = {row.mailbox_id for row in rows}
        with self._coherence.writing(mailboxes):
            await self._store.authenticated(rows, known)
        # no counter moved, so readers need not be told; other hosts forget what they kept of the mailbox
        self._coherence.tell([mail(row.mailbox_id, row.seq) for row in rows])

    async def check(self, envelope: Envelope) -> dict[str, str]:
        """Results of ``spf``, ``dkim`` and ``dmarc``; "temperror" for those that took too long."""
        claimed = claims(envelope.raw)
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                (sender, spf), proofs, author = await asyncio.gather(
                    self._spf(envelope), self._dkim(envelope, claimed), self._policy(claimed.author)
                )
        except TimeoutError:
            return dict.fromkeys(("spf", "dkim", "dmarc"), "temperror")
        verdicts = {proof.verdict for proof in proofs}
        best = next((verdict for verdict in _BEST if verdict in verdicts), "none")
        dmarc = author if isinstance(author, str) else _judged(author, claimed.author or "", sender, spf, proofs)
        if dmarc == "fail" and not envelope.client:
            dmarc = "none"  # a mail server of this host brought it: where from, which SPF would have judged, it knows
        return {"spf": spf, "dkim": best, "dmarc": dmarc}

    async def _spf(self, envelope: Envelope) -> tuple[str, Result]:
        """The domain that SPF speaks of (the sender's, or the greeting's where there is none), and what it says."""
        local_part, _, domain = (envelope.sender or f"postmaster@{envelope.helo}").rpartition("@")
        domain = to_ascii(domain)
        ip = _address(envelope.client)
        if ip is None:
            return domain, "none"
        return domain, await Spf(self._ask, Subject(ip, local_part, domain, envelope.helo)).check()

    async def _dkim(self, envelope: Envelope, claimed: Claims) -> list[Proof]:
        if not claimed.keys:
            return []
        names = list(dict.fromkeys(name for name in claimed.keys if name))
        keys = dict(zip(names, await asyncio.gather(*map(self._key, names)), strict=True))
        try:
            return await self._sandbox.run(
                verify,
                envelope.raw,
                len(claimed.keys),
                keys,
                timeout=VERIFY_TIMEOUT,
                clients=self._shares(envelope.client),
            )
        except SandboxError:
            return [Proof("", "temperror")]

    async def _key(self, name: str) -> str | None:
        try:
            return next(iter(await self._ask(name, "TXT")), "")
        except Unavailable:
            return None

    async def _policy(self, author: str | None) -> Policy | Verdict:
        """The policy of From's domain or, where it has none, of its organisation; else what DMARC then comes to."""
        if not author:
            return "none" if author == "" else "permerror"
        try:
            for domain in dict.fromkeys((author, organisation(author))):
                found = policy(await self._ask(f"_dmarc.{domain}", "TXT"))
                if found is not None:
                    return found
        except Unavailable:
            return "temperror"
        return "none"

    async def close(self) -> None:
        """What is under way or waiting stays unchecked."""
        self._waiting.clear()
        for task in tuple(self._checks):
            task.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await self._sandbox.close()


def _judged(found: Policy, author: str, sender: str, spf: Result, proofs: Sequence[Proof]) -> Verdict:
    """DMARC passes where one of the two passes in From's name (RFC 7489 section 4.2)."""
    if spf == "pass" and aligned(sender, author, strict=found.strict_spf):
        return "pass"
    verdicts = {proof.verdict for proof in proofs if aligned(proof.domain, author, strict=found.strict_dkim)}
    if "pass" in verdicts:
        return "pass"
    trouble = "temperror" in verdicts or (spf == "temperror" and aligned(sender, author, strict=found.strict_spf))
    return "temperror" if trouble else "fail"


def _address(text: str) -> IP | None:
    """The client's address, IPv4 where it is one in the dress of IPv6; None where it came over no network."""
    try:
        return parse(text)
    except ValueError:
        return None
