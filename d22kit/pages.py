"""Walks windows with cursors, several at once, and hands on what it met in an order that is safe to keep.

Knows nothing of a row: how to read the newest time of a page is handed in. Every change of a window travels in
a `Step`, together with the rows it speaks of; whoever keeps the steps in order can go on from any of them.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from d22kit.endpoint import Cancelled, DeadCursorError, Page, Service, TooHeavyError
from d22kit.errors import ProtocolError, RetriesExhaustedError
from d22kit.windows import EPOCH, Window, advance, anew, from_epoch, halve, narrow, split, whole

__all__ = ["Step", "walk"]

SPARE_PAGES, SPARE_BYTES = 8, 8 << 20
"""How far workers run ahead of what is done with their pages: so many pages more than workers, and bytes of rows."""
WORTH_SPLITTING, GUESS = 6.0, timedelta(days=365)
RESTARTS, GENTLE_PAGES = 8, 40
SMALLEST_LIMIT, SMALLEST_REACH = 10, timedelta(seconds=1)
GLANCE, FAREWELL = 0.2, 0.5
HEAVY_ROWS = 3
"""Bodies past the limit in a row, when one row was asked for, that may be accidents."""
PAUSE = 0.003
"""Seconds without a page after which the walk counts as idle."""
AT_FIRST, FED = 1, 16
"""Windows walked at first; with a pause no more than so many pages after the last one, one more is walked."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to keep at once: the JSON text of one page's rows, if any, and every window that changed."""

    rows: bytes | None
    request_id: str | None
    windows: tuple[Window, ...]


def walk(
    service: Service,
    plan: Sequence[Window],
    *,
    workers: int,
    newest: Callable[[bytes], datetime | None],
    cancelled: threading.Event,
    idle: Callable[[], None] = lambda: None,
    gently: bool = False,
) -> Iterator[Step]:
    """Walk windows to their ends and yield what was met, a page at a time.

    The steps of one window come in order. A walk of the windows that were not done after any step goes on
    from there without loss; only pages in flight are fetched again.

    Parameters
    ----------
    service
        Where pages come from.
    plan
        Disjoint windows; those that are done are passed over.
    workers
        How many windows to walk at once, at most. It begins with one; while pages come more slowly than they are
        taken, a worker without a window takes over the later half of the slowest.
    newest
        The largest `updated_at` of a page's rows, or None.
    cancelled
        Ends the walk within a moment, after the steps that were already fetched.
    idle
        Called when the next step lets one wait: the time to put away the last ones.
    gently
        Begin with one worker and no page ahead of what is put away, and allow one more of both with every
        `GENTLE_PAGES`: what killed the last walk may come again, and every page under way is then lost.

    Raises
    ------
    EndpointError
        What stopped a worker, after the steps that were already fetched.
    """
    crew = _Crew(service, plan, workers, newest, cancelled, gently)
    try:
        yield from crew.steps(idle)
    finally:
        crew.leave()


class _Circle:
    """Tells when a walk goes round, in constant memory: Brent's algorithm."""

    def __init__(self) -> None:
        self._mark: str | None = None
        self._steps, self._power = 0, 1

    def closes(self, cursor: str | None) -> bool:
        if cursor is not None and cursor == self._mark:
            return True
        self._steps += 1
        if self._steps == self._power:
            self._mark, self._steps, self._power = cursor, 0, self._power * 2
        return False


@dataclass
class _Run:
    """One worker's walk of one window, and how fast it goes."""

    window: Window
    pace: timedelta | None = None
    long: bool = False
    pages: int = 0
    first: tuple[int, datetime] | None = None
    heavy: int = 0
    restarts: int = 0
    circle: _Circle = field(default_factory=_Circle)

    def saw(self, window: Window) -> None:
        self.pages += 1
        self.heavy = 0
        if window.position not in (None, window.since):
            self.restarts = 0
        self.window = window
        self.long = self.long or self.pages > 1
        if window.position is None:
            return
        self.first = self.first or (self.pages, window.position)
        page, position = self.first
        if window.position > position:
            self.pace = (window.position - position) / (self.pages - page)

    def left(self) -> tuple[bool, float, timedelta]:
        """How much is left, to compare: known ranges first, then pages as far as they can be told."""
        start, stop = self.window.start, self.window.stop
        width = GUESS if start is None else stop - start
        return start is not None, width / self.pace if self.pace else float("inf"), width

    def middle(self) -> datetime | None:
        if not self.long or self.left()[1] < WORTH_SPLITTING:
            return None
        if self.window.start is None and self.window.stop - GUESS > EPOCH:
            return self.window.stop - GUESS
        return halve(self.window)


class _Appetite:
    """How much to ask for at once, for all workers: less after it was too much, then slowly more again."""

    def __init__(self) -> None:
        self.limit = 1000
        self.reach: timedelta | None = None
        self._fine = (0, timedelta(0))
        self._pages = self._windows = 0

    def digested(self, limit: int, window: Window) -> None:
        self._fine = max(self._fine[0], limit), max(self._fine[1], _asked(window))
        self._pages += 1
        self._windows += window.done
        if self._pages % 8 == 0:
            self.limit = min(1000, self.limit * 2)
        if self.reach and window.done and self._windows % 16 == 0:
            self.reach *= 1.5

    def choked(self, limit: int, window: Window) -> timedelta:
        """Blame what never went well, the limit or the width, or else both; return how wide to go now."""
        new_limit, new_width = limit > self._fine[0], _asked(window) > self._fine[1]
        if new_limit or not new_width:
            self.limit = max(min(limit, SMALLEST_LIMIT), limit // 2)
            self._fine = min(self._fine[0], self.limit), self._fine[1]
        if new_limit and not new_width:
            return _asked(window)
        half = max((window.stop - (window.since or EPOCH)) / 2, SMALLEST_REACH)
        if new_width:
            self.reach = half
        self._pages = self._windows = 0
        return half


def _asked(window: Window) -> timedelta:
    return window.until - (window.since or EPOCH)


class _Crew:
    def __init__(
        self,
        service: Service,
        plan: Sequence[Window],
        workers: int,
        newest: Callable[[bytes], datetime | None],
        cancelled: threading.Event,
        gently: bool,
    ) -> None:
        self._service, self._newest, self._cancelled = service, newest, cancelled
        self._ids = iter(lambda: random.getrandbits(53), None)  # like no other window's, now or before
        self._waiting = deque(window for window in plan if not window.done)
        self._runs: list[_Run] = []
        self._steps: deque[Step] = deque()
        self._room = workers + SPARE_PAGES
        self._allowed, self._met = (1 if gently else self._room), 0
        self._wanted, self._held = AT_FIRST, 0
        self._appetite = _Appetite()
        self._change = threading.Condition()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"d22kit-worker-{n}", daemon=True)
            for n in range(workers)
        ]
        self._busy = workers

    # The consumer's side.

    def steps(self, idle: Callable[[], None]) -> Iterator[Step]:
        for thread in self._threads:
            thread.start()
        fed = FED
        while True:
            fed += 1
            if self._lets_wait():
                idle()
                if fed <= FED:
                    self._want_more()
                fed = 0
            if (step := self._next_step()) is None:
                break
            yield step
        if self._failure is not None:
            raise self._failure

    def _lets_wait(self) -> bool:
        with self._change:
            self._held = 0
            self._change.notify_all()
            return not self._change.wait_for(lambda: self._steps or not self._busy or self._over(), PAUSE)

    def _next_step(self) -> Step | None:
        with self._change:
            while not self._steps:
                if not self._busy or self._over():
                    return None
                if not self._change.wait(GLANCE):
                    self._want_more()
            self._held = 1  # until the consumer comes back for more
            return self._steps.popleft()

    def _want_more(self) -> None:
        """Have one more window walked: pages come more slowly than they are put away."""
        with self._change:
            self._wanted += 1
            self._change.notify_all()

    def leave(self) -> None:
        self._stop.set()
        with self._change:
            self._change.notify_all()
        ends = time.monotonic() + FAREWELL
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, ends - time.monotonic()))

    # The workers' side.

    def _over(self) -> bool:
        return self._stop.is_set() or self._cancelled.is_set()

    def _work(self) -> None:
        try:
            while (run := self._take()) is not None:
                while not run.window.done:
                    self._advance(run)
        except Cancelled:
            pass
        except BaseException as error:
            self._failure = self._failure or error
            self._stop.set()
        finally:
            with self._change:
                self._busy -= 1
                self._change.notify_all()

    def _take(self) -> _Run | None:
        with self._change:
            while not self._over():
                more = len(self._runs) < min(self._allowed, self._wanted)
                if more and (run := self._begin_waiting() or self._begin_split()):
                    self._runs.append(run)
                    return run
                if not self._runs:
                    return None
                self._change.wait(GLANCE)
            return None

    def _begin_waiting(self) -> _Run | None:
        if not self._waiting:
            return None
        run = _Run(self._waiting.popleft())
        if run.window.cursor is None and self._appetite.reach is not None:
            self._cut(run, self._appetite.reach)
        return run

    def _begin_split(self) -> _Run | None:
        slowest = max((run for run in self._runs if run.middle()), key=_Run.left, default=None)
        if slowest is None or (middle := slowest.middle()) is None:
            return None
        slowest.window, rest = split(slowest.window, middle, next(self._ids))
        self._say(None, None, slowest.window, rest)
        return _Run(rest, pace=slowest.pace, long=True)

    def _advance(self, run: _Run) -> None:
        with self._change:  # before it is asked for, or a page more would be lost with a kill
            while self._far_ahead() and not self._over():
                self._change.wait(GLANCE)
        window, limit = run.window, min(run.window.limit, self._appetite.limit)
        try:
            page = self._service.page(
                since=window.since, until=window.until, cursor=window.cursor, limit=limit, stop=self._stop
            )
        except TooHeavyError as error:
            self._lighten(run, limit, error)
        except DeadCursorError as error:
            self._restart(run, limit, error)
        else:
            self._keep(run, page, limit)

    def _keep(self, run: _Run, page: Page, limit: int) -> None:
        if run.circle.closes(page.next_cursor):
            raise ProtocolError(
                f"The service's cursors go round in a circle: page {run.pages + 1} of a window leads back to a "
                "page met before. What was fetched is kept. Report this to the service's support "
                f"(requestId: {page.request_id}).",
                request_id=page.request_id,
            )
        newest = self._newest(page.rows)
        with self._change:
            run.saw(advance(run.window, page.next_cursor, newest))
            self._appetite.digested(limit, run.window)
            self._met += 1
            self._allowed += self._met % GENTLE_PAGES == 0
            self._say(page.rows, page.request_id, run.window)
            if run.window.done:
                self._runs.remove(run)

    def _far_ahead(self) -> bool:
        waiting = sum(len(step.rows or b"") for step in self._steps)
        return len(self._steps) + self._held >= min(self._allowed, self._room) or waiting >= SPARE_BYTES

    def _lighten(self, run: _Run, limit: int, error: TooHeavyError) -> None:
        """Ask for less: of time and of rows after a 504, of rows after a body past the limit."""
        with self._change:
            before = run.window, self._appetite.limit
            if error.status_code != 504:
                if run.heavy:  # once may be an accident
                    self._appetite.limit = min(self._appetite.limit, max(1, limit // 4))
            elif run.window.until <= EPOCH:
                run.window = replace(run.window, cursor=None, done=True)
                self._runs.remove(run)
                self._say(None, error.request_id, run.window)
            else:
                self._cut(run, self._appetite.choked(limit, run.window))
            stuck = before == (run.window, self._appetite.limit)
        if limit == 1 and run.heavy >= HEAVY_ROWS and error.status_code != 504:
            raise ProtocolError(f"{error} It held no more than one row.", request_id=error.request_id)
        run.heavy = run.heavy + 1 if stuck else 1
        if not run.window.done:
            self._service.rest(run.heavy, error, self._stop)

    def _cut(self, run: _Run, reach: timedelta) -> None:
        """Start a window anew where its filter is wider than it may be; the rest waits."""
        if _asked(run.window) <= reach:
            return
        before, window = from_epoch(run.window, self._ids)
        met, window = anew(window, self._ids)
        run.window, rest = narrow(window, whole((window.since or EPOCH) + reach), self._ids)
        run.circle = _Circle()
        self._waiting.extendleft(rest)  # next, so that a lone worker meets rows in order
        self._waiting.extend(before)
        self._say(None, None, *before, *met, run.window, *rest)

    def _restart(self, run: _Run, limit: int, error: DeadCursorError) -> None:
        run.restarts += 1
        if run.restarts > RESTARTS:
            raise RetriesExhaustedError(
                f"{error} The window was begun anew {RESTARTS} times and came no further.",
                status_code=error.status_code,
                request_id=error.request_id,
            )
        with self._change:
            met, run.window = anew(run.window, self._ids)
            run.circle = _Circle()
            if not met:  # smaller pages lead to other cursors, and not too many
                self._appetite.limit = max(1, limit * 9 // 10)
            self._say(None, error.request_id, *met, run.window)

    def _say(self, rows: bytes | None, request_id: str | None, *windows: Window) -> None:
        self._steps.append(Step(rows, request_id, windows))
        self._change.notify_all()
