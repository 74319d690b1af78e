"""The installation's own domains, as administrators handle them."""

import asyncio
import secrets
from typing import Any

import pytest

from tests.contract.accounts import Account, register
from tests.contract.administrators import Installation
from tests.contract.test_api_domains import FIELDS, dialog, fresh, verified
from tests.contract.transcript import ask

PATH = "/v1/admin/domains"
SYSTEM_FIELDS = FIELDS - {"userId", "mode", "expiresAt", "monthlyFee"}


@pytest.fixture
async def root(installation: Installation) -> Account:
    return await installation.account("super")


async def added(root: Account, **body: Any) -> Any:
    return (await root.ask("POST", PATH, json={"domain": fresh()} | body)).data


async def in_service(host: Installation, root: Account) -> Any:
    domain = await added(root)
    host.zones.prove(domain["domain"], domain["verifyToken"])
    return (await root.ask("POST", f"{PATH}/{domain['id']}/verify")).data


async def test_configured_domains_are_verified_and_the_first_is_the_default(
    installation: Installation, root: Account
) -> None:
    listed = (await root.ask("GET", PATH)).data
    assert listed["count"] == len(listed["items"])
    known = {item["domain"]: item for item in listed["items"]}
    for name in ("temp.mail", "second.test"):
        assert set(known[name]) == SYSTEM_FIELDS
        assert known[name]["verifiedAt"]
        shown = {
            field: known[name][field] for field in ("status", "verifyMethod", "isActive", "isDefault", "createdBy")
        }
        assert shown == {
            "status": "verified",
            "verifyMethod": "configuration",
            "isActive": True,
            "isDefault": name == "temp.mail",
            "createdBy": None,
        }
    assert listed["items"][0]["isDefault"]
    public = (await ask(installation.server, "GET", "/v1/public/domains")).data["domains"]
    assert public[0] == "temp.mail"
    configuration = (await ask(installation.server, "GET", "/v1/public/config")).data
    assert configuration["defaultDomain"] == "temp.mail"


async def test_a_domain_is_added_verified_served_and_removed(installation: Installation, root: Account) -> None:
    answer = await root.ask("POST", PATH, json={"domain": fresh(), "notes": "bought in May \x00"})
    assert answer.status == 201
    domain = answer.data
    assert set(domain) == SYSTEM_FIELDS
    assert (domain["status"], domain["createdBy"], domain["isDefault"]) == ("pending", root.id, False)
    path, name = f"{PATH}/{domain['id']}", domain["domain"]
    assert (await root.ask("GET", path)).data["notes"].startswith("bought in May")
    steps = (await root.ask("GET", path + "/instructions")).data["steps"]
    assert steps[0]["record"]["value"] == f"tempmail-verify={domain['verifyToken']}"
    refused = await root.ask("POST", path + "/verify")
    assert (refused.status, refused.error) == (422, "domain_unverified")
    installation.zones.prove(name, domain["verifyToken"], below=True)
    assert (await root.ask("POST", path + "/verify")).data["status"] == "verified"
    box = await installation.server.mailbox("box1", domain=name)
    assert set(await asyncio.to_thread(dialog, installation, *[box.address] * 6)) == {250}
    in_use = await root.ask("DELETE", path)
    assert (in_use.status, in_use.error) == (409, "domain_in_use")
    chinese = await ask(installation.server, "DELETE", path, headers=root.auth | {"Accept-Language": "zh"})
    assert chinese.json["msg"] == "无法删除：该域名下存在活跃邮箱"
    await ask(installation.server, "DELETE", f"/v1/mailboxes/{box.id}", box)
    assert (await root.ask("DELETE", path)).status == 204
    assert (await root.ask("GET", path)).error == "domain_not_found"
    assert set(await asyncio.to_thread(dialog, installation, *[box.address] * 6)) == {550}


async def test_acts_upon_domains_stand_in_the_trail(installation: Installation, root: Account) -> None:
    domain = await in_service(installation, root)
    path = f"{PATH}/{domain['id']}"
    await root.ask("PATCH", path + "/toggle", json={"isActive": False})
    await root.ask("DELETE", path)
    acts = (await root.ask("GET", "/v1/admin/audit")).data["items"]
    mine = [act["action"] for act in acts if act["target"] == domain["domain"]]
    assert mine == ["domain.delete", "domain.toggle", "domain.verify", "domain.add"]


async def test_a_domain_that_is_there_is_not_added_again(installation: Installation, root: Account) -> None:
    domain = await added(root)
    theirs = await verified(installation, await register(installation.server))
    for name in (domain["domain"], "temp.mail", theirs["domain"]):
        answer = await root.ask("POST", PATH, json={"domain": name})
        assert (answer.status, answer.error) == (409, "domain_exists")


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "domain"), ({"domain": "com"}, "domain"), ({"domain": "a.example", "notes": "x" * 501}, "notes")],
)
async def test_what_cannot_be_added_names_the_field(root: Account, body: dict[str, Any], field: str) -> None:
    answer = await root.ask("POST", PATH, json=body)
    assert (answer.status, answer.error, answer.json["field"]) == (400, "field_invalid", field)


async def test_switched_off_a_domain_takes_no_mail_and_no_mailboxes(installation: Installation, root: Account) -> None:
    domain = await in_service(installation, root)
    box = await installation.server.mailbox("box1", domain=domain["domain"])
    path = f"{PATH}/{domain['id']}/toggle"
    assert (await root.ask("PATCH", path, json={"isActive": False})).data["isActive"] is False
    assert set(await asyncio.to_thread(dialog, installation, *[box.address] * 6)) == {550}
    assert (await ask(installation.server, "POST", "/v1/mailboxes", json={"domain": domain["domain"]})).status == 400
    assert await installation.server.messages(box) == []  # what is there stays readable
    assert (await root.ask("PATCH", path, json={"isActive": True})).data["isActive"] is True
    assert set(await asyncio.to_thread(dialog, installation, *[box.address] * 6)) == {250}
    assert (await root.ask("PATCH", path, json={})).json["field"] == "isActive"


async def test_the_default_is_chosen_and_protected(installation: Installation, root: Account) -> None:
    listed = (await root.ask("GET", PATH)).data["items"]
    (first,) = [item for item in listed if item["domain"] == "temp.mail"]
    pending, domain = await added(root), await in_service(installation, root)
    refused = await root.ask("POST", f"{PATH}/{pending['id']}/set-default")
    assert (refused.status, refused.error) == (422, "domain_unverified")
    path = f"{PATH}/{domain['id']}"
    assert (await root.ask("POST", path + "/set-default")).data["isDefault"] is True
    try:
        for _ in range(6):
            public = (await ask(installation.server, "GET", "/v1/public/domains")).data["domains"]
            assert public[0] == domain["domain"]
        made = (await ask(installation.server, "POST", "/v1/mailboxes")).data
        assert made["domain"] == domain["domain"]
        assert (await root.ask("GET", f"{PATH}/{first['id']}")).data["isDefault"] is False
        for method, where, what in (
            ("DELETE", path, {}),
            ("PATCH", path + "/toggle", {"json": {"isActive": False}}),
            ("DELETE", f"{PATH}/{first['id']}", {}),  # no longer the default, but configured
            ("PATCH", f"{PATH}/{first['id']}/toggle", {"json": {"isActive": False}}),
        ):
            answer = await root.ask(method, where, **what)
            assert (answer.status, answer.error) == (400, "domain_protected")
    finally:
        assert (await root.ask("POST", f"{PATH}/{first['id']}/set-default")).status == 200
    assert (await root.ask("GET", PATH)).data["items"][0]["domain"] == "temp.mail"


async def test_a_domain_whose_record_is_lost_is_recovered(installation: Installation, root: Account) -> None:
    name, token = fresh(), secrets.token_hex(32)
    lost = await root.ask("POST", PATH + "/recover", json={"domain": name})
    assert (lost.status, lost.error, lost.json["field"]) == (422, "domain_unverified", "domain")
    installation.zones.prove(name, token)
    found = (await root.ask("POST", PATH + "/recover", json={"domain": name})).data
    assert (found["status"], found["verifyToken"], found["createdBy"]) == ("verified", token, root.id)
    assert (await root.ask("POST", PATH + "/recover", json={"domain": name})).data["id"] == found["id"]
    await installation.server.mailbox(domain=name)
    theirs = await verified(installation, await register(installation.server))
    taken = await root.ask("POST", PATH + "/recover", json={"domain": theirs["domain"]})
    assert (taken.status, taken.error) == (409, "domain_exists")


async def test_an_administrator_can_switch_a_users_domain_off(installation: Installation, root: Account) -> None:
    owner = await register(installation.server)
    theirs = await verified(installation, owner)
    shown = (await root.ask("GET", f"{PATH}/{theirs['id']}")).data
    assert (shown["userId"], shown["mode"]) == (owner.id, "shared")
    await root.ask("PATCH", f"{PATH}/{theirs['id']}/toggle", json={"isActive": False})
    assert (await owner.ask("GET", f"/v1/user/domains/{theirs['id']}")).data["isActive"] is False
    public = (await ask(installation.server, "GET", "/v1/public/domains")).data["domains"]
    assert theirs["domain"] not in public
    again = await owner.ask("POST", f"/v1/user/domains/{theirs['id']}/verify")
    assert (again.status, again.data["isActive"]) == (200, False), "verifying undid what the administrator did"
    assert theirs["id"] not in {item["id"] for item in (await root.ask("GET", PATH)).data["items"]}


async def test_roles_are_asked_for(installation: Installation, root: Account) -> None:
    domain = await added(root)
    one = f"{PATH}/{domain['id']}"
    for_administrators = [("GET", PATH), ("GET", one), ("POST", one + "/verify"), ("GET", one + "/instructions")]
    for_administrators += [("PATCH", one + "/toggle")]
    for_super = [("POST", PATH), ("POST", PATH + "/recover"), ("POST", one + "/set-default"), ("DELETE", one)]
    user, administrator = await register(installation.server), await installation.account("admin")
    for method, path in for_administrators + for_super:
        anonymous = await ask(installation.server, method, path)
        assert (anonymous.status, anonymous.error) == (401, "token_required")
        answer = await user.ask(method, path, json={})
        assert (answer.status, answer.error) == (403, "permission_denied")
    for method, path in for_super:
        answer = await administrator.ask(method, path, json={"domain": fresh()})
        assert (answer.status, answer.error) == (403, "permission_denied")
    for method, path in for_administrators:
        assert (await administrator.ask(method, path, json={"isActive": True})).status in (200, 422)


async def test_an_unknown_domain_is_not_found(root: Account) -> None:
    for one in ("01890000-0000-7000-8000-000000000000", "x", "%00"):
        for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/verify"), ("POST", "/set-default")):
            answer = await root.ask(method, f"{PATH}/{one}{tail}")
            assert (answer.status, answer.error) == (404, "domain_not_found")
