"""Waits that end when they should: at a deadline, or as soon as a run is cancelled.

A socket's own timeout starts anew with every byte, so a body that drips would be read for ever, and a thread
that waits for an answer would not notice a Ctrl-C. Here every wait looks up a few times a second.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore

__all__ = ["Backend", "Cancelled", "Watch"]

GLANCE = 0.2
AT_ONCE = 256 << 10
"""Bytes read at once at least: a page takes few reads, and each has the other threads wait."""


class Cancelled(Exception):  # noqa: N818 - it is no error: somebody asked for it
    """The run was cancelled while it waited."""


class Watch(threading.local):
    """What the current thread waits for at most: a deadline, and a word from others to stop.

    Parameters
    ----------
    cancelled
        Ends the waits of every thread.
    """

    def __init__(self, cancelled: threading.Event | None = None) -> None:
        self._cancelled = cancelled
        self._deadline = 0.0
        self._stop: threading.Event | None = None

    @contextmanager
    def until(self, stop: threading.Event | None) -> Iterator[None]:
        """Also end this thread's waits when `stop` is set."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = None

    def begin(self, seconds: float) -> None:
        """Start the time that one answer may take."""
        self.check()
        self._deadline = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds to the deadline; raise `Cancelled` where the run was stopped."""
        self.check()
        return self._deadline - time.monotonic()

    def check(self) -> None:
        """Raise `Cancelled` where the run was stopped."""
        if (self._cancelled and self._cancelled.is_set()) or (self._stop and self._stop.is_set()):
            raise Cancelled

    def sleep(self, seconds: float) -> None:
        """Sleep, but not on when the run is stopped; the time of an answer under way stands still."""
        end = time.monotonic() + seconds
        self._deadline += seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, GLANCE))
            self.check()


class Backend(httpcore.SyncBackend):
    """The usual sockets, under a watch.

    Parameters
    ----------
    watch
        Ends waits.
    gate
        Called before anything is sent: may wait.
    """

    def __init__(self, watch: Watch, gate: Callable[[], None]) -> None:
        self._watch = watch
        self._gate = gate

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to a host."""
        stream = super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._watch, self._gate)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, watch: Watch, gate: Callable[[], None]) -> None:
        self._stream = stream
        self._watch = watch
        self._gate = gate

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        silence = time.monotonic() + (timeout or float("inf"))
        while True:
            left = min(self._watch.left(), silence - time.monotonic())
            if left <= 0:
                raise httpcore.ReadTimeout("the answer took too long")
            try:
                return self._stream.read(max(max_bytes, AT_ONCE), min(left, GLANCE))
            except httpcore.ReadTimeout:
                continue

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._gate()
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _Stream(stream, self._watch, self._gate)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
