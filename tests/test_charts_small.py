"""Charts stay small: whatever they are given, and by saying what they leave out."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import altair as alt
import polars as pl
import pytest
from drawn import data, texts
from gallery import RULE, ZONE, _rows, lenders

import d22kit
from d22kit import charts
from d22kit.charts import _marks
from d22kit.errors import InputError


@pytest.fixture(autouse=True)
def _altair_as_it_was() -> Any:
    theme, renderer = alt.theme.active, alt.renderers.active
    yield
    alt.theme.enable(theme)
    alt.renderers.enable(renderer)


def test_of_too_many_periods_the_newest_are_watched() -> None:
    rows = lenders()["huge"].filter(pl.col("created_at") < datetime(2023, 12, 1, tzinfo=UTC))
    answer = d22kit.anomalies(rows, metric="volume", every="hour")
    drawn = charts.anomalies(answer).to_dict()
    said = f"The newest 1,900 of {answer.height:,} periods; 0 alarms came before these."
    assert said in texts(drawn)
    times = data(drawn)["t"].drop_nulls()
    last = answer["period_start"].max()
    assert isinstance(last, datetime)
    assert times.max() == last.timestamp() * 1000


def test_what_no_one_can_read_is_refused_with_the_way_out() -> None:
    weeks = d22kit.volume(lenders()["tiny"], every="week")
    long = pl.concat(
        weeks.with_columns(pl.col("period_start", "period_end") + pl.duration(weeks=5 * i))
        for i in range(3000)
    )
    with pytest.raises(InputError, match=r"more than .*every='month'.*filter"):
        charts.volume(long)


def test_too_many_periods_are_drawn_wider_and_the_chart_says_so() -> None:
    rows = lenders()["huge"].filter(pl.col("platform").cast(pl.String) == "PLATFORM_00")
    answer = d22kit.volume(rows, every="15min")
    drawn = charts.volume(answer)
    assert "Drawn per day: a point for each 15min would not fit." in texts(drawn.to_dict())
    assert data(drawn).filter(pl.col("g") == "outbound")["v"].sum() == answer["outbound"].sum()


def test_weeks_are_not_put_together_into_months() -> None:
    answer = d22kit.delivery(lenders()["huge"], by="platform", every="week")
    said = texts(charts.delivery(answer).to_dict())
    assert not any(text.startswith("Drawn per") for text in said)
    assert any(text.startswith("other (") for text in said)


def test_limits_count_what_is_drawn() -> None:
    values = [{"x": i} for i in range(2_000)]
    points = alt.Chart(alt.InlineData(values=values)).mark_point().encode(x="x:Q")
    _marks.finish(alt.layer(points, points.mark_line(), points.mark_rule()), _marks.heading("?"), "volume")
    with pytest.raises(InputError, match="6,000 marks"):
        _marks.finish(
            alt.layer(points, points.mark_text(), points.mark_rule()), _marks.heading("?"), "volume"
        )


@pytest.mark.parametrize("groups", [1, 4, 8, 40])
def test_an_overview_of_three_years_fits_however_many_groups(groups: int) -> None:
    rows = lenders()["huge"].filter(pl.col("platform").cast(pl.String).str.slice(-2).cast(pl.Int64) < groups)
    found = charts.overview(rows, tz=ZONE).to_dict()
    assert len(json.dumps(found).encode()) <= 300_000


NAMED = {
    "long": tuple(f"{i:02}_" + "W" * 197 for i in range(40)),
    "alike": tuple("W" * 197 + f"_{i:02}" for i in range(40)),
    "arabic": tuple("قناة الرسائل القصيرة " * 9 + f"{i:02}" for i in range(40)),
    "emoji": tuple("📱" * 190 + f"{i:02}" for i in range(40)),
}
ASKED: dict[str, Any] = {
    "volume": lambda f: d22kit.volume(f, by="platform"),
    "share": lambda f: d22kit.share(f, by="platform", every="day"),
    "delivery": lambda f: d22kit.delivery(f, by="platform"),
    "engagement": lambda f: d22kit.engagement(f, by="platform", every="week"),
    "contact_hours": lambda f: d22kit.contact_hours(f, RULE, by="platform", every="day"),
    "heatmap": lambda f: d22kit.heatmap(f, by="platform"),
    "bounces": lambda f: d22kit.bounces(f, by="platform", level="template", k=1),
    "time_to_last_update": lambda f: d22kit.time_to_last_update(f, by="platform"),
    "compare": lambda f: d22kit.compare(f, by="platform", metric="volume"),
    "anomalies": lambda f: d22kit.anomalies(f, by="platform", metric="volume", every="week"),
}


@cache
def stretched(kind: str, years: int) -> pl.DataFrame:
    """Many platforms with long names over many years, where each refusal has words of its own."""
    step = timedelta(days=365 * years) / 20_000
    rows = _rows(20_000, NAMED[kind], datetime(2016, 1, 1, tzinfo=UTC), step)
    number = (pl.int_range(pl.len()) % 12).cast(pl.String)
    told = pl.concat_str(pl.lit(NAMED[kind][0][:150]), pl.lit(" "), number.replace("1", "one"))
    return rows.with_columns(delivery_error_detail=told)


def small(drawn: Any) -> bool:
    found = drawn.to_dict()
    sizes = {name: len(rows) for name, rows in found["datasets"].items()}
    assert len(json.dumps(found).encode()) <= 300_000
    assert max(sum(sizes.values()), _marks._marks(found, sizes)) <= 5_000
    return True


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "emoji") for name in ASKED), ("volume", "long"), ("bounces", "arabic")]
)
def test_a_chart_is_small_whatever_it_is_given(name: str, kind: str) -> None:
    assert small(getattr(charts, name)(ASKED[name](stretched(kind, 3))))


@pytest.mark.parametrize("name", ["volume", "share", "delivery", "engagement", "contact_hours", "anomalies"])
@pytest.mark.parametrize("every", ["15min", "day"])
def test_a_chart_is_small_however_short_the_periods_of_many_years(name: str, every: str) -> None:
    rows = stretched("long", 10).filter(pl.col("platform").cast(pl.String).str.starts_with("0"))
    if every == "15min":
        rows = rows.filter(pl.col("created_at") < datetime(2017, 1, 1, tzinfo=UTC))
    options: dict[str, Any] = {"by": "type" if name != "contact_hours" else "by", "every": every}
    if name == "contact_hours":
        answer = d22kit.contact_hours(rows, RULE, **options)
    else:
        answer = getattr(d22kit, name)(
            rows, **options, **({"metric": "volume"} if name == "anomalies" else {})
        )
    assert small(getattr(charts, name)(answer))


@pytest.mark.parametrize("kind", ["long", "emoji"])
def test_an_overview_is_small_whatever_it_is_given(kind: str) -> None:
    assert small(charts.overview(stretched(kind, 3), tz=ZONE))


def test_names_that_differ_at_their_end_stay_apart() -> None:
    shown = set(data(charts.share(d22kit.share(stretched("alike", 3), by="platform")))["g"].drop_nulls())
    assert len([name for name in shown if re.fullmatch(r"W+…W+_\d\d", name)]) == 5
