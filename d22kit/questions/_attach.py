"""Add columns to the rows of any frame, decided once per distinct combination of a few others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from d22kit.errors import InputError
from d22kit.questions._engines import Frame, _columns, _kind

__all__ = ["attach"]

Decide = Callable[[pl.DataFrame], pl.DataFrame]


def attach(frame: Frame, keys: Sequence[str], added: Sequence[str], decide: Decide) -> Any:
    """Return a frame of the same kind with the columns `added`, in the same order of rows.

    Parameters
    ----------
    frame
        Rows of any kind.
    keys
        The columns that the decision is made from; read as text.
    added
        The columns of text that `decide` adds; a column of that name is replaced.
    decide
        Given a frame of distinct keys, returns it with the columns added.

    Raises
    ------
    InputError
        Where the frame is none, or lacks a key.
    """
    kind = _kind(frame)
    if missing := [key for key in keys if key not in _columns(frame)]:
        raise InputError(
            f"An outcome is read from {', '.join(keys)}; this frame lacks {', '.join(missing)}. Keep them when "
            "you select."
        )
    return _ADDERS[kind](frame, list(keys), list(added), decide)


def _decided(rows: pl.DataFrame, keys: list[str], added: list[str], decide: Decide) -> pl.DataFrame:
    texts = rows.select(pl.col(keys).cast(pl.String))
    known = decide(texts.unique())
    return texts.join(known, on=keys, how="left", nulls_equal=True, maintain_order="left").select(added)


def _to_polars(frame: pl.DataFrame, keys: list[str], added: list[str], decide: Decide) -> pl.DataFrame:
    return frame.with_columns(_decided(frame, keys, added, decide))


def _to_lazy(frame: pl.LazyFrame, keys: list[str], added: list[str], decide: Decide) -> pl.LazyFrame:
    texts = frame.select(pl.col(keys).cast(pl.String))
    of = {key: f"_of_{key}" for key in keys}
    known = decide(texts.unique().collect(engine="streaming")).rename(of).lazy()
    rows = frame.drop(added, strict=False).with_columns(
        pl.col(key).cast(pl.String).alias(of[key]) for key in keys
    )
    joined = rows.join(known, on=list(of.values()), how="left", nulls_equal=True, maintain_order="left")
    return joined.drop(of.values())


def _to_pandas(frame: Any, keys: list[str], added: list[str], decide: Decide) -> Any:
    texts = {key: frame[key].astype(object).where(frame[key].notna(), None).tolist() for key in keys}
    known = _decided(pl.DataFrame(texts, dict.fromkeys(keys, pl.String), strict=False), keys, added, decide)
    return frame.assign(**{name: known[name].to_list() for name in added})


def _to_arrow(frame: Any, keys: list[str], added: list[str], decide: Decide) -> Any:
    known = _decided(pl.DataFrame(frame.select(keys)), keys, added, decide).to_arrow()
    table = frame.drop_columns([name for name in added if name in frame.column_names])
    for name in added:
        table = table.append_column(name, known[name])
    return table


def _to_duckdb(frame: Any, keys: list[str], added: list[str], decide: Decide) -> Any:
    texts = frame.project(", ".join(f"{_quoted(key)}::VARCHAR AS {_quoted(key)}" for key in keys))
    known = decide(texts.distinct().pl()).to_arrow()
    kept = [f"r.{_quoted(name)}" for name in frame.columns if name not in added]
    same = [f"r.{_quoted(key)}::VARCHAR IS NOT DISTINCT FROM k.{_quoted(key)}" for key in keys]
    columns = ", ".join([*kept, *(f"k.{_quoted(name)}" for name in added)])
    # A join of several threads loses the order of rows, so their numbers bring it back.
    numbered = "(SELECT *, row_number() OVER () AS _place FROM rows)"
    query = f"SELECT {columns} FROM {numbered} r LEFT JOIN known k ON {' AND '.join(same)} ORDER BY r._place"  # noqa: S608 - names, quoted
    assert known.num_columns  # DuckDB finds the table by the name of this variable
    return frame.query("rows", query)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _to_spark(frame: Any, keys: list[str], added: list[str], decide: Decide) -> Any:
    from pyspark.sql import functions as F  # noqa: N812 - Spark's own idiom

    distinct = frame.select(*(F.col(key).cast("string") for key in keys)).distinct().collect()
    decided = decide(
        pl.DataFrame([tuple(row) for row in distinct], dict.fromkeys(keys, pl.String), orient="row")
    )
    of = [f"_of_{key}" for key in keys]
    types = ", ".join(f"{name} string" for name in [*of, *added])
    known = frame.sparkSession.createDataFrame(decided.select(*keys, *added).rows(), types)
    rows = frame.drop(*added)
    same = [rows[key].cast("string").eqNullSafe(known[name]) for key, name in zip(keys, of, strict=True)]
    return rows.join(F.broadcast(known), same, "left").drop(*of)


_ADDERS: dict[str, Callable[[Any, list[str], list[str], Decide], Any]] = {
    "polars": _to_polars,
    "lazy": _to_lazy,
    "pandas": _to_pandas,
    "pyarrow": _to_arrow,
    "duckdb": _to_duckdb,
    "pyspark": _to_spark,
}
