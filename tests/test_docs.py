"""What the docs show works: the README's tour runs, and each question equals its SQL."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

import d22kit

ROOT = Path(__file__).parent.parent
SQL = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
PREPARE = SQL[SQL.index("local = ") : SQL.index("```", SQL.index("local = "))]
PAIRS = re.findall(r"## (\w+)\n\n```python\n(.*?)```\n\n```sql\n(.*?)```", SQL, re.DOTALL)


@pytest.fixture(scope="module")
def engine() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def test_every_section_of_the_sql_page_is_a_pair() -> None:
    assert [name for name, _, _ in PAIRS] == re.findall(r"^## (\w+)", SQL, re.MULTILINE)


@pytest.mark.parametrize(("call", "query"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_a_question_equals_its_sql(
    call: str, query: str, lender_frame: pl.DataFrame, engine: duckdb.DuckDBPyConnection
) -> None:
    answer = eval(call, {"d22kit": d22kit, "df": lender_frame, "pl": pl})
    given: dict[str, object] = {"d22kit": d22kit, "df": lender_frame, "pl": pl}
    exec(PREPARE, given)
    engine.register("conversations", given["conversations"].to_arrow())
    want = engine.sql(query).pl()
    keys = [name for name in want.columns if name in KEYS]
    have = answer.select(want.columns)
    if counts := COUNTS & set(want.columns):
        have = have.filter(pl.any_horizontal(pl.col(counts) > 0))
    if "period_start" in keys:
        have = have.with_columns(pl.col("period_start").dt.replace_time_zone(None))
    assert_frame_equal(tidy(have).sort(keys), tidy(want).sort(keys), check_dtypes=False)


def tidy(answer: pl.DataFrame) -> pl.DataFrame:
    """Text for categories, and UTC under its usual name."""
    return answer.with_columns(
        pl.col(pl.Categorical, pl.Enum).cast(pl.String),
        cs.datetime(time_zone="*").dt.convert_time_zone("UTC"),
    )


KEYS = {
    "topic",
    "value",
    "period_start",
    "platform",
    "weekday",
    "hour",
    "state",
    "category",
    "permanence",
    "age_band",
    "public_id",
}
COUNTS = {"rows", "attempted", "suppressed", "delivered", "inbound", "outbound", "n"}


def test_the_readme_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tour: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        exec(block, tour)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "tour",
        "volume.html",
        "report.html",
        "mail.parquet",
    }


def test_every_page_the_docs_point_to_is_there() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
