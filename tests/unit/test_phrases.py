"""Every refusal has a status and both languages; Accept-Language is read as RFC 9110 says, whatever it holds."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model.errors import Word
from server.web.translations import CREATED, FAILURES, OK, language

STATUSES = {400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 503}


def test_every_word_of_refusal_has_a_status_and_both_languages() -> None:
    assert set(get_args(Word)) <= set(FAILURES)
    for phrase in FAILURES.values():
        assert phrase.status in STATUSES
        assert phrase.en.isascii()
        assert not phrase.zh.isascii()


def test_the_promised_chinese_is_what_old_clients_compare_with() -> None:
    assert (OK.zh, CREATED.zh) == ("成功", "创建成功")
    assert {word: FAILURES[word].zh for word in ("body_invalid", "duration_invalid", "token_required")} == {
        "body_invalid": "请求参数格式错误",
        "duration_invalid": "时长格式无效",
        "token_required": "需要登录认证",
    }
    assert FAILURES["mailbox_not_found"].zh == "邮箱不存在"
    assert FAILURES["message_not_found"].zh == "邮件不存在"
    assert FAILURES["attachment_not_found"].zh == "附件不存在"
    assert FAILURES["domain_not_allowed"].zh == "域名不在允许列表中"
    assert FAILURES["prefix_invalid"].zh == "邮箱前缀格式无效"
    assert FAILURES["internal_error"].zh == "服务器内部错误，请稍后重试"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "en"),
        ("zh-Hans-CN", "zh"),
        ("ZH", "zh"),
        ("en-GB;q=0.3,zh;q=0.4", "zh"),
        ("zh;q=0.4,en;q=0.4", "zh"),
        ("en;q=0.4,zh;q=0.4", "en"),
        ("*", "en"),
        ("zh;q=0.5, *;q=0.8", "en"),
        ("de", "en"),
        ("zh;q=nan", "en"),
        ("zh;q=0", "en"),
        ("zh;q=zero", "en"),
        ("zhx", "en"),
    ],
)
def test_the_preferred_language_wins(accept: str | None, expected: str) -> None:
    assert language(accept) == expected


@given(st.text())
def test_any_header_asks_for_one_of_the_languages(accept: str) -> None:
    assert language(accept) in ("en", "zh")
