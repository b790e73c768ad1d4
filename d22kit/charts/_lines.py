"""Lines over time: in their band, dashed where they are not settled, on hatched ground."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import altair as alt
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import Timeline
from d22kit.charts._marks import WIDTH, data, edges, time_axis, tip

__all__ = [
    "MOST_DOTS",
    "WEEK",
    "columns_of",
    "line_with_band",
    "open_tail",
    "panel_width",
    "settling",
    "smoothed",
]

MOST_DOTS = 100
"""Periods on a line whose points are marked; a longer line is thinner, and its panel wider."""

WEEK = {"15min": 672, "hour": 168, "day": 7}
"""Periods in a week: a long line is smoothed over them, since weekends dip."""


def line_with_band(
    line: Timeline,
    source: alt.InlineData,
    kinds: Collection[int],
    y: Callable[[str], alt.Y],
    tips: Sequence[alt.Tooltip],
    *,
    labels: bool = True,
    lowest: float = 0,
    half: bool = False,
) -> list[alt.Chart]:
    """Return a line `v` in its band `lo`–`hi`; what is not settled is dashed; and strips that tell on hovering.

    The source has `s`: 0 where a period is settled, 1 for the last of these, 2 where it is not, 3 where it still runs;
    `kinds` are those there are, for a layer without data makes Vega complain. Where it has `r`, the mean of a
    week, that is the line, and `v` stands thin behind it. The axis begins at `lowest`. A panel of `half` the width
    has room for half the points.
    """
    there = {name for row in source.values for name in row}
    middle = time_axis(line, "c", labels=labels)
    base = alt.Chart(source).transform_calculate(c="(datum.t + datum.u) / 2").encode(x=middle)
    look: dict[str, Any] = {"color": theme.PALETTE[0], "clip": True}
    smooth, few = "r" in there, line.periods <= MOST_DOTS // (1 + half)
    drawn = {"strokeWidth": 2 if few else 1.2, "opacity": 0.4 if smooth else 1, **look}
    # One period has a point in place of a line: its interval is a stroke.
    shape = base.mark_area(opacity=0.2, **look) if line.periods > 1 else _stroke(base)
    # A period between two without a value has no line: the round cap makes it a point.
    settled = base.transform_filter("datum.s < 2").mark_line(strokeCap="round", **drawn).encode(y=y("v"))
    moving = base.transform_filter("datum.s > 0").mark_line(strokeDash=[3, 3], **drawn).encode(y=y("v"))
    within = f"datum.v >= {lowest}"
    dots = base.transform_filter(f"datum.s < 2 && {within}").mark_point(**_dot(filled=True)).encode(y=y("v"))
    rings = (
        base.transform_filter(f"datum.s > 1 && {within}").mark_point(**_dot(filled=False)).encode(y=y("v"))
    )
    strips = (
        alt.Chart(source).mark_rect(opacity=0).encode(x=time_axis(line, labels=labels), x2=alt.X2(field="u"))
    )
    still, over = max(kinds, default=0) > 0, min(kinds, default=2) < 2
    marks = [
        (shape.encode(y=y("lo"), y2=alt.Y2(field="hi")), {"lo", "hi"} <= there),
        (settled, over),
        (moving, still),
        (dots, few and over),
        (rings, few and max(kinds, default=0) > 1),
        (base.mark_line(strokeWidth=2.5, **look).encode(y=y("r")), smooth),
        (_telling(strips, [tip for tip in tips if tip["field"] in there]), True),
    ]
    return [mark for mark, drawn in marks if drawn]


def smoothed(line: Timeline) -> bool:
    """Whether a line is long enough to be read by the week, and holds weeks enough."""
    return line.periods > max(MOST_DOTS, 3 * WEEK.get(line.every, line.periods))


def _stroke(base: alt.Chart) -> alt.Chart:
    stroke: alt.Chart = base.mark_rule(strokeWidth=10, opacity=0.2, clip=True, color=theme.PALETTE[0])
    return stroke


def _dot(*, filled: bool) -> dict[str, Any]:
    """A point of a line, which the edge of the plot does not cut: filled where it is settled, else hollow."""
    fill = theme.PALETTE[0] if filled else theme.PAPER
    return {
        "shape": "circle", "fill": fill, "stroke": theme.PALETTE[0], "size": 26, "strokeWidth": 1.5, "opacity": 1,
    }  # fmt: skip


def _telling(chart: alt.Chart, tips: Sequence[alt.Tooltip]) -> alt.Chart:
    """Add a tooltip of ready-made strings: of a number that is missing Vega itself would tell NaN."""
    numbers = [tip for tip in tips if tip["type"] == "quantitative"]
    said = {
        f"{tip['field']}_said": f"isValid(datum.{tip['field']}) ? format(datum.{tip['field']}, '{tip['format']}') : '–'"
        for tip in numbers
    }
    lines = [tip(f"{t['field']}_said", t["title"]) if t in numbers else t for t in tips]
    told: alt.Chart = chart.transform_calculate(**said).encode(tooltip=lines)
    return told


def settling(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `s`, which `line_with_band` reads: only the end of a group's line is unsettled."""
    moving = (pl.col("state") != "complete").cast(pl.Int8).reverse().cum_min().reverse().over("g")
    last = moving.shift(-1).over("g").fill_null(0)
    return rows.sort("g", "t").with_columns(
        s=pl.when((moving == 1) & (pl.col("state") == "partial"))
        .then(3)
        .when(moving == 1)
        .then(2)
        .otherwise(last)
    )


def open_tail(timeline: Timeline, *, lift: int = 0, text: str | None = None) -> list[alt.Chart]:
    """Return the hatched ground and its note behind periods that are not settled; nothing where all are."""
    moving = timeline.rows.filter(pl.col("state") != "complete")
    settled = timeline.rows.filter(pl.col("state") == "complete")["u"].to_list()
    start, last = max([*settled, timeline.edges[0]]), timeline.edges[1]
    if moving.is_empty() or start == last:
        return []
    said = text or ("unfinished" if (moving["state"] == "partial").all() else "still moving")
    ground = data(pl.DataFrame({"t": [start], "u": [last], "said": [f"{said} ▸"]}))
    span: Any = edges(timeline)
    scale = alt.Scale(type="utc", nice=False, **span)
    x, end = (alt.X(field=field, type="temporal", scale=scale) for field in ("t", "u"))
    part = (last - start) / (last - timeline.edges[0])
    hatched = (
        alt.Chart(ground)
        .mark_rect(fill=_hatching(6 + round(18 * part)), tooltip=None)
        .encode(x=x, x2=alt.X2(field="u"))
    )
    words = (
        alt.Chart(ground)
        .mark_text(style="d22kit-note", align="right", baseline="bottom", dy=-4 - lift)
        .encode(x=end, y=alt.value(0), text=alt.Text(field="said", type="nominal"))
    )
    return [hatched, words]


def _hatching(stripes: int) -> alt.Gradient:
    """Diagonal stripes, as far as a gradient can draw them; grey enough for light and dark."""
    stops = []
    for i in range(stripes):
        for at, opacity in ((i, 0.17), (i + 0.45, 0.17), (i + 0.45, 0.06), (i + 1, 0.06)):
            stops.append(
                alt.GradientStop(offset=round(at / stripes, 4), color=f"rgba(134,140,148,{opacity})")
            )
    return alt.LinearGradient(gradient="linear", x1=0, y1=0, x2=1, y2=1, stops=stops)


def columns_of(line: Timeline) -> int:
    """Return how many panels stand in a row: one where there is one, or where few have long lines."""
    return 1 if line.series == 1 or (line.series <= 4 and line.periods > MOST_DOTS) else 2


def panel_width(columns: int) -> int:
    """Return the width of a panel."""
    return WIDTH if columns == 1 else WIDTH // 2
