"""Does anyone answer, and at what hours do we write?"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import altair as alt
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import Timeline, groups_of, highest, opened, pool, shown, timeline
from d22kit.charts._lines import columns_of, line_with_band, open_tail, panel_width, settling
from d22kit.charts._marks import (
    caption,
    colour,
    data,
    empty,
    finish,
    heading,
    layered,
    note,
    panels,
    percent_axis,
    plot_width,
    plural,
    time_axis,
    tip,
    value_axis,
)

__all__ = ["contact_hours", "engagement"]

RATE = "inbound_per_100_delivered"
LIMITS = (f"{RATE}_lo", f"{RATE}_hi")
SCREENED = ("outbound", "inside", "outside_hours", "outside_days")
COUNTS = ("attempted", "delivered", "inbound", "automated", "person")


def engagement(answer: Any, *, title: str | None = None) -> alt.ConcatChart | alt.Chart:
    """Draw inbound rows per 100 delivered ones, a panel per channel. Does anyone answer?

    Parameters
    ----------
    answer
        The answer of `d22kit.engagement`, as it came or filtered.
    title
        In place of the question.

    Returns
    -------
    altair.ConcatChart
        Each panel has the rate with its 95% interval, on one scale for all, and names the whole rate and the
        automated share. Where no row maps to inbound it says so.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.engagement`.
    """
    line = timeline(
        answer, "engagement", COUNTS, size="attempted", intervals=LIMITS, most_rows=1850, panel=55
    )
    sums = line.rows.select(pl.col("attempted", "delivered", "inbound").sum()).row(0, named=True)
    head = heading(
        title or "Does anyone answer?",
        f"Per {line.every} of creation · {line.zone} · {line.range} · {sums['inbound'] or 0:,} inbound and "
        f"{sums['delivered']:,} delivered rows",
        "Rows against rows: nothing is paired, no people are counted. Bands are 95% intervals.",
        line.notes,
    )
    if not line.rows.height:
        return empty(head)
    if line.rows["inbound"].is_null().all():
        unheard = "No row was recognised as inbound, so there is no rate. d22kit.profile(frame) lists the words found."
        return finish(note(unheard), head, "engagement")
    rows = line.rows.with_columns(
        v=100 * pl.col("inbound") / pl.when(pl.col("delivered") > 0).then("delivered")
    ).rename(dict(zip(LIMITS, ("lo", "hi"), strict=True)))
    top = _room(rows)
    columns = columns_of(line)
    drawn = [_answers(line, rows.filter(pl.col("g") == g), g, top, columns) for g in line.order]
    return finish(panels(drawn, columns), head, "engagement")


def _room(rows: pl.DataFrame) -> float:
    """How far up the axis goes: room for the lines, and for most bands, unless few rows blow these up."""
    top = highest(rows["v"], 1)
    return max(1.15 * top, min(1.5 * top, float(rows["hi"].cast(pl.Float64).quantile(0.75) or 0)))


def _answers(line: Timeline, rows: pl.DataFrame, group: str, top: float, columns: int) -> alt.LayerChart:
    sums = rows.select(pl.col(COUNTS).sum()).row(0, named=True)
    tips = [
        tip("w", line.every),
        tip("v", "inbound per 100 delivered", ".1f"),
        tip("lo", "95% from", ".1f"),
        tip("hi", "95% to", ".1f"),
        tip("inbound", "inbound", ","),
        tip("delivered", "delivered", ","),
    ]
    y = partial(value_axis, title="inbound per 100 delivered", step=0.01, domain=[0, top], nice=True)
    rows = settling(rows)
    source = data(rows, "t", "u", "v", "lo", "hi", "w", "s", "inbound", "delivered")
    marks = line_with_band(line, source, set(rows["s"]), y, tips)
    return layered(
        *open_tail(line), *marks, width=panel_width(columns), height=150, title=caption(group, _totals(sums))
    )


def _totals(sums: dict[str, int]) -> str:
    started = sums["automated"] + sums["person"]
    automated = f", {sums['automated'] / started:.0%} of outbound automated" if started else ""
    if not sums["delivered"]:
        return f"nothing delivered, {sums['inbound']:,} inbound{automated}"
    return f"{100 * sums['inbound'] / sums['delivered']:.1f} per 100 delivered{automated}"


def contact_hours(answer: Any, *, title: str | None = None) -> alt.ConcatChart | alt.Chart:
    """Draw the rows created outside a rule of hours, by period or by the hour of the day.

    Parameters
    ----------
    answer
        The answer of `d22kit.contact_hours`, as it came or filtered. Asked with `every="hour"` it is drawn as a
        histogram of the 24 hours; with longer periods, as the share outside per period, above the span from the
        earliest to the latest row.
    title
        In place of the question.

    Returns
    -------
    altair.ConcatChart
        A panel per group.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.contact_hours`.
    """
    frame = opened(answer, "contact_hours", ["rule", "zone", *SCREENED, "earliest_local", "latest_local"])
    clocked = frame.with_columns(_hours("earliest_local"), _hours("latest_local"))
    intervals = ["earliest_local", "latest_local"]
    line = timeline(clocked, "contact_hours", SCREENED, size="outbound", intervals=intervals, most_rows=800)
    sums = line.rows.select(pl.col(SCREENED).sum()).row(0, named=True)
    outside = sums["outside_hours"] + sums["outside_days"]
    placed = sums["inside"] + outside
    rules = " and ".join(shown(rule) for rule in frame["rule"].unique().sort())
    head = heading(
        title or f"Do we write outside the hours of {rules or 'the rule'}?",
        f"{outside:,} of {placed:,} outbound rows ({outside / max(placed, 1):.1%}) were created outside · "
        f"{line.zone} · {line.range}",
        "A screening by the time of creation, which may precede the sending. It does not judge.",
        [] if _every_hour(frame) else line.notes,
    )
    if not placed:
        return empty(head)
    if _every_hour(frame):
        return finish(_by_hour(frame), head, "contact_hours")
    columns, rows = columns_of(line), _outside(line.rows)
    top = highest(rows["v"], 0.01)
    drawn = [_screened(line, rows.filter(pl.col("g") == g), g, columns, [0, top]) for g in line.order]
    return finish(panels(drawn, columns), head, "contact_hours")


def _hours(name: str) -> pl.Expr:
    return (pl.col(name).cast(pl.Time).cast(pl.Int64) / 3.6e12).alias(name)


def _every_hour(frame: pl.DataFrame) -> bool:
    lengths = (frame["period_end"] - frame["period_start"]).drop_nulls()
    return bool((lengths <= timedelta(hours=1)).all())


def _outside(rows: pl.DataFrame) -> pl.DataFrame:
    """Add what is drawn: rows outside, their share, and the earliest and latest time of day in words."""
    outside = pl.col("outside_hours") + pl.col("outside_days")
    placed = pl.col("inside") + outside
    return rows.with_columns(
        x=outside,
        n=placed,
        v=outside / pl.when(placed > 0).then(placed),
        s=pl.when(pl.col("state") == "partial").then(3).otherwise(0),
        first=_spoken(rows["earliest_local"]),
        last=_spoken(rows["latest_local"]),
    ).rename({"earliest_local": "a", "latest_local": "b"})


def _spoken(hours: pl.Series) -> pl.Series:
    said = [None if hour is None else f"{int(hour):02}:{int(hour % 1 * 60):02}" for hour in hours]
    return pl.Series(said, dtype=pl.String)


def _screened(
    line: Timeline, rows: pl.DataFrame, group: str, columns: int, domain: list[float]
) -> alt.VConcatChart:
    source = data(rows, "t", "u", "v", "x", "n", "w", "s", "a", "b", "first", "last")
    base = alt.Chart(source).encode(x=time_axis(line, labels=False), x2=alt.X2(field="u"))
    running = bool((line.rows["state"] == "partial").any())
    tail = open_tail(line, text="unfinished") if running else []
    told = [
        tip("w", line.every),
        tip("v", "outside", ".1%"),
        tip("x", "rows outside", ","),
        tip("n", "outbound rows", ","),
    ]
    pale = alt.when(alt.datum.s == 3).then(alt.value(0.45)).otherwise(alt.value(1))
    share = base.mark_bar(color=theme.ACCENT, stroke=theme.PAPER, strokeWidth=0.5).encode(
        y=percent_axis("v", "created outside", domain=domain), y2=alt.Y2Datum(0), opacity=pale, tooltip=told
    )
    day = alt.Y(
        field="a", type="quantitative", scale=alt.Scale(domain=[24, 0], nice=False), title="earliest to latest row",
        axis=_clock("earliest to latest row"),
    )  # fmt: skip
    spans = base.mark_bar(color=theme.GREY, stroke=theme.PAPER, strokeWidth=0.5).encode(
        x=time_axis(line), y=day, y2=alt.Y2(field="b"), opacity=pale,
        tooltip=[tip("w", line.every), tip("first", "earliest"), tip("last", "latest")],
    )  # fmt: skip
    outside, days = int(rows["x"].sum()), int(rows["outside_days"].sum())
    closed = f"{days:,} of them on days without hours" if days else ""
    said = ", ".join(part for part in (f"{plural(outside, 'row')} outside", closed) if part)
    width = min(panel_width(columns), plot_width(line))
    top = layered(*tail, share, width=width, height=110)
    below = spans.properties(width=width, height=90)
    return alt.vconcat(top, below, spacing=22).properties(title=caption(group, said if group or days else ""))


def _clock(title: str) -> alt.Axis:
    return alt.Axis(
        title=title, values=[0, 6, 12, 18, 24], labelExpr="(datum.value < 10 ? '0' : '') + datum.value + ':00'",
        titleAngle=0, titleAlign="left", titleAnchor="start", titleBaseline="bottom", titleX=0, titleY=-6, minExtent=36,
    )  # fmt: skip


def _by_hour(frame: pl.DataFrame) -> alt.ConcatChart:
    """The 24 hours: rows inside and outside the rule, the hours that are wholly outside hatched."""
    dated = frame.filter(pl.col("period_start").is_not_null())
    named = pool(dated, groups_of(frame, after="period_state", before="small"), "outbound")
    hours = named.rows.group_by("g", h=pl.col("period_start").dt.hour().cast(pl.Int64)).agg(
        pl.col("inside").sum(), x=(pl.col("outside_hours") + pl.col("outside_days")).sum()
    )
    columns, shut = 1 if len(named.order) == 1 else 2, _shut(hours)
    drawn = [_histogram(hours.filter(pl.col("g") == g).sort("h"), g, columns, shut) for g in named.order]
    return panels(drawn, columns)


def _shut(hours: pl.DataFrame) -> pl.DataFrame:
    """The ends of the day with rows outside the rule and none inside: the answer does not name its hours."""
    day = hours.group_by("h").agg(pl.col("inside", "x").sum())
    opens, closes = day.filter(pl.col("inside") > 0).select(a=pl.col("h").min(), b=pl.col("h").max()).row(0)
    out = day.filter((pl.col("inside") == 0) & (pl.col("x") > 0))["h"]
    if opens is None:
        return pl.DataFrame({"h": [0], "e": [24]})
    early, late = out.filter(out < opens).max(), out.filter(out > closes).min()
    ends = [(0, early + 1)] * (early is not None) + [(late, 24)] * (late is not None)  # type: ignore[operator]
    return pl.DataFrame(ends, schema={"h": pl.Int64, "e": pl.Int64}, orient="row")


def _histogram(hours: pl.DataFrame, group: str, columns: int, shut: pl.DataFrame) -> alt.LayerChart:
    names = ("outside the rule", "inside the rule")
    total, outside = int((hours["inside"] + hours["x"]).sum()), int(hours["x"].sum())
    long = pl.concat(
        hours.select("h", e=pl.col("h") + 0.92, g=pl.lit(name), y0=low, y1=low + high, v=high)
        for name, low, high in (
            (names[0], pl.lit(0, pl.Int64), pl.col("x")),
            (names[1], pl.col("x"), pl.col("inside")),
        )
    ).filter(pl.col("v") > 0)
    long = long.with_columns(w=pl.format("{}:00–{}:00", "h", pl.col("h") + 1))
    axis = alt.Axis(
        title="hour of the day",
        titleAnchor="end",
        values=list(range(0, 25, 3)),
        labelExpr="datum.value + ':00'",
    )
    x = alt.X(field="h", type="quantitative", axis=axis, scale=alt.Scale(domain=[0, 24], nice=False))
    ground = alt.Chart(data(shut)).mark_rect(color=theme.GREY, opacity=0.18).encode(x=x, x2=alt.X2(field="e"))
    hue = colour(names, colours=(theme.ACCENT, theme.PALETTE[0]))
    bars = alt.Chart(data(long)).mark_bar().encode(
        x=x, x2=alt.X2(field="e"), y=value_axis("y0", "outbound rows"), y2=alt.Y2(field="y1"), color=hue,
        tooltip=[tip("w", "hour"), tip("g", "rule"), tip("v", "rows", ",")],
    )  # fmt: skip
    return layered(ground, bars, width=panel_width(columns), height=160,
        title=caption(group, f"{outside:,} of {total:,} rows outside ({outside / max(total, 1):.1%})"),
    )  # fmt: skip
