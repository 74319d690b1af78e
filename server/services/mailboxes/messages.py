"""Messages of one mailbox: lists, one with its body read, raw, attachments, search, injected mail, and changes.

Lives here: what is told to everyone about changes. ``services/mailboxes/reading.py`` reads bodies. Must not know: HTTP.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from server.config.settings import Config
from server.metrics import Counter
from server.model.errors import Refused, Unavailable
from server.model.event import Hint, Kind
from server.model.message import Envelope, Mailbox, Recipient, Stored, delivered_to_lines
from server.model.query import Query
from server.services.coherence import Coherence
from server.services.contracts import Content, File, MailSink, SearchQuery, Shares
from server.services.mailboxes.reading import Readers
from server.services.mailboxes.text_search import LOOKED_THROUGH, TextSearch
from server.store.messages import MessageStore
from server.store.tags import TagStore

_LAST: Final = 1 << 62

READ = Counter("tempmail_messages_read_total", "Messages read whole.")
DELETED = Counter("tempmail_messages_deleted_total", "Messages deleted.")


class MessageService:
    """Implements contracts.Messages."""

    def __init__(
        self,
        config: Config,
        store: MessageStore,
        tags: TagStore,
        delivery: MailSink,
        coherence: Coherence,
        readers: Readers,
        looker: TextSearch,
    ) -> None:
        self._config, self._store, self._tags, self._delivery = config, store, tags, delivery
        self._coherence, self._readers, self._looker = coherence, readers, looker

    def apply_settings(self, config: Config) -> None:
        """Settings have changed."""
        self._config = config

    async def page(self, mailbox: Mailbox, limit: int, offset: int, before: int | None) -> tuple[Sequence[Stored], int]:
        return await self._store.page(mailbox, limit, offset, _LAST if before is None else before)

    async def since(self, mailbox: Mailbox, after: int, limit: int) -> Sequence[Stored]:
        return (await self._store.since([(mailbox.id, after)]))[:limit]

    async def read(self, mailbox: Mailbox, message_id: str, shares: Shares = (), *, sanitised: bool = True) -> Content:
        """The message with its body read; ``safe_html`` is empty unless ``sanitised``."""
        stored = await self._store.one(mailbox, message_id)
        return await self._content(stored, shares, sanitised)

    async def _content(self, stored: Stored, shares: Shares, sanitised: bool) -> Content:
        found = await self._readers.opened(stored.body_id, lambda: self._store.raw(stored), shares)
        READ.add()
        safe = await self._readers.safe(stored.body_id, found.html, shares) if sanitised and found.html else ""
        return Content(stored, found.text, found.html, safe, _headers(stored, found.headers))

    async def just_stored(self, mailbox: Mailbox, stored: Stored, shares: Shares = ()) -> Content:
        """As ``read``. Stored it is: want of room to read it must not make the client store it a second time."""
        try:
            return await self.read(mailbox, stored.id, shares)
        except (Refused, Unavailable):
            return Content(stored, "", "", "", ())

    async def raw(self, mailbox: Mailbox, message_id: str) -> bytes:
        """As it came. Where its bytes are shared with other mailboxes, this one's Delivered-To goes in front."""
        stored = await self._store.one(mailbox, message_id)
        raw, details = await self._store.raw(stored), stored.details
        return delivered_to_lines(details.delivered_to) + raw if details.delivered_apart else raw

    async def attachment(self, mailbox: Mailbox, message_id: str, number: str, shares: Shares = ()) -> File:
        """Refused attachment_not_found."""
        stored = await self._store.one(mailbox, message_id)
        found = await self._readers.attachment(stored.body_id, await self._store.raw(stored), number, shares)
        if found is None:
            raise Refused("attachment_not_found")
        part, content = found
        return File(part.filename, part.content_type, content)

    async def inject(self, mailbox: Mailbox, raw: bytes, sender: str, client: str = "", *, is_read: bool) -> Stored:
        """Store a message as SMTP would. Refused message_too_big, mailbox_full, mailbox_not_found."""
        if len(raw) > self._config.smtp_max_message_bytes:
            raise Refused("message_too_big", f"at most {self._config.smtp_max_message_bytes} bytes")
        envelope = Envelope(sender, [Recipient(mailbox.address, mailbox.id)], raw, client=client)
        rows = await asyncio.shield(self._delivery.submit(envelope, is_read=is_read))
        return rows[0]

    async def mark_read(self, mailbox: Mailbox, message_id: str) -> None:
        with self._coherence.writing([mailbox.id]):
            changed = await self._store.mark_read(mailbox, message_id)
        if changed:
            self._changed(mailbox)

    async def delete(self, mailbox: Mailbox, message_id: str) -> None:
        with self._coherence.writing([mailbox.id]):
            await self._store.delete(mailbox, message_id)
        DELETED.add()
        self._changed(mailbox)

    async def delete_all(self, mailbox: Mailbox) -> None:
        with self._coherence.writing([mailbox.id]):
            gone = await self._store.delete_all(mailbox)
        DELETED.add(n=gone)
        self._changed(mailbox)

    def _changed(self, mailbox: Mailbox) -> None:
        self._coherence.tell([Hint(Kind.UPDATE, mailbox.id)])

    async def search(
        self, mailbox: Mailbox, query: SearchQuery, user_id: str | None, shares: Shares = ()
    ) -> tuple[Sequence[Stored], int]:
        """Refused field_invalid for an operator of ``q``, token_required for ``tag:`` without a user to have tags."""
        wanted = query.wanted()
        names = wanted.tags()
        if names and user_id is None:
            raise Refused("token_required", "tag: means the tags of an account", field="q")
        tags = await self._tags.named(user_id, names) if names and user_id is not None else {}
        skipped = (query.page - 1) * query.page_size
        if not wanted.texts():
            return await self._store.search(mailbox, wanted, tags, query.page_size, skipped)
        try:
            async with asyncio.timeout(self._config.database_statement_timeout):
                found = await self._search_text(mailbox, wanted, tags, shares)
        except TimeoutError as error:
            raise Unavailable("the search took too long") from error
        return found[skipped : skipped + query.page_size], len(found)

    async def _search_text(
        self, mailbox: Mailbox, wanted: Query, tags: Mapping[str, str], shares: Shares
    ) -> list[Stored]:
        """What matches, newest first. Bodies are looked through a bounded number of them at a time."""
        found: list[Stored] = []
        below: int | None = None
        while True:
            page = await self._store.candidates(mailbox, wanted, tags, below, LOOKED_THROUGH)
            found += await self._looker.filter(page, wanted.texts(), shares)
            if len(page) < LOOKED_THROUGH:
                return found
            below = page[-1].stored.seq


def _headers(stored: Stored, headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The headers as this mailbox reads them: see ``MessageService.raw``."""
    details = stored.details
    if not details.delivered_apart:
        return headers
    return (*(("Delivered-To", address) for address in details.delivered_to), *headers)
