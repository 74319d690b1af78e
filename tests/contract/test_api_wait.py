"""Waiting for a message over HTTP, as a test suite uses it."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from server import clock
from server.model import ids
from server.model.message import Details, Stored
from server.services.push import waiting
from tests.contract.people import fresh_login, own_box, person
from tests.contract.transcript import Answer, ask, inject
from tests.running import Box, Server


async def wait(server: Server, box: Box, query: str = "") -> Answer:
    return await ask(server, "GET", f"/v1/mailboxes/{box.id}/wait{query}", box)


async def streams(server: Server) -> float:
    async with aiohttp.ClientSession() as client, client.get(f"{server.http}/metrics") as response:
        (line,) = [one for one in (await response.text()).splitlines() if one.startswith("tempmail_streams_active ")]
        return float(line.rpartition(" ")[2])


async def waiters(server: Server, count: int) -> None:
    """Until so many wait, as the server's own figures say."""
    async with asyncio.timeout(60):
        while await streams(server) != count:
            await asyncio.sleep(0.05)


async def begun(server: Server, box: Box, query: str) -> asyncio.Task[Answer]:
    """A wait that has begun: who looks at it no longer races it."""
    await waiters(server, 0)
    waiting = asyncio.create_task(wait(server, box, query))
    await waiters(server, 1)
    return waiting


async def test_a_message_that_is_there_already_answers_at_once(server: Server) -> None:
    box = await server.mailbox()
    await inject(server, box, subject="first", text="one")
    await inject(server, box, subject="second", text="two")
    found = (await wait(server, box)).data["message"]
    assert (found["subject"], found["text"].strip(), found["seq"]) == ("second", "two", 2)
    (listed, _) = await server.messages(box)
    assert {name: found[name] for name in listed} == listed


async def test_a_message_that_comes_later_answers_from_whatever_worker_took_it(server: Server) -> None:
    for number in range(4):
        box = await server.mailbox()
        waiting = asyncio.create_task(wait(server, box, "?timeout=30"))
        if number % 2:
            await waiters(server, 1)
        await server.deliver(box, subject=f"hello {number}")
        assert (await waiting).data["message"]["subject"] == f"hello {number}"


async def test_time_over_is_204(server: Server) -> None:
    box = await server.mailbox()
    for query in ("?timeout=0", "?timeout=1", "?timeout=0.2s", "?timeout=0&extract=code"):
        answer = await wait(server, box, query)
        assert (answer.status, answer.body) == (204, b"")


async def test_after_gives_the_oldest_later_message_so_that_none_is_missed(server: Server) -> None:
    box = await server.mailbox()
    for number in range(5):
        await inject(server, box, subject=str(number))
    seen, after = [], 0
    while (answer := await wait(server, box, f"?after={after}&timeout=0")).status == 200:
        after = answer.data["message"]["seq"]
        seen.append(answer.data["message"]["subject"])
    assert seen == ["0", "1", "2", "3", "4"]
    waiting = asyncio.create_task(wait(server, box, f"?after={after}&timeout=30"))
    await inject(server, box, subject="next")
    assert (await waiting).data["message"]["seq"] == after + 1


async def test_conditions_pass_over_what_does_not_match(server: Server) -> None:
    box = await server.mailbox()
    asked = "?timeout=30&from=SHOP@example&subject=gr%C3%BC%C3%9Fe"
    waiting = await begun(server, box, asked)
    await inject(server, box, **{"from": "shop@example.org", "subject": "other"})
    await inject(server, box, **{"from": "bank@example.org", "subject": "Viele Grüße"})
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await inject(server, box, **{"from": "Shop <shop@example.org>", "subject": "Viele GRÜSSE"})
    assert (await waiting).data["message"]["seq"] == 3


async def test_extract_takes_the_code_or_the_link_out(server: Server) -> None:
    box = await server.mailbox()
    await inject(server, box, subject="Welcome", text="Glad you are here.")
    await inject(server, box, subject="Sign in", text="Your code is 482 193")
    await inject(server, box, subject="Confirm", text="Confirm your email: https://shop.example/verify?token=abc123")
    code = (await wait(server, box, "?extract=code&timeout=0")).data
    assert (code["code"], code["message"]["subject"]) == ("482193", "Sign in")
    link = (await wait(server, box, "?extract=link&timeout=0")).data
    assert link["link"].startswith("https://shop.example/verify")
    assert "code" not in link
    assert "code" not in (await wait(server, box, "?timeout=0")).data


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("timeout=301", "timeout"),
        ("timeout=-1", "timeout"),
        ("timeout=soon", "timeout"),
        ("timeout=" + "9" * 400, "timeout"),
        ("after=-1", "after"),
        ("after=x", "after"),
        ("extract=password", "extract"),
        ("from=" + "x" * 501, "from"),
        ("subject=%00", "subject"),
    ],
)
async def test_what_cannot_be_asked_for_names_the_parameter(server: Server, query: str, field: str) -> None:
    answer = await wait(server, await server.mailbox(), "?" + query)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", field)


async def test_a_wait_needs_the_mailbox(server: Server) -> None:
    one, two = await server.mailbox(), await server.mailbox()
    await inject(server, two, subject="secret")
    path = f"/v1/mailboxes/{two.id}/wait?timeout=0"
    assert (await ask(server, "GET", path)).status == 401
    foreign = await ask(server, "GET", path, one)
    unknown = await ask(server, "GET", path.replace(two.id[-6:], "000000"), one)
    assert (foreign.status, foreign.body) == (unknown.status, unknown.body) == (404, unknown.body)


@pytest.mark.parametrize("end", ["delete", "rotate"])
async def test_a_mailbox_that_goes_or_changes_its_token_ends_the_wait(server: Server, end: str) -> None:
    box = await server.mailbox()
    waiting = await begun(server, box, "?timeout=60")
    method, path = ("DELETE", "") if end == "delete" else ("POST", "/token")
    assert (await ask(server, method, f"/v1/mailboxes/{box.id}{path}", box)).status in (200, 204)
    assert (await asyncio.wait_for(waiting, 40)).error == "mailbox_not_found"


async def test_a_wait_goes_on_when_the_mailbox_is_extended(server: Server) -> None:
    box = await server.mailbox(expiresIn="90s")
    waiting = await begun(server, box, "?timeout=60")
    assert (await ask(server, "PATCH", f"/v1/mailboxes/{box.id}", box, json={"expiresIn": "20h"})).status == 200
    await server.deliver(box, subject="after all")
    assert (await waiting).data["message"]["subject"] == "after all"


async def test_head_does_not_wait(server: Server) -> None:
    box = await server.mailbox()
    assert (await ask(server, "HEAD", f"/v1/mailboxes/{box.id}/wait", box)).status == 405


async def test_a_client_that_went_away_keeps_no_place(own_server: Any) -> None:
    server = own_server(WORKERS="1")
    box = await server.mailbox()
    waits = [asyncio.create_task(wait(server, box, "?timeout=300")) for _ in range(3)]
    async with asyncio.timeout(30):
        while await streams(server) != 3:
            await asyncio.sleep(0.05)
        for task in waits:
            task.cancel()
        while await streams(server) != 0:
            await asyncio.sleep(0.1)


async def test_places_are_bounded_and_a_stopping_server_sends_waiters_away(own_server: Any) -> None:
    server = own_server(WORKERS="1", STREAMS_MAX="2")
    box = await server.mailbox()
    waits = [asyncio.create_task(wait(server, box, "?timeout=300")) for _ in range(2)]
    await waiters(server, 2)
    refused = await wait(server, box, "?timeout=300")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert await asyncio.to_thread(server.stop) == 0
    for answer in await asyncio.gather(*waits):
        assert (answer.status, answer.error) == (503, "unavailable")


async def test_one_client_cannot_hold_every_place(own_server: Any) -> None:
    server = own_server(WORKERS="1", STREAMS_MAX="10", RATE_LIMIT_EXEMPT="192.0.2.1")
    box = await server.mailbox()
    waiting = asyncio.create_task(wait(server, box, "?timeout=300"))
    await waiters(server, 1)
    refused = await wait(server, box, "?timeout=300")
    assert (refused.status, refused.error) == (429, "rate_limited")
    assert int(refused.headers["Retry-After"]) >= 1
    await inject(server, box, subject="x")
    assert (await waiting).status == 200


async def test_a_wait_does_not_outlive_the_access_token_that_began_it(own_server: Callable[..., Server]) -> None:
    server = own_server(JWT_ACCESS_EXPIRY="5s", WORKERS="1")
    owner = await person(server)
    box = await own_box(server, owner)
    await inject(server, box, subject="before")
    path = f"/v1/mailboxes/{box.id}"
    while True:
        account = await fresh_login(server, owner)
        waiting = asyncio.create_task(account.ask("GET", f"{path}/wait?timeout=60&after=1"))
        while not waiting.done() and await streams(server) != 1:
            await asyncio.sleep(0.05)
        if not waiting.done():  # else the token's time was over before the wait began
            break
    while (await account.ask("GET", path)).status == 200:
        await asyncio.sleep(0.2)
    assert not waiting.done()
    await inject(server, box, subject="not for who waits")
    ended = await waiting
    assert (ended.status, ended.error) == (401, "token_expired")


async def test_who_triggers_a_mail_and_then_waits_gets_that_mail(server: Server) -> None:
    """The old code is still there while the new one is on its way."""
    box = await server.mailbox()
    await inject(server, box, subject="Sign up", text="Your code is 111111")
    assert (await wait(server, box, "?extract=code&timeout=30")).data["code"] == "111111"
    for code in ("222222", "333333", "444444", "555555"):
        waiting = await begun(server, box, "?extract=code&timeout=60")
        assert not waiting.done(), "answered with the code before"
        await server.deliver(box, subject="Sign in", text=f"Your code is {code}")
        assert (await waiting).data["code"] == code


async def test_mail_that_was_faster_than_the_wait_counts(server: Server) -> None:
    box = await server.mailbox()
    for code in ("111111", "222222"):
        await inject(server, box, text=f"Your code is {code}")
        assert (await wait(server, box, "?extract=code&timeout=60")).data["code"] == code


async def test_another_question_may_be_answered_with_the_same_message(server: Server) -> None:
    box = await server.mailbox()
    await inject(server, box, subject="Both", text="Your code is 482193, or https://shop.example/verify?token=abc123")
    for query in ("?extract=code", "?extract=link", "?subject=both", "?timeout=50"):
        assert (await asyncio.wait_for(wait(server, box, query), 40)).data["message"]["seq"] == 1


async def test_where_nothing_new_comes_in_time_the_last_is_given_again(server: Server) -> None:
    box = await server.mailbox()
    await inject(server, box, subject="only")
    for query in ("?timeout=2", "?timeout=2s", "?timeout=0"):
        assert (await wait(server, box, query)).data["message"]["subject"] == "only"


async def test_a_code_that_was_read_elsewhere_is_not_waited_for(server: Server) -> None:
    box = await server.mailbox()
    read = await inject(server, box, text="Your code is 111111")
    await ask(server, "POST", f"/v1/mailboxes/{box.id}/messages/{read['id']}/read", box)
    waiting = await begun(server, box, "?extract=code&timeout=60")
    await server.deliver(box, text="Your code is 222222")
    assert (await waiting).data["code"] == "222222"


def test_unread_mail_is_new_for_minutes() -> None:
    def arrived(seconds: float, *, is_read: bool = False) -> Stored:
        at = clock.now() - timedelta(seconds=seconds)
        return Stored(ids.new(3), "box", 3, at, "", "", "", "", "", 1, is_read, Details())

    assert not waiting._old(arrived(waiting.RECENT - 60), 0)
    assert waiting._old(arrived(waiting.RECENT + 60), 0)
    assert waiting._old(arrived(1, is_read=True), 0)
    assert waiting._old(arrived(1), 3)
    assert not waiting._old(arrived(1), 2)


async def test_after_now_takes_only_what_comes(server: Server) -> None:
    box = await server.mailbox()
    await inject(server, box, subject="old")
    for query in ("?after=now&timeout=0", "?after=now&timeout=1"):
        assert (await wait(server, box, query)).status == 204
    for number in range(2):
        waiting = asyncio.create_task(wait(server, box, "?after=now&timeout=60"))
        while not waiting.done():  # the first mail may be there before the server has begun to wait
            await server.deliver(box, subject=f"new {number}")
            await asyncio.wait([waiting], timeout=0.3)
        assert (await waiting).data["message"]["subject"] == f"new {number}"
