"""What became of rows, and their texts without personal data: looked up, since the same few cases come again."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import polars as pl

from d22kit.extracts.conditions import DETAIL
from d22kit.masking import mask
from d22kit.packages import OUTCOMES
from d22kit.questions.classify import classify_distinct

__all__ = ["CASE", "HIDDEN", "Outcomes"]

CASE = ("platform", "delivery_status", "delivery_code", DETAIL)
"""The columns that an outcome is read from."""

HIDDEN = "masked"
"""The column of masked texts."""

KNOWN = 50_000
"""Cases that are kept at hand from batch to batch."""

_SEEN = "seen"


class Outcomes:
    """Adds `OUTCOMES` and `HIDDEN` to combinations of words. Every case is read once, whatever batch it is in.

    Parameters
    ----------
    classified, masked
        Whether to add `OUTCOMES`, and `HIDDEN`.
    """

    def __init__(self, *, classified: bool, masked: bool) -> None:
        self._classified, self._masked = classified, masked
        self.adds = (*(OUTCOMES if classified else ()), *((HIDDEN,) if masked else ()))
        texts = dict.fromkeys((*CASE, *self.adds), pl.String())
        self._known = pl.Schema({**texts, _SEEN: pl.Boolean()}).to_frame()

    def __call__(self, cells: pl.DataFrame, near: Iterable[pl.DataFrame] = ()) -> pl.DataFrame:
        """Return the combinations, in their order, with what is known of them.

        Parameters
        ----------
        cells
            The combinations.
        near
            Combinations that come next: where a case is new, theirs are read as well, since few take as long as many.
        """
        known = self._look_up(cells.select(CASE).unique(), near).drop(_SEEN)
        return cells.join(known, on=CASE, how="left", nulls_equal=True, maintain_order="left")

    def _look_up(self, cases: pl.DataFrame, near: Iterable[pl.DataFrame]) -> pl.DataFrame:
        known = self._found(cases)
        fresh = known.filter(pl.col(_SEEN).is_null()).select(CASE)
        if fresh.is_empty():
            return known
        if self._known.height + fresh.height > KNOWN:
            self._known, fresh = self._known.clear(), cases
        fresh = pl.concat([fresh, *(cells.select(CASE) for cells in near)]).unique(maintain_order=True)
        fresh = fresh.join(self._known, on=CASE, how="anti", nulls_equal=True, maintain_order="left")
        room = max(KNOWN - self._known.height, cases.height)
        self._known = pl.concat([self._known, self._read(fresh.head(room))])
        return self._found(cases)

    def _found(self, cases: pl.DataFrame) -> pl.DataFrame:
        return cases.join(self._known, on=CASE, how="left", nulls_equal=True, maintain_order="left")

    def _read(self, cases: pl.DataFrame) -> pl.DataFrame:
        with ThreadPoolExecutor(1) as beside:
            hidden = beside.submit(mask, cases[DETAIL]) if self._masked else None
            read = classify_distinct(cases) if self._classified else cases
            masked = [hidden.result().alias(HIDDEN)] if hidden else []
            return read.with_columns(*masked, pl.lit(True).alias(_SEEN))
