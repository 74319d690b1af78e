"""A periodic callback finer than the event loop's millisecond timers, over Linux's timerfd (timerfd_create(2)).

Must not know: what is called.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def _timespec(seconds: float) -> _Timespec:
    return _Timespec(int(seconds), int(seconds % 1 * 1e9))


@contextmanager
def timer(interval: float) -> Iterator[int]:
    """A descriptor that becomes readable every ``interval`` seconds; whoever is told reads 8 bytes of it."""
    descriptor = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    try:
        spec = _Itimerspec(_timespec(interval), _timespec(interval))
        if _libc.timerfd_settime(descriptor, 0, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        yield descriptor
    finally:
        os.close(descriptor)


class Ticker:
    """Calls ``callback`` every ``interval`` seconds in the running loop while the block lasts; missed ticks merge."""

    def __init__(self, interval: float, callback: Callable[[], None]) -> None:
        self._interval = interval
        self._callback = callback
        self._closing = ExitStack()

    def __enter__(self) -> None:
        self._descriptor = self._closing.enter_context(timer(self._interval))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._tick)

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._descriptor)
        self._closing.close()

    def _tick(self) -> None:
        os.read(self._descriptor, 8)
        self._callback()
