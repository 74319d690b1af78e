"""Accounts as clients of the contract use them: registered, logged in, renewed, logged out; and whose budget counts."""

import asyncio
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.people import PASSWORD, login, own_box, person
from tests.contract.transcript import Answer, ask
from tests.running import ROOT, Server

JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


async def test_registration_answers_with_the_account_and_its_first_login(server: Server) -> None:
    name = f"New.{secrets.token_hex(6)}"
    asked = {"email": f"{name}@Example.ORG", "password": PASSWORD, "username": name, "unknown": 1}
    answer = await ask(server, "POST", "/v1/auth/register", json=asked)
    assert (answer.status, answer.json["code"], answer.json["msg"]) == (201, 201, "created")
    made = answer.data
    assert set(made) == {"user", "accessToken", "refreshToken", "expiresIn"}
    assert made["user"] == {
        "id": made["user"]["id"],
        "email": f"{name}@example.org".lower(),
        "username": name,
        "tier": "free",
        "isActive": True,
        "isEmailVerified": False,
    }
    assert made["expiresIn"] == 900
    assert JWT.fullmatch(made["accessToken"])
    again = await ask(server, "POST", "/v1/auth/register", json=asked)
    assert (again.status, again.error, again.json["data"]) == (409, "user_exists", None)
    nameless = await ask(
        server, "POST", "/v1/auth/register", json={"email": f"n{name}@example.org", "password": PASSWORD}
    )
    assert "username" not in nameless.data["user"]


@pytest.mark.parametrize(
    ("body", "error", "field"),
    [
        ({"password": PASSWORD}, "field_invalid", "email"),
        ({"email": "x@example.org"}, "field_invalid", "password"),
        ({"email": "x", "password": PASSWORD}, "field_invalid", "email"),
        ({"email": "x@example.org", "password": "short"}, "field_invalid", "password"),
        ({"email": "x@example.org", "password": "x" * 73}, "field_invalid", "password"),
        ({"email": "x@example.org", "password": PASSWORD, "username": "x"}, "field_invalid", "username"),
        ({"email": 7, "password": PASSWORD}, "field_invalid", "email"),
        ([], "body_invalid", None),
    ],
)
async def test_what_cannot_be_registered_names_the_field(
    server: Server, body: object, error: str, field: str | None
) -> None:
    answer = await ask(server, "POST", "/v1/auth/register", json=body)
    assert (answer.status, answer.error, answer.json.get("field")) == (400, error, field)
    assert PASSWORD not in answer.body.decode()


async def test_login_by_email_or_username(server: Server) -> None:
    someone = await person(server)
    for body in (
        {"email": someone.email},
        {"email": someone.email.upper()},
        {"username": someone.username},
        {"email": someone.username},
    ):
        answer = await login(server, password=PASSWORD, **body)
        assert answer.status == 200
        assert answer.data["user"]["id"] == someone.id
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert "ETag" not in answer.headers


async def test_a_wrong_password_and_an_unknown_name_look_alike(server: Server) -> None:
    someone = await person(server)
    wrong = await login(server, email=someone.email, password="wrong horse")
    unknown = await login(server, email=f"x{someone.email}", password="wrong horse")
    assert (wrong.status, wrong.error) == (401, "credentials_invalid")
    assert (unknown.status, unknown.body) == (401, wrong.body)
    zh = await ask(
        server,
        "POST",
        "/v1/auth/login",
        headers={"Accept-Language": "zh"},
        json={"username": someone.username, "password": "wrong horse"},
    )
    assert zh.json["msg"] == "用户名或密码错误"
    assert (await login(server, email=someone.email)).status == 400


async def test_me_needs_an_access_token(server: Server) -> None:
    someone = await person(server)
    me = await ask(server, "GET", "/v1/auth/me", headers=someone.auth)
    assert me.data["email"] == someone.email
    for headers, error, msg in (
        ({}, "token_required", "需要登录认证"),
        ({"Authorization": f"Bearer {someone.refresh}"}, "token_invalid", "无效的访问令牌"),
        ({"Authorization": f"Bearer {someone.access}x"}, "token_invalid", "无效的访问令牌"),
        ({"Authorization": "Bearer a.b.c"}, "token_invalid", "无效的访问令牌"),
        ({"Authorization": "Bearer nonsense"}, "token_invalid", "无效的访问令牌"),
        ({"Authorization": "Basic eDp5"}, "token_required", "需要登录认证"),
        ({"X-Mailbox-Token": someone.access}, "token_required", "需要登录认证"),
    ):
        answer = await ask(server, "GET", "/v1/auth/me", headers={**headers, "Accept-Language": "zh"})
        assert (answer.status, answer.error, answer.json["msg"]) == (401, error, msg), headers
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_refresh_rotates_and_reuse_ends_the_login(server: Server) -> None:
    someone = await person(server)
    first = await ask(server, "POST", "/v1/auth/refresh", json={"refreshToken": someone.refresh})
    assert first.status == 200
    assert set(first.data) == {"user", "accessToken", "refreshToken", "expiresIn"}
    assert first.data["refreshToken"] != someone.refresh
    headers = {"Authorization": f"Bearer {first.data['accessToken']}"}
    assert (await ask(server, "GET", "/v1/auth/me", headers=headers)).status == 200
    reused = await ask(server, "POST", "/v1/auth/refresh", json={"refreshToken": someone.refresh})
    assert (reused.status, reused.error) == (401, "token_invalid")
    for _ in range(8):
        assert (await ask(server, "GET", "/v1/auth/me", headers=headers)).status == 401
        assert (await ask(server, "GET", "/v1/auth/me", headers=someone.auth)).status == 401
    following = await ask(server, "POST", "/v1/auth/refresh", json={"refreshToken": first.data["refreshToken"]})
    assert following.status == 401
    for wrong in (someone.access, "x", ""):
        assert (await ask(server, "POST", "/v1/auth/refresh", json={"refreshToken": wrong})).status == 401
    assert (await ask(server, "POST", "/v1/auth/refresh", json={})).status == 400


async def test_logout_ends_the_login_on_every_worker_at_once(server: Server) -> None:
    someone = await person(server)
    for _ in range(8):
        assert (await ask(server, "GET", "/v1/auth/me", headers=someone.auth)).status == 200
    assert (await ask(server, "POST", "/v1/auth/logout", headers=someone.auth)).status == 204
    for _ in range(8):
        assert (await ask(server, "GET", "/v1/auth/me", headers=someone.auth)).status == 401
    assert (await ask(server, "POST", "/v1/auth/refresh", json={"refreshToken": someone.refresh})).status == 401
    assert (await ask(server, "POST", "/v1/auth/logout")).status == 401


async def test_kept_answers_end_with_the_login_they_were_made_for(server: Server) -> None:
    someone = await person(server)
    box = await own_box(server, someone)
    path = f"/v1/mailboxes/{box.id}/messages"
    for _ in range(20):
        assert (await ask(server, "GET", path, headers=someone.auth)).status == 200
    assert (await ask(server, "POST", "/v1/auth/logout", headers=someone.auth)).status == 204
    for _ in range(20):
        answer = await ask(server, "GET", path, headers=someone.auth | {"If-None-Match": "*"})
        assert (answer.status, answer.error) == (401, "token_invalid")
    assert (await ask(server, "GET", path, box)).status == 200


async def test_a_cookie_acts_only_for_pages_of_its_own_origin(server: Server) -> None:
    someone = await person(server)
    cookie = {"Cookie": f"theme=dark; access_token={someone.access}"}
    assert (await ask(server, "GET", "/v1/auth/me", headers=cookie)).status == 200
    own = server.http
    forged: list[dict[str, str]] = [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"{own}.evil.example"},
        {"Origin": own.replace("127.0.0.1", "user@127.0.0.1")},
        {"Sec-Fetch-Site": "cross-site", "Origin": own},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ]
    for headers in forged:
        answer = await ask(server, "POST", "/v1/mailboxes", headers=cookie | headers)
        assert (answer.status, answer.error) == (403, "origin_not_allowed"), headers
    for headers in ({"Origin": own}, {"Sec-Fetch-Site": "same-origin"}):
        assert (await ask(server, "POST", "/v1/mailboxes", headers=cookie | headers)).status == 201
    assert (await ask(server, "GET", "/v1/auth/me", headers={"Cookie": "access_token=a.b.c"})).status == 401


async def test_ordinary_people_administer_nothing(server: Server) -> None:
    someone = await person(server)
    for headers, status in ((someone.auth, 403), ({}, 401)):
        answer = await ask(server, "GET", "/v1/admin/users", headers=headers)
        assert answer.status == status
    answer = await ask(server, "GET", "/v1/admin/users", headers=someone.auth | {"Accept-Language": "zh"})
    assert (answer.error, answer.json["msg"]) == ("permission_denied", "权限不足")


async def test_no_password_or_token_comes_into_the_log(server: Server) -> None:
    someone = await person(server)
    await login(server, email=someone.email, password="CANARYPASSWORD")
    await ask(server, "POST", "/v1/auth/refresh", json={"refreshToken": someone.refresh})
    for secret in (PASSWORD, "CANARYPASSWORD", someone.access, someone.refresh, someone.email):
        assert secret not in server.log


LIMITED = {
    "RATE_LIMIT_EXEMPT": "",
    "RATE_LIMIT_REQUESTS_PER_MINUTE": "600",
    "RATE_LIMIT_BURST": "50",
    "TRUSTED_PROXIES": "127.0.0.0/8",
}


async def test_an_account_has_one_budget_in_all_workers_and_from_all_addresses(
    own_server: Callable[..., Server],
) -> None:
    server = own_server(**LIMITED)
    someone = await person(server)
    seen: list[Answer] = []
    began = time.monotonic()
    while not seen or seen[-1].status == 200:
        headers = someone.auth | {"X-Forwarded-For": f"198.51.100.{len(seen)}"}
        seen.append(await ask(server, "GET", "/v1/auth/me", headers=headers))
    refilled = 30 * (time.monotonic() - began) / 60
    assert 30 <= len(seen) - 1 <= 30 + refilled
    assert seen[-1].status == 429
    assert {answer.headers["X-RateLimit-Limit"] for answer in seen} == {"30"}
    assert [int(seen[number].headers["X-RateLimit-Remaining"]) for number in (0, -1)] == [29, 0]
    assert 1 <= int(seen[-1].headers["Retry-After"]) <= 3
    free = await ask(server, "GET", "/v1/public/domains", headers={"X-Forwarded-For": "198.51.100.1"})
    assert free.headers["X-RateLimit-Limit"] == "50"


async def test_wrong_tokens_are_counted_against_the_address(own_server: Callable[..., Server]) -> None:
    server = own_server(**LIMITED | {"RATE_LIMIT_REQUESTS_PER_MINUTE": "1", "RATE_LIMIT_BURST": "5"})
    guess = {"X-API-Key": "tm_guess", "X-Forwarded-For": "198.51.100.9"}
    answers = [await ask(server, "GET", "/v1/auth/me", headers=guess) for _ in range(6)]
    assert [answer.status for answer in answers] == [401] * 5 + [429]
    assert (await ask(server, "GET", "/v1/public/domains", headers=guess)).status == 429


async def test_failed_logins_are_slowed_in_all_workers(own_server: Callable[..., Server]) -> None:
    server = own_server(**LIMITED)
    someone = await person(server)
    statuses = []
    for number in range(12):
        headers = {"X-Forwarded-For": f"2001:db8::{number:x}"}  # one client, whichever address it takes
        body = {"email": someone.email, "password": "wrong horse"}
        answer = await ask(server, "POST", "/v1/auth/login", headers=headers, json=body)
        statuses.append(answer.status)
    assert statuses == [401] * 10 + [429] * 2
    body = {"email": someone.email, "password": PASSWORD}
    from_there = {"X-Forwarded-For": "2001:db8::ffff"}
    right = await ask(server, "POST", "/v1/auth/login", headers=from_there, json=body)
    assert (right.status, right.error) == (429, "rate_limited")
    assert int(right.headers["Retry-After"]) >= 1
    assert (await login(server, email=someone.email, password=PASSWORD)).status == 200, "from everywhere else"


async def test_an_account_has_one_budget_of_failures_whichever_name_is_given(own_server: Callable[..., Server]) -> None:
    server = own_server(**LIMITED)
    someone, other = await person(server), await person(server)
    names = ({"email": someone.email}, {"username": someone.username}, {"username": someone.username.upper()})
    answers = [await login(server, password="wrong horse", **names[number % 3]) for number in range(12)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
    assert (await login(server, email=other.email, password=PASSWORD)).status == 200


async def test_an_accounts_requests_at_once_are_bounded_over_all_workers(own_server: Callable[..., Server]) -> None:
    """Bodies that do not end keep their requests at work: five fill the free tier's places wherever they landed."""
    server = own_server(**LIMITED)
    someone = await person(server)
    host, port = server.http.removeprefix("http://").split(":")
    writers = []
    head = (
        f"POST /v1/mailboxes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {someone.access}\r\nContent-Length: 9\r\n\r\n"
    )
    for _ in range(5):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        writers.append(writer)
    async with asyncio.timeout(60):
        while (answer := await ask(server, "GET", "/v1/auth/me", headers=someone.auth)).status == 200:
            await asyncio.sleep(0.05)
    assert (answer.status, answer.error) == (429, "rate_limited")
    assert answer.headers["Retry-After"] == "2"
    for writer in writers:
        writer.close()
    async with asyncio.timeout(60):
        while (await ask(server, "GET", "/v1/auth/me", headers=someone.auth)).json.get("detail") is not None:
            await asyncio.sleep(0.05)


def admin(server: Server, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "TEMPMAIL_DATA_DIR": str(server.folder / "data")}
    command = [sys.executable, "-m", "server", "admin", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, input=given, capture_output=True, text=True, check=False, timeout=60
    )


async def test_the_first_administrator_is_made_at_the_command_line(server: Server) -> None:
    email = f"root{secrets.token_hex(4)}@example.org"
    made = await asyncio.to_thread(admin, server, "create", email, "--generate")
    assert made.returncode == 0, made.stderr
    password = made.stdout.strip()
    assert len(password) >= 20
    answer = await login(server, email=email, password=password)
    assert answer.status == 200
    token = {"Authorization": f"Bearer {answer.data['accessToken']}"}
    assert (await ask(server, "GET", "/v1/admin/users", headers=token)).status == 200
    again = await asyncio.to_thread(admin, server, "create", email, given="another password\n")
    assert again.returncode == 2
    assert "an account has it" in again.stderr


async def test_an_operator_promotes_and_resets_passwords(server: Server) -> None:
    someone = await person(server)
    promoted = await asyncio.to_thread(admin, server, "promote", someone.email, "--role", "admin")
    assert promoted.returncode == 0, promoted.stderr
    reset = await asyncio.to_thread(admin, server, "reset-password", someone.email, given="a new password\n")
    assert reset.returncode == 0, reset.stderr
    assert (await login(server, email=someone.email, password=PASSWORD)).status == 401
    answer = await login(server, email=someone.email, password="a new password")
    token = {"Authorization": f"Bearer {answer.data['accessToken']}"}
    assert (await ask(server, "GET", "/v1/admin/users", headers=token)).status == 200


@pytest.mark.parametrize(
    ("arguments", "given", "says"),
    [
        (["create", "x@example.org"], "short\n", "password"),
        (["create", "nobody"], "long enough\n", "email"),
        (["create", "x@example.org", "--role", "king"], "long enough\n", "role"),
        (["promote", "nobody@example.org"], "", "user_not_found"),
        (["reset-password", "nobody@example.org"], "long enough\n", "user_not_found"),
    ],
)
async def test_what_an_operator_did_wrong_is_said_in_a_line(
    server: Server, arguments: list[str], given: str, says: str
) -> None:
    done: Any = await asyncio.to_thread(admin, server, *arguments, given=given)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
