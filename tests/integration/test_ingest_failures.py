"""When storing fails: every sender is answered, with "try again", and nothing is taken from those who come later."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from server.services.mail_in import ingest
from tests.integration.mail import settled
from tests.integration.test_ingest import Bench, bench, outcomes

__all__ = ["bench"]


async def test_bytes_of_written_batches_are_given_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a worker answers "try again" for ever once 128 MiB have passed through it."""
    box = await settled(bench.store)
    monkeypatch.setattr(ingest, "MAX_QUEUE_BYTES", 2_000)
    for _ in range(30):
        futures = [bench.submit(box) for _ in range(5)]
        assert await outcomes(futures) == ["stored"] * 5
    assert (await bench.store.counts(box.id)).total == 150


async def test_bytes_of_failed_batches_are_given_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    box = await settled(bench.store)
    monkeypatch.setattr(ingest, "MAX_QUEUE_BYTES", 2_000)
    await bench.pools.messages.execute("ALTER TABLE messages.inboxes RENAME TO elsewhere")
    for _ in range(30):
        assert await outcomes([bench.submit(box)]) == ["Unavailable"]
    await bench.pools.messages.execute("ALTER TABLE messages.elsewhere RENAME TO inboxes")
    assert await outcomes([bench.submit(box) for _ in range(5)]) == ["stored"] * 5


async def test_a_queue_that_is_full_of_bytes_says_try_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    box = await settled(bench.store)
    monkeypatch.setattr(ingest, "MAX_QUEUE_BYTES", 0)
    assert await outcomes([bench.submit(box)]) == ["Unavailable"]


async def test_an_unexpected_fault_answers_every_sender_and_stops_no_later_mail(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = await settled(bench.store)
    writing = bench.coherence.writing

    @contextmanager
    def broken(*_: Any, **__: Any) -> Iterator[Any]:
        raise ZeroDivisionError("a fault of the code")
        yield

    monkeypatch.setattr(bench.coherence, "writing", broken)
    async with asyncio.timeout(60):
        assert await outcomes([bench.submit(box) for _ in range(20)]) == ["Unavailable"] * 20
    monkeypatch.setattr(bench.coherence, "writing", writing)
    assert await outcomes([bench.submit(box)]) == ["stored"]


@pytest.mark.parametrize("lost", ["backend", "table"])
async def test_a_commit_that_failed_is_try_again_and_no_verdict_on_the_message(bench: Bench, lost: str) -> None:
    """A verdict is 5xx by SMTP and a dead letter in queue mode: the mail would be gone."""
    box = await settled(bench.store)
    assert await outcomes([bench.submit(box)]) == ["stored"]
    if lost == "backend":
        bench.pools.arrivals.lender.pool.terminate()
    else:
        await bench.pools.messages.execute("ALTER TABLE messages.bodies RENAME TO elsewhere")
    assert (
        await outcomes([bench.submit(box) for _ in range(10)]) == ["Unavailable"] * 10
    )  # and not Unstorable, which is one
