"""Tags of an account, and the messages that carry them, as clients of the contract use them."""

import asyncio
from typing import Any

import pytest

from tests.contract.accounts import Account, register
from tests.contract.test_api_mailboxes import UUID7, moment
from tests.contract.transcript import ask, inject
from tests.running import Box, Server

UNKNOWN = "01890000-0000-7000-8000-000000000000"
FIELDS = {"id", "userId", "name", "color", "description", "createdAt", "updatedAt"}


@pytest.fixture
async def user(server: Server) -> Account:
    return await register(server)


async def make(user: Account, name: str, **fields: Any) -> Any:
    return (await user.ask("POST", "/v1/tags", json={"name": name, "color": "#ff5733"} | fields)).data


def tagged(box: Box, message: dict[str, Any], tail: str = "") -> str:
    return f"/v1/mailboxes/{box.id}/messages/{message['id']}/tags{tail}"


async def test_a_tag_is_made_listed_seen_changed_and_deleted(user: Account) -> None:
    body = {"name": " Work ", "color": "#336699", "description": "office", "old": {"field": 1}}
    answer = await user.ask("POST", "/v1/tags", json=body)
    assert (answer.status, answer.json["msg"]) == (201, "created")
    made = answer.data
    assert set(made) == FIELDS
    assert UUID7.fullmatch(made["id"])
    assert (made["userId"], made["name"]) == (user.id, "Work")
    assert (made["color"], made["description"]) == ("#336699", "office")
    assert moment(made["createdAt"]) == moment(made["updatedAt"])
    listed = (await user.ask("GET", "/v1/tags")).data
    assert listed == {"items": [made | {"messageCount": 0}], "count": 1}
    assert (await user.ask("GET", f"/v1/tags/{made['id']}")).data == made
    changed = (await user.ask("PATCH", f"/v1/tags/{made['id']}", json={"name": "Play"})).data
    assert changed == made | {"name": "Play", "updatedAt": changed["updatedAt"]}
    assert moment(changed["updatedAt"]) > moment(made["updatedAt"])
    assert (await user.ask("PATCH", f"/v1/tags/{made['id']}", json={"description": ""})).data["description"] == ""
    deleted = await user.ask("DELETE", f"/v1/tags/{made['id']}")
    assert (deleted.status, deleted.body) == (204, b"")
    assert (await user.ask("GET", f"/v1/tags/{made['id']}")).error == "tag_not_found"
    assert (await user.ask("DELETE", f"/v1/tags/{made['id']}")).status == 404
    assert (await user.ask("GET", "/v1/tags")).data == {"items": [], "count": 0}


async def test_a_description_may_be_left_out(user: Account) -> None:
    assert (await make(user, "plain"))["description"] == ""


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "x" * 21}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "nul\x00"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"name": 7}, "name"),
        ({"color": "url(x)"}, "color"),
        ({"color": "#12345"}, "color"),
        ({"color": "red;}"}, "color"),
        ({"color": None}, "color"),
        ({"description": "x" * 101}, "description"),
        ({"description": "\x1b[2J"}, "description"),
    ],
)
async def test_what_cannot_be_a_tag_names_the_field(user: Account, fields: dict[str, Any], field: str) -> None:
    made = await make(user, "standing")
    for method, path in (("POST", "/v1/tags"), ("PATCH", f"/v1/tags/{made['id']}")):
        if method == "PATCH" and fields.get("color", "") is None:
            continue  # a null leaves it as it is
        answer = await user.ask(method, path, json={"name": "name", "color": "red"} | fields)
        word = "body_invalid" if fields.get("name") == "\ud800" else "field_invalid"
        assert (answer.status, answer.error) == (400, word)
        assert word == "body_invalid" or answer.json["field"] == field
    assert (await user.ask("GET", f"/v1/tags/{made['id']}")).data == made


async def test_a_name_is_given_once_to_a_user_whatever_its_case(user: Account, server: Server) -> None:
    made, other = await make(user, "Ärger"), await make(user, "other")
    for answer in (
        await user.ask("POST", "/v1/tags", json={"name": "ärger", "color": "red"}),
        await user.ask("PATCH", f"/v1/tags/{other['id']}", json={"name": "Ärger"}),
    ):
        assert (answer.status, answer.error, answer.json["field"]) == (409, "tag_exists", "name")
    assert (await user.ask("PATCH", f"/v1/tags/{made['id']}", json={"name": "ÄRGER"})).data["name"] == "ÄRGER"
    race = [user.ask("POST", "/v1/tags", json={"name": "wanted", "color": "red"}) for _ in range(5)]
    assert sorted(answer.status for answer in await asyncio.gather(*race)) == [201, 409, 409, 409, 409]
    await make(await register(server), "Ärger")


async def test_a_message_is_tagged_listed_by_its_tag_and_untagged(user: Account, server: Server) -> None:
    box, tag = await user.mailbox(), await make(user, "work")
    mail = await inject(server, box, subject="to be tagged")
    await inject(server, box, subject="plain")
    for _ in range(2):  # again is no error
        answer = await user.ask("POST", tagged(box, mail), json={"tagId": tag["id"]})
        assert (answer.status, answer.data) == (200, tag)  # as the Go service answered
    assert (await user.ask("GET", tagged(box, mail))).data == {"items": [tag], "count": 1}
    assert (await user.ask("GET", "/v1/tags")).data["items"] == [tag | {"messageCount": 1}]
    found = (await user.ask("GET", f"/v1/tags/{tag['id']}/messages")).data
    assert set(found) == {"items", "count"}
    assert [(one["id"], one["subject"]) for one in found["items"]] == [(mail["id"], "to be tagged")]
    assert "text" not in found["items"][0]
    removed = await user.ask("DELETE", tagged(box, mail, f"/{tag['id']}"))
    assert (removed.status, removed.body) == (204, b"")
    assert (await user.ask("DELETE", tagged(box, mail, f"/{tag['id']}"))).error == "tag_not_found"
    assert (await user.ask("GET", tagged(box, mail))).data == {"items": [], "count": 0}
    assert (await user.ask("GET", f"/v1/tags/{tag['id']}/messages")).data == {"items": [], "count": 0}


async def test_the_messages_of_a_tag_come_newest_first_from_all_mailboxes_in_pages(
    user: Account, server: Server
) -> None:
    boxes, tag = [await user.mailbox(), await user.mailbox()], await make(user, "both")
    for number in range(7):
        box = boxes[number % 2]
        mail = await inject(server, box, subject=f"number {number}")
        await user.ask("POST", tagged(box, mail), json={"tagId": tag["id"]})
    seen, tail = [], "?limit=3"
    while tail:
        page = (await user.ask("GET", f"/v1/tags/{tag['id']}/messages{tail}")).data
        assert page["count"] == 7
        seen += [one["subject"] for one in page["items"]]
        tail = f"?limit=3&cursor={page['nextCursor']}" if "nextCursor" in page else ""
    assert seen == [f"number {number}" for number in reversed(range(7))]
    wrong = await user.ask("GET", f"/v1/tags/{tag['id']}/messages?cursor=x")
    assert (wrong.status, wrong.error, wrong.json["field"]) == (400, "field_invalid", "cursor")


async def test_a_tag_goes_with_its_message_its_mailbox_or_itself(user: Account, server: Server) -> None:
    box, gone, tag = await user.mailbox(), await user.mailbox(), await make(user, "work")
    mails = [await inject(server, box, subject=f"{n}") for n in range(3)]
    elsewhere = await inject(server, gone)
    for where, mail in [(box, one) for one in mails] + [(gone, elsewhere)]:
        await user.ask("POST", tagged(where, mail), json={"tagId": tag["id"]})

    async def count() -> int:
        [only] = (await user.ask("GET", "/v1/tags")).data["items"]
        found = (await user.ask("GET", f"/v1/tags/{tag['id']}/messages")).data
        assert found["count"] == only["messageCount"] == len(found["items"])
        return int(only["messageCount"])

    assert await count() == 4
    await user.ask("DELETE", f"/v1/mailboxes/{gone.id}")
    assert await count() == 3
    await user.ask("DELETE", f"/v1/mailboxes/{box.id}/messages/{mails[0]['id']}")
    assert await count() == 2
    await user.ask("PATCH", f"/v1/mailboxes/{box.id}", json={"expiresIn": "3h"})
    assert await count() == 2
    await user.ask("DELETE", f"/v1/mailboxes/{box.id}/messages")
    assert await count() == 0
    mail = await inject(server, box)
    await user.ask("POST", tagged(box, mail), json={"tagId": tag["id"]})
    await user.ask("DELETE", f"/v1/tags/{tag['id']}")
    assert (await user.ask("GET", tagged(box, mail))).data["items"] == []


async def test_a_mailbox_token_alone_has_no_tags(user: Account, server: Server) -> None:
    box, tag = await user.mailbox(), await make(user, "work")
    mail = await inject(server, box)
    for answer in (
        await ask(server, "POST", tagged(box, mail), box, json={"tagId": tag["id"]}),
        await ask(server, "GET", tagged(box, mail), box),
        await ask(server, "DELETE", tagged(box, mail, f"/{tag['id']}"), box),
    ):
        assert (answer.status, answer.error) == (401, "token_required")
    for method, path in (("GET", "/v1/tags"), ("POST", "/v1/tags"), ("GET", f"/v1/tags/{tag['id']}/messages")):
        for headers in ({}, box.auth):
            assert (await ask(server, method, path, headers=headers)).status == 401


async def test_an_api_key_tags_with_its_scope_alone(user: Account, server: Server) -> None:
    box, tag = await user.mailbox(), await make(user, "work")
    mail = await inject(server, box)
    for scopes, written in ((["mail:read"], 403), (["mail:read", "mail:write"], 200)):
        made = (await user.ask("POST", "/v1/api-keys", json={"name": "program", "scopes": scopes})).data
        key = {"X-API-Key": made["key"]}
        answer = await ask(server, "POST", tagged(box, mail), headers=key, json={"tagId": tag["id"]})
        assert answer.status == written
        assert (await ask(server, "GET", tagged(box, mail), headers=key)).data["count"] == (written == 200)
        assert (await ask(server, "GET", "/v1/tags", headers=key)).status == 403


@pytest.mark.parametrize(
    ("method", "tail"), [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/messages"), ("HEAD", "/messages")]
)
async def test_a_foreign_tag_looks_like_none(user: Account, server: Server, method: str, tail: str) -> None:
    theirs = await make(await register(server), "theirs")
    body: dict[str, Any] = {"json": {"name": "mine"}} if method == "PATCH" else {}
    unknown = await user.ask(method, f"/v1/tags/{UNKNOWN}{tail}", **body)
    assert unknown.status == 404
    for other in (theirs["id"], theirs["id"].upper(), "x", "%00"):
        answer = await user.ask(method, f"/v1/tags/{other}{tail}", **body)
        assert (answer.status, answer.body) == (404, unknown.body)


async def test_neither_a_foreign_tag_nor_a_foreign_message_can_be_joined(user: Account, server: Server) -> None:
    other = await register(server)
    mine, theirs = await make(user, "mine"), await make(other, "theirs")
    box, their_box = await user.mailbox(), await other.mailbox()
    mail, their_mail = await inject(server, box), await inject(server, their_box)
    for tag_id in (theirs["id"], UNKNOWN, "x", ""):
        answer = await user.ask("POST", tagged(box, mail), json={"tagId": tag_id})
        assert (answer.status, answer.error) == (404, "tag_not_found")
    for message in (their_mail, {"id": UNKNOWN}, {"id": "x"}):
        answer = await user.ask("POST", tagged(box, message), json={"tagId": mine["id"]})
        assert (answer.status, answer.error) == (404, "message_not_found")
        assert (await user.ask("GET", tagged(box, message))).status == 404
        assert (await user.ask("DELETE", tagged(box, message, f"/{mine['id']}"))).status == 404
    answer = await user.ask("POST", tagged(their_box, their_mail), json={"tagId": mine["id"]})
    assert (answer.status, answer.error) == (404, "mailbox_not_found")
    missing = await user.ask("POST", tagged(box, mail), json={})
    assert (missing.status, missing.json["field"]) == (400, "tagId")
