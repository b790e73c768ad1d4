"""Is anything unusual? Periods that leave the band in which their own group usually moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from d22kit.questions import _cube
from d22kit.questions import _stats as stats
from d22kit.questions._metrics import Metric, cells, named, taken, when, who
from d22kit.questions.calendar import Calendar, Clock
from d22kit.questions.roles import RoleMap

__all__ = ["anomalies"]

PERIOD = ("period_start", "period_end", "period_state")
JUDGED = {
    "value": pl.Float64,
    "n": pl.Int64,
    "expected": pl.Float64,
    "usual_lo": pl.Float64,
    "usual_hi": pl.Float64,
    "excess_rows": pl.Float64,
    "effect": pl.Float64,
    "score": pl.Float64,
}
ANSWER = (*PERIOD, "small", "metric", *JUDGED, "calendar_tag", "text")

SEASONS, KNOWN = 8, 4
"""A period is compared with the 8 before it of its own weekday (and time of day); with fewer than 4, not at all."""

LIMIT = 4.0
"""How many standard deviations wide the band is on either side, at least."""

BUDGET = 0.1
"""False alarms a reader may meet in a week, over all groups together, if quiet values were normal."""

LEAST = {"share": 0.01, "count": 0.25, "ratio": 1.0}
LEAST_ROWS, WITHIN = 20, 7
"""The least effect worth a sentence: 1 point, a quarter of the volume, 1 per 100; and 20 rows within 7 periods."""

TURN, SWAY = 5, 0.2
"""Days at either end of a month whose volume has a rhythm of its own, and how far it may sway before it is known."""

APART = ("week", "month", "quarter")
"""Periods without a season of their own."""

PASSES = 12
"""Alarmed periods leave the baselines of later ones, which is repeated until nothing changes."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """In periods: what a level is measured over, and a week. In forecasts: what a spread takes, most and least."""

    level: int
    week: float
    most: int = 56
    least: int = 14


RHYTHMS = {
    "15min": Rhythm(level=2688, week=672),
    "hour": Rhythm(level=672, week=168),
    "day": Rhythm(level=28, week=7),
    "week": Rhythm(level=4, week=1, most=26, least=6),
    "month": Rhythm(level=4, week=0.23, most=26, least=6),
    "quarter": Rhythm(level=4, week=0.08, most=26, least=6),
}


def anomalies(
    frame: _cube.Frame,
    *,
    metric: str,
    by: str | Iterable[str] = (),
    every: str = "day",
    tz: str = "UTC",
    calendar: Calendar | None = None,
    roles: RoleMap | None = None,
) -> Any:
    """Compare each period with the usual band of its own group, and say in words which ones leave it.

    Parameters
    ----------
    frame, by, every, tz, roles
        As in `volume`.
    metric
        `"volume"`, `"bounce_rate"`, `"hard_bounce_rate"`, `"failure_rate"`, `"delivery_rate"` (each of
        attempted) or `"inbound_per_100_delivered"`.
    calendar
        Names the zone in place of `tz`, and the days that are tagged: a holiday is never alarmed and enters
        no baseline, nor does the volume of its week; a season such as Ramadan widens the band of the volume.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        Every dated period, unusual or not: `period_start`, `period_end`, `period_state`, the groups, `small`
        (`n` under 30), `metric`, `value` (rows; 0–1; per 100), `n` (the denominator), `expected`, `usual_lo`,
        `usual_hi` (in the unit of `value`), `excess_rows` (events beyond the expected ones), `effect` (`value -
        expected`; for the volume relative to it, 0.5 is half as much again), `score` (standard
        deviations), `calendar_tag`, `text`: the alarm in a sentence, null where there is none. Where the
        baseline is too short the limits are null, and nothing is alarmed.

    Raises
    ------
    InputError
        Where the metric, a column, the period or the zone is unknown.

    Notes
    -----
    Expected is the median of the 8 periods before of the same weekday (and time of day); for the volume each is
    first scaled by the growth of its group's level (the median of four weeks). Alarmed periods and holidays
    leave the baselines of later ones, unless more than half of a baseline would go: then the new level is the
    usual one. The first and last days of a month, and the weeks at its turn, learn their own factor of the
    volume.

    The variance is that of chance (binomial or Poisson) plus an extra one, estimated from the median absolute
    deviation of the last 56 forecasts for that time of day; so for the volume it is a negative binomial one.
    This is the random-effects form of Laney's p' chart (Quality Engineering 14, 2002).

    A band is at least 4 standard deviations wide on either side, more with many groups: if quiet values were
    normal, chance would alarm at most once in ten weeks, over all groups together. What leaves it is an alarm
    from 1 point (for the volume a quarter, per hundred 1) and 20 rows on; the rows of seven periods add up. An
    unfinished period is not alarmed; one whose outcomes still move only where every outcome of its open rows
    would leave it outside.

    Examples
    --------
    >>> from datetime import datetime, timedelta, UTC
    >>> import polars as pl
    >>> start = datetime(2026, 1, 5, tzinfo=UTC)
    >>> daily = [100 + day % 3 for day in range(60)] + [240, 100]
    >>> times = [start + timedelta(days=day) for day, rows in enumerate(daily) for _ in range(rows)]
    >>> rows = pl.DataFrame({"created_at": times, "updated_at": times})
    >>> anomalies(rows, metric="volume")["text"].drop_nulls().to_list()
    ['volume 240 on 6 March, usually 56–146; 139 rows more than usual']
    """
    measure = named(metric)
    groups = _cube.group_columns(frame, by, (*ANSWER, *taken(measure)))
    clock = Clock.of(every, tz, calendar)
    counts, causes, moment = cells(frame, measure, groups, spans=clock.cells, roles=roles)
    periods = _cube.in_periods(counts, groups, clock, as_of=moment, matures=measure.kind != "count")
    periods = periods.sort(*groups, "period_start", nulls_last=True)
    judged = judge(_core(periods, groups, clock, measure), measure, every)
    answer = pl.concat([periods.select(*PERIOD, *groups), judged], how="horizontal")
    texts = _texts(answer, groups, measure, clock, causes)
    answer = answer.with_columns(metric=pl.lit(metric), text=texts, small=_cube.small("n"))
    ordered = answer.select(*PERIOD, *groups, *ANSWER[3:]).sort("period_start", *groups, nulls_last=True)
    return _cube.give_back(ordered, frame, moment)


def judge(core: pl.DataFrame, metric: Metric, every: str) -> pl.DataFrame:
    """Return the judged columns and `alarm` for periods sorted by group and time.

    Parameters
    ----------
    core
        `group` (a number), `events`, `n`, `open`, `state`, `slot` (the time of day), `season` (the weekday and
        time of day), `turn` (the place at the turn of the month, else null), `holiday`, `sways`, `calendar_tag`.
    """
    rhythm = RHYTHMS[every]
    limit = max(LIMIT, stats.quantile(1 - BUDGET / 2 / max(1.0, rhythm.week * core["group"].n_unique())))
    # A group's first period is no baseline: the frame may begin within it.
    started = (pl.col("n").cum_sum() > pl.col("n")).over("group")
    steady = started & ~pl.col("holiday") & (pl.col("state") == "complete")
    core = core.with_columns(
        value=metric.value(pl.col("events"), pl.col("n")), usable=steady, alarm=pl.lit(False)
    )
    for _ in range(PASSES):
        judged = core.pipe(_expect, metric, rhythm).pipe(_spread, metric, rhythm).pipe(_decide, metric, limit)
        if judged["alarm"].equals(core["alarm"]):
            break
        core = core.with_columns(judged["alarm"])
    return judged.select(*JUDGED, "alarm", "calendar_tag").cast(JUDGED)  # type: ignore[arg-type]


def _expect(core: pl.DataFrame, metric: Metric, rhythm: Rhythm) -> pl.DataFrame:
    """Add `kept` (what may enter a baseline), `expected` and `seen` (how many periods it rests on)."""
    usable = pl.when("usable").then("value")
    core = core.with_columns(raw=usable, kept=pl.when(~pl.col("alarm")).then(usable))
    if metric.kind == "count":
        level = [
            pl.col(name).shift(1).rolling_median(rhythm.level, min_samples=rhythm.level // 2).over("group")
            for name in ("kept", "raw")
        ]
        core = core.with_columns(level=pl.coalesce(level))
    else:
        core = core.with_columns(level=pl.lit(None, pl.Float64))
    core = core.with_columns(past=_past("kept"), all_past=_past("raw"))
    few = (pl.col("past").list.len() < KNOWN) & (pl.col("all_past").list.len() >= KNOWN)
    past = pl.when(few).then("all_past").otherwise("past")
    return core.with_columns(expected=past.list.median(), seen=past.list.len()).drop("past", "all_past")


def _past(name: str) -> pl.Expr:
    """Return the values of the seasons before, each scaled by how the group's level has grown since."""
    season = ("group", "season")
    growth = [(pl.col("level") / pl.col("level").shift(k).over(season)) for k in range(1, SEASONS + 1)]
    values = [
        pl.col(name).shift(k).over(season) * factor.clip(0.5, 2).fill_nan(1).fill_null(1)
        for k, factor in enumerate(growth, start=1)
    ]
    return pl.concat_list(values).list.drop_nulls()


def _spread(core: pl.DataFrame, metric: Metric, rhythm: Rhythm) -> pl.DataFrame:
    """Add `sd`, the standard deviation of a forecast, and `forecasts`, how many it was learnt from."""
    kept = pl.col("kept").is_not_null() & (pl.col("seen") > 1)
    core = core.with_columns(
        chance=_chance(metric), scale=_scale(metric), plain=kept & pl.col("turn").is_null()
    )
    core = core.with_columns(off=pl.when(kept).then((pl.col("value") - pl.col("expected")) / pl.col("scale")))

    def recent(number: pl.Expr) -> pl.Expr:
        before = pl.when("plain").then(number).shift(1)
        return before.rolling_median(rhythm.most, min_samples=rhythm.least).over("group", "slot")

    total = (stats.MAD_TO_SD * recent(pl.col("off").abs())) ** 2
    count = pl.col("plain").cast(pl.Int32).shift(1).rolling_sum(rhythm.most, min_samples=1)
    variance = pl.col("chance") + (total - recent(pl.col("chance"))).clip(0)
    core = core.with_columns(variance=variance, forecasts=count.over("group", "slot"))
    if metric.kind == "count":
        core = core.pipe(_turn)
    return core.with_columns(
        sd=pl.when(pl.col("seen") >= KNOWN).then(pl.col("variance").sqrt() * pl.col("scale"))
    )


def _scale(metric: Metric) -> pl.Expr:
    """What residuals are measured in: the expected count, since counts sway in proportion; rates as they are."""
    return pl.col("expected").clip(1) if metric.kind == "count" else pl.lit(1.0)


def _chance(metric: Metric) -> pl.Expr:
    """Return the variance that chance alone gives a residual: Poisson or binomial, never 0."""
    size = pl.when(pl.col("n") > 0).then(pl.col("n"))
    if metric.kind == "count":
        return 1 / _scale(metric)
    rate = pl.max_horizontal(pl.col("expected") / metric.per, 1 / (size + 2))
    fails = (1 - rate).clip(1 / (size + 2)) if metric.kind == "share" else pl.lit(1.0)
    return metric.per**2 * pl.when(pl.col("expected").is_not_null()).then(rate * fails / size)


def _turn(core: pl.DataFrame) -> pl.DataFrame:
    """Shift the expected volume at the turn of the month by what earlier turns taught, as far as they did."""
    before = pl.when(pl.col("turn").is_not_null()).then(pl.col("off")).shift(1)
    place = ("group", "turn")
    learnt = before.rolling_median(12, min_samples=1).over(place).fill_null(0)
    times = before.is_not_null().cast(pl.Int32).rolling_sum(12, min_samples=1).over(place)
    sway = pl.when(pl.col("turn").is_not_null()).then(SWAY**2).otherwise(0.0)
    weight = times * sway / (times * sway + pl.col("variance"))
    doubt = sway * (1 - weight) + pl.when("sways").then(SWAY**2).otherwise(0.0)
    return core.with_columns(
        expected=pl.col("expected") * (1 + weight * learnt), variance=pl.col("variance") + doubt
    )


def _decide(core: pl.DataFrame, metric: Metric, limit: float) -> pl.DataFrame:
    """Add the band, the size of the effect, and whether it is an alarm."""
    reach = limit * (1 + 3 / pl.col("forecasts")) * pl.col("sd")
    top = 1.0 if metric.kind == "share" else None
    value, expected = pl.col("value"), pl.col("expected")
    weight = pl.lit(1.0) if metric.kind == "count" else pl.col("n") / metric.per
    unit = pl.when(expected > 0).then(expected) if metric.kind == "count" else pl.lit(1.0)
    core = core.with_columns(
        usual_lo=(expected - reach).clip(0),
        usual_hi=(expected + reach).clip(None, top),
        expected=pl.when(reach.is_not_null()).then(expected),
        weight=weight,
        unit=unit,
    )
    return core.with_columns(
        excess_rows=(value - pl.col("expected")) * weight,
        effect=(value - pl.col("expected")) / unit,
        score=(value - expected) / pl.col("sd"),
        alarm=_alarm(metric),
    )


def _alarm(metric: Metric) -> pl.Expr:
    """Whether a value, or every value it may still take, lies outside the band by enough."""
    moving = (pl.col("state") == "immature") & (metric.kind == "share")
    most = pl.when(moving).then((pl.col("events") + pl.col("open")) / pl.col("n")).otherwise("value")
    judged = ((pl.col("state") == "complete") | moving) & ~pl.col("holiday")
    above = judged & (pl.col("value") > pl.col("usual_hi"))
    below = judged & (most < pl.col("usual_lo"))
    excess = pl.col("value") - pl.col("expected")
    return _matters(above, excess, metric) | _matters(below, pl.col("expected") - most, metric)


def _matters(outside: pl.Expr, excess: pl.Expr, metric: Metric) -> pl.Expr:
    """Whether what lies outside is large by itself, and costs enough rows within the last periods."""
    large = (outside & (excess >= LEAST[metric.kind] * pl.col("unit").fill_null(0))).fill_null(False)
    rows = pl.when(large).then(excess * pl.col("weight")).otherwise(0.0)
    return large & (rows.rolling_sum(WITHIN, min_samples=1).over("group") >= LEAST_ROWS)


def _core(periods: pl.DataFrame, groups: Sequence[str], clock: Clock, metric: Metric) -> pl.DataFrame:
    """Return what `judge` needs, under names that no group can have."""
    start = pl.col("period_start")
    day, left = start.dt.day().cast(pl.Int32), (start.dt.days_in_month() - start.dt.day()).cast(pl.Int32)
    slot = start.dt.hour().cast(pl.Int32) * 60 + start.dt.minute()
    place = pl.when(day <= TURN).then(day).otherwise(pl.when(left < TURN).then(-1 - left))
    if clock.every not in ("15min", "hour"):
        slot = pl.lit(0, pl.Int32)
    if clock.every in APART:
        place = pl.when((left < 7) & (clock.every == "week")).then(1).otherwise(None)
    core = periods.select(
        "period_start",
        "period_end",
        pl.col("events", "n", "open"),
        group=pl.struct(groups).rle_id() if groups else pl.lit(0, pl.UInt32),
        state=pl.col("period_state"),
        slot=slot,
        season=pl.lit(0) if clock.every in APART else start.dt.weekday().cast(pl.Int32) * 1440 + slot,
        turn=place * 1440 + slot,
    )
    tags = _tags(core.select("period_start", "period_end").unique(), clock)
    if clock.every in ("month", "quarter") or (clock.every == "week" and metric.kind != "count"):
        tags = tags.with_columns(holiday=pl.lit(False))
    return core.join(
        tags, on=["period_start", "period_end"], how="left", maintain_order="left", nulls_equal=True
    )


def _tags(spans: pl.DataFrame, clock: Clock) -> pl.DataFrame:
    """Return each period with `calendar_tag`, whether it holds a `holiday`, and whether a season `sways` it."""
    tags = [_tag(start, end, clock) for start, end in spans.iter_rows()]
    schema = {"calendar_tag": pl.String, "holiday": pl.Boolean, "sways": pl.Boolean}
    return pl.concat([spans, pl.DataFrame(tags, schema=schema, orient="row")], how="horizontal")


def _tag(start: datetime, end: datetime, clock: Clock) -> tuple[str | None, bool, bool]:
    if clock.calendar is None:
        return None, False, False
    days = _days(start, end)
    closed = [clock.calendar.holidays[day] for day in days if day in clock.calendar.holidays]
    seasons = [
        name
        for name, (first, last) in clock.calendar.special.items()
        if first <= days[-1] and days[0] <= last
    ]
    rest = ["weekend"] if len(days) == 1 and clock.calendar.is_weekend(days[0]) else []
    tag = ", ".join(dict.fromkeys([*closed, *seasons] or rest)) or None
    return tag, bool(closed), bool(seasons)


def _days(start: datetime, end: datetime) -> list[date]:
    last = (end - timedelta(microseconds=1)).date()
    return [start.date() + timedelta(days=k) for k in range((last - start.date()).days + 1)]


def _texts(
    answer: pl.DataFrame, groups: Sequence[str], metric: Metric, clock: Clock, causes: pl.DataFrame | None
) -> pl.Series:
    """Return the sentence of each alarm, null elsewhere."""
    main: dict[tuple[Any, ...], str] = {}
    if causes is not None and answer["alarm"].any():
        main = _main_causes(answer, groups, clock, causes)
    texts = []
    span = answer.select(pl.col("period_end").max() - pl.col("period_start").min()).item()
    for row in answer.filter("alarm").iter_rows(named=True):
        cause = main.get((row["period_start"], *(row[group] for group in groups)))
        mostly = f", mostly {cause}" if cause else ""
        at = when(row["period_start"], clock.every, dated=span > timedelta(days=366))
        texts.append(_sentence(row, groups, metric, at) + mostly)
    nothing = pl.Series("text", [None], dtype=pl.String).new_from_index(0, answer.height)
    return nothing.scatter(answer["alarm"].arg_true(), texts)


def _sentence(row: dict[str, Any], groups: Sequence[str], metric: Metric, at: str) -> str:
    more = row["excess_rows"] > 0
    bound = "" if row["period_state"] == "complete" else "at least " if more else "so far "
    season = f" ({row['calendar_tag']})" if row["calendar_tag"] not in (None, "weekend") else ""
    return (
        f"{who(row, groups)} {metric.label} {bound}{metric.show(row['value'])} {at}{season}, "
        f"usually {metric.band(row['usual_lo'], row['usual_hi'])}; "
        f"{abs(row['excess_rows']):,.0f} {metric.things} {'more' if more else 'fewer'} than usual"
    ).lstrip()


def _main_causes(
    answer: pl.DataFrame, groups: Sequence[str], clock: Clock, causes: pl.DataFrame
) -> dict[tuple[Any, ...], str]:
    """Return, per alarmed period and group, the cause of at least half of what is above the usual."""
    keys = ["period_start", *groups]
    held = _cube.in_periods(causes, [*groups, "cause"], clock, as_of=None, fill=False)
    held = held.select(*keys, "cause", caused="events").join(answer, on=keys, nulls_equal=True)
    quiet = pl.when(~pl.col("alarm")).then("caused").sum()
    share = (quiet.over(*groups, "cause") / quiet.over(groups or pl.lit(1))).fill_nan(0)
    excess = pl.col("caused") - share * pl.col("expected") * pl.col("n")
    found = held.with_columns(excess=excess).filter("alarm", pl.col("excess_rows") > 0)
    found = found.filter(pl.col("excess") >= pl.col("excess_rows") / 2).sort("excess", descending=True)
    top = found.unique(keys, keep="first", maintain_order=True)
    return {row[:-1]: row[-1] for row in top.select(*keys, "cause").iter_rows()}
