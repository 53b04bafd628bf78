"""The moment of a container program's first act: a file of that program is touched in a directory of the host.

The kernel reports it (inotify), and a thread that sleeps until then notes the time. Nothing polls during a measurement.
"""

import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

TIMEOUT = 60.0
"""Seconds that the sign may take."""

OPENED, MADE = 0x20, 0x100  # IN_OPEN, IN_CREATE
_LIBC = ctypes.CDLL(None, use_errno=True)
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, bytes of the name that follows


def seconds_until(directory: Path, name: str, act: Callable[[], object], *, sign: int = MADE) -> float:
    """Seconds from before `act` is called until the sign of `directory/name` is seen, during the call or after it.

    Args:
        sign: That it is `MADE`, or that one that is there is `OPENED`, wherever it is mounted.

    Raises:
        TimeoutError: There was no sign.
        FileExistsError: It is to be made, and was there before.
        Whatever `act` raises.
    """
    if sign == MADE and (directory / name).exists():
        raise FileExistsError(str(directory / name))
    seen: list[float] = []
    given_up = threading.Event()
    watch = _watch(directory, sign)
    thread = threading.Thread(target=_wait, args=(watch, os.fsencode(name), seen, given_up), name="first-sign")
    thread.start()
    try:
        begin = time.perf_counter()
        act()
        thread.join(TIMEOUT)
    finally:
        given_up.set()
        thread.join()
        os.close(watch)
    if not seen:
        raise TimeoutError(f"no sign of {directory / name} in {TIMEOUT:g} s")
    return seen[0] - begin


def _watch(directory: Path, sign: int) -> int:
    fd: int = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0 or _LIBC.inotify_add_watch(fd, os.fsencode(directory), sign) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(directory))
    return fd


def _wait(watch: int, name: bytes, seen: list[float], given_up: threading.Event) -> None:
    while not given_up.is_set():
        if not select.select([watch], [], [], 0.2)[0]:
            continue
        moment = time.perf_counter()
        if name in _names(os.read(watch, 65_536)):
            seen.append(moment)
            return


def _names(events: bytes) -> list[bytes]:
    names, at = [], 0
    while at < len(events):
        length = _EVENT.unpack_from(events, at)[3]
        at += _EVENT.size + length
        names.append(events[at - length : at].rstrip(b"\0"))
    return names
