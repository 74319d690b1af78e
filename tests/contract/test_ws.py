"""The WebSocket contract over the wire, from a client of another library, against the running server."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.model import ids
from tests.contract.test_delivered_to import alias_of, send
from tests.running import Box, Server

Frames = dict[str, Any]


@contextlib.asynccontextmanager
async def session(server: Server, query: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
    address = server.http.replace("http://", "ws://") + "/v1/ws" + query
    async with connect(address, ping_interval=None, open_timeout=30, close_timeout=5, **options) as ws:
        yield ws


async def say(ws: ClientConnection, **frame: Any) -> None:
    await ws.send(orjson.dumps(frame).decode())


async def heard(ws: ClientConnection, kind: str = "") -> Frames:
    """The next frame, or the next of a kind; pings may come at any time. The run's own timeout bounds the wait."""
    while True:
        frame: Frames = orjson.loads(await ws.recv())
        if kind == frame["type"] or (not kind and frame["type"] != "ping"):
            return frame


async def subscribe(ws: ClientConnection, box: Box, **more: Any) -> Frames:
    await say(ws, type="subscribe", mailboxId=box.id, token=box.token, **more)
    frame = await heard(ws)
    assert (frame["type"], frame["mailboxId"]) == ("subscribed", box.id), frame
    return frame


async def request(server: Server, box: Box, method: str, path: str = "") -> Any:
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, f"{server.http}/v1/mailboxes/{box.id}{path}", headers=box.auth) as response,
    ):
        assert response.status in (200, 204), await response.text()
        return await response.json() if response.status == 200 else None


async def metric(server: Server, name: str) -> float:
    async with aiohttp.ClientSession() as client, client.get(f"{server.http}/metrics") as response:
        for line in (await response.text()).splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
    return 0.0


async def test_new_mail_arrives_with_its_number(server: Server) -> None:
    box = await server.mailbox()
    async with session(server) as ws:
        assert (await subscribe(ws, box))["seq"] == 0
        await server.deliver(box, subject="Your code", text="Your code is 482 193\n", sender="bob@example.org")
        frame = await heard(ws)
    (stored,) = await server.messages(box)
    assert (frame["type"], frame["seq"], frame["mailboxId"]) == ("new_mail", 1, box.id)
    assert frame["timestamp"].endswith("Z")
    data = frame["data"]
    assert set(data) == {
        *("messageId", "mailboxId", "from", "to", "deliveredTo", "subject", "preview"),
        *("hasHtml", "hasText", "createdAt", "codes"),
    }
    assert data["messageId"] == stored["id"]
    assert data["deliveredTo"] == stored["deliveredTo"] == [box.address]
    assert (data["subject"], data["hasText"], data["hasHtml"]) == ("Your code", True, False)
    assert "bob@example.org" in data["from"]
    assert data["codes"] == stored["codes"]


async def test_frame_tells_the_alias_or_the_tag_that_the_sender_used(server: Server) -> None:
    box = await server.mailbox()
    used = [await alias_of(server, box), box.address.replace("@", "+shop@")]
    async with session(server) as ws:
        await subscribe(ws, box)
        for address in used:
            await send(server, address)
            assert (await heard(ws))["data"]["deliveredTo"] == [address]


async def test_every_connection_of_every_worker_hears_it(server: Server) -> None:
    box = await server.mailbox()
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(session(server)) for _ in range(12)]
        for ws in readers:
            await subscribe(ws, box)
        for n in range(1, 4):
            await server.deliver(box, subject=f"mail {n}")
        for ws in readers:
            assert [(await heard(ws))["seq"] for _ in range(3)] == [1, 2, 3]


async def test_coming_back_with_after_brings_exactly_what_was_missed(server: Server) -> None:
    box = await server.mailbox()
    async with session(server) as ws:
        await subscribe(ws, box)
        await server.deliver(box, subject="first")
        seen = (await heard(ws, "new_mail"))["seq"]
    for n in range(3):
        await server.deliver(box, subject=f"missed {n}")
    async with session(server) as ws:
        assert (await subscribe(ws, box, after=seen))["seq"] == 4
        await server.deliver(box, subject="live")
        frames = [await heard(ws) for _ in range(4)]
    assert [f["seq"] for f in frames] == [2, 3, 4, 5]
    assert [f["data"]["subject"] for f in frames] == ["missed 0", "missed 1", "missed 2", "live"]


async def test_after_beyond_the_newest_is_refused(server: Server) -> None:
    box = await server.mailbox()
    async with session(server) as ws:
        await say(ws, type="subscribe", mailboxId=box.id, token=box.token, after=7)
        frame = await heard(ws)
    assert (frame["type"], frame["error"], frame["data"]["field"]) == ("error", "field_invalid", "after")


async def test_reading_and_deleting_are_told(server: Server) -> None:
    box = await server.mailbox()
    await server.deliver(box)
    (stored,) = await server.messages(box)
    async with session(server) as ws:
        await subscribe(ws, box)
        await request(server, box, "POST", f"/messages/{stored['id']}/read")
        read = (await heard(ws, "mailbox_update"))["data"]
        assert read.pop("lastActivity").endswith("Z")
        assert read == {"mailboxId": box.id, "unreadCount": 0, "totalCount": 1}
        await request(server, box, "DELETE", f"/messages/{stored['id']}")
        gone = (await heard(ws, "mailbox_update"))["data"]
        assert (gone["unreadCount"], gone["totalCount"]) == (0, 0)


async def test_a_deleted_message_leaves_no_hole_in_a_replay(server: Server) -> None:
    box = await server.mailbox()
    for n in range(3):
        await server.deliver(box, subject=f"mail {n}")
    second = (await server.messages(box))[1]
    await request(server, box, "DELETE", f"/messages/{second['id']}")
    async with session(server) as ws:
        await subscribe(ws, box, after=0)
        await server.deliver(box)
        assert [(await heard(ws, "new_mail"))["seq"] for _ in range(3)] == [1, 3, 4]


async def test_a_deleted_mailbox_is_told_and_its_subscription_is_over(server: Server) -> None:
    box = await server.mailbox()
    async with session(server) as ws:
        await subscribe(ws, box)
        await request(server, box, "DELETE")
        frame = await heard(ws)
        assert (frame["type"], frame["mailboxId"]) == ("mailbox_expired", box.id)
        await say(ws, type="subscribe", mailboxId=box.id, token=box.token)
        assert (await heard(ws))["error"] == "mailbox_not_found"


async def test_a_rotated_token_ends_what_the_old_one_opened(server: Server) -> None:
    box = await server.mailbox()
    async with session(server) as ws:
        await subscribe(ws, box)
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{server.http}/v1/mailboxes/{box.id}/token", headers=box.auth) as response,
        ):
            fresh = (await response.json())["data"]["token"]
        frame = await heard(ws)
        assert (frame["type"], frame["error"]) == ("unsubscribed", "mailbox_not_found")
        await subscribe(ws, Box(box.id, box.address, fresh))


async def test_unsubscribing_is_silence(server: Server) -> None:
    box, other = await server.mailbox(), await server.mailbox()
    async with session(server) as ws:
        await subscribe(ws, box)
        await subscribe(ws, other)
        await say(ws, type="unsubscribe", mailboxId=box.id)
        assert (await heard(ws))["type"] == "unsubscribed"
        await server.deliver(box, other)
        assert (await heard(ws))["mailboxId"] == other.id
        await server.deliver(box, other)
        assert (await heard(ws))["mailboxId"] == other.id


async def test_wrong_token_and_unknown_mailbox_are_told_apart_by_nobody(server: Server) -> None:
    box, other = await server.mailbox(), await server.mailbox()
    told = []
    async with session(server) as ws:
        for mailbox_id, token in ((box.id, other.token), (ids.new(), box.token), ("../x\x00", "y"), (box.id, "\ud7ff")):
            await say(ws, type="subscribe", mailboxId=mailbox_id, token=token)
            frame = await heard(ws)
            assert frame.pop("mailboxId") == mailbox_id
            del frame["timestamp"]
            told.append(frame)
        await subscribe(ws, box)
    assert told == [{"type": "error", "error": "mailbox_not_found"}] * 4


async def test_the_token_may_come_with_the_handshake(server: Server) -> None:
    box = await server.mailbox()
    ways: tuple[dict[str, Any], ...] = ({"additional_headers": box.auth}, {"query": f"?token={box.token}"})
    for way in ways:
        async with session(server, **way) as ws:
            await say(ws, type="subscribe", mailboxId=box.id)
            assert (await heard(ws))["type"] == "subscribed"
    async with session(server) as ws:
        await say(ws, type="subscribe", mailboxId=box.id)
        refused = await heard(ws)
        assert (refused["error"], refused["data"]["field"]) == ("token_required", "token")
        assert "Authorization" in refused["data"]["detail"]
    assert box.token not in server.log


@pytest.mark.parametrize(
    ("text", "word", "field"),
    [
        ("{", "body_invalid", None),
        ("", "body_invalid", None),
        ('{"type":"\\ud800"}', "body_invalid", None),
        ("[1]", "field_invalid", "type"),
        ("{}", "field_invalid", "type"),
        ('{"type":"shout"}', "field_invalid", "type"),
        ('{"type":"subscribe","mailboxId":7}', "field_invalid", "mailboxId"),
        ('{"type":"subscribe","after":-1}', "field_invalid", "after"),
        ('{"type":"subscribe","after":true}', "field_invalid", "after"),
        ('{"type":"subscribe","after":99999999999999999999}', "field_invalid", "after"),
        ('{"x":' + "[" * 4000, "body_invalid", None),
    ],
)
async def test_what_makes_no_sense_is_said_and_the_connection_goes_on(
    server: Server, text: str, word: str, field: str | None
) -> None:
    box = await server.mailbox()
    async with session(server) as ws:
        await ws.send(text)
        frame = await heard(ws)
        assert (frame["type"], frame["error"]) == ("error", word), frame
        assert frame["data"].get("field") == field
        await ws.send(b'{"type":"pong"}')
        assert (await heard(ws))["error"] == "body_invalid", "binary frames are no JSON text"
        await say(ws, type="pong", unknown=1)
        await subscribe(ws, box)


async def test_an_oversize_frame_ends_the_connection_with_1009(server: Server) -> None:
    async with session(server) as ws:
        await ws.send("x" * 5000)
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 1009


async def test_a_flood_ends_the_connection_with_1008(server: Server) -> None:
    async with session(server) as ws:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(5000):
                await ws.send('{"type":"pong"}')
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 1008


async def test_subscribing_twice_is_one_subscription(server: Server) -> None:
    box = await server.mailbox()
    async with session(server) as ws:
        await subscribe(ws, box)
        await subscribe(ws, box)
        await server.deliver(box)
        assert (await heard(ws))["seq"] == 1
        await server.deliver(box)
        assert (await heard(ws))["seq"] == 2, "and not pushed twice"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://127.0.0.1.evil.example",
        "file://",
        "http://user@{host}",
    ],
)
async def test_a_page_from_elsewhere_is_refused_before_the_upgrade(server: Server, origin: str) -> None:
    host = server.http.removeprefix("http://")
    with pytest.raises(InvalidStatus) as refused:
        async with session(server, additional_headers={"Origin": origin.format(host=host)}):
            pass
    assert refused.value.response.status_code == 403
    assert orjson.loads(refused.value.response.body or b"")["error"] == "origin_not_allowed"


async def test_a_page_of_the_same_host_is_let_in(server: Server) -> None:
    async with session(server, additional_headers={"Origin": server.http}) as ws:
        await say(ws, type="unsubscribe", mailboxId="x")
        assert (await heard(ws))["type"] == "unsubscribed"


async def test_no_compression_is_agreed_on(server: Server) -> None:
    async with session(server, compression="deflate") as ws:
        assert ws.response is not None
        assert "Sec-WebSocket-Extensions" not in ws.response.headers


async def test_an_ordinary_get_is_no_handshake(server: Server) -> None:
    async with aiohttp.ClientSession() as client, client.get(f"{server.http}/v1/ws") as response:
        assert response.status == 400
        assert (await response.json())["error"] == "field_invalid"


async def test_fragments_and_control_frames_between_them(server: Server) -> None:
    box = await server.mailbox()
    text = orjson.dumps({"type": "subscribe", "mailboxId": box.id, "token": box.token}).decode()
    async with session(server) as ws:
        pong = await ws.ping(b"are you there")
        await asyncio.wait_for(pong, 30)
        await ws.send([text[i : i + 7] for i in range(0, len(text), 7)])
        assert (await heard(ws))["type"] == "subscribed"
        await ws.pong(b"nobody asked")
        await server.deliver(box)
        assert (await heard(ws))["seq"] == 1


async def test_a_broken_frame_ends_its_connection_with_1002_and_no_other(server: Server) -> None:
    box = await server.mailbox()
    async with session(server) as good, session(server) as bad:
        await subscribe(good, box)
        bad.transport.write(bytes([0b1001_0001, 0x80, 1, 2, 3, 4]))  # a reserved bit is set (RFC 6455 section 5.2)
        with pytest.raises(ConnectionClosed):
            await bad.recv()
        assert bad.close_code == 1002
        await server.deliver(box)
        assert (await heard(good))["seq"] == 1


async def test_one_that_does_not_read_is_dropped_and_nobody_waits_for_it(server: Server) -> None:
    boxes = [await server.mailbox() for _ in range(10)]
    for n in range(30):
        await server.deliver(*boxes, subject=f"{n} " + "s" * 700, text="t" * 2000)
    dropped = 'tempmail_websocket_dropped_total{reason="slow"}'
    before = await metric(server, dropped)
    async with session(server) as good, session(server, sock=_narrow(server), max_queue=1) as slow:
        await subscribe(good, boxes[0])
        with contextlib.suppress(ConnectionClosed):
            while await metric(server, dropped) == before:
                for box in boxes:  # asks for everything again and again, and reads nothing of it
                    await say(slow, type="subscribe", mailboxId=box.id, token=box.token, after=0)
                await server.deliver(boxes[0])
                await heard(good, "new_mail")
                await asyncio.sleep(0.3)  # or it would be a flood
        await _closed(slow)
        assert slow.close_code in (1013, 1006), "1006: cut off before it read the reason"
    async with asyncio.timeout(30):  # workers publish their figures once a second
        while True:
            if await metric(server, dropped) == before + 1:
                return
            await asyncio.sleep(0.1)


def _narrow(server: Server) -> socket.socket:
    """A connected socket that takes little before its sender has to wait."""
    host, _, port = server.http.removeprefix("http://").rpartition(":")
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect((host, int(port)))
    return narrow


async def _closed(ws: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await ws.recv()
