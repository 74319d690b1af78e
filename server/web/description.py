"""What a user needs to know of an operation, said beside its handler: the part that the code alone does not show.

Lives here: ``Doc`` and the decorator that attaches one. Must not know: routes, or the form of the document. Who may
call, the limits and the refusals that follow from them stand in the route table and are not repeated here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from server.web.query import Parameter
from server.web.translations import Failure

BINARY: Final = "application/octet-stream"

Described = TypeVar("Described", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Doc:
    """One operation. ``response`` is the type of ``data``, or of the whole body where ``bare``; None is no body at all.

    ``status`` of success; ``also_status`` other successes {status: what it means} that have no body; ``same`` other
    statuses with the body of success; ``media`` what the body is where it is not JSON; ``body`` the struct the
    request's JSON is read as, which may be left out where ``body_optional``, and ``example`` one that would do;
    ``headers`` of success {name: what it says}; ``refuses`` the words this operation adds to those that follow from its
    row, body and parameters; ``family`` is said where it is not the handler's module.
    """

    summary: str
    detail: str = ""
    response: Any = None
    status: int = 200
    also_status: dict[int, str] = field(default_factory=dict)
    same: tuple[int, ...] = ()
    bare: bool = False
    media: str = ""
    body: type[msgspec.Struct] | None = None
    body_optional: bool = False
    example: dict[str, Any] | None = None
    query: tuple[Parameter, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    refuses: tuple[Failure, ...] = ()
    family: str = ""


_DOCS: Final[dict[Callable[..., Any], Doc]] = {}


def describe(summary: str, **what: Any) -> Callable[[Described], Described]:
    """Say of a handler what ``Doc`` asks for."""
    doc = Doc(summary=summary, **what)

    def attach(handler: Described) -> Described:
        _DOCS[handler] = doc
        return handler

    return attach


def doc_of(handler: Callable[..., Any]) -> Doc | None:
    return _DOCS.get(handler)
