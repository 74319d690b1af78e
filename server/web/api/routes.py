"""The API's one table: method, path, handler, who may, whether limited, whether kept.

Lives here: which paths there are. Must not know: how a request is dispatched. A resource that comes later is a file of
handlers and rows here. ``{name}`` stands for one segment; a literal segment goes before a variable one.
"""

from functools import cache
from typing import Any, Final

from server.web import openapi, upgrade
from server.web.api import (
    account_search,
    admin,
    admin_config,
    admin_domains,
    admin_mailboxes,
    aliases,
    api_keys,
    auth,
    bans,
    domains,
    events,
    health,
    mailboxes,
    messages,
    moemail,
    pages,
    public,
    tags,
    trace,
    webhooks,
)
from server.web.description import describe
from server.web.requests import Call
from server.web.responses import Reply
from server.web.route import Route


@cache
def _document(url: str) -> Reply:
    return pages.document(openapi.document(ROUTES, url or "/"))


@describe("This description for programs", detail="OpenAPI 3.1.", response=dict[str, Any], bare=True, family="pages")
async def description(call: Call) -> Reply:
    return _document(call.services.config.public_url)


_BOX: Final = "/v1/mailboxes/{id}"
_DOMAINS: Final = "/v1/user/domains"
_ADMIN: Final = "/v1/admin"
_SYSTEM: Final = _ADMIN + "/domains"
_MESSAGES: Final = _BOX + "/messages"
_MESSAGE: Final = _MESSAGES + "/{mid}"
_WEBHOOK: Final = "/v1/webhooks/{id}"

_BRIEFLY: Final = 5  # s: what an operator changes is seen everywhere at once, and no crowd of readers is felt
_RELEASE: Final = 300  # s: changes with a release

ROUTES: Final = (
    Route("GET", _MESSAGES, messages.page, "mailbox", limit=True, cache=True, scope="mail:read"),
    Route("POST", _MESSAGES, messages.inject, "mailbox", limit=True, scope="mail:write"),
    Route("DELETE", _MESSAGES, messages.delete_all, "mailbox", limit=True, scope="mail:write"),
    Route("GET", _MESSAGES + "/search", messages.search, "mailbox", limit=True, cache=True, scope="mail:read"),
    Route("GET", _MESSAGE, messages.show, "mailbox", limit=True, cache=True, scope="mail:read", bulky=True),
    Route("DELETE", _MESSAGE, messages.delete, "mailbox", limit=True, scope="mail:write"),
    Route("POST", _MESSAGE + "/read", messages.mark_read, "mailbox", limit=True, scope="mail:write"),
    Route("GET", _MESSAGE + "/raw", messages.raw, "mailbox", limit=True, scope="mail:read", bulky=True),
    Route(
        "GET",
        _MESSAGE + "/attachments/{aid}",
        messages.attachment,
        "mailbox",
        limit=True,
        scope="mail:read",
        bulky=True,
    ),
    Route("GET", "/v1/messages", account_search.page, "user", limit=True, scope="mail:read"),
    Route("POST", "/v1/auth/register", auth.register, "none", limit=True),
    Route("POST", "/v1/auth/login", auth.login, "none", limit=True),
    Route("POST", "/v1/auth/refresh", auth.refresh, "none", limit=True),
    Route("POST", "/v1/auth/logout", auth.logout, "user", limit=True),
    Route("GET", "/v1/auth/me", auth.me, "user", limit=True),
    Route("POST", "/v1/api-keys", api_keys.create, "user", limit=True),
    Route("GET", "/v1/api-keys", api_keys.page, "user", limit=True),
    Route("GET", "/v1/api-keys/{id}", api_keys.show, "user", limit=True),
    Route("DELETE", "/v1/api-keys/{id}", api_keys.delete, "user", limit=True),
    Route("POST", "/v1/mailboxes", mailboxes.create, "optional", limit=True, scope="mailbox:write"),
    Route("GET", "/v1/mailboxes", mailboxes.own, "user", limit=True, scope="mailbox:read"),
    Route("GET", _BOX, mailboxes.show, "mailbox", limit=True, cache=True, scope="mailbox:read"),
    Route("PATCH", _BOX, mailboxes.extend, "mailbox", limit=True, scope="mailbox:write"),
    Route("DELETE", _BOX, mailboxes.delete, "mailbox", limit=True, scope="mailbox:write"),
    Route("POST", _BOX + "/token", mailboxes.rotate, "mailbox", limit=True, scope="mailbox:write", opens=True),
    Route("POST", _DOMAINS, domains.claim, "user", limit=True),
    Route("GET", _DOMAINS, domains.own, "user", limit=True),
    Route("GET", _DOMAINS + "/{id}", domains.show, "user", limit=True),
    Route("PATCH", _DOMAINS + "/{id}", domains.change, "user", limit=True),
    Route("DELETE", _DOMAINS + "/{id}", domains.delete, "user", limit=True),
    Route("POST", _DOMAINS + "/{id}/verify", domains.verify, "user", limit=True),
    Route("GET", _DOMAINS + "/{id}/instructions", domains.instructions, "user", limit=True),
    Route("GET", _ADMIN + "/users", admin.users, "admin", limit=True),
    Route("GET", _ADMIN + "/users/{id}", admin.user, "admin", limit=True),
    Route("PATCH", _ADMIN + "/users/{id}", admin.change_user, "admin", limit=True),
    Route("DELETE", _ADMIN + "/users/{id}", admin.delete_user, "super", limit=True),
    Route("GET", _ADMIN + "/users/{id}/quota", admin.quota, "admin", limit=True),
    Route("PUT", _ADMIN + "/users/{id}/quota", admin.set_quota, "admin", limit=True),
    Route("GET", _ADMIN + "/statistics", admin.statistics, "admin", limit=True),
    Route("GET", _ADMIN + "/mailboxes", admin_mailboxes.listed, "admin", limit=True),
    Route("GET", _ADMIN + "/mailboxes/{id}", admin_mailboxes.show, "admin", limit=True),
    Route("PATCH", _ADMIN + "/mailboxes/{id}", admin_mailboxes.change, "admin", limit=True),
    Route("DELETE", _ADMIN + "/mailboxes/{id}", admin_mailboxes.delete, "admin", limit=True),
    Route("GET", _ADMIN + "/bans", bans.listed, "admin", limit=True),
    Route("POST", _ADMIN + "/bans", bans.add, "admin", limit=True),
    Route("DELETE", _ADMIN + "/bans/{id}", bans.remove, "admin", limit=True),
    Route("GET", _ADMIN + "/trace", trace.every, "admin", limit=True),
    Route("GET", _ADMIN + "/audit", admin.audit, "admin", limit=True),
    Route("GET", _ADMIN + "/config", admin_config.show, "admin", limit=True),
    Route("PUT", _ADMIN + "/config", admin_config.change, "super", limit=True),
    Route("POST", _ADMIN + "/config/reset", admin_config.reset, "super", limit=True),
    Route("GET", _SYSTEM, admin_domains.listed, "admin", limit=True),
    Route("POST", _SYSTEM, admin_domains.add, "super", limit=True),
    Route("POST", _SYSTEM + "/recover", admin_domains.recover, "super", limit=True),
    Route("GET", _SYSTEM + "/{id}", admin_domains.show, "admin", limit=True),
    Route("DELETE", _SYSTEM + "/{id}", admin_domains.delete, "super", limit=True),
    Route("POST", _SYSTEM + "/{id}/verify", admin_domains.verify, "admin", limit=True),
    Route("GET", _SYSTEM + "/{id}/instructions", admin_domains.instructions, "admin", limit=True),
    Route("PATCH", _SYSTEM + "/{id}/toggle", admin_domains.toggle, "admin", limit=True),
    Route("POST", _SYSTEM + "/{id}/set-default", admin_domains.set_default, "super", limit=True),
    Route("GET", _BOX + "/trace", trace.own, "mailbox", limit=True, scope="mail:read"),
    Route("POST", _BOX + "/aliases", aliases.create, "mailbox", limit=True, scope="mailbox:write"),
    Route("GET", _BOX + "/aliases", aliases.own, "mailbox", limit=True, cache=True, scope="mailbox:read"),
    Route("GET", _BOX + "/aliases/{aid}", aliases.show, "mailbox", limit=True, cache=True, scope="mailbox:read"),
    Route("PATCH", _BOX + "/aliases/{aid}", aliases.switch, "mailbox", limit=True, scope="mailbox:write"),
    Route("DELETE", _BOX + "/aliases/{aid}", aliases.delete, "mailbox", limit=True, scope="mailbox:write"),
    Route("POST", _MESSAGE + "/tags", tags.attach, "mailbox", limit=True, scope="mail:write"),
    Route("GET", _MESSAGE + "/tags", tags.of_message, "mailbox", limit=True, scope="mail:read"),
    Route("DELETE", _MESSAGE + "/tags/{tid}", tags.detach, "mailbox", limit=True, scope="mail:write"),
    Route("POST", "/v1/tags", tags.create, "user", limit=True),
    Route("GET", "/v1/tags", tags.own, "user", limit=True),
    Route("GET", "/v1/tags/{id}", tags.show, "user", limit=True),
    Route("PATCH", "/v1/tags/{id}", tags.change, "user", limit=True),
    Route("DELETE", "/v1/tags/{id}", tags.delete, "user", limit=True),
    Route("GET", "/v1/tags/{id}/messages", tags.messages, "user", limit=True),
    Route("POST", "/v1/webhooks", webhooks.create, "user", limit=True),
    Route("GET", "/v1/webhooks", webhooks.own, "user", limit=True),
    Route("GET", _WEBHOOK, webhooks.show, "user", limit=True),
    Route("PATCH", _WEBHOOK, webhooks.change, "user", limit=True),
    Route("DELETE", _WEBHOOK, webhooks.delete, "user", limit=True),
    Route("GET", _WEBHOOK + "/deliveries", webhooks.deliveries, "user", limit=True),
    Route("POST", _WEBHOOK + "/test", webhooks.test, "user", limit=True),
    Route("POST", _WEBHOOK + "/rotate-secret", webhooks.rotate_secret, "user", limit=True),
    Route("POST", "/v1/webhooks/deliveries/{id}/replay", webhooks.replay, "user", limit=True),
    Route("GET", _BOX + "/wait", events.wait, "mailbox", limit=True, deadline=None, scope="mail:read", part="push"),
    Route("GET", _BOX + "/events", events.events, "mailbox", limit=True, deadline=None, scope="mail:read", part="push"),
    Route("GET", "/v1/ws", upgrade.websocket, "none", limit=True, deadline=None, part="push"),
    Route("GET", "/v1/public/domains", public.domains, "none", limit=True, shared=_BRIEFLY),
    Route("GET", "/v1/public/config", public.configuration, "none", limit=True, shared=_BRIEFLY),
    Route("GET", "/health", health.health, "none", limit=False, part="ops"),
    Route("GET", "/health/live", health.health, "none", limit=False, part="ops"),
    Route("GET", "/health/ready", health.ready, "none", limit=False, deadline=5.0, part="ops"),
    Route("GET", "/metrics", health.metrics, "none", limit=False, part="ops"),
    Route("GET", "/", health.welcome, "none", limit=True, shared=_RELEASE),
    Route("GET", "/openapi.json", description, "none", limit=True, shared=_RELEASE),
    Route("GET", "/docs", pages.docs, "none", limit=True, shared=_RELEASE),
    Route("GET", "/static/{file}", pages.static, "none", limit=True, shared=_RELEASE),
    *moemail.ROUTES,
)
