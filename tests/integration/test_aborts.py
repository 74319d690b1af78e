"""A client that goes in the middle of something leaves nothing behind that only the collector would find."""

import asyncio
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import aiohttp
import pytest
import uvloop
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from server.config.settings import Config
from server.smtp.session import Session
from server.web.api.events import EventStream
from server.web.fastpath import FastPathProtocol
from server.web.requests import Call
from server.ws.session import Session as WebSocketSession
from tests.cutting import STORMS, Place
from tests.integration.test_query_counts import Counted
from tests.nameserver import name_server
from tests.running import Box

KINDS: Final = (
    web.BaseRequest,
    web.StreamResponse,
    RequestHandler,
    FastPathProtocol,
    Call,
    EventStream,
    Session,
    WebSocketSession,
)
TIMES: Final = 3
LINGERING: Final = 300.0  # s: only a fault comes to its end; aiohttp hears out a refused body for 10 at best


def left() -> Counter[str]:
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, KINDS))


@pytest.fixture
async def place(settings: Config) -> AsyncIterator[Place]:
    """A shard in this process, and a mailbox with a message that no buffer of the kernel takes whole."""
    async with AsyncExitStack() as closing:
        counted = Counted(settings, closing.enter_context(name_server()))
        base = await counted.start(closing)
        text = random.Random(1).randbytes(3_000_000).hex()
        async with aiohttp.ClientSession() as client:
            async with client.post(f"{base}/v1/mailboxes", json={}) as made:
                data = (await made.json())["data"]
            box = Box(data["id"], data["address"], data["token"])
            body = {"from": "a@b.c", "text": "\n".join(text[at : at + 900] for at in range(0, len(text), 900))}
            url = f"{base}/v1/mailboxes/{box.id}/messages"
            async with client.post(url, json=body, headers=box.auth) as injected:
                message = (await injected.json())["data"]["id"]
        yield Place(("127.0.0.1", int(base.rpartition(":")[2])), counted.smtp, box, message)


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


async def test_what_was_cut_goes_without_the_collector(place: Place) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(TIMES):
            await asyncio.gather(*[storm(place) for storm in STORMS.values()])
        deadline = asyncio.get_running_loop().time() + LINGERING
        while found := left():
            assert asyncio.get_running_loop().time() < deadline, found
            await asyncio.sleep(0.2)
    finally:
        gc.enable()
