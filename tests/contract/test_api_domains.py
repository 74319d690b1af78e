"""Users' domains, as clients of the contract use them, and the mail that reaches them."""

import asyncio
import itertools
import secrets
import smtplib
from typing import Any

import pytest

from tests.contract.accounts import Account, register
from tests.contract.administrators import Installation
from tests.contract.test_api_mailboxes import TIME, UUID7
from tests.contract.transcript import ask
from tests.running import Box

FIELDS = {
    *("id", "domain", "status", "verifyToken", "verifyMethod", "verifiedAt", "lastCheckAt", "createdAt", "createdBy"),
    *("isActive", "isDefault", "mxRecords", "mailboxCount", "notes", "userId", "mode", "expiresAt", "monthlyFee"),
}


def fresh() -> str:
    return f"{secrets.token_hex(6)}.example"


async def claimed(account: Account, mode: str = "shared", name: str = "") -> Any:
    return (await account.ask("POST", "/v1/user/domains", json={"domain": name or fresh(), "mode": mode})).data


async def verified(host: Installation, account: Account, mode: str = "shared") -> Any:
    domain = await claimed(account, mode)
    host.zones.prove(domain["domain"], domain["verifyToken"])
    return (await account.ask("POST", f"/v1/user/domains/{domain['id']}/verify")).data


def dialog(host: Installation, *recipients: str) -> list[int]:
    """The reply to RCPT for each recipient, on a connection of its own so that any worker may get it."""
    codes = []
    for recipient in recipients:
        with smtplib.SMTP(*host.server.smtp, timeout=30) as client:
            client.ehlo("a.example")
            client.docmd("MAIL FROM:<a@example.org>")
            codes.append(client.docmd(f"RCPT TO:<{recipient}>")[0])
    return codes


def deliver(host: Installation, recipient: str, subject: str) -> None:
    with smtplib.SMTP(*host.server.smtp, timeout=30) as client:
        client.ehlo("a.example")
        assert client.docmd("MAIL FROM:<a@example.org>")[0] == 250
        assert client.docmd(f"RCPT TO:<{recipient}>")[0] == 250
        assert client.data(f"Subject: {subject}\r\n\r\nhello\r\n")[0] == 250


async def test_a_claim_is_pending_and_says_what_to_publish(installation: Installation) -> None:
    account, name = await register(installation.server), fresh()
    answer = await account.ask("POST", "/v1/user/domains", json={"domain": name.upper() + ".", "mode": "exclusive"})
    assert (answer.status, answer.json["msg"]) == (201, "created")
    made = answer.data
    assert set(made) == FIELDS
    assert UUID7.fullmatch(made["id"])
    assert TIME.fullmatch(made["createdAt"])
    assert len(bytes.fromhex(made["verifyToken"])) == 32
    expected = {"domain": name, "status": "pending", "mode": "exclusive", "userId": account.id, "createdBy": account.id}
    expected |= {"verifiedAt": None, "lastCheckAt": None, "expiresAt": None, "mxRecords": [], "mailboxCount": 0}
    expected |= {"isActive": True, "isDefault": False, "monthlyFee": 0, "notes": "", "verifyMethod": "dns"}
    assert {field: made[field] for field in expected} == expected
    shown = (await account.ask("GET", f"/v1/user/domains/{made['id']}/instructions")).data
    assert (shown["domain"], shown["status"], [step["step"] for step in shown["steps"]]) == (name, "pending", [1, 2, 3])
    assert shown["steps"][0]["record"] == {
        "type": "TXT",
        "name": name,
        "value": f"tempmail-verify={made['verifyToken']}",
        "ttl": 3600,
    }
    assert shown["steps"][1]["records"] == [
        {"type": "MX", "name": name, "value": "temp.mail", "priority": 10, "ttl": 3600}
    ]
    assert all(step["title"] and step["description"] for step in shown["steps"])


async def test_a_domain_is_listed_shown_changed_and_given_back(installation: Installation) -> None:
    account = await register(installation.server)
    assert (await account.ask("GET", "/v1/user/domains")).data == {"items": [], "count": 0}
    one, two = await claimed(account), await claimed(account, "whitelist")
    listed = (await account.ask("GET", "/v1/user/domains")).data
    assert (listed["count"], [item["id"] for item in listed["items"]]) == (2, [one["id"], two["id"]])
    path = f"/v1/user/domains/{one['id']}"
    assert (await account.ask("GET", path)).data == one
    assert (await account.ask("PATCH", path, json={"mode": "catch_all"})).data == one | {"mode": "catch_all"}
    assert (await account.ask("GET", path)).data["mode"] == "catch_all"
    gone = await account.ask("DELETE", path)
    assert (gone.status, gone.body) == (204, b"")
    for method in ("GET", "DELETE"):
        answer = await account.ask(method, path)
        assert (answer.status, answer.error) == (404, "domain_not_found")
    chinese = await ask(installation.server, "GET", path, headers=account.auth | {"Accept-Language": "zh-CN"})
    assert chinese.json["msg"] == "域名不存在"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "domain"),
        ({"domain": ""}, "domain"),
        ({"domain": "192.0.2.1"}, "domain"),
        ({"domain": "co.uk"}, "domain"),
        ({"domain": "no spaces.example"}, "domain"),
        ({"domain": "nul\x00.example"}, "domain"),
        ({"domain": 7}, "domain"),
        ({"domain": "a.example", "mode": "open"}, "mode"),
        ({"domain": "a.example", "mode": None}, "mode"),
    ],
)
async def test_what_cannot_be_a_domain_names_the_field(
    installation: Installation, body: dict[str, Any], field: str
) -> None:
    account = await register(installation.server)
    answer = await account.ask("POST", "/v1/user/domains", json=body)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", field)


async def test_a_domain_that_is_taken_is_refused(installation: Installation) -> None:
    account, other = await register(installation.server), await register(installation.server)
    theirs = await verified(installation, other)
    for name in ("temp.mail", theirs["domain"]):
        answer = await account.ask("POST", "/v1/user/domains", json={"domain": name, "mode": "shared"})
        assert (answer.status, answer.error) == (409, "domain_exists")
    again = await other.ask("POST", "/v1/user/domains", json={"domain": theirs["domain"], "mode": "shared"})
    assert again.status == 409


async def test_an_account_is_needed(installation: Installation) -> None:
    for method, path in (("GET", ""), ("POST", ""), ("GET", "/x"), ("POST", "/x/verify"), ("GET", "/x/instructions")):
        answer = await ask(installation.server, method, f"/v1/user/domains{path}")
        assert (answer.status, answer.error) == (401, "token_required")


async def test_anothers_domain_is_as_unknown_as_one_that_is_not_there(installation: Installation) -> None:
    owner, other = await register(installation.server), await register(installation.server)
    theirs = (await claimed(owner))["id"]
    unknown = "01890000-0000-7000-8000-000000000000"
    for method, tail in (
        *(("GET", ""), ("DELETE", ""), ("PATCH", ""), ("POST", "/verify")),
        *(("GET", "/instructions"), ("HEAD", "")),
    ):
        what = {"json": {"mode": "shared"}} if method == "PATCH" else {}
        answers = [await other.ask(method, f"/v1/user/domains/{one}{tail}", **what) for one in (theirs, unknown, "x")]
        assert {(answer.status, answer.body) for answer in answers} == {(404, answers[0].body)}
    assert (await owner.ask("GET", f"/v1/user/domains/{theirs}")).status == 200


async def test_verification_says_what_is_missing_until_nothing_is(installation: Installation) -> None:
    account = await register(installation.server)
    domain = await claimed(account)
    path, zones, name = f"/v1/user/domains/{domain['id']}", installation.zones, domain["domain"]
    answer = await account.ask("POST", path + "/verify")
    assert (answer.status, answer.error) == (422, "domain_unverified")
    assert domain["verifyToken"] in answer.json["detail"]
    failed = (await account.ask("GET", path)).data
    assert (failed["status"], failed["verifiedAt"], failed["mxRecords"]) == ("failed", None, [])
    assert TIME.fullmatch(failed["lastCheckAt"])
    zones.texts[name] = [f"tempmail-verify={domain['verifyToken']}"]
    zones.exchanges[name] = [(10, "elsewhere.example")]
    assert "MX" in (await account.ask("POST", path + "/verify")).json["detail"]
    assert (await account.ask("GET", path)).data["mxRecords"] == ["10 elsewhere.example"]
    zones.exchanges[name] = [(5, "temp.mail")]
    answer = await account.ask("POST", path + "/verify")
    assert (answer.status, answer.data["status"], answer.data["mxRecords"]) == (200, "verified", ["5 temp.mail"])
    assert TIME.fullmatch(answer.data["verifiedAt"])
    assert TIME.fullmatch(answer.data["expiresAt"])
    assert (await account.ask("GET", path)).data == answer.data


async def test_a_verified_domain_takes_mail_at_once_in_every_worker(installation: Installation) -> None:
    account = await register(installation.server)
    for _ in range(5):
        domain = await claimed(account)
        name = domain["domain"]
        assert set(await asyncio.to_thread(dialog, installation, *[f"box@{name}"] * 6)) == {550}
        installation.zones.prove(name, domain["verifyToken"])
        await account.ask("POST", f"/v1/user/domains/{domain['id']}/verify")
        box = await installation.server.mailbox("box1", domain=name)
        assert set(await asyncio.to_thread(dialog, installation, *[box.address] * 8)) == {250}
        await installation.server.deliver(box, subject="at once")
        assert [m["subject"] for m in await installation.server.messages(box)] == ["at once"]
        assert name in (await ask(installation.server, "GET", "/v1/public/domains")).data["domains"]
        await account.ask("PATCH", f"/v1/user/domains/{domain['id']}", json={"mode": "exclusive"})
        assert name not in (await ask(installation.server, "GET", "/v1/public/domains")).data["domains"]
        refused = await ask(installation.server, "POST", "/v1/mailboxes", json={"domain": name})
        assert (refused.status, refused.error) == (400, "domain_not_allowed")


async def test_a_domain_with_living_mailboxes_is_not_given_back(installation: Installation) -> None:
    account = await register(installation.server)
    domain = await verified(installation, account)
    box = await installation.server.mailbox("box1", domain=domain["domain"])
    path = f"/v1/user/domains/{domain['id']}"
    assert (await account.ask("GET", path)).data["mailboxCount"] == 1
    answer = await account.ask("DELETE", path)
    assert (answer.status, answer.error) == (409, "domain_in_use")
    await ask(installation.server, "DELETE", f"/v1/mailboxes/{box.id}", box)
    assert (await account.ask("DELETE", path)).status == 204
    assert set(await asyncio.to_thread(dialog, installation, *[box.address] * 6)) == {550}


async def test_where_all_is_caught_mail_makes_the_owners_mailbox(installation: Installation) -> None:
    account, other = await register(installation.server), await register(installation.server)
    name = (await verified(installation, account, "catch_all"))["domain"]
    await asyncio.to_thread(deliver, installation, f"anything+tag@{name}", "caught")
    (box,) = (await account.ask("GET", "/v1/mailboxes")).data["items"]
    assert (box["address"], box["total"]) == (f"anything@{name}", 1)
    (message,) = (await account.ask("GET", f"/v1/mailboxes/{box['id']}/messages")).data["items"]
    assert message["subject"] == "caught"
    path = f"/v1/mailboxes/{box['id']}/messages/{message['id']}"
    opened = (await account.ask("GET", path)).data
    assert message["deliveredTo"] == opened["deliveredTo"] == [f"anything+tag@{name}"]
    assert f"\r\nDelivered-To: anything+tag@{name}\r\n".encode() in (await account.ask("GET", f"{path}/raw")).body
    assert (await other.ask("GET", f"/v1/mailboxes/{box['id']}")).status == 404
    codes = await asyncio.to_thread(
        dialog, installation, f"two@{name}x", f"a..b@{name}", *[f"more{n}@{name}" for n in range(4)]
    )
    assert codes == [550, 501, 250, 250, 452, 452]  # a free account has three mailboxes


async def test_a_banned_name_is_not_caught_either(installation: Installation) -> None:
    account, admin = await register(installation.server), await installation.account("admin")
    name = (await verified(installation, account, "catch_all"))["domain"]
    body = {"kind": "localPart", "value": "quixbank*", "reason": "tested"}
    ban = (await admin.ask("POST", "/v1/admin/bans", json=body)).data
    assert await asyncio.to_thread(dialog, installation, f"quix.bank1@{name}", f"other@{name}") == [550, 250]
    assert (await admin.ask("DELETE", f"/v1/admin/bans/{ban['id']}")).status == 204
    assert await asyncio.to_thread(dialog, installation, f"quix.bank2@{name}") == [250]


async def test_where_nothing_is_caught_only_existing_addresses_take_mail(installation: Installation) -> None:
    account = await register(installation.server)
    name = (await verified(installation, account, "whitelist"))["domain"]
    made = (await account.ask("POST", "/v1/mailboxes", json={"prefix": "listed", "domain": name})).data
    assert await asyncio.to_thread(dialog, installation, made["address"], f"unlisted@{name}") == [250, 550]


async def test_tags_and_subdomains_reach_the_mailbox(installation: Installation) -> None:
    box = await installation.server.mailbox(f"box-{secrets.token_hex(4)}")
    local_part = box.address.partition("@")[0]
    await asyncio.to_thread(deliver, installation, f"{local_part}+news@temp.mail", "tagged")
    await asyncio.to_thread(deliver, installation, f"whatever@{local_part}.temp.mail", "below")
    assert [m["subject"] for m in await installation.server.messages(box)] == ["below", "tagged"]
    wrong = (f"{local_part}@xtemp.mail", f"{local_part}@temp.mail.example", f"a@{local_part}.temp.mail.example")
    assert await asyncio.to_thread(dialog, installation, *wrong) == [550, 550, 550]


async def test_postmaster_and_abuse_of_every_domain_reach_the_administrators(installation: Installation) -> None:
    account, administrator = await register(installation.server), await installation.account("admin")
    name = (await verified(installation, account, "exclusive"))["domain"]
    addresses = [
        "postmaster",
        "Postmaster",
        *(
            f"{role}@{domain}"
            for role, domain in itertools.product(("postmaster", "ABUSE"), ("temp.mail", "second.test", name))
        ),
    ]
    for address in addresses:
        await asyncio.to_thread(deliver, installation, address, f"to {address}")
    boxes = (await administrator.ask("GET", "/v1/mailboxes")).data["items"]
    (box,) = [box for box in boxes if box["address"] == "postmaster@temp.mail"]
    assert "expiresAt" not in box
    found = (await administrator.ask("GET", f"/v1/mailboxes/{box['id']}/messages?limit=100")).data["items"]
    assert {f"to {address}" for address in addresses} <= {message["subject"] for message in found}
    for method, path in (("GET", ""), ("GET", "/messages"), ("DELETE", "")):
        answer = await account.ask(method, f"/v1/mailboxes/{box['id']}{path}")
        assert (answer.status, answer.error) == (404, "mailbox_not_found")
    assert box["id"] not in {own["id"] for own in (await account.ask("GET", "/v1/mailboxes")).data["items"]}


async def test_an_international_name_is_kept_and_reached_as_a_labels(installation: Installation) -> None:
    account, label = await register(installation.server), f"bücher-{secrets.token_hex(3)}"
    domain = await claimed(account, name=f"{label}.example")
    assert domain["domain"].startswith("xn--")
    installation.zones.prove(domain["domain"], domain["verifyToken"])
    await account.ask("POST", f"/v1/user/domains/{domain['id']}/verify")
    made = (await ask(installation.server, "POST", "/v1/mailboxes", json={"domain": f"{label.upper()}.example"})).data
    assert made["domain"] == domain["domain"]
    box = Box(made["id"], made["address"], made["token"])
    with smtplib.SMTP(*installation.server.smtp, timeout=30) as client:
        client.ehlo("a.example")
        client.docmd("MAIL FROM:<a@example.org> SMTPUTF8")
        assert client.docmd(f"RCPT TO:<{made['localPart']}@{domain['domain']}>")[0] == 250
        client.command_encoding = "utf-8"
        assert client.docmd(f"RCPT TO:<{made['localPart']}@{label}.example>")[0] == 250
    assert await installation.server.messages(box) == []
