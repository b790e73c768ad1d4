"""How long does the last word take?"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import altair as alt
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import groups_of, highest, opened, pool
from d22kit.charts._marks import WIDTH, data, empty, finish, fitted, heading, layered, listed, plural, tip

__all__ = ["time_to_last_update"]

MOST_RANGES = 40
SHORTEST = 0.5
"""Seconds; nothing shorter has a place on a logarithmic axis."""
LASTING = {
    1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3_600: "1 h", 21_600: "6 h", 86_400: "1 day", 604_800: "1 week",
    2_592_000: "30 days", 31_536_000: "1 year",
}  # fmt: skip


def time_to_last_update(answer: Any, *, title: str | None = None) -> alt.LayerChart | alt.Chart:
    """Draw how long after creation rows last changed: half of them, and nine in ten. How long does it take?

    Parameters
    ----------
    answer
        The answer of `d22kit.time_to_last_update`, as it came or filtered.
    title
        In place of the question.

    Returns
    -------
    altair.LayerChart
        Per group and state a range on a logarithmic axis: from the median to the 90th percentile.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.time_to_last_update`.
    """
    return fitted(partial(_time_to_last_update, answer, title))


def _time_to_last_update(answer: Any, title: str | None, part: float) -> alt.LayerChart | alt.Chart:
    frame = opened(answer, "time_to_last_update", ["state", "n", "open", "p50_s", "p90_s"])
    groups = groups_of(frame, after=None, before="state")
    total = int(frame["n"].sum())
    named = pool(frame, groups, "n", most=10**6)
    rows = _waits(named.rows, named.order, int(MOST_RANGES * part) or 1)
    left = named.rows.height - rows.height
    head = heading(
        title or "How long until the last change?",
        f"From creation to the last recorded change, per current state · {total:,} rows",
        "Filled: half of the rows took less. Hollow: nine in ten did.",
        [f"{left} smaller combinations are not drawn."] if left else [],
    )
    if not rows.height:
        return empty(head)
    return finish(_ranges(rows), head, "time_to_last_update")


def _waits(rows: pl.DataFrame, order: list[str], limit: int) -> pl.DataFrame:
    """Rows that have a duration, in words; the largest, grouped, the fastest first."""
    timed = rows.filter(pl.col("p50_s").is_not_null()).sort("n", descending=True).head(limit)
    rank = pl.col("g").replace_strict({g: k for k, g in enumerate(order)}, return_dtype=pl.Int64)
    state = pl.col("state").cast(pl.String).fill_null("(empty)")
    still = pl.when(pl.col("open") > 0).then(pl.lit(" (still open)")).otherwise(pl.lit(""))
    lead = pl.when(pl.col("g") == "").then(pl.lit("")).otherwise(pl.concat_str("g", pl.lit(" · ")))
    timed = timed.with_columns(rank, label=pl.concat_str(lead, state, still)).sort("g", "p50_s")
    half, most = ([_lasting(seconds) for seconds in timed[name]] for name in ("p50_s", "p90_s"))
    said = [
        (a if a == b else f"{a} – {b}") + f"  ({plural(n, 'row')})"
        for a, b, n in zip(half, most, timed["n"], strict=True)
    ]
    texts = {"a": half, "b": most, "said": said}
    return timed.with_columns(
        pl.col("p50_s", "p90_s").clip(SHORTEST),
        *(pl.Series(name, text, dtype=pl.String) for name, text in texts.items()),
        id=pl.int_range(pl.len()).cast(pl.String),
    )


def _ranges(rows: pl.DataFrame) -> alt.LayerChart:
    longest = highest(rows["p90_s"], 60)
    marks = [second for second in LASTING if second <= longest * 1.5]
    spoken = {second: words for second, words in LASTING.items() if second in marks}
    axis = alt.Axis(
        title="time since creation, logarithmic", titleAnchor="end", values=marks, grid=True,
        labelExpr=f"{json.dumps(spoken)}[datum.value]",
    )  # fmt: skip
    scale = alt.Scale(type="log", domain=[SHORTEST * 0.7, longest * 1.3], nice=False)
    base = alt.Chart(data(rows, "id", "label", "p50_s", "p90_s", "a", "b", "n", "said")).encode(
        y=listed(rows["label"].to_list()),
        x=alt.X(field="p50_s", type="quantitative", axis=axis, scale=scale),
        tooltip=[
            tip("label", "state"),
            tip("a", "half within"),
            tip("b", "nine in ten within"),
            tip("n", "rows", ","),
        ],
    )
    late = base.encode(x=alt.X(field="p90_s", type="quantitative", axis=axis, scale=scale))
    spans = base.mark_rule(strokeWidth=3, color=theme.PALETTE[0], opacity=0.5).encode(
        x2=alt.X2(field="p90_s")
    )
    dots = base.mark_point(filled=True, size=60, color=theme.PALETTE[0], opacity=1)
    rings = late.mark_point(
        filled=True, size=50, fill=theme.PAPER, stroke=theme.PALETTE[0], strokeWidth=2, opacity=1
    )
    words = late.mark_text(style="d22kit-note", align="left", dx=10).encode(
        text=alt.Text(field="said", type="nominal")
    )
    return layered(spans, dots, rings, words, width=WIDTH - 200, height=alt.Step(20))


def _lasting(seconds: float | None) -> str:
    """Return a duration as it is spoken.

    Examples
    --------
    >>> _lasting(0.4), _lasting(11.2), _lasting(2234), _lasting(169658)
    ('under 1 s', '11 s', '37 min', '2 days')
    """
    if seconds is None:
        return "no time"
    if seconds < 1:
        return "under 1 s"
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
