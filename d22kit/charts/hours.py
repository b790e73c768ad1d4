"""At what hours do we write?"""

from __future__ import annotations

from datetime import time, timedelta
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import (
    MOST_GROUPS,
    Timeline,
    groups_of,
    highest,
    opened,
    periods,
    pool,
    shown,
    timeline,
)
from d22kit.charts._lines import columns_of, open_tail, panel_width
from d22kit.charts._marks import (
    caption,
    colour,
    data,
    empty,
    finish,
    fitted,
    heading,
    layered,
    panels,
    percent_axis,
    plot_width,
    plural,
    time_axis,
    tip,
    value_axis,
)
from d22kit.charts.week import DAYS
from d22kit.errors import InputError

if TYPE_CHECKING:
    from d22kit.questions.engagement import HoursRule

__all__ = ["contact_hours"]

SCREENED = ("outbound", "inside", "outside_hours", "outside_days")
NEEDED = (
    "period_start",
    "period_end",
    "period_state",
    "small",
    "rule",
    "zone",
    *SCREENED,
    "earliest_local",
    "latest_local",
)
GROUND = {"h": pl.Float64, "e": pl.Float64, "o": pl.Float64}
PROVED = "Grey: the ends of the day whose rows are all outside."


def contact_hours(
    answer: Any, *, rule: HoursRule | None = None, title: str | None = None
) -> alt.ConcatChart | alt.Chart:
    """Draw the rows created outside a rule of hours, by period or by the hour of the day.

    Parameters
    ----------
    answer
        The answer of `d22kit.contact_hours`, as it came or filtered. Asked with `every="hour"` it is drawn as a
        histogram of the 24 hours; with longer periods, as the share outside per period, above the span from the
        earliest to the latest row.
    rule
        The rule that was asked for, whose hours are shaded or marked: an answer holds its name only.
    title
        In place of the question.

    Returns
    -------
    altair.ConcatChart
        A panel per group.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.contact_hours`, or that of another rule.
    """
    return fitted(partial(_contact_hours, answer, rule, title))


def _contact_hours(
    answer: Any, rule: HoursRule | None, title: str | None, part: float
) -> alt.ConcatChart | alt.Chart:
    frame = opened(answer, "contact_hours", NEEDED)
    _check(frame, rule)
    if _every_hour(frame):
        return _by_hour(frame, rule, title, part)
    clocked = frame.with_columns(_hours("earliest_local"), _hours("latest_local"))
    line = timeline(
        clocked, "contact_hours", SCREENED, size="outbound",
        intervals=["earliest_local", "latest_local"], most_rows=int(800 * part),
    )  # fmt: skip
    marked = f"Dashed: the rule's hours, {_spelt(rule)}." if rule else ""
    head, placed = _head(frame, title, f"{line.zone} · {line.range}", [marked, *line.notes])
    if not placed:
        return empty(head)
    columns, rows = columns_of(line), _outside(line.rows)
    top = highest(rows["v"], 0.01)
    drawn = [_screened(line, rows.filter(pl.col("g") == g), g, columns, [0, top], rule) for g in line.order]
    return finish(panels(drawn, columns), head, "contact_hours")


def _check(frame: pl.DataFrame, rule: HoursRule | None) -> None:
    asked = frame["rule"].drop_nulls().unique().sort().to_list()
    if rule is not None and asked and asked != [rule.name]:
        raise InputError(
            f"charts.contact_hours: this answer is of the rule {', '.join(map(repr, asked))}, not of {rule.name!r}. "
            "Give the rule that was asked for."
        )


def _head(frame: pl.DataFrame, title: str | None, place: str, notes: list[str]) -> tuple[alt.Title, int]:
    """The title, and how many rows it speaks of."""
    sums = (
        frame.filter(pl.col("period_start").is_not_null()).select(pl.col(SCREENED).sum()).row(0, named=True)
    )
    outside = sums["outside_hours"] + sums["outside_days"]
    placed = sums["inside"] + outside
    rules = " and ".join(shown(rule) for rule in frame["rule"].unique().sort())
    head = heading(
        title or f"Do we write outside the hours of {rules or 'the rule'}?",
        f"{outside:,} of {placed:,} outbound rows ({outside / max(placed, 1):.1%}) were created outside · {place}",
        "A screening by the time of creation, which may precede the sending. It does not judge.",
        notes,
    )
    return head, placed


def _spelt(rule: HoursRule) -> str:
    """The hours of a rule, in words.

    Examples
    --------
    >>> from d22kit import HoursRule
    >>> _spelt(HoursRule.us_regulation_f(zone="UTC"))
    '08:00–21:00'
    """
    days = [rule.hours.get(day) for day in range(1, 8)]
    spans = []
    for hours, run in groupby(range(7), key=lambda i: days[i]):
        first, *rest = (DAYS[i][:3] for i in run)
        when = f"{hours[0]:%H:%M}–{hours[1]:%H:%M}" if hours else "none"
        spans.append((f"{first}–{rest[-1]}" if rest else first, when))
    return spans[0][1] if len(spans) == 1 else ", ".join(f"{day} {when}" for day, when in spans)


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
    line: Timeline, rows: pl.DataFrame, group: str, columns: int, domain: list[float], rule: HoursRule | None
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
    below = layered(spans, *_edges(rule, day), width=width, height=90)
    return alt.vconcat(top, below, spacing=22).properties(title=caption(group, said if group or days else ""))


def _edges(rule: HoursRule | None, day: alt.Y) -> list[alt.Chart]:
    """Where a rule's hours begin and end, readable on bars and beside them."""
    if rule is None or not rule.hours:
        return []
    ends = {edge.hour + edge.minute / 60 for hours in rule.hours.values() for edge in hours}
    base = alt.Chart(data(pl.DataFrame({"a": sorted(ends)}, schema={"a": pl.Float64}))).encode(y=day)
    return [
        base.mark_rule(color=theme.PAPER, strokeWidth=3, tooltip=None),
        base.mark_rule(color=theme.INK, strokeWidth=1.5, strokeDash=[5, 3], tooltip=None),
    ]


def _clock(title: str) -> alt.Axis:
    return alt.Axis(
        title=title, values=[0, 6, 12, 18, 24], labelExpr="(datum.value < 10 ? '0' : '') + datum.value + ':00'",
        titleAngle=0, titleAlign="left", titleAnchor="start", titleBaseline="bottom", titleX=0, titleY=-6, minExtent=36,
    )  # fmt: skip


def _by_hour(
    frame: pl.DataFrame, rule: HoursRule | None, title: str | None, part: float
) -> alt.ConcatChart | alt.Chart:
    """The 24 hours: rows inside and outside the rule, on the rule's own ground."""
    dated = frame.filter(pl.col("period_start").is_not_null())
    groups = groups_of(frame, after="period_state", before="small")
    named = pool(dated, groups, "outbound", most=max(1, int(MOST_GROUPS * part)))
    undated = frame.filter(pl.col("period_start").is_null())["outbound"].sum()
    said = f"Grey: outside the rule's hours, {_spelt(rule)}." if rule else PROVED
    notes = [*named.notes, *([f"{undated:,} rows without a time are not drawn."] if undated else [])]
    zone = getattr(frame.schema["period_start"], "time_zone", None) or "UTC"
    head, placed = _head(frame, title, f"{zone} · {periods(dated)}", [said, *notes])
    if not placed:
        return empty(head)
    hours = named.rows.group_by("g", h=pl.col("period_start").dt.hour().cast(pl.Int64)).agg(
        pl.col("inside").sum(), x=(pl.col("outside_hours") + pl.col("outside_days")).sum()
    )
    columns, ground = 1 if len(named.order) == 1 else 2, _shut(hours) if rule is None else _closed(rule)
    drawn = [_histogram(hours.filter(pl.col("g") == g).sort("h"), g, columns, ground) for g in named.order]
    return finish(panels(drawn, columns), head, "contact_hours")


def _closed(rule: HoursRule) -> pl.DataFrame:
    """The hours outside a rule, paler where only some of its days are shut."""
    quarters = [time(i // 4, i % 4 * 15) for i in range(96)]
    shut = [sum(not first <= at < last for first, last in rule.hours.values()) for at in quarters]
    spans = []
    for few, run in groupby(range(96), key=lambda i: shut[i]):
        place = list(run)
        if few or not rule.hours:
            spans.append((place[0] / 4, (place[-1] + 1) / 4, 0.18 if few == len(rule.hours) else 0.09))
    return pl.DataFrame(spans, schema=GROUND, orient="row")


def _shut(hours: pl.DataFrame) -> pl.DataFrame:
    """The ends of the day with rows outside the rule and none inside: the answer does not name its hours."""
    day = hours.group_by("h").agg(pl.col("inside", "x").sum())
    opens, closes = day.filter(pl.col("inside") > 0).select(a=pl.col("h").min(), b=pl.col("h").max()).row(0)
    out = day.filter((pl.col("inside") == 0) & (pl.col("x") > 0))["h"]
    if opens is None:
        return pl.DataFrame([(0, 24, 0.18)], schema=GROUND, orient="row")
    early, late = (out.filter(part).sort().to_list() for part in (out < opens, out > closes))
    ends = [*((0, hour + 1, 0.18) for hour in early[-1:]), *((hour, 24, 0.18) for hour in late[:1])]
    return pl.DataFrame(ends, schema=GROUND, orient="row")


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
    ground = alt.Chart(data(shut)).mark_rect(color=theme.GREY, tooltip=None).encode(
        x=x, x2=alt.X2(field="e"), opacity=alt.Opacity(field="o", type="quantitative", scale=None, legend=None)
    )  # fmt: skip
    hue = colour(names, colours=(theme.ACCENT, theme.PALETTE[0]))
    bars = alt.Chart(data(long)).mark_bar().encode(
        x=x, x2=alt.X2(field="e"), y=value_axis("y0", "outbound rows"), y2=alt.Y2(field="y1"), color=hue,
        tooltip=[tip("w", "hour"), tip("g", "rule"), tip("v", "rows", ",")],
    )  # fmt: skip
    said = f"{outside:,} of {total:,} rows outside ({outside / max(total, 1):.1%})"
    # Without groups the chart's own title says so already.
    told = {"title": caption(group, said)} if group else {}
    layers = [*([ground] if shut.height else []), bars]
    return layered(*layers, width=panel_width(columns), height=160, **told)
