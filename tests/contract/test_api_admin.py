"""Administration over HTTP: who may do what to whom, what counts from the answer on, and what is noted of it."""

import asyncio
import secrets
import smtplib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from server.model import ids
from tests.contract.accounts import Account, register
from tests.contract.administrators import PASSWORD, Installation, administrator
from tests.contract.transcript import Answer, ask, inject
from tests.running import Server

USER = {"id", "email", "tier", "isActive", "isEmailVerified", "role", "createdAt", "updatedAt"}
QUOTA = {
    "maxMailboxes": 7,
    "maxMessagesPerMailbox": 8,
    "maxApiRequestsPerMinute": 900,
    "maxConcurrentRequests": 10,
}


@dataclass(frozen=True)
class People:
    """A server with two administrators and a user of its own for each test."""

    server: Server
    root: Account
    admin: Account
    user: Account


@pytest.fixture(scope="module")
def crew() -> dict[str, Account]:
    return {}


@pytest.fixture
async def people(installation: Installation, crew: dict[str, Account]) -> People:
    for role in ("super", "admin"):
        if role not in crew:
            crew[role] = await installation.account(role)
    return People(installation.server, crew["super"], crew["admin"], await register(installation.server))


async def every_worker(question: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    """The answers of many connections, which the kernel spreads over all workers."""
    return [await question() for _ in range(12)]


async def test_a_list_of_accounts_is_searched_and_paged(people: People) -> None:
    word = secrets.token_hex(6)
    for number in range(3):
        body = {"email": f"{word}.{number}@example.org", "password": PASSWORD, "username": f"U{word}{number}"}
        assert (await ask(people.server, "POST", "/v1/auth/register", json=body)).status == 201
    path = f"/v1/admin/users?search={word.upper()}&pageSize=2"
    first = (await people.admin.ask("GET", path)).data
    assert {name: first[name] for name in ("total", "page", "pageSize", "totalPages")} == {
        **{"total": 3, "page": 1},
        **{"pageSize": 2, "totalPages": 2},
    }
    second = (await people.admin.ask("GET", path + "&page=2")).data
    assert [one["username"] for one in first["users"] + second["users"]] == [f"U{word}{n}" for n in (2, 1, 0)]
    assert set(first["users"][0]) == USER | {"username", "lastLoginAt"}
    beyond = (await people.admin.ask("GET", path + "&page=9")).data
    assert (beyond["users"], beyond["total"]) == ([], 3)
    by_name = (await people.admin.ask("GET", f"/v1/admin/users?search=u{word}1")).data
    assert [one["email"] for one in by_name["users"]] == [f"{word}.1@example.org"]
    assert (await people.admin.ask("GET", "/v1/admin/users?search=%25_%25")).data["total"] == 0


async def test_a_list_of_accounts_is_filtered(people: People) -> None:
    await people.root.ask("PATCH", f"/v1/admin/users/{people.user.id}", json={"tier": "pro", "isActive": False})
    for query, expected in (
        ("role=super", {"role": "super"}),
        ("tier=pro", {"tier": "pro"}),
        ("isActive=false", {"isActive": False}),
        ("role=user&tier=pro&isActive=false", {"role": "user", "tier": "pro", "isActive": False}),
    ):
        found = (await people.admin.ask("GET", f"/v1/admin/users?pageSize=100&{query}")).data["users"]
        assert found
        assert all(expected.items() <= one.items() for one in found)
    for query, field in (("role=god", "role"), ("tier=gold", "tier"), ("isActive=x", "isActive"), ("page=0", "page")):
        answer = await people.admin.ask("GET", f"/v1/admin/users?{query}")
        assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", field)


async def test_a_changed_account_is_changed_for_every_worker_at_once(people: People) -> None:
    path, me = f"/v1/admin/users/{people.user.id}", lambda: people.user.ask("GET", "/v1/auth/me")
    assert (await people.admin.ask("GET", path)).data["tier"] == "free"
    for tier in ("basic", "pro", "enterprise", "free"):
        body = {"tier": tier, "isEmailVerified": tier == "pro", "unknown": 1}
        changed = (await people.admin.ask("PATCH", path, json=body)).data
        assert (changed["tier"], changed["isEmailVerified"]) == (tier, tier == "pro")
        assert {answer.data["tier"] for answer in await every_worker(me)} == {tier}


async def test_a_disabled_account_is_shut_out_of_every_worker_at_once(people: People) -> None:
    path, me = f"/v1/admin/users/{people.user.id}", lambda: people.user.ask("GET", "/v1/auth/me")
    assert {answer.status for answer in await every_worker(me)} == {200}
    assert (await people.admin.ask("PATCH", path, json={"isActive": False})).data["isActive"] is False
    assert {answer.status for answer in await every_worker(me)} == {401}
    assert (await people.admin.ask("PATCH", path, json={"isActive": True})).status == 200
    assert {answer.status for answer in await every_worker(me)} == {200}


async def test_a_quota_of_ones_own_counts_at_once_instead_of_the_tiers(people: People) -> None:
    path = f"/v1/admin/users/{people.user.id}/quota"
    assert (await people.admin.ask("GET", path)).data == {
        "userId": people.user.id,
        **{"maxMailboxes": 3, "maxMessagesPerMailbox": 30, "maxApiRequestsPerMinute": 30, "maxConcurrentRequests": 5},
    }
    for _ in range(3):
        await people.user.mailbox()
    full = await people.user.ask("POST", "/v1/mailboxes", json={})
    assert (full.status, full.error) == (403, "quota_reached")
    granted = await people.admin.ask("PUT", path, json=QUOTA)
    assert granted.data == {"userId": people.user.id, **QUOTA}
    assert (await people.admin.ask("GET", path)).data == granted.data
    made = [await people.user.ask("POST", "/v1/mailboxes", json={}) for _ in range(5)]
    assert [answer.status for answer in made] == [201] * 4 + [403]


async def test_a_part_of_a_quota_changes_and_the_rest_stays(people: People) -> None:
    path = f"/v1/admin/users/{people.user.id}/quota"
    before = (await people.admin.ask("GET", path)).data
    for field in QUOTA:
        changed = (await people.admin.ask("PUT", path, json={field: QUOTA[field]})).data
        before |= {field: QUOTA[field]}
        assert changed == before
    assert (await people.admin.ask("PUT", path, json={})).data == before
    assert (await people.admin.ask("GET", path)).data == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"maxMailboxes": None}, "maxMailboxes"),
        ({"maxMailboxes": -1}, "maxMailboxes"),
        (QUOTA | {"maxMessagesPerMailbox": -1}, "maxMessagesPerMailbox"),
        (QUOTA | {"maxConcurrentRequests": 10**12}, "maxConcurrentRequests"),
        (QUOTA | {"maxApiRequestsPerMinute": "many"}, "maxApiRequestsPerMinute"),
    ],
)
async def test_a_quota_that_cannot_be_names_the_field(people: People, body: dict[str, Any], field: str) -> None:
    answer = await people.admin.ask("PUT", f"/v1/admin/users/{people.user.id}/quota", json=body)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", field)


@pytest.mark.parametrize(
    ("body", "field"), [({"tier": "gold"}, "tier"), ({"role": 7}, "role"), ({"isActive": "no"}, "isActive")]
)
async def test_a_change_that_cannot_be_names_the_field(people: People, body: dict[str, Any], field: str) -> None:
    answer = await people.root.ask("PATCH", f"/v1/admin/users/{people.user.id}", json=body)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", field)


ROUTES = (
    *(("GET", "users"), ("GET", "users/{id}"), ("PATCH", "users/{id}"), ("DELETE", "users/{id}")),
    *(("GET", "users/{id}/quota"), ("PUT", "users/{id}/quota"), ("GET", "statistics"), ("GET", "audit")),
    *(("GET", "config"), ("PUT", "config"), ("POST", "config/reset")),
)
SUPER = {("DELETE", "users/{id}"), ("PUT", "config"), ("POST", "config/reset")}


async def test_no_administration_without_the_role(people: People) -> None:
    key = (await people.root.ask("POST", "/v1/api-keys", json={"name": "a key"})).data["key"]
    for method, route in ROUTES:
        path = f"/v1/admin/{route}".replace("{id}", people.user.id)
        assert (await ask(people.server, method, path)).status == 401
        for headers in (people.user.auth, {"X-API-Key": key}):
            refused = await ask(people.server, method, path, headers=headers, json={})
            assert (refused.status, refused.error) == (403, "permission_denied"), (method, path)
        if (method, route) in SUPER:
            assert (await people.admin.ask(method, path, json={})).error == "permission_denied"


async def test_an_unknown_account_is_404(people: People) -> None:
    for user_id in (ids.new(), "x", "'"):
        for method, rest, body in (
            *(("GET", "", None), ("PATCH", "", {"tier": "pro"}), ("DELETE", "", None)),
            *(("GET", "/quota", None), ("PUT", "/quota", QUOTA)),
        ):
            answer = await people.root.ask(method, f"/v1/admin/users/{user_id}{rest}", json=body)
            assert (answer.status, answer.error) == (404, "user_not_found")


async def test_only_a_super_user_gives_roles_and_acts_on_administrators(people: People) -> None:
    user, root = f"/v1/admin/users/{people.user.id}", f"/v1/admin/users/{people.root.id}"
    promoted = await people.admin.ask("PATCH", user, json={"role": "admin"})
    assert (promoted.status, promoted.error, promoted.json["field"]) == (403, "permission_denied", "role")
    assert (await people.admin.ask("PATCH", user, json={"role": "user"})).status == 200
    for method, path, body in (("PATCH", root, {"tier": "pro"}), ("PUT", root + "/quota", QUOTA)):
        assert (await people.admin.ask(method, path, json=body)).error == "permission_denied"
    assert (await people.root.ask("PATCH", user, json={"role": "admin"})).data["role"] == "admin"
    assert (await people.user.ask("GET", "/v1/admin/statistics")).status == 200
    assert (await people.root.ask("PATCH", user, json={"role": "user"})).status == 200
    assert (await people.user.ask("GET", "/v1/admin/statistics")).status == 403


async def test_nobody_changes_his_own_role_shuts_himself_out_or_deletes_himself(people: People) -> None:
    for account in (people.root, people.admin):
        path = f"/v1/admin/users/{account.id}"
        assert (await account.ask("PATCH", path, json={"role": "user"})).error == "permission_denied"
        assert (await account.ask("PATCH", path, json={"isActive": False})).error == "permission_denied"
        assert (await account.ask("PATCH", path, json={"tier": "enterprise"})).status == 200
    assert (await people.root.ask("DELETE", f"/v1/admin/users/{people.root.id}")).error == "permission_denied"


async def test_two_super_users_who_would_remove_each_other_leave_one(own_server: Callable[..., Server]) -> None:
    server = own_server()
    for acts in ({"role": "user"}, {"isActive": False}, None):
        supers = [await administrator(server, "super") for _ in range(2)]
        listed = (await supers[0].ask("GET", "/v1/admin/users?role=super&isActive=true")).data["users"]
        for one in listed:
            if one["id"] not in {account.id for account in supers}:
                path = f"/v1/admin/users/{one['id']}"
                assert (await supers[0].ask("PATCH", path, json={"role": "user"})).status == 200
        method = "DELETE" if acts is None else "PATCH"
        paths = [f"/v1/admin/users/{account.id}" for account in supers]
        await asyncio.gather(*(supers[n].ask(method, paths[1 - n], json=acts) for n in range(2)))
        left = [await account.ask("GET", "/v1/admin/users?role=super&isActive=true") for account in supers]
        assert {answer.data["total"] for answer in left if answer.status == 200} == {1}


async def test_a_deleted_account_is_gone_with_all_it_had(people: People) -> None:
    box = await people.user.mailbox()
    await inject(people.server, box, subject="x")
    domain = await people.user.ask(
        "POST", "/v1/user/domains", json={"domain": f"{secrets.token_hex(5)}.example", "mode": "shared"}
    )
    assert domain.status == 201
    key = (await people.user.ask("POST", "/v1/api-keys", json={"name": "a key"})).data["key"]
    path = f"/v1/admin/users/{people.user.id}"
    assert (await people.root.ask("DELETE", path)).status == 204
    for headers in (people.user.auth, {"X-API-Key": key}):
        for answer in await every_worker(lambda h=headers: ask(people.server, "GET", "/v1/mailboxes", headers=h)):
            assert answer.status == 401
    assert (await people.root.ask("GET", path)).error == "user_not_found"
    assert (await people.root.ask("DELETE", path)).error == "user_not_found"
    async with asyncio.timeout(60):
        while (await ask(people.server, "GET", f"/v1/mailboxes/{box.id}", box)).status != 404:
            await asyncio.sleep(0.05)
        while (await people.root.ask("GET", f"/v1/admin/domains/{domain.data['id']}")).status != 404:
            await asyncio.sleep(0.05)
    with smtplib.SMTP(*people.server.smtp, timeout=60) as client:
        client.ehlo()
        client.mail("a@example.org")
        assert client.rcpt(box.address)[0] == 550


async def test_every_act_is_noted_with_what_it_changed_and_no_secret(people: People) -> None:
    path = f"/v1/admin/users/{people.user.id}"
    await people.admin.ask("PATCH", path, json={"tier": "pro", "isEmailVerified": False})
    await people.admin.ask("PATCH", path, json={"tier": "pro"})  # changes nothing: no act
    await people.admin.ask("PATCH", path, json={"role": "super"})  # refused: no act
    await people.admin.ask("PUT", path + "/quota", json=QUOTA)
    await people.root.ask("DELETE", path)
    page = (await people.admin.ask("GET", "/v1/admin/audit?pageSize=100")).data
    acts = [act for act in page["items"] if act["target"] == people.user.id]
    assert [act["action"] for act in acts] == ["user.delete", "quota.set", "user.update"]
    delete, quota, update = acts
    assert (update["before"], update["after"]) == ({"tier": "free"}, {"tier": "pro"})
    assert (quota["before"]["maxMailboxes"], quota["after"]["maxMailboxes"]) == (50, 7)
    assert (delete["actorId"], update["actorId"]) == (people.root.id, people.admin.id)
    assert delete["client"] == "127.0.0.1"
    assert "hash" not in str(acts)
    recent = (await people.admin.ask("GET", "/v1/admin/statistics")).data["recentActivity"]
    assert recent[:3] == acts
    assert set(delete) == {"id", "createdAt", "actor", "actorId", "action", "target", "client", "before", "after"}


async def test_what_an_operator_does_on_the_command_line_is_noted(people: People, installation: Installation) -> None:
    made = await installation.account("admin")
    acts = (await people.admin.ask("GET", "/v1/admin/audit?pageSize=100")).data["items"]
    (act,) = [one for one in acts if one["target"] == made.id]
    assert (act["actor"], act["action"], act["after"]) == ("command line", "account.create", {"role": "admin"})
    assert "actorId" not in act


async def test_statistics_are_the_truth(own_server: Callable[..., Server]) -> None:
    server = own_server()
    root = await administrator(server, "super")
    users = [await register(server) for _ in range(3)]
    boxes = [await server.mailbox(domain=("temp.mail", "second.test")[n % 2]) for n in range(5)]
    boxes.append(await users[0].mailbox())
    await inject(server, boxes[0], subject="x")
    await server.deliver(*boxes[:3], subject="to three")
    await ask(server, "DELETE", f"/v1/mailboxes/{boxes[1].id}", boxes[1])
    await root.ask("PATCH", f"/v1/admin/users/{users[1].id}", json={"tier": "pro", "isActive": False})
    await root.ask("DELETE", f"/v1/admin/users/{users[2].id}")
    found = (await root.ask("GET", "/v1/admin/statistics")).data
    del found["recentActivity"]
    assert found == {
        **{"totalUsers": 3, "activeUsers": 2, "totalMailboxes": 6, "activeMailboxes": 5},
        **{"totalMessages": 4, "messagesToday": 4},
        "usersByTier": {"free": 2, "basic": 0, "pro": 1, "enterprise": 0},
        "usersByRole": {"user": 2, "admin": 0, "super": 1},
        "mailboxesByDomain": {"temp.mail": 4, "second.test": 1},
    }


async def test_the_configuration_is_shown_whole(people: People) -> None:
    await people.root.ask("POST", "/v1/admin/config/reset")
    found = (await people.admin.ask("GET", "/v1/admin/config")).data
    assert found["smtp"] == {
        **{"bindAddr": "127.0.0.1:0", "domain": "temp.mail"},
        **{"maxSize": 10 << 20, "readTimeout": "30s"},
    }
    assert found["mailbox"].pop("allowedDomains")[:2] == ["temp.mail", "second.test"]
    assert found["mailbox"] == {"defaultTtl": "1h", "maxPerIp": 3, "requireVerification": False, "maxAliases": 5}
    assert found["rateLimit"] == {
        **{"enabled": True, "requestsPerMinute": 600, "burstSize": 100},
        "createMailboxLimit": 0,
    }
    assert found["security"] == {
        **{"jwtAccessExpiry": "15m", "jwtRefreshExpiry": "7d", "passwordMinLength": 8},
        **{"enableCaptcha": False, "maxLoginAttempts": 10},
    }
    assert found["updatedBy"]


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("smtp", "bindAddr", ":26"),
        ("smtp", "domain", "other.example"),
        ("smtp", "maxSize", 10),
        ("smtp", "maxSize", "10MB"),
        ("smtp", "readTimeout", "0s"),
        ("smtp", "readTimeout", 30),
        ("mailbox", "defaultTtl", "soon"),
        ("mailbox", "defaultTtl", "1s"),
        ("mailbox", "defaultTtl", "365d"),
        ("mailbox", "maxPerIp", -1),
        ("mailbox", "allowedDomains", ["gmail.com"]),
        ("mailbox", "requireVerification", "yes"),
        ("rateLimit", "burstSize", 0),
        ("rateLimit", "requestsPerMinute", 1.5),
        ("security", "passwordMinLength", 7),
        ("security", "passwordMinLength", 73),
        ("security", "enableCaptcha", True),
        ("security", "jwtAccessExpiry", "30d"),
        ("security", "maxLoginAttempts", 0),
    ],
)
async def test_a_setting_that_cannot_be_names_the_field_and_changes_nothing(
    people: People, section: str, name: str, value: Any
) -> None:
    before = (await people.root.ask("GET", "/v1/admin/config")).data
    body = {section: {name: value}, "mailbox" if section != "mailbox" else "smtp": {}}
    answer = await people.root.ask("PUT", "/v1/admin/config", json=body)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", f"{section}.{name}")
    assert (await people.root.ask("GET", "/v1/admin/config")).data == before


async def test_a_configuration_that_is_sent_back_as_it_was_changes_nothing(people: People) -> None:
    whole = (await people.root.ask("GET", "/v1/admin/config")).data
    again = (await people.root.ask("PUT", "/v1/admin/config", json=whole)).data
    for section in ("smtp", "mailbox", "rateLimit", "security"):
        assert again[section] == whole[section]


async def test_settings_count_in_every_worker_from_the_answer_on(own_server: Callable[..., Server]) -> None:
    server = own_server(WORKERS="3", RATE_LIMIT_EXEMPT="127.0.0.1/32", CACHE_TTL="60s")
    root = await administrator(server, "super")

    async def made() -> Answer:
        return await ask(server, "POST", "/v1/mailboxes", json={})

    async def life() -> float:
        box = (await made()).data
        shown = [box["createdAt"], box["expiresAt"]]
        return (
            int(shown[1][11:13]) * 60 + int(shown[1][14:16]) - int(shown[0][11:13]) * 60 - int(shown[0][14:16])
        ) % 1440

    async def aliases() -> Any:
        return (await ask(server, "GET", "/v1/public/config")).data["limits"]["maxAliasesPerMailbox"]

    for minutes in (30, 90, 2, 45, 60):
        body = {"mailbox": {"defaultTtl": f"{minutes}m", "maxAliases": minutes}}
        changed = (await root.ask("PUT", "/v1/admin/config", json=body)).data
        assert changed["mailbox"]["maxAliases"] == minutes
        assert {await life() for _ in range(9)} == {minutes}
        assert {await aliases() for _ in range(9)} == {minutes}
    assert (await root.ask("POST", "/v1/admin/config/reset")).data["mailbox"]["maxAliases"] == 5
    assert {await aliases() for _ in range(9)} == {5}


async def test_security_and_size_settings_act(own_server: Callable[..., Server]) -> None:
    server = own_server(RATE_LIMIT_EXEMPT="127.0.0.1/32")
    root = await administrator(server, "super")
    user, box = await register(server), await server.mailbox()
    body = {
        "security": {"passwordMinLength": 30, "jwtAccessExpiry": "2m", "maxLoginAttempts": 2},
        "mailbox": {"requireVerification": True},
        "smtp": {"maxSize": 2048},
    }
    assert (await root.ask("PUT", "/v1/admin/config", json=body)).status == 200
    fresh = {"email": f"{secrets.token_hex(6)}@example.org", "password": PASSWORD}
    short = await ask(server, "POST", "/v1/auth/register", json=fresh)
    assert (short.status, short.json["field"]) == (400, "password")
    made = await ask(server, "POST", "/v1/auth/register", json=fresh | {"password": PASSWORD * 2})
    assert made.data["expiresIn"] == 120
    wrong = {"email": fresh["email"], "password": "wrong" * 8}
    assert [(await ask(server, "POST", "/v1/auth/login", json=wrong)).status for _ in range(3)] == [401, 401, 429]
    unverified = await user.ask("POST", "/v1/mailboxes", json={})
    assert (unverified.status, unverified.error) == (403, "permission_denied")
    await root.ask("PATCH", f"/v1/admin/users/{user.id}", json={"isEmailVerified": True})
    assert (await user.ask("POST", "/v1/mailboxes", json={})).status == 201
    big = await ask(
        server, "POST", f"/v1/mailboxes/{box.id}/messages", box, json={"from": "a@b.cd", "text": "x" * 4096}
    )
    assert (big.status, big.error) == (413, "message_too_big")
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(_offers, server, b"SIZE 2048"):
            await asyncio.sleep(0.05)


def _offers(server: Server, extension: bytes) -> bool:
    """Whether every one of a dozen connections is told of the extension."""
    answers = []
    for _ in range(12):
        with smtplib.SMTP(*server.smtp, timeout=60) as client:
            answers.append(extension in client.ehlo()[1])
    return all(answers)


async def test_rate_settings_act_and_can_be_switched_off(own_server: Callable[..., Server]) -> None:
    """The administrator's address is exempt; the client's gets one token a minute, far slower than these requests."""
    server = own_server(TRUSTED_PROXIES="127.0.0.0/8", RATE_LIMIT_EXEMPT="127.0.0.0/8")
    root = await administrator(server, "super")
    client = {"X-Forwarded-For": "198.51.100.7"}
    limits = {"burstSize": 3, "requestsPerMinute": 1, "createMailboxLimit": 1}
    assert (await root.ask("PUT", "/v1/admin/config", json={"rateLimit": limits})).status == 200
    answers = [await ask(server, "POST", "/v1/mailboxes", headers=client, json={}) for _ in range(4)]
    assert [answer.status for answer in answers] == [201, 429, 429, 429]
    assert [answer.error for answer in answers[1:]] == ["too_many_mailboxes", "too_many_mailboxes", "rate_limited"]
    assert answers[0].headers["X-RateLimit-Limit"] == "3"
    switched = await root.ask("PUT", "/v1/admin/config", json={"rateLimit": {"enabled": False}})
    assert switched.status == 200
    freed = [await ask(server, "GET", "/v1/public/config", headers=client) for _ in range(10)]
    assert {answer.status for answer in freed} == {200}


async def test_settings_outlive_a_restart(own_server: Callable[..., Server]) -> None:
    server = own_server(WORKERS="1")
    root = await administrator(server, "super")
    assert (await root.ask("PUT", "/v1/admin/config", json={"mailbox": {"maxAliases": 9}})).status == 200
    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start)
    public = (await ask(server, "GET", "/v1/public/config")).data
    assert public["limits"]["maxAliasesPerMailbox"] == 9
    assert (await root.ask("GET", "/v1/admin/config")).data["mailbox"]["maxAliases"] == 9
