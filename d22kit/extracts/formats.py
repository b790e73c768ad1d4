"""How rows are written: Parquet, CSV, Arrow, Excel. The same rows give the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from d22kit.errors import ExtractError, InputError
from d22kit.extracts.batch import Batch
from d22kit.extracts.rows import ahead
from d22kit.packages import DESCRIPTOR, FORMULA, hidden
from d22kit.schema import CREATED, KEY, VERSION

__all__ = ["WRITERS", "FinerTimesError", "write_directory"]

GROUP = 200_000
"""Least rows of a row group, and of an Arrow record batch; the last one may have fewer."""

SPILL = 2_000_000
"""Rows that a partitioned extract gathers before it writes the fullest partition."""

EXCEL_ROWS = 1_048_575
EXCEL_TEXT = 32_767
EXCEL_FIRST = datetime(1900, 3, 1, tzinfo=UTC)
"""Before it, Excel and others count days differently."""

LEVEL = 1
"""Of zstd: higher ones cost much time and save little, since what remains is near random."""

ISO = {"ms": "%Y-%m-%dT%H:%M:%S%.3fZ", "us": "%Y-%m-%dT%H:%M:%S%.6fZ"}

# Keys and times do not repeat: what pays there is to write only what differs from the row before.
_DELTAS = {KEY: "DELTA_BYTE_ARRAY", CREATED: "DELTA_BINARY_PACKED", VERSION: "DELTA_BINARY_PACKED"}

Batches = Iterable[Batch]
Said = Callable[[bool], dict[str, Any]]
"""Gives a file's own metadata: before its rows are written (False), or with their totals (True)."""


class _Kept(io.BytesIO):
    """Stays open and has room: a zip file that could not be finished writes once more when it is forgotten."""

    def close(self) -> None:
        """Do nothing."""


class FinerTimesError(Exception):
    """A time is finer than the milliseconds it was to be written in."""


def write_parquet(target: Path, batches: Batches, unit: str, said: Said) -> None:
    """Write one Parquet file."""
    groups = ahead(_groups(_timed(batch, unit).table() for batch in batches))
    first = next(groups)
    deltas = {name: how for name, how in _DELTAS.items() if name in first.column_names}
    words = [name for name in first.column_names if name not in deltas]
    with pq.ParquetWriter(
        target,
        first.schema,
        compression="zstd",
        compression_level=LEVEL,
        use_dictionary=words,
        column_encoding=deltas,
        # Rows are in the order of time: bounds of anything else prune little, and cost a fifth of the writing.
        write_statistics=[name for name in (CREATED, VERSION) if name in deltas],
        store_schema=False,
        max_rows_per_page=2 * GROUP,  # pages, and strokes, of few rows cost time and bytes
        write_batch_size=2 * GROUP,
    ) as writer:
        for rows in chain([first], groups):
            writer.write_table(rows, row_group_size=2 * GROUP)
        writer.add_key_value_metadata({"d22kit": packed(said(True))})


def write_directory(
    target: Path, batches: Batches, unit: str, by: Sequence[str], said: Callable[[int], dict[str, Any]]
) -> dict[str, int]:
    """Write Parquet files under a directory, by hive partition; return each file's path and its rows.

    Rows gather by partition; when there are many, the fullest partition is written as one file, so that memory
    and open files stay few however many partitions there are.
    """
    gathered: dict[tuple[Any, ...], list[pl.DataFrame]] = {}
    written: dict[str, int] = {}

    def write(key: tuple[Any, ...]) -> None:
        rows = pl.concat(gathered.pop(key))
        # Numbered throughout: words that differ in case alone share a directory on some disks.
        name = f"{_hive(by, key)}part-{len(written):05}.parquet"
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(path, [Batch.of(rows)], unit, lambda _: said(rows.height))
        written[name] = rows.height

    none = pl.DataFrame()
    for batch in batches:
        frame = batch.frame()
        none = frame.clear().drop(by)
        for key, part in _partitions(frame, by):
            gathered.setdefault(key, []).append(part)
        while len(gathered) and sum(map(_height, gathered.values())) > SPILL:
            write(max(gathered, key=lambda key: _height(gathered[key])))
    if not written and not gathered:
        gathered[(None,) * len(by)] = [none]  # columns, and no rows
    for key in list(gathered):
        write(key)
    return written


def write_arrow(target: Path, batches: Batches, unit: str, said: Said) -> None:
    """Write one Arrow file (Feather version 2); its metadata stands before its rows, so it knows no totals."""
    groups = ahead(_groups(_timed(batch, unit).table() for batch in batches))
    first = next(groups)
    fields = [(f.name, f.type if pa.types.is_temporal(f.type) else pa.string()) for f in first.schema]
    schema = pa.schema(fields, {"d22kit": packed(said(False))})
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(str(target), schema, options=options) as writer:
        for rows in chain([first], groups):
            writer.write_table(rows.combine_chunks().cast(schema), max_chunksize=2 * GROUP)


def write_csv(target: Path, batches: Batches, unit: str, said: Said) -> None:
    """Write CSV (RFC 4180) in UTF-8, compressed where the suffix says so.

    It begins with a byte order mark, or Excel would not read it as UTF-8. A null is nothing, an empty text `""`.
    """
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(target.open("wb"))
        if target.suffix.lower() == ".gz":
            # No name and no time in the header: they would differ from run to run.
            file = cast(IO[bytes], stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0)))
        file.write(b"\xef\xbb\xbf")
        for index, frame in enumerate(batch.frame() for batch in batches):
            _check_blank(frame)
            times = pl.col(_times(frame, unit)).dt.strftime(ISO[unit])
            frame.with_columns(hidden(pl.col(pl.String)), times).write_csv(file, include_header=index == 0)


def write_excel(target: Path, batches: Batches, unit: str, said: Said) -> None:
    """Write an Excel workbook: the rows, and a sheet that says what they are."""
    try:
        import xlsxwriter  # type: ignore[import-untyped]
    except ImportError:
        raise InputError("An Excel extract needs xlsxwriter: pip install 'd22kit[excel]'.") from None
    options = {
        "constant_memory": True,
        "tmpdir": str(target.parent),
        "remove_timezone": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
    }
    content = _Kept()
    try:
        with xlsxwriter.Workbook(content, options) as book:
            _rows_sheet(book, batches)
            _about_sheet(book, said(True))
    except xlsxwriter.exceptions.FileCreateError as error:
        raise OSError(*error.args) from error
    target.write_bytes(content.getbuffer())


WRITERS: dict[str, Callable[[Path, Batches, str, Said], None]] = {
    "parquet": write_parquet,
    "csv": write_csv,
    "arrow": write_arrow,
    "xlsx": write_excel,
}


def packed(said: dict[str, Any]) -> bytes:
    """Return metadata as JSON bytes."""
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join tables to such of at least `GROUP` rows, the last one of the rest; one without rows where there are none."""
    waiting: list[pa.Table] = []
    some = False
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= GROUP:
            yield pa.concat_tables(waiting).unify_dictionaries()
            waiting, some = [], True
    if any(map(len, waiting)) or not some:
        yield pa.concat_tables(waiting).unify_dictionaries()


def _timed(batch: Batch, unit: str) -> Batch:
    times = pl.col(_times(batch.rows, unit)).dt.cast_time_unit(unit)  # type: ignore[arg-type]
    return replace(batch, rows=batch.rows.with_columns(times))


def _times(frame: pl.DataFrame, unit: str) -> list[str]:
    """Return the time columns; refuse times that the unit would cut."""
    times = [name for name in (CREATED, VERSION) if name in frame.columns]
    if unit == "ms" and any((frame[name].to_physical() % 1000 != 0).any() for name in times):
        raise FinerTimesError
    return times


def _height(frames: Sequence[pl.DataFrame]) -> int:
    return sum(frame.height for frame in frames)


def _partitions(frame: pl.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pl.DataFrame]]:
    if not by:
        yield (), frame
        return
    # Hive has one name for null and for the empty word.
    words = frame.with_columns(pl.when(pl.col(by).cast(pl.String) != "").then(pl.col(by)).name.keep())
    parts = words.partition_by(by, as_dict=True, maintain_order=True, include_key=False)
    yield from parts.items()


def _hive(by: Sequence[str], key: Sequence[Any]) -> str:
    return "".join(f"{name}={_directory(value)}/" for name, value in zip(by, key, strict=True))


def _directory(value: Any) -> str:
    if value is None:
        return "__HIVE_DEFAULT_PARTITION__"
    return re.sub(
        r"""["#%'*/:=?\\{}[\]^<>|\x00-\x1f\x7f]|\.(?=\.)|(?<=\.)\.""",
        lambda found: f"%{ord(found[0]):02X}",
        str(value),
    )


def _rows_sheet(book: Any, batches: Batches) -> None:
    sheet = book.add_worksheet("Rows")
    moment = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss.000"})
    quoted = book.add_format({"quote_prefix": True})
    formula = re.compile(FORMULA).match
    line = 0
    for frame in (batch.frame() for batch in batches):
        if line == 0:
            sheet.freeze_panes(1, 0)
            sheet.write_row(0, 0, frame.columns)
        if line + frame.height > EXCEL_ROWS:
            raise ExtractError(
                f"An Excel sheet holds {EXCEL_ROWS:,} rows, and there are more. Choose fewer with since, until and "
                "where, or write .parquet or .csv."
            )
        _check_texts(frame)
        _check_times(frame)
        for values in frame.iter_rows():
            line += 1
            for column, value in enumerate(values):
                if isinstance(value, str):
                    # Text stays text even when someone edits the cell.
                    sheet.write_string(line, column, value, quoted if formula(value) else None)
                elif value is not None:
                    sheet.write_datetime(line, column, value, moment)


def _about_sheet(book: Any, said: dict[str, Any]) -> None:
    created = datetime.fromisoformat(said["committed_at"]).replace(tzinfo=None)
    book.set_properties({"title": "Conversation rows of D22", "created": created})
    sheet = book.add_worksheet("About")
    for row, (name, value) in enumerate(said.items()):
        sheet.write_string(row, 0, name)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(text) > EXCEL_TEXT // 2:  # characters past U+FFFF count twice
            text = f"too long for a cell: see {DESCRIPTOR} beside this file"
        sheet.write_string(row, 1, text)


def _check_blank(frame: pl.DataFrame) -> None:
    if frame.select(pl.all_horizontal(pl.all().is_null()).any()).item():
        raise ExtractError(
            "Rows without any value would be blank lines of CSV, which readers skip. Choose public_id as well, or "
            "write .parquet."
        )


def _check_times(frame: pl.DataFrame) -> None:
    for column in frame.select(pl.col(pl.Datetime)):
        if (column < EXCEL_FIRST).any() or (column != column.dt.truncate("1ms")).any():
            raise ExtractError(
                f"Excel holds times from {EXCEL_FIRST:%Y-%m-%d} on, to the millisecond, and {column.name} has others. "
                "Write .parquet or .csv."
            )


def _check_texts(frame: pl.DataFrame) -> None:
    for column in frame.select(pl.col(pl.String)):
        # Excel counts what lies past U+FFFF, emoji for one, twice.
        if (column.str.len_chars() + column.str.count_matches(r"[^\x{0}-\x{FFFF}]") > EXCEL_TEXT).any():
            raise ExtractError(
                f"A text in {column.name} is longer than the {EXCEL_TEXT:,} characters that an Excel cell holds. "
                "Leave the column out, mask it, or write .parquet or .csv."
            )
