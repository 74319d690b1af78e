"""The bare rate of a list's SELECT through asyncpg: ``python -m bench.peers.select DSN CONNECTIONS``, ids on stdin.

What any server that asks PostgreSQL for each list must at least do: the statement a developer would write, prepared
once, rows left as the driver gives them; no HTTP, no token, no JSON. Prints ``rate cpu``: lists per second, and its own
CPU seconds for each.
"""

import asyncio
import sys
import time
from collections.abc import Sequence

import asyncpg
import uvloop

_LIST = """
SELECT i.total, i.drop_after, m.*
FROM messages.inboxes i
LEFT JOIN LATERAL (
    SELECT m.mailbox_id, m.seq, m.id, m.received_at, m.body_id, m.body_drop_after, m.size, m.is_read, m.envelope_from,
        m.sender, m.recipient, m.subject, m.preview, m.details
    FROM messages.messages m
    WHERE m.mailbox_id = $1 AND m.drop_after = $2
    ORDER BY m.seq DESC LIMIT $3
) m ON true
WHERE i.mailbox_id = $1
"""


async def _measure(dsn: str, connections: int, mailboxes: Sequence[str], limit: int) -> None:
    async with asyncpg.create_pool(
        dsn, min_size=connections, max_size=connections, server_settings={"jit": "off"}
    ) as pool:
        found = await pool.fetch("SELECT mailbox_id::text, drop_after FROM messages.inboxes")
        ends = {row["mailbox_id"]: row["drop_after"] for row in found}
        pending = iter(mailboxes)

        async def reader() -> None:
            async with pool.acquire() as connection:
                statement = await connection.prepare(_LIST)
                for mailbox in pending:
                    rows = await statement.fetch(mailbox, ends[mailbox], limit)
                    assert str(rows[0]["mailbox_id"]) == mailbox

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*[reader() for _ in range(connections)])
        seconds, spent = time.perf_counter() - began, time.process_time() - cpu
        print(len(mailboxes) / seconds, spent / len(mailboxes))


if __name__ == "__main__":
    uvloop.run(_measure(sys.argv[1], int(sys.argv[2]), sys.stdin.read().split(), 50))
