"""The two ways anything here can fail, and the words for them.

Lives here: the exceptions that cross layers. Must not know: statuses and reply codes; ``web`` and ``smtp`` each map the
words to their own protocol.
"""

from typing import Literal

Word = Literal[
    "account_disabled",
    "address_invalid",
    "alias_exists",
    "alias_not_found",
    "api_key_not_found",
    "attachment_not_found",
    "ban_exists",
    "ban_not_found",
    "body_invalid",
    "client_banned",
    "credentials_invalid",
    "delivery_not_found",
    "domain_exists",
    "domain_in_use",
    "domain_not_allowed",
    "domain_not_found",
    "domain_protected",
    "domain_unverified",
    "duration_invalid",
    "field_invalid",
    "mailbox_disabled",
    "mailbox_exists",
    "mailbox_full",
    "mailbox_not_found",
    "message_not_found",
    "message_too_big",
    "method_not_allowed",
    "origin_not_allowed",
    "prefix_invalid",
    "rate_limited",
    "permission_denied",
    "quota_reached",
    "route_not_found",
    "tag_exists",
    "tag_not_found",
    "token_expired",
    "token_invalid",
    "token_required",
    "too_many_aliases",
    "too_many_mailboxes",
    "user_exists",
    "user_not_found",
    "webhook_not_found",
]


class Refused(Exception):
    """The caller asked for something that cannot be: trying again unchanged will not help.

    ``word`` is stable and machine-readable, ``field`` names the input at fault, ``detail`` says what would be right,
    and ``retry_after`` (seconds) is set where waiting does help after all (a limit).
    """

    def __init__(self, word: Word, detail: str = "", *, field: str = "", retry_after: float = 0.0) -> None:
        super().__init__(word, detail)
        self.word: Word = word
        self.detail = detail
        self.field = field
        self.retry_after = retry_after


class Unavailable(Exception):
    """Our own trouble (database, broker, overload): nothing is known to be done, and trying again later may help.

    The text is for the log; no client is ever shown it.
    """


class Crowded(Unavailable):
    """There is no room now, which is no fault and not worth a line in the log; ``retry_after`` in seconds."""

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Unstorable(Unavailable):
    """The fault lies in this one message, which cannot even be stored as bare bytes: it will fail again."""
