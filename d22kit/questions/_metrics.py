"""The metrics that `compare` and `anomalies` judge: what each counts, and how it is said in words."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import polars as pl

from d22kit.errors import InputError
from d22kit.questions import _cube
from d22kit.questions._outcomes import ADDED, OPEN, OUTCOME, outcome_counts
from d22kit.questions.calendar import Cells
from d22kit.questions.roles import RoleMap, load_roles

__all__ = ["METRICS", "Metric", "cells", "named", "taken", "when", "who"]

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """A number per group and period, `per * events / n`; a count has no `n` but itself.

    Parameters
    ----------
    kind
        `"count"`; `"share"`, where the events are a part of `n`; `"ratio"`, where they are not.
    events, n
        The counts it is made of.
    label
        Its name in a sentence.
    things
        What its events are called in a sentence.
    per
        100 for a number per hundred.
    """

    name: str
    kind: Literal["count", "share", "ratio"]
    events: str
    n: str
    label: str
    things: str
    per: int = 1

    @property
    def unit(self) -> str:
        """What a difference is counted in."""
        return {"count": "rows", "share": "points", "ratio": "per 100"}[self.kind]

    def value(self, events: pl.Expr, n: pl.Expr) -> pl.Expr:
        """Return the metric from its counts; null where nothing stands below, or the events are not known."""
        number = events.cast(pl.Float64)
        return number if self.kind == "count" else (self.per * number / pl.when(n > 0).then(n)).fill_nan(None)

    def show(self, value: float) -> str:
        """Return a value as it reads in a sentence: `1,204`, `9.1%`, `4.2`."""
        return self._number(value) + ("%" if self.kind == "share" else "")

    def band(self, lo: float, hi: float) -> str:
        """Return a range as it reads in a sentence: `1.8–2.6%`."""
        return f"{self._number(lo)}–{self.show(hi)}"

    def size(self, value: float) -> str:
        """Return the size of a difference with its unit: `402 rows`, `2.1 points`."""
        number = self._number(value)
        return f"{number} {self.unit.rstrip('s') if number in ('1', '1.0') else self.unit}"

    def apart(self, value: float, base: float) -> float:
        """Return by how much two values differ as they are shown, so that a sentence adds up."""
        scale = 100 if self.kind == "share" else 1
        digits = 0 if self.kind == "count" else 1
        return (round(value * scale, digits) - round(base * scale, digits)) / scale

    def change(self, value: float) -> str:
        """Return a signed difference without its unit: `+2.1`; nothing has no sign."""
        number = self._number(abs(value))
        return number if number == self._number(0) else ("+" if value > 0 else "−") + number

    def _number(self, value: float) -> str:
        if self.kind == "count":
            return f"{value:,.0f}"
        return f"{value * 100:.1f}" if self.kind == "share" else f"{value:,.1f}"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("volume", "count", "rows", "rows", "volume", "rows"),
        Metric("bounce_rate", "share", "bounced", "attempted", "bounce rate", "bounces"),
        Metric("hard_bounce_rate", "share", "bounced_hard", "attempted", "hard bounce rate", "hard bounces"),
        Metric("failure_rate", "share", "failed", "attempted", "failure rate", "failures"),
        Metric("delivery_rate", "share", "delivered", "attempted", "delivery rate", "deliveries"),
        Metric(
            "inbound_per_100_delivered",
            "ratio",
            "inbound",
            "delivered",
            "inbound per 100 delivered",
            "inbound rows",
            100,
        ),
    )
}


def named(metric: str) -> Metric:
    """Return the metric of a name.

    Raises
    ------
    InputError
        Where it is not known; lists those that are.
    """
    if metric in METRICS:
        return METRICS[metric]
    near = difflib.get_close_matches(str(metric), METRICS, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(f"metric={metric!r} is not known. Known: {', '.join(METRICS)}.{hint}")


def taken(metric: Metric) -> tuple[str, ...]:
    """Return the names that counting a metric needs, which no group can have."""
    return (
        "events",
        "open",
        "cause",
        "caused",
        "excess",
        "alarm",
        *(() if metric.kind == "count" else ADDED),
    )


def cells(
    frame: Any,
    metric: Metric,
    groups: Sequence[str],
    *,
    spans: Cells,
    roles: RoleMap | None,
    by_cause: bool = True,
) -> tuple[pl.DataFrame, pl.DataFrame | None, datetime | None]:
    """Count a metric where the data is.

    Parameters
    ----------
    by_cause
        Whether the events of a metric of failures are wanted by cause as well.

    Returns
    -------
    tuple
        `hour`, the groups, `events`, `n` and `open` (attempts whose outcome is not known yet); the events by
        `cause`, or None; and the moment the frame speaks of. Rows without `created_at` are left out. Where no row
        at all maps to inbound, its events are not a number, rather than 0.
    """
    failures = metric.events in ("bounced", "bounced_hard", "failed")
    kept = [*groups, "bounce_category"] if failures and by_cause else groups
    if metric.kind == "count":
        cube = _cube.collect(frame, groups, **spans)
        cube = cube.with_columns(events="rows", n="rows", open=pl.col("rows") * 0)
    else:
        cube = _outcomes(frame, groups, kept, metric, spans, roles)
    causes = None
    if kept != groups:
        causes = _sums(cube.rename({"bounce_category": "cause"}), [*groups, "cause"], ["events"])
    counts = _sums(cube, groups, ["events", "n", "open"])
    if metric.kind == "ratio" and not counts["events"].sum():
        counts = counts.with_columns(events=pl.lit(math.nan))
    return counts, causes, _cube.as_of(cube)


def _sums(tallied: pl.DataFrame, groups: Sequence[str], counts: list[str]) -> pl.DataFrame:
    dated = tallied.filter(pl.col("hour").is_not_null())
    return dated.group_by("hour", *groups).agg(pl.col(counts).sum())


def _outcomes(
    frame: Any,
    groups: Sequence[str],
    kept: Sequence[str],
    metric: Metric,
    spans: Cells,
    roles: RoleMap | None,
) -> pl.DataFrame:
    known = load_roles(roles)
    inbound = pl.col("direction") == "inbound"
    events = _cube.count(inbound) if metric.kind == "ratio" else outcome_counts((metric.events,))[0]
    n, *still_open = outcome_counts((metric.n, *OPEN))
    return _cube.collect(
        frame,
        [*groups, "type", "operation", *OUTCOME],
        judge=True,
        then=lambda cells: _cube.tally(
            known.add(cells), kept, events=events, n=n, open=pl.sum_horizontal(still_open)
        ),
        **spans,
    )


def who(row: Mapping[str, Any], groups: Sequence[str]) -> str:
    """Return the group of a row as it opens a sentence: `EMAIL, REMINDER`, or nothing."""
    return ", ".join("(empty)" if row[group] is None else str(row[group]) for group in groups)


def when(start: datetime, every: str, *, dated: bool = False) -> str:
    """Return a period as it reads in a sentence: `on 3 June`, `in the week of 1 June`; dated, with its year."""
    day = f"{start.day} {MONTHS[start.month - 1]}" + f" {start.year}" * dated
    return {
        "month": f"in {MONTHS[start.month - 1]} {start.year}",
        "quarter": f"in quarter {(start.month + 2) // 3} of {start.year}",
        "week": f"in the week of {day}",
        "day": f"on {day}",
    }.get(every, f"on {day} at {start:%H:%M}")
