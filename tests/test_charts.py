"""Charts: every one on every lender, valid, composable; nothing missing in silence."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
import pytest
from drawn import WHO, chart, data, spec, texts
from gallery import DRAWN, RULE, WEIRD, ZONE, lenders

import d22kit
from d22kit import charts
from d22kit.charts import _answers, offline
from d22kit.errors import InputError


@pytest.fixture(autouse=True)
def _altair_as_it_was() -> Any:
    theme, renderer = alt.theme.active, alt.renderers.active
    yield
    alt.theme.enable(theme)
    alt.renderers.enable(renderer)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("name", DRAWN)
def test_every_chart_of_every_lender_is_valid_and_small(who: str, name: str) -> None:
    found = spec(who, name)
    assert len(json.dumps(found).encode()) <= 300_000
    assert sum(map(len, found["datasets"].values())) <= 5_000
    assert found["title"]["text"].endswith("?")
    assert found["description"].startswith(found["title"]["text"])


@pytest.mark.parametrize("name", [name for name in DRAWN if name not in ("overview", "volume")])
def test_charts_compose_and_carry_no_configuration(name: str) -> None:
    one, other = chart("tiny", name), chart("tiny", "volume")
    (one | other).to_dict()
    (one & other).to_dict()
    assert one.config is alt.Undefined
    if isinstance(one, alt.LayerChart):
        rule = alt.Chart(alt.InlineData(values=[{"y": 1}])).mark_rule().encode(y="y:Q")
        (one + rule).to_dict()


def test_times_are_the_local_wall_clock_and_told_in_words() -> None:
    start = datetime(2026, 5, 1, 20, 30, tzinfo=UTC)  # 2 May, 00:30 in Dubai
    rows = pl.DataFrame(
        {"type": ["OUTBOUND"], "created_at": [start], "updated_at": [start + timedelta(days=9)]}
    )
    row = data(charts.volume(d22kit.volume(rows, tz=ZONE))).row(0, named=True)
    assert datetime.fromtimestamp(row["t"] / 1000, UTC) == datetime(2026, 5, 2, tzinfo=UTC)
    assert row["w"] == "Sat 2 May 2026"


def test_every_time_axis_is_utc_and_no_tooltip_formats_a_time() -> None:
    def encodings(value: Any) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            own = [value["encoding"]] if "encoding" in value and isinstance(value["encoding"], dict) else []
            return own + [found for item in value.values() for found in encodings(item)]
        return [found for item in value for found in encodings(item)] if isinstance(value, list) else []

    for who in WHO:
        for encoding in (found for name in DRAWN for found in encodings(spec(who, name))):
            for channel, definition in encoding.items():
                if channel == "tooltip":
                    assert all(line["type"] != "temporal" for line in definition)
                elif isinstance(definition, dict) and definition.get("type") == "temporal":
                    assert definition["scale"]["type"] == "utc"


def test_nothing_is_added_or_lost_between_answer_and_chart() -> None:
    answer = d22kit.volume(lenders()["simulator"], by="platform", tz=ZONE)
    assert data(spec("simulator", "volume"))["v"].sum() == answer["rows"].sum()
    huge = d22kit.volume(lenders()["huge"], by="platform", tz=ZONE)
    assert data(spec("huge", "volume"))["v"].sum() == huge["rows"].sum()  # pooled and per week


def test_rates_of_the_pooled_rest_come_from_counts_not_from_averages() -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    names = [f"p{i:02}" for i in range(11)] + ["p99"]
    sizes = [100] * 10 + [50, 10]
    shares = [1.0] * 10 + [0.9, 0.1]
    rows = pl.DataFrame(
        [
            (name, "DELIVERED" if k < size * share else "FAILED", start, start + timedelta(days=9))
            for name, size, share in zip(names, sizes, shares, strict=True)
            for k in range(size)
        ],
        schema=["platform", "delivery_status", "created_at", "updated_at"],
        orient="row",
    ).with_columns(
        type=pl.lit("OUTBOUND"), operation=pl.lit("SEND"), delivery_code=None, delivery_error_detail=None
    )
    answer = d22kit.delivery(rows, by="platform")
    drawn = charts.delivery(answer)
    rest = data(drawn).filter(pl.col("n") == 60)
    assert rest["v"].to_list() == pytest.approx([46 / 60], abs=1e-4)
    assert "lo" not in rest.columns or rest["lo"].is_null().all()
    assert "other (2)" in texts(drawn.to_dict())


def test_unsettled_periods_are_told_apart() -> None:
    said = texts(spec("simulator", "volume"))
    assert "unfinished ▸" in said
    assert "still moving ▸" in texts(spec("simulator", "delivery"))
    assert set(data(spec("simulator", "delivery"))["s"].drop_nulls()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "name", ["volume", "share", "delivery", "engagement", "compare", "time_to_last_update"]
)
def test_weird_values_show_as_text(name: str) -> None:
    said = " ".join(texts(spec("weird", name)))
    assert "</" not in said
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert max(map(len, texts(spec("weird", name)))) < 2_000


def test_labels_are_cut_but_stay_apart() -> None:
    shown = set(data(spec("weird", "time_to_last_update"))["label"])
    assert any("(empty)" in label for label in shown)
    assert any("(blank)" in label for label in shown)
    assert any("قناة" in label for label in shown)
    frame = pl.DataFrame({"p": list(WEIRD), "rows": range(len(WEIRD))})
    named = _answers.pool(frame, ["p"], "rows", most=99)
    assert named.rows["g"].n_unique() == len(WEIRD)
    assert named.rows["g"].str.len_chars().max() <= 40


def test_a_group_column_may_have_any_name() -> None:
    rows = lenders()["tiny"].with_columns(pl.col("platform").alias("a.b:c[d]\\ 'q'"))
    answer = d22kit.volume(rows, by="a.b:c[d]\\ 'q'")
    found = charts.volume(answer).to_dict()
    assert set(data(charts.volume(answer))["g"].drop_nulls()) == {"EMAIL", "SMS"}
    assert "a.b:c[d]\\ 'q'" in texts(found)


@pytest.mark.parametrize(
    "name", ["volume", "share", "delivery", "engagement", "contact_hours", "heatmap", "bounces"]
)
def test_an_empty_answer_says_so(name: str) -> None:
    ask = getattr(d22kit, name)
    options: dict[str, Any] = {"by": "platform"} if name != "contact_hours" else {}
    rows = lenders()["tiny"]
    answer = ask(rows, RULE) if name == "contact_hours" else ask(rows, **options)
    drawn = getattr(charts, name)(answer.clear())
    assert "There are no rows in this range." in texts(drawn.to_dict())


def test_an_empty_frame_draws_an_overview() -> None:
    assert "There are no rows in this range." in texts(charts.overview(lenders()["tiny"].clear()).to_dict())


def test_filtered_joined_pandas_and_arrow_answers_draw_the_same() -> None:
    answer = d22kit.volume(lenders()["simulator"], by="platform", tz=ZONE)
    whole = charts.volume(answer).to_dict()["datasets"]
    assert charts.volume(answer.to_arrow()).to_dict()["datasets"] == whole
    assert charts.volume(answer.to_pandas()).to_dict()["datasets"] == whole
    assert charts.volume(answer.lazy()).to_dict()["datasets"] == whole
    joined = answer.with_columns(team=pl.lit("north"), budget=pl.lit(3.5))
    assert charts.volume(joined).to_dict()["datasets"] == whole
    sms = data(charts.volume(answer.filter(pl.col("platform") == "SMS")))
    assert set(sms["g"].drop_nulls()) == {"SMS"}


@pytest.mark.parametrize(
    "name", [name for name in charts.__all__ if name not in ("enable", "overview", "theme")]
)
def test_what_is_no_answer_is_refused_with_the_way_out(name: str) -> None:
    draw = getattr(charts, name)
    with pytest.raises(InputError, match=rf"d22kit\.{name}.*frame of rows"):
        draw(lenders()["tiny"])
    with pytest.raises(InputError, match=r"lacks .*; it has x"):
        draw(pl.DataFrame({"x": [1]}))
    with pytest.raises(InputError, match="not a list"):
        draw([1, 2])


def test_rows_without_a_time_are_counted_in_words() -> None:
    lost = lenders()["weird"]["created_at"].null_count()
    for name in ("volume", "heatmap", "share"):
        assert f"{lost} rows without a time are not drawn." in texts(spec("weird", name))


def test_engagement_without_any_inbound_word_says_so() -> None:
    rows = lenders()["tiny"].filter(pl.col("type").cast(pl.String) == "OUTBOUND")
    said = " ".join(texts(charts.engagement(d22kit.engagement(rows)).to_dict()))
    assert "No row was recognised as inbound" in said


def test_drawing_turns_nothing_on_and_enable_does() -> None:
    alt.theme.enable("default")
    alt.renderers.enable("default")
    plain = charts.volume(d22kit.volume(lenders()["tiny"]))
    assert plain.config is alt.Undefined
    assert charts.theme.PAPER not in json.dumps(plain.to_dict()["config"])
    charts.enable()
    assert (alt.theme.active, alt.renderers.active) == ("d22kit", "d22kit")
    found = charts.volume(d22kit.volume(lenders()["tiny"])).to_dict()
    assert found["config"] == charts.theme.config()
    alt.theme.enable("d22kit", dark=True)
    assert alt.theme.get()() == {"config": charts.theme.config(dark=True)}


def test_colours_stand_out_on_both_pages() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((light(one), light(other)))
        return (high + 0.05) / (low + 0.05)

    theme = charts.theme
    for colour in (*theme.PALETTE, theme.GREY):
        assert contrast(colour, theme.PAPER) >= 3
        assert contrast(theme.DARK.get(colour, colour), theme.DARK[theme.PAPER]) >= 3
    for ink in (theme.INK, theme.MUTED):
        assert contrast(ink, theme.PAPER) >= 4.5
        assert contrast(theme.DARK[ink], theme.DARK[theme.PAPER]) >= 4.5


def test_a_figure_cannot_be_ended_by_a_label() -> None:
    hostile = {"description": '"><script>x</script>', "datasets": {"d": [{"g": "</script><script>alert(1)"}]}}
    page = offline.figure(hostile)
    assert page.count("<script>") == page.count("</script>") == 1


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("name", ["volume", "volume_month", "share", "overview"])
def test_legends_take_clicks(who: str, name: str) -> None:
    import vl_convert

    drawn = vl_convert.vegalite_to_vega(spec(who, name), vl_version="6.4")
    assert '"markname": "g_legend_symbols"' in json.dumps(drawn)


def test_the_picture_of_the_readme_is_there_and_light() -> None:
    picture = Path(__file__).parent.parent / "docs" / "overview.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 300_000


@pytest.mark.parametrize("name", ["constructor", "__proto__", "toString", "hasOwnProperty"])
def test_names_that_every_javascript_object_has_are_not_given_to_vega(name: str) -> None:
    rows = lenders()["tiny"].with_columns(platform=pl.lit(name))
    drawn = data(charts.volume(d22kit.volume(rows, by="platform")))
    assert set(drawn["g"].drop_nulls()) == {f"{name}\u2060"}
