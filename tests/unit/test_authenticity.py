"""Whose name a message bears, and that no head, signature or record a stranger writes breaks the reader."""

import base64
import hashlib
import time

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from server.model.mail_auth import Policy, aligned, claims, policy, verify


@pytest.mark.parametrize(
    ("head", "author"),
    [
        ("From: a@example.org", "example.org"),
        ("FROM : Alice <a@Example.ORG.>", "example.org"),
        ('From: "bank@bank.example" <a@evil.example>', "evil.example"),
        ("From: =?utf-8?q?bank@bank.example?= <a@evil.example>", "evil.example"),
        ("From: (bank@bank.example) a@evil.example", "evil.example"),
        ("From: Alice\r\n\t<a@b.example>", "b.example"),
        ("From: a@müller.example", "xn--mller-kva.example"),
        ("From: bank@bank.example <a@evil.example>", None),
        ("From: <a@b.example> <c@d.example>", None),
        ("From: a@b.example, c@d.example", None),
        ("From: alice@example.org)<bob@evil.example>", None),
        ("From: a@b@c.example", None),
        ("From: undisclosed", None),
        ("From:", None),
        ("From: a@b.example\r\nSubject: x\r\nfrom: c@d.example", None),
        ("Subject: From: a@b.example", ""),
        ("X-From: a@b.example", ""),
    ],
)
def test_the_author_is_the_one_address_of_the_one_from(head: str, author: str | None) -> None:
    assert claims(f"{head}\r\n\r\nFrom: body@body.example\r\n".encode()).author == author


def test_names_of_keys_are_read_from_folded_signatures() -> None:
    head = (
        b"DKIM-Signature: v=1; a=rsa-sha256; d=Example.org;\r\n\ts=sel;\r\n h=from; b=aa\r\n"
        b"dkim-signature: d=nothing.example\r\nDKIM-Signature: garbage\r\nFrom: a@b.example\r\n\r\n"
    )
    assert claims(head).keys == ("sel._domainkey.example.org", "", "")


@pytest.mark.parametrize(
    "field",
    [b"DKIM-Signature: " + b"\r\n ;" * 20_000, b"From: " + b"(" * 90_000, b"From: " + b'"' * 90_000, b"f" * 10_000_000],
)
def test_hostile_heads_cost_little(field: bytes) -> None:
    began = time.process_time()
    claims(field + b"\r\n\r\n")
    assert time.process_time() - began < 5  # quadratic ones take minutes


@pytest.mark.parametrize("quotes", [b'\\"' * 4000, b'"\\' * 4000, b'"' * 7999])
def test_quotes_that_are_never_closed_cost_little(quotes: bytes) -> None:
    began = time.process_time()
    for _ in range(60):
        claims(b'From: "' + quotes + b" <a@b.example>\r\n\r\n")
    assert time.process_time() - began < 10  # half a second each, looked for again from every quote


def test_a_stray_quote_hides_no_author() -> None:
    assert claims(b'From: O"Brien <a@b.example>\r\n\r\n').author == "b.example"


def test_names_too_long_to_be_names_belong_to_nobody_at_once() -> None:
    began = time.process_time()
    for _ in range(200):
        assert not aligned("a." * 4000 + "example", "b.example", strict=False)
    assert time.process_time() - began < 5


def signed(body: bytes, canon: tuple[bytes, bytes]) -> tuple[bytes, dict[str, str | None]]:
    key = rsa.generate_private_key(65537, 1024)
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(*kinds, serialization.NoEncryption())
    raw = b"From: a@b.example\r\nSubject: x\r\n\r\n" + body
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    published = base64.b64encode(key.public_key().public_bytes(*form)).decode()
    header: bytes = dkim.sign(raw, b"s", b"b.example", pem, canonicalize=canon, include_headers=[b"From"])
    return header + raw, {"s._domainkey.b.example": f"v=DKIM1; p={published}"}


@pytest.mark.parametrize("body", [b"a  b \t c\t\r\n \r\n\r\n  d\r\n\r\n", b"", b" \r\n", b"x"])
@pytest.mark.parametrize(
    "canon", [(head, body) for head in (b"simple", b"relaxed") for body in (b"simple", b"relaxed")]
)
def test_spaces_taken_together_change_no_verdict(body: bytes, canon: tuple[bytes, bytes]) -> None:
    raw, keys = signed(body, canon)
    assert [proof.verdict for proof in verify(raw, 1, keys)] == ["pass"]
    widened = raw.replace(b"a  b", b"a   b")
    expected = "pass" if canon[1] == b"relaxed" or widened == raw else "fail"
    assert [proof.verdict for proof in verify(widened, 1, keys)] == [expected]


def test_signatures_beyond_those_of_the_head_are_no_fault() -> None:
    assert [proof.verdict for proof in verify(b"From: a@b.example\r\n\r\nx\r\n", 2, {})] == ["permerror"] * 2


def test_long_runs_of_spaces_do_not_hold_up_every_other_check() -> None:
    digest = base64.b64encode(hashlib.sha256(b"").digest())
    signature = b"v=1; a=rsa-sha256; c=relaxed/relaxed; d=b.example; s=s; h=from; bh=" + digest + b"; b=AAAA"
    raw = b"DKIM-Signature: " + signature + b"\r\nFrom: a@b.example\r\n\r\n" + b" " * 200_000 + b"x\r\n"
    _, keys = signed(b"x\r\n", (b"simple", b"simple"))
    began = time.process_time()
    assert verify(raw, 1, keys)[0].verdict == "fail"
    assert time.process_time() - began < 20  # the square of their number took minutes


def test_a_key_of_a_size_nobody_needs_is_not_used() -> None:
    raw, keys = signed(b"x\r\n", (b"simple", b"simple"))
    longer: dict[str, str | None] = {name: f"{record}; n={'x' * 1000}" for name, record in keys.items()}
    assert [proof.verdict for proof in verify(raw, 1, longer)] == ["permerror"]


@given(st.binary(max_size=400), st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_signature_breaks_the_reader(tags: bytes, body: bytes) -> None:
    raw = b"DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h=from; " + tags + b"\r\nFrom: a@b\r\n\r\n" + body
    found = claims(raw)
    keys: dict[str, str | None] = {"s._domainkey.a.example": "v=DKIM1; p=" + tags.decode("latin-1")}
    assert all(proof.verdict in ("fail", "permerror") for proof in verify(raw, len(found.keys), keys))


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (["v=DMARC1; p=none"], Policy()),
        (["v=DMARC1;p=reject;adkim=s;aspf=S"], Policy(True, True)),
        (["v = DMARC1 ; p = quarantine; adkim=r"], Policy()),
        (["v=spf1 -all", "v=DMARC1; p=none"], Policy()),
        (["v=DMARC1; p=none", "v=DMARC1; p=reject"], None),
        (["v=DMARC1; p=perhaps"], None),
        (["v=DMARC1"], None),
        (["p=none; v=DMARC1"], None),
        (["v=DMARC11; p=none"], None),
        ([], None),
    ],
)
def test_a_policy_is_one_record_or_none(records: list[str], expected: Policy | None) -> None:
    assert policy(records) == expected


@pytest.mark.parametrize(
    ("domain", "author", "relaxed", "strict"),
    [
        ("example.org", "example.org", True, True),
        ("mail.example.org", "example.org", True, False),
        ("example.org", "news.example.org", True, False),
        ("a.co.uk", "b.co.uk", False, False),
        ("evilexample.org", "example.org", False, False),
        ("", "example.org", False, False),
        ("co.uk", "a.co.uk", False, False),
    ],
)
def test_alignment_follows_organisations_not_endings(domain: str, author: str, relaxed: bool, strict: bool) -> None:
    assert aligned(domain, author, strict=False) is relaxed
    assert aligned(domain, author, strict=True) is strict
