"""A periodic callback finer than the event loop's millisecond timers, over Linux's timerfd (timerfd_create(2)).

Must not know: what is called.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def _timespec(seconds: float) -> _Timespec:
    return _Timespec(int(seconds), int(seconds % 1 * 1e9))


class Ticker:
    """Calls ``callback`` every ``interval`` seconds in the running loop while the block lasts; missed ticks merge."""

    def __init__(self, interval: float, callback: Callable[[], None]) -> None:
        self._interval = interval
        self._callback = callback

    def __enter__(self) -> None:
        self._descriptor = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        spec = _Itimerspec(_timespec(self._interval), _timespec(self._interval))
        if _libc.timerfd_settime(self._descriptor, 0, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._tick)

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _tick(self) -> None:
        os.read(self._descriptor, 8)
        self._callback()
