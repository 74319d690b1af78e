"""Answers as bytes: the envelope, what JSON cannot carry, entity tags, refusals, times."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model.errors import Refused
from server.web.api.schemas import rfc3339
from server.web.responses import created, encode, etag, matches, ok, refusal


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_the_envelope_is_json_whatever_it_holds(data: object) -> None:
    assert json.loads(ok("zh", data).body) == {"code": 200, "msg": "成功", "data": data}
    assert json.loads(created("en", data).body) == {"code": 201, "msg": "created", "data": data}


def test_a_lone_surrogate_never_fails_an_answer() -> None:
    assert encode({"subject": ["a\ud800b", {"\udfff": 1}]}) == b'{"subject":["a?b",{"?":1}]}'


def test_a_tag_tells_bodies_apart_and_is_found_in_conditions() -> None:
    tag = etag(b"one")
    assert tag == etag(b"one") != etag(b"two")
    for condition in (tag, f"W/{tag}", f'"x", {tag}', f'W/"x",W/{tag}', "*", " * "):
        assert matches(condition, tag), condition
    for condition in ("", '"x"', tag[1:-1], '"*"', f'"{tag[1:10]}"'):
        assert not matches(condition, tag), condition


def test_unknown_wrong_and_malformed_are_refused_in_the_same_bytes() -> None:
    told, untold = Refused("mailbox_not_found", "its token differs", field="token"), Refused("mailbox_not_found")
    assert refusal("en", told) == refusal("en", untold)


def test_a_refusal_says_what_when_and_how() -> None:
    reply = refusal("zh", Refused("rate_limited", retry_after=0.2))
    assert (reply.status, dict(reply.headers)) == (429, {"Retry-After": "1"})
    assert dict(refusal("en", Refused("rate_limited", retry_after=9.1)).headers) == {"Retry-After": "10"}
    assert dict(refusal("en", Refused("token_required")).headers) == {"WWW-Authenticate": "Bearer"}
    body = json.loads(refusal("en", Refused("field_invalid", "true or false", field="isRead")).body)
    assert (body["code"], body["error"], body["field"], body["detail"]) == (
        400,
        "field_invalid",
        "isRead",
        "true or false",
    )


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2024, 5, 1, 12, 0, 0, 123999, UTC), "2024-05-01T12:00:00.123Z"),
        (datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))), "2024-05-01T10:00:00.000Z"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), "0001-01-01T00:00:00.000Z"),
        (datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-12))), "9999-12-31T23:00:00.000Z"),
    ],
)
def test_times_are_utc_with_milliseconds_to_the_ends_of_the_calendar(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text
