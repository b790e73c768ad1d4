"""Instants, ranges and zones as arguments: checked once, with an error that says what is right."""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo, available_timezones

from d22kit.errors import InputError

__all__ = ["TimeLike", "instant", "iso", "span", "zone"]

TimeLike = datetime | date | str
"""What a time argument may be: `datetime`, `date` or ISO-8601 text. Without an offset it is UTC."""


def instant(value: TimeLike | None, name: str = "time") -> datetime | None:
    """Return the instant in UTC that an argument names, or None for None.

    Parameters
    ----------
    value
        A `datetime`, a `date` (its first moment) or ISO-8601 text; without an offset it is UTC.
    name
        The argument's name, for the error.

    Raises
    ------
    InputError
        Where the text is no ISO-8601 time, or the value no time at all.

    Examples
    --------
    >>> instant("2026-05-17T10:00+04:00")
    datetime.datetime(2026, 5, 17, 6, 0, tzinfo=datetime.timezone.utc)
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise InputError(
                f"{name}={value!r} is no time. Give a datetime, a date or ISO-8601 text such as "
                "'2026-05-17' or '2026-05-17T06:00:00Z'; without an offset it is UTC."
            ) from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise InputError(f"{name} is a {type(value).__name__}; give a datetime, a date or ISO-8601 text.")
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise InputError(f"{name}={value.isoformat()} lies outside the years 1 to 9999 in UTC.") from None


def span(since: TimeLike | None, until: TimeLike | None) -> tuple[datetime | None, datetime | None]:
    """Return the half-open range `[since, until)` in UTC; refuse one that ends before it begins.

    Raises
    ------
    InputError
        Where a bound is no time, or `since` does not lie before `until`.
    """
    start, end = instant(since, "since"), instant(until, "until")
    if start is not None and end is not None and start >= end:
        raise InputError(
            f"since={iso(start)} does not lie before until={iso(end)}. A range is half-open, "
            "[since, until): swap the two, or move until later."
        )
    return start, end


def iso(moment: datetime) -> str:
    """Return an instant as the service writes it: UTC, milliseconds, `Z`; finer fractions are kept.

    Examples
    --------
    >>> iso(datetime(2026, 5, 17, 6, 18, 44, 220000, tzinfo=UTC))
    '2026-05-17T06:18:44.220Z'
    """
    spec = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.astimezone(UTC).isoformat(timespec=spec).removesuffix("+00:00") + "Z"


def zone(tz: str) -> ZoneInfo:
    """Return the time zone of an IANA name.

    Raises
    ------
    InputError
        Where the name is unknown; the nearest known names are listed.
    """
    known = available_timezones()
    if isinstance(tz, str) and tz in known:
        return ZoneInfo(tz)
    near = difflib.get_close_matches(str(tz), known, n=3, cutoff=0.5)
    city = [name for name in sorted(known) if str(tz).lower().replace(" ", "_") in name.lower()][:3]
    hint = ", ".join(dict.fromkeys([*city, *near])) or "UTC, Asia/Dubai, Europe/London"
    raise InputError(f"tz={tz!r} is no time zone. Give an IANA name; near it: {hint}.")
