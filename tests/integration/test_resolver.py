"""What the resolver remembers of strangers' names has a bound, and forgetting it loses no question."""

import asyncio

import pytest

from server import log, outages
from server.model.errors import Unavailable
from server.services.domains import resolver
from server.services.domains.resolver import Resolver
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


async def test_an_outage_of_dns_is_told_of_once_though_answers_are_kept(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.configure("info")
    monkeypatch.setattr(resolver, "_ATTEMPT", 0.2)
    monkeypatch.setattr(resolver, "_PROBE_EVERY", 0.05)
    with name_server() as zones:
        zones.ttl = 3600
        zones.texts["kept.example"] = ["x"]
        asking = Resolver([zones.address])
        monkeypatch.setattr(resolver, "_ATTEMPT", 0.7)  # of looks at the root, which must not fail for a busy machine
        try:
            await asking.records("kept.example", "TXT")
            silent = ("kept.example", *(f"n{n}.example" for n in range(4)))
            zones.faults = dict.fromkeys(silent, "silence")
            for n in range(4):  # the servers of these names are away: the root still answers
                with pytest.raises(Unavailable):
                    await asking.records(f"n{n}.example", "TXT")
            assert not outages.DNS.said
            zones.faults = dict.fromkeys((*silent, ""), "silence")
            async with asyncio.timeout(60):
                while not outages.DNS.said:  # though each mail asks for something that is kept, too
                    with pytest.raises(Unavailable):
                        await asking.records("n0.example", "TXT")
                    assert await asking.records("kept.example", "TXT") == ["x"]
            for n in range(4):
                with pytest.raises(Unavailable):
                    await asking.records(f"n{n}.example", "TXT")
            said = [line for line in capfd.readouterr().err.splitlines() if "DNS" in line]
            assert len(said) == 1
            assert "DNS lost; " in said[0]
            zones.faults = {}
            async with asyncio.timeout(60):
                while outages.DNS.said:  # and nothing asks
                    await asyncio.sleep(0.05)
            assert "DNS is back" in capfd.readouterr().err
        finally:
            await asking.close()
