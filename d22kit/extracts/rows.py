"""The rows of an extract: chosen, in the order of their change, classified and masked, in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from math import ceil
from typing import Any

import polars as pl

from d22kit.errors import InputError, StoreError, VersionNotFoundError
from d22kit.extracts.conditions import DETAIL, Where, check_columns, early, meeting, read_condition, unmet
from d22kit.masking import mask
from d22kit.packages import OUTCOMES
from d22kit.questions.classify import classify_distinct
from d22kit.schema import CREATED, EXTRA, KEY, NAMES, PARTITION, STORED, VERSION
from d22kit.store import Store
from d22kit.times import TimeLike, span

__all__ = ["ORDER", "Selection", "ahead", "batches"]

ORDER = (VERSION, KEY)

BATCH = 250_000
"""Rows that are worked on at once: memory is bounded by them, not by the extract."""

AHEAD = 3
"""Batches that may wait to be written: a row group takes two at once."""

KNOWN = 50_000
"""Distinct outcomes that are kept at hand from batch to batch."""

_READ = ["platform", "delivery_status", "delivery_code", DETAIL]
_DAY = pl.col(VERSION).dt.date().alias(PARTITION)
_MASKED, _SEEN = "masked", "seen"

Portion = tuple[list[str], datetime | None, datetime | None]
"""Files, and the range of `updated_at` to read of them."""


@dataclass(frozen=True)
class Selection:
    """What of a store goes into an extract, checked.

    Parameters
    ----------
    since, until, on
        The range `[since, until)` of the time column `on`.
    where
        A condition on each row.
    said
        The condition as the extract's description gives it.
    columns
        The columns, in order.
    classified, masked
        Whether rows are classified, and texts masked.
    """

    since: datetime | None
    until: datetime | None
    on: str
    where: pl.Expr | None
    said: Any
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
        wanted = standard if columns is None else [columns] if isinstance(columns, str) else list(columns)
        check_columns(wanted, [*standard, PARTITION])
        if len(set(wanted)) < len(wanted) or not wanted:
            raise InputError(f"columns={wanted} names a column twice, or none; name each one once.")
        condition, said = read_condition(where, [*standard, PARTITION], masked=masked)
        return cls(start, end, on, condition, said, tuple(wanted), classified, masked)


def batches(store: Store, chosen: Selection) -> Iterator[pl.DataFrame]:
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
    finish = _Finish(chosen)
    try:
        if finish.reads_outcomes:
            # All at once, since reading few outcomes takes as long as reading many.
            finish.learn(_outcomes(files, chosen))
        yield finish(STORED.to_frame().with_columns(_DAY))
        for portion in _portions(files):
            yield finish(_sorted(_collected(portion, chosen)))
    except FileNotFoundError as error:
        raise VersionNotFoundError(
            f"Files of version {store.table.version()} of the store at {store.root} are gone. See d22kit.versions()."
        ) from error
    except (OSError, pl.exceptions.ComputeError) as error:
        raise StoreError(f"The store at {store.root} cannot be read: {error}") from error


def ahead(items: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Give the items of an iterator; the next ones are made while one is used."""
    maker = ThreadPoolExecutor(1)
    try:
        coming = deque(maker.submit(next, items, None) for _ in range(AHEAD))
        while (item := coming.popleft().result()) is not None:
            coming.append(maker.submit(next, items, None))
            yield item
    finally:
        maker.shutdown(cancel_futures=True)


class _Finish:
    """Classify, filter, mask and choose columns. Every distinct outcome is read once, whatever batch it is in."""

    def __init__(self, chosen: Selection) -> None:
        self._chosen = chosen
        self._known: pl.DataFrame | None = None
        self.reads_outcomes = chosen.classified or (chosen.masked and DETAIL in chosen.columns)

    def __call__(self, rows: pl.DataFrame) -> pl.DataFrame:
        chosen = self._chosen
        if self.reads_outcomes:
            rows = self._with_outcomes(rows)
        if chosen.where is not None and not early(chosen.where):
            try:
                rows = meeting(rows.lazy(), chosen.where).collect()
            except pl.exceptions.PolarsError as error:
                raise unmet(chosen.where, error) from error
        if chosen.masked:
            detail = pl.col(_MASKED if self.reads_outcomes else DETAIL).alias(DETAIL)
            rows = rows.with_columns(detail, pl.lit(None, pl.String).alias(EXTRA))
        return rows.select(chosen.columns)

    def learn(self, outcomes: pl.DataFrame) -> None:
        """Read distinct outcomes that are not known yet."""
        read = self._read(outcomes)
        self._known = read if self._known is None else pl.concat([self._known, read])

    def _with_outcomes(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self._known is None:
            self.learn(rows.select(_READ).unique())
        found = self._look_up(rows)
        if found[_SEEN].null_count():
            fresh = found.filter(pl.col(_SEEN).is_null()).select(_READ).unique()
            if self._known is not None and self._known.height + fresh.height > KNOWN:
                self._known, fresh = None, rows.select(_READ).unique()
            self.learn(fresh)
            found = self._look_up(rows)
        return found

    def _look_up(self, rows: pl.DataFrame) -> pl.DataFrame:
        assert self._known is not None
        return rows.join(self._known, on=_READ, how="left", nulls_equal=True, maintain_order="left")

    def _read(self, distinct: pl.DataFrame) -> pl.DataFrame:
        read = classify_distinct(distinct) if self._chosen.classified else distinct
        masked = mask(pl.col(DETAIL)) if self._chosen.masked else pl.col(DETAIL)
        return read.with_columns(masked.alias(_MASKED), pl.lit(True).alias(_SEEN))


def _outcomes(files: pl.DataFrame, chosen: Selection) -> pl.DataFrame:
    """Return the distinct outcomes of the chosen rows, or as many as may be kept at hand."""
    found = STORED.to_frame().select(_READ)
    for portion in _portions(files):
        more = _collected(portion, chosen, distinct=_READ)
        found = pl.concat([found, more]).unique()
        if found.height > KNOWN:
            break
    return found.head(KNOWN)


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort rows; days of one file are sorted already, and to see it is cheaper."""
    moment, key = (pl.col(name) for name in ORDER)
    later = (moment > moment.shift()) | ((moment == moment.shift()) & (key > key.shift()))
    return rows if rows.select(later.all()).item() else rows.sort(ORDER)


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
    rows = pl.scan_parquet(paths, schema=STORED, hive_partitioning=False, glob=False)
    rows = rows.with_columns(_DAY)
    if start is not None:
        rows = rows.filter(pl.col(VERSION) >= start, pl.col(VERSION) < end)
    if chosen.since is not None:
        rows = rows.filter(pl.col(chosen.on) >= chosen.since)
    if chosen.until is not None:
        rows = rows.filter(pl.col(chosen.on) < chosen.until)
    return meeting(rows, chosen.where) if chosen.where is not None and early(chosen.where) else rows


def _collected(portion: Portion, chosen: Selection, distinct: Sequence[str] = ()) -> pl.DataFrame:
    """Read a portion's rows, or what is distinct in some columns of them."""
    rows = _scan(*portion, chosen)
    try:
        return (rows.select(distinct).unique() if distinct else rows).collect()
    except pl.exceptions.PolarsError as error:
        if chosen.where is None or not early(chosen.where):
            raise
        # Raises again where the store is at fault, and not the condition.
        _scan(*portion, replace(chosen, where=None)).collect()
        raise unmet(chosen.where, error) from error
