"""The server's table of routes and its description say, row for row, what the contract (routes.txt) says."""

import pytest

from server.web import openapi
from server.web.api.routes import ROUTES
from server.web.route import Route
from tests.contract.promised import NAMES, ROWS, Row

ACCOUNT = "accessToken"


def promised(route: Route) -> Row:
    """What the server's row amounts to."""
    stays = route.deadline is None
    scopes = tuple(route.scopes)
    return Row(route.method, route.path, route.auth, scopes, route.limit, route.cache, route.shared, stays)


def comparable(row: Row) -> dict[str, object]:
    return vars(row) | {"scopes": set(row.scopes)}


def test_no_route_is_without_a_row_and_no_row_without_a_route() -> None:
    operations = [(route.method, route.path) for route in ROUTES]
    assert len(set(operations)) == len(operations)
    assert set(operations) == {row.operation for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_route_is_as_the_contract_says(row: Row) -> None:
    [route] = [route for route in ROUTES if (route.method, route.path) == row.operation]
    assert comparable(promised(route)) == comparable(row)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_description_names_who_may_as_the_contract_does(row: Row) -> None:
    document = openapi.document(ROUTES)
    operation = document["paths"][row.path][row.method.lower()]
    ways = operation["security"]
    schemes = {scheme for way in ways for scheme in way}
    asked_by_key = [way["apiKey"] for way in ways if "apiKey" in way]
    assert ({"apiKey"} <= schemes) == bool(row.scopes)
    assert [set(scopes) for scopes in asked_by_key] == ([set(row.scopes)] if row.scopes else [])
    assert ({} in ways or not ways) == (row.who in ("none", "optional"))
    assert ("429" in operation["responses"]) == row.limited
    assert row.who == "none" or "401" in operation["responses"]
    assert ("mailboxToken" in schemes) == (row.who == "mailbox")
    assert (ACCOUNT in schemes) == (row.who in ("optional", "mailbox", "user", "admin", "super"))


def test_what_the_contract_shares_with_everybody_is_read_by_anybody_alone() -> None:
    shared = [row for row in ROWS if row.shared]
    assert shared
    assert all((row.method, row.who) == ("GET", "none") for row in shared)
