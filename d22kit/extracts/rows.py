"""The rows of an extract: chosen, in the order of their change, classified and masked, in batches."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from math import ceil
from typing import TypeVar

import polars as pl

from d22kit.errors import InputError, StoreError, VersionNotFoundError
from d22kit.extracts.batch import Batch
from d22kit.extracts.conditions import (
    DETAIL,
    Condition,
    Where,
    check_columns,
    early,
    meeting,
    read_condition,
    unmet,
)
from d22kit.extracts.outcomes import CASE, HIDDEN, Outcomes
from d22kit.packages import OUTCOMES
from d22kit.schema import CREATED, EXTRA, KEY, NAMES, PARTITION, STORED, VERSION, listed
from d22kit.store import Store, scan_files
from d22kit.times import TimeLike, span

__all__ = ["ORDER", "Selection", "ahead", "batches"]

ORDER = (VERSION, KEY)

BATCH = 250_000
"""Rows that are worked on at once: memory is bounded by them, not by the extract."""

AHEAD = 5
"""Batches whose outcomes are looked up together: few take as long as many."""

_DAY = pl.col(VERSION).dt.date().alias(PARTITION)

T = TypeVar("T")

Portion = tuple[list[str], datetime | None, datetime | None]
"""Files, and the range of `updated_at` to read of them."""


@dataclass(frozen=True)
class Selection:
    """What of a store goes into an extract, checked.

    Parameters
    ----------
    since, until, on
        The range `[since, until)` of the time column `on`.
    condition
        A condition on each row.
    columns
        The columns, in order.
    classified, masked
        Whether rows are classified, and texts masked.
    """

    since: datetime | None
    until: datetime | None
    on: str
    condition: Condition
    columns: tuple[str, ...]
    classified: bool
    masked: bool

    @classmethod
    def of(
        cls,
        since: TimeLike | None,
        until: TimeLike | None,
        on: str,
        where: Where,
        columns: Sequence[str] | None,
        *,
        classified: bool,
        masked: bool,
    ) -> Selection:
        """Check what was asked for.

        Raises
        ------
        InputError
            Where a column, a range or a condition is wrong.
        """
        if on not in (CREATED, VERSION):
            raise InputError(f"on={on!r} is no time column; give {CREATED!r} or {VERSION!r}.")
        start, end = span(since, until)
        standard = [*NAMES, *(OUTCOMES if classified else ())]
        wanted = standard if columns is None else listed("columns", columns)
        check_columns(wanted, [*standard, PARTITION])
        if len(set(wanted)) < len(wanted) or not wanted:
            raise InputError(f"columns={wanted} names a column twice, or none; name each one once.")
        condition = read_condition(where, [*standard, PARTITION], masked=masked)
        return cls(start, end, on, condition, tuple(wanted), classified, masked)

    @property
    def where(self) -> pl.Expr | None:
        """The condition as an expression."""
        return self.condition.test

    @property
    def private(self) -> list[str]:
        """The columns that may hold personal data, of those that are chosen or that the condition asks for."""
        asked = [] if self.where is None else self.where.meta.root_names()
        return [name for name in (DETAIL, EXTRA) if name in self.columns or name in asked]

    @property
    def late(self) -> pl.Expr | None:
        """The condition, where it can only be judged once rows are classified."""
        return self.where if self.where is not None and not early(self.where) else None

    @property
    def reads_outcomes(self) -> bool:
        """Whether outcomes are to be looked up."""
        classified = self.late is not None or not set(OUTCOMES).isdisjoint(self.columns)
        return classified or (self.masked and DETAIL in self.columns)

    @property
    def needed(self) -> list[str]:
        """The columns to read; those of a condition that is judged while they are read are not among them."""
        withheld = {EXTRA} if self.masked else set()
        late = set() if self.late is None else {*self.late.meta.root_names()}
        wanted = {*ORDER, *self.columns} - withheld | late | {*(CASE if self.reads_outcomes else ())}
        return [name for name in (*STORED, PARTITION) if name in wanted]


def batches(store: Store, chosen: Selection) -> Iterator[Batch]:
    """Give the chosen rows in the order of `ORDER`; the first batch has columns and no rows.

    Raises
    ------
    VersionNotFoundError
        Where the version's files were vacuumed away.
    StoreError
        Where a file of the store cannot be read.
    """
    files = store.files()
    store.check_kept(files)
    portions = [*_portions(files)]
    finish = _Finish(chosen)
    try:
        yield finish(Batch.of(STORED.to_frame().with_columns(_DAY)))
        read = ahead((_collected(portion, chosen) for portion in portions), 1)
        coming = ahead(Batch.of(_sorted(rows)) for rows in read)
        near = deque(islice(coming, AHEAD))
        while near:
            batch = near.popleft()
            near.extend(islice(coming, 1))
            yield finish(batch, near)
    except FileNotFoundError as error:
        raise VersionNotFoundError(
            f"Files of version {store.table.version()} of the store at {store.root} are gone. See d22kit.versions()."
        ) from error
    except (OSError, pl.exceptions.ComputeError) as error:
        raise StoreError(f"The store at {store.root} cannot be read: {error}") from error


def ahead(items: Iterator[T], count: int = 2) -> Iterator[T]:
    """Give the items of an iterator; up to `count` are made while one is used, and the first ones from now on."""
    maker = ThreadPoolExecutor(1)
    coming = deque(maker.submit(next, items, None) for _ in range(count))

    def made() -> Iterator[T]:
        while (item := coming.popleft().result()) is not None:
            coming.append(maker.submit(next, items, None))
            yield item

    rest = made()
    # Not by `finally`, which a generator that is never begun does not reach.
    weakref.finalize(rest, maker.shutdown, cancel_futures=True)
    return rest


class _Finish:
    """Classify, filter, mask and choose columns."""

    def __init__(self, chosen: Selection) -> None:
        self._chosen = chosen
        outcomes = Outcomes(classified=chosen.classified, masked=chosen.masked)
        self._outcomes = outcomes if chosen.reads_outcomes else None

    def __call__(self, batch: Batch, near: Iterable[Batch] = ()) -> Batch:
        chosen = self._chosen
        if self._outcomes:
            columns = [*batch.columns, *self._outcomes.adds]
            cells = self._outcomes(batch.cells, (other.cells for other in near))
            batch = replace(batch, cells=cells).select(columns)
        if chosen.late is not None:
            batch = Batch.of(_met(batch.frame(), chosen.late))
        return (self._masked(batch) if chosen.masked else batch).select(chosen.columns)

    def _masked(self, batch: Batch) -> Batch:
        hidden = [pl.col(HIDDEN).alias(DETAIL)] if self._outcomes else []
        return replace(
            batch,
            rows=batch.rows.with_columns(pl.lit(None, pl.String).alias(EXTRA)),
            cells=batch.cells.with_columns(hidden).drop(EXTRA, strict=False),
        )


def _met(rows: pl.DataFrame, condition: pl.Expr) -> pl.DataFrame:
    try:
        return meeting(rows.lazy(), condition).collect()
    except pl.exceptions.PolarsError as error:
        raise unmet(condition, error) from error


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort rows; days of one file are sorted already, and to see it is cheaper."""
    moments, keys = (rows[name] for name in ORDER)
    tied = (moments == moments.shift()).arg_true()
    done = moments.is_sorted() and (keys.gather(tied - 1) < keys.gather(tied)).all()
    return rows if done else rows.sort(ORDER)


def _portions(files: pl.DataFrame) -> Iterator[Portion]:
    """Cut the store into portions of about a batch: whole days, or a part of a large one."""
    days = files.group_by(PARTITION).agg("path", pl.col("rows").fill_null(BATCH).sum()).sort(PARTITION)
    gathered: list[str] = []
    size = 0
    for day, paths, rows in days.iter_rows():
        if gathered and size + rows > BATCH:
            yield gathered, None, None
            gathered, size = [], 0
        if rows > 2 * BATCH:
            yield from _slices(day, paths, ceil(rows / BATCH))
        else:
            gathered, size = gathered + paths, size + rows
    if gathered:
        yield gathered, None, None


def _slices(day: date, paths: list[str], parts: int) -> Iterator[Portion]:
    midnight = datetime.combine(day, time(), UTC)
    edges = [midnight + timedelta(days=1) * part / parts for part in range(parts + 1)]
    for start, end in pairwise(edges):
        yield paths, start, end


def _scan(paths: list[str], start: datetime | None, end: datetime | None, chosen: Selection) -> pl.LazyFrame:
    rows = scan_files(paths).with_columns(_DAY)
    if start is not None:
        rows = rows.filter(pl.col(VERSION) >= start, pl.col(VERSION) < end)
    if chosen.since is not None:
        rows = rows.filter(pl.col(chosen.on) >= chosen.since)
    if chosen.until is not None:
        rows = rows.filter(pl.col(chosen.on) < chosen.until)
    return meeting(rows, chosen.where) if chosen.where is not None and early(chosen.where) else rows


def _collected(portion: Portion, chosen: Selection) -> pl.DataFrame:
    """Read a portion's rows."""
    try:
        return _read(_scan(*portion, chosen).select(chosen.needed))
    except pl.exceptions.PolarsError as error:
        if chosen.where is None or not early(chosen.where):
            raise
        # Raises again where the store is at fault, and not the condition.
        _read(_scan(*portion, replace(chosen, condition=Condition())))
        raise unmet(chosen.where, error) from error


def _read(rows: pl.LazyFrame) -> pl.DataFrame:
    # Of few rows at a time, the streaming engine costs more than it gives.
    return rows.collect(engine="in-memory")
