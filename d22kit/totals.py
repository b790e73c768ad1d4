"""What the service counts in each window of `updated_at`, and what the store holds there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise

import polars as pl

from d22kit.display import number
from d22kit.endpoint import Page, Service, TooHeavyError
from d22kit.errors import ProtocolError
from d22kit.schema import KEY, PARTITION, VERSION
from d22kit.snapshots import set_apart
from d22kit.state import NEVER
from d22kit.store import Store, scan_files
from d22kit.windows import EPOCH, Interval, Window, halve

__all__ = ["Bounds", "Compared", "Holdings", "Totals", "window"]

WORKERS = 4
SMALLEST = timedelta(seconds=1)
"""A window that is not halved any more."""

Bounds = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Compared:
    """A window of `updated_at`, half-open, and its rows here and there.

    Parameters
    ----------
    since, until
        The window (UTC).
    at_service
        Rows by the service's total, or by a walk where it cannot count them.
    in_store
        Rows in the store, without those that changed since the last sync.
    quarantined
        Rows of the window that are set apart: the service counts them, the store does not hold them.
    """

    since: datetime
    until: datetime
    at_service: int
    in_store: int
    quarantined: int

    def __str__(self) -> str:
        apart = f", and {number(self.quarantined)} set apart" if self.quarantined else ""
        return f"{number(self.at_service)} at the service, {number(self.in_store)} in the store{apart}"

    @property
    def missing(self) -> int:
        """How many rows the store lacks, at least."""
        return max(0, self.at_service - self.in_store - self.quarantined)

    @property
    def surplus(self) -> int:
        """How many rows the store has that the service has not, at least."""
        return max(0, self.in_store - self.at_service)

    @property
    def differs(self) -> bool:
        """Whether rows set apart cannot explain it: they may have gone, or changed, since."""
        return self.missing > 0 or self.surplus > 0

    @property
    def unclear(self) -> bool:
        """Whether the numbers are other than expected, though rows set apart could explain it."""
        return self.at_service != self.in_store + self.quarantined


class Holdings:
    """The rows that a store held when the audit began.

    Parameters
    ----------
    store
        The store, at the version to audit.
    """

    def __init__(self, store: Store) -> None:
        self._live = store.files()
        self._apart = _times_apart(store)
        self.changed = pl.Series(KEY, [], pl.String)
        """Keys that changed at the service since; they count nowhere."""

    @property
    def end(self) -> datetime:
        """The end of the last day that has rows."""
        return _next(max([EPOCH, *self._days()]))

    def windows(
        self, covered: Sequence[Interval], since: datetime | None, until: datetime | None
    ) -> list[Bounds]:
        """Return the days with rows, and the stretches between them, of what is covered and asked for."""
        days = self._days()
        beginning, windows = min([EPOCH, *days]), []
        edges = {edge for day in days for edge in (day, _next(day))}
        for first, end in covered:
            start, stop = max(first or beginning, since or beginning), min(end, until or NEVER)
            inside = sorted({start, stop, *(edge for edge in edges if start < edge < stop)})
            windows += list(pairwise(inside)) if start < stop else []
        return windows

    def _days(self) -> list[datetime]:
        return [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in self._live[PARTITION].unique()]

    def rows(self, since: datetime, until: datetime) -> pl.LazyFrame:
        """Return key and version of a window's rows, without those that changed since."""
        return self._rows(since, until).join(self.changed.to_frame().lazy(), on=KEY, how="anti")

    def count(self, since: datetime, until: datetime) -> tuple[int, int]:
        """Return how many of a window's rows are stored, and how many are set apart."""
        apart = self._apart.is_between(since, until, closed="left").sum()
        return _height(self.rows(since, until)), int(apart)

    def count_changed(self, since: datetime, until: datetime) -> int:
        """Return how many of a window's rows changed since."""
        return _height(self._rows(since, until).join(self.changed.to_frame().lazy(), on=KEY, how="semi"))

    def _rows(self, since: datetime, until: datetime) -> pl.LazyFrame:
        near = self._live.filter(pl.col(PARTITION).is_between(since.date(), until.date()))["path"].to_list()
        return scan_files(near).select(KEY, VERSION).filter(pl.col(VERSION) >= since, pl.col(VERSION) < until)


class Totals:
    """The service's own counts.

    Parameters
    ----------
    service
        The service.
    met
        Counts a window by walking it, for where the service cannot.
    cancelled
        Set when a count fails, so that the others end too.
    """

    def __init__(self, service: Service, met: Callable[[Bounds], int], cancelled: threading.Event) -> None:
        self._service, self._met, self._cancelled = service, met, cancelled
        self._given = False

    def compare(self, windows: Sequence[Bounds], held: Holdings) -> list[Compared]:
        """Compare windows with what is held; one that cannot be counted whole comes back in parts.

        Raises
        ------
        ProtocolError
            Where the service gives no totals at all.
        """
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                totals = list(chain.from_iterable(pool.map(self._count, windows)))
            except BaseException:
                self._cancelled.set()
                raise
        return [Compared(since, until, total, *held.count(since, until)) for since, until, total in totals]

    def _count(self, bounds: Bounds) -> list[tuple[datetime, datetime, int]]:
        try:
            return list(self._halved(*bounds))
        except _UncountableError:
            return [(*bounds, self._met(bounds))]

    def _halved(self, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime, int]]:
        page = self._page(since, until)
        middle = halve(window((since, until)))
        if page.total is not None and page.total_exact is not False:
            self._given = True
            yield since, until, page.total
        elif middle is not None and until - since > SMALLEST:
            yield from self._halved(since, middle)
            yield from self._halved(middle, until)
        elif self._given:
            raise _UncountableError
        else:
            raise ProtocolError(
                "The service gives no totals, not even of a second, so nothing can be compared with it. Report "
                "this to the service's support; a sync needs no totals.",
                request_id=page.request_id,
            )

    def _page(self, since: datetime, until: datetime) -> Page:
        try:
            return self._service.page(since=since, until=until, limit=1, include_total=True)
        except TooHeavyError as error:
            if error.retry_after is not None:
                self._service.rest(1, error)
            return Page(b"[]", None, error.request_id)


class _UncountableError(Exception):
    """A window that the service gives no total of, however narrow."""


def window(bounds: Bounds, id: int = 0) -> Window:
    """Return a window to walk."""
    since, until = bounds
    return Window(id, since=since, until=until, stop=until)


def _next(day: datetime) -> datetime:
    return day + timedelta(days=1) if day < NEVER else NEVER


def _height(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect(engine="streaming").item())


def _times_apart(store: Store) -> pl.Series:
    """Return `updated_at` of the quarantined rows that have one, each key once."""
    apart = set_apart(store).select(KEY, "apart").drop_nulls("apart")
    keyed = apart.drop_nulls(KEY).group_by(KEY).agg(pl.col("apart").max())
    return pl.concat([apart.filter(pl.col(KEY).is_null()), keyed])["apart"]
