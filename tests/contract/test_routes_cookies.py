"""What a browser adds by itself is no consent: every route, asked with an account's cookie by pages of anyone.

Generated from routes.txt: every method, every kind of caller, and the pages of this very origin beside those of others.
"""

from typing import Any, Final

import pytest

from tests.contract.people import Person, person
from tests.contract.promised import ROWS, SAFE, Row
from tests.contract.transcript import Answer, ask
from tests.contract.world import UNKNOWN
from tests.running import Server

TAKEN: Final = [row for row in ROWS if row.who in ("optional", "mailbox", "user", "admin", "super")]
CHANGES: Final = [row for row in TAKEN if row.method not in SAFE]
READS: Final = [row for row in TAKEN if row.method in SAFE]
BY_KEY: Final = [row for row in ROWS if row.who == "key"]
FOREIGN: Final[tuple[dict[str, str], ...]] = (
    {},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
)


@pytest.fixture(scope="module")
def known() -> dict[str, Person]:
    """The account of the tests that change nothing."""
    return {}


async def someone(server: Server, known: dict[str, Person]) -> Person:
    if "one" not in known:
        known["one"] = await person(server)
    return known["one"]


async def asked(server: Server, row: Row, one: Person, head: dict[str, str], **what: Any) -> Answer:
    cookie = {"Cookie": f"theme=dark; access_token={one.access}"}
    return await ask(server, row.method, row.filled(UNKNOWN), headers=cookie | head, **what)


@pytest.mark.parametrize("row", CHANGES, ids=[row.name for row in CHANGES])
async def test_a_page_of_another_origin_changes_nothing(server: Server, known: dict[str, Person], row: Row) -> None:
    one = await someone(server, known)
    for head in FOREIGN:
        answer = await asked(server, row, one, head, json={})
        assert (answer.status, answer.error) == (403, "origin_not_allowed"), head
    assert (await ask(server, "GET", "/v1/auth/me", headers=one.auth)).status == 200


@pytest.mark.parametrize("row", CHANGES, ids=[row.name for row in CHANGES])
async def test_a_page_of_this_origin_acts_as_its_reader(server: Server, row: Row) -> None:
    """The same answer as with the access token itself, which no other site's page can send."""
    for own in ({"Origin": server.http}, {"Sec-Fetch-Site": "same-origin"}):
        one, two = await person(server), await person(server)
        by_cookie = await asked(server, row, one, own, json={})
        by_token = await ask(server, row.method, row.filled(UNKNOWN), headers=two.auth, json={})
        assert by_cookie.status == by_token.status
        assert by_cookie.status not in (401, 429)
        if by_cookie.status >= 400:
            assert by_cookie.error == by_token.error
            assert by_cookie.error != "origin_not_allowed"


@pytest.mark.parametrize("row", READS, ids=[row.name for row in READS])
async def test_reading_needs_no_origin(server: Server, known: dict[str, Person], row: Row) -> None:
    one = await someone(server, known)
    by_token = await ask(server, row.method, row.filled(UNKNOWN), headers=one.auth)
    assert by_token.status != 401
    for head in FOREIGN:
        answer = await asked(server, row, one, head)
        assert answer.status == by_token.status, head


@pytest.mark.parametrize("row", BY_KEY, ids=[row.name for row in BY_KEY])
async def test_where_a_key_alone_opens_a_cookie_is_nothing(server: Server, known: dict[str, Person], row: Row) -> None:
    one = await someone(server, known)
    answer = await asked(server, row, one, {"Origin": server.http})
    assert answer.status == 401
