"""What all answers have in common: the envelope, its languages, methods, revalidation, origins, and the open routes."""

import asyncio
import json
import platform
import re
from collections.abc import Callable
from typing import Any

import pytest

from server.version import VERSION
from tests.contract.transcript import ask, inject
from tests.running import Server

UNKNOWN = "01890000-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh", "zh"),
        ("en;q=0.5, zh-TW;q=0.6", "zh"),
        ("en, zh", "en"),
        ("fr, zh;q=0.1", "zh"),
        ("zh;q=0, *", "en"),
        ("", "en"),
        ("xx;q=,;;,,=", "en"),
    ],
)
async def test_messages_follow_accept_language(server: Server, accept: str, language: str) -> None:
    box, asked = await server.mailbox(), {"Accept-Language": accept}
    for path, words in (
        (f"/v1/mailboxes/{box.id}", {"en": "success", "zh": "成功"}),
        (f"/v1/mailboxes/{UNKNOWN}", {"en": "Mailbox not found", "zh": "邮箱不存在"}),
        (f"/v1/mailboxes/{box.id}/messages/{UNKNOWN}", {"en": "Message not found", "zh": "邮件不存在"}),
        (f"/v1/mailboxes/{box.id}/messages?limit=x", {"en": "The request is malformed", "zh": "请求参数格式错误"}),
    ):
        for _ in range(3):  # a kept answer keeps its language
            answer = await ask(server, "GET", path, box, asked)
            assert answer.json["msg"] == words[language]
            assert answer.headers["Content-Language"] == language
            assert "Accept-Language" in answer.headers["Vary"]
    made = await ask(server, "POST", "/v1/mailboxes", headers=asked)
    assert made.json["msg"] == {"en": "created", "zh": "创建成功"}[language]
    refused = await ask(server, "GET", f"/v1/mailboxes/{box.id}", headers=asked)
    assert refused.json["msg"] == {"en": "Authentication required", "zh": "需要登录认证"}[language]


async def test_the_envelope_has_code_msg_and_data_and_errors_a_word(server: Server) -> None:
    box = await server.mailbox()
    fine = await ask(server, "GET", f"/v1/mailboxes/{box.id}", box)
    assert (list(fine.json), fine.json["code"]) == (["code", "msg", "data"], 200)
    assert fine.headers["Content-Type"] == "application/json; charset=utf-8"
    failed = await ask(server, "GET", "/v1/nowhere")
    assert failed.status == 404
    assert failed.json == {
        "code": 404, "msg": "There is nothing at this address", "data": None, "error": "route_not_found",
    }  # fmt: skip


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"prefix":"\\ud800"}', b'{"x":' + b"[" * 60_000, b"\0" * 100]
)
async def test_a_body_that_is_no_json_object_is_400(server: Server, body: bytes) -> None:
    box = await server.mailbox()
    for method, path, who in (("POST", "/v1/mailboxes", None), ("PATCH", f"/v1/mailboxes/{box.id}", box)):
        answer = await ask(server, method, path, who, data=body)
        assert (answer.status, answer.error) == (400, "body_invalid"), path


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/public/domains HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_400_in_the_envelope_and_quotes_nothing(server: Server, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection(*server.http.removeprefix("http://").split(":"))
    writer.write(sent)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert (head[:7], head.split()[1]) == (b"HTTP/1.", b"400")
    assert b"application/json" in head
    assert json.loads(body) == {
        "code": 400, "msg": "The request is malformed", "data": None, "error": "body_invalid",
    }  # fmt: skip


NAMED = """
http_requests_total http_request_duration_seconds smtp_connections_active websocket_connections_active
tempmail_mailboxes_created_total tempmail_mailboxes_deleted_total tempmail_mailboxes_expired_total
tempmail_mailboxes_active
tempmail_messages_received_total tempmail_messages_read_total tempmail_messages_deleted_total tempmail_messages_total
tempmail_users_registered_total tempmail_users_active tempmail_users_online tempmail_system_uptime_seconds
tempmail_database_connections tempmail_redis_connections tempmail_memory_usage_bytes tempmail_cpu_usage_percent
tempmail_errors_total tempmail_rate_limit_hits_total tempmail_rate_limit_blocks_total tempmail_domain_usage
tempmail_attachment_size_bytes tempmail_email_processing_duration_seconds tempmail_commit_batch_size
tempmail_commit_seconds
tempmail_cache_hits_total tempmail_cache_misses_total tempmail_push_delay_seconds
"""
LABELS = {
    "http_requests_total": {"method", "endpoint", "status_code"},
    "tempmail_errors_total": {"type", "component"},
    "tempmail_rate_limit_hits_total": {"type"},
    "tempmail_rate_limit_blocks_total": {"type"},
    "tempmail_domain_usage": {"domain"},
    "tempmail_cache_hits_total": {"layer"},
    "tempmail_cache_misses_total": {"layer"},
}


async def test_every_metric_that_dashboards_know_is_there(server: Server) -> None:
    await inject(server, await server.mailbox(), subject="hello")
    text = (await ask(server, "GET", "/metrics")).body.decode()
    assert set(NAMED.split()) <= {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    for name, expected in LABELS.items():
        found = re.search(rf"^{name}{{(.*)}} ", text, re.M)
        assert found is None or {one.partition("=")[0] for one in found[1].split(",")} == expected, name
    assert f'tempmail_build_info{{python="{platform.python_version()}",version="{VERSION}"}} 1.0' in text.splitlines()


async def test_a_compressed_body_is_not_unpacked(server: Server) -> None:
    answer = await ask(server, "POST", "/v1/mailboxes", headers={"Content-Encoding": "gzip"}, data=b"\x1f\x8b\x08\0\0")
    assert answer.status == 400


async def test_revalidation_answers_304_until_something_changes(server: Server) -> None:
    box = await server.mailbox()
    path = f"/v1/mailboxes/{box.id}/messages"
    first = await ask(server, "GET", path, box)
    tag = first.headers["ETag"]
    for condition in (tag, "W/" + tag, f'"other", {tag}', "*"):
        for method in ("GET", "HEAD"):
            answer = await ask(server, method, path, box, {"If-None-Match": condition})
            assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag), condition
    for condition in ('"other"', tag.strip('"'), ""):
        assert (await ask(server, "GET", path, box, {"If-None-Match": condition})).status == 200
    await inject(server, box)
    changed = await ask(server, "GET", path, box, {"If-None-Match": tag})
    assert changed.status == 200
    assert changed.headers["ETag"] != tag


async def test_head_is_get_without_the_body(server: Server) -> None:
    box = await server.mailbox()
    message = await inject(server, box)
    for tail in ("", "/messages", f"/messages/{message['id']}", f"/messages/{message['id']}/raw", "/messages/search"):
        path = f"/v1/mailboxes/{box.id}{tail}"
        get, head = await ask(server, "GET", path, box), await ask(server, "HEAD", path, box)
        assert (head.status, head.body) == (200, b"")
        assert {**head.headers, "Date": ""} == {**get.headers, "Date": ""}


async def test_a_wrong_method_names_the_right_ones(server: Server) -> None:
    for method, path, allowed in (
        ("PUT", "/v1/mailboxes", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("POST", f"/v1/mailboxes/{UNKNOWN}", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
        ("DELETE", "/health", {"GET", "HEAD", "OPTIONS"}),
        ("PROPFIND", "/v1/ws", {"GET", "OPTIONS"}),
    ):
        answer = await ask(server, method, path)
        assert (answer.status, answer.error) == (405, "method_not_allowed")
        assert set(answer.headers["Allow"].split(", ")) == allowed
        options = await ask(server, "OPTIONS", path)
        assert (options.status, options.headers["Allow"]) == (204, answer.headers["Allow"])


async def test_only_listed_origins_may_read_answers(own_server: Callable[..., Server]) -> None:
    server = own_server(CORS_ALLOWED_ORIGINS="https://app.example,http://localhost:3000", WORKERS="1")
    preflight = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization"}
    for origin in ("https://app.example", "http://localhost:3000"):
        answer = await ask(server, "OPTIONS", f"/v1/mailboxes/{UNKNOWN}", headers={"Origin": origin} | preflight)
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        for path in ("/v1/public/config", "/v1/nowhere"):
            read = await ask(server, "GET", path, headers={"Origin": origin})
            assert read.headers["Access-Control-Allow-Origin"] == origin
            assert "Origin" in read.headers["Vary"]
    for origin in ("https://app.example.evil.example", "http://app.example", "https://APP.example", "null", "*"):
        for method, path in (("OPTIONS", f"/v1/mailboxes/{UNKNOWN}"), ("GET", "/v1/public/config")):
            answer = await ask(server, method, path, headers={"Origin": origin} | preflight)
            assert not [name for name in answer.headers if name.startswith("Access-Control-")], origin


async def test_no_origin_is_let_in_unless_configured(server: Server) -> None:
    answer = await ask(server, "GET", "/v1/public/config", headers={"Origin": "https://app.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_the_open_routes(server: Server) -> None:
    for path in ("/health", "/health/live"):
        assert (await ask(server, "GET", path)).json == {"status": "ok"}
    ready = await ask(server, "GET", "/health/ready")
    assert (ready.status, ready.json["status"]) == (200, "ok")
    assert {"database", "migrations", "bus"} <= set(ready.json["checks"])
    domains = (await ask(server, "GET", "/v1/public/domains")).data
    assert domains == {"domains": ["temp.mail", "second.test"], "count": 2}
    config = (await ask(server, "GET", "/v1/public/config")).data
    assert (config["domains"], config["defaultDomain"]) == (["temp.mail", "second.test"], "temp.mail")
    assert isinstance(config["features"], dict)
    assert set(config["limits"]) == {"maxAliasesPerMailbox", "maxMessagesPerMailbox", "messageRetentionDays"}
    assert config["limits"]["maxMessagesPerMailbox"] == 1000
    root = await ask(server, "GET", "/")
    assert root.status == 200
    assert b"/v1/mailboxes" in root.body


async def test_metrics_count_requests_by_route_and_never_by_caller(server: Server) -> None:
    box: Any = await server.mailbox()
    await ask(server, "GET", f"/v1/mailboxes/{box.id}/messages", box)
    await ask(server, "GET", "/v1/some/invented/path")
    answer = await ask(server, "GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    assert "http_requests_total{" in text
    assert "http_request_duration_seconds_bucket{" in text
    assert box.id not in text
    assert "invented" not in text
