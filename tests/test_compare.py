"""Comparisons at equal age and on aligned weekdays, against figures worked out by hand."""

from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from d22kit.errors import InputError
from d22kit.questions import _stats as stats
from d22kit.questions._metrics import named
from d22kit.questions._usual import ID, change, with_usual
from d22kit.questions.calendar import Calendar
from d22kit.questions.compare import compare
from d22kit.questions.delivery import delivery
from d22kit.questions.engagement import engagement
from d22kit.questions.volume import volume
from d22kit.simulator.lender import NOW, generate

START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
METRICS = (
    "volume",
    "bounce_rate",
    "hard_bounce_rate",
    "failure_rate",
    "delivery_rate",
    "inbound_per_100_delivered",
)
EVERY = ("15min", "hour", "day", "week", "month", "quarter")


def at(*moments: tuple[datetime, int], known: datetime | None = None) -> pl.DataFrame:
    """So many rows at each moment; `known` is the newest `updated_at`."""
    frame = pl.DataFrame(moments, schema=["created_at", "rows"], orient="row").filter(pl.col("rows") > 0)
    frame = frame.select(pl.col("created_at").repeat_by("rows").explode())
    return frame.with_columns(updated_at=pl.lit(known or max(moment for moment, _ in moments)))


def weekly(*counts: int, known: datetime | None = None) -> pl.DataFrame:
    weeks = [(START + timedelta(weeks=week, hours=9), rows) for week, rows in enumerate(counts)]
    return at(*weeks, known=known or START + timedelta(weeks=len(counts)))


def sends(*weeks: tuple[str, int, int, int]) -> pl.DataFrame:
    """E-mails by team, week, delivered and bounced rows; all settled."""
    parts = [
        (team, START + timedelta(weeks=week, hours=9), word, rows)
        for team, week, delivered, bounced in weeks
        for word, rows in (("DELIVERED", delivered), ("BOUNCED", bounced))
        if rows
    ]
    frame = pl.DataFrame(parts, schema=["team", "created_at", "delivery_status", "rows"], orient="row")
    frame = frame.select(pl.exclude("rows").repeat_by("rows").explode())
    return frame.with_columns(
        platform=pl.lit("EMAIL"),
        type=pl.lit("OUTBOUND"),
        operation=pl.lit("SEND"),
        delivery_code=pl.lit(None, pl.String),
        delivery_error_detail=pl.lit(None, pl.String),
        updated_at=pl.lit(START + timedelta(weeks=52)),
    )


def test_a_running_week_is_compared_with_the_same_hours_of_the_week_before() -> None:
    monday, tuesday = START + timedelta(hours=9), START + timedelta(days=1, hours=9)
    week = timedelta(weeks=1)
    rows = at(
        (monday, 10), (tuesday, 4), (tuesday + timedelta(hours=5), 100),
        (monday + week, 20), (tuesday + week, 4), (tuesday + week + timedelta(hours=1, minutes=30), 7),
        known=tuesday + week + timedelta(hours=1, minutes=40),
    )  # fmt: skip
    answer = compare(rows, metric="volume")
    assert answer.select("value", "base_value", "n", "base_n").rows() == [(24.0, 14.0, 24, 14)]
    assert answer["period_end"][0] == tuesday + week + timedelta(hours=1)
    assert answer["base_end"][0] == tuesday + timedelta(hours=1)
    assert "the first 1 day 10 hours of each" in answer["verdict"][0]


def test_a_week_that_has_just_begun_gives_way_to_the_last_whole_one() -> None:
    rows = weekly(10, 20, 1, known=START + timedelta(weeks=2, minutes=30))
    rows = rows.with_columns(created_at=pl.col("created_at") - timedelta(hours=9))
    answer = compare(rows, metric="volume")
    assert answer.select("value", "base_value").rows() == [(20.0, 10.0)]


def test_months_are_compared_by_their_weekdays() -> None:
    """100 a working day and 10 on others: February's 20 and 8 weighed as March's 22 and 9 of them."""
    first = datetime(2026, 2, 1, 12, tzinfo=UTC)
    moments = [
        (first + timedelta(days=day), 10 if (first + timedelta(days=day)).weekday() > 4 else 100)
        for day in range(59)
    ]
    answer = compare(at(*moments, known=datetime(2026, 4, 1, tzinfo=UTC)), metric="volume", every="month")
    assert answer.select("value", "base_value", "base_n").rows() == [(2290.0, 2290.0, 2080)]
    assert answer["difference"][0] == 0
    assert answer["verdict"][0].startswith("volume 2,290 in March 2026, as in February 2026 (2,290)")


def test_a_running_month_counts_whole_days_and_at_least_a_week_of_the_base() -> None:
    first = datetime(2026, 2, 1, 12, tzinfo=UTC)
    moments = [
        (first + timedelta(days=day), 10 if (first + timedelta(days=day)).weekday() > 4 else 100)
        for day in range(31)
    ]
    answer = compare(at(*moments, known=datetime(2026, 3, 3, 13, tzinfo=UTC)), metric="volume", every="month")
    # 1 and 2 March are a Sunday and a Monday.
    assert answer.select("value", "base_value").rows() == [(110.0, 110.0)]


def test_days_are_compared_with_the_same_weekday() -> None:
    moments = [(START + timedelta(days=day, hours=9), 100 + day) for day in range(20)]
    answer = compare(at(*moments, known=START + timedelta(days=20)), metric="volume", every="day")
    assert answer["base_start"][0] == START + timedelta(days=12)
    assert answer.select("value", "base_value").rows() == [(119.0, 112.0)]
    two = compare(
        at(*moments, known=START + timedelta(days=20)), metric="volume", every="day", periods_back=2
    )
    assert two["base_value"][0] == 105.0


def test_rates_wait_until_outcomes_have_settled() -> None:
    rows = sends(*(("a", week, 980, 20) for week in range(4)))
    unsettled = START + timedelta(weeks=4, days=2)
    answer = compare(rows.with_columns(updated_at=pl.lit(unsettled)), metric="bounce_rate")
    assert answer["period_start"][0] == START + timedelta(weeks=2)
    settled = START + timedelta(weeks=4, days=3)
    answer = compare(rows.with_columns(updated_at=pl.lit(settled)), metric="bounce_rate")
    assert answer["period_start"][0] == START + timedelta(weeks=3)


def test_shares_have_newcombe_and_wilson() -> None:
    answer = compare(sends(("a", 0, 19_400, 600), ("a", 1, 19_090, 910)), metric="bounce_rate")
    lo, hi = stats.newcombe(*(pl.lit(count) for count in (910, 20_000, 600, 20_000)))
    expected = pl.select(lo=lo, hi=hi).row(0)
    assert answer.select("difference_lo", "difference_hi").row(0) == pytest.approx(expected)
    assert answer.select("difference", "ratio").row(0) == pytest.approx((0.0155, 910 / 600))
    assert answer["ratio_lo"][0] < 910 / 600 < answer["ratio_hi"][0]
    assert answer["usual_lo"][0] is None
    assert answer["verdict"][0] == (
        "bounce rate 4.5% in the week of 12 January, 1.5 points more than in the week of 5 January (3.0%): "
        "too few earlier changes to say what is usual"
    )


def test_a_leap_is_beyond_and_a_wobble_within_the_usual_variation() -> None:
    rng = random.Random(2)
    quiet = [round(rng.gauss(1000, 80)) for _ in range(20)]
    wobble = compare(weekly(*quiet, 1080), metric="volume")
    leap = compare(weekly(*quiet, 1900), metric="volume")
    assert "within its usual variation" in wobble["verdict"][0]
    assert "beyond its usual variation" in leap["verdict"][0]
    assert leap["q"][0] < 0.001 < 0.05 < wobble["q"][0]
    assert leap["usual_lo"][0] < 0 < leap["usual_hi"][0] < leap["difference"][0]


def test_growth_that_goes_on_is_usual() -> None:
    counts = [round(500 * 1.1**week) for week in range(20)]
    answer = compare(weekly(*counts), metric="volume")
    assert answer["usual_lo"][0] < answer["difference"][0] < answer["usual_hi"][0]
    assert "within" in answer["verdict"][0]


def test_many_quiet_groups_rarely_stand_out() -> None:
    rng = random.Random(4)
    frames = [
        weekly(
            *(
                max(0, round(rng.gauss(mean := 300 * rng.lognormvariate(0, 0.1), mean**0.5)))
                for _ in range(27)
            )
        ).with_columns(team=pl.lit(team))
        for team in range(150)
    ]
    answer = compare(pl.concat(frames), metric="volume", by="team")
    outside = answer.filter(~pl.col("difference").is_between("usual_lo", "usual_hi")).height
    assert outside <= 0.12 * answer.height
    assert answer.filter(pl.col("q") < 0.05).height <= 2
    assert answer["verdict"].str.contains("as one of so many groups").sum() + 2 >= outside


def most(reports: int, rate: float) -> int:
    """The 99.9% quantile of how many of so many reports have a false discovery, where the rate is kept."""
    chances = [math.comb(reports, k) * rate**k * (1 - rate) ** (reports - k) for k in range(reports + 1)]
    return next(k for k in range(reports + 1) if sum(chances[: k + 1]) >= 0.999)


@pytest.mark.parametrize("changes", [8, 27])
@pytest.mark.parametrize("metric", ["volume", "bounce_rate"])
def test_false_discoveries_stay_rare_over_many_reports(metric: str, changes: int) -> None:
    """Nothing ever changes but by a wobble of a quarter; a short history makes its size itself uncertain."""
    rng = random.Random(8)
    kind = named(metric)
    alarmed = 0
    for _ in range(200):
        rows = [
            (team, ago, round(200 * rng.lognormvariate(0, 0.25)))
            for team in range(40)
            for ago in range(changes + 1)
        ]
        counts = pl.DataFrame(rows, schema=[ID, "ago", "events"], orient="row")
        counts = counts.with_columns(n=pl.col("events") if kind.kind == "count" else pl.lit(5000))
        base = counts.select(ID, pl.col("ago") - 1, base_events="events", base_n="n")
        pairs = counts.join(base, on=[ID, "ago"]).with_columns(
            value=kind.value(pl.col("events"), pl.col("n")),
            base_value=kind.value(pl.col("base_events"), pl.col("base_n")),
        )
        pairs = pairs.with_columns(difference=pl.col("value") - pl.col("base_value"), change=change(kind))
        judged = with_usual(pairs.filter(pl.col("ago") == 0), pairs, kind)
        assert judged["q"].null_count() == 0
        alarmed += (judged["q"] < 0.05).any()
    assert alarmed <= most(200, 0.05)


def test_a_sentence_adds_up_as_it_is_shown() -> None:
    rate = named("inbound_per_100_delivered")
    assert (rate.show(3.26), rate.show(3.74), rate.size(rate.apart(3.74, 3.26))) == (
        "3.3",
        "3.7",
        "0.4 per 100",
    )
    bounces = named("bounce_rate")
    assert bounces.size(bounces.apart(0.0326, 0.0374)) == bounces.size(-0.004)
    assert [bounces.change(x) for x in (0.0004, -0.0004, 0.0, 0.021, -0.021)] == [
        "0.0",
        "0.0",
        "0.0",
        "+2.1",
        "−2.1",
    ]
    assert [named("volume").change(x) for x in (0.3, -0.3, 1.0)] == ["0", "0", "+1"]


def test_mix_and_rate_effects_add_up_and_tell_apart() -> None:
    """Each team's rate stands still; the total rises because the worse team sends more."""
    answer = compare(
        sends(("a", 0, 900, 100), ("b", 0, 980, 20), ("a", 1, 2700, 300), ("b", 1, 980, 20)),
        metric="bounce_rate", by="team",
    )  # fmt: skip
    assert answer["rate_effect"].to_list() == pytest.approx([0, 0])
    assert answer["mix_effect"].sum() == pytest.approx(320 / 4000 - 120 / 2000)


COUNTS = st.tuples(*[st.integers(0, 300)] * 8).filter(lambda c: sum(c[:4]) > 0 and sum(c[4:]) > 0)


@settings(max_examples=25)
@given(COUNTS)
def test_effects_sum_to_the_change_of_the_total_rate(counts: tuple[int, ...]) -> None:
    weeks = [("a", 0, *counts[0:2]), ("b", 0, *counts[2:4]), ("a", 1, *counts[4:6]), ("b", 1, *counts[6:8])]
    rows = sends(*weeks)
    parts = compare(rows, metric="bounce_rate", by="team")
    total = compare(rows, metric="bounce_rate")
    effects = parts["mix_effect"].sum() + parts["rate_effect"].sum()
    assert effects == pytest.approx(total["difference"][0], abs=1e-12)
    assert total["rate_effect"][0] == pytest.approx(total["difference"][0])
    assert parts["n"].sum() == total["n"][0] == sum(counts[4:])


@settings(max_examples=25)
@given(st.lists(st.integers(0, 9), min_size=12, max_size=12))
def test_effects_sum_to_the_change_where_channels_only_answer(counts: list[int]) -> None:
    parts = [
        {"platform": platform, "type": type_, "created_at": START + timedelta(weeks=week), "rows": rows}
        for (platform, type_, week), rows in zip(
            product("abc", ("OUTBOUND", "INBOUND"), (0, 1)), counts, strict=True
        )
    ]
    frame = sends(("a", 0, 1, 0)).drop("team", "platform", "type", "created_at")
    frame = frame.join(pl.DataFrame(parts), how="cross").select(
        pl.exclude("rows").repeat_by("rows").explode()
    )
    total = compare(frame, metric="inbound_per_100_delivered")
    effects = compare(frame, metric="inbound_per_100_delivered", by="platform").select(
        "mix_effect", "rate_effect"
    )
    if total.height and total["difference"][0] is not None:
        assert effects.sum().sum_horizontal()[0] == pytest.approx(total["difference"][0], abs=1e-9)
    else:
        assert effects.drop_nulls().is_empty()


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Asia/Karachi"])
def test_a_running_day_is_cut_at_whole_hours_in_any_zone(zone: str) -> None:
    midnight = datetime(2026, 1, 20, tzinfo=ZoneInfo(zone))
    quarters = [(midnight - timedelta(minutes=15 * ago), 1) for ago in range(-6, 4 * 24 * 8)]
    rows = at(*quarters, known=(midnight + timedelta(hours=1, minutes=45)).astimezone(UTC))
    answer = compare(rows, metric="volume", every="day", tz=zone)
    assert answer.select("period_start", "period_end", "value", "base_value").rows() == [
        (midnight, midnight + timedelta(hours=1), 4.0, 4.0)
    ]


@pytest.mark.parametrize("every", ["week", "month"])
def test_values_are_those_of_the_plain_answers(every: str) -> None:
    rows = generate(20_000, 5)
    options: dict[str, Any] = {"by": "platform", "every": every, "tz": "Asia/Dubai"}
    sent, heard, all_rows = delivery(rows, **options), engagement(rows, **options), volume(rows, **options)
    plain = {
        "bounce_rate": (sent, pl.col("bounced_of_attempted_share")),
        "hard_bounce_rate": (sent, pl.col("bounced_hard") / pl.col("attempted")),
        "failure_rate": (sent, pl.col("failed") / pl.col("attempted")),
        "delivery_rate": (sent, pl.col("delivered_of_attempted_share")),
        "inbound_per_100_delivered": (heard, pl.col("inbound_per_100_delivered")),
        "volume": (all_rows.filter(pl.col("period_state") == "complete"), pl.col("rows").cast(pl.Float64)),
    }
    for metric, (answer, value) in plain.items():
        cut = NOW_WHOLE[every] if metric == "volume" else None
        shown = rows.filter(pl.col("created_at") < cut).with_columns(updated_at=pl.lit(cut)) if cut else rows
        found = compare(shown, metric=metric, **options)
        for start, name in (("period_start", "value"), ("base_start", "base_value")):
            if (metric, every, name) == ("volume", "month", "base_value"):
                continue  # brought to the latest month's weekdays
            expected = answer.select("period_start", "platform", expected=value)
            both = found.join(expected, left_on=[start, "platform"], right_on=["period_start", "platform"])
            assert both.height == found.height
            assert both[name].to_list() == pytest.approx(both["expected"].to_list()), (metric, name)


NOW_WHOLE = {"week": datetime(2026, 6, 7, 20, tzinfo=UTC), "month": datetime(2026, 5, 31, 20, tzinfo=UTC)}


def test_weeks_begin_where_the_calendar_says() -> None:
    calendar = Calendar(zone="Asia/Riyadh", week_start=7, weekend=(5, 6))
    answer = compare(generate(5000, 1), metric="volume", calendar=calendar)
    assert answer["period_start"].dt.weekday().to_list() == [7]
    assert str(answer["period_start"].dtype) == "Datetime(time_unit='us', time_zone='Asia/Riyadh')"


def test_a_day_of_a_clock_change_is_compared_by_the_wall_clock() -> None:
    """Lord Howe's clocks go forward half an hour on 4 October 2026."""
    noon = datetime(2026, 9, 27, 1, 45, tzinfo=UTC)
    answer = compare(
        at((noon, 5), (noon + timedelta(days=7), 8), known=datetime(2026, 10, 4, 13, tzinfo=UTC)),
        metric="volume", every="day", tz="Australia/Lord_Howe",
    )  # fmt: skip
    assert answer.select("value", "base_value").rows() == [(8.0, 5.0)]
    assert answer["period_start"][0].date() == date(2026, 10, 4)
    instants = answer.select(pl.col("period_start", "period_end").dt.convert_time_zone("UTC")).row(0)
    assert instants[1] - instants[0] == timedelta(hours=23.5)


def test_nothing_to_compare_is_said() -> None:
    alone = compare(weekly(10), metric="volume")
    assert alone["verdict"].to_list() == ["volume 10 in the week of 5 January: nothing to compare it with"]
    assert alone["base_value"].to_list() == [None]
    young = sends(("a", 0, 9, 1)).with_columns(updated_at=pl.lit(START + timedelta(days=8)))
    assert compare(young, metric="bounce_rate")["verdict"].to_list() == [
        "bounce rate: no period to compare whose outcomes have settled"
    ]
    deaf = compare(sends(("a", 0, 9, 1), ("a", 1, 9, 1)), metric="inbound_per_100_delivered")
    assert deaf["value"].to_list() == [None]


def test_a_group_that_falls_silent_or_appears() -> None:
    old = weekly(50, 40).with_columns(team=pl.lit("old"))
    new = weekly(0, 0, 30).with_columns(team=pl.lit("new"))
    answer = compare(pl.concat([old, new]), metric="volume", by="team").sort("team")
    assert answer.select("value", "base_value").rows() == [(30.0, 0.0), (0.0, 40.0)]
    assert answer["ratio"].to_list() == [None, 0.0]


def test_the_order_of_rows_and_other_groups_do_not_matter() -> None:
    rows = generate(5000, 7).with_columns(updated_at=pl.lit(NOW))
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1)
    for metric in ("volume", "bounce_rate"):
        whole = compare(rows, metric=metric, by=("platform", "purpose"))
        assert_frame_equal(whole, compare(shuffled, metric=metric, by=("platform", "purpose")))
        sms = compare(rows.filter(pl.col("platform") == "SMS"), metric=metric, by=("platform", "purpose"))
        kept = pl.exclude("q", "mix_effect", "rate_effect", "verdict")
        both = whole.filter(pl.col("platform") == "SMS").select(kept)
        assert_frame_equal(both, sms.select(kept))


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("metric", METRICS)
def test_an_empty_frame_gives_an_empty_answer_of_the_same_shape(metric: str, every: str) -> None:
    full = generate(300, 1)
    answer = compare(full.clear(), metric=metric, by="platform", every=every)
    assert answer.is_empty()
    assert answer.schema == compare(full, metric=metric, by="platform", every=every).schema


def test_odd_frames_give_numbers_or_nulls() -> None:
    rows = generate(2000, 2)
    nothing = rows.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in rows.schema.items() if not name.endswith("_at")
    )
    odd = {
        "one row": rows.head(1),
        "all null": nothing,
        "no creation": rows.with_columns(created_at=pl.lit(None, rows.schema["created_at"])),
        "no change": rows.with_columns(updated_at=pl.lit(None, rows.schema["updated_at"])),
    }
    for name, frame in odd.items():
        for metric in ("volume", "delivery_rate", "inbound_per_100_delivered"):
            for every in ("15min", "day", "month"):
                answer = compare(frame, metric=metric, by=("platform", "purpose"), every=every)
                numbers = answer.select(pl.col(pl.Float64))
                bad = [c for c in numbers.columns if not numbers[c].drop_nulls().is_finite().all()]
                assert not bad, (name, metric, every)


def test_pandas_comes_back_as_pandas() -> None:
    import pandas as pd

    answer = compare(weekly(100, 120).to_pandas(), metric="volume")
    assert isinstance(answer, pd.DataFrame)
    assert answer["difference"].tolist() == [20.0]


def test_bad_input_is_told_what_is_known() -> None:
    rows = generate(10, 1)
    with pytest.raises(InputError, match=r"Known: volume, bounce_rate.*Did you mean 'delivery_rate'"):
        compare(rows, metric="delivery")
    for wrong in (0, -1, 1.5):
        with pytest.raises(InputError, match="whole number"):
            compare(rows, metric="volume", periods_back=wrong)
    with pytest.raises(InputError, match="is no column"):
        compare(rows, metric="volume", by="plattform")


@pytest.mark.parametrize("metric", ["volume", "inbound_per_100_delivered"])
def test_a_comparison_is_the_same_to_the_last_bit_each_time(metric: str) -> None:
    frame = generate(20_000, 5)
    first = compare(frame, metric=metric, by=("platform", "purpose"), every="month")
    for seed in range(6):
        again = compare(
            frame.sample(fraction=1, shuffle=True, seed=seed),
            metric=metric,
            by=("platform", "purpose"),
            every="month",
        )
        assert_frame_equal(again, first, check_exact=True)
