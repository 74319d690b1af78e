"""What the bytes of a request's head tell before they are parsed.

Lives here: which heads may be answered unparsed, and what of them no answer depends on. Must not know: connections, or
answers.
"""

import re
from collections.abc import Sequence
from typing import Final

HEAD_BYTES: Final = 2_048  # longer ones are parsed each time

# Whatever could make bytes after the head part of the request, change the connection, or ask for less than the whole;
# and line ends that parsers understand differently: a bare LF, a folded line (RFC 9112 sections 2.2 and 5.2).
_UNFIT: Final = re.compile(
    rb"\n(?:content-length|transfer-encoding|expect|upgrade|(?:proxy-)?connection|origin|range)\s*:|(?<!\r)\n|\n[ \t]",
    re.I,
)

# Fields that differ from request to request and that no answer depends on: tracing's names for it (W3C Trace Context,
# B3, Jaeger, Datadog, Sentry, AWS, Google, Envoy). A head is known without them.
_BLAND: Final = re.compile(
    rb"\r\n(?:(?:x-)?(?:request|correlation)-id|traceparent|tracestate|baggage|b3|x-b3-[a-z]+|uber-trace-id|sentry-trace|"
    rb"x-datadog-[a-z-]+|x-amzn-trace-id|x-cloud-trace-context|x-client-trace-id|date):[ -~\t]*",
    re.I,
)


# A head that the parser takes for certain, in the form that most clients write. Where several heads come at once and
# one is not such a head, none is answered here: the parser answers nothing that came with what it refuses.
_SOUND: Final = re.compile(rb"GET /[!-~]* HTTP/1\.1\r\n(?:[A-Za-z0-9-]+: ?[!-~][ -~\t]*\r\n)+\r\n")
_NAME: Final = re.compile(rb"\n([A-Za-z0-9-]+):")
LINES_MAX: Final = 100  # of a head that is known but for its tracing fields; the parser takes 128


def without_tracing(head: bytes) -> bytes:
    """``head`` without what no answer depends on; nothing where it is more than one head, or may be too much of one."""
    if len(head) > HEAD_BYTES or head.find(b"\r\n\r\n") != len(head) - 4 or head.count(b"\n") > LINES_MAX:
        return b""
    return _BLAND.sub(b"", head)


def is_sound(head: bytes) -> bool:
    """Whether the parser takes ``head`` for certain: it refuses some fields that come twice, and one without Host."""
    if _SOUND.fullmatch(head) is None or head.count(b"\n") > LINES_MAX:
        return False
    names = _NAME.findall(head.lower())
    return b"host" in names and len(names) == len(set(names))


def heads_in(data: bytes) -> Sequence[bytes]:
    """The heads that ``data`` consists of, if it is nothing but whole heads of GETs without bodies; else none."""
    if data[:4] != b"GET " or data[-4:] != b"\r\n\r\n" or _UNFIT.search(data) is not None:
        return ()
    heads = [head + b"\r\n\r\n" for head in data[:-4].split(b"\r\n\r\n")]
    return heads if all(head[:4] == b"GET " and len(head) <= HEAD_BYTES for head in heads) else ()
