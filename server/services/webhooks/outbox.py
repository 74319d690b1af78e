"""The outbox: what users' webhooks are to be told, recorded first and sent afterwards.

Lives here: recording an event beside the change it tells of. Must not know: webhooks, or how they are sent.

Mail and its reading are recorded by the store inside their own transactions. The events here tell of changes in another
domain, which no transaction can span: they are recorded right after, and a crash between the two loses the event, never
the change.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from server.log import event as log_event
from server.metrics import Counter
from server.model.errors import Unavailable
from server.model.webhook import Event, written
from server.store.deliveries import DeliveryStore

LOST: Final = Counter("tempmail_webhook_events_lost_total", "Events that happened but could not be recorded.")


class Outbox:
    """``wake`` tells whoever delivers that there is something due."""

    def __init__(self, store: DeliveryStore, clock: Callable[[], datetime], wake: Callable[[], None]) -> None:
        self._store, self._clock, self._wake = store, clock, wake

    async def record(self, user_id: str | None, event: Event, data: Any) -> None:
        """Tell the user's webhooks that listen to ``event``; nobody where there is no user. ``data`` becomes JSON.

        The change is done and stays done: when this fails it is logged and counted, not raised.
        """
        if user_id is None:
            return
        try:
            told = await self._store.record(user_id, event, written(data), self._clock())
        except Unavailable as error:
            LOST.add()
            log_event("error", "webhook event lost", kind=event, reason=str(error))
            return
        if told:
            self._wake()
