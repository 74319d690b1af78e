"""Accounts with a role: made on the command line as an operator does, then acting over HTTP."""

import asyncio
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass

from tests.contract.accounts import Account
from tests.contract.transcript import ask
from tests.nameserver import Zones
from tests.running import ROOT, Server

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Installation:
    """A server and the name server it asks."""

    server: Server
    zones: Zones

    async def account(self, role: str) -> Account:
        """A fresh account with ``role``, logged in."""
        return await administrator(self.server, role)


async def administrator(server: Server, role: str) -> Account:
    """A fresh account of ``server`` with ``role``, logged in."""
    email = f"{secrets.token_hex(8)}@example.org"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEMPMAIL_")}
    environment["TEMPMAIL_DATA_DIR"] = str(server.folder / "data")
    command = [sys.executable, "-m", "server", "admin", "create", email, "--role", role]
    await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, input=f"{PASSWORD}\n", text=True, check=True, timeout=60
    )
    session = (await ask(server, "POST", "/v1/auth/login", json={"email": email, "password": PASSWORD})).data
    return Account(server, session["user"]["id"], session["accessToken"])
