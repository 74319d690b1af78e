"""A client of the JSON API for the preparations and checks of a scenario: mailboxes, lists, details.

Must not know: SMTP, or how fast anything is; load on the API is made by ``client_http``.
"""

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from bench.tools.target import Endpoint

_CREATORS = 16


class ApiError(Exception):
    """An answer with another status than the contract promises here, or one that is not valid JSON."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox and the token that opens it."""

    id: str
    address: str
    token: str

    @property
    def messages_path(self) -> str:
        """Path of its list."""
        return f"/v1/mailboxes/{self.id}/messages"


@dataclass(frozen=True, slots=True)
class Account:
    """An account's id and its access token."""

    id: str
    token: str


class Api:
    """Calls to one installation; an async context manager."""

    def __init__(self, http: Endpoint, timeout: float = 30.0) -> None:
        self._base = http.base_url
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(self._base, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def _data(self, method: str, path: str, expected: int, token: str = "", body: Any = None) -> Any:
        head = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._session.request(method, path, headers=head, json=body) as answer:
            body = await answer.read()
        if answer.status != expected:
            raise ApiError(f"{method} {path}: {answer.status} {body[:200]!r}")
        try:
            return orjson.loads(body)["data"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ApiError(f"{method} {path}: not an enveloped JSON answer: {body[:200]!r}") from error

    async def create_mailbox(self) -> Mailbox:
        """A new guest mailbox."""
        data = await self._data("POST", "/v1/mailboxes", 201)
        return Mailbox(data["id"], data["address"], data["token"])

    async def create_mailboxes(self, count: int) -> list[Mailbox]:
        """``count`` new mailboxes, some at a time."""
        numbers = iter(range(count))
        made: list[Mailbox] = []

        async def creator() -> None:
            made.extend([await self.create_mailbox() for _ in numbers])

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_CREATORS, count)):
                group.create_task(creator())
        return made

    async def register(self) -> Account:
        """A new account."""
        body = {"email": f"{secrets.token_hex(8)}@example.org", "password": secrets.token_hex(16)}
        data = await self._data("POST", "/v1/auth/register", 201, body=body)
        return Account(data["user"]["id"], data["accessToken"])

    async def login(self, email: str, password: str) -> str:
        """The access token of an account that exists."""
        body = {"email": email, "password": password}
        return str((await self._data("POST", "/v1/auth/login", 200, body=body))["accessToken"])

    async def make(self, path: str, body: dict[str, Any], token: str, expected: int = 201, method: str = "POST") -> Any:
        """POST ``body``; the ``data`` of the answer."""
        return await self._data(method, path, expected, token, body)

    async def fetch(self, path: str, token: str) -> Any:
        """The ``data`` at a path."""
        return await self._data("GET", path, 200, token)

    async def total(self, mailboxes: Iterable[Mailbox]) -> int:
        """How many messages the mailboxes hold together."""
        found = [await self._data("GET", f"/v1/mailboxes/{box.id}", 200, box.token) for box in mailboxes]
        return sum(int(data["total"]) for data in found)

    async def messages(self, mailbox: Mailbox) -> list[dict[str, Any]]:
        """The first page of a mailbox's list."""
        items: list[dict[str, Any]] = (await self._data("GET", mailbox.messages_path, 200, mailbox.token))["items"]
        return items

    async def message(self, mailbox: Mailbox, message_id: str) -> dict[str, Any]:
        """One message with text and html."""
        found: dict[str, Any] = await self._data("GET", f"{mailbox.messages_path}/{message_id}", 200, mailbox.token)
        return found
