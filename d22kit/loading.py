"""One reader: a store's version, or an extract, as a lazy frame, a Polars or pandas frame, or an Arrow table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Literal, overload

import polars as pl

from d22kit.config import store_root
from d22kit.errors import ExtractError, InputError, StoreError, StoreNotFoundError
from d22kit.frames import emptied
from d22kit.packages import open_extract, steady
from d22kit.schema import CREATED, PARTITION, VERSION, listed
from d22kit.store import Store, scan_files
from d22kit.times import TimeLike, span

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["load", "scan"]

TimeColumn = Literal["created_at", "updated_at"]


def scan(
    data: str | os.PathLike[str] | None = None,
    *,
    since: TimeLike | None = None,
    until: TimeLike | None = None,
    on: TimeColumn = "created_at",
    version: int | None = None,
    as_of: TimeLike | None = None,
) -> pl.LazyFrame:
    """Return the rows of a store, or of an extract, as a lazy frame: nothing is read until it is collected.

    Parameters
    ----------
    data
        The store's directory or URL; None is `$D22KIT_DATA`, else `data` in the working directory. Also an
        extract's file, directory or URL, which gives the columns it has.
    since, until
        Keep rows whose column `on` lies in `[since, until)`; without an offset they are UTC.
    on
        `"created_at"` (what was sent or received in that time) or `"updated_at"` (what changed in it).
    version, as_of
        An earlier version by number, or the one that was the newest at a time; see `d22kit.versions`.

    Returns
    -------
    pl.LazyFrame
        One row per `public_id`, in its newest version, with the columns of `schema.FRAME`.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, VersionNotFoundError
        Where there is no such store, or no such version.
    ExtractError
        Where an extract is damaged, or is an Excel file.
    InputError
        Where an argument is no time, `since` does not lie before `until`, or `on` is no time column.
    """
    return steady(data, lambda: _lazy(data, since, until, on, version, as_of, read=False))


@overload
def load(
    data: str | os.PathLike[str] | None = ...,
    *,
    since: TimeLike | None = ...,
    until: TimeLike | None = ...,
    on: TimeColumn = ...,
    version: int | None = ...,
    as_of: TimeLike | None = ...,
    columns: Sequence[str] | None = ...,
    backend: Literal["polars"] = ...,
) -> pl.DataFrame: ...
@overload
def load(
    data: str | os.PathLike[str] | None = ...,
    *,
    since: TimeLike | None = ...,
    until: TimeLike | None = ...,
    on: TimeColumn = ...,
    version: int | None = ...,
    as_of: TimeLike | None = ...,
    columns: Sequence[str] | None = ...,
    backend: Literal["pandas"],
) -> pd.DataFrame: ...
@overload
def load(
    data: str | os.PathLike[str] | None = ...,
    *,
    since: TimeLike | None = ...,
    until: TimeLike | None = ...,
    on: TimeColumn = ...,
    version: int | None = ...,
    as_of: TimeLike | None = ...,
    columns: Sequence[str] | None = ...,
    backend: Literal["pyarrow"],
) -> pa.Table: ...
def load(
    data: str | os.PathLike[str] | None = None,
    *,
    since: TimeLike | None = None,
    until: TimeLike | None = None,
    on: TimeColumn = "created_at",
    version: int | None = None,
    as_of: TimeLike | None = None,
    columns: Sequence[str] | None = None,
    backend: Literal["polars", "pandas", "pyarrow"] = "polars",
) -> pl.DataFrame | pd.DataFrame | pa.Table:
    """Return the rows of a store, or of an extract, in memory.

    Parameters
    ----------
    data, since, until, on, version, as_of
        As in `scan`. `data` may also be an extract's path.
    columns
        The columns to read, in this order; None is all of them. `updated_date`, the partition's date, comes
        only when named.
    backend
        `"polars"`, `"pandas"` (Arrow-backed, vocabulary columns categorical) or `"pyarrow"`.

    Returns
    -------
    polars.DataFrame, pandas.DataFrame or pyarrow.Table
        One row per `public_id`, in its newest version.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, VersionNotFoundError
        Where there is no such store, or no such version.
    ExtractError
        Where an extract is damaged (its files are held against their checksums), or is an Excel file.
    InputError
        Where a column is unknown (lists those there are), or an argument is wrong.

    Examples
    --------
    >>> import d22kit, tempfile
    >>> with d22kit.simulate(rows=2_000) as service, tempfile.TemporaryDirectory() as data:
    ...     _ = d22kit.sync(service.endpoint, data, progress=False)
    ...     frame = d22kit.load(data, columns=["public_id", "platform"])
    >>> frame.shape
    (2000, 2)
    """
    if backend not in ("polars", "pandas", "pyarrow"):
        raise InputError(f"backend={backend!r} is unknown; give 'polars', 'pandas' or 'pyarrow'.")

    def read() -> pl.DataFrame:
        lazy = _lazy(data, since, until, on, version, as_of, read=True)
        try:
            return _select(lazy, columns).collect()
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise _unreadable(data, error) from error

    frame = steady(data, read)
    if backend == "polars":
        return frame
    frame = frame.with_columns(
        emptied(pl.col(column.name)) for column in frame if column.dtype == pl.String and column.has_nulls()
    )
    return _pandas(frame) if backend == "pandas" else frame.to_arrow()


def _lazy(
    data: str | os.PathLike[str] | None,
    since: TimeLike | None,
    until: TimeLike | None,
    on: TimeColumn,
    version: int | None,
    as_of: TimeLike | None,
    *,
    read: bool,
) -> pl.LazyFrame:
    """Return the rows as a lazy frame; with `read`, an extract is held against its checksums before."""
    if on not in (CREATED, VERSION):
        raise InputError(f"on={on!r} is no time column; give {CREATED!r} or {VERSION!r}.")
    if version is not None and as_of is not None:
        raise InputError("version and as_of name the same thing; give one of them.")
    start, end = span(since, until)
    try:
        store = Store.open(data).at(version, as_of)
    except StoreNotFoundError:
        if data is None or (rows := open_extract(data, read=read)) is None:
            raise
        return _of_extract(rows, start, end, on, dated=version is not None or as_of is not None)
    files = store.files()
    if version is not None or as_of is not None:
        store.check_kept(files)
    if on == VERSION:
        # Partitions are dates of this column, so those outside the range need not be opened.
        files = files.filter(
            _between(PARTITION, start and start.date(), end and end.date() + timedelta(days=1))
        )
    return scan_files(files["path"].to_list()).filter(_between(on, start, end))


def _unreadable(data: str | os.PathLike[str] | None, error: BaseException) -> StoreError | ExtractError:
    # What comes after the bracket are values of rows.
    place, reason = store_root(data), str(error).partition("\n")[0].partition(": [")[0]
    if Store.exists(data):
        return StoreError(f"The store at {place} cannot be read: {reason}.")
    return ExtractError(f"The extract {place} is damaged: {reason}. Check it with 'd22kit verify'.")


def _of_extract(
    rows: pl.LazyFrame, start: datetime | None, end: datetime | None, on: TimeColumn, *, dated: bool
) -> pl.LazyFrame:
    if dated:
        raise InputError(
            "An extract holds one version; leave version and as_of out. d22kit.verify() names it."
        )
    if start is None and end is None:
        return rows
    if on not in (known := rows.collect_schema().names()):
        raise InputError(f"The extract has no column {on!r} to bound. There are: {', '.join(known)}.")
    return rows.filter(_between(on, start, end))


def _between(column: str, start: date | None, end: date | None) -> pl.Expr:
    after = pl.lit(True) if start is None else pl.col(column) >= start
    return after if end is None else after & (pl.col(column) < end)


def _select(frame: pl.LazyFrame, columns: Sequence[str] | None) -> pl.LazyFrame:
    if columns is None:
        return frame
    found = frame.collect_schema().names()
    if PARTITION not in found and VERSION in found:
        frame = frame.with_columns(pl.col(VERSION).dt.date().alias(PARTITION))
    known = frame.collect_schema().names()
    wanted = listed("columns", columns)
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(f"Unknown columns: {', '.join(map(repr, unknown))}. There are: {', '.join(known)}.")
    return frame.select(wanted)


def _pandas(frame: pl.DataFrame) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError:
        raise InputError("backend='pandas' needs pandas: pip install 'd22kit[pandas]'.") from None
    vocabulary = [name for name, dtype in frame.schema.items() if dtype == pl.Categorical]
    plain = frame.with_columns(pl.col(vocabulary).cast(pl.String))
    table = plain.to_arrow(compat_level=pl.CompatLevel.oldest())
    rows: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return rows.astype(dict.fromkeys(vocabulary, "category"))
