"""Aliases of a mailbox, as clients of the contract use them, and the mail that is sent to them."""

import secrets
import smtplib
from typing import Any

import pytest

from tests.contract.test_api_mailboxes import UUID7, moment
from tests.contract.transcript import ask, inject
from tests.running import Box, Server

UNKNOWN = "01890000-0000-7000-8000-000000000000"


def aliases(box: Box, tail: str = "") -> str:
    return f"/v1/mailboxes/{box.id}/aliases{tail}"


def fresh() -> str:
    return f"also-{secrets.token_hex(5)}"


async def make(server: Server, box: Box, address: str) -> Any:
    return (await ask(server, "POST", aliases(box), box, json={"address": address})).data


def refused(server: Server, *recipients: str) -> dict[str, tuple[int, bytes]]:
    """Recipients that RCPT refuses, the others get a mail."""
    with smtplib.SMTP(*server.smtp, timeout=30) as client:
        try:
            return client.sendmail("a@example.org", list(recipients), b"Subject: hello\r\n\r\nhi\r\n")
        except smtplib.SMTPRecipientsRefused as error:
            return error.recipients


async def test_an_alias_is_made_listed_and_seen(server: Server) -> None:
    box, name = await server.mailbox(), fresh()
    answer = await ask(server, "POST", aliases(box), box, json={"address": name, "old": ["field"]})
    assert (answer.status, answer.json["msg"]) == (201, "created")
    made = answer.data
    assert set(made) == {"id", "mailboxId", "address", "createdAt", "isActive"}
    assert UUID7.fullmatch(made["id"])
    assert (made["mailboxId"], made["address"], made["isActive"]) == (box.id, f"{name}@temp.mail", True)
    moment(made["createdAt"])
    whole = await make(server, box, f" {fresh().upper()}@SECOND.test ")
    assert whole["address"] == whole["address"].lower()
    assert whole["address"].endswith("@second.test")
    assert (await ask(server, "GET", aliases(box), box)).data == {"items": [made, whole], "count": 2}
    assert (await ask(server, "GET", aliases(box, f"/{made['id']}"), box)).data == made


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "field_invalid"),
        ({"address": 7}, "field_invalid"),
        ({"address": ""}, "prefix_invalid"),
        ({"address": "ab"}, "prefix_invalid"),
        ({"address": "a..b"}, "prefix_invalid"),
        ({"address": "postmaster"}, "prefix_invalid"),
        ({"address": "abuse@temp.mail"}, "prefix_invalid"),
        ({"address": "a\x00bc\r\n"}, "prefix_invalid"),
        ({"address": "fine@"}, "domain_not_allowed"),
        ({"address": "fine@not-ours.example"}, "domain_not_allowed"),
        ({"address": "fine@temp.mail@temp.mail"}, "domain_not_allowed"),
        ({"address": "fine@eviltemp.mail"}, "domain_not_allowed"),
    ],
)
async def test_what_cannot_be_an_alias_names_the_field(server: Server, body: dict[str, Any], error: str) -> None:
    box = await server.mailbox()
    answer = await ask(server, "POST", aliases(box), box, json=body)
    assert (answer.status, answer.error, answer.json["field"]) == (400, error, "address")


async def test_an_address_is_given_once_over_mailboxes_and_aliases(server: Server) -> None:
    box, other = await server.mailbox(), await server.mailbox()
    made = await make(server, box, fresh())
    for taken in (made["address"], made["address"].partition("@")[0], other.address, box.address):
        for holder in (box, other):
            answer = await ask(server, "POST", aliases(holder), holder, json={"address": taken})
            assert (answer.status, answer.error, answer.json["field"]) == (409, "alias_exists", "address")
    mailbox = await ask(server, "POST", "/v1/mailboxes", json={"prefix": made["address"].partition("@")[0]})
    assert (mailbox.status, mailbox.error) == (409, "mailbox_exists")


async def test_a_mailbox_has_no_more_aliases_than_the_setting_says(server: Server) -> None:
    box = await server.mailbox()
    limits = (await ask(server, "GET", "/v1/public/config")).data
    assert (limits["limits"]["maxAliasesPerMailbox"], limits["features"]["aliases"]) == (5, True)
    for _ in range(5):
        last = await make(server, box, fresh())
    answer = await ask(server, "POST", aliases(box), box, json={"address": fresh()})
    assert (answer.status, answer.error) == (409, "too_many_aliases")
    assert (await ask(server, "DELETE", aliases(box, f"/{last['id']}"), box)).status == 204
    await make(server, box, fresh())


async def test_mail_to_an_alias_lies_in_its_mailbox_as_it_was_sent(server: Server) -> None:
    box = await server.mailbox()
    alias = await make(server, box, f"{fresh()}@second.test")
    assert refused(server, alias["address"]) == {}
    [mail] = await server.messages(box)
    assert (mail["to"], mail["subject"], mail["mailboxId"]) == (alias["address"], "hello", box.id)
    await server.deliver(Box("", alias["address"], ""), subject="named in To")
    assert (await server.messages(box))[0]["to"] == alias["address"]


async def test_a_mail_to_a_mailbox_and_its_alias_is_stored_once(server: Server) -> None:
    box = await server.mailbox()
    alias, another = await make(server, box, fresh()), await make(server, box, fresh())
    assert refused(server, box.address, alias["address"], another["address"].upper()) == {}
    assert len(await server.messages(box)) == 1
    assert (await server.get(box))["total"] == 1


async def test_an_alias_switched_off_is_no_mailbox_until_it_is_on_again(server: Server) -> None:
    box = await server.mailbox()
    alias = await make(server, box, fresh())
    path = aliases(box, f"/{alias['id']}")
    for active in (False, True, False, True):
        switched = await ask(server, "PATCH", path, box, json={"isActive": active})
        assert switched.data == alias | {"isActive": active}
        for _ in range(4):  # whichever worker is asked
            assert (await ask(server, "GET", path, box)).data["isActive"] is active
            answers = refused(server, alias["address"])
            assert answers == {} if active else answers[alias["address"]][0] == 550
            assert refused(server, box.address) == {}
    wrong = await ask(server, "PATCH", path, box, json={"isActive": "no"})
    assert (wrong.status, wrong.error, wrong.json["field"]) == (400, "field_invalid", "isActive")
    off = await ask(server, "PATCH", path, box, json={"isActive": False})
    assert off.status == 200
    taken = await ask(server, "POST", "/v1/mailboxes", json={"prefix": alias["address"].partition("@")[0]})
    assert taken.status == 409


async def test_a_deleted_alias_takes_no_mail_and_is_free(server: Server) -> None:
    box = await server.mailbox()
    alias = await make(server, box, fresh())
    assert refused(server, alias["address"]) == {}
    deleted = await ask(server, "DELETE", aliases(box, f"/{alias['id']}"), box)
    assert (deleted.status, deleted.body) == (204, b"")
    for _ in range(4):
        assert refused(server, alias["address"])[alias["address"]][0] == 550
        assert (await ask(server, "GET", aliases(box, f"/{alias['id']}"), box)).error == "alias_not_found"
    assert (await ask(server, "DELETE", aliases(box, f"/{alias['id']}"), box)).status == 404
    taken = await server.mailbox(alias["address"].partition("@")[0])
    assert refused(server, alias["address"]) == {}
    assert len(await server.messages(taken)) == 1
    assert len(await server.messages(box)) == 1


async def test_a_deleted_mailbox_frees_its_aliases_at_once(server: Server) -> None:
    box = await server.mailbox()
    alias = await make(server, box, fresh())
    assert refused(server, alias["address"]) == {}
    assert (await ask(server, "DELETE", f"/v1/mailboxes/{box.id}", box)).status == 204
    for _ in range(4):
        assert refused(server, alias["address"])[alias["address"]][0] == 550
    await server.mailbox(alias["address"].partition("@")[0])


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE", "HEAD"])
async def test_a_foreign_alias_looks_like_none(server: Server, method: str) -> None:
    mine, theirs = await server.mailbox(), await server.mailbox()
    alias = await make(server, theirs, fresh())
    body: dict[str, Any] = {"json": {"isActive": False}} if method == "PATCH" else {}
    unknown = await ask(server, method, aliases(mine, f"/{UNKNOWN}"), mine, **body)
    assert unknown.status == 404
    for other in (alias["id"], alias["id"].upper(), "x", "%00", f"..%2f{alias['id']}"):
        for headers in ({}, {"If-None-Match": "*"}, {"Range": "bytes=0-1"}):
            answer = await ask(server, method, aliases(mine, f"/{other}"), mine, headers, **body)
            assert (answer.status, answer.body) == (404, unknown.body)
    without = await ask(server, method, aliases(theirs, f"/{alias['id']}"), mine, **body)
    assert without.status == 404
    assert (await ask(server, method, aliases(theirs, f"/{alias['id']}"), **body)).status == 401
    assert (await ask(server, "GET", aliases(theirs), theirs)).data["items"] == [alias]


async def test_injected_mail_counts_with_mail_to_aliases(server: Server) -> None:
    box = await server.mailbox()
    alias = await make(server, box, fresh())
    await inject(server, box, subject="injected")
    assert refused(server, alias["address"]) == {}
    assert [one["seq"] for one in await server.messages(box)] == [2, 1]
