"""What runs out without anybody's doing: the room on the disk of the data, and the life of the certificate of STARTTLS.

Must not know: who uses them.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from server.config.settings import Config
from server.log import event
from server.metrics import Gauge
from server.smtp import certificate

FREE = Gauge("tempmail_data_free_bytes", "Free on the file system of DATA_DIR, for who is not root.")
SIZE = Gauge("tempmail_data_size_bytes", "Size of the file system of DATA_DIR.")
EXPIRY = Gauge(
    "tempmail_certificate_expiry_timestamp_seconds", "When the certificate in use for STARTTLS ends, as a Unix time."
)
EXPIRY.values.clear()  # no value where there is no certificate

EVERY: Final = 10.0  # s between two looks at the disk
SOON: Final = timedelta(days=14)  # certificates are renewed a month ahead; then something has failed


class Supplies:
    """To be made in one worker of the node, when it has loaded the certificate that it will use."""

    def __init__(self, config: Config) -> None:
        self._folder, self._next = config.data_dir, 0.0
        expires = certificate.expires(config)
        if expires is not None:
            EXPIRY.set(expires.timestamp())
            left = expires - datetime.now(UTC)
            if left < SOON:
                said = "has expired" if left < timedelta() else f"expires in {left.days} days"
                event("warning", f"the certificate of SMTP_TLS_CERT {said}; renew it, then reload", at=expires)

    def look(self) -> None:
        """May be called often."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        found = os.statvfs(_existing(self._folder.absolute()))
        FREE.set(found.f_bavail * found.f_frsize)
        SIZE.set(found.f_blocks * found.f_frsize)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it: with a database elsewhere nothing may have been put there yet."""
    return next(one for one in (folder, *folder.parents) if one.exists())
