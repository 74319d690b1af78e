"""Webhooks as their owners manage them: made, listed, changed, tested, replayed; and who listens kept in step.

Lives here: the rules of API.md about them. Must not know: HTTP, or when and how deliveries are sent.

Webhooks live in the domain of users; what is to be recorded for whom must be known inside the transactions of the
domain of messages. So that domain keeps a copy of who listens, and it is always at least as wide as the truth: it is
widened before a webhook changes and narrowed after, both while the user's webhooks are locked. A crash in between
leaves it too wide, which costs a row that nobody sends, and whoever meets that row narrows it (``narrow``).
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from server.log import event
from server.model import ids
from server.model.errors import Refused, Unavailable
from server.model.webhook import EVENTS, MAX_WEBHOOKS, TEST, Delivery, Event, Webhook, written
from server.services.contracts import WebhookChange
from server.services.webhooks.http_client import Outbound
from server.services.webhooks.sender import LEASE, Deliverer
from server.store.deliveries import DeliveryStore
from server.store.webhooks import WebhookStore

DESCRIPTION_MAX: Final = 200  # characters


class WebhookService:
    """Implements contracts.Webhooks."""

    def __init__(
        self,
        store: WebhookStore,
        deliveries: DeliveryStore,
        deliverer: Deliverer,
        outbound: Outbound,
        clock: Callable[[], datetime],
    ) -> None:
        self._store, self._deliveries, self._deliverer = store, deliveries, deliverer
        self._outbound, self._clock = outbound, clock
        # A change holds a connection while it asks for a second: one at a time, or all could wait for each other.
        self._changing = asyncio.Lock()

    async def create(self, user_id: str, url: str, events: Sequence[Event], description: str) -> Webhook:
        """Refused: field_invalid (url, events, description), quota_reached."""
        now = self._clock()
        new = Webhook(
            id=ids.new(),
            user_id=user_id,
            url=self._url(url),
            events=_events(events),
            secret=secrets.token_urlsafe(32),
            description=_described(description),
            is_active=True,
            retry_count=0,
            last_error=None,
            last_success=None,
            created_at=now,
            updated_at=now,
        )
        async with self._changing, self._store.changing(user_id) as webhooks:
            if len(await webhooks.all()) >= MAX_WEBHOOKS:
                raise Refused("quota_reached", f"{MAX_WEBHOOKS} webhooks")
            await self._deliveries.widen(new)
            await webhooks.insert(new)
        return new

    def _url(self, url: str) -> str:
        self._outbound.target(url)
        return url

    async def own(self, user_id: str) -> list[Webhook]:
        return await self._store.of_user(user_id)

    async def one(self, user_id: str, webhook_id: str) -> Webhook:
        """Refused webhook_not_found, for unknown and foreign alike."""
        found = await self._store.one(webhook_id, user_id) if ids.valid(webhook_id) else None
        if found is None:
            raise Refused("webhook_not_found")
        return found

    async def update(self, user_id: str, webhook_id: str, wanted: WebhookChange) -> Webhook:
        """Refused: webhook_not_found, field_invalid (url, events, description)."""
        changes: dict[str, object] = {}
        if wanted.url is not None:
            changes["url"] = self._url(wanted.url)
        if wanted.events is not None:
            changes["events"] = _events(wanted.events)
        if wanted.description is not None:
            changes["description"] = _described(wanted.description)
        if wanted.is_active is not None:
            changes["is_active"] = wanted.is_active
        return await self._change(user_id, webhook_id, **changes)

    async def rotate_secret(self, user_id: str, webhook_id: str) -> Webhook:
        """With a new secret, by which everything is signed from now on. Refused webhook_not_found."""
        return await self._change(user_id, webhook_id, secret=secrets.token_urlsafe(32))

    async def _change(self, user_id: str, webhook_id: str, **changes: object) -> Webhook:
        async with self._changing, self._store.changing(user_id) as webhooks:
            known = [one for one in await webhooks.all() if one.id == webhook_id]
            if not known:
                raise Refused("webhook_not_found")
            changed = msgspec.structs.replace(known[0], updated_at=self._clock(), **changes)
            if changed.is_active:
                await self._deliveries.widen(changed)
            await webhooks.update(changed)
        await self._narrowed(user_id)
        return changed

    async def delete(self, user_id: str, webhook_id: str) -> None:
        """Refused webhook_not_found. What waits to be delivered to it is not sent any more."""
        async with self._changing, self._store.changing(user_id) as webhooks:
            if webhook_id not in {one.id for one in await webhooks.all()}:
                raise Refused("webhook_not_found")
            await webhooks.delete(webhook_id)
        await self._narrowed(user_id)

    async def disable(self, user_id: str, webhook_id: str, why: str) -> None:
        """Its target wants no more of it."""
        async with self._changing, self._store.changing(user_id) as webhooks:
            await webhooks.disable(webhook_id, why)
        await self._narrowed(user_id)

    async def narrow(self, user_id: str) -> None:
        """Let nothing be recorded for the user but what an active webhook listens to."""
        async with self._changing, self._store.changing(user_id) as webhooks:
            await self._deliveries.narrow(user_id, [one for one in await webhooks.all() if one.is_active])

    async def _narrowed(self, user_id: str) -> None:
        """The change is made; that too much is still recorded is found out again by whoever would deliver it."""
        try:
            await self.narrow(user_id)
        except Unavailable as error:
            event("warning", "who listens is recorded too widely for now", reason=str(error))

    async def deliveries(self, user_id: str, webhook_id: str, limit: int) -> list[Delivery]:
        """Newest first. Refused webhook_not_found."""
        await self.one(user_id, webhook_id)
        return await self._deliveries.of(webhook_id, limit)

    async def test(self, user_id: str, webhook_id: str) -> Delivery:
        """Send an event of its own to the webhook, active or not, once and now; what came of it. Refused
        webhook_not_found."""
        webhook = await self.one(user_id, webhook_id)
        now = self._clock()
        data = written({"webhookId": webhook.id})
        leased = now + timedelta(seconds=LEASE)
        trial = Delivery(ids.new(), webhook.id, user_id, TEST, data, now, due_at=leased, fence=1)
        await self._deliveries.insert(trial)
        return await self._deliverer.deliver(trial, webhook) or trial

    async def replay(self, user_id: str, delivery_id: str) -> Delivery:
        """Deliver it again, under the id it had. Refused delivery_not_found."""
        known = await self._deliveries.one(delivery_id, user_id) if ids.valid(delivery_id) else None
        if known is None or await self._store.one(known.webhook_id, user_id) is None:
            raise Refused("delivery_not_found")
        due = await self._deliveries.replay(delivery_id, user_id)
        if due is None:
            raise Refused("delivery_not_found")
        self._deliverer.wake()
        return due


def _events(events: Sequence[Event]) -> tuple[Event, ...]:
    if not events:
        raise Refused("field_invalid", f"one or more of {', '.join(EVENTS)}", field="events")
    return tuple(dict.fromkeys(events))


def _described(text: str) -> str:
    if len(text) > DESCRIPTION_MAX or not text.replace(" ", "").isprintable():
        raise Refused("field_invalid", f"one line of at most {DESCRIPTION_MAX} characters", field="description")
    return text
