"""Answers as tables of text: what stands beside each chart for whoever cannot see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from d22kit.charts._answers import shown, span

__all__ = [
    "Table",
    "count",
    "moment",
    "number",
    "percent",
    "period",
    "points",
    "sentence",
    "spread",
    "table",
    "wait",
    "word",
]

MOST = 400
"""Rows that a table shows; a page is to be read."""
LONGEST = 200
NONE = "–"

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]
"""A heading, and how a row of the answer reads under it."""


@dataclass(frozen=True, slots=True)
class Table:
    """A caption, headings, whether a column holds numbers, rows of text, and how many rows were left out."""

    caption: str
    heads: list[str]
    numeric: list[bool]
    rows: list[list[str]]
    left: int = 0


def table(caption: str, answer: pl.DataFrame, columns: Sequence[Column], *, latest: bool = False) -> Table:
    """Return an answer as a table; with `latest` the newest rows come first."""
    rows = answer.reverse() if latest else answer
    cells = [[read(row) for _, read in columns] for row in rows.head(MOST).iter_rows(named=True)]
    words = {period, word, sentence}
    numeric = [getattr(read, "of", read) not in words for _, read in columns]
    return Table(caption, [head for head, _ in columns], numeric, cells, max(0, rows.height - MOST))


def word(name: str) -> Callable[[Row], str]:
    """A word of the data, made harmless."""
    return _of(
        word, lambda row: shown(row[name], LONGEST).replace("_", " ") if row[name] else shown(row[name])
    )


def sentence(name: str) -> Callable[[Row], str]:
    """A sentence, as it stands."""
    return _of(sentence, lambda row: shown(row[name], 2 * LONGEST) if row[name] else "")


def period(row: Row) -> str:
    """The period, and whether it is over."""
    if row["period_start"] is None:
        return "no time"
    note = {"partial": ", unfinished", "immature": ", still moving"}.get(row["period_state"], "")
    return span(row["period_start"], row["period_end"]) + note


def count(name: str) -> Callable[[Row], str]:
    """A number of rows."""
    return lambda row: NONE if row[name] is None else f"{row[name]:,}"


def number(name: str, form: str = ",.1f") -> Callable[[Row], str]:
    """A number, with its interval where the answer has one."""
    return lambda row: _interval(row, name, lambda value: format(value, form))


def percent(name: str) -> Callable[[Row], str]:
    """A share in percent, with its interval where the answer has one."""
    return lambda row: _interval(row, name, "{:.1%}".format)


def points(name: str) -> Callable[[Row], str]:
    """A difference of shares in percentage points, with its interval."""
    return lambda row: _interval(row, name, lambda value: f"{100 * value:+.1f}".replace("-", "−"))


def spread(lo: str, hi: str) -> Callable[[Row], str]:
    """The usual range of a difference of shares, in percentage points."""
    ends = points(lo), points(hi)
    return lambda row: NONE if row[lo] is None else f"{ends[0](row)} to {ends[1](row)}"


def wait(name: str) -> Callable[[Row], str]:
    """A duration, to the second."""
    return lambda row: NONE if row[name] is None else str(timedelta(seconds=round(row[name])))


def moment(name: str, zone: str) -> Callable[[Row], str]:
    """A local day."""
    return lambda row: NONE if row[name] is None else day(row[name], zone)


def day(value: datetime, zone: str) -> str:
    """Return the local day of an instant."""
    from zoneinfo import ZoneInfo

    local = value.astimezone(ZoneInfo(zone))
    return f"{local.day} {local:%b %Y}"


def _interval(row: Row, name: str, form: Callable[[float], str]) -> str:
    if row[name] is None:
        return NONE
    lo, hi = row.get(f"{name}_lo"), row.get(f"{name}_hi")
    return form(row[name]) + (f" ({form(lo)} to {form(hi)})" if lo is not None and hi is not None else "")


def _of(kind: Any, read: Callable[[Row], str]) -> Callable[[Row], str]:
    read.of = kind  # type: ignore[attr-defined]
    return read
