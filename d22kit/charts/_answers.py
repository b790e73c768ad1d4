"""What every chart does to an answer first: open it, check it, name its groups, pool the rest, place its periods."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from d22kit.errors import InputError

__all__ = [
    "MOST_GROUPS",
    "Groups",
    "Timeline",
    "groups_of",
    "highest",
    "opened",
    "periods",
    "pool",
    "shown",
    "span",
    "timeline",
]

MOST_GROUPS = 10
"""Groups drawn by name; the smaller ones are pooled as "other"."""

LONGEST, LONGER = 36, 48
"""Characters of a label, and of one of several columns; of a longer one the middle is cut: names that begin alike
often end apart."""

INHERITED = {
    "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__", "__proto__", "constructor",
    "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf",
}  # fmt: skip
"""Names that each JavaScript object has: as a group they would stop Vega from drawing."""

LENGTHS = {
    "15min": 900,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_629_746,
    "quarter": 7_889_238,
}
"""Seconds of a period, by which its name is told."""

LADDER = ("15min", "hour", "day", "week", "month", "quarter", "year")
TRUNCATE = {"hour": "1h", "day": "1d", "week": "1w", "month": "1mo", "quarter": "1q", "year": "1y"}
WORST = ("complete", "immature", "partial")


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of an answer: their rows under `g`, and how they are ordered and called."""

    rows: pl.DataFrame
    order: list[str]
    title: str
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Timeline:
    """An answer by period, ready to be drawn.

    `rows` has `g` (the group's label), `t` and `u` (start and end: the local wall clock in milliseconds, to be read
    as UTC), `state`, `w` (the period in words) and the measures. `merged` says whether periods were drawn
    together, which costs them their intervals.
    """

    rows: pl.DataFrame
    order: list[str]
    title: str
    every: str
    zone: str
    range: str
    merged: bool
    notes: list[str]

    @property
    def series(self) -> int:
        """How many groups are drawn."""
        return len(self.order)

    @property
    def periods(self) -> int:
        """How many periods are drawn."""
        return self.rows["t"].n_unique()

    @property
    def edges(self) -> tuple[int, int]:
        """Start of the first period and end of the last."""
        first, last = self.rows.select(pl.col("t").min(), pl.col("u").max()).row(0)
        return first or 0, last or 0


def opened(answer: Any, function: str, needed: Sequence[str]) -> pl.DataFrame:
    """Return an answer as a Polars frame, or say which answer the chart takes."""
    frame = _polars(answer, function)
    if missing := [name for name in needed if name not in frame.columns]:
        if "public_id" in frame.columns:
            what = "This is a frame of rows, not an answer."
        else:
            what = (
                f"This frame lacks {', '.join(missing)}; it has {', '.join(frame.columns) or 'no columns'}."
            )
        raise InputError(
            f"charts.{function} takes the answer of d22kit.{function}. {what} Ask first, then draw: "
            f"charts.{function}(d22kit.{function}(frame, ...)); filter or join an answer, but keep its columns."
        )
    return frame


def groups_of(frame: pl.DataFrame, *, after: str | None, before: str) -> list[str]:
    """Return the columns an answer is grouped by: those between two of its own."""
    start = frame.columns.index(after) + 1 if after else 0
    return frame.columns[start : frame.columns.index(before)]


def shown(value: Any, longest: int = LONGEST) -> str:
    """Return a value of the data as a label: one line, cut, harmless, and null told from blank.

    Examples
    --------
    >>> shown("SMS\\n"), shown(None), shown(" "), shown("x" * 99 + "1")
    ('SMS', '(empty)', '(blank)', 'xxxxxxxxxxxxxxxxxxxxxxx…xxxxxxxxxxx1')
    """
    if value is None:
        return "(empty)"
    plain = "".join(
        c if unicodedata.category(c)[0] != "C" or c in "\u200c\u200d" else " " for c in str(value)
    )
    line = " ".join(plain.split()) or "(blank)"
    line = _cut(line, longest)
    line += "\u2060" * (line in INHERITED)
    # Altair's own HTML template does not escape what ends a script: a word joiner keeps the look and the page.
    return line.replace("</", "<\u2060/").replace("<!", "<\u2060!")


def pool(
    frame: pl.DataFrame,
    groups: Sequence[str],
    size: str,
    *,
    most: int = MOST_GROUPS,
    shares: pl.Expr | None = None,
) -> Groups:
    """Name the groups of an answer under `g`, the largest by `size` first, and call the rest "other"."""
    if not groups:
        return Groups(frame.with_columns(g=pl.lit("")), [""], "", [])
    sizes = frame.group_by(groups).agg(pl.col(size).sum().alias("__size"))
    sizes = sizes.sort("__size", *groups, descending=[True, *[False] * len(groups)], nulls_last=True)
    labels = _distinct([_together(row[:-1]) for row in sizes.iter_rows()])
    rest = len(labels) - most
    notes = []
    if rest > 0:
        labels = labels[:most] + [f"other ({rest})"] * rest
        notes = [f"The {f'{rest} smallest groups are' if rest > 1 else 'smallest group is'} pooled as other."]
    named = sizes.select(*groups, g=pl.Series(labels, dtype=pl.String))
    rows = frame.join(named, on=list(groups), how="left", nulls_equal=True, maintain_order="left")
    return Groups(rows, list(dict.fromkeys(labels)), _together(groups), notes)


def timeline(
    answer: Any,
    function: str,
    counts: Sequence[str],
    *,
    size: str,
    intervals: Sequence[str] = (),
    most_rows: int,
    panel: int = 0,
    most: int = MOST_GROUPS,
) -> Timeline:
    """Open an answer by period: groups pooled, periods placed, and widened until they fit.

    Parameters
    ----------
    counts
        Columns that are summed where groups or periods are put together.
    size
        The count by which groups are ranked.
    intervals
        Columns that hold for one group and period only: null where several are put together.
    most_rows
        How many groups times periods are drawn at most.
    panel
        How many of these the frame of one group's own panel costs.
    """
    frame = opened(
        answer, function, ["period_start", "period_end", "period_state", "small", *counts, *intervals]
    )
    groups = groups_of(frame, after="period_state", before="small")
    zone, every = _zone(frame, function), _every(frame)
    dated = frame.filter(pl.col("period_start").is_not_null())
    undated = frame.filter(pl.col("period_start").is_null())[size].sum()
    walls = dated.with_columns(*_walls(), _rank())
    named = pool(walls, groups, size, most=most)
    cells, drawn = _fitting(named.rows, every, most_rows // max(1, len(named.order)) - panel)
    room = most_rows // (cells["t"].n_unique() + panel) if cells.height else most
    if 1 < room < len(named.order):
        named = pool(walls, groups, size, most=room - 1)
        cells, drawn = _fitting(named.rows, every, most_rows // room - panel)
    notes = [*named.notes, *([f"{undated:,} rows without a time are not drawn."] if undated else [])]
    if drawn != every:
        bands = f" For intervals ask for every='{drawn}'." if intervals else ""
        notes.append(f"Drawn per {drawn}: a point for each {every} would not fit.{bands}")
    rows = _summed(cells, counts, intervals)
    placed = rows.with_columns(_words(drawn)).with_columns(pl.col("t", "u").dt.timestamp("ms")).sort("g", "t")
    merged = drawn != every
    return Timeline(placed, named.order, named.title, drawn, zone, periods(dated), merged, notes)


def _fitting(cells: pl.DataFrame, every: str, most_periods: int) -> tuple[pl.DataFrame, str]:
    """Widen periods until they are few enough, or as wide as can be. Weeks stay: they do not nest in months."""
    wider = LADDER[LADDER.index(every) + 1 :] if every != "week" else ()
    placed = cells
    for drawn in wider:
        if placed["t"].n_unique() <= most_periods:
            break
        placed, every = _widened(cells, drawn), drawn
    return placed, every


def periods(frame: pl.DataFrame) -> str:
    """Return the range that an answer's periods cover, in words."""
    first, last = frame["period_start"].min(), frame["period_end"].max()
    if first is None or last is None:
        return "no periods"
    return span(first, last)


def span(first: Any, last: Any) -> str:
    """Return a half-open range of local times, as its first and last day.

    Examples
    --------
    >>> from datetime import datetime
    >>> span(datetime(2026, 5, 1), datetime(2026, 6, 1)), span(datetime(2025, 5, 6), datetime(2026, 1, 1))
    ('1–31 May 2026', '6 May – 31 Dec 2025')
    >>> span(datetime(2025, 5, 6), datetime(2026, 1, 2))
    '6 May 2025 – 1 Jan 2026'
    """
    end = last - timedelta(microseconds=1)
    if first.date() == end.date():
        return f"{end.day} {end:%b %Y}"
    if (first.year, first.month) == (end.year, end.month):
        return f"{first.day}–{end.day} {end:%b %Y}"
    start = f"{first.day} {first:%b}" if first.year == end.year else f"{first.day} {first:%b %Y}"
    return f"{start} – {end.day} {end:%b %Y}"


def highest(values: pl.Series, least: float = 0) -> float:
    """Return the greatest of some numbers, but not under `least`."""
    return max([least, *map(float, values.drop_nulls())])


def _polars(answer: Any, function: str) -> pl.DataFrame:
    if isinstance(answer, pl.DataFrame):
        return answer
    if isinstance(answer, pl.LazyFrame):
        return answer.collect()
    import narwhals.stable.v2 as nw

    try:
        frame: pl.DataFrame = nw.from_native(answer, eager_only=True).to_polars()
    except TypeError:
        raise InputError(
            f"charts.{function} takes the answer of d22kit.{function} as a Polars, pandas or PyArrow frame, "
            f"not a {type(answer).__name__}."
        ) from None
    return frame


def _together(values: Sequence[Any]) -> str:
    """The label of a group of several columns: of many the middle is cut."""
    return _cut(" · ".join(map(shown, values)), LONGER)


def _cut(text: str, longest: int) -> str:
    tail = longest // 3
    if len(text) <= longest:
        return text
    return f"{text[: longest - tail - 1].rstrip()}…{text[-tail:].lstrip()}"


def _distinct(labels: list[str]) -> list[str]:
    """Tell labels apart that were cut to the same text."""
    seen: dict[str, int] = {}
    out = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        out.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return out


def _zone(frame: pl.DataFrame, function: str) -> str:
    dtype = frame.schema["period_start"]
    if not isinstance(dtype, pl.Datetime):
        raise InputError(
            f"charts.{function}: period_start is {dtype}, not a time. Give the answer of d22kit.{function} as it came."
        )
    return dtype.time_zone or "UTC"


def _every(frame: pl.DataFrame) -> str:
    """Tell the period by its median length, which clock changes do not move."""
    length = frame.select((pl.col("period_end") - pl.col("period_start")).dt.total_seconds().median()).item()
    if length is None:
        return "day"
    return min(LENGTHS, key=lambda name: abs(LENGTHS[name] - length))


def _walls() -> list[pl.Expr]:
    """The local wall clock, relabelled: the only time that looks the same in every browser."""
    return [
        pl.col("period_start").dt.replace_time_zone(None).alias("t"),
        pl.col("period_end").dt.replace_time_zone(None).alias("u"),
    ]


def _rank() -> pl.Expr:
    return (
        pl.col("period_state")
        .replace_strict({state: rank for rank, state in enumerate(WORST)}, default=0, return_dtype=pl.Int8)
        .alias("rank")
    )


def _widened(cells: pl.DataFrame, every: str) -> pl.DataFrame:
    """Place cells in wider periods; one that the data does not cover whole is unfinished."""
    first, last = cells["t"].min(), cells["u"].max()
    start = pl.col("t").dt.truncate(TRUNCATE[every])
    end = start.dt.offset_by(TRUNCATE[every])
    cut = (start < first) | (end > last)
    return cells.with_columns(t=start, u=end, rank=pl.when(cut).then(pl.lit(2, pl.Int8)).otherwise("rank"))


def _summed(cells: pl.DataFrame, counts: Sequence[str], intervals: Sequence[str]) -> pl.DataFrame:
    one = pl.len() == 1
    return cells.group_by("g", "t").agg(
        pl.col("u").max(),
        pl.col("rank").max(),
        *(pl.when(pl.col(name).is_not_null().any()).then(pl.col(name).sum()).alias(name) for name in counts),
        *(pl.when(one).then(pl.col(name).first()).alias(name) for name in intervals),
    )


def _words(every: str) -> list[pl.Expr]:
    """The period in words, ready for a tooltip, and its state."""
    t, last = pl.col("t"), pl.col("u").dt.offset_by("-1us")
    words = {
        "15min": t.dt.strftime("%a %-d %b %Y, %H:%M"),
        "hour": t.dt.strftime("%a %-d %b %Y, %H:%M"),
        "day": t.dt.strftime("%a %-d %b %Y"),
        "week": pl.concat_str(t.dt.strftime("%-d %b"), last.dt.strftime("%-d %b %Y"), separator=" – "),
        "month": t.dt.strftime("%B %Y"),
        "quarter": pl.concat_str(t.dt.strftime("%b"), last.dt.strftime("%b %Y"), separator=" – "),
        "year": t.dt.strftime("%Y"),
    }
    state = pl.col("rank").replace_strict(dict(enumerate(WORST)), return_dtype=pl.String)
    note = pl.col("rank").replace_strict(
        {0: "", 1: " (outcomes still moving)", 2: " (unfinished)"}, return_dtype=pl.String
    )
    return [pl.concat_str(words[every], note).alias("w"), state.alias("state")]
