"""Intervals against scipy 1.17 and statsmodels 0.15, whose values are quoted, and against simulated truth."""

from __future__ import annotations

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d22kit.questions import _stats as stats

X, N = pl.col("x"), pl.col("n")

# statsmodels.stats.proportion.proportion_confint(x, n, method="wilson")
WILSON = [
    (0, 10, 0.0, 0.277533),
    (1, 10, 0.017876, 0.40415),
    (5, 10, 0.236593, 0.763407),
    (10, 10, 0.722467, 1.0),
    (3, 1000, 0.001021, 0.008783),
    (970, 1000, 0.957497, 0.978906),
    (81, 263, 0.255289, 0.36621),
]
# statsmodels.stats.proportion.confint_proportions_2indep(..., method="newcomb"); the first five are
# in table II of Newcombe (1998) too.
NEWCOMBE = [
    (56, 70, 48, 80, 0.052431, 0.333873),
    (9, 10, 3, 10, 0.170523, 0.809018),
    (5, 56, 0, 29, -0.038137, 0.19256),
    (0, 10, 0, 20, -0.161125, 0.277533),
    (10, 10, 0, 20, 0.679086, 1.0),
    (910, 20000, 600, 20000, 0.011774, 0.019247),
]
DAYS = pl.DataFrame({"x": [10, 30, 20, 60, 41, 9, 33], "n": [300, 800, 500, 900, 1000, 200, 750]})


def bounds(frame: pl.DataFrame, interval: stats.Interval) -> list[tuple[float | None, float | None]]:
    return frame.select(interval[0].alias("lo"), interval[1].alias("hi")).rows()


def test_wilson_equals_statsmodels() -> None:
    frame = pl.DataFrame([row[:2] for row in WILSON], schema=["x", "n"], orient="row")
    for row, found in zip(WILSON, bounds(frame, stats.wilson(X, N)), strict=True):
        assert found == pytest.approx(row[2:], abs=1e-6)


@pytest.mark.parametrize("dtype", [pl.UInt32, pl.Int64, pl.Float64])
def test_wilson_is_exact_at_the_edges_and_null_without_a_denominator(dtype: pl.DataType) -> None:
    frame = pl.DataFrame({"x": [0, 7, 0, None, 3], "n": [7, 7, 0, 9, None]}, schema={"x": dtype, "n": dtype})
    found = bounds(frame, stats.wilson(X, N))
    assert found[0][0] == 0.0
    assert found[1][1] == 1.0
    assert found[2:] == [(None, None)] * 3


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_share_and_stays_within_bounds(case: tuple[int, int]) -> None:
    x, n = case
    [(lo, hi)] = bounds(pl.DataFrame({"x": [x], "n": [n]}), stats.wilson(X, N))
    assert lo is not None
    assert hi is not None
    assert 0 <= lo <= x / n <= hi <= 1
    assert hi - lo > 0


@pytest.mark.parametrize("case", NEWCOMBE)
def test_newcombe_equals_statsmodels(case: tuple[int, int, int, int, float, float]) -> None:
    interval = stats.newcombe(*(pl.lit(count) for count in case[:4]))
    assert bounds(pl.DataFrame({"one": [1]}), interval)[0] == pytest.approx(case[4:], abs=1e-6)


def test_dispersion_is_pearson_over_its_degrees_of_freedom() -> None:
    # statsmodels.api.GLM(x, ones, Poisson(), offset=log(n)).fit(): pearson_chi2 / 6; Binomial() alike.
    poisson = DAYS.select(stats.dispersion(X, N)).item()
    binomial = DAYS.select(stats.dispersion(X, N, binomial=True)).item()
    assert poisson == pytest.approx(1.957868089764638)
    assert binomial == pytest.approx(2.051451141853692)


def test_dispersion_never_falls_below_chance_and_needs_two_days() -> None:
    even = pl.DataFrame({"x": [10, 10, 10], "n": [100, 100, 100]})
    assert even.select(stats.dispersion(X, N)).item() == 1
    assert even.head(1).select(stats.dispersion(X, N)).item() == 1
    assert even.head(0).select(stats.dispersion(X, N)).item() == 1
    nothing = pl.DataFrame({"x": [0, 0], "n": [0, 5]})
    assert nothing.select(stats.dispersion(X, N)).item() == 1


def test_dispersion_by_group_is_that_of_each_group() -> None:
    two = pl.concat([DAYS.with_columns(g=pl.lit("a")), DAYS.with_columns(x=X * 0, g=pl.lit("b"))])
    found = dict(two.group_by("g").agg(d=stats.dispersion(X, N)).rows())
    assert found == pytest.approx({"a": 1.957868089764638, "b": 1.0})


def test_ratio_interval_equals_a_quasi_poisson_model() -> None:
    # statsmodels: the same model with scale="X2"; exp(conf_int()).
    pooled = DAYS.select(pl.all().sum(), d=stats.dispersion(X, N))
    found = bounds(pooled, stats.ratio_interval(X, N, pl.col("d")))
    assert found[0] == pytest.approx((0.03763066, 0.05530065), abs=1e-8)


def test_ratio_interval_widens_with_few_days_and_few_events() -> None:
    frame = pl.DataFrame({"x": [0, 5, 500], "n": [0, 1000, 1000]})
    assert bounds(frame, stats.ratio_interval(X, N))[0] == (None, None)
    known = bounds(frame, stats.ratio_interval(X, N, 2.0))
    guessed = bounds(frame, stats.ratio_interval(X, N, 2.0, df=4))
    assert guessed[1][1] > known[1][1]
    assert bounds(pl.DataFrame({"x": [0], "n": [1000]}), stats.ratio_interval(X, N))[0] == pytest.approx(
        (0, 0.00368888), abs=1e-8
    )


def test_ratio_of_two_counts_equals_a_poisson_regression() -> None:
    # statsmodels: Poisson GLM of [420, 300] on [1, 0] with exposures [10000, 9000]: exp(conf_int()[1]).
    now, base = (stats.ratio_interval(pl.lit(x), float(n)) for x, n in ((420, 10_000), (300, 9_000)))
    interval = stats.ratio_of_intervals(pl.lit(0.042), now, pl.lit(1 / 30), base)
    assert bounds(pl.DataFrame({"one": [1]}), interval)[0] == pytest.approx(
        (1.08649006, 1.46121908), abs=1e-8
    )


def test_ratio_against_nothing_has_no_bound() -> None:
    frame = pl.DataFrame({"x": [5, 0, 0], "n": [0, 5, 0]})
    now, base = stats.ratio_interval(X, 1.0), stats.ratio_interval(N, 1.0)
    against_none, none, neither = bounds(frame, stats.ratio_of_intervals(X, now, N, base))
    assert against_none == (None, None)
    assert none[0] == 0
    assert neither == (None, None)


def test_student_equals_scipy() -> None:
    # scipy.stats.t.ppf(0.975, df)
    for df, expected in {3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469, 10: 2.2281, 30: 2.0423}.items():
        assert pl.select(stats.student(df)).item() == pytest.approx(expected, rel=0.005)
    assert pl.select(stats.student(float("inf"))).item() == pytest.approx(stats.quantile(0.975))


def test_tails_equal_scipy() -> None:
    # 2 * scipy.stats.norm.sf(z)
    scores = pl.DataFrame({"z": [0.0, -1.0, 3.5, 8.0, None]})
    expected = [1.0, 0.31731050786291415, 0.00046525815807105003, 1.244192114854348e-15]
    found = scores.select(stats.two_sided_p(pl.col("z"))).to_series().to_list()
    assert found[:4] == pytest.approx(expected, rel=1e-12)
    assert found[4] is None


def test_robust_scale_equals_scipy_and_ignores_an_outlier() -> None:
    # scipy.stats.median_abs_deviation(..., scale="normal")
    values = pl.Series([3, 1, 4, 1, 5, 9, 2, 6], dtype=pl.Float64)
    assert pl.select(stats.robust_scale(pl.lit(values))).item() == pytest.approx(2.965204437011204)
    assert pl.select(stats.robust_scale(pl.lit(pl.Series([1.0, 2.0, 3.0, 4.0, 1e9])))).item() < 2


@pytest.mark.parametrize(
    ("p", "q"),
    [
        # statsmodels.stats.multitest.multipletests(p, method="fdr_bh")
        ([0.3, 0.01, 0.01, 0.9, 0.02], [0.375, 0.025, 0.025, 0.9, 0.033333]),
        ([0.001, 0.008, 0.039, 0.041, 0.042, 0.06], [0.006, 0.024, 0.0504, 0.0504, 0.0504, 0.06]),
        ([None, 0.5, None], [None, 0.5, None]),
        ([None], [None]),
        ([], []),
    ],
)
def test_benjamini_hochberg_equals_statsmodels(p: list[float | None], q: list[float | None]) -> None:
    frame = pl.DataFrame({"p": p}, schema={"p": pl.Float64})
    assert frame.select(q=stats.benjamini_hochberg(pl.col("p")))["q"].to_list() == [
        None if value is None else pytest.approx(value, abs=1e-6) for value in q
    ]


def test_benjamini_hochberg_keeps_false_discoveries_rare_among_a_thousand_quiet_groups() -> None:
    rng = random.Random(7)
    p = pl.DataFrame({"p": [rng.random() for _ in range(1000)]})
    assert p.select((stats.benjamini_hochberg(pl.col("p")) < 0.05).sum()).item() == 0


@pytest.mark.parametrize(("share", "n"), [(0.02, 2000), (0.5, 40), (0.97, 300)])
def test_wilson_covers_the_truth(share: float, n: int) -> None:
    rng = random.Random(1)
    draws = pl.DataFrame({"x": [sum(rng.random() < share for _ in range(n)) for _ in range(800)]})
    lo, hi = stats.wilson(X, pl.lit(n))
    assert 0.93 <= draws.select(((lo <= share) & (share <= hi)).mean()).item() <= 0.98


def test_quasi_poisson_covers_the_truth_where_poisson_does_not() -> None:
    """Thirty days whose true rate wobbles: the mean of 400 months is held by 95% of the wide intervals."""
    rng = random.Random(3)
    truth, sent = 0.04, 2000
    rows = [
        (
            month,
            max(0, round(rng.gauss(mean := truth * sent * rng.lognormvariate(-0.045, 0.3), mean**0.5))),
            sent,
        )
        for month in range(400)
        for _ in range(30)
    ]
    days = pl.DataFrame(rows, schema=["month", "x", "n"], orient="row")
    months = days.group_by("month").agg(X.sum(), N.sum(), d=stats.dispersion(X, N))

    def coverage(interval: stats.Interval) -> float:
        return months.select(((interval[0] <= truth) & (truth <= interval[1])).mean()).item()

    assert coverage(stats.ratio_interval(X, N, pl.col("d"), df=29)) >= 0.92
    assert coverage(stats.ratio_interval(X, N)) < 0.75
