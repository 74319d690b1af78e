"""An account that has webhooks, as its programs use it: over HTTP alone, checking signatures as API.md tells them."""

import hmac
from hashlib import sha256
from typing import Any

from tests.contract.accounts import Account, register
from tests.receiving import Receiver, Request
from tests.running import Server


class Reader(Account):
    """An account with webhooks."""

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status, and the answer's JSON (None for an empty one)."""
        answer = await self.ask(method, path, json=body)
        return answer.status, answer.json if answer.body else None

    async def data(self, method: str, path: str, body: Any = None) -> Any:
        """``data`` of an answer that must be a success."""
        status, answer = await self.call(method, path, body)
        assert status < 300, answer
        return answer["data"] if answer else None

    async def hook(self, receiver: Receiver, *events: str) -> Any:
        """A webhook to ``receiver``, with its secret."""
        body = {"url": f"http://127.0.0.1:{receiver.port}/hook", "events": list(events or ("mail.received",))}
        return await self.data("POST", "/v1/webhooks", body)

    async def deliveries(self, webhook: Any) -> Any:
        return (await self.data("GET", f"/v1/webhooks/{webhook['id']}/deliveries?limit=100"))["items"]


async def reader(server: Server) -> Reader:
    """A new account."""
    account = await register(server)
    return Reader(server, account.id, account.token)


def signed(request: Request, secret: str) -> bool:
    """Whether both signatures are right."""
    moment, name = request.headers["x-webhook-timestamp"], request.headers["x-webhook-id"]
    bodies = {
        "x-webhook-signature": request.body,
        "x-webhook-signature-v2": f"{name}.{moment}.".encode() + request.body,
    }
    return all(
        request.headers[header] == "sha256=" + hmac.new(secret.encode(), body, sha256).hexdigest()
        for header, body in bodies.items()
    )
