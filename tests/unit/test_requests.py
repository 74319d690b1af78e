"""Bodies and query strings: typed values, or a refusal that names what is wrong; never anything else."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from server.model.errors import Refused
from server.web import requests
from server.web.app import _prefixes


class Asked(msgspec.Struct, rename="camel"):
    name: str
    expires_in: str | None = None
    is_read: bool = False


def refused(read: Callable[[], object]) -> Refused | None:
    try:
        read()
    except Refused as refusal:
        return refusal
    return None


def query(text: str) -> web.Request:
    return make_mocked_request("GET", "/?" + text)


@pytest.mark.parametrize(
    ("body", "word", "field", "detail"),
    [
        (b"", "body_invalid", "", "JSON object"),
        (b"{", "body_invalid", "", "JSON object"),
        (b"\xff", "body_invalid", "", "JSON object"),
        (b"[]", "body_invalid", "", "expected object, got array"),
        (b'{"x":' + b"[" * 100_000, "body_invalid", "", "JSON object"),
        (b"{}", "field_invalid", "name", "required"),
        (b'{"name":1}', "field_invalid", "name", "expected string, got integer"),
        (b'{"name":"x","isRead":"yes"}', "field_invalid", "isRead", "expected boolean, got string"),
        (b'{"name":"x","expiresIn":[]}', "field_invalid", "expiresIn", "expected string | null, got array"),
    ],
)
def test_a_bad_body_names_the_field_and_the_type(body: bytes, word: str, field: str, detail: str) -> None:
    with pytest.raises(Refused) as caught:
        requests.decode(body, Asked)
    assert (caught.value.word, caught.value.field) == (word, field)
    assert detail in caught.value.detail


def test_unknown_fields_are_ignored() -> None:
    assert requests.decode(b'{"name":"x","old":{"client":[1]}}', Asked) == Asked("x")


@given(st.binary())
def test_any_bytes_are_a_body_or_refused(body: bytes) -> None:
    refusal = refused(lambda: requests.decode(body, Asked))
    assert refusal is None or refusal.word in ("body_invalid", "field_invalid")


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text_is_a_parameter_of_its_type_or_refused_by_name(value: str) -> None:
    asked = query("p=" + quote(value))
    for read in (
        requests.text,
        requests.boolean,
        requests.moment,
        requests.cursor,
        lambda request, name: requests.number(request, name, 5, 1, 100),
    ):
        refusal = refused(partial(read, asked, "p"))
        assert refusal is None or (refusal.word, refusal.field) == ("field_invalid", "p")


@given(st.integers(1, (1 << 32) - 1))
def test_a_cursor_is_read_as_written(seq: int) -> None:
    assert requests.cursor(query("cursor=" + requests.write_cursor(seq))) == seq


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.timezones()))
def test_a_moment_is_read_as_rfc3339_writes_it(moment: datetime) -> None:
    moment = moment.astimezone(UTC)
    assert requests.moment(query("d=" + quote(moment.isoformat())), "d") == moment


def test_a_day_is_its_first_moment_or_its_last() -> None:
    assert requests.moment(query("d=2024-02-29"), "d") == datetime(2024, 2, 29, tzinfo=UTC)
    last = requests.moment(query("d=2024-02-29"), "d", end=True)
    assert last == datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
    assert requests.moment(query("d=2024-02-29T10:00:00+02:00"), "d") == datetime(2024, 2, 29, 8, tzinfo=UTC)
    assert requests.moment(query(""), "d") is None


@pytest.mark.parametrize("value", ["0", "101", "-1", "+5", "1.0", "0x5", "٣", "1_0", "99999999999"])
def test_numbers_are_decimal_and_bounded(value: str) -> None:
    with pytest.raises(Refused):
        requests.number(query("n=" + quote(value)), "n", 5, 1, 100)
    assert requests.number(query("n="), "n", 5, 1, 100) == 5


@pytest.mark.parametrize("text", ["", "0s", "-1h", "1", "soon", "1h1", "9" * 40, "1e9s", "100000d"])
def test_a_life_is_a_bounded_duration(text: str) -> None:
    if text == "1":
        assert requests.lifetime(text) == 1.0
        return
    with pytest.raises(Refused) as caught:
        requests.lifetime(text)
    assert (caught.value.word, caught.value.field) == ("duration_invalid", "expiresIn")


@pytest.mark.parametrize(
    ("path", "prefixes"),
    [
        ("/api/v1/messages/7", ("api/v1", "api")),
        ("/api", ("api", "api")),
        ("/", ("", "")),
        ("*", ("", "")),
        ("//x", ("/x", "")),
    ],
)
def test_two_apis_below_one_segment_are_told_apart_where_nothing_answers(path: str, prefixes: tuple[str, str]) -> None:
    assert _prefixes(path) == prefixes
