"""Filling an embedded database with as much mail as asked for, in the layout the product itself gave it.

A few letters go in by SMTP, to a mailbox for each hour that mail is to end in: so the product makes the partitions, and
says what a row looks like. Each letter is then copied, in the database, to as many mailboxes as are wanted, with ids,
times and numbers of its own; a mailbox's mail lies scattered over its partition, as it does when it came over hours.
Must not know: what is measured afterwards.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson
import uvloop

from bench.clients.api import Api, Mailbox
from bench.clients.burst import send_all
from bench.clients.smtp import SENDER
from bench.scenarios.boxes import COPIES, token_of
from bench.tools.launch import Plan, own_server
from bench.tools.target import Target
from server.store.embedded import EmbeddedPostgres

TTL_SETTINGS: Final = {"MAILBOX_MAX_TTL": "200h"}
HOUR_FROM: Final = 3  # the first partition that is filled ends so many hours from now, so that a kept database lasts
_LETTERS: Final = 8  # different ones, by partition
_WORDS: Final = 66  # of a letter's text, which packs to some 400 bytes
_SIDE_BY_SIDE: Final = 2
_CHUNKS: Final = 16  # of a COPY, waiting from one connection to the other
_RECORD: Final = "growth.json"


@dataclass(frozen=True, slots=True)
class Filled:
    """What lies in a database: ``seconds`` the filling took, ``bytes`` by table with its indexes."""

    mailboxes: int
    messages: int
    partitions: int
    seconds: float
    bytes: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Part:
    """One partition to fill: its letters' mailbox, its two tables, and how many mailboxes of how much mail each."""

    letters: str
    messages: str
    bodies: str
    boxes: int
    each: int


def letter(rng: random.Random, words: int = _WORDS) -> bytes:
    """A letter in wire form with a text of about so many words, which packs as English does."""
    lines = [" ".join(rng.choices(_VOCABULARY, k=rng.randint(8, 14))).capitalize() + "." for _ in range(words // 11)]
    head = (
        f"From: Example Shop <{SENDER}>\r\nTo: you\r\nSubject: Your code is {rng.randint(100_000, 999_999)}\r\n"
        f"Message-ID: <{rng.getrandbits(64):x}@src.test>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n\r\n"
    )
    return (head + "\r\n".join(lines) + "\r\n").encode()


def _vocabulary() -> list[str]:
    rng = random.Random(1)
    return ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 8))) for _ in range(600)]


_VOCABULARY: Final = _vocabulary()


async def _send_letters(target: Target, partitions: int) -> list[Mailbox]:
    """A mailbox that ends in each hour, with a few letters in it."""
    rng, boxes = random.Random(2), []
    async with Api(target.http) as api:
        for number in range(partitions):
            made = await api.make("/v1/mailboxes", {"expiresIn": f"{HOUR_FROM + number}h"}, "")
            boxes.append(Mailbox(made["id"], made["address"], made["token"]))
    letters = [(box.address, letter(rng)) for box in boxes for _ in range(_LETTERS)]
    await send_all(target.smtp, letters, sessions=10, deadline=120)
    return boxes


_KEEP_LETTERS: Final = """
CREATE SCHEMA growth;
CREATE TABLE growth.letters AS
    SELECT m.*, (row_number() OVER (PARTITION BY mailbox_id ORDER BY seq) - 1)::int AS k,
        m.tableoid::regclass::text AS leaf
    FROM messages.messages m;
CREATE TABLE growth.contents AS
    SELECT b.*, l.mailbox_id AS letters_of, l.k, b.tableoid::regclass::text AS leaf
    FROM messages.bodies b JOIN growth.letters l ON l.body_id = b.id;
"""

_MAIL: Final = """
CREATE UNLOGGED TABLE {mail} AS
SELECT b.id AS mailbox_id, b.local_part, s AS seq, uuidv7() AS made, uuidv7() AS body_id,
    (random() * {letters_count})::int % {letters_count} AS k
FROM generate_series(1, {each}) s, {boxes} b;
"""

_OWN: Final = {  # columns in which a copy differs from its letter
    "mailbox_id": "c.mailbox_id",
    "seq": "c.seq::bigint",
    "id": "(substr(c.made::text, 1, 28) || lpad(to_hex(c.seq), 8, '0'))::uuid",
    "body_id": "c.body_id",
    "recipient": "c.local_part || substr(t.recipient, strpos(t.recipient, '@'))",
}


def _columns(of: Sequence[str], own: Mapping[str, str]) -> str:
    return ", ".join(own.get(column, f"t.{column}") for column in of)


class _Filler:
    """Two connections: one reads what the database makes up, the other stores it."""

    def __init__(self, reader: "asyncpg.Connection[Any]", writer: "asyncpg.Connection[Any]", name: str) -> None:
        self._reader, self._writer, self._name = reader, writer, name

    async def fill(self, part: _Part, drop_after: datetime | None = None) -> None:
        """Store a partition's mailboxes and mail; ``drop_after`` in place of the letters' own."""
        boxes, mail = f"growth.boxes_{self._name}", f"growth.mail_{self._name}"
        await self._writer.execute(
            (COPIES + _MAIL).format(
                boxes=boxes,
                mail=mail,
                count=part.boxes,
                each=part.each,
                pattern=part.letters,
                letters_count=_LETTERS,
            )
        )
        end = (
            {}
            if drop_after is None
            else dict.fromkeys(("drop_after", "body_drop_after"), f"timestamptz '{drop_after}'")
        )
        letters = f"growth.letters t ON t.k = c.k AND t.mailbox_id = '{part.letters}'"
        contents = f"growth.contents t ON t.k = c.k AND t.letters_of = '{part.letters}'"
        kept = drop_after is None
        await self._store(part.messages, _OWN | end, f"{mail} c JOIN {letters}", kept)
        await self._store(part.bodies, {"id": "c.body_id"} | end, f"{mail} c JOIN {contents}", kept)
        await self._writer.execute(f"DROP TABLE {mail}; DROP TABLE {boxes}" if kept else f"DROP TABLE {mail}")

    async def _store(self, table: str, own: Mapping[str, str], source: str, keep: bool) -> None:
        """COPY into a table emptied in the same transaction: rows are frozen, as after a vacuum, and skip the WAL."""
        schema, name = table.split(".")
        rows = await self._writer.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum", table
        )
        columns = [row["attname"] for row in rows]
        made = f"SELECT {_columns(columns, own)} FROM {source}"
        if keep:  # the letters themselves
            whole = "growth.letters" if "id" in own and "seq" in own else "growth.contents"
            made += f" UNION ALL SELECT {_columns(columns, {})} FROM {whole} t WHERE t.leaf = '{table}'"
        chunks: asyncio.Queue[bytes] = asyncio.Queue(_CHUNKS)

        async def received() -> AsyncIterator[bytes]:
            while chunk := await chunks.get():
                yield chunk

        async def read() -> None:
            await self._reader.copy_from_query(made, output=chunks.put, format="binary")
            await chunks.put(b"")

        async with self._writer.transaction():
            await self._writer.execute(f"TRUNCATE {table}")
            async with asyncio.TaskGroup() as group:
                group.create_task(read())
                group.create_task(
                    self._writer.copy_to_table(
                        name, schema_name=schema, columns=columns, source=received(), format="binary", freeze=True
                    )
                )


async def filler(dsn: str, name: str) -> _Filler:
    """Connections of their own; they end with the process or its loop."""
    return _Filler(await asyncpg.connect(dsn), await asyncpg.connect(dsn), name)


async def _parts(dsn: str, boxes: Sequence[Mailbox], mailboxes: int, each: int) -> list[_Part]:
    connection = await asyncpg.connect(dsn)
    await connection.execute(_KEEP_LETTERS)
    parts = []
    for number, box in enumerate(boxes):
        leaves = await connection.fetchrow(
            "SELECT l.leaf, c.leaf AS body FROM growth.letters l JOIN growth.contents c ON c.id = l.body_id"
            " WHERE l.mailbox_id = $1 LIMIT 1",
            box.id,
        )
        assert leaves is not None
        count = mailboxes * (number + 1) // len(boxes) - mailboxes * number // len(boxes)
        parts.append(_Part(box.id, leaves["leaf"], leaves["body"], count, each))
    await connection.close()
    return parts


async def _sizes(connection: "asyncpg.Connection[Any]") -> dict[str, int]:
    """Bytes with indexes, by table; a partitioned one with all its partitions."""
    rows = await connection.fetch(
        "SELECT coalesce(i.inhparent, c.oid)::regclass::text AS name,"
        " sum(pg_total_relation_size(c.oid))::bigint AS bytes"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " LEFT JOIN pg_inherits i ON i.inhrelid = c.oid"
        " WHERE c.relkind = 'r' AND n.nspname IN ('mailboxes', 'messages')"
        " GROUP BY 1 HAVING sum(pg_total_relation_size(c.oid)) > 1000000"
        " ORDER BY 2 DESC"
    )
    return {row["name"]: row["bytes"] for row in rows}


async def _fill(dsn: str, boxes: Sequence[Mailbox], mailboxes: int, each: int, step: Callable[[], None]) -> Filled:
    started = time.monotonic()
    pending = iter(await _parts(dsn, boxes, mailboxes, each))

    async def worker(name: str) -> None:
        filling = await filler(dsn, name)
        for part in pending:
            await filling.fill(part)
            step()

    async with asyncio.TaskGroup() as group:
        for number in range(_SIDE_BY_SIDE):
            group.create_task(worker(str(number)))
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"UPDATE messages.counters SET received = received + {mailboxes * each} WHERE shard = 0")
    await connection.execute("VACUUM ANALYZE")
    total = await connection.fetchval("SELECT sum(total) FROM messages.inboxes")
    counted = await connection.fetchval("SELECT count(*) FROM messages.messages")
    if total != counted or counted < mailboxes * each:
        raise ValueError(f"{counted} messages lie in the database, its inboxes count {total}")
    ranges = await connection.fetchval("SELECT count(DISTINCT leaf) FROM growth.letters")
    return Filled(mailboxes, counted, ranges, time.monotonic() - started, await _sizes(connection))


@contextmanager
def _bare_database(data: Path, wal_level: str) -> Iterator[str]:
    """The data directory's PostgreSQL without a server before it; yields its DSN."""
    settings = data / "postgres" / "postgresql.auto.conf"
    before = settings.read_text()
    settings.write_text(f"{before}wal_level = {wal_level}\nmax_wal_senders = 0\nmaintenance_work_mem = '256MB'\n")
    database = EmbeddedPostgres(data, max_connections=20)
    database.start()
    try:
        yield database.dsn
    finally:
        database.stop()
        settings.write_text(before)


def fill(work: Path, mailboxes: int, each: int, partitions: int, step: Callable[[], None]) -> Filled:
    """Fill ``work/data``; what was filled before is left as it is and told again."""
    record = work / _RECORD
    if record.exists():
        return Filled(**orjson.loads(record.read_bytes()))
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)
    with own_server(work, Plan(1, TTL_SETTINGS)) as target:
        boxes = asyncio.run(_send_letters(target, partitions))
    with _bare_database(work / "data", "minimal") as dsn:
        filled = uvloop.run(_fill(dsn, boxes, mailboxes, each, step))
    record.write_bytes(orjson.dumps(asdict(filled)))
    return filled


async def sample(dsn: str, count: int) -> list[Mailbox]:
    """``count`` mailboxes that were filled, from anywhere among them."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        "SELECT id::text, local_part || '@' || domain AS address FROM mailboxes.mailboxes"
        " WHERE local_part LIKE 'g________________' ORDER BY hashtext(id::text) LIMIT $1",
        count,
    )
    await connection.close()
    return [Mailbox(row["id"], row["address"], token_of(row["id"])) for row in rows]


class Expiring:
    """A partition whose time is over and that the server does not know of until ``attach``; its mailboxes end at a
    moment that ``arm`` names.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
        self._bounds = start, start + timedelta(hours=1)
        self._suffix = f"{start:%Y%m%d%H%M%S}_3600"

    async def prepare(self, mailboxes: int, each: int, ends_in: float) -> None:
        """Fill its tables, and have its mailboxes end ``ends_in`` seconds from the time this is done."""
        filling = await filler(self._dsn, "expiring")
        connection = await asyncpg.connect(self._dsn)
        start, end = self._bounds
        for table in ("messages", "bodies"):
            await connection.execute(
                f"DROP TABLE IF EXISTS growth.{table};"
                f"CREATE TABLE growth.{table} (LIKE messages.{table} INCLUDING ALL,"
                f" CHECK (drop_after >= '{start}' AND drop_after < '{end}'))"  # so that ATTACH need not look
            )
        await connection.execute("DROP TABLE IF EXISTS growth.boxes_expiring")
        letters = str(
            await connection.fetchval("SELECT mailbox_id FROM growth.letters ORDER BY drop_after DESC LIMIT 1")
        )
        part = _Part(str(letters), "growth.messages", "growth.bodies", mailboxes, each)
        await filling.fill(part, start + timedelta(minutes=30))
        await connection.execute(
            "UPDATE mailboxes.mailboxes SET expires_at = now() + make_interval(secs => $1)"
            " WHERE id IN (SELECT id FROM growth.boxes_expiring)",
            ends_in,
        )
        await connection.close()

    async def attach(self) -> None:
        """Make it a partition like the others, by the product's naming, so that the next upkeep drops it."""
        connection = await asyncpg.connect(self._dsn)
        start, end = self._bounds
        name = f"message_tags_{self._suffix}"
        await connection.execute(f"CREATE TABLE messages.{name} (LIKE messages.message_tags INCLUDING ALL)")
        async with connection.transaction():
            for table in ("messages", "bodies"):
                await connection.execute(f"ALTER TABLE growth.{table} RENAME TO {table}_{self._suffix}")
                await connection.execute(f"ALTER TABLE growth.{table}_{self._suffix} SET SCHEMA messages")
            for table in ("messages", "bodies", "message_tags"):
                await connection.execute(
                    f"ALTER TABLE messages.{table} ATTACH PARTITION messages.{table}_{self._suffix}"
                    f" FOR VALUES FROM ('{start}') TO ('{end}')"
                )
        await connection.close()

    async def left(self) -> int:
        """How much of it is still there: tables, and mailboxes."""
        connection = await asyncpg.connect(self._dsn)
        found: int = await connection.fetchval(
            "SELECT (SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE '%' || $1) + (SELECT count(*)"
            " FROM mailboxes.mailboxes WHERE id IN (SELECT id FROM growth.boxes_expiring))",
            self._suffix,
        )
        await connection.close()
        return found
