"""The rows as the service serves them: written to JSON once, so that a page is one slice of bytes."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from d22kit.schema import COLUMNS, EXTRA, KEY, VERSION

__all__ = ["CorruptCursorError", "Index", "cursor", "index"]

CHUNK = 50_000
US = 1_000_000


class CorruptCursorError(ValueError):
    """A cursor that this service never gave."""


@dataclass(frozen=True, slots=True)
class Index:
    """Every record a query scans, in the order `(updated_at, _id)`, and the lender's own rows among them.

    `own[i]` of the first `i` records are the lender's; their JSON lies in `text`, row `j` at
    `ends[j]:ends[j + 1]` with a comma at its end.
    """

    times: NDArray[np.int64]
    ids: pl.Series
    own: NDArray[np.int64]
    text: memoryview
    ends: NDArray[np.int64]

    def find(self, time: int, key: str = "", *, after: bool = False) -> int:
        """How many records lie before (or up to) `(time, key)`; a time is in microseconds since 1970."""
        first, last = np.searchsorted(self.times, [time, time + 1]).tolist()
        tied = self.ids[first:last].to_list()
        return int(first) + (bisect_right(tied, key) if after else bisect_left(tied, key))

    def rows(self, first: int, last: int, *, reverse: bool = False) -> bytes:
        """The JSON of the lender's rows among the records `first` to `last`, joined by commas."""
        a, b = self.own[first], self.own[last]
        if not reverse:
            return bytes(self.text[self.ends[a] : max(self.ends[a], self.ends[b] - 1)])
        return b",".join(
            bytes(self.text[self.ends[i] : self.ends[i + 1] - 1]) for i in range(b - 1, a - 1, -1)
        )

    def cursor(self, record: int) -> str:
        """The cursor whose boundary is that record."""
        return cursor(int(self.times[record]), self.ids[record])


def cursor(time: int, key: str) -> str:
    """Write a position down, sealed so that an altered one is noticed."""
    text = f"{time}:{key}".encode()
    return base64.urlsafe_b64encode(binascii.crc32(text).to_bytes(4) + text).decode().rstrip("=")


def position(text: str) -> tuple[int, str]:
    """Read a cursor.

    Raises
    ------
    CorruptCursorError
        Where it is not one of ours.
    """
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        raise CorruptCursorError(text) from None
    if len(raw) < 5 or binascii.crc32(raw[4:]).to_bytes(4) != raw[:4]:
        raise CorruptCursorError(text)
    time, _, key = raw[4:].decode().partition(":")
    return int(time), key


def index(frame: pl.DataFrame, others: pl.DataFrame | None = None) -> Index:
    """Write the lender's rows to JSON and put them in order among the rows of `others`."""
    mine = frame.sort(VERSION, KEY)
    text, ends = bytearray(), [np.zeros(1, np.int64)]
    for chunk in mine.iter_slices(CHUNK):
        lines = chunk.select(_json()).to_series().to_arrow(compat_level=pl.CompatLevel.oldest())
        _, offsets, data = lines.cast(pa.large_string()).buffers()
        ends.append(np.frombuffer(offsets, np.int64, len(chunk) + 1)[1:] + len(text))
        text += data
    keys = mine.select(pl.col(VERSION).to_physical(), KEY, pl.lit(1, pl.Int64).alias("own"))
    if others is not None:
        keys = pl.concat([keys, others.with_columns(pl.lit(0, pl.Int64).alias("own"))]).sort(VERSION, KEY)
    own = np.concatenate([[0], keys["own"].cum_sum().to_numpy()])
    return Index(keys[VERSION].to_numpy(), keys[KEY], own, memoryview(text), np.concatenate(ends))


def _json() -> pl.Expr:
    """One row as the service writes it, with the comma that follows."""
    fields = [
        _field(column.name, column.kind) for column in COLUMNS if column.path and "." not in column.path
    ]
    nested = [pl.col(c.name).alias(c.path.partition(".")[2]) for c in COLUMNS if "." in c.path]
    delivery = pl.struct(nested).alias("delivery_status")
    row = pl.struct(*fields[:-2], delivery, *fields[-2:]).struct.json_encode()
    more = "," + pl.col(EXTRA).str.strip_prefix("{")
    return pl.when(pl.col(EXTRA).is_null()).then(row).otherwise(row.str.strip_suffix("}") + more) + ","


def _field(name: str, kind: str) -> pl.Expr:
    if kind == "time":
        return pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
    return pl.col(name).cast(pl.String)
