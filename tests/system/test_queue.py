"""Queue mode against a real RabbitMQ: 250 follows its confirmation, and what was answered 250 is stored once, whoever
is killed, hung or full.
"""

import asyncio
import random
import secrets
import smtplib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from server.store.embedded import running_dsn
from tests.broker import Broker
from tests.running import Box, Server, lasting
from tests.system.senders import Burst
from tests.system.test_durability import kill_backend, kill_postmaster, kill_worker, stored_ids
from tests.system.test_roles import beside

OwnServer = Callable[..., Server]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    running = Broker(tmp_path_factory.mktemp("rabbitmq")).start()
    yield running
    running.close()


def queue_mode(broker: Broker, **more: str) -> dict[str, str]:
    """Settings with a queue of their own."""
    name = f"test.{secrets.token_hex(4)}"
    return {"INGEST_MODE": "queue", "RABBITMQ_URL": broker.url, "RABBITMQ_QUEUE": name, "WORKERS": "1"} | more


async def arrives(server: Server, box: Box, count: int = 1, timeout: float = 120) -> list[str]:
    """The subjects, newest first, once there are so many."""
    async with asyncio.timeout(timeout):
        while len(items := await server.messages(box)) < count:
            await asyncio.sleep(0.05)
    return [str(item["subject"]) for item in items]


async def refused(server: Server, box: Box) -> int:
    """The code that a message is answered with; 250 if it is taken."""
    try:
        await server.deliver(box, subject="unwelcome")
    except smtplib.SMTPDataError as error:
        return error.smtp_code
    return 250


async def figure(server: Server, name: str) -> float:
    """A metric of one sample, by its full name with labels."""
    async with aiohttp.ClientSession() as client, client.get(server.http + "/metrics") as response:
        text = await response.text()
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " ")), 0.0)


async def test_mail_goes_in_at_one_node_through_the_broker_and_out_at_others(
    own_server: OwnServer, broker: Broker
) -> None:
    settings = queue_mode(broker)
    smtp = own_server(**settings | {"ROLES": "smtp,sweeper"})
    web = beside(own_server, smtp, "web", **settings)
    box = await web.mailbox()
    await smtp.deliver(box, subject="waits")
    await smtp.deliver(box, subject="large", text="".join(secrets.token_hex(40) + "\n" for _ in range(9000)))
    assert await web.messages(box) == []
    assert await broker.depth(settings["RABBITMQ_QUEUE"]) == 1
    assert await broker.depth(settings["RABBITMQ_QUEUE"] + ".large") == 1
    async with asyncio.timeout(60):
        while await figure(smtp, f'tempmail_queue_messages{{queue="{settings["RABBITMQ_QUEUE"]}"}}') != 1:
            await asyncio.sleep(0.2)
    ingest = beside(own_server, smtp, "ingest", **settings)
    assert set(await arrives(web, box, 2)) == {"waits", "large"}
    async with asyncio.timeout(60):
        while await figure(ingest, 'tempmail_queue_taken_total{result="stored"}') != 2:
            await asyncio.sleep(0.2)
    for node in (ingest, web):
        assert await asyncio.to_thread(node.stop) == 0
    assert await broker.depth(settings["RABBITMQ_QUEUE"]) == 0


async def test_killing_every_process_in_turn_loses_nothing_and_stores_nothing_twice(
    own_server: OwnServer, broker: Broker, tmp_path: Path
) -> None:
    settings = queue_mode(broker, MAILBOX_MAX_MESSAGES="0", DRAIN_DEADLINE="5s", WORKERS="2")
    server = own_server(**settings, **lasting())
    box = await server.mailbox()
    burst = Burst(tmp_path, server.smtp, box.address)
    burst.start(3)
    for kill in (kill_worker, kill_worker, kill_backend, kill_worker, kill_postmaster, kill_worker):
        await burst.more(40)
        await asyncio.sleep(random.uniform(0, 0.5))
        await asyncio.to_thread(kill, server)
    await burst.more(40)
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)
    await burst.more(40)
    await asyncio.to_thread(kill_worker, server)
    promised = await burst.stop()
    await arrives(server, box, len(promised), timeout=60)
    async with asyncio.timeout(60):
        while promised - set(readable := await stored_ids(server, box)):
            await asyncio.sleep(0.5)
    repeated = {mail_id: n for mail_id, n in readable.items() if n > 1}
    print(f"{len(promised)} answered 250, {sum(readable.values())} stored, {len(repeated)} of them more than once")
    assert not repeated
    assert await broker.depth(settings["RABBITMQ_QUEUE"] + ".dead") == 0


async def test_broker_that_hangs_is_try_again_and_mail_flows_when_it_goes_on(
    own_server: OwnServer, broker: Broker
) -> None:
    server = own_server(**queue_mode(broker))
    box = await server.mailbox()
    await server.deliver(box, subject="before")
    await arrives(server, box)
    broker.pause()
    try:
        assert await refused(server, box) == 451
        await server.get(box)  # what needs no broker goes on
    finally:
        broker.resume()
    async with asyncio.timeout(60):
        while await refused(server, box) != 250:
            await asyncio.sleep(0.5)
    assert "before" in await arrives(server, box, 2)


async def test_full_queue_and_a_broker_short_of_memory_are_try_again(own_server: OwnServer, broker: Broker) -> None:
    settings = queue_mode(broker, RABBITMQ_MAX_MESSAGES="5")
    smtp = own_server(**settings | {"ROLES": "smtp,web"})
    box = await smtp.mailbox()
    codes = [await refused(smtp, box) for _ in range(12)]
    assert codes[:5] == [250] * 5
    assert codes[-1] == 451
    taken = codes.count(250)
    ingest = beside(own_server, smtp, "ingest", **settings)
    assert len(await arrives(smtp, box, taken)) == taken
    await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.00001")
    try:
        began = time.monotonic()
        assert await refused(smtp, box) == 451
        assert time.monotonic() - began < 60
    finally:
        await asyncio.to_thread(broker.control, "set_vm_memory_high_watermark", "0.4")
    async with asyncio.timeout(120):
        while await refused(smtp, box) != 250:
            await asyncio.sleep(0.5)
    assert len(await arrives(smtp, box, taken + 1)) > taken
    assert await asyncio.to_thread(ingest.stop) == 0


async def test_no_broker_is_try_again_and_said_by_name(own_server: OwnServer, broker: Broker) -> None:
    server = own_server(**queue_mode(broker) | {"RABBITMQ_URL": "amqp://guest:guest@127.0.0.1:1/"})
    box = await server.mailbox()
    assert await refused(server, box) == 451
    async with aiohttp.ClientSession() as client, client.get(server.http + "/health/ready") as response:
        assert response.status == 503
        assert "Connect" in (await response.json())["checks"]["broker"]


async def test_mail_that_nobody_can_store_is_dropped_or_kept_apart_and_counted(
    own_server: OwnServer, broker: Broker
) -> None:
    settings = queue_mode(broker)
    smtp = own_server(**settings | {"ROLES": "smtp,web"})
    gone, living = await smtp.mailbox(), await smtp.mailbox()
    await smtp.deliver(gone, living, subject="for the living")
    await smtp.deliver(gone, subject="for the dead")
    async with (
        aiohttp.ClientSession(headers=gone.auth) as client,
        client.delete(f"{smtp.http}/v1/mailboxes/{gone.id}") as response,
    ):
        assert response.status < 300
    await broker.put(settings["RABBITMQ_QUEUE"], b"\x01 this is none of ours")
    ingest = beside(own_server, smtp, "ingest", **settings)
    assert await arrives(smtp, living) == ["for the living"]
    async with asyncio.timeout(60):
        while await broker.depth(settings["RABBITMQ_QUEUE"] + ".dead") != 1:
            await asyncio.sleep(0.1)
    for result in ("dropped", "dead"):
        async with asyncio.timeout(60):  # workers lay their figures down every second
            while await figure(ingest, f'tempmail_queue_taken_total{{result="{result}"}}') != 1:
                await asyncio.sleep(0.1)
    assert "for the" not in ingest.log
    assert "none of ours" not in ingest.log
    assert await asyncio.to_thread(ingest.stop) == 0


async def test_an_outage_of_the_database_buries_nothing(own_server: OwnServer, broker: Broker) -> None:
    settings = queue_mode(broker)
    server = own_server(**settings)
    box = await server.mailbox()
    await server.deliver(box, subject="first")  # RCPT is answered from memory from here on
    await arrives(server, box)
    with server.database_suspended():
        for number in range(3):
            await server.deliver(box, subject=f"meanwhile {number}")
        async with asyncio.timeout(120):
            while "commit failed" not in server.log:
                await asyncio.sleep(0.1)
    assert sorted(await arrives(server, box, 4)) == ["first", "meanwhile 0", "meanwhile 1", "meanwhile 2"]
    assert await broker.depth(settings["RABBITMQ_QUEUE"] + ".dead") == 0
    assert running_dsn(server.folder / "data")
