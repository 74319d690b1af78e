"""The trace over HTTP: what became of mail, for a mailbox's owner and for administrators."""

from typing import Final, Self

import msgspec
from msgspec import UNSET, UnsetType

from server.model.trace import VERDICTS, Decision, Page, Question, Stage
from server.web.api.schemas import rfc3339
from server.web.description import describe
from server.web.query import Address, Choice, MomentCursor, Number, Since, Text
from server.web.requests import Call
from server.web.responses import Reply, ok

ADDRESS: Final = Address(
    "address", "a recipient, with its tag or without; or the sender of what was refused before a recipient was named"
)
SENDER: Final = Text("sender", "only what this sender sent, or all senders of a domain (`example.org`) and below it")
SINCE: Final = Since("since", "only decisions from then on: a moment, a day, or how long ago, such as `2h`")
UNTIL: Final = Since("until", "only decisions before then, written as `since`")
VERDICT: Final = Choice("verdict", "only decisions that came out like this", VERDICTS)
LIMIT: Final = Number(
    "limit", "how many rows at most; the end of a message is one with its accepted recipient", 100, 1, 1000
)
CURSOR: Final = MomentCursor("cursor", "the `nextCursor` of the page before")


class DecisionObject(msgspec.Struct, rename="camel"):
    """One decision. ``reply`` is what the client was told, or begins with `dropped:`; ``message_id`` only where a
    message was stored; ``node`` is the host and worker. ``unrecorded`` only on a line that stands for so many decisions
    of its kind that were not recorded one by one.
    """

    at: str
    stage: Stage
    client: str
    helo: str
    sender: str
    recipient: str
    reply: str
    node: str
    message_id: str | UnsetType = UNSET
    unrecorded: int | UnsetType = UNSET

    @classmethod
    def of(cls, one: Decision) -> Self:
        about = (one.client, one.helo, one.sender, one.recipient, one.reply, one.node)
        rest = one.message_id or UNSET, one.unrecorded or UNSET
        return cls(rfc3339(one.at), one.stage, *about, *rest)


class TraceList(msgspec.Struct, rename="camel"):
    """Decisions, newest first; ``next_cursor`` absent on the last page. ``complete`` is false where so much was decided
    in that time that some of it was only counted: what is not here may have happened all the same.
    """

    items: list[DecisionObject]
    complete: bool
    next_cursor: str | UnsetType = UNSET

    @classmethod
    def of(cls, page: Page) -> Self:
        following = UNSET if page.following is None else MomentCursor.write(page.following)
        return cls([DecisionObject.of(one) for one in page.items], page.unrecorded == 0, following)


class FullTraceList(TraceList, rename="camel"):
    """The same for administrators; ``unrecorded`` counts the decisions that were only counted."""

    unrecorded: int = 0

    @classmethod
    def of(cls, page: Page) -> Self:
        made = super().of(page)
        made.unrecorded = page.unrecorded
        return made


@describe(
    "Show what became of mail to a mailbox",
    detail="Each decision of the last hours about the mailbox's own addresses since they were its own: who tried, and "
    "what was answered. A decision is here one or two seconds after it was made.",
    response=TraceList,
    query=(SINCE, LIMIT, CURSOR),
)
async def own(call: Call) -> Reply:
    question = Question(since=SINCE.of(call), limit=LIMIT.of(call), before=CURSOR.of(call))
    aliases = await call.services.aliases.all(call.mailbox)
    return ok(call.language, TraceList.of(await call.services.trace.of_mailbox(call.mailbox, aliases, question)))


@describe(
    "Show what became of mail",
    detail="Each decision of the last hours about connections, senders, recipients and messages, newest first; of one "
    "address or of all. A line whose `recipient` is empty and that has `unrecorded` stands for decisions of its kind "
    "that came too fast to be recorded one by one.",
    response=FullTraceList,
    query=(ADDRESS, SENDER, SINCE, UNTIL, VERDICT, LIMIT, CURSOR),
)
async def every(call: Call) -> Reply:
    question = Question(
        address=ADDRESS.of(call),
        sender=SENDER.of(call).strip().lower(),
        since=SINCE.of(call),
        until=UNTIL.of(call),
        verdict=VERDICT.of(call),
        limit=LIMIT.of(call),
        before=CURSOR.of(call),
    )
    return ok(call.language, FullTraceList.of(await call.services.trace.page(question)))
