"""Charts say what is true: axes, points, shades and words."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import polars as pl
import pytest
from drawn import data, layers, spec, texts
from gallery import RULE, ZONE, _rows, lenders

import d22kit
from d22kit import charts
from d22kit.errors import InputError
from d22kit.schema import FRAME


@pytest.mark.parametrize("name", ["delivery", "engagement", "anomalies"])
def test_where_a_number_may_be_missing_tooltips_are_ready_made(name: str) -> None:
    strips = [view for view in layers(spec("simulator", name)) if view["mark"].get("opacity") == 0]
    assert strips
    assert all(line["type"] == "nominal" for view in strips for line in view["encoding"]["tooltip"])


def test_a_missing_rate_is_told_as_a_dash() -> None:
    said = {
        step["as"]: step["calculate"]
        for view in layers(spec("tiny", "delivery"))
        for step in view.get("transform", ())
        if step.get("as", "").endswith("_said")
    }
    assert said["v_said"] == "isValid(datum.v) ? format(datum.v, '.1%') : '–'"
    assert set(said) == {f"{name}_said" for name in ("n", "v", "lo", "hi", "b", "f")}


def test_only_what_still_moves_has_a_hollow_dot() -> None:
    rings = [
        view
        for view in layers(spec("simulator", "delivery_week"))
        if view["mark"].get("shape") == "circle" and view["mark"]["fill"] == charts.theme.PAPER
    ]
    assert [[step["filter"] for step in view["transform"] if "filter" in step] for view in rings] == [
        ["datum.s > 1 && datum.v >= 0.7"]
    ]


def test_a_long_daily_line_stands_behind_the_share_of_its_week() -> None:
    answer = d22kit.delivery(lenders()["simulator"], by="platform", tz=ZONE)
    sms = answer.filter(pl.col("platform") == "SMS")
    drawn = data(charts.delivery(sms)).filter(pl.col("n").is_not_null())
    week = sms.head(21).tail(7)
    share = week["delivered"].sum() / week["attempted"].sum()
    assert drawn.row(20, named=True)["r"] == pytest.approx(share, rel=1e-3)
    assert drawn.filter(pl.col("s") > 1)["r"].is_null().all()


def test_a_pooled_rest_that_would_flatten_the_groups_has_its_own_plot() -> None:
    huge, simulated = spec("huge", "volume"), spec("simulator", "volume")
    assert len(huge["vconcat"]) == 2
    assert "vconcat" not in simulated


def test_an_unfinished_period_does_not_look_like_a_fall() -> None:
    for who, name in (("huge", "volume"), ("simulator", "volume")):
        lines = [view for view in layers(spec(who, name)) if view["mark"]["type"] == "line"]
        solid = [
            view
            for view in lines
            if "strokeDash" not in view["mark"] and view["encoding"]["y"]["field"] == "v"
        ]
        for view in solid:
            assert {"filter": "datum.s < 2"} in view["transform"]


def test_a_week_of_hours_has_no_weekly_mean_to_speak_of() -> None:
    week = lenders()["simulator"].filter(pl.col("created_at") >= datetime(2026, 6, 4, tzinfo=UTC))
    for answer, draw in (
        (d22kit.volume(week, every="hour"), charts.volume),
        (d22kit.delivery(week, every="hour"), charts.delivery),
    ):
        assert not any("Thick lines" in text for text in texts(draw(answer).to_dict()))


def test_quarters_are_called_quarters() -> None:
    answer = d22kit.volume(lenders()["huge"], every="quarter", tz=ZONE)
    assert any("'Q%q'" in text for text in texts(charts.volume(answer).to_dict()))


def test_weeks_are_labelled_where_they_begin() -> None:
    start = datetime(2026, 3, 2, tzinfo=UTC)
    rows = _rows(900, ("EMAIL",), start, timedelta(hours=2))
    drawn = charts.delivery(d22kit.delivery(rows, every="week")).to_dict()
    axes = [view["encoding"]["x"]["axis"] for view in layers(drawn) if "axis" in view["encoding"]["x"]]
    for axis in axes:
        days = {datetime.fromtimestamp(value / 1000, UTC).weekday() for value in axis["values"]}
        assert days == {0}, "weeks begin on Monday"


def test_an_axis_of_shares_begins_where_it_is_labelled() -> None:
    rows = _rows(4_000, ("EMAIL",), datetime(2026, 3, 1, tzinfo=UTC), timedelta(minutes=20))
    bad = (pl.col("created_at").dt.day() == 9) & (pl.int_range(pl.len()) % 5 > 0)
    worse = rows.with_columns(
        delivery_status=pl.when(bad).then(pl.lit("FAILED")).otherwise(pl.lit("DELIVERED"))
    )
    drawn = charts.delivery(d22kit.delivery(worse.cast(FRAME))).to_dict()  # type: ignore[arg-type]
    domains = [
        view["encoding"]["y"]["scale"]["domain"]
        for view in layers(drawn)
        if "domain" in view["encoding"].get("y", {}).get("scale", {})
    ]
    assert domains
    assert all(low == 0 or low > 0.1 for low, _ in domains)


def test_the_overview_reads_all_of_its_clocks_in_one_zone() -> None:
    rows = lenders()["simulator"]
    zoned = charts.overview(rows, calendar=d22kit.Calendar.uae()).to_dict()
    plain = charts.overview(rows, tz=ZONE).to_dict()
    busiest = [text for text in texts(plain) if text.startswith("busiest: ")]
    assert busiest
    assert busiest == [text for text in texts(zoned) if text.startswith("busiest: ")]
    assert f"hour, {ZONE}" in texts(zoned)


def test_an_overview_of_a_day_shows_points_and_claims_nothing_about_the_usual() -> None:
    day = lenders()["tiny"].head(3)
    drawn = charts.overview(day).to_dict()
    assert "There are too few earlier days to say what is usual." in texts(drawn)
    points = [view for view in layers(drawn) if view["mark"]["type"] == "point"]
    assert points
    assert all(view["mark"]["opacity"] == 1 for view in points)


def test_lines_stand_in_the_middle_of_their_periods() -> None:
    drawn = charts.overview(lenders()["tiny"]).to_dict()
    line = next(view for view in layers(drawn) if view["mark"]["type"] == "line")
    name = line["data"]["name"] if "data" in line else drawn["vconcat"][2]["hconcat"][0]["data"]["name"]
    first = min(row["t"] for row in drawn["datasets"][name])
    assert datetime.fromtimestamp(first / 1000, UTC).hour == 12


def test_the_hours_of_a_rule_are_shaded_and_not_only_those_of_the_rows() -> None:
    rows = lenders()["tiny"]
    by_hour = charts.contact_hours(d22kit.contact_hours(rows, RULE, every="hour"), rule=RULE)
    ground = data(by_hour).filter(pl.col("o").is_not_null()).select("h", "e", "o").rows()
    assert ground == [(0.0, 8.0, 0.18), (21.0, 24.0, 0.18)]
    assert "Grey: outside the rule's hours, 08:00–21:00." in texts(by_hour.to_dict())
    monthly = charts.contact_hours(d22kit.contact_hours(rows, RULE), rule=RULE)
    assert {8.0, 21.0} <= set(data(monthly)["a"].drop_nulls())
    assert "Dashed: the rule's hours, 08:00–21:00." in texts(monthly.to_dict())


def test_hours_of_some_days_only_are_paler() -> None:
    week = dict.fromkeys(range(1, 6), (time(9), time(18))) | {6: (time(9), time(13, 30))}
    house = d22kit.HoursRule(
        name="House rule", zone=ZONE, hours=week, source="a handbook", as_of=date(2026, 1, 1)
    )
    drawn = charts.contact_hours(
        d22kit.contact_hours(lenders()["simulator"], house, every="hour"), rule=house
    )
    ground = data(drawn).filter(pl.col("o").is_not_null()).select("h", "e", "o").rows()
    assert ground == [(0.0, 9.0, 0.18), (13.5, 18.0, 0.09), (18.0, 24.0, 0.18)]
    said = "Grey: outside the rule's hours, Mon–Fri 09:00–18:00, Sat 09:00–13:30, Sun none."
    assert said in texts(drawn.to_dict())


def test_a_rule_that_was_not_asked_for_is_refused() -> None:
    other = d22kit.HoursRule(name="Other", zone=ZONE, hours={}, source="none", as_of=date(2026, 1, 1))
    answer = d22kit.contact_hours(lenders()["tiny"], RULE, every="hour")
    with pytest.raises(InputError, match="of the rule 'US Regulation F', not of 'Other'"):
        charts.contact_hours(answer, rule=other)
    shut = charts.contact_hours(d22kit.contact_hours(lenders()["tiny"], other, every="hour"), rule=other)
    assert data(shut).filter(pl.col("o").is_not_null()).select("h", "e").rows() == [(0.0, 24.0)]


def test_the_histogram_of_hours_says_what_it_leaves_out() -> None:
    said = texts(spec("weird", "contact_hours_day"))
    assert "The 7 smallest groups are pooled as other." in said
    assert "115 rows without a time are not drawn." in said


def test_a_period_between_two_without_a_value_is_a_point() -> None:
    settled = [
        view
        for view in layers(spec("huge", "delivery_week"))
        if view["mark"]["type"] == "line" and "strokeDash" not in view["mark"]
    ]
    assert any(view["mark"].get("strokeCap") == "round" for view in settled)


def test_counts_are_whole_and_called_by_their_name() -> None:
    tiny = spec("tiny", "compare_volume")
    steps = [
        view["encoding"]["x"]["axis"] for view in layers(tiny) if "axis" in view["encoding"].get("x", {})
    ]
    assert steps
    assert all(axis["labelExpr"].startswith("datum.value % 1 ?") for axis in steps)
    assert any(text.startswith("+1 row (") for text in texts(tiny))
    assert "1 row now" in " ".join(tiny["title"]["subtitle"])
    assert "11 attempts" in " ".join(spec("tiny", "anomalies_rate")["title"]["subtitle"])


def test_a_difference_is_that_of_the_values_as_they_are_told() -> None:
    answer = d22kit.compare(lenders()["simulator"], metric="delivery_rate", by="platform", tz=ZONE)
    told = set(data(charts.compare(answer))["said"].drop_nulls())
    for row in answer.drop_nulls("difference").iter_rows(named=True):
        points = f"{100 * row['value']:.1f}", f"{100 * row['base_value']:.1f}"
        apart = f"{float(points[0]) - float(points[1]):+.1f} points".replace("-", "−")
        assert any(text.startswith(apart) for text in told)
        assert apart.lstrip("+−") in row["verdict"]
