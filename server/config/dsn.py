"""Where a PostgreSQL is: DSNs as text, in both of libpq's forms, with one host or several.

Lives here: reading, splitting and showing them. Must not know: how to connect (primary.py).

The driver knows URLs alone, and takes every parameter that it does not know for a setting of the server. So the keyword
form becomes a URL here, and what only libpq knows is left out.
"""

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode

_KEYWORD: Final = re.compile(r"\s*([a-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)")
_LIBPQ_ALONE: Final = frozenset(
    {"connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
    | {"fallback_application_name", "channel_binding", "gssencmode", "load_balance_hosts", "sslcompression", "sslsni"}
)
_ATTRIBUTES: Final = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")
_SECRET: Final = ("password", "sslpassword")
_FORM: Final = (
    "must look like postgresql://user:password@host:5432/database, or host=a,b port=5432 user=u password=p dbname=d"
)


def dsn(value: str) -> str:
    """``value`` as a URL; ValueError when it is neither form, or names a port or a host that cannot be."""
    value = value.strip()
    if not value:
        return ""
    if not re.match(r"postgres(?:ql)?://", value):
        value = _of_keywords(value)
    parts = _split(value)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if query.get("target_session_attrs", "any") not in _ATTRIBUTES:
        raise ValueError(f"target_session_attrs is one of {', '.join(_ATTRIBUTES)}")
    kept = {name: text for name, text in query.items() if name not in _LIBPQ_ALONE}
    login, at, netloc = parts.netloc.rpartition("@")
    _places(netloc, kept)
    if "[" in netloc and "," in netloc:  # the driver's reader of URLs knows one address in brackets
        kept["host"], parts = netloc, parts._replace(netloc=login + at)
    if kept == query:
        return value
    return _joined(parts._replace(query=urlencode(kept, safe="/,:[]", quote_via=quote)))


def dsns(value: str) -> tuple[str, ...]:
    """Separated by commas; a comma inside one names further hosts of it."""
    value = value.strip()
    following = r"postgres(?:ql)?://" if value.startswith("postgres") else r"[a-z_]+\s*="
    return tuple(dsn(item) for item in re.split(rf",\s*(?={following})", value) if item)


def _of_keywords(value: str) -> str:
    """libpq's ``name=value`` pairs; values with spaces stand between single quotes, ``\\`` before a quote."""
    pairs, at = {}, 0
    while at < len(value):
        match = _KEYWORD.match(value, at)
        if match is None:
            raise ValueError(_FORM)
        text = match[2][1:-1] if match[2].startswith("'") else match[2]
        pairs[match[1]] = re.sub(r"\\(.)", r"\1", text)
        at = match.end()
    if not pairs.keys() & {"host", "hostaddr", "service"}:
        raise ValueError(f"names no host; it {_FORM}")
    hosts = pairs.pop("hostaddr", "") or pairs.get("host", "")
    if hosts:  # an address of version 6 stands bare here, and in brackets in a URL
        bare = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%\w]*")
        pairs["host"] = ",".join(f"[{host}]" if bare.fullmatch(host) else host for host in hosts.split(","))
    database = quote(pairs.pop("dbname", ""), safe="")
    return f"postgresql:///{database}?{urlencode(pairs, safe='/,:[]', quote_via=quote)}"


def _places(netloc: str, query: dict[str, str]) -> list[tuple[str, str]]:
    """(host, port) of each server, in order; either may be empty. ValueError for what is none."""
    hosts = (unquote(netloc) or query.get("host", "")).split(",")
    ports = [port for port in query.get("port", "").split(",") if port]
    if len(ports) not in (0, 1, len(hosts)):
        raise ValueError(f"names {len(hosts)} hosts and {len(ports)} ports")
    places = []
    for nth, host in enumerate(hosts):
        match = re.fullmatch(r"(/.*|\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^:\[\]/@]*)(?::(\d{0,5}))?", host)
        port = ports[0 if len(ports) == 1 else nth] if ports else ""
        if match is None or not re.fullmatch(r"\d{0,5}", port) or int(port or match[2] or 1) not in range(1, 65536):
            raise ValueError(_FORM)
        if len(hosts) > 1 and not match[1]:
            raise ValueError("names a host that is empty")
        places.append((match[1], port or match[2] or ""))
    return places


def each(value: str) -> list[str]:
    """The same DSN for each of its hosts alone, in order. Of several the one that takes mail is meant, unless the DSN
    says otherwise."""
    parts = _split(value)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    login, at, netloc = parts.netloc.rpartition("@")
    places = _places(netloc, query)
    if len(places) == 1:
        return [value]
    kept = {"target_session_attrs": "read-write"} | {n: text for n, text in query.items() if n not in ("host", "port")}
    ones = []
    for host, port in places:
        one = {"host": host} | ({"port": port} if port else {}) | kept
        query_text = urlencode(one, safe="/,:[]", quote_via=quote)
        ones.append(_joined(parts._replace(netloc=login + at, query=query_text)))
    return ones


def shown(value: str) -> str:
    """``value`` without its passwords."""
    if not value:
        return ""
    parts = _split(value)
    login, at, netloc = parts.netloc.rpartition("@")
    if ":" in login:
        login = login.partition(":")[0] + ":***"
    query = [
        (name, "***" if name in _SECRET else text) for name, text in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return _joined(parts._replace(netloc=login + at + netloc, query=urlencode(query, safe="*/,:[]", quote_via=quote)))


def place(value: str) -> str:
    """Its hosts with their ports, as a message names them."""
    parts = _split(value)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    places = _places(parts.netloc.rpartition("@")[2], query)
    return ", ".join(f"{host}:{port}" if port else host for host, port in places) or "the local socket"


def _split(value: str) -> SplitResult:
    """urlsplit refuses several addresses in brackets."""
    match = re.fullmatch(r"(postgres(?:ql)?)://([^/?]*)(/[^?]*)?(?:\?(.*))?", value, re.DOTALL)
    if match is None:
        raise ValueError(_FORM)
    return SplitResult(match[1], match[2], match[3] or "", match[4] or "", "")


def _joined(parts: SplitResult) -> str:
    """urlunsplit would leave the slashes of an empty network location out."""
    return f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")
