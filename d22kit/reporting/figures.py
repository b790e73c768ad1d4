"""The headline: the last whole period in five figures, and how each differs from the period before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from d22kit.charts._answers import span
from d22kit.questions._metrics import named
from d22kit.questions._stats import wilson
from d22kit.questions.compare import compare
from d22kit.questions.delivery import delivery
from d22kit.questions.engagement import engagement
from d22kit.questions.volume import volume

__all__ = ["Figure", "Headline", "headline"]

BACK = {"day": 7}
"""A day is held against the same weekday before; any other period against the one before."""
NONE = "–"
BETTER = {"delivery_rate": 1, "bounce_rate": -1}
"""Which way a rate gets better; of others nobody can tell."""

RATES = (
    ("delivered of attempted", "delivery_rate", "delivered_of_attempted_share", "{:.1%}"),
    ("bounced of attempted", "bounce_rate", "bounced_of_attempted_share", "{:.1%}"),
    ("inbound per 100 delivered", "inbound_per_100_delivered", "inbound_per_100_delivered", "{:.1f}"),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure: its value with its interval, how it changed, and whether such a change is usual.

    `unusual` is said of what to look at: not of fewer bounces or more deliveries than usual.
    """

    label: str
    value: str
    detail: str = ""
    change: str = ""
    judged: str = ""
    unusual: bool = False


@dataclass(frozen=True, slots=True)
class Headline:
    """The figures of a period, the period they are held against (if there is one), and what runs since."""

    period: str
    base: str | None
    figures: list[Figure]
    running: str | None = None


def headline(frame: pl.DataFrame, every: str, ask: dict[str, Any]) -> Headline:
    """Return the figures of the last period whose outcomes have settled; of all rows where there is none."""
    table = _table(frame, every, ask)
    settled = [i for i, row in enumerate(table) if row["period_state"] == "complete"]
    if not settled:
        return Headline("All of the data; no period is complete yet", None, _figures(_whole(table)))
    place = settled[-1]
    now, back = table[place], place - BACK.get(every, 1)
    # The first period may have begun before the data did.
    base = table[back] if back >= 1 else None
    volumes = compare(frame, metric="volume", every=every, **ask).row(0, named=True)
    later = volumes["period_start"] is not None and volumes["period_start"] > now["period_start"]
    running = f"Since then: {volumes['verdict']}." if later and base else None
    rates = {} if base is None else _changes(frame, every, now, base, ask)
    return Headline(_words(now), _words(base) if base else None, _figures(now, base, rates), running)


def _table(frame: pl.DataFrame, every: str, ask: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per period with all that the figures need."""
    at = ["period_start", "period_end"]
    much = volume(frame, every=every, **ask).select(*at, "rows")
    sent = delivery(frame, every=every, **ask).drop("small")
    said = engagement(frame, by=(), every=every, **ask).select(
        *at, "inbound", pl.col("^inbound_per_100_delivered.*$")
    )
    both: pl.DataFrame = much.join(sent, on=at, how="inner", maintain_order="left").join(
        said, on=at, maintain_order="left"
    )
    return both.to_dicts()


def _whole(table: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("rows", "attempted", "delivered", "bounced", "inbound")
    sums: dict[str, Any] = {name: sum(row[name] or 0 for row in table) for name in names}
    for name in ("delivered", "bounced"):
        bounds = wilson(pl.lit(sums[name]), pl.lit(sums["attempted"]))
        share = f"{name}_of_attempted_share"
        sums[share] = sums[name] / sums["attempted"] if sums["attempted"] else None
        sums[f"{share}_lo"], sums[f"{share}_hi"] = pl.select(lo=bounds[0], hi=bounds[1]).row(0)
    heard = any(row["inbound"] is not None for row in table) and sums["delivered"]
    per_100 = 100 * sums["inbound"] / sums["delivered"] if heard else None
    name = "inbound_per_100_delivered"
    return {**sums, name: per_100, f"{name}_lo": None, f"{name}_hi": None}


def _figures(
    now: dict[str, Any],
    base: dict[str, Any] | None = None,
    rates: dict[str, dict[str, Any]] | None = None,
) -> list[Figure]:
    return [
        _count("rows", "rows", now, base),
        _count("attempted", "messages attempted", now, base),
        *(_rate(*rate, now, (rates or {}).get(rate[1])) for rate in RATES),
    ]


def _count(name: str, label: str, now: dict[str, Any], base: dict[str, Any] | None) -> Figure:
    if base is None:
        return Figure(label, f"{now[name]:,}")
    daily, before = (row[name] / _days(row) for row in (now, base))
    change = f"{_signed(100 * (daily / before - 1), '.1f')}% per day" if before else ""
    return Figure(label, f"{now[name]:,}", f"{daily:,.1f} per day", change)


def _rate(
    label: str, metric: str, name: str, form: str, now: dict[str, Any], changed: dict[str, Any] | None
) -> Figure:
    value, lo, hi = (now[f"{name}{end}"] for end in ("", "_lo", "_hi"))
    if value is None:
        return Figure(
            label, NONE, "no row counts as inbound" if now.get("inbound") is None else "none to count"
        )
    detail = f"95% interval {form.format(lo)} to {form.format(hi)}" if lo is not None else ""
    if changed is None or changed["difference"] is None:
        return Figure(label, form.format(value), detail)
    measure = named(metric)
    apart = measure.apart(changed["value"], changed["base_value"])
    change = f"{measure.change(apart)} {measure.unit}"
    if changed["usual_lo"] is None:
        return Figure(
            label, form.format(value), detail, change, "too few earlier periods to say what is usual"
        )
    usual = changed["usual_lo"] <= changed["difference"] <= changed["usual_hi"]
    band = f"{measure.change(changed['usual_lo'])} to {measure.change(changed['usual_hi'])}"
    judged = f"{'within' if usual else 'beyond'} its usual variation ({band})"
    good = changed["difference"] * BETTER.get(metric, 0) > 0
    return Figure(label, form.format(value), detail, change, judged, not usual and not good)


def _changes(
    frame: pl.DataFrame, every: str, now: dict[str, Any], base: dict[str, Any], ask: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return what `compare` says of each rate, where it compares the same two periods."""
    found = {}
    for _, metric, _, _ in RATES:
        row = compare(frame, metric=metric, every=every, **ask).row(0, named=True)
        if (row["period_start"], row["base_start"]) == (now["period_start"], base["period_start"]):
            found[metric] = row
    return found


def _days(row: dict[str, Any]) -> float:
    days: float = (row["period_end"] - row["period_start"]) / timedelta(days=1)
    return days


def _words(row: dict[str, Any]) -> str:
    return span(row["period_start"], row["period_end"])


def _signed(value: float, form: str) -> str:
    size = format(abs(value), form)
    return size if float(size) == 0 else ("−" if value < 0 else "+") + size
