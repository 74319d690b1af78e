"""How often a client may ask, and how many mailboxes it may make: exact over all workers of the host."""

import ipaddress
from collections import OrderedDict
from functools import partial
from typing import Final

from server.cache.buckets import Buckets, Verdict
from server.config import Config
from server.metrics import Counter
from server.model.errors import Refused

HITS = Counter("tempmail_rate_limit_hits_total", "Requests counted against a limit.", ("type",))
BLOCKS = Counter("tempmail_rate_limit_blocks_total", "Requests refused by a limit.", ("type",))

_DAY: Final = 86_400.0
_REMEMBERED: Final = 10_000


class RateLimits:
    """A client is its address; an IPv6 client its /64, as one subscriber holds. Implements contracts.Limits."""

    def __init__(self, config: Config, buckets: Buckets) -> None:
        self._config, self._buckets = config, buckets
        self._exempt: OrderedDict[str, bool] = OrderedDict()
        rate = config.rate_requests_per_minute
        self._request = (
            partial(buckets.take, limit=config.rate_burst, period=60 * config.rate_burst / rate) if rate else None
        )

    def exempt(self, client: str) -> bool:
        """Whether the client's network is free of limits, as is a client on our own unix socket (an empty address)."""
        known = self._exempt.get(client)
        if known is None:
            known = not client or any(ipaddress.ip_address(client) in network for network in self._config.rate_exempt)
            self._exempt[client] = known
            if len(self._exempt) > _REMEMBERED:
                self._exempt.popitem(last=False)
        return known

    def request(self, client: str) -> Verdict | None:
        """Take one request from the client's minute; None where nothing limits it."""
        if self._request is None or self.exempt(client):
            return None
        HITS.add(("request",))
        verdict = self._request(b"r" + _subscriber(client))
        if not verdict.allowed:
            BLOCKS.add(("request",))
        return verdict

    def create_mailbox(self, client: str) -> None:
        """Take one of the guest's mailboxes for the day. Refused too_many_mailboxes."""
        if not self._config.mailbox_max_per_ip or self.exempt(client):
            return
        HITS.add(("mailbox",))
        limit = self._config.mailbox_max_per_ip
        verdict = self._buckets.take(b"m" + _subscriber(client), limit=limit, period=_DAY)
        if not verdict.allowed:
            BLOCKS.add(("mailbox",))
            detail = f"a guest may make {limit} mailboxes a day; use one you have, or sign in"
            raise Refused("too_many_mailboxes", detail, retry_after=verdict.retry_after)


def _subscriber(client: str) -> bytes:
    address = ipaddress.ip_address(client)
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped.packed if address.ipv4_mapped else address.packed[:8]
    return address.packed
