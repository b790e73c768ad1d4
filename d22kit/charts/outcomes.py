"""Does it arrive, and what stops it?"""

from __future__ import annotations

from functools import partial
from typing import Any

import altair as alt
import polars as pl

from d22kit.charts import theme
from d22kit.charts._answers import MOST_GROUPS, Timeline, groups_of, highest, opened, pool, shown, timeline
from d22kit.charts._lines import WEEK, columns_of, line_with_band, open_tail, panel_width, settling, smoothed
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
)

__all__ = ["bounces", "delivery"]

COUNTS = ("attempted", "pending", "accepted", "delivered", "bounced", "failed", "known")
LIMITS = ("delivered_of_attempted_share_lo", "delivered_of_attempted_share_hi")


STILL = "Hatched: outcomes still move. The dark area reaches up to the share if all that is open arrives."
LONG = "Thin lines: each {}. Thick lines: all attempts of the week up to it."
SMALL = 30
"""A period with fewer attempts says little."""
PERMANENCE = {
    "hard": theme.PALETTE[1],
    "soft": theme.PALETTE[0],
    "block": theme.PALETTE[3],
    "unknown": theme.GREY,
}
NO_TEXT = ", texts pooled or missing"
MOST_CAUSES = 12


def delivery(answer: Any, *, title: str | None = None) -> alt.ConcatChart | alt.Chart:
    """Draw the delivered share per period, a panel per group, attempts beneath. Does it arrive?

    Parameters
    ----------
    answer
        The answer of `d22kit.delivery`, as it came or filtered.
    title
        In place of the question.

    Returns
    -------
    altair.ConcatChart
        Each panel has the delivered share of attempted with its 95% interval, and names the share of known
        outcomes and the receipts' coverage. Where outcomes still move the ground is hatched, the line is
        dashed, and a pale area reaches up to the share if all that is open arrives. A long daily line stands
        behind the share of its last seven days.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.delivery`.
    """
    return fitted(partial(_delivery, answer, title))


def _delivery(answer: Any, title: str | None, part: float) -> alt.ConcatChart | alt.Chart:
    line = timeline(
        answer, "delivery", COUNTS, size="attempted", intervals=LIMITS, most_rows=int(1850 * part), panel=55
    )
    total = int(line.rows["attempted"].sum())
    head = heading(
        title or "Does it arrive?",
        f"Delivered of attempted, per {line.every} of creation · {line.zone} · {line.range} · {total:,} attempts",
        "" if line.merged else "The band around a line is its 95% interval.",
        STILL if (line.rows["state"] != "complete").any() else "",
        LONG.format(line.every) if smoothed(line) else "",
        line.notes,
    )
    if not total:
        return empty(head)
    rows = line.rows.with_columns(
        v=pl.col("delivered") / pl.when(pl.col("attempted") > 0).then("attempted"),
        m=pl.sum_horizontal("delivered", "pending", "accepted")
        / pl.when(pl.col("attempted") > 0).then("attempted"),
    ).rename(dict(zip(LIMITS, ("lo", "hi"), strict=True)))
    lowest = -highest(-rows.filter(pl.col("attempted") >= SMALL)["v"], -1)
    bottom = int(lowest * 10 - 0.5) / 10 if lowest < 1 else 0
    domain = [bottom if bottom > 0.1 else 0, 1]  # an axis from 10% would not be labelled where it begins
    columns = columns_of(line)
    drawn = [_arrival(line, rows.filter(pl.col("g") == g), g, domain, columns) for g in line.order]
    return finish(panels(drawn, columns), head, "delivery")


def _arrival(
    line: Timeline, rows: pl.DataFrame, group: str, domain: list[float], columns: int
) -> alt.VConcatChart:
    sums = rows.select(pl.col(COUNTS).sum()).row(0, named=True)
    width = panel_width(columns)
    tips = [
        tip("w", line.every),
        tip("n", "attempted", ","),
        tip("v", "delivered of attempted", ".1%"),
        tip("lo", "95% from", ".1%"),
        tip("hi", "95% to", ".1%"),
        tip("b", "bounced", ","),
        tip("f", "failed", ","),
    ]
    told = ("t", "u", "v", "m", "lo", "hi", "w", "s", "n", "b", "f")
    rows = settling(rows.rename({"attempted": "n", "bounced": "b", "failed": "f"}))
    rows = rows.with_columns(m=pl.when(pl.col("s") > 0).then("m"), r=_weekly(line.every))
    source = data(rows, *told, *(["r"] if smoothed(line) else []))
    y = partial(percent_axis, title="delivered of attempted", domain=domain)
    kinds = set(rows["s"])
    rate = line_with_band(line, source, kinds, y, tips, labels=False, lowest=domain[0], half=columns > 1)
    still = (
        alt.Chart(source)
        .transform_calculate(c="(datum.t + datum.u) / 2")
        .transform_filter("datum.s > 0")
        .mark_area(color=theme.PALETTE[0], opacity=0.3, clip=True)
        .encode(x=time_axis(line, "c", labels=False), y=y("v"), y2=alt.Y2(field="m"))
    )
    bars = (
        alt.Chart(source)
        .mark_bar(color=theme.GREY)
        .encode(
            x=time_axis(line),
            x2=alt.X2(field="u"),
            y=value_axis("n", f"attempts per {line.every}", zero=True),
            y2=alt.Y2Datum(0),
            opacity=alt.when(alt.datum.s == 3).then(alt.value(0.45)).otherwise(alt.value(1)),
            tooltip=[tip("w", line.every), tip("n", "attempted", ",")],
        )
    )
    top = layered(*open_tail(line), *([still] if max(kinds) > 0 else []), *rate, width=width, height=150)
    below = bars.properties(width=width, height=46)
    return alt.vconcat(top, below, spacing=22).properties(title=caption(group, *_totals(sums, rows)))


def _weekly(every: str) -> pl.Expr:
    """The share of all attempts of the week up to each settled period: a day alone may have few."""
    size = WEEK.get(every, 1)
    settled = pl.when(pl.col("s") < 2)
    delivered, attempted = (
        settled.then(name).rolling_sum(size, min_samples=size) for name in ("delivered", "n")
    )
    return delivered / pl.when(attempted > 0).then(attempted)


def _totals(sums: dict[str, int], rows: pl.DataFrame) -> list[str]:
    attempted, known = sums["attempted"], sums["known"]
    if not attempted:
        return ["nothing attempted"]
    of_known = f", {sums['delivered'] / known:.1%} of known outcomes" if known else ""
    few = f", but under {SMALL} in most periods" if (rows["n"] < SMALL).mean() > 0.5 else ""  # type: ignore[operator]
    return [
        f"{sums['delivered'] / attempted:.1%} of attempted{of_known}",
        f"receipts for {known / attempted:.0%} of {attempted:,} attempts{few}",
    ]


def bounces(answer: Any, *, title: str | None = None) -> alt.ConcatChart | alt.Chart:
    """Draw what stopped messages, the most frequent cause first, with what to do. Why does it not arrive?

    Parameters
    ----------
    answer
        The answer of `d22kit.bounces` at either level, as it came or filtered.
    title
        In place of the question.

    Returns
    -------
    altair.ConcatChart
        Bars of rows, coloured by permanence: hard (the address is wrong), soft (it may work later), block
        (something on our side must change). With several groups a panel each.

    Raises
    ------
    InputError
        Where this is not the answer of `d22kit.bounces`.
    """
    return fitted(partial(_bounces, answer, title))


def _bounces(answer: Any, title: str | None, part: float) -> alt.ConcatChart | alt.Chart:
    frame = opened(answer, "bounces", ["state", "category", "permanence", "rows", "action"])
    total = int(frame["rows"].sum())
    templates = "template" in frame.columns
    most = max(1, int(MOST_GROUPS * part))
    named = pool(frame, groups_of(frame, after=None, before="state"), "rows", most=most)
    head = heading(
        title or "Why does it not arrive?",
        f"Bounced, failed and suppressed rows, by {'text of the answer' if templates else 'cause'} · {total:,} rows",
        named.notes,
    )
    if not total:
        return empty(head)
    found = causes(named.rows, templates=templates, most=max(3, int(MOST_CAUSES * part**0.5)))
    longest = max(len(shown(cause, 70)) for cause in found["c"])
    drawn = [ranked(found.filter(pl.col("g") == g), g, longest=longest) for g in named.order]
    return finish(panels(drawn, 1), head, "bounces")


def causes(rows: pl.DataFrame, *, templates: bool, most: int = MOST_CAUSES) -> pl.DataFrame:
    """Return rows per group and cause, the most frequent first and the least together: `c`, `p`, `a`, `rows`."""
    cause = pl.col("category").cast(pl.String).str.replace_all("_", " ").fill_null("cause not known")
    text = pl.col("template").cast(pl.String) if templates else pl.lit(None, pl.String)
    word = (
        pl.when(text.str.strip_chars() != "")
        .then(text)
        .otherwise(pl.format("{}{}", cause, pl.lit(NO_TEXT * templates)))
    )
    state = pl.col("state").cast(pl.String)
    named = rows.select(
        "g",
        "rows",
        c=pl.when(state == "bounced")
        .then(word)
        .otherwise(pl.format("{} ({})", word, state.fill_null("no state"))),
        p=pl.col("permanence").cast(pl.String).fill_null("unknown"),
        a=pl.col("action").cast(pl.String).fill_null(""),
    )
    cells = named.group_by("g", "c", "p", "a").agg(pl.col("rows").sum()).filter(pl.col("rows") > 0)
    rank = pl.col("rows").rank("ordinal", descending=True).over("g", order_by=["c", "p", "a"])
    rest = rank > most
    pooled = cells.with_columns(
        rank=rank.clip(None, most + 1),
        c=pl.when(rest).then(pl.lit("other causes")).otherwise("c"),
        p=pl.when(rest).then(pl.lit("unknown")).otherwise("p"),
        a=pl.when(rest).then(pl.lit("")).otherwise("a"),
    )
    return pooled.group_by("g", "rank", "c", "p", "a").agg(pl.col("rows").sum()).sort("g", "rank")


def ranked(
    found: pl.DataFrame, name: str, *, width: int = WIDTH, legend: Any = "right", longest: int = 0
) -> alt.LayerChart:
    """Return the causes of one group as bars, with their share and what to do beside them.

    Panels that know their `longest` label, in characters, begin their bars at one place.
    """
    total, most = int(found["rows"].sum()), highest(found["rows"])
    said = [
        f"{n:,} · {n / total:.0%}" + (f" · {shown(action, 90)}" if action else "")
        for n, action in found.select("rows", "a").iter_rows()
    ]
    rows = found.with_columns(
        id=pl.int_range(pl.len()).cast(pl.String),
        c=pl.Series([shown(cause, 70) for cause in found["c"]], dtype=pl.String),
        said=pl.Series(said, dtype=pl.String),
        v=pl.col("rows") / total,
    )
    length = alt.Scale(domain=[0, most], range=[0, width // 3])
    hue = alt.Scale(domain=list(PERMANENCE), range=list(PERMANENCE.values()))
    base = alt.Chart(data(rows, "id", "c", "p", "a", "rows", "v", "said")).encode(
        y=listed(rows["c"].to_list(), room=longest),
        x=alt.X(field="rows", type="quantitative", axis=None, scale=length),
    )
    bars = base.mark_bar(height=alt.RelativeBandSize(band=0.7)).encode(
        color=alt.Color(
            field="p",
            type="nominal",
            scale=hue,
            legend=alt.Legend(title="permanence", orient=legend, symbolType="square"),
        ),
        tooltip=[
            tip("c", "cause"),
            tip("p", "permanence"),
            tip("rows", "rows", ","),
            tip("v", "share", ".1%"),
            tip("a", "action"),
        ],
    )
    words = base.mark_text(style="d22kit-label", align="left", dx=6).encode(
        text=alt.Text(field="said", type="nominal")
    )
    told = {"title": caption(name, plural(total, "row"))} if name else {}
    return layered(bars, words, width=width, height=alt.Step(22), **told)
