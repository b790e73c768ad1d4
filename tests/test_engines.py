"""Every question gives one answer, whatever frame it is asked on; Spark with executors of their own."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

import d22kit
from d22kit.errors import InputError

ZONE = "Australia/Lord_Howe"
RULE = d22kit.HoursRule.us_regulation_f(zone="America/New_York")
QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "profile": lambda frame: d22kit.profile(frame),
    "volume": lambda frame: d22kit.volume(frame, by=("platform", "purpose"), tz=ZONE),
    "hours": lambda frame: d22kit.volume(frame, every="hour", tz="Asia/Kathmandu", fill=False),
    "heatmap": lambda frame: d22kit.heatmap(frame, by="platform", tz=ZONE),
    "share": lambda frame: d22kit.share(frame, by="platform", tz=ZONE),
    "delivery": lambda frame: d22kit.delivery(frame, by="platform", every="week", tz=ZONE),
    "time_to_last_update": lambda frame: d22kit.time_to_last_update(frame, by="platform"),
    "engagement": lambda frame: d22kit.engagement(frame, tz=ZONE),
    "contact_hours": lambda frame: d22kit.contact_hours(frame, RULE, by="platform"),
    "backlog": lambda frame: d22kit.backlog(frame, by="platform"),
    "worklist": lambda frame: d22kit.worklist(frame),
    "bounces": lambda frame: d22kit.bounces(frame, by="platform"),
    "templates": lambda frame: d22kit.bounces(frame, level="template"),
    "compare": lambda frame: d22kit.compare(frame, metric="delivery_rate", by="platform"),
    "anomalies": lambda frame: d22kit.anomalies(frame, metric="volume", by="platform"),
}


@pytest.fixture(scope="module")
def store(lender_frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synced store of a lender with rows that have no time, no channel, or a word of their own."""
    rough = lender_frame.sort("created_at").with_row_index()
    texts = pl.col("platform", "purpose").cast(pl.String)
    rows = rough.with_columns(texts).with_columns(
        created_at=pl.when(pl.col("index") % 997 != 5).then("created_at"),
        platform=pl.when(pl.col("index") % 501 != 7).then("platform"),
        purpose=pl.when(pl.col("index") % 777 == 9).then(pl.lit("")).otherwise("purpose"),
    )
    data = tmp_path_factory.mktemp("store")
    with d22kit.simulate(rows.drop("index")) as service:
        d22kit.sync(service.endpoint, data, progress=False)
    return data


@pytest.fixture(scope="module")
def frame(store: Path) -> pl.DataFrame:
    """The store's rows in memory: vocabularies are categories."""
    return d22kit.load(store)


@pytest.fixture(scope="module")
def files(store: Path) -> list[str]:
    """The Parquet files of the store's current version, as any engine may read them: plain strings."""
    return DeltaTable(str(store / "conversations")).file_uris()


@pytest.fixture(scope="module")
def answers(frame: pl.DataFrame) -> Callable[[str], pl.DataFrame]:
    """What each question answers on an eager Polars frame; asked once."""
    return cache(lambda name: QUESTIONS[name](frame))


def plain(answer: Any) -> pl.DataFrame:
    """An answer of any kind as Polars, with text for categories and nulls for pandas' NaN."""
    if isinstance(answer, pd.DataFrame):
        answer = pl.from_pandas(answer)
    if isinstance(answer, pa.Table):
        answer = pl.DataFrame(pl.from_arrow(answer))
    assert isinstance(answer, pl.DataFrame)
    texts = {name: pl.String for name, dtype in answer.schema.items() if dtype == pl.Categorical}
    return answer.cast(texts)  # type: ignore[arg-type]


def assert_same(answer: Any, expected: pl.DataFrame) -> None:
    found, wanted = plain(answer), plain(expected)
    nothing = {name: wanted.schema[name] for name, dtype in found.schema.items() if dtype == pl.Null}
    if isinstance(answer, pd.DataFrame):  # NumPy has no integer that can be missing
        nothing |= {n: wanted.schema[n] for n, d in found.schema.items() if d == pl.Float64}
    assert_frame_equal(found.cast(nothing), wanted, check_exact=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", QUESTIONS)
def test_polars_lazy(name: str, frame: pl.DataFrame, answers: Callable[[str], pl.DataFrame]) -> None:
    answer = QUESTIONS[name](frame.lazy())
    assert isinstance(answer, pl.DataFrame)
    assert_frame_equal(answer, answers(name), check_exact=True)


@pytest.mark.parametrize("question", [d22kit.delivery, d22kit.engagement, d22kit.time_to_last_update])
def test_a_lazy_frame_is_judged_alike_by_what_outcomes_are_read_from(
    question: Callable[..., pl.DataFrame], frame: pl.DataFrame
) -> None:
    for by in ("delivery_status", "delivery_code", ["delivery_error_detail", "platform"]):
        assert_frame_equal(question(frame.lazy(), by=by), question(frame, by=by), check_exact=True)


@pytest.mark.parametrize("name", QUESTIONS)
def test_polars_scan_of_plain_strings(
    name: str, files: list[str], answers: Callable[[str], pl.DataFrame]
) -> None:
    assert_same(QUESTIONS[name](pl.scan_parquet(files)), answers(name))


@pytest.mark.parametrize("name", QUESTIONS)
def test_pandas_numpy(name: str, frame: pl.DataFrame, answers: Callable[[str], pl.DataFrame]) -> None:
    answer = QUESTIONS[name](frame.to_pandas())
    assert isinstance(answer, pd.DataFrame)
    assert_same(answer, answers(name))


@pytest.mark.parametrize("name", QUESTIONS)
def test_pandas_arrow(name: str, frame: pl.DataFrame, answers: Callable[[str], pl.DataFrame]) -> None:
    answer = QUESTIONS[name](frame.to_pandas(use_pyarrow_extension_array=True))
    assert isinstance(answer, pd.DataFrame)
    assert all(type(dtype).__name__ == "ArrowDtype" for dtype in answer.dtypes)
    assert_same(answer, answers(name))


@pytest.mark.parametrize("name", QUESTIONS)
def test_pandas_objects_and_nanoseconds(
    name: str, files: list[str], answers: Callable[[str], pl.DataFrame]
) -> None:
    old = pl.read_parquet(files).to_pandas()
    old = old.astype({c: object for c in old.columns if not c.endswith("_at")})
    old = old.astype(dict.fromkeys(("created_at", "updated_at"), "datetime64[ns, Asia/Dubai]"))
    assert_same(QUESTIONS[name](old), answers(name))


@pytest.mark.parametrize("name", QUESTIONS)
def test_pyarrow(name: str, frame: pl.DataFrame, answers: Callable[[str], pl.DataFrame]) -> None:
    answer = QUESTIONS[name](frame.to_arrow())
    assert isinstance(answer, pa.Table)
    assert_same(answer, answers(name))


@pytest.mark.parametrize("name", QUESTIONS)
def test_duckdb(name: str, files: list[str], answers: Callable[[str], pl.DataFrame]) -> None:
    with duckdb.connect() as connection:
        connection.sql("set timezone = 'Asia/Kathmandu'")
        answer = QUESTIONS[name](connection.read_parquet(files))
        assert isinstance(answer, pl.DataFrame)
        assert_same(answer, answers(name))


def _no_spark() -> str:
    if importlib.util.find_spec("pyspark") is None:
        return "PySpark is not installed: pip install 'd22kit[spark]'"
    return "" if shutil.which("java") else "no Java on the PATH: PySpark needs one"


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """A cluster of two executors, each a JVM of its own, in a session zone that is not UTC."""
    if reason := _no_spark():
        pytest.skip(reason)
    import pyspark

    os.environ.setdefault("SPARK_HOME", os.path.dirname(pyspark.__file__))  # noqa: PTH120
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PySpark warns about pandas 3 and leaves sockets open
        from pyspark.sql import SparkSession

        settings = {
            "spark.ui.enabled": "false",
            "spark.scheduler.minRegisteredResourcesRatio": "1",  # wait for both executors
            "spark.sql.shuffle.partitions": "2",
            "spark.sql.files.maxPartitionNum": "2",
            "spark.sql.sources.parallelPartitionDiscovery.threshold": "1000",  # no task per file
            "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1",
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
            "spark.sql.session.timeZone": "America/New_York",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
        }
        builder = SparkSession.builder.master("local-cluster[2,1,1024]")
        session = builder.config(map=settings).getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()


@pytest.mark.filterwarnings("ignore")  # PySpark's own: pandas 3, unclosed sockets
def test_spark_has_executors_of_its_own(spark: Any, files: list[str]) -> None:
    assert spark.read.parquet(*files).count()
    driver_and_executors = spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
    assert len(driver_and_executors) == 3


@pytest.mark.filterwarnings("ignore")  # PySpark's own: pandas 3, unclosed sockets
@pytest.mark.parametrize("name", QUESTIONS)
def test_spark(name: str, spark: Any, files: list[str], answers: Callable[[str], pl.DataFrame]) -> None:
    answer = QUESTIONS[name](spark.read.parquet(*files))
    assert isinstance(answer, pl.DataFrame)
    assert_same(answer, answers(name))


@pytest.mark.filterwarnings("ignore")  # PySpark's own: pandas 3, unclosed sockets
def test_spark_times_without_a_zone_are_utc(
    spark: Any, files: list[str], answers: Callable[[str], pl.DataFrame]
) -> None:
    rows = spark.read.parquet(*files)
    bare = rows.selectExpr(
        "type", "platform", "purpose", *(f"to_timestamp_ntz(date_format(to_utc_timestamp({c}, 'America/New_York'), "
        f"'yyyy-MM-dd HH:mm:ss.SSSSSS')) as {c}" for c in ("created_at", "updated_at"))
    )  # fmt: skip
    assert_same(QUESTIONS["volume"](bare), answers("volume"))


@pytest.mark.filterwarnings("ignore")  # PySpark's own: pandas 3, unclosed sockets
def test_spark_and_the_rest_of_the_page_on_scale(
    spark: Any, store: Path, frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
    shutil.copytree(store, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    assert names["spark"] is spark
    assert_same(names["engagement"], d22kit.engagement(frame, tz="Asia/Dubai"))
    assert_same(names["bounces"], d22kit.bounces(frame, by="platform"))
    assert_same(names["heatmap"], d22kit.heatmap(frame, tz="Asia/Dubai"))


def test_categories_come_back_as_they_came(frame: pl.DataFrame) -> None:
    question = QUESTIONS["volume"]
    assert question(frame).schema["platform"] == pl.Categorical
    assert (
        question(frame.cast({"platform": pl.Enum(["EMAIL", "SMS", "WHATSAPP", "VOICE"])})).schema["platform"]
        == pl.Enum
    )
    assert question(frame.cast({"platform": pl.String})).schema["platform"] == pl.String
    assert str(question(frame.to_pandas())["platform"].dtype) == "category"
    assert pa.types.is_dictionary(question(frame.to_arrow()).schema.field("platform").type)


def test_the_moment_an_answer_speaks_of_travels_with_it(frame: pl.DataFrame) -> None:
    newest = frame["updated_at"].max()
    assert isinstance(newest, datetime)
    assert QUESTIONS["volume"](frame.to_pandas()).attrs["as_of"] == newest
    table = frame.to_arrow().replace_schema_metadata({"version": "7"})
    assert QUESTIONS["volume"](table).schema.metadata == {
        b"as_of": newest.isoformat().encode(),
        b"version": b"7",
    }


def test_any_column_that_was_joined_on_can_group(frame: pl.DataFrame) -> None:
    joined = frame.with_columns(
        branch=pl.col("public_id").str.len_chars(), **{'day of "mind"': pl.lit(date(2026, 5, 1))}
    )
    expected = d22kit.volume(joined, by=("branch", 'day of "mind"'))
    assert expected.schema["branch"] == pl.UInt32
    assert_same(d22kit.volume(joined.to_arrow(), by=("branch", 'day of "mind"')), expected)
    relation = duckdb.from_arrow(joined.to_arrow())
    assert d22kit.volume(relation, by=("branch", 'day of "mind"'))["rows"].sum() == frame.height


@pytest.mark.parametrize("engine", ["pandas", "pyarrow", "duckdb"])
def test_wrong_columns_are_named_on_every_engine(engine: str) -> None:
    bad = pl.DataFrame(
        {"type": ["OUTBOUND"], "created_at": ["2026-05-01"], "updated_at": [datetime(2026, 5, 1, tzinfo=UTC)]}
    )
    native = {
        "pandas": bad.to_pandas,
        "pyarrow": bad.to_arrow,
        "duckdb": lambda: duckdb.from_arrow(bad.to_arrow()),
    }
    with pytest.raises(InputError, match="created_at is"):
        d22kit.volume(native[engine]())
    with pytest.raises(InputError, match="by='typo'"):
        d22kit.volume(native[engine](), by="typo")


NOTHING = pl.DataFrame({name: [None, None] for name in ("type", "platform", "created_at", "updated_at")})


@pytest.mark.parametrize(
    "make",
    [
        pl.DataFrame,
        pl.DataFrame.lazy,
        pl.DataFrame.to_pandas,
        lambda frame: frame.to_pandas(use_pyarrow_extension_array=True),
        pl.DataFrame.to_arrow,
        lambda frame: duckdb.from_arrow(frame.to_arrow()),
    ],
)
def test_columns_without_any_value_have_no_type_and_are_answered(make: Callable[[pl.DataFrame], Any]) -> None:
    answer = d22kit.volume(make(NOTHING), by="platform")
    rows = plain(answer).select("period_state", "platform", "rows", "direction_unmapped").rows()
    assert rows == [("undated", None, 2, 2)]


@pytest.mark.filterwarnings("ignore")  # PySpark's own: pandas 3, unclosed sockets
def test_spark_columns_without_any_value_are_answered(spark: Any) -> None:
    bare = spark.range(2).selectExpr(*(f"null as {name}" for name in NOTHING.columns))
    assert_same(d22kit.volume(bare, by="platform"), d22kit.volume(NOTHING, by="platform"))


def test_a_column_of_mixed_values_is_an_input_error() -> None:
    now = pd.Timestamp("2026-05-01", tz="UTC")
    mixed = pd.DataFrame({"type": ["OUTBOUND", 1, None], "created_at": now, "updated_at": now})
    with pytest.raises(InputError, match="one type"):
        d22kit.volume(mixed)


@pytest.mark.filterwarnings("ignore")  # PySpark's own: pandas 3, unclosed sockets
def test_spark_rows_are_classified_as_any_other(spark: Any, files: list[str], frame: pl.DataFrame) -> None:
    told = d22kit.classify(spark.read.parquet(*files))
    verdicts = ["delivery_state", "bounce_category", "bounce_permanence"]
    expected = d22kit.classify(frame).group_by(verdicts).len().sort(verdicts, nulls_last=True)
    counted = [tuple(row) for row in told.groupBy(*verdicts).count().collect()]
    assert type(told).__module__.startswith("pyspark")
    assert sorted(counted, key=str) == sorted(expected.rows(), key=str)


@pytest.mark.parametrize("kind", ["INTERVAL 3 DAY", "union_value(n := 1)", "{'a': INTERVAL 3 DAY}"])
def test_a_group_of_a_type_that_only_duckdb_has_is_an_input_error(kind: str, files: list[str]) -> None:
    with duckdb.connect() as connection:
        rows = connection.read_parquet(files).project(f"*, {kind} AS span")
        with pytest.raises(InputError, match=r"span is (INTERVAL|UNION)"):
            d22kit.volume(rows, by="span")
        assert d22kit.volume(rows, by="platform")["rows"].sum() == len(rows)


@pytest.mark.filterwarnings("ignore")  # PySpark's own: pandas 3, unclosed sockets
def test_a_group_of_a_type_that_only_spark_has_is_an_input_error(spark: Any) -> None:
    def rows(kind: str) -> Any:
        now = "timestamp'2026-05-01'"
        return spark.range(2).selectExpr(
            "'OUTBOUND' as type", f"{now} as created_at", f"{now} as updated_at", f"{kind} as span"
        )

    months = "interval 3 months"
    for kind in (months, "make_interval(1, 2)", "parse_json('1')", f"array(map('a', struct({months})))"):
        with pytest.raises(InputError, match=r"span is (INTERVAL|VARIANT)"):
            d22kit.volume(rows(kind), by="span")
    for kind in ("map('a', id)", "make_dt_interval(cast(id as int))"):
        assert d22kit.volume(rows(kind), by="span")["rows"].to_list() == [1, 1]


def test_an_arrow_column_that_polars_cannot_read_is_an_input_error(frame: pl.DataFrame) -> None:
    table = frame.head(2).to_arrow().append_column("span", pa.array([pa.MonthDayNano([1, 2, 3])] * 2))
    with pytest.raises(InputError, match="cannot be read"):
        d22kit.volume(table, by="span")
