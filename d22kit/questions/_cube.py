"""The one heavy step: any frame of rows becomes a small cube of counts; and the way back.

A question reads a frame once. `collect` counts rows in cells of time (`Clock.cells`) and the columns asked for,
where the data is; the cube that comes back is a small Polars frame, which `tally` makes smaller and on which
`in_periods` does zones, weeks and gaps. `give_back` returns an answer as the kind of frame that came.

    groups = group_columns(frame, by, taken=COLUMNS)
    clock = Clock.of(every, tz, calendar)
    known = load_roles(roles)

    def inbound(cells):                            # hour, groups…, type, rows, latest
        cells = known.add(cells)                   # + direction
        return tally(cells, groups, pl.col("rows"), inbound=count(pl.col("direction") == "inbound"))

    counts = collect(frame, [*groups, "type"], **clock.cells, then=inbound)
    answer = in_periods(counts, groups, clock, as_of=as_of(counts))
    return give_back(answer, frame, as_of(counts))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import polars.selectors as cs

from d22kit import schema
from d22kit.errors import InputError
from d22kit.questions._engines import TIMES, Frame, give_back, group_columns, open_rows, run
from d22kit.questions._verdicts import Part, parted, settled, tell
from d22kit.questions.calendar import HOUR_US, Clock

__all__ = [
    "IMMATURE",
    "PERIOD",
    "SMALL",
    "TIMES",
    "Frame",
    "as_of",
    "check_years",
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

DAY_US = 24 * HOUR_US

IMMATURE = timedelta(hours=72)
"""How long after its end a period's outcomes still move.

RFC 5321 (4.5.4.1) has a sender retry for at least four to five days, but nearly all deferrals end within three:
greylisting ends within hours, and an SMS is commonly valid for 24 to 72 hours.
"""

YEARS = (datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC))
"""What calendars can be laid over in any zone: Python ends at the years 1 and 9999."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_SHIFT = 720_000 * DAY_US  # makes times since the year 1 positive: engines differ below


def collect(
    frame: Frame,
    keys: Sequence[str],
    *,
    step: int | None = HOUR_US,
    phases: Sequence[int] = (0,),
    settle: Sequence[str] = (),
    judge: bool = False,
    latest: bool = True,
    where: Any = None,
    reads: Sequence[str] = (),
    derived: dict[str, Any] | None = None,
    measures: dict[str, Any] | None = None,
    then: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None,
) -> pl.DataFrame:
    """Count a frame's rows in cells: the cube that every question works on.

    Parameters
    ----------
    keys
        Columns of the frame that span the cells. Null is a value of its own.
    step
        Length of a cell in microseconds (`Clock.step`); None for no time at all.
    phases
        How far before each multiple of that length a cell begins; where there are several, at each of them.
        `**clock.cells` gives both.
    settle
        Outcome words, such as `SETTLED`, beside which code and text are left out: that keeps the cube small. A
        key given twice, once as a group, is left as it is.
    judge
        Whether, besides, the outcomes are read: the four outcome columns among the keys, unless they are groups
        too, become `RESULT`. The same verdict may then stand in two cells.
    latest
        Whether the newest `updated_at` of each cell is wanted.
    where
        Which rows, as a narwhals expression; all where it is left out.
    reads
        Columns of the frame that the following need, besides the keys and both times.
    derived
        More keys, as narwhals expressions on the columns of `open_rows`.
    measures
        More aggregates, likewise.
    then
        What to make of cells before others are counted, such as their `tally`: that keeps memory small. It may meet
        the cells in several parts, so that a sum of it is to be summed once more.

    Returns
    -------
    pl.DataFrame
        `hour` (start of the cell, UTC; null where `created_at` is), the keys (text where the frame has
        text or categories), `rows` (Int64), `latest` (newest `updated_at`, UTC) and the measures.
    """
    import narwhals.stable.v2 as nw

    rows = open_rows(frame, [*keys, *TIMES, *reads])
    if where is not None:
        rows = rows.filter(where)
    spanned = dict(derived or {})
    if step:
        created = nw.col(schema.CREATED)
        begun = [created - (created + _EPOCH_SHIFT + phase) % step for phase in phases]
        spanned["hour"] = nw.max_horizontal(*begun) if len(begun) > 1 else begun[0]
    if spanned:
        rows = rows.with_columns(**spanned)
    totals = {
        "rows": nw.len(),
        **({"latest": nw.col(schema.VERSION).max()} if latest else {}),
        **(measures or {}),
    }
    if judge:
        parts = parted(rows, keys, judge=True)
    elif settle:  # of rows that were filtered, those with texts are no longer few
        parts = (
            [settled(rows, keys, settle)] if where is not None else parted(rows, keys, settle, judge=False)
        )
    else:
        parts = [Part(rows, list(keys))]

    def cells(part: Part) -> pl.DataFrame:
        counted = _tidy(run(_counted(part, spanned, totals)), measures or ())
        told = tell(counted, part, keys) if judge else counted.lazy()
        made = then(told) if then else told
        words = cs.by_dtype(pl.Categorical, pl.Enum, pl.Null)
        return made.with_columns(words.cast(pl.String)).collect(engine="streaming")

    return pl.concat([cells(part) for part in parts], how="diagonal")


def _counted(part: Part, spanned: Iterable[str], totals: Mapping[str, Any]) -> Any:
    # narwhals takes an empty name for an expression where it stands first.
    cells = sorted([*spanned, *dict.fromkeys(part.keys)], key=lambda name: name == "")
    return part.rows.group_by(*cells).agg(**totals) if cells else part.rows.select(**totals)


def as_of(cube: pl.DataFrame) -> datetime | None:
    """Return the newest `updated_at` of the rows (UTC): the moment the frame speaks of."""
    newest = cube["latest"].max()
    assert newest is None or isinstance(newest, datetime)
    return newest


def check_years(
    microseconds: pl.Series, column: str, first: datetime = YEARS[0], last: datetime = YEARS[1]
) -> None:
    """Refuse times that no calendar holds: placeholders, or what only other engines can say."""
    lowest, highest = ((moment - EPOCH) // timedelta(microseconds=1) for moment in (first, last))
    if not microseconds.is_between(lowest, highest).all():
        raise InputError(
            f"{column} holds times beyond the years {first.year} to {last.year}, such as a placeholder. Filter them, "
            "or make them null."
        )


def count(condition: pl.Expr) -> pl.Expr:
    """Return the rows of each cell that meet a condition, else 0; a null condition is not met."""
    return pl.when(condition).then(pl.col("rows")).otherwise(pl.lit(0, pl.Int64))


def tally(cells: pl.LazyFrame, groups: Sequence[str], *measures: pl.Expr, **named: pl.Expr) -> pl.LazyFrame:
    """Sum measures of a cube per hour and group, so that its other keys are gone; `latest` stays."""
    given = [*measures, *(measure.alias(name) for name, measure in named.items())]
    return cells.group_by("hour", *groups).agg(pl.col("latest").max(), *(each.sum() for each in given))


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
        `hour`, the groups, and measures: every other column but `latest` is summed.
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
    measures = [name for name in counts.columns if name not in ("hour", "latest", *groups)]
    dated = pl.col("hour").is_not_null()
    combos = counts.filter(dated).select(groups).unique() if groups else None
    cells = counts["hour"].drop_nulls().unique().sort()
    spans = clock.spans(cells, fill=fill, groups=1 if combos is None else combos.height)
    local = cells.to_frame().with_columns(local=pl.col("hour").dt.convert_time_zone(clock.zone))
    places = local.join_asof(spans, left_on="local", right_on="period_start").drop("local").lazy()
    keys, total = ["period_start", "period_end", *groups], pl.col(measures).sum()
    answer = counts.lazy().join(places, on="hour").group_by(keys).agg(total)
    if fill:
        grid = spans if combos is None else spans.join(combos, how="cross")
        answer = grid.lazy().join(answer, on=keys, how="left", nulls_equal=True)
        answer = answer.with_columns(pl.col(measures).fill_null(0))
    answer = answer.with_columns(period_state=_state(as_of, matures))
    if counts["hour"].null_count():
        lost = counts.lazy().filter(~dated)
        undated = lost.group_by(groups).agg(total) if groups else lost.select(total)
        answer = pl.concat([answer, undated.with_columns(period_state=pl.lit("undated"))], how="diagonal")
    ordered = answer.select(*PERIOD, *groups, *measures).sort("period_start", *groups, nulls_last=True)
    return ordered.collect(engine="streaming")


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


def _tidy(cube: pl.DataFrame, measures: Iterable[str]) -> pl.DataFrame:
    """Give a cube the same types on every engine: counts are signed, so that differences may be negative."""
    instants = [name for name in ("hour", "latest") if name in cube.columns]
    if "hour" in instants:
        begun = cube["hour"].cast(pl.Int64)
        # A cell may begin a day before its rows.
        check_years(begun + (begun < 0).cast(pl.Int64) * DAY_US, schema.CREATED)
    if "latest" in instants:
        check_years(cube.select(pl.col("latest").max()).to_series(), schema.VERSION)
    return cube.with_columns(
        pl.col("rows", *measures).cast(pl.Int64),
        pl.col(instants).cast(pl.Datetime("us", "UTC")),
    )
