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

_FIRST = "first"
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
    cells
        The distinct combinations of words.
    cell
        The number of each row's combination.
    """

    columns: tuple[str, ...]
    rows: pl.DataFrame
    cells: pl.DataFrame
    cell: pl.Series

    @classmethod
    def of(cls, texts: pl.DataFrame) -> Batch:
        """Find the combinations in a frame of texts."""
        columns = tuple(texts.columns)
        words = [name for name, dtype in texts.schema.items() if dtype == pl.String and name != KEY]
        if not words:
            return cls(columns, texts, pl.DataFrame(), pl.Series(dtype=pl.UInt32))
        first = texts.with_row_index(_FIRST).select(pl.col(_FIRST).first().over(words)).to_series()
        firsts = first.unique().sort()
        numbers = pl.int_range(len(firsts), dtype=pl.UInt32, eager=True)
        places = pl.zeros(texts.height, pl.UInt32, eager=True).scatter(firsts, numbers)
        return cls(columns, texts.drop(words), texts.select(words)[firsts], places.gather(first))

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self.rows.height

    def select(self, columns: Sequence[str]) -> Batch:
        """Choose and order the columns that are seen."""
        return replace(self, columns=tuple(columns))

    def count(self, words: Sequence[str]) -> pl.DataFrame:
        """Count the rows of each combination of some words, in a column `len`."""
        rows = self.cell.alias("cell").to_frame().group_by("cell").len().sort("cell")
        return self.cells.select(words).with_columns(rows["len"]).group_by(words).sum()

    def frame(self) -> pl.DataFrame:
        """Return the rows with their texts."""
        return pl.concat([self.rows, self.cells.select(pl.all().gather(self.cell))], how="horizontal").select(
            self.columns
        )

    def table(self) -> pa.Table:
        """Return the rows as Arrow takes them, with their words as dictionaries."""
        return pa.table({name: self._column(name) for name in self.columns})

    def _column(self, name: str) -> pa.Array:
        if name not in self.cells.columns:
            return self.rows[name].to_arrow(compat_level=_VIEWS)
        words = self.cells[name].drop_nulls().unique(maintain_order=True)
        codes = self.cells[name].cast(pl.Enum(words)).to_physical().cast(pl.Int32).gather(self.cell)
        return pa.DictionaryArray.from_arrays(codes.to_arrow(), words.to_arrow().cast(pa.string()))
