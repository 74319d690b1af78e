"""Search reads messages as they came: every kind of text is found, page after page, within its bounds."""

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from server.config.settings import Config
from server.model import ids
from server.model.errors import Unavailable
from server.model.folding import folded
from server.model.message import Envelope, Mailbox, Recipient, Stored
from server.model.query import Term, parse
from server.services.contracts import SearchQuery, Shares
from server.services.mailboxes.account_search import AcrossService
from server.services.mailboxes.messages import MessageService
from server.services.mailboxes.reading import Readers
from server.services.mailboxes.text_search import LOOKED_THROUGH, TextSearch
from server.services.sandbox import Sandbox
from server.store.account_search import AcrossStore
from server.store.messages import Candidate
from server.store.pools import Pools
from server.store.tags import TagStore
from tests.integration.mail import mailbox, now, settled
from tests.integration.test_ingest import Bench
from tests.unit.test_folding import ALIKE, APART


class Finding(Bench):
    def serve(self, config: Config) -> None:
        self.finder = Sandbox("search")
        tags = TagStore(self.pools.users)
        self.messages = MessageService(
            config, self.store, tags, self.ingest, self.coherence, Readers(self.sandbox, 60), TextSearch(self.finder)
        )

    async def put(self, box: Mailbox, subject: str, text: str, kind: str = "text/plain") -> None:
        encoded = b64encode(text.encode()).decode()
        raw = f"Subject: {subject}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        await self.messages.inject(box, f"{raw}{encoded}".encode(), "a@example.org", is_read=False)

    async def subjects(self, box: Mailbox, q: str = "", page: int = 1) -> list[str]:
        rows, self.total = await self.messages.search(box, SearchQuery(q, page=page, page_size=10), None)
        return [row.subject for row in rows]


@pytest.fixture
async def finding(pools: Pools, settings: Config) -> AsyncIterator[Finding]:
    made = Finding(pools)
    made.serve(settings)
    yield made
    await made.finder.close()
    await made.sandbox.close()


async def test_each_condition_finds_what_it_says_in_this_mailbox_alone(finding: Finding) -> None:
    box, other = await settled(finding.store), await settled(finding.store)
    await finding.put(box, "Invoice 100%", "pay\\me_now")
    await finding.put(box, "Greetings", "the needle is Überall, \u65e5\u672c")
    await finding.put(other, "needle of another", "needle")
    for q, wanted in {
        "NEEDLE": ["Greetings"],
        "ÜBERALL": ["Greetings"],
        "\u65e5\u672c": ["Greetings"],
        "100%": ["Invoice 100%"],
        "e_n": ["Invoice 100%"],
        "pay\\me": ["Invoice 100%"],
        "%": ["Invoice 100%"],
        "-needle": ["Invoice 100%"],
        "-invoice": ["Greetings"],
        "-needle -pay": [],
        "example.org": [],
        "needle greetings": ["Greetings"],
        "from:example.org is:unread": ["Greetings", "Invoice 100%"],
        "is:unread": ["Greetings", "Invoice 100%"],
    }.items():
        assert await finding.subjects(box, q) == wanted, q
        assert finding.total == len(wanted), q
    assert await finding.subjects(box, "", page=6) == []
    assert finding.total == 2


async def test_search_compares_what_people_see_in_every_place(finding: Finding) -> None:
    """Subject, addresses, text, HTML and names of attachments; quotes, negation and operators alike."""
    box = await settled(finding.store)
    for subject, sender, to, body in (
        ("Erdős Pál", "Łukasz Müller <l@example.org>", "Søren <s@example.org>", "Straße\r\nnach\u00a0Łódź"),
        ("ＣＯＤＥ ﾊﾞﾝｺﾞｳ", "plain <p@example.org>", "x@example.org", "<p>in\u200bvis<b>ible</b>\n\n words</p>"),
    ):
        kind = "text/html" if body.startswith("<") else "text/plain"
        raw = (
            f"Subject: {subject}\r\nFrom: {sender}\r\nTo: {to}\r\nCc: Ağrı <a@example.org>\r\n"
            "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
            f"--b\r\nContent-Type: {kind}; charset=utf-8\r\n\r\n{body}\r\n"
            "--b\r\nContent-Disposition: attachment; "
            f"filename*=utf-8''Rechnung%20f%C3%BCr%20{len(kind)}.pdf\r\n\r\nx\r\n"
            "--b--\r\n"
        )
        await finding.messages.inject(box, raw.encode(), "a@example.org", is_read=False)
    one, other = "Erdős Pál", "ＣＯＤＥ ﾊﾞﾝｺﾞｳ"
    for q, wanted in {
        "erdos": [one],
        "ERDŐS": [one],
        '"erdos  pal"': [one],
        "subject:ERDOS": [one],
        "-subject:erdos": [other],
        "-erdos": [other],
        "from:lukasz": [one],
        'from:"lukasz muller"': [one],
        "-from:muller": [other],
        "lukasz": [one],
        "to:soren": [one],
        "soren": [one],
        "to:agri": [other, one],
        "agri": [other, one],
        "-agri": [],
        "strasse": [one],
        '"strasse nach lodz"': [one],
        '-"strasse nach lodz"': [other],
        "code": [other],
        "バンゴウ": [other],
        "subject:バンゴウ": [other],
        "invisible": [other],
        '"invisible words"': [other],
        "für": [other, one],
        '"rechnung fur 10"': [one],
        '-"rechnung fur 10"': [other],
        "rechnung erdos strasse": [one],
        "rechnung -strasse": [other],
    }.items():
        assert await finding.subjects(box, q) == wanted, q


async def test_database_and_process_fold_text_alike(pools: Pools) -> None:
    texts = [text for pair in ALIKE + APART for text in pair]
    texts += [
        "plain Text",
        "two  spaces",
        "a\ttab",
        "",
        "100%_\\",
        "Ünï\u200bcödé  \u3000 x",
        "Ǆ ŉ ﷺ ĳ",
        "\u0130\u0131",
        "Ⅷ ½ ™",
    ]
    found = await pools.messages.fetch(
        "SELECT messages.folded(t) AS f FROM unnest($1::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n", texts
    )
    assert [row["f"] for row in found] == [folded(text) for text in texts]


async def test_text_is_found_beyond_the_bodies_looked_through_at_a_time(finding: Finding) -> None:
    box, count = await settled(finding.store), 2 * LOOKED_THROUGH + 3
    for number in range(count):
        await finding.put(box, str(number), f"even {number}" if number % 2 == 0 else "odd")
    evens = [str(number) for number in reversed(range(0, count, 2))]
    assert await finding.subjects(box, "even") == evens[:10]
    assert finding.total == len(evens)
    assert await finding.subjects(box, "even", page=7) == evens[60:]
    assert await finding.subjects(box, '"even 0"') == ["0"]
    assert await finding.subjects(box, "-even", page=1) == [
        str(number) for number in reversed(range(count - 20, count, 2))
    ]


async def test_html_is_searched_as_its_reader_sees_it_and_only_so_far(finding: Finding) -> None:
    box = await settled(finding.store)
    await finding.put(box, "page", "<p>visible <b>words</b></p><style>hidden</style>", "text/html")
    await finding.put(box, "long", "word " * 6000 + "within " + "word " * 1000 + "beyond")
    assert await finding.subjects(box, '"visible words"') == ["page"]
    assert await finding.subjects(box, "hidden") == []
    assert await finding.subjects(box, "within") == ["long"]
    assert await finding.subjects(box, "beyond") == []


async def test_a_large_message_is_searched_at_its_beginning(finding: Finding) -> None:
    box = await settled(finding.store)
    head = "Subject: parcel\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    parts = "--b\r\n\r\nnear the top\r\n--b\r\nContent-Disposition: attachment; filename=x\r\n\r\n"
    raw = f"{head}{parts}".encode() + bytes(range(256)) * 4096 + b"\r\n--b--\r\n"
    await finding.ingest.submit(Envelope("a@example.org", [Recipient(box.address, box.id)], raw))
    assert await finding.subjects(box, '"near the top"') == ["parcel"]
    assert await finding.subjects(box, '-"near the top"') == []


async def test_a_search_across_mailboxes_goes_on_where_its_time_was_up(finding: Finding, settings: Config) -> None:
    user_id, count = ids.new(), LOOKED_THROUGH + 6
    boxes = [msgspec.structs.replace(mailbox(), user_id=user_id) for _ in range(3)]
    for box in boxes:
        await finding.store.create_inbox(box, 0)
    for number in range(count):
        await finding.put(boxes[number % 3], str(number), "the needle")

    class Interrupted(TextSearch):
        """The time of a search is up at this page of it."""

        def __init__(self, page: int) -> None:
            super().__init__(finding.finder)
            self.left = page

        async def filter(self, page: Sequence[Candidate], terms: Sequence[Term], shares: Shares = ()) -> list[Stored]:
            self.left -= 1
            if not self.left:
                raise TimeoutError
            return await super().filter(page, terms, shares)

    def service(interrupted: int) -> AcrossService:
        store, tags = AcrossStore(finding.pools.messages, now), TagStore(finding.pools.users)
        return AcrossService(settings, store, tags, Interrupted(interrupted))

    first = await service(2).page(user_id, parse("needle"), "", 100)
    second = await service(2).page(user_id, parse("needle"), first.following, 100)
    assert (len(first.messages), len(second.messages), second.following) == (LOOKED_THROUGH, 6, "")
    found = [*first.messages, *second.messages]
    assert sorted(int(one.subject) for one in found) == list(range(count))
    for box in boxes:  # of two mailboxes' mail in one millisecond either may come first
        its = [int(one.subject) for one in found if one.mailbox_id == box.id]
        assert its == sorted(its, reverse=True)
    with pytest.raises(Unavailable):
        await service(1).page(user_id, parse("needle"), "", 5)
