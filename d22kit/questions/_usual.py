"""How much a group usually changes, learnt from its earlier changes; and how unusual the latest one is."""

from __future__ import annotations

import math

import polars as pl

from d22kit.questions import _stats as stats
from d22kit.questions._metrics import Metric

__all__ = ["HISTORY", "ID", "change", "with_usual"]

ID = "group number"

HISTORY, KNOWN = 26, 7
"""What is usual is learnt from up to 26 earlier changes; from fewer than 7, not at all."""

HALF = 0.5
"""Added to counts whose logarithm is taken, so that none is infinite."""

EFFICIENCY = 0.37
"""Of a median absolute deviation, against a standard deviation: P. J. Rousseeuw and C. Croux (1993)."""


def with_usual(latest: pl.DataFrame, pairs: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    """Add `usual_lo`, `usual_hi` and `q` to each group's latest change.

    Parameters
    ----------
    latest
        A row per group: `ID`, `change`, `difference`, `base_value`, and what each period counts.
    pairs
        Every period of each group: `ID`, `ago` and `change`.

    Notes
    -----
    A difference is unusual where it lies beyond both the spread of the earlier changes, by Student's t with the
    degrees of freedom that a median absolute deviation is worth, and what chance alone gives.
    """
    change = pl.col("change")
    earlier = (
        pairs.filter(pl.col("ago").is_between(1, HISTORY))
        .group_by(ID)
        .agg(centre=change.median(), sway=stats.robust_scale(change), seen=change.count())
    )
    centre, seen, freedom = pl.col("centre"), pl.col("seen"), (pl.col("seen") - 1) * EFFICIENCY
    # The median is itself uncertain: its variance is pi / 2n of that of a change.
    step = pl.col("sway") * (1 + math.pi / 2 / seen).sqrt()
    middle, chance = _as_difference(centre, metric), _chance(metric).sqrt()
    reach = stats.student(freedom) * step
    lo = pl.min_horizontal(_as_difference(centre - reach, metric), middle - stats.Z * chance)
    hi = pl.max_horizontal(_as_difference(centre + reach, metric), middle + stats.Z * chance)
    swayed = stats.student_score((change - centre) / pl.when(step > 0).then(step), freedom)
    p = stats.two_sided_p(pl.min_horizontal(swayed.abs(), (pl.col("difference") - middle).abs() / chance))
    enough = pl.when(seen >= KNOWN, pl.col("difference").is_not_null())
    known = latest.join(earlier, on=ID, how="left").with_columns(
        usual_lo=enough.then(lo), usual_hi=enough.then(hi)
    )
    return known.with_columns(
        q=stats.benjamini_hochberg(pl.when(pl.col("usual_lo") < pl.col("usual_hi")).then(p))
    )


def change(metric: Metric) -> pl.Expr:
    """Return a change as it varies evenly to both sides: of counts, which sway in proportion, the logarithm's."""
    if metric.kind != "count":
        return pl.col("value") - pl.col("base_value")
    base = pl.col("base_value")
    return pl.when(base > 0).then(((pl.col("value") + HALF) / (base + HALF)).log())


def _as_difference(change: pl.Expr, metric: Metric) -> pl.Expr:
    if metric.kind != "count":
        return change
    base = pl.col("base_value")
    return pl.when(base > 0).then((base + HALF) * (change.exp() - 1)).otherwise(0.0)


def _chance(metric: Metric) -> pl.Expr:
    """Return the variance that chance alone gives the difference of two periods."""
    events, base = pl.col("events"), pl.col("base_events")
    if metric.kind == "count":
        return events + base
    n, base_n = (pl.when(pl.col(name) > 0).then(name) for name in ("n", "base_n"))
    rate = (events + base + 1) / (n + base_n + 2)
    fails = 1 - rate if metric.kind == "share" else pl.lit(1.0)
    return metric.per**2 * rate * fails * (1 / n + 1 / base_n)
