"""Envelope addresses: what the grammar allows is read one way, what it does not is refused, nothing else is raised."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model.address import (
    FROM,
    PATH_MAX,
    RESERVED,
    TO,
    Params,
    Path,
    parse_path,
    parse_sender,
    random_prefix,
    valid_prefix,
)
from server.model.errors import Refused

ATEXT = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789#$&'*+-/=?^_`{|}~"
atoms = st.text(ATEXT, min_size=1, max_size=12)
locals_ = st.lists(atoms, min_size=1, max_size=4).map(".".join)
labels = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,10}[a-zA-Z0-9])?", fullmatch=True)
domains = st.lists(labels, min_size=1, max_size=4).map(".".join)


def word(argument: bytes, verb: bytes) -> str:
    with pytest.raises(Refused) as refused:
        parse_path(argument, verb)
    return refused.value.word


@given(local=locals_, domain=domains)
def test_a_dot_atom_is_read_as_it_is(local: str, domain: str) -> None:
    path, params = parse_path(f"TO:<{local}@{domain}>".encode(), TO)
    assert path == Path(local, domain.lower(), f"{local.lower()}@{domain.lower()}")
    assert params == {}


@given(local=locals_, domain=domains)
def test_needless_quotes_change_nothing(local: str, domain: str) -> None:
    plain, _ = parse_path(f"TO:<{local}@{domain}>".encode(), TO)
    quoted, _ = parse_path(f'TO:<"{local}"@{domain}>'.encode(), TO)
    escaped, _ = parse_path(f'TO:<"{"".join(chr(92) + c for c in local)}"@{domain}>'.encode(), TO)
    assert plain == quoted == escaped


@given(argument=st.binary(max_size=300), verb=st.sampled_from([FROM, TO]))
def test_any_bytes_are_read_or_refused(argument: bytes, verb: bytes) -> None:
    for whole in (argument, verb + argument, verb + b"<" + argument + b">", verb + b"<" + argument + b"@temp.mail>"):
        try:
            path, _ = parse_path(whole, verb)
        except Refused:
            continue
        sound(path, verb)


@given(text=st.text(max_size=80), verb=st.sampled_from([FROM, TO]))
def test_any_text_is_read_or_refused(text: str, verb: bytes) -> None:
    for path_text in (text, f"{text}@temp.mail", f"a@{text}", f'"{text}"@temp.mail'):
        try:
            path, _ = parse_path(verb + f"<{path_text}>".encode("utf-8", "surrogatepass"), verb)
        except Refused:
            continue
        sound(path, verb)


def sound(path: Path | None, verb: bytes) -> None:
    """What every path that came through must be."""
    if path is None:
        assert verb == FROM
        return
    assert path.local.isprintable()
    assert path.domain.isascii()
    assert path.domain == path.domain.lower() or path.domain.startswith("[")
    assert len(path.local.encode()) <= 64
    assert len(str(path).encode()) <= PATH_MAX
    if verb == TO:
        assert not set("%!@") & set(path.local)
    assert path.domain or path.canonical == "postmaster"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "a@",
        "@b",
        "a@b@c",
        "@relay.example:victim@other.example",
        "@a,@b:c@d.example",
        "victim%other.example@temp.mail",
        "other.example!victim@temp.mail",
        '"victim@other.example"@temp.mail',
        '"victim\\@other.example"@temp.mail',
        '"victim%other.example"@temp.mail',
        '"a"b@temp.mail',
        'a"b"@temp.mail',
        '"a@temp.mail',
        ".a@temp.mail",
        "a.@temp.mail",
        "a..b@temp.mail",
        "a b@temp.mail",
        "a@temp..mail",
        "a@.temp.mail",
        "a@temp.mail.",
        "a@-temp.mail",
        "a@temp-.mail",
        "a@temp_mail",
        "a@temp.mail>",
        "<a@temp.mail>",
        "a@[temp.mail]",
        "a@[1.2.3]",
        "a@[1.2.3.256]",
        "a@[IPv6:1.2.3.4]",
        "a@[::1]",
        "a@[IPv6:::1",
        "a\0b@temp.mail",
        "a\x7fb@temp.mail",
        "a\u202eb@temp.mail",
        "a@temp\u2028.mail",
        "a@\u2066.mail",
        "a(comment)@temp.mail",
        "x" * 65 + "@temp.mail",
        "a@" + "b" * 64 + ".mail",
        "a@" + ("b" * 60 + ".") * 5 + "mail",
        "é" * 33 + "@temp.mail",
        "postmaster@",
    ],
)
def test_a_recipient_that_is_none_is_refused(path: str) -> None:
    assert word(b"TO:<" + path.encode() + b">", TO) == "address_invalid"


@pytest.mark.parametrize(
    "argument", [b"TO:<\xff@temp.mail>", b"TO:<a\xc0\xaf@temp.mail>", b"FROM:<a@temp.mail>", b"TO:", b""]
)
def test_bytes_that_are_no_text_or_no_argument_are_refused(argument: bytes) -> None:
    assert word(argument, TO) == "address_invalid"


def test_the_null_sender_is_no_path_and_no_recipient() -> None:
    assert parse_path(b"FROM:<>", FROM) == (None, {})
    assert parse_path(b"from: <> SIZE=5", FROM) == (None, {"SIZE": "5"})
    assert word(b"TO:<>", TO) == "address_invalid"


def test_postmaster_needs_no_domain() -> None:
    assert parse_path(b"TO:<PostMaster>", TO) == (Path("PostMaster", "", "postmaster"), {})
    assert word(b"FROM:<postmaster>", FROM) == "address_invalid"


def test_a_sender_may_have_what_looks_like_relaying_in_a_recipient() -> None:
    path, _ = parse_path(b"FROM:<bounce%list!x@example.com>", FROM)
    assert path == Path("bounce%list!x", "example.com", "bounce%list!x@example.com")


@pytest.mark.parametrize(
    ("argument", "address", "params"),
    [
        (b"FROM:<>", "", {}),
        (b"FROM: < > SIZE=1", "", {"SIZE": "1"}),
        (b"FROM:<root>", "root", {}),
        (b"FROM:A@Example.COM size=1", "A@Example.COM", {"SIZE": "1"}),
        (b"FROM:<A@Example.COM>", "A@example.com", {}),
        (b"from :  <a@b.c>SIZE=1 BODY=7BIT", "a@b.c", {"SIZE": "1", "BODY": "7BIT"}),
        (b"FROM:Ann <a@b.c>\tSIZE=1", "a@b.c", {"SIZE": "1"}),
        (b'FROM:"Ann <x@y.z>" <a@b.c>', "a@b.c", {}),
        (b"FROM:<a@b.c", "a@b.c", {}),
        (b"FROM:<<a@b.c>>", "a@b.c", {}),
        (b"FROM:<@r.x,@s.y:a@b.c>", "a@b.c", {}),
        (b"FROM:<@b.c>", "@b.c", {}),
        (b"FROM:<.a..b.@x_y.z.>", ".a..b.@x_y.z.", {}),
        (b'FROM:<"a>b"@x..y>', '"a>b"@x..y', {}),
        (b"FROM:two words SMTPUTF8", "two words", {"SMTPUTF8": None}),
        (b"FROM:<" + b"v" * 900 + b"@b.c>", "v" * 900 + "@b.c", {}),
    ],
)
def test_sender_of_any_shape_is_read(argument: bytes, address: str, params: Params) -> None:
    assert parse_sender(argument) == (address, params)


SHAPES = "aZ09.@<>\"'\\ ,:;()[]%!_-=+é"


@given(text=st.text(st.sampled_from(SHAPES), max_size=60))
def test_no_shape_of_a_sender_is_refused_for_its_address(text: str) -> None:
    """What stands in brackets has an address, be it empty; only what follows them may be malformed."""
    address, _ = parse_sender(f"FROM:<{text.replace('>', '').replace('<', '')}>".encode())
    assert address.isprintable()


@given(argument=st.binary(max_size=200))
def test_sender_never_brings_a_control_into_a_header(argument: bytes) -> None:
    for whole in (argument, b"FROM:" + argument, b"FROM:<" + argument + b">"):
        try:
            address, _ = parse_sender(whole)
        except Refused:
            continue
        assert address.isprintable()


def test_unicode_is_kept_in_the_local_part_and_encoded_in_the_domain() -> None:
    path, _ = parse_path("FROM:<Jose\u0301@Bücher.example> SMTPUTF8".encode(), FROM)
    assert path == Path("Jos\u00e9", "xn--bcher-kva.example", "jos\u00e9@xn--bcher-kva.example")


def test_an_address_literal_is_a_domain_of_its_own() -> None:
    assert str(parse_path(b"FROM:<a@[192.0.2.1]>", FROM)[0]) == "a@[192.0.2.1]"
    assert str(parse_path(b"FROM:<a@[IPv6:2001:DB8:0::1]>", FROM)[0]) == "a@[IPv6:2001:db8::1]"


def test_parameters_are_read_once_each() -> None:
    _, params = parse_path(b"FROM:<a@example.com> size=1 BODY=8BITMIME  SMTPUTF8 ", FROM)
    assert params == {"SIZE": "1", "BODY": "8BITMIME", "SMTPUTF8": None}
    assert word(b"FROM:<a@example.com> SIZE=1 size=2", FROM) == "field_invalid"
    for malformed in (b" =1", b" SIZE=", b" SIZE=1=2", b"SIZE=1", b" S@ZE", b"\tSIZE=1", b" SIZE=\xc3\xa9"):
        assert word(b"FROM:<a@example.com>" + malformed, FROM) == "address_invalid"


@given(text=st.text(st.sampled_from("aZ09._-é%"), max_size=70))
def test_a_prefix_is_valid_only_as_the_contract_says(text: str) -> None:
    doubled = any(a in "._-" and b in "._-" for a, b in pairwise(text))
    allowed = set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    expected = 3 <= len(text) <= 64 and allowed and not doubled and text[0] not in "._-" and text[-1] not in "._-"
    assert valid_prefix(text) is expected


def test_a_prefix_ends_where_it_ends() -> None:
    assert not valid_prefix("abc\n")


def test_random_prefixes_are_valid_free_and_different() -> None:
    made = {random_prefix() for _ in range(1000)}
    assert len(made) == 1000
    assert all(valid_prefix(prefix) for prefix in made)
    assert not made & RESERVED


def test_names_that_prove_ownership_of_a_domain_are_reserved() -> None:
    assert {"postmaster", "abuse", "admin", "administrator", "hostmaster", "webmaster", "root"} <= RESERVED
