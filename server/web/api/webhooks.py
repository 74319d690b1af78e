"""Webhooks of an account: made, seen, changed, deleted, tested; what was delivered, and delivering it again."""

from typing import Final, Self

import msgspec
from msgspec import UNSET, UnsetType

from server.model.webhook import Delivery, Event, Webhook, payload
from server.services.contracts import WebhookChange
from server.web import requests
from server.web.api.schemas import rfc3339
from server.web.description import describe
from server.web.query import Number
from server.web.requests import Call
from server.web.responses import NO_CONTENT, Reply, created, ok

_LIMIT: Final = Number("limit", "Deliveries to list.", 20, 1, 100)


class NewWebhookBody(msgspec.Struct):
    """Where to send what. ``url`` is http or https and leads to the public Internet."""

    url: str
    events: list[Event]
    description: str | None = None


class WebhookChangeBody(msgspec.Struct, rename="camel"):
    """What is to be different; what is left out or null stays."""

    url: str | None = None
    events: list[Event] | None = None
    description: str | None = None
    is_active: bool | None = None


class WebhookObject(msgspec.Struct, rename="camel"):
    """A webhook. ``secret`` signs its payloads and is shown only where it was just made. ``retry_count`` counts the
    failures since the last success."""

    id: str
    user_id: str
    url: str
    events: tuple[Event, ...]
    description: str
    is_active: bool
    retry_count: int
    last_error: str | None
    last_success: str | None
    created_at: str
    updated_at: str
    secret: str | UnsetType = UNSET

    @classmethod
    def of(cls, one: Webhook, *, secret: bool = False) -> Self:
        return cls(
            id=one.id,
            user_id=one.user_id,
            url=one.url,
            events=one.events,
            description=one.description,
            is_active=one.is_active,
            retry_count=one.retry_count,
            last_error=one.last_error,
            last_success=None if one.last_success is None else rfc3339(one.last_success),
            created_at=rfc3339(one.created_at),
            updated_at=rfc3339(one.updated_at),
            secret=one.secret if secret else UNSET,
        )


class WebhookList(msgspec.Struct):
    """All webhooks of the account."""

    items: list[WebhookObject]
    count: int


class DeliveryObject(msgspec.Struct, rename="camel"):
    """One event for one webhook and its last attempt: ``duration`` in ms, ``response`` the beginning of what was
    answered, ``payload`` the very body that is sent, ``next_retry`` when it is tried again, if it is."""

    id: str
    webhook_id: str
    event: str
    payload: msgspec.Raw
    status_code: int | None
    response: str | None
    duration: int | None
    success: bool
    error: str | None
    attempts: int
    next_retry: str | None
    created_at: str

    @classmethod
    def of(cls, one: Delivery) -> Self:
        return cls(
            id=one.id,
            webhook_id=one.webhook_id,
            event=one.event,
            payload=msgspec.Raw(payload(one)),
            status_code=one.status_code,
            response=one.response,
            duration=one.duration,
            success=one.success,
            error=one.error,
            attempts=one.attempts,
            next_retry=None if one.due_at is None else rfc3339(one.due_at),
            created_at=rfc3339(one.created_at),
        )


class DeliveryList(msgspec.Struct):
    """The newest deliveries of a webhook, newest first."""

    items: list[DeliveryObject]
    count: int


@describe(
    "Make a webhook",
    detail="Its events are sent as POST requests with `{id, event, timestamp, data}`, signed with the returned secret: "
    "`X-Webhook-Signature` is `sha256=` and the hex HMAC of the body, `X-Webhook-Signature-V2` the same over "
    "`id.timestamp.body` with `X-Webhook-ID` and `X-Webhook-Timestamp`. Anything but 2xx within 10 s is tried again "
    "after 1 min, 5 min, 15 min, 1 h and 6 h; 410 switches the webhook off. An event may come twice, with the same id.",
    response=WebhookObject,
    status=201,
    body=NewWebhookBody,
    example={"url": "https://example.org/hook", "events": ["mail.received"]},
    refuses=("quota_reached",),
)
async def create(call: Call) -> Reply:
    wanted = await requests.body(call, NewWebhookBody)
    made = await call.services.webhooks.create(call.user.id, wanted.url, wanted.events, wanted.description or "")
    return created(call.language, WebhookObject.of(made, secret=True))


@describe("List the webhooks of the account", response=WebhookList)
async def own(call: Call) -> Reply:
    found = [WebhookObject.of(one) for one in await call.services.webhooks.own(call.user.id)]
    return ok(call.language, WebhookList(found, len(found)))


@describe("Show a webhook", response=WebhookObject, refuses=("webhook_not_found",))
async def show(call: Call) -> Reply:
    return ok(call.language, WebhookObject.of(await call.services.webhooks.one(call.user.id, call.segments[0])))


@describe(
    "Change a webhook",
    response=WebhookObject,
    body=WebhookChangeBody,
    example={"isActive": False},
    refuses=("webhook_not_found",),
)
async def change(call: Call) -> Reply:
    wanted = await requests.body(call, WebhookChangeBody)
    change = WebhookChange(wanted.url, wanted.events, wanted.description, wanted.is_active)
    return ok(
        call.language, WebhookObject.of(await call.services.webhooks.update(call.user.id, call.segments[0], change))
    )


@describe(
    "Delete a webhook", detail="What waits for it is not sent any more.", status=204, refuses=("webhook_not_found",)
)
async def delete(call: Call) -> Reply:
    await call.services.webhooks.delete(call.user.id, call.segments[0])
    return NO_CONTENT


@describe("List what was sent to a webhook", response=DeliveryList, query=(_LIMIT,), refuses=("webhook_not_found",))
async def deliveries(call: Call) -> Reply:
    limit = _LIMIT.of(call)
    found = await call.services.webhooks.deliveries(call.user.id, call.segments[0], limit)
    return ok(call.language, DeliveryList([DeliveryObject.of(one) for one in found], len(found)))


@describe(
    "Try a webhook",
    detail="Sends a `webhook.test` event, once and now, and answers with what came of it.",
    response=DeliveryObject,
    refuses=("webhook_not_found",),
)
async def test(call: Call) -> Reply:
    return ok(call.language, DeliveryObject.of(await call.services.webhooks.test(call.user.id, call.segments[0])))


@describe(
    "Deliver an event again",
    detail="Under the same id, as soon as a worker comes to it, and with the same retries.",
    response=DeliveryObject,
    refuses=("delivery_not_found",),
)
async def replay(call: Call) -> Reply:
    return ok(call.language, DeliveryObject.of(await call.services.webhooks.replay(call.user.id, call.segments[0])))


@describe(
    "Give a webhook a new secret",
    detail="Everything sent from here on is signed with it.",
    response=WebhookObject,
    refuses=("webhook_not_found",),
)
async def rotate_secret(call: Call) -> Reply:
    rotated = await call.services.webhooks.rotate_secret(call.user.id, call.segments[0])
    return ok(call.language, WebhookObject.of(rotated, secret=True))
