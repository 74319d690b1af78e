"""Tags: a user's labels, and which of the user's messages carry them.

Lives here: the two halves brought together, names from the users domain and rows from the messages domain, one query
each and never a join. Must not know: HTTP.

A change of which messages carry a tag is a change of their mailbox. A change of a tag's name is not, so nothing that
depends on names may be kept by a mailbox's generation.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from server.model import ids
from server.model.errors import Refused
from server.model.message import Mailbox, Stored
from server.model.tag import Tag, checked_color, checked_description, checked_name
from server.model.webhook import tag_described
from server.services.coherence import Coherence
from server.services.webhooks.outbox import Outbox
from server.store.messages import MessageStore
from server.store.tags import TagStore

MAX_TAGS: Final = 100  # of one account
_LAST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"  # the max UUID (RFC 9562 section 5.10)


class TagService:
    """Implements contracts.Tags."""

    def __init__(
        self,
        tags: TagStore,
        messages: MessageStore,
        coherence: Coherence,
        outbox: Outbox,
        clock: Callable[[], datetime],
    ) -> None:
        self._tags, self._messages, self._coherence = tags, messages, coherence
        self._outbox, self._clock = outbox, clock

    async def create(self, user_id: str, name: str, color: str, description: str) -> Tag:
        """Refused: field_invalid (name, color, description), tag_exists, quota_reached."""
        name, color, description = checked_name(name), checked_color(color), checked_description(description)
        now = self._clock()
        tag = Tag(ids.new(), user_id, name, color, description, now, now)
        await self._tags.insert(tag, MAX_TAGS)
        await self._outbox.record(user_id, "tag.created", tag_described(tag))
        return tag

    async def all(self, user_id: str) -> list[tuple[Tag, int]]:
        """Oldest first, each with how many messages carry it now."""
        tags = await self._tags.all(user_id)
        if not tags:
            return []
        counts = await self._messages.tag_counts([tag.id for tag in tags], await self._messages.ends_of(user_id))
        return [(tag, counts.get(tag.id, 0)) for tag in tags]

    async def one(self, user_id: str, tag_id: str) -> Tag:
        """Refused tag_not_found, for foreign ones too."""
        tag = await self._tags.one(user_id, tag_id) if ids.valid(tag_id) else None
        if tag is None:
            raise Refused("tag_not_found")
        return tag

    async def update(
        self, user_id: str, tag_id: str, name: str | None, color: str | None, description: str | None
    ) -> Tag:
        """None leaves a field as it is. Refused: field_invalid, tag_not_found, tag_exists."""
        name = None if name is None else checked_name(name)
        color = None if color is None else checked_color(color)
        description = None if description is None else checked_description(description)
        if not ids.valid(tag_id):
            raise Refused("tag_not_found")
        tag = await self._tags.update(user_id, tag_id, name, color, description, self._clock())
        if tag is None:
            raise Refused("tag_not_found")
        await self._outbox.record(user_id, "tag.updated", tag_described(tag))
        return tag

    async def delete(self, user_id: str, tag_id: str) -> None:
        """No message carries it any more. Should that fail half way, the tag is still there to be deleted again."""
        tag = await self.one(user_id, tag_id)
        await self._messages.clear_tag(tag_id)
        if not await self._tags.delete(user_id, tag_id):
            raise Refused("tag_not_found")
        await self._outbox.record(user_id, "tag.deleted", tag_described(tag))

    async def messages(self, user_id: str, tag_id: str, limit: int, before: str) -> tuple[Sequence[Stored], int]:
        """Those that carry it, newest first, and how many there are; ``before``: only ids below this, "" for all."""
        await self.one(user_id, tag_id)
        ends = await self._messages.ends_of(user_id)
        found, counts = await asyncio.gather(
            self._messages.tagged(tag_id, before or _LAST, limit, ends), self._messages.tag_counts([tag_id], ends)
        )
        return found, counts.get(tag_id, 0)

    async def attach(self, user_id: str, mailbox: Mailbox, message_id: str, tag_id: str) -> Tag:
        """Again is no error. Refused: tag_not_found, message_not_found; permission_denied for the administrators' mail,
        because a tag would go on showing it to whoever is none any more."""
        if mailbox.user_id != user_id:
            raise Refused("permission_denied", "only messages of your own mailboxes carry tags")
        tag = await self.one(user_id, tag_id)
        with self._coherence.writing([mailbox.id]):
            await self._messages.tag(mailbox, message_id, tag_id)
        data = {"messageId": message_id, "mailboxId": mailbox.id, "seq": ids.seq_of(message_id)}
        await self._outbox.record(user_id, "message.tagged", data | {"tag": tag_described(tag)})
        return tag

    async def of_message(self, user_id: str, mailbox: Mailbox, message_id: str) -> list[Tag]:
        """The user's tags on a message. Refused message_not_found."""
        carried = set(await self._messages.tags_of(mailbox, message_id))
        return [tag for tag in await self._tags.all(user_id) if tag.id in carried] if carried else []

    async def detach(self, user_id: str, mailbox: Mailbox, message_id: str, tag_id: str) -> None:
        """Refused: tag_not_found (also when the message does not carry it), message_not_found."""
        await self.one(user_id, tag_id)
        with self._coherence.writing([mailbox.id]):
            await self._messages.untag(mailbox, message_id, tag_id)

    async def named(self, user_id: str, names: Iterable[str]) -> dict[str, str]:
        """Ids by name, of the user's tags that are so named."""
        return await self._tags.named(user_id, names)
