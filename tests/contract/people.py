"""Accounts for tests: each with a name nobody else has, on a server whose loopback is free of limits."""

import secrets
from dataclasses import dataclass

from tests.contract.accounts import Account
from tests.contract.transcript import Answer, ask
from tests.running import Box, Server

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Person:
    """An account as its registration answered."""

    id: str
    email: str
    username: str
    access: str
    refresh: str

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access}"}


async def person(server: Server) -> Person:
    """A new account."""
    name = f"p{secrets.token_hex(8)}"
    body = {"email": f"{name}@example.org", "password": PASSWORD, "username": name}
    made = (await ask(server, "POST", "/v1/auth/register", json=body)).data
    return Person(made["user"]["id"], made["user"]["email"], name, made["accessToken"], made["refreshToken"])


async def api_key(server: Server, owner: Person, **body: object) -> str:
    """A new key of ``owner``, whole."""
    made = await ask(server, "POST", "/v1/api-keys", headers=owner.auth, json={"name": "a key"} | body)
    return str(made.data["key"])


async def own_box(server: Server, owner: Person, **body: object) -> Box:
    """A new mailbox of ``owner``."""
    made = (await ask(server, "POST", "/v1/mailboxes", headers=owner.auth, json=body)).data
    return Box(made["id"], made["address"], made["token"])


async def fresh_login(server: Server, owner: Person) -> Account:
    """``owner`` with an access token whose time has just begun."""
    session = (await login(server, email=owner.email, password=PASSWORD)).data
    return Account(server, owner.id, session["accessToken"])


async def login(server: Server, **body: object) -> Answer:
    return await ask(server, "POST", "/v1/auth/login", json=body)
