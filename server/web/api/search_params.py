"""What a search may ask for, in one mailbox or in all of an account's: said once for both."""

from typing import Final

from server.services.contracts import SearchQuery
from server.web.query import Flag, Moment, Parameter, Text
from server.web.requests import Call

_Q: Final = Text(
    "q",
    "Words that all stand in the subject, the text, an address or an attachment's name, whatever their case, accents "
    'and white space; "several words" in quotes; - in front for what is '
    "not to be there; and from: to: subject: before: after: larger: smaller: (5000, 10K, 1M) has:attachment is:read "
    "is:unread tag: dmarc: (none, pass, fail, temperror, permerror).",
)
_FROM: Final = Text("from", "Part of the sender.")
_SUBJECT: Final = Text("subject", "Part of the subject.")
_START: Final = Moment("startDate", "Received at this time or later; a day counts from its first moment in UTC.")
_END: Final = Moment("endDate", "Received at this time or earlier; a day counts to its last moment in UTC.", end=True)
_IS_READ: Final = Flag("isRead", "Only what is read, or only what is not.")
_HAS_ATTACHMENT: Final = Flag("hasAttachment", "Only what has attachments, or only what has none.")

CONDITIONS: Final[tuple[Parameter, ...]] = (_Q, _FROM, _SUBJECT, _START, _END, _IS_READ, _HAS_ATTACHMENT)


def asked(call: Call, page: int = 1, page_size: int = 20) -> SearchQuery:
    """The conditions of a request. Refused field_invalid."""
    return SearchQuery(
        q=_Q.of(call),
        sender=_FROM.of(call),
        subject=_SUBJECT.of(call),
        start=_START.of(call),
        end=_END.of(call),
        is_read=_IS_READ.of(call),
        has_attachment=_HAS_ATTACHMENT.of(call),
        page=page,
        page_size=page_size,
    )
