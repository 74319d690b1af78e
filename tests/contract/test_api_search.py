"""The operators of q in a mailbox's search: each finds what it says, together they narrow, and wrong ones are named."""

from email.message import EmailMessage
from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.accounts import register
from tests.contract.transcript import ask, inject
from tests.running import Box, Server


def raw(subject: str, text: str, **headers: str) -> str:
    message = EmailMessage()
    message["Subject"] = subject
    for name, value in headers.items():
        message[name] = value
    message.set_content(text)
    return message.as_string()


async def filled(server: Server, box: Box) -> list[Any]:
    """Three messages: an invoice with an attachment, a letter that has been read, and something large."""
    invoice = EmailMessage()
    invoice["Subject"], invoice["From"], invoice["To"] = (
        "Your invoice 17",
        "Billing <billing@shop.example>",
        box.address,
    )
    invoice.set_content("please pay me now")
    invoice.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="17.pdf")
    letter = {"From": "friend@home.example", "To": "someone@else.example", "Cc": "third@party.example"}
    large = {"From": "news@shop.example", "To": box.address}
    return [
        await inject(server, box, raw=invoice.as_string(), **{"from": "bounce@mailer.example"}),
        await inject(server, box, raw=raw("Party on Friday", "come at nine, pay nothing", **letter), isRead=True),
        await inject(server, box, raw=raw("Weekly news", "word " * 5000, **large)),
    ]


async def found(server: Server, box: Box, query: str, rest: str = "", headers: dict[str, str] | None = None) -> str:
    """Which of the three, by their first letters, oldest first."""
    path = f"/v1/mailboxes/{box.id}/messages/search?q={quote(query)}{rest}"
    result = (await ask(server, "GET", path, headers=headers or box.auth)).data
    assert result["total"] == len(result["messages"])
    return "".join({"Your": "I", "Part": "P", "Week": "W"}[one["subject"][:4]] for one in reversed(result["messages"]))


async def test_each_operator_finds_what_it_says(server: Server) -> None:
    box = await server.mailbox()
    await filled(server, box)
    for query, wanted in {
        "": "IPW",
        "pay": "IP",
        "pay now": "I",
        '"me pay"': "",
        '"pay me"': "I",
        "-pay": "W",
        '-"pay me"': "PW",
        "pay -invoice": "P",
        "from:shop.example": "IW",
        "from:bounce@mailer": "I",
        "from:BILLING": "I",
        '-from:"billing <billing"': "PW",
        "to:someone@else": "P",
        "to:third@party": "P",
        f"to:{box.address}": "IW",
        "subject:friday": "P",
        'subject:"party on"': "P",
        "subject:pay": "",
        "after:2000-01-01": "IPW",
        "before:2000-01-01": "",
        "-before:2000-01-01 -after:2999-01-01T00:00:00Z": "IPW",
        "larger:10K": "W",
        "smaller:10K": "IP",
        "-larger:10K": "IP",
        "larger:1M": "",
        "has:attachment": "I",
        "-has:attachment": "PW",
        "is:unread": "IW",
        "is:read": "P",
        "-is:read has:attachment": "I",
        "is:read is:unread": "",
        "dmarc:none": "IPW",
        "dmarc:pass": "",
        "-dmarc:fail": "IPW",
        "from:shop smaller:10K is:unread after:2000-01-01 invoice": "I",
        "100%": "",
        "me_now": "",
        "17.pdf:": "",
    }.items():
        assert await found(server, box, query) == wanted, query


async def test_operators_and_parameters_narrow_together(server: Server) -> None:
    box = await server.mailbox()
    await filled(server, box)
    for query, rest, wanted in (
        ("from:shop", "&isRead=false&hasAttachment=true", "I"),
        ("pay", "&from=friend", "P"),
        ("from:shop", "&from=friend", ""),
        ("is:read", "&isRead=false", ""),
        ("subject:invoice", "&subject=your", "I"),
        ("after:2000-01-01", "&endDate=2000-02-01", ""),
        ("after:2000-01-01", "&startDate=2001-01-01", "IPW"),
    ):
        assert await found(server, box, query, rest) == wanted, (query, rest)


@pytest.mark.parametrize(
    "query",
    [
        "from:",
        "before:tomorrow",
        "after:2024-02-30",
        "larger:heavy",
        "smaller:1T",
        "has:wings",
        "is:green",
        "dmarc:so-so",
        "tag:",
        'subject:""',
        "ok -before:1",
    ],
)
async def test_a_wrong_operator_is_named(server: Server, query: str) -> None:
    box = await server.mailbox()
    answer = await ask(server, "GET", f"/v1/mailboxes/{box.id}/messages/search?q={quote(query)}", box)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", "q")
    assert answer.json["detail"].startswith(query.removeprefix("ok -").partition(":")[0] + ": wants ")


async def test_too_many_terms_are_refused(server: Server) -> None:
    box = await server.mailbox()
    assert await found(server, box, "a " * 20) == ""
    answer = await ask(server, "GET", f"/v1/mailboxes/{box.id}/messages/search?q={quote('a ' * 21)}", box)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", "q")


async def test_a_tag_is_looked_for_among_those_of_the_account(server: Server) -> None:
    user, other = await register(server), await register(server)
    box = await user.mailbox()
    invoice, party, _ = await filled(server, box)
    path = f"/v1/mailboxes/{box.id}/messages"
    made = (await user.ask("POST", "/v1/tags", json={"name": "To Do", "color": "red"})).data
    await other.ask("POST", "/v1/tags", json={"name": "theirs", "color": "red"})
    await user.ask("POST", f"{path}/{invoice['id']}/tags", json={"tagId": made["id"]})
    assert await found(server, box, 'tag:"to do"', headers=user.auth) == "I"
    assert await found(server, box, '-tag:"TO DO"', headers=user.auth) == "PW"
    assert await found(server, box, "tag:theirs", headers=user.auth) == ""
    assert await found(server, box, "tag:unheard-of", headers=user.auth) == ""
    assert await found(server, box, "-tag:unheard-of", headers=user.auth) == "IPW"
    await user.ask("POST", f"{path}/{party['id']}/tags", json={"tagId": made["id"]})
    assert await found(server, box, 'tag:"to do" pay', headers=user.auth) == "IP"
    await user.ask("PATCH", f"/v1/tags/{made['id']}", json={"name": "later"})
    for _ in range(4):  # whichever worker is asked: a name is never remembered
        assert await found(server, box, 'tag:"to do"', headers=user.auth) == ""
        assert await found(server, box, "tag:later", headers=user.auth) == "IP"
    nobody = await ask(server, "GET", f"{path}/search?q=tag:later", box)
    assert (nobody.status, nobody.error, nobody.json["field"]) == (401, "token_required", "q")
