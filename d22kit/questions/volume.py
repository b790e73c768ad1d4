"""How much do we communicate? Rows per period, per hour of the week, and how they are shared out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import polars as pl

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
from d22kit.questions.calendar import HOUR_US, Calendar, Clock
from d22kit.questions.roles import RoleMap, load_roles

__all__ = ["heatmap", "share", "volume"]

VOLUME = (*PERIOD, "small", "rows", "outbound", "inbound", "direction_unmapped")
HEATMAP = ("weekday", "hour", "rows", "hours_observed", "rows_per_hour")
SHARE = (*PERIOD, "small", "rows", "total_rows", "share", "change_pp")


def volume(
    frame: Frame,
    *,
    by: str | Iterable[str] = (),
    every: str = "day",
    tz: str = "UTC",
    calendar: Calendar | None = None,
    fill: bool = True,
    roles: RoleMap | None = None,
) -> Any:
    """Count rows per period: how much do we communicate?

    Parameters
    ----------
    frame
        Rows of D22: Polars (eager or lazy), pandas, PyArrow, a DuckDB relation or a PySpark DataFrame.
    by
        One column name or several, of D22 or joined by you; null is a group of its own.
    every
        `"15min"`, `"hour"`, `"day"`, `"week"`, `"month"` or `"quarter"`, in local time.
    tz
        The zone that days and hours are cut in.
    calendar
        In place of `tz`: names the zone and the weekday a week begins on.
    fill
        Whether each group has every period from the first row to the last, with zeros. Nothing is filled
        beyond the last `created_at`.
    roles
        More words for the role map: a mapping or a TOML file, see `d22kit/questions/roles.toml`.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        `period_start`, `period_end` (in the zone), `period_state` (`complete`; `partial`: ends after the
        newest `updated_at`; `undated`: the rows without `created_at`, only where there are any), the groups,
        `small` (under 30 rows), `rows`, `outbound`, `inbound`, `direction_unmapped`, which add up to `rows`.

    Raises
    ------
    InputError
        Where a column, the period or the zone is unknown, or gaps would fill more than five million rows.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> import polars as pl
    >>> rows = pl.DataFrame({
    ...     "type": ["OUTBOUND", "OUTBOUND", "INBOUND"],
    ...     "created_at": [datetime(2026, 5, day, 21, tzinfo=UTC) for day in (1, 1, 3)],
    ...     "updated_at": [datetime(2026, 5, 4, 21, tzinfo=UTC)] * 3,
    ... })
    >>> days = volume(rows, tz="Asia/Dubai")
    >>> days.select(pl.col("period_start").dt.date(), "period_state", "rows", "outbound", "inbound").rows()
    [(datetime.date(2026, 5, 2), 'complete', 2, 2, 0), (datetime.date(2026, 5, 3), 'complete', 0, 0, 0), \
(datetime.date(2026, 5, 4), 'complete', 1, 0, 1)]
    """
    groups = group_columns(frame, by, (*VOLUME, "direction"))
    clock = Clock.of(every, tz, calendar)
    known, direction = load_roles(roles), pl.col("direction")
    counts = collect(
        frame,
        [*groups, "type"],
        **clock.cells,
        then=lambda cells: tally(
            known.add(cells),
            groups,
            pl.col("rows"),
            outbound=count(direction == "outbound"),
            inbound=count(direction == "inbound"),
            direction_unmapped=count(direction.is_null()),
        ),
    )
    answer = in_periods(counts, groups, clock, as_of=as_of(counts), fill=fill, matures=False)
    return give_back(answer.select(*PERIOD, *groups, small("rows"), *VOLUME[4:]), frame, as_of(counts))


def heatmap(frame: Frame, *, by: str | Iterable[str] = (), tz: str = "UTC") -> Any:
    """Count rows per local weekday and hour: when do we communicate?

    Parameters
    ----------
    frame, by, tz
        As in `volume`.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        The groups, `weekday` (1 Monday to 7 Sunday), `hour` (0–23), `rows`, `hours_observed` (how many hours
        of that name the frame spans, from its first row to its last; clock changes are counted as they
        fell), `rows_per_hour` (null where none was observed). 168 rows per group, and one with a null weekday
        where rows lack `created_at`.

    Raises
    ------
    InputError
        Where a column or the zone is unknown.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> import polars as pl
    >>> times = [datetime(2026, 5, day, 6, 30, tzinfo=UTC) for day in (4, 11, 11)]
    >>> rows = pl.DataFrame({"created_at": times, "updated_at": times})
    >>> heatmap(rows, tz="Asia/Dubai").filter(pl.col("rows") > 0).rows()
    [(1, 10, 3, 2.0, 1.5)]
    """
    groups = group_columns(frame, by, (*HEATMAP, "cell"))
    clock = Clock.of("hour", tz)
    cube = collect(frame, groups, **clock.cells)
    grid = _week(cube["hour"].drop_nulls(), clock)
    keys = ["weekday", "hour", *groups]
    counts = _local(cube.rename({"hour": "cell"}), clock).group_by(keys).agg(pl.col("rows").sum())
    if groups:
        grid = grid.join(cube.select(groups).unique(), how="cross")
    lost = counts.filter(pl.col("weekday").is_null())
    answer = grid.join(counts, on=keys, how="left", nulls_equal=True).with_columns(
        pl.col("rows").fill_null(0)
    )
    answer = pl.concat([answer, lost], how="diagonal").with_columns(
        rows_per_hour=ratio(pl.col("rows"), pl.col("hours_observed"))
    )
    ordered = answer.select(*groups, *HEATMAP).sort(*groups, "weekday", "hour", nulls_last=True)
    return give_back(ordered, frame, as_of(cube))


def share(
    frame: Frame,
    *,
    by: str | Iterable[str],
    every: str = "month",
    tz: str = "UTC",
    calendar: Calendar | None = None,
) -> Any:
    """Share each period's rows out over groups: what is our mix, and does it shift?

    Parameters
    ----------
    frame, by, every, tz, calendar
        As in `volume`; `by` names at least one column.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        `period_start`, `period_end`, `period_state`, the groups, `small` (the period has under 30 rows),
        `rows`, `total_rows` (of all groups in the period), `share` (0–1; null in a period without rows),
        `change_pp` (percentage points against the period before; null where either has no share).

    Raises
    ------
    InputError
        As in `volume`, and where `by` is empty.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> import polars as pl
    >>> times = [datetime(2026, month, 3, tzinfo=UTC) for month in (4, 4, 5, 5)]
    >>> rows = pl.DataFrame({"platform": ["EMAIL", "SMS", "SMS", "SMS"], "created_at": times, "updated_at": times})
    >>> share(rows, by="platform").select("platform", "rows", "total_rows", "share", "change_pp").rows()
    [('EMAIL', 1, 2, 0.5, None), ('SMS', 1, 2, 0.5, None), ('EMAIL', 0, 2, 0.0, -50.0), ('SMS', 2, 2, 1.0, 50.0)]
    """
    groups = group_columns(frame, by, SHARE)
    if not groups:
        raise InputError(
            "share needs by=: one column name or several to share the rows out over, such as 'platform'."
        )
    clock = Clock.of(every, tz, calendar)
    cube = collect(frame, groups, **clock.cells)
    counts = cube.select("hour", *groups, "rows")
    answer = in_periods(counts, groups, clock, as_of=as_of(cube), matures=False)
    shares = answer.with_columns(total_rows=pl.col("rows").sum().over("period_start")).with_columns(
        share=ratio(pl.col("rows"), pl.col("total_rows"))
    )
    before = pl.col("share").shift(1).over(groups)  # periods are in order, and undated rows last
    dated = pl.col("period_start").is_not_null()
    shares = shares.with_columns(change_pp=pl.when(dated).then((pl.col("share") - before) * 100))
    return give_back(shares.select(*PERIOD, *groups, small("total_rows"), *SHARE[4:]), frame, as_of(cube))


def _local(cells: pl.DataFrame, clock: Clock) -> pl.DataFrame:
    local = pl.col("cell").dt.convert_time_zone(clock.zone)
    return cells.with_columns(weekday=local.dt.weekday().cast(pl.Int64), hour=local.dt.hour().cast(pl.Int64))


def _week(cells: pl.Series, clock: Clock) -> pl.DataFrame:
    """Every weekday and hour, with how many hours of it lie between the first cell and the last."""
    names = pl.DataFrame({"weekday": range(1, 8)}).join(pl.DataFrame({"hour": range(24)}), how="cross")
    first, last = cells.min(), cells.max()
    if first is None:
        return names.with_columns(hours_observed=pl.lit(0.0))
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    clock.refuse_too_many(cells)
    step = timedelta(microseconds=clock.step)
    if clock.step < HOUR_US:  # in quarter hours, too, the first and the last hour count whole
        minutes = pl.Series([first, last]).dt.convert_time_zone(clock.zone).dt.minute()
        first, last = first - timedelta(minutes=minutes[0]), last + timedelta(minutes=59 - minutes[1])
    span = pl.datetime_range(first, last, step, eager=True).to_frame("cell")
    seen = (
        _local(span, clock)
        .group_by("weekday", "hour")
        .agg(hours_observed=pl.len() * (step / timedelta(hours=1)))
    )
    return names.join(seen, on=["weekday", "hour"], how="left").with_columns(
        pl.col("hours_observed").fill_null(0)
    )
