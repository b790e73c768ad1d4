"""The one heavy step: any frame of rows becomes a small cube of counts; and the way back.

A question reads a frame once. `collect` counts rows in cells of UTC hours (quarter hours where the zone
needs them) and the columns asked for, where the data is; the cube that comes back is a small Polars frame, on
which `in_periods` does zones, weeks and gaps. `give_back` returns an answer as the kind of frame that came.

    groups = group_columns(frame, by, taken=COLUMNS)
    clock = Clock.of(every, tz, calendar)
    cube = collect(frame, [*groups, "type"], **clock.cells)   # hour, groups…, type, rows, latest
    cube = load_roles(roles).add(cube)                          # + direction
    counts = tally(cube, groups, pl.col("rows"), inbound=count(pl.col("direction") == "inbound"))
    answer = in_periods(counts, groups, clock, as_of=as_of(cube))
    return give_back(answer, frame, as_of(cube))
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import polars.selectors as cs

from d22kit import schema
from d22kit.questions._engines import TIMES, Frame, give_back, group_columns, open_rows, run
from d22kit.questions.calendar import HOUR_US, Clock
from d22kit.questions.classify import KEYS, RESULT, classify_distinct

__all__ = [
    "ARRIVED",
    "IMMATURE",
    "PERIOD",
    "SETTLED",
    "SMALL",
    "TIMES",
    "Frame",
    "as_of",
    "collect",
    "count",
    "give_back",
    "group_columns",
    "in_periods",
    "open_rows",
    "ratio",
    "run",
    "small",
    "tally",
]

PERIOD = ("period_start", "period_end", "period_state")

SMALL = 30
"""Fewer than this in the denominator, and a rate is flagged `small`: its interval is wider than most effects."""

IMMATURE = timedelta(hours=72)
"""How long after its end a period's outcomes still move.

RFC 5321 (4.5.4.1) has a sender retry for at least four to five days, but nearly all deferrals end within three:
greylisting ends within hours, and an SMS is commonly valid for 24 to 72 hours.
"""

ARRIVED = tuple(
    spelt
    for word in ("delivered", "read", "opened", "clicked", "seen")
    for spelt in (word, word.upper(), word.capitalize())
)
SETTLED = (*ARRIVED, "sent", "SENT", "Sent", "accepted", "ACCEPTED", "Accepted")
"""Outcome words that need no code or text to be understood; other spellings only cost time."""

_VERDICT = "number of the verdict"  # blanks, so that hardly any group has the name
_EPOCH_SHIFT = 720_000 * 24 * HOUR_US  # makes times since the year 1 positive: engines differ below


def collect(
    frame: Frame,
    keys: Sequence[str],
    *,
    step: int | None = HOUR_US,
    phase: int = 0,
    settle: bool = False,
    judge: bool = False,
    where: Any = None,
    reads: Sequence[str] = (),
    derived: dict[str, Any] | None = None,
    measures: dict[str, Any] | None = None,
) -> pl.DataFrame:
    """Count a frame's rows in cells: the cube that every question works on.

    Parameters
    ----------
    keys
        Columns of the frame that span the cells. Null is a value of its own.
    step
        Length of a cell in microseconds (`Clock.step`); None for no time at all.
    phase
        How far a cell begins before a multiple of its length: `**clock.cells` gives both, in whole days where
        the zone allows.
    settle
        Whether code and text are left out where the outcome word needs neither (delivered, read, sent,
        accepted), which keeps the cube small. A key given twice, once as a group, is left as it is.
    judge
        Whether a lazy frame is read twice, first for its distinct outcomes, so that its cells hold their verdicts
        and no texts: the four outcome columns among the keys, unless they are groups too, become `RESULT`.
    where
        Which rows, as a narwhals expression; all where it is left out.
    reads
        Columns of the frame that the following need, besides the keys and both times.
    derived
        More keys, as narwhals expressions on the columns of `open_rows`.
    measures
        More aggregates, likewise.

    Returns
    -------
    pl.DataFrame
        `hour` (start of the cell, UTC; null where `created_at` is), the keys (text where the frame has
        text or categories), `rows` (Int64), `latest` (newest `updated_at`, UTC) and the measures.
    """
    import narwhals.stable.v2 as nw

    rows = open_rows(frame, [*keys, *TIMES, *reads, *(["delivery_status"] if settle else [])])
    if settle:
        texts = [name for name in ("delivery_code", "delivery_error_detail") if list(keys).count(name) == 1]
        unsettled = ~nw.col("delivery_status").is_in(SETTLED).fill_null(False)
        rows = rows.with_columns(nw.when(unsettled).then(nw.col(name)).alias(name) for name in texts)
    spanned = dict(derived or {})
    if where is not None:
        rows = rows.filter(where)
    verdicts = None
    if judge and isinstance(frame, pl.LazyFrame):
        rows, verdicts = _judged(rows)
        keys = [*(key for key in keys if key not in KEYS or list(keys).count(key) > 1), _VERDICT]
    if step:
        created = nw.col(schema.CREATED)
        spanned["hour"] = created - (created + _EPOCH_SHIFT + phase) % step
    if spanned:
        rows = rows.with_columns(**spanned)
    totals = {"rows": nw.len(), "latest": nw.col(schema.VERSION).max(), **(measures or {})}
    # narwhals takes an empty name for an expression where it stands first.
    cells = sorted([*spanned, *dict.fromkeys(keys)], key=lambda name: name == "")
    counted = rows.group_by(*cells).agg(**totals) if cells else rows.select(**totals)
    cube = run(counted)
    if verdicts is not None:
        cube = cube.join(verdicts, on=_VERDICT, how="left").drop(_VERDICT)
    return _tidy(cube, [*(["hour"] if step else []), "latest"], [*totals][2:])


def _judged(rows: Any) -> tuple[Any, pl.DataFrame]:
    """Give the rows of a lazy frame the number of their verdict, and return the verdicts by number."""
    import narwhals.stable.v2 as nw

    known = classify_distinct(run(rows.select(*KEYS).unique()))
    verdicts = known.select(RESULT).unique().with_row_index(_VERDICT)
    numbers = known.join(verdicts, on=RESULT, nulls_equal=True).select(*KEYS, _VERDICT)
    judged = rows.to_native().join(numbers.lazy(), on=KEYS, how="left", nulls_equal=True)
    return nw.from_native(judged), verdicts


def as_of(cube: pl.DataFrame) -> datetime | None:
    """Return the newest `updated_at` of the rows (UTC): the moment the frame speaks of."""
    newest = cube["latest"].max()
    assert newest is None or isinstance(newest, datetime)
    return newest


def count(condition: pl.Expr) -> pl.Expr:
    """Return the rows of each cell that meet a condition, else 0; a null condition is not met."""
    return pl.when(condition).then(pl.col("rows")).otherwise(pl.lit(0, pl.Int64))


def tally(cube: pl.DataFrame, groups: Sequence[str], *measures: pl.Expr, **named: pl.Expr) -> pl.DataFrame:
    """Sum measures of a cube per hour and group, so that its other keys are gone before periods are cut."""
    totals = [*(measure.sum() for measure in measures), *(m.sum().alias(name) for name, m in named.items())]
    return cube.lazy().group_by("hour", *groups).agg(totals).collect()


def ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """Return a part of a whole, null where the whole is zero: never infinite, never a guess."""
    return pl.when(whole > 0).then(part / whole)


def small(n: str) -> pl.Expr:
    """Return the flag of rows whose denominator `n` is under `SMALL`."""
    return (pl.col(n) < SMALL).alias("small")


def in_periods(
    counts: pl.DataFrame,
    groups: Sequence[str],
    clock: Clock,
    *,
    as_of: datetime | None,
    fill: bool = True,
    matures: bool = True,
) -> pl.DataFrame:
    """Sum a cube's cells into periods of the clock's zone.

    Parameters
    ----------
    counts
        `hour`, the groups, and measures: every other column is summed.
    as_of
        The moment the frame speaks of; a period that ends after it is `partial`.
    fill
        Whether each group has every period from the frame's first to its last, with zeros.
    matures
        Whether a period that ended less than `IMMATURE` before `as_of` is `immature`.

    Returns
    -------
    pl.DataFrame
        `period_start`, `period_end` (in the clock's zone), `period_state` (`complete`, `partial`,
        `immature`, `undated`), groups, measures; sorted. Rows without `created_at` stand last, with no period
        and the state `undated`, so that totals are kept; where there are none, no such row.
    """
    groups = list(groups)
    measures = [name for name in counts.columns if name not in ("hour", *groups)]
    dated = counts.filter(pl.col("hour").is_not_null())
    combos = dated.select(groups).unique() if groups else None
    spans = clock.spans(dated["hour"].unique(), fill=fill, groups=1 if combos is None else combos.height)
    at = dated.with_columns(pl.col("hour").dt.convert_time_zone(clock.zone)).sort("hour")
    placed = at.join_asof(spans, left_on="hour", right_on="period_start").drop("hour")
    keys = ["period_start", "period_end", *groups]
    answer = placed.group_by(keys).agg(pl.col(measures).sum())
    if fill:
        grid = spans if combos is None else spans.join(combos, how="cross")
        answer = grid.join(answer, on=keys, how="left", nulls_equal=True).with_columns(
            pl.col(measures).fill_null(0)
        )
    answer = answer.with_columns(period_state=_state(as_of, matures))
    lost = counts.filter(pl.col("hour").is_null())
    if lost.height:
        undated = (
            lost.group_by(groups).agg(pl.col(measures).sum())
            if groups
            else lost.select(pl.col(measures).sum())
        )
        answer = pl.concat([answer, undated.with_columns(period_state=pl.lit("undated"))], how="diagonal")
    return answer.select(*PERIOD, *groups, *measures).sort("period_start", *groups, nulls_last=True)


def _state(as_of: datetime | None, matures: bool) -> pl.Expr:
    end = pl.col("period_end").dt.convert_time_zone("UTC")
    if as_of is None:
        return pl.lit("partial")
    moving = (end > as_of - IMMATURE) if matures else pl.lit(False)
    return (
        pl.when(end > as_of)
        .then(pl.lit("partial"))
        .when(moving)
        .then(pl.lit("immature"))
        .otherwise(pl.lit("complete"))
    )


def _tidy(cube: pl.DataFrame, instants: Sequence[str], measures: Sequence[str]) -> pl.DataFrame:
    """Give a cube the same types on every engine: counts are signed, so that differences may be negative."""
    return cube.with_columns(
        cs.by_dtype(pl.Categorical, pl.Enum, pl.Null).cast(pl.String),
        pl.col("rows", *measures).cast(pl.Int64),
        pl.col(instants).cast(pl.Datetime("us", "UTC")),
    )
