"""Rows packed here are the rows the driver would have sent, and the driver is one whose inner method was looked at."""

from datetime import UTC, datetime

import asyncpg
import pytest

from server.model import ids
from server.store import binary_rows
from server.store.binary_rows import Row
from server.store.pools import Pools


def rows() -> list[Row]:
    first, second = ids.new(), ids.new()
    early, late = datetime(1970, 1, 1, 0, 0, 0, 1, UTC), datetime(2100, 12, 31, 23, 59, 59, 999_999, UTC)
    head = ids.heads(1)[0]
    return [
        (first, 0, head, ids.new(), 1, early, 0, True, None, "", "", "", "", "{}", "", b""),
        (
            second,
            7,
            head,
            first,
            2,
            late,
            2**31 - 1,
            False,
            [first, second],
            "ü",
            "日本",
            "\U0001f600",
            "p",
            '{"a": 1}',
            "r",
            b"\0\xff",
        ),
        (
            first,
            2**31 - 1,
            head,
            first,
            2,
            late,
            5,
            False,
            [first, second],
            "a",
            "b",
            "c" * 9000,
            "d",
            "[]",
            "e" * 300,
            None,
        ),
    ]


def test_the_driver_is_one_that_was_reviewed() -> None:
    assert asyncpg.__version__ in binary_rows.REVIEWED, (
        "see how set_type_codec of this asyncpg registers a codec, then add it to REVIEWED in "
        "server/store/binary_rows.py"
    )


async def test_packed_rows_are_those_that_the_driver_sends(
    pools: Pools, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, query = rows(), "SELECT * FROM unnest($1::messages.letter[]) AS r"
    packed: list[int] = []
    pack = binary_rows.packed
    monkeypatch.setattr(binary_rows, "packed", lambda given, kind: (packed.append(len(given)), pack(given, kind))[1])
    async with pools.arrivals.connection() as taught:
        ours = await taught.fetch(query, sent)
    assert packed == [3]
    plain = await asyncpg.connect(empty)
    try:
        theirs = await plain.fetch(query, sent)
    finally:
        await plain.close()
    assert [tuple(row) for row in ours] == [tuple(row) for row in theirs]
    assert [row["raw"] for row in ours] == [b"", b"\0\xff", None]
