"""Outcomes, read once per distinct word, code and text; and which rows need their code and text for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from d22kit.questions._engines import run
from d22kit.questions.classify import KEYS, RESULT, classify_distinct

__all__ = ["CLOSED", "SETTLED", "STATED", "Part", "parted", "settled", "tell", "with_outcomes"]


def _spelt(*words: str) -> tuple[str, ...]:
    return tuple(spelt for word in words for spelt in (word, word.upper(), word.capitalize()))


_ARRIVED = _spelt("delivered", "read", "opened", "clicked", "seen")
SETTLED = (*_ARRIVED, *_spelt("sent", "accepted"))
"""Outcome words that need no code or text to be understood; other spellings only cost time."""

CLOSED = (
    *_ARRIVED,
    *_spelt("bounced", "undelivered", "failed", "rejected", "expired", "suppressed", "canceled"),
)
"""Outcome words that no code or text makes an open outcome of; other spellings only cost time."""

STATED = (
    *SETTLED,
    *_spelt("pending", "queued", "scheduled", "deferred", "delayed", "processing", "buffered"),
)
"""Outcome words whose state needs no code or text, though a cause may; other spellings only cost time."""

TEXTS = ("delivery_code", "delivery_error_detail")

_UNSETTLED = "word needs code and text"  # blanks, so that hardly any group has the names
_VERDICT = "number of the verdict"


class Part(NamedTuple):
    """Rows of a frame and the keys to count them by; `verdicts` by number, where rows were judged."""

    rows: Any
    keys: list[str]
    verdicts: pl.DataFrame | None = None


def settled(rows: Any, keys: Sequence[str], words: Sequence[str] = SETTLED) -> Part:
    """Leave out the codes and texts of rows whose outcome word is one of those that need neither.

    Parameters
    ----------
    rows
        A lazy narwhals frame.
    keys
        What the rows will be counted by. A code or text that is there twice, once as a group, is kept.
    """
    import narwhals.stable.v2 as nw

    flagged = rows.with_columns(_unsettled(words).alias(_UNSETTLED))  # once, for some engines test it per use
    kept = nw.when(nw.col(_UNSETTLED))
    return Part(
        flagged.with_columns(kept.then(nw.col(name)).alias(name) for name in _texts(keys)), list(keys)
    )


def parted(rows: Any, keys: Sequence[str], words: Sequence[str] = SETTLED, *, judge: bool) -> list[Part]:
    """Set the few rows apart that have a code or text to be read; the rest is `settled`.

    What Polars counts comes in two parts, since grouping millions by text is slow; where `judge` asks for it, the
    outcome columns that are no groups give way to the number of their verdict, so that no cell holds texts. For other
    engines another read or join costs more than it saves: one part, whose cells are judged when they are here.
    """
    import narwhals.stable.v2 as nw

    texts = _texts(keys)
    if not texts or not isinstance(rows.to_native(), pl.LazyFrame):
        return [settled(rows, keys, words)]
    held = nw.any_horizontal(*(~nw.col(name).is_null() for name in texts), ignore_nulls=True)
    told = _unsettled(words) & held
    silent = Part(rows.filter(~told), [key for key in keys if key not in texts])
    return [silent, _judged(rows.filter(told), keys) if judge else Part(rows.filter(told), list(keys))]


def _texts(keys: Sequence[str]) -> list[str]:
    return [name for name in TEXTS if list(keys).count(name) == 1]


def _unsettled(words: Sequence[str]) -> Any:
    import narwhals.stable.v2 as nw

    return ~nw.col("delivery_status").is_in(words).fill_null(False)


def _judged(rows: Any, keys: Sequence[str]) -> Part:
    """Give rows the number of their verdict; reads them once for their distinct outcomes."""
    import narwhals.stable.v2 as nw

    known = classify_distinct(run(rows.select(*KEYS).unique()))
    verdicts = known.select(RESULT).unique().with_row_index(_VERDICT)
    numbers = known.join(verdicts, on=RESULT, nulls_equal=True).select(*KEYS, _VERDICT)
    judged = rows.to_native().join(numbers.lazy(), on=KEYS, how="left", nulls_equal=True)
    return Part(nw.from_native(judged), [*_groups(keys), _VERDICT], verdicts)


def _groups(keys: Sequence[str]) -> list[str]:
    return [key for key in keys if key not in KEYS or list(keys).count(key) > 1]


def tell(cells: pl.DataFrame, part: Part, keys: Sequence[str]) -> pl.LazyFrame:
    """Put verdicts in place of their numbers, or of the outcome columns that are no groups."""
    if part.verdicts is not None:
        verdicts = part.verdicts.with_columns(pl.col(RESULT).cast(pl.Categorical))
        return cells.lazy().join(verdicts.lazy(), on=_VERDICT, how="left").drop(_VERDICT)
    spent = set(KEYS).intersection(cells.columns).difference(_groups(keys))
    return with_outcomes(cells.lazy()).drop(spent)


def with_outcomes(cells: pl.LazyFrame) -> pl.LazyFrame:
    """Add `delivery_state`, `bounce_category` and `bounce_permanence` to cells that have the outcome columns.

    Each distinct outcome is read once and joined back. A code or text that was left out is null.
    """
    columns = cells.collect_schema()
    held = [key for key in KEYS if key in columns]
    cases = cells.select(held).unique().collect()
    left_out = [pl.lit(None, pl.String).alias(name) for name in KEYS if name not in held]
    known = classify_distinct(cases.with_columns(left_out).with_columns(pl.col(KEYS).cast(pl.String)))
    told = cases.with_columns(known.select(pl.col(RESULT).cast(pl.Categorical)))
    return cells.join(told.lazy(), on=held, how="left", nulls_equal=True)
