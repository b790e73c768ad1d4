"""Has it changed, and is anything unusual?"""

from __future__ import annotations

from functools import partial
from typing import Any

import altair as alt
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import Timeline, groups_of, highest, opened, pool, shown, span, timeline
from d22kit.charts._lines import line_with_band, open_tail, settling
from d22kit.charts._marks import (
    WIDTH,
    caption,
    data,
    empty,
    finish,
    fitted,
    heading,
    layered,
    listed,
    panels,
    percent_axis,
    plural,
    time_axis,
    tip,
    value_axis,
    wrapped,
)

__all__ = ["anomalies", "compare"]

COMPARED = (
    "metric", "value", "base_value", "n", "difference", "difference_lo", "difference_hi", "usual_lo", "usual_hi",
    "period_start", "period_end", "base_start", "base_end", "verdict",
)  # fmt: skip
MOST_COMPARED = 20
MOST_PANELS, MOST_POINTS, MOST_SENTENCES = 6, 1900, 10
USUAL = ("usual_lo", "usual_hi", "text")
NAMES = {
    "volume": "rows",
    "bounce_rate": "bounced of attempted",
    "hard_bounce_rate": "hard bounced of attempted",
    "failure_rate": "failed of attempted",
    "delivery_rate": "delivered of attempted",
    "inbound_per_100_delivered": "inbound per 100 delivered",
}
COUNTED = {"volume": "row", "inbound_per_100_delivered": "delivered row"}
"""What a measure is counted over, where it is not attempts."""
VERDICTS = {"within": theme.PALETTE[0], "beyond": theme.ACCENT, "unknown": theme.GREY}


def compare(answer: Any, *, title: str | None = None) -> alt.LayerChart | alt.Chart:
    """Draw each group's value then and now, sorted by the difference. Has it changed?

    Parameters
    ----------
    answer
        The answer of `d22kit.compare`, as it came or filtered.
    title
        In place of the question.

    Returns
    -------
    altair.LayerChart
        A hollow dot then, a filled mark now, on a grey bar where a usual change would end. An orange diamond
        lies beyond that. The difference stands beside it with its 95% interval.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.compare`.
    """
    return fitted(partial(_compare, answer, title))


def _compare(answer: Any, title: str | None, part: float) -> alt.LayerChart | alt.Chart:
    frame = opened(answer, "compare", COMPARED)
    most = max(1, int(MOST_COMPARED * part))
    groups = groups_of(frame, after=None, before="metric")
    known = frame.filter(pl.col("difference").is_not_null())
    metric = known["metric"][0] if known.height else "volume"
    head = heading(title or "Has it changed?", _spans(known, metric), _key(known), _left(frame, known, most))
    if not known.height:
        return empty(head, "There is nothing to compare.")
    named = pool(known, groups, "n", most=10**6)
    kept = named.rows.filter(pl.col("g").is_in(named.order[:most]))
    return finish(_pairs(kept.sort("difference", descending=True), metric), head, "compare")


def _spans(known: pl.DataFrame, metric: str) -> str:
    if not known.height:
        return "No group has a value in both periods."
    row = known.row(0, named=True)
    zone = getattr(known.schema["period_start"], "time_zone", None) or "UTC"
    now = span(row["period_start"], row["period_end"])
    then = span(row["base_start"], row["base_end"])
    counted = _counted(metric, int(known["n"].sum()))
    return f"{NAMES.get(metric, metric).capitalize()}: {now} against {then} · {zone} · {counted} now"


def _counted(metric: str, n: int) -> str:
    """How many rows a measure stands on, and what they are."""
    return plural(n, COUNTED.get(metric, "attempt"))


def _key(known: pl.DataFrame) -> str:
    usual = (
        " Grey: where a usual change would end. Orange: beyond it."
        if known["usual_lo"].is_not_null().any()
        else ""
    )
    return f"Hollow: then. Filled: now.{usual}" if known.height else ""


def _left(frame: pl.DataFrame, known: pl.DataFrame, most: int) -> list[str]:
    few, small = frame.height - known.height, known.height - most
    return [
        *(
            [f"Not drawn: {plural(few, 'group')} without a value in both periods."]
            if few and known.height
            else []
        ),
        *([f"Not drawn: the {plural(small, 'smallest group')}."] if small > 0 else []),
    ]


def _pairs(rows: pl.DataFrame, metric: str) -> alt.LayerChart:
    base, change = pl.col("base_value"), pl.col("difference")
    beyond = (change < pl.col("usual_lo")) | (change > pl.col("usual_hi"))
    rows = rows.with_columns(
        id=pl.int_range(pl.len()).cast(pl.String),
        lo=base + pl.col("usual_lo"),
        hi=base + pl.col("usual_hi"),
        k=pl.when(beyond)
        .then(pl.lit("beyond"))
        .when(beyond.not_())
        .then(pl.lit("within"))
        .otherwise(pl.lit("unknown")),
        said=pl.Series([_said(row, metric) for row in rows.iter_rows(named=True)], dtype=pl.String),
        verdict=pl.Series([shown(verdict, 300) for verdict in rows["verdict"]], dtype=pl.String),
        label=pl.Series(
            [f"{g or 'all'} (n {n:,})" for g, n in rows.select("g", "n").iter_rows()], dtype=pl.String
        ),
    )
    rows = rows.with_columns(pl.col("lo", "hi").clip(0, 1 if metric.endswith("_rate") else None))
    source = data(rows, "id", "label", "value", "base_value", "lo", "hi", "k", "said", "verdict")
    axis = partial(_x, metric=metric)
    chart = alt.Chart(source).encode(
        y=listed(rows["label"].to_list()), tooltip=[tip("label", "group"), tip("verdict", "verdict")]
    )
    hue = alt.Color(
        field="k",
        type="nominal",
        scale=alt.Scale(domain=list(VERDICTS), range=list(VERDICTS.values())),
        legend=None,
    )
    shape = alt.Shape(
        field="k", type="nominal", legend=None,
        scale=alt.Scale(domain=list(VERDICTS), range=["circle", "diamond", "circle"]),
    )  # fmt: skip
    usual = chart.mark_bar(color=theme.GREY, opacity=0.28, height=14).encode(
        x=axis("lo"), x2=alt.X2(field="hi")
    )
    line = chart.mark_rule(strokeWidth=2.5).encode(x=axis("base_value"), x2=alt.X2(field="value"), color=hue)
    then = chart.mark_point(size=55, strokeWidth=2, fill=theme.PAPER, opacity=1).encode(
        x=axis("base_value"), stroke=hue
    )
    now = chart.mark_point(filled=True, size=110, opacity=1).encode(x=axis("value"), color=hue, shape=shape)
    words = chart.mark_text(style="d22kit-label", align="left").encode(
        x=alt.value(WIDTH - 190), text=alt.Text(field="said", type="nominal")
    )
    ground = [usual] if rows["lo"].is_not_null().any() else []
    return layered(*ground, line, then, now, words, width=WIDTH - 200, height=alt.Step(28))


def _x(field: str, metric: str) -> alt.X:
    form = ",.2~f" if _is_count(metric) or metric not in NAMES or metric.startswith("inbound") else "~%"
    step: dict[str, Any] = {"labelExpr": "datum.value % 1 ? '' : datum.label"} if _is_count(metric) else {}
    axis = alt.Axis(
        title=NAMES.get(metric, metric), titleAnchor="end", format=form, grid=True, tickCount=5, **step
    )
    return alt.X(
        field=field, type="quantitative", axis=axis, scale=alt.Scale(zero=False, nice=True, padding=12)
    )


def _said(row: dict[str, Any], metric: str) -> str:
    size, unit = (100, " points") if metric.endswith("_rate") else (1, " rows" if _is_count(metric) else "")
    digits = 0 if _is_count(metric) else 1

    def signed(value: float) -> str:
        return f"{value * size:+,.{digits}f}".replace("-", "−")

    # As the sentence of the verdict has it: the difference of what is shown, so that it adds up.
    apart = (round(row["value"] * size, digits) - round(row["base_value"] * size, digits)) / size
    if unit == " rows" and abs(apart) == 1:
        unit = " row"
    if row["difference_lo"] is None:
        return f"{signed(apart)}{unit}"
    return f"{signed(apart)}{unit} ({signed(row['difference_lo'])} to {signed(row['difference_hi'])})"


def _is_count(metric: str) -> bool:
    return metric == "volume"


def anomalies(answer: Any, *, title: str | None = None) -> alt.ConcatChart | alt.Chart:
    """Draw each group's line in its usual band, what leaves it, and the sentence that says so. Is it unusual?

    Parameters
    ----------
    answer
        The answer of `d22kit.anomalies`, as it came or filtered.
    title
        In place of the question.

    Returns
    -------
    altair.ConcatChart
        A panel per group, those with alarms first; a numbered diamond marks an alarm, and its sentence stands
        above the panel. Groups without an alarm are only counted, unless there is none at all.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.anomalies`, or its periods are too many to draw.
    """
    return fitted(partial(_anomalies, answer, title))


def _anomalies(answer: Any, title: str | None, part: float) -> alt.ConcatChart | alt.Chart:
    frame = opened(answer, "anomalies", [*("period_start", "metric", "value", "n"), *USUAL])
    frame, earlier = _newest(frame, max(1, int(MOST_POINTS * part)))
    metric = frame["metric"][0] if frame.height else "volume"
    count = frame.with_columns(
        rows=pl.col("text").is_not_null() * 1_000_000_000_000 + pl.col("n").fill_null(0)
    )
    line = timeline(
        count, "anomalies", ["rows", "n"], size="rows",
        intervals=["value", *USUAL], most_rows=10**9, most=10**6,
    )  # fmt: skip
    room = max(1, int(MOST_POINTS * part) // max(1, line.periods))
    panel_groups = line.order[: min(room, max(1, min(MOST_PANELS, _alarmed(line))))]
    rest = len(line.order) - len(panel_groups)
    quiet = " without an alarm" if 0 < _alarmed(line) <= len(panel_groups) else ""
    head = heading(
        title or "Is anything unusual?",
        f"{NAMES.get(metric, metric).capitalize()} per {line.every} · {line.zone} · {line.range} · "
        f"{_counted(metric, int(line.rows['n'].sum()))}",
        _found(line),
        earlier,
        [f"{plural(rest, 'more group')}{quiet} {'is' if rest == 1 else 'are'} not drawn."] if rest else [],
    )
    if not line.rows.height:
        return empty(head)
    rows = line.rows.rename({"value": "v", "usual_lo": "lo", "usual_hi": "hi"})
    drawn = [_watched(line, rows.filter(pl.col("g") == g), g, metric) for g in panel_groups]
    return finish(panels(drawn, 1), head, "anomalies")


def _newest(frame: pl.DataFrame, most: int) -> tuple[pl.DataFrame, list[str]]:
    """Keep the newest periods, for these can be acted on, and say what came before them."""
    starts = frame["period_start"].drop_nulls().unique().sort(descending=True)
    if len(starts) <= most:
        return frame, []
    kept = frame.filter(pl.col("period_start") >= starts[most - 1])
    alarms = frame["text"].count() - kept["text"].count()
    return kept, [
        f"The newest {most:,} of {len(starts):,} periods; {plural(alarms, 'alarm')} came before these."
    ]


def _found(line: Timeline) -> str:
    alarms = line.rows["text"].count()
    if alarms:
        return f"{plural(alarms, 'period')} {'leaves' if alarms == 1 else 'leave'} the usual band."
    if line.rows["usual_lo"].is_not_null().any():
        return "Nothing leaves the usual band."
    return "There are too few earlier periods to say what is usual."


def _alarmed(line: Timeline) -> int:
    return line.rows.filter(pl.col("text").is_not_null())["g"].n_unique()


def _watched(line: Timeline, rows: pl.DataFrame, group: str, metric: str) -> alt.LayerChart:
    rows = settling(rows)
    alarms = rows.filter(pl.col("text").is_not_null()).with_columns(
        i=pl.int_range(1, pl.len() + 1).cast(pl.String)
    )
    titled = NAMES.get(metric, metric)
    top = highest(pl.concat([rows["v"], rows["hi"]]), 0.01 if metric.endswith("_rate") else 1)
    y = partial(
        percent_axis if metric.endswith("_rate") else value_axis, title=titled, domain=[0, top], nice=True
    )
    form = ".1%" if metric.endswith("_rate") else ",.1~f"
    tips = [
        tip("w", line.every),
        tip("v", titled, form),
        tip("lo", "usual from", form),
        tip("hi", "usual to", form),
    ]
    marks = line_with_band(line, data(rows, "t", "u", "v", "lo", "hi", "w", "s"), set(rows["s"]), y, tips)
    return layered(
        *open_tail(line),
        *marks,
        *(_diamonds(alarms, line, y) if alarms.height else []),
        width=WIDTH,
        height=150,
        title=caption(group, *_sentences(alarms)),
    )


def _diamonds(alarms: pl.DataFrame, line: Timeline, y: Any) -> list[alt.Chart]:
    base = (
        alt.Chart(data(_numbered(alarms, line.edges[1] - line.edges[0]), "t", "u", "v", "i", "text", "w"))
        .transform_calculate(c="(datum.t + datum.u) / 2")
        .encode(x=time_axis(line, "c"), y=y("v"), tooltip=[tip("w", "when"), tip("text", "unusual")])
    )
    labelled, number = base.transform_filter("isValid(datum.i)"), alt.Text(field="i", type="nominal")
    return [
        base.mark_point(shape="diamond", filled=True, size=110, color=theme.ACCENT, opacity=1),
        labelled.mark_text(dy=-12, fontWeight=600, stroke=theme.PAPER, strokeWidth=3).encode(text=number),
        labelled.mark_text(style="d22kit-label", dy=-12, fontWeight=600).encode(text=number),
    ]


def _numbered(alarms: pl.DataFrame, length: int) -> pl.DataFrame:
    """Give alarms that stand too close one label, such as 6–9, on the highest of them."""
    close = (pl.col("t").diff() > length / 60).fill_null(True).cum_sum()
    together = alarms.with_columns(run=close)
    first, last, top = (
        pl.col("i").first().over("run"),
        pl.col("i").last().over("run"),
        pl.col("v").arg_max().over("run"),
    )
    name = pl.when(first == last).then(first).otherwise(pl.concat_str(first, pl.lit("–"), last))
    return together.with_columns(i=pl.when(pl.int_range(pl.len()).over("run") == top).then(name))


def _sentences(alarms: pl.DataFrame) -> list[str]:
    """The alarms in words, numbered; of many the strongest are the latest to act on."""
    said = [f"{i}  {shown(text, 300)}" for i, text in alarms.select("i", "text").iter_rows()]
    more = (
        [f"… and {len(said) - MOST_SENTENCES} earlier, numbered in the plot"]
        if len(said) > MOST_SENTENCES
        else []
    )
    return [line for text in [*more, *said[-MOST_SENTENCES:]] for line in wrapped(text, 120)]
