"""Webhooks, as clients of the contract use them: their routes, objects, limits, and what a receiver is sent."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.contract.test_delivered_to import alias_of, send
from tests.hooking import Reader, reader, signed
from tests.receiving import Receiver, receiving, status
from tests.running import Server

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
UNKNOWN = "01890000-0000-7000-8000-000000000000"
EVENTS = [
    "mail.received",
    "mail.read",
    "mailbox.created",
    "mailbox.deleted",
    "tag.created",
    "tag.updated",
    "tag.deleted",
    "message.tagged",
]
HOOK = {"url": "https://example.org/hook?a=b", "events": ["mail.received", "tag.created"], "description": "mine"}


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose webhooks may reach this machine, and are tried again soon."""
    settings = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1", "WEBHOOK_RETRY_DELAYS": "100ms,100ms"}
    running = Server(tmp_path_factory.mktemp("hooked"), **settings).start()
    yield running
    assert running.stop() == 0, running.log[-4000:]


@pytest.fixture
async def me(hooked: Server) -> Reader:
    return await reader(hooked)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as started:
        yield started


async def until_over(me: Reader, webhook: Any, count: int) -> list[Any]:
    """The deliveries of a webhook once there are ``count`` and none is to be tried again; newest first."""
    async with asyncio.timeout(30):
        while True:
            found: list[Any] = await me.deliveries(webhook)
            if len(found) == count and all(one["attempts"] and one["nextRetry"] is None for one in found):
                return found
            await asyncio.sleep(0.05)


async def test_webhook_is_made_with_a_secret_that_is_shown_once(me: Reader) -> None:
    status, answer = await me.call("POST", "/v1/webhooks", HOOK)
    assert (status, answer["code"]) == (201, 201)
    made = answer["data"]
    assert UUID7.fullmatch(made["id"])
    assert len(made["secret"]) >= 43
    assert TIME.fullmatch(made["createdAt"])
    assert made["updatedAt"] == made["createdAt"]
    shown = {key: value for key, value in made.items() if key != "secret"}
    assert shown == {
        "id": made["id"],
        "userId": me.id,
        "url": HOOK["url"],
        "events": HOOK["events"],
        "description": "mine",
        "isActive": True,
        "retryCount": 0,
        "lastError": None,
        "lastSuccess": None,
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
    }
    assert await me.data("GET", f"/v1/webhooks/{made['id']}") == shown
    assert await me.data("GET", "/v1/webhooks") == {"items": [shown], "count": 1}


async def test_webhook_changes_in_what_is_named_and_in_nothing_else(me: Reader) -> None:
    made = await me.data("POST", "/v1/webhooks", HOOK)
    path = f"/v1/webhooks/{made['id']}"
    for change in (
        {"url": "http://example.net:8080/other"},
        {"events": ["mail.read", "mail.read"]},
        {"isActive": False},
        {"isActive": True, "description": ""},
    ):
        before = await me.data("GET", path)
        after = await me.data("PATCH", path, change | {"unknown": 1, "secret": "mine"})
        expected = before | change | {"updatedAt": after["updatedAt"]}
        expected["events"] = list(dict.fromkeys(expected["events"]))
        assert after == expected == await me.data("GET", path)
        assert after["updatedAt"] >= before["updatedAt"]


async def test_deleted_webhook_is_gone(me: Reader) -> None:
    made = await me.data("POST", "/v1/webhooks", HOOK)
    path = f"/v1/webhooks/{made['id']}"
    assert await me.call("DELETE", path) == (204, None)
    for method, below in (("GET", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test")):
        status, answer = await me.call(method, path + below)
        assert (status, answer["error"]) == (404, "webhook_not_found")
    assert await me.data("GET", "/v1/webhooks") == {"items": [], "count": 0}


async def test_eleventh_webhook_is_refused_also_when_all_come_at_once(me: Reader) -> None:
    answers = await asyncio.gather(*(me.call("POST", "/v1/webhooks", HOOK) for _ in range(14)))
    assert sorted(status for status, _ in answers) == [201] * 10 + [403] * 4
    assert {answer["error"] for status, answer in answers if status == 403} == {"quota_reached"}
    listed = (await me.data("GET", "/v1/webhooks"))["items"]
    assert len(listed) == 10
    await me.call("DELETE", f"/v1/webhooks/{listed[0]['id']}")
    assert (await me.call("POST", "/v1/webhooks", HOOK))[0] == 201


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "ftp://example.org/"}, "url"),
        ({"url": "http://user:secret@example.org/"}, "url"),
        ({"url": "http://10.0.0.1/"}, "url"),
        ({"url": "http://127.0.0.2/"}, "url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "http://2130706434/"}, "url"),
        ({"url": "http://[::1]/"}, "url"),
        ({"url": "http://localhost:8080/"}, "url"),
        ({"url": "http://example.org:25/"}, "url"),
        ({"url": "https://example.org/" + "x" * 2048}, "url"),
        ({"url": ""}, "url"),
        ({"url": 7}, "url"),
        ({"events": []}, "events"),
        ({"events": ["mail.received", "mail.forged"]}, "events[1]"),
        ({"events": ["webhook.test"]}, "events[0]"),
        ({"events": "mail.received"}, "events"),
        ({"description": "x" * 201}, "description"),
        ({"description": "two\nlines"}, "description"),
        ({"description": "\x00"}, "description"),
    ],
)
async def test_what_cannot_be_names_the_field(me: Reader, change: dict[str, Any], field: str) -> None:
    made = await me.data("POST", "/v1/webhooks", HOOK)
    for method, path in (("POST", "/v1/webhooks"), ("PATCH", f"/v1/webhooks/{made['id']}")):
        status, answer = await me.call(method, path, (HOOK if method == "POST" else {}) | change)
        assert (status, answer["error"], answer["field"]) == (400, "field_invalid", field)
    assert len((await me.data("GET", "/v1/webhooks"))["items"]) == 1


@pytest.mark.parametrize("missing", ["url", "events"])
async def test_missing_field_is_named(me: Reader, missing: str) -> None:
    status, answer = await me.call("POST", "/v1/webhooks", {k: v for k, v in HOOK.items() if k != missing})
    assert (status, answer["error"], answer["field"]) == (400, "field_invalid", missing)


async def test_every_event_of_the_contract_can_be_listened_to(me: Reader) -> None:
    made = await me.data("POST", "/v1/webhooks", HOOK | {"events": EVENTS})
    assert made["events"] == EVENTS


async def test_foreign_webhook_and_delivery_answer_as_unknown_ones(
    me: Reader, hooked: Server, receiver: Receiver
) -> None:
    other = await reader(hooked)
    webhook = await me.hook(receiver)
    delivery = await me.data("POST", f"/v1/webhooks/{webhook['id']}/test")
    for method, path, id_, body in (
        ("GET", "/v1/webhooks/{}", webhook["id"], None),
        ("PATCH", "/v1/webhooks/{}", webhook["id"], {"isActive": False}),
        ("DELETE", "/v1/webhooks/{}", webhook["id"], None),
        ("GET", "/v1/webhooks/{}/deliveries", webhook["id"], None),
        ("POST", "/v1/webhooks/{}/test", webhook["id"], None),
        ("POST", "/v1/webhooks/{}/rotate-secret", webhook["id"], None),
        ("POST", "/v1/webhooks/deliveries/{}/replay", delivery["id"], None),
    ):
        foreign = await other.call(method, path.format(id_), body)
        for unknown in (UNKNOWN, "x", id_.upper(), webhook["id"][:-1]):
            assert await other.call(method, path.format(unknown), body) == foreign
        assert foreign[0] == 404
    assert await me.data("GET", f"/v1/webhooks/{webhook['id']}")
    assert len(receiver.requests) == 1


async def test_webhook_tells_the_alias_or_the_tag_that_the_sender_used(me: Reader, receiver: Receiver) -> None:
    await me.hook(receiver)
    box = await me.mailbox()
    used = [await alias_of(me.server, box), box.address.replace("@", "+shop@")]
    for address in used:
        await send(me.server, address)
    await receiver.until(lambda r: len(r.requests) == len(used))
    told = [json.loads(request.body)["data"]["deliveredTo"] for request in receiver.requests]
    assert sorted(told) == sorted([address] for address in used)


async def test_webhooks_need_an_account(hooked: Server) -> None:
    nobody = Reader(hooked, "", "")
    for method, path in (("GET", "/v1/webhooks"), ("POST", "/v1/webhooks"), ("GET", f"/v1/webhooks/{UNKNOWN}")):
        assert (await nobody.call(method, path))[0] == 401


async def test_received_mail_is_told_with_both_signatures_and_logged(me: Reader, receiver: Receiver) -> None:
    webhook, box = await me.hook(receiver), await me.mailbox()
    await me.server.deliver(box, subject="Grüße", text="Your code is 482193\n")
    await receiver.until(lambda r: len(r.requests) == 1)
    [request] = receiver.requests
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-webhook-event"] == "mail.received"
    assert signed(request, webhook["secret"])
    sent = json.loads(request.body)
    assert list(sent) == ["id", "event", "timestamp", "data"]
    assert sent["id"] == request.headers["x-webhook-id"]
    assert (sent["event"], bool(TIME.fullmatch(sent["timestamp"]))) == ("mail.received", True)
    assert sent["data"]["deliveredTo"] == [box.address]
    [message] = await me.server.messages(box)
    assert {key: sent["data"][key] for key in ("messageId", "mailboxId", "seq", "subject", "from", "codes")} == {
        "messageId": message["id"],
        "mailboxId": box.id,
        "seq": message["seq"],
        "subject": "Grüße",
        "from": message["from"],
        "codes": ["482193"],
    }
    assert sent["data"]["createdAt"] == message["createdAt"]
    [logged] = await until_over(me, webhook, 1)
    assert logged == {
        "id": sent["id"],
        "webhookId": webhook["id"],
        "event": "mail.received",
        "payload": sent,
        "statusCode": 200,
        "response": "thanks",
        "duration": logged["duration"],
        "success": True,
        "error": None,
        "attempts": 1,
        "nextRetry": None,
        "createdAt": sent["timestamp"],
    }
    assert isinstance(logged["duration"], int)
    shown = await me.data("GET", f"/v1/webhooks/{webhook['id']}")
    assert TIME.fullmatch(shown["lastSuccess"])
    assert (shown["retryCount"], shown["lastError"]) == (0, None)


async def test_every_event_is_told_when_it_happens(me: Reader, receiver: Receiver) -> None:
    await me.hook(receiver, *EVENTS)
    box = await me.mailbox()
    await me.server.deliver(box, subject="x")
    [message] = await me.server.messages(box)
    path = f"/v1/mailboxes/{box.id}/messages/{message['id']}"
    for _ in range(2):
        await me.data("POST", f"{path}/read")
    tag = await me.data("POST", "/v1/tags", {"name": "work", "color": "#336699"})
    await me.data("PATCH", f"/v1/tags/{tag['id']}", {"name": "play"})
    await me.data("POST", f"{path}/tags", {"tagId": tag["id"]})
    await me.data("DELETE", f"/v1/tags/{tag['id']}")
    await me.data("DELETE", f"/v1/mailboxes/{box.id}")
    await receiver.until(lambda r: len(r.requests) == len(EVENTS))
    told = {sent["event"]: sent["data"] for sent in (json.loads(request.body) for request in receiver.requests)}
    assert sorted(told) == sorted(EVENTS)
    which = {"messageId": message["id"], "mailboxId": box.id, "seq": message["seq"]}
    assert told["mail.read"] == which
    assert told["mailbox.created"]["address"] == box.address
    assert told["mailbox.deleted"] == {"mailboxId": box.id, "address": box.address, "reason": "deleted"}
    work = {"tagId": tag["id"], "name": "work", "color": "#336699", "description": ""}
    assert (told["tag.created"], told["tag.updated"]) == (work, work | {"name": "play"})
    assert told["message.tagged"] == which | {"tag": work | {"name": "play"}}
    assert told["tag.deleted"] == work | {"name": "play"}


async def test_nobody_is_told_of_what_they_do_not_listen_to_or_do_not_own(
    me: Reader, hooked: Server, receiver: Receiver
) -> None:
    other = await reader(hooked)
    for who, event in ((me, "mail.read"), (other, "mail.received")):
        await who.hook(receiver, event)
    off = await me.hook(receiver)
    await me.data("PATCH", f"/v1/webhooks/{off['id']}", {"isActive": False})
    gone = await me.hook(receiver)
    await me.data("DELETE", f"/v1/webhooks/{gone['id']}")
    changed = await me.hook(receiver)
    await me.data("PATCH", f"/v1/webhooks/{changed['id']}", {"events": ["tag.created"]})
    mine, theirs, guest = await me.mailbox(), await other.mailbox(), await hooked.mailbox()
    await hooked.deliver(mine, guest)
    await hooked.deliver(theirs)
    await receiver.until(lambda r: len(r.requests) == 1)
    assert json.loads(receiver.requests[0].body)["data"]["mailboxId"] == theirs.id
    assert await me.deliveries(off) == await me.deliveries(changed) == []


async def test_webhook_that_is_switched_on_again_is_told_again(me: Reader, receiver: Receiver) -> None:
    webhook, box = await me.hook(receiver), await me.mailbox()
    for active in (False, True):
        await me.data("PATCH", f"/v1/webhooks/{webhook['id']}", {"isActive": active})
        await me.server.deliver(box, subject=str(active))
    [told] = await until_over(me, webhook, 1)
    assert told["payload"]["data"]["subject"] == "True"


async def test_failures_are_tried_again_under_the_same_id_and_then_given_up(me: Reader, receiver: Receiver) -> None:
    webhook, box = await me.hook(receiver), await me.mailbox()
    receiver.answer = status(500, b"not today")
    await me.server.deliver(box)
    [logged] = await until_over(me, webhook, 1)
    assert (logged["statusCode"], logged["response"], logged["success"]) == (500, "not today", False)
    assert logged["attempts"] == len(receiver.requests) == 3
    assert {request.headers["x-webhook-id"] for request in receiver.requests} == {logged["id"]}
    assert len({request.body for request in receiver.requests}) == 1
    assert all(signed(request, webhook["secret"]) for request in receiver.requests)
    shown = await me.data("GET", f"/v1/webhooks/{webhook['id']}")
    assert (shown["retryCount"], shown["lastError"], shown["lastSuccess"]) == (3, "status 500", None)


async def test_target_that_is_gone_switches_its_webhook_off(me: Reader, receiver: Receiver) -> None:
    webhook, box = await me.hook(receiver), await me.mailbox()
    receiver.answer = status(410)
    await me.server.deliver(box)
    [logged] = await until_over(me, webhook, 1)
    assert (logged["statusCode"], logged["attempts"], logged["success"]) == (410, 1, False)
    shown = await me.data("GET", f"/v1/webhooks/{webhook['id']}")
    assert (shown["isActive"], shown["lastError"]) == (False, "410: the target wants no more")
    await me.server.deliver(box)
    assert len(await me.deliveries(webhook)) == 1


async def test_replay_sends_the_same_body_under_the_same_id(me: Reader, receiver: Receiver) -> None:
    webhook, box = await me.hook(receiver), await me.mailbox()
    receiver.answer = status(500)
    await me.server.deliver(box)
    [failed] = await until_over(me, webhook, 1)
    receiver.answer = status(204)
    due = await me.data("POST", f"/v1/webhooks/deliveries/{failed['id']}/replay")
    assert (due["id"], due["attempts"], due["success"]) == (failed["id"], 0, False)
    await receiver.until(lambda r: len(r.requests) == 4)
    [told] = await until_over(me, webhook, 1)
    assert (told["id"], told["statusCode"], told["success"], told["attempts"]) == (failed["id"], 204, True, 1)
    assert len({request.body for request in receiver.requests}) == 1


async def test_test_sends_once_and_answers_with_what_came_of_it(me: Reader, receiver: Receiver) -> None:
    webhook = await me.hook(receiver)
    path = f"/v1/webhooks/{webhook['id']}"
    await me.data("PATCH", path, {"isActive": False})
    said = await me.data("POST", f"{path}/test")
    assert (said["event"], said["statusCode"], said["response"], said["success"]) == (
        "webhook.test",
        200,
        "thanks",
        True,
    )
    [request] = receiver.requests
    assert signed(request, webhook["secret"])
    assert json.loads(request.body) == said["payload"]
    receiver.answer = status(503)
    failed = await me.data("POST", f"{path}/test")
    assert (failed["statusCode"], failed["success"], failed["attempts"], failed["nextRetry"]) == (503, False, 1, None)
    assert [one["id"] for one in await me.deliveries(webhook)] == [failed["id"], said["id"]]


async def test_new_secret_signs_what_is_sent_from_now_on(me: Reader, receiver: Receiver) -> None:
    webhook = await me.hook(receiver)
    rotated = await me.data("POST", f"/v1/webhooks/{webhook['id']}/rotate-secret")
    assert rotated["id"] == webhook["id"]
    assert rotated["secret"] != webhook["secret"]
    await me.data("POST", f"/v1/webhooks/{webhook['id']}/test")
    assert signed(receiver.requests[0], rotated["secret"])
    assert not signed(receiver.requests[0], webhook["secret"])


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1e3"])
async def test_limit_of_a_list_is_bounded(me: Reader, receiver: Receiver, limit: str) -> None:
    webhook = await me.hook(receiver)
    status, answer = await me.call("GET", f"/v1/webhooks/{webhook['id']}/deliveries?limit={limit}")
    assert (status, answer["error"], answer["field"]) == (400, "field_invalid", "limit")


async def test_lists_of_deliveries_are_the_newest_first_and_no_longer_than_asked(
    me: Reader, receiver: Receiver
) -> None:
    webhook = await me.hook(receiver)
    made = [(await me.data("POST", f"/v1/webhooks/{webhook['id']}/test"))["id"] for _ in range(22)]
    for query, count in (("", 20), ("?limit=1", 1), ("?limit=100", 22)):
        listed = await me.data("GET", f"/v1/webhooks/{webhook['id']}/deliveries{query}")
        assert [one["id"] for one in listed["items"]] == made[::-1][:count]
        assert listed["count"] == count
