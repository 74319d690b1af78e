"""Messages over the API: listed, opened, searched, injected, taken apart, marked and deleted."""

import smtplib
from email.message import EmailMessage
from typing import Any

import pytest

from tests.contract.test_api_mailboxes import moment
from tests.contract.transcript import ask, inject
from tests.running import Box, Server

FIELDS = {
    "id", "mailboxId", "seq", "from", "to", "deliveredTo", "subject", "isRead", "createdAt", "receivedAt",
    "envelopeFrom", "cc", "replyTo", "date", "messageId", "preview", "size", "hasAttachments", "codes", "links", "auth",
    "extracted",
}  # fmt: skip


def messages(box: Box, tail: str = "") -> str:
    return f"/v1/mailboxes/{box.id}/messages{tail}"


def send(server: Server, box: Box, message: EmailMessage) -> None:
    with smtplib.SMTP(*server.smtp, timeout=30) as client:
        client.send_message(message, "sender@example.org", [box.address])


async def test_a_mail_is_listed_without_text_and_opened_with_it(server: Server) -> None:
    box = await server.mailbox()
    await server.deliver(box, subject="Grüße", text="Guten Tag\n", sender="absender@example.org")
    listed = (await ask(server, "GET", messages(box), box)).data
    assert set(listed) == {"items", "count"}
    assert listed["count"] == 1
    item = listed["items"][0]
    assert set(item) == FIELDS
    assert (item["subject"], item["from"]) == ("Grüße", "absender@example.org")
    assert (item["mailboxId"], item["seq"], item["isRead"]) == (box.id, 1, False)
    assert (item["envelopeFrom"], item["auth"]) == (
        "absender@example.org",
        {"spf": "none", "dkim": "none", "dmarc": "none", "tls": False},
    )
    moment(item["createdAt"])
    moment(item["receivedAt"])
    opened = (await ask(server, "GET", messages(box, f"/{item['id']}"), box)).data
    assert set(opened) == FIELDS | {"text", "html", "headers"}
    assert opened["text"].strip() == "Guten Tag"
    assert {"name": "Subject", "value": "Grüße"} in opened["headers"]
    assert (await server.get(box))["unread"] == 1


async def test_pages_by_offset_and_by_cursor_hold_every_message_once(server: Server) -> None:
    box = await server.mailbox()
    for number in range(7):
        await inject(server, box, subject=f"number {number}")
    by_offset: list[str] = []
    for offset in (0, 3, 6, 9):
        page = (await ask(server, "GET", messages(box, f"?limit=3&offset={offset}"), box)).data
        assert page["count"] == 7
        by_offset += [item["subject"] for item in page["items"]]
    by_cursor: list[str] = []
    tail = "?limit=3"
    while tail:
        page = (await ask(server, "GET", messages(box, tail), box)).data
        by_cursor += [item["subject"] for item in page["items"]]
        tail = f"?limit=3&cursor={page['nextCursor']}" if "nextCursor" in page else ""
    assert by_offset == by_cursor == [f"number {number}" for number in reversed(range(7))]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=101", "limit=-1", "limit=ten", "limit=1e2", "offset=-1", "offset=9999999999", "cursor=x",
        "cursor=%ff", "cursor=AAAAAAAAAAA", "cursor=AAAAAAAAAAE&offset=1",
    ],
)  # fmt: skip
async def test_a_page_that_cannot_be_names_its_parameter(server: Server, query: str) -> None:
    box = await server.mailbox()
    answer = await ask(server, "GET", messages(box, "?" + query), box)
    assert (answer.status, answer.error) == (400, "field_invalid")
    assert answer.json["field"] in query


async def test_search_finds_by_every_parameter(server: Server) -> None:
    box = await server.mailbox()
    await inject(server, box, subject="invoice 17", text="pay me", **{"from": "Billing <billing@shop.example>"})
    await inject(server, box, subject="party", text="come at nine", isRead=True, **{"from": "friend@home.example"})
    for query, found in {
        "q=invoice": ["invoice 17"],
        "from=friend": ["party"],
        "subject=PARTY": ["party"],
        "isRead=true": ["party"],
        "isRead=0": ["invoice 17"],
        "hasAttachment=true": [],
        "startDate=2000-01-01&endDate=2000-01-02": [],
        "startDate=2000-01-01T00:00:00Z": ["party", "invoice 17"],
        "startDate=2000-01-01T00:00:00+02:00": ["party", "invoice 17"],
        "q=nothing-like-it": [],
        "": ["party", "invoice 17"],
    }.items():
        result = (await ask(server, "GET", messages(box, "/search?" + query), box)).data
        assert [one["subject"] for one in result["messages"]] == found, query
        assert set(result) == {"messages", "total", "page", "pageSize", "totalPages"}
        assert (result["total"], result["page"], result["pageSize"]) == (len(found), 1, 20)
        assert result["totalPages"] == (1 if found else 0)
        assert all("text" not in one for one in result["messages"])
    second = (await ask(server, "GET", messages(box, "/search?page=2&pageSize=1"), box)).data
    assert [one["subject"] for one in second["messages"]] == ["invoice 17"]
    assert (second["total"], second["page"], second["pageSize"], second["totalPages"]) == (2, 2, 1, 2)


@pytest.mark.parametrize(
    "query",
    [
        "page=0", "pageSize=101", "isRead=maybe", "hasAttachment=2", "startDate=yesterday", "endDate=2024-13-01",
        "startDate=2024-01-01T00:00:00", "endDate=20240101", "q=%00", "from=a%00b",
    ],
)  # fmt: skip
async def test_a_search_that_cannot_be_names_its_parameter(server: Server, query: str) -> None:
    box = await server.mailbox()
    answer = await ask(server, "GET", messages(box, "/search?" + query), box)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", query.partition("=")[0])


async def test_hostile_search_text_is_text(server: Server) -> None:
    box = await server.mailbox()
    await inject(server, box, subject="plain")
    for text in (
        "%25",
        "_",
        "%27%29%3B--",
        "%5C",
        "%ff%fe",
        "%F0%9F%92%A9",
        "a%20OR%201",
        "%22",
        "*",
        "!!!",
        "%3A%26%7C",
    ):
        result = (await ask(server, "GET", messages(box, f"/search?q={text}&from={text}&subject={text}"), box)).data
        assert result["total"] == 0, text


async def test_html_is_sanitised_unless_asked_for_raw(server: Server) -> None:
    box = await server.mailbox()
    hostile = (
        '<p onclick="f()">hello</p><script>alert(1)</script><img src=x onerror=alert(2)><a href="javascript:x">l</a>'
        "<svg><animate onbegin=alert(3)></svg><iframe srcdoc='<script>4</script>'></iframe><style>@import 'x'</style>"
    )
    made = await inject(server, box, html=hostile, text="hello")
    for shown in (made, (await ask(server, "GET", messages(box, f"/{made['id']}"), box)).data):
        assert "hello" in shown["html"]
        for trace in ("script", "onclick", "onerror", "onbegin", "javascript:", "iframe", "@import"):
            assert trace not in shown["html"].lower(), trace
    raw = (await ask(server, "GET", messages(box, f"/{made['id']}?raw=1"), box)).data
    assert raw["html"].strip() == hostile


async def test_a_message_given_raw_comes_back_byte_for_byte(server: Server) -> None:
    box = await server.mailbox()
    raw = "From: a@example.org\nSubject: Zażółć\r\nX-Odd:   spaces \r\n\r\n.dot\r\n..two\r\nFrom here\r\nlast"
    made = await inject(server, box, raw=raw)
    answer = await ask(server, "GET", messages(box, f"/{made['id']}/raw"), box)
    assert answer.body.endswith(raw.replace("From: a@example.org\n", "From: a@example.org\r\n").encode())
    assert answer.headers["Content-Type"] == "message/rfc822"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    revalidated = await ask(
        server, "GET", messages(box, f"/{made['id']}/raw"), box, {"If-None-Match": answer.headers["ETag"]}
    )
    assert (revalidated.status, revalidated.body) == (304, b"")


async def test_an_injected_message_is_what_its_fields_say(server: Server) -> None:
    box = await server.mailbox()
    made = await inject(
        server,
        box,
        **{"from": "Ünal <unal@example.org>"},
        to="someone@else.example",
        subject="✓ 主题",
        text="t\n",
        isRead=True,
    )
    assert (made["from"], made["to"]) == ("Ünal <unal@example.org>", "someone@else.example")
    assert (made["subject"], made["text"].strip(), made["isRead"]) == ("✓ 主题", "t", True)
    assert made["envelopeFrom"] == "unal@example.org"
    assert await server.messages(box) == [{key: made[key] for key in FIELDS}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"from": "a@example.org", "subject": "x\r\nBcc: y@example.org"}, "subject"),
        ({"from": "a@example.org", "subject": "x\u2028Bcc: y"}, "subject"),
        ({"from": "a@example.org\nX: y"}, "from"),
        ({"from": "a@example.org", "to": "b\rc"}, "to"),
        ({"from": "a@example.org", "subject": "x" * 1000}, "subject"),
        ({"from": "nobody"}, "from"),
        ({}, "from"),
        ({"from": 1}, "from"),
        ({"from": "a@example.org", "isRead": "yes"}, "isRead"),
        ({"from": "a@example.org", "text": {"a": 1}}, "text"),
    ],
)
async def test_an_injection_that_cannot_be_names_the_field(server: Server, body: dict[str, Any], field: str) -> None:
    box = await server.mailbox()
    answer = await ask(server, "POST", messages(box), box, json=body)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", field)
    assert (await server.get(box))["total"] == 0


async def test_too_big_is_413_and_stores_nothing(server: Server) -> None:
    box = await server.mailbox()
    for size in (10_600_000, 16 << 20):
        answer = await ask(server, "POST", messages(box), box, json={"from": "a@example.org", "text": "x" * size})
        assert (answer.status, answer.error) == (413, "message_too_big")
    assert (await server.get(box))["total"] == 0
    elsewhere = await ask(server, "POST", "/v1/mailboxes", json={"prefix": "x" * (64 << 10)})
    assert elsewhere.status == 413


async def test_attachments_are_listed_and_cannot_act_as_pages(server: Server) -> None:
    box = await server.mailbox()
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", box.address, "files"
    message.set_content("see files\n")
    message.add_attachment(b"<script>alert(1)</script>", maintype="text", subtype="html", filename="évil\u202egpj.html")
    message.add_attachment(b"\x89PNG\r\n\x1a\n", maintype="image", subtype="png", filename='a";b.png')
    send(server, box, message)
    item = (await server.messages(box))[0]
    assert item["hasAttachments"] is True
    page, image = item["attachments"]
    assert set(page) == {"id", "filename", "contentType", "size", "contentId", "disposition", "inline"}
    assert (page["contentId"], page["disposition"], page["inline"]) == ("", "attachment", False)
    assert (page["size"], image["size"]) == (25, 8)
    for one, kind, content in (
        (page, "application/octet-stream", b"<script>alert(1)</script>"),
        (image, "image/png", b"\x89PNG\r\n\x1a\n"),
    ):
        answer = await ask(server, "GET", messages(box, f"/{item['id']}/attachments/{one['id']}"), box)
        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, content, kind)
        assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
        assert answer.headers["Content-Disposition"].isascii()
        assert "%E2%80%AE" not in answer.headers["Content-Disposition"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
    for wrong in ("99", "0", "x", "1.1.1", "%2e", "9" * 200):
        answer = await ask(server, "GET", messages(box, f"/{item['id']}/attachments/{wrong}"), box)
        assert (answer.status, answer.error) == (404, "attachment_not_found"), wrong


def related(html: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", "logo"
    message.set_content("plain\n")
    message.add_alternative(html, subtype="html")
    page = message.get_payload(1)
    assert isinstance(page, EmailMessage)
    page.add_related(b"\x89PNG", maintype="image", subtype="png", filename="logo.png", cid="<logo@x>")
    return message


async def test_image_that_html_shows_is_listed_but_is_no_attachment(server: Server) -> None:
    box = await server.mailbox()
    for html in ('<img src="cid:logo@x">', "<p>no image</p>"):
        send(server, box, related(html))
    for_download, shown = await server.messages(box)
    for item, inline in ((shown, True), (for_download, False)):
        (one,) = item["attachments"]
        assert (one["contentId"], one["inline"], one["filename"]) == ("logo@x", inline, "logo.png")
        assert item["hasAttachments"] is not inline
    for flag, found in (("true", for_download), ("false", shown)):
        answer = await ask(server, "GET", messages(box, f"/search?hasAttachment={flag}"), box)
        assert [one["id"] for one in answer.data["messages"]] == [found["id"]]


async def test_invitation_is_in_list_and_message(server: Server) -> None:
    box = await server.mailbox()
    calendar = "BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:Lunch\nDTSTART:20260715T100000Z\nEND:VEVENT\n"
    raw = f"Content-Type: text/calendar; charset=utf-8\r\nSubject: x\r\n\r\n{calendar}END:VCALENDAR\n"
    await ask(server, "POST", messages(box), box, json={"from": "a@example.org", "raw": raw})
    item = (await server.messages(box))[0]
    opened = (await ask(server, "GET", messages(box, f"/{item['id']}"), box)).data
    for one in (item, opened):
        assert one["invite"] == {
            "method": "REQUEST", "summary": "Lunch", "start": "2026-07-15T10:00:00.000Z", "end": "", "organizer": "",
            "location": "",
        }  # fmt: skip
        assert "defect" not in one


async def test_message_over_a_bound_is_shown_as_far_as_it_goes_and_says_why(server: Server) -> None:
    box = await server.mailbox()
    raw = "Subject: long\r\n" + "X-A: b\r\n" * 2_000 + "\r\nYour code is 482913"
    await ask(server, "POST", messages(box), box, json={"from": "a@example.org", "raw": raw})
    item = (await server.messages(box))[0]
    opened = (await ask(server, "GET", messages(box, f"/{item['id']}"), box)).data
    assert (item["subject"], item["codes"], opened["text"]) == ("long", ["482913"], "Your code is 482913")
    assert item["defect"] == opened["defect"]
    assert "1,000 header fields" in item["defect"]


async def test_reading_is_marked_once_and_counted(server: Server) -> None:
    box = await server.mailbox()
    made = await inject(server, box)
    assert (await server.get(box))["unread"] == 1
    for _ in range(3):
        answer = await ask(server, "POST", messages(box, f"/{made['id']}/read"), box)
        assert (answer.status, answer.body) == (204, b"")
        assert (await server.get(box))["unread"] == 0
    assert (await server.messages(box))[0]["isRead"] is True


async def test_deleted_messages_are_gone_at_once(server: Server) -> None:
    box = await server.mailbox()
    first, second, _ = [(await inject(server, box, subject=str(n)))["id"] for n in range(3)]
    for _ in range(10):
        assert (await server.get(box, "/messages"))["count"] == 3
    assert (await ask(server, "DELETE", messages(box, f"/{first}"), box)).status == 204
    for _ in range(10):
        assert [item["subject"] for item in await server.messages(box)] == ["2", "1"]
        assert (await ask(server, "GET", messages(box, f"/{first}"), box)).error == "message_not_found"
    assert (await ask(server, "DELETE", messages(box, f"/{first}"), box)).status == 404
    assert (await ask(server, "DELETE", messages(box), box)).status == 204
    for _ in range(10):
        assert (await server.get(box, "/messages")) == {"items": [], "count": 0}
        assert (await ask(server, "GET", messages(box, f"/{second}"), box)).status == 404
    assert (await inject(server, box))["seq"] == 4
