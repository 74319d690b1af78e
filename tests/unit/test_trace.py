"""The trace's bounds and its lines of log: what a flood may take, what trouble may cost, what may be read of people."""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from rich.console import Console

from server import log
from server.cli.admin import plain
from server.config import settings as config
from server.model.errors import Unavailable
from server.model.message import Envelope, Recipient
from server.model.mime import parse
from server.model.trace import Noted, Row, Sampler, candidates, counted, printable, rows, verdict
from server.services.mail_in import decisions as waiting_decisions
from server.services.mail_in import mail_trace
from server.services.mail_in.decisions import Decisions
from server.services.mail_in.mail_trace import Lines, MailTrace
from server.smtp import arguments
from server.store.batch import Item, Rows
from server.store.trace import TraceStore

NOT_FOUND = b"550 5.1.1 No such mailbox\r\n"
STORED = b"250 2.0.0 OK stored as 1\r\n"


def refused(client: str = "192.0.2.1", recipient: str = "x@temp.mail") -> Noted:
    return Noted("rcpt", 1.0, client, "helo", "s@example.com", recipient, NOT_FOUND)


def stored(client: str = "192.0.2.1", count: int = 1) -> Noted:
    its = [Recipient(f"{n}@temp.mail", f"box-{n}") for n in range(count)]
    return Noted("data", 2.0, client, "helo", "s@example.com", its, STORED, 1.0)


def test_a_flood_of_one_reason_takes_nothing_from_another() -> None:
    sampler = Sampler(10)
    kept, rest = sampler.sample([refused() for _ in range(1000)] + [stored()], 1.0)
    assert stored() in kept
    assert len(kept) == 101
    assert rest == {("rcpt", b"550 5.1.1"): 900}


def test_a_flood_of_one_client_hides_no_other_client() -> None:
    sampler = Sampler(10)
    flood = [refused("192.0.2.1") for _ in range(1000)]
    kept, _ = sampler.sample([*flood, refused("192.0.2.2", "mine@temp.mail")], 1.0)
    assert any(one.client == "192.0.2.2" for one in kept)
    assert len(kept) <= 100


@pytest.mark.parametrize("network", ["2001:db8:0:1::{:x}", "2001:db8:0:{:x}::1", "2001:db8:0:1::{:x}%eth0"])
def test_a_flood_from_one_ipv6_network_hides_no_other_client(network: str) -> None:
    sampler = Sampler(10)
    flood = [refused(network.format(n)) for n in range(1, 2000)]
    kept, rest = sampler.sample([*flood, refused("192.0.2.2", "mine@temp.mail"), refused("2001:db8:1::1")], 1.0)
    assert {one.client for one in kept} >= {"192.0.2.2", "2001:db8:1::1"}
    assert len(kept) <= 100
    assert len(kept) + rest.total() == 2001


def test_a_flood_of_a_local_mail_server_hides_no_other_client() -> None:
    kept, _ = Sampler(10).sample([*[refused("") for _ in range(1000)], refused("192.0.2.2")], 1.0)
    assert any(one.client == "192.0.2.2" for one in kept)


@pytest.mark.parametrize("odd", ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "\u2028", "\r", "\x7f", "\u200b"])
@pytest.mark.parametrize("argument", ['TO:<"{}x"@temp.mail>', "TO:{}", "{}x", "FROM:<x{}@temp.mail> SIZE=1"])
def test_a_refused_address_is_shown_without_what_a_terminal_obeys(argument: str, odd: str) -> None:
    shown = arguments.shown(argument.format(odd).encode())
    assert shown.isprintable()
    assert arguments.shown("TO:<ä[x]@temp.mail>".encode()) == "ä[x]@temp.mail"


@pytest.mark.parametrize("odd", ["\x1b]0;title\x07", "\x9b31m", "\u202egnp.exe", "[red]x[/red]", "[/]"])
def test_a_console_shows_what_others_wrote_and_obeys_none_of_it(odd: str) -> None:
    console = Console(force_terminal=True, no_color=True, width=80)
    with console.capture() as captured:
        console.print(plain(f"a{odd}b"), highlight=False)
    assert captured.get().rstrip("\n") == f"a{printable(odd)}b"
    assert printable(odd).isprintable()


def test_recipients_count_each_and_what_is_left_over_is_counted_each() -> None:
    sampler = Sampler(10)
    kept, rest = sampler.sample([stored(count=70), stored(count=70)], 1.0)
    assert [one.weight for one in kept] == [70]
    assert rest.total() == 70


def test_what_a_second_allows_comes_back_and_no_more_than_ten_seconds_of_it() -> None:
    sampler = Sampler(10)
    flood = [refused() for _ in range(1000)]
    assert [len(sampler.sample(flood, elapsed)[0]) for elapsed in (1.0, 1.0, 2.0, 1000.0)] == [100, 10, 20, 100]


def test_a_recipient_whose_mailbox_went_before_the_commit_is_told_apart() -> None:
    its = [Recipient("a@temp.mail", "box-a"), Recipient("b@temp.mail", "box-b")]
    made = {"box-a": "01890000-0000-7000-8000-000000000001"}
    first, second = rows(Noted("data", 2.0, "", "", "", its, STORED, 1.0, lambda: made))
    assert (first.message_id, first.reply) == (made["box-a"], "250 2.0.0 OK stored as 1")
    assert (second.message_id, second.reply[:8]) == (None, "dropped:")


def test_a_note_tells_the_ids_of_what_was_stored_and_keeps_nothing_of_the_message() -> None:
    its, moment = [Recipient("a@temp.mail", "box-a")], datetime(2026, 12, 1, tzinfo=UTC)
    item = Item(Envelope("s@example.com", its, b"x"), parse(b"x"), b"packed", moment)
    held = sys.getrefcount(item)
    decisions = Decisions()
    stored = Rows(item, [("box-a", 2, "01890000-0000-7000-8000-0000")], "body", {"box-a": (5, moment)})
    decisions.note("data", "", "", "", its, STORED, 1.0, stored)
    del stored
    [noted], _ = decisions.take()
    assert sys.getrefcount(item) == held
    assert [row.message_id for row in rows(noted)] == ["01890000-0000-7000-8000-000000000007"]


def test_counted_rows_say_how_many_they_stand_for() -> None:
    [row] = counted({("rcpt", b"550 5.1.1"): 960}, 3.0)
    assert (row.stage, row.reply, row.unrecorded, row.recipient) == ("rcpt", "550 5.1.1", 960, "")


def test_an_address_may_mean_its_base_its_parent_domain_or_the_administrators() -> None:
    assert "box@temp.mail" in candidates("box+tag@temp.mail", "root@temp.mail")
    assert "box@temp.mail" in candidates("any@box.temp.mail", "root@temp.mail")
    assert "root@temp.mail" in candidates("abuse+x@temp.mail", "root@temp.mail")
    assert "root@temp.mail" not in candidates("abused@temp.mail", "root@temp.mail")
    assert set(candidates("a+b@c.d.temp.mail", "root@temp.mail")) == {
        *("a+b@c.d.temp.mail", "a@c.d.temp.mail"),
        *("c@d.temp.mail", "c.d@temp.mail"),
    }


@pytest.mark.parametrize(
    ("reply", "meant"),
    [
        ("250 2.0.0 OK", "accepted"),
        ("450 4.2.1 try again", "deferred"),
        ("421 4.7.0 too many", "deferred"),
        ("550 5.1.1 No such mailbox", "refused"),
        ("dropped: gone", "dropped"),
    ],
)
def test_a_reply_is_the_verdict_that_its_first_digit_says(reply: str, meant: str) -> None:
    assert verdict(reply) == meant


def test_decisions_that_wait_are_bounded_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_decisions, "BUFFER_MAX", 10)
    decisions = Decisions()
    for number in range(25):
        note(decisions, f"{number}@temp.mail")
    kept, rest = decisions.take()
    assert [one.recipients for one in kept] == [f"{number}@temp.mail" for number in range(10)]
    assert rest == {("rcpt", b"550 5.1.1"): 15}
    assert decisions.take() == ([], {})


class Away:
    """A store whose database is away until told otherwise."""

    def __init__(self) -> None:
        self.away = True
        self.written: list[Row] = []

    async def write(self, its: Sequence[Row]) -> None:
        if self.away:
            raise Unavailable("away")
        self.written += its

    async def upkeep(self) -> list[str]:
        return []


def trace(store: Away, **settings: str) -> tuple[MailTrace, Decisions]:
    decisions = Decisions()
    made = MailTrace(config.load({}, settings), decisions, cast(TraceStore, store), lambda address: f"meant:{address}")
    return made, decisions


def note(decisions: Decisions, recipient: str) -> None:
    decisions.note("rcpt", "192.0.2.1", "h", "s@example.com", recipient, NOT_FOUND)


def test_what_is_decided_while_the_database_is_away_is_written_when_it_is_back() -> None:
    async def run() -> None:
        store = Away()
        made, decisions = trace(store)
        for number in range(3):
            note(decisions, f"{number}@temp.mail")
            await made.flush()
        store.away = False
        await made.flush()
        await made.flush()
        assert [row.recipient for row in store.written] == ["0@temp.mail", "1@temp.mail", "2@temp.mail"]
        assert [row.address for row in store.written] == [f"meant:{number}@temp.mail" for number in range(3)]

    asyncio.run(run())


def test_a_long_outage_is_bounded_and_says_how_much_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_trace, "WAITING_MAX", 10)

    async def run() -> None:
        store = Away()
        made, decisions = trace(store, TRACE_RATE="1000")
        for number in range(25):
            note(decisions, f"{number}@temp.mail")
            await made.flush()
        store.away = False
        await made.flush()
        its = [row for row in store.written if row.recipient]
        assert [row.recipient for row in its] == [f"{number}@temp.mail" for number in range(10)]
        assert sum(row.unrecorded or 0 for row in store.written) == 15

    asyncio.run(run())


def test_without_retention_nothing_is_kept() -> None:
    async def run() -> None:
        store = Away()
        store.away = False
        made, decisions = trace(store, TRACE_RETENTION="0")
        note(decisions, "x@temp.mail")
        await made.flush()
        assert store.written == []

    asyncio.run(run())


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is logged."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(os, "write", lambda fd, data: found.append(json.loads(data)) or len(data))
    return found


SECRET = "0123456789abcdef0123456789abcdef"


def logged(lines: list[dict[str, Any]], level: str, **settings: str) -> list[dict[str, Any]]:
    log.configure(level)
    try:
        Lines(config.load({}, {"JWT_SECRET": SECRET} | settings)).write([refused(), stored()])
    finally:
        log.configure("info")
    return lines


def test_no_decision_is_logged_unless_a_setting_asks_for_it(lines: list[dict[str, Any]]) -> None:
    assert logged(lines, "info") == []


@pytest.mark.parametrize(("which", "verdicts"), [("all", ["refused", "accepted"]), ("refused", ["refused"])])
def test_decisions_are_logged_as_far_as_the_setting_says(
    lines: list[dict[str, Any]], which: str, verdicts: list[str]
) -> None:
    assert [line["verdict"] for line in logged(lines, "info", SMTP_LOG=which)] == verdicts


def test_the_debug_level_logs_decisions_by_itself(lines: list[dict[str, Any]]) -> None:
    assert [line["level"] for line in logged(lines, "debug")] == ["debug", "debug"]


def test_logged_addresses_cannot_be_read_but_equal_ones_are_equal(lines: list[dict[str, Any]]) -> None:
    first, second = logged(lines, "info", SMTP_LOG="all")
    assert first["sender"] == second["sender"]
    assert first["sender"] != first["recipient"]
    for line in (first, second):
        assert line["sender"].startswith("#")
        assert line["sender"].endswith("@example.com")
        assert "s@example.com" not in line["sender"]
    assert Lines(config.load({}, {"JWT_SECRET": SECRET})).shown("S@example.com") == first["sender"]
    other = Lines(config.load({}, {"JWT_SECRET": SECRET[::-1]}))
    assert other.shown("s@example.com") != first["sender"], "a list of names would open them"


def test_what_is_no_address_is_hashed_whole(lines: list[dict[str, Any]]) -> None:
    shown = Lines(config.load({}, {"JWT_SECRET": SECRET})).shown("jane.doe")
    assert "jane" not in shown


def test_logged_addresses_are_plain_where_the_setting_says_so(lines: list[dict[str, Any]]) -> None:
    first, _ = logged(lines, "info", SMTP_LOG="all", SMTP_LOG_ADDRESSES="plain")
    assert (first["sender"], first["recipient"]) == ("s@example.com", "x@temp.mail")


def test_a_flood_does_not_fill_the_log(lines: list[dict[str, Any]]) -> None:
    Lines(config.load({}, {"SMTP_LOG": "all"})).write([refused() for _ in range(1000)])
    kinds = Counter(line["msg"] for line in lines)
    assert kinds == {"smtp decision": mail_trace.LINES_MAX, "smtp decisions not logged": 1}
    assert lines[-1]["count"] == 1000 - mail_trace.LINES_MAX
