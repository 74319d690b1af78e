"""People with an account, as clients make them: registered over HTTP, acting with their access token."""

import secrets
from dataclasses import dataclass
from typing import Any

from tests.contract.transcript import Answer, ask
from tests.running import Box, Server


@dataclass(frozen=True)
class Account:
    """A fresh account and its access token."""

    server: Server
    id: str
    token: str

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def ask(self, method: str, path: str, **what: Any) -> Answer:
        return await ask(self.server, method, path, headers=self.auth, **what)

    async def mailbox(self) -> Box:
        made = (await self.ask("POST", "/v1/mailboxes", json={})).data
        return Box(made["id"], made["address"], made["token"])


async def register(server: Server) -> Account:
    body = {"email": f"{secrets.token_hex(8)}@example.org", "password": "correct horse battery"}
    made = (await ask(server, "POST", "/v1/auth/register", json=body)).data
    return Account(server, made["user"]["id"], made["accessToken"])
