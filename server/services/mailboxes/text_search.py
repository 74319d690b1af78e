"""Looking for words in the text of messages whose rows leave that open. Must not know: whose messages they are.

A few small bodies are read here, which is cheaper than telling a child of them; all others in a process that can be
killed, of its own, so that searches never keep arriving mail from being read.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from server.model import text_match
from server.model.errors import Refused, Unavailable
from server.model.folding import folded, sought
from server.model.message import Stored
from server.model.query import Term
from server.services.contracts import Shares
from server.services.sandbox import Sandbox, SandboxError, SandboxShare
from server.store.messages import Candidate

LOOKED_THROUGH: Final = 64  # bodies a search holds at a time, 400 kB of each at most
SEARCHES_WAITING: Final = 16  # for a child, each with so many bodies
READ_TIMEOUT: Final = 5.0  # s for the bodies of one page
_SMALL: Final = 32_768  # bytes of messages, unpacked, that are read within the loop: 1 ms, 16 ms if made to be slow


class TextSearch:
    """One for each worker; ``sandbox`` has the children that read."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def filter(self, page: Sequence[Candidate], terms: Sequence[Term], shares: Shares = ()) -> list[Stored]:
        """Those that match, in order; ``terms`` are the query's terms on the text. Raises Unavailable, or
        Refused rate_limited where ``shares`` are used.
        """
        asked = [(sought(term.value), term.negated) for term in terms]
        page = [one for one in (_named(one, asked) for one in page) if one is not None]
        open_ = [one for one in page if one.packed is not None]
        bodies = [(one.packed or b"", [asked[nth - 1] for nth in one.misses]) for one in open_]
        small = sum(one.stored.size for one in open_) <= _SMALL
        answers = iter(text_match.matches(bodies) if small else await self._apart(bodies, shares))
        # A body that is gone, with its reader's record of it, holds nothing.
        return [
            one.stored
            for one in page
            if (next(answers) if one.packed is not None else all(asked[nth - 1][1] for nth in one.misses))
        ]

    async def _apart(self, bodies: Sequence[tuple[bytes, Sequence[tuple[str, bool]]]], shares: Shares) -> list[bool]:
        try:
            found: list[bool] = await self._sandbox.run(
                text_match.matches, bodies, timeout=READ_TIMEOUT, clients=shares
            )
            return found
        except SandboxShare as error:
            raise Refused("rate_limited", "too many searches from here; wait for one", retry_after=1.0) from error
        except SandboxError as error:
            raise Unavailable("the text of messages could not be searched") from error


def _named(one: Candidate, asked: Sequence[tuple[str, bool]]) -> Candidate | None:
    """The candidate without the terms that its subject, addresses and attachments' names answer; None where one of
    those is not to be there. The database has decided where these stand plainly.
    """
    details = one.stored.details
    if not one.misses:
        return one
    said = (one.stored.subject, one.stored.sender, one.stored.to, details.cc, details.reply_to)
    texts = [folded(text) for text in (*said, *(each.filename for each in details.attachments)) if text]
    met = [nth for nth in one.misses if any(asked[nth - 1][0] in text for text in texts)]
    if any(asked[nth - 1][1] for nth in met):
        return None
    left = [nth for nth in one.misses if nth not in met]
    return msgspec.structs.replace(one, misses=left, packed=one.packed if left else None)
