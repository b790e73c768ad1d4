"""How much do we communicate, when, and in which mix?"""

from __future__ import annotations

from functools import partial
from typing import Any

import altair as alt
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import Timeline, groups_of, opened, pool, timeline
from d22kit.charts._marks import (
    HEIGHT,
    WIDTH,
    caption,
    colour,
    data,
    empty,
    finish,
    heading,
    layered,
    legend_filter,
    open_tail,
    panels,
    percent_axis,
    time_axis,
    tip,
    value_axis,
)

__all__ = ["heatmap", "share", "volume"]

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MOST_PARTS = 5
"""Groups named in a bar of 100%: with the pooled rest, six."""
MOST_LABELLED = 16
"""Bars that have room for numbers."""
MOST_BARS = 90
"""Periods drawn as bars; more are drawn as lines."""

DIRECTIONS = ("outbound", "inbound", "direction_unmapped")
WEEK = {"15min": 672, "hour": 168, "day": 7}
"""Periods in a week: a line is smoothed over them, since weekends dip."""


def volume(answer: Any, *, title: str | None = None) -> alt.LayerChart | alt.Chart:
    """Draw rows per period: bars up to 90 periods, lines beyond. How much do we communicate?

    Parameters
    ----------
    answer
        The answer of `d22kit.volume`, as it came or filtered.
    title
        In place of the question.

    Returns
    -------
    altair.LayerChart
        Stacked by group, else by direction. Unfinished periods are pale. A long daily line stands behind its
        running mean of seven days.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.volume`.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> import d22kit, polars as pl
    >>> times = [datetime(2026, 5, day, tzinfo=UTC) for day in (1, 2, 2)]
    >>> rows = pl.DataFrame({"type": ["OUTBOUND", "OUTBOUND", "INBOUND"], "created_at": times, "updated_at": times})
    >>> rows.pipe(d22kit.volume).pipe(volume).to_dict()["title"]["text"]
    'How much do we communicate?'
    """
    line = timeline(answer, "volume", ["rows", *DIRECTIONS], size="rows", most_rows=2000)
    total = int(line.rows["rows"].sum())
    head = heading(
        title or "How much do we communicate?",
        f"Rows created per {line.every} in {line.zone} · {line.range} · {total:,} rows",
        f"Thin lines: each {line.every}. Thick lines: the mean of the week up to it."
        if line.periods > MOST_BARS and line.every in WEEK
        else "",
        line.notes,
    )
    if not total:
        return empty(head)
    rows, order, label, colours = _series(line)
    bars = line.periods <= MOST_BARS
    hue = colour(order, label, colours=colours, symbol="square" if bars else "stroke")
    if bars:
        rows = rows.with_columns(k=pl.col("g").replace_strict({g: k for k, g in enumerate(order)}))
    chart = (_bars if bars else _lines)(line, rows, hue, label or "direction")
    return finish(chart, head, "volume")


def _series(line: Timeline) -> tuple[pl.DataFrame, list[str], str, list[str]]:
    """One series per group, else one per direction."""
    if line.title:
        return line.rows.with_columns(v="rows"), line.order, line.title, []
    long = line.rows.drop("g").unpivot(
        DIRECTIONS, index=["t", "u", "w", "state"], variable_name="g", value_name="v"
    )
    names = {"outbound": "outbound", "inbound": "inbound", "direction_unmapped": "direction unknown"}
    present = [name for name in DIRECTIONS if line.rows[name].sum()]
    long = long.filter(pl.col("g").is_in(present)).with_columns(pl.col("g").replace(names))
    colours = dict(zip(DIRECTIONS, (theme.PALETTE[0], theme.PALETTE[1], theme.GREY), strict=True))
    return long, [names[name] for name in present], "", [colours[name] for name in present]


def _tips(line: Timeline, label: str) -> list[alt.Tooltip]:
    return [tip("w", line.every), tip("g", label), tip("v", "rows", ",")]


def _bars(line: Timeline, rows: pl.DataFrame, hue: alt.Color, label: str) -> alt.LayerChart:
    rows = rows.with_columns(u=_gap())
    pick = legend_filter(line, "volume")
    bars = (
        alt.Chart(data(rows.filter(pl.col("v") > 0), "t", "u", "g", "k", "v", "w", "state"))
        .mark_bar(cornerRadius=0)
        .encode(
            x=time_axis(line),
            x2=alt.X2(field="u"),
            y=value_axis("y0", f"rows per {line.every}"),
            y2=alt.Y2(field="y1"),
            color=hue,
            opacity=alt.when(alt.datum.state == "partial").then(alt.value(0.45)).otherwise(alt.value(1)),
            tooltip=_tips(line, label),
        )
        .transform_filter(pick)
        .transform_stack(stack="v", as_=["y0", "y1"], groupby=["t"], sort=[alt.SortField("k")])
        .add_params(pick)
    )
    return layered(*_tail(line), bars, width=WIDTH, height=HEIGHT)


def _lines(line: Timeline, rows: pl.DataFrame, hue: alt.Color, label: str) -> alt.LayerChart:
    rows, smooth = _smoothed(rows, line.every)
    pick = legend_filter(line, "volume")
    base = (
        alt.Chart(data(rows, "t", "g", "v", "w", *(["m"] if smooth else [])))
        .encode(
            x=time_axis(line),
            y=value_axis("v", f"rows per {line.every}"),
            color=hue,
            tooltip=_tips(line, label),
        )
        .transform_filter(pick)
    )
    daily = base.mark_line(strokeWidth=1 if smooth else 2, opacity=0.35 if smooth else 1).add_params(pick)
    mean = [base.mark_line(strokeWidth=2.5).encode(y=alt.Y(field="m", type="quantitative"))] if smooth else []
    return layered(*_tail(line), daily, *mean, width=WIDTH, height=HEIGHT)


def _gap() -> pl.Expr:
    """Where a bar ends, so that there is a gap before the next."""
    return pl.col("t") + ((pl.col("u") - pl.col("t")) * 0.88).cast(pl.Int64)


def _tail(line: Timeline, *, lift: int = 0) -> list[alt.Chart]:
    """The hatched ground, where a period still runs: counts do not settle, they end."""
    running = bool((line.rows["state"] == "partial").any())
    return open_tail(line, text="unfinished", lift=lift) if running else []


def _smoothed(rows: pl.DataFrame, every: str) -> tuple[pl.DataFrame, bool]:
    """Add the mean of the week up to each period; an unfinished one has none."""
    if every not in WEEK:
        return rows, False
    settled = pl.when(pl.col("state") != "partial").then("v")
    mean = settled.rolling_mean(WEEK[every], min_samples=WEEK[every]).over("g", order_by="t")
    return rows.with_columns(m=pl.when(pl.col("state") != "partial").then(mean)), True


def heatmap(answer: Any, *, tz: str | None = None, title: str | None = None) -> alt.ConcatChart | alt.Chart:
    """Draw rows per hour of the week as a grid. When do we communicate?

    Parameters
    ----------
    answer
        The answer of `d22kit.heatmap`, as it came or filtered.
    tz
        The zone that was asked for, to be named on the axis; this answer does not hold it.
    title
        In place of the question.

    Returns
    -------
    altair.ConcatChart
        Darker is more. With several groups there is a grid each, shaded against its own busiest hour.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.heatmap`.
    """
    frame = opened(answer, "heatmap", ["weekday", "hour", "rows", "hours_observed"])
    dated = frame.filter(pl.col("weekday").is_not_null())
    named = pool(dated, groups_of(frame, after=None, before="weekday"), "rows")
    cells = named.rows.group_by("g", "weekday", "hour").agg(
        pl.col("rows").sum(), pl.col("hours_observed").max()
    )
    cells = cells.filter(pl.col("hours_observed") > 0).with_columns(
        v=pl.col("rows") / pl.col("hours_observed")
    )
    total, undated = int(cells["rows"].sum()), int(frame.filter(pl.col("weekday").is_null())["rows"].sum())
    head = heading(
        title or "When do we communicate?",
        f"Rows per hour of the week, local time{f' in {tz}' if tz else ''} · {total:,} rows",
        [*named.notes, *([f"{undated:,} rows without a time are not drawn."] if undated else [])],
    )
    if not total:
        return empty(head)
    if len(named.order) > 1:
        cells = cells.with_columns(c=pl.col("v") / pl.col("v").max().over("g"))
    size = (26, 26) if len(named.order) == 1 else (13, 16)
    drawn = [grid(cells.filter(pl.col("g") == g), g, cell=size, tz=tz) for g in named.order]
    return finish(panels(drawn, min(2, len(drawn))), head, "heatmap")


def grid(cells: pl.DataFrame, name: str, *, cell: tuple[float, float], tz: str | None = None) -> alt.Chart:
    """Return the grid of one group: `v` rows per hour, shaded by `c` where groups have grids of their own."""
    first, after = (
        pl.col("hour").cast(pl.String).str.zfill(2),
        ((pl.col("hour") + 1) % 24).cast(pl.String).str.zfill(2),
    )
    day = pl.col("weekday").replace_strict(dict(enumerate(DAYS, 1)), return_dtype=pl.String)
    words = pl.format("{} {}:00–{}:00", day, first, after)
    cells = cells.with_columns(d=day.str.slice(0, 3), w=words).sort("v", descending=True)
    busiest = cells.row(0, named=True)
    own = "c" in cells.columns
    days = [day[:3] for day in DAYS]
    hours = alt.Axis(
        title=f"hour, {tz}" if tz else "hour",
        titleAnchor="end",
        labelAngle=0,
        labelExpr="datum.value % 3 ? '' : datum.label + ':00'",
    )
    chart: alt.Chart = (
        alt.Chart(data(cells, "d", "hour", "v", "w", "rows", *(["c"] if own else [])))
        .mark_rect()
        .encode(
            x=alt.X(
                field="hour",
                type="ordinal",
                axis=hours,
                scale=alt.Scale(domain=list(range(24)), paddingInner=0.06),
            ),
            y=alt.Y(
                field="d",
                type="ordinal",
                sort=days,
                axis=alt.Axis(title=None),
                scale=alt.Scale(domain=days, paddingInner=0.06),
            ),
            color=_shade(own),
            tooltip=[tip("w", "when"), tip("v", "rows per hour", ",.2~f"), tip("rows", "rows", ",")],
        )
        .properties(
            width=24 * cell[0],
            height=7 * cell[1],
            title=caption(name, f"busiest: {busiest['w']}, {busiest['v']:,.1f} rows per hour"),
        )
    )
    return chart


def _shade(own: bool) -> alt.Color:
    """How dark a cell is: by its rows per hour, or by how near it comes to its own group's busiest hour."""
    legend = alt.Legend(
        title=["of the group's", "busiest hour"] if own else "rows per hour",
        format="~%" if own else ",.2~f",
        gradientLength=110,
    )
    scale = alt.Scale(range=list(theme.RAMP), domainMin=0)
    return alt.Color(field="c" if own else "v", type="quantitative", scale=scale, legend=legend)


def share(answer: Any, *, title: str | None = None) -> alt.LayerChart | alt.Chart:
    """Draw the share of each group per period, in bars of 100%. What is our mix, and does it shift?

    Parameters
    ----------
    answer
        The answer of `d22kit.share`, as it came or filtered.
    title
        In place of the question.

    Returns
    -------
    altair.LayerChart
        At most five groups by name, the rest pooled. Few bars carry their percentages, and their rows above them.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.share`.
    """
    opened(answer, "share", ["total_rows", "share"])
    line = timeline(answer, "share", ["rows", "share"], size="rows", most_rows=1500, most=MOST_PARTS)
    total = int(line.rows["rows"].sum())
    head = heading(
        title or "What is our mix?",
        f"Share of the rows created per {line.every} · {line.zone} · {line.range} · {total:,} rows",
        line.notes,
    )
    if not total:
        return empty(head)
    whole = pl.col("rows").sum().over("t")
    part = pl.col("rows") / pl.when(whole > 0).then(whole) if line.merged else pl.col("share")
    rank = pl.col("g").replace_strict({g: k for k, g in enumerate(line.order)})
    rows = (
        line.rows.with_columns(v=part, k=rank, u=_gap())
        .sort("t", "k")
        .with_columns(y1=pl.col("v").cum_sum().over("t"))
    )
    rows = rows.with_columns(y0=pl.col("y1") - pl.col("v"), mid=pl.col("y1") - pl.col("v") / 2).filter(
        pl.col("v") > 0
    )
    chart = layered(*_tail(line, lift=_lift(line)), *_parts(line, rows), width=WIDTH, height=HEIGHT)
    return finish(chart, head, "share")


def _lift(line: Timeline) -> int:
    """Room above the bars for their rows."""
    return 16 if line.periods <= MOST_LABELLED else 0


def _parts(line: Timeline, rows: pl.DataFrame) -> list[alt.Chart]:
    pick = legend_filter(line, "share")
    source = data(rows, "t", "u", "g", "v", "y0", "y1", "mid", "w", "rows", "state")
    base = alt.Chart(source).encode(x=time_axis(line))
    y = partial(percent_axis, title=f"share of the {line.every}'s rows", lift=_lift(line), domain=[0, 1])
    bars = (
        base.mark_bar()
        .encode(
            x2=alt.X2(field="u"),
            y=y("y0"),
            y2=alt.Y2(field="y1"),
            color=colour(line.order, line.title),
            opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.12)),
            tooltip=[
                tip("w", line.every),
                tip("g", line.title),
                tip("v", "share", ".1%"),
                tip("rows", "rows", ","),
            ],
        )
        .add_params(pick)
    )
    if line.periods > MOST_LABELLED:
        return [bars]
    middle = base.transform_calculate(c="(datum.t + datum.u) / 2").encode(x=time_axis(line, "c"))
    percents = (
        middle.transform_filter("datum.v >= 0.07")
        .mark_text(color=theme.PAPER, fontSize=11)
        .encode(y=y("mid"), text=alt.Text(field="v", type="quantitative", format=".0%"))
    )
    tops = rows.group_by("t", "u").agg(pl.col("rows").sum())
    counts = (
        alt.Chart(data(tops))
        .transform_calculate(c="(datum.t + datum.u) / 2")
        .mark_text(style="d22kit-note", baseline="bottom", dy=-3, fontSize=10)
        .encode(
            x=time_axis(line, "c"),
            y=alt.value(0),
            text=alt.Text(field="rows", type="quantitative", format=","),
        )
    )
    return [bars, percents, counts]
