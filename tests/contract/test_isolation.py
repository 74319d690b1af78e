"""Nobody learns whether a thing of somebody else's exists: every route, every id in it, every way to write that id.

Generated from the contract's table (routes.txt): a route that is added is covered, or fails here until ``BODIES`` has
what it wants.
"""

from collections.abc import Iterator
from typing import Any, Final

import aiohttp
import pytest
from yarl import URL

from tests.contract.promised import ROWS, Row
from tests.contract.world import UNKNOWN, Owner, kind, owner
from tests.running import Server

BODIES: Final[dict[tuple[str, str], Any]] = {
    ("PATCH", "/v1/mailboxes/{id}"): {"expiresIn": "2h"},
    ("POST", "/v1/mailboxes/{id}/messages"): {"from": "a@example.org"},
    ("POST", "/v1/mailboxes/{id}/messages/{mid}/tags"): lambda mine: {"tagId": mine.ids["tag"]},
    ("POST", "/v1/mailboxes/{id}/aliases"): {"address": "somebody@temp.mail"},
    ("PATCH", "/v1/mailboxes/{id}/aliases/{aid}"): {"isActive": False},
    ("PATCH", "/v1/tags/{id}"): {"name": "mine now"},
    ("PATCH", "/v1/webhooks/{id}"): {"isActive": False},
    ("PATCH", "/v1/user/domains/{id}"): {"mode": "shared"},
    ("PATCH", "/v1/admin/users/{id}"): {"isActive": False},
    ("PUT", "/v1/admin/users/{id}/quota"): {},
    ("PATCH", "/v1/admin/mailboxes/{id}"): {"isActive": False},
    ("PATCH", "/v1/admin/domains/{id}/toggle"): {"isActive": False},
}
CREDENTIALS: Final = {"mailbox": ("token", "jwt", "key"), "key": ("key",)}
NOT_OURS: Final = ("attachment", "file")  # numbers and names that mean nothing outside of what they are in
HEADS: Final[tuple[dict[str, str], ...]] = ({}, {"Range": "bytes=0-1"}, {"If-None-Match": "*"})


def body_for(row: Row, mine: Owner) -> Any:
    wanted = BODIES.get((row.method, row.path))
    return wanted(mine) if callable(wanted) else wanted


def variables(row: Row) -> list[str]:
    named = [segment[1:-1] for segment in row.path.split("/") if segment.startswith("{")]
    return [name for name in named if kind(row.path, name) not in NOT_OURS]


CASES: Final = [(row, name) for row in ROWS for name in variables(row)]


def spellings(identity: str) -> Iterator[str]:
    """Ways to write an id in a path that a careless reader would take for it."""
    yield identity
    yield "".join(f"%{ord(char):02x}" for char in identity)
    yield identity.upper()
    yield identity + "%00"
    yield identity + "%20"
    yield "..%2f" + identity
    yield identity + "%2f"


def attempts(row: Row, mine: Owner) -> Iterator[tuple[str, dict[str, str]]]:
    """Method and headers: every credential that the route takes, HEAD beside GET, and conditions on the answer."""
    for credential in CREDENTIALS.get(row.who, ("jwt",)):
        for method in ("GET", "HEAD") if row.method == "GET" and not row.stays else (row.method,):
            for head in HEADS:
                yield method, mine.head(credential) | head


@pytest.fixture(scope="module")
def pair() -> dict[str, Owner]:
    """The two accounts, made by the first test that asks."""
    return {}


async def owners(client: aiohttp.ClientSession, server: Server, pair: dict[str, Owner]) -> tuple[Owner, Owner]:
    for name in ("mine", "theirs"):
        if name not in pair:
            pair[name] = await owner(client, server.http)
    return pair["mine"], pair["theirs"]


async def answered(
    client: aiohttp.ClientSession, method: str, url: str, head: dict[str, str], body: Any
) -> tuple[int, bytes, frozenset[str]]:
    async with client.request(method, URL(url, encoded=True), headers=head, json=body) as response:
        return response.status, await response.read(), frozenset(response.headers)


async def belongings(client: aiohttp.ClientSession, one: Owner) -> list[Any]:
    """Everything an account can see of its own, but for counters that run by themselves."""
    box = f"/v1/mailboxes/{one.ids['mailbox']}"
    paths = ("/v1/auth/me", "/v1/mailboxes", box, f"{box}/messages", f"{box}/aliases", "/v1/tags", "/v1/api-keys")
    more = ("/v1/webhooks", "/v1/user/domains", f"{box}/messages/{one.ids['message']}/tags")
    found = [await one.call(client, "GET", path) for path in (*paths, *more)]
    for webhook in found[7]["items"] if isinstance(found[7], dict) else found[7]:
        for name in ("retryCount", "lastError", "lastSuccess", "updatedAt", "isActive"):  # the target does not exist
            webhook.pop(name, None)
    return found


@pytest.mark.parametrize(("row", "name"), CASES, ids=[f"{r.method} {r.path} {n}" for r, n in CASES])
async def test_what_is_somebody_elses_answers_as_what_does_not_exist(
    server: Server, pair: dict[str, Owner], row: Row, name: str
) -> None:
    async with aiohttp.ClientSession() as client:
        mine, theirs = await owners(client, server, pair)
        before = await belongings(client, theirs)
        body = body_for(row, mine)
        foreign = theirs.ids[kind(row.path, name)]
        tried = [*spellings(foreign), *(one for what, one in theirs.ids.items() if what not in NOT_OURS)]
        seen = set()
        for method, head in attempts(row, mine):
            url = mine.base + mine.path(row.path, **{name: UNKNOWN})
            unknown = await answered(client, method, url, head, body)
            seen.add(unknown[0])
            for one in tried:
                url = mine.base + mine.path(row.path, **{name: one})
                assert await answered(client, method, url, head, body) == unknown, (method, url, head)
        assert seen in ({403},) if row.who in ("admin", "super") else seen in ({404}, {404, 401})
        assert await belongings(client, theirs) == before


@pytest.mark.parametrize(("row", "name"), CASES, ids=[f"{r.method} {r.path} {n}" for r, n in CASES])
async def test_segments_after_a_foreign_id_tell_nothing(
    server: Server, pair: dict[str, Owner], row: Row, name: str
) -> None:
    async with aiohttp.ClientSession() as client:
        mine, theirs = await owners(client, server, pair)
        body = body_for(row, mine)
        for tail in ("/", "/x", ";x", ".json", "%2f", "/..", "//"):
            sent = mine.head("key" if row.who == "key" else "jwt")
            unknown = mine.base + mine.path(row.path, **{name: UNKNOWN}) + tail
            foreign = mine.base + mine.path(row.path, **{name: theirs.ids[kind(row.path, name)]}) + tail
            expected = await answered(client, row.method, unknown, sent, body)
            assert await answered(client, row.method, foreign, sent, body) == expected, (tail, row.path)
            assert expected[0] in (403, 404, 405), (tail, expected)


def test_every_kind_of_id_is_known_here() -> None:
    own = {"mailbox", "message", "alias", "tag", "key", "webhook", "delivery", "domain", "user", "ban"}
    assert {kind(row.path, name) for row, name in CASES} <= own


async def test_a_foreign_tag_in_a_body_is_as_an_unknown_one(server: Server, pair: dict[str, Owner]) -> None:
    async with aiohttp.ClientSession() as client:
        mine, theirs = await owners(client, server, pair)
        url = mine.base + mine.path("/v1/mailboxes/{id}/messages/{mid}/tags")
        answers = [
            await answered(client, "POST", url, mine.head("jwt"), {"tagId": tag})
            for tag in (UNKNOWN, theirs.ids["tag"], theirs.ids["tag"].upper(), theirs.ids["mailbox"])
        ]
        assert answers[0][0] == 404
        assert all(answer == answers[0] for answer in answers)
