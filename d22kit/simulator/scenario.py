"""The synthetic lender's world: its calendar, and what went wrong there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

__all__ = ["DAYS", "HOLIDAYS", "INCIDENTS", "NOW", "ZONE", "Incident"]

ZONE = "Asia/Dubai"
NOW = datetime(2026, 6, 10, 8, 30, tzinfo=UTC)
"""The moment the history ends: a Wednesday, 12:30 in Dubai. Never the wall clock."""
DAYS = 400

HOLIDAYS: dict[date, str] = {
    date(2025, 6, 5): "Arafah Day",
    date(2025, 6, 6): "Eid al-Adha",
    date(2025, 6, 7): "Eid al-Adha",
    date(2025, 6, 8): "Eid al-Adha",
    date(2025, 6, 27): "Islamic New Year",
    date(2025, 9, 5): "Prophet's birthday",
    date(2025, 12, 1): "National Day",
    date(2025, 12, 2): "National Day",
    date(2026, 1, 1): "New Year's Day",
    date(2026, 3, 20): "Eid al-Fitr",
    date(2026, 3, 21): "Eid al-Fitr",
    date(2026, 3, 22): "Eid al-Fitr",
    date(2026, 5, 26): "Arafah Day",
    date(2026, 5, 27): "Eid al-Adha",
    date(2026, 5, 28): "Eid al-Adha",
    date(2026, 5, 29): "Eid al-Adha",
    date(2026, 6, 16): "Islamic New Year",
}
"""Public holidays of the United Arab Emirates, by local date; lunar ones as announced or expected."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that went wrong at the lender, for an analyst to find.

    Parameters
    ----------
    name, platform
        What happened, and to which channel.
    start, end
        The half-open range of `created_at` of the rows it touches (UTC).
    metric
        What leaves its usual band: `"volume"`, `"bounce_rate"` or `"failure_rate"`.
    share
        Share of the channel's rows in that range that it turns.
    effect
        One sentence for a reader.
    """

    name: str
    platform: str
    start: datetime
    end: datetime
    metric: str
    share: float
    effect: str


def _local(month: int, day: int, hour: int = 0, year: int = 2026) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC) - timedelta(hours=4)


INCIDENTS: tuple[Incident, ...] = (
    Incident(
        "cancelled_campaign", "SMS", _local(11, 11, 10, 2025), _local(11, 11, 11, 2025), "volume", 1.0,
        "An SMS campaign was queued within an hour and cancelled at one instant: volume triples that day.",
    ),
    Incident(
        "provider_outage", "SMS", _local(2, 11, 9), _local(2, 12, 1), "failure_rate", 0.8,
        "The SMS provider timed out for 16 hours: four in five messages failed instead of one in a hundred.",
    ),
    Incident(
        "blocklisting", "EMAIL", _local(4, 13), _local(4, 20), "bounce_rate", 0.3,
        "The sender was on blocklists for a week: three in ten e-mails bounced instead of four in a hundred.",
    ),
)  # fmt: skip
