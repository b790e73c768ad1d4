"""Does it arrive? Outcomes that add up, how long they took, what is still open, what to correct."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from d22kit import schema
from d22kit.errors import InputError
from d22kit.questions._attach import attach
from d22kit.questions._cube import (
    PERIOD,
    Frame,
    as_of,
    check_years,
    collect,
    give_back,
    group_columns,
    in_periods,
    open_rows,
    ratio,
    run,
    small,
    tally,
)
from d22kit.questions._outcomes import ADDED, COUNTS, OPEN, OUTCOME, PERMANENCE, outcome_counts
from d22kit.questions._stats import wilson
from d22kit.questions._verdicts import CLOSED, SETTLED, STATED, with_outcomes
from d22kit.questions.calendar import Calendar, Clock
from d22kit.questions.classify import KEYS, RESULT, classify_distinct
from d22kit.questions.roles import RoleMap, load_roles

__all__ = ["backlog", "delivery", "time_to_last_update", "worklist"]

DELIVERY = (
    *COUNTS,
    "known",
    "receipt_coverage_share",
    "delivered_of_known_share",
    "delivered_of_known_share_lo",
    "delivered_of_known_share_hi",
    "delivered_of_attempted_share",
    "delivered_of_attempted_share_lo",
    "delivered_of_attempted_share_hi",
    "delivered_max_share",
    "bounced_of_attempted_share",
    "bounced_of_attempted_share_lo",
    "bounced_of_attempted_share_hi",
    "attempt_unmapped",
)
LATENCY = ("state", "n", "open", "negative", "p50_s", "p90_s", "p99_s")
BACKLOG = ("state", "age_band", "rows", "oldest")
WORKLIST = ("public_id", "platform", "category", "permanence", "last_seen")

EXACT = 200_000
"""Up to this many rows durations are kept to the microsecond; beyond, in logarithmic bins (within 1%)."""

BINS = 52
"""Bins per e-fold: their middles are within 1% of all they hold, or within a microsecond."""

BANDS = (
    ("under 1 h", 1),
    ("1 to 24 h", 24),
    ("1 to 3 days", 72),
    ("3 to 7 days", 168),
    ("over 7 days", None),
)
HOUR = 3_600_000_000


def delivery(
    frame: Frame,
    *,
    by: str | Iterable[str] = (),
    every: str = "day",
    tz: str = "UTC",
    calendar: Calendar | None = None,
    roles: RoleMap | None = None,
) -> Any:
    """Count what became of the messages created in each period: does it arrive?

    Parameters
    ----------
    frame, by, every, tz, calendar, roles
        As in `volume`.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        `period_start`, `period_end`, `period_state` (as in `volume`, and `immature`: the period ended less than
        72 hours before the newest `updated_at`, so its outcomes still move), the groups, `small` (under 30
        attempts), and these numbers of rows:

        - `attempted` = `pending` + `accepted` + `delivered` + `bounced` + `failed` + `unknown`: outbound rows that
          tried to send; `suppressed` stands beside it, no attempt;
        - `delivered` includes `read_receipts`, which machines set too; `bounced` = `bounced_hard` +
          `bounced_soft` + `bounced_block`; `known` = `delivered` + `bounced` + `failed`.

        Shares are 0–1, null without a denominator, with 95% Wilson limits `_lo` and `_hi`:
        `receipt_coverage_share` (`known` of `attempted`: where only failures send receipts, mistrust "of known"),
        `delivered_of_known_share`, `delivered_of_attempted_share`, `delivered_max_share` (if all that is still
        `pending` or `accepted` arrives), `bounced_of_attempted_share`. Last, `attempt_unmapped`: rows of which
        the role map cannot tell whether they are attempts; they are in no other column.

    Raises
    ------
    InputError
        As in `volume`.

    Notes
    -----
    Wilson limits treat rows as independent. Daily rates wobble more than that; judge changes with `compare`
    and `anomalies`, which estimate the wobble.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> import polars as pl
    >>> rows = pl.DataFrame({
    ...     "platform": "EMAIL", "type": "OUTBOUND", "operation": "SEND",
    ...     "delivery_status": ["DELIVERED", "read", "BOUNCED", "QUEUED"],
    ...     "delivery_code": ["250", None, "550", None],
    ...     "delivery_error_detail": [None, None, "550 5.1.1 user unknown", None],
    ...     "created_at": [datetime(2026, 5, 1, tzinfo=UTC)] * 4, "updated_at": [datetime(2026, 5, 9, tzinfo=UTC)] * 4,
    ... })
    >>> answer = delivery(rows)
    >>> answer.select("attempted", "delivered", "read_receipts", "bounced_hard", "pending").rows()
    [(4, 2, 1, 1, 1)]
    >>> answer.select("delivered_of_known_share", "delivered_max_share").rows()
    [(0.6666666666666666, 0.75)]
    """
    groups = group_columns(frame, by, (*PERIOD, "small", *DELIVERY, *ADDED))
    clock = Clock.of(every, tz, calendar)
    known = load_roles(roles)
    counts = collect(
        frame,
        [*groups, "type", "operation", *OUTCOME],
        **clock.cells,
        judge=True,
        then=lambda cells: tally(known.add(cells), groups, *outcome_counts()),
    )
    answer = in_periods(counts, groups, clock, as_of=as_of(counts))
    answer = answer.with_columns(
        known=pl.col("delivered") + pl.col("bounced") + pl.col("failed")
    ).with_columns(_shares())
    return give_back(answer.select(*PERIOD, *groups, small("attempted"), *DELIVERY), frame, as_of(counts))


def time_to_last_update(frame: Frame, *, by: str | Iterable[str] = ()) -> Any:
    """Measure the time from creation to the last recorded change, per current state.

    It is not the time to delivery: D22 keeps one change time, so a row that was delivered after a minute and
    read after a day counts a day. It takes every row of the frame: filter outbound rows first if that is meant.

    Parameters
    ----------
    frame, by
        As in `volume`.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        The groups, `state` (as `classify` gives it), `n` (rows with both times), `open` (of them, still pending
        or accepted: their time is a lower bound), `negative` (of them, changed before they were created; left out of
        the quantiles), `p50_s`, `p90_s`, `p99_s` (seconds; linear between neighbours, as in SQL's
        `percentile_cont`; exact up to 200,000 rows, else within 1%).

    Raises
    ------
    InputError
        Where a column is unknown.

    Examples
    --------
    >>> from datetime import datetime, timedelta, UTC
    >>> import polars as pl
    >>> start = datetime(2026, 5, 1, tzinfo=UTC)
    >>> rows = pl.DataFrame({
    ...     "platform": "SMS", "delivery_status": "DELIVERED", "delivery_code": None, "delivery_error_detail": None,
    ...     "created_at": [start] * 3, "updated_at": [start + timedelta(seconds=s) for s in (2, 4, 90)],
    ... })
    >>> time_to_last_update(rows).select("state", "n", "p50_s", "p90_s").rows()
    [('delivered', 3, 4.0, 72.8)]
    """
    import narwhals.stable.v2 as nw

    groups = group_columns(frame, by, (*LATENCY, *ADDED, "lasted"))
    lasted = nw.col(schema.VERSION) - nw.col(schema.CREATED)
    whole = collect(frame, [], step=None)
    precise = whole["rows"].item() <= EXACT
    cube = collect(
        frame,
        [*groups, *OUTCOME],
        step=None,
        judge=True,
        latest=False,
        derived={"lasted": lasted if precise else _bin(lasted)},
    )
    if not precise:
        cube = cube.with_columns(lasted=_middle(pl.col("lasted")))
    cube = cube.rename({"delivery_state": "state"})
    keys = [*groups, "state"]
    timed = cube.filter(pl.col("lasted").is_not_null()).group_by(*keys, "lasted").agg(pl.col("rows").sum())
    counts = timed.group_by(keys).agg(
        n=pl.col("rows").sum(), negative=pl.col("rows").filter(pl.col("lasted") < 0).sum()
    )
    quantiles = _quantiles(timed.filter(pl.col("lasted") >= 0), keys)
    answer = counts.join(quantiles, on=keys, how="left", nulls_equal=True).with_columns(
        open=pl.when(pl.col("state").is_in(OPEN)).then(pl.col("n")).otherwise(0)
    )
    return give_back(answer.select(*groups, *LATENCY).sort(keys, nulls_last=True), frame, as_of(whole))


def backlog(frame: Frame, *, by: str | Iterable[str] = (), roles: RoleMap | None = None) -> Any:
    """Count the attempts whose outcome is still open, by age: what are we waiting for?

    Parameters
    ----------
    frame, by, roles
        As in `volume`.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        The groups, `state` (`pending`, `accepted`), `age_band` (from `created_at` to the frame's newest `updated_at`:
        under 1 h, 1 to 24 h, 1 to 3 days, 3 to 7 days, over 7 days; null without `created_at`), `rows`, `oldest`
        (earliest `created_at`, UTC). `accepted` is often the last word ever heard, so an old one is no fault.

    Raises
    ------
    InputError
        Where a column is unknown.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> import polars as pl
    >>> rows = pl.DataFrame({
    ...     "platform": "EMAIL", "type": "OUTBOUND", "operation": "SEND",
    ...     "delivery_status": ["QUEUED", "DELIVERED"], "delivery_code": None, "delivery_error_detail": None,
    ...     "created_at": [datetime(2026, 5, 1, tzinfo=UTC)] * 2, "updated_at": [datetime(2026, 5, 3, tzinfo=UTC)] * 2,
    ... })
    >>> backlog(rows).select("state", "age_band", "rows").rows()
    [('pending', '1 to 3 days', 1)]
    """
    import narwhals.stable.v2 as nw

    groups = group_columns(frame, by, (*BACKLOG, *ADDED, "band"))
    created = nw.col(schema.CREATED)
    newest = as_of(collect(frame, [], step=None))
    known = load_roles(roles)
    cube = collect(
        frame,
        [*groups, "type", "operation", *OUTCOME],
        step=None,
        settle=STATED,
        latest=False,
        where=~nw.col("delivery_status").is_in(CLOSED).fill_null(False),
        derived={"band": _band(created, newest)},
        measures={"oldest": created.min()},
        then=lambda cells: with_outcomes(known.add(cells)),
    ).rename({"delivery_state": "state"})
    waiting = cube.filter(pl.col("attempted") & pl.col("state").is_in(OPEN))
    answer = waiting.group_by(*groups, "state", "band").agg(pl.col("rows").sum(), pl.col("oldest").min())
    names = {hours: band for hours, (band, _) in enumerate(BANDS)}
    answer = answer.sort(*groups, "state", "band", nulls_last=True).with_columns(
        age_band=pl.col("band").replace_strict(names, return_dtype=pl.String),
        oldest=pl.col("oldest").cast(pl.Datetime("us", "UTC")),
    )
    return give_back(answer.select(*groups, *BACKLOG), frame, newest)


def worklist(frame: Frame, *, permanence: str = "hard") -> Any:
    """List the rows that a team should correct: addresses that will never work, or what refused us.

    Parameters
    ----------
    frame
        Rows of D22, as in `volume`.
    permanence
        `"hard"` (the address is wrong), `"block"` (something on our side must change) or `"soft"`.

    Returns
    -------
    frame of the kind that came; lazy and engine frames give Polars
        `public_id`, `platform`, `category`, `permanence`, `last_seen` (its `updated_at`, UTC), newest first: the
        rows that bounced or failed in that way. No address, number or text of a person.

    Raises
    ------
    InputError
        Where the permanence is unknown.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> import polars as pl
    >>> when = [datetime(2026, 5, 1, tzinfo=UTC)] * 2
    >>> rows = pl.DataFrame({
    ...     "public_id": ["664a1b2c3d4e5f6071829455", "664a1b2c3d4e5f6071829456"], "platform": "EMAIL",
    ...     "delivery_status": ["BOUNCED", "DELIVERED"], "delivery_code": ["550", "250"],
    ...     "delivery_error_detail": ["550 5.1.1 user unknown", None], "created_at": when, "updated_at": when,
    ... })
    >>> worklist(rows).select("public_id", "category", "permanence").rows()
    [('664a1b2c3d4e5f6071829455', 'invalid_recipient', 'hard')]
    """
    if permanence not in PERMANENCE:
        raise InputError(f"permanence={permanence!r} is not known. Known: {', '.join(PERMANENCE)}.")
    import narwhals.stable.v2 as nw

    rows = open_rows(frame, [schema.KEY, *OUTCOME, schema.VERSION])
    known = run(rows.select(nw.col(schema.VERSION).max())).to_series()
    check_years(known, schema.VERSION)
    newest = known.cast(pl.Datetime("us", "UTC")).item()
    unsettled = rows.filter(~nw.col("delivery_status").is_in(SETTLED).fill_null(False))
    # Judged where the rows are, so that only those to be listed are collected.
    judged = nw.from_native(attach(unsettled.to_native(), KEYS, RESULT, _in_few_bytes))
    wanted = judged.filter(
        nw.col("delivery_state").is_in(("bounced", "failed")), nw.col("bounce_permanence") == permanence
    )
    found = run(wanted.select(schema.KEY, "platform", *RESULT[1:], schema.VERSION))
    found = found.sort(schema.VERSION, schema.KEY, descending=[True, False])
    answer = found.select(
        schema.KEY,
        pl.col("platform").cast(pl.String),
        category=pl.col("bounce_category").cast(pl.String),
        permanence=pl.col("bounce_permanence").cast(pl.String),
        last_seen=pl.col(schema.VERSION).cast(pl.Datetime("us", "UTC")),
    )
    return give_back(answer, frame, newest)


def _in_few_bytes(distinct: pl.DataFrame) -> pl.DataFrame:
    return classify_distinct(distinct).with_columns(pl.col(RESULT).cast(pl.Categorical))


def _shares() -> list[pl.Expr]:
    attempted, known = pl.col("attempted"), pl.col("known")
    delivered, bounced = pl.col("delivered"), pl.col("bounced")
    still_open = pl.sum_horizontal(OPEN)
    return [
        ratio(known, attempted).alias("receipt_coverage_share"),
        *_share("delivered_of_known_share", delivered, known),
        *_share("delivered_of_attempted_share", delivered, attempted),
        ratio(delivered + still_open, attempted).alias("delivered_max_share"),
        *_share("bounced_of_attempted_share", bounced, attempted),
    ]


def _share(name: str, part: pl.Expr, whole: pl.Expr) -> Sequence[pl.Expr]:
    lo, hi = wilson(part, whole)
    return ratio(part, whole).alias(name), lo.alias(f"{name}_lo"), hi.alias(f"{name}_hi")


def _bin(lasted: Any) -> Any:
    """Number the logarithmic bin, under 2% wide, that microseconds fall in; all that are negative share one."""
    import narwhals.stable.v2 as nw

    # From -1 on, so that one expression serves: the bins of -1 and 0 hold nothing else.
    return ((lasted.clip(lower_bound=-1) + 2).cast(nw.Float64).log() * BINS).floor().cast(nw.Int64)


def _middle(place: pl.Expr) -> pl.Expr:
    return ((place + 0.5) / BINS).exp().sub(2).round().cast(pl.Int64)


def _quantiles(timed: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Read quantiles from counted durations: linear between the two nearest rows."""
    ranked = timed.sort("lasted").with_columns(upto=pl.col("rows").cum_sum().over(keys, order_by="lasted"))

    def row(place: pl.Expr) -> pl.Expr:
        return pl.col("lasted").filter(pl.col("upto") > place).first()

    def at(q: float) -> pl.Expr:
        place = (pl.col("rows").sum() - 1) * q
        low, high = row(place.floor()), row(place.ceil())
        return (low + (high - low) * (place - place.floor())) / 1_000_000

    return ranked.group_by(keys).agg(p50_s=at(0.5), p90_s=at(0.9), p99_s=at(0.99))


def _band(created: Any, newest: Any) -> Any:
    import narwhals.stable.v2 as nw

    if newest is None:
        return nw.lit(None, nw.Int64)
    age = int(newest.timestamp() * 1_000_000) - created
    band: nw.Expr = nw.when(~created.is_null()).then(nw.lit(len(BANDS) - 1))
    for place, (_, hours) in reversed(list(enumerate(BANDS[:-1]))):
        band = nw.when(age < hours * HOUR).then(nw.lit(place)).otherwise(band)
    return band
