"""How busy the synthetic lender is: its hours, weekdays, month ends, holidays and growth."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from d22kit.simulator.providers import PLATFORMS, Platform
from d22kit.simulator.scenario import DAYS, HOLIDAYS, NOW

__all__ = ["DAY", "HOUR", "Floats", "Ints", "expected", "hour_weights", "local_day", "ms"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

HOUR = 3_600_000
DAY = 24 * HOUR
ZONE = 4 * HOUR  # Dubai has kept UTC+4, without summer time, since 1920
WEEKDAYS = np.array([1.0, 1.06, 1.04, 1.0, 0.72, 0.22, 0.18])
MONTH_END, HOLIDAY = 1.3, 0.2


def ms(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def local_day(moments: Ints) -> Ints:
    """Which local day each moment falls on, in days since 1970."""
    return (moments + ZONE) // DAY


def _day_weights(days: Ints) -> Floats:
    """How busy a local day is (days since 1970): weekday, month end, holiday."""
    date = days.astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    first = (date - month.astype("datetime64[D]")).astype(np.int64)
    left = ((month + 1).astype("datetime64[D]") - date).astype(np.int64)
    weight = WEEKDAYS[(days + 3) % 7] * np.where((left <= 3) | (first < 2), MONTH_END, 1.0)
    closed = np.isin(date, np.array(list(HOLIDAYS), dtype="datetime64[D]"))
    return np.where(closed, np.minimum(weight, HOLIDAY), weight)


def hour_weights(start: int, end: int) -> tuple[Ints, Floats]:
    """The hours that `[start, end)` touches, and the expected traffic of each platform in each of them."""
    hours = np.arange(start // HOUR * HOUR, end, HOUR)
    covered = (np.minimum(hours + HOUR, end) - np.maximum(hours, start)) / HOUR
    busy = covered * _day_weights(local_day(hours))
    return hours, np.stack([_traffic(platform, hours) for platform in PLATFORMS]) * busy + 1e-9 * covered


def _traffic(platform: Platform, hours: Ints) -> Floats:
    years = (hours - ms(NOW)) / (365 * DAY) + DAYS / 365
    profile = np.array(platform.hours) / sum(platform.hours)
    traffic: Floats = platform.weight * platform.growth**years * profile[(hours + ZONE) // HOUR % 24]
    return traffic


def expected(rows: int, start: datetime, end: datetime) -> int:
    """How many rows a lender with `rows` in its history creates in `[start, end)`."""
    whole = hour_weights(ms(NOW) - DAYS * DAY, ms(NOW))[1].sum()
    return round(float(rows * hour_weights(ms(start), ms(end))[1].sum() / whole))
