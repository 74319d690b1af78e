"""What a client reads beside a status: a sentence for every word of refusal, in English and Chinese.

Lives here: the table of words (status, English, Chinese) and the choice of language (RFC 9110 section 12.5.4).
Must not know: how an answer is laid out.
"""

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from server.model.errors import Word

Language = Literal["en", "zh"]
Failure = Word | Literal["internal_error", "unavailable"]


class Phrase(NamedTuple):
    """A word's HTTP status and its sentence in both languages."""

    status: int
    en: str
    zh: str

    def text(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en


OK: Final = Phrase(200, "success", "成功")
CREATED: Final = Phrase(201, "created", "创建成功")

FAILURES: Final[dict[Failure, Phrase]] = {
    "account_disabled": Phrase(403, "The account is disabled", "账户已被禁用"),
    "address_invalid": Phrase(400, "The address is malformed", "邮箱地址格式无效"),
    "alias_exists": Phrase(409, "The address is taken", "别名已存在"),
    "alias_not_found": Phrase(404, "Alias not found", "别名不存在"),
    "api_key_not_found": Phrase(404, "API key not found", "API Key不存在"),
    "attachment_not_found": Phrase(404, "Attachment not found", "附件不存在"),
    "ban_exists": Phrase(409, "The ban exists already", "封禁已存在"),
    "ban_not_found": Phrase(404, "Ban not found", "封禁不存在"),
    "body_invalid": Phrase(400, "The request is malformed", "请求参数格式错误"),
    "client_banned": Phrase(403, "This network may not do that here", "该网络已被禁止此操作"),
    "credentials_invalid": Phrase(401, "Wrong name or password", "用户名或密码错误"),
    "delivery_not_found": Phrase(404, "Delivery not found", "投递记录不存在"),
    "domain_exists": Phrase(409, "The domain exists already", "域名已存在"),
    "domain_in_use": Phrase(409, "The domain has active mailboxes", "无法删除：该域名下存在活跃邮箱"),
    "domain_not_found": Phrase(404, "Domain not found", "域名不存在"),
    "domain_protected": Phrase(400, "The domain cannot be removed", "该域名不能被移除"),
    "domain_unverified": Phrase(422, "The domain could not be verified", "域名验证失败"),
    "domain_not_allowed": Phrase(400, "The domain is not one of the allowed domains", "域名不在允许列表中"),
    "duration_invalid": Phrase(400, "The duration is invalid", "时长格式无效"),
    "field_invalid": Phrase(400, "The request is malformed", "请求参数格式错误"),
    "internal_error": Phrase(500, "Internal server error, please try again later", "服务器内部错误，请稍后重试"),
    "mailbox_disabled": Phrase(403, "The mailbox is disabled", "邮箱已被停用"),
    "mailbox_exists": Phrase(409, "The address is taken", "邮箱已存在"),
    "mailbox_full": Phrase(409, "The mailbox is full", "邮箱已满"),
    "mailbox_not_found": Phrase(404, "Mailbox not found", "邮箱不存在"),
    "message_not_found": Phrase(404, "Message not found", "邮件不存在"),
    "message_too_big": Phrase(413, "The content is too large", "内容超过大小限制"),
    "method_not_allowed": Phrase(405, "The method is not allowed here", "请求方法不允许"),
    "origin_not_allowed": Phrase(403, "The origin is not allowed", "来源不被允许"),
    "prefix_invalid": Phrase(400, "The mailbox prefix is invalid", "邮箱前缀格式无效"),
    "permission_denied": Phrase(403, "Permission denied", "权限不足"),
    "quota_reached": Phrase(403, "The quota of the account is reached", "已达到账户配额上限"),
    "rate_limited": Phrase(429, "Too many requests, please try again later", "请求过于频繁，请稍后重试"),
    "route_not_found": Phrase(404, "There is nothing at this address", "接口不存在"),
    "tag_exists": Phrase(409, "The tag exists already", "标签已存在"),
    "tag_not_found": Phrase(404, "Tag not found", "标签不存在"),
    "token_expired": Phrase(401, "The login has expired, please log in again", "登录已过期，请重新登录"),
    "token_invalid": Phrase(401, "Invalid access token", "无效的访问令牌"),
    "token_required": Phrase(401, "Authentication required", "需要登录认证"),
    "too_many_aliases": Phrase(409, "The mailbox has as many aliases as it may", "别名数量已达上限"),
    "too_many_mailboxes": Phrase(429, "Too many mailboxes, please try again later", "邮箱数量已达上限，请稍后重试"),
    "user_exists": Phrase(409, "The account exists already", "用户已存在"),
    "user_not_found": Phrase(404, "User not found", "用户不存在"),
    "webhook_not_found": Phrase(404, "Webhook not found", "Webhook不存在"),
    "unavailable": Phrase(503, "The service is unavailable, please try again later", "服务暂时不可用，请稍后重试"),
}

ADVICE: Final[dict[Failure, str]] = {
    "account_disabled": "an administrator has switched it off and can switch it on again",
    "client_banned": "the administrators have banned it for abuse; postmaster@ and abuse@ reach them",
    "credentials_invalid": "send email or username, and password, of an account",
    "mailbox_disabled": "the administrators have switched it off for abuse; what is in it can still be read",
    "origin_not_allowed": "a cookie counts for pages of this server alone; send the token in Authorization: Bearer",
    "permission_denied": "this account may not do that",
    "token_expired": "POST /v1/auth/refresh gives a new access token, POST /v1/auth/login another login",
    "token_invalid": "send one that was given out here and not taken back: POST /v1/auth/login gives another",
    "token_required": "send a token in Authorization: Bearer, or an API key in X-API-Key",
}
"""What to do about a refusal for want of rights, where nothing more exact is known of it."""

_HEADER_MAX: Final = 256  # characters of Accept-Language that are looked at


def language(accept: str | None) -> Language:
    """The language an Accept-Language header asks for: English unless some form of Chinese is preferred to it."""
    return "en" if accept is None else _preferred(accept[:_HEADER_MAX])


@lru_cache(maxsize=512)
def _preferred(accept: str) -> Language:
    best: dict[str, float] = {}
    for position, item in enumerate(accept.split(",")):
        tag, _, parameters = item.partition(";")
        primary = tag.strip().lower().partition("-")[0]
        quality = _quality(parameters) - position * 1e-6  # among equals the first named wins
        best[primary] = max(best.get(primary, 0.0), quality)
    chinese, english = best.get("zh", 0.0), best.get("en", best.get("*", 0.0))
    return "zh" if chinese > english else "en"


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:  # a malformed weight asks for nothing
        return 0.0
