"""What an API key may do: every route, by a table written by hand, and no step from a few scopes to all of them.

A route that is added is missing here until somebody has decided which scopes a key needs for it. What an answer holds
counts: one that gives what opens a mailbox (a token, a link) needs every scope, or a key could widen itself.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import aiohttp
import pytest

from server.web.routes import ROUTES
from tests.contract.test_isolation import BODIES
from tests.contract.world import Owner, letter, owner
from tests.running import Server

BOX_READ, BOX_WRITE, MAIL_READ, MAIL_WRITE = "mailbox:read", "mailbox:write", "mail:read", "mail:write"
SCOPES: Final = (BOX_READ, BOX_WRITE, MAIL_READ, MAIL_WRITE)
OPEN: Final = "open"  # no credential counts
NEVER: Final = "never"  # no key may: an access token

_BOX: Final = "/v1/mailboxes/{id}"
_MAIL: Final = _BOX + "/messages"
_ONE: Final = _MAIL + "/{mid}"

NEEDS: Final[dict[tuple[str, str], str | tuple[str, ...]]] = {
    ("GET", "/v1/mailboxes"): (BOX_READ,),
    ("GET", _BOX): (BOX_READ,),
    ("GET", _BOX + "/aliases"): (BOX_READ,),
    ("GET", _BOX + "/aliases/{aid}"): (BOX_READ,),
    ("PATCH", _BOX): (BOX_WRITE,),
    ("POST", _BOX + "/aliases"): (BOX_WRITE,),
    ("PATCH", _BOX + "/aliases/{aid}"): (BOX_WRITE,),
    ("DELETE", _BOX + "/aliases/{aid}"): (BOX_WRITE,),
    ("DELETE", _BOX): (BOX_WRITE,),
    ("POST", "/v1/mailboxes"): (BOX_WRITE,),  # its answer has no token unless the key has every scope
    ("POST", _BOX + "/token"): SCOPES,
    ("GET", "/v1/messages"): (MAIL_READ,),
    ("GET", _MAIL): (MAIL_READ,),
    ("GET", _MAIL + "/search"): (MAIL_READ,),
    ("GET", _ONE): (MAIL_READ,),
    ("GET", _ONE + "/raw"): (MAIL_READ,),
    ("GET", _ONE + "/attachments/{aid}"): (MAIL_READ,),
    ("GET", _ONE + "/tags"): (MAIL_READ,),
    ("GET", _BOX + "/wait"): (MAIL_READ,),
    ("GET", _BOX + "/events"): (MAIL_READ,),
    ("GET", _BOX + "/trace"): (MAIL_READ,),
    ("POST", _MAIL): (MAIL_WRITE,),
    ("POST", _ONE + "/read"): (MAIL_WRITE,),
    ("POST", _ONE + "/tags"): (MAIL_WRITE,),
    ("DELETE", _ONE + "/tags/{tid}"): (MAIL_WRITE,),
    ("DELETE", _ONE): (MAIL_WRITE,),
    ("DELETE", _MAIL): (MAIL_WRITE,),
    ("GET", "/api/config"): (BOX_READ,),
    ("GET", "/api/emails"): (BOX_READ,),
    ("POST", "/api/emails/generate"): (BOX_WRITE,),  # as POST /v1/mailboxes
    ("DELETE", "/api/emails/{id}"): (BOX_WRITE,),
    ("GET", "/api/emails/{id}"): (MAIL_READ,),
    ("GET", "/api/emails/{id}/{mid}"): (MAIL_READ,),  # marks as read for a key that may
    ("DELETE", "/api/emails/{id}/{mid}"): (MAIL_WRITE,),
    **dict.fromkeys(
        [
            *(("GET", path) for path in ("/", "/openapi.json", "/docs", "/static/{file}", "/metrics")),
            *(("GET", path) for path in ("/health", "/health/live", "/health/ready")),
            *(("GET", path) for path in ("/v1/public/domains", "/v1/public/config", "/v1/ws")),
            *(("POST", f"/v1/auth/{verb}") for verb in ("register", "login", "refresh")),
        ],
        OPEN,
    ),
    **dict.fromkeys(
        [
            ("POST", "/v1/auth/logout"),
            ("GET", "/v1/auth/me"),
            *((method, "/v1/api-keys") for method in ("GET", "POST")),
            *((method, "/v1/api-keys/{id}") for method in ("GET", "DELETE")),
            *((method, "/v1/tags") for method in ("GET", "POST")),
            *((method, "/v1/tags/{id}") for method in ("GET", "PATCH", "DELETE")),
            ("GET", "/v1/tags/{id}/messages"),
            *((method, "/v1/webhooks") for method in ("GET", "POST")),
            *((method, "/v1/webhooks/{id}") for method in ("GET", "PATCH", "DELETE")),
            ("GET", "/v1/webhooks/{id}/deliveries"),
            ("POST", "/v1/webhooks/{id}/test"),
            ("POST", "/v1/webhooks/{id}/rotate-secret"),
            ("POST", "/v1/webhooks/deliveries/{id}/replay"),
            *((method, "/v1/user/domains") for method in ("GET", "POST")),
            *((method, "/v1/user/domains/{id}") for method in ("GET", "PATCH", "DELETE")),
            ("POST", "/v1/user/domains/{id}/verify"),
            ("GET", "/v1/user/domains/{id}/instructions"),
            ("GET", "/v1/admin/users"),
            *((method, "/v1/admin/users/{id}") for method in ("GET", "PATCH", "DELETE")),
            *((method, "/v1/admin/users/{id}/quota") for method in ("GET", "PUT")),
            ("GET", "/v1/admin/statistics"),
            ("GET", "/v1/admin/audit"),
            ("GET", "/v1/admin/trace"),
            ("GET", "/v1/admin/mailboxes"),
            *((method, "/v1/admin/mailboxes/{id}") for method in ("GET", "PATCH", "DELETE")),
            *((method, "/v1/admin/bans") for method in ("GET", "POST")),
            ("DELETE", "/v1/admin/bans/{id}"),
            *((method, "/v1/admin/config") for method in ("GET", "PUT")),
            ("POST", "/v1/admin/config/reset"),
            *((method, "/v1/admin/domains") for method in ("GET", "POST")),
            ("POST", "/v1/admin/domains/recover"),
            *((method, "/v1/admin/domains/{id}") for method in ("GET", "DELETE")),
            ("POST", "/v1/admin/domains/{id}/verify"),
            ("GET", "/v1/admin/domains/{id}/instructions"),
            ("PATCH", "/v1/admin/domains/{id}/toggle"),
            ("POST", "/v1/admin/domains/{id}/set-default"),
        ],
        NEVER,
    ),
}

MORE_BODIES: Final[dict[tuple[str, str], Any]] = {
    ("POST", "/v1/mailboxes"): {},
    ("POST", "/api/emails/generate"): {},
    ("POST", _BOX + "/aliases"): lambda _: {"address": f"also-{secrets.token_hex(6)}@temp.mail"},
    ("POST", _MAIL): {"from": "a@example.org", "subject": "written by a key"},
}
SCOPED: Final = [operation for operation, needs in NEEDS.items() if isinstance(needs, tuple)]
BRIEF: Final = "?timeout=1"  # a wait that finds its mail at once


def test_every_route_has_its_row_and_every_row_its_route() -> None:
    assert {(route.method, route.path) for route in ROUTES} == set(NEEDS)


@pytest.mark.parametrize("route", ROUTES, ids=[f"{route.method} {route.path}" for route in ROUTES])
def test_the_route_table_asks_a_key_for_what_was_decided(route: Any) -> None:
    needs = NEEDS[route.method, route.path]
    assert set(route.scopes) == (set(needs) if isinstance(needs, tuple) else set())
    assert (route.auth == "none") == (needs == OPEN)


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        yield session


async def _key(client: aiohttp.ClientSession, one: Owner, scopes: list[str]) -> dict[str, str]:
    return {"X-API-Key": (await one.call(client, "POST", "/v1/api-keys", {"name": "few", "scopes": scopes}))["key"]}


def _secrets(answer: Any) -> Iterator[str]:
    """Whatever in an answer might open something."""
    if isinstance(answer, dict):
        for name, value in answer.items():
            if isinstance(value, str) and any(word in name.lower() for word in ("token", "secret", "key", "url")):
                yield name
            yield from _secrets(value)
    elif isinstance(answer, list):
        for value in answer:
            yield from _secrets(value)


async def _asked(
    client: aiohttp.ClientSession, one: Owner, operation: tuple[str, str], head: dict[str, str]
) -> tuple[int, Any]:
    method, template = operation
    wanted = (BODIES | MORE_BODIES).get(operation)
    body = wanted(one) if callable(wanted) else wanted
    path = one.path(template) + (BRIEF if template.endswith("/wait") else "")
    async with client.request(method, one.base + path, json=body, headers=head) as response:
        if response.content_type == "application/json":
            return response.status, await response.json()
        return response.status, None


@pytest.mark.parametrize("operation", SCOPED, ids=" ".join)
async def test_a_key_needs_exactly_what_the_table_says_and_gets_nothing_that_opens_more(
    server: Server, client: aiohttp.ClientSession, operation: tuple[str, str]
) -> None:
    one = await owner(client, server.http)
    needs = NEEDS[operation]
    for scope in needs:
        lacking = await _key(client, one, [other for other in SCOPES if other != scope])
        status, _ = await _asked(client, one, operation, lacking)
        assert status == 403, scope
    enough = await _key(client, one, list(needs))
    status, answer = await _asked(client, one, operation, enough)
    assert status < 300, answer
    if set(needs) != set(SCOPES):
        assert not list(_secrets(answer)), answer


@pytest.mark.parametrize("operation", [one for one in NEEDS if NEEDS[one] == NEVER], ids=" ".join)
async def test_no_key_however_wide_does_what_is_for_the_account_itself(
    server: Server, client: aiohttp.ClientSession, pair: dict[str, Owner], operation: tuple[str, str]
) -> None:
    if not pair:
        pair["one"] = await owner(client, server.http)
    one = pair["one"]
    status, _ = await _asked(client, one, operation, one.head("key"))
    assert status == 403


@pytest.fixture(scope="module")
def pair() -> dict[str, Owner]:
    return {}


@pytest.mark.parametrize("path", ["/v1/mailboxes", "/api/emails/generate"])
async def test_only_a_key_with_every_scope_is_given_the_token_of_a_mailbox_it_makes(
    server: Server, client: aiohttp.ClientSession, path: str
) -> None:
    one = await owner(client, server.http)
    for scope in SCOPES:
        few = [other for other in SCOPES if other != scope or other == BOX_WRITE]
        given = await _asked(client, one, ("POST", path), await _key(client, one, few))
        assert given[0] in (200, 201)
        made = given[1].get("data", given[1])
        assert ("token" in made) == (set(few) == set(SCOPES)), few
        await one.call(client, "DELETE", f"/v1/mailboxes/{made['id']}")


async def test_a_key_that_may_only_write_mailboxes_never_comes_to_their_mail(
    server: Server, client: aiohttp.ClientSession
) -> None:
    """The attack: rotate the token, read with it, and go on after the key was revoked."""
    one = await owner(client, server.http)
    head = await _key(client, one, [BOX_WRITE])
    async with client.post(f"{server.http}{one.path(_BOX)}/token", headers=head) as response:
        refused = await response.json()
        assert response.status == 403
        assert "mailbox:read mail:read mail:write" in refused["detail"]
    async with client.get(f"{server.http}{one.path(_MAIL)}", headers=one.head("token")) as response:
        assert response.status == 200, "the owner's token stays as it was"


async def test_a_key_that_may_only_read_changes_nothing(server: Server, client: aiohttp.ClientSession) -> None:
    one = await owner(client, server.http)
    head = await _key(client, one, [MAIL_READ])
    box = f"/v1/mailboxes/{one.ids['mailbox']}"
    message = await one.call(client, "POST", f"{box}/messages", {"raw": letter("unread")})
    before = await one.call(client, "GET", f"{box}/messages")
    for template in (path for (method, path), needs in NEEDS.items() if (method, needs) == ("GET", (MAIL_READ,))):
        if not template.endswith("/events"):
            status, _ = await _asked(client, one, ("GET", template), head)
            assert status == 200, template
    async with client.get(f"{server.http}/api/emails/{one.ids['mailbox']}/{message['id']}", headers=head) as response:
        assert not (await response.json())["isRead"]
    assert await one.call(client, "GET", f"{box}/messages") == before


MISPLACED: Final = {
    "an API key as Bearer": lambda one: {"Authorization": f"Bearer {one.key}"},
    "an API key without a scheme": lambda one: {"Authorization": one.key},
    "an API key as password": lambda _: {"Authorization": "Basic dG06eA=="},
    "an API key as a mailbox's token": lambda one: {"X-Mailbox-Token": one.key},
    "a wrong API key": lambda one: {"X-API-Key": one.key + "x"},
    "an empty API key": lambda _: {"X-API-Key": ""},
    "an empty Bearer": lambda _: {"Authorization": "Bearer "},
    "a mailbox's token": lambda one: one.head("token"),
    "an access token as API key": lambda one: {"X-API-Key": one.token},
    "a refresh token": lambda one: {"Authorization": f"Bearer {one.refresh}"},
    "a broken access token": lambda one: {"Authorization": f"Bearer {one.token}x"},
    "three empty parts": lambda _: {"Authorization": "Bearer .."},
    "a wrong cookie": lambda _: {"Cookie": "access_token=rubbish", "Sec-Fetch-Site": "same-origin"},
}


@pytest.mark.parametrize("name", MISPLACED)
async def test_a_credential_that_is_no_accounts_never_makes_a_guests_mailbox(
    server: Server, client: aiohttp.ClientSession, pair: dict[str, Owner], name: str
) -> None:
    if not pair:
        pair["one"] = await owner(client, server.http)
    head = MISPLACED[name](pair["one"])
    async with client.post(f"{server.http}/v1/mailboxes", headers=head, json={}) as response:
        answer = await response.json()
        assert (response.status, answer["data"]) == (401, None)
    if name == "an API key as Bearer":
        assert "X-API-Key" in answer["detail"]


async def test_who_sends_no_credential_is_a_guest(server: Server, client: aiohttp.ClientSession) -> None:
    for head in ({}, {"Cookie": "theme=dark"}, {"Accept-Language": "zh"}):
        async with client.post(f"{server.http}/v1/mailboxes", headers=head) as response:
            assert response.status == 201
            assert (await response.json())["data"]["token"]
    async with client.post(f"{server.http}/v1/mailboxes?token=x") as response:
        assert response.status == 401
