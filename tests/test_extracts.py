"""Extracts: they open anywhere, say what they are, are safe to send, and come out the same every time."""

from __future__ import annotations

import csv
import getpass
import gzip
import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import frictionless
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

import d22kit
from d22kit.commits import commit_rows
from d22kit.errors import ExtractError, InputError, VersionNotFoundError
from d22kit.extracts import conditions as conditions_module
from d22kit.extracts import describing, extract, formats, outcomes, rows, verify
from d22kit.extracts.places import Target
from d22kit.masking import mask
from d22kit.packages import DESCRIPTOR, OUTCOMES, hidden, open_extract, shown, turn
from d22kit.questions.classify import classify_distinct
from d22kit.schema import EXTRA, KEY, NAMES, STORED, VERSION
from d22kit.simulator import generate
from d22kit.state import State
from d22kit.store import Store
from d22kit.times import iso

DETAIL = "delivery_error_detail"
SECRET = "ana.silva@acme.example"
FORMS = ("x.parquet", "x.csv", "x.csv.gz", "x.arrow", "x.feather", "folder", "folder/")
TEXTS = [
    *("مرحبا بالعالم", "تم التسليم ✅ 🎉", "", None, "NULL", "0012", "1e5", "-5", "=1+1", "+971", "@SUM(A1)"),
    *("ok;=1+1", "ok\t=1+1", "two\n-lines", "a;'=1", "wait; - then"),
    *("'=1", "''-x", "\ttab", "\rcr", 'say "no", twice', "＝1", " =2", "' apostrophe", "plain"),
]


def hostile(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows with texts that trip readers, in a column that no mask touches."""
    texts = pl.Series((TEXTS * (frame.height // len(TEXTS) + 1))[: frame.height], dtype=pl.String)
    return frame.with_columns(
        texts.alias("delivery_code"),
        pl.lit(f"550 5.1.1 <{SECRET}>: user unknown").alias(DETAIL),
        pl.lit(f'{{"customer": "{SECRET}"}}').alias(EXTRA),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store in two versions: 1,500 rows, then the other 1,500, of which 40 are hostile."""
    frame = generate(3_000, seed=5).cast(dict(STORED)).sort(VERSION)
    frame = pl.concat([frame[:-40], hostile(frame[-40:])])
    root = tmp_path_factory.mktemp("store")
    store = Store.create(root, "https://api.example.test lender acme")
    commit_rows(store, frame[:1_500], [], State())
    until = frame[VERSION].max()
    assert isinstance(until, datetime)
    commit_rows(store, frame[1_400:], [], State(covered=((None, until),)))
    return str(root)


@pytest.fixture(scope="module")
def expected(data: str) -> pl.DataFrame:
    """What an extract of the whole store holds."""
    frame = d22kit.classify(d22kit.load(data)).cast({name: pl.String() for name in OUTCOMES})
    frame = frame.sort(VERSION, KEY).with_columns(mask(pl.col(DETAIL)), pl.lit(None, pl.String).alias(EXTRA))
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))


def opened(path: Path | str) -> pl.DataFrame:
    return d22kit.load(path).with_columns(pl.col(pl.Categorical).cast(pl.String))


def from_pandas(frame: pd.DataFrame) -> pl.DataFrame:
    frame = frame.astype({name: "str" for name in frame.columns if str(frame[name].dtype) == "category"})
    return pl.from_pandas(frame)


def same(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """Same rows, instants and nulls, in whatever unit and order of columns a reader gives them."""
    times = [name for name in expected.columns if expected[name].dtype.is_temporal()]
    found = found.select(expected.columns).with_columns(
        pl.col(times).dt.convert_time_zone("UTC").dt.cast_time_unit("us"),
        pl.col([name for name in expected.columns if name not in times]).cast(pl.String),
    )
    assert_frame_equal(found.sort(VERSION, KEY), expected)


# Formats and readers


@pytest.mark.parametrize("form", FORMS)
def test_every_format_opens_again_as_it_was(
    form: str, data: str, expected: pl.DataFrame, tmp_path: Path
) -> None:
    made = extract(f"{tmp_path}/{form}", data)
    assert made.rows == expected.height
    assert verify(made.path).ok
    assert_frame_equal(opened(made.path), expected)


@pytest.mark.parametrize("form", FORMS)
def test_an_extract_loads_with_the_types_of_a_store(form: str, data: str, tmp_path: Path) -> None:
    made = extract(f"{tmp_path}/{form}", data, classified=False, masked=False)
    stored = d22kit.load(data).sort(VERSION, KEY)
    assert_frame_equal(d22kit.load(made.path), stored, categorical_as_str=True)
    middle = stored[VERSION][1_000]
    columns = ["updated_date", KEY]
    assert_frame_equal(
        d22kit.load(made.path, since=middle, on=VERSION, columns=columns),
        d22kit.load(data, since=middle, on=VERSION, columns=columns).sort("updated_date", KEY),
        check_row_order=False,
    )


def test_what_an_extract_does_not_have_cannot_be_loaded(data: str, tmp_path: Path) -> None:
    made = extract(tmp_path / "x.parquet", data, columns=[KEY, "platform"])
    assert d22kit.load(made.path).columns == [KEY, "platform"]
    for asked, says in (
        ({"version": 1}, "holds one version"),
        ({"since": "2026-01-01"}, "no column 'created_at'"),
        ({"columns": ["updated_date"]}, "There are: public_id, platform"),
    ):
        with pytest.raises(InputError, match=says):
            d22kit.load(made.path, **asked)


@pytest.mark.parametrize("by", [["platform"], ["platform", "delivery_state"], ["delivery_code"]])
def test_a_hive_directory_opens_again(
    by: list[str], data: str, expected: pl.DataFrame, tmp_path: Path
) -> None:
    made = extract(tmp_path / "hive", data, partition_by=by)
    assert all(path.startswith(f"hive/{by[0]}=") for path in made.sha256)
    if by == ["delivery_code"]:
        # Hive has one name for null and for the empty word.
        expected = expected.with_columns(pl.col(by).replace({"": None}))
    same(opened(made.path), expected)


PARQUET_READERS: dict[str, Callable[[str], pl.DataFrame]] = {
    "polars": pl.read_parquet,
    "pandas": lambda path: from_pandas(pd.read_parquet(path)),
    "pyarrow": lambda path: pl.DataFrame(pq.read_table(path)),
    "duckdb": lambda path: duckdb.read_parquet(path).pl(),
}


@pytest.mark.parametrize("reader", PARQUET_READERS)
def test_parquet_opens_in(reader: str, data: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    made = extract(tmp_path / "x.parquet", data)
    same(PARQUET_READERS[reader](made.path), expected)


HIVE_READERS: dict[str, Callable[[str], pl.DataFrame]] = {
    "polars": lambda path: pl.read_parquet(f"{path}/**/*.parquet", hive_partitioning=True),
    "pandas": lambda path: from_pandas(pd.read_parquet(path)),
    "pyarrow": lambda path: pl.DataFrame(pa.dataset.dataset(path, partitioning="hive").to_table()),
    "duckdb": lambda path: duckdb.read_parquet(f"{path}/**/*.parquet", hive_partitioning=True).pl(),
}


@pytest.mark.parametrize("reader", HIVE_READERS)
def test_a_hive_directory_opens_in(reader: str, data: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    made = extract(tmp_path / "hive", data, partition_by=["platform", "delivery_state"])
    same(HIVE_READERS[reader](made.path), expected)


@pytest.mark.parametrize(
    "read",
    [
        lambda path: pl.DataFrame(pa.feather.read_table(path)),
        lambda path: from_pandas(pd.read_feather(path)),
        pl.read_ipc,
    ],
    ids=["pyarrow", "pandas", "polars"],
)
def test_arrow_opens_in(
    read: Callable[[str], pl.DataFrame], data: str, expected: pl.DataFrame, tmp_path: Path
) -> None:
    same(read(extract(tmp_path / "x.feather", data).path), expected)


def csv_of(expected: pl.DataFrame, *, empty_is_null: bool) -> pl.DataFrame:
    """What a reader that takes every column as text finds."""
    texts = pl.col([name for name in expected.columns if expected[name].dtype == pl.String()])
    times = pl.col("created_at", "updated_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
    frame = expected.with_columns(hidden(texts), times)
    return frame.with_columns(pl.all().replace({"": None})) if empty_is_null else frame


def test_csv_opens_in_every_reader(data: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    path = extract(tmp_path / "x.csv", data).path
    exact, loose = csv_of(expected, empty_is_null=False), csv_of(expected, empty_is_null=True)
    assert_frame_equal(pl.read_csv(path, infer_schema=False), exact)
    options = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(expected.columns, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    lines = pa.csv.ParseOptions(newlines_in_values=True)
    assert_frame_equal(
        pl.DataFrame(pa.csv.read_csv(path, parse_options=lines, convert_options=options)), exact
    )
    pandas = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    assert_frame_equal(pl.from_pandas(pandas).cast(pl.String), loose)
    duck = duckdb.read_csv(path, all_varchar=True).pl()
    assert_frame_equal(duck.select(loose.columns), loose)
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.DictReader(file)) == exact.with_columns(pl.all().fill_null("")).to_dicts()


def test_csv_times_are_instants_to_those_who_parse_them(
    data: str, expected: pl.DataFrame, tmp_path: Path
) -> None:
    path = extract(tmp_path / "x.csv.gz", data, columns=[KEY, "created_at", "updated_at"]).path
    wanted = expected.select(KEY, "created_at", "updated_at")
    same(from_pandas(pd.read_csv(path, parse_dates=["created_at", "updated_at"])), wanted)
    same(pl.read_csv(path, try_parse_dates=True), wanted)


def test_parquet_opens_in_spark(data: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    spark_sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("PySpark needs a Java runtime")
    made = extract(tmp_path / "x.parquet", data)
    hive = extract(tmp_path / "hive", data, partition_by="platform")
    spark = (
        spark_sql.SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "1")
        .getOrCreate()
    )
    try:
        for path in (made.path, hive.path):
            same(pl.DataFrame(spark.read.parquet(path).toArrow()), expected)
    finally:
        spark.stop()


HYPARQUET = """
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
const rows = await parquetReadObjects({ file: await asyncBufferFromFile(process.argv[2]), compressors })
for (const row of rows) console.log(JSON.stringify(row))
"""


def test_parquet_opens_in_javascript(data: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    modules = Path(os.environ.get("NODE_MODULES", "node_modules")).absolute()
    if shutil.which("node") is None or not (modules / "hyparquet-compressors").is_dir():
        pytest.skip("needs node, and hyparquet and hyparquet-compressors in node_modules or $NODE_MODULES")
    made = extract(tmp_path / "x.parquet", data)
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "read.mjs").write_text(HYPARQUET)
    done = subprocess.run(
        ["node", "read.mjs", made.path], cwd=tmp_path, capture_output=True, check=True, timeout=60
    )
    schema = {name: pl.String() for name in expected.columns}
    found = pl.read_ndjson(done.stdout, schema=schema)
    times = pl.col("created_at", "updated_at").str.to_datetime(time_zone="UTC")
    same(found.with_columns(times), expected)


def test_csv_and_excel_open_in_libreoffice(data: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    office = shutil.which("soffice")
    if office is None:
        pytest.skip("needs LibreOffice Calc (soffice)")
    wanted = expected[-40:]
    words = [name for name in wanted.columns if wanted[name].dtype == pl.String]
    # As a person imports it: UTF-8, every column as text.
    columns = "/".join(f"{number}/2" for number in range(1, wanted.width + 1))
    reading = {"x.csv": [f"--infilter=CSV:44,34,76,1,{columns}"], "y.xlsx": []}
    times = {"x.csv": "%Y-%m-%dT%H:%M:%S%.3fZ", "y.xlsx": "%Y-%m-%d %H:%M:%S%.3f"}
    for name, filters in reading.items():
        extract(tmp_path / name, data, since=expected[VERSION][-40], on=VERSION)
        command = [office, f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}", "--headless", *filters]
        writing = ["--convert-to", "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true"]
        place = ["--outdir", str(tmp_path / "out"), str(tmp_path / name)]
        subprocess.run([*command, *writing, *place], check=True, capture_output=True, timeout=120)
        with (tmp_path / "out" / f"{name[0]}.csv").open(encoding="utf-8-sig", newline="") as file:
            found = list(csv.DictReader(file))
        frame = wanted.with_columns(
            pl.col(words).fill_null(""), pl.col("created_at", "updated_at").dt.strftime(times[name])
        )
        if name == "x.csv":
            frame = frame.with_columns(hidden(pl.col(words)))
        # Of CSV, Calc takes a carriage return within a cell for a line feed.
        lines = pl.col(words).str.replace_all("\r", "\n")
        assert_frame_equal(pl.DataFrame(found).with_columns(lines), frame.with_columns(lines))


# What it says of itself


# Frictionless leaves the compressed file open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", [*FORMS, "x.xlsx"])
def test_frictionless_finds_the_data_package_valid(form: str, data: str, tmp_path: Path) -> None:
    made = extract(f"{tmp_path}/{form}", data)
    found = frictionless.validate(made.path + DESCRIPTOR)
    assert found.valid, found.flatten(["type", "fieldName", "note"])


def test_it_says_where_it_comes_from_and_what_it_holds(data: str, tmp_path: Path) -> None:
    made = extract(
        tmp_path / "x.parquet", data, since="2026-01-01", where={"platform": ["EMAIL", "SMS"]}, version=2
    )
    package = json.loads(Path(made.path + DESCRIPTOR).read_text(encoding="utf-8"))
    about, [file] = package["d22kit"], package["resources"]
    assert about["service"], about["lender"] == ("https://api.example.test", "acme")
    assert (about["version"], about["since"], about["until"]) == (2, "2026-01-01T00:00:00.000Z", None)
    assert about["where"] == {"platform": ["EMAIL", "SMS"]}
    assert about["zone"] == "UTC"
    assert about["rows"] == made.rows == opened(made.path).height
    assert about["d22kit"] == d22kit.__version__
    assert about["masked"] == [DETAIL, EXTRA]
    watermark = d22kit.status(data).watermark
    assert watermark is not None
    assert datetime.fromisoformat(about["complete_up_to"]) == watermark
    assert f"sha256:{made.sha256['x.parquet']}" == file["hash"]
    inside = json.loads(pq.read_metadata(made.path).metadata[b"d22kit"])
    assert inside["schema"] == file["schema"]
    assert {name: inside[name] for name in about if name in inside} == {
        n: about[n] for n in inside if n in about
    }
    assert "hash" not in inside


def test_every_column_is_explained(data: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    made = extract(tmp_path / "x.parquet", data)
    package = json.loads(Path(made.path + DESCRIPTOR).read_text(encoding="utf-8"))
    fields = {field["name"]: field for field in package["resources"][0]["schema"]["fields"]}
    assert list(fields) == [*NAMES, *OUTCOMES]
    assert all(
        field["type"] and field["unit"] and len(field["description"]) > 10 for field in fields.values()
    )
    assert fields["platform"]["constraints"]["enum"] == sorted(set(expected["platform"]))
    assert "constraints" not in fields[KEY]


def test_the_arrow_file_says_it_too(data: str, tmp_path: Path) -> None:
    made = extract(tmp_path / "x.arrow", data)
    inside = json.loads(pa.ipc.open_file(made.path).schema.metadata[b"d22kit"])
    assert inside == {name: made.about[name] for name in inside}


def test_a_directory_has_a_readme_for_people(data: str, tmp_path: Path) -> None:
    made = extract(tmp_path / "mails", data, partition_by="platform")
    text = Path(f"{made.path}.README.md").read_text(encoding="utf-8")
    assert "lender acme" in text
    assert "fewer than 10 rows" in text
    assert all(f"| `{name}` |" in text for name in [*NAMES, *OUTCOMES])
    assert {path.suffix for path in Path(made.path).rglob("*") if path.is_file()} == {".parquet"}


def test_small_cells_are_counted(data: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    made = extract(tmp_path / "x.parquet", data, columns=["platform", "purpose", "created_at"])
    cells = expected.group_by("platform", "purpose").len().filter(pl.col("len") < 10)
    assert made.about["small_cells"] == {"k": 10, "cells": cells.height, "rows": cells["len"].sum()}


def test_many_combinations_hide_no_words_and_are_not_said_to_be_harmless(
    data: str, expected: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describing, "MOST_CELLS", 20)
    made = extract(tmp_path / "x.parquet", data)
    assert made.about["small_cells"] == {"k": 10, "cells": None, "rows": None}
    package = json.loads(Path(made.path + DESCRIPTOR).read_text(encoding="utf-8"))
    assert "too many combinations" in package["description"]
    fields = {field["name"]: field for field in package["resources"][0]["schema"]["fields"]}
    words = expected["platform"].drop_nulls().unique().sort().to_list()
    assert fields["platform"]["constraints"]["enum"] == words


# Safe to send


@pytest.mark.parametrize("form", [*FORMS, "x.xlsx"])
def test_nothing_of_its_maker_or_of_a_person_is_in_it(form: str, data: str, tmp_path: Path) -> None:
    where = pl.col(DETAIL).is_null() | (pl.col(DETAIL) != SECRET)
    extract(f"{tmp_path}/{form}", data, where=where)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = plain_bytes(path)
            for word in (SECRET, str(tmp_path), data, str(Path.home()), f"/{getpass.getuser()}/"):
                assert word.encode() not in content, (path.name, word)


def plain_bytes(path: Path) -> bytes:
    """What a file holds, decompressed as far as can be."""
    if path.suffix == ".parquet":
        return path.read_bytes() + pl.read_parquet(path).write_csv().encode()
    if path.suffix in (".arrow", ".feather"):
        return path.read_bytes() + pl.read_ipc(path).write_csv().encode()
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".xlsx":
        with zipfile.ZipFile(path) as book:
            return b"".join(map(book.read, book.namelist()))
    return path.read_bytes()


def test_what_is_not_masked_says_so(data: str, tmp_path: Path) -> None:
    made = extract(tmp_path / "x.parquet", data, masked=False)
    assert made.about["unmasked"] == [DETAIL, EXTRA]
    assert not made.about["masking"]
    asked = extract(
        tmp_path / "y.parquet",
        data,
        masked=False,
        columns=[KEY],
        where={DETAIL: [f"550 5.1.1 <{SECRET}>: user unknown"]},
    )
    assert asked.about["unmasked"] == [DETAIL]
    assert "NOT masked" in Path(asked.path + DESCRIPTOR).read_text(encoding="utf-8")
    assert "not masked" in str(made)
    assert_frame_equal(
        opened(made.path).select(NAMES), d22kit.load(data).cast(dict(STORED)).sort(VERSION, KEY)
    )


@pytest.mark.parametrize("by", [None, "by"])
@pytest.mark.parametrize("late", [True, False])
def test_no_word_of_rows_that_were_not_chosen_is_in_it(
    by: str | None, late: bool, data: str, expected: pl.DataFrame, tmp_path: Path
) -> None:
    one = expected.filter(pl.col("delivery_state") == "bounced").row(0, named=True)
    where = pl.col(KEY) == one[KEY]
    if late:
        where &= (pl.col("delivery_state") == "bounced") & (pl.col(EXTRA) != "unlikely").fill_null(True)
    made = extract(tmp_path / ("folder" if by else "x.parquet"), data, where=where, partition_by=by)
    assert opened(made.path).select(EXTRA, DETAIL).rows() == [(None, one[DETAIL])]
    [file] = Path(made.path).rglob("*.parquet") if by else [made.path]
    words = [name for name in pq.read_schema(file).names if name in (*OUTCOMES, *NAMES[1:11])]
    table = pq.ParquetFile(file, read_dictionary=words).read()
    for name in words:
        assert table[name].chunk(0).dictionary.to_pylist() in ([one[name]], []), name


@given(st.text(alphabet=st.one_of(st.sampled_from("'=+-@\t\r\n ＝x1"), st.characters(codec="utf-8"))))
@settings(max_examples=200)
def test_the_guard_against_formulas_is_reversible(text: str) -> None:
    frame = pl.DataFrame({"text": [text]})
    guarded = frame.select(hidden(pl.col("text")))
    assert not guarded.item().lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))
    assert not guarded.item().startswith(("\t", "\r", "\n"))
    # Also for a spreadsheet that parts cells elsewhere than at commas.
    signs = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
    assert not any(cell.lstrip().startswith(signs) for cell in re.split("[;\t\r\n]", guarded.item()))
    assert guarded.select(shown(pl.col("text"))).item() == text


@pytest.mark.parametrize(
    "unseen", ["", " ", "\u3000", "\xa0", "\t", "\n", "\x00", "\x85", "\xad", "\u200e", "\ufeff"]
)
@pytest.mark.parametrize("sign", "=+-@＝＋－＠﹦﹢﹣﹫")
def test_a_formula_is_guarded_behind_what_no_one_sees(unseen: str, sign: str) -> None:
    text = pl.DataFrame({"text": [f"{unseen * 3}{sign}HYPERLINK(1)"]})
    guarded = text.select(hidden(pl.col("text")))
    assert guarded.item().startswith("'")
    assert guarded.item().replace("'", "") == text.item()


def test_libreoffice_finds_no_formula_whatever_parts_the_cells(data: str, tmp_path: Path) -> None:
    office = shutil.which("soffice")
    if office is None:
        pytest.skip("needs LibreOffice Calc (soffice)")
    extract(tmp_path / "x.csv", data)
    (tmp_path / "y.csv").write_text("wait;=1+1\n")
    command = [office, f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}", "--headless"]
    reading = ["--infilter=CSV:44/59/9,34,76,1", "--convert-to", "fods", "--outdir", str(tmp_path / "out")]
    places = [str(tmp_path / name) for name in ("x.csv", "y.csv")]
    subprocess.run([*command, *reading, *places], check=True, capture_output=True, timeout=120)
    assert "table:formula" not in (tmp_path / "out" / "x.fods").read_text(encoding="utf-8")
    assert "table:formula" in (tmp_path / "out" / "y.fods").read_text(encoding="utf-8"), "it looks for them"


def test_excel_holds_text_as_text(data: str, tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    extract(tmp_path / "x.xlsx", data)
    with zipfile.ZipFile(tmp_path / "x.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert "=1+1" in sheet


# The same every time


@pytest.mark.parametrize("form", [*FORMS, "x.xlsx"])
def test_the_same_version_and_choice_give_the_same_bytes(form: str, data: str, tmp_path: Path) -> None:
    first = extract(f"{tmp_path}/{form}", data)
    again = extract(f"{tmp_path}/{form}", data, overwrite=True)
    assert again == first


def test_threads_and_process_change_nothing(data: str, tmp_path: Path) -> None:
    made = [
        extract(tmp_path / "x.parquet", data, version=1),
        extract(tmp_path / "x.csv.gz", data, version=1),
        extract(tmp_path / "x.arrow", data, version=1),
    ]
    code = (
        "import sys; from d22kit import extract\n"
        "for name in ('x.parquet', 'x.csv.gz', 'x.arrow'):\n"
        "    print(*extract(f'{sys.argv[1]}/{name}', sys.argv[2], version=1, overwrite=True).sha256.values())"
    )
    threads = {**os.environ, "POLARS_MAX_THREADS": "1", "TZ": "Asia/Dubai", "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), data],
        env=threads,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [digest for report in made for digest in report.sha256.values()]


@pytest.mark.parametrize("form", ["x.parquet", "x.csv", "x.arrow", "folder"])
def test_batches_change_no_row(
    form: str, data: str, expected: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, size in (
        (rows, "BATCH", 300),
        (rows, "AHEAD", 3),
        (outcomes, "KNOWN", 100),
        (formats, "GROUP", 500),
        (formats, "SPILL", 900),
    ):
        monkeypatch.setattr(module, name, size)
    made = extract(tmp_path / form, data)
    assert_frame_equal(opened(made.path).sort(VERSION, KEY), expected)
    if form == "x.parquet":
        groups = pq.read_metadata(made.path)
        *sizes, _ = [groups.row_group(index).num_rows for index in range(groups.num_row_groups)]
        assert len(sizes) > 2
        assert min(sizes) >= 500
    if form == "folder":
        assert made.files > 1


def test_every_case_is_read_once_and_those_of_near_batches_together(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[pl.DataFrame] = []

    def reading(cases: pl.DataFrame) -> pl.DataFrame:
        read.append(cases.select(outcomes.CASE))
        return classify_distinct(cases)

    monkeypatch.setattr(rows, "BATCH", 300)
    monkeypatch.setattr(outcomes, "classify_distinct", reading)
    made = extract(tmp_path / "x.parquet", data)
    assert not pl.concat(read).is_duplicated().any()
    assert 0 < len(read) <= made.rows / rows.BATCH / 2


def test_times_finer_than_milliseconds_are_kept(tmp_path: Path) -> None:
    fine = datetime(2026, 5, 17, 6, 18, 44, 220_001, tzinfo=UTC)
    frame = (
        generate(50, seed=1)
        .cast(dict(STORED))
        .with_columns(pl.lit(fine).cast(STORED[VERSION]).alias(VERSION))
    )
    commit_rows(Store.create(tmp_path / "store", "https://api.example.test lender acme"), frame, [], State())
    for form in ("x.parquet", "x.csv", "x.arrow"):
        made = extract(tmp_path / form, tmp_path / "store")
        assert opened(made.path)[VERSION].unique().to_list() == [fine]


# What goes in


def test_ranges_columns_and_conditions(data: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    middle = expected[VERSION][1_500]

    def chosen(**asked: Any) -> pl.DataFrame:
        return opened(extract(tmp_path / "x.parquet", data, overwrite=True, **asked).path)

    same(chosen(since=middle, on="updated_at"), expected.filter(pl.col(VERSION) >= middle))
    same(chosen(until=middle), expected.filter(pl.col("created_at") < middle))
    for where, meant in (
        ({"platform": "EMAIL"}, pl.col("platform") == "EMAIL"),
        ({"delivery_code": [None, ""]}, pl.col("delivery_code").fill_null("") == ""),
        ({"delivery_state": ["bounced"]}, pl.col("delivery_state") == "bounced"),
        (pl.col("created_at") >= middle, pl.col("created_at") >= middle),
        (pl.col("platform").cat.starts_with("E"), pl.col("platform").str.starts_with("E")),
        (pl.any_horizontal(pl.col("^bounce_.*$").is_null()), pl.col("bounce_category").is_null()),
        (
            (pl.col("delivery_state") == "read") & (pl.col("platform") != "SMS"),
            (pl.col("delivery_state") == "read") & (pl.col("platform") != "SMS"),
        ),
    ):
        same(chosen(where=where), expected.filter(meant))
    narrow = chosen(columns=["updated_at", "updated_date", KEY], classified=False)
    assert narrow.columns == ["updated_at", "updated_date", KEY]
    assert narrow["updated_date"].equals(narrow["updated_at"].dt.date().alias("updated_date"))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (pl.col("platform") == "EMAIL", '[(col("platform")) == ("EMAIL")]'),
        (
            pl.col(DETAIL).str.contains(SECRET) & (pl.col("platform") == "SMS"),
            "a condition on delivery_error_detail, platform holds (its values are withheld)",
        ),
        (
            pl.col(DETAIL).str.contains("971501234567"),
            "a condition on delivery_error_detail holds (its values are withheld)",
        ),
        (
            pl.col("extra").str.contains('"name":"Ana Silva"'),
            "a condition on extra holds (its values are withheld)",
        ),
        ({"extra": ['{"name": "Ana Silva"}']}, {"extra": "1 values"}),
        ({DETAIL: [f"no {SECRET}", None]}, {DETAIL: ["no <email>", None]}),
    ],
)
@pytest.mark.filterwarnings("ignore:No row met")
def test_the_description_tells_the_condition_and_no_personal_data_in_it(
    where: Any, said: Any, data: str, tmp_path: Path
) -> None:
    assert extract(tmp_path / "x.parquet", data, where=where).about["where"] == said


@pytest.mark.parametrize("form", ["x.parquet", "x.arrow"])
def test_an_earlier_version_gives_its_rows_and_says_what_it_said_then(form: str, tmp_path: Path) -> None:
    frame = generate(300, seed=5).cast(dict(STORED)).sort(VERSION)
    store = Store.create(tmp_path / "store", "https://api.example.test lender acme")
    until = frame[VERSION][199]
    commit_rows(store, frame[:200], [], State(covered=((None, until),)))
    then = extract(tmp_path / form, store.root)
    opened_then = Store.open(store.root)
    commit_rows(store, frame[200:], [], State(covered=((None, frame[VERSION][-1]),)))
    later = extract(tmp_path / form, store.root, version=1, overwrite=True)
    assert (later.version, later.rows) == (1, 200)
    assert (later.about, later.sha256) == (then.about, then.sha256)
    assert datetime.fromisoformat(later.about["complete_up_to"]) == until
    assert opened_then.state().watermark == until
    assert [commit["version"] for commit in opened_then.history()] == [1, 0]
    assert extract(tmp_path / form, store.root, overwrite=True).about["complete_up_to"] > iso(until)


def test_conditions_that_read_alike_are_told_apart(data: str, tmp_path: Path) -> None:
    hour = pl.col("created_at").dt.convert_time_zone
    conditions = [
        hour("Asia/Dubai").dt.hour() < 6,
        hour("America/New_York").dt.hour() < 6,
        pl.col(KEY).is_in(pl.Series(["a", "b"])),
        pl.col(KEY).is_in(pl.Series(["a", "c"])),
        pl.col(KEY).is_in([str(n) for n in range(9_000)]),
        pl.col(KEY).is_in([str(n) for n in range(9_001)]),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        made = [extract(tmp_path / f"{n}.arrow", data, where=test) for n, test in enumerate(conditions)]
        with pl.Config(fmt_table_cell_list_len=1):
            again = extract(tmp_path / "again.arrow", data, where=conditions[4])
    told = [one.about["where_exact"] for one in made]
    assert len(set(told)) == len(told)
    assert all(len(exact) <= conditions_module.MOST_EXACT for exact in told)
    assert again.about == made[4].about
    again_chosen = pl.Expr.deserialize(io.StringIO(told[0]), format="json")
    assert d22kit.load(data).filter(again_chosen).height == made[0].rows


@pytest.mark.filterwarnings("ignore:No row met")
def test_the_order_and_number_of_values_change_nothing(data: str, tmp_path: Path) -> None:
    values = [["SMS", "EMAIL", None], ["EMAIL", None, "SMS", "SMS"], {"SMS", None, "EMAIL"}]
    made = [
        extract(tmp_path / f"{n}.parquet", data, where={"platform": these}) for n, these in enumerate(values)
    ]
    assert len({next(iter(one.sha256.values())) for one in made}) == 1
    for form in FORMS:
        empty = extract(f"{tmp_path}/{form}", data, where={"delivery_code": [""]}, overwrite=True)
        assert verify(empty.path).ok


@pytest.mark.parametrize("form", FORMS)
def test_a_column_whose_only_word_is_empty_is_written(form: str, tmp_path: Path) -> None:
    frame = generate(20).cast(dict(STORED)).with_columns(pl.lit("").alias("platform"))
    store = Store.create(tmp_path / "store", "https://api.example.test lender acme")
    commit_rows(store, frame, [], State())
    made = extract(f"{tmp_path}/{form}", store.root)
    assert verify(made.path).ok
    assert opened(made.path)["platform"].to_list() == [""] * 20
    assert '"enum": []' not in Path(made.path + DESCRIPTOR).read_text(encoding="utf-8")


@pytest.mark.parametrize("moment", ["1899-12-31T23:59:59.999Z", "2026-01-01T00:00:00.000001Z"])
def test_a_time_that_excel_would_change_is_refused(moment: str, tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    at = pl.lit(moment).str.to_datetime(time_unit="us", time_zone="UTC")
    frame = generate(20).cast(dict(STORED)).with_columns(at.alias("created_at"))
    store = Store.create(tmp_path / "store", "https://api.example.test lender acme")
    commit_rows(store, frame, [], State())
    with pytest.raises(ExtractError, match="Excel holds times from 1900-03-01 on, to the millisecond"):
        extract(tmp_path / "x.xlsx", store.root)
    assert not (tmp_path / "x.xlsx").exists()


def test_an_empty_choice_is_an_extract_without_rows_and_a_warning(data: str, tmp_path: Path) -> None:
    for form in (*FORMS, "x.xlsx", "hive"):
        by = ("platform", "bounce_category") if form == "hive" else None
        with pytest.warns(UserWarning, match="no rows"):
            made = extract(f"{tmp_path}/{form}", data, since="2031-01-01", partition_by=by, overwrite=True)
        assert made.rows == 0
        assert verify(made.path).ok
        if form != "x.xlsx":
            assert opened(made.path).columns == [*NAMES, *OUTCOMES]


@pytest.mark.parametrize("form", FORMS)
def test_a_condition_on_outcomes_that_are_not_chosen(form: str, data: str, tmp_path: Path) -> None:
    wanted = d22kit.classify(d22kit.load(data)).filter(pl.col("delivery_state") == "bounced")
    made = extract(f"{tmp_path}/{form}", data, columns=[KEY, VERSION], where={"delivery_state": "bounced"})
    assert opened(made.path).sort(KEY).equals(wanted.select(KEY, VERSION).sort(KEY))


def test_days_are_directories_without_being_named_as_a_column(
    data: str, expected: pl.DataFrame, tmp_path: Path
) -> None:
    made = extract(tmp_path / "days", data, partition_by="updated_date")
    same(opened(made.path).drop("updated_date"), expected)
    assert opened(made.path)["updated_date"].null_count() == 0


@pytest.mark.filterwarnings("ignore:No row met")
@pytest.mark.parametrize("by", [None, "bounce_category", ["platform", "delivery_code"], "updated_date"])
@pytest.mark.parametrize("asked", [{}, {"where": {"platform": ["NONE"]}}])
def test_a_directory_opens_as_its_readme_says(
    by: Any, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    codes = pl.Series(["250", "0012", "5.10", None] * 10, dtype=pl.String)
    frame = generate(40, seed=3).cast(dict(STORED)).with_columns(codes.alias("delivery_code"))
    store = Store.create(tmp_path / "store", "https://api.example.test lender acme")
    commit_rows(store, frame, [], State())
    made = extract("folder", "store", partition_by=by, **asked)
    lines = Path("folder.README.md").read_text(encoding="utf-8").splitlines()
    wanted = opened("folder").sort(KEY)
    for reader, library in (("pandas", pd), ("polars", pl), ("duckdb", duckdb)):
        (line,) = (line for line in lines if line.startswith(f"{reader}."))
        found = eval(line, {reader: library, "pyarrow": pa})
        if reader == "pandas":
            found = pl.from_pandas(found.astype(dict.fromkeys(found.select_dtypes("category"), "str")))
        found = found.pl() if reader == "duckdb" else found.lazy().collect()
        assert found.height == made.rows
        for name in ("delivery_code", *([by] if isinstance(by, str) else by or [])):
            told = found.sort(KEY)[name].cast(pl.String)
            assert_series_equal(told, wanted[name].cast(pl.String))


def test_a_vocabulary_word_like_a_formula_is_valid_by_frictionless(tmp_path: Path) -> None:
    frame = generate(50).cast(dict(STORED)).with_columns(pl.lit("=SUM").alias("platform"))
    store = Store.create(tmp_path / "store", "https://api.example.test lender acme")
    commit_rows(store, frame, [], State())
    made = extract(tmp_path / "x.csv", tmp_path / "store")
    assert frictionless.validate(made.path + DESCRIPTOR).valid
    assert opened(made.path)["platform"].to_list() == ["=SUM"] * 50


def test_a_suffix_in_capitals_is_the_same_format(data: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    made = extract(tmp_path / "X.CSV.GZ", data)
    assert gzip.decompress(Path(made.path).read_bytes()).startswith(b"\xef\xbb\xbf")
    same(opened(made.path), expected)


# Bad input


def test_rows_that_would_be_blank_lines_of_csv_are_refused(data: str, tmp_path: Path) -> None:
    with pytest.raises(ExtractError, match="blank lines"):
        extract(tmp_path / "x.csv", data, columns=["bounce_category"])
    assert not list(tmp_path.iterdir())


def test_a_text_that_excel_would_cut_is_refused(tmp_path: Path) -> None:
    frame = generate(1).cast(dict(STORED)).with_columns(pl.lit("😀" * 20_000).alias("delivery_code"))
    store = Store.create(tmp_path / "store", "https://api.example.test lender acme")
    commit_rows(store, frame, [], State())
    with pytest.raises(ExtractError, match="longer than"):
        extract(tmp_path / "x.xlsx", tmp_path / "store")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"path": "x.json"}, "no known suffix"),
        ({"path": "x.csv", "partition_by": "platform"}, "partition_by makes a directory"),
        ({"partition_by": "nonsense"}, "Unknown columns: 'nonsense'"),
        ({"partition_by": "created_at"}, "updated_date"),
        ({"partition_by": ["platform", "platform"]}, "twice"),
        ({"partition_by": "platform", "columns": ["platform"]}, "leaves no column"),
        ({"columns": ["nonsense"]}, "Unknown columns: 'nonsense'. There are: public_id"),
        ({"columns": ["delivery_state"], "classified": False}, "Unknown columns"),
        ({"columns": [KEY, KEY]}, "twice"),
        ({"columns": []}, "none"),
        ({"columns": 5}, "columns is a int; give names of columns"),
        ({"partition_by": pl.col("platform")}, "partition_by is a Expr"),
        ({"masked": None}, "masked=None is neither True nor False"),
        ({"classified": 0}, "classified=0 is neither"),
        ({"overwrite": "no"}, "overwrite='no' is neither"),
        ({"path": "x\0.csv"}, "null character"),
        ({"on": "seen_at"}, "no time column"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "does not lie before"),
        ({"since": "yesterday"}, "no time"),
        ({"where": {"nonsense": ["x"]}}, "Unknown columns"),
        ({"where": {"created_at": ["x"]}}, "created_at is a time"),
        ({"where": {"platform": [1]}}, "texts or None"),
        ({"where": "platform = 'EMAIL'"}, "Polars expression"),
        ({"where": pl.col("nonsense") == 1}, "Unknown columns"),
        ({"where": pl.col("created_at") == pl.col("created_at").max()}, "each row by itself"),
        ({"where": pl.col("public_id").is_first_distinct()}, "each row by itself"),
        ({"where": pl.col("platform") + 1}, "no condition"),
        ({"where": pl.col("platform")}, "no condition"),
        ({"where": pl.col("platform").to_physical() == 0}, "another one in every process"),
        ({"where": {"platform": 5}}, "texts or None"),
        ({"where": pl.col("platform").map_elements(bool, pl.Boolean) & True}, "calls Python"),
        ({"where": pl.col("delivery_code").cast(pl.Int64) > 5}, "cannot be judged on every row"),
        ({"where": (pl.col("delivery_code") + pl.col("delivery_state")).cast(pl.Int64) > 5}, "every row"),
    ],
)
def test_wrong_arguments_are_refused(asked: dict[str, Any], says: str, data: str, tmp_path: Path) -> None:
    path = tmp_path / asked.pop("path", "x")
    with pytest.raises(InputError, match=says):
        extract(path, data, **asked)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten_unless_told(data: str, tmp_path: Path) -> None:
    for form in ("x.csv", "folder"):
        extract(tmp_path / form, data, version=1)
        before = verify(tmp_path / form)
        with pytest.raises(ExtractError, match="overwrite=True"):
            extract(tmp_path / form, data)
        assert verify(tmp_path / form) == before
        assert extract(tmp_path / form, data, overwrite=True).version == 2
        assert verify(tmp_path / form).ok
    assert len(list(tmp_path.iterdir())) == 6


def test_a_directory_with_other_files_is_never_overwritten(data: str, tmp_path: Path) -> None:
    extract(tmp_path / "folder", data)
    theirs = [
        tmp_path / name
        for name in ("folder/thesis.docx", "home/letter.txt", "secret/.env", "sub/a/_notes.csv")
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("ten years")
        with pytest.raises(ExtractError, match="not overwritten"):
            extract(tmp_path / path.relative_to(tmp_path).parts[0], data, overwrite=True)
        assert path.read_text() == "ten years"


def test_what_is_no_plain_file_is_kept_as_well(data: str, tmp_path: Path) -> None:
    theirs = Path(extract(tmp_path / "folder", data).path, "theirs")
    for make in (
        lambda: theirs.symlink_to("nowhere"),
        lambda: theirs.symlink_to(data),
        lambda: os.mkfifo(theirs),
    ):
        make()
        with pytest.raises(ExtractError, match="'theirs', which is of no extract"):
            extract(tmp_path / "folder", data, overwrite=True)
        theirs.unlink()


@pytest.mark.parametrize("place", ["conversations/x.parquet", "conversations", "quarantine", "staging"])
def test_an_extract_never_lies_among_the_files_of_a_store(place: str, data: str, tmp_path: Path) -> None:
    store = shutil.copytree(data, tmp_path / "store")
    (tmp_path / "link").symlink_to(store)
    before = sorted(store.rglob("*"))
    for path in (f"{store}/{place}", f"{tmp_path}/other/../link/{place}"):
        with pytest.raises(ExtractError, match=f"of the store at {store}"):
            extract(path, store, overwrite=True)
    with pytest.raises(ExtractError, match="of the store"):
        extract(next(store.rglob("*.parquet")), store, overwrite=True)
    assert sorted(store.rglob("*")) == before
    assert extract(store / "beside.parquet", store).ok


def test_the_working_directory_is_never_replaced(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("", ".", "..", "./", "/"):
        with pytest.raises(ExtractError, match="working directory"):
            extract(path, data, overwrite=True)
    (tmp_path / "sub").mkdir()
    assert extract("sub/../x.csv", data).path == str(tmp_path / "x.csv")
    (tmp_path / "far" / "off").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/off")
    assert Path(extract("link/../y.csv", data).path).samefile("link/../y.csv")


@pytest.mark.parametrize("path", [None, 5, b"x.csv"])
def test_what_is_no_path_is_refused(path: Any, data: str) -> None:
    with pytest.raises(InputError, match="no path"):
        extract(path, data)


def test_what_lies_where_a_description_goes_is_not_overwritten_unless_told(data: str, tmp_path: Path) -> None:
    for name, ending in (("x.parquet", DESCRIPTOR), ("folder", ".README.md"), ("folder", ".schema.json")):
        beside = tmp_path / (name + ending)
        beside.write_text("{}")
        with pytest.raises(ExtractError, match=f"{name}{ending} is there already"):
            extract(tmp_path / name, data)
        assert [*tmp_path.iterdir()] == [beside]
        beside.unlink()


def test_what_appears_while_an_extract_is_made_is_not_replaced(data: str, tmp_path: Path) -> None:
    target = Target.of(tmp_path / "x.parquet", (), overwrite=False)
    target.check()
    with target.room() as room:
        (room / "x.parquet").write_text("mine")
        (tmp_path / "x.parquet").write_text("theirs")
        with pytest.raises(ExtractError, match="already"):
            target.publish(room)
    assert (tmp_path / "x.parquet").read_text() == "theirs"


def test_what_appears_in_a_directory_while_it_is_made_anew_is_kept(data: str, tmp_path: Path) -> None:
    made = extract(tmp_path / "folder", data)
    target = Target.of(made.path, (), overwrite=True)
    target.check()
    with target.room() as room:
        (room / "folder").mkdir()
        Path(made.path, "theirs").write_text("theirs")
        with pytest.raises(ExtractError, match="'theirs', which is of no extract"):
            target.publish(room)
    assert Path(made.path, "theirs").read_text() == "theirs"


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("form", ["x.parquet", "folder"])
def test_one_that_is_killed_while_it_is_put_in_place_is_put_back_by_the_next(
    form: str, there: bool, data: str, tmp_path: Path
) -> None:
    code = (
        "import os, sys; from pathlib import Path; from d22kit.extracts import extract\n"
        "left = int(sys.argv[3])\n"
        "def counted(act):\n"
        "    def counting(*args):\n"
        "        global left\n"
        "        left -= 1\n"
        "        return os._exit(9) if left < 0 else act(*args)\n"
        "    return counting\n"
        "Path.replace, Path.rename = counted(Path.replace), counted(Path.rename)\n"
        "extract(*sys.argv[1:3], overwrite=True)"
    )
    for moves in range(10):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        old = extract(tmp_path / form, data, version=1).rows if there else None
        command = [sys.executable, "-c", code, str(tmp_path / form), data, str(moves)]
        done = subprocess.run(command, check=False)
        target = Target.of(tmp_path / form, (), overwrite=False)
        with suppress(ExtractError):
            target.check()
        if done.returncode == 0:
            break
        if old is None and not (tmp_path / form).exists():
            assert not list(tmp_path.iterdir())
        else:
            assert verify(tmp_path / form).ok
            assert verify(tmp_path / form).rows == old
        assert not list(tmp_path.glob(".*"))
        assert extract(tmp_path / form, data, overwrite=there).ok
    assert moves == len(target._beside) + 1 + (there and target.folder)


@pytest.mark.parametrize("form", ["x.parquet", "folder"])
def test_an_overwrite_that_fails_leaves_what_was_there(
    form: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = extract(tmp_path / form, data, version=1)
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if self.name == form:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ExtractError, match=r"No space left on device. Nothing was left behind\."):
        extract(tmp_path / form, data, overwrite=True)
    assert verify(made.path) == made
    assert not list(tmp_path.glob(".*"))


def test_a_directory_in_place_of_a_file(data: str, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").mkdir()
    (tmp_path / "folder").write_text("")
    for form in ("x.parquet", "folder"):
        with pytest.raises(ExtractError, match="already"):
            extract(tmp_path / form, data, overwrite=True)
    with pytest.raises(ExtractError, match="There is no directory"):
        extract(tmp_path / "missing" / "x.parquet", data)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
@pytest.mark.parametrize("form", [*FORMS, "x.xlsx"])
def test_no_space_leaves_nothing(form: str, data: str, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(ExtractError, match=r"Nothing was left behind\. Mend that"):
            extract(f"{tmp_path}/{form}", data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a place that not even root may write to")
def test_no_permission(data: str) -> None:
    with pytest.raises(ExtractError, match=r"not permitted|Permission denied"):
        extract("/sys/kernel/x.parquet", data)


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
@pytest.mark.parametrize("form", ["x.parquet", "folder"])
def test_what_a_killed_extract_leaves_no_one_sees_and_the_next_removes(
    form: str, data: str, tmp_path: Path
) -> None:
    # Says when all is written but not yet in its place, and waits there.
    code = (
        "import sys; from d22kit.extracts import extract, places\n"
        "def publish(self, room): print('made', flush=True); sys.stdin.read()\n"
        "places.Target.publish = publish\n"
        "extract(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / form), data]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        [room] = tmp_path.iterdir()
        extract(tmp_path / form, data)
        assert room.exists(), "a living one's work is let be"
        process.kill()
    assert room.name.startswith(".")
    assert verify(tmp_path / form).ok
    extract(tmp_path / form, data, overwrite=True)
    assert not list(tmp_path.glob(".*"))


def test_a_failure_half_way_leaves_what_was_there(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "EXCEL_ROWS", 100)
    with pytest.raises(ExtractError, match="An Excel sheet holds 100 rows"):
        extract(tmp_path / "x.xlsx", data)
    assert not list(tmp_path.iterdir())


def test_a_text_too_long_for_excel(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "EXCEL_TEXT", 30)
    with pytest.raises(ExtractError, match="longer than the 30 characters"):
        extract(tmp_path / "x.xlsx", data)


def test_a_vacuumed_version(tmp_path: Path) -> None:
    frame = generate(200, seed=1).cast(dict(STORED))
    store = Store.create(tmp_path / "store", "https://api.example.test lender acme")
    commit_rows(store, frame, [], State())
    commit_rows(
        store, frame.with_columns(pl.lit("SENT").alias("status"), pl.col(VERSION) + timedelta(1)), [], State()
    )
    d22kit.vacuum(store.root, keep=timedelta(0))
    with pytest.raises(VersionNotFoundError, match="vacuumed"):
        extract(tmp_path / "x.parquet", store.root, version=1)
    with pytest.raises(VersionNotFoundError, match="no version 9"):
        extract(tmp_path / "x.parquet", store.root, version=9)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


# Damage


def damage(kind: str, path: Path) -> None:
    part = next(path.rglob("*.parquet"))
    content = bytearray(part.read_bytes())
    if kind == "flipped":
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
    elif kind == "cut":
        part.write_bytes(content[:-100])
    elif kind == "missing":
        part.unlink()
    elif kind == "added":
        shutil.copy(part, path / "more.parquet")
    elif kind == "schema":
        Path(f"{path}.schema.json").unlink()
    elif kind == "readme":
        Path(f"{path}.README.md").write_text("Nothing was masked.")
    else:
        place = Path(str(path) + DESCRIPTOR)
        package = json.loads(place.read_text(encoding="utf-8"))
        package["d22kit"] |= {"version": 1} if kind == "version" else {"rows": 7}
        place.write_text(json.dumps(package), encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("flipped", "SHA-256"),
        ("cut", "bytes"),
        ("missing", "is missing"),
        ("added", "does not belong"),
        ("schema", "is missing"),
        ("readme", "has changed since"),
        ("version", "differ in version"),
        ("rows", "says 7"),
    ],
)
def test_damage_is_found(kind: str, says: str, data: str, tmp_path: Path) -> None:
    made = extract(tmp_path / "folder", data, partition_by="platform")
    assert verify(made.path) == made
    damage(kind, Path(made.path))
    report = verify(made.path)
    assert not report.ok
    assert any(says in problem for problem in report.problems), report.problems
    assert says in str(report)
    assert says in report._repr_html_()


def test_a_description_that_is_no_end_of_brackets_is_damaged(data: str, tmp_path: Path) -> None:
    made = extract(tmp_path / "x.csv", data)
    Path(made.path + DESCRIPTOR).write_text("[" * 100_000)
    for act in (verify, d22kit.load):
        with pytest.raises(ExtractError, match="is damaged"):
            act(made.path)


@pytest.mark.parametrize("form", ["x.parquet", "x.arrow"])
def test_a_description_of_another_file_is_found(form: str, data: str, tmp_path: Path) -> None:
    made = extract(tmp_path / form, data)
    place = Path(made.path + DESCRIPTOR)
    package = json.loads(place.read_text(encoding="utf-8"))
    package["d22kit"]["lender"] = "another"
    place.write_text(json.dumps(package), encoding="utf-8")
    assert any("differ in lender" in problem for problem in verify(made.path).problems)


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_extract_is_not_loaded(form: str, data: str, tmp_path: Path) -> None:
    place = Path(extract(f"{tmp_path}/{form}", data).path)
    file = next(place.rglob("*.parquet")) if place.is_dir() else place
    content = file.read_bytes()
    for damaged in (content[:-1], b"", content[: len(content) // 2] + bytes([255] * 2_000), None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        with pytest.raises(ExtractError, match="damaged"):
            d22kit.load(place)
        assert not verify(place).ok
    for offset in range(0, len(content), len(content) // 40):
        file.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
        with pytest.raises(ExtractError, match="has changed since it was written"):
            d22kit.load(place)
    file.write_bytes(bytes([255]) * len(content))
    with pytest.raises(ExtractError, match="d22kit verify"):
        d22kit.scan(place)


@pytest.mark.parametrize(
    "read",
    [
        lambda place: (d22kit.load(place).height, True),
        lambda place: (verify(place).rows, verify(place).ok),
        lambda place: (d22kit.scan(place).collect().height, True),
    ],
)
@pytest.mark.parametrize("form", ["x.parquet", "x.csv", "folder"])
def test_an_extract_that_is_replaced_while_it_is_read_is_read_again(
    form: str,
    read: Callable[[Path], tuple[int, bool]],
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, new = tmp_path / form, tmp_path / "new"
    new.mkdir()
    extract(place, data, version=1)
    made = extract(new / form, data, version=2)
    # As it is between two of the acts of an overwrite: the new description is there, and the rows not yet.
    for beside in new.glob(f"{form}.*"):
        beside.replace(tmp_path / beside.name)
    turn(str(place)).touch()

    def go_on(_: float) -> None:
        place.replace(new / "old")
        (new / form).replace(place)
        turn(str(place)).unlink()

    monkeypatch.setattr("time.sleep", go_on)
    rows, good = read(place)
    assert good
    assert rows == made.rows
    assert not new.joinpath(form).exists()


@pytest.mark.parametrize("name", ["x.parquet", "folder"])
@pytest.mark.parametrize("value", [None, "x", 5, -1.5, [], [{}], {}])
def test_a_damaged_description_is_no_riddle(name: str, value: Any, data: str, tmp_path: Path) -> None:
    place = tmp_path / name
    extract(place, data, version=1, partition_by="platform" if name == "folder" else None)
    described = Path(f"{place}{DESCRIPTOR}")
    good = json.loads(described.read_text(encoding="utf-8"))
    refused = 0
    for where in (good, good["d22kit"], good["resources"][0]):
        for key in list(where):
            kept = where[key]
            where[key] = value
            described.write_text(json.dumps(good), encoding="utf-8")
            where[key] = kept
            try:
                str(verify(place))
                d22kit.load(place, columns=KEY)
            except ExtractError:
                refused += 1
    assert refused >= 10


def test_a_renamed_extract_is_still_one(data: str, tmp_path: Path) -> None:
    for form, name in (("x.csv", "y.csv"), ("folder", "other")):
        extract(tmp_path / form, data)
        for path in tmp_path.glob(f"{form}*"):
            path.rename(tmp_path / path.name.replace(form, name))
        if name == "other":
            assert [
                problem.endswith("schema.json is missing.") for problem in verify(tmp_path / name).problems
            ] == []
        assert verify(tmp_path / name).ok
        assert opened(tmp_path / name).height == 3_000


def test_what_is_no_extract(data: str, tmp_path: Path) -> None:
    with pytest.raises(ExtractError, match="no description"):
        verify(tmp_path / "x.parquet")
    assert open_extract(tmp_path / "x.parquet") is None
    assert open_extract(data) is None
    made = extract(tmp_path / "x.parquet", data)
    Path(made.path + DESCRIPTOR).write_text('{"d22kit": {"layout": 1}, "resources": [')
    with pytest.raises(ExtractError, match="damaged"):
        verify(made.path)
    Path(made.path + DESCRIPTOR).write_text('{"d22kit": {"layout": 99}, "resources": []}')
    with pytest.raises(ExtractError, match="Upgrade"):
        verify(made.path)
    Path(made.path + DESCRIPTOR).unlink()
    assert opened(made.path).height == 3_000
    Path(made.path).write_bytes(b"PAR1 nonsense")
    with pytest.raises(ExtractError, match="cannot be opened"):
        open_extract(made.path)


def test_excel_extracts_are_for_people(data: str, tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    extract(tmp_path / "x.xlsx", data)
    with pytest.raises(ExtractError, match="for people"):
        open_extract(tmp_path / "x.xlsx")


# The page


def test_what_the_page_shows_runs(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parent.parent / "docs" / "extracts.md"
    shutil.copytree(data, tmp_path / "tour")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"d22kit": d22kit, "pl": pl, "pd": pd, "duckdb": duckdb}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    assert names["report"].ok


# Size


def test_a_row_takes_at_most_15_bytes(tmp_path: Path) -> None:
    frame = generate(100_000).cast(dict(STORED)).sort(VERSION)
    commit_rows(Store.create(tmp_path / "store", "https://api.example.test lender acme"), frame, [], State())
    made = extract(tmp_path / "x.parquet", tmp_path / "store")
    assert made.bytes / made.rows <= 15


# Object storage


def test_verify_tells_a_file_that_was_described_when_it_was_damaged(data: str, tmp_path: Path) -> None:
    for form in ("x.parquet", "x.arrow", "folder"):
        made = extract(tmp_path / form, data)
        package = json.loads(Path(made.path + DESCRIPTOR).read_text(encoding="utf-8"))
        file = tmp_path / package["resources"][0]["path"]
        file.write_bytes(b"not,a,file\n")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        package["resources"][0] |= {"bytes": file.stat().st_size, "hash": f"sha256:{digest}"}
        Path(made.path + DESCRIPTOR).write_text(json.dumps(package), encoding="utf-8")
        (problem,) = verify(made.path).problems
        assert "another one when it was described" in problem
    Path(f"{made.path}.schema.json").write_text("garbage")
    assert verify(made.path).problems[1:] == (f"{made.path}.schema.json has changed since it was written.",)
