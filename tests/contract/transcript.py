"""One HTTP exchange with the running server, whole: what was asked and every part of what was answered."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from tests.running import Box, Server


@dataclass(frozen=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        assert self.status in (200, 201), self.body
        return self.json["data"]

    @property
    def error(self) -> str:
        return str(self.json["error"])


async def ask(
    server: Server, method: str, path: str, box: Box | None = None, headers: dict[str, str] | None = None, **what: Any
) -> Answer:
    """``path`` is sent byte for byte. ``box`` lends its token."""
    sent = (box.auth if box else {}) | (headers or {})
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, URL(server.http + path, encoded=True), headers=sent, **what) as response,
    ):
        return Answer(response.status, response.headers, await response.read())


async def inject(server: Server, box: Box, **fields: Any) -> Any:
    """A message put into ``box`` over the API; its object."""
    answer = await ask(server, "POST", f"/v1/mailboxes/{box.id}/messages", box, json={"from": "a@example.org"} | fields)
    assert answer.status == 201, answer.body
    return answer.data
