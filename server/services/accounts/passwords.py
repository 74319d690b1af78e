"""Passwords: argon2id (RFC 9106), in threads of their own so that the loop goes on.

Lives here: hashing, checking and how many of either may run or wait. Must not know: whose password it is.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from server.model.errors import Refused, Unavailable
from server.services.contracts import Shares

MOST: Final = 72
_THREADS: Final = 2
_WAITING_MAX: Final = 50  # a worker's hashes under way and waiting: about a second of work
_SHARE: Final = 10  # of those, of one client

Result = TypeVar("Result")

# 19 MiB, two passes, one lane: OWASP's first choice for servers, about 20 ms. Parameters are part of each hash.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)


def check_length(password: str, least: int) -> None:
    """Refused field_invalid unless ``password`` has ``least`` to MOST characters and can be encoded."""
    try:
        password.encode()
        fits = least <= len(password) <= MOST
    except UnicodeEncodeError:  # a lone surrogate out of a JSON escape
        fits = False
    if not fits:
        raise Refused("field_invalid", f"{least} to {MOST} characters", field="password")


def hashed(password: str) -> str:
    """The hash to keep, with its salt and parameters. Blocks for the time of one hash."""
    return _HASHER.hash(password)


def verified(known: str, password: str) -> bool:
    """Whether ``known`` is the hash of ``password``. Blocks for the time of one hash."""
    try:
        return _HASHER.verify(known, password)
    except (VerificationError, InvalidHashError):
        return False


# What a name that nobody has is checked against, so that the answer costs the same: a salt and a digest of zeros.
NOBODY: Final = f"$argon2id$v=19$m=19456,t=2,p=1${'A' * 22}${'A' * 43}"


class Passwords:
    """This worker's threads for passwords. Make it in the worker, never before the fork; ``close`` it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "password")
        self._waiting = 0
        self._of_client: Counter[bytes] = Counter()

    async def hash(self, password: str, shares: Shares = ()) -> str:
        """Refused rate_limited where one of the keys ``shares`` has its share of the threads; Unavailable when full."""
        return await self._run(lambda: hashed(password), shares)

    async def verify(self, known: str, password: str, shares: Shares = ()) -> bool:
        """Whether ``known`` is the hash of ``password``; costs the same either way. Raises what ``hash`` does."""
        return len(password) <= MOST and await self._run(lambda: verified(known, password), shares)

    def outdated(self, known: str) -> bool:
        """Whether ``known`` was made with other parameters than today's."""
        return _HASHER.check_needs_rehash(known)

    async def _run(self, work: Callable[[], Result], shares: Shares) -> Result:
        if any(self._of_client[key] >= min(_SHARE * times, _WAITING_MAX // 2) for key, times in shares):
            raise Refused("rate_limited", "too many passwords from here are being checked", retry_after=1.0)
        if self._waiting >= _WAITING_MAX:
            raise Unavailable("too many passwords are being checked")
        self._waiting += 1
        self._of_client.update(key for key, _ in shares)
        done = asyncio.get_running_loop().run_in_executor(self._threads, work)
        done.add_done_callback(
            partial(self._finished, shares)
        )  # when the work ends, not when a caller stops waiting for it
        return await asyncio.shield(done)

    def _finished(self, shares: Shares, _: "asyncio.Future[Result]") -> None:
        self._waiting -= 1
        self._of_client.subtract(key for key, _ in shares)
        self._of_client += Counter()  # forgets those that hold nothing

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
