"""GET /v1/messages: all mail of an account, nothing of anybody else's, in order over its mailboxes."""

from urllib.parse import quote

import pytest

from tests.contract.people import api_key, own_box, person
from tests.contract.transcript import ask, inject
from tests.running import Server


async def subjects(server: Server, auth: dict[str, str], query: str = "") -> list[str]:
    return [one["subject"] for one in (await ask(server, "GET", f"/v1/messages{query}", headers=auth)).data["items"]]


async def test_mail_of_all_mailboxes_comes_newest_first_a_page_at_a_time(server: Server) -> None:
    someone = await person(server)
    boxes = [await own_box(server, someone), await own_box(server, someone, expiresIn="48h")]
    sent = [await inject(server, boxes[number % 2], subject=f"number {number}") for number in range(7)]
    whole = (await ask(server, "GET", "/v1/messages", headers=someone.auth)).data
    assert [one["id"] for one in whole["items"]] == [one["id"] for one in reversed(sent)]
    assert (whole["count"], "nextCursor" in whole) == (7, False)
    assert {one["mailboxId"] for one in whole["items"]} == {box.id for box in boxes}
    assert "text" not in whole["items"][0]
    found, cursor = [], ""
    while True:
        page = (await ask(server, "GET", f"/v1/messages?limit=3{cursor}", headers=someone.auth)).data
        found += [one["subject"] for one in page["items"]]
        if "nextCursor" not in page:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert found == [f"number {number}" for number in reversed(range(7))]


async def test_mail_of_others_and_of_mailboxes_that_are_gone_is_not_there(server: Server) -> None:
    someone, other, guest = await person(server), await person(server), await server.mailbox()
    mine, theirs, gone = await own_box(server, someone), await own_box(server, other), await own_box(server, someone)
    for box, subject in ((mine, "mine"), (theirs, "theirs"), (gone, "gone"), (guest, "a guest's")):
        await inject(server, box, subject=subject)
    assert await subjects(server, someone.auth) == ["gone", "mine"]
    assert await subjects(server, other.auth) == ["theirs"]
    assert await subjects(server, other.auth, "?q=mine") == []
    assert (await ask(server, "DELETE", f"/v1/mailboxes/{gone.id}", gone)).status == 204
    assert await subjects(server, someone.auth) == ["mine"]
    assert await subjects(server, (await person(server)).auth) == []


async def test_a_search_takes_the_operators_of_a_mailbox(server: Server) -> None:
    someone = await person(server)
    one, two = await own_box(server, someone), await own_box(server, someone)
    first = await inject(server, one, subject="Your invoice", text="please pay", **{"from": "billing@shop.example"})
    await inject(server, two, subject="Party", text="come at nine", isRead=True, **{"from": "friend@home.example"})
    await inject(server, two, subject="News", text="word " * 5000 + "within", **{"from": "news@shop.example"})
    tag = (await ask(server, "POST", "/v1/tags", headers=someone.auth, json={"name": "Due", "color": "#336699"})).data
    path = f"/v1/mailboxes/{one.id}/messages/{first['id']}/tags"
    assert (await ask(server, "POST", path, headers=someone.auth, json={"tagId": tag["id"]})).status == 200
    for query, wanted in {
        "pay": "Your invoice",
        "-pay": "News Party",
        "shop.example": "News Your invoice",
        "from:shop.example -subject:news": "Your invoice",
        f"to:{two.address}": "News Party",
        "is:unread": "News Your invoice",
        "larger:10K": "News",
        "after:2000-01-01 before:2001-01-01": "",
        "tag:due": "Your invoice",
        "-tag:due": "News Party",
        "tag:nothing": "",
        "dmarc:none": "News Party Your invoice",
        "has:attachment": "",
        '"come at"': "Party",
        "shop word": "News",
        "within": "News",
        "-within": "Party Your invoice",
        "within subject:party": "",
        "100%": "",
    }.items():
        assert " ".join(await subjects(server, someone.auth, f"?q={quote(query)}")) == wanted, query
    answer = await ask(server, "GET", "/v1/messages?q=dmarc:perhaps", headers=someone.auth)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", "q")
    assert "count" not in (await ask(server, "GET", "/v1/messages?q=pay", headers=someone.auth)).data


async def test_the_parameters_of_a_mailbox_s_search_narrow_too(server: Server) -> None:
    someone = await person(server)
    box = await own_box(server, someone)
    await inject(server, box, subject="Your invoice", text="please pay", **{"from": "billing@shop.example"})
    await inject(server, box, subject="Party", text="come, pay nothing", isRead=True, **{"from": "friend@home.example"})
    for query, wanted in {
        "from=SHOP": "Your invoice",
        "q=pay&subject=party": "Party",
        "isRead=false": "Your invoice",
        "q=pay&isRead=true": "Party",
        "hasAttachment=false": "Party Your invoice",
        "hasAttachment=true": "",
        "startDate=2000-01-01": "Party Your invoice",
        "endDate=2000-01-01&q=pay": "",
    }.items():
        assert " ".join(await subjects(server, someone.auth, f"?{query}")) == wanted, query
    assert "count" not in (await ask(server, "GET", "/v1/messages?isRead=false", headers=someone.auth)).data
    for name in ("startDate", "isRead"):
        answer = await ask(server, "GET", f"/v1/messages?{name}=x", headers=someone.auth)
        assert (answer.status, answer.json["field"]) == (400, name)


async def test_it_takes_an_account_and_the_right_scope(server: Server) -> None:
    someone = await person(server)
    box = await own_box(server, someone)
    await inject(server, box, subject="hello")
    may, may_not = [await api_key(server, someone, scopes=[scope]) for scope in ("mail:read", "mailbox:read")]
    assert await subjects(server, {"X-API-Key": may}) == ["hello"]
    for head, status in (({"X-API-Key": may_not}, 403), (box.auth, 401), ({}, 401)):
        assert (await ask(server, "GET", "/v1/messages", headers=head)).status == status


@pytest.mark.parametrize("tail", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=1", "q=" + "a%20" * 21])
async def test_wrong_parameters_are_named(server: Server, tail: str) -> None:
    answer = await ask(server, "GET", f"/v1/messages?{tail}", headers=(await person(server)).auth)
    assert (answer.status, answer.json["field"]) == (400, tail.partition("=")[0])
