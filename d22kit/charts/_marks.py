"""What every chart is made of: data, titles, axes, colours, the unfinished tail, the limits of size."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
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
    "data",
    "edges",
    "empty",
    "finish",
    "fitted",
    "heading",
    "layered",
    "legend_filter",
    "listed",
    "note",
    "panels",
    "percent_axis",
    "plot_width",
    "plural",
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

LEAST = 0.02
"""The part of a chart that is drawn at the least, where all of it would be too large."""

SHAPES = ("line", "area")
"""Marks that are one shape however many rows they have."""

DAY_MS = 86_400_000
PARTS = ("layer", "concat", "hconcat", "vconcat")

D = TypeVar("D")
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


def plot_width(line: Timeline) -> int:
    """Return the width of a plot of bars: a few are not drawn as wide as walls."""
    return min(WIDTH, 180 + 80 * line.periods)


def plural(count: int, thing: str) -> str:
    """Return a count and what it counts.

    Examples
    --------
    >>> plural(1, "row"), plural(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def caption(group: str, *lines: str, frame: str = "bounds") -> alt.Title:
    """Return the title of a panel: its group, where there is one, and what it amounts to.

    It begins where the panel's labels do, or with `frame="group"` where its plot does.
    """
    text, *lines = [line for line in (group, *lines) if line] or [""]  # type: ignore[assignment]
    return alt.Title(
        text, subtitle=list(lines), fontSize=13, subtitleFontSize=11, subtitleLineHeight=14, offset=8, frame=frame,
    )  # fmt: skip


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
    span: Any = edges(timeline)
    if zoom:
        # What is dragged over sets the raw domain, which has no padding.
        span = {"domain": {"param": zoom.name, "encoding": "x"}, "padding": 6}
    return alt.X(field=field, type="temporal", axis=axis, scale=alt.Scale(type="utc", nice=False, **span))


def value_axis(field: str, title: str, *, step: float = 1, **scale: Any) -> alt.Y:
    """Return an axis of numbers, its unit above it; counts have no ticks between them."""
    whole: dict[str, Any] = {"labelExpr": "datum.value % 1 ? '' : datum.label"} if step == 1 else {}
    axis = _axis(title, ",.2~f", tickMinStep=step, **whole)
    return alt.Y(field=field, type="quantitative", axis=axis, scale=alt.Scale(**scale))


def percent_axis(field: str, title: str, *, lift: int = 0, **scale: Any) -> alt.Y:
    """Return an axis of shares, in percent; its title is lifted where numbers stand on the bars."""
    return alt.Y(field=field, type="quantitative", axis=_axis(title, "~%", lift), scale=alt.Scale(**scale))


def listed(names: Sequence[str], *, room: int = 0) -> alt.Y:
    """Return an axis of `id`, the place in a list, labelled by name: names may repeat, and are never parsed.

    It is as wide as a label of `room` characters, so that panels stand in line.
    """
    wide: dict[str, Any] = {"minExtent": min(420, round(5.3 * room))} if room else {}
    labels = alt.Axis(title=None, labelLimit=420, **wide, labelExpr=f"{json.dumps(list(names))}[datum.value]")
    return alt.Y(field="id", type="ordinal", sort=None, axis=labels)


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


class _TooLargeError(InputError):
    """A chart is too large; `part` of it would fit."""

    part: float = 1


def fitted(draw: Callable[[float], D]) -> D:
    """Return `draw(1.0)`, or as much of it as is small enough to be given out."""
    part = 1.0
    while True:
        try:
            return draw(part)
        except _TooLargeError as error:
            if part < LEAST:
                raise
            part *= min(0.9, 0.95 * error.part)


def finish(chart: C, title: alt.Title, function: str) -> C:
    """Give a chart its title and its alternative text, and refuse one too large to draw."""
    done: C = _quiet(chart).properties(title=title, description=_alt(title))
    spec = done.to_dict(validate=False)
    sizes = {name: len(rows) for name, rows in spec.get("datasets", {}).items()}
    marks, size = max(sum(sizes.values()), _marks(spec, sizes)), len(json.dumps(spec).encode())
    if marks > MOST_MARKS or size > MOST_BYTES:
        error = _TooLargeError(
            f"charts.{function} would draw {marks:,} marks ({size / 1000:,.0f} kB), more than {MOST_MARKS:,} marks or "
            f"{MOST_BYTES // 1000} kB, which no one can read. Ask d22kit.{function} for a longer period "
            "(every='month'), fewer columns in by=, or filter its answer first."
        )
        error.part = min(MOST_MARKS / marks, MOST_BYTES / size)
        raise error
    return done


def _marks(spec: dict[str, Any], sizes: dict[str, int], above: int = 0) -> int:
    """How many marks a specification draws at most; `above` are the rows it inherits."""
    rows = sizes.get(spec.get("data", {}).get("name"), above)
    if parts := [part for kind in PARTS for part in spec.get(kind, ())]:
        return sum(_marks(part, sizes, rows) for part in parts)
    return 1 if spec.get("mark", {}).get("type") in SHAPES else rows


def _quiet(chart: C) -> C:
    """Keep a chart's marks from being read aloud one by one, in the browser's zone: the description speaks."""
    parts = [part for kind in PARTS if isinstance(found := chart._kwds.get(kind), list) for part in found]
    for part in parts:
        _quiet(part)
    if not parts:
        mark: Any = chart._kwds["mark"]
        chart._kwds["mark"] = mark = alt.MarkDef(mark) if isinstance(mark, str) else mark  # type: ignore[arg-type]
        mark["aria"] = False
    return chart


def edges(timeline: Timeline) -> dict[str, int]:
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
    elif every == "quarter":
        near, far, turn = "Q%q", "%Y", "utcmonth(datum.value) < 3"
    elif every == "year":
        return "utcFormat(datum.value, '%Y')"
    else:
        near, far, turn = "%b", "%Y", "utcmonth(datum.value) == 0"
    return f"[utcFormat(datum.value, '{near}'), datum.index == 0 || {turn} ? utcFormat(datum.value, '{far}') : '']"


def _ticks(timeline: Timeline, days: float) -> dict[str, Any]:
    """Ticks under the middle of each bar where bars are few and long, else where Vega puts them."""
    few = timeline.every in ("month", "quarter", "year") and timeline.periods <= 18
    if timeline.every == "week" and days <= 120:
        starts = timeline.rows["t"].unique().sort()
        return {"values": starts.gather_every(1 + len(starts) // 10).to_list()}
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


def _hatching(stripes: int) -> alt.Gradient:
    """Diagonal stripes, as far as a gradient can draw them; grey enough for light and dark."""
    stops = []
    for i in range(stripes):
        for at, opacity in ((i, 0.17), (i + 0.45, 0.17), (i + 0.45, 0.06), (i + 1, 0.06)):
            stops.append(
                alt.GradientStop(offset=round(at / stripes, 4), color=f"rgba(134,140,148,{opacity})")
            )
    return alt.LinearGradient(gradient="linear", x1=0, y1=0, x2=1, y2=1, stops=stops)
