"""Does anyone answer? Inbound rows against delivered ones, who starts, and at what hours we write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from typing import Any

import polars as pl

from d22kit import schema, times
from d22kit.errors import InputError
from d22kit.questions._cube import (
    PERIOD,
    Frame,
    as_of,
    collect,
    count,
    give_back,
    group_columns,
    in_periods,
    ratio,
    small,
    tally,
)
from d22kit.questions._outcomes import ADDED, OUTCOME, outcome_counts
from d22kit.questions._stats import dispersion, ratio_interval
from d22kit.questions.calendar import Calendar, Clock
from d22kit.questions.roles import RoleMap, load_roles

__all__ = ["HoursRule", "contact_hours", "engagement"]

ENGAGEMENT = (
    "attempted",
    "delivered",
    "read_receipts",
    "inbound",
    "inbound_per_100_delivered",
    "inbound_per_100_delivered_lo",
    "inbound_per_100_delivered_hi",
    "channel_share",
    "automated",
    "person",
    "initiator_unmapped",
    "automated_share",
)
HOURS = (
    "rule",
    "zone",
    "outbound",
    "inside",
    "outside_hours",
    "outside_days",
    "outside_share",
    "earliest_local",
    "latest_local",
)
SPREAD, FREEDOM = "spread of days", "degrees of freedom"
"""Names beside the groups' own, so that no group can have them."""


@dataclass(frozen=True, kw_only=True)
class HoursRule:
    """A rule of hours to screen rows against: named, dated and with its source, for none is the default.

    Parameters
    ----------
    name
        What a report calls it.
    zone
        IANA name of the zone its hours are read in. D22 holds no customer's zone, only yours.
    hours
        Weekday (1 Monday to 7 Sunday) to the first and the last moment at which writing is inside the rule; the last is
        outside. Quarter hours. A day that is not there is outside altogether.
    source
        Where the rule is written, so that a reader can check it.
    as_of
        The date at which the source was read.

    Raises
    ------
    InputError
        Where the zone or a weekday is unknown, hours end before they begin, or are no quarter hours.

    Examples
    --------
    A rule of your own, as your compliance team words it:

    >>> office = HoursRule(
    ...     name="House rule", zone="Asia/Dubai", hours={day: (time(9), time(18)) for day in (1, 2, 3, 4, 5)},
    ...     source="Collections handbook 4.2", as_of=date(2026, 5, 1),
    ... )
    >>> office.hours[1]
    (datetime.time(9, 0), datetime.time(18, 0))
    """

    name: str
    zone: str
    hours: Mapping[int, tuple[time, time]]
    source: str
    as_of: date

    def __post_init__(self) -> None:
        times.zone(self.zone)
        for day, (first, last) in self.hours.items():
            if day not in range(1, 8):
                raise InputError(
                    f"Rule {self.name!r} names the weekday {day!r}. Weekdays are 1 (Monday) to 7 (Sunday)."
                )
            if first >= last:
                raise InputError(
                    f"Rule {self.name!r} ends at {last} on day {day}, before it begins at {first}."
                )
            if any(edge.minute % 15 or edge.second or edge.microsecond for edge in (first, last)):
                raise InputError(
                    f"Rule {self.name!r} has {first} and {last} on day {day}. Give quarter hours."
                )

    @classmethod
    def us_regulation_f(cls, *, zone: str) -> HoursRule:
        """Return the presumption of United States Regulation F: every day from 08:00 to 21:00.

        12 CFR 1006.6(b)(1)(i): in the absence of knowledge to the contrary, a time before 8:00 a.m. and after
        9:00 p.m. local time at the consumer's location is inconvenient. It binds debt collectors, not every
        lender; and `zone` is a stand-in for the consumer's place, which D22 does not hold.
        """
        return cls(
            name="US Regulation F",
            zone=zone,
            hours={day: (time(8), time(21)) for day in range(1, 8)},
            source="12 CFR 1006.6(b)(1)(i), https://www.consumerfinance.gov/rules-policy/regulations/1006/6/",
            as_of=date(2021, 11, 30),
        )


def engagement(
    frame: Frame,
    *,
    by: str | Iterable[str] = ("platform",),
    every: str = "month",
    tz: str = "UTC",
    calendar: Calendar | None = None,
    roles: RoleMap | None = None,
) -> Any:
    """Set inbound rows against delivered ones, per channel and period: does anyone answer?

    Rows against rows, not people: D22 has no customer key, so nothing is paired. An inbound row may answer a
    message of an earlier period, or none. No inbound row means *no inbound recorded*, not silence.

    Parameters
    ----------
    frame, by, every, tz, calendar, roles
        As in `volume`.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        `period_start`, `period_end`, `period_state` (as in `delivery`), the groups, `small` (under 30 delivered),
        `attempted`, `delivered`, `read_receipts` (as in `delivery`), `inbound` (rows),
        `inbound_per_100_delivered` with its 95% limits `_lo` and `_hi` (may exceed 100; null where nothing was
        delivered), `channel_share` (the group's part of all attempts in the period, 0–1), `automated`, `person`,
        `initiator_unmapped` (outbound rows by who started them), `automated_share` (of the outbound rows with a
        mapped initiator).

        Where no row of the whole frame maps to inbound, `inbound` and its rate are null, not 0: either nobody
        answered, or the export spells it in a word that the map does not know (`profile` lists them).

    Raises
    ------
    InputError
        As in `volume`.

    Notes
    -----
    The limits are quasi-Poisson, with a dispersion estimated per group from daily counts about each calendar month's
    rate: answers come in bursts, and Poisson limits alone would be too narrow (McCullagh and Nelder, 1989).

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> import polars as pl
    >>> rows = pl.DataFrame({
    ...     "platform": "EMAIL", "type": ["OUTBOUND", "OUTBOUND", "INBOUND"], "by": ["SYSTEM", "AGENT", "CUSTOMER"],
    ...     "operation": ["SEND", "SEND", "RECEIVE"], "delivery_status": ["DELIVERED", "DELIVERED", None],
    ...     "delivery_code": None, "delivery_error_detail": None,
    ...     "created_at": [datetime(2026, 5, 1, tzinfo=UTC)] * 3, "updated_at": [datetime(2026, 6, 9, tzinfo=UTC)] * 3,
    ... })
    >>> engagement(rows).select("delivered", "inbound", "inbound_per_100_delivered", "automated_share").rows()
    [(2, 1, 50.0, 0.5)]
    """
    groups = group_columns(frame, by, (*PERIOD, "small", "outbound", *ENGAGEMENT, *ADDED))
    clock = Clock.of(every, tz, calendar)
    known = load_roles(roles)
    counts = collect(
        frame,
        [*groups, "type", "operation", "by", *OUTCOME],
        **clock.cells,
        judge=True,
        then=lambda cells: _contacts(known.add(cells), groups),
    )
    answer = in_periods(counts, groups, clock, as_of=as_of(counts))
    heard = bool(counts["inbound"].sum())
    spread = _spread(counts, groups, clock)
    keyed = (
        answer.join(spread, on=groups, how="left", nulls_equal=True)
        if groups
        else answer.join(spread, how="cross")
    )
    lo, hi = ratio_interval(pl.col("inbound"), pl.col("delivered"), pl.col(SPREAD), pl.col(FREEDOM))
    rates = {
        "inbound_per_100_delivered": ratio(pl.col("inbound"), pl.col("delivered")),
        "inbound_per_100_delivered_lo": lo,
        "inbound_per_100_delivered_hi": hi,
    }
    answer = keyed.with_columns(
        **{name: 100 * rate if heard else pl.lit(None, pl.Float64) for name, rate in rates.items()},
        inbound=pl.col("inbound") if heard else pl.lit(None, pl.Int64),
        channel_share=ratio(pl.col("attempted"), pl.col("attempted").sum().over("period_start")),
        automated_share=ratio(pl.col("automated"), pl.col("outbound") - pl.col("initiator_unmapped")),
    )
    return give_back(answer.select(*PERIOD, *groups, small("delivered"), *ENGAGEMENT), frame, as_of(counts))


def contact_hours(
    frame: Frame,
    rule: HoursRule,
    *,
    by: str | Iterable[str] = (),
    every: str = "month",
    roles: RoleMap | None = None,
) -> Any:
    """Screen outbound rows against a rule of hours: how many were created outside it, and how far?

    A screening, not a verdict: rows are placed by `created_at`, which may precede a scheduled send, and in the
    rule's zone, since D22 does not know where a customer is. A census, so no interval.

    Parameters
    ----------
    frame, by, every, roles
        As in `volume`; periods are cut in the rule's zone.
    rule
        There is no default: `HoursRule.us_regulation_f(zone=...)`, or an `HoursRule` of your own.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        `period_start`, `period_end`, `period_state` (`complete`, `partial` or `undated`), the groups, `small` (under
        30 outbound rows), `rule`, `zone`, `outbound` = `inside` + `outside_hours` + `outside_days` (on days without
        any hours), `outside_share` (0–1), `earliest_local`, `latest_local` (times of day of the outbound rows). Rows
        without `created_at` are in `outbound` alone.

    Raises
    ------
    InputError
        As in `volume`, and where `rule` is no `HoursRule`.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> import polars as pl
    >>> created = [datetime(2026, 5, 1, hour, 30, tzinfo=UTC) for hour in (3, 6, 18)]
    >>> rows = pl.DataFrame({"type": "OUTBOUND", "created_at": created, "updated_at": created})
    >>> answer = contact_hours(rows, HoursRule.us_regulation_f(zone="Asia/Dubai"))
    >>> answer.select("outbound", "inside", "outside_hours", "earliest_local", "latest_local").rows()
    [(3, 1, 2, datetime.time(7, 30), datetime.time(22, 30))]
    """
    import narwhals.stable.v2 as nw

    if not isinstance(rule, HoursRule):
        raise InputError(
            f"rule is a {type(rule).__name__}. There is no default rule: give HoursRule.us_regulation_f(zone=...) "
            "or an HoursRule with its own name, zone, hours, source and date."
        )
    groups = group_columns(frame, by, (*PERIOD, "small", "first", "last", *HOURS, *ADDED))
    clock = Clock.of(every, rule.zone)
    whole = all(edge.minute == 0 for day in rule.hours.values() for edge in day)
    cells = Clock.of("hour" if whole else "15min", rule.zone).cells
    created = nw.col(schema.CREATED)
    known = load_roles(roles)
    cube = collect(
        frame,
        [*groups, "type"],
        **cells,
        measures={"first": created.min(), "last": created.max()},
        then=known.add,
    )
    outbound = cube.filter(pl.col("direction") == "outbound")
    answer = in_periods(_screened(outbound, groups, rule), groups, clock, as_of=as_of(cube), matures=False)
    answer = answer.join(
        _extremes(outbound, groups, clock), on=["period_start", *groups], how="left", nulls_equal=True
    )
    outside = pl.col("outside_hours") + pl.col("outside_days")
    answer = answer.with_columns(
        rule=pl.lit(rule.name),
        zone=pl.lit(rule.zone),
        outside_share=ratio(outside, pl.col("inside") + outside),
    )
    ordered = answer.select(*PERIOD, *groups, small("outbound"), *HOURS)
    return give_back(ordered.sort("period_start", *groups, nulls_last=True), frame, as_of(cube))


def _contacts(cells: pl.LazyFrame, groups: list[str]) -> pl.LazyFrame:
    outbound, initiator = pl.col("direction") == "outbound", pl.col("initiator")
    return tally(
        cells,
        groups,
        *outcome_counts(("attempted", "delivered", "read_receipts")),
        inbound=count(pl.col("direction") == "inbound"),
        outbound=count(outbound),
        automated=count(outbound & (initiator == "automated")),
        person=count(outbound & (initiator == "person")),
        initiator_unmapped=count(outbound & initiator.is_null()),
    )


def _spread(counts: pl.DataFrame, groups: list[str], clock: Clock) -> pl.DataFrame:
    """Dispersion of daily inbound about each month's rate, per group, with its degrees of freedom.

    Sorted throughout: engines return cells in any order, and sums of floats depend on it.
    """
    day = pl.col("hour").dt.convert_time_zone(clock.zone).dt.date().alias("local day")
    month = pl.col("local day").dt.truncate("1mo").alias("local month")
    dated = counts.filter(pl.col("hour").is_not_null())
    days = dated.group_by(*groups, day).agg(pl.col("inbound", "delivered").sum()).sort(*groups, "local day")
    months = days.group_by(*groups, month, maintain_order=True).agg(
        dispersion(pl.col("inbound"), pl.col("delivered")).alias(SPREAD),
        ((pl.col("delivered") > 0).sum().cast(pl.Int64) - 1).clip(0).alias(FREEDOM),
    )
    weighted = ratio((pl.col(SPREAD) * pl.col(FREEDOM)).sum(), pl.col(FREEDOM).sum()).fill_null(1.0)
    pooled = [weighted.alias(SPREAD), pl.col(FREEDOM).sum()]
    return months.group_by(groups, maintain_order=True).agg(pooled) if groups else months.select(pooled)


def _screened(outbound: pl.DataFrame, groups: list[str], rule: HoursRule) -> pl.DataFrame:
    local = pl.col("hour").dt.convert_time_zone(rule.zone)
    clock = local.dt.time()
    on_day = local.dt.weekday().is_in(list(rule.hours))
    allowed = [
        (local.dt.weekday() == day) & (clock >= first) & (clock < last)
        for day, (first, last) in rule.hours.items()
    ]
    inside = pl.any_horizontal(allowed) if allowed else pl.lit(False)
    counts = tally(
        outbound.lazy(),
        groups,
        outbound=pl.col("rows"),
        inside=count(inside),
        outside_hours=count(on_day & ~inside),
        outside_days=count(~on_day),
    )
    return counts.collect()


def _extremes(outbound: pl.DataFrame, groups: list[str], clock: Clock) -> pl.DataFrame:
    """The earliest and latest local time of day per period; exact, since no cell holds a clock change."""
    dated = outbound.filter(pl.col("hour").is_not_null())
    spans = clock.spans(dated["hour"].unique(), fill=False)
    local = pl.col("first", "last").cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(clock.zone).dt.time()
    cells = dated.with_columns(local, pl.col("hour").dt.convert_time_zone(clock.zone)).sort("hour")
    placed = cells.join_asof(spans, left_on="hour", right_on="period_start")
    return placed.group_by("period_start", *groups).agg(
        earliest_local=pl.col("first").min(), latest_local=pl.col("last").max()
    )
