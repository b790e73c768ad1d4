"""Which ranges of `updated_at` are to walk, how far each is, and how they split. Pure: no I/O.

A window is done when every row of `[since, stop)` was met. Windows only ever shrink or split, and the parts
of a split partition what was there, so no plan can lose a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from d22kit.times import instant, iso

__all__ = [
    "EPOCH",
    "Interval",
    "Window",
    "add",
    "advance",
    "anew",
    "from_epoch",
    "halve",
    "missing",
    "split",
    "whole",
]

Interval = tuple[datetime | None, datetime]
"""A half-open range of `updated_at`; None is the beginning of time."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""No row is older: an ObjectId counts its seconds from here."""


@dataclass(frozen=True, slots=True)
class Window:
    """One half-open range of `updated_at` to walk, and how far the walk is.

    Parameters
    ----------
    id
        Its name within one plan; the parts of a split get new ones.
    since, until
        The request's filter: inclusive and exclusive. Both are sent again with every cursor. `since` None
        is the beginning.
    stop
        Where the walk ends, at `until` or before it: a split moves it forward.
    cursor
        Goes on from here, verbatim.
    position
        `updated_at` of the last row met. A walk without its cursor begins here.
    limit
        Rows per page to ask for.
    done
        Whether every row of `[since, stop)` was met.
    """

    id: int
    since: datetime | None
    until: datetime
    stop: datetime
    cursor: str | None = None
    position: datetime | None = None
    limit: int = 1000
    done: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the window as plain JSON values."""
        times = {name: getattr(self, name) for name in ("since", "until", "stop", "position")}
        return {
            "id": self.id,
            **{name: time and iso(time) for name, time in times.items()},
            "cursor": self.cursor,
            "limit": self.limit,
            "done": self.done,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Window:
        """Return the window that `to_json` wrote."""
        times = {name: instant(values[name], name) for name in ("since", "until", "stop", "position")}
        return cls(**{**values, **times})

    @property
    def start(self) -> datetime | None:
        """Where the rows not yet met begin, as far as is known."""
        return self.position or self.since


def advance(window: Window, cursor: str | None, newest: datetime | None) -> Window:
    """Return the window after one page: its next cursor, and the newest `updated_at` of its rows.

    The walk is over when there is no next cursor, or when a row lies at `stop` or beyond, since rows come
    in order. A time outside the filter says nothing and is not believed.
    """
    position = window.position
    if newest is not None and newest < window.until and (window.start is None or newest >= window.start):
        position = newest
    done = cursor is None or (position is not None and position >= window.stop)
    return replace(window, cursor=None if done else cursor, position=position, done=done)


def split(window: Window, at: datetime, id: int) -> tuple[Window, Window]:
    """Return the window ending at `at`, and a new one for the rest, with the same end of the filter."""
    rest = Window(id, since=at, until=window.until, stop=window.stop, limit=window.limit)
    return replace(window, stop=at), rest


def halve(window: Window) -> datetime | None:
    """Return the middle of what is left of a window, to the millisecond; None where there is none."""
    start = window.start or EPOCH
    middle = whole(start + (window.stop - start) / 2)
    return middle if start < middle < window.stop else None


def whole(moment: datetime) -> datetime:
    """Return an instant without what is finer than a millisecond, which the service may not tell apart."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def anew(window: Window, ids: Iterator[int]) -> tuple[tuple[Window, ...], Window]:
    """Return what was met of a window, as one that is done, if any; and the rest, to walk without a cursor."""
    fresh = replace(window, cursor=None, position=None)
    if window.position in (None, window.since):
        return (), fresh
    met = replace(window, stop=window.position, cursor=None, done=True)
    return (met,), replace(fresh, id=next(ids), since=window.position)


def narrow(window: Window, at: datetime, ids: Iterator[int]) -> tuple[Window, tuple[Window, ...]]:
    """Return a window without a cursor, with a filter that ends at `at`; and the rest, if any."""
    if at >= window.stop:
        return replace(window, until=window.stop), ()
    first, rest = split(window, at, next(ids))
    return replace(first, until=at), (rest,)


def from_epoch(window: Window, ids: Iterator[int]) -> tuple[tuple[Window, ...], Window]:
    """Return what of a window lies before any possible row, if it begins nowhere, and the rest."""
    if window.start is not None or window.stop <= EPOCH:
        return (), window
    before, rest = split(replace(window, cursor=None), EPOCH, next(ids))
    return (replace(before, until=EPOCH),), rest


def add(covered: Sequence[Interval], interval: Interval) -> tuple[Interval, ...]:
    """Return the covered intervals with one more, in order; those that meet or overlap become one.

    Examples
    --------
    >>> day = lambda n: datetime(2026, 5, n, tzinfo=UTC)
    >>> add([(day(1), day(2))], (day(2), day(3))) == ((day(1), day(3)),)
    True
    """
    merged: list[Interval] = []
    for start, end in sorted([*covered, interval], key=_place):
        if start is not None and start >= end:
            continue
        if merged and (start is None or start <= merged[-1][1]):
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)


def missing(covered: Sequence[Interval], interval: Interval) -> tuple[Interval, ...]:
    """Return what of an interval is not covered, in order.

    Examples
    --------
    >>> day = lambda n: datetime(2026, 5, n, tzinfo=UTC)
    >>> missing([(None, day(2))], (None, day(3))) == ((day(2), day(3)),)
    True
    """
    start, end = interval
    gaps: list[Interval] = []
    for known_start, known_end in sorted(covered, key=_place):
        if known_start is not None and known_start >= end:
            break
        if known_start is not None and (start is None or start < known_start):
            gaps.append((start, known_start))
        if start is None or known_end > start:
            start = known_end
    if start is None or start < end:
        gaps.append((start, end))
    return tuple(gaps)


def _place(interval: Interval) -> tuple[bool, datetime]:
    start, end = interval
    return (False, end) if start is None else (True, start)
