"""When do we communicate?"""

from __future__ import annotations

from functools import partial
from typing import Any

import altair as alt
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import MOST_GROUPS, groups_of, opened, pool
from d22kit.charts._marks import caption, data, empty, finish, fitted, heading, panels, tip

__all__ = ["grid", "heatmap"]

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def heatmap(answer: Any, *, tz: str | None = None, title: str | None = None) -> alt.ConcatChart | alt.Chart:
    """Draw rows per hour of the week as a grid. When do we communicate?

    Parameters
    ----------
    answer
        The answer of `d22kit.heatmap`, as it came or filtered.
    tz
        The zone that was asked for, to be named on the axis; this answer does not hold it.
    title
        In place of the question.

    Returns
    -------
    altair.ConcatChart
        Darker is more. With several groups there is a grid each, shaded against its own busiest hour.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.heatmap`.
    """
    return fitted(partial(_heatmap, answer, tz, title))


def _heatmap(answer: Any, tz: str | None, title: str | None, part: float) -> alt.ConcatChart | alt.Chart:
    frame = opened(answer, "heatmap", ["weekday", "hour", "rows", "hours_observed"])
    dated = frame.filter(pl.col("weekday").is_not_null())
    most = max(1, int(MOST_GROUPS * part))
    named = pool(dated, groups_of(frame, after=None, before="weekday"), "rows", most=most)
    cells = named.rows.group_by("g", "weekday", "hour", maintain_order=True).agg(
        pl.col("rows").sum(), pl.col("hours_observed").max()
    )
    cells = cells.filter(pl.col("hours_observed") > 0).with_columns(
        v=pl.col("rows") / pl.col("hours_observed")
    )
    total, undated = int(cells["rows"].sum()), int(frame.filter(pl.col("weekday").is_null())["rows"].sum())
    head = heading(
        title or "When do we communicate?",
        f"Rows per hour of the week, local time{f' in {tz}' if tz else ''} · {total:,} rows",
        [*named.notes, *([f"{undated:,} rows without a time are not drawn."] if undated else [])],
    )
    if not total:
        return empty(head)
    if len(named.order) > 1:
        cells = cells.with_columns(c=pl.col("v") / pl.col("v").max().over("g"))
    size = (26, 26) if len(named.order) == 1 else (13, 16)
    drawn = [grid(cells.filter(pl.col("g") == g), g, cell=size, tz=tz) for g in named.order]
    return finish(panels(drawn, min(2, len(drawn))), head, "heatmap")


def grid(
    cells: pl.DataFrame, name: str, *, cell: tuple[float, float], tz: str | None = None, frame: str = "bounds"
) -> alt.Chart:
    """Return the grid of one group: `v` rows per hour, shaded by `c` where groups have grids of their own."""
    first, after = (
        pl.col("hour").cast(pl.String).str.zfill(2),
        ((pl.col("hour") + 1) % 24).cast(pl.String).str.zfill(2),
    )
    day = pl.col("weekday").replace_strict(dict(enumerate(DAYS, 1)), return_dtype=pl.String)
    words = pl.format("{} {}:00–{}:00", day, first, after)
    cells = cells.with_columns(d=day.str.slice(0, 3), w=words).sort("weekday", "hour")
    busiest = cells.row(int(cells["v"].arg_max() or 0), named=True)
    own = "c" in cells.columns
    days = [day[:3] for day in DAYS]
    hours = alt.Axis(
        title=f"hour, {tz}" if tz else "hour",
        titleAnchor="end",
        labelAngle=0,
        labelExpr="datum.value % 3 ? '' : datum.label + ':00'",
    )
    chart: alt.Chart = (
        alt.Chart(data(cells, "d", "hour", "v", "w", "rows", *(["c"] if own else [])))
        .mark_rect()
        .encode(
            x=alt.X(
                field="hour",
                type="ordinal",
                axis=hours,
                scale=alt.Scale(domain=list(range(24)), paddingInner=0.06),
            ),
            y=alt.Y(
                field="d",
                type="ordinal",
                sort=days,
                axis=alt.Axis(title=None),
                scale=alt.Scale(domain=days, paddingInner=0.06),
            ),
            color=_shade(own),
            tooltip=[tip("w", "when"), tip("v", "rows per hour", ",.2~f"), tip("rows", "rows", ",")],
        )
        .properties(
            width=24 * cell[0],
            height=7 * cell[1],
            title=caption(
                name,
                f"{'b' if name else 'B'}usiest: {busiest['w']}, {busiest['v']:,.1f} rows per hour",
                frame=frame,
            ),
        )
    )
    return chart


def _shade(own: bool) -> alt.Color:
    """How dark a cell is: by its rows per hour, or by how near it comes to its own group's busiest hour."""
    legend = alt.Legend(
        title=["of the group's", "busiest hour"] if own else "rows per hour",
        format="~%" if own else ",.2~f",
        gradientLength=110,
    )
    scale = alt.Scale(range=list(theme.RAMP), domainMin=0)
    return alt.Color(field="c" if own else "v", type="quantitative", scale=scale, legend=legend)
