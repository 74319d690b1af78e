"""Many mailboxes at once: copied in the database of a server the bench started itself, else made through the API.

Must not know: what is done with them.
"""

from pathlib import Path
from typing import Final

import asyncpg

from bench.clients.api import Api, Mailbox
from bench.tools.target import Target
from server.store.embedded import running_dsn

COPIES: Final = """
CREATE UNLOGGED TABLE {boxes} AS
SELECT uuidv7(random() * interval '-1 hour') AS id,
    'g' || encode(substr(uuid_send(gen_random_uuid()), 1, 8), 'hex') AS local_part
FROM generate_series(1, {count});
INSERT INTO mailboxes.mailboxes (id, local_part, domain, token_hash, user_id, created_at, expires_at)
SELECT b.id, b.local_part, t.domain, sha256(convert_to('growth-' || b.id, 'UTF8')), NULL, t.created_at, t.expires_at
FROM {boxes} b, mailboxes.mailboxes t WHERE t.id = '{pattern}';
INSERT INTO mailboxes.addresses (local_part, domain, mailbox_id, created_at)
SELECT b.local_part, t.domain, b.id, t.created_at FROM {boxes} b, mailboxes.mailboxes t WHERE t.id = '{pattern}';
INSERT INTO messages.inboxes (mailbox_id, drop_after, next_seq, total, unread, capacity, last_activity)
SELECT b.id, t.drop_after, {each} + 1, {each}, {each}, t.capacity, t.last_activity
FROM {boxes} b, messages.inboxes t WHERE t.mailbox_id = '{pattern}';
"""
"""Makes ``count`` mailboxes like ``pattern``, whose inboxes say that they hold ``each`` messages, and a table of them.
Ids sort by time, as the product makes them; ``token_of`` opens them."""

_TABLE: Final = "public.bench_boxes"


def token_of(mailbox_id: str) -> str:
    """The token that opens a mailbox that was copied; databases that ``growth --keep`` left know it too."""
    return f"growth-{mailbox_id}"


async def make_boxes(target: Target, work: Path, count: int) -> list[Mailbox]:
    """``count`` new mailboxes of ``target``; ``work`` is where its data lies if the bench has started it."""
    async with Api(target.http) as api:
        if target.pid is None:
            return await api.create_mailboxes(count)
        pattern = await api.create_mailbox()
    dsn = running_dsn(work / "data")
    assert dsn is not None
    connection = await asyncpg.connect(dsn)
    await connection.execute(COPIES.format(boxes=_TABLE, count=count, each=0, pattern=pattern.id))
    rows = await connection.fetch(f"SELECT id::text, local_part FROM {_TABLE}")
    await connection.execute(f"DROP TABLE {_TABLE}; ANALYZE mailboxes.mailboxes, mailboxes.addresses, messages.inboxes")
    await connection.close()
    domain = pattern.address.rpartition("@")[2]
    return [Mailbox(row["id"], f"{row['local_part']}@{domain}", token_of(row["id"])) for row in rows]
