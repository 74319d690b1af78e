"""The description as people and programs fetch it: served by this server, allowed to load nothing else."""

import re

import pytest

from tests.contract.transcript import ask
from tests.running import Server


async def test_the_page_brings_everything_it_needs_from_here(server: Server) -> None:
    page = await ask(server, "GET", "/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    wanted = re.findall(r'(?:src|href)="(/[^"#]*)"', page.body.decode())
    assert "/static/docs.js" in wanted
    for path in wanted:
        assert (await ask(server, "GET", path)).status == 200, path


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
    assert first.headers["Cache-Control"] == "public, max-age=300"
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
