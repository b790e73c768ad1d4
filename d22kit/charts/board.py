"""One screen: the three questions at a glance, on a frame of rows."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import altair as alt
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import Timeline, groups_of, opened, pool, shown, timeline
from d22kit.charts._lines import settling
from d22kit.charts._marks import (
    caption,
    colour,
    data,
    empty,
    finish,
    fitted,
    heading,
    layered,
    legend_filter,
    note,
    percent_axis,
    time_axis,
    tip,
    titled,
    value_axis,
    wrapped,
)
from d22kit.charts.outcomes import causes, ranked
from d22kit.charts.week import grid
from d22kit.questions.anomalies import anomalies
from d22kit.questions.bounces import bounces
from d22kit.questions.delivery import delivery
from d22kit.questions.engagement import engagement
from d22kit.questions.volume import heatmap, volume

__all__ = ["overview"]

WIDE, HALF = 880, 400
NAMED = 6
"""Groups drawn by name: more lines in so little room cannot be told apart."""
MOST_POINTS, MOST_SENTENCES = 700, 2
FEW = 14
"""Periods on a line whose points are seen."""
LENGTHS = {"day": (3, 31), "week": (37, 4.4)}
"""Months up to which a period is drawn, and how many of it a month has; beyond, months."""


WATCHED = ("volume", "delivery_rate", "bounce_rate")


def overview(
    frame: Any,
    *,
    by: str | Iterable[str] = "platform",
    tz: str = "UTC",
    calendar: Any = None,
    roles: Any = None,
    title: str | None = None,
) -> alt.VConcatChart | alt.Chart:
    """Draw the main answers on one screen: how much, does it arrive, does anyone answer, when, and why not?

    Parameters
    ----------
    frame
        Rows of D22, as `d22kit.volume` takes them.
    by, tz, calendar, roles
        As in `d22kit.volume`. Periods are days, weeks or months, whatever the range leaves room for.
    title
        In place of the question.

    Returns
    -------
    altair.VConcatChart
        Drag over the volume to zoom the lines below it; click a name in the legend to see it alone. What leaves
        its usual band stands in words at the foot.

    Raises
    ------
    InputError
        As in `d22kit.volume`.
    """
    every = _every(volume(frame, by=by, every="month", tz=tz, calendar=calendar, roles=roles))
    ask: dict[str, Any] = {"by": by, "every": every, "tz": tz, "calendar": calendar, "roles": roles}
    counted = opened(volume(frame, **ask), "volume", ["rows", "small"])
    asked = {
        "volume": counted,
        "delivery": delivery(frame, **ask),
        "engagement": engagement(frame, **ask),
        "heatmap": heatmap(frame, tz=getattr(counted.schema["period_start"], "time_zone", None) or tz),
        "bounces": bounces(frame, roles=roles),
        "anomalies": [anomalies(frame, metric=metric, **{**ask, "every": "day"}) for metric in WATCHED],
    }
    return fitted(partial(_screen, asked, title))


def _screen(asked: dict[str, Any], title: str | None, part: float) -> alt.VConcatChart | alt.Chart:
    counted, most = asked["volume"], int(MOST_POINTS * part)
    much = timeline(counted, "volume", ["rows"], size="rows", most_rows=most, most=NAMED)
    head = heading(
        title or "How much do we communicate, does it arrive, does anyone answer?",
        f"{int(much.rows['rows'].sum()):,} rows · per {much.every} of creation · {much.zone} · {much.range}",
        "Drag over the volume to zoom the lines below; click a name to see it alone. Dashed: outcomes still move.",
        much.notes,
    )
    if not much.rows.height:
        return empty(head)
    arrived = _line(asked["delivery"], counted, "delivery", ["attempted", "delivered", "known"], most)
    answered = _line(asked["engagement"], counted, "engagement", ["delivered", "inbound"], most)
    pick = legend_filter(much, "overview")
    brush = alt.selection_interval(encodings=["x"], name=pick.name.replace("only", "zoom"))
    lines = alt.hconcat(
        _arrival(arrived, much.order, brush, pick), _replies(answered, much.order, brush, pick), spacing=46
    )
    foot = (
        alt.hconcat(_week(asked["heatmap"], much.zone), _why(asked["bounces"]), spacing=24)
        .resolve_legend(color="independent")
        .resolve_scale(color="independent")
    )
    rows = [
        _figures(much, arrived, answered), _traffic(much, brush, pick), lines, foot, _words(asked["anomalies"]),
    ]  # fmt: skip
    screen: alt.VConcatChart = (
        alt.vconcat(*rows, spacing=26).resolve_legend(color="independent").resolve_scale(color="independent")
    )
    return finish(screen, head, "overview")


def _every(months: Any) -> str:
    """The shortest period of which all groups' lines fit."""
    frame = opened(months, "volume", ["period_start", "small"])
    groups = groups_of(frame, after="period_state", before="small")
    series = min(NAMED + 1, frame.select(groups).n_unique()) if groups else 1
    span = frame["period_start"].n_unique()
    fits = (
        every
        for every, (most, each) in LENGTHS.items()
        if span <= most and span * each * series <= MOST_POINTS
    )
    return next(fits, "month")


def _line(answer: Any, volume: pl.DataFrame, function: str, counts: list[str], most: int) -> Timeline:
    """An answer with the groups of the volume: the same ones are named, in the same order."""
    keys = ["period_start", *groups_of(volume, after="period_state", before="small")]
    frame = opened(answer, function, [*keys, *counts])
    ranked = frame.join(volume.select(*keys, "rows"), on=keys, how="left", nulls_equal=True)
    return timeline(ranked, function, [*counts, "rows"], size="rows", most_rows=most, most=NAMED)


def _figures(much: Timeline, arrived: Timeline, answered: Timeline) -> alt.LayerChart:
    """The headline figures over the whole range."""
    sums = arrived.rows.select(pl.col("attempted", "delivered", "known").sum()).row(0, named=True)
    replies = answered.rows.select(pl.col("delivered", "inbound").sum()).row(0, named=True)
    heard = answered.rows["inbound"].is_not_null().any()
    tiles = [
        (f"{int(much.rows['rows'].sum()):,}", "rows"),
        (_percent(sums["delivered"], sums["attempted"]), "delivered of attempted"),
        (_percent(sums["delivered"], sums["known"]), "delivered of known outcomes"),
        (
            f"{100 * replies['inbound'] / replies['delivered']:.1f}"
            if heard and replies["delivered"]
            else "–",
            "inbound per 100 delivered",
        ),
    ]
    placed = [
        {"x": i * WIDE / len(tiles), "big": big, "small": small} for i, (big, small) in enumerate(tiles)
    ]
    base = alt.Chart(alt.InlineData(values=placed)).encode(
        x=alt.X(field="x", type="quantitative", axis=None, scale=alt.Scale(domain=[0, WIDE], nice=False))
    )
    big = base.mark_text(style="d22kit-label", align="left", baseline="bottom", fontSize=26, fontWeight=600)
    small = base.mark_text(style="d22kit-note", align="left", baseline="top", fontSize=12)
    return layered(
        big.encode(y=alt.value(30), text=alt.Text(field="big", type="nominal")),
        small.encode(y=alt.value(34), text=alt.Text(field="small", type="nominal")),
        width=WIDE,
        height=48,
    )


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _traffic(line: Timeline, brush: alt.Parameter, pick: alt.Parameter) -> alt.Chart:
    rank = pl.col("g").replace_strict({g: k for k, g in enumerate(line.order)}, return_dtype=pl.Int64)
    chart: alt.Chart = (
        alt.Chart(data(line.rows.with_columns(k=rank), "t", "u", "g", "k", "w", "rows", "state"))
        .transform_filter(pick)
        .transform_stack(stack="rows", as_=["y0", "y1"], groupby=["t"], sort=[alt.SortField("k")])
        .mark_bar(stroke=theme.PAPER, strokeWidth=0.5)
        .encode(
            x=time_axis(line),
            x2=alt.X2(field="u"),
            y=value_axis("y0", f"rows per {line.every}"),
            y2=alt.Y2(field="y1"),
            color=colour(line.order, line.title),
            opacity=alt.when(alt.datum.state == "partial").then(alt.value(0.45)).otherwise(alt.value(1)),
            tooltip=[tip("w", line.every), tip("g", line.title), tip("rows", "rows", ",")],
        )
        .properties(
            width=WIDE,
            height=110,
            title=caption("How much?", f"rows per {line.every}; unfinished ones are pale", frame="group"),
        )
        .add_params(brush, pick)
    )
    return chart


def _zoomed(
    line: Timeline, rows: pl.DataFrame, order: list[str], y: Any, tips: list[alt.Tooltip],
    brush: alt.Parameter, pick: alt.Parameter,
) -> alt.LayerChart:  # fmt: skip
    """Lines `v` per group, on the axis that the brush sets; dashed where outcomes still move."""
    hue = colour(order, line.title, symbol="none")
    x = time_axis(line, zoom=brush)
    drawn = settling(rows).with_columns(t=(pl.col("t") + pl.col("u")) // 2)
    told = ["t", "g", "v", "w", "s", *(name for name in ("n", "r") if name in rows.columns)]
    base = alt.Chart(data(drawn, *told)).transform_filter(pick).encode(x=x, y=y("v"), color=hue)
    flags = set(drawn["s"])
    settled = base.transform_filter("datum.s < 2").mark_line(strokeWidth=2, strokeCap="round", clip=True)
    dashed = base.transform_filter("datum.s > 0").mark_line(strokeWidth=2, strokeDash=[3, 3], clip=True)
    size, opacity = (26, 1) if line.periods <= FEW else (70, 0)
    dots = base.transform_filter(brush).mark_point(size=size, opacity=opacity, filled=True)
    lines = [*([settled] if min(flags) < 2 else []), *([dashed] if max(flags) > 0 else [])]
    return layered(*lines, dots.encode(tooltip=tips), width=HALF, height=150)


def _arrival(line: Timeline, order: list[str], brush: alt.Parameter, pick: alt.Parameter) -> alt.LayerChart:
    rows = line.rows.with_columns(
        v=pl.col("delivered") / pl.when(pl.col("attempted") > 0).then("attempted"), n=pl.col("attempted")
    )
    sums = rows.group_by("g").agg(pl.col("known", "attempted").sum()).filter(pl.col("attempted") > 0)
    said = f"receipts for {_coverage(sums, order)} of attempts"
    y = partial(percent_axis, title="delivered of attempted")
    tips = [
        tip("w", line.every),
        tip("g", line.title),
        tip("v", "delivered", ".1%"),
        tip("n", "attempted", ","),
    ]
    chart = _zoomed(line, rows, order, y, tips, brush, pick)
    return titled(chart, caption("Does it arrive?", *wrapped(said, 72), frame="group"))


def _coverage(sums: pl.DataFrame, order: list[str]) -> str:
    """How far receipts reach, per group where these are few: a share of few receipts is no measure."""
    cover = {g: known / n for g, known, n in sums.iter_rows()}
    if not cover:
        return "none"
    if len(cover) > 5:
        return f"{min(cover.values()):.0%} to {max(cover.values()):.0%}"
    return ", ".join(f"{g} {cover[g]:.0%}".strip() for g in order if g in cover)


def _replies(
    line: Timeline, order: list[str], brush: alt.Parameter, pick: alt.Parameter
) -> alt.LayerChart | alt.Chart:
    title = caption("Does anyone answer?", "rows against rows; no people are counted", frame="group")
    if line.rows["inbound"].is_null().all():
        return titled(note("No row was recognised as inbound.", width=HALF, height=150), title)
    rows = line.rows.with_columns(
        v=100 * pl.col("inbound") / pl.when(pl.col("delivered") > 0).then("delivered"),
        n=pl.col("delivered"),
        r="inbound",
    )
    y = partial(value_axis, title="inbound per 100 delivered", step=0.01)
    tips = [
        tip("w", line.every),
        tip("g", line.title),
        tip("v", "per 100", ".1f"),
        tip("r", "inbound", ","),
        tip("n", "delivered", ","),
    ]
    return titled(_zoomed(line, rows, order, y, tips, brush, pick), title)


def _week(answer: Any, zone: str) -> alt.Chart:
    cells = opened(answer, "heatmap", ["weekday", "hour"]).filter(pl.col("hours_observed") > 0)
    cells = cells.with_columns(g=pl.lit(""), v=pl.col("rows") / pl.col("hours_observed"))
    return grid(cells, "When?", cell=(15, 18), tz=zone, frame="group")


def _why(answer: Any) -> alt.LayerChart | alt.Chart:
    frame = opened(answer, "bounces", ["state", "category", "permanence", "rows", "action"])
    if not frame["rows"].sum():
        return titled(note("Nothing bounced or failed.", width=HALF, height=126), caption("Why not?"))
    named = pool(frame, groups_of(frame, after=None, before="state"), "rows")
    return ranked(causes(named.rows, templates=False, most=5), "Why not?", width=HALF, legend="bottom")


def _words(answers: list[Any]) -> alt.Chart:
    """The strongest alarms of each measure that is watched, a sentence each: counts would crowd out rates."""
    said, left, known = [], 0, False
    for answer in answers:
        frame = opened(answer, "anomalies", ["text", "excess_rows", "usual_lo"])
        found, known = frame.drop_nulls("text"), known or frame["usual_lo"].is_not_null().any()
        strongest = found.sort(pl.col("excess_rows").abs(), "text", descending=[True, False])[
            "text"
        ].to_list()
        said += [shown(text, 140) for text in strongest[:MOST_SENTENCES]]
        left += len(strongest[MOST_SENTENCES:])
    said = said or [
        "Nothing leaves its usual band." if known else "There are too few earlier days to say what is usual."
    ]
    more = [f"… and {left} more: see charts.anomalies"] if left else []
    values = [{"i": i, "text": text} for i, text in enumerate([*said, *more])]
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_text(style="d22kit-label", align="left", fontSize=12)
        .encode(
            x=alt.value(0),
            y=alt.Y(field="i", type="ordinal", axis=None),
            text=alt.Text(field="text", type="nominal"),
        )
        .properties(
            width=WIDE,
            height=alt.Step(17),
            title=caption("Is anything unusual?", "the days that leave their usual band by most rows"),
        )
    )
    return chart
