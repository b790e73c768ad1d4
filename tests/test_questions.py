"""The main answers against independent SQL, small frames counted by hand, and what must always hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from d22kit.errors import InputError
from d22kit.questions import delivery as delivery_module
from d22kit.questions._cube import SMALL, collect
from d22kit.questions._outcomes import OPEN, OUTCOME
from d22kit.questions._rules import phrases, rules
from d22kit.questions._verdicts import CLOSED, SETTLED, STATED
from d22kit.questions.calendar import Calendar, Clock, first_instant
from d22kit.questions.classify import RESULT, classify_distinct
from d22kit.questions.compare import compare
from d22kit.questions.delivery import backlog, delivery, time_to_last_update, worklist
from d22kit.questions.engagement import HoursRule, contact_hours, engagement
from d22kit.questions.profile import profile
from d22kit.questions.roles import fold, load_roles
from d22kit.questions.volume import heatmap, share, volume
from d22kit.simulator.lender import generate

ZONES = ("UTC", "Asia/Dubai", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo")
EVERY = ("15min", "hour", "day", "week", "month", "quarter")
REG_F = HoursRule.us_regulation_f(zone="America/New_York")


def rows(**columns: Any) -> pl.DataFrame:
    """A frame of D22: what is not given is an outbound e-mail of 1 May 2026, delivered the same day."""
    base = {
        "public_id": None,
        "platform": "EMAIL",
        "purpose": "REMINDER",
        "type": "OUTBOUND",
        "by": "SYSTEM",
        "operation": "SEND",
        "status": "SENT",
        "visibility": "INTERNAL",
        "delivery_status": "DELIVERED",
        "delivery_code": None,
        "delivery_error_detail": None,
        "created_at": datetime(2026, 5, 1, 12, tzinfo=UTC),
        "updated_at": datetime(2026, 5, 1, 12, 1, tzinfo=UTC),
    }
    length = max((len(value) for value in columns.values() if isinstance(value, list)), default=1)
    full = {
        name: value if isinstance(value, list) else [value] * length
        for name, value in {**base, **columns}.items()
    }
    texts = {name: pl.String for name in base if not name.endswith("_at")}
    times = {name: pl.Datetime("us", "UTC") for name in ("created_at", "updated_at")}
    return pl.DataFrame(full, schema_overrides={**texts, **times})


def sql(query: str, **frames: pl.DataFrame) -> pl.DataFrame:
    with duckdb.connect() as connection:
        for name, frame in frames.items():
            connection.register(name, frame.to_arrow())
        return connection.sql(query).pl()


def around_clock_changes() -> pl.DataFrame:
    """Rows every seven minutes around both clock changes of three zones, on channels in turn."""
    changes = [(2025, 3, 9), (2025, 11, 2), (2025, 4, 6), (2025, 10, 5), (2025, 4, 25), (2025, 10, 31)]
    span = itertools.chain.from_iterable(
        pl.datetime_range(
            datetime(*day, tzinfo=UTC) - timedelta(days=1.5),
            datetime(*day, tzinfo=UTC) + timedelta(days=1.5),
            "7m",
            eager=True,
        )
        for day in changes
    )
    moments = list(span)
    kinds = list(
        itertools.islice(itertools.cycle(["OUTBOUND", "INBOUND", "outbound", "mystery"]), len(moments))
    )
    platforms = list(itertools.islice(itertools.cycle(["EMAIL", "SMS", None]), len(moments)))
    return rows(created_at=moments, updated_at=moments, type=kinds, platform=platforms)


# Time


@pytest.mark.parametrize("every", ["hour", "day", "week", "month", "quarter"])
@pytest.mark.parametrize("tz", ZONES)
def test_volume_equals_sql(tz: str, every: str) -> None:
    frame = around_clock_changes()
    answer = volume(frame, by="platform", every=every, tz=tz, fill=False)
    local = answer.group_by(
        pl.col("period_start").dt.replace_time_zone(None).dt.truncate("1h"), "platform"
    ).agg(pl.col("rows", "outbound", "inbound", "direction_unmapped").sum())
    # A day without a midnight begins at 01:00; SQL names it by the midnight that never was.
    if every != "hour":
        local = local.with_columns(pl.col("period_start").dt.truncate("1d"))
    expected = sql(
        f"""select date_trunc('{every}', created_at at time zone '{tz}')::timestamp as period_start, platform,
                   count(*)::bigint as rows,
                   count(*) filter (lower(type) = 'outbound')::bigint as outbound,
                   count(*) filter (type = 'INBOUND')::bigint as inbound,
                   count(*) filter (type = 'mystery')::bigint as direction_unmapped
            from frame group by all""",
        frame=frame,
    )
    assert_frame_equal(local, expected, check_row_order=False)


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("tz", ZONES)
def test_periods_leave_no_gap_and_no_overlap(tz: str, every: str) -> None:
    frame = around_clock_changes().filter(pl.col("created_at") < datetime(2025, 4, 8, tzinfo=UTC))
    answer = volume(frame, every=every, tz=tz)
    assert answer["period_start"][1:].equals(answer["period_end"][:-1].alias("period_start"))
    assert (answer["period_start"] < answer["period_end"]).all()
    assert answer["rows"].sum() == frame.height


def test_a_repeated_hour_is_two_periods_and_a_skipped_one_none() -> None:
    frame = rows(created_at=[datetime(2025, 11, 2, hour, 30, tzinfo=UTC) for hour in (4, 5, 6, 7)])
    hours = volume(frame, every="hour", tz="America/New_York")["period_start"]
    assert hours.dt.hour().to_list() == [0, 1, 1, 2]
    frame = rows(created_at=[datetime(2025, 3, 9, hour, 30, tzinfo=UTC) for hour in (6, 7)])
    assert volume(frame, every="hour", tz="America/New_York")["period_start"].dt.hour().to_list() == [1, 3]


def test_days_last_as_long_as_they_do() -> None:
    frame = rows(created_at=[datetime(2025, 11, 1, 12, tzinfo=UTC), datetime(2025, 11, 3, 12, tzinfo=UTC)])
    days = volume(frame, tz="America/New_York")
    lengths = (days["period_end"] - days["period_start"]).dt.total_hours().to_list()
    assert lengths == [24, 25, 24]


def test_a_day_without_midnight_begins_at_its_first_moment() -> None:
    frame = rows(created_at=[datetime(2025, 4, 24, 12, tzinfo=UTC), datetime(2025, 4, 25, 12, tzinfo=UTC)])
    start = volume(frame, tz="Africa/Cairo")["period_start"][1]
    assert (start.hour, start.astimezone(UTC)) == (1, datetime(2025, 4, 24, 22, tzinfo=UTC))


def test_a_zone_off_the_hour_is_cut_at_its_own_midnight() -> None:
    frame = rows(
        created_at=[datetime(2026, 5, 1, 18, 14, tzinfo=UTC), datetime(2026, 5, 1, 18, 15, tzinfo=UTC)]
    )
    days = volume(frame, tz="Asia/Kathmandu")
    assert days.select(pl.col("period_start").dt.day(), "rows").rows() == [(1, 1), (2, 1)]


def test_weeks_begin_where_the_calendar_says() -> None:
    frame = rows(
        created_at=[datetime(2026, 5, day, 12, tzinfo=UTC) for day in (2, 3)]
    )  # a Saturday, a Sunday
    assert volume(frame, every="week")["rows"].to_list() == [2]
    sunday = volume(frame, every="week", calendar=Calendar(week_start=7))
    assert sunday.select(pl.col("period_start").dt.weekday(), "rows").rows() == [(7, 1), (7, 1)]


def test_the_calendar_names_the_zone() -> None:
    answer = volume(rows(), calendar=Calendar(zone="Asia/Dubai"))
    assert answer.schema["period_start"] == pl.Datetime("us", "Asia/Dubai")
    with pytest.raises(InputError, match="differ"):
        volume(rows(), tz="Asia/Karachi", calendar=Calendar(zone="Asia/Dubai"))


def test_states_of_periods_follow_the_newest_update() -> None:
    created = [datetime(2026, 5, day, 12, tzinfo=UTC) for day in (1, 2, 3, 4, 5)]
    frame = rows(created_at=created, updated_at=[datetime(2026, 5, 5, 13, tzinfo=UTC)] * 5)
    assert delivery(frame)["period_state"].to_list() == ["complete", *["immature"] * 3, "partial"]
    assert volume(frame)["period_state"].to_list() == [*["complete"] * 4, "partial"]


def test_calendar_knows_regimes_seasons_and_holidays() -> None:
    day = Calendar(
        weekend={date(2022, 1, 1): (6, 7), date(2000, 1, 1): (5, 6)},
        holidays={date(2026, 3, 20): "Eid al-Fitr"},
        special={"Ramadan": (date(2026, 2, 18), date(2026, 3, 19))},
    )
    assert day.tag(date(2026, 3, 20)) == "Eid al-Fitr"
    assert day.tag(date(2026, 3, 1)) == "Ramadan"
    assert (day.is_weekend(date(2021, 6, 4)), day.is_weekend(date(2026, 6, 5))) == (True, False)
    assert not day.is_weekend(date(1999, 6, 4))


# Conservation

words = st.sampled_from(["OUTBOUND", "inbound", "In-bound", "INTERNAL", None])
outcomes = st.sampled_from(
    ["DELIVERED", "read", "SENT", "BOUNCED", "FAILED", "SUPPRESSED", "QUEUED", "odd", None]
)
moments = st.none() | st.datetimes(datetime(2025, 3, 1), datetime(2025, 4, 30))


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    size = draw(st.integers(0, 25))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    created = [None if m is None else m.replace(tzinfo=UTC) for m in column(moments)]
    lasts = column(st.integers(-100, 1_000_000))
    updated = [None if c is None else c + timedelta(seconds=s) for c, s in zip(created, lasts, strict=True)]
    frame = rows(
        platform=column(st.sampled_from(["EMAIL", "SMS", None])),
        purpose=column(st.sampled_from(["REMINDER", None])),
        type=column(words),
        operation=column(st.sampled_from(["SEND", "re-send", "NOTE", "odd", None])),
        by=column(st.sampled_from(["SYSTEM", "AGENT", "CUSTOMER", "odd"])),
        delivery_status=column(outcomes),
        created_at=created,
        updated_at=updated,
    )
    return frame.cast({"platform": pl.Categorical})


groupings = st.sampled_from([(), "platform", ("platform", "purpose"), "delivery_status"])


@settings(max_examples=40)
@given(frames(), groupings, st.sampled_from(EVERY[1:]), st.sampled_from(ZONES), st.booleans())
def test_totals_are_kept_over_any_grouping_and_period(
    frame: pl.DataFrame, by: Any, every: str, tz: str, fill: bool
) -> None:
    answer = volume(frame, by=by, every=every, tz=tz, fill=fill)
    assert answer["rows"].sum() == frame.height
    assert (
        answer["rows"]
        == answer.select(pl.sum_horizontal("outbound", "inbound", "direction_unmapped")).to_series()
    ).all()
    undated = answer.filter(pl.col("period_state") == "undated")
    assert undated["rows"].sum() == frame["created_at"].null_count()


@settings(max_examples=25)
@given(frames(), st.sampled_from(["platform", ("platform", "purpose")]))
def test_outcomes_add_up(frame: pl.DataFrame, by: Any) -> None:
    answer = delivery(frame, by=by, tz="Asia/Dubai")
    parts = answer.select(
        pl.sum_horizontal("pending", "accepted", "delivered", "bounced", "failed", "unknown")
    )
    assert answer["attempted"].equals(parts.to_series().alias("attempted"))
    kinds = answer.select(pl.sum_horizontal("bounced_hard", "bounced_soft", "bounced_block")).to_series()
    assert answer["bounced"].equals(kinds.alias("bounced"))
    assert (answer["read_receipts"] <= answer["delivered"]).all()
    outbound = pl.col("type") == "OUTBOUND"
    sends = pl.col("operation").is_in(["SEND", "re-send"])
    assert answer["attempted"].sum() + answer["suppressed"].sum() == frame.filter(outbound, sends).height
    undecided = ~sends.fill_null(False) & (pl.col("operation") != "NOTE").fill_null(True)
    unmapped = pl.col("type").is_null() | (pl.col("type") == "INTERNAL")
    assert (
        answer["attempt_unmapped"].sum()
        == frame.filter(
            (outbound.fill_null(False) & undecided)
            | (unmapped & (pl.col("operation") != "NOTE").fill_null(True))
        ).height
    )


QUESTIONS: list[Callable[[pl.DataFrame], pl.DataFrame]] = [
    lambda frame: volume(frame, by="platform", every="week", tz="Asia/Kathmandu"),
    lambda frame: heatmap(frame, by="purpose", tz="America/New_York"),
    lambda frame: share(frame, by="platform"),
    lambda frame: delivery(frame, by="platform", every="month"),
    lambda frame: engagement(frame),
    lambda frame: contact_hours(frame, REG_F, by="platform"),
    lambda frame: time_to_last_update(frame, by="platform"),
    lambda frame: backlog(frame, by="purpose"),
    lambda frame: profile(frame),
]


@settings(max_examples=8)
@given(frames(), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(frame: pl.DataFrame, random: Any) -> None:
    shuffled = frame[random.sample(range(frame.height), frame.height)]
    for question in QUESTIONS:
        assert_frame_equal(question(shuffled), question(frame), check_exact=True)


@settings(max_examples=25)
@given(frames(), st.integers(0, 25))
def test_cubes_of_two_halves_add_up_to_the_cube_of_the_whole(frame: pl.DataFrame, at: int) -> None:
    keys = ["platform", "type"]
    halves = pl.concat([collect(frame[:at], keys), collect(frame[at:], keys)])
    added = halves.group_by("hour", *keys).agg(pl.col("rows").sum(), pl.col("latest").max())
    assert_frame_equal(added, collect(frame, keys), check_row_order=False, check_column_order=False)


def test_a_thousand_groups_and_one_giant_one() -> None:
    frame = rows(purpose=[f"P{n % 1000}" for n in range(5000)])
    assert volume(frame, by="purpose")["rows"].to_list() == [5] * 1000
    assert volume(frame, by="platform")["rows"].to_list() == [5000]


@pytest.mark.parametrize("name", ["month", "day", "spread", "df", "unit", 'day of the "month"'])
def test_a_joined_column_may_have_any_name_that_no_answer_has(name: str) -> None:
    frame = rows(type=["OUTBOUND", "INBOUND"] * 3).with_columns(pl.Series(name, ["a", "b"] * 3))
    plain = frame.rename({name: "team"})
    for question in (volume, heatmap, share, delivery, engagement, time_to_last_update, backlog):
        assert_frame_equal(question(frame, by=name).rename({name: "team"}), question(plain, by="team"))
    expected = contact_hours(plain, REG_F, by="team")
    assert_frame_equal(contact_hours(frame, REG_F, by=name).rename({name: "team"}), expected)


def test_null_is_a_group_of_its_own() -> None:
    answer = volume(rows(platform=["EMAIL", None, None]), by="platform")
    assert answer.select("platform", "rows").rows() == [("EMAIL", 1), (None, 2)]
    everything = delivery(rows(platform=[None] * 3), by="platform")
    assert everything.select("platform", "attempted").rows() == [(None, 3)]


def test_rows_without_a_time_are_kept_apart_and_counted() -> None:
    answer = volume(rows(created_at=[None, datetime(2026, 5, 1, tzinfo=UTC)]))
    assert answer.select("period_start", "period_state", "rows").rows()[1] == (None, "undated", 1)
    assert heatmap(rows(created_at=[None, datetime(2026, 5, 1, tzinfo=UTC)]))["rows"].sum() == 2


# Volume


def test_gaps_are_filled_per_group_within_the_observed_range() -> None:
    frame = rows(
        platform=["EMAIL", "SMS"],
        created_at=[datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 4, tzinfo=UTC)],
    )
    filled = volume(frame, by="platform")
    assert filled.height == 8
    assert filled.filter(platform="SMS")["rows"].to_list() == [0, 0, 0, 1]
    assert volume(frame, by="platform", fill=False).select("platform", "rows").rows() == [
        ("EMAIL", 1),
        ("SMS", 1),
    ]


def test_small_marks_a_thin_denominator() -> None:
    frame = rows(platform=["EMAIL"] * SMALL + ["SMS"] * (SMALL - 1))
    assert volume(frame, by="platform").select("platform", "small").rows() == [
        ("EMAIL", False),
        ("SMS", True),
    ]


def test_heatmap_equals_sql(lender_frame: pl.DataFrame) -> None:
    answer = heatmap(lender_frame, tz="America/New_York")
    expected = sql(
        """select isodow(t)::bigint as weekday, hour(t)::bigint as hour, count(*)::bigint as rows
           from (select created_at at time zone 'America/New_York' as t from frame) group by all""",
        frame=lender_frame,
    )
    assert_frame_equal(
        answer.filter(pl.col("rows") > 0).select(expected.columns), expected, check_row_order=False
    )
    assert answer.height == 168
    first, last = lender_frame.select(first=pl.col("created_at").min(), last=pl.col("created_at").max()).row(
        0
    )
    assert answer["hours_observed"].sum() == pytest.approx((last - first) / timedelta(hours=1), abs=2)


@pytest.mark.parametrize("tz", ["UTC", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_the_first_and_the_last_hour_count_whole(tz: str) -> None:
    frame = rows(
        created_at=[datetime(2026, 5, 1, hour, minute, tzinfo=UTC) for hour, minute in ((6, 10), (9, 50))]
    )
    observed = heatmap(frame, tz=tz).filter(pl.col("hours_observed") > 0)
    assert set(observed["hours_observed"]) == {1.0}
    assert observed.select(pl.col("rows").first(), last=pl.col("rows").last()).row(0) == (1, 1)


def test_shares_of_a_period_sum_to_one(lender_frame: pl.DataFrame) -> None:
    answer = share(lender_frame, by=("platform", "purpose"), every="week", tz="Asia/Dubai")
    sums = answer.group_by("period_start").agg(
        pl.col("share").sum(), pl.col("rows").sum(), pl.col("total_rows").first()
    )
    assert sums["share"].to_list() == pytest.approx([1.0] * sums.height)
    assert (sums["rows"] == sums["total_rows"]).all()
    one = answer.filter(platform="EMAIL", purpose="REMINDER").with_columns(
        expected=pl.col("share").diff() * 100
    )
    assert one["change_pp"].to_list() == pytest.approx(one["expected"].to_list(), nan_ok=True)


def test_undated_rows_are_no_period_that_a_share_changes_from() -> None:
    at = datetime(2026, 5, 3, tzinfo=UTC)
    frame = rows(platform=["EMAIL", "SMS", "SMS"], created_at=[at, at, None])
    answer = share(frame, by="platform").select("platform", "share", "change_pp")
    assert answer.rows() == [("EMAIL", 0.5, None), ("SMS", 0.5, None), ("SMS", 1.0, None)]


# Delivery


def test_delivery_counted_by_hand() -> None:
    frame = rows(
        delivery_status=[
            "DELIVERED",
            "delivered",
            "read",
            "BOUNCED",
            "FAILED",
            "QUEUED",
            "SENT",
            "SUPPRESSED",
            "odd",
        ],
        updated_at=datetime(2026, 6, 1, tzinfo=UTC),
    )
    row = delivery(frame).row(0, named=True)
    counts = {
        "attempted": 8,
        "suppressed": 1,
        "pending": 1,
        "accepted": 1,
        "delivered": 3,
        "read_receipts": 1,
    }
    counts |= {"bounced": 1, "failed": 1, "unknown": 1, "known": 5, "attempt_unmapped": 0}
    assert {name: row[name] for name in counts} == counts
    assert row["receipt_coverage_share"] == 5 / 8
    assert row["delivered_of_known_share"] == 3 / 5
    assert (row["delivered_of_attempted_share"], row["delivered_max_share"]) == (3 / 8, 5 / 8)
    assert row["bounced_of_attempted_share"] == 1 / 8
    assert (row["period_state"], row["small"]) == ("complete", True)


def test_shares_without_a_denominator_are_null() -> None:
    row = delivery(rows(type="INBOUND")).row(0, named=True)
    assert row["attempted"] == 0
    assert all(row[name] is None for name in row if "_share" in name)


def test_a_code_can_group_what_was_delivered() -> None:
    frame = rows(delivery_status=["DELIVERED", "BOUNCED"], delivery_code=["250", "550"])
    answer = delivery(frame, by="delivery_code").select("delivery_code", "delivered", "bounced")
    assert answer.rows() == [("250", 1, 0), ("550", 0, 1)]


def test_columns_are_the_ones_promised() -> None:
    assert delivery(rows(), by="platform").columns[:18] == [
        *(
            "period_start",
            "period_end",
            "period_state",
            "platform",
            "small",
            "attempted",
            "suppressed",
            "pending",
        ),
        *(
            "accepted",
            "delivered",
            "read_receipts",
            "bounced",
            "bounced_hard",
            "bounced_soft",
            "bounced_block",
        ),
        *("failed", "unknown", "known"),
    ]
    assert volume(rows()).columns[3:] == ["small", "rows", "outbound", "inbound", "direction_unmapped"]
    assert contact_hours(rows(), REG_F).columns[4:] == [
        *("rule", "zone", "outbound", "inside", "outside_hours", "outside_days", "outside_share"),
        *("earliest_local", "latest_local"),
    ]


def test_delivery_equals_sql(lender_frame: pl.DataFrame) -> None:
    answer = delivery(lender_frame, by="platform", every="day", tz="America/New_York").filter(
        pl.col("attempted") > 0
    )
    expected = sql(
        """select date_trunc('day', created_at at time zone 'America/New_York')::timestamp as period_start, platform,
                  count(*)::bigint as attempted,
                  count(*) filter (upper(delivery_status) in ('DELIVERED', 'READ', 'OPENED'))::bigint as delivered,
                  count(*) filter (upper(delivery_status) in ('READ', 'OPENED'))::bigint as read_receipts,
                  count(*) filter (upper(delivery_status) = 'SENT')::bigint as accepted
           from frame
           where type = 'OUTBOUND' and operation = 'SEND'
             and upper(coalesce(delivery_status, '')) not in ('SUPPRESSED', 'CANCELED')
             and coalesce(delivery_code, '') not in ('131050', '21610')  -- Meta, Twilio: opted out
           group by all""",
        frame=lender_frame,
    )
    local = answer.with_columns(
        pl.col("period_start").dt.replace_time_zone(None), pl.col("platform").cast(pl.String)
    )
    assert_frame_equal(local.select(expected.columns), expected, check_row_order=False)


def test_the_state_of_stated_words_needs_no_code_and_no_text(lender_frame: pl.DataFrame) -> None:
    cases = lender_frame.select(OUTCOME).unique().with_columns(pl.col("platform").cast(pl.String))
    every = (
        cases.drop("delivery_status")
        .join(pl.DataFrame({"delivery_status": STATED}), how="cross")
        .select(OUTCOME)
    )
    silent = every.with_columns(
        delivery_code=pl.lit(None, pl.String), delivery_error_detail=pl.lit(None, pl.String)
    )
    told, untold = classify_distinct(every), classify_distinct(silent)
    assert told["delivery_state"].equals(untold["delivery_state"])
    settled = pl.col("delivery_status").is_in(SETTLED)
    assert_frame_equal(told.filter(settled).select(RESULT), untold.filter(settled).select(RESULT))


def test_closed_words_are_never_open_whatever_the_code_and_text(lender_frame: pl.DataFrame) -> None:
    cases = lender_frame.select(OUTCOME).unique().with_columns(pl.col("platform").cast(pl.String))
    closed = pl.DataFrame({"delivery_status": CLOSED})
    every = cases.drop("delivery_status").join(closed, how="cross").select(OUTCOME)
    assert not classify_distinct(every)["delivery_state"].is_in(OPEN).any()
    overruled = [fit.state for section in ("phrase", "weak") for fit in phrases(section)]
    overruled += [rule["state"] for rule in rules()["state_by_code"]]
    assert not {*overruled} & {*OPEN}


def test_durations_equal_sql(lender_frame: pl.DataFrame) -> None:
    answer = time_to_last_update(lender_frame, by="platform").filter(state="read")
    expected = sql(
        """select platform, count(*)::bigint as n, quantile_cont(s, 0.5) as p50_s, quantile_cont(s, 0.99) as p99_s
           from (select *, epoch_us(updated_at) / 1e6 - epoch_us(created_at) / 1e6 as s from frame
                 where upper(delivery_status) in ('READ', 'OPENED')) group by all order by platform""",
        frame=lender_frame,
    )
    found = answer.select(pl.col("platform").cast(pl.String), "n", "p50_s", "p99_s")
    assert_frame_equal(found, expected, check_exact=False, rel_tol=1e-6)


def test_durations_of_many_rows_are_within_a_percent(
    lender_frame: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = time_to_last_update(lender_frame, by="platform")
    monkeypatch.setattr(delivery_module, "EXACT", 100)
    binned = time_to_last_update(lender_frame, by="platform")
    assert_frame_equal(binned, exact, check_exact=False, rel_tol=0.01)
    assert binned["n"].equals(exact["n"])


def test_negative_and_open_durations_stand_apart() -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    frame = rows(
        delivery_status=["DELIVERED", "DELIVERED", "DELIVERED", "QUEUED"],
        created_at=[at] * 3 + [None],
        updated_at=[at - timedelta(seconds=5), at, at + timedelta(seconds=10), at],
    )
    row = time_to_last_update(frame).row(0, named=True)
    assert (row["state"], row["n"], row["open"], row["negative"], row["p50_s"]) == ("delivered", 3, 0, 1, 5.0)
    assert time_to_last_update(rows(delivery_status="QUEUED"))["open"].to_list() == [1]


def test_backlog_by_age() -> None:
    now = datetime(2026, 5, 10, tzinfo=UTC)
    ages = [
        timedelta(minutes=59),
        timedelta(hours=1),
        timedelta(days=2),
        timedelta(days=7),
        timedelta(days=9),
    ]
    frame = rows(delivery_status="QUEUED", created_at=[now - age for age in ages], updated_at=now)
    assert backlog(frame).select("age_band", "rows").rows() == [
        ("under 1 h", 1),
        ("1 to 24 h", 1),
        ("1 to 3 days", 1),
        ("over 7 days", 2),
    ]
    assert backlog(frame)["oldest"].min() == now - ages[-1]
    assert backlog(rows(delivery_status="DELIVERED")).height == 0


def test_worklist_holds_hard_bounces_and_no_person() -> None:
    frame = rows(
        public_id=["a", "b", "c"],
        delivery_status=["BOUNCED", "BOUNCED", "DELIVERED"],
        delivery_code=["550", "452", "250"],
        delivery_error_detail=["550 5.1.1 <jo@x.example> user unknown", "452 4.2.2 mailbox full", None],
    )
    answer = worklist(frame)
    assert answer.columns == ["public_id", "platform", "category", "permanence", "last_seen"]
    assert answer.select("public_id", "category").rows() == [("a", "invalid_recipient")]
    assert worklist(frame, permanence="soft")["public_id"].to_list() == ["b"]


# Engagement


def test_engagement_is_rows_against_rows() -> None:
    frame = rows(
        type=["OUTBOUND"] * 4 + ["INBOUND"] * 3,
        by=["SYSTEM", "SYSTEM", "AGENT", "odd", "CUSTOMER", "CUSTOMER", "CUSTOMER"],
        operation=["SEND"] * 4 + ["RECEIVE"] * 3,
        delivery_status=["DELIVERED", "read", "BOUNCED", "SENT", None, None, None],
    )
    row = engagement(frame).row(0, named=True)
    assert (row["attempted"], row["delivered"], row["inbound"]) == (4, 2, 3)
    assert row["inbound_per_100_delivered"] == 150
    assert row["inbound_per_100_delivered_lo"] < 150 < row["inbound_per_100_delivered_hi"]
    assert (row["automated"], row["person"], row["initiator_unmapped"]) == (2, 1, 1)
    assert row["automated_share"] == 2 / 3
    assert row["channel_share"] == 1


def test_engagement_is_null_where_nothing_maps_to_inbound() -> None:
    silent = engagement(rows(type=["OUTBOUND", "MESSAGE_FROM_CLIENT"]))
    assert silent.select("inbound", "inbound_per_100_delivered").row(0) == (None, None)
    found = profile(rows(type=["OUTBOUND", "MESSAGE_FROM_CLIENT"])).filter(topic="warning")
    assert "inbound" in found["note"][0]
    heard = engagement(
        rows(type=["OUTBOUND", "MESSAGE_FROM_CLIENT"]),
        roles={"direction": {"inbound": ["message from client"]}},
    )
    assert heard.select("inbound", "inbound_per_100_delivered").row(0) == (1, 100)


def test_a_channel_without_inbound_beside_one_with_it_is_zero_not_null() -> None:
    frame = rows(platform=["EMAIL", "SMS", "SMS"], type=["OUTBOUND", "OUTBOUND", "INBOUND"])
    answer = engagement(frame).select("platform", "inbound", "inbound_per_100_delivered")
    assert answer.rows() == [("EMAIL", 0, 0.0), ("SMS", 1, 100.0)]


def test_bursts_widen_the_limits_of_engagement() -> None:
    def frame(answers: list[int]) -> pl.DataFrame:
        parts = [
            rows(type=["OUTBOUND"] * 100 + ["INBOUND"] * n, created_at=datetime(2026, 5, day, tzinfo=UTC))
            for day, n in enumerate(answers, start=1)
        ]
        return pl.concat(parts)

    width = pl.col("inbound_per_100_delivered_hi") - pl.col("inbound_per_100_delivered_lo")
    steady, bursty = (
        engagement(frame(answers)).select(width).item() for answers in ([10] * 20, [1, 19] * 10)
    )
    assert bursty > 1.5 * steady


def test_contact_hours_equal_sql(lender_frame: pl.DataFrame) -> None:
    answer = contact_hours(lender_frame, REG_F, by="platform")
    expected = sql(
        """select date_trunc('month', t)::timestamp as period_start, platform, count(*)::bigint as outbound,
                  count(*) filter (hour(t) < 8 or hour(t) >= 21)::bigint as outside_hours,
                  min(t::time) as earliest_local, max(t::time) as latest_local
           from (select *, created_at at time zone 'America/New_York' as t from frame where type = 'OUTBOUND')
           group by all""",
        frame=lender_frame,
    )
    local = answer.with_columns(
        pl.col("period_start").dt.replace_time_zone(None), pl.col("platform").cast(pl.String)
    )
    assert_frame_equal(local.select(expected.columns), expected, check_row_order=False)
    assert (answer["outbound"] == answer["inside"] + answer["outside_hours"]).all()
    assert set(answer["rule"]) == {"US Regulation F"}


def test_a_rule_of_your_own_in_quarter_hours() -> None:
    rule = HoursRule(
        name="House",
        zone="UTC",
        hours={5: (time(9, 15), time(17))},
        source="Handbook",
        as_of=date(2026, 5, 1),
    )
    friday = [datetime(2026, 5, 1, 9, minute, tzinfo=UTC) for minute in (14, 15)]
    frame = rows(created_at=[*friday, datetime(2026, 5, 2, 10, tzinfo=UTC)])
    row = contact_hours(frame, rule).row(0, named=True)
    assert (row["inside"], row["outside_hours"], row["outside_days"]) == (1, 1, 1)
    assert row["earliest_local"] == time(9, 14)


# Roles and profile


@pytest.mark.parametrize("word", ["OUTBOUND", "out-bound", " Out bound", "out_bound"])
def test_words_match_in_any_dress(word: str) -> None:
    assert load_roles().of("direction", word) == "outbound"
    assert fold(word) == "outbound"


def test_roles_extend_and_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "roles.toml"
    named.write_text('[direction]\ninbound = ["XX", "OUT"]\n[attempt]\nyes = ""\n', encoding="utf-8")
    monkeypatch.setenv("D22KIT_ROLES", str(named))
    assert load_roles().of("direction", "xx") == "inbound"
    assert load_roles().of("direction", "OUT") == "inbound"
    assert load_roles().of("attempt", None) == "yes"
    assert load_roles({"direction": {"outbound": "xx"}}).of("direction", "XX") == "outbound"
    monkeypatch.delenv("D22KIT_ROLES")
    assert load_roles(named).of("direction", "xx") == "inbound"


@pytest.mark.parametrize(
    ("roles", "match"),
    [
        ({"colour": {}}, "colour"),
        ({"direction": {"sideways": ["x"]}}, "sideways"),
        ({"direction": ["x"]}, "must hold"),
        ({"direction": {"inbound": ["x"], "outbound": ["X"]}}, "both"),
        ({"direction": {"inbound": 7}}, "list of words"),
        ("nowhere.toml", "cannot be read"),
        (7, "int"),
    ],
)
def test_wrong_roles_are_refused(roles: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        volume(rows(), roles=roles)


def test_profile_tells_blanks_apart_and_lists_words_with_roles() -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    frame = rows(
        type=["OUTBOUND", "inbound", "odd", None],
        purpose=["NONE", " ", None, "REMINDER"],
        delivery_error_detail=[None, "", "None", "text"],
        created_at=[at, at, None, at],
        updated_at=[at + timedelta(days=1), at - timedelta(days=1), at, at],
    )
    found = profile(frame)
    words = found.filter(topic="word", column="type").select("value", "role", "note").rows()
    assert set(words) == {
        ("OUTBOUND", "outbound", None),
        ("inbound", "inbound", None),
        ("odd", None, "unmapped"),
        (None, None, "unmapped"),
    }
    assert found.filter(topic="unmapped", role="direction").select("rows", "share").row(0) == (2, 0.5)
    for column in ("purpose", "delivery_error_detail"):
        blanks = found.filter(topic="blank", column=column).select("value", "rows").rows()
        assert sorted(blanks) == [("NONE", 1), ("empty", 1), ("null", 1)]
    assert found.filter(topic="blank", column="created_at")["rows"].to_list() == [1]
    assert found.filter(value="changed before created")["rows"].to_list() == [1]
    assert found.filter(topic="freshness")["at"].to_list() == [at + timedelta(days=1)]


@given(
    st.lists(
        st.tuples(
            st.text(" \t\n\u3000", max_size=30), st.sampled_from(("", "none", "NONE", "No ne", "550", "é"))
        ),
        max_size=20,
    )
)
def test_blanks_are_found_at_any_length(texts: list[tuple[str, str]]) -> None:
    found = profile(rows(delivery_code=[blank + word + blank for blank, word in texts]))
    blanks = dict(found.filter(topic="blank", column="delivery_code").select("value", "rows").rows())
    words = [word.upper() for _, word in texts]
    expected = {"empty": words.count(""), "NONE": words.count("NONE")}
    assert blanks == {kind: count for kind, count in expected.items() if count}


# Bad input


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_empty_frame_gives_an_empty_answer_of_the_same_columns(
    question: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    frame = rows()
    answer, empty = question(frame), question(frame.clear())
    assert empty.schema == answer.schema
    assert empty.height == 0 or "weekday" in empty.columns or "topic" in empty.columns


@pytest.mark.parametrize("question", QUESTIONS)
def test_one_row_and_rows_without_any_time_are_answered(
    question: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    question(rows())
    question(rows(created_at=[None, None], updated_at=[None, None]))
    question(
        rows(
            platform=[None], purpose=[None], type=[None], by=[None], operation=[None], delivery_status=[None]
        )
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"by": "platfrom"}, "platform"),
        ({"by": "rows"}, "no column"),
        ({"by": ("platform", "platform")}, "twice"),
        ({"by": "created_at"}, "time itself"),
        ({"by": None}, "no column name"),
        ({"by": pl.col("platform")}, "no column name"),
        ({"every": "weak"}, "'week'"),
        ({"every": ["day"]}, "Known: 15min"),
        ({"every": None}, "Known: 15min"),
        ({"tz": "Asia/Dubay"}, "Asia/Dubai"),
        ({"tz": "Dubai"}, "Asia/Dubai"),
        ({"tz": None}, "no time zone"),
        ({"calendar": "Asia/Dubai"}, "Calendar"),
    ],
)
def test_wrong_arguments_name_what_is_right(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        volume(rows(), **arguments)


def test_a_group_may_not_take_a_name_of_the_answer() -> None:
    with pytest.raises(InputError, match="Rename"):
        delivery(rows().with_columns(pending=1), by="pending")


def test_a_frame_that_is_not_d22s_says_what_is_missing() -> None:
    with pytest.raises(InputError, match="created_at, updated_at missing"):
        volume(pl.DataFrame({"type": ["OUTBOUND"]}))
    with pytest.raises(InputError, match="platform, delivery_status"):
        delivery(rows().select("type", "operation", "created_at", "updated_at"))
    with pytest.raises(InputError, match="created_at is String"):
        volume(rows().cast({"created_at": pl.String}))
    with pytest.raises(InputError, match="type is Int64"):
        volume(rows().with_columns(type=pl.lit(1, pl.Int64)))
    for frame in ([1, 2], None, {"type": 1}, "rows.parquet"):
        with pytest.raises(InputError, match="no frame of rows"):
            volume(frame)


@pytest.mark.parametrize("zone", [*ZONES, "America/Santiago", "Asia/Gaza", "Pacific/Apia", "Pacific/Chatham"])
def test_every_local_day_begins_with_a_cell(zone: str) -> None:
    days = pl.date_range(date(1996, 1, 1), date(2050, 1, 1), "1d", eager=True)
    begins = first_instant(days, zone).dt.timestamp("us")
    cells = Clock.of("day", zone).cells
    cut = pl.DataFrame(
        [((begins + phase) % cells["step"] == 0).alias(str(phase)) for phase in cells["phases"]]
    )
    assert cut.select(pl.any_horizontal(pl.all())).to_series().all()
    assert len(cells["phases"]) <= 4


@pytest.mark.parametrize(
    "zone",
    [
        *ZONES,
        "America/St_Johns",  # moved its clocks a minute past midnight
        "Asia/Kolkata",
        "Asia/Pyongyang",
        "Asia/Tehran",
        "Pacific/Chatham",  # moves them within its hour
    ],
)
def test_every_local_hour_begins_with_a_cell_and_few_others_do(zone: str) -> None:
    clock = Clock.of("hour", zone)
    ends = pl.Series([datetime(1975, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)])
    begins = clock.spans(ends.cast(pl.Datetime("us", "UTC")), fill=True)["period_start"].dt.timestamp("us")
    step, phases = clock.cells["step"], clock.cells["phases"]
    assert step == timedelta(hours=1) // timedelta(microseconds=1)
    cut = begins.to_frame().select(pl.any_horizontal((pl.first() + phase) % step == 0 for phase in phases))
    assert cut.to_series().all()
    assert len(phases) <= 2


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Chatham"])
def test_hours_off_the_whole_hour_are_sums_of_their_quarters(zone: str) -> None:
    frame = around_clock_changes()
    quarters = delivery(frame, by="platform", every="15min", tz=zone).sort("period_start")
    hours = delivery(frame, by="platform", every="hour", tz=zone).sort("period_start")
    sums = quarters.select("period_start", "platform", "attempted", "attempt_unmapped").join_asof(
        hours.select("period_start").unique().sort("period_start").with_columns(hour="period_start"),
        on="period_start",
    )
    expected = sums.group_by(period_start="hour", platform="platform").agg(
        pl.col("attempted", "attempt_unmapped").sum()
    )
    assert_frame_equal(hours.select(expected.columns), expected, check_row_order=False)


def test_a_stray_timestamp_is_refused_with_its_years_and_answered_without_filling() -> None:
    stray = datetime(1970, 1, 1, tzinfo=UTC)
    frame = rows(
        platform=["EMAIL", "SMS", "PUSH"], created_at=[stray, *[datetime(2026, 5, 1, tzinfo=UTC)] * 2]
    )
    with pytest.raises(InputError, match="1970"):
        volume(frame, by="platform", every="15min")
    assert volume(frame, by="platform", every="15min", fill=False)["rows"].to_list() == [1, 1, 1]
    ancient = rows(created_at=[datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 30, tzinfo=UTC)])
    assert volume(ancient, fill=False, tz="America/New_York")["rows"].sum() == 2
    assert volume(ancient, every="month")["rows"].sum() == 2
    with pytest.raises(InputError, match="9998"):
        heatmap(ancient)


@pytest.mark.parametrize("placeholder", [datetime.min, datetime.max])
@pytest.mark.parametrize("column", ["created_at", "updated_at"])
def test_placeholders_for_a_time_are_shown_by_the_profile_and_refused_elsewhere(
    column: str, placeholder: datetime
) -> None:
    frame = generate(300, 1)
    frame = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 7).then(pl.lit(placeholder, frame.schema[column])).otherwise(column)
        .alias(column)
    )  # fmt: skip
    found = profile(frame).filter(topic="time", column=column)["at"].dt.replace_time_zone(None)
    assert placeholder in found.to_list()
    asked: list[Callable[[], Any]] = [
        lambda: volume(frame, tz="America/New_York"),
        lambda: delivery(frame, tz="Asia/Dubai"),
        lambda: compare(frame, metric="volume", tz="Asia/Dubai"),
    ]
    for ask in asked:
        if (column, placeholder) == ("updated_at", datetime.min):
            ask()  # it is not the newest
            continue
        with pytest.raises(InputError, match=f"{column} holds times beyond"):
            ask()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Calendar(zone="Nowhere"), "no time zone"),
        (lambda: Calendar(week_start=0), "weekday"),
        (lambda: Calendar(weekend=(6, 8)), "weekday"),
        (lambda: Calendar(special={"x": (date(2026, 2, 1), date(2026, 1, 1))}), "before it begins"),
        (lambda: HoursRule.us_regulation_f(zone="Nowhere"), "no time zone"),
        (
            lambda: HoursRule(name="x", zone="UTC", hours={9: (time(8), time(9))}, source="", as_of=date.min),
            "weekday",
        ),
        (
            lambda: HoursRule(name="x", zone="UTC", hours={1: (time(9), time(9))}, source="", as_of=date.min),
            "before",
        ),
        (
            lambda: HoursRule(
                name="x", zone="UTC", hours={1: (time(8, 7), time(9))}, source="", as_of=date.min
            ),
            "quarter",
        ),
        (lambda: contact_hours(rows(), None), "no default rule"),  # type: ignore[arg-type]
        (lambda: share(rows(), by=()), "needs by"),
        (lambda: worklist(rows(), permanence="firm"), "hard, soft, block"),
        (lambda: Clock.of("day", "localtime"), "no time zone|no place"),
    ],
)
def test_wrong_objects_are_refused(make: Callable[[], Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        make()
