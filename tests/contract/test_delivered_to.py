"""The address that was used is told to the mailbox that was addressed by it, and to no other."""

import asyncio
import smtplib
from typing import Any

from tests.contract.transcript import ask, inject
from tests.running import Box, Server

MAIL = b"From: a@example.org\r\nSubject: hello\r\n\r\nbody\r\n"


async def send(server: Server, *addresses: str) -> None:
    """One DATA for all of them; no header names any."""

    def said() -> None:
        with smtplib.SMTP(*server.smtp, timeout=30) as client:
            assert client.sendmail("sender@example.org", addresses, MAIL) == {}

    await asyncio.to_thread(said)


async def newest(server: Server, box: Box) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The newest message as it is listed, opened and downloaded."""
    listed = (await server.messages(box))[0]
    path = f"/v1/mailboxes/{box.id}/messages/{listed['id']}"
    opened = (await ask(server, "GET", path, box)).data
    return listed, opened, (await ask(server, "GET", f"{path}/raw", box)).body


def named(opened: dict[str, Any]) -> list[str]:
    """What the headers say of it."""
    return [field["value"] for field in opened["headers"] if field["name"] == "Delivered-To"]


async def alias_of(server: Server, box: Box) -> str:
    name = box.address.partition("@")[0][:20] + "-alias"
    answer = await ask(server, "POST", f"/v1/mailboxes/{box.id}/aliases", box, json={"address": name})
    address: str = answer.data["address"]
    return address


async def test_address_alias_and_tag_are_told_as_they_were_used(server: Server) -> None:
    box = await server.mailbox()
    local, _, domain = box.address.partition("@")
    for address in (box.address, await alias_of(server, box), f"{local}+shop-42@{domain}"):
        await send(server, address)
        listed, opened, raw = await newest(server, box)
        assert listed["deliveredTo"] == opened["deliveredTo"] == named(opened) == [address]
        assert f"\r\nDelivered-To: {address}\r\n".encode() in raw
        assert f" for <{address}>;".encode() in raw.partition(b"From:")[0]
        assert len(raw) == listed["size"]


async def test_recipients_of_one_mail_never_learn_of_each_other(server: Server) -> None:
    boxes = [await server.mailbox() for _ in range(3)]
    await send(server, *(box.address for box in boxes))
    for box in boxes:
        listed, opened, raw = await newest(server, box)
        assert listed["deliveredTo"] == opened["deliveredTo"] == named(opened) == [box.address]
        assert raw.startswith(f"Delivered-To: {box.address}\r\nReturn-Path: <sender@example.org>\r\n".encode())
        assert raw.endswith(MAIL)
        assert len(raw) == listed["size"]
        for other in boxes:
            assert (other.address in f"{listed} {opened} {raw!r}") is (other is box)


async def test_all_addresses_of_one_mailbox_are_told(server: Server) -> None:
    box = await server.mailbox()
    local, _, domain = box.address.partition("@")
    tagged = f"{local}+b@{domain}"
    await send(server, box.address, tagged, box.address)
    listed, opened, raw = await newest(server, box)
    assert sorted(listed["deliveredTo"]) == sorted(named(opened)) == sorted([box.address, tagged])
    assert b" for <" not in raw.partition(b"From:")[0]


async def test_other_recipients_of_a_mail_with_a_tag_do_not_see_the_tag(server: Server) -> None:
    box, other = await server.mailbox(), await server.mailbox()
    local, _, domain = box.address.partition("@")
    await send(server, f"{local}+secret@{domain}", other.address)
    assert (await newest(server, box))[0]["deliveredTo"] == [f"{local}+secret@{domain}"]
    listed, opened, raw = await newest(server, other)
    assert "secret" not in f"{listed} {opened} {raw!r}"


async def test_injected_mail_keeps_its_bytes(server: Server) -> None:
    box = await server.mailbox()
    raw = "Return-Path: <x@example.org>\r\nFrom: a@example.org\r\n\r\nbody\r\n"
    made = await inject(server, box, raw=raw)
    assert made["deliveredTo"] == [box.address]
    assert (await newest(server, box))[2] == raw.encode()
