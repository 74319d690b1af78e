"""Whether the text of a packed message holds what somebody looks for. Pure, bounded, and run where it can be killed.

Must not know: where bodies lie or what else a search asks for.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Final

import zstandard

from server.model import mime
from server.model.folding import folded

TEXT_CHARS: Final = 32_768  # of a message's readable text that a search looks in
_RAW_BYTES: Final = 262_144  # of a message, in which that text is sought


def matches(bodies: Sequence[tuple[bytes, Sequence[tuple[str, bool]]]]) -> list[bool]:
    """For each (beginning of a packed message, terms as (folded value, negated)): whether no term fails."""
    return [_matches(packed, terms) for packed, terms in bodies]


def _matches(packed: bytes, terms: Sequence[tuple[str, bool]]) -> bool:
    raw = zstandard.ZstdDecompressor().stream_reader(BytesIO(packed)).read(_RAW_BYTES)
    text = folded(mime.text(raw)[:TEXT_CHARS])
    return all((value in text) is not negated for value, negated in terms)
