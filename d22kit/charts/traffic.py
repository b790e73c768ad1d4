"""How much do we communicate, and in which mix?"""

from __future__ import annotations

from functools import partial
from typing import Any

import altair as alt
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import Timeline, opened, timeline
from d22kit.charts._lines import WEEK, open_tail, settling, smoothed
from d22kit.charts._marks import (
    HEIGHT,
    WIDTH,
    colour,
    data,
    empty,
    finish,
    fitted,
    heading,
    layered,
    legend_filter,
    percent_axis,
    plot_width,
    time_axis,
    tip,
    value_axis,
)

__all__ = ["share", "volume"]

MOST_PARTS = 5
"""Groups named in a bar of 100%: with the pooled rest, six."""
MOST_LABELLED = 16
"""Bars that have room for numbers."""
MOST_BARS = 90
"""Periods drawn as bars; more are drawn as lines."""

DIRECTIONS = ("outbound", "inbound", "direction_unmapped")
DWARFED = 3
"""How many times the largest group the pooled rest is, from where it has a plot of its own."""


def volume(answer: Any, *, title: str | None = None) -> alt.LayerChart | alt.VConcatChart | alt.Chart:
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
        running mean of seven days. Where the pooled rest would flatten the lines of the groups it has a plot below.

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
    return fitted(partial(_volume, answer, title))


def _volume(answer: Any, title: str | None, part: float) -> alt.LayerChart | alt.VConcatChart | alt.Chart:
    line = timeline(answer, "volume", ["rows", *DIRECTIONS], size="rows", most_rows=int(2000 * part))
    total = int(line.rows["rows"].sum())
    head = heading(
        title or "How much do we communicate?",
        f"Rows created per {line.every} in {line.zone} · {line.range} · {total:,} rows",
        f"Thin lines: each {line.every}. Thick lines: the mean of the week up to it."
        if smoothed(line)
        else "",
        line.notes,
    )
    if not total:
        return empty(head)
    rows, order, label, colours = _series(line)
    call, unit = label or "direction", f"rows per {line.every}"
    if line.periods <= MOST_BARS:
        hue = colour(order, label, colours=colours)
        return finish(_bars(line, rows, hue, call), head, "volume")
    pick = legend_filter(line, "volume")
    if not line.title or not _dwarfs(line):
        hue = colour(order, label, colours=colours, symbol="stroke")
        return finish(_lines(line, rows, hue, call, unit, pick), head, "volume")
    *groups, rest = order
    hue = colour(groups, label, symbol="stroke")
    named = _lines(line, rows.filter(pl.col("g") != rest), hue, call, unit, pick)
    alone = colour([rest], symbol="none")
    pooled = _lines(line, rows.filter(pl.col("g") == rest), alone, call, f"{unit}, {rest}")
    plots = alt.vconcat(named, pooled.properties(height=HEIGHT // 3), spacing=24)
    # A legend that plots share does not take clicks.
    apart: alt.VConcatChart = plots.resolve_scale(color="independent").resolve_legend(color="independent")
    return finish(apart, head, "volume")


def _dwarfs(line: Timeline) -> bool:
    """Whether the pooled rest is so large that the groups' own lines would lie on the ground."""
    *named, last = line.order
    most = line.rows.group_by("g").agg(pl.col("rows").max())
    top = dict(most.iter_rows())
    return last.startswith("other (") and top[last] > DWARFED * max(top[g] for g in named)


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
    rank = {g: k for k, g in enumerate(hue["scale"]["domain"])}
    rows = rows.with_columns(u=_gap(), k=pl.col("g").replace_strict(rank))
    pick = legend_filter(line, "volume")
    bars = (
        alt.Chart(data(rows.filter(pl.col("v") > 0), "t", "u", "g", "k", "v", "w", "state"))
        .mark_bar(stroke=theme.PAPER, strokeWidth=0.5)  # apart in black and white too
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
    return layered(*_tail(line), bars, width=plot_width(line), height=HEIGHT)


def _lines(
    line: Timeline,
    rows: pl.DataFrame,
    hue: alt.Color,
    label: str,
    unit: str,
    pick: alt.Parameter | None = None,
) -> alt.LayerChart:
    """Lines per group. The layer that has the legend takes its clicks."""
    rows, smooth = _running(rows), smoothed(line)
    if smooth:
        rows = rows.with_columns(m=_mean(WEEK[line.every]))
    source = data(rows, "t", "g", "v", "w", "s", *(["m"] if smooth else []))
    base = alt.Chart(source).encode(
        x=time_axis(line), y=value_axis("v", unit), color=hue, tooltip=_tips(line, label)
    )
    if pick is not None:
        base = base.transform_filter(pick)
    look: dict[str, Any] = {"strokeWidth": 1 if smooth else 2, "opacity": 0.35 if smooth else 1}
    daily = base.transform_filter("datum.s < 2").mark_line(strokeCap="round", **look)
    if pick is not None:
        daily = daily.add_params(pick)
    dashed = base.transform_filter("datum.s > 0 && datum.s < 4").mark_line(strokeDash=[3, 3], **look)
    mean = [base.mark_line(strokeWidth=2.5).encode(y=alt.Y(field="m", type="quantitative"))] if smooth else []
    unfinished = [dashed] if rows["s"].is_in([1, 2, 3]).any() else []
    return layered(*_tail(line), daily, *unfinished, *mean, width=WIDTH, height=HEIGHT)


def _running(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `s` as `settling` does, for counts: they are final when their period ends. 4 is a first period cut short."""
    ended = rows.with_columns(
        state=pl.when(pl.col("state") == "partial").then("state").otherwise(pl.lit("complete"))
    )
    first = (pl.col("state") == "partial") & (pl.col("s") < 2)
    return settling(ended).with_columns(s=pl.when(first).then(4).otherwise("s"))


def _gap() -> pl.Expr:
    """Where a bar ends, so that there is a gap before the next."""
    return pl.col("t") + ((pl.col("u") - pl.col("t")) * 0.88).cast(pl.Int64)


def _tail(line: Timeline, *, lift: int = 0) -> list[alt.Chart]:
    """The hatched ground, where a period still runs: counts do not settle, they end."""
    running = bool((line.rows["state"] == "partial").any())
    return open_tail(line, text="unfinished", lift=lift) if running else []


def _mean(size: int) -> pl.Expr:
    """The mean of the week up to each period; an unfinished one has none."""
    settled = pl.when(pl.col("state") != "partial").then("v")
    mean = settled.rolling_mean(size, min_samples=size).over("g", order_by="t")
    return pl.when(pl.col("state") != "partial").then(mean)


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
    return fitted(partial(_share, answer, title))


def _share(answer: Any, title: str | None, part: float) -> alt.LayerChart | alt.Chart:
    opened(answer, "share", ["total_rows", "share"])
    line = timeline(
        answer, "share", ["rows", "share"], size="rows", most_rows=int(1500 * part), most=MOST_PARTS
    )
    total = int(line.rows["rows"].sum())
    head = heading(
        title or "What is our mix?",
        f"Share of the rows created per {line.every} · {line.zone} · {line.range} · {total:,} rows",
        line.notes,
    )
    if not total:
        return empty(head)
    whole = pl.col("rows").sum().over("t")
    of_whole = pl.col("rows") / pl.when(whole > 0).then(whole) if line.merged else pl.col("share")
    rank = pl.col("g").replace_strict({g: k for k, g in enumerate(line.order)})
    rows = (
        line.rows.with_columns(v=of_whole, k=rank, u=_gap())
        .sort("t", "k")
        .with_columns(y1=pl.col("v").cum_sum().over("t"))
    )
    rows = rows.with_columns(y0=pl.col("y1") - pl.col("v"), mid=pl.col("y1") - pl.col("v") / 2).filter(
        pl.col("v") > 0
    )
    chart = layered(
        *_tail(line, lift=_lift(line)), *_parts(line, rows), width=plot_width(line), height=HEIGHT
    )
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
        base.mark_bar(stroke=theme.PAPER, strokeWidth=0.5)
        .encode(
            x2=alt.X2(field="u"),
            y=y("y0"),
            y2=alt.Y2(field="y1"),
            color=colour(line.order, line.title),
            opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.12)),
            fillOpacity=alt.when(alt.datum.state == "partial").then(alt.value(0.55)).otherwise(alt.value(1)),
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
        .mark_text(fontSize=11)
        .encode(
            y=y("mid"),
            color=alt.when(alt.datum.state == "partial")
            .then(alt.value(theme.INK))
            .otherwise(alt.value(theme.PAPER)),
            text=alt.Text(field="v", type="quantitative", format=".0%"),
        )
    )
    tops = rows.group_by("t", "u", maintain_order=True).agg(pl.col("rows").sum())
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
