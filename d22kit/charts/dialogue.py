"""Does anyone answer?"""

from __future__ import annotations

from functools import partial
from typing import Any

import altair as alt
import polars as pl

from d22kit.charts._answers import Timeline, highest, timeline
from d22kit.charts._lines import columns_of, line_with_band, open_tail, panel_width, settling
from d22kit.charts._marks import (
    caption,
    data,
    empty,
    finish,
    fitted,
    heading,
    layered,
    note,
    panels,
    tip,
    value_axis,
)

__all__ = ["engagement"]

RATE = "inbound_per_100_delivered"
LIMITS = (f"{RATE}_lo", f"{RATE}_hi")
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
    return fitted(partial(_engagement, answer, title))


def _engagement(answer: Any, title: str | None, part: float) -> alt.ConcatChart | alt.Chart:
    line = timeline(
        answer, "engagement", COUNTS, size="attempted", intervals=LIMITS, most_rows=int(1850 * part), panel=55
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
    marks = line_with_band(line, source, set(rows["s"]), y, tips, half=columns > 1)
    return layered(
        *open_tail(line), *marks, width=panel_width(columns), height=150, title=caption(group, _totals(sums))
    )


def _totals(sums: dict[str, int]) -> str:
    started = sums["automated"] + sums["person"]
    automated = f", {sums['automated'] / started:.0%} of outbound automated" if started else ""
    if not sums["delivered"]:
        return f"nothing delivered, {sums['inbound']:,} inbound{automated}"
    return f"{100 * sums['inbound'] / sums['delivered']:.1f} per 100 delivered{automated}"
