"""Anomalies on planted incidents, on quiet lenders, and on series whose truth is known."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from d22kit.errors import InputError
from d22kit.questions.anomalies import anomalies
from d22kit.questions.calendar import Calendar
from d22kit.simulator.lender import INCIDENTS, generate
from d22kit.simulator.scenario import HOLIDAYS

START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
METRICS = (
    "volume",
    "bounce_rate",
    "hard_bounce_rate",
    "failure_rate",
    "delivery_rate",
    "inbound_per_100_delivered",
)
UAE = Calendar.uae(holidays=HOLIDAYS)
SPAMHAUS = "550 5.7.1 Service unavailable, client host blocked using Spamhaus"


def repeated(frame: pl.DataFrame) -> pl.DataFrame:
    """Each row as often as its `rows` says."""
    return frame.select(pl.exclude("rows").repeat_by("rows").explode())


def days(*counts: int) -> pl.DataFrame:
    """Rows of as many days as there are counts, known a week after the last."""
    times = [START + timedelta(days=day, hours=9) for day in range(len(counts))]
    later = pl.lit(START + timedelta(days=len(counts) + 7))
    return (
        repeated(pl.DataFrame({"created_at": times, "rows": counts}))
        .filter(pl.col("created_at").is_not_null())
        .with_columns(updated_at=later)
    )


def sends(
    counts: list[tuple[int, int, int]],
    known: timedelta = timedelta(days=7),
    text: str = "550 5.1.1 user unknown",
) -> pl.DataFrame:
    """E-mails of days of (delivered, bounced, still queued), known so long after the last day's end."""
    words = ("DELIVERED", "BOUNCED", "QUEUED")
    each = [
        (START + timedelta(days=day, hours=9), word, rows)
        for day, row in enumerate(counts)
        for word, rows in zip(words, row, strict=True)
        if rows
    ]
    frame = repeated(pl.DataFrame(each, schema=["created_at", "delivery_status", "rows"], orient="row"))
    bounced = pl.col("delivery_status") == "BOUNCED"
    return frame.with_columns(
        platform=pl.lit("EMAIL"),
        type=pl.lit("OUTBOUND"),
        operation=pl.lit("SEND"),
        delivery_code=pl.when(bounced).then(pl.lit("550")),
        delivery_error_detail=pl.when(bounced).then(pl.lit(text)),
        updated_at=pl.lit(START + timedelta(days=len(counts)) + known),
    )


def alarms(answer: Any) -> pl.DataFrame:
    return answer.filter(pl.col("text").is_not_null())


def noisy(seed: int, rows: int = 100, weeks: int = 12) -> list[int]:
    rng = random.Random(seed)
    rhythm = (1.0, 1.1, 1.0, 1.0, 0.8, 0.3, 0.2)
    return [round(rng.gauss(rows * share, (rows * share) ** 0.5)) for _ in range(weeks) for share in rhythm]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_planted_incident_is_found(seed: int) -> None:
    lender = generate(100_000, seed)
    for incident in INCIDENTS:
        found = alarms(anomalies(lender, metric=incident.metric, by="platform", calendar=UAE))
        at = found.filter(
            pl.col("platform").cast(pl.String) == incident.platform,
            pl.col("period_start").dt.convert_time_zone("UTC") < incident.end,
            pl.col("period_end").dt.convert_time_zone("UTC") > incident.start,
        )
        assert at.height >= (4 if incident.name == "blocklisting" else 1), incident.name


@pytest.mark.parametrize(("seed", "by"), [(11, "platform"), (12, "platform"), (13, ("platform", "purpose"))])
def test_quiet_lenders_raise_at_most_one_alarm_in_400_group_days(seed: int, by: Any) -> None:
    lender = generate(100_000, seed, incidents=False)
    judged = false = 0
    for metric in METRICS:
        answer = anomalies(lender, metric=metric, by=by, calendar=UAE)
        judged += answer["usual_hi"].count()
        false += alarms(answer).height
        if metric == "volume":
            assert alarms(answer).height <= answer["usual_hi"].count() / 400
    assert judged > 5_000
    assert false <= judged / 400


def test_the_sentence_names_group_value_day_band_rows_and_cause() -> None:
    rng = random.Random(5)
    counts = [(980 + rng.randint(-9, 9), 20 + rng.randint(-4, 4), 0) for _ in range(56)]
    quiet = sends(counts)
    blocked = sends([(0, 0, 0)] * 56 + [(900, 200, 0)], text=SPAMHAUS)
    found = alarms(anomalies(pl.concat([quiet, blocked]), metric="bounce_rate", by="platform"))
    assert found["text"][0].startswith("EMAIL bounce rate 18.2% on 2 March, usually ")
    assert found["text"][0].endswith("bounces more than usual, mostly sender_blocked")
    years = pl.concat([sends(counts * 7), sends([(0, 0, 0)] * 392 + [(900, 200, 0)], text=SPAMHAUS)])
    dated = alarms(anomalies(years, metric="bounce_rate", by="platform"))
    assert dated["text"][0].startswith("EMAIL bounce rate 18.2% on 1 February 2027, usually ")
    assert found["excess_rows"][0] == pytest.approx(178, abs=3)
    assert found["effect"][0] == pytest.approx(found["value"][0] - found["expected"][0])


def test_a_rate_needs_a_point_and_twenty_rows() -> None:
    base = [(9_800, 200, 0)] * 42
    assert alarms(anomalies(sends([*base, (9_720, 280, 0)]), metric="bounce_rate")).is_empty()
    few = [(98, 2, 0)] * 42
    assert alarms(anomalies(sends([*few, (83, 17, 0)]), metric="bounce_rate")).is_empty()
    assert alarms(anomalies(sends([*few, (70, 30, 0)]), metric="bounce_rate")).height == 1


def test_rows_of_a_week_add_up() -> None:
    few = [(98, 2, 0)] * 42
    found = alarms(anomalies(sends([*few, *[(86, 14, 0)] * 4]), metric="bounce_rate"))
    assert found["period_start"].dt.day().to_list() == [17, 18, 19]


@pytest.mark.parametrize("length", [3, 7, 14, 21])
def test_a_long_incident_does_not_swallow_itself(length: int) -> None:
    counts = noisy(3, weeks=20)
    first = 12 * 7
    for day in range(first, first + length):
        counts[day] *= 4
    found = alarms(anomalies(days(*counts), metric="volume"))
    held = set((found["period_start"].dt.date() - START.date()).dt.total_days().to_list())
    weekdays = {day for day in range(first, first + length) if day % 7 < 5}
    assert weekdays <= held
    assert not {day for day in held if day < first or day >= first + length}


def test_a_new_level_becomes_the_usual_one() -> None:
    counts = [*noisy(4, weeks=12), *noisy(5, rows=220, weeks=16)]
    found = alarms(anomalies(days(*counts), metric="volume"))
    at = (found["period_start"].dt.date() - START.date()).dt.total_days()
    assert at.min() == 12 * 7
    assert at.max() < (12 + 6) * 7


def test_growth_is_no_anomaly() -> None:
    rng = random.Random(6)
    counts = [round(rng.gauss(mean := 200 * 1.012**day, mean**0.5)) for day in range(150)]
    assert alarms(anomalies(days(*counts), metric="volume")).is_empty()


def test_the_turn_of_the_month_is_learnt() -> None:
    rng = random.Random(7)
    counts = []
    for day in range(400):
        today = START.date() + timedelta(days=day)
        turn = today.day == 1 or (today + timedelta(days=2)).day <= 2
        counts.append(round(rng.gauss(mean := 2000 * (1.5 if turn else 1), 1.5 * mean**0.5)))
    assert alarms(anomalies(days(*counts), metric="volume")).is_empty()
    quiet_end = (date(2026, 12, 31) - START.date()).days
    counts[quiet_end] = 1900
    assert alarms(anomalies(days(*counts), metric="volume"))["period_start"].dt.date().to_list() == [
        date(2026, 12, 31)
    ]


def test_a_holiday_is_tagged_in_place_of_an_alarm_and_enters_no_baseline() -> None:
    counts = noisy(8, weeks=12)
    for week in range(8, 12):
        counts[week * 7] = 5  # Mondays closed
    closed = {(START + timedelta(weeks=week)).date(): "Rest Day" for week in range(8, 11)}
    assert alarms(anomalies(days(*counts), metric="volume")).height == 4
    answer = anomalies(days(*counts), metric="volume", calendar=Calendar(holidays=closed))
    found = alarms(answer)
    assert found["period_start"].dt.date().to_list() == [(START + timedelta(weeks=11)).date()]
    assert set(answer["calendar_tag"].drop_nulls()) == {"Rest Day", "weekend"}
    assert "usually" in found["text"][0]


def test_a_season_widens_the_band_and_is_named() -> None:
    counts = noisy(9, weeks=12)
    ramadan = {"Ramadan": ((START + timedelta(weeks=10)).date(), (START + timedelta(weeks=11)).date())}
    counts[71] = 190
    counts[72] = 400
    plain = alarms(anomalies(days(*counts), metric="volume"))
    tagged = alarms(anomalies(days(*counts), metric="volume", calendar=Calendar(special=ramadan)))
    assert plain.height == 2
    assert tagged["text"].to_list()[0].startswith("volume 400 on 18 March (Ramadan), usually ")
    assert tagged.height == 1


def test_an_unfinished_day_is_not_alarmed() -> None:
    counts = [1000] * 60 + [30]
    running = days(*counts).with_columns(updated_at=pl.lit(START + timedelta(days=60, hours=10)))
    answer = anomalies(running, metric="volume")
    assert answer["period_state"][-1] == "partial"
    assert answer["usual_lo"][-1] > 30
    assert alarms(answer).is_empty()


def test_an_immature_day_is_alarmed_only_where_its_open_rows_cannot_change_that() -> None:
    base = [(980, 20, 0)] * 49
    soon = timedelta(hours=5)
    bad = anomalies(sends([*base, (500, 200, 300)], soon), metric="bounce_rate")
    assert bad["period_state"][-1] == "immature"
    assert alarms(bad)["text"][0].startswith("bounce rate at least 20.0% on 23 February")
    slow = sends([*base, (500, 20, 480)], soon)
    assert alarms(anomalies(slow, metric="delivery_rate")).is_empty()
    lost = sends([*base, (500, 400, 100)], soon)
    assert alarms(anomalies(lost, metric="delivery_rate")).height == 1


def test_without_a_baseline_there_are_no_limits_and_no_alarm() -> None:
    answer = anomalies(days(*[100] * 20, 5000), metric="volume")
    assert answer["usual_lo"].null_count() == answer.height
    assert answer["value"].to_list() == [100.0] * 20 + [5000.0]
    assert alarms(answer).is_empty()


def test_what_comes_later_does_not_change_what_was_said() -> None:
    counts = noisy(10, weeks=20)
    counts[90:97] = [rows * 3 for rows in counts[90:97]]
    whole = anomalies(days(*counts), metric="volume")
    for end in (85, 93, 110):
        part = anomalies(days(*counts[:end]), metric="volume")
        assert_frame_equal(part, whole.head(end))


def test_groups_do_not_sway_each_other_nor_does_the_order_of_rows() -> None:
    one = days(*noisy(11)).with_columns(team=pl.lit("a"))
    two = days(*noisy(12, rows=900)).with_columns(team=pl.lit(None, pl.String))
    both = anomalies(
        pl.concat([two, one]).sample(fraction=1, shuffle=True, seed=0), metric="volume", by="team"
    )
    alone = anomalies(one, metric="volume", by="team")
    assert_frame_equal(both.filter(pl.col("team") == "a"), alone)


@pytest.mark.parametrize("every", ["15min", "hour", "day", "week", "month", "quarter"])
@pytest.mark.parametrize("metric", METRICS)
def test_an_empty_frame_gives_an_empty_answer_of_the_same_shape(metric: str, every: str) -> None:
    full = generate(300, 1).head(12)
    answer = anomalies(full.clear(), metric=metric, by="platform", every=every, tz="Asia/Dubai")
    assert answer.is_empty()
    assert answer.schema == anomalies(full, metric=metric, by="platform", every=every, tz="Asia/Dubai").schema


def test_odd_frames_give_numbers_or_nulls() -> None:
    rows = generate(2000, 2)
    nothing = rows.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in rows.schema.items() if not name.endswith("_at")
    )
    odd: dict[str, Callable[[], pl.DataFrame]] = {
        "one row": lambda: rows.head(1),
        "all null": lambda: nothing,
        "no creation": lambda: rows.with_columns(created_at=pl.lit(None, rows.schema["created_at"])),
        "no change": lambda: rows.with_columns(updated_at=pl.lit(None, rows.schema["updated_at"])),
    }
    for name, make in odd.items():
        for metric in METRICS:
            answer = anomalies(make(), metric=metric, by=("platform", "purpose"))
            numbers = answer.select(pl.col(pl.Float64))
            assert not any(
                numbers[c].is_nan().any() or numbers[c].is_infinite().any() for c in numbers.columns
            ), name
            assert alarms(answer).is_empty()


def test_a_thousand_groups() -> None:
    rows = generate(60_000, 3, incidents=False).with_columns(team=pl.int_range(pl.len()) % 1000)
    answer = anomalies(rows, metric="volume", by="team", every="week", calendar=UAE)
    assert answer["team"].n_unique() == 1000
    assert alarms(answer).height <= answer["usual_hi"].count() / 400


def test_pandas_comes_back_as_pandas() -> None:
    import pandas as pd

    answer = anomalies(days(*[100] * 50, 300, 100).to_pandas(), metric="volume")
    assert isinstance(answer, pd.DataFrame)
    assert answer["text"].notna().sum() == 1


def test_bad_input_is_told_what_is_known() -> None:
    rows = generate(10, 1)
    with pytest.raises(InputError, match=r"metric='bounces' is not known. Known: volume, bounce_rate"):
        anomalies(rows, metric="bounces")
    with pytest.raises(InputError, match="is no column"):
        anomalies(rows, metric="volume", by="plattform")
    with pytest.raises(InputError, match="by='score' is"):
        anomalies(rows.with_columns(score=1), metric="volume", by="score")
    with pytest.raises(InputError, match="is no period"):
        anomalies(rows, metric="volume", every="fortnight")
