"""Intervals, robust baselines and false-discovery control, as pure functions on Polars expressions.

Every function takes expressions over a small answer (a row per group and period) and returns expressions,
so that a whole answer is judged in one pass. Null in, null out; a denominator of zero gives null.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import polars as pl

__all__ = [
    "MAD_TO_SD",
    "Interval",
    "Z",
    "benjamini_hochberg",
    "difference_interval",
    "dispersion",
    "newcombe",
    "quantile",
    "ratio_interval",
    "ratio_of_intervals",
    "robust_scale",
    "student",
    "student_score",
    "two_sided_p",
    "wilson",
]

Interval = tuple[pl.Expr, pl.Expr]

MAD_TO_SD = 1 / NormalDist().inv_cdf(0.75)
"""1.4826: what a median absolute deviation is multiplied with to estimate a normal standard deviation."""


def quantile(probability: float) -> float:
    """Return the standard normal quantile.

    Examples
    --------
    >>> round(quantile(0.975), 4)
    1.96
    """
    return NormalDist().inv_cdf(probability)


Z = quantile(0.975)
"""1.96: how many standard deviations a 95% interval reaches to either side."""


def wilson(successes: pl.Expr, n: pl.Expr) -> Interval:
    """Return the 95% Wilson score interval of a proportion.

    Parameters
    ----------
    successes, n
        Counts, `0 <= successes <= n`.

    Returns
    -------
    tuple of Expr
        Lower and upper bound in [0, 1]; exactly 0 and 1 at the edges; null where `n` is 0.

    Notes
    -----
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927);
    recommended by Brown, Cai and DasGupta, Statistical Science 16 (2001).

    Examples
    --------
    >>> lo, hi = wilson(pl.col("x"), pl.col("n"))
    >>> frame = pl.DataFrame({"x": [0, 5], "n": [10, 10]})
    >>> frame.select(lo.round(4).alias("lo"), hi.round(4).alias("hi")).rows()
    [(0.0, 0.2775), (0.2366, 0.7634)]
    """
    x, size = _float(successes), _positive(n)
    middle = (x + Z**2 / 2) / (size + Z**2)
    half = Z / (size + Z**2) * (x * (1 - x / size) + Z**2 / 4).sqrt()
    lower = pl.when(x == 0).then(size * 0).otherwise((middle - half).clip(0, 1))
    upper = pl.when(x == size).then(size * 0 + 1).otherwise((middle + half).clip(0, 1))
    return lower, upper


def ratio_interval(
    events: pl.Expr,
    exposure: pl.Expr | float,
    dispersion: pl.Expr | float = 1.0,
    df: pl.Expr | float = math.inf,
) -> Interval:
    """Return the 95% quasi-Poisson interval of `events / exposure`, on the log scale.

    Parameters
    ----------
    events
        A count.
    exposure
        What it is counted against, taken as known: delivered rows, or 1 for a plain count.
    dispersion
        Variance over mean of the count, at least 1: see `dispersion`.
    df
        Degrees of freedom that the dispersion was estimated with; infinite where it is known.

    Returns
    -------
    tuple of Expr
        Bounds in the unit of `events / exposure`; null where `exposure` is 0. With no events the lower
        bound is 0 and the upper one that of an exact Poisson count, `-ln 0.025`, times the dispersion.

    Notes
    -----
    The log rate has the variance `dispersion / events`: McCullagh and Nelder, "Generalized Linear Models",
    2nd edition (1989), sections 6.2 and 9.2.

    Examples
    --------
    >>> lo, hi = ratio_interval(pl.col("inbound"), pl.col("delivered"), dispersion=4.0)
    >>> frame = pl.DataFrame({"inbound": [400], "delivered": [10_000]})
    >>> frame.select(lo.round(4).alias("lo"), hi.round(4).alias("hi")).rows()
    [(0.0329, 0.0487)]
    """
    x = _float(events)
    size = _positive(exposure if isinstance(exposure, pl.Expr) else pl.lit(exposure))
    spread = _expr(dispersion)
    reach = (student(df) * (spread / _positive(x)).sqrt()).exp()
    none = x == 0
    lower = pl.when(none).then(size * 0).otherwise(x / reach / size)
    upper = pl.when(none).then(-math.log(0.025) * spread / size).otherwise(x * reach / size)
    return lower, upper


def dispersion(events: pl.Expr, exposure: pl.Expr | float = 1.0, *, binomial: bool = False) -> pl.Expr:
    """Return how much more a count varies than chance alone, as an aggregate over sub-periods (days).

    Pearson's statistic over its degrees of freedom: `sum((x - r m)^2 / (r m)) / (k - 1)` with the pooled
    rate `r`; for proportions divided by `1 - r`. At least 1; 1 with fewer than two sub-periods.

    Parameters
    ----------
    events, exposure
        Counts of the sub-periods, and what they are counted against.
    binomial
        Whether the events are a part of the exposure.

    Returns
    -------
    Expr
        An aggregate for `group_by(...).agg` or `.over(...)`. Its degrees of freedom are `k - 1`.

    Notes
    -----
    McCullagh and Nelder (1989), sections 4.5 and 9.2.4. Its square root is the `sigma_z` of Laney's p'
    chart, estimated from all sub-periods in place of the moving range: D. B. Laney, "Improved control
    charts for attributes", Quality Engineering 14 (2002).

    Examples
    --------
    >>> days = pl.DataFrame({"inbound": [10, 30, 20, 60], "delivered": [100, 100, 100, 100]})
    >>> days.select(dispersion(pl.col("inbound"), pl.col("delivered")).round(3)).item()
    15.556
    """
    size = _positive(exposure if isinstance(exposure, pl.Expr) else events * 0 + exposure)
    x = pl.when(size.is_not_null()).then(_float(events))
    rate = x.sum() / pl.when(x.is_not_null()).then(size).sum()
    mean = _positive(rate * size * (1 - rate if binomial else 1))
    pearson = ((x - rate * size) ** 2 / mean).sum() / (x.count() - 1)
    return pl.when(x.count() > 1).then(pearson.clip(1)).otherwise(1.0)


def difference_interval(value: pl.Expr, bounds: Interval, base: pl.Expr, base_bounds: Interval) -> Interval:
    """Return the interval of `value - base` from the interval of each.

    Notes
    -----
    MOVER, the method of variance estimates recovery: G. Y. Zou and A. Donner, Statistics in Medicine 27
    (2008).
    """
    (lo, hi), (base_lo, base_hi) = bounds, base_bounds
    difference = value - base
    down = ((value - lo) ** 2 + (base_hi - base) ** 2).sqrt()
    up = ((hi - value) ** 2 + (base - base_lo) ** 2).sqrt()
    return difference - down, difference + up


def ratio_of_intervals(value: pl.Expr, bounds: Interval, base: pl.Expr, base_bounds: Interval) -> Interval:
    """Return the interval of `value / base` from the interval of each; a bound without limit is null.

    Notes
    -----
    MOVER on the log scale (Zou and Donner, 2008). For quasi-Poisson intervals this adds the variances of
    the two logarithms, the usual interval of a rate ratio.
    """
    (lo, hi), (base_lo, base_hi) = bounds, base_bounds
    down = ((value / lo).log() ** 2 + (base_hi / base).log() ** 2).sqrt().exp()
    up = ((hi / value).log() ** 2 + (base / base_lo).log() ** 2).sqrt().exp()
    ratio = value / _positive(base)
    lower = pl.when(value == 0).then(ratio * 0).otherwise(ratio / down)
    return _finite(lower), _finite(ratio * up)


def newcombe(successes: pl.Expr, n: pl.Expr, base_successes: pl.Expr, base_n: pl.Expr) -> Interval:
    """Return the 95% interval of the difference of two proportions, `successes/n - base_successes/base_n`.

    Notes
    -----
    Method 10 of R. G. Newcombe, "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17 (1998): two Wilson intervals, joined.

    Examples
    --------
    >>> lo, hi = newcombe(pl.lit(56), pl.lit(70), pl.lit(48), pl.lit(80))
    >>> pl.select(lo.round(4).alias("lo"), hi.round(4).alias("hi")).rows()
    [(0.0524, 0.3339)]
    """
    share, base = _float(successes) / _positive(n), _float(base_successes) / _positive(base_n)
    return difference_interval(share, wilson(successes, n), base, wilson(base_successes, base_n))


def robust_scale(values: pl.Expr) -> pl.Expr:
    """Return 1.4826 times the median absolute deviation from the median: a spread that outliers cannot move.

    Notes
    -----
    P. J. Rousseeuw and C. Croux, "Alternatives to the median absolute deviation", JASA 88 (1993).

    Examples
    --------
    >>> pl.select(robust_scale(pl.lit(pl.Series([1.0, 2.0, 3.0, 4.0, 900.0]))).round(4)).item()
    1.4826
    """
    return MAD_TO_SD * (values - values.median()).abs().median()


def student(df: pl.Expr | float) -> pl.Expr:
    """Return the 97.5% quantile of Student's t, from its expansion about the normal one.

    Notes
    -----
    Abramowitz and Stegun (1964), 26.7.5, four terms: within 0.5% from 3 degrees of freedom on. With fewer
    the expansion falls short, so 3 is the least it takes.
    """
    v = _expr(df).clip(3)
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
        (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / 92160,
    )
    return Z + pl.sum_horizontal(term / v**power for power, term in enumerate(terms, start=1))


def student_score(t: pl.Expr, df: pl.Expr | float) -> pl.Expr:
    """Return the standard normal score that is as unlikely as a Student's t: its tails are heavier.

    Notes
    -----
    D. L. Wallace, "Bounds on normal approximations to Student's and the chi-square distributions", Annals of
    Mathematical Statistics 30 (1959): within 2% from 3 degrees of freedom on.

    Examples
    --------
    >>> pl.select(student_score(pl.lit(3.0), pl.lit(9.0)).round(2)).item()
    2.43
    """
    v = _expr(df).clip(3)
    return t.sign() * (v * (1 + t**2 / v).log()).sqrt() * (8 * v + 1) / (8 * v + 3)


def two_sided_p(score: pl.Expr) -> pl.Expr:
    """Return the two-sided normal tail probability of a standardised score.

    Examples
    --------
    >>> pl.select(two_sided_p(pl.lit(-1.959964)).round(4)).item()
    0.05
    """

    def tails(scores: pl.Series) -> pl.Series:
        return pl.Series(
            [None if s is None else math.erfc(abs(s) / math.sqrt(2)) for s in scores], dtype=pl.Float64
        )

    return _float(score).map_batches(tails, return_dtype=pl.Float64, is_elementwise=True)


def benjamini_hochberg(p: pl.Expr) -> pl.Expr:
    """Return the false-discovery q of each p value of a column; nulls stay out of the count.

    Notes
    -----
    Y. Benjamini and Y. Hochberg, Journal of the Royal Statistical Society B 57 (1995).

    Examples
    --------
    >>> pl.select(benjamini_hochberg(pl.lit(pl.Series([0.01, None, 0.02, 0.5])))).to_series().to_list()
    [0.03, None, 0.03, 0.5]
    """
    place = p.rank("ordinal", descending=True)
    largest_first = p.drop_nulls().sort(descending=True)
    rank = p.count() - pl.int_range(p.count())
    q = (largest_first * p.count() / rank).cum_min().clip(0, 1)
    return q.gather(place - 1)


def _float(count: pl.Expr) -> pl.Expr:
    return count.cast(pl.Float64)


def _positive(count: pl.Expr) -> pl.Expr:
    number = _float(count)
    return pl.when(number > 0).then(number)


def _finite(number: pl.Expr) -> pl.Expr:
    return pl.when(number.is_finite()).then(number)


def _expr(number: pl.Expr | float) -> pl.Expr:
    return number if isinstance(number, pl.Expr) else pl.lit(number)
