"""Whether the text of a packed message, or what its HTML shows, holds what somebody looks for.

Pure, bounded, and run where it can be killed.

Must not know: where bodies lie or what else a search asks for.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Final

import zstandard

from server.model import html_page, mime
from server.model.folding import folded

TEXT_CHARS: Final = 32_768  # of a message's readable text, and of what its HTML shows, that a search looks in
_RAW_BYTES: Final = 262_144  # of a message, in which that text is sought


def matches(bodies: Sequence[tuple[bytes, Sequence[tuple[str, bool]]]]) -> list[bool]:
    """For each (beginning of a packed message, terms as (folded value, negated)): whether no term fails."""
    return [_matches(packed, terms) for packed, terms in bodies]


def _matches(packed: bytes, terms: Sequence[tuple[str, bool]]) -> bool:
    raw = zstandard.ZstdDecompressor().stream_reader(BytesIO(packed)).read(_RAW_BYTES)
    text, html = mime.views(raw)
    seen = folded(text[:TEXT_CHARS])
    met = [value in seen for value, _ in terms]
    # A term that the text has stands, whatever the HTML says. HTML that is the text itself was read for it and is kept.
    if html and not all(met):
        shown = html_page.html_to_text(html)
        seen = folded(shown[:TEXT_CHARS]) if shown != text else ""
        met = [already or value in seen for already, (value, _) in zip(met, terms, strict=True)]
    return all(here is not negated for here, (_, negated) in zip(met, terms, strict=True))
