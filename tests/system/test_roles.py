"""Roles: nodes that each do a part of the work on one database make one service, and none does more than its part."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable

import aiohttp
import pytest
from websockets.asyncio.client import connect

from server.store.embedded import running_dsn
from tests.receiving import receiving
from tests.running import ROOT, Server

OwnServer = Callable[..., Server]


def beside(start: OwnServer, first: Server, roles: str, **settings: str) -> Server:
    """Another node on the database of ``first``."""
    dsn = running_dsn(first.folder / "data")
    assert dsn
    return start(ROLES=roles, DATABASE_DSN=dsn, SERVER_HOST="127.0.0.1", RATE_LIMIT_EXEMPT="127.0.0.0/8", **settings)


async def status(server: Server, path: str) -> int:
    async with aiohttp.ClientSession() as client, client.get(server.http + path) as response:
        return response.status


async def test_mail_goes_in_at_one_node_and_is_pushed_and_read_at_others(own_server: OwnServer) -> None:
    smtp = own_server(ROLES="smtp,sweeper", WORKERS="1")
    web = beside(own_server, smtp, "web", WORKERS="1")
    push = beside(own_server, smtp, "push", WORKERS="1")
    box = await web.mailbox()
    async with connect(push.http.replace("http", "ws") + "/v1/ws") as watcher:
        await watcher.send(json.dumps({"type": "subscribe", "mailboxId": box.id, "token": box.token}))
        assert json.loads(await watcher.recv())["type"] == "subscribed"
        await smtp.deliver(box, subject="through three nodes")
        async with asyncio.timeout(60):
            frame = json.loads(await watcher.recv())
    assert frame["data"]["subject"] == "through three nodes"
    assert [item["subject"] for item in await web.messages(box)] == ["through three nodes"]
    for node in (smtp, web, push):
        assert await status(node, "/health") == await status(node, "/health/ready") == 200
        assert await status(node, "/metrics") == 200
    at = f"/v1/mailboxes/{box.id}"
    assert [await status(node, at) for node in (smtp, web, push)] == [404, 401, 404]
    assert [await status(node, at + "/wait") for node in (smtp, web, push)] == [404, 404, 401]
    assert web.smtp == push.smtp == ("", 0)
    for node in (push, web):  # before the one whose database they use
        assert await asyncio.to_thread(node.stop) == 0


async def test_webhooks_wait_for_the_node_whose_work_they_are(own_server: OwnServer) -> None:
    plain = own_server(ROLES="smtp,web", WORKERS="1", WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")
    async with receiving() as receiver, aiohttp.ClientSession() as client:

        async def call(method: str, path: str, body: object, token: str = "") -> dict[str, str]:
            head = {"Authorization": f"Bearer {token}"} if token else {}
            async with client.request(method, plain.http + path, json=body, headers=head) as response:
                assert response.status < 300, await response.text()
                data: dict[str, str] = (await response.json())["data"]
                return data

        login = {"email": "someone@example.org", "password": "correct horse battery"}
        token = (await call("POST", "/v1/auth/register", login))["accessToken"]
        url = f"http://127.0.0.1:{receiver.port}/hook"
        await call("POST", "/v1/webhooks", {"url": url, "events": ["mail.received"]}, token)
        made = await call("POST", "/v1/mailboxes", {}, token)
        raw = "Subject: hook\r\n\r\nx\r\n"
        await call("POST", f"/v1/mailboxes/{made['id']}/messages", {"raw": raw}, token)
        await asyncio.sleep(1.5)
        assert receiver.requests == []
        worker = beside(own_server, plain, "webhooks", WORKERS="1", WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")
        await receiver.until(lambda found: len(found.requests) == 1)
        assert await asyncio.to_thread(worker.stop) == 0


@pytest.mark.parametrize(("roles", "said"), [("smtp,wbe", "wbe"), ("ingest", "TEMPMAIL_INGEST_MODE=queue")])
def test_roles_that_cannot_be_are_refused_before_anything_is_started(roles: str, said: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TEMPMAIL_")}
    command = [sys.executable, "-m", "server", "serve", "--roles", roles]
    found = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 2
    assert "TEMPMAIL_ROLES" in found.stderr
    assert said in found.stderr
