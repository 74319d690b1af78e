"""What the resolver remembers of strangers' names has a bound, and forgetting it loses no question."""

import asyncio

import pytest

from server.services import resolver
from server.services.resolver import Resolver
from tests.nameserver import name_server


async def test_names_that_strangers_choose_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "KEPT_MAX", 40 * 1024)
    with name_server() as zones:
        zones.ttl = 3600
        for n in range(100):
            zones.texts[f"n{n}.example"] = ["x"]
        asking = Resolver([zones.address])
        try:
            for _ in range(3):
                found = await asyncio.gather(*(asking.records(f"n{n}.example", "TXT") for n in range(20)))
                assert found == [["x"]] * 20
            few = len(zones.asked)
            assert few < 60, "kept answers are used"
            found = await asyncio.gather(*(asking.records(f"n{n}.example", "TXT") for n in range(100)))
            assert found == [["x"]] * 100
            before = len(zones.asked)
            assert await asking.records("n0.example", "TXT") == ["x"]
            assert len(zones.asked) == before + 1, "the oldest answers are still kept"
        finally:
            await asking.close()
