"""The sections of the page: a question, its chart, and the same as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from d22kit import charts
from d22kit.charts import theme
from d22kit.questions.bounces import bounces
from d22kit.questions.compare import compare
from d22kit.questions.delivery import delivery, time_to_last_update
from d22kit.questions.engagement import engagement
from d22kit.questions.volume import heatmap, share, volume
from d22kit.reporting import tables
from d22kit.reporting.tables import Table, table
from d22kit.reporting.unusual import Unusual

__all__ = ["Section", "sections"]

BY = "platform"
CHANNEL = ("channel", tables.word(BY))


@dataclass(frozen=True, slots=True)
class Section:
    """A question, what its chart shows in lines, the chart's specification, its alternative text, and a table.

    `open` says whether the table is read with the chart rather than in its place.
    """

    name: str
    question: str
    lines: list[str]
    spec: dict[str, Any]
    alt: str
    table: Table
    open: bool = False


def sections(frame: pl.DataFrame, every: str, unusual: Unusual, ask: dict[str, Any]) -> list[Section]:
    """Ask every question, and draw its answer."""
    zone = ask["tz"]
    return [
        *_much(frame, every, ask),
        *_arrives(frame, every, ask),
        _answered(frame, ask),
        *_alarms(unusual, zone),
    ]


def _much(frame: pl.DataFrame, every: str, ask: dict[str, Any]) -> Iterator[Section]:
    answer = volume(frame, by=BY, every=every, **ask)
    columns = [("period", tables.period), CHANNEL]
    counts = [(name, tables.count(name)) for name in ("rows", "outbound", "inbound")]
    yield _section(
        "volume",
        charts.volume(answer),
        table("Rows by period and channel", answer, [*columns, *counts], latest=True),
    )
    mix = share(frame, by="purpose", every="month", **ask)
    shown = [("period", tables.period), ("purpose", tables.word("purpose"))]
    parts = [("rows", tables.count("rows")), ("share", tables.percent("share"))]
    yield _section(
        "share",
        charts.share(mix, title="What do we write about?"),
        table("Share of each purpose by month", mix, [*shown, *parts], latest=True),
    )
    week = heatmap(frame, tz=ask["tz"])
    yield _section("heatmap", charts.heatmap(week, tz=ask["tz"]), _hours(week))


def _arrives(frame: pl.DataFrame, every: str, ask: dict[str, Any]) -> Iterator[Section]:
    answer = delivery(frame, by=BY, every=every, **ask)
    rates = [
        ("attempted", tables.count("attempted")),
        ("delivered of attempted (95%)", tables.percent("delivered_of_attempted_share")),
        ("delivered of known outcomes (95%)", tables.percent("delivered_of_known_share")),
        ("outcomes known", tables.percent("receipt_coverage_share")),
        ("bounced of attempted (95%)", tables.percent("bounced_of_attempted_share")),
    ]
    caption = "Outcomes by period and channel"
    yield _section(
        "delivery",
        charts.delivery(answer),
        table(caption, answer, [("period", tables.period), CHANNEL, *rates], latest=True),
    )
    changed = compare(frame, metric="delivery_rate", by=BY, every="month", **ask)
    change = [
        ("before", tables.percent("base_value")),
        ("now", tables.percent("value")),
        ("points (95%)", tables.points("difference")),
        ("usual, points", tables.spread("usual_lo", "usual_hi")),
        ("in words", tables.sentence("verdict")),
    ]
    yield _section(
        "compare",
        charts.compare(changed, title="Has delivery changed?"),
        table("The last whole month against the one before", _adding_up(changed), [CHANNEL, *change]),
    )
    yield _causes(frame, ask["tz"])
    waits = time_to_last_update(frame, by=BY)
    columns = [
        CHANNEL,
        ("state", tables.word("state")),
        ("rows", tables.count("n")),
        *(
            (head, tables.wait(name))
            for head, name in (("half within", "p50_s"), ("nine in ten within", "p90_s"))
        ),
    ]
    yield _section(
        "time_to_last_update",
        charts.time_to_last_update(waits),
        table("Time from creation to the last change (hours:minutes:seconds)", waits, columns),
    )


def _adding_up(changed: pl.DataFrame) -> pl.DataFrame:
    """Take differences of what is shown, so that before, now and points add up."""
    value, base = ((pl.col(name) * 100).round(1) for name in ("value", "base_value"))
    return changed.with_columns(difference=(value - base) / 100)


def _causes(frame: pl.DataFrame, zone: str) -> Section:
    answer = bounces(frame)
    columns = [
        ("cause", tables.word("category")),
        ("state", tables.word("state")),
        ("permanence", tables.word("permanence")),
        ("rows", tables.count("rows")),
        ("per 1,000 attempts (95%)", tables.number("per_1000_attempts")),
        ("last seen", tables.moment("last_seen", zone)),
        ("what to do", tables.sentence("action")),
    ]
    ranked = answer.sort("rows", descending=True, maintain_order=True)
    caption = "Causes over the whole range, the most frequent first"
    return _section("bounces", charts.bounces(answer), table(caption, ranked, columns), opened=True)


def _answered(frame: pl.DataFrame, ask: dict[str, Any]) -> Section:
    answer = engagement(frame, by=BY, every="month", **ask)
    columns = [
        ("period", tables.period),
        CHANNEL,
        ("delivered", tables.count("delivered")),
        ("inbound", tables.count("inbound")),
        ("inbound per 100 delivered (95%)", tables.number("inbound_per_100_delivered")),
        ("share of attempts", tables.percent("channel_share")),
        ("sent by a system", tables.percent("automated_share")),
    ]
    return _section(
        "engagement",
        charts.engagement(answer),
        table("Replies by month and channel", answer, columns, latest=True),
    )


def _alarms(unusual: Unusual, zone: str) -> Iterator[Section]:
    """Draw each metric that raised an alarm, rates first; the words stand at the head of the page."""
    alarmed = {episode.metric for episode in unusual.episodes}
    for metric in sorted(alarmed, key=lambda metric: (metric == "volume", metric)):
        answer = unusual.answers[metric]
        alarms = answer.filter(pl.col("text").is_not_null()).with_columns(pl.col("excess_rows").round())
        columns = [
            ("day", tables.moment("period_start", zone)),
            CHANNEL,
            ("rows beyond the usual", tables.number("excess_rows", "+,.0f")),
            ("in words", tables.sentence("text")),
        ]
        label = next(e.label for e in unusual.episodes if e.metric == metric)
        yield _section(
            f"unusual_{metric}",
            charts.anomalies(answer, title=f"When was the {label} unusual?"),
            table(f"Unusual days: {label}", alarms, columns, latest=True),
        )


def _hours(week: pl.DataFrame) -> Table:
    """The week as a table: an hour a row, a weekday a column."""
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    per_hour = {(row["weekday"], row["hour"]): row["rows_per_hour"] for row in week.iter_rows(named=True)}
    hours = [
        [f"{hour:02}:00", *(_rate(per_hour.get((weekday, hour))) for weekday in range(1, 8))]
        for hour in range(24)
    ]
    return Table("Rows per hour of the week", ["hour", *days], [False, *[True] * 7], hours)


def _rate(value: float | None) -> str:
    return tables.NONE if value is None else f"{value:,.1f}"


def _section(name: str, chart: Any, beside: Table, *, opened: bool = False) -> Section:
    """Take the title from a chart, so that the page can say it in text that wraps and is read aloud."""
    spec: dict[str, Any] = {**chart.to_dict(validate=False), "config": theme.config()}
    title = spec.pop("title")
    lines = title.get("subtitle", [])
    return Section(name, title["text"], lines, spec, spec.get("description", title["text"]), beside, opened)
