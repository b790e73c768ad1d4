"""Has it changed? The latest period against an earlier one, and against how much the group usually changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from d22kit.errors import InputError
from d22kit.questions import _cube
from d22kit.questions import _stats as stats
from d22kit.questions._metrics import Metric, cells, named, taken, when, who
from d22kit.questions._usual import HISTORY, ID, change, with_usual
from d22kit.questions.calendar import EVERY, Calendar, Cells, Clock, first_instant
from d22kit.questions.roles import RoleMap

__all__ = ["compare"]

SPAN = ("period_start", "period_end", "base_start", "base_end")
NUMBERS = {
    "value": pl.Float64,
    "base_value": pl.Float64,
    "n": pl.Int64,
    "base_n": pl.Int64,
    "difference": pl.Float64,
    "difference_lo": pl.Float64,
    "difference_hi": pl.Float64,
    "ratio": pl.Float64,
    "ratio_lo": pl.Float64,
    "ratio_hi": pl.Float64,
    "mix_effect": pl.Float64,
    "rate_effect": pl.Float64,
    "usual_lo": pl.Float64,
    "usual_hi": pl.Float64,
    "q": pl.Float64,
}
ANSWER = ("metric", *SPAN, *NUMBERS, "verdict")
APART = {"week": "w", "month": "mo", "quarter": "q"}
"""How far apart the periods that are compared lie; days and hours a week, so that weekdays align."""

DAY, WEEK = timedelta(days=1), timedelta(days=7)
ALPHA = 0.05


class Window(NamedTuple):
    """The latest period that can be judged: its start on the wall clock; how much of it has run, if not all."""

    start: datetime
    cut: timedelta | None


def compare(
    frame: _cube.Frame,
    *,
    metric: str,
    by: str | Iterable[str] = (),
    every: str = "week",
    periods_back: int = 1,
    tz: str = "UTC",
    calendar: Calendar | None = None,
    roles: RoleMap | None = None,
) -> Any:
    """Compare each group's latest period with an earlier one: has it changed, more than it usually does?

    Parameters
    ----------
    frame, by, every, tz, calendar, roles
        As in `volume`.
    metric
        As in `anomalies`.
    periods_back
        How many periods before: weeks, months or quarters; for days and hours the same weekday (and time of day) so
        many weeks before.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        One row per group: the groups, `metric`, `period_start`, `period_end`, `base_start`, `base_end` (what was
        counted), `value`, `base_value` (rows; 0–1; per 100), `n`, `base_n` (rows of the denominator),
        `difference` and `ratio` with 95% limits `_lo` and `_hi`, `mix_effect` and `rate_effect` (this group's
        part in the change of the total rate, by a change of its share or of its rate; over all groups they add
        up to it; null for the volume), `usual_lo`, `usual_hi` (within which the difference usually lies; null
        with under 7 earlier changes), `q` (Benjamini–Hochberg over the groups) and `verdict` in words.

    Raises
    ------
    InputError
        Where the metric, a column, the period or the zone is unknown, or `periods_back` is under 1.

    Notes
    -----
    *Equal age.* The volume's latest period may still run: then only its whole hours so far (of a month or
    quarter, its whole days) are counted, and as many of every earlier period. Rates wait instead: only the
    latest state of a row is known, so what a base period looked like at the same age is lost; their latest
    period is the last one whose outcomes have had 72 hours to settle.

    *Aligned weekdays.* The base volume of a month or quarter is what its weekdays would give with the latest
    period's number of each; of a running one at least the first seven days count. `base_n` stays the plain
    count.

    *Intervals.* Shares: Wilson; their difference: Newcombe. Counts and numbers per hundred: quasi-Poisson, its
    dispersion taken from the weekdays (in a day: the hours) of both periods. *Usual*: the median of the group's
    earlier changes (of counts, of their logarithms), plus or minus the larger of their robust spread (by Student's
    t) and chance. *Mix and rate*: E. Kitagawa, "Components of a difference between two rates", JASA 50 (1955); what
    is answered in a group that nothing was delivered to counts as rate.

    Examples
    --------
    >>> from datetime import datetime, timedelta, UTC
    >>> import polars as pl
    >>> start = datetime(2026, 1, 5, tzinfo=UTC)
    >>> weekly = [700, 690, 710, 705, 695, 700, 702, 698, 1100, 1]
    >>> times = [start + timedelta(weeks=week) for week, rows in enumerate(weekly) for _ in range(rows)]
    >>> rows = pl.DataFrame({"created_at": times, "updated_at": times})
    >>> answer = compare(rows, metric="volume")
    >>> answer.select("value", "base_value", pl.col("ratio").round(2)).rows()
    [(1100.0, 698.0, 1.58)]
    >>> print(answer["verdict"][0])
    volume 1,100 in the week of 2 March, 402 rows more than in the week of 23 February (698): \
beyond its usual variation (−87 to +79)
    """
    measure = named(metric)
    groups = _cube.group_columns(frame, by, (*ANSWER, *taken(measure), ID))
    clock = Clock.of(every, tz, calendar)
    if not isinstance(periods_back, int) or periods_back < 1:
        raise InputError(f"periods_back={periods_back!r} must be a whole number, 1 or more.")
    # A count may be cut at any hour; rates take whole periods, of which days are judged by their hours.
    spans: Cells = {"step": clock.step, "phases": (0,)}
    if measure.kind != "count":
        spans = Clock.of("hour" if every == "day" else every, tz, calendar).cells
    counts, _, moment = cells(frame, measure, groups, spans=spans, roles=roles, by_cause=False)
    counts, names = _numbered(counts, groups)
    window = _window(counts["hour"], clock, measure, moment)
    starts = _starts(window, clock, range(HISTORY + periods_back + 1))
    judged = _judge(_pairs(_blocks(counts, starts, window, clock), periods_back, measure), measure)
    answer = names.join(judged, on=ID, how="left", maintain_order="left")
    answer = answer.with_columns(_edges(window, clock, periods_back), metric=pl.lit(metric))
    verdicts = [_verdict(row, groups, measure, clock, window) for row in answer.iter_rows(named=True)]
    answer = answer.with_columns(verdict=pl.Series(verdicts, dtype=pl.String))
    return _cube.give_back(answer.select(*groups, *ANSWER).cast(NUMBERS), frame, moment)  # type: ignore[arg-type]


def _numbered(counts: pl.DataFrame, groups: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the counts under a number per group, so that no group's name can clash, and whose number it is."""
    if not groups:
        one = pl.lit(0, pl.UInt32).alias(ID)
        return counts.with_columns(one), counts.select(one).unique()
    names = counts.select(groups).unique().sort(groups, nulls_last=True).with_row_index(ID)
    return counts.join(names, on=list(groups), nulls_equal=True).drop(groups), names


def _window(hours: pl.Series, clock: Clock, metric: Metric, moment: datetime | None) -> Window | None:
    """Return the latest period that is whole (and settled, where outcomes matter), or has run for a while."""
    grain = DAY if clock.every in ("month", "quarter") else timedelta(hours=1)
    if moment is None:
        return None
    spans = clock.spans(hours.unique(), fill=False)
    for place in reversed(range(spans.height)):
        start, end = spans.row(place)
        began = start.replace(tzinfo=None)
        if end <= moment - (timedelta() if metric.kind == "count" else _cube.IMMATURE):
            return Window(began, None)
        run = moment.astimezone(start.tzinfo).replace(tzinfo=None) - began
        if metric.kind == "count" and run >= grain:
            return Window(began, run // grain * grain)
    return None


def _starts(window: Window | None, clock: Clock, agos: Iterable[int]) -> pl.DataFrame:
    """Return `ago`, and where the period so many before begins and ends on the wall clock."""
    starts = pl.DataFrame({"ago": agos if window else []}, {"ago": pl.Int64})
    latest = pl.lit(window.start if window else None, pl.Datetime("us"))
    apart = pl.format("-{}" + APART.get(clock.every, "w"), pl.col("ago"))
    starts = starts.with_columns(start=latest.dt.offset_by(apart))
    return starts.with_columns(end=pl.col("start").dt.offset_by(EVERY[clock.every]))


def _blocks(counts: pl.DataFrame, starts: pl.DataFrame, window: Window | None, clock: Clock) -> pl.DataFrame:
    """Sum cells into periods of equal age, cut into blocks that align: weekdays, or the hours of a day.

    Every group has every period and block: `events`, `n`, and what a later period's base is made of, `reach`
    (the events of at least a week) and its `days`, beside `young`, the days so far.
    """
    wall = counts["hour"].dt.convert_time_zone(clock.zone).dt.replace_time_zone(None)
    starts = starts.filter(pl.col("end") > pl.lit(wall.min(), pl.Datetime("us"))).sort("start")
    cut = window.cut if window and window.cut else timedelta(days=400)
    far = max(cut, WEEK) if clock.every in ("month", "quarter") else cut
    age = pl.col("wall") - pl.col("start")
    cells = counts.with_columns(wall=wall).sort("wall").join_asof(starts, left_on="wall", right_on="start")
    sums = (
        cells.filter(pl.col("wall") < pl.col("end"))
        .group_by(ID, "ago", _block(clock))
        .agg(pl.col("events", "n").filter(age < cut).sum(), reach=pl.col("events").filter(age < far).sum())
    )
    each = starts.with_columns(wall=pl.datetime_ranges("start", "end", _grain(clock), closed="left")).explode(
        "wall"
    )
    lengths = each.group_by("ago", _block(clock)).agg(young=(age < cut).sum(), days=(age < far).sum())
    grid = lengths.join(counts.select(ID).unique(), how="cross")
    return grid.join(sums, on=[ID, "ago", "block"], how="left").fill_null(0)


def _block(clock: Clock) -> pl.Expr:
    wall = pl.col("wall").dt
    block = wall.weekday() if clock.every in APART else wall.hour() if clock.every == "day" else pl.lit(0)
    return block.cast(pl.Int32).alias("block")


def _grain(clock: Clock) -> str:
    return "1d" if clock.every in APART else "1h" if clock.every == "day" else EVERY[clock.every]


def _pairs(blocks: pl.DataFrame, periods_back: int, metric: Metric) -> pl.DataFrame:
    """Set every period beside its base: `events`, `n`, `base_events`, `base_n`, `spread` and its `df`.

    The base events of a count are brought to the period's own number of days of each kind.
    """
    base = blocks.select(
        ID,
        "block",
        ago=pl.col("ago") - periods_back,
        base_events="events",
        base_n="n",
        reach="reach",
        base_days="days",
    )
    pairs = blocks.drop("reach", "days").join(base, on=[ID, "ago", "block"], how="left")
    if metric.kind == "count":
        pairs = pairs.with_columns(base_events=pl.col("reach") * _over("young", "base_days"))
    events, n, base_events, base_n = (pl.col(name) for name in ("events", "n", "base_events", "base_n"))
    if metric.kind == "count":
        spread, loss = stats.dispersion(events, events + base_events, binomial=True), 1
    else:
        spread, loss = (stats.dispersion(events, n) + stats.dispersion(base_events, base_n)) / 2, 2
    known = base_events.is_not_null().any()
    # Sorted, since sums of floats depend on the order.
    sums = (
        pairs.sort(ID, "ago", "block")
        .group_by(ID, "ago")
        .agg(
            events.sum(),
            n.sum(),
            *(pl.when(known).then(pl.col(name).sum()).alias(name) for name in ("base_events", "base_n")),
            spread=spread,
            df=pl.when(pl.len() > 1).then(pl.len() * loss - loss).otherwise(math.inf),
        )
    )
    return sums.sort(ID, "ago")


def _over(part: str, whole: str) -> pl.Expr:
    """Return a ratio; 0 where both are, for a kind of day that neither period has reached."""
    return pl.when(pl.col(whole) == 0).then(0.0).otherwise(pl.col(part) / pl.col(whole))


def _judge(pairs: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    """Return each group's latest pair with its difference, ratio, effects, and what its earlier pairs teach."""
    pairs = pairs.with_columns(
        value=metric.value(pl.col("events"), pl.col("n")),
        base_value=metric.value(pl.col("base_events"), pl.col("base_n")),
    ).with_columns(difference=pl.col("value") - pl.col("base_value"), change=change(metric))
    latest = pairs.filter(pl.col("ago") == 0)
    return with_usual(latest.pipe(_intervals, metric).pipe(_effects, metric), pairs, metric)


def _intervals(pairs: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    """Add the difference and the ratio with their 95% limits."""
    value, base = pl.col("value"), pl.col("base_value")
    now, then = (_interval(prefix, metric) for prefix in ("", "base_"))
    difference = stats.difference_interval(value, now, base, then)
    ratio = stats.ratio_of_intervals(value, now, base, then)
    return pairs.with_columns(
        difference_lo=difference[0],
        difference_hi=difference[1],
        ratio=pl.when(base > 0).then(value / base),
        ratio_lo=ratio[0],
        ratio_hi=ratio[1],
    )


def _interval(prefix: str, metric: Metric) -> stats.Interval:
    events, n = pl.col(f"{prefix}events"), pl.col(f"{prefix}n")
    if metric.kind == "share":
        return stats.wilson(events, n)
    exposure = 1.0 if metric.kind == "count" else n / metric.per
    lo, hi = stats.ratio_interval(events, exposure, pl.col("spread"), pl.col("df"))
    known = pl.col(f"{prefix}value").is_not_null()
    return pl.when(known).then(lo), pl.when(known).then(hi)


def _effects(pairs: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    """Split the change of the total rate into what each group adds by its share and by its rate.

    A group that has no rate in one period lends it from the other: all its effect is mix. Events of a group without
    a denominator, such as answers in a channel that nothing was delivered on, are an effect of its rate.
    """
    if metric.kind == "count":
        return pairs.with_columns(mix_effect=None, rate_effect=None)
    weight, base_weight = pl.col("n") / pl.col("n").sum(), pl.col("base_n") / pl.col("base_n").sum()
    part, base_part = (metric.per * pl.col(f"{b}events") / pl.col(f"{b}n").sum() for b in ("", "base_"))
    total = (part.sum() + base_part.sum()) / 2
    rate = (pl.coalesce("value", "base_value") + pl.coalesce("base_value", "value")) / 2
    mix = (weight - base_weight) * rate.fill_null(total)
    return pairs.with_columns(
        mix_effect=mix - (weight - base_weight) * total, rate_effect=part - base_part - mix
    ).with_columns(pl.col("mix_effect", "rate_effect").fill_nan(None))


def _edges(window: Window | None, clock: Clock, periods_back: int) -> list[pl.Expr]:
    """Return what was counted, as instants of the clock's zone."""
    starts = _starts(window, clock, (0, periods_back))
    if window and window.cut:
        starts = starts.with_columns(end=pl.min_horizontal("end", pl.col("start") + window.cut))
    edges = [first_instant(starts[name], clock.zone) for name in ("start", "end")]
    values = [edge[place] if window else None for place in (0, 1) for edge in edges]
    return [
        pl.lit(value, pl.Datetime("us", clock.zone)).alias(name)
        for name, value in zip(SPAN, values, strict=True)
    ]


def _verdict(
    row: dict[str, Any], groups: Sequence[str], metric: Metric, clock: Clock, window: Window | None
) -> str:
    label = f"{who(row, groups)} {metric.label}".lstrip()
    if window is None:
        return f"{label}: no period to compare" + (
            "" if metric.kind == "count" else " whose outcomes have settled"
        )
    shown = "" if row["value"] is None else f" {metric.show(row['value'])}"
    latest = f"{label}{shown} {when(row['period_start'], clock.every)}"
    if row["difference"] is None:
        return f"{latest}: nothing to compare it with"
    apart = metric.apart(row["value"], row["base_value"])
    size = metric.size(abs(apart))
    moved = "as" if size == metric.size(0.0) else f"{size} {'more' if apart > 0 else 'less'} than"
    base = f"{when(row['base_start'], clock.every)} ({metric.show(row['base_value'])})"
    return f"{latest}, {moved} {base}{_age(window)}: {_usual(row, metric)}{_small(row)}"


def _age(window: Window) -> str:
    if not window.cut:
        return ""
    days, hours = window.cut.days, window.cut.seconds / 3600
    parts = [f"{n:g} {unit}{'s' * (n != 1)}" for n, unit in ((days, "day"), (hours, "hour")) if n]
    return f", the first {' '.join(parts)} of each"


def _usual(row: dict[str, Any], metric: Metric) -> str:
    if row["usual_lo"] is None:
        return "too few earlier changes to say what is usual"
    band = f"({metric.change(row['usual_lo'])} to {metric.change(row['usual_hi'])})"
    if row["usual_lo"] <= row["difference"] <= row["usual_hi"]:
        return f"within its usual variation {band}"
    if row["q"] < ALPHA:
        return f"beyond its usual variation {band}"
    return f"beyond its usual variation {band}, as one of so many groups may well be"


def _small(row: dict[str, Any]) -> str:
    return f"; under {_cube.SMALL} rows" if min(row["n"], row["base_n"]) < _cube.SMALL else ""
