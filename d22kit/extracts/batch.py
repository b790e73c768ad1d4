"""A batch: rows on their way into an extract, with every combination of their words held once.

Rows have few combinations of words, and these are classified, masked and counted instead of the rows. A Parquet file
takes its dictionaries over from them, so that no text is looked at twice. A batch knows no word but of its own rows:
what was not chosen must not travel in a dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl
import pyarrow as pa

from d22kit.schema import KEY

__all__ = ["Batch"]

_ROW = "row"
_WORDS = (pl.String, pl.Categorical)
_VIEWS = pl.CompatLevel.newest()
"""Of Arrow's texts: views, since the copy to contiguous ones costs a tenth of the writing."""


@dataclass(frozen=True)
class Batch:
    """Rows and the combinations of their words.

    Parameters
    ----------
    columns
        The columns that are seen, in order.
    rows
        Keys and times, row by row.
    cells, counts
        The distinct combinations of words, and the rows of each.
    cell
        The number of each row's combination.
    """

    columns: tuple[str, ...]
    rows: pl.DataFrame
    cells: pl.DataFrame
    counts: pl.Series
    cell: pl.Series

    @classmethod
    def of(cls, rows: pl.DataFrame) -> Batch:
        """Find the combinations in a frame of rows; words are texts or categories."""
        columns = tuple(rows.columns)
        words = [name for name, dtype in rows.schema.items() if dtype in _WORDS and name != KEY]
        none = pl.Series(dtype=pl.UInt32)
        if not words:
            return cls(columns, rows, pl.DataFrame(), none, none)
        row = pl.int_range(rows.height, dtype=pl.UInt32, eager=True)
        # A column of nulls parts no rows, and is as costly to look at as any other.
        parting = [name for name in words if rows[name].null_count() < rows.height] or words[:1]
        told = rows.select(parting).with_columns(row.alias(_ROW))
        same = told.select(pl.col(_ROW).first().over(parting), pl.len().over(parting))
        firsts = (same[_ROW] == row).arg_true()
        places = pl.zeros(len(row), pl.UInt32, eager=True).scatter(firsts, row.head(len(firsts)))
        counts, cell = same["len"].gather(firsts), places.gather(same[_ROW])
        cells = rows.select(pl.col(words).gather(firsts).cast(pl.String))
        return cls(columns, rows.drop(words), cells, counts, cell)

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self.rows.height

    def select(self, columns: Sequence[str]) -> Batch:
        """Choose and order the columns that are seen."""
        return replace(self, columns=tuple(columns))

    def count(self, words: Sequence[str]) -> pl.DataFrame:
        """Count the rows of each combination of some words, in a column `len`."""
        return self.cells.select(words).with_columns(self.counts.alias("len")).group_by(words).sum()

    def frame(self) -> pl.DataFrame:
        """Return the rows with their texts."""
        return pl.concat([self.rows, self.cells[self.cell]], how="horizontal").select(self.columns)

    def table(self) -> pa.Table:
        """Return the rows as Arrow takes them, with their words as dictionaries."""
        shown = [name for name in self.columns if name in self.cells.columns]
        words = {name: self.cells[name].drop_nulls().unique(maintain_order=True) for name in shown}
        coded = (self.cells[name].cast(pl.Enum(words[name])).to_physical() for name in shown)
        # All columns at once, since to gather one by one takes four times as long.
        codes = pl.DataFrame([*coded]).cast(pl.Int32)[self.cell] if shown else pl.DataFrame()
        columns = {
            name: _dictionary(codes[name], words[name])
            if name in words
            else self.rows[name].to_arrow(compat_level=_VIEWS)
            for name in self.columns
        }
        return pa.table(columns)


def _dictionary(codes: pl.Series, words: pl.Series) -> pa.Array:
    texts = words.to_arrow().cast(pa.string())
    # Unchecked: every code was made from these very words.
    return pa.DictionaryArray.from_arrays(codes.to_arrow(), texts, safe=False)
