"""Sends what the outbox holds: any worker takes what is due, signs it, sends it and writes down what came of it.

Lives here: leases, the table of retries, signatures, and how much goes on at once. Must not know: HTTP beyond the
outcome of one request, or how webhooks are managed.

At least once: a row is taken by moving its due time to the end of a lease, and only its outcome ends it. What a dead
worker had taken is due again when the lease is over, under the same id. A worker that comes back too late with its
outcome finds that the fence has moved on.
"""

import asyncio
import hmac
import random
from collections import Counter as Multiset
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Final

from server import clock
from server.config.settings import Config
from server.log import event
from server.metrics import LATENCY, Counter, Gauge, Histogram
from server.model.errors import Refused, Unavailable
from server.model.webhook import TEST, Delivery, Outcome, Webhook, payload
from server.outages import put_off
from server.services.webhooks.http_client import TIMEOUT, Outbound
from server.store.deliveries import EXPIRE_BATCH, DeliveryStore
from server.store.webhooks import WebhookStore

POLL: Final = 2.0  # s between looks for what is due: retries, and what a worker that died had taken or was woken for
LEASE: Final = 2 * TIMEOUT  # s; longer than an attempt can take, its outcome written
MAX_SENDING: Final = 64  # attempts at once of one worker
MAX_SENDING_EACH: Final = 4  # attempts at once of one worker to one host and port
EXPIRE_EVERY: Final = 60.0  # s
CLOSE_TIMEOUT: Final = 3.0  # s that attempts under way may take when the worker ends
_REMEMBERED: Final = 10_000  # webhooks whose host a worker remembers
_JITTER: Final = 0.1  # of a delay, either way

DELIVERED: Final = Counter("tempmail_webhook_deliveries_total", "Attempts to tell a webhook.", ("outcome",))
SECONDS: Final = Histogram("tempmail_webhook_seconds", "Time an attempt took.", LATENCY)
SENDING: Final = Gauge("tempmail_webhooks_sending", "Attempts under way.")


class Deliverer:
    """``disable`` (user, webhook, reason) and ``narrow`` (user) are the services' word on webhooks; see webhooks.py."""

    def __init__(
        self,
        config: Config,
        deliveries: DeliveryStore,
        webhooks: WebhookStore,
        outbound: Outbound,
        clock: Callable[[], datetime],
    ) -> None:
        self._delays, self._retention = config.webhook_retry_delays, config.webhook_retention
        self._deliveries, self._webhooks, self._outbound, self._clock = deliveries, webhooks, outbound, clock
        self._due = asyncio.Event()
        self._sending: dict[asyncio.Task[None], Delivery] = {}
        self._at: Multiset[str] = Multiset()
        self._places: OrderedDict[str, str] = OrderedDict()
        self._crowded = False
        self._tasks: list[asyncio.Task[None]] = []

    def obey(
        self,
        disable: Callable[[str, str, str], Awaitable[None]],
        narrow: Callable[[str], Awaitable[None]],
    ) -> None:
        """Whom to tell what was learned while delivering: needed for a single delivery too."""
        self._disable, self._narrow = disable, narrow

    def start(self) -> None:
        """Begin to empty the outbox; without it only what is asked for is delivered."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._expire())]

    def wake(self) -> None:
        """Something is due now."""
        self._due.set()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), POLL * random.uniform(0.75, 1.25))
            self._due.clear()
            await _tried(self._round)

    async def _round(self) -> None:
        """Take and begin as much as there is room for."""
        while room := MAX_SENDING - len(self._sending):
            full = {place for place, n in self._at.items() if n >= MAX_SENDING_EACH}
            busy = [webhook for webhook, place in self._places.items() if place in full] if full else []
            taken = await self._deliveries.take(busy, MAX_SENDING_EACH, room, LEASE)
            self._crowded = bool(busy) or len(taken) == room
            if not taken:
                return
            known = await self._webhooks.named(list({one.webhook_id for one in taken}))
            wanted, stale = _sorted(taken, known)
            await self._begin(wanted)
            await self._drop(stale)
        self._crowded = True

    async def _begin(self, taken: Iterable[tuple[Delivery, Webhook]]) -> None:
        returned = []
        for one, webhook in taken:
            place = self._place(webhook)
            if self._at[place] >= MAX_SENDING_EACH:
                returned.append(one)
                continue
            self._at[place] += 1
            task = asyncio.create_task(self._send(one, webhook))
            self._sending[task] = one
            task.add_done_callback(partial(self._sent, place))
        SENDING.set(len(self._sending))
        if returned:
            await self._deliveries.give_back(returned)

    def _place(self, webhook: Webhook) -> str:
        """What its attempts are counted under: host and port, or the webhook itself when its URL is not allowed."""
        try:
            place = self._outbound.target(webhook.url).place
        except Refused:
            place = webhook.id
        self._places[webhook.id] = place
        self._places.move_to_end(webhook.id)
        if len(self._places) > _REMEMBERED:
            self._places.popitem(last=False)
        return place

    def _sent(self, place: str, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        self._at[place] -= 1
        if not self._at[place]:
            del self._at[place]
        SENDING.set(len(self._sending))
        if self._crowded:
            self._due.set()

    async def _drop(self, taken: Sequence[Delivery]) -> None:
        """Nobody listens any more, whatever this domain's copy says."""
        if not taken:
            return
        await self._deliveries.drop(taken, "the webhook is gone, inactive, or does not listen to this event any more")
        for user_id in {one.user_id for one in taken}:
            await self._narrow(user_id)

    async def _send(self, one: Delivery, webhook: Webhook) -> None:
        await _tried(lambda: self.deliver(one, webhook))

    async def deliver(self, one: Delivery, webhook: Webhook) -> Delivery | None:
        """One attempt, written down; the delivery as it is then, None when somebody else has taken it over."""
        body = payload(one)
        outcome = await self._outbound.post(webhook.url, body, headers(one, webhook.secret, body, int(clock.wall())))
        DELIVERED.add(("success" if outcome.success else "failure",))
        SECONDS.observe(outcome.duration / 1000)
        await self._note(webhook, outcome)
        return await self._deliveries.tried(one, outcome, self._retry(one, outcome))

    async def _note(self, webhook: Webhook, outcome: Outcome) -> None:
        """Before the delivery is over, so that whoever sees that it is sees this as well."""
        if outcome.success:
            await self._webhooks.succeeded(webhook.id)
        elif outcome.status_code == 410:
            await self._disable(webhook.user_id, webhook.id, "410: the target wants no more")
        else:
            await self._webhooks.failed(webhook.id, outcome.error or f"status {outcome.status_code}")

    def _retry(self, one: Delivery, outcome: Outcome) -> float | None:
        """Seconds until the next attempt, None when this was the last."""
        if outcome.success or outcome.status_code == 410 or one.event == TEST or one.attempts >= len(self._delays):
            return None
        return self._delays[one.attempts] * random.uniform(1 - _JITTER, 1 + _JITTER)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_EVERY * random.uniform(0.5, 1.0))
            await _tried(self.expire)

    async def expire(self) -> None:
        """Delete what is older than the log goes back, done or not."""
        before = self._clock() - timedelta(seconds=self._retention)
        while clock.agrees() and await self._deliveries.expire(before) == EXPIRE_BATCH:
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Take no more, let attempts end for a while, and leave the rest to others at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._sending:
            return
        _, late = await asyncio.wait(self._sending, timeout=CLOSE_TIMEOUT)
        held = [self._sending[task] for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if held:
            await _tried(lambda: self._deliveries.give_back(held))


def headers(one: Delivery, secret: str, body: bytes, moment: int) -> dict[str, str]:
    """What goes with a payload. The second signature covers id and time as well, so that nothing old can be sent again
    as new; ``moment`` is the attempt's, in seconds since 1970."""
    key = secret.encode()
    signed = f"{one.id}.{moment}.".encode() + body
    return {
        "Content-Type": "application/json",
        "User-Agent": "tempmail-webhook",
        "X-Webhook-ID": one.id,
        "X-Webhook-Event": one.event,
        "X-Webhook-Timestamp": str(moment),
        "X-Webhook-Signature": "sha256=" + hmac.new(key, body, sha256).hexdigest(),
        "X-Webhook-Signature-V2": "sha256=" + hmac.new(key, signed, sha256).hexdigest(),
    }


def _sorted(
    taken: Iterable[Delivery], known: Mapping[str, Webhook]
) -> tuple[list[tuple[Delivery, Webhook]], list[Delivery]]:
    """Those whose webhook still listens, with it, and the others."""
    wanted, stale = [], []
    for one in taken:
        webhook = known.get(one.webhook_id)
        if webhook is not None and webhook.is_live and (one.event in webhook.events or one.event == TEST):
            wanted.append((one, webhook))
        else:
            stale.append(one)
    return wanted, stale


async def _tried(work: Callable[[], Awaitable[object]]) -> None:
    """Whatever goes wrong is logged and leaves the rows as they are: their leases end."""
    try:
        await work()
    except Unavailable as error:
        put_off("webhooks wait", error)
    except Exception as error:  # a fault in one must not end the others
        event("error", "webhooks wait", reason=repr(error))
