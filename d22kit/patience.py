"""How long to wait for a service: timeouts, the retry budget, and the pace that all workers share."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from d22kit.errors import EndpointError, RetriesExhaustedError
from d22kit.sockets import Watch

__all__ = ["Pace", "Patience", "TransientError"]

LONGEST_RETRY_AFTER = 900.0
FIRST_GAP, LONGEST_GAP, EASING = 0.05, 5.0, 0.9
NOTICE_AFTER, NOTICE_EVERY = 3, 15.0


class TransientError(EndpointError):
    """A failure that may pass.

    Parameters
    ----------
    message, status_code, request_id
        As in `EndpointError`.
    retry_after
        The seconds that the service asks to wait, if it does.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status_code=status_code, request_id=request_id, retryable=True)
        self.retry_after = retry_after

    @classmethod
    def of(cls, error: EndpointError) -> TransientError:
        """Return an error as one that may pass."""
        wait = getattr(error, "retry_after", None)
        return cls(str(error), status_code=error.status_code, request_id=error.request_id, retry_after=wait)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a service, in seconds, and how often to ask again.

    Parameters
    ----------
    connect, silence, answer
        The longest wait for a connection, for the next byte, and for a whole answer.
    attempts
        How often one request is sent before the service counts as gone; with the waits below that takes
        about five minutes.
    first_contact
        How often, while the service was never reached at all: an address may be wrong.
    first, longest
        The wait after attempt n is random, between 0 and `first` times 2 to the power of n - 1, and never
        longer than `longest`: exponential backoff with full jitter.
    """

    connect: float = 10.0
    silence: float = 60.0
    answer: float = 180.0
    attempts: int = 16
    first_contact: int = 4
    first: float = 1.0
    longest: float = 60.0


class Pace:
    """When the next request may be sent, for all workers together.

    Parameters
    ----------
    patience
        The retry budget.
    watch
        Ends a wait when the run is cancelled.
    notify
        Called with a sentence when a wait becomes long enough for a person to wonder.
    """

    def __init__(self, patience: Patience, watch: Watch, notify: Callable[[str], None] | None) -> None:
        self._patience = patience
        self._watch = watch
        self._notify = notify
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._last = 0.0
        self._gap = 0.0
        self._noticed = -NOTICE_EVERY
        self._heard = time.monotonic()
        self.reached = False
        self.throttled_s = 0.0

    def turn(self) -> None:
        """Wait until a request may be sent."""
        while (wait := self._claim()) > 0:
            self._watch.sleep(wait)

    def quiet(self) -> None:
        """Wait while the service asked for quiet: also a request that has its turn, up to its first byte."""
        while (wait := self._closed_until - time.monotonic()) > 0:
            self._watch.sleep(wait)

    def _claim(self) -> float:
        with self._lock:
            now = time.monotonic()
            wait = max(self._closed_until, self._last + self._gap) - now
            if wait <= 0:
                self._last = now
            return wait

    def ease(self) -> None:
        """Go a little faster again: a request was answered."""
        if self._gap:
            with self._lock:
                self._gap = self._gap * EASING if self._gap > FIRST_GAP / 10 else 0.0

    def heard(self) -> None:
        """Note that the service answered, whatever it said."""
        self.reached = True
        self._heard = time.monotonic()

    def rest(self, attempt: int, reason: TransientError) -> None:
        """Wait after a failed attempt, or give up where there were enough.

        Raises
        ------
        RetriesExhaustedError
            Where the budget is spent, or the service asks for a wait past a quarter of an hour.
        """
        budget = self._patience.attempts if self.reached else self._patience.first_contact
        if attempt >= budget or (reason.retry_after or 0.0) > LONGEST_RETRY_AFTER:
            raise self._given_up(attempt, reason) from None
        wait = self._backoff(attempt) if reason.retry_after is None else reason.retry_after
        if reason.status_code == 429 or reason.retry_after is not None:
            self._hold(wait)
        self._tell(
            f"{reason} Attempt {attempt} of {budget} failed; the next is in {wait:.0f} s.", attempt, wait
        )
        self._watch.sleep(wait)

    def _given_up(self, attempt: int, reason: TransientError) -> RetriesExhaustedError:
        asked = f" It asks to wait {reason.retry_after:.0f} s." if reason.retry_after else ""
        advice = "What was fetched is kept: sync again later, and it goes on from there."
        if not self.reached:
            advice = "It was never reached: check the address, the network and the proxy variables."
        return RetriesExhaustedError(
            f"{reason}{asked} Given up after attempt {attempt}. {advice}",
            status_code=reason.status_code,
            request_id=reason.request_id,
            retryable=True,
        )

    def _hold(self, seconds: float) -> None:
        """Send nothing for a while, and less often after; several refusals at once count as one."""
        with self._lock:
            now = time.monotonic()
            if self._closed_until <= now:
                self._gap = min(max(self._gap * 2, FIRST_GAP), LONGEST_GAP, self._patience.longest)
            self.throttled_s += max(0.0, now + seconds - max(self._closed_until, now))
            self._closed_until = max(self._closed_until, now + seconds)

    def _backoff(self, attempt: int) -> float:
        top = min(self._patience.longest, self._patience.first * 2.0 ** (attempt - 1))
        return random.uniform(0.0, top)  # noqa: S311 - jitter, no secret

    def _tell(self, text: str, attempt: int, wait: float) -> None:
        now = time.monotonic()
        long = attempt >= NOTICE_AFTER or now + wait - self._heard >= NOTICE_EVERY
        if self._notify is None or not long:
            return
        with self._lock:
            if now - self._noticed < NOTICE_EVERY:
                return
            self._noticed = now
        self._notify(text)
