"""What every chart is made of: data, titles, axes, colours, the unfinished tail, the limits of size."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

import altair as alt
import polars as pl
import polars.selectors as cs

from d22kit.charts import theme
from d22kit.charts._answers import Timeline
from d22kit.errors import InputError

__all__ = [
    "HEIGHT",
    "MOST_BYTES",
    "MOST_MARKS",
    "WIDTH",
    "caption",
    "colour",
    "columns_of",
    "data",
    "empty",
    "finish",
    "heading",
    "layered",
    "legend_filter",
    "line_with_band",
    "listed",
    "note",
    "open_tail",
    "panel_width",
    "panels",
    "percent_axis",
    "settling",
    "time_axis",
    "tip",
    "titled",
    "value_axis",
    "wrapped",
]

WIDTH, HEIGHT = 640, 260
"""Pixels of a plot: a notebook cell and half a slide. On a narrow page a chart scales down."""

MOST_MARKS, MOST_BYTES = 5_000, 300_000
"""What a browser draws at once and a notebook carries without pain; nothing larger is given out."""

MOST_DOTS = 100
"""Periods on a line whose points are marked; a longer line is thinner, and its panel wider."""

DAY_MS = 86_400_000

C = TypeVar("C", alt.Chart, alt.LayerChart, alt.ConcatChart, alt.VConcatChart)


class Rows(alt.InlineData):
    """Data that is never changed, so that Altair need not copy it with each layer."""

    def __deepcopy__(self, _memo: object) -> Rows:
        return self


def data(rows: pl.DataFrame, *columns: str) -> alt.InlineData:
    """Return columns of a frame as the data of a chart: four digits to a number, nulls left out."""
    floats = cs.float().fill_nan(None).round_sig_figs(4)
    kept = rows.select(columns or rows.columns).with_columns(floats)
    return Rows(values=[{k: v for k, v in row.items() if v is not None} for row in kept.to_dicts()])


def heading(question: str, *lines: str | Iterable[str]) -> alt.Title:
    """Return a title that asks, above a subtitle that says zone, range and row count."""
    flat = [line for group in lines for line in ([group] if isinstance(group, str) else group)]
    return alt.Title(question, subtitle=[line for text in flat for line in wrapped(text)])


def tip(field: str, title: str, form: str | None = None) -> alt.Tooltip:
    """Return a line of a tooltip: text as it stands, or a number in a format."""
    if form is None:
        return alt.Tooltip(field=field, type="nominal", title=title)
    return alt.Tooltip(field=field, type="quantitative", title=title, format=form)


def colour(
    order: Sequence[str], title: str = "", *, colours: Sequence[str] = (), symbol: str = "square"
) -> alt.Color:
    """Return the colour of the groups; the pooled rest is grey."""
    chosen = colours or [
        theme.GREY if name.startswith("other (") else theme.PALETTE[i % 10] for i, name in enumerate(order)
    ]
    if symbol == "none":
        return alt.Color(
            field="g",
            type="nominal",
            scale=alt.Scale(domain=list(order), range=list(chosen)),
            sort=None,
            legend=None,
        )
    shape = alt.Legend(
        title=title or None,
        orient="right",
        symbolType=symbol,
        symbolOpacity=1,
        symbolStrokeWidth=3 if symbol == "stroke" else 0,
        values=list(order if symbol == "stroke" else reversed(order)),
    )
    return alt.Color(
        field="g",
        type="nominal",
        scale=alt.Scale(domain=list(order), range=list(chosen)),
        sort=None,
        legend=shape,
    )


def panels(charts: Sequence[Any], columns: int) -> alt.ConcatChart:
    """Return charts side by side."""
    return alt.concat(*charts, columns=columns, spacing=24)


def columns_of(line: Timeline) -> int:
    """Return how many panels stand in a row: one where there is one, or where few have long lines."""
    return 1 if line.series == 1 or (line.series <= 4 and line.periods > MOST_DOTS) else 2


def panel_width(columns: int) -> int:
    """Return the width of a panel."""
    return WIDTH if columns == 1 else WIDTH // 2


def caption(group: str, *lines: str) -> alt.Title:
    """Return the title of a panel: its group, where there is one, and what it amounts to."""
    text, *lines = [line for line in (group, *lines) if line] or [""]  # type: ignore[assignment]
    return alt.Title(
        text, subtitle=list(lines), fontSize=13, subtitleFontSize=11, subtitleLineHeight=14, offset=8
    )


def line_with_band(
    line: Timeline,
    source: alt.InlineData,
    kinds: Collection[int],
    y: Callable[[str], alt.Y],
    tips: Sequence[alt.Tooltip],
    *,
    labels: bool = True,
) -> list[alt.Chart]:
    """Return a line `v` in its band `lo`–`hi`; what is not settled is dashed; and strips that tell on hovering.

    The source has `s`: 0 where a period is settled, 1 for the last of these, 2 where it is not, 3 where it still runs;
    `kinds` are those there are, for a layer without data makes Vega complain.
    """
    middle = time_axis(line, "c", labels=labels)
    base = alt.Chart(source).transform_calculate(c="(datum.t + datum.u) / 2").encode(x=middle)
    look: dict[str, Any] = {"color": theme.PALETTE[0], "clip": True}
    width = 1.2 if line.periods > MOST_DOTS else 2
    dots = alt.OverlayMarkDef(color=theme.PALETTE[0], size=28) if line.periods <= MOST_DOTS else False
    band = base.mark_area(opacity=0.2, **look).encode(y=y("lo"), y2=alt.Y2(field="hi"))
    settled = (
        base.transform_filter("datum.s < 2").mark_line(strokeWidth=width, point=dots, **look).encode(y=y("v"))
    )
    rings = alt.OverlayMarkDef(stroke=theme.PALETTE[0], fill=theme.PAPER, size=24, strokeWidth=1.5)
    moving = (
        base.transform_filter("datum.s > 0")
        .mark_line(strokeWidth=width, strokeDash=[3, 3], point=rings if dots else False, **look)
        .encode(y=y("v"))
    )
    strips = (
        alt.Chart(source)
        .mark_rect(opacity=0)
        .encode(x=time_axis(line, labels=labels), x2=alt.X2(field="u"), tooltip=list(tips))
    )
    lines = [
        *([settled] if min(kinds, default=2) < 2 else []),
        *([moving] if max(kinds, default=0) > 0 else []),
    ]
    return [band, *lines, strips]


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


def legend_filter(timeline: Timeline, function: str) -> alt.Parameter:
    """Return a selection: a click on the legend shows a group alone, with shift several.

    Its name tells charts apart, so that two side by side do not filter each other.
    """
    key = repr((function, timeline.order, timeline.every, timeline.range, timeline.title))
    return alt.selection_point(fields=["g"], bind="legend", name=f"only_{zlib.crc32(key.encode()):08x}")


def time_axis(
    timeline: Timeline, field: str = "t", *, labels: bool = True, zoom: alt.Parameter | None = None
) -> alt.X:
    """Return the axis of local time, drawn as UTC so that every browser shows the same."""
    first, last = timeline.edges
    days = (last - first) / DAY_MS
    axis = alt.Axis(
        title=f"{timeline.every}, {timeline.zone}" if labels else None,
        labels=labels,
        labelExpr=_label(days, timeline.every),
        labelFlush=False,
        labelOverlap=True,
        labelSeparation=6,
        titleAnchor="end",
        **_ticks(timeline, days),
    )
    span: Any = {"domain": {"param": zoom.name, "encoding": "x"}} if zoom else _span(timeline)
    return alt.X(field=field, type="temporal", axis=axis, scale=alt.Scale(type="utc", nice=False, **span))


def value_axis(field: str, title: str, *, step: float = 1, **scale: Any) -> alt.Y:
    """Return an axis of numbers, its unit above it; counts have no ticks between them."""
    axis = _axis(title, ",.2~f", tickMinStep=step)
    return alt.Y(field=field, type="quantitative", axis=axis, scale=alt.Scale(**scale))


def percent_axis(field: str, title: str, *, lift: int = 0, **scale: Any) -> alt.Y:
    """Return an axis of shares, in percent; its title is lifted where numbers stand on the bars."""
    return alt.Y(field=field, type="quantitative", axis=_axis(title, "~%", lift), scale=alt.Scale(**scale))


def listed(names: Sequence[str]) -> alt.Y:
    """Return an axis of `id`, the place in a list, labelled by name: names may repeat, and are never parsed."""
    labels = alt.Axis(title=None, labelLimit=420, labelExpr=f"{json.dumps(list(names))}[datum.value]")
    return alt.Y(field="id", type="ordinal", sort=None, axis=labels)


def open_tail(timeline: Timeline, *, lift: int = 0, text: str | None = None) -> list[alt.Chart]:
    """Return the hatched ground and its note behind periods that are not settled; nothing where all are."""
    moving = timeline.rows.filter(pl.col("state") != "complete")
    settled = timeline.rows.filter(pl.col("state") == "complete")["u"].to_list()
    start, last = max([*settled, timeline.edges[0]]), timeline.edges[1]
    if moving.is_empty() or start == last:
        return []
    said = text or ("unfinished" if (moving["state"] == "partial").all() else "still moving")
    ground = data(pl.DataFrame({"t": [start], "u": [last], "said": [f"{said} ▸"]}))
    span: Any = _span(timeline)
    scale = alt.Scale(type="utc", nice=False, **span)
    x, end = (alt.X(field=field, type="temporal", scale=scale) for field in ("t", "u"))
    hatched = alt.Chart(ground).mark_rect(fill=_hatching(), tooltip=None).encode(x=x, x2=alt.X2(field="u"))
    words = (
        alt.Chart(ground)
        .mark_text(style="d22kit-note", align="right", baseline="bottom", dy=-4 - lift)
        .encode(x=end, y=alt.value(0), text=alt.Text(field="said", type="nominal"))
    )
    return [hatched, words]


def note(text: str, *, width: int = WIDTH, height: int = 60) -> alt.Chart:
    """Return a plot that holds a sentence."""
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=[{"text": text}]))
        .mark_text(style="d22kit-note", align="left", baseline="middle", fontSize=13)
        .encode(x=alt.value(0), y=alt.value(height / 2), text=alt.Text(field="text", type="nominal"))
        .properties(width=width, height=height)
    )
    return chart


def empty(title: alt.Title, text: str = "There are no rows in this range.") -> alt.Chart:
    """Return what an answer without rows looks like: it says so."""
    return finish(note(text), title, "")


def layered(*layers: alt.Chart, **properties: Any) -> alt.LayerChart:
    """Return layers as one chart of a size, the first at the bottom."""
    chart: alt.LayerChart = alt.layer(*layers).properties(**properties)  # type: ignore[assignment]
    return chart


def titled(chart: C, title: alt.Title) -> C:
    """Return a chart under a title."""
    done: C = chart.properties(title=title)
    return done


def finish(chart: C, title: alt.Title, function: str) -> C:
    """Give a chart its title and its alternative text, and refuse one too large to draw."""
    done: C = chart.properties(title=title, description=_alt(title))
    spec = done.to_dict(validate=False)
    rows, size = sum(map(len, spec.get("datasets", {}).values())), len(json.dumps(spec).encode())
    if rows > MOST_MARKS or size > MOST_BYTES:
        raise InputError(
            f"charts.{function} would draw {rows:,} rows ({size / 1000:,.0f} kB), more than {MOST_MARKS:,} marks or "
            f"{MOST_BYTES // 1000} kB, which no one can read. Ask d22kit.{function} for a longer period "
            "(every='week'), fewer columns in by=, or filter its answer first."
        )
    return done


def _span(timeline: Timeline) -> dict[str, int]:
    """The ends of the time axis, one by one: as a list they differ between `x` and `x2`, of which Vega-Lite warns."""
    first, last = timeline.edges
    return {"domainMin": first, "domainMax": last}


def _alt(title: alt.Title) -> str:
    return " ".join([str(title.text), *map(str, title.subtitle)])


def wrapped(text: str, width: int = 105) -> list[str]:
    """Return a text in lines that a chart has room for."""
    import textwrap

    return textwrap.wrap(text, width, break_long_words=False) or []


def _axis(title: str, form: str, lift: int = 0, **more: Any) -> alt.Axis:
    return alt.Axis(
        title=title, format=form, tickCount=5, titleAngle=0, titleAlign="left", titleAnchor="end",
        titleBaseline="bottom", titleX=0, titleY=-6 - lift, minExtent=36, **more,
    )  # fmt: skip


def _label(days: float, every: str) -> str:
    """Labels in two lines: the day or month, and once in a while what it belongs to."""
    if days <= 3 and every in ("15min", "hour"):
        near, far, turn = "%H:%M", "%-d %b %Y", "utchours(datum.value) == 0"
    elif days <= 120 and every not in ("month", "quarter", "year"):
        near, far, turn = "%-d %b", "%Y", "utcmonth(datum.value) == 0 && utcdate(datum.value) < 8"
    elif every == "year":
        return "utcFormat(datum.value, '%Y')"
    else:
        near, far, turn = "%b", "%Y", "utcmonth(datum.value) == 0"
    return f"[utcFormat(datum.value, '{near}'), datum.index == 0 || {turn} ? utcFormat(datum.value, '{far}') : '']"


def _ticks(timeline: Timeline, days: float) -> dict[str, Any]:
    """Ticks under the middle of each bar where bars are few and long, else where Vega puts them."""
    few = timeline.every in ("month", "quarter", "year") and timeline.periods <= 18
    if few or (timeline.every == "day" and timeline.periods <= 14):
        middles = timeline.rows.select(((pl.col("t") + pl.col("u")) // 2).alias("m")).unique().sort("m")
        return {"values": middles["m"].to_list()}
    if days > 120:
        return {
            "tickCount": alt.TimeIntervalStep(
                interval="month", step=1 if days <= 450 else 3 if days < 1500 else 12
            )
        }
    return {"tickCount": 8}


def _hatching() -> alt.Gradient:
    """Diagonal stripes, as far as a gradient can draw them; grey enough for light and dark."""
    stops = []
    for i in range(12):
        for at, opacity in (
            (i / 12, 0.2),
            ((i + 0.45) / 12, 0.2),
            ((i + 0.45) / 12, 0.08),
            ((i + 1) / 12, 0.08),
        ):
            stops.append(alt.GradientStop(offset=round(at, 4), color=f"rgba(134,140,148,{opacity})"))
    return alt.LinearGradient(gradient="linear", x1=0, y1=0, x2=1, y2=1, stops=stops)
