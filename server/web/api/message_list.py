"""A page of a mailbox's list as bytes, and how the first page changes when mail comes.

Lives here: the shape of objects.MessageList with its entries written already, so that an answer can be made of the one
before it without asking for the other messages again. Must not know: where messages come from, or what is kept.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from server.cache.responses import CachedResponse
from server.model.message import Stored
from server.web import requests
from server.web.api.schemas import Summary
from server.web.responses import Reply, encode, ok
from server.web.translations import Language


class _Page(msgspec.Struct, rename="camel"):
    items: list[msgspec.Raw]
    count: int
    next_cursor: str | UnsetType = UNSET


class _Answer(msgspec.Struct):
    """What matters of a finished answer."""

    data: _Page


class _Numbered(msgspec.Struct):
    seq: int


_read: Final = msgspec.json.Decoder(_Answer).decode
_seq: Final = msgspec.json.Decoder(_Numbered).decode


def later_page(language: Language, stored: Sequence[Stored], total: int, *, more: bool) -> Reply:
    """A page that does not begin with the newest message."""
    following = requests.write_cursor(stored[-1].seq) if more else UNSET
    return ok(language, _Page([_entry(one) for one in stored], total, following))


def first_page(language: Language, mailbox_id: str, limit: int, stored: Sequence[Stored], total: int) -> Reply:
    """The newest messages, ``limit`` at most, of ``total``."""
    return _First(language, mailbox_id, limit).reply([_entry(one) for one in stored], total)


def _entry(stored: Stored) -> msgspec.Raw:
    return msgspec.Raw(encode(Summary.of(stored)))


class _First:
    """What has to be known of a first page to make the next one of it; implements Growth."""

    __slots__ = ("_language", "_limit", "mailbox_id")

    def __init__(self, language: Language, mailbox_id: str, limit: int) -> None:
        self._language, self.mailbox_id, self._limit = language, mailbox_id, limit

    def reply(self, entries: list[msgspec.Raw], total: int) -> Reply:
        more = len(entries) == self._limit < total
        following = requests.write_cursor(_seq(entries[-1]).seq) if more else UNSET
        return ok(self._language, _Page(entries, total, following))._replace(growth=self)

    def grown(self, ready: CachedResponse, came: Sequence[Stored]) -> CachedResponse | None:
        """The answer once ``came`` is there too; None when a number is missing in between: its message was deleted, or
        came by another host, of which this one has not heard yet."""
        page = _read(ready.body).data
        expected = _seq(page.items[0]).seq + 1 if page.items else 1
        if [one.seq for one in came] != list(range(expected, expected + len(came))):
            return None
        newest = [_entry(one) for one in came[: -self._limit - 1 : -1]]
        reply = self.reply((newest + page.items)[: self._limit], page.count + len(came))
        return CachedResponse(reply.body, reply.etag)
