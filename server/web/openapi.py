"""The API described for programs: an OpenAPI 3.1 document made from the route table, the structs and the descriptions.

Lives here: what follows from a row (security, refusals, statuses, headers) and how it is written down.
Must not know: any resource. A field, a bound or a word is described where it is defined and nowhere else.
"""

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from server.version import VERSION
from server.web.description import BINARY, Doc, doc_of
from server.web.responses import Failed, FailureBody
from server.web.route import Auth, Route
from server.web.translations import FAILURES, Failure

_SCHEMAS: Final = "#/components/schemas/"
_INTRODUCTION: Final = """\
Receive-only mail for tests and for people who would rather not give their address.

`POST /v1/mailboxes` makes a mailbox and returns its token, once. Mail sent to its address is listed by
`GET /v1/mailboxes/{id}/messages` with that token, pushed over `/v1/ws`, and gone when the mailbox expires. A test suite
triggers a mail and then asks `GET /v1/mailboxes/{id}/wait?extract=code`, which answers when it is there.

Answers under `/v1` are `{code, msg, data}`; a failure's `data` is null and its `error` is a stable word for programs.
`msg` is for people and follows `Accept-Language` (English, Chinese). Answers under `/api` are bare JSON. Times are
RFC 3339 in UTC, ids are UUIDs that sort by time. What belongs to somebody else answers as what does not exist: 404.

Limited routes say in `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds since 1970) how much is left; 429 and 503
name in `Retry-After` the seconds to wait.
"""

_FIRST: Final = "/v1/mailboxes"
_ALWAYS: Final[tuple[Failure, ...]] = ("internal_error", "unavailable")
# a key without the scope, or on a route that takes none, is permission_denied
_TOKEN: Final[tuple[Failure, ...]] = ("token_invalid", "token_expired", "account_disabled", "permission_denied")
_REFUSED: Final[dict[Auth, tuple[Failure, ...]]] = {
    "none": (),
    "optional": _TOKEN,
    "mailbox": ("token_required", *_TOKEN, "mailbox_not_found"),
    "user": ("token_required", *_TOKEN),
    "admin": ("token_required", *_TOKEN),
    "super": ("token_required", *_TOKEN),
    "key": ("token_required", *_TOKEN),
}
_ACCOUNT: Final = ("accessToken", "accessCookie")
_KEYS: Final[dict[Auth, tuple[str, ...]]] = {
    "none": (),
    "optional": _ACCOUNT,
    "mailbox": ("mailboxToken", "mailboxTokenHeader", "mailboxTokenQuery", *_ACCOUNT),
    "user": _ACCOUNT,
    "admin": _ACCOUNT,
    "super": _ACCOUNT,
    "key": (),
}
_SECURITY: Final = {
    "mailboxToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "The mailbox's token, as its creation returned it.",
    },
    "mailboxTokenHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Mailbox-Token",
        "description": "The mailbox's token in a header of its own.",
    },
    "mailboxTokenQuery": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "The mailbox's token in the address, for clients that cannot set headers. May be switched off.",
    },
    "accessToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The access token of a login; it opens every mailbox of its account.",
    },
    "accessCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "access_token",
        "description": "The access token of a login as a cookie.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key of an account, within its scopes.",
    },
}
_HEADERS: Final = {
    "X-RateLimit-Limit": ("integer", "Requests allowed in a burst."),
    "X-RateLimit-Remaining": ("integer", "Requests left now."),
    "X-RateLimit-Reset": ("integer", "When all of them are there again, in seconds since 1970."),
    "Retry-After": ("integer", "Seconds to wait before asking again."),
    "ETag": ("string", "Names this very answer; send it back in If-None-Match."),
    "WWW-Authenticate": ("string", "The scheme that is asked for."),
    "X-Request-Id": ("string", "What the server's log knows this failure by."),
}
_RATE: Final = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_FAILURE_HEADERS: Final = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    500: ("X-Request-Id",),
    503: ("Retry-After", "X-Request-Id"),
}
_NOUNS: Final = {
    "mailboxes": "mailbox",
    "emails": "mailbox",
    "messages": "message",
    "{id}": "message",
    "aliases": "alias",
    "tags": "tag",
    "api-keys": "API key",
    "webhooks": "webhook",
    "deliveries": "delivery",
    "domains": "domain",
    "users": "user",
    "bans": "ban",
}


class _Types:
    """The schemas of all types that answers and requests are made of, each written once."""

    def __init__(self, types: Iterable[Any]) -> None:
        self._types = list(dict.fromkeys(types))
        schemas, components = msgspec.json.schema_components(self._types, ref_template=_SCHEMAS + "{name}")
        self._schemas = dict(zip(self._types, schemas, strict=True))
        self.components = {name: _readable(schema) for name, schema in components.items()}

    def of(self, kind: Any) -> dict[str, Any]:
        schema: dict[str, Any] = self._schemas[kind]
        return schema


def _readable(schema: dict[str, Any]) -> dict[str, Any]:
    if "description" in schema:
        schema["description"] = _prose(schema["description"])
    return schema


def _prose(docstring: str) -> str:
    """A docstring as Markdown: one line for each paragraph, single backticks."""
    paragraphs = inspect.cleandoc(docstring).replace("``", "`").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def document(routes: Sequence[Route], url: str = "/") -> dict[str, Any]:
    """The whole document, of a server that is reached at ``url``. What one does first, making a mailbox, is first.
    LookupError for a route whose handler is not described.
    """
    ordered = sorted(routes, key=lambda route: (route.path != _FIRST, route.path == _FIRST and route.method != "POST"))
    described = [(route, _doc(route)) for route in ordered]
    used = [kind for _, doc in described for kind in (doc.response, doc.body) if kind is not None]
    types = _Types([*used, *(route.failed for route, _ in described)])
    paths: dict[str, dict[str, Any]] = {}
    for route, doc in described:
        operation = _operation(route, doc, types)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "tempmail", "version": VERSION, "description": _INTRODUCTION},
        "servers": [{"url": url}],
        "tags": _tags(described),
        "paths": paths,
        "components": {
            "schemas": types.components,
            "securitySchemes": _SECURITY,
            "headers": {
                name: {"description": says, "schema": {"type": kind}} for name, (kind, says) in _HEADERS.items()
            },
        },
    }


def _doc(route: Route) -> Doc:
    doc = doc_of(route.handler)
    if doc is None:
        raise LookupError(f"{route.method} {route.path} is not described")
    return doc


def _tag(route: Route, doc: Doc) -> str:
    """A family is a module of handlers, unless the handler says another."""
    return doc.family or route.handler.__module__.rpartition(".")[2].replace("_", " ")


def _tags(described: Iterable[tuple[Route, Doc]]) -> list[dict[str, str]]:
    modules = {_tag(route, doc): inspect.getmodule(route.handler) for route, doc in described if not doc.family}
    return [
        {"name": tag, "description": _prose((inspect.getdoc(module) or "").partition("\n\n")[0])}
        for tag, module in modules.items()
    ]


def _operation(route: Route, doc: Doc, types: _Types) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _identifier(route),
        "tags": [_tag(route, doc)],
        "summary": doc.summary,
        "description": _prose(doc.detail),
        "security": _security(route),
        "responses": _responses(route, doc, types),
    }
    parameters = [*_path_parameters(route.path), *_query_parameters(doc)]
    if parameters:
        operation["parameters"] = parameters
    if doc.body is not None:
        media = {"schema": types.of(doc.body), "example": doc.example}
        operation["requestBody"] = {"required": not doc.body_optional, "content": {"application/json": media}}
    return operation


def _identifier(route: Route) -> str:
    place = re.sub(r"[^a-z0-9]+", "_", route.path.lower()).strip("_")
    return f"{route.method.lower()}_{place}" if place else f"{route.method.lower()}_root"


def _path_parameters(path: str) -> list[dict[str, Any]]:
    segments = path.split("/")
    return [
        {
            "name": segment[1:-1],
            "in": "path",
            "required": True,
            "description": _what(segments[position - 1]),
            "schema": {"type": "string", "minLength": 1},
        }
        for position, segment in enumerate(segments)
        if segment.startswith("{")
    ]


def _what(before: str) -> str:
    if before == "attachments":
        return "Number of the part inside the message, such as 2 or 1.2."
    noun = _NOUNS.get(before)
    return f"Id of the {noun}." if noun else "Its name."


def _query_parameters(doc: Doc) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "in": "query", "required": False, "description": one.description, "schema": one.schema()}
        for one in doc.query
    ]


def _security(route: Route) -> list[dict[str, list[str]]]:
    ways: list[dict[str, list[str]]] = [{name: []} for name in _KEYS[route.auth]]
    if route.scopes:
        ways.append({"apiKey": list(route.scopes)})
    elif route.auth == "key":
        ways.append({"apiKey": []})
    return [{}, *ways] if route.auth == "optional" else ways


def _responses(route: Route, doc: Doc, types: _Types) -> dict[str, Any]:
    responses: dict[str, Any] = {str(doc.status): _success(route, doc, types)}
    for status, says in doc.also_status.items():
        responses[str(status)] = {"description": says, "headers": _headers(route, ())}
    if route.method == "GET" and not doc.bare and doc.status == 200:
        responses["304"] = {"description": "Nothing changed since that ETag.", "headers": _headers(route, ("ETag",))}
    for status in doc.same:
        responses[str(status)] = _success(route, doc, types)
    for status, words in sorted(_by_status(_words(route, doc)).items()):
        _add(responses, str(status), _refused(route, status, words, types))
    return responses


def _add(responses: dict[str, Any], status: str, answer: dict[str, Any]) -> None:
    """``answer`` for ``status``, or as the other possibility where there is one already."""
    present = responses.setdefault(status, answer)
    if present is not answer:
        schemas = [one["content"]["application/json"]["schema"] for one in (present, answer)]
        present["content"]["application/json"]["schema"] = {"anyOf": schemas}


def _success(route: Route, doc: Doc, types: _Types) -> dict[str, Any]:
    tagged = ("ETag",) if doc.status == 200 and not doc.bare else ()
    answer: dict[str, Any] = {"description": doc.summary, "headers": _headers(route, tagged)}
    for name, says in doc.headers.items():
        answer["headers"][name] = {"description": says, "schema": {"type": "string"}}
    if doc.media:
        answer["content"] = {doc.media: {"schema": {} if doc.media in (BINARY, "*/*") else {"type": "string"}}}
    elif doc.response is not None:
        schema = types.of(doc.response) if doc.bare else _enveloped(doc.status, types.of(doc.response))
        answer["content"] = {"application/json": {"schema": schema}}
    return answer


def _enveloped(status: int, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["code", "msg", "data"],
        "properties": {"code": {"const": status}, "msg": {"type": "string"}, "data": data},
    }


def _headers(route: Route, extra: Iterable[str]) -> dict[str, Any]:
    names = (*_RATE, *extra) if route.limit else tuple(extra)
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _words(route: Route, doc: Doc) -> Iterable[Failure]:
    """Every word this operation may refuse with: by its row, its body, its parameters, and by itself."""
    words: list[Failure] = [*_ALWAYS, *_REFUSED[route.auth], *doc.refuses]
    if route.limit:
        words.append("rate_limited")
    if "accessCookie" in _KEYS[route.auth] and route.method != "GET":
        words.append("origin_not_allowed")
    if doc.query:
        words.append("field_invalid")
    if doc.body is not None:
        words += ["body_invalid", "field_invalid", "message_too_big"]
    return dict.fromkeys(words)


def _by_status(words: Iterable[Failure]) -> dict[int, list[Failure]]:
    statuses: dict[int, list[Failure]] = {}
    for word in words:
        statuses.setdefault(FAILURES[word].status, []).append(word)
    return statuses


def _refused(route: Route, status: int, words: Sequence[Failure], types: _Types) -> dict[str, Any]:
    sentences = [f"`{word}`: {FAILURES[word].en}." for word in words]
    return {
        "description": " ".join(sentences),
        "headers": _headers(route, _FAILURE_HEADERS.get(status, ())),
        "content": {"application/json": {"schema": _failure_schema(route.failed, status, words, types)}},
    }


def _failure_schema(failed: type[FailureBody], status: int, words: Sequence[Failure], types: _Types) -> dict[str, Any]:
    if failed is not Failed:
        return types.of(failed)
    narrowed = {"code": {"const": status}, "error": {"enum": list(words)}}
    return {"allOf": [types.of(failed), {"properties": narrowed}]}
