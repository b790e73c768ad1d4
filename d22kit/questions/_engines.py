"""Any frame of rows in, the same kind out: the one place that tells Polars, pandas, Arrow and engines apart."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from d22kit import schema
from d22kit.errors import InputError

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

__all__ = ["TIMES", "Frame", "give_back", "group_columns", "open_rows", "run"]

Frame = Any
"""Rows of D22: Polars (eager or lazy), pandas, a PyArrow table, a DuckDB relation or a PySpark DataFrame."""

TIMES = (schema.CREATED, schema.VERSION)
WORDS = tuple(column.name for column in schema.COLUMNS if column.kind != "time")


def group_columns(frame: Frame, by: str | Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Return the columns to group by, checked against the frame.

    Parameters
    ----------
    by
        One column name or several.
    taken
        Names that the answer needs, which a group may not have.

    Raises
    ------
    InputError
        Where a column is not in the frame, is named twice, or has a name the answer needs.
    """
    if not isinstance(by, Iterable):
        raise InputError(f"by={by!r} is no column name. Give one, or a list of them, or leave it out.")
    names = [by] if isinstance(by, str) else list(by)
    known = _columns(frame)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"by={name!r} is no column of this frame. It has: {', '.join(known)}.{hint}")
        if name in {*taken, "hour", "rows", "latest"}:
            raise InputError(
                f"by={name!r} is a name that the answer needs. Rename the column in the frame first."
            )
        if name in TIMES:
            raise InputError(
                f"by={name!r} is the time itself. Group by time with every=, or round it in a new column."
            )
    if len(set(names)) < len(names):
        raise InputError(f"by={names!r} names a column twice.")
    return names


def open_rows(frame: Frame, columns: Iterable[str]) -> nw.LazyFrame[Any]:
    """Return some columns of a frame, lazily, with both times as microseconds since 1970 in UTC.

    Whole microseconds, since engines cut time in their session's zone. In-memory kinds are read through
    Polars, engines where they are.

    Raises
    ------
    InputError
        Where the frame is none, lacks a column of D22, or has one of the wrong type.
    """
    import narwhals.stable.v2 as nw

    names, known = list(dict.fromkeys(columns)), _columns(frame)
    if missing := [name for name in names if name not in known]:
        raise InputError(
            f"This frame is not D22's, or not all of it: {', '.join(missing)} missing. It has: "
            f"{', '.join(known) or 'no columns'}. A frame of d22kit.load() has them all; keep them when you select."
        )
    kind = _kind(frame)
    frame = _ENGINES[kind](frame, names) if kind in _ENGINES else _polars(frame, kind, names)
    _check_types(nw.from_native(frame), names)
    if kind == "duckdb":
        rows = frame.project(", ".join(_duckdb_column(name) for name in names))
    elif kind == "pyspark":
        rows = frame.select(*(_spark_column(frame, name) for name in names))
    else:
        times = [name for name in TIMES if name in names]
        rows = frame.with_columns(pl.col(name).cast(pl.Datetime("us")).dt.timestamp("us") for name in times)
    lazy: nw.LazyFrame[Any] = nw.from_native(rows)
    return lazy


def run(rows: nw.LazyFrame[Any]) -> pl.DataFrame:
    """Collect a lazy frame of any engine into Polars, in batches where the engine can."""
    native = rows.to_native()
    if isinstance(native, pl.LazyFrame):
        return native.collect(engine="streaming")
    result = rows.collect("polars").to_native()
    assert isinstance(result, pl.DataFrame)
    return result


def give_back(answer: pl.DataFrame, like: Frame, as_of: datetime | None = None) -> Any:
    """Return an answer as the kind of frame that was asked: its own kind in memory, else Polars.

    Columns that were categories come back as such. `as_of` goes into pandas' `attrs` and Arrow's metadata, and a
    `version` that the frame carried there goes along.
    """
    kind = _kind(like)
    if kind in ("polars", "lazy"):
        held = like.collect_schema()
        return _cast(
            answer, {n: held[n] for n in answer.columns if isinstance(held.get(n), pl.Categorical | pl.Enum)}
        )
    if kind == "pandas":
        return _to_pandas(answer, like, as_of)
    if kind == "pyarrow":
        return _to_arrow(answer, like, as_of)
    return answer


def _kind(frame: Frame) -> str:
    if isinstance(frame, pl.DataFrame):
        return "polars"
    if isinstance(frame, pl.LazyFrame):
        return "lazy"
    root, name = type(frame).__module__.split(".")[0].lstrip("_"), type(frame).__name__
    known = {"DuckDBPyRelation": "duckdb", "Table": "pyarrow", "DataFrame": root}.get(name)
    if known == root and root in ("duckdb", "pyarrow", "pandas", "pyspark"):
        return root
    raise InputError(
        f"A {type(frame).__name__} is no frame of rows. Give a Polars DataFrame or LazyFrame, a pandas DataFrame, "
        "a PyArrow table, a DuckDB relation or a PySpark DataFrame, for example d22kit.load()."
    )


def _columns(frame: Frame) -> list[str]:
    kind = _kind(frame)
    if kind in ("polars", "lazy"):
        return list(frame.collect_schema())
    return [str(name) for name in (frame.column_names if kind == "pyarrow" else frame.columns)]


def _check_types(rows: nw.LazyFrame[Any], names: list[str]) -> None:
    import narwhals.stable.v2 as nw

    held = rows.collect_schema()
    for name in (name for name in TIMES if name in names):
        if not isinstance(held[name], nw.Datetime):
            raise InputError(
                f"{name} is {held[name]}, not a time. Parse it first, for example with "
                f"pl.col({name!r}).str.to_datetime(time_zone='UTC'); d22kit.load() gives it right."
            )
    for name in (name for name in WORDS if name in names):
        if not isinstance(held[name], nw.String | nw.Categorical | nw.Enum):
            raise InputError(
                f"{name} is {held[name]}, not text. Cast it, or open the rows with d22kit.load()."
            )


def _polars(frame: Frame, kind: str, names: list[str]) -> pl.LazyFrame:
    """Read an in-memory frame through Polars; a column without any value gets the type it should have."""
    rows = frame.lazy().select(names) if kind in ("polars", "lazy") else _eager(frame, kind, names).lazy()
    empty = [name for name, held in rows.collect_schema().items() if held == pl.Null]
    typed: pl.LazyFrame = rows.with_columns(
        pl.col(name).cast(pl.Datetime("us") if name in TIMES else pl.String) for name in empty
    )
    return typed


def _eager(frame: Frame, kind: str, names: list[str]) -> pl.DataFrame:
    try:
        rows = pl.from_pandas(frame[names]) if kind == "pandas" else pl.from_arrow(frame.select(names))
    except (Exception, pl.exceptions.PanicException) as error:  # a dozen kinds, for a column of mixed values
        raise InputError(
            f"A column among {', '.join(names)} cannot be read ({type(error).__name__}). Give each column one type."
        ) from None
    assert isinstance(rows, pl.DataFrame)
    # pandas keeps a column without any value as objects, which read as text.
    empty = [name for name in TIMES if name in names and rows[name].null_count() == rows.height]
    return rows.with_columns(pl.lit(None).alias(name) for name in empty)


def _duckdb(frame: Any, names: list[str]) -> Any:
    """Select from a relation; a column without any value gets the type it should have."""
    for name, held in zip(frame.columns, frame.types, strict=True):
        if name in names and (foreign := re.search(r"\b(?:INTERVAL|UNION)\b", str(held))):
            raise InputError(
                f"{name} is {foreign[0]}, which only DuckDB has. Cast it first, for example to a number or to VARCHAR."
            )
    untyped = {name for name, held in zip(frame.columns, frame.types, strict=True) if held == '"NULL"'}
    typed = [
        f"{_duckdb_name(name)}::{_should_be(name)} AS {_duckdb_name(name)}"
        if name in untyped
        else _duckdb_name(name)
        for name in names
    ]
    return frame.project(", ".join(typed))


def _duckdb_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _duckdb_column(name: str) -> str:
    quoted = _duckdb_name(name)
    return f"epoch_us({quoted}) AS {quoted}" if name in TIMES else quoted


def _spark(frame: Any, names: list[str]) -> Any:
    """Select from a Spark frame, as `_duckdb` does."""
    from pyspark.sql import functions as F  # noqa: N812 - Spark's own idiom

    for name in names:
        if foreign := _spark_foreign(frame.schema[name].dataType):
            raise InputError(
                f"{name} is {foreign}, which only Spark has. Cast it first, for example to a number or to STRING."
            )
    untyped = {field.name for field in frame.schema if field.dataType.typeName() == "void"}
    columns = {name: F.col(_spark_name(name)) for name in names}
    return frame.select(
        *(c.cast(_should_be(name)).alias(name) if name in untyped else c for name, c in columns.items())
    )


def _spark_foreign(held: Any) -> str | None:
    """Return the type, of a column or within it, that Arrow cannot carry out of Spark or that cannot group."""
    if type(held).__name__ in ("YearMonthIntervalType", "CalendarIntervalType", "VariantType", "TimeType"):
        return str(held.simpleString()).upper()
    inner = [getattr(held, part) for part in ("elementType", "keyType", "valueType") if hasattr(held, part)]
    inner += [field.dataType for field in getattr(held, "fields", ())]
    return next(filter(None, map(_spark_foreign, inner)), None)


def _should_be(name: str) -> str:
    return "timestamp" if name in TIMES else "string"


def _spark_name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _spark_column(frame: Any, name: str) -> Any:
    from pyspark.sql import functions as F  # noqa: N812 - Spark's own idiom

    quoted = _spark_name(name)
    if name not in TIMES:
        return F.col(quoted)
    if frame.schema[name].dataType.typeName() == "timestamp_ntz":
        return F.expr(f"timestampdiff(MICROSECOND, TIMESTAMP_NTZ'1970-01-01', {quoted})").alias(name)
    return F.unix_micros(quoted).alias(name)


_ENGINES = {"duckdb": _duckdb, "pyspark": _spark}


def _cast(answer: pl.DataFrame, dtypes: dict[str, Any]) -> pl.DataFrame:
    return answer.with_columns(pl.col(name).cast(dtype) for name, dtype in dtypes.items())


def _to_pandas(answer: pl.DataFrame, like: Any, as_of: datetime | None) -> Any:
    arrow = any(type(dtype).__name__ == "ArrowDtype" for dtype in like.dtypes)
    kept = [n for n in answer.columns if n in like.columns and str(like[n].dtype) == "category"]
    frame = answer.to_pandas(use_pyarrow_extension_array=arrow).astype(dict.fromkeys(kept, "category"))
    frame.attrs = {**like.attrs, "as_of": as_of}
    return frame


def _to_arrow(answer: pl.DataFrame, like: Any, as_of: datetime | None) -> Any:
    import pyarrow as pa

    kept = {field.name for field in like.schema if pa.types.is_dictionary(field.type)}
    table = _cast(answer, {n: pl.Categorical() for n in answer.columns if n in kept}).to_arrow()
    carried = {key: value for key, value in (like.schema.metadata or {}).items() if key == b"version"}
    return table.replace_schema_metadata({b"as_of": (as_of.isoformat() if as_of else "").encode(), **carried})
