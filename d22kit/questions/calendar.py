"""When: a calendar as an argument, and the periods that a question counts in."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import TypedDict
from zoneinfo import ZoneInfo

import polars as pl

from d22kit import times
from d22kit.errors import InputError

__all__ = ["EVERY", "HOUR_US", "MOST_PERIODS", "QUARTER_US", "Calendar", "Cells", "Clock"]

EVERY = {"15min": "15m", "hour": "1h", "day": "1d", "week": "1w", "month": "1mo", "quarter": "1q"}
"""The periods that `every=` takes, and how Polars writes them."""

SHORTEST = dict(
    zip(EVERY, (timedelta(minutes=15), timedelta(hours=1), *map(timedelta, (1, 7, 28, 90))), strict=True)
)
HOUR_US, QUARTER_US = 3_600_000_000, 900_000_000

MOST_PERIODS = 5_000_000
"""Rows of an answer beyond which filling gaps is refused: one stray timestamp must not fill the memory."""

Weekend = Iterable[int] | Mapping[date, Iterable[int]]


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """The days of a place: its zone, its weeks, its weekends and its special days.

    Parameters
    ----------
    zone
        IANA name of the time zone, for example `"Asia/Dubai"`.
    week_start
        The weekday a week begins on, 1 for Monday to 7 for Sunday.
    weekend
        Weekdays without work; or, where the law changed, a mapping from the first date of each regime.
    holidays
        Date to name. Any mapping will do, such as one of the `holidays` package.
    special
        Name to first and last date (inclusive) of seasons that change behaviour, such as Ramadan.

    Raises
    ------
    InputError
        Where the zone or a weekday is unknown, or a season ends before it begins.

    Examples
    --------
    >>> uae = Calendar.uae(holidays={date(2025, 12, 2): "National Day"})
    >>> uae.tag(date(2025, 12, 2)), uae.tag(date(2025, 12, 6)), uae.tag(date(2025, 12, 8))
    ('National Day', 'weekend', None)
    >>> uae.is_weekend(date(2021, 12, 31)), uae.is_weekend(date(2022, 1, 7))
    (True, False)
    """

    zone: str = "UTC"
    week_start: int = 1
    weekend: Weekend = (6, 7)
    holidays: Mapping[date, str] = field(default_factory=dict)
    special: Mapping[str, tuple[date, date]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        times.zone(self.zone)
        named = [self.week_start, *(day for _, days in self._regimes() for day in days)]
        if wrong := [day for day in named if day not in range(1, 8)]:
            raise InputError(f"{wrong[0]!r} is no weekday. Weekdays are 1 (Monday) to 7 (Sunday).")
        for name, (first, last) in self.special.items():
            if last < first:
                raise InputError(f"special {name!r} ends on {last}, before it begins on {first}.")

    @classmethod
    def uae(
        cls,
        *,
        holidays: Mapping[date, str] | None = None,
        special: Mapping[str, tuple[date, date]] | None = None,
    ) -> Calendar:
        """Return the United Arab Emirates: Saturday and Sunday off since 2022, before that Friday and Saturday.

        Source: federal government announcement of 7 December 2021, in force on 1 January 2022. Friday is a
        half day there and counts as a working day. Holidays follow the moon and are announced late: pass them.
        """
        return cls(
            zone="Asia/Dubai",
            weekend={date(1, 1, 1): (5, 6), date(2022, 1, 1): (6, 7)},
            holidays=holidays or {},
            special=special or {},
        )

    def is_weekend(self, day: date) -> bool:
        """Whether a date falls on the weekend that was in force then."""
        in_force = [days for since, days in self._regimes() if since <= day]
        return bool(in_force) and day.isoweekday() in in_force[-1]

    def tag(self, day: date) -> str | None:
        """Return what is special about a date: its holiday, its season, `"weekend"`, or None."""
        if (holiday := self.holidays.get(day)) is not None:
            return holiday
        season = next((name for name, (first, last) in self.special.items() if first <= day <= last), None)
        return season or ("weekend" if self.is_weekend(day) else None)

    def _regimes(self) -> list[tuple[date, tuple[int, ...]]]:
        dated = self.weekend if isinstance(self.weekend, Mapping) else {date.min: self.weekend}
        return sorted((since, tuple(days)) for since, days in dated.items())


class Cells(TypedDict):
    """What `collect` needs to know of its cells, in microseconds: see there."""

    step: int
    phases: tuple[int, ...]


@dataclass(frozen=True)
class Clock:
    """Periods of one length in one zone: checks the arguments, and cuts time."""

    every: str = "day"
    zone: str = "UTC"
    week_start: int = 1
    calendar: Calendar | None = None

    @classmethod
    def of(cls, every: str, tz: str, calendar: Calendar | None = None) -> Clock:
        """Return the clock that the arguments of a question name.

        Raises
        ------
        InputError
            Where the period or the zone is unknown, or `tz` and the calendar's zone differ.
        """
        if not isinstance(every, str) or every not in EVERY:
            near = difflib.get_close_matches(every, EVERY, 1, 0.4) if isinstance(every, str) else ()
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"every={every!r} is no period. Known: {', '.join(EVERY)}.{hint}")
        _check_zone(tz)
        if calendar is None:
            return cls(every, tz)
        if not isinstance(calendar, Calendar):
            raise InputError(
                f"calendar is a {type(calendar).__name__}; give a d22kit.Calendar, or leave it out."
            )
        if tz not in ("UTC", calendar.zone):
            raise InputError(
                f"tz={tz!r} and the calendar's zone {calendar.zone!r} differ. Leave tz out: the calendar has it."
            )
        _check_zone(calendar.zone)
        return cls(every, calendar.zone, calendar.week_start, calendar)

    @property
    def step(self) -> int:
        """The longest that a local hour, cut at multiples of it in UTC, is a whole number of; in microseconds."""
        return QUARTER_US if self.every == "15min" or not _whole_hours(self.zone) else HOUR_US

    @property
    def cells(self) -> Cells:
        """The coarsest cells that every period is a sum of: hours cut where local hours begin, days at all midnights.

        Midnight is at few times of the UTC day, one for each offset the zone has had: two or three cells hold a
        local day, where hours would be 24. So begin the days of all zones since 1996.
        """
        if self.every == "15min":
            return {"step": QUARTER_US, "phases": (0,)}
        if self.every == "hour":
            return {"step": HOUR_US, "phases": _hour_phases(self.zone)}
        midnights = {offset // timedelta(microseconds=1) % (24 * HOUR_US) for offset in _offsets(self.zone)}
        return {"step": 24 * HOUR_US, "phases": tuple(sorted(midnights))}

    def spans(self, cells: pl.Series, *, fill: bool, groups: int = 1) -> pl.DataFrame:
        """Return `period_start` and `period_end` of every period that a cell falls in, sorted.

        Parameters
        ----------
        cells
            Instants in UTC, none null.
        fill
            Whether the empty periods between the first and the last are there as well.
        groups
            How many rows each period will take in the answer, to refuse one that cannot fit.
        """
        schema = {"period_start": pl.Datetime("us", self.zone), "period_end": pl.Datetime("us", self.zone)}
        if cells.is_empty():
            return pl.DataFrame(schema=schema)
        if fill:
            self.refuse_too_many(cells, groups)
        spans = (
            self._clock_spans(cells, fill)
            if self.every in ("15min", "hour")
            else self._date_spans(cells, fill)
        )
        return spans.filter(pl.col("period_end") > pl.col("period_start")).cast(schema)  # type: ignore[arg-type]

    def floor(self, days: pl.Expr) -> pl.Expr:
        """Return the first date of the period that each date falls in."""
        if self.every == "week":
            return days - pl.duration(days=(days.dt.weekday() - self.week_start).cast(pl.Int64) % 7)
        return days.dt.truncate(EVERY[self.every])

    def _date_spans(self, cells: pl.Series, fill: bool) -> pl.DataFrame:
        days = cells.dt.convert_time_zone(self.zone).dt.date().unique().to_frame("day")
        starts = days.select(self.floor(pl.col("day"))).to_series().unique().sort()
        if fill:
            starts = pl.date_range(starts[0], starts[-1], EVERY[self.every], eager=True)
        ends = starts.dt.offset_by(EVERY[self.every])
        return pl.DataFrame(
            {"period_start": first_instant(starts, self.zone), "period_end": first_instant(ends, self.zone)}
        )

    def _clock_spans(self, cells: pl.Series, fill: bool) -> pl.DataFrame:
        edges = self._edges(cells, fill)
        spans = pl.DataFrame({"period_start": edges, "period_end": edges.shift(-1)}).drop_nulls()
        if fill:
            return spans.filter(
                (pl.col("period_end") > cells.min()) & (pl.col("period_start") <= cells.max())
            )
        held = cells.sort().to_frame("cell").join_asof(spans, left_on="cell", right_on="period_start")
        return held.select("period_start", "period_end").unique().sort("period_start")

    def _edges(self, cells: pl.Series, fill: bool) -> pl.Series:
        """Instants at which the zone's clock starts a new quarter or hour; a repeated hour starts twice."""
        quarter, reach = timedelta(minutes=15), timedelta(hours=3)
        first, last = _ends(cells)
        if fill:
            ticks = pl.datetime_range(first - reach, last + reach, quarter, eager=True)
        else:
            around = [cells.dt.truncate("15m").dt.offset_by(f"{15 * k}m") for k in range(-12, 13)]
            ticks = pl.concat(around).unique().sort()
        minutes = 15 if self.every == "15min" else 60
        local, before = (
            t.dt.convert_time_zone(self.zone).dt.replace_time_zone(None) for t in (ticks, ticks - quarter)
        )
        marked = local.dt.minute().cast(pl.Int64) % minutes == 0
        length = EVERY[self.every]
        return ticks.filter(marked | (local.dt.truncate(length) != before.dt.truncate(length)))

    def refuse_too_many(self, cells: pl.Series, groups: int = 1) -> None:
        """Refuse to lay a grid over a range that would not fit in memory."""
        first, last = _ends(cells)
        rows = ((last - first) // SHORTEST[self.every] + 1) * groups
        if rows > MOST_PERIODS:
            raise InputError(
                f"every={self.every!r} from {first:%Y-%m-%d} to {last:%Y-%m-%d} for {groups:,} groups is {rows:,} "
                f"rows; {MOST_PERIODS:,} is the most. Filter created_at (a stray timestamp may lie far off: see "
                "d22kit.profile), take a longer period or fewer groups, or leave gaps out with fill=False where "
                "the question has it."
            )


def first_instant(local: pl.Series, zone: str) -> pl.Series:
    """Return the first instant of each local date in a zone, also where a clock change skips midnight."""
    naive = local.cast(pl.Datetime("us"))
    start = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    for minutes in (30, 60, 120, 1440):  # the gaps that time zones have had; the last is a skipped day
        if not start.null_count():
            break
        later = naive.dt.offset_by(f"{minutes}m")
        start = start.fill_null(later.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null"))
    return start


def _ends(cells: pl.Series) -> tuple[datetime, datetime]:
    first, last = cells.min(), cells.max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return first, last


def _check_zone(tz: str) -> None:
    times.zone(tz)
    try:
        pl.Series([datetime(2026, 1, 1, tzinfo=UTC)]).dt.convert_time_zone(tz)
    except pl.exceptions.ComputeError:
        raise InputError(
            f"tz={tz!r} names no place that Polars knows. Give an IANA name such as 'Asia/Dubai'."
        ) from None


@cache
def _offsets(zone: str) -> frozenset[timedelta]:
    """Every distance from UTC that the zone has had since 1969 and will have: monthly, so no season is missed."""
    place = ZoneInfo(zone)
    return frozenset(month.astimezone(place).utcoffset() or timedelta() for month in _months())


def _months() -> Iterator[datetime]:
    return (datetime(1969 + m // 12, m % 12 + 1, 1, tzinfo=UTC) for m in range(12 * 100))


def _whole_hours(zone: str) -> bool:
    return not any(offset % timedelta(hours=1) for offset in _offsets(zone) if not offset.seconds % 900)


@cache
def _hour_phases(zone: str) -> tuple[int, ...]:
    """How far before the hours of UTC the zone's begin, or its clocks change: in whole quarters."""
    if _whole_hours(zone):
        return (0,)
    place, hour, quarter = ZoneInfo(zone), timedelta(hours=1), timedelta(minutes=15)

    def offset(moment: datetime) -> timedelta:
        return moment.astimezone(place).utcoffset() or timedelta()

    begun = {known % hour for known in _offsets(zone) if not known % quarter}
    for month, after in pairwise(_months()):
        if (held := offset(month)) != offset(after):
            quarters = range((after - month) // quarter)
            moved = bisect_left(quarters, True, key=lambda n: offset(month + n * quarter) != held)
            begun.add(-moved * quarter % hour)
    return tuple(sorted(begin // timedelta(microseconds=1) for begin in begun))
