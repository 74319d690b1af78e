"""The description as people and programs fetch it: served by this server, allowed to load nothing else."""

import re
from collections.abc import Callable

import pytest

from server.config.settings import ConfigError, load
from tests.contract.transcript import ask
from tests.running import Server


async def test_the_page_brings_everything_it_needs_from_here(server: Server) -> None:
    page = await ask(server, "GET", "/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    wanted = re.findall(r'(?:src|href)="(/[^"#]*)"', page.body.decode())
    assert any(re.fullmatch(r"/static/docs\.[0-9a-f]{16}\.js", path) for path in wanted)
    for path in wanted:
        assert (await ask(server, "GET", path)).status == 200, path


async def test_a_file_named_by_its_content_may_be_kept_for_ever_and_is_the_plain_one(server: Server) -> None:
    page = await ask(server, "GET", "/docs")
    paths = re.findall(r'(?:src|href)="(/static/[^"#]*)"', page.body.decode())
    assert paths
    for path in paths:
        named = await ask(server, "GET", path)
        plain = await ask(server, "GET", re.sub(r"\.[0-9a-f]{16}\.", ".", path))
        assert named.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "immutable" not in plain.headers["Cache-Control"]
        assert named.body == plain.body
        assert (await ask(server, "GET", re.sub(r"\.[0-9a-f]{16}\.", ".0123456789abcdef.", path))).status == 404


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/docs", "text/html; charset=utf-8"),
        ("/static/docs.js", "text/javascript; charset=utf-8"),
        ("/static/docs.css", "text/css; charset=utf-8"),
        ("/openapi.json", "application/json; charset=utf-8"),
    ],
)
async def test_files_may_be_kept_and_asked_for_again(server: Server, path: str, kind: str) -> None:
    first = await ask(server, "GET", path)
    assert (first.status, first.headers["Content-Type"]) == (200, kind)
    assert first.headers["Cache-Control"] == "public, max-age=300, stale-while-revalidate=3600"
    assert "Authorization" not in first.headers["Vary"]
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    again = await ask(server, "GET", path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")


async def test_a_page_may_load_nothing_from_elsewhere_and_be_framed_by_nobody(server: Server) -> None:
    for path in ("/docs", "/static/docs.js"):
        policy = (await ask(server, "GET", path)).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    "name",
    ["docs.php", "..", "%2e%2e", "..%2fpages.py", "docs.css%00", "%2fetc%2fpasswd", "docs.html/x", ".", "DOCS.CSS"],
)
async def test_no_other_file_can_be_had(server: Server, name: str) -> None:
    assert (await ask(server, "GET", f"/static/{name}")).status == 404


@pytest.mark.parametrize("path", ["/v1/public/domains", "/v1/public/config"])
async def test_what_an_operator_changes_may_be_kept_for_seconds_a_refusal_never(server: Server, path: str) -> None:
    answer = await ask(server, "GET", path)
    assert answer.headers["Cache-Control"] == "public, max-age=5, stale-while-revalidate=60"
    assert answer.headers["Vary"] == "Accept-Language, Origin"
    for refused in (await ask(server, "POST", path), await ask(server, "GET", path + "/x")):
        assert refused.status in (404, 405)
        assert refused.headers["Cache-Control"] == "private, no-store"


async def test_the_description_begins_with_making_a_mailbox(server: Server) -> None:
    described = (await ask(server, "GET", "/openapi.json")).json
    assert described["servers"] == [{"url": "/"}]
    assert next(iter(described["paths"])) == "/v1/mailboxes"
    assert next(iter(described["paths"]["/v1/mailboxes"])) == "post"
    assert described["tags"][0]["name"] == "mailboxes"


async def test_under_a_sub_path_the_page_asks_for_everything_there(own_server: Callable[..., Server]) -> None:
    """A proxy strips /mail: whatever the page names must have it."""
    server = own_server(PUBLIC_URL="https://example.org/mail/")
    page = (await ask(server, "GET", "/docs")).body.decode()
    named = re.findall(r'(?:src|href|content)="(/[^"]*)"', page)
    assert "/mail/" in named, "what the script puts in front of every request"
    assert all(path.startswith("/mail/") for path in named), named
    for path in named:
        if path != "/mail/":
            assert (await ask(server, "GET", path.removeprefix("/mail"))).status == 200, path
    described = (await ask(server, "GET", "/openapi.json")).json
    assert described["servers"] == [{"url": "https://example.org/mail"}]


@pytest.mark.parametrize(
    "value", ["example.org", "ftp://example.org", "https://example.org/?x=1", 'https://e/"><script>']
)
def test_what_is_no_public_url_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="TEMPMAIL_PUBLIC_URL"):
        load({"TEMPMAIL_PUBLIC_URL": value})
