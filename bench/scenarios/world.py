"""What requests of every route name: accounts with one of everything, mailboxes with mail in them, and their makers.

Lives here: the preparation of a server of our own, over its API, and what the domains' DNS and the webhooks' target
are. Must not know: which route needs what (``routes_recipes``), or how fast anything is.
"""

import asyncio
import secrets
import socketserver
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from dnslib import MX, QTYPE, RCODE, RR, TXT, DNSError, DNSRecord

from bench.clients.api import Api

Subject = dict[str, str]
"""What one request names, by kind: ids, tokens, addresses."""

PASSWORD: Final = "correct horse battery"
TEXT: Final = "A line of an ordinary letter, long enough to be one.\n" * 40
_MAIL_HOST: Final = "temp.mail"
_MAILS_EACH: Final = 3
_MAKERS: Final = 16


def _letter() -> str:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", "a letter"
    message.set_content(TEXT)
    message.add_attachment(b"\x00\x01" * 100, maintype="application", subtype="octet-stream", filename="data.bin")
    return message.as_string()


LETTER: Final = {"from": "a@example.org", "raw": _letter()}


def word() -> str:
    """A name that nothing has yet."""
    return f"b{secrets.token_hex(7)}"


@dataclass
class Around:
    """Where the server finds what lies outside of it: a name server, and a target for webhooks that takes everything.

    ``proofs``: what a domain publishes, by name.
    """

    dns: str
    hook: str
    proofs: dict[str, str]


@contextmanager
def around() -> Iterator[Around]:
    """Both on loopback while the block runs."""
    proofs: dict[str, str] = {}

    class Names(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            try:
                asked = DNSRecord.parse(data)
            except DNSError:
                return
            name, kind, reply = str(asked.q.qname).lower().rstrip("."), QTYPE[asked.q.qtype], asked.reply()
            if name not in proofs:
                reply.header.rcode = RCODE.NXDOMAIN
            elif kind == "TXT":
                reply.add_answer(RR(name, QTYPE.TXT, rdata=TXT(f"tempmail-verify={proofs[name]}"), ttl=0))
            elif kind == "MX":
                reply.add_answer(RR(name, QTYPE.MX, rdata=MX(_MAIL_HOST, 10), ttl=0))
            sock.sendto(bytes(reply.pack()), self.client_address)

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    servers = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Names), ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    names, hook = (server.server_address[1] for server in servers)
    try:
        yield Around(f"127.0.0.1:{names}", f"http://127.0.0.1:{hook}/", proofs)
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@dataclass
class World:
    """``boxes`` are guests'; ``owners`` are accounts without quotas; ``administrator`` is a super user's token."""

    api: Api
    around: Around
    administrator: str
    boxes: list[Subject] = field(default_factory=list)
    owners: list[Subject] = field(default_factory=list)
    system: Subject = field(default_factory=dict)

    async def fill(self, boxes: int, owners: int) -> None:
        self.boxes = await made(boxes, self.box)
        self.owners = await made(owners, lambda number: self.owner())
        name = await self.system_domain(0)
        await self.api.make(f"/v1/admin/domains/{name['domain']}/verify", {}, self.administrator, 200)
        served = await self.api.fetch("/v1/admin/domains", self.administrator)
        self.system = name | {"default": next(one["id"] for one in served["items"] if one["isDefault"])}

    # What a family uses up: each makes what one request names. ``number`` counts them.

    async def box(self, number: int) -> Subject:
        """A guest's mailbox with mail in it."""
        new = await self.api.create_mailbox()
        subject = {"mailbox": new.id, "box": new.token, "address": new.address}
        for _ in range(_MAILS_EACH):
            subject |= await self._mail(subject, new.token)
        return subject

    async def empty_box(self, number: int) -> Subject:
        new = await self.api.create_mailbox()
        return {"mailbox": new.id, "box": new.token, "address": new.address}

    async def aliased_box(self, number: int) -> Subject:
        subject = await self.empty_box(number)
        made_of_it = {"address": f"{word()}@{_MAIL_HOST}"}
        path = f"/v1/mailboxes/{subject['mailbox']}/aliases"
        return subject | {"alias": (await self.api.make(path, made_of_it, subject["box"]))["id"]}

    async def message(self, number: int) -> Subject:
        """A new message in one of the guests' mailboxes."""
        subject = self.boxes[number % len(self.boxes)]
        return subject | await self._mail(subject, subject["box"])

    async def own_message(self, number: int) -> Subject:
        subject = self._owner(number)
        return subject | await self._mail(subject, subject["token"])

    async def tagged_message(self, number: int) -> Subject:
        subject = await self.own_message(number)
        path = f"/v1/mailboxes/{subject['mailbox']}/messages/{subject['message']}/tags"
        await self.api.make(path, {"tagId": subject["tag"]}, subject["token"])
        return subject

    async def own_box(self, number: int) -> Subject:
        subject = self._owner(number)
        return subject | {"mailbox": (await self.api.make("/v1/mailboxes", {}, subject["token"]))["id"]}

    async def tag(self, number: int) -> Subject:
        return await self._of_owner(number, "/v1/tags", {"name": word(), "color": "#336699"}, "tag")

    async def key(self, number: int) -> Subject:
        return await self._of_owner(number, "/v1/api-keys", {"name": word()}, "key_id")

    async def webhook(self, number: int) -> Subject:
        return await self._of_owner(number, "/v1/webhooks", self.hook(), "webhook")

    async def domain(self, number: int) -> Subject:
        return await self._of_owner(
            number, "/v1/user/domains", {"domain": f"{word()}.example", "mode": "shared"}, "domain"
        )

    async def system_domain(self, number: int) -> Subject:
        new = await self.api.make("/v1/admin/domains", {"domain": f"{word()}.example"}, self.administrator)
        self.around.proofs[new["domain"]] = new["verifyToken"]
        return {"domain": new["id"], "name": new["domain"]}

    async def ban(self, number: int) -> Subject:
        wanted = {"kind": "sender", "value": f"{word()}@example.org", "reason": "measured"}
        return {"ban": (await self.api.make("/v1/admin/bans", wanted, self.administrator))["id"]}

    async def session(self, number: int) -> Subject:
        """A login of its own."""
        subject = self._owner(number)
        wanted = {"email": subject["email"], "password": PASSWORD}
        new = await self.api.make("/v1/auth/login", wanted, "", 200)
        return subject | {"token": new["accessToken"], "refresh": new["refreshToken"]}

    async def account(self, number: int) -> Subject:
        email = f"{word()}@example.org"
        new = await self.api.make("/v1/auth/register", {"email": email, "password": PASSWORD}, "")
        return {"user": new["user"]["id"], "token": new["accessToken"], "email": email}

    async def owner(self) -> Subject:
        """An account without quotas that has one of everything."""
        one = await self.account(0)
        await self.api.make(
            f"/v1/admin/users/{one['user']}", {"tier": "enterprise"}, self.administrator, 200, method="PATCH"
        )
        token = one["token"]
        box = await self.api.make("/v1/mailboxes", {}, token)
        one |= {"mailbox": box["id"], "box": box["token"]}
        one |= await self._mail(one, token)
        key = await self.api.make("/v1/api-keys", {"name": "bench"}, token)
        domain = await self.api.make("/v1/user/domains", {"domain": f"{word()}.example", "mode": "shared"}, token)
        self.around.proofs[domain["domain"]] = domain["verifyToken"]
        alias = {"address": f"{word()}@{_MAIL_HOST}"}
        one |= {
            "key": key["key"],
            "key_id": key["id"],
            "domain": domain["id"],
            "alias": (await self.api.make(f"/v1/mailboxes/{box['id']}/aliases", alias, token))["id"],
            "tag": (await self.api.make("/v1/tags", {"name": "bench", "color": "#336699"}, token))["id"],
            "webhook": (await self.api.make("/v1/webhooks", self.hook(), token))["id"],
        }
        tags = f"/v1/mailboxes/{box['id']}/messages/{one['message']}/tags"
        await self.api.make(tags, {"tagId": one["tag"]}, token)
        tried = await self.api.make(f"/v1/webhooks/{one['webhook']}/test", {}, token, 200)
        return one | {"delivery": tried["id"]}

    def hook(self) -> dict[str, Any]:
        return {"url": self.around.hook, "events": ["mail.read"]}

    def _owner(self, number: int) -> Subject:
        return self.owners[number % len(self.owners)]

    async def _of_owner(self, number: int, path: str, body: dict[str, Any], kind: str) -> Subject:
        subject = self._owner(number)
        return subject | {kind: (await self.api.make(path, body, subject["token"]))["id"]}

    async def _mail(self, subject: Subject, token: str) -> Subject:
        new = await self.api.make(f"/v1/mailboxes/{subject['mailbox']}/messages", LETTER, token)
        return {"message": new["id"], "attachment": new["attachments"][0]["id"]}


async def made(count: int, make: Callable[[int], Awaitable[Subject]]) -> list[Subject]:
    """``count`` subjects, some at a time, in order."""
    numbers, found = iter(range(count)), dict[int, Subject]()

    async def maker() -> None:
        for number in numbers:
            found[number] = await make(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_MAKERS, count)):
            group.create_task(maker())
    return [found[number] for number in range(count)]
