"""The description and the server agree: whatever is asked within it or against it, no answer is one it does not know.

Requests are made from the document, by every kind of caller, half of them about things that exist; nothing is random
that a second run would not repeat.
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as bounds
from hypothesis.strategies import one_of
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.web import openapi
from server.web.api.routes import ROUTES
from tests.contract.promised import ROWS, Row
from tests.contract.world import PASSWORD, Owner, kind, owner
from tests.running import ROOT, Server

ENDLESS: Final = ("/v1/mailboxes/{id}/events",)  # an answer without an end; its own transcript tests it
ASKED: Final = [route for route in ROUTES if route.path not in ENDLESS]
BY_OPERATION: Final = {row.operation: row for row in ROWS if row.path not in ENDLESS}
CREDENTIALS: Final = {
    "none": ("nobody",),
    "optional": ("wrong", "nobody", "key", "jwt"),
    "mailbox": ("nobody", "wrong", "token", "key", "jwt"),
    "user": ("nobody", "wrong", "key", "jwt"),
    "admin": ("nobody", "jwt", "super"),
    "super": ("nobody", "jwt", "super"),
    "key": ("nobody", "wrong", "key"),
}
"""Who asks, the one who may most at last: what it is allowed to destroy, the others have asked for before."""

UNREACHED: Final = {
    ("POST", "/v1/auth/login"),  # the example's account is not there
    ("POST", "/v1/auth/refresh"),  # wants a token of a login
    ("POST", "/v1/mailboxes/{id}/messages/{mid}/tags"),  # wants the id of a tag in its body
    ("POST", "/v1/user/domains/{id}/verify"),  # wants records in DNS, as the next three
    ("POST", "/v1/admin/domains/{id}/verify"),
    ("POST", "/v1/admin/domains/{id}/set-default"),
    ("POST", "/v1/admin/domains/recover"),
    ("GET", "/v1/ws"),  # wants a WebSocket client
}
"""Operations whose success no request made from the document alone can bring about."""

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
schema: Final = schemathesis.openapi.from_dict(json.loads(json.dumps(openapi.document(ASKED))))
schema.config.generation.update(with_security_parameters=False)
schema.config.phases.coverage.enabled = False
OPERATIONS: Final = {
    f"{operation.method.upper()} {operation.path}": operation
    for operation in (found.ok() for found in schema.get_all_operations())
}
"""By name, which is a test's id: cases that share one are run once, whatever their number (pytest-xdist)."""


class Realm:
    """A server of this module's own, for its configuration is written at random, and its first administrator."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.admin = Owner(server.http)
        self.statuses: dict[tuple[str, str], set[int]] = {}

    async def crown(self, folder: Path) -> None:
        """Make the super user as an operator does, and log it in."""
        email = "root@example.org"
        settings = {f"TEMPMAIL_{name}": value for name, value in self.server._settings.items()}
        command = [sys.executable, "-m", "server", "admin", "create", email, "--role", "super"]
        env, typed = os.environ | settings, PASSWORD.encode()
        made = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=env, input=typed, capture_output=True)
        assert made.returncode == 0, made.stderr.decode()
        async with aiohttp.ClientSession() as client:
            session = await self.admin.call(client, "POST", "/v1/auth/login", {"email": email, "password": PASSWORD})
        self.admin.token = session["accessToken"]

    async def subject(self, row: Row) -> Owner:
        """Somebody to ask for, with everything; what an administrator is asked to change is there for it alone."""
        async with aiohttp.ClientSession() as client:
            if row.path.startswith("/v1/admin/"):
                await self.admin.call(client, "POST", "/v1/admin/config/reset")
            one = await owner(client, self.server.http)
            if row.path.startswith("/v1/admin/bans/"):
                ban = {"kind": "sender", "value": f"{secrets.token_hex(4)}@example.org", "reason": "to be described"}
                one.ids["ban"] = (await self.admin.call(client, "POST", "/v1/admin/bans", ban))["id"]
            if row.path.startswith("/v1/admin/domains/"):
                domain = {"domain": f"{secrets.token_hex(4)}.example", "notes": ""}
                one.ids["domain"] = (await self.admin.call(client, "POST", "/v1/admin/domains", domain))["id"]
        return one


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    folder = tmp_path_factory.mktemp("openapi")
    server = Server(folder).start()
    made = Realm(server)
    asyncio.run(made.crown(folder))
    yield made
    assert server.stop() == 0


def presented(realm: Realm, one: Owner, credential: str) -> dict[str, str]:
    if credential == "nobody":
        return {}
    if credential == "wrong":
        return {"Authorization": "Bearer wrong", "X-API-Key": "wrong"}
    return realm.admin.head("jwt") if credential == "super" else one.head(credential)


def chance(case: Any) -> int:
    """A number that is another for another case and the same for the same."""
    return crc32(repr((case.path_parameters, case.query, case.body)).encode())


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_one_that_is_described(name: str, realm: Realm) -> None:
    operation = OPERATIONS[name]
    row = BY_OPERATION[operation.method.upper(), operation.path]
    one = asyncio.run(realm.subject(row))
    asked = realm.statuses.setdefault(row.operation, set())

    @given(case=one_of(*operation.get_strategies_from_examples(), operation.as_strategy()))
    @bounds(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        number = chance(case)
        for variable in list(case.path_parameters):
            if number & 7:
                case.path_parameters[variable] = one.ids[kind(row.path, variable)]
        if row.path.endswith("/wait"):
            case.query["timeout"] = "100ms"  # it may well wait for minutes, as it is asked to
        for credential in CREDENTIALS[row.who]:
            head = presented(realm, one, credential)
            response = case.call(base_url=realm.server.http, headers=head, timeout=30)
            asked.add(response.status_code)
            case.validate_response(response, checks=CHECKS)

    ask()


def test_what_was_asked_was_also_answered_with_success(realm: Realm) -> None:
    assert set(realm.statuses) == set(BY_OPERATION), "every operation is asked, in this very process"
    refused = {operation for operation, statuses in realm.statuses.items() if min(statuses) >= 300}
    assert refused <= UNREACHED


def test_the_document_is_served_and_fits_what_was_asked(realm: Realm) -> None:
    async def served() -> tuple[str, Any]:
        async with aiohttp.ClientSession() as client, client.get(f"{realm.server.http}/openapi.json") as response:
            return response.headers["Content-Type"], await response.json()

    kind_of, document = asyncio.run(served())
    assert kind_of.startswith("application/json")
    assert document == json.loads(json.dumps(openapi.document(ROUTES)))
